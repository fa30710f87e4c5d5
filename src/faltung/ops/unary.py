"""Elementwise functions of one tensor. Integers are computed in the default floating type unless the rule keeps
integers.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np

from faltung import dtypes, engine
from faltung.autograd import is_grad_enabled
from faltung.autograd.graph import Op
from faltung.ops.apply import apply
from faltung.ops.arithmetic import LARGE, conj
from faltung.ops.promotion import as_float, cast
from faltung.tensor import Tensor

LARGE_ELEMENTARY = 1 << 14  # elements from which on threads beat NumPy's exponentials and logarithms


class Slope(Op):
    """The fused first gradient of a function: "pointwise.<name>_backward" of the engine."""

    name = "slope"

    @staticmethod
    def forward(ctx: Any, grad: Any, kept: Any, *, kernel: str, **numbers: float) -> Any:
        return engine.call(kernel, grad, kept, **numbers)


def has_slope(kept: Tensor) -> bool:
    """Whether a first gradient is one for the engine: large, and no graph of it is wanted."""
    data = kept._data
    return data.size >= LARGE and data.dtype == np.float32 and not is_grad_enabled()


class Unary(Op):
    """Base: a NumPy function with its derivative, a function of the input or of the result."""

    ufunc: Any
    keeps = "input"  # or "output", or "nothing"
    kernel: ClassVar[str | None] = None  # the engine's name, if it computes large arrays
    large: ClassVar[int] = LARGE
    slope: ClassVar[str | None] = None  # the engine's name of the gradient, where it takes more than one operation

    @classmethod
    def forward(cls, ctx: Any, x: Any) -> Any:
        if cls.keeps == "input":
            ctx.save_inputs(0)
        elif cls.keeps == "output":
            ctx.save_outputs(0)
        if cls.kernel is not None and x.size >= cls.large:
            return engine.call(cls.kernel, x)
        return cls.ufunc(x)

    @classmethod
    def inplace(cls, ctx: Any, x: Any) -> None:
        if cls.kernel is not None and x.size >= cls.large:
            engine.call(cls.kernel, x, out=x)
        else:
            cls.ufunc(x, out=x)

    @classmethod
    def derivative(cls, kept: Tensor) -> Any:
        """d result / d input, from what is kept."""
        raise NotImplementedError

    @classmethod
    def backward(cls, ctx: Any, grad: Tensor) -> Any:
        (kept,) = ctx.saved
        if cls.slope is not None and has_slope(kept):
            return apply(Slope, grad, kept, kernel=cls.slope)
        return cls.gradient(grad, kept)

    @classmethod
    def gradient(cls, grad: Tensor, kept: Tensor) -> Any:
        """The gradient by the chain rule, in operations on tensors."""
        return grad * conj(cls.derivative(kept))


class Neg(Unary):
    """-x."""

    name = "neg"
    ufunc = np.negative
    keeps = "nothing"
    kernel = "pointwise.neg"

    @classmethod
    def backward(cls, ctx: Any, grad: Tensor) -> Any:
        return -grad


class Exp(Unary):
    """e ** x."""

    name = "exp"
    ufunc = np.exp
    keeps = "output"
    kernel = "pointwise.exp"
    large = LARGE_ELEMENTARY

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
    kernel = "pointwise.expm1"
    large = LARGE_ELEMENTARY
    slope = "pointwise.expm1_backward"

    @classmethod
    def derivative(cls, kept: Tensor) -> Any:
        return kept + 1


class Log(Unary):
    """The natural logarithm."""

    name = "log"
    ufunc = np.log
    kernel = "pointwise.log"
    large = LARGE_ELEMENTARY

    @classmethod
    def gradient(cls, grad: Tensor, kept: Tensor) -> Any:
        return grad / conj(kept)


class Log2(Unary):
    """The logarithm to base 2."""

    name = "log2"
    ufunc = np.log2

    @classmethod
    def gradient(cls, grad: Tensor, kept: Tensor) -> Any:
        return grad / conj(kept * math.log(2))


class Log10(Unary):
    """The logarithm to base 10."""

    name = "log10"
    ufunc = np.log10

    @classmethod
    def gradient(cls, grad: Tensor, kept: Tensor) -> Any:
        return grad / conj(kept * math.log(10))


class Log1p(Unary):
    """log(1 + x)."""

    name = "log1p"
    ufunc = np.log1p
    kernel = "pointwise.log1p"
    large = LARGE_ELEMENTARY
    slope = "pointwise.log1p_backward"

    @classmethod
    def gradient(cls, grad: Tensor, kept: Tensor) -> Any:
        return grad / conj(kept + 1)


class Sqrt(Unary):
    """The square root."""

    name = "sqrt"
    ufunc = np.sqrt
    keeps = "output"
    kernel = "pointwise.sqrt"
    slope = "pointwise.sqrt_backward"

    @classmethod
    def gradient(cls, grad: Tensor, kept: Tensor) -> Any:
        return grad / (conj(kept) * 2)


class Rsqrt(Unary):
    """1 / sqrt(x)."""

    name = "rsqrt"
    keeps = "output"
    kernel = "pointwise.rsqrt"
    slope = "pointwise.rsqrt_backward"

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
    kernel = "pointwise.reciprocal"
    slope = "pointwise.reciprocal_backward"

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
    kernel = "pointwise.square"
    slope = "pointwise.square_backward"

    @classmethod
    def derivative(cls, kept: Tensor) -> Any:
        return kept * 2


class Abs(Unary):
    """The magnitude."""

    name = "abs"
    ufunc = np.absolute
    kernel = "pointwise.abs"
    slope = "pointwise.abs_backward"

    @classmethod
    def gradient(cls, grad: Tensor, kept: Tensor) -> Any:
        return grad * kept.sgn()


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
    kernel = "pointwise.floor"


class Ceil(Step):
    """Rounded up."""

    name = "ceil"
    ufunc = np.ceil
    kernel = "pointwise.ceil"


class Trunc(Step):
    """Rounded towards zero."""

    name = "trunc"
    ufunc = np.trunc
    kernel = "pointwise.trunc"


class Round(Op):
    """Rounded to the nearest, halves to even, after `decimals` places."""

    name = "round"

    @staticmethod
    def forward(ctx: Any, x: Any, *, decimals: int) -> Any:
        if not decimals:
            return engine.call("pointwise.round", x) if x.size >= LARGE else np.rint(x)
        ten = x.dtype.type(10.0 ** (decimals if decimals > 0 else -decimals))
        return np.rint(x * ten) / ten if decimals > 0 else np.rint(x / ten) * ten

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return grad * 0


class Sign(Step):
    """-1, 0 or 1."""

    name = "sign"
    ufunc = np.sign
    kernel = "pointwise.sign"


def floating(op: type[Op], input: Tensor) -> Tensor:
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
    return floating(Exp, input)


def exp2(input: Tensor) -> Tensor:
    """2 ** input."""
    return floating(Exp2, input)


def expm1(input: Tensor) -> Tensor:
    """e ** input - 1, exact near 0."""
    return floating(Expm1, input)


def log(input: Tensor) -> Tensor:
    """The natural logarithm."""
    return floating(Log, input)


def log2(input: Tensor) -> Tensor:
    """The logarithm to base 2."""
    return floating(Log2, input)


def log10(input: Tensor) -> Tensor:
    """The logarithm to base 10."""
    return floating(Log10, input)


def log1p(input: Tensor) -> Tensor:
    """log(1 + input), exact near 0."""
    return floating(Log1p, input)


def sqrt(input: Tensor) -> Tensor:
    """The square root; nan for negative numbers."""
    return floating(Sqrt, input)


def rsqrt(input: Tensor) -> Tensor:
    """1 / sqrt(input)."""
    return floating(Rsqrt, input)


def reciprocal(input: Tensor) -> Tensor:
    """1 / input."""
    return floating(Reciprocal, input)


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
