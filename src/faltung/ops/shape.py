"""Views and other changes of shape that move no elements, or move them without arithmetic."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided as _numpy_as_strided

from faltung.attributes import Size
from faltung.autograd.graph import Op
from faltung.engine import layout
from faltung.ops.apply import apply, view_array
from faltung.ops.dims import as_dims, as_ints, wrap_dim
from faltung.tensor import Tensor

# --- reshape


class View(Op):
    """The same elements in another shape, sharing memory."""

    name = "view"
    is_view = True
    quiet = True

    @staticmethod
    def forward(ctx: Any, x: Any, *, shape: Any) -> Any:
        ctx.shape = x.shape
        return np.reshape(x, shape, copy=False)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return reshape(grad, ctx.shape)


class ReshapeCopy(Op):
    """The same elements in another shape, copied in logical order."""

    name = "reshape"
    quiet = True

    @staticmethod
    def forward(ctx: Any, x: Any, *, shape: Any) -> Any:
        ctx.shape = x.shape
        return layout.contiguous(x).reshape(shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return reshape(grad, ctx.shape)


def resolve_shape(where: str, shape: tuple[int, ...], numel: int) -> tuple[int, ...]:
    """`shape` with its -1 computed; RuntimeError where the number of elements doesn't fit."""
    unknown = [position for position, size in enumerate(shape) if size < 0]
    if unknown:
        if len(unknown) > 1:
            raise RuntimeError(f"{where}: only one dimension can be inferred, got shape {list(shape)}.")
        if shape[unknown[0]] != -1:
            raise RuntimeError(f"{where}: invalid shape dimension {shape[unknown[0]]} in {list(shape)}.")
        known = math.prod([size for size in shape if size >= 0])
        if known == 0 and numel == 0:
            raise RuntimeError(
                f"{where}: cannot reshape tensor of 0 elements into shape {list(shape)} because the unspecified "
                "dimension size -1 can be any value and is ambiguous."
            )
        if known and numel % known == 0:
            shape = tuple([numel // known if size < 0 else size for size in shape])
    if math.prod(shape) != numel or -1 in shape:
        raise RuntimeError(f"{where}: shape '{list(shape)}' is invalid for input of size {numel}.")
    return shape


def _can_view(array: Any, shape: tuple[int, ...]) -> bool:
    if array.flags.c_contiguous:
        return True
    try:
        np.reshape(array, shape, copy=False)
    except ValueError:
        return False
    return True


def view(input: Tensor, *shape: Any, dtype: Any = None) -> Tensor:
    """The same memory in another shape (one size may be -1), or reinterpreted as another dtype of the same width.

    Engine results lie channels last in memory, which no user chose; where that alone stands in the way the elements are
    laid out anew, in place as long as nothing else uses the memory.
    """
    if len(shape) == 1 and hasattr(shape[0], "itemsize") or dtype is not None:
        return _view_as_dtype(input, shape[0] if dtype is None else dtype)
    sizes = resolve_shape("view", as_ints("view", shape), input._data.size)
    if not _can_view(input._data, sizes):
        if input._view is None:
            if _relayout(input):
                found: Tensor = apply(View, input, shape=sizes)
                return found
            found = apply(ReshapeCopy, input, shape=sizes)
            return found
        if _viewable_if_contiguous(input, sizes):
            found = apply(ReshapeCopy, input, shape=sizes)
            return found
        raise RuntimeError(
            "view: view size is not compatible with input tensor's size and stride (at least one dimension spans "
            f"across two contiguous subspaces): {list(input.shape)} with strides {list(stride(input))} -> "
            f"{list(sizes)}. Use .reshape(...) instead."
        )
    found = apply(View, input, shape=sizes)
    return found


def _relayout(tensor: Tensor) -> bool:
    """Lay the tensor's elements out in logical order, unless other tensors or arrays use its memory."""
    if tensor._storage.aliased:
        return False
    tensor._data = layout.contiguous(tensor._data)
    return True


def _viewable_if_contiguous(input: Tensor, sizes: tuple[int, ...]) -> bool:
    """Whether the view would work, had the base been laid out in logical order."""
    link = input._view
    assert link is not None  # asked of views only
    base = link.base._data
    if base.flags.c_contiguous:
        return False
    strides = [base.itemsize * math.prod(base.shape[dim + 1 :]) for dim in range(base.ndim)]
    imagined = _numpy_as_strided(np.empty(0, base.dtype), base.shape, strides, writeable=False)  # never read
    try:
        return _can_view(view_array(imagined, link.chain), sizes)
    except ValueError:
        return False


class ViewDtype(Op):
    """The same bytes read as another type; no gradient except between equal types."""

    name = "view_dtype"
    is_view = True
    quiet = True

    @staticmethod
    def forward(ctx: Any, x: Any, *, to: Any) -> Any:
        return x.view(to)


def _view_as_dtype(input: Tensor, to: Any) -> Tensor:
    from faltung.dtypes import to_numpy_dtype

    if input.dtype is to:
        found: Tensor = apply(View, input, shape=input._data.shape)
        return found
    numpy_type = to_numpy_dtype(to)
    if numpy_type.itemsize != input._data.itemsize and (
        not input._data.ndim or input._data.strides[-1] != input.itemsize
    ):
        raise RuntimeError(f"view: self.stride(-1) must be 1 to view {input.dtype} as {to} (different element sizes).")
    found = apply(ViewDtype, input, to=numpy_type)
    return found


def reshape(input: Tensor, *shape: Any) -> Tensor:
    """The same elements in another shape: a view where the memory allows it, else a copy."""
    sizes = resolve_shape("reshape", as_ints("reshape", shape), input._data.size)
    if _can_view(input._data, sizes):
        found: Tensor = apply(View, input, shape=sizes)
        return found
    return view(input, sizes) if input._view is None else apply(ReshapeCopy, input, shape=sizes)


def view_as(input: Tensor, other: Tensor) -> Tensor:
    """`view` with the shape of `other`."""
    return view(input, other._data.shape)


def reshape_as(input: Tensor, other: Tensor) -> Tensor:
    """`reshape` with the shape of `other`."""
    return reshape(input, other._data.shape)


def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Dimensions start_dim to end_dim as one."""
    ndim = input._data.ndim
    first, last = wrap_dim("flatten", start_dim, ndim), wrap_dim("flatten", end_dim, ndim)
    if not ndim:
        return reshape(input, 1)
    if first > last:
        raise RuntimeError(
            f"flatten: flatten() has invalid args: start_dim cannot come after end_dim, got {start_dim} and {end_dim}."
        )
    if first == last:
        return input
    shape = input._data.shape
    return reshape(input, (*shape[:first], math.prod(shape[first : last + 1]), *shape[last + 1 :]))


def ravel(input: Tensor) -> Tensor:
    """All elements in one dimension."""
    return reshape(input, -1)


def unflatten(input: Tensor, dim: int, sizes: Any) -> Tensor:
    """Dimension `dim` split into `sizes` (one may be -1)."""
    at = wrap_dim("unflatten", dim, input._data.ndim)
    shape = input._data.shape
    sizes = as_ints("unflatten", (sizes,))
    if not sizes:
        raise RuntimeError("unflatten: unflattened_size must be non-empty.")
    try:
        parts = resolve_shape("unflatten", sizes, shape[at])
    except RuntimeError:
        raise RuntimeError(
            f"unflatten: Provided sizes {list(sizes)} don't multiply up to the size of dim {dim} ({shape[at]}) in the "
            "input tensor."
        ) from None
    return view(input, (*shape[:at], *parts, *shape[at + 1 :]))


# --- order of dimensions


class Permute(Op):
    """Dimensions in another order."""

    name = "permute"
    is_view = True
    quiet = True

    @staticmethod
    def forward(ctx: Any, x: Any, *, dims: Any) -> Any:
        ctx.dims = dims
        return x.transpose(dims)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        inverse = sorted(range(len(ctx.dims)), key=ctx.dims.__getitem__)
        found: Tensor = apply(Permute, grad, dims=tuple(inverse))
        return found


def permute(input: Tensor, *dims: Any) -> Tensor:
    """Dimensions in the given order."""
    ndim = input._data.ndim
    order = tuple([wrap_dim("permute", dim, ndim) for dim in as_ints("permute", dims)])
    if len(order) != ndim:
        raise RuntimeError(
            "permute: number of dimensions in the tensor input does not match the length of the desired "
            f"ordering of dimensions i.e. input.dim() = {ndim} is not equal to len(dims) = {len(order)}."
        )
    if len(set(order)) != ndim:
        raise RuntimeError(f"permute: duplicate dims are not allowed, got {list(order)}.")
    found: Tensor = apply(Permute, input, dims=order)
    return found


def transpose(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """Two dimensions exchanged."""
    ndim = input._data.ndim
    first, second = wrap_dim("transpose", dim0, ndim), wrap_dim("transpose", dim1, ndim)
    order = list(range(ndim))
    if ndim:
        order[first], order[second] = order[second], order[first]
    found: Tensor = apply(Permute, input, dims=tuple(order))
    return found


def t(input: Tensor) -> Tensor:
    """The transpose of a matrix; vectors and numbers as they are."""
    if input._data.ndim > 2:
        raise RuntimeError(
            f"t: expects a tensor with <= 2 dimensions, but self is {input._data.ndim}D. "
            "Use transpose(dim0, dim1) or .mT instead."
        )
    return transpose(input, 0, 1) if input._data.ndim == 2 else permute(input, *range(input._data.ndim))


def matrix_transpose(input: Tensor) -> Tensor:
    """The last two dimensions exchanged (`.mT`)."""
    if input._data.ndim < 2:
        raise RuntimeError(
            f"mT: tensor.mT is only supported on matrices or batches of matrices. Got {input._data.ndim}-D tensor."
        )
    return transpose(input, -2, -1)


def reverse_dims(input: Tensor) -> Tensor:
    """All dimensions in reverse order (`.T`)."""
    found: Tensor = apply(Permute, input, dims=tuple(range(input._data.ndim))[::-1])
    return found


def movedim(input: Tensor, source: Any, destination: Any) -> Tensor:
    """Dimensions moved to other positions, the rest in order."""
    ndim = input._data.ndim
    sources = as_dims("movedim", source, ndim, empty_is_all=False)
    targets = as_dims("movedim", destination, ndim, empty_is_all=False)
    if len(sources) != len(targets):
        raise RuntimeError(
            f"movedim: Invalid source or destination dims: source ({list(sources)} dims) should contain the same "
            f"number of dims as destination ({list(targets)} dims)."
        )
    order = [dim for dim in range(ndim) if dim not in sources]
    for target, moved in sorted(zip(targets, sources)):
        order.insert(target, moved)
    found: Tensor = apply(Permute, input, dims=tuple(order))
    return found


# --- dimensions of size 1


def unsqueeze(input: Tensor, dim: int) -> Tensor:
    """A new dimension of size 1 at `dim`."""
    data = input._data
    at = wrap_dim("unsqueeze", dim, data.ndim + 1)
    found: Tensor = apply(Unsqueeze, input, dim=at)
    return found


class Unsqueeze(Op):
    """A new dimension of size 1."""

    name = "unsqueeze"
    is_view = True
    quiet = True

    @staticmethod
    def forward(ctx: Any, x: Any, *, dim: int) -> Any:
        ctx.dim = dim
        return np.expand_dims(x, dim)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return squeeze(grad, ctx.dim)


class Squeeze(Op):
    """Dimensions of size 1 dropped."""

    name = "squeeze"
    is_view = True
    quiet = True

    @staticmethod
    def forward(ctx: Any, x: Any, *, dims: Any) -> Any:
        ctx.shape = x.shape
        return x.squeeze(dims)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return reshape(grad, ctx.shape)


def squeeze(input: Tensor, dim: Any = None) -> Tensor:
    """Without its dimensions of size 1, or only those among `dim`."""
    data = input._data
    dims = as_dims("squeeze", dim, data.ndim, empty_is_all=False)
    found: Tensor = apply(Squeeze, input, dims=tuple([d for d in dims if data.shape[d] == 1]))
    return found


# --- repetition without memory


class Expand(Op):
    """Dimensions of size 1 repeated without copying; the tape sums the gradient back."""

    name = "expand"
    is_view = True
    quiet = True

    @staticmethod
    def forward(ctx: Any, x: Any, *, shape: Any) -> Any:
        ctx.shape = x.shape
        return x.view() if x.shape == shape else np.broadcast_to(x, shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


def expand(input: Tensor, *sizes: Any) -> Tensor:
    """Dimensions of size 1 repeated to `sizes` without copying; -1 keeps a size."""
    shape = as_ints("expand", sizes)
    data = input._data
    offset = len(shape) - data.ndim
    if offset < 0:
        raise RuntimeError(
            f"expand: the number of sizes provided ({len(shape)}) must be greater or equal to the number of "
            f"dimensions in the tensor ({data.ndim})."
        )
    full = list(shape)
    for position, size in enumerate(shape):
        if position < offset:
            if size < 0:
                raise RuntimeError(
                    f"expand: The expanded size of the tensor ({size}) isn't allowed in a leading, non-existing "
                    f"dimension {position}."
                )
            continue
        present = data.shape[position - offset]
        if size == -1:
            full[position] = present
        elif present not in (1, size) or size < 0:
            raise RuntimeError(
                f"expand: The expanded size of the tensor ({size}) must match the existing size ({present}) at "
                f"non-singleton dimension {position}. Target sizes: {list(shape)}. Tensor sizes: {list(data.shape)}."
            )
    found: Tensor = apply(Expand, input, shape=tuple(full))
    return found


def expand_as(input: Tensor, other: Tensor) -> Tensor:
    """`expand` to the shape of `other`."""
    return expand(input, other._data.shape)


def broadcast_to(input: Tensor, size: Any) -> Tensor:
    """`expand` as a function."""
    return expand(input, tuple(size))


def broadcast_shapes(*shapes: Any) -> Size:
    """The shape that several shapes broadcast to."""
    normal = [(shape,) if isinstance(shape, int) else tuple(shape) for shape in shapes]
    try:
        return Size(np.broadcast_shapes(*normal))
    except ValueError:
        raise RuntimeError(
            f"broadcast_shapes: Shape mismatch: objects cannot be broadcast to a single shape, got {normal}."
        ) from None


def broadcast_tensors(*tensors: Any) -> tuple[Tensor, ...]:
    """Views of all tensors in their common shape."""
    if len(tensors) == 1 and isinstance(tensors[0], tuple | list):
        tensors = tuple(tensors[0])
    shape = broadcast_shapes(*[x._data.shape for x in tensors])
    return tuple([expand(x, shape) for x in tensors])


# --- parts


class AsStrided(Op):
    """Any strided view of the memory of the input."""

    name = "as_strided"
    is_view = True
    quiet = True

    @staticmethod
    def forward(ctx: Any, x: Any, *, size: Any, stride: Any, offset: int) -> Any:
        ctx.shape, ctx.size, ctx.stride, ctx.offset = x.shape, size, stride, offset
        flat = x.reshape(-1)[offset:] if x.flags.c_contiguous else _memory_of(x)[offset:]
        return _numpy_as_strided(flat, size, [s * x.itemsize for s in stride])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        positions = _numpy_as_strided(
            np.arange(math.prod(ctx.shape))[ctx.offset :], ctx.size, [s * 8 for s in ctx.stride]
        )
        flat = grad.new_zeros(math.prod(ctx.shape))
        index = Tensor._wrap(np.ascontiguousarray(positions).reshape(-1))
        return reshape(flat.index_add(0, index, reshape(grad, -1)), ctx.shape)


def _memory_of(x: Any) -> Any:
    """All elements of a dense array in the order of its memory."""
    order = sorted(range(x.ndim), key=lambda dim: -x.strides[dim])
    return np.reshape(x.transpose(order), -1, copy=False)


def as_strided(input: Tensor, size: Any, stride: Any, storage_offset: int | None = None) -> Tensor:
    """A view with the given sizes and strides (in elements) of the input's memory."""
    size, stride, offset = tuple(size), tuple(stride), storage_offset or 0
    if len(size) != len(stride):
        raise RuntimeError(f"as_strided: mismatch in length of strides and shape: {list(stride)} and {list(size)}.")
    if any(s < 0 for s in stride):
        raise RuntimeError(
            f"as_strided: Negative strides are not supported at the moment, got strides: {list(stride)}."
        )
    last = offset + sum((n - 1) * s for n, s in zip(size, stride))
    if math.prod(size) and last >= input._data.size:
        raise RuntimeError(
            f"as_strided: setStorage: sizes {list(size)}, strides {list(stride)}, storage offset {offset} are out of "
            f"bounds for storage of {input._data.size} elements."
        )
    found: Tensor = apply(AsStrided, input, size=size, stride=stride, offset=offset)
    return found


def stride(input: Tensor, dim: int | None = None) -> Any:
    """Steps in memory, in elements: of all dimensions or of one."""
    data = input._data
    steps = tuple([step // data.itemsize for step in data.strides])
    return steps if dim is None else steps[wrap_dim("stride", dim, data.ndim)]
