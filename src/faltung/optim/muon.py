"""Muon."""

from __future__ import annotations

import math
from typing import Any

from faltung import engine
from faltung.optim.optimizer import ParamsT
from faltung.optim.stepping import (
    Batch,
    SteppingOptimizer,
    check_nonnegative,
    scalar,
    zeros_like,
)
from faltung.tensor import Tensor

__all__ = ["Muon"]


class Muon(SteppingOptimizer):
    """Momentum made orthogonal by Newton-Schulz iterations, for the matrices of hidden layers (Jordan et al. 2024).

    Args:
        params: matrices, or dicts of parameter groups. Biases, convolutions and embeddings need another optimizer.
        lr: step size, a number or a tensor of one element.
        weight_decay: the weights shrink by lr * weight_decay per step.
        momentum: share of the buffer that a step keeps.
        nesterov: look ahead along the buffer.
        ns_coefficients: (a, b, c) of x <- a x + (b G + c G^2) x, G = x x^T.
        eps: smallest norm that the gradient is divided by.
        ns_steps: number of iterations, below 100.
        adjust_lr_fn: "original" (also None) scales lr by sqrt(max(1, rows/columns)), "match_rms_adamw" by
            0.2 sqrt(max(rows, columns)).
    """

    refuses_complex = True

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.775, 2.0315),
        eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
    ) -> None:
        check_nonnegative(self, lr=lr, momentum=momentum, weight_decay=weight_decay)
        if adjust_lr_fn not in (None, "original", "match_rms_adamw"):
            raise ValueError(
                f"Muon: Adjust learning rate function {adjust_lr_fn!r} is not supported. "
                "Expected 'original' or 'match_rms_adamw'."
            )
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "nesterov": nesterov,
            "ns_coefficients": ns_coefficients,
            "eps": eps,
            "ns_steps": ns_steps,
            "adjust_lr_fn": adjust_lr_fn,
        }
        super().__init__(params, defaults)
        for group in self.param_groups:
            for param in group["params"]:
                if param.dim() != 2:
                    raise ValueError(
                        f"Muon: only supports 2D parameters, got one of shape {tuple(param.shape)}. "
                        "Give the others to AdamW."
                    )

    def _new_state(self, param: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        return {"momentum_buffer": zeros_like(param)}

    def _update(self, group: dict[str, Any], batch: Batch) -> None:
        if group["ns_steps"] >= 100:
            raise ValueError(f"Muon: Number of steps must be less than 100, got ns_steps={group['ns_steps']}.")
        if len(group["ns_coefficients"]) != 3:
            raise ValueError(f"Muon: Coefficients must be a tuple of exactly 3 values, got {group['ns_coefficients']}.")
        lr = scalar(group["lr"])
        engine.call(
            "optimizer.muon",
            batch.params,
            batch.grads,
            batch.arrays("momentum_buffer"),
            lrs=[lr * _ratio(group["adjust_lr_fn"], *param.shape) for param in batch.params],
            lr=lr,
            weight_decay=group["weight_decay"],
            momentum=group["momentum"],
            nesterov=group["nesterov"],
            coefficients=group["ns_coefficients"],
            eps=group["eps"],
            iterations=group["ns_steps"],
        )


def _ratio(adjust: str | None, rows: int, columns: int) -> float:
    """What the step size of a matrix is multiplied by."""
    if adjust == "match_rms_adamw":
        return 0.2 * math.sqrt(max(rows, columns))
    return math.sqrt(max(1, rows / columns)) if columns else 1.0
