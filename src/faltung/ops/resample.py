"""Resampling along one axis: every output is a weighted sum of a few inputs. Linear, so its gradient is its transpose.

All modes of `interpolate` are tables of taps: nearest has one, linear two, cubic four, antialiased ones as many as the
filter covers. Planes are resampled in one pass, other ranks axis by axis.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from faltung import engine
from faltung.autograd.graph import Op
from faltung.engine.taps import Taps
from faltung.ops.apply import apply
from faltung.tensor import Tensor


class Resample(Op):
    """One axis resampled by `taps`, whatever the memory layout, which the result keeps."""

    name = "upsample"
    quiet = True

    @staticmethod
    def forward(ctx: Any, x: np.ndarray, *, axis: int, taps: Taps) -> np.ndarray:
        ctx.axis, ctx.taps = axis, taps
        return engine.call("resample.axis", x, axis, taps)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return resample(grad, ctx.axis, ctx.taps.transposed)


class ResamplePlanes(Op):
    """Rows and columns of x (N, C, H, W) resampled in one pass."""

    name = "upsample"
    quiet = True

    @staticmethod
    def forward(ctx: Any, x: np.ndarray, *, rows: Taps, columns: Taps) -> np.ndarray:
        ctx.rows, ctx.columns = rows, columns
        return engine.call("resample.planes", x, rows, columns)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return resample_planes(grad, ctx.rows.transposed, ctx.columns.transposed)


def resample(x: Tensor, axis: int, taps: Taps) -> Tensor:
    """`x` with its axis `axis` resampled by `taps`."""
    return apply(Resample, x, axis=axis, taps=taps)


def resample_planes(x: Tensor, rows: Taps, columns: Taps) -> Tensor:
    """`x` (N, C, H, W) with its rows and columns resampled."""
    return apply(ResamplePlanes, x, rows=rows, columns=columns)


# ---- tables ----------------------------------------------------------------------------------------------------------
# `scale` is input steps per output step. PyTorch computes positions at the precision of the data (float32, or float64
# for double), and rounding decides which pixel "nearest" takes, so these tables do the same.


@lru_cache(maxsize=256)
def nearest_taps(inputs: int, outputs: int, scale: float | None, exact: bool) -> Taps:
    """The pixel below an output's corner or, with `exact`, below its centre."""
    if not exact and outputs == inputs:
        index = np.arange(outputs)
    elif not exact and outputs == 2 * inputs:
        index = np.arange(outputs) // 2
    else:
        step = np.float32(inputs) / np.float32(outputs) if scale is None else np.float32(scale)
        positions = (np.arange(outputs, dtype=np.float32) + np.float32(0.5 if exact else 0)) * step
        index = np.minimum(np.floor(positions).astype(np.int64), inputs - 1)
    return Taps(inputs, index.reshape(-1, 1), None)


@lru_cache(maxsize=256)
def linear_taps(inputs: int, outputs: int, scale: float | None, align_corners: bool, double: bool) -> Taps:
    """The two pixels around a position, weighted by nearness; positions outside stay at the border."""
    if inputs == outputs:
        return Taps(inputs, np.arange(outputs).reshape(-1, 1), None)
    positions = _positions(inputs, outputs, scale, align_corners, double)
    positions = np.maximum(positions, 0)
    below = np.minimum(positions.astype(np.int64), inputs - 1)
    above = below + (below < inputs - 1)
    share = np.clip(positions - below.astype(positions.dtype), 0, 1)
    return Taps(inputs, np.stack([below, above], 1), np.stack([1 - share, share], 1).astype(np.float64))


@lru_cache(maxsize=256)
def cubic_taps(inputs: int, outputs: int, scale: float | None, align_corners: bool, double: bool) -> Taps:
    """Four pixels under Keys' cubic (a = -0.75); beyond the border its pixel repeats."""
    if inputs == outputs:
        return Taps(inputs, np.arange(outputs).reshape(-1, 1), None)
    positions = _positions(inputs, outputs, scale, align_corners, double)
    below = np.floor(positions)
    share = positions - below
    offsets = np.arange(-1, 3)
    index = np.clip(below.astype(np.int64)[:, None] + offsets, 0, inputs - 1)
    distances = np.abs(share[:, None] - offsets.astype(share.dtype))
    return Taps(inputs, index, _keys(distances, -0.75).astype(np.float64))


@lru_cache(maxsize=256)
def antialias_taps(inputs: int, outputs: int, scale: float | None, align_corners: bool, kernel: str) -> Taps:
    """A filter stretched by the scale when shrinking, so that no input pixel is skipped; weights sum to 1."""
    half_width, weigh = _FILTERS[kernel]
    step = _step(inputs, outputs, scale, align_corners)
    support = half_width * max(step, 1.0)
    taps = min(math.ceil(support) * 2 + 1, inputs)
    centres = step * (np.arange(outputs) + 0.5)
    first = np.maximum((centres - support + 0.5).astype(np.int64), 0)
    count = np.minimum((centres + support + 0.5).astype(np.int64), inputs) - first
    count = np.clip(count, 0, taps)
    k = np.arange(taps)
    distances = np.abs((k + first[:, None] - centres[:, None] + 0.5) / max(step, 1.0))
    weights = np.where(k < count[:, None], weigh(distances), 0.0)
    sums = weights.sum(axis=1, keepdims=True)
    weights = np.divide(weights, sums, out=weights, where=sums != 0)
    return Taps(inputs, np.minimum(first[:, None] + k, inputs - 1), weights)


def _step(inputs: int, outputs: int, scale: float | None, align_corners: bool) -> float:
    if align_corners:
        return (inputs - 1) / (outputs - 1) if outputs > 1 else 0.0
    return inputs / outputs if scale is None else scale


def _positions(inputs: int, outputs: int, scale: float | None, align_corners: bool, double: bool) -> np.ndarray:
    """Where each output stands among the inputs, in pixels."""
    kind: Any = np.float64 if double else np.float32
    if align_corners:
        step = kind(inputs - 1) / kind(outputs - 1) if outputs > 1 else kind(0)
        return np.arange(outputs, dtype=kind) * step
    step = kind(inputs) / kind(outputs) if scale is None else kind(scale)
    half = kind(0.5)
    return step * (np.arange(outputs, dtype=kind) + half) - half


def _keys(distance: np.ndarray, a: float) -> np.ndarray:
    """Keys 1981: the cubic convolution kernel."""
    d = distance
    inner = ((a + 2) * d - (a + 3)) * d * d + 1
    outer = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, inner, np.where(d < 2, outer, np.zeros_like(d)))


def _lanczos(distance: np.ndarray) -> np.ndarray:
    return np.where(distance < 3, np.sinc(distance) * np.sinc(distance / 3), 0.0)


_FILTERS: dict[str, tuple[float, Callable[[np.ndarray], np.ndarray]]] = {  # half width in pixels, weight of a distance
    "bilinear": (1.0, lambda d: np.maximum(1 - d, 0.0)),
    "bicubic": (2.0, lambda d: _keys(d, -0.5)),
    "lanczos": (3.0, _lanczos),
}
