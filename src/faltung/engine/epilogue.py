"""What a convolution does to its results while they are still in registers.

In this order, each step optional: y -> (y - mean) * scale + shift per channel, y + residual, activation(y). The bias
comes before. Every step rounds as the operation of its own does, so that a fused result has the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True, eq=False)
class Epilogue:
    """The steps with their numbers."""

    affine: np.ndarray | None = None  # (3, O): mean, scale and shift of each channel
    residual: np.ndarray | None = None  # (N, O, *output)
    activation: str = ""

    @property
    def steps(self) -> Steps:
        """Which steps there are."""
        return Steps(self.affine is not None, self.residual is not None, self.activation)


def steps_of(epilogue: Epilogue | None) -> Steps:
    """The steps of an epilogue that may be absent."""
    return NO_STEPS if epilogue is None else epilogue.steps
