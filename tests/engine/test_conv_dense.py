"""The dense convolution kernels against the reference in float64: direct, Winograd, scattering, weight gradients."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from faltung.engine import memory, registry, team
from faltung.engine.flags import flags
from faltung.engine.geometry import ConvGeometry
from faltung.engine.kernel import Kernel
from faltung.engine.kernels import (
    conv_backward_weights,
    conv_dense,
    conv_dense_weights,
    conv_dense_winograd,
    conv_direct,
    conv_gathered,
    conv_gathered_weights,
    conv_scatter,
    conv_winograd,
    conv_winograd_gradient,
)
from faltung.engine.kernels.conv_problem import forward_problem
from faltung.engine.kernels.winograd_matrices import winograd
from faltung.engine.reference import conv as reference
from faltung.engine.target import host
from tests.engine import assembly
from tests.engine.grouped_checks import LAYOUTS, Case, laid_out
from tests.engine.guard import guarded_copy, guarded_results

DIRECT = 3e-6  # of the largest value: float32 sums of up to some thousand products
WINOGRAD = 3e-5  # F(4x4, 3x3) loses some 3 bits; worst measured over these cases 1.1e-5


def dense(
    name: str, c: int, o: int, sizes: tuple[int, ...], kernel: tuple[int, ...], n: int = 2, g: int = 1, **options
):
    return Case(name, (n, c, *sizes), (o, c // g, *kernel), g, options)


def around(*blocks: int) -> list[int]:
    return sorted({b + step for b in blocks for step in (-1, 0, 1) if b + step > 0})


L = host().lanes

CASES = [
    *(dense(f"{o} out channels", 5, o, (5, 6), (3, 3), padding=1) for o in around(1, L, 2 * L, 3 * L, 4 * L)),
    *(dense(f"{c} in channels", c, 20, (5, 6), (3, 3), padding=1) for c in around(1, 4, 8, L, 2 * L)),
    *(dense(f"width {n}", 8, 20, (3, n), (3, 3), padding=1) for n in around(1, 4, 7, 12, 14, 28)),
    *(dense(f"height {n}", 8, 20, (n, 7), (3, 3), padding=1) for n in around(1, 4, 8, 16)),
    *(dense(f"{n} pixels, 1x1", 20, 40, (1, n), (1, 1), n=1) for n in around(1, 12, 14, 28, 96, 200)),
    *(dense(f"stride {s}", 9, 20, (13, 14), (3, 3), padding=1, stride=s) for s in (2, 3, (1, 3))),
    *(dense(f"dilation {d}", 9, 20, (13, 14), (3, 3), padding=2, dilation=d) for d in (2, 3, (2, 1))),
    dense("stride 2 dilation 2", 9, 20, (13, 14), (3, 3), padding=2, stride=2, dilation=2),
    dense("stride 3 dilation 2", 9, 20, (13, 14), (3, 3), padding=2, stride=3, dilation=2),
    dense("uneven padding", 9, 20, (9, 8), (3, 4), padding=((0, 2), (3, 1))),
    dense("more padding than kernel", 9, 20, (4, 5), (2, 2), padding=3),
    dense("first layer", 3, 20, (30, 31), (7, 7), padding=3, stride=2),
    *(dense(f"{c} planes, width {n}", c, 16, (9, n), (3, 3), padding=1) for c in (2, 3, 4) for n in around(L, 2 * L)),
    dense("one channel", 1, 16, (12, 13), (5, 5)),
    dense("few out channels", 24, 3, (12, 13), (5, 5), padding=2),
    dense("large groups", 2 * 3 * L, 2 * 2 * L, (6, 7), (3, 3), g=2, padding=1),
    dense("uneven groups", 3 * 20, 3 * 18, (6, 7), (3, 3), g=3, padding=1, stride=2),
    dense("blocked channels", 700, 2 * L, (5, 5), (3, 3), n=1, padding=1),
    dense("1x1 stride 2", 20, 24, (9, 10), (1, 1), stride=2),
    dense("patches", 3, 20, (16, 16), (4, 4), stride=4),
    dense("segments of uneven length", 16, 32, (13, 13), (3, 3), n=33, padding=1),
    dense("1d", 9, 20, (50,), (5,), padding=2, stride=2),
    dense("3d", 5, 20, (4, 5, 6), (3, 3, 3), padding=1),
    dense("3d stride 2", 5, 20, (5, 6, 7), (3, 2, 3), padding=1, stride=2),
]
WINOGRAD_CASES = [
    *(dense(f"{c} -> {o}", c, o, (9, 10), (3, 3), padding=1) for c, o in ((16, 16), (17, 33), (31, 48), (40, 65))),
    *(dense(f"{h}x{w}", 20, 24, (h, w), (3, 3), n=3, padding=1) for h, w in ((1, 1), (2, 5), (4, 4), (7, 7), (16, 17))),
    dense("no padding", 20, 24, (9, 10), (3, 3)),
    dense("uneven padding", 20, 24, (9, 10), (3, 3), padding=((0, 2), (3, 1))),
    dense("many tiles", 20, 24, (33, 64), (3, 3), padding=1),
]
WIDER_CASES = [  # kernels of more than 3x3
    *(dense(f"{k}x{k}, {c} -> {o}", c, o, (9, 10), (k, k), padding=p) for k, p in ((4, 1), (5, 2), (5, 0))
      for c, o in ((16, 16), (17, 33))),
    *(dense(f"5x5, {h}x{w}", 20, 24, (h, w), (5, 5), n=3, padding=4) for h, w in ((1, 1), (2, 5), (16, 17))),
    dense("4x4, uneven padding", 20, 24, (9, 10), (4, 4), padding=((0, 2), (3, 1))),
]  # fmt: skip


def assert_near(got: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    assert got.dtype == np.float32
    assert got.shape == expected.shape
    scale = np.abs(expected).max(initial=1e-30)
    np.testing.assert_allclose(got / scale, expected / scale, rtol=0, atol=tolerance)


def check_forward(module: Any, case: Case, layout: str, tolerance: float) -> None:
    g, (x, w, bias, _) = case.geometry, case.arrays()
    with guarded_results():
        y = module.forward(g, laid_out(x, layout), guarded_copy(w), guarded_copy(bias), cache={})
    assert_near(y, reference.forward(g, *(a.astype(np.float64) for a in (x, w, bias))), tolerance)
    assert np.moveaxis(y, 1, -1).flags.c_contiguous


def check_data(module: Any, case: Case, layout: str, tolerance: float) -> None:
    g, (_, w, _, gy) = case.geometry, case.arrays()
    with guarded_results():
        gx = module.backward_data(g, laid_out(gy, layout), guarded_copy(w), cache=None)
    assert_near(gx, reference.backward_data(g, *(a.astype(np.float64) for a in (gy, w))), tolerance)
    assert np.moveaxis(gx, 1, -1).flags.c_contiguous


def check_weights(module: Any, case: Case, layout: str, tolerance: float) -> None:
    g, (x, _, _, gy) = case.geometry, case.arrays()
    with guarded_results():
        gw, gb = module.backward_weights(g, laid_out(x, layout), laid_out(gy, layout), with_bias=True)
    expected = reference.backward_weights(g, x.astype(np.float64), gy.astype(np.float64), with_bias=True)
    assert_near(gw, expected[0], tolerance)
    assert expected[1] is not None
    assert_near(gb, expected[1], DIRECT)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_direct(case, layout):
    check_forward(conv_dense, case, layout, DIRECT)
    check_data(conv_dense, case, layout, DIRECT)
    check_weights(conv_dense_weights, case, layout, DIRECT)
    check_weights(conv_gathered_weights, case, layout, DIRECT)


@pytest.mark.parametrize("case", [c for c in CASES if c.geometry.dilation[-1] == 1], ids=str)
def test_scattered_data_gradient(case):
    check_data(conv_scatter, case, "channels last", DIRECT)


@pytest.mark.parametrize("m", [2, 4])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", WINOGRAD_CASES, ids=str)
def test_winograd(case, layout, m, monkeypatch):
    monkeypatch.setattr(conv_dense_winograd, "outputs_for", lambda *_: m)
    conv_dense_winograd.plan_for.cache_clear()
    check_forward(conv_dense_winograd, case, layout, WINOGRAD)
    check_data(conv_dense_winograd, case, layout, WINOGRAD)
    conv_dense_winograd.plan_for.cache_clear()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", WIDER_CASES, ids=str)
def test_winograd_of_wider_kernels(case, layout):
    check_forward(conv_dense_winograd, case, layout, WINOGRAD)
    check_data(conv_dense_winograd, case, layout, WINOGRAD)


@pytest.mark.parametrize("batches", ["one", "many"])
@pytest.mark.parametrize("case", WINOGRAD_CASES, ids=str)
def test_winograd_weight_gradient(case, batches, monkeypatch):
    if batches == "many":
        monkeypatch.setattr(conv_winograd_gradient, "_SHARE_OF_L3", 10**6)
    conv_winograd_gradient.plan_for.cache_clear()
    check_weights(conv_winograd_gradient, case, "channels last", WINOGRAD)
    conv_winograd_gradient.plan_for.cache_clear()


@pytest.mark.parametrize("outputs, taps", [(2, 3), (4, 3), (3, 4), (2, 5), (3, 2)])
def test_matrices_filter_exactly(outputs, taps):
    f = winograd(outputs, taps)
    rng = np.random.default_rng(0)
    d, g = rng.integers(-9, 9, f.size), rng.integers(-9, 9, taps)
    u = [sum(a * int(b) for a, b in zip(row, g, strict=True)) for row in f.G]
    v = [sum(a * int(b) for a, b in zip(row, d, strict=True)) for row in f.Bt]
    y = [sum(a * b * c for a, b, c in zip(row, u, v, strict=True)) for row in f.At]
    assert y == [sum(int(d[i + k]) * int(g[k]) for k in range(taps)) for i in range(outputs)]


@pytest.mark.parametrize("m, taps, most", [(2, 3, 2e-6), (4, 3, 1.5e-5), (3, 4, 1.5e-5), (2, 5, 1.5e-5)])
@pytest.mark.parametrize("channels", [64, 256])
def test_winograd_error_is_as_stated(m, taps, most, channels, monkeypatch):
    """Largest error over the largest result on standard normal data; direct convolution has some 5e-7."""
    monkeypatch.setattr(conv_dense_winograd, "outputs_for", lambda *_: m)
    conv_dense_winograd.plan_for.cache_clear()
    case = dense("", channels, 32, (14, 14), (taps, taps), n=1, padding=1)
    x, w, bias, _ = case.arrays()
    y = conv_dense_winograd.forward(case.geometry, x, w, bias)
    conv_dense_winograd.plan_for.cache_clear()
    assert_near(y, reference.forward(case.geometry, *(a.astype(np.float64) for a in (x, w, bias))), most)


THREAD_CASES = [
    dense("planes", 20, 40, (30, 31), (3, 3), padding=1),
    dense("many blocks", 48, 200, (7, 7), (3, 3), n=1, padding=1),
    dense("first layer", 3, 20, (60, 61), (7, 7), padding=3, stride=2),
    dense("large batch", 16, 32, (20, 20), (3, 3), n=40, padding=1),
    dense("1x1", 64, 96, (14, 14), (1, 1)),
]


@pytest.mark.parametrize("case", THREAD_CASES, ids=str)
def test_bits_do_not_depend_on_threads(case):
    g, (x, w, bias, gy) = case.geometry, case.arrays()
    before, results = team.get_num_threads(), []
    try:
        for count in (1, 2, 3, 4, 2):
            team.set_num_threads(count)
            y = registry.call("conv.forward", g, x, w, bias, cache=None)
            gx = registry.call("conv.backward_data", g, gy, w, cache=None)
            gradients = registry.call("conv.backward_weights", g, x, gy, with_bias=True)
            results.append((y, gx, *gradients, *conv_gathered_weights.backward_weights(g, x, gy, with_bias=True)))
    finally:
        team.set_num_threads(before)
    for more in results[1:]:
        for first, other in zip(results[0], more, strict=True):
            assert np.array_equal(first, other)


def test_kept_weights_are_used(monkeypatch):
    case = dense("", 20, 24, (9, 10), (3, 3), padding=1)
    x, w, bias, _ = case.arrays()
    cache: dict = {}
    y = conv_dense.forward(case.geometry, x, w, bias, cache=cache)
    assert len(cache) == 1
    monkeypatch.setattr(conv_dense.pack_weights, "pack", None)
    assert np.array_equal(y, conv_dense.forward(case.geometry, x, w, bias, cache=cache))


def test_kept_weights_of_another_number_of_groups():
    """One weight array over 16 and over 64 input channels: its panels differ."""
    cache: dict = {}
    for groups in (1, 4, 1):
        case = dense("", 16 * groups, 5 * L, (5, 6), (3, 3), g=groups, padding=1)
        x, w, bias, _ = case.arrays()
        y = conv_dense.forward(case.geometry, x, w, bias, cache=cache)
        expected = reference.forward(case.geometry, *(a.astype(np.float64) for a in (x, w, bias)))
        assert_near(y, expected, DIRECT)


def test_winograd_can_be_switched_off():
    case = dense("", 64, 64, (28, 28), (3, 3), padding=1)
    x, w, bias, _ = case.arrays()
    assert conv_dense_winograd.refuse_forward(case.geometry, x, w, bias) is None
    flags.winograd = False
    try:
        assert conv_dense_winograd.refuse_forward(case.geometry, x, w, bias) == "switched off"
    finally:
        flags.winograd = True


def test_large_results_are_streamed(monkeypatch):
    small_cache = replace(host(), l3_bytes=1 << 16)
    monkeypatch.setattr(conv_dense, "host", lambda: small_cache)
    case = dense("", 3, 4 * L, (40, 41), (3, 3), padding=1)
    x, w, bias, _ = case.arrays()
    y = conv_dense.forward(case.geometry, x, w, bias)
    assert_near(y, reference.forward(case.geometry, *(a.astype(np.float64) for a in (x, w, bias))), DIRECT)


@pytest.mark.parametrize("chip", assembly.CHIPS)
@pytest.mark.parametrize("channels, size", [(64, 32), (48, 28), (128, 28), (512, 28), (256, 14)])
def test_winograd_products_stay_in_registers(chip, channels, size, monkeypatch):
    """Tile blocks of many sizes: the widest register tiles and narrower ones."""
    target = assembly.CHIPS[chip]
    problem = forward_problem(dense("", channels, channels, (size, size), (3, 3), n=1, padding=1).geometry)
    for outputs in (2, 4):
        monkeypatch.setattr(conv_dense_winograd, "outputs_for", lambda *_, m=outputs: m)
        s = conv_dense_winograd.plan_for.__wrapped__(problem, True, 2, target).schedule
        kernel = Kernel("conv_winograd", conv_winograd.FIELDS, s, conv_winograd.emit)
        assembly.assert_stays_in_registers(kernel, chip, s.tiles * s.vectors, reads_ahead=True)


@pytest.mark.parametrize("chip", assembly.CHIPS)
def test_hot_loops_stay_in_registers(chip):
    target = assembly.CHIPS[chip]
    case = dense("wide", 64, 64, (56, 56), (3, 3), n=1, padding=1)
    problem = forward_problem(case.geometry)
    direct = conv_dense.plan_for(problem, False, True, False, 2, target).schedule
    product = conv_dense_winograd.plan_for(problem, True, 2, target).schedule
    weights = conv_dense_weights.plan_for(problem, 2, target).schedule
    gathered = conv_gathered_weights.plan_for(problem, 2, target).schedule
    for kernel in (
        Kernel("conv_direct", conv_direct.FIELDS, direct, conv_direct.emit),
        Kernel("conv_winograd", conv_winograd.FIELDS, product, conv_winograd.emit),
        Kernel("conv_backward_weights", conv_backward_weights.FIELDS, weights, conv_backward_weights.emit),
        Kernel("conv_gathered_weights", conv_gathered.FIELDS, gathered, conv_gathered.emit),
    ):
        assembly.assert_stays_in_registers(kernel, chip, 24, kernel.name == "conv_winograd")


SIZES = st.sampled_from((1, 2, 3, 7, 8, 15))
PADS = st.tuples(st.integers(0, 3), st.integers(0, 3))


@st.composite
def geometries(draw: st.DrawFn) -> ConvGeometry:
    ndim = draw(st.sampled_from((1, 2, 2, 2, 3)))
    groups = draw(st.sampled_from((1, 1, 1, 2, 3)))
    channels, outs = draw(st.sampled_from((1, 3, 8, 17))), draw(st.sampled_from((1, 5, 16, 17, 40)))
    kernel = tuple(draw(st.sampled_from((1, 2, 3, 5))) for _ in range(ndim))
    sizes = tuple(draw(SIZES) for _ in range(ndim))
    options = {
        "stride": tuple(draw(st.integers(1, 3)) for _ in range(ndim)),
        "dilation": tuple(draw(st.integers(1, 2)) for _ in range(ndim)),
        "padding": tuple(draw(PADS) for _ in range(ndim)),
    }
    batch = draw(st.sampled_from((0, 1, 2)))
    input_shape, weight_shape = (batch, channels * groups, *sizes), (outs * groups, channels, *kernel)
    return ConvGeometry.of(input_shape, weight_shape, groups=groups, **options)


@settings(max_examples=2000, suppress_health_check=list(HealthCheck))
@given(geometry=geometries(), layout=st.sampled_from(LAYOUTS), which=st.integers(0, 2))
def test_random_geometries(geometry, layout, which):
    """Whatever candidate is chosen; one of the three passes each time."""
    if min(geometry.output) < 1:
        return
    rng = np.random.default_rng(1)
    x, w, gy = (
        rng.standard_normal(shape).astype(np.float32)
        for shape in (geometry.input_shape, geometry.weight_shape, geometry.output_shape)
    )
    wide = [a.astype(np.float64) for a in (x, w, gy)]
    if which == 0:
        got = registry.call("conv.forward", geometry, laid_out(x, layout), w, None, cache=None)
        assert_near(got, reference.forward(geometry, wide[0], wide[1], None), WINOGRAD)
    elif which == 1:
        got = registry.call("conv.backward_data", geometry, laid_out(gy, layout), w, cache=None)
        assert_near(got, reference.backward_data(geometry, wide[2], wide[1]), WINOGRAD)
    else:
        gw, _ = registry.call(
            "conv.backward_weights", geometry, laid_out(x, layout), laid_out(gy, layout), with_bias=False
        )
        assert_near(gw, reference.backward_weights(geometry, wide[0], wide[2], with_bias=False)[0], WINOGRAD)


def test_memory_of_a_call_returns_to_the_pool():
    case = dense("", 32, 64, (40, 40), (3, 3), n=4, padding=1)
    x, w, bias, _ = case.arrays()
    registry.call("conv.forward", case.geometry, x, w, bias, cache=None)
    before = memory.free_bytes()
    for _ in range(3):
        registry.call("conv.forward", case.geometry, x, w, bias, cache=None)
    assert memory.free_bytes() == before
