"""deepcopy and pickle of tensors."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from faltung.tensor import Tensor


def deepcopy_tensor(tensor: Tensor, memo: dict[int, Any]) -> Tensor:
    """A copy of a leaf with memory, gradient and attributes of its own."""
    if id(tensor) in memo:
        found: Tensor = memo[id(tensor)]
        return found
    if tensor.grad_fn is not None:
        raise RuntimeError(
            "deepcopy: Only Tensors created explicitly by the user (graph leaves) support the deepcopy protocol at "
            "the moment. Use tensor.detach() or tensor.clone() first."
        )
    fresh = Tensor._wrap(tensor._data.copy(order="K"))
    fresh._requires_grad = tensor._requires_grad
    if type(tensor) is not Tensor:
        fresh.__class__ = type(tensor)
    memo[id(tensor)] = fresh
    if tensor._grad is not None:
        fresh._grad = copy.deepcopy(tensor._grad, memo)
    for key, value in tensor.__dict__.items():
        setattr(fresh, key, copy.deepcopy(value, memo))
    return fresh


def reduce_tensor(tensor: Tensor) -> tuple[Any, ...]:
    """How pickle takes a tensor apart."""
    array = tensor._data if tensor._data.flags.c_contiguous else np.ascontiguousarray(tensor._data)
    order = sorted(range(array.ndim), key=lambda dim: -abs(tensor._data.strides[dim]))
    state = tensor.__dict__ or None
    return _rebuild, (type(tensor), array.reshape(tensor._data.shape), tuple(order), tensor.requires_grad, state)


def _rebuild(cls: type[Tensor], array: Any, order: tuple[int, ...], requires_grad: bool, state: Any) -> Tensor:
    if order != tuple(range(len(order))):
        laid = np.empty([array.shape[dim] for dim in order], array.dtype).transpose(np.argsort(order))
        laid[...] = array
        array = laid
    found = Tensor._wrap(array)
    found._requires_grad = requires_grad
    if cls is not Tensor:
        found.__class__ = cls
    if state:
        found.__dict__.update(state)
    return found
