"""Parts along a dimension: slices, splits, windows. Views, all of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from faltung.autograd.graph import Op
from faltung.ops.apply import apply
from faltung.ops.dims import wrap_dim
from faltung.ops.shape import unsqueeze
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
