"""Pooling kernels: a table of windows, NaN and infinity, random geometries."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from faltung.engine.geometry import NO_TAP, PoolGeometry
from faltung.engine.reference import pool as reference
from faltung.engine.registry import call
from tests.engine.kernel_check import channels_last, check, floats, kernel, lanes

WINDOWS: list[dict[str, Any]] = [
    {"kernel": 2},
    {"kernel": 3, "stride": 2, "padding": 1},
    {"kernel": 3, "stride": 1, "padding": 1},
    {"kernel": 3, "stride": 2, "padding": 1, "ceil_mode": True},
    {"kernel": 2, "stride": 3, "padding": 1, "ceil_mode": True},
    {"kernel": 5, "stride": 3, "padding": 2},
    {"kernel": 3, "stride": 1, "padding": 1, "dilation": 2},
    {"kernel": 3, "stride": 2, "padding": 1, "dilation": 3},
    {"kernel": 1, "stride": 2},
]
SHAPES = [(2, 3, 13), (2, 5, 9, 11), (1, 33, 10, 10), (1, 20, 7, 8, 9)]


def channel_counts() -> list[int]:
    """Around one vector and around a group of four."""
    return [1, lanes() - 1, lanes(), lanes() + 1, 4 * lanes() - 1, 4 * lanes(), 4 * lanes() + 1, 5 * lanes()]


def check_max(geometry: PoolGeometry, x: np.ndarray) -> None:
    y, indices = check("pool.max_forward", geometry, x, rtol=0, atol=0)
    values, nothing = check("pool.max_forward", geometry, x, rtol=0, atol=0, with_indices=False)
    assert nothing is None
    np.testing.assert_array_equal(values, y)
    gy = floats(y.shape, 5)
    check("pool.max_backward", geometry, gy, indices)
    check_taps(geometry, x, y, indices, gy)


def check_taps(geometry: PoolGeometry, x: np.ndarray, y: np.ndarray, indices: np.ndarray, gy: np.ndarray) -> None:
    """Taps tell what indices tell, and what an activation lets through."""
    gx = call("pool.max_backward", geometry, gy, indices)
    values, taps = check("pool.max_taps_forward", geometry, x, rtol=0, atol=0)
    np.testing.assert_array_equal(values, y)
    np.testing.assert_array_equal(reference.tap_indices(geometry, taps), indices)
    np.testing.assert_array_equal(check("pool.max_taps_backward", geometry, gy, taps), gx)
    for name, low, high in (("relu", 0, np.inf), ("relu6", 0, 6)):
        activated = np.clip(4 * x, low, high)  # as many of 6 as of 0
        values, taps = check("pool.max_taps_forward", geometry, activated, rtol=0, atol=0, activation=name)
        passed = (values > low) & (values < high)
        np.testing.assert_array_equal(taps == NO_TAP, ~passed)
        _, found = call("pool.max_forward", geometry, activated)
        masked = call("pool.max_backward", geometry, np.where(passed, gy, np.float32(0)), found)
        np.testing.assert_array_equal(check("pool.max_taps_backward", geometry, gy, taps), masked)


@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_max(shape: tuple[int, ...], window: dict[str, Any]) -> None:
    geometry = PoolGeometry.of(shape, **window)
    for x in (floats(shape), channels_last(floats(shape))):
        check_max(geometry, x)


@pytest.mark.parametrize("window", [w for w in WINDOWS if "dilation" not in w], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_avg(shape: tuple[int, ...], window: dict[str, Any]) -> None:
    geometry = PoolGeometry.of(shape, **window)
    gy = floats(geometry.output_shape, 3)
    for options in ({}, {"count_include_pad": False}, {"divisor": 7}):
        check("pool.avg_forward", geometry, channels_last(floats(shape)), **options)
        check("pool.avg_backward", geometry, gy, **options)


@pytest.mark.parametrize("window", [WINDOWS[0], WINDOWS[1]], ids=str)
def test_channels_around_vectors(window: dict[str, Any]) -> None:
    for channels in channel_counts():
        shape = (2, channels, 6, 8)
        geometry = PoolGeometry.of(shape, **window)
        check_max(geometry, channels_last(floats(shape)))
        check("pool.avg_forward", geometry, floats(shape))
        check("pool.avg_backward", geometry, floats(geometry.output_shape))


@pytest.mark.parametrize("output", [(1, 1), (3, 2), (7, 5), (14, 10), (9, 13)])
def test_adaptive(output: tuple[int, int]) -> None:
    for shape in ((2, 5, 7, 5), (1, 70, 14, 10)):
        check("pool.adaptive_avg_forward", floats(shape), output)
        check("pool.adaptive_avg_backward", floats((*shape[:2], *output)), shape[2:])


def test_many_chunks() -> None:
    shape = (3, 4 * lanes(), 40, 40)
    check_max(PoolGeometry.of(shape, 3, 2, 1), channels_last(floats(shape)))
    check("pool.adaptive_avg_forward", channels_last(floats((1, 40 * lanes(), 9, 9))), (1, 1))


def test_nan_wins_and_the_first_of_equals() -> None:
    x = np.array([[[[1.0, np.nan], [np.nan, 3.0]], [[2.0, 2.0], [2.0, 1.0]]]], np.float32)
    y, indices = check("pool.max_forward", PoolGeometry.of(x.shape, 2), x)
    np.testing.assert_array_equal(y, [[[[np.nan]], [[2.0]]]])
    np.testing.assert_array_equal(indices, [[[[2]], [[0]]]])  # the last NaN, the first 2
    values, _ = check("pool.max_forward", PoolGeometry.of(x.shape, 2), x, with_indices=False)
    np.testing.assert_array_equal(values, y)


def test_minus_infinity_has_an_index() -> None:
    x = np.full((1, 2, 4, 4), -np.inf, np.float32)
    _, indices = check("pool.max_forward", PoolGeometry.of(x.shape, 3, 2, 1), x)
    np.testing.assert_array_equal(indices[0, 0], [[0, 1], [4, 5]])


def test_other_inputs() -> None:
    base = floats((2, 20, 9, 11))
    for x in (base[:, ::2], base[:, :, 1:, :-1], base.transpose(0, 1, 3, 2), np.broadcast_to(base[:, :1], base.shape)):
        geometry = PoolGeometry.of(x.shape, 2)
        check_max(geometry, x)
        check("pool.avg_forward", geometry, x)


def test_refusals() -> None:
    refuse, _ = kernel("pool.max_forward")
    assert refuse(PoolGeometry.of((1, 2, 4, 4), 2), floats((1, 2, 4, 4)).astype(np.float64))
    assert refuse(PoolGeometry.of((0, 2, 4, 4), 2), floats((0, 2, 4, 4)))


@st.composite
def geometries(draw: st.DrawFn) -> PoolGeometry:
    ndim = draw(st.integers(1, 3))
    sizes = tuple(draw(st.integers(1, 9)) for _ in range(ndim))
    kernels = tuple(draw(st.integers(1, min(4, size))) for size in sizes)
    strides = tuple(draw(st.integers(1, 3)) for _ in range(ndim))
    padding = tuple(draw(st.integers(0, size // 2)) for size in kernels)
    shape = (draw(st.integers(1, 2)), draw(st.integers(1, 40)), *sizes)
    return PoolGeometry.of(shape, kernels, strides, padding, 1, draw(st.booleans()))


@given(geometry=geometries())
def test_random_geometries(geometry: PoolGeometry) -> None:
    if min(geometry.output) < 1:
        return
    x = floats(geometry.input_shape)
    check_max(geometry, x)
    check("pool.avg_forward", geometry, x)
    check("pool.avg_backward", geometry, floats(geometry.output_shape), count_include_pad=False)
