"""Changing a tensor's own shape in place (`unsqueeze_`, `t_`, ...), and questions about its memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from faltung.attributes import as_size
from faltung.autograd.modes import settle_all
from faltung.ops import shape
from faltung.ops.apply import apply_inplace, check_inplace
from faltung.ops.convert import Copy
from faltung.ops.diagonals import diagonal
from faltung.tensor import Tensor

__all__ = [
    "as_strided_",
    "fill_diagonal_",
    "resize_",
    "resize_as_",
    "squeeze_",
    "storage_offset",
    "swapaxes_",
    "swapdims_",
    "t_",
    "transpose_",
    "unsqueeze_",
]


def _reshaping(function: Callable[..., Tensor], name: str) -> Callable[..., Tensor]:
    """The in-place form of a view: the tensor itself becomes the view of what it was."""

    def method(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        check_inplace(name, self)
        before = self._alias()
        before._requires_grad, before._grad_fn = self.requires_grad, self._grad_fn
        before._output_nr, before._view = self._output_nr, self._view
        after = function(before, *args, **kwargs)
        self._data = after._data
        self._grad_fn, self._output_nr = after._grad_fn, after._output_nr
        if before._view is not None:
            self._view = after._view
        return self

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"In-place form of `{function.__name__}`: the memory stays, the tensor's shape changes."
    return method


squeeze_ = _reshaping(shape.squeeze, "squeeze_")
unsqueeze_ = _reshaping(shape.unsqueeze, "unsqueeze_")
transpose_ = _reshaping(shape.transpose, "transpose_")
swapaxes_ = _reshaping(shape.transpose, "swapaxes_")
swapdims_ = _reshaping(shape.transpose, "swapdims_")
t_ = _reshaping(shape.t, "t_")
as_strided_ = _reshaping(shape.as_strided, "as_strided_")


def resize_(self: Tensor, *sizes: Any, memory_format: Any = None) -> Tensor:
    """Give the tensor another size; elements keep their order, new ones are not initialised."""
    wanted = as_size(sizes)
    if any(size < 0 for size in wanted):
        raise RuntimeError(f"resize_: requested resize to {list(wanted)}: sizes must not be negative.")
    if self.requires_grad:
        raise RuntimeError("resize_: cannot resize variables that require grad. Use reshape() or a new tensor.")
    settle_all()
    count = math.prod(wanted)
    flat = np.ascontiguousarray(self._data).reshape(-1)
    if count > flat.size:
        grown = np.empty(count, flat.dtype)
        grown[: flat.size] = flat
        flat = grown
    self._data = flat[:count].reshape(wanted)
    self._storage.bump()
    self._kept = None
    return self


def resize_as_(self: Tensor, the_template: Tensor, *, memory_format: Any = None) -> Tensor:
    """`resize_` to the size of another tensor."""
    return resize_(self, *the_template._data.shape)


def set_(self: Tensor, source: Tensor | None = None) -> Tensor:
    """Let the tensor use the memory of `source`, or none."""
    if self.requires_grad:
        raise RuntimeError("set_: can't change the memory of a tensor that requires grad. Assign to .data instead.")
    taken = Tensor._wrap(np.empty(0, self._data.dtype)) if source is None else source
    self.data = taken
    self._storage = taken._storage
    return self


def fill_diagonal_(self: Tensor, fill_value: Any, wrap: bool = False) -> Tensor:
    """Write `fill_value` on the main diagonal (again below it, in tall matrices, where `wrap` is true)."""
    sizes = self._data.shape
    if len(sizes) < 2:
        raise RuntimeError("fill_diagonal_: dimensions must be larger than 1.")
    if len(sizes) > 2:
        if len(set(sizes)) > 1:
            raise RuntimeError("fill_diagonal_: all dimensions of input must be of equal length.")
        places = np.arange(sizes[0])
        mask = np.zeros(sizes, bool)
        mask[(places,) * len(sizes)] = True
        self.masked_fill_(Tensor._wrap(mask), fill_value)
        return self
    rows, columns = sizes
    step = columns + 1
    starts = range(0, rows, step) if wrap else range(1)
    for start in starts:
        part = diagonal(self if start == 0 else self[start:])
        part.fill_(fill_value)
    return self


def apply_(self: Tensor, callable: Callable[[Any], Any]) -> Tensor:
    """Replace each element by `callable(element)`."""
    values = [callable(value) for value in self._data.reshape(-1).tolist()]
    found = np.array(values, self._data.dtype).reshape(self._data.shape)
    return apply_inplace(Copy, self, Tensor._wrap(found))


def storage_offset(self: Tensor) -> int:
    """Where the tensor starts in the memory it views, in elements."""
    if self._view is None:
        return 0
    base = self._view.base._data
    distance = self._data.__array_interface__["data"][0] - base.__array_interface__["data"][0]
    return int(distance // self._data.itemsize)


def get_device(self: Tensor) -> int:
    """-1: the CPU."""
    return -1


def is_pinned(self: Tensor, device: Any = None) -> bool:
    """Always False."""
    return False


def is_shared(self: Tensor) -> bool:
    """Always False: memory isn't shared between processes."""
    return False


def is_set_to(self: Tensor, tensor: Tensor) -> bool:
    """Whether both are the same part of the same memory in the same order."""
    a, b = self._data, tensor._data
    same_place = a.__array_interface__["data"][0] == b.__array_interface__["data"][0]
    return same_place and a.shape == b.shape and a.strides == b.strides


def dim_order(self: Tensor) -> tuple[int, ...]:
    """The dimensions from the slowest to the fastest in memory."""
    strides = self._data.strides
    return tuple(sorted(range(len(strides)), key=lambda dim: -strides[dim]))


class UntypedStorage:
    """The memory behind a tensor: enough to ask whether two tensors share it, and how large it is."""

    def __init__(self, tensor: Tensor) -> None:
        array: Any = tensor._data
        while isinstance(array.base, np.ndarray):
            array = array.base
        self._owner = array

    def data_ptr(self) -> int:
        """The address of the first byte."""
        return int(self._owner.__array_interface__["data"][0])

    def nbytes(self) -> int:
        """The number of bytes."""
        return int(self._owner.nbytes)

    size = nbytes

    def __len__(self) -> int:
        return self.nbytes()


def untyped_storage(self: Tensor) -> UntypedStorage:
    """The memory behind the tensor."""
    return UntypedStorage(self)
