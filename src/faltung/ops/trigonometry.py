"""Trigonometric and hyperbolic functions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from faltung.ops.unary import Unary, floating
from faltung.tensor import Tensor


class Sin(Unary):
    """The sine."""

    name = "sin"
    ufunc = np.sin

    @classmethod
    def derivative(cls, kept: Tensor) -> Any:
        return kept.cos()


class Cos(Unary):
    """The cosine."""

    name = "cos"
    ufunc = np.cos

    @classmethod
    def derivative(cls, kept: Tensor) -> Any:
        return -kept.sin()


class Tan(Unary):
    """The tangent."""

    name = "tan"
    ufunc = np.tan
    keeps = "output"

    @classmethod
    def derivative(cls, kept: Tensor) -> Any:
        return kept * kept + 1


class Asin(Unary):
    """The arc sine."""

    name = "asin"
    ufunc = np.arcsin

    @classmethod
    def derivative(cls, kept: Tensor) -> Any:
        return (1 - kept * kept).rsqrt()


class Acos(Unary):
    """The arc cosine."""

    name = "acos"
    ufunc = np.arccos

    @classmethod
    def derivative(cls, kept: Tensor) -> Any:
        return -(1 - kept * kept).rsqrt()


class Atan(Unary):
    """The arc tangent."""

    name = "atan"
    ufunc = np.arctan

    @classmethod
    def derivative(cls, kept: Tensor) -> Any:
        return (kept * kept + 1).reciprocal()


class Sinh(Unary):
    """The hyperbolic sine."""

    name = "sinh"
    ufunc = np.sinh

    @classmethod
    def derivative(cls, kept: Tensor) -> Any:
        return kept.cosh()


class Cosh(Unary):
    """The hyperbolic cosine."""

    name = "cosh"
    ufunc = np.cosh

    @classmethod
    def derivative(cls, kept: Tensor) -> Any:
        return kept.sinh()


class Asinh(Unary):
    """The inverse hyperbolic sine."""

    name = "asinh"
    ufunc = np.arcsinh

    @classmethod
    def derivative(cls, kept: Tensor) -> Any:
        return (kept * kept + 1).rsqrt()


class Acosh(Unary):
    """The inverse hyperbolic cosine."""

    name = "acosh"
    ufunc = np.arccosh

    @classmethod
    def derivative(cls, kept: Tensor) -> Any:
        return (kept - 1).rsqrt() * (kept + 1).rsqrt()


class Atanh(Unary):
    """The inverse hyperbolic tangent."""

    name = "atanh"
    ufunc = np.arctanh

    @classmethod
    def derivative(cls, kept: Tensor) -> Any:
        return (1 - kept * kept).reciprocal()


class Rad2deg(Unary):
    """Radians to degrees."""

    name = "rad2deg"
    keeps = "nothing"

    @staticmethod
    def ufunc(x: Any, **out: Any) -> Any:
        return np.multiply(x, x.dtype.type(180 / math.pi), **out)

    @classmethod
    def backward(cls, ctx: Any, grad: Tensor) -> Any:
        return grad * (180 / math.pi)


class Deg2rad(Unary):
    """Degrees to radians."""

    name = "deg2rad"
    keeps = "nothing"

    @staticmethod
    def ufunc(x: Any, **out: Any) -> Any:
        return np.multiply(x, x.dtype.type(math.pi / 180), **out)

    @classmethod
    def backward(cls, ctx: Any, grad: Tensor) -> Any:
        return grad * (math.pi / 180)


def sin(input: Tensor) -> Tensor:
    """The sine."""
    return floating(Sin, input)


def cos(input: Tensor) -> Tensor:
    """The cosine."""
    return floating(Cos, input)


def tan(input: Tensor) -> Tensor:
    """The tangent."""
    return floating(Tan, input)


def asin(input: Tensor) -> Tensor:
    """The arc sine."""
    return floating(Asin, input)


def acos(input: Tensor) -> Tensor:
    """The arc cosine."""
    return floating(Acos, input)


def atan(input: Tensor) -> Tensor:
    """The arc tangent."""
    return floating(Atan, input)


def sinh(input: Tensor) -> Tensor:
    """The hyperbolic sine."""
    return floating(Sinh, input)


def cosh(input: Tensor) -> Tensor:
    """The hyperbolic cosine."""
    return floating(Cosh, input)


def asinh(input: Tensor) -> Tensor:
    """The inverse hyperbolic sine."""
    return floating(Asinh, input)


def acosh(input: Tensor) -> Tensor:
    """The inverse hyperbolic cosine."""
    return floating(Acosh, input)


def atanh(input: Tensor) -> Tensor:
    """The inverse hyperbolic tangent."""
    return floating(Atanh, input)


def rad2deg(input: Tensor) -> Tensor:
    """Radians to degrees."""
    return floating(Rad2deg, input)


def deg2rad(input: Tensor) -> Tensor:
    """Degrees to radians."""
    return floating(Deg2rad, input)
