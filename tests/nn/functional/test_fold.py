"""unfold and fold: loops as the oracle, each the other's transpose, refusals."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import faltung as torch
import faltung.nn.functional as F
from faltung import nn
from faltung.autograd import gradcheck, gradgradcheck

CASES: list[tuple[tuple[int, ...], dict[str, Any]]] = [
    ((2, 3, 5, 6), {"kernel_size": 3}),
    ((1, 2, 7, 7), {"kernel_size": (2, 3), "stride": (3, 2)}),
    ((2, 1, 6, 5), {"kernel_size": 2, "dilation": (2, 3), "padding": 1}),
    ((1, 2, 4, 4), {"kernel_size": (1, 4), "padding": (0, 2), "stride": 2}),
    ((3, 4, 5), {"kernel_size": 2}),
    ((0, 3, 4, 5), {"kernel_size": 2}),
]


def pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


def columns_of(x: np.ndarray, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> np.ndarray:
    (kh, kw), (dh, dw), (ph, pw), (sh, sw) = map(pair, (kernel_size, dilation, padding, stride))
    n, c, h, w = x.shape
    down, across = (h + 2 * ph - dh * (kh - 1) - 1) // sh + 1, (w + 2 * pw - dw * (kw - 1) - 1) // sw + 1
    out = np.zeros((n, c * kh * kw, down * across))
    for b, ch, i, j, y, z in np.ndindex(n, c, kh, kw, down, across):
        row, column = y * sh - ph + i * dh, z * sw - pw + j * dw
        if 0 <= row < h and 0 <= column < w:
            out[b, (ch * kh + i) * kw + j, y * across + z] = x[b, ch, row, column]
    return out


@pytest.mark.parametrize(("shape", "options"), CASES, ids=str)
def test_unfold_values_and_gradients(shape: tuple[int, ...], options: dict[str, Any]) -> None:
    x = torch.from_numpy(np.random.RandomState(0).randn(*shape)).requires_grad_()
    got = F.unfold(x, **options)
    full = x.detach().numpy().reshape((1,) * (4 - len(shape)) + shape)
    expected = columns_of(full, **options)
    np.testing.assert_array_equal(got.detach().numpy(), expected if len(shape) == 4 else expected[0])
    if x.numel():
        assert gradcheck(lambda t: F.unfold(t, **options), (x,))


@pytest.mark.parametrize(("shape", "options"), CASES, ids=str)
def test_fold_is_the_transpose_of_unfold(shape: tuple[int, ...], options: dict[str, Any]) -> None:
    random = np.random.RandomState(0)
    x = torch.from_numpy(random.randn(*shape))
    columns = F.unfold(x, **options)
    y = torch.from_numpy(random.randn(*columns.shape))
    image = F.fold(y, shape[-2:], **options)
    assert image.shape == x.shape
    assert (columns * y).sum().item() == pytest.approx((x * image).sum().item())
    if x.numel():
        y.requires_grad_()
        assert gradcheck(lambda t: F.fold(t, shape[-2:], **options), (y,))
        assert gradgradcheck(lambda t: F.fold(t, shape[-2:], **options), (y,))


def test_unfold_times_weights_is_a_convolution() -> None:
    x, weight = torch.randn(2, 3, 6, 6, dtype=torch.float64), torch.randn(4, 3, 3, 3, dtype=torch.float64)
    columns = nn.Unfold(3, padding=1)(x)
    y = nn.Fold(6, 1)(weight.reshape(4, -1) @ columns)
    np.testing.assert_allclose(y.numpy(), F.conv2d(x, weight, padding=1).numpy(), rtol=1e-10)


X = torch.ones(1, 2, 4, 4)
REFUSED: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: F.unfold(X, 5), RuntimeError, "does not fit input"),
    (lambda: F.unfold(X, 0), RuntimeError, "kernel_size must be positive"),
    (lambda: F.unfold(X, 2, stride=0), RuntimeError, "stride must be positive"),
    (lambda: F.unfold(X, 2, dilation=-1), RuntimeError, "dilation must be positive"),
    (lambda: F.unfold(X, 2, padding=-1), RuntimeError, "padding must not be negative"),
    (lambda: F.unfold(X[0, 0], 2), RuntimeError, r"4-d \(N, C, H, W\) or 3-d"),
    (lambda: F.unfold(torch.ones(1, 0, 4, 4), 2), RuntimeError, "only the batch"),
    (lambda: F.unfold(X, (1, 2, 3)), RuntimeError, "kernel_size must be an int or 2 of them"),
    (lambda: F.unfold(X, 2.0), TypeError, "kernel_size"),
    (lambda: F.fold(torch.ones(1, 5, 9), 4, 2), RuntimeError, "divisible by the product of kernel_size"),
    (lambda: F.fold(torch.ones(1, 8, 8), 4, 2), RuntimeError, r"3 \* 3 sliding blocks"),
    (lambda: F.fold(torch.ones(8), 4, 2), RuntimeError, "3-d"),
    (lambda: F.fold(torch.ones(1, 8, 9), 4, (2, 2, 2)), RuntimeError, "kernel_size"),
]


@pytest.mark.parametrize(("call", "kind", "message"), REFUSED)
def test_refusals(call: Callable[[], Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()


def test_repr() -> None:
    assert repr(nn.Unfold((2, 3), padding=1)) == "Unfold(kernel_size=(2, 3), dilation=1, padding=1, stride=1)"
    assert repr(nn.Fold(4, 2)) == "Fold(output_size=4, kernel_size=2, dilation=1, padding=0, stride=1)"
