"""Layer norm and RMS norm kernels: rows of any length and order, forward and backward."""

import numpy as np
import pytest

from faltung.engine import registry
from faltung.engine.kernel import Kernel
from faltung.engine.kernels import layer_norm, row_sums
from tests.engine.assembly import CHIPS, assert_stays_in_registers
from tests.engine.kernel_check import channels_last, check, floats, kernel, lanes


def row_shapes() -> list[tuple[int, int]]:
    """Rows around what is computed together and around blocks, elements around vectors and segments."""
    around = [1, 2, lanes() - 1, lanes(), lanes() + 1, 4 * lanes() - 1, 4 * lanes(), 4 * lanes() + 1, 300]
    segments = [(2, row_sums.SEGMENT + step) for step in (-1, 0, 1)]
    blocks = [(layer_norm.LONGEST_BLOCK * 8 + step, 5) for step in (-1, 0, 1)]
    return [*((rows, count) for rows in (1, 3, 4, 5, 37) for count in around), *segments, *blocks, (70, 1000)]


def check_both(x: np.ndarray, axes: int, affine: bool, offset: float = 0.0) -> None:
    """Forward and backward of both normalisations over the last `axes` axes."""
    row, gy = x.shape[x.ndim - axes :], floats(x.shape, 3)
    weight, bias = (floats(row, seed) if affine else None for seed in (1, 2))
    # the mean itself is rounded to float32
    _, mean, var = check("norm.layer_forward", x, axes, weight, bias, 1e-5, rtol=1e-5, atol=1e-5 + offset * 2e-7)
    # a row of few elements may have next to no variance, by which rounding is divided
    check("norm.layer_backward", gy, x, mean, var, axes, weight, 1e-2, rtol=3e-5, atol=1e-4)
    _, square = check("norm.rms_forward", x, axes, weight, 1e-5, rtol=1e-5, atol=1e-5)
    check("norm.rms_backward", gy, x, square, axes, weight, 1e-2, rtol=3e-5, atol=1e-4)


@pytest.mark.parametrize("affine", [True, False])
def test_rows(affine: bool) -> None:
    for shape in row_shapes():
        check_both(floats(shape, scale=3.0), 1, affine)


def test_large_means() -> None:
    for shape in ((5, 300), (3, row_sums.SEGMENT * 3 + 7)):
        check_both(floats(shape) + np.float32(1000), 1, True, offset=1000)


def memory_orders(shape: tuple[int, ...]) -> list[np.ndarray]:
    """The same shape contiguous, channels last, with gaps, backwards and in an order that cuts rows apart."""
    wide = floats((*shape[:-1], 2 * shape[-1]))
    x = floats(shape)
    return [x, channels_last(x), wide[..., ::2], x[::-1], x.transpose(1, 0, 2, 3).copy().transpose(1, 0, 2, 3)]


@pytest.mark.parametrize("axes", [1, 2, 3, 4])
def test_memory_orders(axes: int) -> None:
    for shape in ((3, 17, 4, 6), (2, 1, 5, 1), (1, 3, 1, 4)):
        for x in memory_orders(shape):
            check_both(x, axes, True)


def test_results_keep_the_memory_order() -> None:
    x = channels_last(floats((2, 17, 4, 6)))
    y, mean, _ = registry.call("norm.layer_forward", x, 3, floats((17, 4, 6), 1), None, 1e-5)
    assert y.strides == x.strides
    assert mean.shape == (2, 1, 1, 1)
    turned = x.transpose(0, 2, 3, 1)
    assert turned.flags.c_contiguous
    y, _, _ = registry.call("norm.layer_forward", turned, 1, None, None, 1e-5)
    assert y.flags.c_contiguous


def test_constant_rows_and_nan() -> None:
    x = np.full((3, 50), 123.456, np.float32)
    y, mean, var = registry.call("norm.layer_forward", x, 1, None, None, 1e-5)
    np.testing.assert_allclose(var, 0, atol=1e-9)
    np.testing.assert_allclose(mean, 123.456, rtol=1e-7)
    np.testing.assert_allclose(y, 0, atol=0.01)
    x[1, 7] = np.nan
    y, _, _ = registry.call("norm.layer_forward", x, 1, None, None, 1e-5)
    assert np.isnan(y[1]).all()
    assert not np.isnan(y[[0, 2]]).any()


def test_refusals() -> None:
    refuse, _ = kernel("norm.layer_forward")
    assert "float64" in refuse(floats((2, 3)).astype(np.float64), 1, None, None, 1e-5)
    assert "float64" in refuse(floats((2, 3)), 1, floats(3).astype(np.float64), None, 1e-5)
    assert "nothing" in refuse(floats((0, 3)), 1, None, None, 1e-5)
    for shape in ((0, 3), (3, 0)):
        y, mean, _ = registry.call("norm.layer_forward", floats(shape), 1, None, None, 1e-5)
        assert y.shape == shape
        assert mean.shape == (shape[0], 1)


@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize("centred", [True, False])
def test_rows_stay_in_registers(chip: str, centred: bool) -> None:
    together = layer_norm.rows_together(CHIPS[chip].registers)
    schedule = layer_norm.Schedule("backward", centred, together)
    backward = Kernel("layer_norm_backward", layer_norm.BACKWARD, schedule, layer_norm.emit)
    assert_stays_in_registers(backward, chip, at_least=2 * together)
