"""Choosing by truth values: numbers and arrays, memory orders, tails, repeated conditions, in place."""

from typing import Any

import numpy as np
import pytest

from faltung.engine import registry
from faltung.engine.kernels import flat
from tests.engine.kernel_check import channels_last, check, floats, kernel, lanes, sizes_around


def truths(shape: Any, seed: int = 5) -> np.ndarray:
    """Random truth values; always an array."""
    return np.asarray(np.random.default_rng(seed).random(shape) < 0.4)


def number(value: float) -> np.ndarray:
    return np.asarray(value, np.float32)


def checked(condition: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    result: np.ndarray = check("pointwise.where", condition, x, y, rtol=0.0, atol=0.0)
    return result


@pytest.mark.parametrize("x_is_number", [False, True], ids=["x array", "x number"])
@pytest.mark.parametrize("y_is_number", [False, True], ids=["y array", "y number"])
def test_sizes(x_is_number: bool, y_is_number: bool) -> None:
    for count in [*sizes_around(lanes(), 4 * lanes(), flat.BLOCK), 3 * flat.BLOCK + 7]:
        x = number(np.nan) if x_is_number else floats(count)
        y = number(-np.inf) if y_is_number else floats(count, 1)
        checked(truths(count), x, y)


def test_special_values_pass_untouched() -> None:
    special = np.array([np.nan, np.inf, -np.inf, -0.0, 1e-45, 3e38], np.float32)
    found = checked(truths((9, 6)), np.tile(special, (9, 1)), np.tile(special[::-1], (9, 1)))
    expected = np.where(truths((9, 6)), special, special[::-1])
    np.testing.assert_array_equal(found.view(np.int32), expected.view(np.int32))


def test_memory_orders() -> None:
    x, y, condition = floats((3, 5, 4, 6)), floats((3, 5, 4, 6), 1), truths((3, 5, 4, 6))
    orders = (np.ascontiguousarray, channels_last, np.asfortranarray)
    for of_x in orders:
        for other in orders:
            assert checked(other(condition), of_x(x), y).strides == of_x(x).strides
            assert checked(condition, number(2.0), other(y)).strides == other(y).strides
        checked(of_x(condition), of_x(x), of_x(y))
        assert checked(of_x(condition), number(1.0), number(0.0)).strides == of_x(x).strides
    checked(truths((6, 10, 4, 6))[::2, ::-2], x, y)


@pytest.mark.parametrize("shape", [(5, 1, 1), (1, 1, 1, 1), (1, 5, 4, 6), (6,), (3, 1, 4, 6), ()], ids=str)
def test_repeated_conditions(shape: tuple[int, ...]) -> None:
    for x in (floats((3, 5, 4, 6)), channels_last(floats((3, 5, 4, 6)))):
        checked(truths(shape), x, floats((3, 5, 4, 6), 1))
        checked(truths(shape), number(3.0), x)
        if len(shape) == 4:
            checked(channels_last(truths(shape)), x, number(3.0))
    checked(truths(1), floats(6), number(3.0))


def test_refusals() -> None:
    refuse, _ = kernel("pointwise.where")
    x = floats((4, 6))
    for condition, a, b in (
        (x, x, x),
        (x > 0, x.astype(np.float64), x),
        (x > 0, x, number(1.0).astype(np.float64)),
        (x > 0, x[:, ::2], x[:, ::2]),
        (x > 0, floats(6), x),
        (truths((2, 4, 6)), x, x),
        (truths(5), x, x),
        (truths((4, 6))[:, ::2], number(1.0), number(2.0)),
    ):
        assert refuse(condition, a, b)


def test_in_place() -> None:
    for order in (np.ascontiguousarray, channels_last):
        x, condition = order(floats((3, 5, 4, 6))), truths((3, 5, 4, 6))
        expected = np.where(condition, 7.0, x)
        assert registry.call("pointwise.where", condition, number(7.0), x, out=x) is x
        np.testing.assert_array_equal(x, expected)
    x = floats(10_000)
    expected = np.where(x[1:] > 0, x[:-1], x[1:])
    registry.call("pointwise.where", x[1:] > 0, x[:-1], x[1:], out=x[1:])
    np.testing.assert_array_equal(x[1:], expected)
