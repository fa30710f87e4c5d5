"""Diagonals and meshes."""

from __future__ import annotations

from typing import Any

import numpy as np

from faltung.attributes import check_device
from faltung.autograd.graph import Op
from faltung.dtypes import to_numpy_dtype
from faltung.ops.apply import apply
from faltung.ops.dims import wrap_dim
from faltung.ops.reduce import sum as sum_
from faltung.tensor import Tensor

_wrap = Tensor._wrap


class Diagonal(Op):
    """A diagonal of two dimensions, as the last dimension."""

    name = "diagonal"
    is_view = True
    quiet = True

    @staticmethod
    def forward(ctx: Any, x: Any, *, offset: int, dim1: int, dim2: int) -> Any:
        ctx.shape, ctx.key = x.shape, (offset, dim1, dim2)
        return diagonal_view(x, offset, dim1, dim2)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        offset, dim1, dim2 = ctx.key
        return apply(PutDiagonal, grad, shape=ctx.shape, offset=offset, dim1=dim1, dim2=dim2)


def diagonal_view(x: np.ndarray[Any, Any], offset: int, dim1: int, dim2: int) -> np.ndarray[Any, Any]:
    """A writable diagonal, as the last dimension; NumPy's own is read-only."""
    rows, columns = x.shape[dim1], x.shape[dim2]
    length = max(0, min(rows, columns - offset) if offset >= 0 else min(rows + offset, columns))
    first = [slice(None)] * x.ndim
    first[dim1], first[dim2] = slice(max(-offset, 0), None), slice(max(offset, 0), None)
    kept = [dim for dim in range(x.ndim) if dim not in (dim1, dim2)]
    start = x[tuple(first)]
    shape = [*(x.shape[dim] for dim in kept), length]
    strides = [*(x.strides[dim] for dim in kept), x.strides[dim1] + x.strides[dim2]]
    return np.lib.stride_tricks.as_strided(start, shape, strides, writeable=x.flags.writeable)


class PutDiagonal(Op):
    """Zeros with the input on a diagonal."""

    name = "diagonal_backward"
    quiet = True

    @staticmethod
    def forward(ctx: Any, x: Any, *, shape: Any, offset: int, dim1: int, dim2: int) -> Any:
        ctx.key = (offset, dim1, dim2)
        found = np.zeros(shape, x.dtype)
        diagonal_view(found, offset, dim1, dim2)[...] = x
        return found

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        offset, dim1, dim2 = ctx.key
        return apply(Diagonal, grad, offset=offset, dim1=dim1, dim2=dim2)


def diagonal(input: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """A diagonal of two dimensions, as the last dimension; a view."""
    ndim = input._data.ndim
    first, second = wrap_dim("diagonal", dim1, ndim), wrap_dim("diagonal", dim2, ndim)
    if first == second:
        raise RuntimeError(f"diagonal: diagonal dimensions cannot be identical {dim1}, {dim2}.")
    found: Tensor = apply(Diagonal, input, offset=offset, dim1=first, dim2=second)
    return found


def diag_embed(input: Tensor, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """Matrices of zeros with the last dimension of `input` on a diagonal."""
    ndim = input._data.ndim + 1
    first, second = wrap_dim("diag_embed", dim1, ndim), wrap_dim("diag_embed", dim2, ndim)
    if first == second:
        raise RuntimeError(f"diag_embed: diagonal dimensions cannot be identical {dim1}, {dim2}.")
    size = input._data.shape[-1] + abs(offset)
    shape = list(input._data.shape[:-1])
    for dim in sorted((first, second)):
        shape.insert(dim, size)
    found: Tensor = apply(PutDiagonal, input, shape=tuple(shape), offset=offset, dim1=first, dim2=second)
    return found


def diag(input: Tensor, diagonal: int = 0) -> Tensor:
    """A vector as a diagonal matrix, or the diagonal of a matrix."""
    if input._data.ndim == 1:
        return diag_embed(input, diagonal)
    if input._data.ndim == 2:
        return _diagonal_copy(input, diagonal)
    raise RuntimeError(f"diag: Supports 1D or 2D tensors. Got {input._data.ndim}D.")


def _diagonal_copy(input: Tensor, offset: int) -> Tensor:
    return diagonal(input, offset).clone()  # methods are bound at run time


def diagflat(input: Tensor, offset: int = 0) -> Tensor:
    """The flattened input as a diagonal matrix."""
    return diag_embed(input.reshape(-1), offset)


def diagonal_scatter(input: Tensor, src: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """`input` with a diagonal replaced by `src`."""
    found: Tensor = input.clone()
    diagonal(found, offset, dim1, dim2).copy_(src)
    return found


def trace(input: Tensor) -> Tensor:
    """The sum of the diagonal of a matrix."""
    if input._data.ndim != 2:
        raise RuntimeError(f"trace: expected a matrix, but got tensor with dim {input._data.ndim}.")
    return sum_(diagonal(input))


def meshgrid(*tensors: Any, indexing: str | None = None) -> tuple[Tensor, ...]:
    """Coordinates of a grid: each vector along a dimension of its own, expanded over the others."""
    vectors = tensors[0] if len(tensors) == 1 and isinstance(tensors[0], tuple | list) else tensors
    vectors = list(vectors)
    if not vectors:
        raise ValueError("meshgrid: expects a non-empty TensorList.")
    if any(v._data.ndim > 1 for v in vectors):
        raise RuntimeError("meshgrid: Expected 0D or 1D tensor in the tensor list.")
    if indexing not in (None, "ij", "xy"):
        raise RuntimeError(f'meshgrid: indexing must be one of "xy" or "ij", but received: {indexing}.')
    vectors = [v.reshape(-1) for v in vectors]
    shape = [v._data.size for v in vectors]
    grids = []
    for place, vector in enumerate(vectors):
        view = [1] * len(shape)
        view[place] = shape[place]
        grids.append(vector.reshape(view).expand(shape))
    if indexing == "xy" and len(grids) > 1:
        grids = [grid.transpose(0, 1) for grid in grids]
    return tuple(grids)


def cartesian_prod(*tensors: Tensor) -> Tensor:
    """All combinations of the elements of vectors, one row each."""
    from faltung.ops.join import stack

    if len(tensors) == 1:
        return tensors[0]
    return stack([grid.reshape(-1) for grid in meshgrid(*tensors, indexing="ij")], 1)


def _positions(found: Any, dtype: Any, device: Any) -> Tensor:
    check_device(device)
    return _wrap(np.stack(found).astype(np.int64 if dtype is None else to_numpy_dtype(dtype)))


def tril_indices(
    row: int, col: int, offset: int = 0, *, dtype: Any = None, device: Any = None, layout: Any = None
) -> Tensor:
    """Positions of the lower triangle, (2, count)."""
    return _positions(np.tril_indices(row, offset, col), dtype, device)


def triu_indices(
    row: int, col: int, offset: int = 0, *, dtype: Any = None, device: Any = None, layout: Any = None
) -> Tensor:
    """Positions of the upper triangle, (2, count)."""
    return _positions(np.triu_indices(row, offset, col), dtype, device)
