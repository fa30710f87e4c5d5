"""Elementwise operations on tensors large enough for generated kernels, against NumPy in float64."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import faltung

SHAPE = (2, 40, 33, 35)  # more elements than any threshold
SMALL = [(2, 40, 1, 1), (1, 40, 1, 1), (40, 1, 1), (35,), (2, 1, 1, 1), (1, 40, 33, 35), (1, 1, 1, 1)]


def positive(shape: Any, seed: int) -> np.ndarray:
    """Numbers from 0.5 to 2: any function of them is accurate, and so is a quotient."""
    return np.random.default_rng(seed).uniform(0.5, 2.0, shape).astype(np.float32)


def tensor(values: np.ndarray, memory: str) -> Any:
    """A tensor of these values: contiguous, channels last, or with gaps."""
    if memory == "gaps":
        wide = np.repeat(values, 2, axis=-1)
        return faltung.from_numpy(wide)[..., ::2]
    found = faltung.from_numpy(values.copy())
    return found.to(memory_format=faltung.channels_last) if memory == "channels last" else found


MEMORY = ["contiguous", "channels last", "gaps"]
BINARY: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    # forward; (derivative by x, derivative by y)
    "add": (lambda x, y: x + y, lambda x, y: (np.ones_like(x), np.ones_like(x))),
    "sub": (lambda x, y: x - y, lambda x, y: (np.ones_like(x), -np.ones_like(x))),
    "mul": (lambda x, y: x * y, lambda x, y: (y + 0 * x, x)),
    "div": (lambda x, y: x / y, lambda x, y: (1 / (y + 0 * x), -x / y**2)),
}


def summed_to(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The sum over all dimensions along which `shape` is repeated."""
    full = (1,) * (values.ndim - len(shape)) + shape
    axes = tuple(axis for axis, size in enumerate(full) if size == 1)
    return values.sum(axis=axes, keepdims=True).reshape(shape)


@pytest.mark.parametrize("memory", MEMORY)
@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("small", SMALL, ids=str)
def test_broadcast(name: str, small: tuple[int, ...], memory: str) -> None:
    compute, derivatives = BINARY[name]
    x, y, gradient = positive(SHAPE, 0), positive(small, 1), positive(SHAPE, 2)
    wide_x, wide_y, wide_gradient = (values.astype(np.float64) for values in (x, y, gradient))
    for flipped in (False, True):
        a, b = tensor(x, memory).requires_grad_(), faltung.from_numpy(y.copy()).requires_grad_()
        found = compute(b, a) if flipped else compute(a, b)
        expected = compute(wide_y, wide_x) if flipped else compute(wide_x, wide_y)
        np.testing.assert_allclose(found.detach().numpy(), expected, rtol=2e-7)
        found.backward(faltung.from_numpy(gradient))
        slopes = derivatives(wide_y + 0 * wide_x, wide_x)[::-1] if flipped else derivatives(wide_x, wide_y)
        np.testing.assert_allclose(a.grad.numpy(), wide_gradient * slopes[0], rtol=1e-6)
        np.testing.assert_allclose(b.grad.numpy(), summed_to(wide_gradient * slopes[1], small), rtol=5e-6)


@pytest.mark.parametrize("memory", MEMORY)
@pytest.mark.parametrize("name", ["add_", "sub_", "mul_", "div_"])
def test_broadcast_in_place(name: str, memory: str) -> None:
    compute = BINARY[name[:-1]][0]
    for small in SMALL:
        x, y = positive(SHAPE, 0), positive(small, 1)
        a = tensor(x, memory)
        strides = a.stride()
        assert getattr(a, name)(faltung.from_numpy(y)) is a
        np.testing.assert_allclose(a.numpy(), compute(x.astype(np.float64), y.astype(np.float64)), rtol=2e-7)
        assert a.stride() == strides


def test_in_place_with_a_part_of_itself() -> None:
    x = positive(SHAPE, 0)
    a = faltung.from_numpy(x.copy())
    a.mul_(a[:1, :, :1, :1])
    np.testing.assert_array_equal(a.numpy(), x * x[:1, :, :1, :1])


@pytest.mark.parametrize("size", [3, 300])
def test_in_place_never_grows(size: int) -> None:
    a = faltung.ones(1, size, size)
    with pytest.raises(RuntimeError, match="doesn't match the broadcast shape"):
        a.add_(faltung.ones(2, size, size))
    with pytest.raises(RuntimeError, match="must match the size of tensor b"):
        a.add_(faltung.ones(size + 1))


@pytest.mark.parametrize("name", ["maximum", "minimum"])
def test_extremes(name: str) -> None:
    x, y = positive(SHAPE, 0), positive((40, 1, 1), 1)
    x[0, 0, 0, :2] = np.nan, np.inf
    expected = getattr(np, name)(x, y)
    a, b = faltung.from_numpy(x), faltung.from_numpy(y)
    np.testing.assert_array_equal(getattr(faltung, name)(a, b).numpy(), expected)
    np.testing.assert_array_equal(getattr(faltung, name)(b, a).numpy(), expected)
