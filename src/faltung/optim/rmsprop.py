"""RMSprop."""

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

__all__ = ["RMSprop"]


class RMSprop(SteppingOptimizer):
    """The gradient over its running root mean square (Hinton 2012).

    Args:
        params: tensors, or dicts of parameter groups.
        lr: step size, a number or a tensor of one element.
        alpha: share that the running average of squared gradients keeps per step.
        eps: added to the root.
        weight_decay: L2 penalty, added to the gradient.
        momentum: share that a step keeps of the one before.
        centered: subtract the square of the average gradient, which leaves the variance.
        maximize: climb instead of descending.
        foreach, capturable: accepted; a step is one call into the engine either way.
        differentiable: must be False.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        check_nonnegative(self, lr=lr, eps=eps, momentum=momentum, weight_decay=weight_decay, alpha=alpha)
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "alpha": alpha,
            "eps": eps,
            "centered": centered,
            "weight_decay": weight_decay,
            "capturable": capturable,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults)

    def _new_state(self, param: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        state = {"step": scalar_tensor(0.0), "square_avg": zeros_like(param)}
        if group["momentum"] > 0:
            state["momentum_buffer"] = zeros_like(param)
        if group["centered"]:
            state["grad_avg"] = zeros_like(param)
        return state

    def _update(self, group: dict[str, Any], batch: Batch) -> None:
        batch.advance()
        engine.call(
            "optimizer.rmsprop",
            batch.params,
            batch.grads,
            batch.arrays("square_avg"),
            batch.arrays("grad_avg") if group["centered"] else [],
            batch.arrays("momentum_buffer") if group["momentum"] > 0 else [],
            lr=scalar(group["lr"]),
            alpha=group["alpha"],
            eps=group["eps"],
            weight_decay=group["weight_decay"],
            momentum=group["momentum"],
            maximize=group["maximize"],
        )
