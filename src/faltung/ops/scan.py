"""Running sums, products and extremes along a dimension."""

from __future__ import annotations

from typing import Any

import numpy as np

from faltung import dtypes, return_types
from faltung.autograd.graph import Op
from faltung.autograd.modes import modes
from faltung.ops.apply import apply
from faltung.ops.arithmetic import conj
from faltung.ops.dims import wrap_dim
from faltung.ops.gather import gather
from faltung.ops.join import cat
from faltung.ops.promotion import as_float, cast
from faltung.tensor import Tensor


class CumSum(Op):
    """Running sums, from the front or from the back."""

    name = "cumsum"

    @staticmethod
    def forward(ctx: Any, x: Any, *, dim: int, backwards: bool) -> Any:
        ctx.dim, ctx.backwards = dim, backwards
        if not x.ndim:
            return x.copy()
        if backwards:
            return np.flip(np.add.accumulate(np.flip(x, dim), dim, dtype=x.dtype), dim).copy()
        return np.add.accumulate(x, dim, dtype=x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return apply(CumSum, grad, dim=ctx.dim, backwards=not ctx.backwards)


class CumProd(Op):
    """Running products."""

    name = "cumprod"

    @staticmethod
    def forward(ctx: Any, x: Any, *, dim: int) -> Any:
        ctx.save_inputs(0)
        ctx.save_outputs(0)
        ctx.dim = dim
        return np.multiply.accumulate(x, dim, dtype=x.dtype) if x.ndim else x.copy()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, result = ctx.saved
        if not x._data.ndim:
            return grad
        if not (x._data == 0).any():
            total: Tensor = apply(CumSum, grad * conj(result), dim=ctx.dim, backwards=True)
            return total / conj(x)
        return _cumprod_gradient(x, grad, ctx.dim)


def _cumprod_gradient(x: Tensor, grad: Tensor, dim: int) -> Tensor:
    """Row by row, for inputs with zeros: sum over outputs j >= i of grad_j times the product of the others up to j."""
    size = x._data.shape[dim]
    rows = []
    for i in range(size):
        before = x.narrow(dim, 0, i).prod(dim, keepdim=True)
        ones = before.new_ones(before.shape)
        later = x.narrow(dim, i + 1, size - i - 1)
        chain = cat([ones, later], dim)
        products = cumprod(chain, dim) * before
        rows.append((conj(products) * grad.narrow(dim, i, size - i)).sum(dim, keepdim=True))
    return cat(rows, dim)


def _whole(input: Tensor, dtype: Any) -> Tensor:
    """Converted to `dtype`; integers and truth values count in int64."""
    if dtype is not None:
        return cast(input, dtype)
    return cast(input, dtypes.int64) if input._data.dtype.kind in "iub" else input


def cumsum(input: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
    """Running sums along `dim`."""
    x = _whole(input, dtype)
    found: Tensor = apply(CumSum, x, dim=wrap_dim("cumsum", dim, x._data.ndim), backwards=False)
    return found


def cumprod(input: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
    """Running products along `dim`."""
    x = _whole(input, dtype)
    found: Tensor = apply(CumProd, x, dim=wrap_dim("cumprod", dim, x._data.ndim))
    return found


class CumExtremePositions(Op):
    """Positions of the running maximum or minimum; the last of equal ones."""

    name = "cummax"
    quiet = True

    @staticmethod
    def forward(ctx: Any, x: Any, *, dim: int, largest: bool) -> Any:
        best = (np.maximum if largest else np.minimum).accumulate(x, dim)
        hit = (x == best) | ((x != x) & (best != best))
        shape = [1] * x.ndim
        shape[dim] = x.shape[dim]
        places = np.arange(x.shape[dim]).reshape(shape)
        return np.maximum.accumulate(np.where(hit, places, 0), dim)


def _cumulative_extreme(where: str, kind: Any, input: Tensor, dim: int, largest: bool) -> Any:
    at = wrap_dim(where, dim, input._data.ndim)
    if not input._data.ndim:
        zero = input.new_zeros((), dtype=dtypes.int64)
        return kind(input.clone(), zero)
    positions: Tensor = apply(CumExtremePositions, input, dim=at, largest=largest)
    return kind(gather(input, at, positions), positions)


def cummax(input: Tensor, dim: int) -> Any:
    """(values, indices) of the running maximum along `dim`."""
    return _cumulative_extreme("cummax", return_types.cummax, input, dim, True)


def cummin(input: Tensor, dim: int) -> Any:
    """(values, indices) of the running minimum along `dim`."""
    return _cumulative_extreme("cummin", return_types.cummin, input, dim, False)


class LogCumSumExp(Op):
    """log of the running sum of exponentials."""

    name = "logcumsumexp"

    @staticmethod
    def forward(ctx: Any, x: Any, *, dim: int) -> Any:
        ctx.save_inputs(0)
        ctx.save_outputs(0)
        ctx.dim = dim
        if not x.ndim:
            return x.copy()
        return np.logaddexp.accumulate(x.astype(np.float64), dim).astype(x.dtype)  # the sum grows by many small terms

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, result = ctx.saved
        if not x._data.ndim:
            return grad
        if modes.grad:  # differentiable again, at the price of overflow for values far apart
            top = x.detach().amax(ctx.dim, keepdim=True)
            shares = (grad * (top - result).exp()).flip(ctx.dim).cumsum(ctx.dim).flip(ctx.dim)
            return shares * (x - top).exp()
        positive = (grad.clamp(min=0).log() - result).flip(ctx.dim)
        negative = ((-grad).clamp(min=0).log() - result).flip(ctx.dim)
        first = (logcumsumexp(positive, ctx.dim).flip(ctx.dim) + x).exp()
        second = (logcumsumexp(negative, ctx.dim).flip(ctx.dim) + x).exp()
        return first - second


def logcumsumexp(input: Tensor, dim: int) -> Tensor:
    """log of the running sum of exponentials along `dim`, without overflow."""
    x = as_float(input)
    if x._data.dtype.kind == "c":
        raise NotImplementedError("logcumsumexp: not implemented for complex tensors.")
    found: Tensor = apply(LogCumSumExp, x, dim=wrap_dim("logcumsumexp", dim, x._data.ndim))
    return found


def diff(
    input: Tensor, n: int = 1, dim: int = -1, prepend: Tensor | None = None, append: Tensor | None = None
) -> Tensor:
    """Differences of neighbours along `dim`, n times."""
    if not input._data.ndim:
        raise RuntimeError("diff: expects input to be at least one-dimensional.")
    if n < 0:
        raise RuntimeError(f"diff: order must be non-negative but got {n}.")
    at = wrap_dim("diff", dim, input._data.ndim)
    if n == 0:
        return input.clone()  # methods are bound at run time
    parts = [part for part in (prepend, input, append) if part is not None]
    x = cat(parts, at) if len(parts) > 1 else input
    for _ in range(n):
        size = x._data.shape[at]
        if size < 2:
            return x.narrow(at, 0, 0)
        later, earlier = x.narrow(at, 1, size - 1), x.narrow(at, 0, size - 1)
        x = later ^ earlier if x._data.dtype.kind == "b" else later - earlier
    return x
