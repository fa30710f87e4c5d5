"""Epilogues of convolutions: the bits of the operations they stand for, on every kernel."""

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from faltung.engine import registry, team
from faltung.engine.epilogue import ACTIVATIONS, Epilogue, Steps
from faltung.engine.kernel import Kernel
from faltung.engine.kernels import conv_dense, conv_dense_winograd, conv_direct, conv_grouped
from faltung.engine.kernels.conv_problem import forward_problem
from faltung.engine.reference import conv as reference
from faltung.engine.target import host
from tests.engine import assembly
from tests.engine.grouped_checks import Case, laid_out
from tests.engine.guard import guarded_copy, guarded_results

L = host().lanes


def case(name: str, c: int, o: int, sizes: tuple[int, ...], kernel: tuple[int, ...], g: int = 1, **options) -> Case:
    return Case(name, (2, c, *sizes), (o, c // g, *kernel), g, options)


CASES = [
    *((conv_dense, case(f"direct {o}", 5, o, (5, 6), (3, 3), padding=1)) for o in (1, L - 1, L, L + 1, 2 * L, 3 * L)),
    (conv_dense, case("1x1", 20, 2 * L + 3, (7, 7), (1, 1))),
    (conv_dense, case("blocked channels", 700, 2 * L, (5, 5), (3, 3), padding=1)),
    (conv_dense, case("blocked channels, masked", 700, L + 5, (5, 5), (3, 3), padding=1)),
    (conv_dense, case("stride 2", 9, 20, (13, 14), (3, 3), padding=1, stride=2)),
    (conv_dense, case("large groups", 4 * L, 2 * L + 2, (6, 7), (3, 3), g=2, padding=1)),
    (conv_dense, case("1d", 9, 20, (50,), (5,), padding=2)),
    (conv_dense, case("3d", 5, 20, (4, 5, 6), (3, 3, 3), padding=1)),
    *((conv_dense_winograd, case(f"Winograd {o}", 20, o, (9, 10), (3, 3), padding=1)) for o in (L, 2 * L + 1)),
    *((conv_grouped, case(f"depthwise {c}", c, c, (9, 10), (3, 3), g=c, padding=1)) for c in (L - 1, L, L + 1, 3 * L)),
    (conv_grouped, case("depthwise, multiplier 3", 7, 21, (9, 10), (3, 3), g=7, padding=1)),
    (conv_grouped, case("groups of 4 -> 8", 16, 32, (9, 10), (3, 3), g=4, padding=1)),
    (conv_grouped, case("groups of 2 -> 3", 10, 15, (9, 10), (3, 3), g=5, stride=2)),
    (conv_grouped, case("groups of 2 -> 33", 4, 66, (5, 6), (3, 3), g=2)),
]
EPILOGUES = [
    ("affine", ""),
    ("residual", ""),
    *(("affine residual", name) for name in ("", *ACTIVATIONS)),
    ("", "relu"),
]


def epilogue_of(steps: str, activation: str, shape: tuple[int, ...]) -> Epilogue:
    rng = np.random.default_rng(3)
    affine = rng.standard_normal((3, shape[1])).astype(np.float32)
    residual = rng.standard_normal(shape).astype(np.float32)
    return Epilogue(affine if "affine" in steps else None, residual if "residual" in steps else None, activation)


def step_by_step(y: np.ndarray, epilogue: Epilogue) -> np.ndarray:
    """What the operations of their own make of y."""
    if epilogue.affine is not None:
        mean, scale, shift = (np.ascontiguousarray(row) for row in epilogue.affine)
        no_change = np.ones_like(scale)  # scale = weight / sqrt(1 + 0)
        y = registry.call("norm.batch_inference", y, mean, no_change, scale, shift, 0.0)
    if epilogue.residual is not None:
        y = registry.call("pointwise.add", y, epilogue.residual)
    if epilogue.activation:
        name, numbers = ACTIVATIONS[epilogue.activation]
        y = registry.call(f"activation.{name}_forward", y, **numbers)
    return y


@pytest.mark.parametrize("steps, activation", EPILOGUES)
@pytest.mark.parametrize("module, case", CASES, ids=lambda value: str(value) if isinstance(value, Case) else "")
def test_bits_of_the_operations(module: Any, case: Case, steps: str, activation: str) -> None:
    g, (x, w, bias, _) = case.geometry, case.arrays()
    epilogue = epilogue_of(steps, activation, g.output_shape)
    plain = module.forward(g, x, w, bias, cache={})
    results = []
    for threads in (1, 2, 3):
        team.set_num_threads(threads)
        guarded = Epilogue(
            None if epilogue.affine is None else guarded_copy(epilogue.affine),
            None if epilogue.residual is None else laid_out(epilogue.residual, "channels last"),
            activation,
        )
        with guarded_results():
            fused = module.forward(g, laid_out(x, "channels last"), guarded_copy(w), guarded_copy(bias), cache={},
                                   epilogue=guarded)  # fmt: skip
        results.append(fused.tobytes())
        np.testing.assert_array_equal(fused, step_by_step(plain, epilogue))
    assert len(set(results)) == 1


@pytest.mark.parametrize("steps, activation", EPILOGUES)
def test_reference(steps: str, activation: str) -> None:
    one = case("", 6, 9, (5, 6), (3, 3), padding=1)
    g, arrays = one.geometry, [a.astype(np.float64) for a in one.arrays()[:3]]
    epilogue = epilogue_of(steps, activation, g.output_shape)
    wide = Epilogue(
        None if epilogue.affine is None else epilogue.affine.astype(np.float64),
        None if epilogue.residual is None else epilogue.residual.astype(np.float64),
        activation,
    )
    y = reference.forward(g, *arrays)
    if wide.affine is not None:
        y = np.stack([(y[:, c] - wide.affine[0, c]) * wide.affine[1, c] + wide.affine[2, c] for c in range(9)], 1)
    if wide.residual is not None:
        y = y + wide.residual
    formula = {
        "": lambda v: v,
        "relu": lambda v: np.clip(v, 0, None),
        "relu6": lambda v: np.clip(v, 0, 6),
        "hardswish": lambda v: v * np.clip(v + 3, 0, 6) / 6,
        "silu": lambda v: v / (1 + np.exp(-v)),
    }[activation]
    np.testing.assert_allclose(reference.forward(g, *arrays, epilogue=wide), formula(y), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("residual", ["planar", "other"])
def test_residuals_of_any_memory_order(residual: str) -> None:
    one = case("", 20, 24, (9, 10), (3, 3), padding=1)
    g, (x, w, bias, _) = one.geometry, one.arrays()
    epilogue = epilogue_of("residual", "relu", g.output_shape)
    assert epilogue.residual is not None
    expected = registry.call("conv.forward", g, x, w, bias, cache=None, epilogue=epilogue)
    other = Epilogue(None, laid_out(epilogue.residual, residual), "relu")
    np.testing.assert_array_equal(registry.call("conv.forward", g, x, w, bias, cache=None, epilogue=other), expected)


@pytest.mark.parametrize("chip", assembly.CHIPS)
def test_hot_loops_stay_in_registers(chip: str) -> None:
    """An epilogue comes after the sums: it may not cost them registers. (Winograd's comes in a loop of its own.)"""
    target = assembly.CHIPS[chip]
    problem = forward_problem(case("", 64, 64, (28, 28), (3, 3), padding=1).geometry)
    for steps in (Steps(True, True, "relu6"), Steps(True, False, "hardswish"), Steps(False, False, "silu")):
        schedule = replace(conv_dense.plan_for(problem, False, True, False, 2, target).schedule, epilogue=steps)
        kernel = Kernel("conv_direct", conv_direct.FIELDS, schedule, conv_direct.emit)
        _assert_sums_in_registers(kernel, chip, schedule.rows * schedule.columns * schedule.vectors)


def _assert_sums_in_registers(kernel: Kernel, chip: str, at_least: int) -> None:
    loop = re.split(r"\n\s+(?:j[a-z]+|b\.[a-z]+|b|tbn?z|cbn?z)\s", assembly.hot_loop(kernel, chip))[0]
    assert assembly.multiply_adds(loop, chip) >= at_least
    assert assembly.spills(loop) <= at_least // 30, f"{kernel.schedule} spills:\n{loop}"
