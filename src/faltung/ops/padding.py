"""Padding of trailing dimensions: constant, reflect, replicate, circular. Negative amounts cut.

All are linear maps of x (constant: affine), so each backward's backward is the forward again.
`pads` holds one (before, after) per dimension of x, in order; (0, 0) where nothing changes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from faltung.autograd.graph import Op
from faltung.ops.apply import apply
from faltung.tensor import Tensor

Pairs = tuple[tuple[int, int], ...]


def constant_pad(x: Tensor, pads: Pairs, value: float | complex | bool = 0) -> Tensor:
    """Surround x with `value`."""
    return apply(ConstantPad, x, pads=pads, value=value)


def index_pad(x: Tensor, pads: Pairs, mode: str) -> Tensor:
    """Surround x with its own samples; `mode` is "reflect", "replicate" or "circular"."""
    return apply(IndexPad, x, pads=pads, mode=mode)


def _grown(shape: tuple[int, ...], pads: Pairs) -> tuple[int, ...]:
    return tuple(size + before + after for size, (before, after) in zip(shape, pads, strict=True))


def _overlap(shape: tuple[int, ...], pads: Pairs) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """(index into x, index into the result) of the samples that both hold."""
    source, target = [], []
    for size, (before, after) in zip(shape, pads, strict=True):
        source.append(slice(max(0, -before), max(0, -before, size + min(0, after))))
        target.append(slice(max(0, before), max(0, before) + source[-1].stop - source[-1].start))
    return tuple(source), tuple(target)


class ConstantPad(Op):
    """x -> x within a constant frame."""

    name = "ConstantPad"

    @staticmethod
    def forward(ctx: Any, x: np.ndarray, *, pads: Pairs, value: float | complex | bool) -> np.ndarray:
        ctx.pads = pads
        source, target = _overlap(x.shape, pads)
        y = np.empty_like(x, shape=_grown(x.shape, pads))  # keeps x's physical order
        y[...] = np.asarray(value).astype(x.dtype)
        y[target] = x[source]
        return y

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Tensor:
        return constant_pad(gy, tuple((-before, -after) for before, after in ctx.pads))


def _source_indices(size: int, before: int, after: int, mode: str) -> np.ndarray:
    """Index of the sample of x that each sample of the result holds, along one dimension."""
    wanted = np.arange(-before, size + after)
    if mode == "replicate":
        return np.clip(wanted, 0, size - 1)
    if mode == "circular":
        return _circular_indices(size, before, after)
    mirrored = np.abs(wanted)  # reflect: the edge sample is not repeated
    return np.where(mirrored >= size, 2 * (size - 1) - mirrored, mirrored)


def _circular_indices(size: int, before: int, after: int) -> np.ndarray:
    """A negative amount cuts first; the other side then wraps what was left."""
    kept = np.arange(max(0, -before), size + min(0, after))
    length = size + before + after
    result = np.empty(length, np.int64)
    left, right = max(0, before), max(0, after)
    result[left : length - right] = kept
    if right:
        result[length - right :] = result[left : left + right]
    if left:
        result[:left] = result[length - right - left : length - right]
    return result


def _indices(shape: tuple[int, ...], pads: Pairs, mode: str) -> list[tuple[int, np.ndarray]]:
    """(dimension, source indices) of every dimension that changes."""
    return [
        (d, _source_indices(size, before, after, mode))
        for d, (size, (before, after)) in enumerate(zip(shape, pads, strict=True))
        if before or after
    ]


class IndexPad(Op):
    """x -> x within a frame of its own samples."""

    name = "IndexPad"

    @staticmethod
    def forward(ctx: Any, x: np.ndarray, *, pads: Pairs, mode: str) -> np.ndarray:
        ctx.shape, ctx.pads, ctx.mode = x.shape, pads, mode
        for d, index in _indices(x.shape, pads, mode):
            y = np.empty_like(x, shape=(*x.shape[:d], len(index), *x.shape[d + 1 :]))
            np.take(x, index, axis=d, out=y, mode="clip")
            x = y
        return x

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Tensor:
        return apply(IndexPadBackward, gy, shape=ctx.shape, pads=ctx.pads, mode=ctx.mode)


class IndexPadBackward(Op):
    """gy -> gx: every sample collects the gradients of its copies."""

    name = "IndexPadBackward"

    @staticmethod
    def forward(ctx: Any, gy: np.ndarray, *, shape: tuple[int, ...], pads: Pairs, mode: str) -> np.ndarray:
        ctx.pads, ctx.mode = pads, mode
        for d, index in reversed(_indices(shape, pads, mode)):
            gx = np.zeros_like(gy, shape=(*gy.shape[:d], shape[d], *gy.shape[d + 1 :]))
            moved, source = np.moveaxis(gx, d, 0), np.moveaxis(gy, d, 0)
            for to, grad in zip(index, source, strict=True):
                moved[to] += grad
            gy = gx
        return gy

    @staticmethod
    def backward(ctx: Any, ggx: Tensor) -> Tensor:
        return index_pad(ggx, ctx.pads, ctx.mode)
