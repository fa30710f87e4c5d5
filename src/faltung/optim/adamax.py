"""Adamax."""

from __future__ import annotations

from typing import Any

from faltung import engine
from faltung.optim.optimizer import ParamsT
from faltung.optim.stepping import (
    Batch,
    SteppingOptimizer,
    check_betas,
    check_nonnegative,
    scalar,
    scalar_tensor,
    zeros_like,
)
from faltung.tensor import Tensor

__all__ = ["Adamax"]


class Adamax(SteppingOptimizer):
    """Adam with the infinity norm in place of the second moment (Kingma & Ba 2015, section 7).

    Args:
        params: tensors, or dicts of parameter groups.
        lr: step size, a number or a tensor of one element.
        betas: shares that the averages keep per step, both in [0, 1).
        eps: added to the gradient's magnitude.
        weight_decay: L2 penalty, added to the gradient.
        maximize: climb instead of descending.
        foreach, capturable: accepted; a step is one call into the engine either way.
        differentiable: must be False.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
    ) -> None:
        check_nonnegative(self, lr=lr, eps=eps, weight_decay=weight_decay)
        check_betas(self, betas)
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "capturable": capturable,
        }
        super().__init__(params, defaults)

    def _new_state(self, param: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        return {"step": scalar_tensor(0.0), "exp_avg": zeros_like(param), "exp_inf": zeros_like(param)}

    def _update(self, group: dict[str, Any], batch: Batch) -> None:
        engine.call(
            "optimizer.adamax",
            batch.params,
            batch.grads,
            batch.arrays("exp_avg"),
            batch.arrays("exp_inf"),
            batch.advance(),
            lr=scalar(group["lr"]),
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            eps=group["eps"],
            weight_decay=group["weight_decay"],
            maximize=group["maximize"],
        )
