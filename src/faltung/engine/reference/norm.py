"""Normalisations in plain NumPy: the oracle of the generated kernels, and the fallback without them.

batch_forward(x, weight, bias, eps, activation="") -> (y, mean, var)
    x (N, C, *spatial); statistics over every axis but the channels; weight, bias, mean, var (C,).
batch_backward(gy, x, mean, var, weight, eps, bias=None, activation="") -> (gx, gweight, gbias)
batch_inference(x, mean, var, weight, bias, eps, activation="") -> y
    given statistics instead: (x - mean) / sqrt(var + eps) * weight + bias. `activation` (one of
    `epilogue.ACTIVATIONS`) is applied to it, also above. batch_backward knows relu and relu6; it needs the bias, with
    which it finds what the activation let through.
group_forward(x, groups, weight, bias, eps) -> (y, mean, var)
    statistics of each sample over the C / groups channels of a group; weight, bias (C,); mean, var (N, groups).
group_backward(gy, x, mean, var, groups, weight, eps) -> (gx, gweight, gbias)
layer_forward(x, axes, weight, bias, eps) -> (y, mean, var)
    statistics over the last `axes` axes; weight, bias of their shape; mean, var of the leading shape, then ones.
layer_backward(gy, x, mean, var, axes, weight, eps) -> (gx, gweight, gbias)
rms_forward(x, axes, weight, eps) -> (y, square)
    x / sqrt(mean square + eps) * weight over the last `axes` axes.
rms_backward(gy, x, square, axes, weight, eps) -> (gx, gweight)
response_forward(x, size, alpha, beta, k) -> y
    x / (k + alpha * mean square of `size` channels, size // 2 of them before its own)^beta.
response_backward(gy, x, size, alpha, beta, k) -> gx

`weight` and `bias` may be None everywhere; var is the biased one. Of a float16 `x`, statistics and gradients of
weight and bias are float32. Elementwise results keep the memory order of `x`.
Sums run in float64: in float32 the 400,000 values of one 64 x 80 x 80 channel would lose three digits.
"""

from __future__ import annotations

import numpy as np

from faltung.engine.reference.activation import activated, gradient_through
from faltung.engine.reference.precision import reference

Array = np.ndarray
Axes = tuple[int, ...]


def _mean(x: Array, axes: Axes) -> Array:
    """Mean over axes, kept as ones; zero where there is nothing to average."""
    count = 1
    for axis in axes:
        count *= x.shape[axis]
    return (x.sum(axis=axes, keepdims=True, dtype=np.float64) / max(count, 1)).astype(x.dtype)


def _standardised(x: Array, axes: Axes, eps: float) -> tuple[Array, Array, Array]:
    """(x - mean) / std with mean and biased variance. Two passes: E[x^2] - E[x]^2 cancels where the mean is large."""
    mean = _mean(x, axes)
    centred = x - mean
    var = _mean(centred * centred, axes)
    return centred * (1 / np.sqrt(var + eps)), mean, var


def _standardised_backward(gxhat: Array, xhat: Array, invstd: Array, axes: Axes) -> Array:
    """Gradient of x from that of xhat = (x - mean) * invstd, through mean and variance."""
    return (gxhat - _mean(gxhat, axes) - xhat * _mean(gxhat * xhat, axes)) * invstd


def _affine(xhat: Array, weight: Array | None, bias: Array | None) -> Array:
    if weight is not None:
        xhat = xhat * weight
    return xhat if bias is None else xhat + bias


def _along_channels(values: Array, ndim: int) -> Array:
    return values.reshape((1, -1) + (1,) * (ndim - 2))


def _affine_channels(xhat: Array, weight: Array | None, bias: Array | None) -> Array:
    columns = [None if values is None else _along_channels(values, xhat.ndim) for values in (weight, bias)]
    return _affine(xhat, *columns)


def _sum(x: Array, axes: Axes) -> Array:
    return x.sum(axis=axes, dtype=np.float64).astype(x.dtype)


# --- batch: every axis but the channels -----------------------------------------------------------------------------


def _but_channels(ndim: int) -> Axes:
    return (0, *range(2, ndim))


@reference(wide=(1, 2))
def batch_forward(
    x: Array, weight: Array | None, bias: Array | None, eps: float, activation: str = ""
) -> tuple[Array, Array, Array]:
    xhat, mean, var = _standardised(x, _but_channels(x.ndim), eps)
    y = _affine_channels(xhat, weight, bias)
    return activated(y, activation), mean.reshape(-1), var.reshape(-1)


@reference()
def batch_inference(
    x: Array, mean: Array, var: Array, weight: Array | None, bias: Array | None, eps: float, activation: str = ""
) -> Array:
    scale = 1 / np.sqrt(var + eps)
    if weight is not None:
        scale = scale * weight
    y = _affine_channels(x - _along_channels(mean, x.ndim), scale, bias)
    return activated(y, activation).astype(x.dtype, copy=False)


@reference(wide=(1, 2))
def batch_backward(
    gy: Array,
    x: Array,
    mean: Array,
    var: Array,
    weight: Array | None,
    eps: float,
    bias: Array | None = None,
    activation: str = "",
) -> tuple[Array, Array, Array]:
    if activation:
        gy = gradient_through(activation, gy, batch_inference(x, mean, var, weight, bias, eps))
    axes = _but_channels(x.ndim)
    invstd = 1 / np.sqrt(_along_channels(var, x.ndim) + eps)
    xhat = (x - _along_channels(mean, x.ndim)) * invstd
    gxhat = gy if weight is None else gy * _along_channels(weight, x.ndim)
    return _standardised_backward(gxhat, xhat, invstd, axes), _sum(gy * xhat, axes), _sum(gy, axes)


# --- group: each sample's channels of a group -----------------------------------------------------------------------


def _grouped(x: Array, groups: int) -> Array:
    """(N, C, *spatial) -> (N, groups, C / groups, *spatial), a view in any memory order."""
    return x.reshape(x.shape[0], groups, x.shape[1] // groups, *x.shape[2:])


def _per_group(statistic: Array, ndim: int) -> Array:
    """(N, groups) -> (N, groups, 1, ...) beside a grouped array of `ndim` dimensions."""
    return statistic.reshape(statistic.shape + (1,) * (ndim - 2))


@reference(wide=(1, 2))
def group_forward(
    x: Array, groups: int, weight: Array | None, bias: Array | None, eps: float
) -> tuple[Array, Array, Array]:
    grouped = _grouped(x, groups)
    xhat, mean, var = _standardised(grouped, tuple(range(2, grouped.ndim)), eps)
    y = _affine_channels(xhat.reshape(x.shape), weight, bias)
    return y, mean.reshape(mean.shape[:2]), var.reshape(var.shape[:2])


@reference(wide=(1, 2))
def group_backward(
    gy: Array, x: Array, mean: Array, var: Array, groups: int, weight: Array | None, eps: float
) -> tuple[Array, Array, Array]:
    grouped = _grouped(x, groups)
    invstd = 1 / np.sqrt(_per_group(var, grouped.ndim) + eps)
    xhat = (grouped - _per_group(mean, grouped.ndim)) * invstd
    gxhat = _grouped(gy if weight is None else gy * _along_channels(weight, x.ndim), groups)
    gx = _standardised_backward(gxhat, xhat, invstd, tuple(range(2, grouped.ndim)))
    axes = _but_channels(x.ndim)
    return gx.reshape(x.shape), _sum(gy * xhat.reshape(x.shape), axes), _sum(gy, axes)


# --- layer and root mean square: the last axes ----------------------------------------------------------------------


def _last(axes: int, ndim: int) -> Axes:
    return tuple(range(ndim - axes, ndim))


@reference(wide=(1, 2))
def layer_forward(
    x: Array, axes: int, weight: Array | None, bias: Array | None, eps: float
) -> tuple[Array, Array, Array]:
    xhat, mean, var = _standardised(x, _last(axes, x.ndim), eps)
    return _affine(xhat, weight, bias), mean, var


@reference(wide=(1, 2))
def layer_backward(
    gy: Array, x: Array, mean: Array, var: Array, axes: int, weight: Array | None, eps: float
) -> tuple[Array, Array, Array]:
    invstd = 1 / np.sqrt(var + eps)
    xhat = (x - mean) * invstd
    gx = _standardised_backward(gy if weight is None else gy * weight, xhat, invstd, _last(axes, x.ndim))
    leading = tuple(range(x.ndim - axes))
    return gx, _sum(gy * xhat, leading), _sum(gy, leading)


@reference(wide=(1,))
def rms_forward(x: Array, axes: int, weight: Array | None, eps: float) -> tuple[Array, Array]:
    square = _mean(x * x, _last(axes, x.ndim))
    return _affine(x * (1 / np.sqrt(square + eps)), weight, None), square


@reference(wide=(1,))
def rms_backward(
    gy: Array, x: Array, square: Array, axes: int, weight: Array | None, eps: float
) -> tuple[Array, Array]:
    inverse = 1 / np.sqrt(square + eps)
    xhat = x * inverse
    gxhat = gy if weight is None else gy * weight
    gx = (gxhat - xhat * _mean(gxhat * xhat, _last(axes, x.ndim))) * inverse
    return gx, _sum(gy * xhat, tuple(range(x.ndim - axes)))


# --- local response: neighbouring channels ----------------------------------------------------------------------------


def _neighbours(values: Array, size: int, before: int) -> Array:
    """Sums over `size` channels, `before` of them before each one; what lies outside is zero."""
    total, channels = np.zeros_like(values), values.shape[1]
    for shift in range(-before, size - before):
        first, last = max(0, -shift), min(channels, channels - shift)
        if first < last:
            total[:, first:last] += values[:, first + shift : last + shift]
    return total


@reference()
def response_forward(x: Array, size: int, alpha: float, beta: float, k: float) -> Array:
    return x / (_neighbours(x * x, size, size // 2) * (alpha / size) + k) ** beta


@reference()
def response_backward(gy: Array, x: Array, size: int, alpha: float, beta: float, k: float) -> Array:
    divisor = _neighbours(x * x, size, size // 2) * (alpha / size) + k
    direct = gy / divisor**beta
    through = _neighbours(direct * x / divisor, size, (size - 1) // 2)
    return direct - x * through * (2 * alpha * beta / size)
