"""Arrays between unmapped pages: a kernel that reads or writes past one end of its memory dies at once."""

from __future__ import annotations

import ctypes
import mmap
from math import prod

import numpy as np
import pytest

PAGE = mmap.PAGESIZE


def guarded(shape: tuple[int, ...], dtype: type = np.float32, at_end: bool = True) -> np.ndarray:
    """An array of NaN (or of the largest integer) whose last byte, or else first, adjoins an unmapped page."""
    kind = np.dtype(dtype)
    size = prod(shape) * kind.itemsize
    inside = -(-size // PAGE) * PAGE
    whole = mmap.mmap(-1, inside + 2 * PAGE)
    start = np.frombuffer(whole, np.uint8).ctypes.data
    for page in (start, start + PAGE + inside):
        _forbid(page)
    offset = PAGE + (inside - size if at_end else 0)
    array = np.frombuffer(whole, kind, prod(shape), offset).reshape(shape)
    array[...] = np.nan if kind.kind == "f" else np.iinfo(kind).max
    return array


def guarded_copy(x: np.ndarray, channels_last: bool = False, at_end: bool = True) -> np.ndarray:
    """`x` between unmapped pages, its channels innermost in memory if asked."""
    if channels_last:
        last = np.moveaxis(x, 1, -1)
        return np.moveaxis(guarded_copy(last, at_end=at_end), -1, 1)
    copy = guarded(x.shape, x.dtype.type, at_end)
    copy[...] = x
    return copy


def _forbid(page: int) -> None:
    try:
        mprotect = ctypes.CDLL(None, use_errno=True).mprotect
    except (AttributeError, OSError, TypeError):
        pytest.skip("guard pages need mprotect")
    if mprotect(ctypes.c_void_p(page), ctypes.c_size_t(PAGE), 0) != 0:
        raise OSError(ctypes.get_errno(), "mprotect")
