"""Elementwise functions of two or three tensors, and norms, written with the operations of the other files."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from faltung import dtypes
from faltung.autograd.graph import Op
from faltung.dtypes import FLOATING, result_type
from faltung.ops.apply import apply
from faltung.ops.arithmetic import Binary, add, conj, div, mul
from faltung.ops.dims import as_dims
from faltung.ops.gather import gather
from faltung.ops.masks import where
from faltung.ops.order import amax, amin
from faltung.ops.promotion import (
    as_float,
    as_number,
    as_operand,
    cast,
    is_number,
    operands,
    require_tensor,
    tensor_pair,
)
from faltung.ops.reduce import restore_dims, sum
from faltung.tensor import Tensor


class Atan2(Binary):
    """The angle of the point (x, y), given y and x."""

    name = "atan2"
    ufunc = np.arctan2

    @classmethod
    def forward(cls, ctx: Any, x: Any, y: Any) -> Any:
        ctx.save_inputs(0, 1)
        return cls.compute(x, y)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        y, x = ctx.saved
        squared = x * x + y * y
        scale = (grad / squared).masked_fill(squared == 0, 0)
        return scale * x, -scale * y


class Hypot(Binary):
    """sqrt(x**2 + y**2)."""

    name = "hypot"
    ufunc = np.hypot

    @classmethod
    def forward(cls, ctx: Any, x: Any, y: Any) -> Any:
        ctx.save_inputs(0, 1)
        ctx.save_outputs(0)
        return cls.compute(x, y)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, y, result = ctx.saved
        return grad * x / result, grad * y / result


class LogAddExp(Binary):
    """log(exp(x) + exp(y))."""

    name = "logaddexp"
    ufunc: np.ufunc = np.logaddexp

    @classmethod
    def forward(cls, ctx: Any, x: Any, y: Any) -> Any:
        ctx.save_inputs(0, 1)
        ctx.save_outputs(0)
        return cls.compute(x, y)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, y, result = ctx.saved
        return grad * (x - result).exp(), grad * (y - result).exp()


class LogAddExp2(LogAddExp):
    """log2(2**x + 2**y)."""

    name = "logaddexp2"
    ufunc = np.logaddexp2

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, y, result = ctx.saved
        return grad * (x - result).exp2(), grad * (y - result).exp2()


class CopySign(Binary):
    """The magnitude of x with the sign of y."""

    name = "copysign"
    ufunc = np.copysign

    @classmethod
    def forward(cls, ctx: Any, x: Any, y: Any) -> Any:
        ctx.save_inputs(0)
        ctx.save_outputs(0)
        return cls.compute(x, y)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, result = ctx.saved
        ratio = (result / x).masked_fill(x == 0, 0)
        return grad * ratio, None


class NextAfter(Binary):
    """The next representable number after x towards y."""

    name = "nextafter"
    ufunc: np.ufunc = np.nextafter

    @classmethod
    def forward(cls, ctx: Any, x: Any, y: Any) -> Any:
        return cls.compute(x, y)

    @classmethod
    def backward(cls, ctx: Any, grad: Tensor) -> Any:
        raise NotImplementedError(f"the derivative for '{cls.name}' is not implemented.")


class Gcd(NextAfter):
    """The greatest common divisor."""

    name = "gcd"
    ufunc = np.gcd


class Lcm(NextAfter):
    """The least common multiple."""

    name = "lcm"
    ufunc = np.lcm


def _floating_pair(op: type[Binary], x: Any, y: Any) -> Tensor:
    a, b = tensor_pair(op.name, x, y)
    found: Tensor = apply(op, as_float(a), as_float(b))
    return found


def _same_pair(op: type[Binary], x: Tensor, y: Tensor) -> Tensor:
    a, b = tensor_pair(op.name, x, y)
    found: Tensor = apply(op, a, b)
    return found


def atan2(input: Tensor, other: Tensor) -> Tensor:
    """The angle of the point (other, input), from -pi to pi."""
    return _floating_pair(Atan2, input, other)


def hypot(input: Tensor, other: Tensor) -> Tensor:
    """sqrt(input**2 + other**2), without overflow."""
    return _floating_pair(Hypot, input, other)


def logaddexp(input: Tensor, other: Tensor) -> Tensor:
    """log(exp(input) + exp(other)), without overflow."""
    return _floating_pair(LogAddExp, input, other)


def logaddexp2(input: Tensor, other: Tensor) -> Tensor:
    """log2(2**input + 2**other), without overflow."""
    return _floating_pair(LogAddExp2, input, other)


def copysign(input: Tensor, other: Any) -> Tensor:
    """The magnitude of `input` with the sign of `other`."""
    require_tensor("copysign", "input", input)
    x, y = operands("copysign", input, other)
    found: Tensor = apply(CopySign, as_float(x), as_float(y))
    return found


def nextafter(input: Tensor, other: Tensor) -> Tensor:
    """The next representable number after `input` towards `other`."""
    return _same_pair(NextAfter, input, other)


def gcd(input: Tensor, other: Tensor) -> Tensor:
    """The greatest common divisor of integers."""
    return _same_pair(Gcd, input, other)


def lcm(input: Tensor, other: Tensor) -> Tensor:
    """The least common multiple of integers."""
    return _same_pair(Lcm, input, other)


def ldexp(input: Tensor, other: Tensor) -> Tensor:
    """input * 2**other."""
    require_tensor("ldexp", "input", input)
    require_tensor("ldexp", "other", other)
    return mul(input, as_float(other).exp2())


def xlogy(input: Any, other: Any) -> Tensor:
    """input * log(other), 0 where input is 0 (unless other is nan)."""
    x, y = operands("xlogy", input, other)
    x, y = as_float(x), as_float(y)
    result = x * y.log().masked_fill(x == 0, 0)
    found: Tensor = where(y.isnan(), y, result)
    return found


def lerp(input: Tensor, end: Tensor, weight: Any) -> Tensor:
    """input + weight * (end - input)."""
    if input._data.dtype != end._data.dtype:
        raise RuntimeError(f"lerp: expected dtype {input.dtype} for `end` but got dtype {end.dtype}.")
    if isinstance(weight, Tensor) and weight._data.dtype != input._data.dtype and weight._data.ndim:
        raise RuntimeError(f"lerp: expected dtype {input.dtype} for `weight` but got dtype {weight.dtype}.")
    found: Tensor = apply(Lerp, input, end, as_operand("lerp", weight, input).to(input.dtype))
    return found


class Lerp(Op):
    """x + w * (y - x), computed from the nearer end."""

    name = "lerp"

    @staticmethod
    def forward(ctx: Any, x: Any, y: Any, w: Any) -> Any:
        ctx.save_inputs(0, 1, 2)
        step = y - x
        return np.where(np.abs(w) < 0.5, x + w * step, y - step * (1 - w)).astype(x.dtype, copy=False)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, y, w = ctx.saved
        return grad * conj(1 - w), grad * conj(w), grad * conj(y - x)


def addcmul(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Any = 1) -> Tensor:
    """input + value * tensor1 * tensor2."""
    product = mul(tensor1, tensor2)
    return add(input, product if value == 1 else mul(product, value))


def addcdiv(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Any = 1) -> Tensor:
    """input + value * tensor1 / tensor2."""
    if result_type(tensor1, tensor2).kind < FLOATING:
        raise RuntimeError(
            "addcdiv: Integer division with addcdiv is no longer supported: use input + value * torch.trunc(tensor1 "
            "/ tensor2)."
        )
    quotient = div(tensor1, tensor2)
    return add(input, quotient if value == 1 else mul(quotient, value))


def isin(elements: Any, test_elements: Any, *, assume_unique: bool = False, invert: bool = False) -> Tensor:
    """Whether each element occurs among `test_elements`."""
    x, y = operands("isin", elements, test_elements)
    found: Tensor = apply(IsIn, x, y, invert=invert)
    return found


class IsIn(Op):
    """Membership of each element."""

    name = "isin"

    @staticmethod
    def forward(ctx: Any, x: Any, y: Any, *, invert: bool) -> Any:
        return np.isin(x, y, invert=invert)


# --- norms


class EuclideanNorm(Op):
    """The square root of the sum of squared magnitudes; its gradient at zero is zero."""

    name = "linalg_vector_norm"

    @staticmethod
    def forward(ctx: Any, x: Any, *, dims: Any, keepdim: bool) -> Any:
        ctx.save_inputs(0)
        ctx.save_outputs(0)
        ctx.shape, ctx.dims, ctx.keepdim = x.shape, dims, keepdim
        work = np.abs(x) if x.dtype.kind == "c" else x.astype(np.float32) if x.dtype == np.float16 else x
        found = np.asarray(np.sqrt(np.add.reduce(work * work, axis=dims, keepdims=keepdim)))
        return found.astype(x.dtype) if x.dtype == np.float16 else found

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, result = ctx.saved
        size = restore_dims(result, ctx)
        return x * (restore_dims(grad, ctx) / size).masked_fill(size == 0, 0)


def vector_norm(x: Tensor, ord: Any = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The p-norm of the elements over `dim` (all elements unless given); ord may be inf, -inf or 0."""
    if dtype is not None:
        x = cast(x, dtype)
    if x.dtype.kind < FLOATING:
        raise RuntimeError(
            f"linalg.vector_norm: Expected a floating point or complex tensor as input. Got {x.dtype.legacy_name}."
        )
    dims = as_dims("linalg.vector_norm", dim, x._data.ndim)
    if x.dtype is dtypes.float16 and ord not in (0, 2, math.inf, -math.inf):  # powers overflow half precision
        found = vector_norm(cast(x, dtypes.float32), ord, dim, keepdim)
        return cast(found, dtypes.float16)
    if ord == 2:
        return apply(EuclideanNorm, x, dims=dims, keepdim=keepdim)
    size = x.abs()
    if ord == math.inf:
        return amax(size, dims, keepdim)
    if ord == -math.inf:
        return amin(size, dims, keepdim)
    if ord == 0:  # piecewise constant, but part of the graph as in PyTorch
        return sum((x != 0).to(size.dtype) + size.masked_fill(size == size, 0), dims, keepdim)
    if ord == 1:
        return sum(size, dims, keepdim)
    total = sum(size**ord, dims, keepdim)
    return _root(total, ord)


def _root(total: Tensor, ord: Any) -> Tensor:
    """total ** (1 / ord) whose gradient at zero is zero."""
    zero = total == 0
    if not bool(zero._data.any()):
        return total ** (1 / ord)
    found: Tensor = (total.masked_fill(zero, 1) ** (1 / ord)).masked_fill(zero, 0 if ord > 0 else math.inf)
    return found


def norm(input: Tensor, p: Any = "fro", dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Tensor:
    """The p-norm over `dim`; 'fro' is the root of the sum of squares, over all elements unless `dim` is given."""
    if p == "nuc":
        raise NotImplementedError(
            "norm: p='nuc' needs singular values, which Faltung doesn't compute. Use 'fro' or a number."
        )
    order = 2 if p in ("fro", None) else as_number(p)
    if not is_number(order):
        raise ValueError(f"norm: expected p to be a number, 'fro' or 'nuc', got {p!r}.")
    return vector_norm(input, order, dim, keepdim, dtype=dtype)


def dist(input: Tensor, other: Tensor, p: Any = 2) -> Tensor:
    """The p-norm of input - other."""
    return vector_norm(input - other, p)


def renorm(input: Tensor, p: float, dim: int, maxnorm: float) -> Tensor:
    """Slices along `dim` scaled down so that their p-norm is at most `maxnorm`."""
    if input._data.ndim < 2:
        raise RuntimeError(f"renorm: input needs at least 2 dimensions, got {input._data.ndim} dimensions.")
    at = as_dims("renorm", dim, input._data.ndim)[0]
    others = tuple(d for d in range(input._data.ndim) if d != at)
    sizes = vector_norm(input, p, others, True)
    scale = where(sizes > maxnorm, maxnorm / (sizes + 1e-7), sizes.new_ones(()))
    return mul(input, scale)


def quantile(
    input: Tensor, q: Any, dim: int | None = None, keepdim: bool = False, *, interpolation: str = "linear"
) -> Tensor:
    """The q-th quantiles along `dim`, between neighbours as `interpolation` says; nan where any element is."""
    return _quantile(input, q, dim, keepdim, interpolation, skip_nan=False)


def nanquantile(
    input: Tensor, q: Any, dim: int | None = None, keepdim: bool = False, *, interpolation: str = "linear"
) -> Tensor:
    """The q-th quantiles of the elements that aren't nan."""
    return _quantile(input, q, dim, keepdim, interpolation, skip_nan=True)


def _quantile(input: Tensor, q: Any, dim: int | None, keepdim: bool, interpolation: str, skip_nan: bool) -> Tensor:
    if input.dtype not in (dtypes.float32, dtypes.float64):
        raise RuntimeError(f"quantile: input tensor must be either float or double dtype, got {input.dtype}.")
    if interpolation not in ("linear", "lower", "higher", "midpoint", "nearest"):
        raise RuntimeError(
            "quantile: interpolation must be one of linear, lower, higher, midpoint or nearest, but got "
            f"{interpolation}."
        )
    wanted = q if isinstance(q, Tensor) else as_operand("quantile", q).to(input.dtype)
    if wanted._data.size and (wanted._data.min() < 0 or wanted._data.max() > 1):
        raise RuntimeError("quantile: q values must be in the range [0, 1].")
    if wanted._data.ndim > 1:
        raise RuntimeError("quantile: q must be a scalar or 1D tensor.")
    if not input._data.size:
        raise RuntimeError("quantile: input tensor must be non-empty.")
    whole = dim is None or not input._data.ndim
    x = input.reshape(-1) if whole else input
    at = 0 if whole else as_dims("quantile", dim, input._data.ndim)[0]
    ordered = x.sort(at).values.movedim(at, -1)  # nan last
    nans = ordered._data != ordered._data
    last = ordered._data.shape[-1] - 1 - (np.count_nonzero(nans, axis=-1, keepdims=True) if skip_nan else 0)
    rows = (*ordered._data.shape[:-1], wanted._data.size)
    places = (wanted.reshape(-1) * Tensor._wrap(np.maximum(last, 0).astype(input._data.dtype))).expand(rows)
    low, high, share = _neighbours(places, interpolation)
    found = lerp(gather(ordered, -1, low), gather(ordered, -1, high), share)
    if not skip_nan:
        found = found.masked_fill(ordered.isnan().any(-1, keepdim=True), math.nan)
    found = found.movedim(-1, 0) if wanted._data.ndim else found.squeeze(-1)
    if keepdim:
        shape = [1] * input._data.ndim if whole else list(input._data.shape)
        if shape:
            shape[at] = 1
        found = found.reshape([*found.shape[: wanted._data.ndim], *shape])
    return found  # methods are bound at run time


def _neighbours(places: Tensor, interpolation: str) -> tuple[Tensor, Tensor, Tensor]:
    """The positions on both sides, and how far towards the second the result lies."""
    if interpolation == "lower":
        places = places.floor()
    elif interpolation == "higher":
        places = places.ceil()
    elif interpolation == "nearest":
        places = places.round()
    low, high = places.floor(), places.ceil()
    share = (low != high).to(places.dtype) * 0.5 if interpolation == "midpoint" else places - low
    return low.long(), high.long(), share
