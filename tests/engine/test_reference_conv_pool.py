"""The NumPy references of convolution, linear and pooling against the definitions."""

import numpy as np
import pytest

from faltung.engine.geometry import ConvGeometry, PoolGeometry
from faltung.engine.reference import conv, linear, pool
from tests.cases import conv as conv_cases
from tests.cases import pool as pool_cases
from tests.oracle import conv as conv_oracle
from tests.oracle import pool as pool_oracle

DTYPES = [np.float32, np.float64]
CLOSE = {np.dtype(np.float32): 2e-5, np.dtype(np.float64): 1e-12}


def values(rng: np.random.Generator, shape: tuple[int, ...], dtype: type = np.float64) -> np.ndarray:
    return rng.standard_normal(shape).astype(dtype)


def assert_close(got: np.ndarray, expected: np.ndarray) -> None:
    tolerance = CLOSE[got.dtype]
    assert got.shape == expected.shape
    np.testing.assert_allclose(
        got, expected, rtol=tolerance, atol=tolerance * max(1.0, np.abs(expected).max(initial=0))
    )


def is_channels_last(x: np.ndarray) -> bool:
    return np.moveaxis(x, 1, -1).flags.c_contiguous


def geometry_of(case: conv_cases.ConvCase) -> ConvGeometry:
    if case.transposed:
        args = (case.stride, case.padding, case.output_padding, case.groups, case.dilation)
        return ConvGeometry.mirrored(case.input, case.weight, *args)
    return ConvGeometry.of(case.input, case.weight, case.stride, case.padding, case.dilation, case.groups)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", conv_cases.CASES, ids=str)
def test_conv_forward(case: conv_cases.ConvCase, dtype: type) -> None:
    rng = np.random.default_rng(0)
    x, w = values(rng, case.input, dtype), values(rng, case.weight, dtype)
    bias = values(rng, (case.out_channels,), dtype) if case.bias and not case.transposed else None
    if case.transposed:
        got = conv.backward_data(geometry_of(case), x, w)
        expected = conv_oracle.conv_transpose(x, w, None, **case.options)
    else:
        got = conv.forward(geometry_of(case), x, w, bias)
        expected = conv_oracle.conv(x, w, bias, **case.options)
    assert got.dtype == dtype
    assert is_channels_last(got)
    assert_close(got, expected)


@pytest.mark.parametrize("case", conv_cases.CASES, ids=str)
def test_conv_gradients_are_adjoint(case: conv_cases.ConvCase) -> None:
    """<conv(x, w), g> = <x, backward_data(g, w)> = <w, backward_weights(x, g)>: the definition of both gradients."""
    rng, g = np.random.default_rng(1), geometry_of(case)
    x, w, gy = (values(rng, shape) for shape in (g.input_shape, g.weight_shape, g.output_shape))
    gx = conv.backward_data(g, gy, w)
    gw, gb = conv.backward_weights(g, x, gy, with_bias=True)
    assert gx.shape == g.input_shape
    assert gw.shape == g.weight_shape
    product = (conv.forward(g, x, w, None) * gy).sum()
    scale = max(1.0, abs(product)) * 1e-10
    assert abs((gx * x).sum() - product) < scale
    assert abs((gw * w).sum() - product) < scale
    np.testing.assert_allclose(gb, gy.sum(axis=(0, *range(2, gy.ndim))), atol=1e-10)
    assert conv.backward_weights(g, x, gy)[1] is None


def test_conv_takes_any_strides() -> None:
    rng = np.random.default_rng(2)
    x, w = values(rng, (2, 9, 11, 8)), values(rng, (12, 8, 3, 3))
    last = np.moveaxis(x, 3, 1)  # (2, 8, 9, 11), channels last
    g = ConvGeometry.of(last.shape, (6, 4, 3, 3), 2, 1, 1, 2)
    thinned = w[::2, ::2]
    expected = conv.forward(g, np.ascontiguousarray(last), np.ascontiguousarray(thinned), None)
    np.testing.assert_array_equal(conv.forward(g, last, thinned, None), expected)


def test_conv_slabs_of_the_batch_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    x, w = values(rng, (7, 4, 6, 6)), values(rng, (5, 4, 3, 3))
    g = ConvGeometry.of(x.shape, w.shape)
    y = conv.forward(g, x, w, None)
    expected = conv.backward_data(g, y, w), *conv.backward_weights(g, x, y, with_bias=True)
    monkeypatch.setattr(conv, "_SLAB_ELEMENTS", 300)
    got = conv.backward_data(g, y, w), *conv.backward_weights(g, x, y, with_bias=True)
    np.testing.assert_allclose(conv.forward(g, x, w, None), y, rtol=1e-12, atol=1e-12)
    for mine, other in zip(got, expected, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-12, atol=1e-12)


def test_conv_half_precision_accumulates_in_single() -> None:
    ones = np.ones((1, 4096, 1, 1), np.float16)
    g = ConvGeometry.of(ones.shape, ones.shape)
    assert conv.forward(g, ones, ones, None).item() == 4096  # float16 sums stop growing at 2048


@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 5), (0, 5), (2, 0, 5)])
def test_linear(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(4)
    x, w, bias = values(rng, shape), values(rng, (7, 5)), values(rng, (7,))
    y = linear.forward(x, w, bias)
    assert_close(y, np.einsum("...k,mk->...m", x, w) + bias)
    gy = values(rng, y.shape)
    assert_close(linear.backward_data(gy, w), np.einsum("...m,mk->...k", gy, w))
    gw, gb = linear.backward_weights(x, gy, with_bias=True)
    assert_close(gw, gy.reshape(-1, 7).T @ x.reshape(-1, 5) if x.size else np.zeros((7, 5)))
    assert_close(gb, gy.sum(axis=tuple(range(gy.ndim - 1))))


def pool_geometry(case: pool_cases.PoolCase, dilation: int | tuple[int, ...] | None = None) -> PoolGeometry:
    spread = case.dilation if dilation is None else dilation
    return PoolGeometry.of(case.input, case.kernel, case.stride, case.padding, spread, case.ceil_mode)


@pytest.mark.parametrize("case", pool_cases.CASES, ids=str)
def test_max_pool(case: pool_cases.PoolCase) -> None:
    rng, g = np.random.default_rng(5), pool_geometry(case)
    x = rng.integers(-9, 9, case.input).astype(np.float32)  # ties everywhere
    y, places = pool.max_forward(g, x)
    assert places is not None
    args = (case.kernel, case.stride, case.padding, case.dilation, case.ceil_mode)
    expected, expected_places = pool_oracle.max_pool(x, *args)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(places, expected_places)
    assert is_channels_last(y)
    assert places.dtype == np.int64
    values_only, nothing = pool.max_forward(g, x, with_indices=False)
    np.testing.assert_array_equal(values_only, y)
    assert nothing is None
    np.testing.assert_array_equal(pool.max_gather(g, x, places), y)
    gy = values(rng, y.shape)
    gx = np.zeros((*x.shape[:2], int(np.prod(x.shape[2:]))))
    for index in np.ndindex(*y.shape):
        gx[index[0], index[1], places[index]] += gy[index]
    np.testing.assert_allclose(pool.max_backward(g, gy, places), gx.reshape(x.shape), atol=1e-12)


def test_max_pool_windows_of_padding_alone() -> None:
    g = PoolGeometry.of((1, 2, 1, 3), (2, 1), (2, 1), (1, 0), (2, 1))  # rows -1 and 1 of an input with row 0
    y, places = pool.max_forward(g, np.ones(g.input_shape))
    assert places is not None
    assert np.isneginf(y).all()
    assert not pool.max_backward(g, np.ones(y.shape), places).any()
    assert not pool.max_gather(g, np.ones(g.input_shape), places).any()


def test_max_pool_lets_nan_win() -> None:
    x = np.array([[[1.0, np.nan, 3.0, -np.inf, -np.inf]]], np.float32)
    y, places = pool.max_forward(PoolGeometry.of((1, 1, 5), 2, 1), x)
    assert places is not None
    np.testing.assert_array_equal(y[0, 0], [np.nan, np.nan, 3.0, -np.inf])
    np.testing.assert_array_equal(places[0, 0], [1, 1, 2, 3])
    np.testing.assert_array_equal(pool.max_forward(PoolGeometry.of((1, 1, 5), 2, 1), x, with_indices=False)[0], y)


@pytest.mark.parametrize(("include", "divisor"), [(True, None), (False, None), (True, 3), (False, -2)])
@pytest.mark.parametrize("case", pool_cases.CASES, ids=str)
def test_avg_pool(case: pool_cases.PoolCase, include: bool, divisor: int | None) -> None:
    rng, g = np.random.default_rng(6), pool_geometry(case, dilation=1)
    x = values(rng, case.input)
    y = pool.avg_forward(g, x, count_include_pad=include, divisor=divisor)
    args = (case.kernel, case.stride, case.padding, case.ceil_mode, include, divisor)
    assert_close(y, pool_oracle.avg_pool(x, *args))
    assert is_channels_last(y)
    gy = values(rng, y.shape)
    gx = pool.avg_backward(g, gy, count_include_pad=include, divisor=divisor)
    assert gx.shape == x.shape
    np.testing.assert_allclose((gx * x).sum(), (gy * y).sum(), atol=1e-9)


@pytest.mark.parametrize(("name", "shape", "output"), pool_cases.ADAPTIVE)
def test_adaptive_pool(name: str, shape: tuple[int, ...], output: tuple[int, ...]) -> None:
    rng = np.random.default_rng(7)
    x = values(rng, shape)
    y = pool.adaptive_avg_forward(x, output)
    assert_close(y, pool_oracle.adaptive(x, output, "mean"))
    gy = values(rng, y.shape)
    np.testing.assert_allclose((pool.adaptive_avg_backward(gy, shape[2:]) * x).sum(), (gy * y).sum(), atol=1e-9)
    best, places = pool.adaptive_max_forward(x, output)
    np.testing.assert_array_equal(best, pool_oracle.adaptive(x, output, "max"))
    for index in np.ndindex(*best.shape):
        assert x[index[:2]].flat[places[index]] == best[index]
