"""Convolution and its two gradients in plain NumPy: one matrix product per kernel tap.

Engine calls (x logical (N, I, *input), w (O, I/G, *kernel), gy (N, O, *output); any strides, one dtype for all):

    conv.forward(geometry, x, w, bias, *, cache=None, epilogue=None)  -> y  (N, O, *output), stored channels last
    conv.backward_data(geometry, gy, w, *, cache=None)           -> gx (N, I, *input), stored channels last
    conv.backward_weights(geometry, x, gy, *, with_bias=False)   -> (gw (O, I/G, *kernel), gb (O,) or None)

`bias` is (O,) or None; `epilogue` says what else happens to y (see `engine.epilogue`).
`cache` is a dictionary that lives as long as the weight's present value (or None), for packed
weights; the reference packs nothing. A transposed convolution is `backward_data` of `ConvGeometry.mirrored`.

Letters: N batch, P output positions of a slab of the batch, G groups, I / O channels, i = I/G, o = O/G.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np

from faltung.engine.epilogue import Epilogue
from faltung.engine.geometry import ConvGeometry
from faltung.engine.reference import activation, layout
from faltung.engine.reference.precision import reference

_SLAB_ELEMENTS = 1 << 22  # working elements at a time, so that a large batch does not double its memory


def _taps(geometry: ConvGeometry) -> Iterator[tuple[tuple[int, ...], tuple[slice, ...]]]:
    for tap in np.ndindex(*geometry.kernel):
        yield tap, layout.tap_slices(tap, geometry.output, geometry.stride, geometry.dilation)


def _at(tap: tuple[int, ...]) -> tuple[Any, ...]:
    """Index of one kernel tap in (G, o, i, *kernel)."""
    return (slice(None), slice(None), slice(None), *tap)


def _slabs(geometry: ConvGeometry) -> Iterator[slice]:
    """Slices of the batch whose largest buffer stays near `_SLAB_ELEMENTS`."""
    image = max(_padded_elements(geometry), prod(geometry.output) * geometry.out_channels, 1)
    step = max(1, _SLAB_ELEMENTS // image)
    for start in range(0, geometry.batch, step):
        yield slice(start, min(start + step, geometry.batch))


def _padded_elements(geometry: ConvGeometry) -> int:
    sizes = [size + before + after for size, (before, after) in zip(geometry.input, geometry.padding, strict=True)]
    return prod(sizes) * geometry.in_channels


def _grouped(values: np.ndarray, groups: int) -> np.ndarray:
    """(n, *spatial, C) -> (G, P, C/G)."""
    positions, channels = prod(values.shape[:-1]), values.shape[-1]
    if groups == 1:
        return values.reshape(1, positions, channels)
    return values.reshape(positions, groups, channels // groups).transpose(1, 0, 2)


def _ungrouped(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """(G, P, c) -> shape (n, *spatial, G * c)."""
    return (values[0] if len(values) == 1 else values.transpose(1, 0, 2)).reshape(shape)


def _product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Batched matrix product; with an inner size of one (depthwise) a plain multiplication is far faster."""
    return left * right if left.shape[-1] == 1 else np.matmul(left, right)


@reference()
def forward(
    geometry: ConvGeometry,
    x: np.ndarray,
    w: np.ndarray,
    bias: np.ndarray | None,
    *,
    cache: dict[Any, Any] | None = None,
    epilogue: Epilogue | None = None,
) -> np.ndarray:
    """y[n, o, p] = bias[o] + sum over i, tap of x[n, i, p * stride + tap * dilation - padding] * w[o, i, tap]."""
    g = geometry
    y = layout.empty(g.output_shape, x.dtype)
    panels = w.reshape(g.groups, g.out_channels // g.groups, g.in_channels // g.groups, *g.kernel)  # (G, o, i, *k)
    for slab in _slabs(g):
        padded = layout.padded_last(x[slab], g.padding)
        shape = (len(padded), *g.output, g.out_channels)
        total = np.zeros(shape, x.dtype)
        for tap, index in _taps(g):
            panel = panels[_at(tap)].transpose(0, 2, 1)  # (G, i, o)
            total += _ungrouped(_product(_grouped(padded[index], g.groups), panel), shape)
        if bias is not None:
            total += bias
        layout.to_last(y)[slab] = total
    return y if epilogue is None else _finished(y, epilogue)


def _finished(y: np.ndarray, epilogue: Epilogue) -> np.ndarray:
    if epilogue.affine is not None:
        mean, scale, shift = epilogue.affine.reshape(3, 1, -1, *(1,) * (y.ndim - 2))
        y = (y - mean) * scale + shift
    if epilogue.residual is not None:
        y = y + epilogue.residual
    return activation.activated(y, epilogue.activation)


@reference()
def backward_data(
    geometry: ConvGeometry, gy: np.ndarray, w: np.ndarray, *, cache: dict[Any, Any] | None = None
) -> np.ndarray:
    """gx: every output position hands its gradient, times the weights, back to the samples it met."""
    g = geometry
    gx = layout.empty(g.input_shape, gy.dtype)
    panels = w.reshape(g.groups, g.out_channels // g.groups, g.in_channels // g.groups, *g.kernel)  # (G, o, i, *k)
    sizes = tuple(size + before + after for size, (before, after) in zip(g.input, g.padding, strict=True))
    for slab in _slabs(g):
        grad = layout.to_last(gy[slab])
        grouped = _grouped(grad, g.groups)
        padded = np.zeros((len(grad), *sizes, g.in_channels), gy.dtype)
        for tap, index in _taps(g):
            panel = panels[_at(tap)]  # (G, o, i)
            padded[index] += _ungrouped(_product(grouped, panel), (len(grad), *g.output, g.in_channels))
        layout.to_last(gx)[slab] = padded[layout.interior(g.input, g.padding)]
    return gx


@reference()
def backward_weights(
    geometry: ConvGeometry, x: np.ndarray, gy: np.ndarray, *, with_bias: bool = False
) -> tuple[np.ndarray, np.ndarray | None]:
    """(gw, gb): correlation of x with gy, and with `with_bias` the sum of gy over batch and positions (else None)."""
    g = geometry
    o, i = g.out_channels // g.groups, g.in_channels // g.groups
    gw = np.zeros((*g.kernel, g.groups, o, i), x.dtype)
    gb = np.zeros(g.out_channels, x.dtype) if with_bias else None
    for slab in _slabs(g):
        grad = layout.to_last(gy[slab])
        rows = _grouped(grad, g.groups).transpose(0, 2, 1)  # (G, o, P)
        padded = layout.padded_last(x[slab], g.padding)
        for tap, index in _taps(g):
            gw[tap] += np.matmul(rows, _grouped(padded[index], g.groups))
        if gb is not None:
            flat = grad.reshape(prod(grad.shape[:-1]), g.out_channels)
            gb += np.ones(len(flat), gy.dtype) @ flat  # as a product: NumPy would add the rows one after the other
    ndim = g.ndim
    logical = gw.transpose(ndim, ndim + 1, ndim + 2, *range(ndim)).reshape(g.weight_shape)
    return np.ascontiguousarray(logical), gb
