"""A channels-last copy of an image batch whose rows carry their zeros: for kernels that need runs without edges.

chunk: rows of the batch:   zeros, the row's pixels, zeros
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from faltung.engine import memory
from faltung.engine.emit import Emitter
from faltung.engine.kernel import Kernel, address
from faltung.engine.kernels.rows import copy_pixels, copy_planes, fill, planes_of

_ROWS_PER_CHUNK = 16


@dataclass(frozen=True, slots=True)
class Schedule:
    """What shapes the code."""

    rows_per_chunk: int
    planes: int  # channels of an input that keeps each in a plane, 0 otherwise


def pad_rows(
    x: np.ndarray, strides: tuple[int, ...], sizes: tuple[int, int, int, int], left: int, width: int
) -> np.ndarray:
    """(N, D, H, width, C) from x with strides (n, c, d, h, w) in elements; `left` zeros come first, negative ones cut.

    `sizes` are x's (N, D, H, W).
    """
    batch, depth, height, columns = sizes
    channels = x.shape[1]
    padded = memory.empty((batch, depth, height, width, channels))
    rows = batch * depth * height
    n, c, d, h, w = strides
    skip, start = max(0, -left), max(0, left)
    real = max(0, min(columns - skip, width - start))
    _kernel(planes_of(channels, c, w)).launch(
        -(-rows // _ROWS_PER_CHUNK), address(x) + 4 * skip * w, address(padded), rows, depth, height, channels, start,
        real, width, n, c, d, h, w,
    )  # fmt: skip
    return padded


@lru_cache(maxsize=8)
def _kernel(planes: int) -> Kernel:
    fields = "x padded rows depth height channels left real width x_n x_c x_d x_h x_w"
    return Kernel("pad_rows", fields, Schedule(_ROWS_PER_CHUNK, planes), emit)


def emit(e: Emitter, s: Schedule) -> None:
    """One chunk of rows."""
    rows, depth, height, channels, left, real, width = e.fields("rows depth height channels left real width")
    x_n, x_c, x_d, x_h, x_w = e.fields("x_n x_c x_d x_h x_w")
    first = e.chunk * s.rows_per_chunk
    with e.loop("row", e.smaller(first + s.rows_per_chunk, rows), start=first) as loop:
        row = loop.index
        n, d, h = row // height // depth, row // height % depth, row % height
        to = e.pointer("padded").at(row * width * channels)
        fill(e, to, left * channels)
        source = e.pointer("x").at(n * x_n + d * x_d + h * x_h)
        if s.planes:
            copy_planes(e, source, to.at(left * channels), real, s.planes, x_c)
        else:
            copy_pixels(e, source, to.at(left * channels), real, channels, x_w, x_c)
        end = left + real
        fill(e, to.at(end * channels), (width - end) * channels)
