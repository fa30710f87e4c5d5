"""Batch norm kernels: statistics in one pass, backward, inference, each with and without an activation."""

import numpy as np
import pytest

from faltung.engine import registry
from faltung.engine.kernels import batch_norm, column_moments
from tests.engine.kernel_check import channels_last, check, floats, kernel, lanes

SHAPES = [(33, 70), (3, 5, 7), (2, 17, 3, 3), (4, 1, 9, 9), (5, 3, 2, 4, 3), (1, 2, 1, 2)]


def shapes() -> list[tuple[int, ...]]:
    """Rows around the blocks, channels around vectors and groups of vectors."""
    longest = column_moments.LONGEST_BLOCK
    rows = [(1, lanes(), 1, count) for count in (longest - 1, longest, longest + 1, 5 * longest + 3)]
    wide = [lanes() - 1, lanes(), lanes() + 1, 4 * lanes() - 1, 4 * lanes() + 1, batch_norm.FINISH_COLUMNS + 1]
    return [*SHAPES, *rows, *((2, channels, 5, 7) for channels in wide)]


@pytest.mark.parametrize("offset", [0.0, 1000.0])
@pytest.mark.parametrize("affine", [True, False])
def test_against_the_reference(affine: bool, offset: float) -> None:
    for shape in shapes():
        x = channels_last(floats(shape, scale=3.0) + np.float32(offset)) if len(shape) > 2 else floats(shape)
        weight, bias = (floats(shape[1], seed) if affine else None for seed in (1, 2))
        # the mean itself is rounded to float32: relative to the deviation that is offset / 3 * 2^-24
        atol = 1e-5 + offset * 2e-7
        y, mean, var = check("norm.batch_forward", x, weight, bias, 1e-5, rtol=1e-5, atol=atol)
        check("norm.batch_inference", x, mean, var, weight, bias, 1e-5, rtol=1e-5, atol=1e-5)
        gy = floats(shape, 3)
        check("norm.batch_backward", gy, x, mean, var, weight, 1e-5, rtol=3e-5, atol=3e-4)
        for name, high in (("relu", np.inf), ("relu6", 6)):
            fused, *_ = check("norm.batch_forward", x, weight, bias, 1e-5, activation=name, rtol=1e-5, atol=atol)
            np.testing.assert_array_equal(fused, np.clip(y, 0, high))


@pytest.mark.parametrize("name, high", [("relu", np.inf), ("relu6", 6)])
def test_gradient_where_the_result_was_let_through(name: str, high: float) -> None:
    x, weight, bias = channels_last(floats((4, 33, 9, 9))), floats(33, 1), floats(33, 2, scale=4.0)
    gy = floats(x.shape, 3)
    y, mean, var = registry.call("norm.batch_forward", x, weight, bias, 1e-5)
    masked = np.where((y <= 0) | (y >= high), np.float32(0), gy)
    assert (y >= 6).any()
    separate = registry.call("norm.batch_backward", masked, x, mean, var, weight, 1e-5)
    fused = registry.call("norm.batch_backward", gy, x, mean, var, weight, 1e-5, bias=bias, activation=name)
    for a, b in zip(fused, separate, strict=True):
        assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("row", [0, 3, 9, 63])
def test_one_outlier(row: int) -> None:
    """The first rows give the shift of their block: a wild one must not cost the variance its digits."""
    x = channels_last(floats((1, 16, 64, 64)))
    x[0, :, 0, row] = 1e4
    _, _, var = registry.call("norm.batch_forward", x, None, None, 1e-5)
    exact = x.astype(np.float64).var(axis=(0, 2, 3))
    np.testing.assert_allclose(var, exact, rtol=5e-5)


def test_constant_channels_have_no_variance() -> None:
    x = np.full((4, 20, 8, 8), 123.456, np.float32)
    y, mean, var = registry.call("norm.batch_forward", x, None, None, 1e-5)
    np.testing.assert_array_equal(var, 0)
    np.testing.assert_allclose(mean, 123.456, rtol=1e-7)
    np.testing.assert_allclose(y, 0, atol=0.1)


def test_nan_stays_in_its_channel() -> None:
    x = floats((2, 5, 4, 4))
    x[0, 2, 1, 1] = np.nan
    y, _, _ = registry.call("norm.batch_forward", x, None, None, 1e-5)
    assert np.isnan(y[:, 2]).all()
    assert not np.isnan(y[:, [0, 1, 3, 4]]).any()


def test_refusals() -> None:
    refuse, _ = kernel("norm.batch_forward")
    assert refuse(floats((2, 3, 4, 4)).astype(np.float64), None, None, 1e-5)
    assert refuse(floats((0, 3, 4, 4)), None, None, 1e-5)
    assert refuse(floats((2, 3, 4, 4)), floats(6)[::2], None, 1e-5)
