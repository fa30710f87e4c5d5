"""The formulas of activations, as in `reference.activation`: <name>_forward(x, ...) and <name>_backward(gy, kept, ...).

NaN and infinity mean what they mean there.
"""

from __future__ import annotations

import math

from faltung.engine.emit import Emitter, Vec
from faltung.engine.kernels import elementary
from faltung.engine.kernels.expressions import expression

_SQRT_2_OVER_PI = math.sqrt(2 / math.pi)
_GELU_CUBIC = 0.044715  # Hendrycks and Gimpel 2016, section 2


@expression(1)
def relu_forward(e: Emitter, x: Vec) -> Vec:
    return e.maximum(x, 0.0)


@expression(2)
def relu_backward(e: Emitter, gy: Vec, y: Vec) -> Vec:
    return e.select(y.compare("<=", 0.0), 0.0, gy)


@expression(1)
def leaky_relu_forward(e: Emitter, x: Vec, negative_slope: Vec) -> Vec:
    return e.select(x.compare(">", 0.0), x, x * negative_slope)


@expression(2)
def leaky_relu_backward(e: Emitter, gy: Vec, y: Vec, negative_slope: Vec) -> Vec:
    return e.select(y.compare(">", 0.0), gy, gy * negative_slope)


@expression(1, unroll=1)
def sigmoid_forward(e: Emitter, x: Vec) -> Vec:
    return elementary.sigmoid(e, x)


@expression(2)
def sigmoid_backward(e: Emitter, gy: Vec, y: Vec) -> Vec:
    return gy * ((1.0 - y) * y)


@expression(1, unroll=1)
def tanh_forward(e: Emitter, x: Vec) -> Vec:
    return elementary.tanh(e, x)


@expression(2)
def tanh_backward(e: Emitter, gy: Vec, y: Vec) -> Vec:
    return gy * (1.0 - y * y)


@expression(1, unroll=1)
def elu_forward(e: Emitter, x: Vec, alpha: Vec, scale: Vec, input_scale: Vec) -> Vec:
    below = elementary.expm1(e, e.minimum(x, 0.0) * input_scale) * (alpha * scale)
    return e.select(x.compare(">", 0.0), x * scale, below)


@expression(2)
def elu_backward(e: Emitter, gy: Vec, y: Vec, alpha: Vec, scale: Vec, input_scale: Vec) -> Vec:
    return gy * e.select(y.compare(">", 0.0), scale, (y + alpha * scale) * input_scale)


@expression(1)
def hardtanh_forward(e: Emitter, x: Vec, low: Vec, high: Vec) -> Vec:
    return e.minimum(e.maximum(x, low), high)


@expression(2)
def hardtanh_backward(e: Emitter, gy: Vec, y: Vec, low: Vec, high: Vec) -> Vec:
    return e.select(e.any_of(y.compare("<=", low), y.compare(">=", high)), 0.0, gy)


@expression(1)
def hardsigmoid_forward(e: Emitter, x: Vec) -> Vec:
    return e.minimum(e.maximum(x + 3.0, 0.0), 6.0) / 6.0


@expression(2)
def hardsigmoid_backward(e: Emitter, gy: Vec, y: Vec) -> Vec:
    return e.select(e.both(y.compare(">", 0.0), y.compare("<", 1.0)), gy / 6.0, 0.0)


@expression(1)
def threshold_forward(e: Emitter, x: Vec, threshold: Vec, value: Vec) -> Vec:
    return e.select(x.compare("<=", threshold), value, x)


@expression(2)
def threshold_backward(e: Emitter, gy: Vec, x: Vec, threshold: Vec, value: Vec) -> Vec:
    return e.select(x.compare("<=", threshold), 0.0, gy)


@expression(1)
def hardswish_forward(e: Emitter, x: Vec) -> Vec:
    return x * e.minimum(e.maximum(x + 3.0, 0.0), 6.0) / 6.0


@expression(2)
def hardswish_backward(e: Emitter, gy: Vec, x: Vec) -> Vec:
    inside = e.select(x.compare("<", 3.0), gy * (x / 3.0 + 0.5), gy)
    return e.select(x.compare("<=", -3.0), 0.0, inside)


@expression(1, unroll=1)
def silu_forward(e: Emitter, x: Vec) -> Vec:
    return x * elementary.sigmoid(e, x)


@expression(2, unroll=1)
def silu_backward(e: Emitter, gy: Vec, x: Vec) -> Vec:
    s = elementary.sigmoid(e, x)
    return gy * (s * (1.0 + x * (1.0 - s)))


@expression(1, unroll=1)
def gelu_forward(e: Emitter, x: Vec) -> Vec:
    return 0.5 * x * (1.0 + elementary.erf(e, x * math.sqrt(0.5)))


@expression(2, unroll=1)
def gelu_backward(e: Emitter, gy: Vec, x: Vec) -> Vec:
    density = elementary.exp(e, -0.5 * x * x) * (0.5 * _SQRT_2_OVER_PI)
    return gy * (0.5 * (1.0 + elementary.erf(e, x * math.sqrt(0.5))) + x * density)


@expression(1, unroll=1)
def gelu_tanh_forward(e: Emitter, x: Vec) -> Vec:
    return 0.5 * x * (1.0 + _gelu_tanh(e, x))


@expression(2, unroll=1)
def gelu_tanh_backward(e: Emitter, gy: Vec, x: Vec) -> Vec:
    t = _gelu_tanh(e, x)
    inner = _SQRT_2_OVER_PI * (1.0 + 3 * _GELU_CUBIC * x * x)
    return gy * (0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * inner)


def _gelu_tanh(e: Emitter, x: Vec) -> Vec:
    return elementary.tanh(e, _SQRT_2_OVER_PI * (x + _GELU_CUBIC * x * x * x))


@expression(1, unroll=1)
def mish_forward(e: Emitter, x: Vec) -> Vec:
    return x * elementary.tanh(e, _softplus(e, x))


@expression(2, unroll=1)
def mish_backward(e: Emitter, gy: Vec, x: Vec) -> Vec:
    t = elementary.tanh(e, _softplus(e, x))
    return gy * (t + x * elementary.sigmoid(e, x) * (1.0 - t * t))


@expression(1, unroll=1)
def softplus_forward(e: Emitter, x: Vec, beta: Vec, threshold: Vec) -> Vec:
    scaled = x * beta
    return e.select(scaled.compare(">", threshold), x, _softplus(e, scaled) / beta)


@expression(2, unroll=1)
def softplus_backward(e: Emitter, gy: Vec, x: Vec, beta: Vec, threshold: Vec) -> Vec:
    scaled = x * beta
    return e.select(scaled.compare(">", threshold), gy, gy * elementary.sigmoid(e, scaled))


@expression(1, unroll=1)
def log_sigmoid_forward(e: Emitter, x: Vec) -> Vec:
    return e.minimum(x, 0.0) - elementary.log1p_exp_negative(e, e.unary("fabs", x))


@expression(2, unroll=1)
def log_sigmoid_backward(e: Emitter, gy: Vec, x: Vec) -> Vec:
    return gy * elementary.sigmoid(e, -x)


@expression(1)
def softshrink_forward(e: Emitter, x: Vec, lambd: Vec) -> Vec:
    inside = e.select(x.compare("<", -lambd), x + lambd, x * 0.0)  # x * 0 keeps NaN
    return e.select(x.compare(">", lambd), x - lambd, inside)


@expression(1)
def hardshrink_forward(e: Emitter, x: Vec, lambd: Vec) -> Vec:
    return e.select(e.both(x.compare(">=", -lambd), x.compare("<=", lambd)), 0.0, x)


@expression(2)
def softshrink_backward(e: Emitter, gy: Vec, x: Vec, lambd: Vec) -> Vec:
    return e.select(e.both(x.compare(">=", -lambd), x.compare("<=", lambd)), 0.0, gy)


@expression(2)
def hardshrink_backward(e: Emitter, gy: Vec, x: Vec, lambd: Vec) -> Vec:
    return softshrink_backward(e, gy, x, lambd)


def _softplus(e: Emitter, x: Vec) -> Vec:
    return e.maximum(x, 0.0) + elementary.log1p_exp_negative(e, e.unary("fabs", x))
