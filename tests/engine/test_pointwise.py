"""Elementwise kernels: every formula, every tail, every memory order, NaN and infinity."""

from typing import Any

import numpy as np
import pytest

from faltung.engine import registry
from faltung.engine.kernels import flat, pointwise
from tests.engine.kernel_check import channels_last, check, floats, kernel, lanes, sizes_around

PARAMETERS: dict[str, list[dict[str, Any]]] = {
    "leaky_relu": [{"negative_slope": 0.1}],
    "elu": [{"alpha": 1.5, "scale": 1.1, "input_scale": 0.7}],
    "hardtanh": [{"low": -0.5, "high": 1.25}, {"low": 0.0, "high": 6.0}],
    "threshold": [{"threshold": 0.1, "value": 20.0}],
    "gelu": [{"approximate": "none"}, {"approximate": "tanh"}],
    "softplus": [{"beta": 2.0, "threshold": 20.0}],
    "softshrink": [{"lambd": 0.5}],
    "hardshrink": [{"lambd": 0.5}],
}
KEEPS_OUTPUT = {"relu", "leaky_relu", "sigmoid", "tanh", "elu", "hardtanh", "hardsigmoid"}
CASES = [(name, options) for name in registry._ACTIVATIONS for options in PARAMETERS.get(name, [{}])]
SPECIAL = np.array(
    [0.0, -0.0, np.nan, np.inf, -np.inf, 1e-40, -1e-40, 1e-30, 88.0, 89.0, -87.0, -103.0, -104.0, 3.0, -3.0, 0.6, -0.6],
    np.float32,
)


def values(count: int, seed: int = 0) -> np.ndarray:
    """Numbers of every magnitude."""
    mixed = floats(count, seed) * np.resize([0.01, 1.0, 4.0, 30.0], count)
    return mixed.astype(np.float32)


@pytest.mark.parametrize("name, options", CASES, ids=str)
def test_activation(name: str, options: dict[str, Any]) -> None:
    for count in [*sizes_around(lanes(), 4 * lanes()), flat.BLOCK + 3]:
        x = values(count)
        # absolute: where a formula cancels, as 1 + erf(x) does for x << 0, both are right to float32's last place of 1
        y = check(f"activation.{name}_forward", x, rtol=3e-6, atol=1e-6, **options)
        kept = y if name in KEEPS_OUTPUT else x
        check(f"activation.{name}_backward", values(count, 1), kept, rtol=5e-6, atol=3e-5, **options)


@pytest.mark.parametrize("name, options", CASES, ids=str)
def test_special_values(name: str, options: dict[str, Any]) -> None:
    check(f"activation.{name}_forward", SPECIAL, rtol=3e-6, atol=1e-6, **options)


EXACT: dict[str, Any] = {
    "neg": np.negative,
    "abs": np.abs,
    "sign": np.sign,
    "floor": np.floor,
    "ceil": np.ceil,
    "trunc": np.trunc,
    "round": np.rint,
    "square": np.square,
    "cube": lambda x: x * x * x,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "reciprocal": lambda x: 1 / x,
    "inverse_square": lambda x: 1 / (x * x),
}


@pytest.mark.parametrize("function", EXACT)
@np.errstate(all="ignore")
def test_exact_functions(function: str) -> None:
    """Every step of these rounds as IEEE 754 says, so NumPy's float32 has the same bits."""
    for count in [*sizes_around(lanes(), 4 * lanes()), flat.BLOCK + 3]:
        x = values(count)
        check(f"pointwise.{function}", np.abs(x) + 0.01 if "sqrt" in function else x, rtol=3e-7, atol=0.0)
        np.testing.assert_array_equal(registry.call(f"pointwise.{function}", x), EXACT[function](x))
    halves = np.arange(-4.5, 5.0, 0.5, dtype=np.float32)
    for x in (SPECIAL, halves, halves + np.float32(2**23)):
        np.testing.assert_array_equal(registry.call(f"pointwise.{function}", x), EXACT[function](x))
        place = x.copy()
        registry.call(f"pointwise.{function}", place, out=place)
        np.testing.assert_array_equal(place, EXACT[function](x))


@pytest.mark.parametrize("function", ["expm1", "log1p"])
def test_negative_zero_keeps_its_sign(function: str) -> None:
    x = np.full(flat.BLOCK, -0.0, np.float32)
    assert np.signbit(pointwise.run(function, (x,), (), None)).all()


@pytest.mark.parametrize("function", ["exp", "expm1", "log", "log1p"])
def test_elementary_functions(function: str) -> None:
    for count in [*sizes_around(lanes(), 4 * lanes()), flat.BLOCK + 3]:
        x = values(count)
        check(f"pointwise.{function}", np.abs(x) if "log" in function else np.clip(x, -80, 80), rtol=3e-7, atol=0.0)
    with np.errstate(all="ignore"):
        expected = getattr(np, function)(SPECIAL.astype(np.float64)).astype(np.float32)
    np.testing.assert_allclose(registry.call(f"pointwise.{function}", SPECIAL), expected, rtol=3e-7, atol=1e-44)


@pytest.mark.parametrize("low, high", [(-0.5, 1.25), (-np.inf, 0.5), (0.5, np.inf), (2.0, -2.0), (1e300, 1e300)])
@np.errstate(over="ignore")
def test_clamp(low: float, high: float) -> None:
    for x in (*map(values, sizes_around(lanes(), 4 * lanes())), SPECIAL):
        expected = np.minimum(np.maximum(x, np.float32(low)), np.float32(high))
        np.testing.assert_array_equal(registry.call("pointwise.clamp", x, low=low, high=high), expected)
        gradient = np.where((x >= low) & (x <= high), 3.0, 0.0)
        got = registry.call("pointwise.clamp_backward", np.full_like(x, 3.0), x, low=low, high=high)
        np.testing.assert_array_equal(got, gradient)
    check("pointwise.clamp", values(flat.BLOCK + 3), low=-0.5, high=1.25)


@pytest.mark.parametrize("slope", [name for name in registry._SLOPES if name != "clamp_backward"])
def test_slopes(slope: str) -> None:
    for count in [*sizes_around(lanes(), 4 * lanes()), flat.BLOCK + 3]:
        kept = floats(count, 1)
        kept = np.abs(kept) + 0.1 if slope.startswith(("sqrt", "log1p")) else kept
        check(f"pointwise.{slope}", values(count), kept, rtol=5e-7, atol=1e-6)


def test_relu_keeps_nan() -> None:
    x = np.array([np.nan, -1.0, 2.0], np.float32)
    y = registry.call("activation.relu_forward", x)
    np.testing.assert_array_equal(y, [np.nan, 0.0, 2.0])
    np.testing.assert_array_equal(registry.call("activation.relu_backward", x, y), [np.nan, 0.0, 2.0])


@pytest.mark.parametrize("function", registry.ARITHMETIC)
@pytest.mark.parametrize("number", [False, True], ids=["array", "number"])
def test_arithmetic(function: str, number: bool) -> None:
    for count in [*sizes_around(lanes(), 4 * lanes(), flat.BLOCK), 3 * flat.BLOCK + 7]:
        a, b = values(count), np.asarray(np.float32(1.7)) if number else floats(count, 1)
        check(f"pointwise.{function}", a, b, rtol=1e-7, atol=0.0)


@pytest.mark.parametrize("shape", [(), (3, 0, 2), (2, 5, 7, 3), (1, 17, 1, 9)])
def test_memory_order_is_kept(shape: tuple[int, ...]) -> None:
    for x in (floats(shape), floats(shape).T, channels_last(floats(shape)) if len(shape) == 4 else floats(shape)):
        y = check("activation.relu_forward", x)
        assert y.strides == x.strides or y.size < 2
        gy = np.ascontiguousarray(floats(x.shape, 3)).reshape(x.shape)
        assert check("activation.relu_backward", gy, y).strides == y.strides


def test_gaps_and_other_types_are_refused() -> None:
    refuse, _ = kernel("activation.relu_forward")
    assert refuse(floats((4, 6))[:, ::2])
    assert refuse(floats(8).astype(np.float64))
    assert refuse(np.broadcast_to(floats(8), (3, 8)))
    refuse_add, _ = kernel("pointwise.add")
    assert refuse_add(floats((4, 6)), floats(6))
    assert refuse_add(floats((4, 6)), floats((6, 4)).T)


def test_in_place() -> None:
    a, b = floats(1000), floats(1000, 1)
    expected = a + b
    assert registry.call("pointwise.add", a, b, out=a) is a
    np.testing.assert_array_equal(a, expected)
    expected = np.maximum(a, 0)
    registry.call("activation.relu_forward", a, out=a)
    np.testing.assert_array_equal(a, expected)


def test_in_place_over_a_shifted_operand() -> None:
    a = floats(10_000)
    expected = a.copy()
    expected[1:] += expected[:-1].copy()
    registry.call("pointwise.add", a[1:], a[:-1], out=a[1:])
    np.testing.assert_array_equal(a, expected)


def test_results_past_the_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flat, "streams", lambda nbytes: True)
    x = floats(5 * flat.BLOCK + 11)
    y = registry.call("activation.relu_forward", x)
    np.testing.assert_array_equal(y, np.maximum(x, 0))


@pytest.mark.parametrize(
    "function, oracle, ulps, low, high",
    [
        ("exp", np.exp, 1.2, -104.0, 89.0),
        ("log", np.log, 1.0, 1e-45, 3e38),
        ("expm1", np.expm1, 1.6, -104.0, 89.0),
        ("log1p", np.log1p, 1.5, 1e-45, 3e38),
        ("log1p", np.log1p, 1.5, -1.0, 2.0),
        ("tanh_forward", np.tanh, 1.6, -12.0, 12.0),
        ("sigmoid_forward", lambda x: 1 / (1 + np.exp(-x)), 2.1, -100.0, 100.0),
    ],
)
def test_stated_errors(function: str, oracle: Any, ulps: float, low: float, high: float) -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(low, high, 200_000)
    near_zero = np.copysign(10.0 ** rng.uniform(-44, 1, 200_000), rng.uniform(-1, 1, 200_000))
    x = np.concatenate([x, near_zero if low < 0 else np.abs(near_zero)]).astype(np.float32)
    y = pointwise.run(function, (x,), (), None).astype(np.float64)
    with np.errstate(all="ignore"):
        expected = oracle(x.astype(np.float64))
        rounded = expected.astype(np.float32)
    finite = np.isfinite(rounded)
    np.testing.assert_array_equal(y[~finite], rounded[~finite])
    spacing = np.spacing(np.maximum(np.abs(rounded[finite]), np.float32(1e-45))).astype(np.float64)
    assert (np.abs(y[finite] - expected[finite]) / spacing).max() <= ulps
