"""Combining values at equal positions by sum, product, mean, maximum or minimum."""

from __future__ import annotations

from typing import Any

import numpy as np

from faltung.autograd.graph import Op
from faltung.ops.apply import apply
from faltung.ops.dims import wrap_dim
from faltung.ops.gather import (
    along,
    check_gather_shape,
    check_range,
    checked_positions,
    gather,
    scatter,
    scatter_add,
    scatter_arrays,
    scatter_source,
)
from faltung.tensor import Tensor

_UFUNCS: dict[str, Any] = {
    "sum": np.add,
    "mean": np.add,
    "prod": np.multiply,
    "amax": np.maximum,
    "amin": np.minimum,
}


class ScatterReduce(Op):
    """`source` combined into x at positions along a dimension; x itself takes part if `include_self`."""

    name = "scatter_reduce"

    @staticmethod
    def forward(ctx: Any, x: Any, index: Any, source: Any, *, dim: int, reduce: str, include_self: bool) -> Any:
        ctx.save_inputs(0, 1, 2)
        ctx.save_outputs(0)
        ctx.dim, ctx.reduce, ctx.include_self = dim, reduce, include_self
        found = x.copy(order="K")
        target, source, index = scatter_arrays(found, source, index)
        key = along(target, index, dim)
        if not include_self:
            target[key] = neutral(x.dtype, reduce)
        _UFUNCS[reduce].at(target, key, source)
        if reduce == "mean":
            counts = np.full(target.shape, int(include_self), np.int64)
            np.add.at(counts, key, 1)
            counts = np.maximum(counts, 1)
            if x.dtype.kind in "iu":
                target //= counts.astype(x.dtype)
            else:
                target /= counts.astype(x.dtype)
        return found

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, index, source, result = ctx.saved
        rule = {"prod": _product_gradients, "mean": _mean_gradients, "sum": _sum_gradients}.get(
            ctx.reduce, _extreme_gradients
        )
        gx, gs = rule(ctx, grad, x, index, source, result)
        if not ctx.include_self:
            gx = scatter(gx, ctx.dim, index, 0)
        return gx, None, gs


def neutral(numpy_type: Any, reduce: str) -> Any:
    """The value that changes nothing under a reduction."""
    if reduce in ("sum", "mean"):
        return 0
    if reduce == "prod":
        return 1
    if numpy_type.kind == "b":
        return reduce == "amin"
    if numpy_type.kind == "f":
        return -np.inf if reduce == "amax" else np.inf
    limits = np.iinfo(numpy_type)
    return limits.min if reduce == "amax" else limits.max


def _sum_gradients(ctx: Any, grad: Tensor, x: Tensor, index: Tensor, source: Tensor, result: Tensor) -> Any:
    return grad, gather(grad, ctx.dim, index)


def _mean_gradients(ctx: Any, grad: Tensor, x: Tensor, index: Tensor, source: Tensor, result: Tensor) -> Any:
    start = x.new_ones(x.shape) if ctx.include_self else x.new_zeros(x.shape)
    counts = scatter_add(start, ctx.dim, index, source.new_ones(source.shape)).clamp(min=1)
    return grad / counts, gather(grad / counts, ctx.dim, index)


def _extreme_gradients(ctx: Any, grad: Tensor, x: Tensor, index: Tensor, source: Tensor, result: Tensor) -> Any:
    """Equal extremes share the gradient."""
    from_self = (x == result).to(grad.dtype)
    from_source = (source == gather(result, ctx.dim, index)).to(grad.dtype)
    count = scatter_add(from_self if ctx.include_self else from_self * 0, ctx.dim, index, from_source)
    share = grad / count.clamp(min=1)
    return from_self * share, from_source * gather(share, ctx.dim, index)


def _product_gradients(ctx: Any, grad: Tensor, x: Tensor, index: Tensor, source: Tensor, result: Tensor) -> Any:
    """The product of the others: by division where nothing is zero, by the product of the rest where one factor is."""
    masked_self = x.masked_fill(x == 0, 1)
    masked_result = scatter_reduce(masked_self, ctx.dim, index, source, "prod", include_self=ctx.include_self)
    gx = grad * masked_result / masked_self
    zeros = (source == 0).to(grad.dtype)
    count = scatter_add(grad.new_zeros(grad.shape), ctx.dim, index, zeros)
    one_zero = zeros.bool() & (gather(count, ctx.dim, index) == 1)
    nonzero_source = source.masked_fill(source == 0, 1)
    rest = scatter_reduce(x, ctx.dim, index, nonzero_source, "prod", include_self=ctx.include_self)
    by_division = gather(grad * result, ctx.dim, index) / nonzero_source
    gs = by_division.where(~one_zero, gather(grad * rest, ctx.dim, index))
    return gx, gs


def scatter_reduce(
    input: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    """`src` combined into `input` at positions along `dim` by 'sum', 'prod', 'mean', 'amax' or 'amin'."""
    if reduce not in _UFUNCS:
        raise RuntimeError(
            f"scatter_reduce: reduce argument must be either sum, prod, mean, amax or amin, got {reduce}."
        )
    places = checked_positions("scatter_reduce", index)
    at = wrap_dim("scatter_reduce", dim, input._data.ndim)
    if not places.size:
        return input.clone()  # methods are bound at run time
    check_gather_shape("scatter_reduce", input._data, places, at)
    source = scatter_source("scatter_reduce", input, index, src)
    check_range("scatter_reduce", places, input._data.shape[at] if input._data.ndim else 1, at, RuntimeError)
    if source._data.ndim and source._data.shape != places.shape:
        source = source[tuple(slice(0, n) for n in places.shape)]
    found: Tensor = apply(ScatterReduce, input, index, source, dim=at, reduce=reduce, include_self=include_self)
    return found
