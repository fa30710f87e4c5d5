"""Parameter and Buffer: tensors that a Module registers when they are assigned to it."""

from __future__ import annotations

from typing import Any

import numpy as np

from faltung.tensor import Tensor


class Parameter(Tensor):
    """A tensor that a Module lists among its `parameters()` when assigned as an attribute.

    Args: `data`, the tensor whose memory it shares (None: an empty one); `requires_grad`, True unless told otherwise.
    Integer data needs `requires_grad=False`.
    """

    def __new__(cls, data: Tensor | None = None, requires_grad: bool = True) -> Parameter:
        if data is None:
            data = Tensor._wrap(np.empty(0, dtype=np.float32))
        if not isinstance(data, Tensor):
            raise TypeError(
                f"{cls.__name__}: data must be a faltung.Tensor, got {type(data).__name__}. "
                "Convert it with faltung.tensor(...) or faltung.from_numpy(...)."
            )
        param: Parameter = data._alias(cls)  # type: ignore[assignment]
        param.requires_grad_(requires_grad)
        return param

    def __init__(self, data: Tensor | None = None, requires_grad: bool = True) -> None:
        """Everything happens in `__new__`, which may share the memory of `data`."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Parameter:
        if id(self) not in memo:
            memo[id(self)] = type(self)(self.detach().clone(), self.requires_grad)
        copy: Parameter = memo[id(self)]
        return copy

    def __repr__(self) -> str:  # type: ignore[override]
        return "Parameter containing:\n" + super().__repr__()

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return _rebuild_parameter, (type(self), self.detach(), self.requires_grad)


class Buffer(Tensor):
    """A tensor that a Module lists among its `buffers()` when assigned; in state_dict only if persistent."""

    persistent: bool

    def __new__(cls, data: Tensor | None = None, *, persistent: bool = True) -> Buffer:
        if data is None:
            data = Tensor._wrap(np.empty(0, dtype=np.float32))
        buffer: Buffer = data._alias(cls)  # type: ignore[assignment]
        buffer.requires_grad_(data.requires_grad)
        buffer.persistent = persistent
        return buffer

    def __init__(self, data: Tensor | None = None, *, persistent: bool = True) -> None:
        """Everything happens in `__new__`."""

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return _rebuild_buffer, (self.detach(), self.persistent)


def _rebuild_parameter(cls: type[Parameter], data: Tensor, requires_grad: bool) -> Parameter:
    return cls(data, requires_grad)


def _rebuild_buffer(data: Tensor, persistent: bool) -> Buffer:
    return Buffer(data, persistent=persistent)


class UninitializedTensorMixin:
    """A tensor whose shape is not known yet: `materialize(shape)` makes it an ordinary one."""

    cls_to_become: type[Tensor]

    def materialize(self: Any, shape: tuple[int, ...], device: Any = None, dtype: Any = None) -> None:
        """Gives the tensor its shape (uninitialised values) and turns it into `cls_to_become`."""
        kept = self.requires_grad
        fresh = self.data.new_empty(shape, dtype=dtype)
        self.__class__ = self.cls_to_become
        self.data = fresh
        self.requires_grad_(kept)

    @property
    def shape(self) -> Any:
        """Not known yet."""
        raise RuntimeError(
            "Can't access the shape of an uninitialized parameter or buffer. Run the lazy module once on an example "
            "(a dry run) before copying, counting or saving its parameters."
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class UninitializedParameter(UninitializedTensorMixin, Parameter):  # type: ignore[misc]
    """The parameter of a lazy module before its first input."""

    cls_to_become = Parameter

    def __new__(cls, requires_grad: bool = True, device: Any = None, dtype: Any = None) -> UninitializedParameter:
        return _uninitialized(cls, dtype, requires_grad)

    def __init__(self, requires_grad: bool = True, device: Any = None, dtype: Any = None) -> None:
        """Everything happens in `__new__`."""

    def __deepcopy__(self, memo: dict[int, Any]) -> UninitializedParameter:
        if id(self) not in memo:
            memo[id(self)] = type(self)(self.requires_grad, None, self.dtype)
        copy: UninitializedParameter = memo[id(self)]
        return copy

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return type(self), (self.requires_grad, None, self.dtype)


class UninitializedBuffer(UninitializedTensorMixin, Tensor):  # type: ignore[misc]
    """The buffer of a lazy module before its first input."""

    cls_to_become = Tensor
    persistent: bool

    def __new__(
        cls, requires_grad: bool = False, device: Any = None, dtype: Any = None, persistent: bool = True
    ) -> UninitializedBuffer:
        buffer = _uninitialized(cls, dtype, requires_grad)
        buffer.persistent = persistent
        return buffer

    def __init__(
        self, requires_grad: bool = False, device: Any = None, dtype: Any = None, persistent: bool = True
    ) -> None:
        """Everything happens in `__new__`."""


def _uninitialized(cls: Any, dtype: Any, requires_grad: bool) -> Any:
    data = Tensor._wrap(np.empty(0, dtype=np.float32))
    out = (data if dtype is None else data.to(dtype))._alias(cls)
    out.requires_grad_(requires_grad)
    return out


def is_lazy(param: Any) -> bool:
    """Whether `param` still waits for its shape."""
    return isinstance(param, UninitializedTensorMixin)


__all__ = [
    "Buffer",
    "Parameter",
    "UninitializedBuffer",
    "UninitializedParameter",
    "UninitializedTensorMixin",
    "is_lazy",
]
