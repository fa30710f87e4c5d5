"""Adagrad."""

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

__all__ = ["Adagrad"]


class Adagrad(SteppingOptimizer):
    """The gradient over the root of the sum of all its squares so far (Duchi et al. 2011).

    Args:
        params: tensors, or dicts of parameter groups.
        lr: step size, a number or a tensor of one element.
        lr_decay: step t uses lr / (1 + (t - 1) * lr_decay).
        weight_decay: L2 penalty, added to the gradient.
        initial_accumulator_value: what the sum starts from.
        eps: added to the root.
        maximize: climb instead of descending.
        foreach, fused: accepted; a step is one call into the engine either way.
        differentiable: must be False.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-2,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        check_nonnegative(
            self,
            lr=lr,
            lr_decay=lr_decay,
            weight_decay=weight_decay,
            initial_accumulator_value=initial_accumulator_value,
            eps=eps,
        )
        defaults = {
            "lr": lr,
            "lr_decay": lr_decay,
            "eps": eps,
            "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "fused": fused,
        }
        super().__init__(params, defaults)
        for group in self.param_groups:  # unlike the other optimizers', this state exists before the first step
            for param in group["params"]:
                self.state[param] = self._new_state(param, group)

    def _new_state(self, param: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        start = group["initial_accumulator_value"]
        total = zeros_like(param, complex(start, start) if param.is_complex() else start)
        return {"step": scalar_tensor(0.0), "sum": total}

    def share_memory(self) -> None:
        """Accepted for scripts that share the sums between processes: threads share them already."""

    def _update(self, group: dict[str, Any], batch: Batch) -> None:
        engine.call(
            "optimizer.adagrad",
            batch.params,
            batch.grads,
            batch.arrays("sum"),
            batch.advance(),
            lr=scalar(group["lr"]),
            lr_decay=group["lr_decay"],
            eps=group["eps"],
            weight_decay=group["weight_decay"],
            maximize=group["maximize"],
        )
