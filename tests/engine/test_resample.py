"""Resampling kernels: tables of every kind, their transposes, memory orders, sizes around vectors and chunks."""

import weakref

import numpy as np
import pytest

from faltung.engine import registry
from faltung.engine.kernel import Kernel
from faltung.engine.kernels import resample
from faltung.engine.taps import Taps
from faltung.ops.resample import antialias_taps, cubic_taps, linear_taps, nearest_taps
from tests.engine.assembly import CHIPS, assert_stays_in_registers
from tests.engine.kernel_check import channels_last, check, floats, kernel, lanes


def tables(inputs: int, outputs: int) -> dict[str, Taps]:
    """One table of each kind."""
    return {
        "nearest": nearest_taps(inputs, outputs, None, False),
        "nearest-exact": nearest_taps(inputs, outputs, None, True),
        "linear": linear_taps(inputs, outputs, None, False, False),
        "corners": linear_taps(inputs, outputs, None, True, False),
        "cubic": cubic_taps(inputs, outputs, None, False, False),
        "antialias": antialias_taps(inputs, outputs, None, False, "bilinear"),
    }


def check_both(x: np.ndarray, rows: Taps, columns: Taps) -> None:
    """The result, and the gradient as gathering by the transposed tables."""
    y = check("resample.planes", x, rows, columns, rtol=2e-6, atol=5e-6)
    gx = check("resample.planes", floats(y.shape, 1), rows.transposed, columns.transposed, rtol=2e-6, atol=1e-5)
    assert gx.shape == x.shape


SIZES = [((5, 7), (10, 14)), ((7, 5), (3, 9)), ((4, 9), (4, 2)), ((1, 1), (3, 2)), ((6, 3), (1, 1)), ((8, 8), (8, 8))]


@pytest.mark.parametrize("kind", list(tables(2, 2)))
def test_tables(kind: str) -> None:
    for (height, width), (rows, columns) in SIZES:
        table = tables(height, rows)[kind], tables(width, columns)[kind]
        for channels in (1, 3, lanes(), 4 * lanes() + 1):
            check_both(floats((2, channels, height, width)), *table)


def test_channels() -> None:
    rows, columns = tables(3, 6)["linear"], tables(4, 8)["linear"]
    for channels in (
        1,
        2,
        3,
        4,
        5,
        7,
        lanes() - 1,
        lanes(),
        lanes() + 1,
        4 * lanes() - 1,
        4 * lanes(),
        4 * lanes() + 1,
    ):
        for batch in (1, 3):
            check_both(channels_last(floats((batch, channels, 3, 4))), rows, columns)


def test_mixed_tables_and_many_chunks() -> None:
    check_both(floats((2, 20, 30, 40)), tables(30, 61)["nearest"], tables(40, 33)["cubic"])
    check_both(floats((1, 3, 64, 64)), tables(64, 128)["corners"], tables(64, 64)["linear"])
    check_both(floats((1, 2, 3, 4)), tables(3, 5)["antialias"], tables(4, 8)["nearest"])
    assert resample.BLOCK_ELEMENTS < 20 * 61 * 40


@pytest.mark.parametrize("kind", list(tables(2, 2)))
def test_one_axis(kind: str) -> None:
    for shape in ((3, 5), (2, 3, 7), (2, lanes() + 1, 4), (2, 3, 4, 5, 6), (1, 20, 3, 2, 5)):
        wide = floats((*shape[:-1], 2 * shape[-1]))
        for x in (floats(shape), channels_last(floats(shape)), wide[..., ::2], floats(shape)[:, ::-1]):
            for axis, size in enumerate(shape):
                for outputs in (1, size + 2, 2 * size):
                    taps = tables(size, outputs)[kind]
                    y = check("resample.axis", x, axis, taps, rtol=2e-6, atol=5e-6)
                    assert y.shape == (*shape[:axis], outputs, *shape[axis + 1 :])


def test_one_axis_keeps_the_memory_order() -> None:
    x = channels_last(floats((2, 20, 4, 6)))
    y = registry.call("resample.axis", x, 2, tables(4, 8)["linear"])
    assert y.strides[1] == y.itemsize


def test_columns_that_stay() -> None:
    kept = tables(6, 6)["linear"]
    assert kept.keeps
    for shape in ((2, 3, 4, 6), (2, 20, 4, 6), (1, 70, 4, 6)):
        check_both(floats(shape), tables(4, 9)["linear"], kept)
        check_both(floats(shape), tables(4, 8)["nearest"], kept)


def test_memory_orders() -> None:
    rows, columns = tables(6, 4)["linear"], tables(7, 14)["linear"]
    wide = floats((2, 10, 6, 14))
    for x in (wide[..., ::2], wide[:, ::-1, :, :7], wide[:, ::2, :, ::2], floats((7, 6, 10, 2)).transpose(3, 2, 1, 0)):
        check_both(x, rows, columns)
    y = registry.call("resample.planes", wide[..., :7], rows, columns)
    assert y.strides[1] == y.itemsize


@pytest.mark.parametrize("kind", list(tables(2, 2)))
def test_transposed_tables_are_the_transposed_matrix(kind: str) -> None:
    def matrix(taps: Taps) -> np.ndarray:
        return registry.call("resample.axis", np.eye(taps.inputs), 0, taps)

    for inputs, outputs in ((5, 10), (9, 4), (3, 3), (1, 4), (4, 1)):
        taps = tables(inputs, outputs)[kind]
        np.testing.assert_allclose(matrix(taps.transposed), matrix(taps).T, rtol=1e-12)
        np.testing.assert_allclose(matrix(taps.transposed.transposed), matrix(taps), rtol=1e-12)


def test_infinity_stays_with_its_neighbours() -> None:
    taps = tables(4, 8)["linear"].transposed
    gy = np.ones((1, 2, 8, 8), np.float32)
    gy[0, 0, 0, 0] = np.inf
    gx = registry.call("resample.planes", gy, taps, taps)
    assert np.isfinite(gx[0, 1]).all()
    assert np.isfinite(gx[0, 0, 2:]).all()
    assert np.isfinite(gx[0, 0, :, 2:]).all()
    assert np.isinf(gx[0, 0, 0, 0])
    np.testing.assert_allclose(registry.call("resample.planes", gy.astype(np.float64), taps, taps), gx)


def test_prepared_fields_keep_the_tables_that_they_point_to() -> None:
    taps = tables(4, 8)["linear"]
    made_first = weakref.ref(taps.table)
    x = floats((1, 3, 4, 4))
    y = registry.call("resample.planes", x, taps, taps)
    arrays = [weakref.ref(array) for array in (taps.table.spans, taps.table.index, taps.table.weights)]
    del taps.__dict__["table"]  # as when two threads make it at the same time, and the second one's stays
    assert made_first() is None
    assert all(array() is not None for array in arrays)
    np.testing.assert_array_equal(registry.call("resample.planes", x, taps, taps), y)


def test_refusals() -> None:
    refuse, _ = kernel("resample.planes")
    taps = tables(4, 8)["linear"]
    assert "float64" in refuse(np.zeros((1, 1, 4, 4)), taps, taps)
    assert "nothing" in refuse(floats((0, 1, 4, 4)), taps, taps)
    assert registry.call("resample.planes", floats((0, 1, 4, 4)), taps, taps).shape == (0, 1, 8, 8)


@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize("taps", [2, 4, None])
def test_sums_stay_in_registers(chip: str, taps: int | None) -> None:
    mix = resample.Mix(taps, True)
    schedule = resample.Schedule(mix, mix, resample.VECTORS, 0, False, False)
    planes = Kernel("resample_planes", resample.FIELDS, schedule, resample.emit)
    at_least = resample.VECTORS * (taps - 1 if taps else 1)
    assert_stays_in_registers(planes, chip, at_least)
