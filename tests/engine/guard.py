"""Arrays between unmapped pages: a kernel that reads or writes past one end of its memory dies at once."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from typing import Any

import numpy as np
import pytest

from faltung.engine import memory
from faltung.engine.kernels import flat

PAGE = mmap.PAGESIZE


def guarded(shape: tuple[int, ...], dtype: type = np.float32, at_end: bool = True) -> np.ndarray:
    """An array of NaN (or of the largest integer) whose last byte, or else first, adjoins an unmapped page."""
    kind: np.dtype[Any] = np.dtype(dtype)
    size = prod(shape) * kind.itemsize
    inside = -(-size // PAGE) * PAGE
    whole = mmap.mmap(-1, inside + 2 * PAGE)
    start = np.frombuffer(whole, np.uint8).ctypes.data
    for page in (start, start + PAGE + inside):
        _forbid(page)
    offset = PAGE + (inside - size if at_end else 0)
    array = np.frombuffer(whole, kind, prod(shape), offset).reshape(shape)
    array[...] = np.nan if kind.kind == "f" else kind.kind == "b" or np.iinfo(kind.name).max
    return array


def guarded_copy(x: np.ndarray, channels_last: bool = False, at_end: bool = True) -> np.ndarray:
    """`x` between unmapped pages, its channels innermost in memory if asked."""
    if channels_last:
        last = np.moveaxis(x, 1, -1)
        return np.moveaxis(guarded_copy(last, at_end=at_end), -1, 1)
    copy = guarded(x.shape, x.dtype.type, at_end)
    copy[...] = x
    return copy


def guarded_strided(x: np.ndarray, at_end: bool = True) -> np.ndarray:
    """`x` between unmapped pages with the strides that it has, gaps and all."""
    spans = [(n - 1) * stride for n, stride in zip(x.shape, x.strides, strict=True)]
    low, high = sum(min(span, 0) for span in spans), sum(max(span, 0) for span in spans)
    if not x.size:
        return x.copy()
    copy = np.ndarray(x.shape, x.dtype, guarded((high - low + x.itemsize,), np.uint8, at_end), -low, x.strides)
    copy[...] = x
    return copy


@contextmanager
def guarded_results(at_end: bool = True) -> Iterator[None]:
    """Every array that the engine gets for a result is poisoned and lies between unmapped pages."""

    def empty(shape: tuple[int, ...], dtype: Any = np.float32, strides: tuple[int, ...] | None = None) -> np.ndarray:
        array = guarded(shape, np.dtype(dtype).type, at_end)
        return array if strides is None or not array.size else np.ndarray(shape, dtype, array, 0, strides)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "empty", empty)
        patch.setattr(flat, "like", lambda x: empty(x.shape, x.dtype, x.strides))
        yield


def _forbid(page: int) -> None:
    try:
        mprotect = ctypes.CDLL(None, use_errno=True).mprotect
    except (AttributeError, OSError, TypeError):
        pytest.skip("guard pages need mprotect")
    if mprotect(ctypes.c_void_p(page), ctypes.c_size_t(PAGE), 0) != 0:
        raise OSError(ctypes.get_errno(), "mprotect")
