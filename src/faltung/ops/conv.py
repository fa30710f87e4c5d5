"""Convolution and its gradients as operations, each differentiable by the other two.

With y = conv(x, w), the three maps (x, w) -> y, (gy, w) -> gx and (x, gy) -> gw are bilinear and close under
differentiation, so derivatives of any order come from these three. A transposed convolution is the second one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from faltung import engine
from faltung.autograd.graph import Op
from faltung.autograd.modes import modes
from faltung.engine.epilogue import Epilogue
from faltung.engine.geometry import ConvGeometry
from faltung.ops import deferred
from faltung.ops.activation import gradient_through
from faltung.ops.apply import apply, compute
from faltung.tensor import Tensor

Cache = dict[Any, Any] | None


def convolution(
    x: Tensor,
    w: Tensor,
    bias: Tensor | None,
    geometry: ConvGeometry,
    activation: str = "",
    pooled: bool = False,
) -> Tensor:
    """x (N, I, *input), w (O, I/G, *kernel), bias (O,) -> (N, O, *output), through relu or relu6 if named.

    `pooled`: the caller hands the result to `max_pool` alone, with the name of the activation, whose gradient it takes.
    """
    if modes.inside and not activation:
        waiting = deferred.convolution(x, w, bias, geometry)
        if waiting is not None:
            return waiting
    how = {"geometry": geometry, "cache": w.engine_cache(), "activation": activation, "pooled": pooled}
    return apply(Convolution, x, w, bias, **how)


def convolution_finished(
    x: Tensor,
    w: Tensor,
    bias: Tensor | None,
    geometry: ConvGeometry,
    affine: Tensor | None,
    residual: Tensor | None,
    activation: str,
    waits: bool = False,
) -> Tensor:
    """`convolution` with the steps of `engine.epilogue` behind it; it has no gradient."""
    if waits and residual is None and not activation:  # behind an activation nothing can be taken along
        waiting = deferred.convolution(x, w, bias, geometry, affine)
        if waiting is not None:
            return waiting
    attributes = {"geometry": geometry, "cache": w.engine_cache(), "activation": activation}
    return compute(ConvolutionFinished, x, w, bias, affine, residual, **attributes)


def convolution_backward_data(gy: Tensor, w: Tensor, geometry: ConvGeometry, keep_packed: bool = True) -> Tensor:
    """gy (N, O, *output), w (O, I/G, *kernel) -> gx (N, I, *input). Weights about to change need not be kept packed."""
    return apply(ConvolutionBackwardData, gy, w, geometry=geometry, cache=w.engine_cache() if keep_packed else None)


def convolution_backward_weights(x: Tensor, gy: Tensor, geometry: ConvGeometry) -> Tensor:
    """x (N, I, *input), gy (N, O, *output) -> gw (O, I/G, *kernel)."""
    return apply(ConvolutionBackwardWeights, x, gy, geometry=geometry)


def transposed_convolution(x: Tensor, w: Tensor, bias: Tensor | None, geometry: ConvGeometry) -> Tensor:
    """x (N, I, *sizes), w (I, O/G, *kernel), `geometry` mirrored -> (N, O, *grown sizes)."""
    y = convolution_backward_data(x, w, geometry)
    return y if bias is None else y + bias.reshape(1, -1, *(1,) * geometry.ndim)


def _conjugate(t: Tensor) -> Tensor:
    return t.conj() if t.dtype.is_complex else t


class Convolution(Op):
    """(x, w, bias) -> y, or relu or relu6 of y, whose derivatives follow from the result."""

    name = "Convolution"
    quiet = True

    @staticmethod
    def forward(
        ctx: Any,
        x: np.ndarray,
        w: np.ndarray,
        bias: np.ndarray | None,
        *,
        geometry: ConvGeometry,
        cache: Cache,
        activation: str,
        pooled: bool,
    ) -> np.ndarray:
        ctx.geometry, ctx.activation = geometry, "" if pooled else activation
        _keep_what_gradients_need(ctx)
        if ctx.activation:
            ctx.save_outputs(0)
        epilogue = Epilogue(activation=activation) if activation else None
        about_to_change = ctx.needs_input_grad[1]
        kept = None if about_to_change else cache
        return engine.call("conv.forward", geometry, x, w, bias, cache=kept, epilogue=epilogue)

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        needs_x, needs_w, needs_bias = ctx.needs_input_grad
        geometry, (x, w) = ctx.geometry, _kept(ctx)
        if ctx.activation:
            gy = gradient_through(ctx.activation, gy, ctx.saved[-1])
        gx = convolution_backward_data(gy, _conjugate(w), geometry, keep_packed=not needs_w) if needs_x else None
        if needs_w and needs_bias:
            gw, gb = apply(ConvolutionBackwardParameters, _conjugate(x), gy, geometry=geometry)
            return gx, gw, gb
        gw = convolution_backward_weights(_conjugate(x), gy, geometry) if needs_w else None
        return gx, gw, gy.sum(_all_but_channels(geometry)) if needs_bias else None


class ConvolutionFinished(Op):
    """(x, w, bias, affine, residual) -> y, finished while it is in registers."""

    name = "ConvolutionFinished"
    quiet = True
    backward = None

    @staticmethod
    def forward(
        ctx: Any,
        x: np.ndarray,
        w: np.ndarray,
        bias: np.ndarray | None,
        affine: np.ndarray | None,
        residual: np.ndarray | None,
        *,
        geometry: ConvGeometry,
        cache: Cache,
        activation: str,
    ) -> np.ndarray:
        epilogue = Epilogue(affine, residual, activation)
        return engine.call("conv.forward", geometry, x, w, bias, cache=cache, epilogue=epilogue)


class ConvolutionBackwardData(Op):
    """(gy, w) -> gx; also the forward of a transposed convolution."""

    name = "ConvolutionBackwardData"
    quiet = True

    @staticmethod
    def forward(ctx: Any, gy: np.ndarray, w: np.ndarray, *, geometry: ConvGeometry, cache: Cache) -> np.ndarray:
        ctx.geometry = geometry
        _keep_what_gradients_need(ctx)
        about_to_change = ctx.needs_input_grad[1]
        return engine.call("conv.backward_data", geometry, gy, w, cache=None if about_to_change else cache)

    @staticmethod
    def backward(ctx: Any, ggx: Tensor) -> tuple[Tensor | None, Tensor | None]:
        needs_gy, needs_w = ctx.needs_input_grad
        gy, w = _kept(ctx)
        return (
            convolution(ggx, _conjugate(w), None, ctx.geometry) if needs_gy else None,
            convolution_backward_weights(ggx, _conjugate(gy), ctx.geometry) if needs_w else None,
        )


class ConvolutionBackwardWeights(Op):
    """(x, gy) -> gw."""

    name = "ConvolutionBackwardWeights"
    quiet = True

    @staticmethod
    def forward(ctx: Any, x: np.ndarray, gy: np.ndarray, *, geometry: ConvGeometry) -> np.ndarray:
        ctx.geometry = geometry
        _keep_what_gradients_need(ctx)
        return engine.call("conv.backward_weights", geometry, x, gy, with_bias=False)[0]

    @staticmethod
    def backward(ctx: Any, ggw: Tensor) -> tuple[Tensor | None, Tensor | None]:
        needs_x, needs_gy = ctx.needs_input_grad
        x, gy = _kept(ctx)
        return (
            convolution_backward_data(_conjugate(gy), ggw, ctx.geometry) if needs_x else None,
            convolution(_conjugate(x), ggw, None, ctx.geometry) if needs_gy else None,
        )


class ConvolutionBackwardParameters(Op):
    """(x, gy) -> (gw, gb): one pass over gy for both."""

    name = "ConvolutionBackwardParameters"
    quiet = True

    @staticmethod
    def forward(ctx: Any, x: np.ndarray, gy: np.ndarray, *, geometry: ConvGeometry) -> tuple[np.ndarray, np.ndarray]:
        ctx.geometry = geometry
        _keep_what_gradients_need(ctx)
        return engine.call("conv.backward_weights", geometry, x, gy, with_bias=True)

    @staticmethod
    def backward(ctx: Any, ggw: Tensor | None, ggb: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        needs_x, needs_gy = ctx.needs_input_grad
        geometry, (x, gy) = ctx.geometry, _kept(ctx)
        if ggw is None:
            if ggb is None or not needs_gy:
                return None, None
            return None, ggb.reshape(1, -1, *(1,) * geometry.ndim).expand(geometry.output_shape)
        return (
            convolution_backward_data(_conjugate(gy), ggw, geometry) if needs_x else None,
            convolution(_conjugate(x), ggw, ggb, geometry) if needs_gy else None,
        )


def _all_but_channels(geometry: ConvGeometry) -> tuple[int, ...]:
    return (0, *range(2, geometry.ndim + 2))


def _keep_what_gradients_need(ctx: Any) -> None:
    """Of two factors, the gradient of one needs the other."""
    needs_first, needs_second = ctx.needs_input_grad[:2]
    if needs_first and needs_second:
        ctx.save_inputs(0, 1)
    elif needs_first:
        ctx.save_inputs(1)
    elif needs_second:
        ctx.save_inputs(0)


def _kept(ctx: Any) -> tuple[Any, Any]:
    """The two factors; None for one that no gradient needs."""
    needs_first, needs_second = ctx.needs_input_grad[:2]
    if needs_first and needs_second:
        return ctx.saved[:2]
    if needs_first:
        return None, ctx.saved[0]
    return (ctx.saved[0], None) if needs_second else (None, None)
