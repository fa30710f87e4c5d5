"""Elementwise arithmetic with two operands. Shapes broadcast; types promote by PyTorch's rules.

Gradients are returned in the broadcast shape: the tape sums them back to the shape of each input.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from faltung import dtypes, engine
from faltung.autograd import is_grad_enabled
from faltung.autograd.graph import Op
from faltung.dtypes import BOOL, FLOATING, INTEGER, can_cast, result_type
from faltung.ops.apply import apply, apply_inplace
from faltung.ops.deferred import Deferred, added
from faltung.ops.promotion import as_float, as_operand, cast, is_number, number, operands, require_tensor
from faltung.tensor import Tensor

LARGE = 1 << 16  # elements from which on threads beat NumPy, measured on two AVX-512 cores


def conj(t: Tensor) -> Tensor:
    """The conjugate of a complex tensor; a real tensor itself."""
    found: Tensor = t.conj() if t._data.dtype.kind == "c" else t
    return found


class Binary(Op):
    """Base of operations with two operands: names broadcast errors, and writes in place where shapes allow."""

    ufunc: Any
    kernel: ClassVar[str | None] = None  # the engine's name, if it computes large arrays

    @classmethod
    def broadcast_error(cls, x: Any, y: Any) -> RuntimeError:
        """The error for two shapes that don't broadcast."""
        pairs = zip(reversed(x.shape), reversed(y.shape))
        back = next((i for i, (a, b) in enumerate(pairs) if a != b and 1 not in (a, b)), 0)
        dim = max(x.ndim, y.ndim) - 1 - back
        return RuntimeError(
            f"{cls.name}: The size of tensor a ({x.shape[-1 - back]}) must match the size of tensor b "
            f"({y.shape[-1 - back]}) at non-singleton dimension {dim}, got shapes {list(x.shape)} and "
            f"{list(y.shape)}. Sizes must be equal or 1, counted from the last dimension."
        )

    @classmethod
    def compute(cls, x: Any, y: Any) -> Any:
        """The NumPy function, with PyTorch's error where shapes don't broadcast."""
        try:
            if (x.size >= LARGE or y.size >= LARGE) and cls.kernel:
                return engine.call(cls.kernel, x, y)
            return cls.ufunc(x, y)
        except ValueError:
            raise cls.broadcast_error(x, y) from None

    @classmethod
    def inplace(cls, ctx: Any, x: Any, y: Any) -> None:
        if y.ndim and y.shape != x.shape:
            cls.check_growth(x, y)
        if x.size >= LARGE and cls.kernel:
            engine.call(cls.kernel, x, y, out=x)
        else:
            cls.ufunc(x, y, out=x, casting="unsafe")

    @classmethod
    def check_growth(cls, x: Any, y: Any) -> None:
        """RuntimeError unless `y` broadcasts to the shape of `x`."""
        try:
            shape = np.broadcast(x, y).shape
        except ValueError:
            raise cls.broadcast_error(x, y) from None
        if shape != x.shape:
            raise RuntimeError(
                f"{cls.name}_: output with shape {list(x.shape)} doesn't match the broadcast shape "
                f"{list(shape)}. An in-place operation can't grow its tensor: use the out-of-place form."
            )


class Add(Binary):
    """x + y."""

    name = "add"
    ufunc = np.add
    kernel = "pointwise.add"

    @classmethod
    def forward(cls, ctx: Any, x: Any, y: Any) -> Any:
        try:
            if x.size < LARGE and y.size < LARGE:
                return np.add(x, y)
            return engine.call("pointwise.add", x, y)
        except ValueError:
            raise cls.broadcast_error(x, y) from None

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return grad, grad


class Sub(Binary):
    """x - y."""

    name = "sub"
    ufunc = np.subtract
    kernel = "pointwise.sub"

    @classmethod
    def forward(cls, ctx: Any, x: Any, y: Any) -> Any:
        return cls.compute(x, y)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return grad, -summed_to(grad, ctx.input_shape(1)) if ctx.needs_input_grad[1] else None


class Mul(Binary):
    """x * y."""

    name = "mul"
    ufunc = np.multiply
    kernel = "pointwise.mul"

    @classmethod
    def forward(cls, ctx: Any, x: Any, y: Any) -> Any:
        keep_for_other(ctx)
        return cls.compute(x, y)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, y = saved_for_other(ctx)
        gx = None if y is None else product_for(ctx, 0, grad, conj(y))
        gy = None if x is None else product_for(ctx, 1, grad, conj(x))
        return gx, gy


def summed_to(grad: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A gradient summed over the dimensions that its input was broadcast along, before there is more work to do."""
    found: Tensor = grad if grad._data.shape == shape else grad.sum_to_size(shape)
    return found


class SummedProduct(Op):
    """x * y, summed over the dimensions in which `shape` is 1 or which it doesn't have."""

    name = "summed_product"

    @staticmethod
    def forward(ctx: Any, x: Any, y: Any, *, shape: tuple[int, ...]) -> Any:
        missing = x.ndim - len(shape)
        dims = (*range(missing), *(missing + at for at, size in enumerate(shape) if size != x.shape[missing + at]))
        return engine.call("reduce.dot", x, y, dims).reshape(shape)


def product_for(ctx: Any, position: int, grad: Tensor, other: Tensor) -> Tensor:
    """grad * other as the gradient of an input, summed where that takes no pass of its own; else the tape does it."""
    data = grad._data
    if data.size >= LARGE and data.shape == other._data.shape and not is_grad_enabled():
        shape = ctx.input_shape(position)
        if shape != data.shape:
            found: Tensor = apply(SummedProduct, grad, other, shape=shape)
            return found
    return grad * other


def keep_for_other(ctx: Any) -> None:
    """Save each of two inputs only if the other one's gradient needs it."""
    first, second = ctx.needs_input_grad
    if first and second:
        ctx.save_inputs(0, 1)
    elif first:
        ctx.save_inputs(1)
    elif second:
        ctx.save_inputs(0)


def saved_for_other(ctx: Any) -> tuple[Any, Any]:
    """What `keep_for_other` saved: (x or None, y or None)."""
    first, second = ctx.needs_input_grad
    saved = ctx.saved
    if first and second:
        return saved
    return (None, saved[0]) if first else (saved[0], None)


class Div(Binary):
    """x / y, of floating or complex type."""

    name = "div"
    ufunc = np.true_divide
    kernel = "pointwise.div"

    @classmethod
    def forward(cls, ctx: Any, x: Any, y: Any) -> Any:
        if ctx.needs_input_grad[1]:
            ctx.save_inputs(0, 1)
        else:
            ctx.save_inputs(1)
        return cls.compute(x, y)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        needs_x, needs_y = ctx.needs_input_grad
        y = conj(ctx.saved[-1])
        gx = grad / y if needs_x or needs_y else None
        gy = None
        if needs_y and gx is not None:
            gy = summed_to(product_for(ctx, 1, gx, conj(ctx.saved[0])), y._data.shape) / -y
        return (gx if needs_x else None), gy


class FloorDivide(Binary):
    """The quotient rounded down; no gradient."""

    name = "floor_divide"
    ufunc = np.floor_divide

    @classmethod
    def forward(cls, ctx: Any, x: Any, y: Any) -> Any:
        refuse_integer_zero(x, y)
        return cls.compute(x, y)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return None, None


class TruncDivide(Binary):
    """The quotient rounded towards zero; no gradient."""

    name = "div_trunc"

    @staticmethod
    def ufunc(x: Any, y: Any, **options: Any) -> Any:  # like a NumPy function
        if x.dtype.kind in "fc":
            return np.trunc(np.true_divide(x, y), **options)
        quotient = np.floor_divide(x, y)
        quotient = quotient + ((np.remainder(x, y) != 0) & ((x < 0) != (y < 0)))
        return np.positive(quotient.astype(x.dtype, copy=False), **options)

    @classmethod
    def forward(cls, ctx: Any, x: Any, y: Any) -> Any:
        refuse_integer_zero(x, y)
        return cls.compute(x, y)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return None, None


def refuse_integer_zero(x: Any, y: Any) -> None:
    """RuntimeError for an integer division by zero."""
    if x.dtype.kind in "iub" and y.dtype.kind in "iub" and not np.all(y):
        raise RuntimeError(
            "ZeroDivisionError: integer division by zero. Divide floating point tensors to get inf or nan."
        )


class Remainder(Binary):
    """x - y * floor(x / y): the sign of y."""

    name = "remainder"
    ufunc = np.remainder

    @classmethod
    def forward(cls, ctx: Any, x: Any, y: Any) -> Any:
        refuse_integer_zero(x, y)
        if ctx.needs_input_grad[1]:
            ctx.save_inputs(0, 1)
        return cls.compute(x, y)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        if not ctx.needs_input_grad[1]:
            return grad, None
        x, y = ctx.saved
        return grad, -grad * div(x, y, rounding_mode="floor")


class Fmod(Binary):
    """x - y * trunc(x / y): the sign of x."""

    name = "fmod"
    ufunc = np.fmod

    @classmethod
    def forward(cls, ctx: Any, x: Any, y: Any) -> Any:
        refuse_integer_zero(x, y)
        if ctx.needs_input_grad[1]:
            ctx.save_inputs(0, 1)
        return cls.compute(x, y)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        if not ctx.needs_input_grad[1]:
            return grad, None
        x, y = ctx.saved
        return grad, -grad * div(x, y, rounding_mode="trunc")


def add(input: Any, other: Any, *, alpha: Any = 1) -> Tensor:
    """input + alpha * other."""
    if (type(input) is Deferred or type(other) is Deferred) and alpha == 1:
        taken = added(input, other, add)
        if taken is not None:
            return taken
    x, y = operands("add", input, other)
    if alpha != 1:
        y = _scaled("add", y, alpha)
    found: Tensor = apply(Add, x, y)
    return found


def sub(input: Any, other: Any, *, alpha: Any = 1) -> Tensor:
    """input - alpha * other."""
    x, y = operands("sub", input, other)
    _refuse_bool("sub", input, other)
    if alpha != 1:
        y = _scaled("sub", y, alpha)
    found: Tensor = apply(Sub, x, y)
    return found


def rsub(input: Any, other: Any, *, alpha: Any = 1) -> Tensor:
    """other - alpha * input."""
    require_tensor("rsub", "input", input)
    return sub(as_operand("rsub", other, input), input, alpha=alpha)


def _refuse_bool(where: str, *values: Any) -> None:
    if any(isinstance(v, Tensor) and v._data.dtype.kind == "b" for v in values) and all(
        (v._data.dtype.kind == "b") if isinstance(v, Tensor) else isinstance(v, bool) for v in values
    ):
        raise RuntimeError(
            f"{where}: Subtraction, the `-` operator, with a bool tensor is not supported. "
            "Use `~` or logical_not() to invert a mask, or `^` or logical_xor() to compare two."
        )


def _scaled(where: str, y: Tensor, alpha: Any) -> Tensor:
    kind = dtypes.scalar_dtype(alpha).kind
    if kind == BOOL and y.dtype.kind != BOOL:
        raise RuntimeError(f"{where}: Boolean alpha only supported for Boolean results.")
    if kind > y.dtype.kind or (kind == FLOATING and y.dtype.kind <= INTEGER):
        raise RuntimeError(
            f"{where}: For integral input tensors, argument alpha must not be a floating point number, got "
            f"alpha={alpha}."
        )
    return mul(y, alpha)


def mul(input: Any, other: Any) -> Tensor:
    """input * other."""
    x, y = operands("mul", input, other)
    found: Tensor = apply(Mul, x, y)
    return found


def div(input: Any, other: Any, *, rounding_mode: str | None = None) -> Tensor:
    """input / other, in floating point; rounding_mode 'floor' or 'trunc' rounds and keeps integers integers."""
    x, y = operands("div", input, other)
    if rounding_mode is None:
        found: Tensor = apply(Div, as_float(x), as_float(y))
    elif rounding_mode == "floor":
        found = apply(FloorDivide, x, y)
    elif rounding_mode == "trunc":
        found = apply(TruncDivide, x, y)
    else:
        raise RuntimeError(f"div: expected rounding_mode None, 'trunc' or 'floor', but found {rounding_mode!r}.")
    return found


def floor_divide(input: Any, other: Any) -> Tensor:
    """The quotient rounded down."""
    return div(input, other, rounding_mode="floor")


def remainder(input: Any, other: Any) -> Tensor:
    """Python's modulus: the result has the sign of `other`."""
    x, y = operands("remainder", input, other)
    found: Tensor = apply(Remainder, x, y)
    return found


def fmod(input: Any, other: Any) -> Tensor:
    """C's modulus: the result has the sign of `input`."""
    require_tensor("fmod", "input", input)
    x, y = operands("fmod", input, other)
    found: Tensor = apply(Fmod, x, y)
    return found


# --- in place


def inplace_operand(where: str, target: Tensor, other: Any, to_float: bool = False) -> Tensor:
    """The second operand of an in-place operation; RuntimeError if the result's type doesn't fit the target."""
    data = target._data
    if not isinstance(other, Tensor) and is_number(other) and data.dtype.kind == "f" and isinstance(other, int | float):
        return number(other, data.dtype)
    common = result_type(target, as_operand(where, other) if not is_number(other) else other)
    if to_float and common.kind < FLOATING:
        common = dtypes.get_default_dtype()
    if not can_cast(common, target.dtype):
        raise RuntimeError(
            f"{where}: result type {common.legacy_name} can't be cast to the desired output type "
            f"{target.dtype.legacy_name}. Convert the tensor with .to({common}) first, or use the out-of-place form."
        )
    return cast(other, common) if isinstance(other, Tensor) else number(other, dtypes.to_numpy_dtype(common))


def add_(input: Tensor, other: Any, *, alpha: Any = 1) -> Tensor:
    """input += alpha * other."""
    if type(input) is Deferred and alpha == 1:
        taken = added(input, other, add, inplace=True)
        if taken is not None:
            return taken
    y = inplace_operand("add_", input, other)
    return apply_inplace(Add, input, y if alpha == 1 else _scaled("add_", y, alpha))


def sub_(input: Tensor, other: Any, *, alpha: Any = 1) -> Tensor:
    """input -= alpha * other."""
    _refuse_bool("sub_", input, other)
    y = inplace_operand("sub_", input, other)
    return apply_inplace(Sub, input, y if alpha == 1 else _scaled("sub_", y, alpha))


def mul_(input: Tensor, other: Any) -> Tensor:
    """input *= other."""
    return apply_inplace(Mul, input, inplace_operand("mul_", input, other))


def div_(input: Tensor, other: Any, *, rounding_mode: str | None = None) -> Tensor:
    """input /= other."""
    if rounding_mode is None:
        return apply_inplace(Div, input, inplace_operand("div_", input, other, to_float=True))
    if rounding_mode not in ("floor", "trunc"):
        raise RuntimeError(f"div_: expected rounding_mode None, 'trunc' or 'floor', but found {rounding_mode!r}.")
    op = FloorDivide if rounding_mode == "floor" else TruncDivide
    return apply_inplace(op, input, inplace_operand("div_", input, other))
