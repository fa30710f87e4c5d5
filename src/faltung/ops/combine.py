"""Products, statistics and rearrangements that are written with other operations."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from faltung import dtypes
from faltung.autograd.graph import Op
from faltung.ops.apply import apply
from faltung.ops.arithmetic import conj
from faltung.ops.complex_numbers import make_complex
from faltung.ops.composed import vector_norm
from faltung.ops.dims import wrap_dim
from faltung.ops.gather import index_select
from faltung.ops.join import cat
from faltung.ops.powers import pow as power
from faltung.ops.promotion import as_float, cast, operands
from faltung.ops.shape import reshape
from faltung.ops.split import narrow, select, split, tensor_split
from faltung.tensor import Tensor

_wrap = Tensor._wrap


# --- repetition and parts


def repeat_interleave(
    input: Tensor, repeats: Any = None, dim: int | None = None, *, output_size: int | None = None
) -> Tensor:
    """Each element (or slice along `dim`) repeated: a number of times for all, or a tensor with a number for each."""
    if repeats is None:
        if input._data.ndim != 1 or input._data.dtype.kind not in "iu":
            raise RuntimeError("repeat_interleave: repeats must be a 1-d integer tensor where it is the only argument.")
        return _wrap(np.repeat(np.arange(input._data.size), input._data))
    if dim is None:
        input, dim = reshape(input, -1), 0
    at = wrap_dim("repeat_interleave", dim, input._data.ndim)
    size = input._data.shape[at] if input._data.ndim else 1
    times = np.asarray(repeats._data if isinstance(repeats, Tensor) else repeats)
    if times.dtype.kind not in "iu":
        raise RuntimeError(f"repeat_interleave: repeats has to be Long or Int tensor, got {times.dtype.name}.")
    if times.ndim == 1 and times.size not in (1, size):
        raise RuntimeError(
            "repeat_interleave: repeats must have the same size as input along dim, but got repeats.size(0) = "
            f"{times.size} and input.size({dim}) = {size}."
        )
    if times.size and times.min() < 0:
        raise RuntimeError("repeat_interleave: repeats can not be negative.")
    positions = np.repeat(np.arange(size), np.broadcast_to(times.reshape(-1) if times.ndim else times, (size,)))
    return index_select(input, at, _wrap(positions.astype(np.int64)))


def split_with_sizes(input: Tensor, split_sizes: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Views of the given sizes along `dim`."""
    return split(input, list(split_sizes), dim)


def _split_along(where: str, input: Tensor, sections: Any, dim: int, least: int) -> tuple[Tensor, ...]:
    if input._data.ndim < least:
        raise RuntimeError(
            f"{where}: requires a tensor with at least {least} dimension(s), but got a tensor with {input._data.ndim} "
            "dimensions!"
        )
    size = input._data.shape[dim]
    if isinstance(sections, int) and (sections <= 0 or size % sections):
        raise RuntimeError(
            f"{where}: attempted to split along dimension {dim}, but the size of the dimension {size} is not "
            f"divisible by the split_size {sections}!"
        )
    return tensor_split(input, sections, dim)


def hsplit(input: Tensor, indices_or_sections: Any) -> tuple[Tensor, ...]:
    """Split into columns: along dimension 1, or 0 for vectors."""
    return _split_along("hsplit", input, indices_or_sections, 0 if input._data.ndim == 1 else 1, 1)


def vsplit(input: Tensor, indices_or_sections: Any) -> tuple[Tensor, ...]:
    """Split into rows: along dimension 0."""
    return _split_along("vsplit", input, indices_or_sections, 0, 2)


def dsplit(input: Tensor, indices_or_sections: Any) -> tuple[Tensor, ...]:
    """Split along dimension 2."""
    return _split_along("dsplit", input, indices_or_sections, 2, 3)


def _replaced(where: str, input: Tensor, part: Any, src: Tensor) -> Tensor:
    """A copy of `input` with the view that `part` takes of it replaced by `src`."""
    found: Tensor = input.clone()
    view = part(found)
    if view._data.shape != src._data.shape:
        raise RuntimeError(
            f"{where}: expected src to have a size equal to the slice of self. src size = {list(src.shape)}, slice "
            f"size = {list(view.shape)}."
        )
    view.copy_(src)
    return found


def select_scatter(input: Tensor, src: Tensor, dim: int, index: int) -> Tensor:
    """`input` with the slice at `index` of `dim` replaced by `src`."""
    return _replaced("select_scatter", input, lambda x: select(x, dim, index), src)


def slice_scatter(
    input: Tensor, src: Tensor, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Tensor:
    """`input` with the elements start:end:step along `dim` replaced by `src`."""
    at = wrap_dim("slice_scatter", dim, input._data.ndim)
    key = (slice(None),) * at + (slice(start, end, step),)
    return _replaced("slice_scatter", input, lambda x: x[key], src)


def block_diag(*tensors: Tensor) -> Tensor:
    """A matrix of zeros with the given matrices along its diagonal."""
    parts = [x.reshape(1, -1) if x._data.ndim < 2 else x for x in tensors]
    if not parts:
        raise TypeError("block_diag: expected at least one tensor.")
    columns = sum(x._data.shape[1] for x in parts)
    rows, before = [], 0
    for x in parts:
        height, width = x._data.shape
        rows.append(cat([x.new_zeros(height, before), x, x.new_zeros(height, columns - before - width)], 1))
        before += width
    return cat(rows, 0)


def unravel_index(indices: Tensor, shape: Any) -> tuple[Tensor, ...]:
    """Positions in a flattened tensor of `shape`, as one tensor of coordinates per dimension."""
    sizes = (shape,) if isinstance(shape, int) else tuple(shape)
    if indices._data.size and int(indices._data.max()) >= math.prod(sizes):
        raise ValueError(f"unravel_index: indices are out of range for shape {sizes}.")
    return tuple([_wrap(np.asarray(part)) for part in np.unravel_index(indices._data, sizes)])


def combinations(input: Tensor, r: int = 2, with_replacement: bool = False) -> Tensor:
    """All ways to choose r elements of a vector, one row each."""
    if input._data.ndim != 1:
        raise RuntimeError(f"combinations: Expect a 1D vector, but got shape {list(input.shape)}.")
    choose = itertools.combinations_with_replacement if with_replacement else itertools.combinations
    rows = list(choose(range(input._data.size), r))
    return input[_wrap(np.array(rows, np.int64).reshape(len(rows), r))]


# --- complex numbers as pairs


class ViewAsReal(Op):
    """Complex numbers as pairs of reals, in a new last dimension; a view."""

    name = "view_as_real"
    is_view = True
    quiet = True

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        part = np.float32 if x.dtype == np.complex64 else np.float64
        strides = (*x.strides, x.itemsize // 2)
        return np.lib.stride_tricks.as_strided(x.real, (*x.shape, 2), strides, writeable=x.flags.writeable).view(part)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return make_complex(select(grad, -1, 0), select(grad, -1, 1))


class ViewAsComplex(Op):
    """Pairs of reals in the last dimension as complex numbers; a view."""

    name = "view_as_complex"
    is_view = True
    quiet = True

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return x.view(np.complex64 if x.dtype == np.float32 else np.complex128)[..., 0]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return apply(ViewAsReal, grad)


def view_as_real(input: Tensor) -> Tensor:
    """Complex numbers as pairs (real, imaginary) in a new last dimension, sharing memory."""
    if not input.dtype.is_complex:
        raise RuntimeError("view_as_real: is only supported for complex tensors.")
    found: Tensor = apply(ViewAsReal, input)
    return found


def view_as_complex(input: Tensor) -> Tensor:
    """Pairs (real, imaginary) in the last dimension as complex numbers, sharing memory."""
    if input.dtype not in (dtypes.float32, dtypes.float64):
        raise RuntimeError(f"view_as_complex: is only supported for float and double tensors, got {input.dtype}.")
    if not input._data.ndim or input._data.shape[-1] != 2:
        raise RuntimeError("view_as_complex: Tensor must have a last dimension of size 2.")
    if input._data.strides[-1] != input._data.itemsize:
        raise RuntimeError("view_as_complex: Tensor must have a last dimension with stride 1.")
    found: Tensor = apply(ViewAsComplex, input)
    return found


def polar(abs: Tensor, angle: Tensor) -> Tensor:
    """Complex numbers from magnitudes and angles."""
    if abs.dtype is not angle.dtype:
        raise RuntimeError(f"polar: Expected object of scalar type {abs.dtype} but got {angle.dtype} for angle.")
    return make_complex(abs * angle.cos(), abs * angle.sin())


# --- products and statistics


def float_power(input: Any, exponent: Any) -> Tensor:
    """`pow` in double precision."""
    wide = [
        cast(v, dtypes.complex128 if v.dtype.is_complex else dtypes.float64) if isinstance(v, Tensor) else v
        for v in (input, exponent)
    ]
    found = power(*wide)
    return found if found.dtype.itemsize >= 8 and found.dtype.kind >= dtypes.FLOATING else cast(found, dtypes.float64)


def kron(input: Tensor, other: Tensor) -> Tensor:
    """The Kronecker product."""
    rank = max(input._data.ndim, other._data.ndim)
    a = (1,) * (rank - input._data.ndim) + input._data.shape
    b = (1,) * (rank - other._data.ndim) + other._data.shape
    x = input.reshape([n for size in a for n in (size, 1)])
    y = other.reshape([n for size in b for n in (1, size)])
    return (x * y).reshape([n * m for n, m in zip(a, b)])


def cross(input: Tensor, other: Tensor, dim: int | None = None) -> Tensor:
    """The cross product of vectors of three elements along `dim` (the first dimension of size 3 unless given)."""
    x, y = operands("cross", input, other)
    if x._data.ndim != y._data.ndim:
        raise RuntimeError(f"cross: inconsistent dimensions, got {x._data.ndim} and {y._data.ndim}.")
    shape = np.broadcast_shapes(x._data.shape, y._data.shape)
    if dim is None:
        dim = next((d for d, size in enumerate(shape) if size == 3), None)
        if dim is None:
            raise RuntimeError("cross: no dimension of size 3 in input.")
    at = wrap_dim("cross", dim, len(shape))
    if shape[at] != 3:
        raise RuntimeError(
            f"cross: inputs dimension {dim} must have length 3. Got {list(x.shape)} and {list(y.shape)}."
        )
    x, y = x.expand(shape), y.expand(shape)
    return x.roll(-1, at) * y.roll(1, at) - x.roll(1, at) * y.roll(-1, at)


def cdist(x1: Tensor, x2: Tensor, p: float = 2.0, compute_mode: str = "") -> Tensor:
    """p-norms of the differences of all pairs of rows: (*, P, M) and (*, R, M) give (*, P, R)."""
    if x1._data.ndim < 2 or x2._data.ndim < 2:
        raise RuntimeError("cdist: only supports at least 2D tensors.")
    if x1._data.shape[-1] != x2._data.shape[-1]:
        raise RuntimeError(
            f"cdist: X1 and X2 must have the same number of columns. X1: {x1._data.shape[-1]} X2: {x2._data.shape[-1]}."
        )
    if p < 0:
        raise RuntimeError(f"cdist: only supports non-negative p values, got {p}.")
    return vector_norm(x1.unsqueeze(-2) - x2.unsqueeze(-3), p, -1)


def cov(
    input: Tensor, *, correction: int = 1, fweights: Tensor | None = None, aweights: Tensor | None = None
) -> Tensor:
    """The covariance matrix of variables (rows) from observations (columns)."""
    if input._data.ndim > 2:
        raise RuntimeError(f"cov: expected input to have two or fewer dimensions but got {input._data.ndim}.")
    x = as_float(input.reshape(1, -1) if input._data.ndim < 2 else input)
    _check_weights(x, fweights, aweights)
    weight: Any = None
    for part in (fweights, aweights):
        if part is not None:
            weight = part if weight is None else weight * part
    if weight is None:
        total: Any = x._data.shape[1]
        mean = x.mean(1, keepdim=True)
        weighted = x - mean
        divisor: Any = total - correction
    else:
        weight = weight.to(x.dtype)
        total = weight.real.sum()
        mean = (x * weight).sum(1, keepdim=True) / total
        weighted = (x - mean) * weight
        divisor = total - (correction if aweights is None else correction * (weight * aweights).real.sum() / total)
    centred = x - mean
    divisor = max(divisor, 0) if not isinstance(divisor, Tensor) else divisor.clamp(min=0)
    found = (weighted @ conj(centred).t()) / divisor
    return found.squeeze()


def _check_weights(x: Tensor, fweights: Tensor | None, aweights: Tensor | None) -> None:
    for name, weights, kinds in (("fweights", fweights, "iu"), ("aweights", aweights, "f")):
        if weights is None:
            continue
        if weights._data.dtype.kind not in kinds:
            kind = "integral" if kinds == "iu" else "floating point"
            raise RuntimeError(f"cov: expected {name} to have {kind} dtype but got {name} with {weights.dtype} dtype.")
        if weights._data.ndim > 1 or weights._data.size != x._data.shape[1]:
            raise RuntimeError(
                f"cov: expected {name} to have one weight per observation ({x._data.shape[1]}), got shape "
                f"{list(weights.shape)}."
            )
        if weights._data.size and weights._data.min() < 0:
            raise RuntimeError(f"cov: {name} cannot be negative.")


def corrcoef(input: Tensor) -> Tensor:
    """The matrix of correlation coefficients of variables (rows)."""
    found = cov(input)
    if not found._data.ndim:
        return found / found
    scale = found.diagonal().real.sqrt() if found.dtype.is_complex else found.diagonal().sqrt()
    return found / scale.unsqueeze(1) / scale.unsqueeze(0)


def trapezoid(y: Tensor, x: Tensor | None = None, *, dx: Any = 1, dim: int = -1) -> Tensor:
    """The integral along `dim` by the trapezoidal rule."""
    found: Tensor = _trapezoids(y, x, dx, dim).sum(dim)
    return found


def cumulative_trapezoid(y: Tensor, x: Tensor | None = None, *, dx: Any = 1, dim: int = -1) -> Tensor:
    """The running integral along `dim` by the trapezoidal rule."""
    found: Tensor = _trapezoids(y, x, dx, dim).cumsum(dim)
    return found


def _trapezoids(y: Tensor, x: Tensor | None, dx: Any, dim: int) -> Tensor:
    at = wrap_dim("trapezoid", dim, y._data.ndim)
    count = max(y._data.shape[at] - 1, 0)
    heights = (narrow(y, at, y._data.shape[at] - count, count) + narrow(y, at, 0, count)) / 2
    if x is None:
        return heights * dx
    along = at if x._data.ndim == y._data.ndim else x._data.ndim - 1
    widths = narrow(x, along, x._data.shape[along] - count, count) - narrow(x, along, 0, count)
    if x._data.ndim == 1:
        widths = widths.reshape([count if d == at else 1 for d in range(y._data.ndim)])
    return heights * widths


class Histogram(Op):
    """How many elements fall into each of `bins` equal intervals from low to high."""

    name = "histc"

    @staticmethod
    def forward(ctx: Any, x: Any, *, bins: int, low: float, high: float) -> Any:
        inside = x[(x >= low) & (x <= high)].astype(np.float64)
        places = np.minimum(np.floor((inside - low) / (high - low) * bins), bins - 1).astype(np.int64)
        return np.bincount(places.reshape(-1), minlength=bins).astype(x.dtype)


def histc(input: Tensor, bins: int = 100, min: Any = 0, max: Any = 0) -> Tensor:
    """How many elements fall into each of `bins` equal intervals of [min, max] (of the data, where both are equal)."""
    if bins <= 0:
        raise RuntimeError(f"histc: bins must be > 0, got {bins}.")
    low, high = float(min), float(max)
    if low == high and input._data.size:
        low, high = float(input._data.min()), float(input._data.max())
    if low == high:
        low, high = low - 1, high + 1
    if not (math.isfinite(low) and math.isfinite(high)):
        raise RuntimeError(f"histc: range of [{low}, {high}] is not finite.")
    if low > high:
        raise RuntimeError("histc: max must be larger than min.")
    found: Tensor = apply(Histogram, input, bins=bins, low=low, high=high)
    return found
