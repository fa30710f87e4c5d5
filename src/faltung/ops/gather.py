"""Reading and writing along one dimension by tensors of positions."""

from __future__ import annotations

from typing import Any

import numpy as np

from faltung.autograd.graph import Op
from faltung.ops.apply import apply
from faltung.ops.dims import wrap_dim
from faltung.ops.index import add_rows
from faltung.ops.promotion import as_number, number
from faltung.tensor import Tensor

_wrap = Tensor._wrap


def checked_positions(where: str, index: Any, name: str = "index") -> np.ndarray[Any, Any]:
    if not isinstance(index, Tensor):
        raise TypeError(f"{where}: argument '{name}' must be Tensor, not {type(index).__name__}.")
    narrow = where == "gather" and index._data.dtype.kind in "iu"
    if index._data.dtype != np.int64 and index._data.dtype != np.int32 and not narrow:
        error = IndexError if where in ("index_select", "take") else RuntimeError
        raise error(
            f"{where}: Expected dtype int32/int64 for {name}, got {index.dtype}. Convert it with .long() first."
        )
    return index._data


def check_range(where: str, index: np.ndarray[Any, Any], size: int, dim: int, error: type[Exception]) -> None:
    if not index.size:
        return
    low, high = int(index.min()), int(index.max())
    if low < 0 or high >= size:
        wrong = low if low < 0 else high
        raise error(
            f"{where}: index {wrong} is out of bounds for dimension {dim} with size {size} (index out of range)."
        )


def along(x: Any, index: Any, dim: int) -> tuple[Any, ...]:
    """The NumPy index of `take_along_axis` for an index tensor that may be smaller in the other dimensions."""
    key = list(np.ogrid[tuple(slice(0, size) for size in index.shape)]) if index.ndim else [np.zeros((), np.int64)]
    key[dim] = index
    return tuple(key)


# --- gather and scatter


class Gather(Op):
    """x at positions along a dimension."""

    name = "gather"
    quiet = True

    @staticmethod
    def forward(ctx: Any, x: Any, index: Any, *, dim: int) -> Any:
        ctx.save_inputs(1)
        ctx.dim, ctx.shape = dim, x.shape
        if not index.size:
            return np.empty(index.shape, x.dtype)
        if not x.ndim:
            return np.broadcast_to(x, index.shape).copy() if index.ndim else x.copy()
        if not index.ndim:
            return x[index].reshape(())
        return np.asarray(x[along(x, index, dim)])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (index,) = ctx.saved
        zeros = grad.new_zeros(ctx.shape)
        return (apply(Scatter, zeros, index, grad, dim=ctx.dim, add=True) if index._data.size else zeros), None


def gather(input: Tensor, dim: int, index: Tensor, *, sparse_grad: bool = False) -> Tensor:
    """out[i][j] = input[index[i][j]][j] for dim 0, and so on: elements at positions along `dim`."""
    positions = checked_positions("gather", index)
    at = wrap_dim("gather", dim, input._data.ndim)
    check_gather_shape("gather", input._data, positions, at)
    check_range("gather", positions, input._data.shape[at] if input._data.ndim else 1, at, RuntimeError)
    found: Tensor = apply(Gather, input, index, dim=at)
    return found


def check_gather_shape(where: str, x: Any, index: Any, at: int) -> None:
    if max(x.ndim, 1) != max(index.ndim, 1):
        if not index.size:
            return
        raise RuntimeError(
            f"{where}: Index tensor must have the same number of dimensions as input tensor, got {index.ndim} and "
            f"{x.ndim}."
        )
    if not index.ndim or not x.ndim:
        return
    for dim, (n, size) in enumerate(zip(index.shape, x.shape)):
        if dim != at and n > size:
            raise RuntimeError(
                f"{where}: Size does not match at dimension {dim} expected index {list(index.shape)} to be no larger "
                f"than self {list(x.shape)} apart from dimension {at}."
            )


class Scatter(Op):
    """`source` written (or added) into x at positions along a dimension."""

    name = "scatter"
    quiet = True

    @staticmethod
    def forward(ctx: Any, x: Any, index: Any, source: Any, *, dim: int, add: bool) -> Any:
        ctx.save_inputs(1)
        ctx.dim, ctx.add, ctx.shape = dim, add, source.shape
        found = x.copy(order="K")
        target, source, index = scatter_arrays(found, source, index)
        if add:
            np.add.at(target, along(target, index, dim), source)
        else:
            target[along(target, index, dim)] = source
        return found

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (index,) = ctx.saved
        gx = gs = None
        if ctx.needs_input_grad[0]:
            gx = grad if ctx.add else scatter(grad, ctx.dim, index, 0)
        if ctx.needs_input_grad[2]:
            gs = apply(Gather, grad, index, dim=ctx.dim)
            if ctx.shape and ctx.shape != gs._data.shape:  # the source was larger than the index: the rest got no share
                whole = grad.new_zeros(ctx.shape)
                whole[tuple(slice(0, n) for n in gs._data.shape)] = gs
                gs = whole
        return gx, None, gs


def scatter_arrays(x: Any, source: Any, index: Any) -> tuple[Any, Any, Any]:
    target = x if x.ndim else x.reshape(1)
    index = index if index.ndim else index.reshape(1)
    if source.ndim:
        source = source[tuple(slice(0, n) for n in index.shape)]
    return target, source, index


def scatter_source(where: str, input: Tensor, index: Any, src: Any) -> Tensor:
    if not isinstance(src, Tensor):
        return number(as_number(src), input._data.dtype)
    if src._data.dtype != input._data.dtype:
        raise RuntimeError(
            f"{where}: Expected self.dtype to be equal to src.dtype, got {input.dtype} and {src.dtype}. "
            f"Convert src with .to({input.dtype})."
        )
    if src._data.ndim and index._data.size:
        small = src._data.ndim != index._data.ndim or any(n > m for n, m in zip(index._data.shape, src._data.shape))
        if small:
            raise RuntimeError(
                f"{where}: Expected index {list(index.shape)} to be no larger than src {list(src.shape)} in every "
                "dimension."
            )
    return src


def scatter(
    input: Tensor, dim: int, index: Tensor, src: Any = None, *, value: Any = None, reduce: Any = None
) -> Tensor:
    """`input` with `src` (a tensor or a number) written at positions along `dim`; reduce='add'
    or 'multiply' combines.
    """
    source = value if src is None else src
    if source is None:
        raise TypeError("scatter: expected src or value.")
    if reduce is not None:
        from faltung.ops.scatter_reduce import scatter_reduce

        if reduce not in ("add", "multiply"):
            raise RuntimeError(f"scatter: reduce argument must be either add or multiply, got {reduce!r}.")
        if not isinstance(source, Tensor):
            source = number(source, input._data.dtype).expand(index.shape)
        return scatter_reduce(input, dim, index, source, "sum" if reduce == "add" else "prod")
    return _scatter("scatter", input, dim, index, source, False)


def scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """`input` with `src` added at positions along `dim`."""
    return _scatter("scatter_add", input, dim, index, src, True)


def _scatter(where: str, input: Tensor, dim: int, index: Tensor, source: Any, add: bool) -> Tensor:
    positions = checked_positions(where, index)
    at = wrap_dim(where, dim, input._data.ndim)
    if not positions.size:
        return input.clone()  # methods are bound at run time
    check_gather_shape(where, input._data, positions, at)
    values = scatter_source(where, input, index, source)
    check_range(where, positions, input._data.shape[at] if input._data.ndim else 1, at, RuntimeError)
    found: Tensor = apply(Scatter, input, index, values, dim=at, add=add)
    return found


def take_along_dim(input: Tensor, indices: Tensor, dim: int | None = None) -> Tensor:
    """Elements at positions along `dim` (negative ones count from the end); the other dimensions broadcast."""
    if dim is None:
        return take_along_dim(input.reshape(-1), indices.reshape(-1), 0)
    at = wrap_dim("take_along_dim", dim, input._data.ndim)
    if input._data.ndim != indices._data.ndim:
        raise RuntimeError(
            "take_along_dim: input and indices should have the same number of dimensions, but got "
            f"{input._data.ndim} dimensions for input, and {indices._data.ndim} dimensions for indices."
        )
    if indices._data.dtype != np.int64:
        raise RuntimeError(f"take_along_dim: dtype of indices should be Long but got {indices.dtype.legacy_name}.")
    a, b = list(input._data.shape), list(indices._data.shape)
    for d in range(len(a)):
        if d != at:
            a[d] = b[d] = max(a[d], b[d]) if 1 in (a[d], b[d]) else a[d]
    positions = indices._data
    if positions.size and positions.min() < 0:
        indices = indices.where(indices >= 0, indices + (a[at] if a else 1))
    return gather(input.expand(a), at, indices.expand(b))


# --- whole slices


class IndexSelect(Op):
    """Slices of x at positions along a dimension."""

    name = "index_select"
    quiet = True

    @staticmethod
    def forward(ctx: Any, x: Any, index: Any, *, dim: int) -> Any:
        ctx.save_inputs(1)
        ctx.dim, ctx.shape = dim, x.shape
        if not x.ndim:
            return x.copy()
        return np.take(x, index.reshape(-1), axis=dim)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (index,) = ctx.saved
        return index_add(grad.new_zeros(ctx.shape), ctx.dim, index, grad), None


def index_select(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """Slices at positions along `dim`, in the order of `index`."""
    positions = checked_positions("index_select", index)
    at = wrap_dim("index_select", dim, input._data.ndim)
    if positions.ndim > 1:
        raise IndexError(f"index_select: Index is supposed to be a vector, but got dim: {positions.ndim}.")
    check_range("index_select", positions, input._data.shape[at] if input._data.ndim else 1, at, IndexError)
    found: Tensor = apply(IndexSelect, input, index, dim=at)
    return found


class IndexAdd(Op):
    """Slices of `source` added to (or written over) those of x at positions along a dimension."""

    name = "index_add"
    quiet = True

    @staticmethod
    def forward(ctx: Any, x: Any, index: Any, source: Any, *, dim: int, add: bool) -> Any:
        ctx.save_inputs(1)
        ctx.dim, ctx.add = dim, add
        found = x.copy(order="C")
        target = found if x.ndim else found.reshape(1)
        source = source if source.ndim or not add else source.reshape(1)
        index = index.reshape(-1)
        if not add:
            target[(slice(None),) * dim + (index,)] = source
        elif target.ndim > 1:
            rows = np.moveaxis(target, dim, 0)
            add_rows(rows, index, np.moveaxis(source, dim, 0))
        else:
            np.add.at(target, index, source)
        return found

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (index,) = ctx.saved
        gs = apply(IndexSelect, grad, index, dim=ctx.dim) if ctx.needs_input_grad[2] else None
        gx = grad
        if not ctx.add and ctx.needs_input_grad[0]:
            gx = index_fill(grad, ctx.dim, index, 0)
        return gx, None, gs


def _check_slices(where: str, input: Tensor, at: int, index: Tensor, source: Tensor) -> None:
    positions = checked_positions(where, index)
    if positions.ndim > 1:
        raise IndexError(f"{where}: Index is supposed to be a vector, but got dim: {positions.ndim}.")
    if source._data.dtype != input._data.dtype:
        raise RuntimeError(
            f"{where}: self ({input.dtype.legacy_name}) and source ({source.dtype.legacy_name}) must have the same "
            "scalar type."
        )
    expected = list(input._data.shape)
    if input._data.ndim:
        expected[at] = positions.size
    if input._data.ndim and list(source._data.shape) != expected:
        error = RuntimeError if where == "index_add" else IndexError
        raise error(
            f"{where}: expected source of shape {expected} (that of self, with {positions.size} positions along "
            f"dimension {at}), got {list(source.shape)}."
        )
    check_range(where, positions, input._data.shape[at] if input._data.ndim else 1, at, IndexError)


def index_add(input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: Any = 1) -> Tensor:
    """`input` with slices of `source` (times alpha) added at positions along `dim`."""
    at = wrap_dim("index_add", dim, input._data.ndim)
    _check_slices("index_add", input, at, index, source)
    found: Tensor = apply(IndexAdd, input, index, source if alpha == 1 else source * alpha, dim=at, add=True)
    return found


def index_copy(input: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """`input` with slices replaced by those of `source` at positions along `dim`."""
    at = wrap_dim("index_copy", dim, input._data.ndim)
    _check_slices("index_copy", input, at, index, source)
    found: Tensor = apply(IndexAdd, input, index, source, dim=at, add=False)
    return found


class IndexFill(Op):
    """Slices of x at positions along a dimension set to a number."""

    name = "index_fill"
    quiet = True

    @staticmethod
    def forward(ctx: Any, x: Any, index: Any, value: Any, *, dim: int) -> Any:
        ctx.save_inputs(1)
        ctx.dim = dim
        found = x.copy(order="K")
        target = found if x.ndim else found.reshape(1)
        target[(slice(None),) * dim + (index.reshape(-1),)] = value
        return found

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (index,) = ctx.saved
        gx = index_fill(grad, ctx.dim, index, 0) if ctx.needs_input_grad[0] else None
        gv = None
        if ctx.needs_input_grad[2]:
            distinct = _wrap(np.unique(index._data))
            gv = apply(IndexSelect, grad, distinct, dim=ctx.dim).sum()
        return gx, None, gv


def index_fill(input: Tensor, dim: int, index: Tensor, value: Any) -> Tensor:
    """`input` with slices at positions along `dim` set to `value`."""
    positions = checked_positions("index_fill", index)
    at = wrap_dim("index_fill", dim, input._data.ndim)
    size = input._data.shape[at] if input._data.ndim else 1
    if positions.size and (positions.min() < -size or positions.max() >= size):
        raise IndexError(f"index_fill: index out of range for dimension {at} with size {size}.")
    if isinstance(value, Tensor) and value._data.ndim:
        raise RuntimeError(
            f"index_fill: Only supports 0-dimension value tensor, but got tensor with dimension: {value._data.ndim}."
        )
    given = value if isinstance(value, Tensor) else number(value, input._data.dtype)
    found: Tensor = apply(IndexFill, input, index, given.to(input.dtype), dim=at)
    return found


def take(input: Tensor, index: Tensor) -> Tensor:
    """Elements at positions in the flattened input."""
    positions = checked_positions("take", index)
    size = input._data.size
    if positions.size and (positions.min() < -size or positions.max() >= size):
        raise IndexError(f"take: index out of range: the input has {size} elements.")
    flat = input.reshape(-1)
    wrapped = _wrap(np.where(positions < 0, positions + size, positions).astype(np.int64).reshape(-1))
    return gather(flat, 0, wrapped).reshape(positions.shape)


def put(input: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
    """`input` with `source` written (or added) at positions of the flattened input."""
    checked_positions("put", index)
    if source._data.dtype != input._data.dtype:
        raise RuntimeError(
            f"put: self and source expected to have the same dtype, but got {input.dtype} and {source.dtype}."
        )
    flat = input.reshape(-1).index_put((index.reshape(-1),), source.reshape(-1), accumulate)
    return flat.reshape(input._data.shape)
