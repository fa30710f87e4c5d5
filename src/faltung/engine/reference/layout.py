"""Buffers in the engine's physical order: logical (N, C, *spatial), stored channels last."""

from __future__ import annotations

import numpy as np


def to_last(x: np.ndarray) -> np.ndarray:
    """View (N, C, *spatial) as (N, *spatial, C)."""
    return np.moveaxis(x, 1, -1)


def to_logical(x: np.ndarray) -> np.ndarray:
    """View (N, *spatial, C) as (N, C, *spatial)."""
    return np.moveaxis(x, -1, 1)


def copy(target: np.ndarray, source: np.ndarray) -> None:
    """Overwrite `target` with `source`, of its shape and dtype, in another memory order; they share no memory."""
    np.copyto(target, source)


def empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Uninitialised (N, C, *spatial), channels last."""
    return to_logical(np.empty((shape[0], *shape[2:], shape[1]), dtype))


def full(shape: tuple[int, ...], value: float | int | bool, dtype: np.dtype) -> np.ndarray:
    """(N, C, *spatial) filled with `value`, channels last."""
    return to_logical(np.full((shape[0], *shape[2:], shape[1]), value, dtype))


def padded_last(x: np.ndarray, pads: tuple[tuple[int, int], ...], value: float | int = 0) -> np.ndarray:
    """(N, C, *spatial) -> (N, *(before + spatial + after), C); a view where there is nothing to pad."""
    last = to_last(x)
    if not any(before or after for before, after in pads):
        return last
    sizes = tuple(before + size + after for size, (before, after) in zip(last.shape[1:-1], pads, strict=True))
    grown = np.full((last.shape[0], *sizes, last.shape[-1]), value, x.dtype)
    grown[interior(last.shape[1:-1], pads)] = last
    return grown


def interior(sizes: tuple[int, ...], pads: tuple[tuple[int, int], ...]) -> tuple[slice, ...]:
    """Index of the unpadded part in a channels-last padded array."""
    return (slice(None), *(slice(before, before + size) for size, (before, _) in zip(sizes, pads, strict=True)))


def tap_slices(
    tap: tuple[int, ...], output: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[slice, ...]:
    """Index, in a channels-last padded array, of the samples that kernel tap `tap` meets at every output position."""
    starts = [t * d for t, d in zip(tap, dilation, strict=True)]
    return (
        slice(None),
        *(slice(start, start + (n - 1) * s + 1, s) for start, n, s in zip(starts, output, stride, strict=True)),
    )
