"""Distinct elements, counts and buckets. None of these has a gradient."""

from __future__ import annotations

from typing import Any

import numpy as np

from faltung import dtypes
from faltung.autograd.graph import Op
from faltung.ops.apply import apply
from faltung.ops.dims import wrap_dim
from faltung.ops.gather import gather
from faltung.tensor import Tensor

_wrap = Tensor._wrap


class Unique(Op):
    """(values, positions of the elements among them, counts), values in ascending order."""

    name = "unique"

    @staticmethod
    def forward(ctx: Any, x: Any, *, dim: int | None) -> Any:
        if dim is not None and not x.size:
            return x.copy(), np.zeros(x.shape[dim], np.int64), np.zeros(x.shape[dim], np.int64)
        values, inverse, counts = np.unique(x, return_inverse=True, return_counts=True, axis=dim, equal_nan=False)
        shape = x.shape if dim is None else (x.shape[dim],)
        return np.ascontiguousarray(values), inverse.reshape(shape).astype(np.int64), counts.astype(np.int64)


class UniqueConsecutive(Op):
    """(values, positions of the elements among them, counts), a value again where another stood between."""

    name = "unique_consecutive"

    @staticmethod
    def forward(ctx: Any, x: Any, *, dim: int | None) -> Any:
        rows = x.reshape(-1) if dim is None else np.moveaxis(x, dim, 0)
        count = rows.shape[0]
        differs = (rows[1:] != rows[:-1]).reshape(max(count - 1, 0), int(np.prod(rows.shape[1:]))).any(axis=1)
        starts = np.flatnonzero(np.concatenate((np.ones(min(count, 1), bool), differs)))
        counts = np.diff(np.append(starts, count))
        inverse = np.repeat(np.arange(starts.size), counts)
        values = rows[starts] if dim is None else np.moveaxis(rows[starts], 0, dim)
        return np.ascontiguousarray(values), inverse.reshape(x.shape if dim is None else (count,)), counts


def _chosen(found: Any, return_inverse: bool, return_counts: bool) -> Any:
    values, inverse, counts = found
    parts = (values, *((inverse,) if return_inverse else ()), *((counts,) if return_counts else ()))
    return parts if len(parts) > 1 else values


def unique(
    input: Tensor,
    sorted: bool = True,
    return_inverse: bool = False,
    return_counts: bool = False,
    dim: int | None = None,
) -> Any:
    """Distinct elements (or slices along `dim`) in ascending order, with their positions and counts where asked."""
    at = None if dim is None else wrap_dim("unique", dim, input._data.ndim)
    return _chosen(apply(Unique, input, dim=at), return_inverse, return_counts)


def unique_consecutive(
    input: Tensor, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None
) -> Any:
    """Elements (or slices along `dim`) that differ from the one before."""
    at = None if dim is None else wrap_dim("unique_consecutive", dim, input._data.ndim)
    return _chosen(apply(UniqueConsecutive, input, dim=at), return_inverse, return_counts)


class BinCount(Op):
    """How often each number occurs."""

    name = "bincount"

    @staticmethod
    def forward(ctx: Any, x: Any, weights: Any, *, minlength: int) -> Any:
        found = np.bincount(x, weights, minlength)
        return found if weights is None or weights.dtype != np.float32 else found.astype(np.float32)


def bincount(input: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
    """How often each number from 0 up occurs, or the sums of `weights`."""
    if input._data.ndim != 1 or input._data.dtype.kind not in "iu" or (input._data.size and input._data.min() < 0):
        raise RuntimeError("bincount: only supports 1-d non-negative integral inputs.")
    found: Tensor = apply(BinCount, input, weights, minlength=minlength)
    return found


class SearchSorted(Op):
    """Positions at which elements would be inserted into sorted sequences."""

    name = "searchsorted"

    @staticmethod
    def forward(ctx: Any, boundaries: Any, values: Any, *, right: bool) -> Any:
        side = "right" if right else "left"
        if boundaries.ndim == 1:
            return np.asarray(np.searchsorted(boundaries, values, side=side)).astype(np.int64)  # type: ignore[call-overload]
        if not values.size:
            return np.empty(values.shape, np.int64)
        rows = boundaries.reshape(-1, boundaries.shape[-1])
        wanted = values.reshape(rows.shape[0], -1)
        found = [np.searchsorted(row, value, side=side) for row, value in zip(rows, wanted)]  # type: ignore[call-overload]
        return np.stack(found).reshape(values.shape).astype(np.int64)


def searchsorted(
    sorted_sequence: Tensor,
    input: Any,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Tensor | None = None,
) -> Tensor:
    """Positions at which `input` would be inserted to keep the last dimension of `sorted_sequence` sorted.

    `sorter` holds the positions that sort a sequence which isn't sorted itself.
    """
    if side not in (None, "left", "right"):
        raise RuntimeError(f"searchsorted: side can only be 'left' or 'right' but got {side}.")
    if side == "left" and right:
        raise RuntimeError(
            "searchsorted: side and right can't be set to opposites, got side of left while right was True."
        )
    values = input if isinstance(input, Tensor) else _wrap(np.asarray(input))
    if sorter is not None:
        sorted_sequence = gather(sorted_sequence, -1, sorter)
    _check_sequences(sorted_sequence, values)
    found: Tensor = apply(SearchSorted, sorted_sequence, values, right=right or side == "right")
    return found.to(dtypes.int32) if out_int32 else found


def _check_sequences(sequence: Tensor, values: Tensor) -> None:
    a, b = sequence._data.shape, values._data.shape
    if not a:
        raise RuntimeError("searchsorted: boundaries tensor should have positive dimension, but got 0 dimension.")
    if len(a) > 1 and a[:-1] != b[:-1]:
        raise RuntimeError(
            "searchsorted: boundaries tensor should be 1 dimension or the first N-1 dimensions of boundaries tensor "
            f"and input value tensor must match, but we got boundaries tensor {list(a)} and input value tensor "
            f"{list(b)}."
        )


def bucketize(input: Any, boundaries: Tensor, *, out_int32: bool = False, right: bool = False) -> Tensor:
    """The buckets, between sorted `boundaries`, that elements fall into."""
    if boundaries._data.ndim != 1:
        raise RuntimeError(f"bucketize: boundaries tensor must be 1 dimension, but got dim({boundaries._data.ndim}).")
    return searchsorted(boundaries, input, out_int32=out_int32, right=right)
