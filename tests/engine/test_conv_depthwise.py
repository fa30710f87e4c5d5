"""Depthwise convolution kernels against the reference in float64."""

import numpy as np
import pytest

from faltung.engine.epilogue import NO_STEPS
from faltung.engine.geometry import ConvGeometry
from faltung.engine.kernels import conv_depthwise, group_plan
from tests.engine import assembly
from tests.engine import grouped_checks as checks
from tests.engine.grouped_checks import Case

LABELS = ("conv_depthwise", "conv_depthwise")


def depthwise(name: str, channels: int, sizes: tuple[int, ...], kernel: tuple[int, ...], m: int = 1, **options) -> Case:
    return Case(name, (2, channels, *sizes), (m * channels, 1, *kernel), channels, options)


CASES = [
    *(depthwise(f"{c} channels", c, (5, 9), (3, 3), padding=1) for c in (1, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 48)),
    *(depthwise(f"width {n}", 16, (4, n), (3, 3), padding=1) for n in (1, 2, 6, 7, 8, 13, 14, 15, 22, 23, 24, 25)),
    *(depthwise(f"stride {s}", 20, (15, 16), (3, 3), padding=1, stride=s) for s in (2, 3)),
    *(depthwise(f"5x5 stride {s}", 20, (15, 16), (5, 5), padding=2, stride=s) for s in (1, 2, 3)),
    *(depthwise(f"multiplier {m}", 6, (7, 8), (3, 3), m, padding=1) for m in (2, 3, 4, 5, 16, 17)),
    *(depthwise(f"multiplier {m} stride 2", 6, (7, 8), (3, 3), m, padding=1, stride=2) for m in (2, 3)),
    depthwise("dilation 2", 20, (15, 16), (3, 3), padding=2, dilation=2),
    depthwise("dilation 2 stride 2", 20, (15, 16), (3, 3), padding=2, dilation=2, stride=2),
    depthwise("uneven padding", 20, (15, 16), (3, 3), padding=((0, 2), (1, 0))),
    depthwise("7x7 of a whole plane", 20, (7, 7), (7, 7)),
    depthwise("7x7", 20, (9, 10), (7, 7), padding=3),
    depthwise("1d", 20, (600,), (5,), padding=2),
    depthwise("3d", 20, (4, 5, 6), (3, 3, 3), padding=1),
    depthwise("3d of one kernel plane", 20, (4, 5, 6), (1, 3, 3), padding=1),
    depthwise("padding beyond the kernel", 20, (5, 6), (3, 3), padding=4),
    depthwise("dilation beyond the input", 20, (3, 4), (3, 3), padding=6, dilation=5),
    depthwise("3d stride 2", 20, (4, 5, 6), (3, 3, 3), padding=1, stride=2),
]


@pytest.mark.parametrize("layout", checks.LAYOUTS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_passes(case, layout):
    checks.check(case, LABELS, layout)


@pytest.mark.parametrize("case", [CASES[4], depthwise("large", 40, (30, 30), (3, 3), padding=1)], ids=str)
def test_bits_do_not_depend_on_threads(case):
    checks.check_threads(case, LABELS, "channels last")


def test_refuses_what_is_not_depthwise():
    one = np.zeros(1, np.float32)
    grouped = ConvGeometry.of((1, 8, 5, 5), (8, 4, 3, 3), groups=2)
    assert "8 input channels in 2 groups" in str(conv_depthwise.refuse_forward(grouped, one, one, None))
    assert conv_depthwise.refuse_backward_data(grouped, one, one)
    assert conv_depthwise.refuse_backward_weights(grouped, one, one)


@pytest.mark.parametrize("chip", assembly.CHIPS)
@pytest.mark.parametrize("kernel, stride", [(3, 1), (3, 2), (5, 1), (7, 1)])
def test_hot_loops_stay_in_registers(kernel, stride, chip):
    case = Case("wide", (1, 144, 56, 56), (144, 1, kernel, kernel), 144, {"padding": kernel // 2, "stride": stride})
    target = assembly.CHIPS[chip]
    in_place = conv_depthwise.schedule_for(group_plan.forward_pass(case.geometry), NO_STEPS, False, target)
    for built in (conv_depthwise.row_kernel(in_place), *checks.kernels(case, target).values()):
        assembly.assert_stays_in_registers(built, chip, 12)
