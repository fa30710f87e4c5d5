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


UNARY: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    # function of a tensor or an array with these methods; derivative of an array
    "neg": (lambda t: -t, lambda x: -np.ones_like(x)),
    "abs": (abs, np.sign),
    "exp": (lambda t: t.exp(), np.exp),
    "expm1": (lambda t: t.expm1(), np.exp),
    "log": (lambda t: t.log(), lambda x: 1 / x),
    "log1p": (lambda t: t.log1p(), lambda x: 1 / (1 + x)),
    "sqrt": (lambda t: t.sqrt(), lambda x: 0.5 * x**-0.5),
    "rsqrt": (lambda t: t.rsqrt(), lambda x: -0.5 * x**-1.5),
    "reciprocal": (lambda t: t.reciprocal(), lambda x: -(x**-2.0)),
    "square": (lambda t: t.square(), lambda x: 2 * x),
    "clamp": (lambda t: t.clamp(0.75, 1.5), lambda x: ((x >= 0.75) & (x <= 1.5)).astype(x.dtype)),
    "clamp from below": (lambda t: t.clamp(min=0.75), lambda x: (x >= 0.75).astype(x.dtype)),
    **{
        f"to the power {p}": ((lambda t, p=p: t**p), (lambda x, p=p: p * x ** (p - 1)))
        for p in (2, 3, 0.5, -0.5, -1, -2, 1.5)
    },
}
NUMPY_UNARY: dict[str, Callable[..., Any]] = {
    "neg": np.negative,
    "rsqrt": lambda x: x**-0.5,
    "clamp": lambda x: np.clip(x, 0.75, 1.5),
    "clamp from below": lambda x: np.maximum(x, 0.75),
}


@pytest.mark.parametrize("memory", MEMORY)
@pytest.mark.parametrize("name", UNARY)
def test_unary(name: str, memory: str) -> None:
    compute, derivative = UNARY[name]
    oracle = NUMPY_UNARY.get(name, compute if "power" in name else getattr(np, name, None))
    for shape in (SHAPE, (4, 4)):
        x, gradient = positive(shape, 0), positive(shape, 2)
        wide = x.astype(np.float64)
        for values, sense in ((x, wide), (-x, -wide)):
            if values is not x and name not in ("neg", "abs", "exp", "expm1", "square", "clamp", "to the power 3"):
                continue
            a = tensor(values, memory if len(shape) == 4 else "contiguous").requires_grad_()
            found = compute(a)
            np.testing.assert_allclose(found.detach().numpy(), oracle(sense), rtol=3e-7)
            found.backward(faltung.from_numpy(gradient))
            np.testing.assert_allclose(a.grad.numpy(), gradient * derivative(sense), rtol=2e-6)


def test_second_derivatives_of_large_tensors() -> None:
    """The fused gradients have none: where a graph is wanted, they are not used."""
    for name in UNARY:
        compute, derivative = UNARY[name]
        x = faltung.from_numpy(positive(SHAPE, 0)).requires_grad_()
        (first,) = faltung.autograd.grad(compute(x).sum(), x, create_graph=True)
        np.testing.assert_allclose(first.detach().numpy(), derivative(x.detach().numpy()), rtol=2e-6, err_msg=name)
        if name not in ("neg", "abs", "clamp", "clamp from below"):
            assert first.requires_grad, name


@pytest.mark.parametrize(
    "name", ["neg_", "abs_", "exp_", "log_", "sqrt_", "rsqrt_", "reciprocal_", "square_", "floor_"]
)
def test_unary_in_place(name: str) -> None:
    for memory in MEMORY:
        x = positive(SHAPE, 0)
        a = tensor(x, memory)
        strides, expected = a.stride(), getattr(faltung, name[:-1])(faltung.from_numpy(x)).numpy()
        assert getattr(a, name)() is a
        np.testing.assert_allclose(a.numpy(), expected, rtol=3e-7)
        assert a.stride() == strides


def test_clamp_in_place() -> None:
    x = positive(SHAPE, 0)
    x[0, 0, 0, :3] = np.nan, np.inf, -np.inf
    for limits in ((0.75, 1.5), (None, 1.0), (1.0, None), (2.0, 1.0)):
        low, high = (default if given is None else given for given, default in zip(limits, (-np.inf, np.inf)))
        expected = np.minimum(np.maximum(x, np.float32(low)), np.float32(high))
        np.testing.assert_array_equal(faltung.from_numpy(x.copy()).clamp_(*limits).numpy(), expected)
        np.testing.assert_array_equal(faltung.from_numpy(x).clamp(*limits).numpy(), expected)
    assert np.isnan(faltung.from_numpy(x.copy()).clamp_(float("nan"), 1.0).numpy()).all()


@pytest.mark.parametrize("dtype", [faltung.float64, faltung.int64, faltung.float16])
def test_other_types_are_not_generated(dtype: Any) -> None:
    x = (faltung.arange(70_000) % 7 - 3).to(dtype)
    numbers = x.numpy()
    np.testing.assert_array_equal((-x).numpy(), -numbers)
    np.testing.assert_array_equal(x.abs().numpy(), np.abs(numbers))
    np.testing.assert_array_equal(x.square().numpy(), numbers * numbers)
    np.testing.assert_array_equal(x.clamp(-1, 2).numpy(), np.clip(numbers, -1, 2))
    np.testing.assert_array_equal((x**3).numpy(), numbers * numbers * numbers)
    assert (-x).dtype is x.square().dtype is x.clamp(-1, 2).dtype is (x**2).dtype is dtype


@pytest.mark.parametrize("memory", MEMORY)
@pytest.mark.parametrize("small", [SHAPE, (40, 1, 1), (1, 1, 33, 35)], ids=str)
def test_where(small: tuple[int, ...], memory: str) -> None:
    x, y, gradient = (positive(SHAPE, seed) for seed in range(3))
    holds = positive(small, 3) < 1.0
    a, b = tensor(x, memory).requires_grad_(), tensor(y, memory).requires_grad_()
    condition = faltung.from_numpy(holds)
    for first, second, expected in (
        (a, b, np.where(holds, x, y)),
        (a, -1.5, np.where(holds, x, np.float32(-1.5))),
        (-1.5, b, np.where(holds, np.float32(-1.5), y)),
    ):
        found = faltung.where(condition, first, second)
        np.testing.assert_array_equal(found.detach().numpy(), expected)
        found.backward(faltung.from_numpy(gradient))
    np.testing.assert_array_equal(a.grad.numpy(), 2 * np.where(holds, gradient, 0))
    np.testing.assert_array_equal(b.grad.numpy(), 2 * np.where(holds, 0, gradient))


@pytest.mark.parametrize("memory", MEMORY)
@pytest.mark.parametrize("small", [SHAPE, (40, 1, 1), (1, 1, 33, 35)], ids=str)
def test_masked_fill(small: tuple[int, ...], memory: str) -> None:
    x, gradient, mask = positive(SHAPE, 0), positive(SHAPE, 1), positive(small, 3) < 1.0
    a, value = tensor(x, memory).requires_grad_(), faltung.tensor(0.25, requires_grad=True)
    found = a.masked_fill(faltung.from_numpy(mask), value)
    np.testing.assert_array_equal(found.detach().numpy(), np.where(mask, np.float32(0.25), x))
    found.backward(faltung.from_numpy(gradient))
    np.testing.assert_array_equal(a.grad.numpy(), np.where(mask, 0, gradient))
    total = np.where(mask, gradient, 0).sum(dtype=np.float64)
    np.testing.assert_allclose(value.grad.numpy(), total, rtol=1e-6)
    b = tensor(x, memory)
    strides = b.stride()
    assert b.masked_fill_(faltung.from_numpy(mask), float("inf")) is b
    np.testing.assert_array_equal(b.numpy(), np.where(mask, np.float32(np.inf), x))
    assert b.stride() == strides


def test_a_mask_may_be_larger() -> None:
    x, mask = positive((1, 300), 0), positive((300, 300), 1) < 1.0
    found = faltung.from_numpy(x).masked_fill(faltung.from_numpy(mask), 2.0)
    np.testing.assert_array_equal(found.numpy(), np.where(mask, np.float32(2.0), x))
    with pytest.raises(RuntimeError, match="broadcast"):
        faltung.from_numpy(x).masked_fill_(faltung.from_numpy(mask), 2.0)


def _huber(error: np.ndarray, delta: float) -> np.ndarray:
    return np.where(np.abs(error) <= delta, 0.5 * error**2, delta * (np.abs(error) - 0.5 * delta))


def _bce(p: np.ndarray, t: np.ndarray) -> np.ndarray:
    return -(t * np.log(p) + (1 - t) * np.log1p(-p))


LOSSES: dict[str, tuple[dict[str, float], Callable[..., Any], Callable[..., Any]]] = {
    # name: options; value and derivative by x of two float64 arrays
    "mse_loss": ({}, lambda x, t: (x - t) ** 2, lambda x, t: 2 * (x - t)),
    "l1_loss": ({}, lambda x, t: np.abs(x - t), lambda x, t: np.sign(x - t)),
    "smooth_l1_loss": (
        {"beta": 0.3},
        lambda x, t: _huber(x - t, 0.3) / 0.3,
        lambda x, t: np.clip((x - t) / 0.3, -1, 1),
    ),
    "huber_loss": ({"delta": 0.4}, lambda x, t: _huber(x - t, 0.4), lambda x, t: np.clip(x - t, -0.4, 0.4)),
    "binary_cross_entropy": ({}, _bce, lambda x, t: (x - t) / (x * (1 - x))),
    "binary_cross_entropy_with_logits": (
        {},
        lambda x, t: _bce(1 / (1 + np.exp(-x)), t),
        lambda x, t: 1 / (1 + np.exp(-x)) - t,
    ),
}


@pytest.mark.parametrize("memory", MEMORY)
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("name", LOSSES)
def test_losses(name: str, reduction: str, memory: str) -> None:
    options, value, derivative = LOSSES[name]
    for shape in (SHAPE, (4, 4)):
        x, target = positive(shape, 0) / 2.1, positive(shape, 1) / 2.1  # between 0 and 1
        wide_x, wide_target = x.astype(np.float64), target.astype(np.float64)
        a = tensor(x, memory if len(shape) == 4 else "contiguous").requires_grad_()
        t = faltung.from_numpy(target).requires_grad_()
        loss = getattr(faltung.nn.functional, name)(a, t, **options, reduction=reduction)
        expected = value(wide_x, wide_target)
        expected = {"none": expected, "mean": expected.mean(), "sum": expected.sum()}[reduction]
        np.testing.assert_allclose(loss.detach().numpy(), expected, rtol=2e-6, atol=1e-6)
        gradient = positive(loss.shape, 2)
        loss.backward(faltung.from_numpy(np.asarray(gradient)))
        scale = gradient / x.size if reduction == "mean" else gradient
        slope = derivative(wide_x, wide_target) * scale
        np.testing.assert_allclose(a.grad.numpy(), slope, rtol=3e-6, atol=1e-6 * np.abs(slope).max())
        if not name.startswith("binary"):
            np.testing.assert_allclose(t.grad.numpy(), -slope, rtol=3e-6, atol=1e-6 * np.abs(slope).max())


def test_large_probabilities_are_checked() -> None:
    p, target = faltung.from_numpy(positive(SHAPE, 0) / 2.1), faltung.zeros(SHAPE)
    for wrong in (1.5, -0.25, float("nan")):
        bad = p.clone()
        bad[1, 2, 3, 4] = wrong
        for arrays in ((bad, target), (p, bad)):
            with pytest.raises(RuntimeError, match="should be between 0 and 1"):
                faltung.nn.functional.binary_cross_entropy(*arrays)
