"""Extremes, sorting and what rests on order. Values carry gradients, positions don't."""

from __future__ import annotations

from typing import Any

import numpy as np

from faltung import engine, return_types
from faltung.autograd.graph import Op
from faltung.dtypes import COMPLEX
from faltung.ops.apply import apply
from faltung.ops.dims import as_dims, wrap_dim
from faltung.ops.extremes import maximum, minimum
from faltung.ops.gather import gather
from faltung.ops.reduce import check_not_empty, large, restore_dims, with_dims
from faltung.tensor import Tensor

_wrap = Tensor._wrap


def _refuse_complex(where: str, input: Tensor) -> None:
    if input.dtype.kind == COMPLEX:
        raise RuntimeError(f'{where}: "{where}" not implemented for complex tensors, which have no order.')


# --- extremes


class Extreme(Op):
    """The largest or smallest elements over dimensions; equal ones share the gradient."""

    name = "amax"

    @staticmethod
    def forward(ctx: Any, x: Any, *, dims: Any, keepdim: bool, largest: bool) -> Any:
        ctx.save_inputs(0)
        ctx.save_outputs(0)
        ctx.shape, ctx.dims, ctx.keepdim = x.shape, dims, keepdim
        if large(x, dims):
            found = engine.call("reduce.largest" if largest else "reduce.smallest", x, dims)
            return with_dims(found, x, dims, keepdim)
        ufunc: np.ufunc = np.maximum if largest else np.minimum
        return ufunc.reduce(x, axis=dims, keepdims=keepdim)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        x, result = ctx.saved
        best = restore_dims(result, ctx)
        chosen = (x == best) | (x.isnan() & best.isnan())
        share = chosen.to(grad.dtype)
        return share * (restore_dims(grad, ctx) / share.sum(ctx.dims, True) if x.dim() else restore_dims(grad, ctx))


def _extreme(where: str, input: Tensor, dim: Any, keepdim: bool, largest: bool) -> Tensor:
    _refuse_complex(where, input)
    check_not_empty(where, input, dim if dim != () else None)
    dims = as_dims(where, dim, input._data.ndim)
    found: Tensor = apply(Extreme, input, dims=dims, keepdim=keepdim, largest=largest)
    return found


def amax(input: Tensor, dim: Any = (), keepdim: bool = False) -> Tensor:
    """The largest element over `dim` (all dimensions unless given); equal ones share the gradient."""
    return _extreme("amax", input, dim, keepdim, True)


def amin(input: Tensor, dim: Any = (), keepdim: bool = False) -> Tensor:
    """The smallest element over `dim` (all dimensions unless given); equal ones share the gradient."""
    return _extreme("amin", input, dim, keepdim, False)


def aminmax(input: Tensor, *, dim: int | None = None, keepdim: bool = False) -> Any:
    """The smallest and the largest element."""
    dims: Any = () if dim is None else dim
    return return_types.aminmax(amin(input, dims, keepdim), amax(input, dims, keepdim))


class ArgExtreme(Op):
    """Positions of the largest or smallest elements along a dimension; the first one on ties."""

    name = "argmax"
    quiet = True

    @staticmethod
    def forward(ctx: Any, x: Any, *, dim: int | None, keepdim: bool, largest: bool) -> Any:
        if not x.ndim:
            return np.zeros((), np.int64)
        found = (np.argmax if largest else np.argmin)(x, axis=dim)
        if dim is None:
            return np.asarray(found).reshape((1,) * x.ndim if keepdim else ())
        return np.expand_dims(found, dim) if keepdim else np.asarray(found)


def _arg_extreme(where: str, input: Tensor, dim: Any, keepdim: bool, largest: bool) -> Tensor:
    _refuse_complex(where, input)
    if input._data.dtype.kind == "b" and where in ("argmax", "argmin"):
        raise RuntimeError(f"{where}: \"{where}_cpu\" not implemented for 'Bool'. Convert the mask with .int() first.")
    at = None if dim is None else wrap_dim(where, dim, input._data.ndim)
    if dim is None and not input._data.size:
        raise IndexError(f"{where}: Expected reduction dim to be specified for input.numel() == 0. Give dim=.")
    check_not_empty(where, input, dim)
    found: Tensor = apply(ArgExtreme, input, dim=at, keepdim=keepdim, largest=largest)
    return found


def argmax(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The position of the largest element: along `dim`, or in the flattened tensor."""
    return _arg_extreme("argmax", input, dim, keepdim, True)


def argmin(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The position of the smallest element: along `dim`, or in the flattened tensor."""
    return _arg_extreme("argmin", input, dim, keepdim, False)


def _at(input: Tensor, positions: Tensor, dim: int, keepdim: bool) -> Tensor:
    """Elements at positions (kept dimension) along `dim`, with gradient."""
    if not input._data.ndim:
        return input.clone()  # methods are bound at run time
    found = gather(input, dim, positions)
    return found if keepdim else found.squeeze(dim)


def _extreme_with_positions(where: str, kind: Any, input: Tensor, dim: int, keepdim: bool, largest: bool) -> Any:
    _refuse_complex(where, input)
    at = wrap_dim(where, dim, input._data.ndim)
    check_not_empty(where, input, at)
    positions: Tensor = apply(ArgExtreme, input, dim=at, keepdim=True, largest=largest)
    flat = positions if keepdim or not input._data.ndim else positions.squeeze(at)
    return kind(_at(input, positions, at, keepdim), flat)


def _max_or_min(where: str, input: Tensor, dim: Any, keepdim: bool, other: Any, kind: Any, largest: bool) -> Any:
    if isinstance(dim, Tensor):
        other = dim
    if other is not None:
        return (maximum if largest else minimum)(input, other)
    if dim is None:
        _refuse_complex(where, input)
        check_not_empty(where, input, None)
        dims = tuple(range(input._data.ndim))
        return apply(Extreme, input, dims=dims, keepdim=False, largest=largest)
    return _extreme_with_positions(where, kind, input, dim, keepdim, largest)


def max(input: Tensor, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Any:
    """The largest element; with `dim`, (values, indices) along it; with another tensor, the elementwise larger."""
    return _max_or_min("max", input, dim, keepdim, other, return_types.max, True)


def min(input: Tensor, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Any:
    """The smallest element; with `dim`, (values, indices) along it; with another tensor, the elementwise smaller."""
    return _max_or_min("min", input, dim, keepdim, other, return_types.min, False)


# --- sorting


class ArgSort(Op):
    """Positions that put the elements along a dimension in order; equal elements keep theirs."""

    name = "argsort"
    quiet = True

    @staticmethod
    def forward(ctx: Any, x: Any, *, dim: int, descending: bool) -> Any:
        if not x.ndim:
            return np.zeros((), np.int64)
        if not descending:
            return np.argsort(x, axis=dim, kind="stable")
        if x.dtype.kind in "fc":  # nan counts as the largest
            key = np.where(np.isnan(x), -np.inf, -x)
            rank = np.argsort(np.where(np.isnan(x), 0, 1), axis=dim, kind="stable")
            inner = np.argsort(np.take_along_axis(key, rank, dim), axis=dim, kind="stable")
            by_value = np.take_along_axis(rank, inner, dim)
            return by_value
        turned = np.flip(x, dim)
        backwards = np.flip(np.argsort(turned, axis=dim, kind="stable"), dim)
        return np.ascontiguousarray(x.shape[dim] - 1 - backwards)


def argsort(input: Tensor, dim: int = -1, descending: bool = False, *, stable: bool = False) -> Tensor:
    """Positions that put the elements along `dim` in order."""
    _refuse_complex("argsort", input)
    at = wrap_dim("argsort", dim, input._data.ndim)
    found: Tensor = apply(ArgSort, input, dim=at, descending=descending)
    return found


def sort(input: Tensor, dim: int = -1, descending: bool = False, *, stable: bool = False) -> Any:
    """(values, indices) in ascending order along `dim`; always stable."""
    positions = argsort(input, dim, descending)
    return return_types.sort(_at(input, positions, wrap_dim("sort", dim, input._data.ndim), True), positions)


def msort(input: Tensor) -> Tensor:
    """Sorted along the first dimension."""
    found: Tensor = sort(input, 0).values
    return found


def topk(input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    """(values, indices) of the k largest (or smallest) elements along `dim`, best first."""
    at = wrap_dim("topk", dim, input._data.ndim)
    size = input._data.shape[at] if input._data.ndim else 1
    if not 0 <= k <= size:
        raise RuntimeError(f"topk: selected index k out of range: k={k}, but dimension {at} has {size} elements.")
    positions = argsort(input, at, largest)
    if input._data.ndim:
        positions = positions.narrow(at, 0, k).clone()
    return return_types.topk(_at(input, positions, at, True), positions)


def kthvalue(input: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> Any:
    """(values, indices) of the k-th smallest element along `dim`, k counted from 1."""
    at = wrap_dim("kthvalue", dim, input._data.ndim)
    size = input._data.shape[at] if input._data.ndim else 1
    if not 1 <= k <= size:
        raise RuntimeError(f"kthvalue: selected number k out of range for dimension {at}: k={k}, size {size}.")
    positions = argsort(input, at)
    positions = positions.narrow(at, k - 1, 1) if input._data.ndim else positions
    flat = positions if keepdim or not input._data.ndim else positions.squeeze(at)
    return return_types.kthvalue(_at(input, positions, at, keepdim), flat)


def _middle(where: str, input: Tensor, dim: Any, keepdim: bool, skip_nan: bool) -> Any:
    if dim is None:
        flat = input.reshape(-1)
        if not input._data.size:
            return input.new_full((), float("nan"))
        return _middle(where, flat, 0, False, skip_nan).values
    kind = return_types.nanmedian if skip_nan else return_types.median
    at = wrap_dim(where, dim, input._data.ndim)
    if not input._data.ndim:
        return kind(input.clone(), _wrap(np.zeros((), np.int64)))
    check_not_empty(where, input, at)
    order = argsort(input, at)
    nans = np.isnan(input._data) if input._data.dtype.kind == "f" else np.zeros(input._data.shape, bool)
    count = input._data.shape[at] - np.count_nonzero(nans, axis=at, keepdims=True)
    middle = np.maximum(count - 1, 0) // 2
    if not skip_nan:  # a nan is the median of its row; it is sorted last
        middle = np.where(nans.any(axis=at, keepdims=True), input._data.shape[at] - 1, (input._data.shape[at] - 1) // 2)
    positions = gather(order, at, _wrap(np.asarray(middle, np.int64)))
    flat = positions if keepdim else positions.squeeze(at)
    return kind(_at(input, positions, at, keepdim), flat)


def median(input: Tensor, dim: Any = None, keepdim: bool = False) -> Any:
    """The median, the lower one of two; with `dim`, (values, indices)."""
    return _middle("median", input, dim, keepdim, False)


def nanmedian(input: Tensor, dim: Any = None, keepdim: bool = False) -> Any:
    """The median of the elements that aren't nan."""
    return _middle("nanmedian", input, dim, keepdim, True)


def mode(input: Tensor, dim: int = -1, keepdim: bool = False) -> Any:
    """(values, indices) of the most frequent element along `dim`, the smallest one on ties."""
    at = wrap_dim("mode", dim, input._data.ndim)
    if not input._data.ndim:
        return return_types.mode(input.clone(), _wrap(np.zeros((), np.int64)))
    check_not_empty("mode", input, at)
    rows = np.moveaxis(input._data, at, -1)
    flat = rows.reshape(-1, rows.shape[-1])
    positions = np.empty(flat.shape[0], np.int64)
    for row, line in enumerate(flat):
        values, counts = np.unique(line, return_counts=True)
        best = values[np.argmax(counts)]
        positions[row] = np.flatnonzero(line == best)[-1]
    shaped = _wrap(np.expand_dims(positions.reshape(rows.shape[:-1]), at))
    return return_types.mode(_at(input, shaped, at, keepdim), shaped if keepdim else shaped.squeeze(at))
