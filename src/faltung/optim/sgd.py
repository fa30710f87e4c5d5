"""Stochastic gradient descent."""

from __future__ import annotations

from typing import Any

from faltung import engine
from faltung.optim.optimizer import ParamsT
from faltung.optim.stepping import Batch, SteppingOptimizer, check_nonnegative, scalar
from faltung.tensor import Tensor

__all__ = ["SGD"]


class SGD(SteppingOptimizer):
    """Stochastic gradient descent, optionally with (Nesterov) momentum.

    The buffer v follows v <- momentum v + (1 - dampening) g, its first value is g itself; the step is -lr v, or with
    Nesterov -lr (g + momentum v).

    Args:
        params: tensors, or dicts of parameter groups.
        lr: step size, a number or a tensor of one element.
        momentum: share of the buffer that a step keeps.
        dampening: share of the gradient that the buffer leaves out.
        weight_decay: L2 penalty, added to the gradient.
        nesterov: look ahead along the buffer; needs momentum and no dampening.
        maximize: climb instead of descending.
        foreach, fused: accepted; a step is one call into the engine either way.
        differentiable: must be False.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float | Tensor = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        check_nonnegative(self, lr=lr, momentum=momentum, weight_decay=weight_decay)
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError(
                f"SGD: Nesterov momentum requires a momentum and zero dampening, got momentum={momentum}, "
                f"dampening={dampening}."
            )
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
            "foreach": foreach,
            "differentiable": differentiable,
            "fused": fused,
        }
        super().__init__(params, defaults)

    def _new_state(self, param: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        return {}  # the momentum buffer begins as the first gradient

    def _update(self, group: dict[str, Any], batch: Batch) -> None:
        fresh = batch.missing("momentum_buffer") if group["momentum"] else []  # makes room for new buffers
        engine.call(
            "optimizer.sgd",
            batch.params,
            batch.grads,
            batch.arrays("momentum_buffer") if group["momentum"] else [],
            fresh,
            lr=scalar(group["lr"]),
            momentum=scalar(group["momentum"]),
            dampening=scalar(group["dampening"]),
            weight_decay=scalar(group["weight_decay"]),
            nesterov=group["nesterov"],
            maximize=group["maximize"],
        )
