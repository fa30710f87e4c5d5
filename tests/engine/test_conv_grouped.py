"""Grouped convolution kernels: every way in which groups meet lanes, against the reference in float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faltung.engine.geometry import ConvGeometry
from faltung.engine.kernels import conv_grouped, conv_grouped_weights
from tests.engine import assembly
from tests.engine import grouped_checks as checks
from tests.engine.grouped_checks import Case

LABELS = ("conv_grouped", "conv_grouped_weights")

SAME = {"padding": 1}
# channels per group, in and out, and groups: below, at and above a slot of 2, 4, 8, 16 lanes
GROUPS = """
    4->8x8 4->8x3 4->4x9 8->8x4 8->8x3 16->16x2 2->2x17 2->1x5 1->2x16 3->3x5 5->7x4 3->4x6 6->12x2 7->1x33 9->15x3
    2->17x2 1->33x3 17->2x2 40->3x2 3->40x2 12->8x2
""".split()


def by_groups(text: str) -> Case:
    i, o, groups = (int(number) for number in text.replace("->", "x").split("x"))
    return Case(text, (1, i * groups, 6, 11), (o * groups, i, 3, 3), groups, SAME)


CASES = [
    *map(by_groups, GROUPS),
    # widths around a tile, heights around a strip
    *(Case(f"width {n}", (1, 32, 3, n), (64, 4, 3, 3), 8, SAME) for n in (1, 2, 7, 8, 9, 10, 11, 19, 20, 21, 40, 41)),
    *(Case(f"height {n}", (2, 16, n, 5), (16, 4, 3, 3), 4, SAME) for n in (1, 15, 16, 17, 33)),
    *(
        Case(f"stride {s}", (1, 16, 14, 17), (16, 4, 3, 3), 4, {"stride": s, "padding": 1})
        for s in (2, 3, (1, 2), (3, 1))
    ),
    *(Case(f"dilation {d}", (1, 16, 14, 17), (16, 4, 3, 3), 4, {"dilation": d, "padding": d}) for d in (2, 3)),
    Case("stride 2, dilation 3", (1, 16, 17, 18), (16, 4, 3, 3), 4, {"dilation": 3, "padding": 2, "stride": 2}),
    Case(
        "stride 3, dilation 2, padding 4", (1, 16, 17, 18), (16, 4, 3, 2), 4, {"dilation": 2, "padding": 4, "stride": 3}
    ),
    Case("uneven padding", (2, 12, 9, 8), (18, 4, 3, 3), 3, {"padding": ((0, 2), (3, 1))}),
    Case("uneven padding, stride 2", (2, 12, 9, 8), (18, 4, 3, 3), 3, {"padding": ((0, 2), (3, 1)), "stride": 2}),
    Case("padding beyond the kernel", (1, 8, 4, 4), (8, 2, 2, 2), 4, {"padding": 3}),
    Case("1x1", (2, 24, 5, 7), (48, 4, 1, 1), 6),
    Case("1x1 stride 2", (2, 24, 5, 7), (48, 4, 1, 1), 6, {"stride": 2}),
    Case("7x7", (1, 8, 12, 13), (8, 2, 7, 7), 4, {"padding": 3}),
    Case("3x9", (1, 8, 12, 13), (8, 2, 3, 9), 4, {"padding": 4}),
    Case("1x11", (1, 8, 4, 30), (8, 2, 1, 11), 4, {"padding": 0}),
    Case("1d", (2, 12, 300), (36, 2, 5), 6, {"padding": 2}),
    Case("1d stride 2", (2, 12, 301), (36, 2, 5), 6, {"padding": 2, "stride": 2}),
    Case("3d", (2, 8, 5, 6, 7), (12, 2, 3, 2, 3), 4, {"padding": ((1, 0), (0, 1), (2, 1))}),
    Case("3d stride", (2, 8, 5, 6, 7), (12, 2, 3, 2, 3), 4, {"padding": 1, "stride": (2, 3, 1), "dilation": (1, 2, 1)}),
]


@pytest.mark.parametrize("layout", checks.LAYOUTS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_passes(case, layout):
    checks.check(case, LABELS, layout)


@pytest.mark.parametrize("layout", ["planar", "channels last"])
@pytest.mark.parametrize("case", CASES[::5], ids=str)
def test_nothing_is_read_before_the_first_element(case, layout):
    checks.check(case, LABELS, layout, at_end=False)


@pytest.mark.parametrize("layout", ["planar", "channels last"])
@pytest.mark.parametrize("case", [CASES[0], CASES[10], Case("large", (4, 32, 40, 30), (64, 4, 3, 3), 8, SAME)], ids=str)
def test_bits_do_not_depend_on_threads(case, layout):
    checks.check_threads(case, LABELS, layout)


@st.composite
def geometries(draw: st.DrawFn) -> Case:
    ndim = draw(st.integers(1, 3))
    kernel = tuple(draw(st.lists(st.integers(1, 4), min_size=ndim, max_size=ndim)))
    dilation = tuple(draw(st.lists(st.integers(1, 2), min_size=ndim, max_size=ndim)))
    stride = tuple(draw(st.lists(st.integers(1, 3), min_size=ndim, max_size=ndim)))
    padding = tuple((draw(st.integers(0, 3)), draw(st.integers(0, 3))) for _ in range(ndim))
    spans = [d * (k - 1) + 1 - sum(p) for k, d, p in zip(kernel, dilation, padding, strict=True)]
    sizes = tuple(max(1, span) + draw(st.integers(0, 8)) for span in spans)
    groups, i, o = draw(st.integers(2, 9)), draw(st.integers(1, 5)), draw(st.integers(1, 5))
    batch = draw(st.integers(1, 2))
    options = {"stride": stride, "padding": padding, "dilation": dilation}
    return Case("random", (batch, groups * i, *sizes), (groups * o, i, *kernel), groups, options)


@settings(max_examples=40)
@given(case=geometries(), layout=st.sampled_from(checks.LAYOUTS))
def test_random_geometries(case, layout):
    checks.check(case, LABELS, layout)


def test_groups_do_not_touch_each_other():
    case = CASES[0]
    g, (x, w, bias, gy) = case.geometry, case.arrays()
    x[:, 8:12] = np.inf  # group 2
    gy[:, 16:24] = np.nan
    w[16:24] = np.nan
    others = np.r_[0:16, 24:64]
    assert np.isfinite(conv_grouped.forward(g, x, w, bias)[:, others]).all()
    assert np.isfinite(np.delete(conv_grouped.backward_data(g, gy, w), slice(8, 12), axis=1)).all()
    gw, gb = conv_grouped_weights.backward_weights(g, x, gy, with_bias=True)
    assert gb is not None
    assert np.isfinite(gw[others]).all()
    assert np.isfinite(gb[others]).all()


def test_an_infinity_that_no_position_meets_stays_out_of_the_weight_gradient():
    case = Case("rest of the stride", (1, 8, 6, 6), (8, 4, 3, 3), 2, {"stride": 2})
    x, _, _, gy = case.arrays()
    x[..., 5, :] = x[..., 5] = np.inf  # the last row and column lie behind the last window
    gw, _ = conv_grouped_weights.backward_weights(case.geometry, x, gy)
    assert np.isfinite(gw).all()


def test_packed_weights_are_kept():
    g, (x, w, bias, gy) = CASES[0].geometry, CASES[0].arrays()
    cache: dict = {}
    first = conv_grouped.forward(g, x, w, bias, cache=cache)
    gx = conv_grouped.backward_data(g, gy, w, cache=cache)
    stale = np.zeros_like(w)  # not looked at while the cache lives
    assert np.array_equal(conv_grouped.forward(g, x, stale, bias, cache=cache), first)
    assert np.array_equal(conv_grouped.backward_data(g, gy, stale, cache=cache), gx)


def test_refusals():
    f32, f64 = np.zeros(1, np.float32), np.zeros(1)
    dense = ConvGeometry.of((1, 8, 5, 5), (8, 8, 3, 3))
    wide = ConvGeometry.of((1, 128, 5, 5), (128, 64, 3, 3), groups=2)
    empty = ConvGeometry.of((0, 8, 5, 5), (8, 4, 3, 3), groups=2)
    fits = ConvGeometry.of((1, 8, 5, 5), (8, 4, 3, 3), groups=2)
    for geometry in (dense, wide, empty):
        assert conv_grouped.refuse_forward(geometry, f32, f32, None)
        assert conv_grouped.refuse_backward_data(geometry, f32, f32)
        assert conv_grouped_weights.refuse_backward_weights(geometry, f32, f32)
    assert "float64" in str(conv_grouped.refuse_forward(fits, f64, f64, None))
    assert conv_grouped.refuse_forward(fits, f32, f32, f32) is None


@pytest.mark.parametrize("case", [CASES[0], CASES[2], CASES[3], CASES[5]], ids=str)
@pytest.mark.parametrize("chip", assembly.CHIPS)
def test_hot_loops_stay_in_registers(case, chip):
    wide = Case("wide", (*case.input[:2], 56, 56), case.weight, case.groups, SAME)
    for kernel in checks.kernels(wide, assembly.CHIPS[chip]).values():
        assembly.assert_stays_in_registers(kernel, chip, 12)
