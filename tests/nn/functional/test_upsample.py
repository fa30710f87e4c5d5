"""interpolate: each mode against its definition in loops, gradients, layouts, refusals."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import faltung as torch
import faltung.nn.functional as F
from faltung import nn
from faltung.autograd import gradcheck, gradgradcheck

MODES = {
    1: ("nearest", "nearest-exact", "area", "linear"),
    2: ("nearest", "nearest-exact", "area", "bilinear", "bicubic"),
    3: ("nearest", "nearest-exact", "area", "trilinear"),
}
SIZES: dict[int, list[tuple[int, ...]]] = {
    1: [(7,), (3,), (5,), (10,), (1,)],
    2: [(7, 3), (4, 5), (8, 10), (2, 2)],
    3: [(3, 5, 2), (4, 2, 6)],
}
INPUT = {1: (2, 3, 5), 2: (2, 3, 4, 5), 3: (1, 2, 4, 3, 3)}
CASES = [
    (ndim, mode, size, align)
    for ndim, modes in MODES.items()
    for mode in modes
    for size in SIZES[ndim]
    for align in ((False, True) if "linear" in mode or "cubic" in mode else (None,))
]


def keys(distance: float, a: float) -> float:
    d = abs(distance)
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0


def row(mode: str, n: int, m: int, i: int, align: bool | None, scale: float | None = None) -> np.ndarray:
    """The weights of n inputs in output i of m."""
    w = np.zeros(n)
    step = scale or n / m
    if align:
        step = (n - 1) / (m - 1) if m > 1 else 0
    centre = i * step if align else (i + 0.5) * step - 0.5
    if mode == "nearest":
        w[min(math.floor(i * step), n - 1)] = 1
    elif mode == "nearest-exact":
        w[min(math.floor((i + 0.5) * step), n - 1)] = 1
    elif mode == "area":
        first, last = i * n // m, -(-(i + 1) * n // m)
        w[first:last] = 1 / (last - first)
    elif "linear" in mode:
        centre = max(centre, 0)
        below = min(int(centre), n - 1)
        share = centre - below
        w[below] += 1 - share
        w[min(below + 1, n - 1)] += share
    else:
        below = math.floor(centre)
        for k in range(-1, 3):
            w[min(max(below + k, 0), n - 1)] += keys(centre - below - k, -0.75)
    return w


def definition(x: np.ndarray, mode: str, size: tuple[int, ...], align: bool | None) -> np.ndarray:
    for axis, m in enumerate(size, start=2):
        matrix = np.stack([row(mode, x.shape[axis], m, i, align) for i in range(m)])
        x = np.moveaxis(np.moveaxis(x, axis, -1) @ matrix.T, -1, axis)
    return x


@pytest.mark.parametrize(("ndim", "mode", "size", "align"), CASES)
def test_values(ndim: int, mode: str, size: tuple[int, ...], align: bool | None) -> None:
    x = np.random.RandomState(0).randn(*INPUT[ndim])
    got = F.interpolate(torch.from_numpy(x), size=size, mode=mode, align_corners=align)
    np.testing.assert_allclose(got.numpy(), definition(x, mode, size, align), rtol=1e-9, atol=1e-12)
    single = F.interpolate(torch.from_numpy(x.astype(np.float32)), size=size, mode=mode, align_corners=align)
    assert single.dtype is torch.float32
    np.testing.assert_allclose(single.numpy(), definition(x, mode, size, align), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("ndim", "mode", "size", "align"), CASES)
def test_gradients(ndim: int, mode: str, size: tuple[int, ...], align: bool | None) -> None:
    x = torch.from_numpy(np.random.RandomState(0).randn(*INPUT[ndim])[:1, :1]).requires_grad_()
    operation = lambda t: F.interpolate(t, size=size, mode=mode, align_corners=align)  # noqa: E731
    assert gradcheck(operation, (x,))
    assert gradgradcheck(operation, (x,))


@pytest.mark.parametrize(("n", "factor"), [(5, 1.5), (4, 2.0), (7, 0.4), (3, 2.7)])
@pytest.mark.parametrize("recompute", [None, False, True])
def test_scale_factor(n: int, factor: float, recompute: bool | None) -> None:
    """The factor itself gives positions, unless it is to be recomputed from the rounded size."""
    x = np.random.RandomState(0).randn(1, 1, n)
    got = F.interpolate(torch.from_numpy(x), scale_factor=factor, mode="linear", recompute_scale_factor=recompute)
    m = int(n * factor)
    matrix = np.stack([row("linear", n, m, i, False, None if recompute else 1 / factor) for i in range(m)])
    np.testing.assert_allclose(got.numpy(), x @ matrix.T, rtol=1e-9)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "lanczos"])
def test_antialias_keeps_constants_and_skips_nothing(mode: str) -> None:
    ones = torch.ones(1, 1, 16, 16, dtype=torch.float64)
    np.testing.assert_allclose(F.interpolate(ones, size=(5, 3), mode=mode, antialias=True).numpy(), 1, rtol=1e-12)
    stripes = torch.zeros(1, 1, 1, 64, dtype=torch.float64)
    stripes[..., ::4] = 1
    got = F.interpolate(stripes, size=(1, 8), mode=mode, antialias=True).numpy()[..., 2:-2]
    np.testing.assert_allclose(got, 0.25, atol=0.05)
    x = torch.randn(1, 1, 6, 5, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda t: F.interpolate(t, size=(3, 7), mode=mode, antialias=True), (x,))


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic", "area"])
def test_layout_is_kept(mode: str) -> None:
    x = torch.randn(2, 3, 4, 5)
    last = x.to(memory_format=torch.channels_last)
    got = F.interpolate(last, size=(7, 8), mode=mode)
    assert got.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(got.numpy(), F.interpolate(x, size=(7, 8), mode=mode).numpy(), rtol=1e-5, atol=1e-6)
    part = torch.randn(2, 3, 8, 10)[:, :, ::2, ::2]
    whole = F.interpolate(part.clone(), size=(7, 8), mode=mode)
    np.testing.assert_allclose(F.interpolate(part, size=(7, 8), mode=mode).numpy(), whole.numpy(), rtol=1e-5, atol=1e-6)


def test_other_dtypes() -> None:
    image = torch.arange(16, dtype=torch.uint8).reshape(1, 1, 4, 4)
    assert F.interpolate(image, scale_factor=2)[0, 0, 0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    small = F.interpolate(image, size=(2, 2), mode="bilinear")
    assert small.dtype is torch.uint8
    assert small.flatten().tolist() == [2, 4, 10, 12]
    half = F.interpolate(image.half(), size=(2, 2), mode="bilinear")
    assert half.dtype is torch.float16
    assert F.interpolate(torch.ones(0, 2, 3, 3), size=5).shape == (0, 2, 5, 5)


X3, X4, X5 = torch.ones(1, 1, 4), torch.ones(1, 1, 4, 4), torch.ones(1, 1, 4, 4, 4)
REFUSED: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: F.interpolate(X4), ValueError, "either size or scale_factor should be defined"),
    (lambda: F.interpolate(X4, 2, 2), ValueError, "only one of size or scale_factor"),
    (lambda: F.interpolate(X4, (2, 2, 2)), ValueError, "same number of spatial dimensions"),
    (lambda: F.interpolate(X4, scale_factor=(2.0,)), ValueError, "same number of spatial dimensions"),
    (lambda: F.interpolate(X4, 2, align_corners=True), ValueError, "align_corners option can only be set"),
    (lambda: F.interpolate(X4, 2, recompute_scale_factor=True), ValueError, "not meaningful"),
    (lambda: F.interpolate(X4, 2.5), TypeError, "For a factor, use scale_factor="),
    (lambda: F.interpolate(X4, 2, antialias=True), ValueError, "Anti-alias option is restricted"),
    (lambda: F.interpolate(X4, 2, mode="linear"), NotImplementedError, "Got 4D input, but linear mode needs 3D"),
    (lambda: F.interpolate(X3, 2, mode="bilinear"), NotImplementedError, "bilinear mode needs 4D.*'linear'"),
    (lambda: F.interpolate(X5, 2, mode="bicubic"), NotImplementedError, "bicubic mode needs 4D"),
    (lambda: F.interpolate(X4, 2, mode="quintic"), NotImplementedError, "quintic"),
    (lambda: F.interpolate(torch.ones(4, 4), 2), NotImplementedError, "Only 3D, 4D and 5D"),
    (lambda: F.interpolate(X4, 0), RuntimeError, "greater than 0"),
    (lambda: F.interpolate(X4, scale_factor=0.1), RuntimeError, "greater than 0"),
    (lambda: F.interpolate(X4, scale_factor=math.nan), ValueError, "finite"),
    (lambda: F.interpolate(torch.ones(1, 1, 0, 4), 2), RuntimeError, "greater than 0"),
    (lambda: F.interpolate(X4, 2, mode="lanczos"), ValueError, "antialias=True"),
    (lambda: F.interpolate(X4.long(), 2, mode="bilinear"), NotImplementedError, "not implemented for faltung.int64"),
]


@pytest.mark.parametrize(("call", "kind", "message"), REFUSED)
def test_refusals(call: Callable[[], Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()


def test_older_names_and_modules() -> None:
    x = torch.randn(1, 2, 3, 4)
    with pytest.warns(UserWarning, match="deprecated"):
        assert torch.equal(F.upsample(x, 5), F.interpolate(x, 5))
    with pytest.warns(UserWarning, match="deprecated"):
        assert torch.equal(F.upsample_nearest(x, scale_factor=2), nn.UpsamplingNearest2d(scale_factor=2)(x))
    with pytest.warns(UserWarning, match="deprecated"):
        assert torch.equal(F.upsample_bilinear(x, (5, 6)), nn.UpsamplingBilinear2d((5, 6))(x))
    layer = nn.Upsample(scale_factor=(2, 1.5), mode="bicubic", align_corners=True)
    assert layer(x).shape == (1, 2, 6, 6)
    assert repr(layer) == "Upsample(scale_factor=(2.0, 1.5), mode='bicubic')"
    assert repr(nn.Upsample(5)) == "Upsample(size=5, mode='nearest')"


@pytest.mark.torch
@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "bilinear", "bicubic", "area"])
def test_float32_close_to_torch_over_many_sizes(mode: str) -> None:
    """Which pixel "nearest" takes hangs on float32 rounding: it must be PyTorch's."""
    real = pytest.importorskip("torch")
    x = np.random.RandomState(0).randn(1, 1, 17, 23).astype(np.float32)
    for size in [(n, m) for n in range(1, 60, 7) for m in range(1, 80, 9)]:
        theirs = real.nn.functional.interpolate(real.from_numpy(x), size=size, mode=mode).numpy()
        ours = F.interpolate(torch.from_numpy(x), size=size, mode=mode).numpy()
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=2e-5)
    for factor in (0.3, 0.7, 1.1, 1.9, 2.3, 3.7):
        theirs = real.nn.functional.interpolate(real.from_numpy(x), scale_factor=factor, mode=mode).numpy()
        ours = F.interpolate(torch.from_numpy(x), scale_factor=factor, mode=mode).numpy()
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=2e-5)
