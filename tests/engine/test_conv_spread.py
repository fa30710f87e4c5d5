"""Grouped convolution through a ring of spread values, against the reference in float64."""

import numpy as np
import pytest

from faltung.engine.epilogue import NO_STEPS
from faltung.engine.geometry import ConvGeometry
from faltung.engine.kernels import conv_spread, group_plan
from faltung.engine.reference import conv as reference
from faltung.engine.target import host
from tests.engine import assembly
from tests.engine import grouped_checks as checks
from tests.engine.grouped_checks import Case

LABELS = ("conv_spread", "conv_grouped_weights")
L = host().lanes
SAME = {"padding": 1}
OUTS = [outs for outs in (2, 4, 8) if outs < L]
MOST = OUTS[-1]


def grouped(name: str, ins: int, outs: int, sizes: tuple[int, ...], kernel: tuple[int, ...], **options) -> Case:
    groups = 2 * L // min(ins, outs)  # whole vectors of either side
    return Case(name, (2, ins * groups, *sizes), (outs * groups, ins, *kernel), groups, options)


CASES = [
    *(grouped(f"{i}->{o}", i, o, (6, 11), (3, 3), **SAME) for i in OUTS for o in OUTS),
    *(grouped(f"width {n}", 2, 2, (3, n), (3, 3), **SAME) for n in (1, 2, 7, 8, 9, 10, 11, 19, 20, 21, 22, 41)),
    *(grouped(f"height {n}", 2, MOST, (n, 5), (3, 3), **SAME) for n in (1, 15, 16, 17, 33)),
    *(grouped(f"dilation {d}", 2, 2, (14, 17), (3, 3), dilation=d, padding=d) for d in (2, 3)),
    grouped("uneven padding", MOST, 2, (9, 8), (3, 3), padding=((0, 2), (2, 1))),
    grouped("1x1", 2, MOST, (5, 7), (1, 1)),
    grouped("5x2", 2, 2, (9, 8), (5, 2), padding=2),
    grouped("1d", 2, 2, (300,), (5,), padding=2),
    grouped("padding beyond the kernel", 2, 2, (4, 4), (2, 2), padding=3),
]
STRIDED = [
    grouped(f"stride {s}, dilation {d}", 2, MOST, (14, 17), (3, 3), padding=2, stride=s, dilation=d)
    for s in (2, 3, (1, 2), (3, 1))
    for d in (1, 2)
]


@pytest.mark.parametrize("layout", checks.LAYOUTS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_passes(case, layout, monkeypatch):
    checks.check(case, LABELS, layout, monkeypatch)


@pytest.mark.parametrize("case", STRIDED, ids=str)
def test_strided_forward(case, monkeypatch):
    x, w, bias, _ = case.arrays()
    with checks.guarded_results(monkeypatch):
        y = checks.chosen("conv.forward", "conv_spread", case.geometry, checks.laid_out(x, "channels last"), w, bias)
    checks.assert_near(y, reference.forward(case.geometry, *(a.astype(np.float64) for a in (x, w, bias))))
    gy = np.zeros(case.geometry.output_shape, np.float32)
    assert conv_spread.refuse_backward_data(case.geometry, gy, w) == "a strided data gradient"


def test_bits_do_not_depend_on_threads():
    checks.check_threads(grouped("large", 2, MOST, (40, 30), (3, 3), **SAME), LABELS, "channels last")


def test_an_infinity_stays_in_its_group():
    case = grouped("", 2, 2, (4, 4), (3, 3), **SAME)
    x, w, bias, _ = case.arrays()
    x[0, 0, 1, 1] = np.inf
    y = conv_spread.forward(case.geometry, x, w, bias)
    assert not np.isfinite(y[0, :2]).all()
    assert np.isfinite(y[0, 2:]).all()


def test_refusals():
    one = np.zeros(1, np.float32)

    def reason(*shapes, **options) -> str:
        return str(conv_spread.refuse_forward(ConvGeometry.of(*shapes, **options), one, one, None))

    assert "one plane" in reason((1, 2 * L, 3, 3, 3), (2 * L, 2, 3, 3, 3), groups=L)
    assert "no spreading" in reason((1, L, 3, 3), (L, 1, 3, 3), groups=L)
    assert "no spreading" in reason((1, 4, 3, 3), (4 * L, 2, 3, 3), groups=2)
    assert "leave lanes idle" in reason((1, 2 * L, 5, 5), (3 * L, 2, 3, 3), groups=L)
    assert "rows of 9 taps" in reason((1, 2 * L, 9, 9), (2 * L, 2, 1, 9), groups=L)
    assert "outgrows L1" in reason((1, 2 * L, 99, 99), (2 * L, 2, 99, 3), groups=L)


@pytest.mark.parametrize("chip", ["avx2", "avx512"])  # a vector of NEON is no wider than the groups
@pytest.mark.parametrize("kernel, stride", [(3, 1), (3, 2), (5, 1)])
def test_hot_loops_stay_in_registers(kernel, stride, chip):
    case = Case("wide", (1, 128, 56, 56), (128, 4, kernel, kernel), 32, {"padding": kernel // 2, "stride": stride})
    target = assembly.CHIPS[chip]
    schedule = conv_spread.schedule_for(group_plan.forward_pass(case.geometry), NO_STEPS, False, target)
    assembly.assert_stays_in_registers(conv_spread.row_kernel(schedule), chip, 12)
