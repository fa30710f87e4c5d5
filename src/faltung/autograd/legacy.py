"""Variable: what tensors with gradients were called long ago."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from faltung.tensor import Tensor

__all__ = ["Variable", "variable"]


class _VariableType(type):
    def __instancecheck__(cls, instance: Any) -> bool:
        return hasattr(instance, "_data") and hasattr(instance, "requires_grad")

    def __call__(cls, data: Tensor, requires_grad: bool = False, volatile: Any = None) -> Tensor:
        found = data.detach()
        return found.requires_grad_() if requires_grad else found


class Variable(metaclass=_VariableType):
    """`Variable(tensor)` is the tensor; every tensor is an instance."""


variable = Variable
