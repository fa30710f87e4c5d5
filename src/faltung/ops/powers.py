"""Powers of two tensors, or of a tensor and a number."""

from __future__ import annotations

from typing import Any

import numpy as np

from faltung import engine
from faltung.autograd.graph import Op
from faltung.dtypes import result_type
from faltung.ops.apply import apply
from faltung.ops.arithmetic import LARGE, Binary, conj
from faltung.ops.promotion import as_number, cast, is_number, operands
from faltung.ops.unary import Slope, has_slope
from faltung.tensor import Tensor

# exponents that take no logarithm
_KERNELS = {
    2: "pointwise.square", 3: "pointwise.cube", 0.5: "pointwise.sqrt", -0.5: "pointwise.rsqrt",
    -1: "pointwise.reciprocal", -2: "pointwise.inverse_square",
}  # fmt: skip
_SLOPES = {2: "pointwise.square_backward", 3: "pointwise.cube_backward"}


class PowScalar(Op):
    """x ** exponent for a number."""

    name = "pow"

    @staticmethod
    def forward(ctx: Any, x: Any, *, exponent: Any) -> Any:
        ctx.save_inputs(0)
        ctx.exponent = exponent
        if x.size >= LARGE and exponent in _KERNELS and x.dtype.kind == "f":
            return engine.call(_KERNELS[exponent], x)
        if exponent == 2:
            return np.multiply(x, x)
        if x.dtype.kind in "iub":
            if exponent < 0:
                raise RuntimeError(
                    "pow: Integers to negative integer powers are not allowed. Use a floating point tensor."
                )
            return np.power(x, np.asarray(exponent).astype(x.dtype))
        if exponent == 0.5:
            return np.sqrt(x)
        if exponent == 3:
            return x * x * x
        if exponent == -1:
            return 1 / x
        if x.dtype.kind == "f":
            if exponent == -0.5:
                return x.dtype.type(1) / np.sqrt(x)
            if exponent == -2:
                return 1 / (x * x)
        return np.power(x, np.asarray(exponent).astype(x.dtype))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (x,) = ctx.saved
        exponent = ctx.exponent
        if exponent == 0:
            return grad * 0
        if exponent in _SLOPES and has_slope(x):
            return apply(Slope, grad, x, kernel=_SLOPES[exponent])
        scale = x if exponent == 2 else pow(x, exponent - 1)
        return grad * conj(scale * exponent)


class Pow(Binary):
    """x ** y."""

    name = "pow"
    ufunc = np.power

    @classmethod
    def forward(cls, ctx: Any, x: Any, y: Any) -> Any:
        ctx.save_inputs(0, 1)
        ctx.save_outputs(0)
        if x.dtype.kind == "b":  # computed as bytes, which power has
            return cls.compute(x.astype(np.uint8), y.astype(np.uint8)).astype(bool)
        if y.dtype.kind == "i" and (y < 0).any():
            raise RuntimeError("pow: Integers to negative integer powers are not allowed. Use floating point tensors.")
        return cls.compute(x, y)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, y, result = ctx.saved
        gx = gy = None
        if ctx.needs_input_grad[0]:
            gx = grad * conj((y * pow(x, y - 1)).masked_fill(y == 0, 0))
        if ctx.needs_input_grad[1]:
            vanishes = (x == 0) & (y >= 0) if not x.is_complex() else x == 0
            gy = grad * conj((result * x.log()).masked_fill(vanishes, 0))
        return gx, gy


def pow(input: Any, exponent: Any) -> Tensor:
    """input ** exponent; each may be a number."""
    if is_number(exponent) and isinstance(input, Tensor):
        exponent = as_number(exponent)
        x = cast(input, result_type(input, exponent))
        exponent = int(exponent) if isinstance(exponent, bool) else exponent
        found: Tensor = apply(PowScalar, x, exponent=exponent)
        return found
    x, y = operands("pow", input, exponent)
    found = apply(Pow, x, y)
    return found
