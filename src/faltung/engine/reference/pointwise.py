"""Elementwise functions in plain NumPy: the oracle, and the fallback.

add, sub, mul, div, maximum, minimum(a, b, out=None) broadcast; with `out` the result is written there, cast if need be.
neg, abs, sign, ... (x, out=None) are NumPy's functions of x, `round` to the nearest even integer; cube is x^3, rsqrt
1 / sqrt(x), inverse_square 1 / x^2; clamp(x, low, high) is high where low > high.
where(condition, x, y, out=None) broadcasts as well; `out` may be x or y.
<name>_backward(gy, kept) -> gx, where `kept` is the result of sqrt, rsqrt, reciprocal and expm1, and x for all others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from faltung.engine.reference.precision import reference

Array = np.ndarray


def _binary(ufunc: np.ufunc) -> Callable[..., Array]:
    def run(a: Array, b: Array, out: Array | None = None) -> Array:
        return ufunc(a, b) if out is None else ufunc(a, b, out=out, casting="unsafe")

    return run


add, sub, mul, div = map(_binary, (np.add, np.subtract, np.multiply, np.true_divide))
maximum, minimum = _binary(np.maximum), _binary(np.minimum)


def _unary(function: Callable[..., Any]) -> Callable[..., Array]:
    def run(x: Array, out: Array | None = None) -> Array:
        result: Array = function(x, out=out)
        return result

    return run


neg, abs, sign, square, sqrt = map(_unary, (np.negative, np.absolute, np.sign, np.square, np.sqrt))
floor, ceil, trunc, round = map(_unary, (np.floor, np.ceil, np.trunc, np.rint))
exp, expm1, log, log1p = map(_unary, (np.exp, np.expm1, np.log, np.log1p))


def cube(x: Array, out: Array | None = None) -> Array:
    return np.multiply(x * x, x, out=out)


def rsqrt(x: Array, out: Array | None = None) -> Array:
    return np.divide(x.dtype.type(1), np.sqrt(x), out=out)


def reciprocal(x: Array, out: Array | None = None) -> Array:
    return np.divide(x.dtype.type(1), x, out=out)


def inverse_square(x: Array, out: Array | None = None) -> Array:
    return np.divide(x.dtype.type(1), x * x, out=out)


def clamp(x: Array, low: float, high: float, out: Array | None = None) -> Array:
    return np.minimum(np.maximum(x, low), high, out=out)


def where(condition: Array, x: Array, y: Array, out: Array | None = None) -> Array:
    if out is None:
        return np.where(condition, x, y)
    np.copyto(out, np.where(condition, x, y))
    return out


@reference()
def abs_backward(gy: Array, x: Array) -> Array:
    return gy * np.sign(x)


@reference()
def square_backward(gy: Array, x: Array) -> Array:
    return gy * (x + x)


@reference()
def cube_backward(gy: Array, x: Array) -> Array:
    return gy * (x * x * 3)


@reference()
def sqrt_backward(gy: Array, y: Array) -> Array:
    return gy / (y + y)


@reference()
def rsqrt_backward(gy: Array, y: Array) -> Array:
    return gy * (y * y * y * -0.5)


@reference()
def reciprocal_backward(gy: Array, y: Array) -> Array:
    return gy * -(y * y)


@reference()
def expm1_backward(gy: Array, y: Array) -> Array:
    return gy * (y + 1)


@reference()
def log1p_backward(gy: Array, x: Array) -> Array:
    return gy / (x + 1)


@reference()
def clamp_backward(gy: Array, x: Array, low: float, high: float) -> Array:
    return np.where((x >= low) & (x <= high), gy, 0)
