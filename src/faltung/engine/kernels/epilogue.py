"""The epilogue of convolution kernels: `engine.epilogue` on vectors of results, before they are stored.

Registers: one for the value in flight and what the activation takes; the accumulators of the tile stay where they are.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from faltung.engine import layout
from faltung.engine.emit import Emitter, Int, Ptr, Vec
from faltung.engine.epilogue import ACTIVATIONS, Epilogue, Steps
from faltung.engine.kernel import address
from faltung.engine.kernels import flat
from faltung.engine.kernels.pointwise import EXPRESSIONS

FIELDS = "affine affine_step residual"  # of every kernel that has an epilogue


class Finish:
    """The epilogue in one kernel."""

    def __init__(self, e: Emitter, steps: Steps) -> None:
        self.e, self.steps = e, steps
        self.affine = e.pointer("affine") if steps.affine else None
        self.step = e.field("affine_step") if steps.affine else None
        self.residual = e.pointer("residual") if steps.residual else None

    def __call__(self, value: Vec, channel: Int, residual: Ptr | None = None, mask: Any = None) -> Vec:
        """`value` finished; `channel` indexes the padded channels, `residual` lies where the result goes."""
        e = self.e
        if self.affine is not None and self.step is not None:
            mean, scale, shift = (self.affine.at(self.step * row + channel).load(value.lanes) for row in range(3))
            value = e.fma(value - mean, scale, shift)
        if residual is not None:
            value = value + flat.load(residual, value.lanes, mask)
        return activated(e, self.steps.activation, value)


def activated(e: Emitter, activation: str, value: Vec) -> Vec:
    """One of `ACTIVATIONS` (or none) of a vector."""
    return _formula(e, activation, "forward", value) if activation else value


def gradient_through(e: Emitter, activation: str, gradient: Vec, result: Vec) -> Vec:
    """The gradient before one of `DIFFERENTIABLE`, from its result or, since the same is let through, its argument."""
    return _formula(e, activation, "backward", gradient, result)


def _formula(e: Emitter, activation: str, way: str, *operands: Vec) -> Vec:
    name, numbers = ACTIVATIONS[activation]
    constants = {key: e.constant(number, operands[0].lanes) for key, number in numbers.items()}
    return EXPRESSIONS[f"{name}_{way}"].formula(e, *operands, **constants)


def values(epilogue: Epilogue | None, groups: int, padded: int) -> tuple[tuple[int, int, int], Any]:
    """(values of `FIELDS`, the array that must outlive the launch): channels padded to `padded` per group."""
    if epilogue is None:
        return (0, 0, 0), None
    residual = 0 if epilogue.residual is None else address(epilogue.residual)
    affine = epilogue.affine
    if affine is None:
        return (0, 0, residual), None
    if affine.shape[1] != groups * padded or not affine.flags.c_contiguous:
        full = np.zeros((3, groups, padded), np.float32)
        full[:, :, : affine.shape[1] // groups] = affine.reshape(3, groups, -1)
        affine = full
    return (address(affine), groups * padded, residual), affine


def channels_last(epilogue: Epilogue | None) -> Epilogue | None:
    """The same with a residual whose channels lie innermost, as those of results do."""
    if epilogue is None or epilogue.residual is None:
        return epilogue
    return Epilogue(epilogue.affine, layout.channels_last(epilogue.residual), epilogue.activation)
