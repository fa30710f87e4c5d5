"""Activations in plain NumPy: the oracle of the generated pointwise kernels, and the fallback without them.

Every activation is a pair

    <name>_forward(x, *parameters) -> y
    <name>_backward(gy, kept, *parameters) -> gx

where `kept` is `y` for relu, leaky_relu, sigmoid, tanh, elu, hardtanh and hardsigmoid, and `x` for all others.
Results have the shape, dtype and memory order of `x`; `out=` names an array to write them into, `x` itself if need
be. Parameters are Python floats:

    leaky_relu  negative_slope          elu         alpha, scale, input_scale     hardtanh   low, high
    threshold   threshold, value        softplus    beta, threshold               softshrink, hardshrink  lambd
    gelu        approximate: "none" or "tanh"

`elu` is scale * (x where x > 0, else alpha * (exp(input_scale * x) - 1)), which is also SELU and CELU. `leaky_relu` and
`elu` need a negative_slope or alpha of at least 0 for their backward, since they tell the sides apart by the sign of
`y`.
"""

from __future__ import annotations

import math

import numpy as np

from faltung.engine.epilogue import ACTIVATIONS, DIFFERENTIABLE
from faltung.engine.reference.precision import reference
from faltung.engine.reference.special import erf

_SQRT_HALF = math.sqrt(0.5)
_SQRT_2_OVER_PI = math.sqrt(2 / math.pi)
_GELU_CUBIC = 0.044715  # Hendrycks and Gimpel 2016, section 2


def activated(x: np.ndarray, name: str) -> np.ndarray:
    """One of `epilogue.ACTIVATIONS` of x, or x itself."""
    return _of(name, "forward", x) if name else x


def gradient_through(name: str, gy: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The gradient before one of `epilogue.DIFFERENTIABLE`, whose result (or argument) is y."""
    if name not in DIFFERENTIABLE:
        raise ValueError(f"activation {' or '.join(DIFFERENTIABLE)}, got {name!r}")
    return _of(name, "backward", gy, y)


def _of(name: str, way: str, *operands: np.ndarray) -> np.ndarray:
    stands_for, numbers = ACTIVATIONS[name]
    result: np.ndarray = globals()[f"{stands_for}_{way}"](*operands, **numbers)
    return result


@reference()
def relu_forward(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


@reference()
def relu_backward(gy: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.where(y <= 0, 0, gy)


@reference()
def leaky_relu_forward(x: np.ndarray, negative_slope: float) -> np.ndarray:
    return np.where(x > 0, x, x * negative_slope)


@reference()
def leaky_relu_backward(gy: np.ndarray, y: np.ndarray, negative_slope: float) -> np.ndarray:
    return np.where(y > 0, gy, gy * negative_slope)


@reference()
def sigmoid_forward(x: np.ndarray) -> np.ndarray:
    if np.iscomplexobj(x):
        return 1 / (1 + np.exp(-x))
    z = np.exp(-np.abs(x))  # never overflows, and keeps the digits of very negative x
    return np.where(x >= 0, 1, z) / (1 + z)


@reference()
def sigmoid_backward(gy: np.ndarray, y: np.ndarray) -> np.ndarray:
    return gy * ((1 - y) * y)


@reference()
def tanh_forward(x: np.ndarray) -> np.ndarray:
    return np.tanh(x)


@reference()
def tanh_backward(gy: np.ndarray, y: np.ndarray) -> np.ndarray:
    return gy * (1 - y * y)


@reference()
def elu_forward(x: np.ndarray, alpha: float, scale: float, input_scale: float) -> np.ndarray:
    return np.where(x > 0, x * scale, np.expm1(np.minimum(x, 0) * input_scale) * (alpha * scale))


@reference()
def elu_backward(gy: np.ndarray, y: np.ndarray, alpha: float, scale: float, input_scale: float) -> np.ndarray:
    return gy * np.where(y > 0, scale, (y + alpha * scale) * input_scale)


@reference()
def hardtanh_forward(x: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.minimum(np.maximum(x, low), high)


@reference()
def hardtanh_backward(gy: np.ndarray, y: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.where((y <= low) | (y >= high), 0, gy)


@reference()
def hardsigmoid_forward(x: np.ndarray) -> np.ndarray:
    return np.minimum(np.maximum(x + 3, 0), 6) / 6


@reference()
def hardsigmoid_backward(gy: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.where((y > 0) & (y < 1), gy / 6, 0)


@reference()
def threshold_forward(x: np.ndarray, threshold: float, value: float) -> np.ndarray:
    return np.where(x <= threshold, np.asarray(value).astype(x.dtype), x)


@reference()
def threshold_backward(gy: np.ndarray, x: np.ndarray, threshold: float, value: float) -> np.ndarray:
    return np.where(x <= threshold, 0, gy)


@reference()
def gelu_forward(x: np.ndarray, approximate: str) -> np.ndarray:
    if approximate == "tanh":
        return 0.5 * x * (1 + np.tanh(_SQRT_2_OVER_PI * (x + _GELU_CUBIC * x * x * x)))
    return 0.5 * x * (1 + erf(x * _SQRT_HALF))


@reference()
def gelu_backward(gy: np.ndarray, x: np.ndarray, approximate: str) -> np.ndarray:
    if approximate == "tanh":
        t = np.tanh(_SQRT_2_OVER_PI * (x + _GELU_CUBIC * x * x * x))
        inner = _SQRT_2_OVER_PI * (1 + 3 * _GELU_CUBIC * x * x)
        return gy * (0.5 * (1 + t) + 0.5 * x * (1 - t * t) * inner)
    density = np.exp(-0.5 * x * x) * (0.5 * _SQRT_2_OVER_PI)
    return gy * (0.5 * (1 + erf(x * _SQRT_HALF)) + x * density)


@reference()
def silu_forward(x: np.ndarray) -> np.ndarray:
    return x * sigmoid_forward(x)


@reference()
def silu_backward(gy: np.ndarray, x: np.ndarray) -> np.ndarray:
    s = sigmoid_forward(x)
    return gy * (s * (1 + x * (1 - s)))


@reference()
def mish_forward(x: np.ndarray) -> np.ndarray:
    return x * np.tanh(_log1p_exp(x))


@reference()
def mish_backward(gy: np.ndarray, x: np.ndarray) -> np.ndarray:
    t = np.tanh(_log1p_exp(x))
    return gy * (t + x * sigmoid_forward(x) * (1 - t * t))


@reference()
def hardswish_forward(x: np.ndarray) -> np.ndarray:
    return x * np.minimum(np.maximum(x + 3, 0), 6) / 6


@reference()
def hardswish_backward(gy: np.ndarray, x: np.ndarray) -> np.ndarray:
    return np.where(x <= -3, 0, np.where(x < 3, gy * (x / 3 + 0.5), gy))


@reference()
def softplus_forward(x: np.ndarray, beta: float, threshold: float) -> np.ndarray:
    scaled = x * beta
    return np.where(scaled > threshold, x, _log1p_exp(scaled) / beta)


@reference()
def softplus_backward(gy: np.ndarray, x: np.ndarray, beta: float, threshold: float) -> np.ndarray:
    scaled = x * beta
    return np.where(scaled > threshold, gy, gy * sigmoid_forward(scaled))


@reference()
def log_sigmoid_forward(x: np.ndarray) -> np.ndarray:
    return np.minimum(x, 0) - np.log1p(np.exp(-np.abs(x)))


@reference()
def log_sigmoid_backward(gy: np.ndarray, x: np.ndarray) -> np.ndarray:
    return gy * sigmoid_forward(-x)


@reference()
def softshrink_forward(x: np.ndarray, lambd: float) -> np.ndarray:
    return np.where(x > lambd, x - lambd, np.where(x < -lambd, x + lambd, x * 0))  # x * 0 keeps NaN


@reference()
def hardshrink_forward(x: np.ndarray, lambd: float) -> np.ndarray:
    return np.where((x >= -lambd) & (x <= lambd), 0, x)


@reference()
def softshrink_backward(gy: np.ndarray, x: np.ndarray, lambd: float) -> np.ndarray:
    return np.where((x >= -lambd) & (x <= lambd), 0, gy)


hardshrink_backward = softshrink_backward


def _log1p_exp(x: np.ndarray) -> np.ndarray:
    """log(1 + exp(x)) without overflow."""
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))
