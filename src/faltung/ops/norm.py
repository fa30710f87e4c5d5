"""Normalisations as differentiable operations: each returns its result with the statistics it used.

Nothing here writes running statistics: the caller does, where it can be seen. First gradients are one fused kernel;
when a graph of the gradient is wanted, the same formula runs in operations on tensors, from which higher derivatives
follow.
"""

from __future__ import annotations

from operator import is_
from typing import Any

import numpy as np

from faltung import engine
from faltung.autograd import is_grad_enabled
from faltung.autograd.graph import Op
from faltung.autograd.modes import modes
from faltung.engine.epilogue import DIFFERENTIABLE
from faltung.ops import deferred
from faltung.ops.activation import gradient_through
from faltung.ops.apply import apply, apply_inplace, check_inplace
from faltung.ops.padding import constant_pad
from faltung.tensor import Tensor

Gradients = tuple[Tensor | None, ...]


def _along_channels(values: Tensor, ndim: int) -> Tensor:
    return values.reshape((1, -1) + (1,) * (ndim - 2))


def _but_channels(ndim: int) -> tuple[int, ...]:
    return (0, *range(2, ndim))


def _standardised(x: Tensor, axes: tuple[int, ...], eps: float) -> tuple[Tensor, Tensor]:
    """(x - mean) / std over `axes`, and 1 / std."""
    centred = x - x.mean(axes, keepdim=True)
    invstd = ((centred * centred).mean(axes, keepdim=True) + eps).rsqrt()
    return centred * invstd, invstd


def _standardised_backward(gxhat: Tensor, xhat: Tensor, invstd: Tensor, axes: tuple[int, ...]) -> Tensor:
    return (gxhat - gxhat.mean(axes, keepdim=True) - xhat * (gxhat * xhat).mean(axes, keepdim=True)) * invstd


def _summed(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    return x.sum(axes) if axes else x


class NormBackward(Op):
    """The fused first gradients of a normalisation: gradients of x, weight and bias."""

    name = "norm_backward"
    quiet = True

    @staticmethod
    def forward(
        ctx: Any,
        gy: np.ndarray,
        x: np.ndarray,
        weight: np.ndarray | None,
        *statistics: np.ndarray,
        kernel: str,
        eps: float,
        split: tuple[int, ...] = (),
    ) -> tuple[np.ndarray, ...]:
        return engine.call(kernel, gy, x, *statistics, *split, weight, eps)


class BatchNorm(Op):
    """Statistics over batch and positions for each channel of x (N, C, *spatial): (y, mean, biased variance).

    With an activation, relu or relu6, it is applied to y in the same pass.
    """

    name = "batch_norm"
    quiet = True

    @staticmethod
    def forward(
        ctx: Any, x: np.ndarray, weight: np.ndarray | None, bias: np.ndarray | None, eps: float, activation: str
    ) -> tuple[np.ndarray, ...]:
        found: tuple[np.ndarray, ...] = engine.call("norm.batch_forward", x, weight, bias, eps, activation=activation)
        if activation:  # what it let through is found again from the bias
            ctx.save_inputs(0, 1, 2)
        else:
            ctx.save_inputs(0, 1)
        ctx.mark_non_differentiable(1, 2)
        ctx.save_outputs(1, 2)
        ctx.eps, ctx.activation = eps, activation
        return found

    @staticmethod
    def backward(ctx: Any, gy: Tensor, *_: Tensor | None) -> Gradients:
        x, weight, *kept, mean, var = ctx.saved
        bias = kept[0] if kept else None
        if not is_grad_enabled():
            how = {"eps": ctx.eps, "activation": ctx.activation}
            return apply(BatchNormBackward, gy, x, mean, var, weight, bias, **how)
        axes = _but_channels(x.ndim)
        xhat, invstd = _standardised(x, axes, ctx.eps)
        if ctx.activation:
            y = xhat if weight is None else xhat * _along_channels(weight, x.ndim)
            y = y if bias is None else y + _along_channels(bias, x.ndim)
            gy = gradient_through(ctx.activation, gy, y)
        gxhat = gy if weight is None else gy * _along_channels(weight, x.ndim)
        gx = _standardised_backward(gxhat, xhat, invstd, axes)
        return gx, None if weight is None else (gy * xhat).sum(axes), gy.sum(axes)


class BatchNormBackward(Op):
    """The fused first gradients of `BatchNorm`: of x, weight and bias."""

    name = "batch_norm_backward"
    quiet = True

    @staticmethod
    def forward(
        ctx: Any,
        gy: np.ndarray,
        x: np.ndarray,
        mean: np.ndarray,
        var: np.ndarray,
        weight: np.ndarray | None,
        bias: np.ndarray | None,
        eps: float,
        activation: str,
    ) -> tuple[np.ndarray, ...]:
        return engine.call("norm.batch_backward", gy, x, mean, var, weight, eps, bias=bias, activation=activation)


class ChannelAffine(Op):
    """(mean, var, weight, bias) -> (3, C): what an evaluating batch norm subtracts, multiplies with and adds."""

    name = "channel_affine"
    backward = None

    @staticmethod
    def forward(
        ctx: Any, mean: np.ndarray, var: np.ndarray, weight: np.ndarray | None, bias: np.ndarray | None, eps: float
    ) -> np.ndarray:
        found = np.empty((3, mean.size), mean.dtype)
        found[0] = mean
        np.divide(1 if weight is None else weight, np.sqrt(var + mean.dtype.type(eps)), out=found[1])
        found[2] = 0 if bias is None else bias
        return found


class BatchNormInference(Op):
    """The affine map of each channel that given statistics define; these get no gradient.

    With an activation, nothing gets one.
    """

    name = "batch_norm_inference"
    quiet = True

    @staticmethod
    def forward(
        ctx: Any,
        x: np.ndarray,
        mean: np.ndarray,
        var: np.ndarray,
        weight: np.ndarray | None,
        bias: np.ndarray | None,
        eps: float,
        activation: str,
    ) -> np.ndarray:
        ctx.eps = eps
        if ctx.needs_input_grad[3]:
            ctx.save_inputs(0, 1, 2, 3)
        else:  # x itself is not needed
            ctx.save_inputs(1, 2, 3)
        return engine.call("norm.batch_inference", x, mean, var, weight, bias, eps, activation=activation)

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Gradients:
        *x, mean, var, weight = ctx.saved
        axes = _but_channels(gy.ndim)
        invstd = (var + ctx.eps).rsqrt()
        scale = invstd if weight is None else invstd * weight
        gx = gy * _along_channels(scale, gy.ndim) if ctx.needs_input_grad[0] else None
        gweight = gbias = None
        if ctx.needs_input_grad[3]:
            gweight = (gy * (x[0] - _along_channels(mean, gy.ndim))).sum(axes) * invstd
        if ctx.needs_input_grad[4]:
            gbias = gy.sum(axes)
        return gx, None, None, gweight, gbias


class GroupNorm(Op):
    """Statistics of each sample over groups of channels of x (N, C, *spatial): (y, mean, biased variance)."""

    name = "group_norm"
    quiet = True

    @staticmethod
    def forward(
        ctx: Any, x: np.ndarray, weight: np.ndarray | None, bias: np.ndarray | None, groups: int, eps: float
    ) -> tuple[np.ndarray, ...]:
        y, mean, var = engine.call("norm.group_forward", x, groups, weight, bias, eps)
        ctx.save_inputs(0, 1)
        ctx.mark_non_differentiable(1, 2)
        ctx.save_outputs(1, 2)
        ctx.groups, ctx.eps = groups, eps
        return y, mean, var

    @staticmethod
    def backward(ctx: Any, gy: Tensor, *_: Tensor | None) -> Gradients:
        x, weight, mean, var = ctx.saved
        if not is_grad_enabled():
            how = {"kernel": "norm.group_backward", "split": (ctx.groups,), "eps": ctx.eps}
            return apply(NormBackward, gy, x, weight, mean, var, **how)
        grouped_shape = (x.shape[0], ctx.groups, x.shape[1] // ctx.groups, *x.shape[2:])
        axes = tuple(range(2, len(grouped_shape)))
        xhat, invstd = _standardised(x.reshape(grouped_shape), axes, ctx.eps)
        gxhat = gy if weight is None else gy * _along_channels(weight, x.ndim)
        gx = _standardised_backward(gxhat.reshape(grouped_shape), xhat, invstd, axes).reshape(x.shape)
        summed = _but_channels(x.ndim)
        return gx, None if weight is None else (gy * xhat.reshape(x.shape)).sum(summed), gy.sum(summed)


class LayerNorm(Op):
    """Statistics over the last `axes` dimensions; weight and bias have their shape: (y, mean, biased variance)."""

    name = "layer_norm"
    quiet = True

    @staticmethod
    def forward(
        ctx: Any, x: np.ndarray, weight: np.ndarray | None, bias: np.ndarray | None, axes: int, eps: float
    ) -> tuple[np.ndarray, ...]:
        y, mean, var = engine.call("norm.layer_forward", x, axes, weight, bias, eps)
        ctx.save_inputs(0, 1)
        ctx.mark_non_differentiable(1, 2)
        ctx.save_outputs(1, 2)
        ctx.axes, ctx.eps = axes, eps
        return y, mean, var

    @staticmethod
    def backward(ctx: Any, gy: Tensor, *_: Tensor | None) -> Gradients:
        x, weight, mean, var = ctx.saved
        if not is_grad_enabled():
            how = {"kernel": "norm.layer_backward", "split": (ctx.axes,), "eps": ctx.eps}
            return apply(NormBackward, gy, x, weight, mean, var, **how)
        axes = tuple(range(x.ndim - ctx.axes, x.ndim))
        leading = tuple(range(x.ndim - ctx.axes))
        xhat, invstd = _standardised(x, axes, ctx.eps)
        gx = _standardised_backward(gy if weight is None else gy * weight, xhat, invstd, axes)
        return gx, None if weight is None else _summed(gy * xhat, leading), _summed(gy, leading)


class RmsNorm(Op):
    """x over its root mean square of the last `axes` dimensions (Zhang and Sennrich 2019): (y, mean square)."""

    name = "rms_norm"
    quiet = True

    @staticmethod
    def forward(ctx: Any, x: np.ndarray, weight: np.ndarray | None, axes: int, eps: float) -> tuple[np.ndarray, ...]:
        y, square = engine.call("norm.rms_forward", x, axes, weight, eps)
        ctx.save_inputs(0, 1)
        ctx.mark_non_differentiable(1)
        ctx.save_outputs(1)
        ctx.axes, ctx.eps = axes, eps
        return y, square

    @staticmethod
    def backward(ctx: Any, gy: Tensor, *_: Tensor | None) -> Gradients:
        x, weight, square = ctx.saved
        if not is_grad_enabled():
            how = {"kernel": "norm.rms_backward", "split": (ctx.axes,), "eps": ctx.eps}
            return apply(NormBackward, gy, x, weight, square, **how)
        axes = tuple(range(x.ndim - ctx.axes, x.ndim))
        inverse = ((x * x).mean(axes, keepdim=True) + ctx.eps).rsqrt()
        xhat = x * inverse
        gxhat = gy if weight is None else gy * weight
        gx = (gxhat - xhat * (gxhat * xhat).mean(axes, keepdim=True)) * inverse
        leading = tuple(range(x.ndim - ctx.axes))
        return gx, None if weight is None else _summed(gy * xhat, leading)


class ResponseNorm(Op):
    """x over a power of the mean square of neighbouring channels (Krizhevsky et al. 2012, section 3.3)."""

    name = "local_response_norm"
    quiet = True

    @staticmethod
    def forward(ctx: Any, x: np.ndarray, size: int, alpha: float, beta: float, k: float) -> np.ndarray:
        ctx.save_inputs(0)
        ctx.how = {"size": size, "alpha": alpha, "beta": beta, "k": k}
        return engine.call("norm.response_forward", x, size, alpha, beta, k)

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Tensor:
        (x,) = ctx.saved
        if not is_grad_enabled():
            return apply(ResponseNormBackward, gy, x, **ctx.how)
        size, alpha, beta, k = ctx.how.values()
        divisor = _neighbours(x * x, size, size // 2) * (alpha / size) + k
        direct = gy / divisor.pow(beta)
        through = _neighbours(direct * x / divisor, size, (size - 1) // 2)
        return direct - x * through * (2 * alpha * beta / size)


class ResponseNormBackward(Op):
    """The fused first gradient of `ResponseNorm`."""

    name = "local_response_norm_backward"
    quiet = True

    @staticmethod
    def forward(ctx: Any, gy: np.ndarray, x: np.ndarray, size: int, alpha: float, beta: float, k: float) -> np.ndarray:
        return engine.call("norm.response_backward", gy, x, size, alpha, beta, k)


def _neighbours(x: Tensor, size: int, before: int) -> Tensor:
    """Sums over `size` channels, `before` of them before each one; what lies outside is zero."""
    padded = constant_pad(x, ((0, 0), (before, size - 1 - before), *((0, 0) for _ in x.shape[2:])))
    total = padded.narrow(1, 0, x.shape[1])
    for shift in range(1, size):
        total = total + padded.narrow(1, shift, x.shape[1])
    return total


class TrackStatistics(Op):
    """Running statistics, moved towards those of a batch; written in place."""

    name = "track_statistics"

    @staticmethod
    def inplace(
        ctx: Any,
        running_mean: np.ndarray,
        running_var: np.ndarray,
        mean: np.ndarray,
        var: np.ndarray,
        momentum: float,
        correction: float,
    ) -> None:
        for running, value in ((running_mean, mean * momentum), (running_var, var * (momentum * correction))):
            running *= 1.0 - momentum
            running += value


class CountUp(Op):
    """x + 1, in place."""

    name = "count_up"

    @staticmethod
    def inplace(ctx: Any, x: np.ndarray) -> None:
        np.add(x, 1, out=x)


def track_statistics(
    running_mean: Tensor, running_var: Tensor, mean: Tensor, var: Tensor, momentum: float, correction: float
) -> None:
    """Move running statistics towards `mean` and correction * `var` by the fraction `momentum`, in place."""
    check_inplace("track_statistics", running_var)
    apply_inplace(TrackStatistics, running_mean, running_var, mean, var, momentum=momentum, correction=correction)
    running_var._storage.bump()


def count_up(counter: Tensor) -> None:
    """Add one, in place."""
    apply_inplace(CountUp, counter)


def batch_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, activation: str = ""
) -> tuple[Tensor, Tensor, Tensor]:
    """(y, mean, biased variance) of the batch; relu or relu6 of y if `activation` names one."""
    if activation and activation not in DIFFERENTIABLE:
        raise ValueError(f"batch_norm: activation must be relu or relu6 here, got {activation!r}")
    return apply(BatchNorm, x, weight, bias, eps=eps, activation=activation)


def batch_norm_inference(
    x: Tensor,
    mean: Tensor,
    var: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    activation: str = "",
) -> Tensor:
    """y for given statistics; with an activation, which leaves no gradient."""
    if modes.inside and not activation:
        waiting = deferred.norm(x, mean, var, weight, bias, eps)
        if waiting is not None:
            return waiting
    return apply(BatchNormInference, x, mean, var, weight, bias, eps=eps, activation=activation)


def channel_affine(mean: Tensor, var: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """(3, C): (x - [0]) * [1] + [2] is the batch norm of these statistics. Kept until one of them is written to."""
    cache = var.engine_cache()
    storages = (mean._storage, None if weight is None else weight._storage, None if bias is None else bias._storage)
    contents = tuple([None if storage is None else storage.content_key() for storage in storages])
    if cache is None or contents[0] is None:
        return apply(ChannelAffine, mean, var, weight, bias, eps=eps)
    kept = cache.get("affine")
    if kept is not None and kept[1] == contents and kept[2] == eps and all(map(is_, kept[0], storages)):
        return kept[3]
    affine = apply(ChannelAffine, mean, var, weight, bias, eps=eps)
    exported = any(storage is not None and content is None for storage, content in zip(storages, contents))
    if not exported:
        cache["affine"] = (storages, contents, eps, affine)
    return affine


def group_norm(
    x: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """(y, mean, biased variance), statistics (N, groups)."""
    return apply(GroupNorm, x, weight, bias, groups=groups, eps=eps)


def layer_norm(x: Tensor, axes: int, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    return apply(LayerNorm, x, weight, bias, axes=axes, eps=eps)[0]


def rms_norm(x: Tensor, axes: int, weight: Tensor | None, eps: float) -> Tensor:
    if x.is_complex():
        y = x * ((x * x).mean(tuple(range(-axes, 0)), keepdim=True) + eps).rsqrt()
        return y if weight is None else y * weight
    return apply(RmsNorm, x, weight, axes=axes, eps=eps)[0]


def local_response_norm(x: Tensor, size: int, alpha: float, beta: float, k: float) -> Tensor:
    """x / (k + alpha * mean of x^2 over `size` neighbouring channels)^beta."""
    if x.is_floating_point() and all(isinstance(number, (int, float)) for number in (alpha, beta, k)):
        return apply(ResponseNorm, x, size=size, alpha=alpha, beta=beta, k=k)
    return x / (_neighbours(x * x, size, size // 2) * (alpha / size) + k).pow(beta)
