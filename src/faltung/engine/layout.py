"""Memory order: (N, C, *spatial) contiguous into channels last, and back. A copy is made only where one is needed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from faltung.engine import memory
from faltung.engine.registry import call

SMALL = 4096  # elements below which NumPy's own copy is as fast


def is_channels_last(x: np.ndarray) -> bool:
    """Whether channels lie innermost, without gaps."""
    return _lie_channels_last(x.shape, x.strides, x.itemsize)


@lru_cache(maxsize=4096)
def _lie_channels_last(shape: tuple[int, ...], strides: tuple[int, ...], step: int) -> bool:
    if 0 in shape:
        return True
    for axis in (1, *range(len(shape) - 1, 1, -1), 0):
        if shape[axis] != 1:
            if strides[axis] != step:
                return False
            step *= shape[axis]
    return True


def channels_last(x: np.ndarray) -> np.ndarray:
    """`x` itself or a copy whose channels lie innermost."""
    return x if is_channels_last(x) else copied(x, (0, *range(2, x.ndim), 1))


def contiguous(x: np.ndarray) -> np.ndarray:
    """`x` itself or a C-contiguous copy of the same dimensions."""
    return x if x.flags.c_contiguous else copied(x, range(x.ndim))


def copied(x: np.ndarray, order: Sequence[int]) -> np.ndarray:
    """A copy of `x` without gaps, its axes from the outermost to the innermost in memory as `order` says."""
    if x.size < SMALL:
        copy = np.empty([x.shape[axis] for axis in order], x.dtype)
    else:
        copy = memory.empty(tuple([x.shape[axis] for axis in order]), x.dtype)
    copy = copy.transpose([order.index(axis) for axis in range(x.ndim)])
    if x.size < SMALL:
        np.copyto(copy, x)
    else:
        call("layout.copy", copy, x)
    return copy


def broadcasts_to(small: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether broadcasting an array of shape `small` gives it the other shape."""
    missing = len(shape) - len(small)
    return missing >= 0 and all(n in (1, full) for n, full in zip(small, shape[missing:], strict=True))


def order_of(x: np.ndarray) -> list[int]:
    """Axes from the outermost to the innermost in memory."""
    return sorted(range(x.ndim), key=lambda axis: (-abs(x.strides[axis]), axis))
