"""Arithmetic with an operand repeated along dimensions: every pattern, memory order, tail and block."""

from typing import Any

import numpy as np
import pytest

from faltung.engine import registry
from faltung.engine.kernels import broadcast, flat
from tests.engine.kernel_check import channels_last, check, floats, kernel, lanes, sizes_around

FUNCTIONS = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.true_divide, "maximum": np.maximum,
    "minimum": np.minimum,
}  # fmt: skip
PATTERNS = [
    ((4, 7, 5, 6), (4, 7, 1, 1)),
    ((4, 7, 5, 6), (1, 7, 1, 1)),
    ((4, 7, 5, 6), (7, 1, 1)),
    ((4, 7, 5, 6), (6,)),
    ((4, 7, 5, 6), (4, 1, 1, 1)),
    ((4, 7, 5, 6), (4, 1, 5, 6)),
    ((4, 7, 5, 6), (1, 7, 5, 6)),
    ((4, 7, 5, 6), (1, 1, 1, 1)),
    ((4, 7, 5, 6), ()),
    ((1, 7, 1, 6), (7, 1, 1)),
    ((40, 10), (10,)),
    ((40, 10), (40, 1)),
    ((17,), (1,)),
]


def checked(function: str, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    result: np.ndarray = check(f"pointwise.{function}", a, b, label="broadcast", rtol=1e-7, atol=0.0)
    return result


@pytest.mark.parametrize("dense, small", PATTERNS, ids=str)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_patterns(function: str, dense: tuple[int, ...], small: tuple[int, ...]) -> None:
    x, other = floats(dense), np.asarray(np.abs(floats(small, 1)) + 0.5)
    orders = [x, channels_last(x), np.asfortranarray(x)] if x.ndim == 4 else [x, np.asfortranarray(x)]
    for values in orders:
        assert checked(function, values, other).strides == values.strides
        divisor = np.abs(values) + 0.5
        assert checked(function, other, divisor).strides == divisor.strides


def test_row_lengths() -> None:
    for inner in sizes_around(lanes(), 4 * lanes(), broadcast.SHORT_ROW)[1:]:
        for rows in (1, 2, 97):
            checked("sub", floats((3, rows, inner)), floats((3, 1, inner), 1))
            checked("sub", floats((3, rows, inner)), floats((3, rows, 1), 1))
            checked("div", floats((rows, 1), 1), np.abs(floats((2, rows, inner))) + 0.5)


def test_blocks() -> None:
    for inner in [*sizes_around(flat.BLOCK)[2:], 2 * flat.BLOCK + 5]:
        checked("add", floats((3, inner)), floats((3, 1), 1))
        checked("add", floats((3, inner)), floats(inner, 1))
    for rows in (flat.BLOCK // 64 - 1, flat.BLOCK // 64 + 1, 3 * flat.BLOCK // 64 + 2):
        checked("mul", floats((2, rows, 64)), floats((2, 1, 64), 1))
        checked("mul", floats((2, rows, 64)), floats((rows, 1), 1))


def test_short_rows_are_made_longer() -> None:
    shape, small = (2, 1000, 3), (2, 1, 3)
    plan = broadcast.plan_for(shape, floats(shape).strides, small, floats(small).strides)
    assert isinstance(plan, broadcast.Plan)
    assert plan.inner > broadcast.SHORT_ROW
    assert plan.rows * plan.inner == 6000
    for rows in (1000, 997, 7, 1):
        checked("mul", floats((2, rows, 3)), floats((2, 1, 3), 1))
        checked("mul", floats((rows, 3)), floats(3, 1))


def test_small_operands_of_any_memory_order() -> None:
    x, scale = floats((4, 7, 5, 6)), floats((7, 4), 1).T[:, :, None, None]
    for values in (x, channels_last(x)):
        checked("mul", values, scale)
        checked("mul", values, floats((8, 14, 1, 1))[::2, ::-2])
        checked("mul", values, channels_last(floats((1, 7, 5, 6))))
        checked("sub", np.broadcast_to(scale, x.shape), values)  # strides of zero, as a mean's gradient has them


@pytest.mark.parametrize("function", FUNCTIONS)
def test_special_values(function: str) -> None:
    special = np.array([0.0, -0.0, np.nan, np.inf, -np.inf, 1e-40, 3e38, -2.0, 1.0], np.float32)
    for a, b in ((np.tile(special, (9, 1)), special[:, None]), (special, np.tile(special, (9, 1)).T)):
        _, run = kernel(f"pointwise.{function}", "broadcast")
        with np.errstate(all="ignore"):
            np.testing.assert_array_equal(run(a, b), FUNCTIONS[function](a, b))


def test_refusals() -> None:
    refuse, _ = kernel("pointwise.add", "broadcast")
    x = floats((4, 6))
    for a, b in (
        (x[:, ::2], floats(3)),
        (x, floats(6).astype(np.float64)),
        (x.astype(np.float64), floats(6)),
        (x, floats((2, 1, 6))),
        (floats((4, 1)), floats((1, 6))),
        (x, floats(5)),
        (floats((4, 0)), floats((4, 1))),
        (floats((2, 3, 2, 3)), floats((2, 1, 2, 1))),
    ):
        assert refuse(a, b)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_in_place(function: str) -> None:
    for x in (floats((5, 8, 3, 4)), channels_last(floats((5, 8, 3, 4)))):
        other = np.abs(floats((8, 1, 1), 1)) + 0.5
        expected = FUNCTIONS[function](x, other)
        assert registry.call(f"pointwise.{function}", x, other, out=x) is x
        np.testing.assert_array_equal(x, expected)


def test_in_place_over_a_part_of_itself() -> None:
    x = floats((50, 60))
    expected = x - x[:1].copy()
    registry.call("pointwise.sub", x, x[:1], out=x)
    np.testing.assert_array_equal(x, expected)


def test_results_past_the_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flat, "streams", lambda nbytes: True)
    x, scale = floats((8, 16, 20, 64)), floats(64, 1)
    np.testing.assert_array_equal(registry.call("pointwise.mul", x, scale), x * scale)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_nothing(shape: Any) -> None:
    assert registry.call("pointwise.mul", floats(shape), floats((shape[0], 1))).shape == shape
