"""The identity, with a say in the gradients that pass it: where a module's backward hooks run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from faltung.autograd import is_grad_enabled
from faltung.autograd.graph import Op
from faltung.ops.apply import apply
from faltung.tensor import Tensor, ViewOf

Gradients = list[Tensor | None]


class Boundary(Op):
    """All inputs unchanged; going back, `callback(gradients) -> gradients` once all of them have come."""

    name = "BackwardHookFunctionBackward"
    quiet = True

    @staticmethod
    def forward(ctx: Any, *arrays: np.ndarray, callback: Callable[[Gradients], Gradients]) -> tuple[np.ndarray, ...]:
        ctx.callback = callback
        ctx.mark_non_differentiable(*(i for i, needed in enumerate(ctx.needs_input_grad) if not needed))
        return arrays

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        return tuple(ctx.callback(list(grads)))


class Untouchable(Op):
    """How a boundary's outputs hang on their inputs: as views whose history can't be renewed after a write."""

    name = "BackwardHookFunction"

    @staticmethod
    def forward(ctx: Any, x: np.ndarray) -> np.ndarray:
        raise RuntimeError(
            "Output 0 of BackwardHookFunctionBackward is a view and its base or another view of its base has been "
            "modified inplace: the hooks on a module's gradients would miss the write. Use the out-of-place form of "
            "the operation (such as ReLU(inplace=False)), or change a clone()."
        )

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


def boundary(tensors: list[Tensor], callback: Callable[[Gradients], Gradients]) -> tuple[Tensor, ...] | None:
    """The same tensors behind a boundary, or None where no gradient will flow (nothing requires one)."""
    if not (is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)):
        return None
    out: tuple[Tensor, ...] = apply(Boundary, *tensors, callback=callback)
    for tensor, twin in zip(tensors, out, strict=True):
        _make_view(tensor, twin)
    return out


def _make_view(tensor: Tensor, twin: Tensor) -> None:
    """`twin` shares the memory of `tensor`, its version counter, and the fate of views."""
    tensor._storage.aliased = True
    twin._storage = tensor._storage
    link = tensor._view
    base, chain = (tensor, ()) if link is None else (link.base, link.chain)
    twin._view = ViewOf(base, (*chain, (Untouchable, {})), tensor._storage.version)
