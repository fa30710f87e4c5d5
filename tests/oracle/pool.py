"""Pooling by its definition: one window at a time, in float64. Shares nothing with the library."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.oracle.conv import per_dimension

Ints = tuple[int, ...]


def output_sizes(sizes: Ints, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints, ceil_mode: bool) -> list[int]:
    """Windows that fit; where they leave a rest, `ceil_mode` adds one that begins before the padding at the end."""
    counts = []
    for size, k, s, p, d in zip(sizes, kernel, stride, padding, dilation, strict=True):
        starts = list(range(-p, size + p, s))
        inside = [start for start in starts if start + d * (k - 1) < size + p]
        counts.append(len(inside))
        rest = (size + 2 * p - d * (k - 1) - 1) % s
        if ceil_mode and rest and len(inside) < len(starts) and starts[len(inside)] < size:
            counts[-1] += 1
    return counts


def windows(
    sizes: Ints, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints, ceil_mode: bool
) -> Iterator[tuple[Ints, list[Ints]]]:
    """(output position, coordinates of its samples, those in the padding included)."""
    for position in np.ndindex(*output_sizes(sizes, kernel, stride, padding, dilation, ceil_mode)):
        starts = [p * s - pad for p, s, pad in zip(position, stride, padding, strict=True)]
        taps = np.ndindex(*kernel)
        yield position, [tuple(a + t * d for a, t, d in zip(starts, tap, dilation, strict=True)) for tap in taps]


def _planes(position: Ints) -> tuple[Any, ...]:
    """Index of one position in all planes."""
    return (slice(None), slice(None), *position)


def _canonical(
    x: np.ndarray, kernel: int | Ints, stride: int | Ints | None, padding: int | Ints
) -> tuple[Ints, Ints, Ints]:
    ndim = x.ndim - 2
    k = per_dimension(kernel, ndim)
    return k, k if stride is None else per_dimension(stride, ndim), per_dimension(padding, ndim)


def max_pool(
    x: np.ndarray,
    kernel: int | Ints,
    stride: int | Ints | None = None,
    padding: int | Ints = 0,
    dilation: int | Ints = 1,
    ceil_mode: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """(largest samples, their row-major places in the plane)."""
    sizes, ndim = x.shape[2:], x.ndim - 2
    k, s, p = _canonical(x, kernel, stride, padding)
    d = per_dimension(dilation, ndim)
    shape = (*x.shape[:2], *output_sizes(sizes, k, s, p, d, ceil_mode))
    y, places = np.zeros(shape), np.zeros(shape, np.int64)
    for position, samples in windows(sizes, k, s, p, d, ceil_mode):
        inside = [c for c in samples if all(0 <= v < size for v, size in zip(c, sizes, strict=True))]
        values = np.stack([x[_planes(c)] for c in inside])  # (samples, N, C)
        best = values.argmax(axis=0)
        flat = np.array([np.ravel_multi_index(c, sizes) for c in inside])
        y[_planes(position)] = values.max(axis=0)
        places[_planes(position)] = flat[best]
    return y, places


def avg_pool(
    x: np.ndarray,
    kernel: int | Ints,
    stride: int | Ints | None = None,
    padding: int | Ints = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor: int | None = None,
) -> np.ndarray:
    """Means: padding counts as samples if asked, what lies beyond the padding never does."""
    sizes, ndim = x.shape[2:], x.ndim - 2
    k, s, p = _canonical(x, kernel, stride, padding)
    ones = (1,) * ndim
    y = np.zeros((*x.shape[:2], *output_sizes(sizes, k, s, p, ones, ceil_mode)))
    for position, samples in windows(sizes, k, s, p, ones, ceil_mode):
        inside = [c for c in samples if all(0 <= v < size for v, size in zip(c, sizes, strict=True))]
        framed = [c for c in samples if all(v < size + pad for v, size, pad in zip(c, sizes, p, strict=True))]
        total = np.sum([x[_planes(c)].astype(np.float64) for c in inside], axis=0)
        count = divisor or len(framed if count_include_pad else inside)
        y[_planes(position)] = total / count
    return y


def adaptive(x: np.ndarray, output: Ints, reduce: str) -> np.ndarray:
    """The mean or the max (`reduce`) over windows from floor(i * size / count) to ceil((i + 1) * size / count)."""
    y = np.zeros((*x.shape[:2], *output))
    for position in np.ndindex(*output):
        box = tuple(
            slice(int(np.floor(i * size / count)), int(np.ceil((i + 1) * size / count)))
            for i, size, count in zip(position, x.shape[2:], output, strict=True)
        )
        samples = x[(slice(None), slice(None), *box)].astype(np.float64)
        y[_planes(position)] = getattr(samples, reduce)(axis=tuple(range(2, x.ndim)))
    return y
