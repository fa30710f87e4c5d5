"""Resilient backpropagation."""

from __future__ import annotations

from typing import Any

from faltung import engine
from faltung.optim.optimizer import ParamsT
from faltung.optim.stepping import (
    Batch,
    SteppingOptimizer,
    check_nonnegative,
    scalar,
    scalar_tensor,
    zeros_like,
)
from faltung.tensor import Tensor

__all__ = ["Rprop"]


class Rprop(SteppingOptimizer):
    """Step by the gradient's sign, by a length that grows while the sign stays (Riedmiller & Braun 1993).

    Made for full batches: noise in the gradient's sign defeats it.

    Args:
        params: tensors, or dicts of parameter groups.
        lr: first length of all steps, a number or a tensor of one element.
        etas: factors on the length after a change of sign and after none, 0 < etas[0] < 1 < etas[1].
        step_sizes: smallest and largest length.
        maximize: climb instead of descending.
        foreach, capturable: accepted; a step is one call into the engine either way.
        differentiable: must be False.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-2,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50),
        *,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        check_nonnegative(self, lr=lr)
        if not 0 < etas[0] < 1 < etas[1]:
            raise ValueError(f"Rprop: Invalid eta values: {etas[0]}, {etas[1]}. Expected 0 < etas[0] < 1 < etas[1].")
        defaults = {
            "lr": lr,
            "etas": etas,
            "step_sizes": step_sizes,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "capturable": capturable,
        }
        super().__init__(params, defaults)

    def _new_state(self, param: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        lr = scalar(group["lr"])
        step_size = zeros_like(param, complex(lr, lr) if param.is_complex() else lr)
        return {"step": scalar_tensor(0.0), "prev": zeros_like(param), "step_size": step_size}

    def _update(self, group: dict[str, Any], batch: Batch) -> None:
        batch.advance()
        engine.call(
            "optimizer.rprop",
            batch.params,
            batch.grads,
            batch.arrays("prev"),
            batch.arrays("step_size"),
            eta_minus=group["etas"][0],
            eta_plus=group["etas"][1],
            step_min=group["step_sizes"][0],
            step_max=group["step_sizes"][1],
            maximize=group["maximize"],
        )
