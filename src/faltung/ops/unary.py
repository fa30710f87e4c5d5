"""Elementwise functions of one tensor. Integers are computed in the default floating type unless the rule keeps
integers.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from faltung import dtypes
from faltung.autograd.graph import Op
from faltung.ops.apply import apply
from faltung.ops.arithmetic import conj
from faltung.ops.promotion import as_float, cast, operands
from faltung.tensor import Tensor


class Unary(Op):
    """Base: a NumPy function with its derivative, a function of the input or of the result."""

    ufunc: Any
    keeps = "input"  # or "output", or "nothing"

    @classmethod
    def forward(cls, ctx: Any, x: Any) -> Any:
        if cls.keeps == "input":
            ctx.save_inputs(0)
        elif cls.keeps == "output":
            ctx.save_outputs(0)
        return cls.ufunc(x)

    @classmethod
    def inplace(cls, ctx: Any, x: Any) -> None:
        cls.ufunc(x, out=x)

    @classmethod
    def derivative(cls, kept: Tensor) -> Any:
        """d result / d input, from what is kept."""
        raise NotImplementedError

    @classmethod
    def backward(cls, ctx: Any, grad: Tensor) -> Any:
        (kept,) = ctx.saved
        return grad * conj(cls.derivative(kept))


class Neg(Unary):
    """-x."""

    name = "neg"
    ufunc = np.negative
    keeps = "nothing"

    @classmethod
    def backward(cls, ctx: Any, grad: Tensor) -> Any:
        return -grad


class Exp(Unary):
    """e ** x."""

    name = "exp"
    ufunc = np.exp
    keeps = "output"

    @classmethod
    def derivative(cls, kept: Tensor) -> Any:
        return kept


class Exp2(Unary):
    """2 ** x."""

    name = "exp2"
    ufunc = np.exp2
    keeps = "output"

    @classmethod
    def derivative(cls, kept: Tensor) -> Any:
        return kept * math.log(2)


class Expm1(Unary):
    """e ** x - 1."""

    name = "expm1"
    ufunc = np.expm1
    keeps = "output"

    @classmethod
    def derivative(cls, kept: Tensor) -> Any:
        return kept + 1


class Log(Unary):
    """The natural logarithm."""

    name = "log"
    ufunc = np.log

    @classmethod
    def derivative(cls, kept: Tensor) -> Any:
        return kept.reciprocal()


class Log2(Unary):
    """The logarithm to base 2."""

    name = "log2"
    ufunc = np.log2

    @classmethod
    def derivative(cls, kept: Tensor) -> Any:
        return (kept * math.log(2)).reciprocal()


class Log10(Unary):
    """The logarithm to base 10."""

    name = "log10"
    ufunc = np.log10

    @classmethod
    def derivative(cls, kept: Tensor) -> Any:
        return (kept * math.log(10)).reciprocal()


class Log1p(Unary):
    """log(1 + x)."""

    name = "log1p"
    ufunc = np.log1p

    @classmethod
    def derivative(cls, kept: Tensor) -> Any:
        return (kept + 1).reciprocal()


class Sqrt(Unary):
    """The square root."""

    name = "sqrt"
    ufunc = np.sqrt
    keeps = "output"

    @classmethod
    def backward(cls, ctx: Any, grad: Tensor) -> Any:
        (root,) = ctx.saved
        return grad / (conj(root) * 2)


class Rsqrt(Unary):
    """1 / sqrt(x)."""

    name = "rsqrt"
    keeps = "output"

    @staticmethod
    def ufunc(x: Any, **out: Any) -> Any:  # like a NumPy function
        return np.divide(x.dtype.type(1), np.sqrt(x), **out)

    @classmethod
    def derivative(cls, kept: Tensor) -> Any:
        return kept**3 * -0.5


class Reciprocal(Unary):
    """1 / x."""

    name = "reciprocal"
    keeps = "output"

    @staticmethod
    def ufunc(x: Any, **out: Any) -> Any:
        return np.divide(x.dtype.type(1), x, **out)

    @classmethod
    def derivative(cls, kept: Tensor) -> Any:
        return -(kept * kept)


class Square(Unary):
    """x * x."""

    name = "square"
    ufunc = np.square

    @classmethod
    def derivative(cls, kept: Tensor) -> Any:
        return kept * 2


class Abs(Unary):
    """The magnitude."""

    name = "abs"
    ufunc = np.absolute

    @classmethod
    def backward(cls, ctx: Any, grad: Tensor) -> Any:
        (x,) = ctx.saved
        return grad * sgn(x)


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


class Step(Unary):
    """Base of piecewise constant functions: their gradient is zero. Integers are returned as they are."""

    keeps = "nothing"

    @classmethod
    def backward(cls, ctx: Any, grad: Tensor) -> Any:
        return grad * 0


class Floor(Step):
    """Rounded down."""

    name = "floor"
    ufunc = np.floor


class Ceil(Step):
    """Rounded up."""

    name = "ceil"
    ufunc = np.ceil


class Trunc(Step):
    """Rounded towards zero."""

    name = "trunc"
    ufunc = np.trunc


class Round(Op):
    """Rounded to the nearest, halves to even, after `decimals` places."""

    name = "round"

    @staticmethod
    def forward(ctx: Any, x: Any, *, decimals: int) -> Any:
        if not decimals:
            return np.rint(x)
        ten = x.dtype.type(10.0 ** (decimals if decimals > 0 else -decimals))
        return np.rint(x * ten) / ten if decimals > 0 else np.rint(x / ten) * ten

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return grad * 0


class Sign(Step):
    """-1, 0 or 1."""

    name = "sign"
    ufunc = np.sign


class Sgn(Op):
    """z / |z|, 0 for 0: the sign of a complex number."""

    name = "sgn"

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_inputs(0)
        return np.sign(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (x,) = ctx.saved
        size = x.abs()
        direction = x / size
        found = (grad - (conj(direction) * grad).real * direction) / size
        return found.masked_fill(size == 0, 0)


# --- functions


def _floating(op: type[Op], input: Tensor) -> Tensor:
    found: Tensor = apply(op, as_float(input))
    return found


def neg(input: Tensor) -> Tensor:
    """-input."""
    if input._data.dtype.kind == "b":
        raise RuntimeError(
            "neg: Negation, the `-` operator, on a bool tensor is not supported. Use `~` or logical_not() to invert "
            "a mask."
        )
    found: Tensor = apply(Neg, input)
    return found


def positive(input: Tensor) -> Tensor:
    """input itself."""
    if input._data.dtype.kind == "b":
        raise RuntimeError("positive: The `+` operator, on a bool tensor is not supported.")
    return input


def exp(input: Tensor) -> Tensor:
    """e ** input."""
    return _floating(Exp, input)


def exp2(input: Tensor) -> Tensor:
    """2 ** input."""
    return _floating(Exp2, input)


def expm1(input: Tensor) -> Tensor:
    """e ** input - 1, exact near 0."""
    return _floating(Expm1, input)


def log(input: Tensor) -> Tensor:
    """The natural logarithm."""
    return _floating(Log, input)


def log2(input: Tensor) -> Tensor:
    """The logarithm to base 2."""
    return _floating(Log2, input)


def log10(input: Tensor) -> Tensor:
    """The logarithm to base 10."""
    return _floating(Log10, input)


def log1p(input: Tensor) -> Tensor:
    """log(1 + input), exact near 0."""
    return _floating(Log1p, input)


def sqrt(input: Tensor) -> Tensor:
    """The square root; nan for negative numbers."""
    return _floating(Sqrt, input)


def rsqrt(input: Tensor) -> Tensor:
    """1 / sqrt(input)."""
    return _floating(Rsqrt, input)


def reciprocal(input: Tensor) -> Tensor:
    """1 / input."""
    return _floating(Reciprocal, input)


def square(input: Tensor) -> Tensor:
    """input * input."""
    if input._data.dtype.kind == "b":
        return cast(input, dtypes.int64)
    found: Tensor = apply(Square, input)
    return found


def abs(input: Tensor) -> Tensor:
    """The magnitude."""
    if input._data.dtype.kind == "b":
        raise RuntimeError("abs: not implemented for bool tensors. Convert the mask with .int() first.")
    found: Tensor = apply(Abs, input)
    return found


def sin(input: Tensor) -> Tensor:
    """The sine."""
    return _floating(Sin, input)


def cos(input: Tensor) -> Tensor:
    """The cosine."""
    return _floating(Cos, input)


def tan(input: Tensor) -> Tensor:
    """The tangent."""
    return _floating(Tan, input)


def asin(input: Tensor) -> Tensor:
    """The arc sine."""
    return _floating(Asin, input)


def acos(input: Tensor) -> Tensor:
    """The arc cosine."""
    return _floating(Acos, input)


def atan(input: Tensor) -> Tensor:
    """The arc tangent."""
    return _floating(Atan, input)


def sinh(input: Tensor) -> Tensor:
    """The hyperbolic sine."""
    return _floating(Sinh, input)


def cosh(input: Tensor) -> Tensor:
    """The hyperbolic cosine."""
    return _floating(Cosh, input)


def asinh(input: Tensor) -> Tensor:
    """The inverse hyperbolic sine."""
    return _floating(Asinh, input)


def acosh(input: Tensor) -> Tensor:
    """The inverse hyperbolic cosine."""
    return _floating(Acosh, input)


def atanh(input: Tensor) -> Tensor:
    """The inverse hyperbolic tangent."""
    return _floating(Atanh, input)


def rad2deg(input: Tensor) -> Tensor:
    """Radians to degrees."""
    return _floating(Rad2deg, input)


def deg2rad(input: Tensor) -> Tensor:
    """Degrees to radians."""
    return _floating(Deg2rad, input)


def _rounding(op: type[Op], input: Tensor) -> Tensor:
    if input._data.dtype.kind == "c":
        raise RuntimeError(f"{op.name}: not supported for complex inputs.")
    if input._data.dtype.kind in "iu":
        return input.clone()  # methods are bound at run time
    found: Tensor = apply(op, input)
    return found


def floor(input: Tensor) -> Tensor:
    """Rounded down."""
    return _rounding(Floor, input)


def ceil(input: Tensor) -> Tensor:
    """Rounded up."""
    return _rounding(Ceil, input)


def trunc(input: Tensor) -> Tensor:
    """Rounded towards zero."""
    return _rounding(Trunc, input)


def frac(input: Tensor) -> Tensor:
    """The part after the decimal point, with the sign of the input."""
    return input - trunc(input)


def round(input: Tensor, *, decimals: int = 0) -> Tensor:
    """Rounded to the nearest, halves to even."""
    if input._data.dtype.kind in "iu":
        return input.clone()
    found: Tensor = apply(Round, input, decimals=decimals)
    return found


def sign(input: Tensor) -> Tensor:
    """-1, 0 or 1."""
    if input._data.dtype.kind == "c":
        raise RuntimeError("sign: Unlike NumPy, sign() of complex numbers is not supported. Use sgn().")
    if input._data.dtype.kind == "b":
        return input.clone()
    found: Tensor = apply(Sign, input)
    return found


def sgn(input: Tensor) -> Tensor:
    """The direction of complex numbers; `sign` of real ones."""
    if input._data.dtype.kind != "c":
        return sign(input)
    found: Tensor = apply(Sgn, input)
    return found


# --- complex numbers


class Conj(Op):
    """The complex conjugate."""

    name = "conj"

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return np.conjugate(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return conj(grad)


class Real(Op):
    """The real parts, as a view."""

    name = "real"
    is_view = True
    quiet = True

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return x.real

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return grad.to(grad.dtype.to_complex())


class Imag(Op):
    """The imaginary parts, as a view."""

    name = "imag"
    is_view = True
    quiet = True

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return x.imag

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return grad.to(grad.dtype.to_complex()) * 1j


class MakeComplex(Op):
    """real + i imag."""

    name = "complex"

    @staticmethod
    def forward(ctx: Any, real: Any, imag: Any) -> Any:
        found = np.empty(np.broadcast_shapes(real.shape, imag.shape), np.result_type(real, np.complex64))
        found.real, found.imag = real, imag
        return found

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return grad.real, grad.imag


class RealAngle(Step):
    """0 for positive numbers, pi for negative ones."""

    name = "angle"

    @staticmethod
    def ufunc(x: Any, **out: Any) -> Any:
        return np.where(np.isnan(x), x, np.where(x < 0, x.dtype.type(math.pi), x.dtype.type(0)))


def conjugate(input: Tensor) -> Tensor:
    """The complex conjugate; real tensors as they are."""
    if input._data.dtype.kind != "c":
        return input
    found: Tensor = apply(Conj, input)
    return found


def real(input: Tensor) -> Tensor:
    """The real parts, sharing memory."""
    if input._data.dtype.kind != "c":
        return input
    found: Tensor = apply(Real, input)
    return found


def imag(input: Tensor) -> Tensor:
    """The imaginary parts, sharing memory."""
    if input._data.dtype.kind != "c":
        raise RuntimeError("imag: is not implemented for tensors with non-complex dtypes.")
    found: Tensor = apply(Imag, input)
    return found


def make_complex(real: Tensor, imag: Tensor) -> Tensor:
    """A complex tensor from its two parts."""
    x, y = operands("complex", real, imag)
    if x.dtype not in (dtypes.float32, dtypes.float64) or real.dtype is not imag.dtype:
        raise RuntimeError(
            "complex: Expected both inputs to be Half, Float or Double tensors of one type but got "
            f"{real.dtype.legacy_name} and {imag.dtype.legacy_name}."
        )
    found: Tensor = apply(MakeComplex, x, y)
    return found


def angle(input: Tensor) -> Tensor:
    """The argument of complex numbers; 0 or pi for real ones."""
    x = as_float(input)
    if x._data.dtype.kind == "c":
        return x.imag.atan2(x.real)
    found: Tensor = apply(RealAngle, x)
    return found
