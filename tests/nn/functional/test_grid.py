"""grid_sample and affine_grid: loops over output pixels as the oracle, derivatives, refusals."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import faltung as torch
import faltung.nn.functional as F
from faltung.autograd import gradcheck, gradgradcheck

OPTIONS = list(itertools.product(("zeros", "border", "reflection"), (False, True)))


def inside(x: float, size: int, padding: str, align: bool) -> float:
    if padding == "reflection":
        low, high = (0.0, size - 1.0) if align else (-0.5, size - 0.5)
        if high == low:
            x = 0.0
        else:
            while not low <= x <= high:
                x = 2 * low - x if x < low else 2 * high - x
    return x if padding == "zeros" else min(max(x, 0.0), size - 1.0)


def keys(d: float) -> float:
    a, d = -0.75, abs(d)
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0


def sample(image: np.ndarray, point: np.ndarray, mode: str, padding: str, align: bool) -> np.ndarray:
    """image (C, *spatial), point in -1..1 with x first -> (C,)."""
    sizes = image.shape[1:]
    at = [((p + 1) * (s - 1) / 2 if align else ((p + 1) * s - 1) / 2) for p, s in zip(point[::-1], sizes, strict=True)]
    if mode != "bicubic":
        at = [inside(x, s, padding, align) for x, s in zip(at, sizes, strict=True)]
    total = np.zeros(image.shape[0])
    reach = {"nearest": (0,), "bilinear": (0, 1), "bicubic": (-1, 0, 1, 2)}[mode]
    for steps in itertools.product(reach, repeat=len(sizes)):
        weight, pixel = 1.0, []
        for x, step, size in zip(at, steps, sizes, strict=True):
            place = round(x) if mode == "nearest" else math.floor(x) + step
            weight *= {"nearest": 1.0, "bilinear": 1 - abs(x - place), "bicubic": keys(x - place)}[mode]
            pixel.append(int(inside(place, size, padding, align)) if mode == "bicubic" else place)
        if all(0 <= p < s for p, s in zip(pixel, sizes, strict=True)):
            total += weight * image[(slice(None), *pixel)]
    return total


def operands(dims: int) -> tuple[torch.Tensor, torch.Tensor]:
    random = np.random.RandomState(0)
    x = random.randn(2, 2, *(3, 4, 5)[:dims])
    grid = random.uniform(-1.7, 1.7, (2, *(3, 2, 2)[:dims], dims))
    return torch.from_numpy(x), torch.from_numpy(grid)


@pytest.mark.parametrize(("padding", "align"), OPTIONS)
@pytest.mark.parametrize(
    ("dims", "mode"), [(2, "bilinear"), (2, "nearest"), (2, "bicubic"), (3, "bilinear"), (3, "nearest")]
)
def test_values_and_gradients(dims: int, mode: str, padding: str, align: bool) -> None:
    x, grid = operands(dims)
    got = F.grid_sample(x, grid, mode, padding, align).numpy()
    for place in np.ndindex(*grid.shape[:-1]):
        expected = sample(x.numpy()[place[0]], grid.numpy()[place], mode, padding, align)
        np.testing.assert_allclose(got[(place[0], slice(None), *place[1:])], expected, rtol=1e-9, atol=1e-12)
    x, grid = x[:1, :1].clone().requires_grad_(), grid[:1, :2, :1].clone().requires_grad_()
    operation = lambda a, b: F.grid_sample(a, b, mode, padding, align)  # noqa: E731
    assert gradcheck(operation, (x, grid))
    if mode != "nearest":
        assert gradgradcheck(operation, (x, grid))


def test_nan_and_huge_positions_give_no_garbage() -> None:
    grid = torch.tensor([[[[math.nan, 0.0], [1e30, 0.0], [-math.inf, 0.0]]]])
    image = torch.ones(1, 1, 3, 3)
    assert F.grid_sample(image, grid, "nearest", align_corners=True).flatten().tolist() == [0, 0, 0]
    assert F.grid_sample(image, grid, "nearest", "border", align_corners=True).flatten().tolist() == [1, 1, 1]


def test_identity_transform_returns_the_image() -> None:
    x = torch.randn(2, 3, 4, 5)
    theta = torch.tensor([[1.0, 0, 0], [0, 1, 0]]).expand(2, 2, 3)
    for align in (False, True):
        grid = F.affine_grid(theta, x.shape, align)
        np.testing.assert_allclose(F.grid_sample(x, grid, align_corners=align).numpy(), x.numpy(), atol=1e-5)


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("size", [(2, 1, 3, 4), (1, 1, 2, 3, 4), (1, 1, 1, 5)])
def test_affine_grid(size: tuple[int, ...], align: bool) -> None:
    dims = len(size) - 2
    theta = torch.from_numpy(np.random.RandomState(0).randn(size[0], dims, dims + 1)).requires_grad_()
    got = F.affine_grid(theta, size, align).detach().numpy()
    for place in np.ndindex(size[0], *size[2:]):
        n, *at = place
        point = [
            0.0 if s == 1 else (-1 + 2 * i / (s - 1) if align else (2 * i + 1) / s - 1)
            for i, s in zip(at, size[2:], strict=True)
        ]
        expected = theta.detach().numpy()[n] @ np.array([*point[::-1], 1.0])
        np.testing.assert_allclose(got[place], expected, rtol=1e-9, atol=1e-12)
    assert gradcheck(lambda t: F.affine_grid(t, size, align), (theta,))


def test_default_alignment_is_announced() -> None:
    x, grid = operands(2)
    with pytest.warns(UserWarning, match="align_corners"):
        F.grid_sample(x, grid)
    with pytest.warns(UserWarning, match="align_corners"):
        F.affine_grid(torch.ones(1, 2, 3), (1, 1, 2, 2))


X, G = torch.ones(2, 1, 3, 3), torch.zeros(2, 4, 4, 2)
T = torch.ones(1, 2, 3)
REFUSED: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: F.grid_sample(X, G, "cubic", align_corners=True), ValueError, "mode"),
    (lambda: F.grid_sample(X, G, "bilinear", "wrap", True), ValueError, "padding_mode"),
    (lambda: F.grid_sample(X[0], G, align_corners=True), RuntimeError, "4D or 5D"),
    (lambda: F.grid_sample(X, G[:1], align_corners=True), RuntimeError, "same batch size"),
    (lambda: F.grid_sample(X, G[..., :1], align_corners=True), RuntimeError, "size 2 in last dimension"),
    (lambda: F.grid_sample(X[:, :, :0], G, align_corners=True), RuntimeError, "non-empty spatial"),
    (lambda: F.grid_sample(X, G.double(), align_corners=True), RuntimeError, "one dtype"),
    (
        lambda: F.grid_sample(X[:, :, None], G[:, None, ..., [0, 1, 1]], "bicubic", "zeros", True),
        RuntimeError,
        "4D input",
    ),
    (lambda: F.affine_grid(T.long(), (1, 1, 2, 2), True), ValueError, "floating point"),
    (lambda: F.affine_grid(T, (1, 1, 2), True), NotImplementedError, "4D and 5D"),
    (lambda: F.affine_grid(T[0], (1, 1, 2, 2), True), ValueError, "affine matrices"),
    (lambda: F.affine_grid(T, (1, 1, 2, 0), True), ValueError, "positive output size"),
]


@pytest.mark.parametrize(("call", "kind", "message"), REFUSED)
def test_refusals(call: Callable[[], Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()


@pytest.mark.torch
@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("size", [5, 28, 64])
def test_identity_takes_derivatives_on_the_side_pytorch_does(size: int, align: bool) -> None:
    """There every position is a pixel's centre, where the derivative jumps: rounding decides."""
    real = pytest.importorskip("torch")
    x = np.random.RandomState(0).randn(1, 2, size, size + 3).astype(np.float32)
    results = []
    for library in (torch, real):
        theta = library.from_numpy(np.array([[[1, 0, 0], [0, 1, 0]]], np.float32)).requires_grad_()
        grid = library.nn.functional.affine_grid(theta, x.shape, align_corners=align)
        library.nn.functional.grid_sample(library.from_numpy(x), grid, align_corners=align).pow(2).sum().backward()
        results.append((grid.detach().numpy(), theta.grad.numpy()))
    (our_grid, ours), (their_grid, theirs) = results
    np.testing.assert_array_equal(our_grid, their_grid)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-2)
