"""Pooling in plain NumPy: one pass per position in the window.

Engine calls (x (N, C, *input), y and gy (N, C, *output); any strides; results stored channels last):

    pool.max_forward(geometry, x, *, with_indices=True)      -> (y, indices int64 or None)
    pool.max_backward(geometry, gy, indices)                 -> gx; the gradients meet at the indices
    pool.max_gather(geometry, x, indices)                    -> y; x at the indices (second derivatives)
    pool.max_taps_forward(geometry, x, *, activation="")     -> (y, taps uint8): which kernel tap met the largest
        sample; NO_TAP where `activation` (relu or relu6), whose result x is, lets no gradient through there
    pool.max_taps_backward(geometry, gy, taps)               -> gx
    pool.tap_indices(geometry, taps)                         -> indices; of NO_TAP any in the window
    pool.avg_forward(geometry, x, *, count_include_pad=True, divisor=None)   -> y
    pool.avg_backward(geometry, gy, *, count_include_pad=True, divisor=None) -> gx
    pool.adaptive_avg_forward(x, output)                     -> y; windows as even as possible
    pool.adaptive_avg_backward(gy, input)                    -> gx
    pool.adaptive_max_forward(x, output)                     -> (y, indices int64)
    pool.fractional_max_forward(x, samples, kernel, output)  -> (y, indices int64)

An index counts the samples of one (n, c) plane in row-major order of the unpadded input: what PyTorch returns.
NaN wins every comparison; of equal values the first wins.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from math import prod

import numpy as np

from faltung.engine.geometry import NO_TAP, PoolGeometry
from faltung.engine.reference import layout
from faltung.engine.reference.activation import gradient_through
from faltung.engine.reference.precision import reference

Ints = tuple[int, ...]
Pairs = tuple[tuple[int, int], ...]


def _reach(geometry: PoolGeometry) -> Pairs:
    """Padding, its end grown (or cut to nothing) so that the last window of `ceil_mode` stays inside."""
    pairs = []
    for d, (before, _) in enumerate(geometry.padding):
        last = (geometry.output[d] - 1) * geometry.stride[d] + geometry.dilation[d] * (geometry.kernel[d] - 1) + 1
        pairs.append((before, max(0, last - before - geometry.input[d])))
    return tuple(pairs)


def _taps(geometry: PoolGeometry) -> Iterator[tuple[Ints, tuple[slice, ...]]]:
    for tap in np.ndindex(*geometry.kernel):
        yield tap, layout.tap_slices(tap, geometry.output, geometry.stride, geometry.dilation)


def _lowest(dtype: np.dtype) -> float | int:
    return -np.inf if dtype.kind == "f" else int(np.iinfo(dtype).min)


def _isnan(values: np.ndarray) -> np.ndarray:
    return values != values


def _first_indices(geometry: PoolGeometry) -> np.ndarray:
    """(*output): plane index of the first real sample of every window: the answer where all are as low as can be."""
    total: np.ndarray = np.zeros((), np.int64)
    for d in range(geometry.ndim):
        start = np.arange(geometry.output[d]) * geometry.stride[d] - geometry.padding[d][0]
        steps = np.maximum(0, -(start // geometry.dilation[d]))  # kernel taps that fall before the input
        axis = start + steps * geometry.dilation[d]
        total = total[..., None] * geometry.input[d] + axis
    return total


def _first_taps(geometry: PoolGeometry) -> np.ndarray:
    """(*output): the number of the first kernel tap that meets a sample, NO_TAP where none does."""
    total: np.ndarray = np.zeros((), np.int64)
    for d in range(geometry.ndim):
        start = np.arange(geometry.output[d]) * geometry.stride[d] - geometry.padding[d][0]
        total = total[..., None] * geometry.kernel[d] + np.maximum(0, -(start // geometry.dilation[d]))
    empty = _windows_of_padding(geometry)
    return total if empty is None else np.where(empty[..., 0], NO_TAP, total)


def _tap_indices(geometry: PoolGeometry, tap: Ints) -> np.ndarray:
    """(*output): plane index of the sample that `tap` meets (meaningless where it lies in the padding)."""
    total: np.ndarray = np.zeros((), np.int64)
    for d in range(geometry.ndim):
        start = np.arange(geometry.output[d]) * geometry.stride[d] - geometry.padding[d][0]
        total = total[..., None] * geometry.input[d] + start + tap[d] * geometry.dilation[d]
    return total


@reference()
def max_forward(
    geometry: PoolGeometry, x: np.ndarray, *, with_indices: bool = True
) -> tuple[np.ndarray, np.ndarray | None]:
    """Largest sample of each window, and with `with_indices` where it lies."""
    lowest = _lowest(x.dtype)
    padded = layout.padded_last(x, _reach(geometry), lowest)
    best = np.full((len(padded), *geometry.output, geometry.channels), lowest, x.dtype)
    if not with_indices:
        for _, index in _taps(geometry):
            np.maximum(best, padded[index], out=best)
        return layout.to_logical(best), None
    where = np.empty(best.shape, np.int64)
    where[...] = _first_indices(geometry)[..., None]
    for tap, index in _taps(geometry):
        values = padded[index]
        better = values > best
        if x.dtype.kind == "f":
            better |= _isnan(values)
        np.copyto(best, values, where=better)
        np.copyto(where, _tap_indices(geometry, tap)[..., None], where=better)
    return layout.to_logical(best), layout.to_logical(where)


@lru_cache(maxsize=1024)
def _windows_of_padding(geometry: PoolGeometry) -> np.ndarray | None:
    """(*output, 1): which windows hold no sample at all, as dilation allows; None if all hold one."""
    found = np.zeros((), bool)
    for d in range(geometry.ndim):
        start = np.arange(geometry.output[d]) * geometry.stride[d] - geometry.padding[d][0]
        samples = start[:, None] + np.arange(geometry.kernel[d]) * geometry.dilation[d]
        found = found[..., None] | ~((samples >= 0) & (samples < geometry.input[d])).any(axis=1)
    return found[..., None] if found.any() else None


def _plane_rows(indices: np.ndarray) -> np.ndarray:
    """(N, C, *output) -> (N, P, C) view-like array of plane indices."""
    last = layout.to_last(indices)
    return last.reshape(last.shape[0], prod(last.shape[1:-1]), last.shape[-1])


@reference()
def max_backward(geometry: PoolGeometry, gy: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """gx, zero but where windows found their largest sample; overlapping windows add up."""
    gx = layout.full(geometry.input_shape, 0, gy.dtype)
    if gy.size == 0:
        return gx
    n, c, plane = geometry.batch, geometry.channels, prod(geometry.input)
    rows, grads = _plane_rows(indices), _plane_rows(gy)
    empty = _windows_of_padding(geometry)
    if empty is not None:
        rows, grads = (np.where(empty.reshape(-1, 1), 0, values) for values in (rows, grads))
    flat = (np.arange(n)[:, None, None] * plane + rows) * c + np.arange(c)
    target = layout.to_last(gx).reshape(-1)
    spans = zip(geometry.kernel, geometry.dilation, geometry.stride, strict=True)
    if empty is None and all(s >= d * (k - 1) + 1 for k, d, s in spans):  # windows do not overlap: nothing meets
        target[flat] = grads
    else:
        np.add.at(target, flat.reshape(-1), grads.reshape(-1))
    return gx


@reference()
def max_taps_forward(geometry: PoolGeometry, x: np.ndarray, *, activation: str = "") -> tuple[np.ndarray, np.ndarray]:
    """Largest sample of each window, and the kernel tap that met it."""
    lowest = _lowest(x.dtype)
    padded = layout.padded_last(x, _reach(geometry), lowest)
    best = np.full((len(padded), *geometry.output, geometry.channels), lowest, x.dtype)
    taps = np.empty(best.shape, np.uint8)
    taps[...] = _first_taps(geometry)[..., None]
    for number, (_, index) in enumerate(_taps(geometry)):
        values = padded[index]
        better = values > best
        if x.dtype.kind == "f":
            better |= _isnan(values)
        np.copyto(best, values, where=better)
        np.copyto(taps, number, where=better, casting="unsafe")
    if activation:
        taps[gradient_through(activation, np.ones_like(best), best) == 0] = NO_TAP
    return layout.to_logical(best), layout.to_logical(taps)


def tap_indices(geometry: PoolGeometry, taps: np.ndarray) -> np.ndarray:
    """The plane index of each window's tap."""
    found = layout.to_last(taps)
    where = np.empty(found.shape, np.int64)
    where[...] = _first_indices(geometry)[..., None]
    for number, (tap, _) in enumerate(_taps(geometry)):
        np.copyto(where, _tap_indices(geometry, tap)[..., None], where=found == number)
    return layout.to_logical(where)


@reference()
def max_taps_backward(geometry: PoolGeometry, gy: np.ndarray, taps: np.ndarray) -> np.ndarray:
    """gx from taps instead of indices."""
    return max_backward(geometry, np.where(taps == NO_TAP, 0, gy).astype(gy.dtype), tap_indices(geometry, taps))


@reference()
def max_gather(geometry: PoolGeometry, x: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """x at the indices, (N, C, *output); 0 for windows of padding alone."""
    last = layout.to_last(x).reshape(geometry.batch, prod(geometry.input), geometry.channels)
    rows, empty = _plane_rows(indices), _windows_of_padding(geometry)
    if empty is not None:
        empty = empty.reshape(-1, 1)
        taken = np.where(empty, 0, np.take_along_axis(last, np.where(empty, 0, rows), axis=1))
    else:
        taken = np.take_along_axis(last, rows, axis=1)
    return layout.to_logical(taken.reshape(geometry.batch, *geometry.output, geometry.channels))


def _divisors(geometry: PoolGeometry, count_include_pad: bool, divisor: int | None) -> np.ndarray | int:
    """What each window's sum is divided by: a number, or (*output, 1)."""
    if divisor is not None:
        return divisor
    whole = prod(geometry.kernel)
    total: np.ndarray = np.ones((), np.int64)
    for d in range(geometry.ndim):
        before, after = geometry.padding[d]
        start = np.arange(geometry.output[d]) * geometry.stride[d] - before
        # a window that ceil_mode lets stick out of the padding counts only its part inside
        end = np.minimum(start + geometry.kernel[d], geometry.input[d] + after)
        if not count_include_pad:
            start, end = np.maximum(start, 0), np.minimum(end, geometry.input[d])
        total = total[..., None] * (end - start)
    return whole if bool((total == whole).all()) else total[..., None]


def _divide(values: np.ndarray, divisors: np.ndarray | int) -> np.ndarray:
    """In place for floating point; integers divide towards zero."""
    if values.dtype.kind in "fc":
        values /= np.asarray(divisors).astype(values.real.dtype)
        return values
    return np.abs(values) // np.abs(divisors) * np.sign(values) * np.sign(divisors)


@reference()
def avg_forward(
    geometry: PoolGeometry, x: np.ndarray, *, count_include_pad: bool = True, divisor: int | None = None
) -> np.ndarray:
    """Mean of each window: its sum over `divisor`, or over its samples, padding among them if asked."""
    padded = layout.padded_last(x, _reach(geometry))
    if geometry.kernel == padded.shape[1:-1] and padded.size:
        total = padded.sum(axis=tuple(range(1, padded.ndim - 1)), keepdims=True, dtype=padded.dtype)
    else:
        total = np.zeros((len(padded), *geometry.output, geometry.channels), padded.dtype)
        for _, index in _taps(geometry):
            total += padded[index]
    total = _divide(total, _divisors(geometry, count_include_pad, divisor))
    return layout.to_logical(total)


@reference()
def avg_backward(
    geometry: PoolGeometry, gy: np.ndarray, *, count_include_pad: bool = True, divisor: int | None = None
) -> np.ndarray:
    """gx: every window hands its gradient in equal shares to its samples."""
    pads = _reach(geometry)
    sizes = tuple(size + before + after for size, (before, after) in zip(geometry.input, pads, strict=True))
    share = _divide(layout.to_last(gy).copy(), _divisors(geometry, count_include_pad, divisor))
    if geometry.kernel == sizes:
        padded = np.broadcast_to(share, (geometry.batch, *sizes, geometry.channels))
    else:
        padded = np.zeros((geometry.batch, *sizes, geometry.channels), share.dtype)
        for _, index in _taps(geometry):
            padded[index] += share
    return layout.to_logical(np.ascontiguousarray(padded[layout.interior(geometry.input, pads)]))


def adaptive_windows(size: int, output: int) -> list[slice]:
    """`output` windows over `size` samples, as even as possible, overlapping where they must."""
    return [slice(i * size // output, -(-(i + 1) * size // output)) for i in range(output)]


@reference()
def adaptive_avg_forward(x: np.ndarray, output: Ints) -> np.ndarray:
    """Means over adaptive windows, one dimension after the other: a mean of means, as every window is a box."""
    values = layout.to_last(x)
    for axis, (size, count) in enumerate(zip(x.shape[2:], output, strict=True), start=1):
        moved = np.moveaxis(values, axis, 0)
        pooled = np.empty((count, *moved.shape[1:]), values.dtype)
        for i, window in enumerate(adaptive_windows(size, count)):
            pooled[i] = moved[window].mean(axis=0)
        values = np.moveaxis(pooled, 0, axis)
    return layout.to_logical(np.ascontiguousarray(values))


@reference()
def adaptive_avg_backward(gy: np.ndarray, input: Ints) -> np.ndarray:
    """gx (N, C, *input) of `adaptive_avg_forward`."""
    values = layout.to_last(gy)
    for axis, (size, count) in enumerate(zip(input, gy.shape[2:], strict=True), start=1):
        moved = np.moveaxis(values, axis, 0)
        spread = np.zeros((size, *moved.shape[1:]), values.dtype)
        for i, window in enumerate(adaptive_windows(size, count)):
            spread[window] += moved[i] / values.dtype.type(window.stop - window.start)
        values = np.moveaxis(spread, 0, axis)
    return layout.to_logical(np.ascontiguousarray(values))


@reference()
def adaptive_max_forward(x: np.ndarray, output: Ints) -> tuple[np.ndarray, np.ndarray]:
    """(largest sample, its plane index) of every adaptive window."""
    last = layout.to_last(x)
    n, sizes, c = last.shape[0], last.shape[1:-1], last.shape[-1]
    y = np.empty((n, *output, c), x.dtype)
    where = np.empty((n, *output, c), np.int64)
    plane = np.arange(prod(sizes)).reshape(sizes)
    windows = [adaptive_windows(size, count) for size, count in zip(sizes, output, strict=True)]
    for position in np.ndindex(*output):
        box = tuple(windows[d][i] for d, i in enumerate(position))
        samples = last[(slice(None), *box)].reshape(n, plane[box].size, c)
        best = samples.argmax(axis=1)  # NaN counts as largest
        y[(slice(None), *position)] = np.take_along_axis(samples, best[:, None], axis=1)[:, 0]
        where[(slice(None), *position)] = plane[box].reshape(-1)[best]
    return layout.to_logical(y), layout.to_logical(where)


def _fractional_starts(samples: np.ndarray, size: int, kernel: int, output: int) -> np.ndarray:
    """(N * C, output): first sample of every window: even steps, shifted at random, rounded down; the last is flush."""
    if output == 1:
        return np.full((len(samples), 1), size - kernel)
    alpha = samples.dtype.type((size - kernel) / samples.dtype.type(output - 1))
    shift = (samples * alpha).astype(np.int64)
    steps = np.arange(output, dtype=samples.dtype)
    starts = ((steps + samples[:, None]) * alpha).astype(np.int64) - shift[:, None]
    starts[:, -1] = size - kernel
    return starts


def fractional_max_forward(
    x: np.ndarray, samples: np.ndarray, kernel: Ints, output: Ints
) -> tuple[np.ndarray, np.ndarray]:
    """(largest sample, its plane index) of pseudo-random windows; samples (N, C, D) shift them."""
    n, c, *sizes = x.shape
    ndim = len(sizes)
    shifts = samples.reshape(n * c, ndim)
    index: np.ndarray = np.zeros((n * c, *(1,) * (2 * ndim)), np.int64)  # (planes, *output, *kernel)
    for d in range(ndim):
        starts = _fractional_starts(shifts[:, d], sizes[d], kernel[d], output[d])
        axis = starts[:, :, None] + np.arange(kernel[d])  # (planes, output, kernel)
        shape = [n * c, *(1,) * (2 * ndim)]
        shape[1 + d], shape[1 + ndim + d] = output[d], kernel[d]
        index = index * sizes[d] + axis.reshape(shape)
    index = index.reshape(n * c, prod(output), prod(kernel))
    windows = np.take_along_axis(
        x.reshape(n * c, 1, prod(sizes)), index.reshape(n * c, 1, prod(output) * prod(kernel)), axis=2
    )
    windows = windows.reshape(index.shape)
    best = windows.argmax(axis=2)[..., None]  # NaN counts as largest
    y, where = (np.take_along_axis(values, best, axis=2).reshape(n, c, *output) for values in (windows, index))
    return y, where
