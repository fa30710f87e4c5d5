"""Affine map of the last dimension and its gradients, each differentiable by the others."""

from __future__ import annotations

from typing import Any

import numpy as np

from faltung import engine
from faltung.autograd.graph import Op
from faltung.ops.apply import apply
from faltung.tensor import Tensor


def linear(x: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
    """x (*, K), w (M, K), bias (M,) -> (*, M)."""
    return apply(Linear, x, w, bias)


def linear_backward_data(gy: Tensor, w: Tensor) -> Tensor:
    """gy (*, M), w (M, K) -> gx (*, K)."""
    return apply(LinearBackwardData, gy, w)


def linear_backward_weights(x: Tensor, gy: Tensor) -> Tensor:
    """x (*, K), gy (*, M) -> gw (M, K)."""
    return apply(LinearBackwardWeights, x, gy)


def _conjugate(t: Tensor) -> Tensor:
    return t.conj() if t.dtype.is_complex else t


class Linear(Op):
    """(x, w, bias) -> y."""

    name = "Linear"

    @staticmethod
    def forward(ctx: Any, x: np.ndarray, w: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
        ctx.save_inputs(0, 1)
        return engine.call("linear.forward", x, w, bias)

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        needs_x, needs_w, needs_bias = ctx.needs_input_grad
        x, w = ctx.saved
        gx = linear_backward_data(gy, _conjugate(w)) if needs_x else None
        if needs_w and needs_bias:
            gw, gb = apply(LinearBackwardParameters, _conjugate(x), gy)
            return gx, gw, gb
        gw = linear_backward_weights(_conjugate(x), gy) if needs_w else None
        return gx, gw, gy.sum(tuple(range(gy.dim() - 1))) if needs_bias and gy.dim() > 1 else gy if needs_bias else None


class LinearBackwardData(Op):
    """(gy, w) -> gx."""

    name = "LinearBackwardData"

    @staticmethod
    def forward(ctx: Any, gy: np.ndarray, w: np.ndarray) -> np.ndarray:
        ctx.save_inputs(0, 1)
        return engine.call("linear.backward_data", gy, w)

    @staticmethod
    def backward(ctx: Any, ggx: Tensor) -> tuple[Tensor | None, Tensor | None]:
        gy, w = ctx.saved
        return (
            linear(ggx, _conjugate(w), None) if ctx.needs_input_grad[0] else None,
            linear_backward_weights(ggx, _conjugate(gy)) if ctx.needs_input_grad[1] else None,
        )


class LinearBackwardWeights(Op):
    """(x, gy) -> gw."""

    name = "LinearBackwardWeights"

    @staticmethod
    def forward(ctx: Any, x: np.ndarray, gy: np.ndarray) -> np.ndarray:
        ctx.save_inputs(0, 1)
        return engine.call("linear.backward_weights", x, gy, with_bias=False)[0]

    @staticmethod
    def backward(ctx: Any, ggw: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, gy = ctx.saved
        return (
            linear_backward_data(_conjugate(gy), ggw) if ctx.needs_input_grad[0] else None,
            linear(_conjugate(x), ggw, None) if ctx.needs_input_grad[1] else None,
        )


class LinearBackwardParameters(Op):
    """(x, gy) -> (gw, gb): one pass over gy for both."""

    name = "LinearBackwardParameters"

    @staticmethod
    def forward(ctx: Any, x: np.ndarray, gy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        ctx.save_inputs(0, 1)
        return engine.call("linear.backward_weights", x, gy, with_bias=True)

    @staticmethod
    def backward(ctx: Any, ggw: Tensor | None, ggb: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        needs_x, needs_gy = ctx.needs_input_grad
        x, gy = ctx.saved
        if ggw is None:
            return None, ggb.expand(gy.shape) if ggb is not None and needs_gy else None
        return (
            linear_backward_data(_conjugate(gy), ggw) if needs_x else None,
            linear(_conjugate(x), ggw, ggb) if needs_gy else None,
        )
