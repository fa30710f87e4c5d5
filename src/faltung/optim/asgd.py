"""Averaged stochastic gradient descent."""

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

__all__ = ["ASGD"]


class ASGD(SteppingOptimizer):
    """Stochastic gradient descent that averages its weights, in `state[param]["ax"]` (Polyak & Juditsky 1992).

    Args:
        params: tensors, or dicts of parameter groups.
        lr: first step size, a number or a tensor of one element.
        lambd: decay; step t uses lr / (1 + lambd lr t)^alpha.
        alpha: power of that decay.
        t0: number of steps before averaging starts.
        weight_decay: L2 penalty, added to the gradient.
        maximize: climb instead of descending.
        foreach, capturable: accepted; a step is one call into the engine either way.
        differentiable: must be False.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-2,
        lambd: float = 1e-4,
        alpha: float = 0.75,
        t0: float = 1e6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
    ) -> None:
        check_nonnegative(self, lr=lr, weight_decay=weight_decay)
        defaults = {
            "lr": lr,
            "lambd": lambd,
            "alpha": alpha,
            "t0": t0,
            "weight_decay": weight_decay,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "capturable": capturable,
        }
        super().__init__(params, defaults)

    def _new_state(self, param: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        return {
            "step": scalar_tensor(0.0),
            "eta": scalar_tensor(scalar(group["lr"])),
            "mu": scalar_tensor(1.0),
            "ax": zeros_like(param),
        }

    def _update(self, group: dict[str, Any], batch: Batch) -> None:
        steps = batch.advance()
        lr, lambd = scalar(group["lr"]), group["lambd"]
        engine.call(
            "optimizer.asgd",
            batch.params,
            batch.grads,
            batch.arrays("ax"),
            batch.numbers("eta"),
            batch.numbers("mu"),
            lambd=lambd,
            weight_decay=group["weight_decay"],
            maximize=group["maximize"],
        )
        batch.set_numbers("eta", [lr / (1 + lambd * lr * step) ** group["alpha"] for step in steps])
        batch.set_numbers("mu", [1 / max(1, step - group["t0"]) for step in steps])
