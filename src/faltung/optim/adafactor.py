"""Adafactor."""

from __future__ import annotations

from typing import Any

import numpy as np

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

__all__ = ["Adafactor"]


class Adafactor(SteppingOptimizer):
    """Adam without momentum, the second moment factored into rows and columns (Shazeer & Stern 2018).

    Args:
        params: tensors, or dicts of parameter groups. Those of two and more dimensions are factored along the last two.
        lr: largest relative step, a number or a tensor of one element.
        beta2_decay: step t weighs the new squares by t^beta2_decay; not positive.
        eps: lower bounds of the second moment's root (None: the dtype's resolution) and of the parameter's scale.
        d: updates whose root mean square is above this are scaled down to it; 1 or more.
        weight_decay: the weights shrink by lr * weight_decay per step.
        maximize: climb instead of descending.
        foreach: accepted; a step is one call into the engine either way.
    """

    refuses_complex = True

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-2,
        beta2_decay: float = -0.8,
        eps: tuple[float | None, float] = (None, 1e-3),
        d: float = 1.0,
        weight_decay: float = 0.0,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
    ) -> None:
        check_nonnegative(self, lr=lr, eps1=eps[0] or 0, eps2=eps[1], weight_decay=weight_decay)
        if not beta2_decay <= 0:
            raise ValueError(f"Adafactor: beta2_decay should be <= 0 but is: {beta2_decay}.")
        if not d >= 1:
            raise ValueError(f"Adafactor: Clipping threshold d should be >= 1 but is: {d}.")
        defaults = {
            "lr": lr,
            "beta2_decay": beta2_decay,
            "eps": eps,
            "d": d,
            "weight_decay": weight_decay,
            "foreach": foreach,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def _new_state(self, param: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        if param.dim() < 2:
            return {"step": scalar_tensor(0.0), "variance": zeros_like(param)}
        rows, columns = (*param.shape[:-1], 1), (*param.shape[:-2], 1, param.shape[-1])
        return {
            "step": scalar_tensor(0.0),
            "row_var": Tensor._wrap(np.zeros(rows, dtype=param._data.dtype)),
            "col_var": Tensor._wrap(np.zeros(columns, dtype=param._data.dtype)),
        }

    def _update(self, group: dict[str, Any], batch: Batch) -> None:
        engine.call(
            "optimizer.adafactor",
            batch.params,
            batch.grads,
            batch.optional_arrays("row_var"),
            batch.optional_arrays("col_var"),
            batch.optional_arrays("variance"),
            batch.advance(),
            lr=scalar(group["lr"]),
            beta2_decay=group["beta2_decay"],
            eps1=group["eps"][0],
            eps2=group["eps"][1],
            clip=group["d"],
            weight_decay=group["weight_decay"],
            maximize=group["maximize"],
        )
