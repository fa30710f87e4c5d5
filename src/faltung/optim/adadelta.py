"""Adadelta."""

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

__all__ = ["Adadelta"]


class Adadelta(SteppingOptimizer):
    """Step sizes from running averages of squared gradients and of squared steps (Zeiler 2012).

    Args:
        params: tensors, or dicts of parameter groups.
        lr: factor on the step, a number or a tensor of one element.
        rho: share that the running averages keep per step, in [0, 1].
        eps: added under both roots.
        weight_decay: L2 penalty, added to the gradient.
        maximize: climb instead of descending.
        foreach, capturable: accepted; a step is one call into the engine either way.
        differentiable: must be False.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        capturable: bool = False,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        check_nonnegative(self, lr=lr, eps=eps, weight_decay=weight_decay)
        if not 0 <= rho <= 1:
            raise ValueError(f"Adadelta: Invalid rho value: {rho}. Expected 0 <= rho <= 1.")
        defaults = {
            "lr": lr,
            "rho": rho,
            "eps": eps,
            "weight_decay": weight_decay,
            "maximize": maximize,
            "capturable": capturable,
            "foreach": foreach,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults)

    def _new_state(self, param: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        return {"step": scalar_tensor(0.0), "square_avg": zeros_like(param), "acc_delta": zeros_like(param)}

    def _update(self, group: dict[str, Any], batch: Batch) -> None:
        batch.advance()
        engine.call(
            "optimizer.adadelta",
            batch.params,
            batch.grads,
            batch.arrays("square_avg"),
            batch.arrays("acc_delta"),
            lr=scalar(group["lr"]),
            rho=group["rho"],
            eps=group["eps"],
            weight_decay=group["weight_decay"],
            maximize=group["maximize"],
        )
