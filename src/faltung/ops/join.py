"""Joining and splitting along a dimension, and repeating."""

from __future__ import annotations

from typing import Any

import numpy as np

from faltung.autograd.graph import Op
from faltung.dtypes import result_type
from faltung.ops.apply import apply
from faltung.ops.dims import as_dims, as_ints, wrap_dim
from faltung.ops.promotion import cast
from faltung.ops.shape import reshape, unsqueeze
from faltung.tensor import Tensor


class Narrow(Op):
    """`length` elements from `start` along a dimension."""

    name = "slice"
    is_view = True
    quiet = True

    @staticmethod
    def forward(ctx: Any, x: Any, *, dim: int, start: int, length: int) -> Any:
        ctx.shape, ctx.dim, ctx.start, ctx.length = x.shape, dim, start, length
        return x[(slice(None),) * dim + (slice(start, start + length),)]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        found: Tensor = apply(PadAround, grad, shape=ctx.shape, dim=ctx.dim, start=ctx.start)
        return found


class PadAround(Op):
    """A tensor of zeros of `shape` that holds the input from `start` along `dim`."""

    name = "slice_backward"
    quiet = True

    @staticmethod
    def forward(ctx: Any, x: Any, *, shape: Any, dim: int, start: int) -> Any:
        ctx.dim, ctx.start, ctx.length = dim, start, x.shape[dim]
        found = zeros_like_layout(x, shape)
        found[(slice(None),) * dim + (slice(start, start + ctx.length),)] = x
        return found

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        found: Tensor = apply(Narrow, grad, dim=ctx.dim, start=ctx.start, length=ctx.length)
        return found


def zeros_like_layout(x: np.ndarray[Any, Any], shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Zeros whose dimensions lie in memory in the order of x's."""
    return np.zeros_like(x, shape=shape, order="K")


def narrow(input: Tensor, dim: int, start: Any, length: int) -> Tensor:
    """`length` elements from `start` along `dim`."""
    data = input._data
    if not data.ndim:
        raise RuntimeError("narrow: cannot be applied to a 0-dim tensor.")
    at = wrap_dim("narrow", dim, data.ndim)
    if isinstance(start, Tensor) and (start._data.ndim or start._data.dtype.kind not in "iu"):
        raise RuntimeError("narrow: start must be an 0-dim integral Tensor.")
    first = int(start)
    size = data.shape[at]
    if not -size <= first <= size:
        raise IndexError(f"narrow: start out of range (expected to be in range of [{-size}, {size}], but got {first}).")
    first = first + size if first < 0 else first
    if length < 0 or first + length > size:
        raise RuntimeError(f"narrow: start ({first}) + length ({length}) exceeds dimension size ({size}).")
    found: Tensor = apply(Narrow, input, dim=at, start=first, length=length)
    return found


# --- join


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


# --- split


def split(tensor: Tensor, split_size_or_sections: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Views of `split_size` elements each (the last may be smaller), or of the given sizes."""
    data = tensor._data
    if not data.ndim:
        raise RuntimeError("split: expects at least a 1-dimensional tensor.")
    at = wrap_dim("split", dim, data.ndim)
    size = data.shape[at]
    sections = split_size_or_sections
    if isinstance(sections, tuple | list):
        if sum(sections) != size or any(s < 0 for s in sections):
            raise RuntimeError(
                f"split: split_with_sizes expects split_sizes to sum exactly to {size} (input tensor's size at "
                f"dimension {at}), but got split_sizes={list(sections)}."
            )
        lengths = list(sections)
    else:
        step = int(sections)
        if step < 0 or (step == 0 and size):
            raise RuntimeError(f"split: expects split_size be positive, but got split_size={step}.")
        lengths = [min(step, size - start) for start in range(0, size, step)] if size else [0]
    parts, start = [], 0
    for length in lengths:
        parts.append(apply(Narrow, tensor, dim=at, start=start, length=length))
        start += length
    return _marked(parts)


def _marked(parts: list[Tensor]) -> tuple[Tensor, ...]:
    """Views that one call made: PyTorch doesn't let them be written while gradients are recorded."""
    for part in parts:
        if part._view is not None:
            part._view.several = True
    return tuple(parts)


def chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """At most `chunks` views of equal size, the last one smaller where it doesn't divide."""
    if chunks <= 0:
        raise RuntimeError(f"chunk: expects `chunks` to be greater than 0, got: {chunks}.")
    if not input._data.ndim:
        raise RuntimeError("chunk: expects at least a 1-dimensional tensor.")
    size = input._data.shape[wrap_dim("chunk", dim, input._data.ndim)]
    if not size:
        return split(input, [0] * chunks, dim)
    return split(input, -(-size // chunks), dim)


def tensor_split(input: Tensor, indices_or_sections: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Views split at indices, or into sections whose sizes differ by at most one."""
    at = wrap_dim("tensor_split", dim, input._data.ndim)
    size = input._data.shape[at]
    if isinstance(indices_or_sections, Tensor):
        indices_or_sections = indices_or_sections.tolist()
    if isinstance(indices_or_sections, int):
        count = indices_or_sections
        if count <= 0:
            raise RuntimeError(f"tensor_split: number of sections must be larger than 0, got {count}.")
        lengths = [size // count + (1 if i < size % count else 0) for i in range(count)]
        bounds = list(np.cumsum([0, *lengths]))
    else:
        bounds = [0, *[slice(0, i).indices(size)[1] for i in indices_or_sections], size]
    return tuple(
        [narrow(input, at, int(min(a, size)), int(max(b - a, 0))) for a, b in zip(bounds[:-1], bounds[1:], strict=True)]
    )


class Select(Op):
    """One index along a dimension, which is dropped."""

    name = "select"
    is_view = True
    quiet = True

    @staticmethod
    def forward(ctx: Any, x: Any, *, dim: int, index: int) -> Any:
        ctx.shape, ctx.dim, ctx.index = x.shape, dim, index
        return x[(slice(None),) * dim + (index, ...)]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        found: Tensor = apply(PadAround, unsqueeze(grad, ctx.dim), shape=ctx.shape, dim=ctx.dim, start=ctx.index)
        return found


def select(input: Tensor, dim: int, index: int) -> Tensor:
    """The slice at `index` of `dim`, without that dimension."""
    data = input._data
    if not data.ndim:
        raise IndexError("select: cannot be applied to a 0-dim tensor.")
    at = wrap_dim("select", dim, data.ndim)
    size = data.shape[at]
    position = index.__index__()
    if not -size <= position < size:
        raise IndexError(
            f"select: index {position} out of range for tensor of size {list(data.shape)} at dimension {at}."
        )
    found: Tensor = apply(Select, input, dim=at, index=position % size)
    return found


def unbind(input: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """All slices along `dim`, without that dimension."""
    data = input._data
    if not data.ndim:
        raise IndexError(f"unbind: Dimension specified as {dim} but tensor has no dimensions.")
    at = wrap_dim("unbind", dim, data.ndim)
    return _marked([apply(Select, input, dim=at, index=i) for i in range(data.shape[at])])


class Windows(Op):
    """Windows of equal size along a dimension, as a new last dimension."""

    name = "unfold"
    is_view = True
    quiet = True

    @staticmethod
    def forward(ctx: Any, x: Any, *, dim: int, size: int, step: int) -> Any:
        ctx.shape, ctx.dim, ctx.size, ctx.step = x.shape, dim, size, step
        if not x.ndim:
            return np.lib.stride_tricks.as_strided(x, (size,), (0,))
        found = np.lib.stride_tricks.sliding_window_view(x, size, dim, writeable=True)
        return found[(slice(None),) * dim + (slice(None, None, step),)]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        found = grad.new_zeros(ctx.shape)
        starts = grad._data.shape[ctx.dim] if ctx.shape else 1
        for offset in range(ctx.size):  # within one offset the positions are distinct
            part = select(grad, -1, offset)
            whole = apply(PadEvery, part, shape=ctx.shape, dim=ctx.dim, start=offset, step=ctx.step, count=starts)
            found = found + whole
        return found  # methods are bound at run time


class PadEvery(Op):
    """Zeros of `shape` with the input at every `step`-th position from `start` along a dimension."""

    name = "unfold_backward"
    quiet = True

    @staticmethod
    def forward(ctx: Any, x: Any, *, shape: Any, dim: int, start: int, step: int, count: int) -> Any:
        ctx.dim, ctx.places = dim, slice(start, start + (count - 1) * step + 1, step)
        found = np.zeros(shape, x.dtype)
        if shape:
            found[(slice(None),) * dim + (ctx.places,)] = x
        else:
            found[...] = x
        return found

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return grad[(slice(None),) * ctx.dim + (ctx.places,)] if grad._data.ndim else grad


def windows(input: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """Windows of `size` along a dimension, every `step`, as a new last dimension; a view."""
    at = wrap_dim("unfold", dimension, input._data.ndim)
    length = input._data.shape[at] if input._data.ndim else 1
    if not 0 <= size <= length:
        raise RuntimeError(f"unfold: maximum size for tensor at dimension {at} is {length} but size is {size}.")
    if step <= 0:
        raise RuntimeError(f"unfold: step is {step} but must be > 0.")
    found: Tensor = apply(Windows, input, dim=at, size=size, step=step)
    return found


# --- repeat


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
