"""SparseAdam, which this library has no gradients for."""

from __future__ import annotations

from typing import Any

from faltung.optim.optimizer import Closure, Optimizer, ParamsT
from faltung.optim.stepping import check_betas, check_nonnegative, scalar
from faltung.tensor import Tensor

__all__ = ["SparseAdam"]


class SparseAdam(Optimizer):
    """Adam that updates only the rows that a sparse gradient names. It refuses dense gradients, as in PyTorch.

    No operation of this library makes sparse gradients, so that every step with a gradient ends in that refusal.

    Args:
        params: tensors, or dicts of parameter groups.
        lr: step size, above 0.
        betas: shares that the averages keep per step, both in [0, 1).
        eps: added to the denominator, above 0.
        maximize: climb instead of descending.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        maximize: bool = False,
    ) -> None:
        check_nonnegative(self, lr=lr, eps=eps)
        check_betas(self, betas)
        if not scalar(lr) > 0:
            raise ValueError(f"SparseAdam: Invalid learning rate: {lr}. Expected lr > 0.")
        if not eps > 0:
            raise ValueError(f"SparseAdam: Invalid epsilon value: {eps}. Expected eps > 0.")
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "maximize": maximize})
        for group in self.param_groups:
            for param in group["params"]:
                if param.is_complex():
                    raise ValueError("SparseAdam: complex params are not supported. Use Adam.")

    def step(self, closure: Closure | None = None) -> Any:
        """Refuse the gradients that there are.

        Raises:
            RuntimeError: a parameter has a gradient, which can only be dense.
        """
        loss = closure() if closure is not None else None
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is not None:
                    raise RuntimeError(
                        "SparseAdam does not support dense gradients, please consider Adam instead: the gradient of a "
                        f"parameter of shape {tuple(param.shape)} is dense."
                    )
        return loss
