"""Dropout given the mask: x * (keep ? scale : 0), elementwise or by whole channels.

    elements    for blocks in chunks: for elements, 2 vectors at a time: y = x * (keep ? scale : 0)     # keep: bytes
    channels    for samples n and blocks of rows in chunks: for channels: y = x * factor[n, channel]    # channels last

Registers: a handful. Bound by memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from llvmlite import ir

from faltung.engine import layout
from faltung.engine.emit import Emitter, Int, i8
from faltung.engine.kernel import Kernel, address, bits
from faltung.engine.kernels import flat

UNROLL = 2
VECTORS = 4


@dataclass(frozen=True)
class Schedule:
    """What shapes the code of one kernel."""

    by: str
    vectors: int


def _emit_elements(e: Emitter, schedule: Schedule) -> None:
    x, keep, y, scale = e.pointer("x"), e.pointer("keep", i8), e.pointer("y"), e.number("scale")

    def body(offset: Int, lanes: int, mask: Any) -> None:
        kept = flat.load(keep.at(offset), lanes, mask)
        bit = e.ir.icmp_unsigned("!=", kept.value, ir.Constant(kept.value.type, None if lanes > 1 else 0))
        factor = e.select(bit, e.splat(scale, lanes), 0.0)
        flat.store(y.at(offset), flat.load(x.at(offset), lanes, mask) * factor, mask)

    flat.over_block(e, schedule.vectors, body)


def _emit_channels(e: Emitter, schedule: Schedule) -> None:
    x, factor, y = e.pointer("x"), e.pointer("factor"), e.pointer("y")
    rows, channels, block_rows, blocks = e.fields("rows channels block_rows blocks")
    sample, start = e.chunk // blocks, e.chunk % blocks * block_rows
    for column, vectors, lanes, mask in flat.columns(e, 0, channels, schedule.vectors):
        factors = [flat.load(factor.at(sample * channels + column + u * lanes), lanes, mask) for u in range(vectors)]
        with e.loop("row", e.smaller(start + block_rows, rows), start=start) as row:
            for u in range(vectors):
                offset = (sample * rows + row.index) * channels + column + u * lanes
                flat.store(y.at(offset), flat.load(x.at(offset), lanes, mask) * factors[u], mask)


@lru_cache(maxsize=8)
def _kernel(by: str, vectors: int) -> Kernel:
    if by == "elements":
        return Kernel("dropout_elements", "x keep y scale n", Schedule(by, vectors), _emit_elements)
    fields = "x factor y rows channels block_rows blocks"
    return Kernel("dropout_channels", fields, Schedule(by, vectors), _emit_channels)


def refuse_forward(x: np.ndarray, keep: np.ndarray, scale: float) -> str | None:
    """The reason against, or None."""
    if keep.dtype != bool:
        return f"the mask is {keep.dtype}, not bool"
    if keep.shape == x.shape:
        return flat.refuse(x)
    if x.ndim < 3 or keep.shape != (*x.shape[:2], *(1 for _ in x.shape[2:])):
        return f"no kernel spreads a mask {keep.shape} over {x.shape}"
    return (
        None if x.dtype == flat.FLOAT and x.size else f"only float32 is generated, not {x.dtype} of {x.size} elements"
    )


def forward(x: np.ndarray, keep: np.ndarray, scale: float) -> np.ndarray:
    """As `reference.dropout.forward`."""
    if keep.shape != x.shape:
        return _by_channels(x, keep, scale)
    if tuple(4 * stride for stride in keep.strides) != x.strides:
        ordered = np.empty_like(x, bool)
        np.copyto(ordered, keep)
        keep = ordered
    y = flat.like(x)
    launch = _kernel("elements", UNROLL).launch
    launch(flat.chunks(x.size), *map(address, (x, keep, y)), bits(scale), x.size)
    return y


def _by_channels(x: np.ndarray, keep: np.ndarray, scale: float) -> np.ndarray:
    x = layout.channels_last(x)
    batch, channels = x.shape[:2]
    rows = x.size // (batch * channels)
    block_rows = max(1, flat.BLOCK // channels)
    factor = np.ascontiguousarray(keep.reshape(batch, channels)) * np.float32(scale)
    y = flat.like(x)
    launch = _kernel("channels", flat.vectors_for(channels, VECTORS)).launch
    blocks = -(-rows // block_rows)
    launch(batch * blocks, *map(address, (x, factor, y)), rows, channels, block_rows, blocks)
    return y


refuse_backward, backward = refuse_forward, forward
