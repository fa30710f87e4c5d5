"""pixel_shuffle, pixel_unshuffle, channel_shuffle."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import faltung as torch
import faltung.nn.functional as F
from faltung import nn


@pytest.mark.parametrize("batch", [(), (2,), (2, 3), (0,)])
@pytest.mark.parametrize("factor", [1, 2, 3])
def test_pixel_shuffle_and_back(batch: tuple[int, ...], factor: int) -> None:
    channels, height, width = 2, 3, 4
    x = torch.arange(float(np.prod([*batch, channels * factor**2, height, width]))).reshape(
        *batch, channels * factor**2, height, width
    )
    y = F.pixel_shuffle(x, factor)
    assert tuple(y.shape) == (*batch, channels, height * factor, width * factor)
    for c, h, w in np.ndindex(channels, height * factor, width * factor):
        source = c * factor**2 + (h % factor) * factor + w % factor
        np.testing.assert_array_equal(y[..., c, h, w].numpy(), x[..., source, h // factor, w // factor].numpy())
    assert torch.equal(F.pixel_unshuffle(y, factor), x)
    assert torch.equal(nn.PixelUnshuffle(factor)(nn.PixelShuffle(factor)(x)), x)


@pytest.mark.parametrize("spatial", [(3,), (2, 3), (2, 3, 2)])
def test_channel_shuffle(spatial: tuple[int, ...]) -> None:
    x = torch.randn(2, 6, *spatial)
    y = nn.ChannelShuffle(3)(x)
    assert torch.equal(y, x[:, torch.tensor([0, 2, 4, 1, 3, 5])])
    assert torch.equal(F.native_channel_shuffle(x, 3), y)
    assert torch.equal(F.channel_shuffle(y, 2), x)


def test_gradients_go_back_to_their_pixels() -> None:
    x = torch.randn(1, 8, 2, 2, requires_grad=True)
    seed = torch.randn(1, 2, 4, 4)
    F.pixel_shuffle(x, 2).backward(seed)
    assert x.grad is not None
    assert torch.equal(x.grad, F.pixel_unshuffle(seed, 2))


def test_channels_last_input() -> None:
    x = torch.randn(2, 8, 3, 3)
    assert torch.equal(F.pixel_shuffle(x.to(memory_format=torch.channels_last), 2), F.pixel_shuffle(x, 2))


X = torch.ones(1, 6, 4, 4)
REFUSED: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: F.pixel_shuffle(X, 2), RuntimeError, "divisible by the square of upscale_factor=2"),
    (lambda: F.pixel_shuffle(X, 0), RuntimeError, "positive upscale_factor, got 0"),
    (lambda: F.pixel_shuffle(X[0, 0], 1), RuntimeError, "at least 3 dimensions, got 2-d"),
    (lambda: F.pixel_shuffle(X, 1.5), TypeError, "upscale_factor must be an int"),
    (lambda: F.pixel_unshuffle(X, 3), RuntimeError, "height to be divisible by downscale_factor=3"),
    (lambda: F.pixel_unshuffle(X[..., :3], 4), RuntimeError, "width"),
    (lambda: F.pixel_unshuffle(X, -1), RuntimeError, "positive downscale_factor"),
    (lambda: F.channel_shuffle(X, 4), RuntimeError, "divisible by groups, got 6 channels and groups=4"),
    (lambda: F.channel_shuffle(X, 0), RuntimeError, "must be positive"),
    (lambda: F.channel_shuffle(X[0, 0], 2), RuntimeError, "> 2 dims"),
]


@pytest.mark.parametrize(("call", "kind", "message"), REFUSED)
def test_refusals(call: Callable[[], Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()
