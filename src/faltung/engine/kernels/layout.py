"""Memory order: (N, C, *spatial) contiguous into channels last, and back."""

from __future__ import annotations

import numpy as np

from faltung.engine import memory


def is_channels_last(x: np.ndarray) -> bool:
    """Whether channels lie innermost, without gaps."""
    return x.transpose(0, *range(2, x.ndim), 1).flags.c_contiguous


def channels_last(x: np.ndarray) -> np.ndarray:
    """`x` itself or a copy whose channels lie innermost."""
    if is_channels_last(x):
        return x
    copy = memory.empty_channels_last(x.shape, x.dtype)
    np.copyto(copy, x)
    return copy
