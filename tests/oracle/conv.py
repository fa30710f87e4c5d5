"""Convolution by its definition: one product per output sample, in float64. Shares nothing with the library."""

from __future__ import annotations

import numpy as np

Ints = tuple[int, ...]


def per_dimension(value: int | Ints, ndim: int) -> Ints:
    """An integer for all dimensions, or one each."""
    return (value,) * ndim if isinstance(value, int) else value


def zero_frame(padding: str | int | Ints, kernel: Ints, dilation: Ints) -> list[tuple[int, int]]:
    """(before, after) per dimension."""
    if padding == "valid":
        return [(0, 0)] * len(kernel)
    if padding == "same":
        wanted = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return [(total // 2, total - total // 2) for total in wanted]
    return [(p, p) for p in per_dimension(padding, len(kernel))]


def conv(
    x: np.ndarray,
    w: np.ndarray,
    bias: np.ndarray | None,
    stride: int | Ints = 1,
    padding: str | int | Ints = 0,
    dilation: int | Ints = 1,
    groups: int = 1,
) -> np.ndarray:
    """x (N, I, *spatial), w (O, I/groups, *kernel) -> y (N, O, *output)."""
    n, ndim, kernel = len(x), w.ndim - 2, w.shape[2:]
    strides, dilations = per_dimension(stride, ndim), per_dimension(dilation, ndim)
    frame = zero_frame(padding, kernel, dilations)
    padded = np.pad(x.astype(np.float64), [(0, 0), (0, 0), *frame])
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True)]
    output = [(size - span) // s + 1 for size, span, s in zip(padded.shape[2:], spans, strides, strict=True)]
    out_channels, per_group = len(w), w.shape[1]
    y = np.zeros((n, out_channels, *output))
    for o in range(out_channels):
        first = o // (out_channels // groups) * per_group
        for position in np.ndindex(*output):
            window = tuple(
                slice(p * s, p * s + span, d) for p, s, span, d in zip(position, strides, spans, dilations, strict=True)
            )
            patch = padded[(slice(None), slice(first, first + per_group), *window)]
            y[(slice(None), o, *position)] = (patch * w[o].astype(np.float64)).sum(axis=tuple(range(1, ndim + 2)))
    return y if bias is None else y + bias.astype(np.float64).reshape(1, -1, *(1,) * ndim)


def conv_transpose(
    x: np.ndarray,
    w: np.ndarray,
    bias: np.ndarray | None,
    stride: int | Ints = 1,
    padding: int | Ints = 0,
    output_padding: int | Ints = 0,
    groups: int = 1,
    dilation: int | Ints = 1,
) -> np.ndarray:
    """Every sample of x (N, I, *spatial) stamps its kernel w (I, O/groups, *kernel) into the result."""
    n, in_channels, *sizes = x.shape
    ndim, kernel, per_group = w.ndim - 2, w.shape[2:], w.shape[1]
    strides, dilations = per_dimension(stride, ndim), per_dimension(dilation, ndim)
    pads, extra = per_dimension(padding, ndim), per_dimension(output_padding, ndim)
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True)]
    canvas = [(size - 1) * s + span + e for size, s, span, e in zip(sizes, strides, spans, extra, strict=True)]
    y = np.zeros((n, per_group * groups, *canvas))
    for i in range(in_channels):
        first = i // (in_channels // groups) * per_group
        for position in np.ndindex(*sizes):
            window = tuple(
                slice(p * s, p * s + span, d) for p, s, span, d in zip(position, strides, spans, dilations, strict=True)
            )
            value = x[(slice(None), i, *position)].astype(np.float64).reshape(n, *(1,) * (ndim + 1))
            y[(slice(None), slice(first, first + per_group), *window)] += value * w[i].astype(np.float64)
    cut = tuple(slice(p, size - p) for p, size in zip(pads, canvas, strict=True))
    y = y[(slice(None), slice(None), *cut)]
    return y if bias is None else y + bias.astype(np.float64).reshape(1, -1, *(1,) * ndim)
