"""Local response norm kernels: windows, channels around vectors, memory orders."""

import numpy as np
import pytest

from faltung.engine import registry
from faltung.engine.kernels import response_norm
from tests.engine.kernel_check import channels_last, check, floats, kernel, lanes


def check_both(x: np.ndarray, size: int, alpha: float = 0.5, beta: float = 0.75, k: float = 1.0) -> None:
    check("norm.response_forward", x, size, alpha, beta, k, rtol=3e-6, atol=2e-6)
    check("norm.response_backward", floats(x.shape, 1), x, size, alpha, beta, k, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 8, response_norm.WIDEST])
def test_windows(size: int) -> None:
    for channels in (1, 2, size, lanes() - 1, lanes(), lanes() + 1, 4 * lanes() + 1):
        check_both(channels_last(floats((2, channels, 3, 2), scale=3.0)), size)


def test_memory_orders_and_chunks() -> None:
    wide = floats((2, 12, 6, 10))
    for x in (wide, wide[..., ::2], wide[:, ::-1], floats((5, 7)), floats((2, 9, 4)), floats((2, 3, 2, 2, 3))):
        check_both(x, 5)
    check_both(floats((3, 20, 31, 29)), 5)
    y = registry.call("norm.response_forward", wide, 5, 1e-4, 0.75, 1.0)
    assert y.strides[1] == y.itemsize


@pytest.mark.parametrize(
    ("alpha", "beta", "k"), [(1e-4, 0.75, 1.0), (2.0, 0.5, 2.0), (1.0, 1.0, 0.1), (0.3, -0.5, 1.0)]
)
def test_constants(alpha: float, beta: float, k: float) -> None:
    check_both(floats((2, 20, 5, 5), scale=10.0), 5, alpha, beta, k)


def test_nan_reaches_its_window_only() -> None:
    x = floats((1, 12, 1, 2))
    x[0, 6, 0, 0] = np.nan
    y = registry.call("norm.response_forward", x, 3, 1.0, 0.75, 1.0)
    assert np.isnan(y[0, 5:8, 0, 0]).all()
    assert np.isnan(y).sum() == 3


def test_refusals() -> None:
    refuse, _ = kernel("norm.response_forward")
    x = floats((2, 4, 3, 3))
    assert "float64" in refuse(x.astype(np.float64), 5, 1.0, 0.75, 1.0)
    assert "nothing" in refuse(x[:0], 5, 1.0, 0.75, 1.0)
    assert "more than" in refuse(x, response_norm.WIDEST + 1, 1.0, 0.75, 1.0)
    assert "negative" in refuse(x, 5, -1.0, 0.75, 1.0)
    assert "negative" in refuse(x, 5, 1.0, 0.75, -1.0)
    assert "beta is 0" in refuse(x, 5, 1.0, 0.0, 0.0)
    unchanged = np.array([[0.0, 1e30, np.inf]], np.float32)
    np.testing.assert_array_equal(registry.call("norm.response_forward", unchanged, 1, 1.0, 0.0, 0.0), unchanged)
    y = registry.call("norm.response_forward", x, response_norm.WIDEST + 1, 1.0, 0.75, 1.0)
    # four channels see one another in any window of nine and more
    expected = registry.candidates("norm.response_forward")[-1][2](x, 9, 9 / 33, 0.75, 1.0)
    np.testing.assert_allclose(y, expected, rtol=1e-6)
