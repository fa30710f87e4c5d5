"""Reductions over some or all dimensions."""

from __future__ import annotations

import builtins
import math
from typing import Any

import numpy as np

from faltung import dtypes, engine
from faltung.autograd.graph import Op
from faltung.dtypes import FLOATING, OF_NUMPY
from faltung.ops.apply import apply
from faltung.ops.arithmetic import conj
from faltung.ops.dims import as_dims, wrap_dim
from faltung.ops.promotion import as_float, cast
from faltung.tensor import Tensor


def restore_dims(t: Tensor, ctx: Any) -> Tensor:
    """A reduced tensor with its reduced dimensions back as size 1 (`ctx.shape`, `ctx.dims`, `ctx.keepdim`)."""
    if ctx.keepdim or len(ctx.dims) == len(ctx.shape):  # a single number broadcasts as it is
        return t
    shape = tuple([1 if dim in ctx.dims else size for dim, size in enumerate(ctx.shape)])
    found: Tensor = t.reshape(shape)
    return found


def _accumulator(x: Any) -> Any:
    """The type to add up in: float16 is summed in float32, as PyTorch does."""
    return np.float32 if x.dtype == np.float16 else x.dtype


_LARGE = 1 << 14  # elements: from here on the way to the engine is short beside the work


def large(x: Any, dims: Any) -> bool:
    """Whether a reduction is one for the engine."""
    return x.size >= _LARGE and x.dtype == np.float32 and len(dims) > 0


def with_dims(found: Any, x: Any, dims: Any, keepdim: bool) -> Any:
    """A reduced array with its reduced dimensions back as size 1, if they are to stay."""
    if not keepdim:
        return found
    return found.reshape(tuple([1 if dim in dims else size for dim, size in enumerate(x.shape)]))


def _total(x: Any, dims: Any, keepdim: bool, exact: bool = False) -> Any:
    """Sum over dimensions; `exact` leaves float16 sums in float32."""
    if large(x, dims):
        return with_dims(engine.call("reduce.sum", x, dims), x, dims, keepdim)
    found = np.add.reduce(x, axis=dims, dtype=_accumulator(x), keepdims=keepdim)
    return found if exact or found.dtype == x.dtype else found.astype(x.dtype)


class Sum(Op):
    """Sum over dimensions."""

    name = "sum"

    @staticmethod
    def forward(ctx: Any, x: Any, *, dims: Any, keepdim: bool) -> Any:
        ctx.shape, ctx.dims, ctx.keepdim = x.shape, dims, keepdim
        return _total(x, dims, keepdim)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        found: Tensor = restore_dims(grad, ctx).expand(ctx.shape)
        return found


class Mean(Op):
    """Mean over dimensions."""

    name = "mean"

    @staticmethod
    def forward(ctx: Any, x: Any, *, dims: Any, keepdim: bool) -> Any:
        ctx.shape, ctx.dims, ctx.keepdim = x.shape, dims, keepdim
        ctx.count = math.prod([x.shape[dim] for dim in dims])
        total = np.asarray(_total(x, dims, keepdim, exact=True))
        return np.true_divide(total, total.dtype.type(ctx.count)).astype(x.dtype, copy=False)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        found: Tensor = (restore_dims(grad, ctx) / max(ctx.count, 1)).expand(ctx.shape)
        return found


def sum(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """Sum of all elements, or over `dim`; integers and truth values add up in int64."""
    if dtype is not None:
        input = cast(input, dtype)
    elif input._data.dtype.kind in "iub":
        input = cast(input, dtypes.int64)
    found: Tensor = apply(Sum, input, dims=as_dims("sum", dim, input._data.ndim), keepdim=keepdim)
    return found


def nansum(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """Sum that takes nan for zero."""
    return sum(input.masked_fill(input.isnan(), 0), dim, keepdim, dtype=dtype)


def mean(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """Mean of all elements, or over `dim`."""
    if dtype is not None:
        input = cast(input, dtype)
    if OF_NUMPY[input._data.dtype].kind < FLOATING:
        raise RuntimeError(
            f"mean: could not infer output dtype. Input dtype must be either a floating point or complex dtype. Got: "
            f"{input.dtype.legacy_name}. Convert it with .float(), or pass dtype=faltung.float32."
        )
    found: Tensor = apply(Mean, input, dims=as_dims("mean", dim, input._data.ndim), keepdim=keepdim)
    return found


def nanmean(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """Mean of the elements that aren't nan."""
    return nansum(input, dim, keepdim, dtype=dtype) / sum(~input.isnan(), dim, keepdim)


def sum_to_size(input: Tensor, *size: Any) -> Tensor:
    """Sum over the dimensions along which a tensor of shape `size` would be broadcast to this one."""
    shape = tuple(size[0]) if len(size) == 1 and isinstance(size[0], tuple | list) else tuple(size)
    given = input._data.shape
    offset = len(given) - len(shape)
    if offset < 0 or builtins.any(want not in (1, got) for want, got in zip(shape, given[offset:])):
        raise RuntimeError(f"sum_to_size: size {list(shape)} is not expandable to size {list(given)}.")
    dims = [*range(offset), *(offset + i for i, want in enumerate(shape) if want == 1 and given[offset + i] != 1)]
    if not shape and input._data.dtype.kind in "iub":
        return sum(input)
    if dims:
        if input._data.dtype.kind in "iub":
            input = cast(input, dtypes.int64)
        input = apply(Sum, input, dims=tuple(dims), keepdim=True)
    found: Tensor = input.reshape(shape) if offset else input
    return found


# --- variance


class Var(Op):
    """Variance over dimensions, around the mean of the same pass."""

    name = "var"

    @staticmethod
    def forward(ctx: Any, x: Any, *, dims: Any, correction: Any, keepdim: bool) -> Any:
        ctx.save_inputs(0)
        ctx.shape, ctx.dims, ctx.keepdim = x.shape, dims, keepdim
        count = math.prod([x.shape[dim] for dim in dims])
        ctx.divisor = max(count - correction, 0)
        work = x.astype(np.float32) if x.dtype == np.float16 else x
        center = np.add.reduce(work, axis=dims, keepdims=True) / count if count else np.nan
        deviation = work - center
        squares = (deviation.real**2 + deviation.imag**2) if x.dtype.kind == "c" else deviation * deviation
        total = np.asarray(np.add.reduce(squares, axis=dims, keepdims=keepdim))
        found = np.true_divide(total, total.dtype.type(ctx.divisor))
        return found.astype(x.dtype, copy=False) if x.dtype.kind == "f" else found

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved
        center = mean(x, ctx.dims, True) if x.dim() else x
        scale = 2 / ctx.divisor if ctx.divisor else math.inf
        return restore_dims(grad, ctx) * (x - center) * scale


def _correction(where: str, unbiased: Any, correction: Any) -> Any:
    if unbiased is not None and correction is not None:
        raise TypeError(f"{where}: expected unbiased or correction, got both.")
    if correction is not None:
        return correction
    return 1 if unbiased is None or unbiased else 0


def _dispersion_arguments(dim: Any, unbiased: Any) -> tuple[Any, Any]:
    """`var(input, False)` means unbiased=False; PyTorch tells it from dim by its type."""
    return (None, dim) if isinstance(dim, bool) else (dim, unbiased)


def var(
    input: Tensor, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *, correction: Any = None
) -> Tensor:
    """Variance; divides by N - correction (1 unless told otherwise)."""
    dim, unbiased = _dispersion_arguments(dim, unbiased)
    if OF_NUMPY[input._data.dtype].kind < FLOATING:
        raise RuntimeError(f"var: std and var only support floating point and complex dtypes, got {input.dtype}.")
    dims = as_dims("var", dim, input._data.ndim)
    amount = _correction("var", unbiased, correction)
    found: Tensor = apply(Var, input, dims=dims, correction=amount, keepdim=keepdim)
    return found


def std(
    input: Tensor, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *, correction: Any = None
) -> Tensor:
    """Standard deviation, the root of `var`."""
    found: Tensor = var(input, dim, unbiased, keepdim, correction=correction).sqrt()
    return found


def var_mean(
    input: Tensor, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *, correction: Any = None
) -> tuple[Tensor, Tensor]:
    """Variance and mean."""
    dim, unbiased = _dispersion_arguments(dim, unbiased)
    return var(input, dim, unbiased, keepdim, correction=correction), mean(input, dim, keepdim)


def std_mean(
    input: Tensor, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *, correction: Any = None
) -> tuple[Tensor, Tensor]:
    """Standard deviation and mean."""
    dim, unbiased = _dispersion_arguments(dim, unbiased)
    return std(input, dim, unbiased, keepdim, correction=correction), mean(input, dim, keepdim)


# --- products


class Prod(Op):
    """Product over dimensions."""

    name = "prod"

    @staticmethod
    def forward(ctx: Any, x: Any, *, dims: Any, keepdim: bool) -> Any:
        ctx.save_inputs(0)
        ctx.shape, ctx.dims, ctx.keepdim = x.shape, dims, keepdim
        return np.multiply.reduce(x, axis=dims, dtype=x.dtype, keepdims=keepdim)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved
        return restore_dims(grad, ctx) * conj(_product_of_others(x, ctx.dims))


def _product_of_others(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    """For each element, the product of all others over `dims`; right where elements are zero."""
    if not x._data.ndim:
        found: Tensor = x.new_ones(())
        return found
    kept = [dim for dim in range(x.dim()) if dim not in dims]
    lined = x.permute(*kept, *dims)
    flat = lined.reshape(*[x._data.shape[dim] for dim in kept], math.prod([x._data.shape[dim] for dim in dims]))
    count = flat.shape[-1]
    one = flat.new_ones((*flat.shape[:-1], 1))
    before = _cat(one, flat).narrow(-1, 0, count).cumprod(-1)
    after = _cat(one, flat.flip(-1)).narrow(-1, 0, count).cumprod(-1).flip(-1)
    others = (before * after).reshape(lined.shape)
    order = [*kept, *dims]
    found = others.permute(*sorted(range(len(order)), key=order.__getitem__))
    return found


def _cat(*parts: Tensor) -> Tensor:
    from faltung.ops.join import cat

    return cat(parts, -1)


def prod(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """Product of all elements, or over one dimension."""
    if dtype is not None:
        input = cast(input, dtype)
    elif input._data.dtype.kind in "iub":
        input = cast(input, dtypes.int64)
    dims = as_dims("prod", dim, input._data.ndim)
    found: Tensor = apply(Prod, input, dims=dims, keepdim=keepdim)
    return found


# --- truth


class Any_(Op):
    """Whether any element is true."""

    name = "any"

    @staticmethod
    def forward(ctx: Any, x: Any, *, dims: Any, keepdim: bool) -> Any:
        return np.logical_or.reduce(x, axis=dims, keepdims=keepdim)


class All(Op):
    """Whether all elements are true."""

    name = "all"

    @staticmethod
    def forward(ctx: Any, x: Any, *, dims: Any, keepdim: bool) -> Any:
        return np.logical_and.reduce(x, axis=dims, keepdims=keepdim)


def _truth(op: type[Op], input: Tensor, dim: Any, keepdim: bool) -> Tensor:
    found: Tensor = apply(op, input, dims=as_dims(op.name, dim, input._data.ndim), keepdim=keepdim)
    return cast(found, dtypes.uint8) if input.dtype is dtypes.uint8 else found


def any(input: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    """Whether any element (over `dim`) is true."""
    return _truth(Any_, input, dim, keepdim)


def all(input: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    """Whether all elements (over `dim`) are true."""
    return _truth(All, input, dim, keepdim)


class CountNonzero(Op):
    """How many elements aren't zero."""

    name = "count_nonzero"

    @staticmethod
    def forward(ctx: Any, x: Any, *, dims: Any) -> Any:
        return np.asarray(np.count_nonzero(x, axis=dims)).astype(np.int64)


def count_nonzero(input: Tensor, dim: Any = None) -> Tensor:
    """How many elements (over `dim`) aren't zero."""
    found: Tensor = apply(CountNonzero, input, dims=as_dims("count_nonzero", dim, input._data.ndim))
    return found


# --- in the exponent


def logsumexp(input: Tensor, dim: Any, keepdim: bool = False) -> Tensor:
    """log(sum(exp(input))) over `dim`, without overflow."""
    x = as_float(input)
    dims = as_dims("logsumexp", dim, x._data.ndim)
    if not x._data.ndim or not dims:
        found: Tensor = x.clone()
        return found
    if x._data.size == 0:
        return sum(x.exp(), dims, keepdim).log()
    top = x.detach().amax(dims, keepdim=True)
    top = top.masked_fill(top.abs() == math.inf, 0)
    total = sum((x - top).exp(), dims, keepdim).log()
    return total + (top if keepdim else top.reshape(total.shape))


def check_not_empty(where: str, x: Tensor, dim: Any) -> None:
    """IndexError (or RuntimeError without dim) where an extreme of nothing is asked for."""
    if x._data.size:
        return
    if dim is None:
        raise RuntimeError(
            f"{where}: Expected reduction dim to be specified for input.numel() == 0. Specify the reduction dim with "
            "the 'dim' argument."
        )
    for one in dim if isinstance(dim, tuple | list) else (dim,):
        at = wrap_dim(where, one, x._data.ndim)
        if x._data.shape[at] == 0:
            raise IndexError(f"{where}: Expected reduction dim {one} to have non-zero size.")
