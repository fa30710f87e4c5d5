"""Reduction kernels: any axes of any dense memory order, segments and blocks, NaN and infinities."""

from itertools import combinations

import numpy as np
import pytest

from faltung.engine import registry
from faltung.engine.kernels import reduce
from tests.engine.kernel_check import channels_last, check, floats, kernel, lanes, sizes_around

KINDS = ("sum", "largest", "smallest")


def spread(count: int) -> float:
    """What rounding may cost a sum of so many normal numbers: a few units of the last place of its usual size."""
    return 1e-6 * count**0.5


@pytest.fixture(autouse=True)
def _kernels_for_small_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reduce, "SMALLEST", 1)


@pytest.mark.parametrize("kind", KINDS)
def test_axes_and_memory_orders(kind: str) -> None:
    x = floats((3, 17, 4, 6))
    for values in (x, channels_last(x), x.transpose(2, 3, 0, 1), np.asfortranarray(x)):
        for count in range(1, 5):
            for axes in combinations(range(4), count):
                check(f"reduce.{kind}", values, axes, rtol=1e-6, atol=1e-5)


def test_products_of_any_memory_orders() -> None:
    x, y = floats((3, 17, 4, 6)), floats((3, 17, 4, 6), 1)
    for values in (x, channels_last(x), np.asfortranarray(x), np.broadcast_to(x[:, :, :1], x.shape)):
        for factors in (y, channels_last(y)):
            for count in range(1, 5):
                for axes in combinations(range(4), count):
                    check("reduce.dot", values, factors, axes, rtol=1e-6, atol=1e-5)


def test_products_of_any_size() -> None:
    for count in [*sizes_around(lanes(), 4 * lanes(), reduce.LINE_SEGMENT)[1:], 3 * reduce.LINE_SEGMENT + 5]:
        check("reduce.dot", floats((3, count)), floats((3, count), 1), (1,), rtol=1e-6, atol=spread(count))
    for rows in (1, *sizes_around(reduce.COLUMN_SEGMENT)[2:], 1000):
        for inner in (2, lanes() - 1, 4 * lanes() + 3):
            x, y = floats((2, rows, inner)), floats((2, rows, inner), 1)
            check("reduce.dot", x, y, (1,), rtol=1e-6, atol=spread(rows))


@pytest.mark.parametrize("kind", KINDS)
def test_lines(kind: str) -> None:
    for count in [*sizes_around(lanes(), 4 * lanes(), reduce.LINE_SEGMENT)[1:], 3 * reduce.LINE_SEGMENT + 5]:
        for rows in (1, 3, 70):
            check(f"reduce.{kind}", floats((rows, count)), (1,), rtol=1e-6, atol=spread(count))


@pytest.mark.parametrize("kind", KINDS)
def test_columns(kind: str) -> None:
    for rows in (1, 2, *sizes_around(reduce.COLUMN_SEGMENT)[2:], 1000):
        for inner in (2, lanes() - 1, lanes() + 1, 4 * lanes() + 3):
            check(f"reduce.{kind}", floats((2, rows, inner)), (1,), rtol=1e-6, atol=spread(rows))
    check(f"reduce.{kind}", floats((2, 300, 5000)), (1,), rtol=1e-6, atol=spread(300))
    check(f"reduce.{kind}", floats((50_000, 3)), (0,), rtol=1e-6, atol=spread(50_000))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_special_values_travel(kind: str, bad: float) -> None:
    for shape, axes in (((5, 100), (1,)), ((5, 100, 20), (1,)), ((40_000,), (0,))):
        for place in (0, 7, -1):
            x = floats(shape)
            x.reshape(-1)[place] = bad
            got = registry.call(f"reduce.{kind}", x, axes)
            np.testing.assert_allclose(got, registry.candidates(f"reduce.{kind}")[-1][2](x, axes), rtol=1e-4, atol=1e-4)


def test_a_million_equal_numbers() -> None:
    """float32 accumulators alone would drift away."""
    for shape, axes in (((3, 1 << 20), (1,)), ((1 << 20, 3), (0,))):
        got = registry.call("reduce.sum", np.full(shape, 0.1, np.float32), axes)
        np.testing.assert_allclose(got, (1 << 20) * np.float64(np.float32(0.1)), rtol=1e-6)


def test_refusals() -> None:
    refuse, _ = kernel("reduce.sum")
    x = floats((8, 6))
    assert "float64" in refuse(x.astype(np.float64), (0,))
    assert "gaps" in refuse(x[:, ::2], (0,))
    assert "nothing to reduce" in refuse(x, ())
    refuse, _ = kernel("reduce.dot")
    assert "float64" in refuse(x.astype(np.float64), x, (0,))
    assert "differ" in refuse(x, x[:4], (0,))
    assert "gaps" in refuse(x[:, ::2], x[:, ::2], (0,))
