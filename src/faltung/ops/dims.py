"""Dimension arguments: checked once, then non-negative."""

from __future__ import annotations

import operator
from typing import Any

from faltung.tensor import Tensor

__all__ = ["as_dims", "as_ints", "wrap_dim"]


def wrap_dim(where: str, dim: Any, ndim: int) -> int:
    """`dim` counted from the front; IndexError out of range. A 0-d tensor accepts 0 and -1."""
    try:
        dim = operator.index(dim)
    except TypeError:
        raise TypeError(f"{where}: argument 'dim' must be int, not {type(dim).__name__}.") from None
    limit = ndim or 1
    if not -limit <= dim < limit:
        raise IndexError(
            f"{where}: Dimension out of range (expected to be in range of [{-limit}, {limit - 1}], but got {dim})."
        )
    return dim + limit if dim < 0 else dim


def as_dims(where: str, dim: Any, ndim: int, empty_is_all: bool = True) -> tuple[int, ...]:
    """Dimensions to reduce: None (all), one, or several distinct ones."""
    if dim is None:
        return tuple(range(ndim))
    if ndim > 64:
        raise RuntimeError(f"{where}: only tensors with up to 64 dims are supported, got {ndim}.")
    if not isinstance(dim, tuple | list):
        return (wrap_dim(where, dim, ndim),) if ndim else _zero_dim(where, (dim,))
    if not len(dim) and empty_is_all:
        return tuple(range(ndim))
    if not ndim:
        return _zero_dim(where, tuple(dim))
    dims = tuple([wrap_dim(where, d, ndim) for d in dim])
    if len(set(dims)) != len(dims):
        repeated = next(d for d in dims if dims.count(d) > 1)
        raise RuntimeError(f"{where}: dim {repeated} appears multiple times in the list of dims {tuple(dim)}.")
    return dims


def _zero_dim(where: str, dims: tuple[Any, ...]) -> tuple[int, ...]:
    for dim in dims:
        wrap_dim(where, dim, 0)
    return ()


def as_ints(where: str, sizes: Any) -> tuple[int, ...]:
    """Integers given as `f(2, 3)` or `f((2, 3))`, as one tuple."""
    if len(sizes) == 1 and isinstance(sizes[0], tuple | list):
        sizes = sizes[0]
    elif len(sizes) == 1 and isinstance(sizes[0], Tensor) and sizes[0].dim() == 1:
        sizes = sizes[0].tolist()
    try:
        return tuple([size if type(size) is int else operator.index(size) for size in sizes])
    except TypeError:
        raise TypeError(f"{where}: expected integers, got {tuple(sizes)!r}.") from None
