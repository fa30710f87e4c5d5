"""Pooling operations. Average pooling is linear; max pooling is linear given its indices: both have all derivatives."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from faltung import engine
from faltung.autograd.graph import Op
from faltung.autograd.modes import is_grad_enabled
from faltung.engine.geometry import NO_TAP, PoolGeometry
from faltung.ops.apply import apply
from faltung.tensor import Tensor

Ints = tuple[int, ...]


def max_pool(x: Tensor, geometry: PoolGeometry, activation: str = "") -> Tensor:
    """x (N, C, *input) -> largest samples (N, C, *output).

    If x is the result of an `activation`, relu or relu6, that leaves its gradient to the pooling, it is named here:
    where it lets no gradient through, neither do the windows.
    """
    if not (x.requires_grad and is_grad_enabled()):
        return apply(MaxPoolValues, x, geometry=geometry)
    if prod(geometry.kernel) <= NO_TAP:
        return apply(MaxPoolTaps, x, geometry=geometry, activation=activation)[0]
    if activation:
        raise ValueError(f"max_pool: no gradient of {activation} through windows of {prod(geometry.kernel)} samples")
    return max_pool_with_indices(x, geometry)[0]


def max_pool_with_indices(x: Tensor, geometry: PoolGeometry) -> tuple[Tensor, Tensor]:
    """(largest samples, their row-major positions in the plane, int64)."""
    return apply(MaxPool, x, geometry=geometry)


def max_unpool(x: Tensor, indices: Tensor, output: Ints) -> Tensor:
    """x (N, C, *sizes) placed at `indices` in planes of zeros (N, C, *output); later samples overwrite earlier ones."""
    return apply(MaxUnpool, x, indices, output=output)


def avg_pool(x: Tensor, geometry: PoolGeometry, count_include_pad: bool = True, divisor: int | None = None) -> Tensor:
    """x (N, C, *input) -> means (N, C, *output)."""
    return apply(AvgPool, x, geometry=geometry, count_include_pad=count_include_pad, divisor=divisor)


def adaptive_avg_pool(x: Tensor, output: Ints) -> Tensor:
    """x (N, C, *input) -> means of windows as even as possible (N, C, *output)."""
    geometry = _even_windows(tuple(x.shape), output)
    return apply(AdaptiveAvgPool, x, output=output) if geometry is None else avg_pool(x, geometry)


def adaptive_max_pool(x: Tensor, output: Ints) -> tuple[Tensor, Tensor]:
    """(largest samples of the adaptive windows, their positions)."""
    return apply(AdaptiveMaxPool, x, output=output)


def fractional_max_pool(x: Tensor, samples: Tensor, kernel: Ints, output: Ints) -> tuple[Tensor, Tensor]:
    """(largest samples of pseudo-random windows, their positions); samples (N, C, D) in [0, 1) shift the windows."""
    return apply(FractionalMaxPool, x, samples, kernel=kernel, output=output)


def _even_windows(shape: Ints, output: Ints) -> PoolGeometry | None:
    """The plain pooling that an adaptive one amounts to where sizes divide."""
    if not all(count and size % count == 0 for size, count in zip(shape[2:], output, strict=True)):
        return None
    kernel = tuple(size // count for size, count in zip(shape[2:], output, strict=True))
    return PoolGeometry.of(shape, kernel) if prod(shape[2:]) else None


class MaxPoolValues(Op):
    """x -> y where nobody asks for indices or a gradient."""

    name = "MaxPool"
    quiet = True
    backward = None

    @staticmethod
    def forward(ctx: Any, x: np.ndarray, *, geometry: PoolGeometry) -> np.ndarray:
        return engine.call("pool.max_forward", geometry, x, with_indices=False)[0]


class MaxPool(Op):
    """x -> (y, indices)."""

    name = "MaxPoolWithIndices"
    quiet = True

    @staticmethod
    def forward(ctx: Any, x: np.ndarray, *, geometry: PoolGeometry) -> tuple[np.ndarray, np.ndarray]:
        ctx.geometry = geometry
        ctx.save_outputs(1)
        ctx.mark_non_differentiable(1)
        return engine.call("pool.max_forward", geometry, x, with_indices=True)

    @staticmethod
    def backward(ctx: Any, gy: Tensor, _: None) -> Tensor:
        (indices,) = ctx.saved
        return apply(MaxPoolBackward, gy, indices, geometry=ctx.geometry)


class MaxPoolTaps(Op):
    """x -> (y, taps): an eighth of the memory of indices, and of the time to compare them."""

    name = "MaxPoolWithIndices"
    quiet = True

    @staticmethod
    def forward(ctx: Any, x: np.ndarray, *, geometry: PoolGeometry, activation: str) -> tuple[np.ndarray, np.ndarray]:
        ctx.geometry, ctx.activation = geometry, activation
        ctx.save_outputs(1)
        ctx.mark_non_differentiable(1)
        return engine.call("pool.max_taps_forward", geometry, x, activation=activation)

    @staticmethod
    def backward(ctx: Any, gy: Tensor, _: None) -> Tensor:
        (taps,) = ctx.saved
        if not is_grad_enabled():
            return apply(MaxPoolTapsBackward, gy, taps, geometry=ctx.geometry)
        if ctx.activation:
            gy = gy.masked_fill(taps == NO_TAP, 0)
        return apply(MaxPoolBackward, gy, apply(TapIndices, taps, geometry=ctx.geometry), geometry=ctx.geometry)


class MaxPoolTapsBackward(Op):
    """(gy, taps) -> gx."""

    name = "MaxPoolBackward"
    quiet = True
    backward = None

    @staticmethod
    def forward(ctx: Any, gy: np.ndarray, taps: np.ndarray, *, geometry: PoolGeometry) -> np.ndarray:
        return engine.call("pool.max_taps_backward", geometry, gy, taps)


class TapIndices(Op):
    """taps -> indices."""

    name = "TapIndices"
    backward = None

    @staticmethod
    def forward(ctx: Any, taps: np.ndarray, *, geometry: PoolGeometry) -> np.ndarray:
        return engine.call("pool.tap_indices", geometry, taps)


class MaxPoolBackward(Op):
    """(gy, indices) -> gx."""

    name = "MaxPoolBackward"
    quiet = True

    @staticmethod
    def forward(ctx: Any, gy: np.ndarray, indices: np.ndarray, *, geometry: PoolGeometry) -> np.ndarray:
        ctx.geometry = geometry
        ctx.save_inputs(1)
        return engine.call("pool.max_backward", geometry, gy, indices)

    @staticmethod
    def backward(ctx: Any, ggx: Tensor) -> tuple[Tensor, None]:
        (indices,) = ctx.saved
        return apply(MaxPoolGather, ggx, indices, geometry=ctx.geometry), None


class MaxPoolGather(Op):
    """(x, indices) -> x at the indices."""

    name = "MaxPoolGather"

    @staticmethod
    def forward(ctx: Any, x: np.ndarray, indices: np.ndarray, *, geometry: PoolGeometry) -> np.ndarray:
        ctx.geometry = geometry
        ctx.save_inputs(1)
        return engine.call("pool.max_gather", geometry, x, indices)

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> tuple[Tensor, None]:
        (indices,) = ctx.saved
        return apply(MaxPoolBackward, gy, indices, geometry=ctx.geometry), None


class AvgPool(Op):
    """x -> y."""

    name = "AvgPool"

    @staticmethod
    def forward(
        ctx: Any, x: np.ndarray, *, geometry: PoolGeometry, count_include_pad: bool, divisor: int | None
    ) -> np.ndarray:
        ctx.how = {"geometry": geometry, "count_include_pad": count_include_pad, "divisor": divisor}
        return engine.call("pool.avg_forward", geometry, x, count_include_pad=count_include_pad, divisor=divisor)

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Tensor:
        return apply(AvgPoolBackward, gy, **ctx.how)


class AvgPoolBackward(Op):
    """gy -> gx."""

    name = "AvgPoolBackward"

    @staticmethod
    def forward(
        ctx: Any, gy: np.ndarray, *, geometry: PoolGeometry, count_include_pad: bool, divisor: int | None
    ) -> np.ndarray:
        ctx.how = {"geometry": geometry, "count_include_pad": count_include_pad, "divisor": divisor}
        return engine.call("pool.avg_backward", geometry, gy, count_include_pad=count_include_pad, divisor=divisor)

    @staticmethod
    def backward(ctx: Any, ggx: Tensor) -> Tensor:
        return apply(AvgPool, ggx, **ctx.how)


class AdaptiveAvgPool(Op):
    """x -> y."""

    name = "AdaptiveAvgPool"

    @staticmethod
    def forward(ctx: Any, x: np.ndarray, *, output: Ints) -> np.ndarray:
        ctx.input = x.shape[2:]
        return engine.call("pool.adaptive_avg_forward", x, output)

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Tensor:
        return apply(AdaptiveAvgPoolBackward, gy, input=ctx.input)


class AdaptiveAvgPoolBackward(Op):
    """gy -> gx."""

    name = "AdaptiveAvgPoolBackward"

    @staticmethod
    def forward(ctx: Any, gy: np.ndarray, *, input: Ints) -> np.ndarray:
        ctx.output = gy.shape[2:]
        return engine.call("pool.adaptive_avg_backward", gy, input)

    @staticmethod
    def backward(ctx: Any, ggx: Tensor) -> Tensor:
        return apply(AdaptiveAvgPool, ggx, output=ctx.output)


class _IndexedPool(Op):
    """Shared backward of poolings that pick samples: the gradient goes back to where each came from."""

    @staticmethod
    def backward(ctx: Any, gy: Tensor, _: None) -> Any:
        (indices,) = ctx.saved
        gx = apply(PlaneScatter, gy, indices, sizes=ctx.sizes)
        return gx if len(ctx.needs_input_grad) == 1 else (gx, None)


class AdaptiveMaxPool(_IndexedPool):
    """x -> (y, indices)."""

    name = "AdaptiveMaxPool"

    @staticmethod
    def forward(ctx: Any, x: np.ndarray, *, output: Ints) -> tuple[np.ndarray, np.ndarray]:
        ctx.sizes = x.shape[2:]
        ctx.save_outputs(1)
        ctx.mark_non_differentiable(1)
        return engine.call("pool.adaptive_max_forward", x, output)


class FractionalMaxPool(_IndexedPool):
    """(x, samples) -> (y, indices)."""

    name = "FractionalMaxPool"

    @staticmethod
    def forward(
        ctx: Any, x: np.ndarray, samples: np.ndarray, *, kernel: Ints, output: Ints
    ) -> tuple[np.ndarray, np.ndarray]:
        ctx.sizes = x.shape[2:]
        ctx.save_outputs(1)
        ctx.mark_non_differentiable(1)
        return engine.call("pool.fractional_max_forward", x, samples, kernel, output)


def _rows(values: np.ndarray) -> np.ndarray:
    """(N, C, *sizes) -> (N * C, P)."""
    return values.reshape(values.shape[0] * values.shape[1], prod(values.shape[2:]))


class PlaneScatter(Op):
    """(gy, indices) -> gx (N, C, *sizes): samples that share an index add up."""

    name = "PlaneScatter"

    @staticmethod
    def forward(ctx: Any, gy: np.ndarray, indices: np.ndarray, *, sizes: Ints) -> np.ndarray:
        ctx.sizes = sizes
        ctx.save_inputs(1)
        planes = np.zeros((gy.shape[0] * gy.shape[1], prod(sizes)), gy.dtype)
        np.add.at(planes, (np.arange(len(planes))[:, None], _rows(indices)), _rows(gy))
        return planes.reshape(*gy.shape[:2], *sizes)

    @staticmethod
    def backward(ctx: Any, ggx: Tensor) -> tuple[Tensor, None]:
        (indices,) = ctx.saved
        return apply(PlaneGather, ggx, indices), None


class PlaneGather(Op):
    """(x, indices) -> x at the indices, in the shape of the indices."""

    name = "PlaneGather"

    @staticmethod
    def forward(ctx: Any, x: np.ndarray, indices: np.ndarray) -> np.ndarray:
        ctx.sizes = x.shape[2:]
        ctx.save_inputs(1)
        return np.take_along_axis(_rows(x), _rows(indices), axis=1).reshape(indices.shape)

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> tuple[Tensor, None]:
        (indices,) = ctx.saved
        return apply(PlaneScatter, gy, indices, sizes=ctx.sizes), None


class MaxUnpool(Op):
    """(x, indices) -> planes of zeros with x at the indices."""

    name = "MaxUnpool"

    @staticmethod
    def forward(ctx: Any, x: np.ndarray, indices: np.ndarray, *, output: Ints) -> np.ndarray:
        ctx.save_inputs(1)
        planes = np.zeros((x.shape[0] * x.shape[1], prod(output)), x.dtype)
        np.put_along_axis(planes, _rows(indices), _rows(x), axis=1)
        return planes.reshape(*x.shape[:2], *output)

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> tuple[Tensor, None]:
        (indices,) = ctx.saved
        return apply(PlaneGather, gy, indices), None
