"""Choosing by truth values: where, masked_fill, masked_select, nonzero, clamp, and triangles."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from faltung import dtypes, engine
from faltung.autograd import is_grad_enabled
from faltung.autograd.graph import Op
from faltung.dtypes import COMPLEX, result_type
from faltung.engine.layout import broadcasts_to
from faltung.ops.apply import apply, apply_inplace
from faltung.ops.arithmetic import LARGE
from faltung.ops.convert import fitting_number
from faltung.ops.promotion import as_number, cast, number, operands
from faltung.ops.shape import broadcast_tensors
from faltung.ops.unary import Slope
from faltung.tensor import Tensor

_wrap = Tensor._wrap
LARGE_MASK = 1 << 12  # elements from which on choosing without branches beats NumPy


class Where(Op):
    """x where the condition is true, else y."""

    name = "where"
    quiet = True

    @staticmethod
    def forward(ctx: Any, condition: Any, x: Any, y: Any) -> Any:
        ctx.save_inputs(0)
        try:
            if (condition.size >= LARGE_MASK or x.size >= LARGE_MASK or y.size >= LARGE_MASK) and x.dtype == np.float32:
                return engine.call("pointwise.where", condition, x, y)
            return np.where(condition, x, y)
        except ValueError:
            raise RuntimeError(
                f"where: The shapes {list(condition.shape)}, {list(x.shape)} and {list(y.shape)} of condition, input "
                "and other must broadcast: sizes must be equal or 1, counted from the last dimension."
            ) from None

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (condition,) = ctx.saved
        zero = number(0, grad._data.dtype)
        gx = apply(Where, condition, grad, zero) if ctx.needs_input_grad[1] else None
        gy = apply(Where, condition, zero, grad) if ctx.needs_input_grad[2] else None
        return None, gx, gy


def where(condition: Tensor, input: Any = None, other: Any = None) -> Any:
    """`input` where `condition` is true, `other` elsewhere; with the condition alone, the positions that are true."""
    if input is None and other is None:
        return nonzero(condition, as_tuple=True)
    if not isinstance(condition, Tensor):
        raise TypeError(f"where: argument 'condition' must be Tensor, not {type(condition).__name__}.")
    if condition._data.dtype.kind != "b":
        if condition._data.dtype != np.uint8:
            raise RuntimeError(
                "where: expected condition to be a boolean tensor, but got a tensor with dtype "
                f"{condition.dtype.legacy_name}."
            )
        condition = cast(condition, dtypes.bool)
    x, y = operands("where", input, other)
    return apply(Where, condition, x, y)


class MaskedFill(Op):
    """A number written where a mask is true."""

    name = "masked_fill"
    quiet = True

    @staticmethod
    def forward(ctx: Any, x: Any, mask: Any, value: Any) -> Any:
        ctx.save_inputs(1)
        if x.size >= LARGE_MASK and x.dtype == np.float32 and broadcasts_to(mask.shape, x.shape):
            return engine.call("pointwise.where", mask, value, x)
        if x.shape == mask.shape:
            found = x.copy(order="K")
        else:
            try:
                shape = np.broadcast_shapes(x.shape, mask.shape)
            except ValueError:
                raise RuntimeError(
                    f"masked_fill: The shape of the mask {list(mask.shape)} must broadcast with the tensor's "
                    f"{list(x.shape)}."
                ) from None
            found = np.broadcast_to(x, shape).copy(order="K")
        np.copyto(found, value, where=mask)
        return found

    @staticmethod
    def inplace(ctx: Any, x: Any, mask: Any, value: Any) -> None:
        if x.size >= LARGE_MASK and x.dtype == np.float32 and broadcasts_to(mask.shape, x.shape):
            engine.call("pointwise.where", mask, value, x, out=x)
            return
        try:
            np.copyto(x, value, where=mask)
        except ValueError:
            raise RuntimeError(
                f"masked_fill_: expected mask to broadcast to the shape of the tensor {list(x.shape)}, got "
                f"{list(mask.shape)}."
            ) from None

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (mask,) = ctx.saved
        zero = number(0, grad._data.dtype)
        gx = apply(MaskedFill, grad, mask, zero) if ctx.needs_input_grad[0] else None
        gv = apply(Where, mask, grad, zero).sum() if ctx.needs_input_grad[2] else None
        return gx, None, gv


def _mask(where_: str, mask: Any) -> Tensor:
    if not isinstance(mask, Tensor):
        raise TypeError(f"{where_}: argument 'mask' must be Tensor, not {type(mask).__name__}.")
    if mask._data.dtype.kind != "b":
        raise RuntimeError(
            f"{where_}: only supports boolean masks, but got mask with dtype {mask.dtype}. Convert it with .bool()."
        )
    return mask


def _fill_value(where_: str, input: Tensor, value: Any) -> Tensor:
    if isinstance(value, Tensor):
        if value._data.ndim:
            raise RuntimeError(
                f"{where_}: only supports a 0-dimensional value tensor, but got tensor with {value._data.ndim} "
                "dimension(s)."
            )
        if not dtypes.can_cast(result_type(input, value), input.dtype):
            raise RuntimeError(
                f"{where_}: value of type {value.dtype} can't be written into a tensor of {input.dtype}."
            )
        return cast(value, input.dtype)
    if isinstance(value, complex) and input.dtype.kind != COMPLEX:
        raise RuntimeError(f"{where_}: value cannot be converted to type {input.dtype} without overflow: {value}.")
    return number(fitting_number(where_, value, input._data.dtype), input._data.dtype)


def masked_fill(input: Tensor, mask: Tensor, value: Any) -> Tensor:
    """`input` with `value` where `mask` is true."""
    found: Tensor = apply(MaskedFill, input, _mask("masked_fill", mask), _fill_value("masked_fill", input, value))
    return found


def masked_fill_(input: Tensor, mask: Tensor, value: Any) -> Tensor:
    """Write `value` where `mask` is true."""
    return apply_inplace(MaskedFill, input, _mask("masked_fill_", mask), _fill_value("masked_fill_", input, value))


def masked_select(input: Tensor, mask: Tensor) -> Tensor:
    """The elements where `mask` is true, in one dimension."""
    x, m = broadcast_tensors(input, _mask("masked_select", mask))
    return x[m]


class MaskedScatter(Op):
    """Elements of `source`, in order, written where a mask is true."""

    name = "masked_scatter"
    quiet = True

    @staticmethod
    def forward(ctx: Any, x: Any, mask: Any, source: Any) -> Any:
        ctx.save_inputs(1)
        ctx.shape = source.shape
        mask = np.broadcast_to(mask, x.shape)
        count = int(np.count_nonzero(mask))
        if source.size < count:
            raise RuntimeError(
                f"masked_scatter: expected self and source to have enough elements: mask has {count} ones, source has "
                f"{source.size} elements."
            )
        found = x.copy(order="K")
        found[mask] = source.reshape(-1)[:count]
        return found

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (mask,) = ctx.saved
        gx = grad.masked_fill(mask, 0) if ctx.needs_input_grad[0] else None
        gs = None
        if ctx.needs_input_grad[2]:
            taken = grad[mask.expand(grad.shape)]
            flat = grad.new_zeros(int(np.prod(ctx.shape)))
            flat[: taken.numel()] = taken
            gs = flat.reshape(ctx.shape)
        return gx, None, gs


def masked_scatter(input: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """`input` with the elements of `source`, in order, where `mask` is true."""
    if input._data.dtype != source._data.dtype:
        raise RuntimeError(
            f"masked_scatter: expected self and source to have same dtypes but got {input.dtype.legacy_name} and "
            f"{source.dtype.legacy_name}."
        )
    mask = _mask("masked_scatter", mask)
    shape = np.broadcast_shapes(input._data.shape, mask._data.shape)
    found: Tensor = apply(MaskedScatter, input.expand(shape), mask, source)
    return found


# --- positions


class NonZero(Op):
    """Positions of elements that aren't zero, (count, ndim)."""

    name = "nonzero"
    quiet = True

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        if not x.ndim:
            return np.zeros((int(x != 0), 0), np.int64)
        return np.argwhere(x)


def nonzero(input: Tensor, *, as_tuple: bool = False) -> Any:
    """Positions of the elements that aren't zero: one row each, or one tensor per dimension."""
    if as_tuple and not input._data.ndim:
        return (_wrap(np.zeros(int(input._data != 0), np.int64)),)
    found: Tensor = apply(NonZero, input)
    return found.unbind(1) if as_tuple else found


def argwhere(input: Tensor) -> Tensor:
    """Positions of the elements that aren't zero, one row each."""
    found: Tensor = apply(NonZero, input)
    return found


# --- limits


class Clamp(Op):
    """Elements limited to an interval given by numbers."""

    name = "clamp"

    @staticmethod
    def forward(ctx: Any, x: Any, *, low: Any, high: Any) -> Any:
        ctx.save_inputs(0)
        ctx.low, ctx.high = low, high
        return _limit(x, low, high, None)

    @staticmethod
    def inplace(ctx: Any, x: Any, *, low: Any, high: Any) -> None:
        _limit(x, low, high, x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (x,) = ctx.saved
        if x._data.dtype == np.float32 and not is_grad_enabled():
            low, high = _interval(ctx.low, ctx.high)
            return apply(Slope, grad, x, kernel="pointwise.clamp_backward", low=low, high=high)
        inside = None
        if ctx.low is not None:
            inside = x >= ctx.low
        if ctx.high is not None:
            below = x <= ctx.high
            inside = below if inside is None else inside & below
        return grad.masked_fill(~inside, 0)  # type: ignore[operator]  # one of the limits is given


def _interval(low: Any, high: Any) -> tuple[float, float]:
    """The limits as numbers; a missing one is infinite."""
    return -math.inf if low is None else low, math.inf if high is None else high


def _limit(x: Any, low: Any, high: Any, out: Any) -> Any:
    """min(max(x, low), high); where low > high the result is high, as in PyTorch."""
    if x.size >= LARGE and x.dtype == np.float32 and low == low and high == high:  # no limit is nan
        lowest, highest = _interval(low, high)
        return engine.call("pointwise.clamp", x, low=lowest, high=highest, out=out)
    if low is not None:
        x = np.maximum(x, np.asarray(low).astype(x.dtype), out=out)
    if high is not None:
        x = np.minimum(x, np.asarray(high).astype(x.dtype), out=out)
    return x


def _limits(where_: str, low: Any, high: Any) -> bool:
    """Whether both limits are numbers (or absent)."""
    if low is None and high is None:
        raise RuntimeError(f"{where_}: At least one of 'min' or 'max' must not be None.")
    return not isinstance(low, Tensor) and not isinstance(high, Tensor)


def _clamp_type(where_: str, input: Tensor, low: Any, high: Any) -> Any:
    if input.dtype.kind == COMPLEX:
        raise RuntimeError(f"{where_}: is not supported for complex types, which have no order.")
    return result_type(input, *[limit for limit in (low, high) if limit is not None])


def clamp(input: Tensor, min: Any = None, max: Any = None) -> Tensor:
    """Elements limited to [min, max]; each limit a number, a tensor or None."""
    if _limits("clamp", min, max):
        low, high = [None if limit is None else as_number(limit) for limit in (min, max)]
        x = cast(input, _clamp_type("clamp", input, low, high))
        if low != low or high != high:  # a nan limit makes everything nan
            return x * float("nan")
        found: Tensor = apply(Clamp, x, low=low, high=high)
        return found
    common = _clamp_type("clamp", input, min, max)
    result = cast(input, common)
    if min is not None:
        result = _bounded(result, min, True)
    return result if max is None else _bounded(result, max, False)


class ClampTensor(Op):
    """Elements limited from one side by another tensor; the gradient of a tie goes to the input."""

    name = "clamp"

    @staticmethod
    def forward(ctx: Any, x: Any, limit: Any, *, is_lower: bool) -> Any:
        ctx.save_inputs(0, 1)
        ctx.is_lower = is_lower
        try:
            return np.maximum(x, limit) if is_lower else np.minimum(x, limit)
        except ValueError:
            raise RuntimeError(
                f"clamp: The size of the limit {list(limit.shape)} must broadcast with the input's {list(x.shape)}."
            ) from None

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, limit = ctx.saved
        kept = x >= limit if ctx.is_lower else x <= limit
        return grad.masked_fill(~kept, 0), grad.masked_fill(kept, 0)


def _bounded(x: Tensor, limit: Any, is_lower: bool) -> Tensor:
    a, b = operands("clamp", x, limit)
    found: Tensor = apply(ClampTensor, a, b, is_lower=is_lower)
    return found


def clamp_(input: Tensor, min: Any = None, max: Any = None) -> Tensor:
    """Limit the elements to [min, max]."""
    if _limits("clamp_", min, max):
        common = _clamp_type("clamp_", input, min, max)
        if not dtypes.can_cast(common, input.dtype):
            raise RuntimeError(
                f"clamp_: result type {common.legacy_name} can't be cast to the desired output type "
                f"{input.dtype.legacy_name}."
            )
        return apply_inplace(Clamp, input, low=as_number(min), high=as_number(max))
    from faltung.ops.write import inplace

    return inplace(clamp, "clamp_")(input, min, max)


def clamp_min(input: Tensor, min: Any) -> Tensor:
    """Elements limited from below."""
    return clamp(input, min=min)


def clamp_max(input: Tensor, max: Any) -> Tensor:
    """Elements limited from above."""
    return clamp(input, max=max)


class NanToNum(Op):
    """nan and infinities replaced by numbers."""

    name = "nan_to_num"

    @staticmethod
    def forward(ctx: Any, x: Any, *, nan: Any, posinf: Any, neginf: Any) -> Any:
        ctx.finite = np.isfinite(x)
        limits = np.finfo(x.dtype)
        found = np.nan_to_num(
            x, nan=nan, posinf=limits.max if posinf is None else posinf, neginf=limits.min if neginf is None else neginf
        )
        return np.asarray(found)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return grad.masked_fill(_wrap(~ctx.finite), 0)


def nan_to_num(input: Tensor, nan: Any = 0.0, posinf: Any = None, neginf: Any = None) -> Tensor:
    """nan, inf and -inf replaced by numbers (0 and the largest finite ones unless given)."""
    if input._data.dtype.kind in "iub":
        return input.clone()  # methods are bound at run time
    found: Tensor = apply(NanToNum, input, nan=0.0 if nan is None else nan, posinf=posinf, neginf=neginf)
    return found


class Heaviside(Op):
    """0 below zero, 1 above, `values` at zero."""

    name = "heaviside"

    @staticmethod
    def forward(ctx: Any, x: Any, values: Any) -> Any:
        return np.where(x == 0, values, (x > 0).astype(x.dtype))


def heaviside(input: Tensor, values: Tensor) -> Tensor:
    """0 for negative elements, 1 for positive ones, `values` at zero."""
    if input._data.dtype != values._data.dtype:
        raise RuntimeError("heaviside: heaviside is not yet implemented for tensors with different dtypes.")
    found: Tensor = apply(Heaviside, input, values)
    return found


# --- triangles


class Triangle(Op):
    """A lower or upper triangle of the last two dimensions, zero elsewhere."""

    name = "tri"
    quiet = True

    @staticmethod
    def forward(ctx: Any, x: Any, *, diagonal: int, lower: bool) -> Any:
        ctx.diagonal, ctx.lower = diagonal, lower
        return np.tril(x, diagonal) if lower else np.triu(x, diagonal)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return apply(Triangle, grad, diagonal=ctx.diagonal, lower=ctx.lower)


def _triangle(where_: str, input: Tensor, diagonal: int, lower: bool) -> Tensor:
    if input._data.ndim < 2:
        raise RuntimeError(f"{where_}: input tensor must have at least 2 dimensions, got {input._data.ndim}.")
    found: Tensor = apply(Triangle, input, diagonal=diagonal, lower=lower)
    return found


def tril(input: Tensor, diagonal: int = 0) -> Tensor:
    """The lower triangle of matrices, zeros above `diagonal`."""
    return _triangle("tril", input, diagonal, True)


def triu(input: Tensor, diagonal: int = 0) -> Tensor:
    """The upper triangle of matrices, zeros below `diagonal`."""
    return _triangle("triu", input, diagonal, False)
