"""Dropout as a differentiable operation. The mask is drawn in logical order, so that it is PyTorch's for the same seed
whatever memory order the engine chose for the input."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from faltung import engine, sampling
from faltung.autograd import is_grad_enabled
from faltung.autograd.graph import Op
from faltung.ops.activation import SELU_ALPHA, SELU_SCALE
from faltung.ops.apply import apply, apply_inplace
from faltung.tensor import Tensor


def _mask(x: np.ndarray, p: float, channels: bool) -> np.ndarray:
    """Where to keep, True with probability 1 - p: one draw for each element, or for each channel of (N, C, ...)."""
    shape = (*x.shape[:2], *(1 for _ in x.shape[2:])) if channels else x.shape
    keep = np.zeros(shape, dtype=bool) if p == 1 else sampling.bernoulli(shape, 1 - p)
    if channels or x.flags.c_contiguous:
        return keep
    ordered = np.empty_like(x, dtype=bool)  # drawn in logical order, then laid out as x is
    ordered[...] = keep
    return ordered


class DropoutBackward(Op):
    """gy times mask and scale."""

    name = "dropout_backward"

    @staticmethod
    def forward(ctx: Any, gy: np.ndarray, keep: np.ndarray, scale: float) -> np.ndarray:
        return engine.call("dropout.backward", gy, keep, scale)


class Dropout(Op):
    """Zeroes elements (or whole channels) with probability p and divides the others by 1 - p."""

    name = "dropout"

    @staticmethod
    def forward(ctx: Any, x: np.ndarray, p: float, channels: bool) -> np.ndarray:
        ctx.keep = _mask(x, p, channels)
        ctx.scale = 0.0 if p == 1 else 1 / (1 - p)
        return engine.call("dropout.forward", x, ctx.keep, ctx.scale)

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Tensor:
        keep = Tensor._wrap(ctx.keep)
        if is_grad_enabled():
            return gy * (keep.to(gy.dtype) * ctx.scale)
        return apply(DropoutBackward, gy, keep, scale=ctx.scale)


class AlphaDropout(Op):
    """Sets elements (or channels) to the value SELU saturates at, then restores mean 0 and variance 1.

    Klambauer et al. 2017, section 3: a = ((1-p) (1 + p alpha'^2))^-1/2, b = a p alpha', alpha' = SELU's scale * alpha.
    """

    name = "alpha_dropout"

    @staticmethod
    def forward(ctx: Any, x: np.ndarray, p: float, channels: bool) -> np.ndarray:
        saturation = SELU_ALPHA * SELU_SCALE
        a = 1 / math.sqrt((saturation * saturation * p + 1) * (1 - p))
        keep = _mask(x, p, channels).astype(x.dtype)
        ctx.factor = keep * x.dtype.type(a)
        return x * ctx.factor + ((keep - 1) * (saturation * a) + saturation * a * p)

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Tensor:
        return gy * Tensor._wrap(ctx.factor)


def dropout(x: Tensor, p: float, channels: bool = False, inplace: bool = False) -> Tensor:
    run = apply_inplace if inplace else apply
    return run(Dropout, x, p=float(p), channels=channels)


def alpha_dropout(x: Tensor, p: float, channels: bool = False, inplace: bool = False) -> Tensor:
    run = apply_inplace if inplace else apply
    return run(AlphaDropout, x, p=float(p), channels=channels)
