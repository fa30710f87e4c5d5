"""Depthwise convolution: one input channel per group, any channel multiplier; forward and both gradients.

The rows of channel vectors of `group_rows` need nothing permuted here: an input vector is L channels, loaded once per
column of a tile and multiplied by each tap that the column serves. With a multiplier m, an input channel is spread over
m lanes.

    for row in strip, for vector of channels, for tile of P pixels:
        for kernel row that meets the input:
            for column that the tile reads: v = source[column];  acc[p] += v * weight[k] for each (p, k) it serves

A 3x3 kernel at stride 1 does 9 multiply-adds for 3 (P + 2) / P loads of inputs, so arithmetic, not L1, sets the pace;
large planes are bound by memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from faltung.engine.geometry import ConvGeometry
from faltung.engine.kernels import conv_grouped, conv_grouped_weights

forward = conv_grouped.forward
backward_data = conv_grouped.backward_data
backward_weights = conv_grouped_weights.backward_weights

Cache = dict[Any, Any] | None


def refuse_forward(
    geometry: ConvGeometry, x: np.ndarray, w: np.ndarray, bias: np.ndarray | None, **_: Any
) -> str | None:
    """None if this kernel computes the forward pass, else why not."""
    return _refuse(geometry) or conv_grouped.refuse_forward(geometry, x, w, bias)


def refuse_backward_data(geometry: ConvGeometry, gy: np.ndarray, w: np.ndarray, *, cache: Cache = None) -> str | None:
    """None if this kernel computes the data gradient, else why not."""
    return _refuse(geometry) or conv_grouped.refuse_backward_data(geometry, gy, w)


def refuse_backward_weights(
    geometry: ConvGeometry, x: np.ndarray, gy: np.ndarray, *, with_bias: bool = False
) -> str | None:
    """None if this kernel computes the weight gradient, else why not."""
    return _refuse(geometry) or conv_grouped_weights.refuse_backward_weights(geometry, x, gy)


def _refuse(g: ConvGeometry) -> str | None:
    return None if g.groups == g.in_channels else f"{g.in_channels} input channels in {g.groups} groups"
