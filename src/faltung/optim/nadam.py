"""NAdam."""

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

__all__ = ["NAdam"]


class NAdam(SteppingOptimizer):
    """Adam with Nesterov momentum, whose share grows over the steps (Dozat 2016).

    Args:
        params: tensors, or dicts of parameter groups.
        lr: step size, a number or a tensor of one element.
        betas: shares that the averages keep per step, both in [0, 1).
        eps: added to the denominator.
        weight_decay: L2 penalty, added to the gradient.
        momentum_decay: speed at which the momentum reaches betas[0].
        decoupled_weight_decay: shrink the weights by lr * weight_decay instead of penalising.
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
        momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None:
        check_nonnegative(self, lr=lr, eps=eps, weight_decay=weight_decay, momentum_decay=momentum_decay)
        check_betas(self, betas)
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "momentum_decay": momentum_decay,
            "decoupled_weight_decay": decoupled_weight_decay,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults)

    def _new_state(self, param: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        return {
            "step": scalar_tensor(0.0),
            "mu_product": scalar_tensor(1.0),
            "exp_avg": zeros_like(param),
            "exp_avg_sq": zeros_like(param),
        }

    def _update(self, group: dict[str, Any], batch: Batch) -> None:
        steps = batch.advance()
        beta1, beta2 = group["betas"]
        decay = group["momentum_decay"]
        mus = [beta1 * (1 - 0.5 * 0.96 ** (step * decay)) for step in steps]
        mu_nexts = [beta1 * (1 - 0.5 * 0.96 ** ((step + 1) * decay)) for step in steps]
        products = [product * mu for product, mu in zip(batch.numbers("mu_product"), mus, strict=True)]
        batch.set_numbers("mu_product", products)
        engine.call(
            "optimizer.nadam",
            batch.params,
            batch.grads,
            batch.arrays("exp_avg"),
            batch.arrays("exp_avg_sq"),
            mus,
            mu_nexts,
            batch.numbers("mu_product"),
            steps,
            lr=scalar(group["lr"]),
            beta1=beta1,
            beta2=beta2,
            eps=group["eps"],
            weight_decay=group["weight_decay"],
            maximize=group["maximize"],
            decoupled_weight_decay=group["decoupled_weight_decay"],
        )
