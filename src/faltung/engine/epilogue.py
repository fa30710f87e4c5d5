"""What a convolution does to its results while they are still in registers.

In this order, each step optional: y -> (y - mean) * scale + shift per channel, y + residual, activation(y). The bias
comes before. Every step rounds as the operation of its own does, so that a fused result has the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

__all__ = ["ACTIVATIONS", "DIFFERENTIABLE", "NO_STEPS", "Epilogue", "Steps", "steps_of"]

# name -> (the activation that it stands for: `<this>_forward` and `_backward` of the family; its numbers)
ACTIVATIONS: dict[str, tuple[str, dict[str, float]]] = {
    "relu": ("relu", {}),
    "relu6": ("hardtanh", {"low": 0.0, "high": 6.0}),
    "hardswish": ("hardswish", {}),
    "silu": ("silu", {}),
}
DIFFERENTIABLE = ("relu", "relu6")  # those whose derivative follows from what they let through


@dataclass(frozen=True, slots=True)
class Steps:
    """Which steps there are: what shapes a kernel's code."""

    affine: bool = False
    residual: bool = False
    activation: str = ""  # one of ACTIVATIONS, or none


NO_STEPS = Steps()


class Epilogue:
    """The steps with their numbers; a plain class, since a frozen record takes three times as long to make.

    Attributes:
        affine: (3, O): mean, scale and shift of each channel; or None.
        residual: (N, O, *output), or None.
        activation: one of ACTIVATIONS, or none.
        steps: which steps there are.
    """

    __slots__ = ("activation", "affine", "residual", "steps")

    def __init__(
        self, affine: np.ndarray | None = None, residual: np.ndarray | None = None, activation: str = ""
    ) -> None:
        self.affine, self.residual, self.activation = affine, residual, activation
        self.steps = _steps(affine is not None, residual is not None, activation)


_steps = lru_cache(maxsize=64)(Steps)


def steps_of(epilogue: Epilogue | None) -> Steps:
    """The steps of an epilogue that may be absent."""
    return NO_STEPS if epilogue is None else epilogue.steps
