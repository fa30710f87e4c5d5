"""Memory order: (N, C, *spatial) contiguous into channels last, and back. A copy is made only where one is needed."""

from __future__ import annotations

import numpy as np

from faltung.engine import memory
from faltung.engine.registry import call

SMALL = 4096  # elements below which NumPy's own copy is as fast


def is_channels_last(x: np.ndarray) -> bool:
    """Whether channels lie innermost, without gaps."""
    return x.transpose(0, *range(2, x.ndim), 1).flags.c_contiguous


def channels_last(x: np.ndarray) -> np.ndarray:
    """`x` itself or a copy whose channels lie innermost."""
    if is_channels_last(x):
        return x
    copy = memory.empty_channels_last(x.shape, x.dtype)
    call("layout.copy", copy, x)
    return copy


def contiguous(x: np.ndarray) -> np.ndarray:
    """`x` itself or a C-contiguous copy; never fewer dimensions, never more."""
    if x.flags.c_contiguous:
        return x
    if x.size < SMALL:
        return np.ascontiguousarray(x)
    copy = memory.empty(x.shape, x.dtype)
    call("layout.copy", copy, x)
    return copy
