"""What the tests of depthwise and grouped convolution share: run one candidate, compare with the float64 reference."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from faltung.engine import registry, team
from faltung.engine.geometry import ConvGeometry
from faltung.engine.kernel import Kernel
from faltung.engine.kernels import conv_grouped, conv_grouped_weights, group_plan
from faltung.engine.reference import conv as reference
from faltung.engine.target import Target
from tests.engine.guard import guarded_copy, guarded_results

TOLERANCE = 2e-6  # of the largest value: float32 sums of some hundred products
LAYOUTS = ("planar", "channels last", "other")


@dataclass(frozen=True)
class Case:
    """A named convolution."""

    name: str
    input: tuple[int, ...]
    weight: tuple[int, ...]
    groups: int
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name

    @property
    def geometry(self) -> ConvGeometry:
        return ConvGeometry.of(self.input, self.weight, groups=self.groups, **self.options)

    def arrays(self) -> tuple[np.ndarray, ...]:
        """x, w, bias, gy in float32."""
        rng = np.random.default_rng(7)
        shapes = (self.input, self.weight, self.weight[:1], self.geometry.output_shape)
        return tuple(rng.standard_normal(shape).astype(np.float32) for shape in shapes)


def laid_out(x: np.ndarray, layout: str, at_end: bool = True) -> np.ndarray:
    """A guarded copy of x in one of `LAYOUTS`."""
    if layout == "other":
        return np.repeat(x, 2, axis=-1)[..., ::2].transpose(*range(x.ndim - 1, -1, -1)).copy().T
    return guarded_copy(x, layout == "channels last", at_end)


def chosen(operation: str, label: str, *args: Any, **options: Any) -> Any:
    """The result of one candidate, which must not refuse but for groups that another one computes faster."""
    for name, refuse, run in registry.candidates(operation):
        if name == label:
            reason = refuse(*args, **options)
            assert reason is None or "fill vectors by themselves" in reason
            return run(*args, **options)
    raise AssertionError(f"{operation} has no candidate {label}")


def assert_near(got: np.ndarray, expected: np.ndarray) -> None:
    assert got.dtype == np.float32
    assert got.shape == expected.shape
    scale = np.abs(expected).max(initial=1e-30)
    np.testing.assert_allclose(got / scale, expected / scale, rtol=0, atol=TOLERANCE)


def all_passes(
    case: Case, labels: tuple[str, str], arrays: tuple[np.ndarray, ...], layout: str, at_end: bool = True
) -> tuple[np.ndarray, ...]:
    """y, gx, gw, gb of one candidate; `labels` of the row kernels and of the weight gradient."""
    g, (x, w, bias, gy) = case.geometry, arrays
    x, gy = laid_out(x, layout, at_end), laid_out(gy, layout, at_end)
    w, bias = guarded_copy(w, at_end=at_end), guarded_copy(bias, at_end=at_end)
    y = chosen("conv.forward", labels[0], g, x, w, bias, cache=None)
    gx = chosen("conv.backward_data", labels[0], g, gy, w, cache=None)
    gw, gb = chosen("conv.backward_weights", labels[1], g, x, gy, with_bias=True)
    return y, gx, gw, gb


def check(case: Case, labels: tuple[str, str], layout: str, at_end: bool = True) -> None:
    """All passes of a case against the reference in float64."""
    arrays = case.arrays()
    with guarded_results(at_end):
        y, gx, gw, gb = all_passes(case, labels, arrays, layout, at_end)
    g, (x, w, bias, gy) = case.geometry, (a.astype(np.float64) for a in arrays)
    assert_near(y, reference.forward(g, x, w, bias))
    assert_near(gx, reference.backward_data(g, gy, w))
    expected_gw, expected_gb = reference.backward_weights(g, x, gy, with_bias=True)
    assert_near(gw, expected_gw)
    assert expected_gb is not None
    assert_near(gb, expected_gb)
    for result in (y, gx):
        assert np.moveaxis(result, 1, -1).flags.c_contiguous


def check_threads(case: Case, labels: tuple[str, str], layout: str) -> None:
    """The same bits for any number of threads."""
    arrays, before = case.arrays(), team.get_num_threads()
    try:
        results = []
        for count in (1, 2, 3, 4):
            team.set_num_threads(count)
            results.append(all_passes(case, labels, arrays, layout))
    finally:
        team.set_num_threads(before)
    for more in results[1:]:
        for first, other in zip(results[0], more, strict=True):
            assert np.array_equal(first, other)


def kernels(case: Case, target: Target) -> dict[str, Kernel]:
    """The three kernels of a case, as they would be for a chip."""
    ahead, back = group_plan.forward_pass(case.geometry), group_plan.data_pass(case.geometry)
    return {
        "forward": conv_grouped.row_kernel(group_plan.choose(ahead, False, False, target)),
        "data": conv_grouped.row_kernel(group_plan.choose(back, False, False, target)),
        "weights": conv_grouped_weights.weights_kernel(conv_grouped_weights.choose(ahead, False, False, target)),
    }
