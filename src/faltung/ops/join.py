"""Joining along a dimension, and repeating."""

from __future__ import annotations

from typing import Any

import numpy as np

from faltung.autograd.graph import Op
from faltung.dtypes import result_type
from faltung.ops.apply import apply
from faltung.ops.dims import as_dims, as_ints, wrap_dim
from faltung.ops.promotion import cast
from faltung.ops.shape import reshape, unsqueeze
from faltung.ops.split import Narrow
from faltung.tensor import Tensor


class Cat(Op):
    """Tensors one after the other along a dimension."""

    name = "cat"
    quiet = True

    @staticmethod
    def forward(ctx: Any, *arrays: Any, dim: int) -> Any:
        ctx.dim = dim
        ctx.lengths = [array.shape[dim] for array in arrays]
        first = arrays[0]
        if first.flags.c_contiguous or first.ndim < 3:
            return np.concatenate(arrays, axis=dim)
        shape = list(first.shape)
        shape[dim] = sum(ctx.lengths)
        found = np.empty_like(first, shape=shape, order="K")  # stays channels last
        return np.concatenate(arrays, axis=dim, out=found)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        parts: list[Any] = []
        start = 0
        for length, needed in zip(ctx.lengths, ctx.needs_input_grad):
            parts.append(apply(Narrow, grad, dim=ctx.dim, start=start, length=length) if needed else None)
            start += length
        return tuple(parts)


def cat(tensors: Any, dim: int = 0) -> Tensor:
    """Tensors joined along an existing dimension; all other sizes agree."""
    parts = list(tensors)
    if not parts:
        raise ValueError("cat: expected a non-empty list of Tensors.")
    for position, part in enumerate(parts):
        if not isinstance(part, Tensor):
            raise TypeError(f"cat: expected Tensor as element {position} in argument 0, but got {type(part).__name__}.")
    kinds = {part._data.dtype for part in parts}
    if len(kinds) > 1:
        common = result_type(*parts)
        parts = [cast(part, common) for part in parts]
    if any(part._data.ndim == 0 for part in parts):
        position = next(i for i, part in enumerate(parts) if part._data.ndim == 0)
        raise RuntimeError(
            f"cat: zero-dimensional tensor (at position {position}) cannot be concatenated. Use stack() instead."
        )
    if any(part._data.shape != (0,) for part in parts):  # empty 1-d tensors are skipped, a habit from older versions
        parts = [part for part in parts if part._data.shape != (0,)] or parts
    at = wrap_dim("cat", dim, parts[0]._data.ndim)
    _check_joinable(parts, at)
    found: Tensor = apply(Cat, *parts, dim=at)
    return found


def _check_joinable(parts: list[Tensor], at: int) -> None:
    first = parts[0]._data.shape
    for position, part in enumerate(parts):
        shape = part._data.shape
        if len(shape) != len(first):
            raise RuntimeError(
                f"cat: Tensors must have same number of dimensions: got {len(first)} and {len(shape)} (tensor number "
                f"{position})."
            )
        for dim, (a, b) in enumerate(zip(first, shape)):
            if a != b and dim != at:
                raise RuntimeError(
                    f"cat: Sizes of tensors must match except in dimension {at}. Expected size {a} but got size {b} "
                    f"for tensor number {position} in the list (dimension {dim})."
                )


def stack(tensors: Any, dim: int = 0) -> Tensor:
    """Tensors of one shape joined along a new dimension."""
    parts = list(tensors)
    if not parts:
        raise RuntimeError("stack: expects a non-empty TensorList.")
    for position, part in enumerate(parts):
        if not isinstance(part, Tensor):
            raise TypeError(
                f"stack: expected Tensor as element {position} in argument 0, but got {type(part).__name__}."
            )
        if part._data.shape != parts[0]._data.shape:
            raise RuntimeError(
                f"stack: expects each tensor to be equal size, but got {list(parts[0].shape)} at entry 0 and "
                f"{list(part.shape)} at entry {position}."
            )
    at = wrap_dim("stack", dim, parts[0]._data.ndim + 1)
    return cat([unsqueeze(part, at) for part in parts], at)


def _some(where: str, tensors: Any) -> list[Tensor]:
    parts = list(tensors)
    if not parts:
        raise RuntimeError(f"{where}: expects a non-empty TensorList.")
    return parts


def hstack(tensors: Any) -> Tensor:
    """Joined along columns: dimension 1, or 0 for vectors."""
    parts = list(atleast_1d(_some("hstack", tensors)))
    return cat(parts, 0 if parts[0]._data.ndim == 1 else 1)


def vstack(tensors: Any) -> Tensor:
    """Joined along rows; vectors become rows."""
    return cat(atleast_2d(_some("vstack", tensors)), 0)


def dstack(tensors: Any) -> Tensor:
    """Joined along the third dimension."""
    return cat(atleast_3d(_some("dstack", tensors)), 2)


def column_stack(tensors: Any) -> Tensor:
    """Vectors as columns, matrices as they are, side by side."""
    return cat([x if x._data.ndim > 1 else reshape(x, -1, 1) for x in tensors], 1)


def _each(function: Any, tensors: tuple[Any, ...]) -> Any:
    if len(tensors) == 1 and isinstance(tensors[0], Tensor):
        return function(tensors[0])
    values = tensors[0] if len(tensors) == 1 else tensors
    return tuple([function(x) for x in values])


def atleast_1d(*tensors: Any) -> Any:
    """Tensors with at least one dimension."""
    return _each(lambda x: x if x._data.ndim else reshape(x, 1), tensors)


def atleast_2d(*tensors: Any) -> Any:
    """Tensors with at least two dimensions."""
    return _each(lambda x: x if x._data.ndim > 1 else reshape(x, 1, -1), tensors)


def atleast_3d(*tensors: Any) -> Any:
    """Tensors with at least three dimensions."""

    def lift(x: Tensor) -> Tensor:
        if x._data.ndim >= 3:
            return x
        return unsqueeze(x, -1) if x._data.ndim == 2 else reshape(x, 1, -1, 1)

    return _each(lift, tensors)


def repeat(input: Tensor, *repeats: Any) -> Tensor:
    """Copies side by side: repeats[i] times along dimension i, new dimensions in front."""
    times = as_ints("repeat", repeats)
    data = input._data
    offset = len(times) - data.ndim
    if offset < 0:
        raise RuntimeError(
            "repeat: Number of dimensions of repeat dims can not be smaller than number of dimensions of tensor, got "
            f"{len(times)} and {data.ndim}."
        )
    if any(time < 0 for time in times):
        raise RuntimeError(f"repeat: Trying to create tensor with negative dimension: repeats {list(times)}.")
    shape = (1,) * offset + data.shape
    apart = [part for size in shape for part in (1, size)]
    wide = [part for time, size in zip(times, shape) for part in (time, size)]
    expanded = reshape(input, tuple(apart)).expand(tuple(wide))
    found: Tensor = expanded.clone().reshape(tuple([time * size for time, size in zip(times, shape)]))
    return found


def tile(input: Tensor, *dims: Any) -> Tensor:
    """`repeat` that takes missing leading repeats as 1."""
    times = as_ints("tile", dims)
    return repeat(input, *((1,) * (input._data.ndim - len(times)) + times))


class Flip(Op):
    """Elements in reverse order along dimensions."""

    name = "flip"
    quiet = True

    @staticmethod
    def forward(ctx: Any, x: Any, *, dims: Any) -> Any:
        ctx.dims = dims
        return np.flip(x, dims).copy(order="K")

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        found: Tensor = apply(Flip, grad, dims=ctx.dims)
        return found


def flip(input: Tensor, *axes: Any, dims: Any = None) -> Tensor:
    """Reversed along the given dimensions."""
    chosen = as_dims("flip", as_ints("flip", axes if dims is None else (dims,)), input._data.ndim, empty_is_all=False)
    found: Tensor = apply(Flip, input, dims=chosen)
    return found


def fliplr(input: Tensor) -> Tensor:
    """Reversed along dimension 1."""
    if input._data.ndim < 2:
        raise RuntimeError(f"fliplr: Input must be >= 2-d, got {input._data.ndim}-d.")
    return flip(input, 1)


def flipud(input: Tensor) -> Tensor:
    """Reversed along dimension 0."""
    if input._data.ndim < 1:
        raise RuntimeError("flipud: Input must be >= 1-d, got a 0-d tensor.")
    return flip(input, 0)


class Roll(Op):
    """Elements shifted along dimensions, those that leave coming in again at the other end."""

    name = "roll"
    quiet = True

    @staticmethod
    def forward(ctx: Any, x: Any, *, shifts: Any, dims: Any) -> Any:
        ctx.shifts, ctx.dims = shifts, dims
        return np.roll(x, shifts, dims)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        found: Tensor = apply(Roll, grad, shifts=tuple([-s for s in ctx.shifts]), dims=ctx.dims)
        return found


def roll(input: Tensor, shifts: Any, dims: Any = None) -> Tensor:
    """Shifted along `dims` with wrap-round; flattened first without dims."""
    amounts = as_ints("roll", (shifts,))
    if dims is None or dims in ((), []):
        if len(amounts) != 1:
            raise RuntimeError(f"roll: shifts and dimensions must align. shifts: {len(amounts)}, dims: 0.")
        return reshape(roll(reshape(input, -1), amounts, 0), input._data.shape)
    along = as_ints("roll", (dims,))
    if len(along) != len(amounts):
        raise RuntimeError(f"roll: shifts and dimensions must align. shifts: {len(amounts)}, dims: {len(along)}.")
    if not input._data.ndim:
        raise IndexError(f"roll: Dimension specified as {along[0]} but tensor has no dimensions.")
    chosen = tuple([wrap_dim("roll", dim, input._data.ndim) for dim in along])
    if not input._data.size:
        return input.clone()  # methods are bound at run time
    found: Tensor = apply(Roll, input, shifts=amounts, dims=chosen)
    return found


def rot90(input: Tensor, k: int = 1, dims: Any = (0, 1)) -> Tensor:
    """Turned by k quarter turns in the plane of two dimensions."""
    if len(dims) != 2 or input._data.ndim < 2:
        raise RuntimeError(
            f"rot90: expected total rotation dims == 2 and a tensor of at least 2 dimensions, got dims {tuple(dims)} "
            f"and {input._data.ndim} dimensions."
        )
    for dim in dims:
        if not -input._data.ndim <= dim < input._data.ndim:
            raise RuntimeError(f"rot90: Rotation dim out of range, dim = {dim}.")
    first, second = [wrap_dim("rot90", dim, input._data.ndim) for dim in dims]
    if first == second:
        raise RuntimeError(f"rot90: expected two different dims, got {tuple(dims)}.")
    turns = k % 4
    if turns == 0:
        return input.clone()
    if turns == 2:
        return flip(input, first, second)
    turned = flip(input, second) if turns == 1 else flip(input, first)
    return turned.transpose(first, second).clone()
