"""Comparisons, truth and bits. None of these has a gradient."""

from __future__ import annotations

from typing import Any

import numpy as np

from faltung import dtypes
from faltung.autograd.graph import Op
from faltung.dtypes import COMPLEX, FLOATING
from faltung.ops.apply import apply
from faltung.ops.arithmetic import Binary
from faltung.ops.promotion import is_number, operands, require_tensor, tensor_pair
from faltung.tensor import Tensor


class _Comparison(Binary):
    @classmethod
    def forward(cls, ctx: Any, x: Any, y: Any) -> Any:
        return cls.compute(x, y)


class Eq(_Comparison):
    """x == y."""

    name = "eq"
    ufunc = np.equal


class Ne(_Comparison):
    """x != y."""

    name = "ne"
    ufunc = np.not_equal


class Lt(_Comparison):
    """x < y."""

    name = "lt"
    ufunc = np.less


class Le(_Comparison):
    """x <= y."""

    name = "le"
    ufunc = np.less_equal


class Gt(_Comparison):
    """x > y."""

    name = "gt"
    ufunc = np.greater


class Ge(_Comparison):
    """x >= y."""

    name = "ge"
    ufunc = np.greater_equal


class LogicalAnd(_Comparison):
    """Both true."""

    name = "logical_and"
    ufunc = np.logical_and


class LogicalOr(_Comparison):
    """Either true."""

    name = "logical_or"
    ufunc = np.logical_or


class LogicalXor(_Comparison):
    """One of the two true."""

    name = "logical_xor"
    ufunc = np.logical_xor


class BitwiseAnd(_Comparison):
    """x & y."""

    name = "bitwise_and"
    ufunc = np.bitwise_and


class BitwiseOr(_Comparison):
    """x | y."""

    name = "bitwise_or"
    ufunc = np.bitwise_or


class BitwiseXor(_Comparison):
    """x ^ y."""

    name = "bitwise_xor"
    ufunc = np.bitwise_xor


class LeftShift(_Comparison):
    """x << y."""

    name = "bitwise_left_shift"
    ufunc = np.left_shift


class RightShift(_Comparison):
    """x >> y."""

    name = "bitwise_right_shift"
    ufunc = np.right_shift


class _Test(Op):
    """A property of each element."""

    ufunc: Any

    @classmethod
    def forward(cls, ctx: Any, x: Any) -> Any:
        return cls.ufunc(x)


class IsNan(_Test):
    """Not a number."""

    name = "isnan"
    ufunc = np.isnan


class IsInf(_Test):
    """Infinite."""

    name = "isinf"
    ufunc = np.isinf


class IsFinite(_Test):
    """Neither infinite nor nan."""

    name = "isfinite"
    ufunc = np.isfinite


class IsPosInf(_Test):
    """+inf."""

    name = "isposinf"
    ufunc = np.isposinf


class IsNegInf(_Test):
    """-inf."""

    name = "isneginf"
    ufunc = np.isneginf


class SignBit(_Test):
    """Negative, -0.0 included."""

    name = "signbit"
    ufunc = np.signbit


class LogicalNot(_Test):
    """Not true."""

    name = "logical_not"
    ufunc = np.logical_not


class Invert(_Test):
    """All bits inverted."""

    name = "bitwise_not"
    ufunc = np.invert


def _binary(op: type[Op], x: Any, y: Any) -> Tensor:
    require_tensor(op.name, "input", x)
    a, b = operands(op.name, x, y)
    found: Tensor = apply(op, a, b)
    return found


def _logical(op: type[Op], x: Any, y: Any) -> Tensor:
    a, b = tensor_pair(op.name, x, y)
    found: Tensor = apply(op, a, b)
    return found


def _ordered(op: type[Op], x: Any, y: Any) -> Tensor:
    require_tensor(op.name, "input", x)
    a, b = operands(op.name, x, y)
    if a.dtype.kind == COMPLEX:
        raise RuntimeError(f'{op.name}: "{op.name}" not implemented for complex tensors, which have no order.')
    found: Tensor = apply(op, a, b)
    return found


def _bits(op: type[Op], x: Any, y: Any) -> Tensor:
    a, b = operands(op.name, x, y)
    if a.dtype.kind >= FLOATING:
        raise RuntimeError(
            f'{op.name}: "{op.name}_cpu" not implemented for {a.dtype.legacy_name!r}. Use integer or bool tensors.'
        )
    found: Tensor = apply(op, a, b)
    return found


def eq(input: Any, other: Any) -> Tensor:
    """input == other, elementwise."""
    return _binary(Eq, input, other)


def ne(input: Any, other: Any) -> Tensor:
    """input != other, elementwise."""
    return _binary(Ne, input, other)


def lt(input: Any, other: Any) -> Tensor:
    """input < other, elementwise."""
    return _ordered(Lt, input, other)


def le(input: Any, other: Any) -> Tensor:
    """input <= other, elementwise."""
    return _ordered(Le, input, other)


def gt(input: Any, other: Any) -> Tensor:
    """input > other, elementwise."""
    return _ordered(Gt, input, other)


def ge(input: Any, other: Any) -> Tensor:
    """input >= other, elementwise."""
    return _ordered(Ge, input, other)


def logical_and(input: Any, other: Any) -> Tensor:
    """Both true (not zero)."""
    return _logical(LogicalAnd, input, other)


def logical_or(input: Any, other: Any) -> Tensor:
    """Either true (not zero)."""
    return _logical(LogicalOr, input, other)


def logical_xor(input: Any, other: Any) -> Tensor:
    """Exactly one true (not zero)."""
    return _logical(LogicalXor, input, other)


def logical_not(input: Tensor) -> Tensor:
    """Not true: zero."""
    found: Tensor = apply(LogicalNot, input)
    return found


def bitwise_and(input: Any, other: Any) -> Tensor:
    """input & other."""
    return _bits(BitwiseAnd, input, other)


def bitwise_or(input: Any, other: Any) -> Tensor:
    """input | other."""
    return _bits(BitwiseOr, input, other)


def bitwise_xor(input: Any, other: Any) -> Tensor:
    """input ^ other."""
    return _bits(BitwiseXor, input, other)


def bitwise_left_shift(input: Any, other: Any) -> Tensor:
    """input << other."""
    return _bits(LeftShift, input, other)


def bitwise_right_shift(input: Any, other: Any) -> Tensor:
    """input >> other."""
    return _bits(RightShift, input, other)


def bitwise_not(input: Tensor) -> Tensor:
    """~input."""
    if input.dtype.kind >= FLOATING:
        raise RuntimeError(f"bitwise_not: only integer and bool tensors have bits, got {input.dtype}.")
    found: Tensor = apply(Invert, input)
    return found


def isnan(input: Tensor) -> Tensor:
    """Whether each element is not a number."""
    found: Tensor = apply(IsNan, input)
    return found


def isinf(input: Tensor) -> Tensor:
    """Whether each element is infinite."""
    found: Tensor = apply(IsInf, input)
    return found


def isfinite(input: Tensor) -> Tensor:
    """Whether each element is neither infinite nor nan."""
    found: Tensor = apply(IsFinite, input)
    return found


def isposinf(input: Tensor) -> Tensor:
    """Whether each element is +inf."""
    if input.dtype.kind == COMPLEX:
        raise RuntimeError("isposinf: does not support complex inputs.")
    found: Tensor = apply(IsPosInf, input)
    return found


def isneginf(input: Tensor) -> Tensor:
    """Whether each element is -inf."""
    if input.dtype.kind == COMPLEX:
        raise RuntimeError("isneginf: does not support complex inputs.")
    found: Tensor = apply(IsNegInf, input)
    return found


def isreal(input: Tensor) -> Tensor:
    """Whether each element has no imaginary part."""
    if input.dtype.kind != COMPLEX:
        found: Tensor = input.new_ones(input.shape, dtype=dtypes.bool)
        return found
    return eq(input.imag, 0)


def signbit(input: Tensor) -> Tensor:
    """Whether each element is negative; -0.0 is."""
    if input.dtype.kind in (dtypes.BOOL, COMPLEX):
        if input.dtype.kind == COMPLEX:
            raise RuntimeError("signbit: is not implemented for complex tensors.")
        return ne(input, input)
    if input.dtype.kind == dtypes.INTEGER:
        return lt(input, 0)
    found: Tensor = apply(SignBit, input)
    return found


class IsClose(Op):
    """|x - y| <= atol + rtol |y|, or equal."""

    name = "isclose"

    @staticmethod
    def forward(ctx: Any, x: Any, y: Any, *, rtol: float, atol: float, equal_nan: bool) -> Any:
        close = x == y
        if equal_nan and x.dtype.kind in "fc":
            close = close | (np.isnan(x) & np.isnan(y))
        if rtol == 0 and atol == 0:
            return close
        if x.dtype.kind in "iu":
            x, y = x.astype(np.float64), y.astype(np.float64)
        distance = np.abs(x - y)
        return close | (np.isfinite(distance) & (distance <= atol + np.abs(rtol * y)))


def isclose(input: Tensor, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> Tensor:
    """Whether elements agree within atol + rtol * |other|."""
    if input.dtype is not other.dtype:
        raise RuntimeError(f"isclose: {input.dtype.legacy_name} did not match {other.dtype.legacy_name}.")
    if rtol < 0 or atol < 0:
        raise RuntimeError(f"isclose: rtol and atol must be greater than or equal to zero, but got {rtol} and {atol}.")
    if input._data.dtype.kind == "b":
        return eq(input, other)
    found: Tensor = apply(IsClose, input, other, rtol=rtol, atol=atol, equal_nan=equal_nan)
    return found


def allclose(input: Tensor, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> bool:
    """Whether all elements agree within atol + rtol * |other|."""
    return bool(isclose(input, other, rtol, atol, equal_nan)._data.all())


def equal(input: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same size and elements."""
    if input.dtype is not other.dtype:
        raise RuntimeError(
            f"equal: Expected object of data type {input.dtype} but got data type {other.dtype} for argument 'other'."
        )
    return input._data.shape == other._data.shape and bool(eq(input, other)._data.all())


def operator_eq(input: Tensor, other: Any) -> Any:
    """`==`: elementwise with tensors and numbers, identity with anything else."""
    if isinstance(other, Tensor) or is_number(other):
        return eq(input, other)
    if isinstance(other, np.ndarray):
        return eq(input, Tensor._wrap(other))
    return NotImplemented


def operator_ne(input: Tensor, other: Any) -> Any:
    """`!=`: elementwise with tensors and numbers, identity with anything else."""
    if isinstance(other, Tensor) or is_number(other):
        return ne(input, other)
    if isinstance(other, np.ndarray):
        return ne(input, Tensor._wrap(other))
    return NotImplemented
