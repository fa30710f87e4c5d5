"""Depthwise convolution, one result channel per input channel: reads channels-last rows where they lie.

    for strip of result rows, part of the channels, in chunks:
        for tile of P result columns, for row of the strip, for vector of channels:
            acc[P] = bias
            for kernel row that meets the input:                             its taps' weights in registers
                for column that the tile reads:                                  unrolled
                    v = source[row][column]
                    acc[p] += v * weight[k] for each (p, k) that the column serves
            store the epilogue of acc

Registers: P accumulators + K taps' weights + v. The tile walks down the rows, all channels of a row before the next, so
that what it reads is a narrow column of whole runs of channels, most of it still in L1 from the row above: each input
sample comes from memory (P + K - 1) / P times, and nothing is copied beforehand. Tiles at the sides, which read columns
that do not exist, take zeros there instead; the last tile is moved left to end with the row.

A 3x3 kernel at stride 1 does 9 multiply-adds for 3 (P + 2) / P loads. The forward pass and, with flipped taps, the data
gradient at stride 1 come here; other strides' data gradients, channel multipliers and rows that run along the width are
`conv_grouped`'s, whose ring of rows takes any layout (on Sapphire Rapids it takes twice as long).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from faltung.engine import memory
from faltung.engine.emit import Emitter, Int, Ptr, Vec
from faltung.engine.epilogue import NO_STEPS, Epilogue, Steps, steps_of
from faltung.engine.geometry import ConvGeometry
from faltung.engine.kernel import Kernel, address
from faltung.engine.kernels import conv_grouped, conv_grouped_weights, flat, group_plan, group_walk
from faltung.engine.kernels import epilogue as epilogues
from faltung.engine.kernels.group_rows import Lanes
from faltung.engine.kernels.group_weights import Weights
from faltung.engine.target import Target, host

MOST_COLUMNS = 8  # of a tile: wider ones leave L1 less to keep from row to row
STRIP_ROWS = 4  # result rows of one chunk
CHUNKS = 12  # chunks that are enough; with fewer strips, the channels are shared out too

Cache = dict[Any, Any] | None

backward_weights = conv_grouped_weights.backward_weights


@dataclass(frozen=True, slots=True)
class Schedule:
    """Everything that shapes the code."""

    pixels: int  # P: result columns of a tile
    taps: int  # K: of a kernel row
    stride: int
    dilation: int
    depth: bool  # more than one plane
    tail: bool  # the last vector of channels is not full
    stream: bool  # the result goes past the caches
    epilogue: Steps = NO_STEPS

    @property
    def reach(self) -> int:
        """Source columns from the first to the last that a tile reads."""
        return (self.pixels - 1) * self.stride + (self.taps - 1) * self.dilation + 1

    def uses(self, column: int) -> list[tuple[int, int]]:
        """The (pixel, tap) pairs that a source column of the tile serves."""
        return group_walk.uses(column, self.pixels, self.taps, self.stride, self.dilation)


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


def forward(
    geometry: ConvGeometry,
    x: np.ndarray,
    w: np.ndarray,
    bias: np.ndarray | None,
    *,
    cache: Cache = None,
    epilogue: Epilogue | None = None,
) -> np.ndarray:
    """y[n, c, p] = bias[c] + sum over tap of x[n, c, p * stride + tap * dilation - padding] * w[c, 0, tap], then the
    epilogue.
    """
    if not _in_place(group_plan.forward_pass(geometry), x):
        return conv_grouped.forward(geometry, x, w, bias, cache=cache, epilogue=epilogue)
    y = memory.empty_channels_last(geometry.output_shape)
    job = _job(geometry, False, x.strides, address(y) % 64 == 0, steps_of(epilogue))
    group_walk.run(job, x, w, bias, y, cache, epilogues.channels_last(epilogue))
    return y


def backward_data(geometry: ConvGeometry, gy: np.ndarray, w: np.ndarray, *, cache: Cache = None) -> np.ndarray:
    """gx: every input sample collects the gradients of the outputs that it reached, times the weights."""
    if not _in_place(group_plan.data_pass(geometry), gy):
        return conv_grouped.backward_data(geometry, gy, w, cache=cache)
    gx = memory.empty_channels_last(geometry.input_shape)
    job = _job(geometry, True, gy.strides, address(gx) % 64 == 0, NO_STEPS)
    group_walk.run(job, gy, w, None, gx, cache, None)
    return gx


def _in_place(p: group_plan.Pass, source: np.ndarray) -> bool:
    """Whether this file's kernel takes the pass, rather than `conv_grouped`'s."""
    readable = source.strides[1] == 4 and source.flags.aligned
    return readable and p.outs == p.ins == 1 and not p.scatter and p.kernel[2] <= group_plan.MOST_TAPS


@lru_cache(maxsize=2048)
def _job(g: ConvGeometry, back: bool, strides: tuple[int, ...], aligned: bool, steps: Steps) -> group_walk.Job:
    p = group_plan.data_pass(g) if back else group_plan.forward_pass(g)
    schedule = schedule_for(p, steps, aligned and conv_grouped.streams(p), host())
    kind = Weights(Lanes(host().lanes, 1, 1), 1, schedule.taps)
    return group_walk.prepare(p, back, kind, row_kernel(schedule), strides, STRIP_ROWS, CHUNKS)


def schedule_for(p: group_plan.Pass, steps: Steps, stream: bool, target: Target) -> Schedule:
    """The tile that covers a row with the fewest loads."""
    taps = p.kernel[2]
    most = min(MOST_COLUMNS, group_plan.most_pixels(target, Lanes(target.lanes, 1, 1), taps), p.result[2])
    pixels = min(range(1, most + 1), key=lambda width: (-(-p.result[2] // width) * (width + taps - 1), -width))
    tail = p.groups % target.lanes != 0
    depth = (p.kernel[0], p.before[0], p.source[0], p.result[0]) != (1, 0, 1, 1)
    return Schedule(pixels, taps, p.stride[2], p.dilation[2], depth, tail, stream and not tail, steps)


@lru_cache(maxsize=512)
def row_kernel(schedule: Schedule) -> Kernel:
    """The kernel of a schedule."""
    return Kernel("conv_depthwise", group_walk.FIELDS, schedule, emit)


def emit(e: Emitter, s: Schedule) -> None:
    """The loop nest of this file's docstring."""
    rows = _Rows(e, s, group_walk.Walk(e, s.epilogue, s.pixels, s.stream))
    rows.walk.tiles(s.stride, rows.tile)


class _Rows:
    """Reads rows in place."""

    def __init__(self, e: Emitter, s: Schedule, walk: group_walk.Walk) -> None:
        self.e, self.s, self.walk = e, s, walk

    def tile(self, column: Int, left: Int) -> None:
        """The tile at result column `column`, source column `left`: inside the rows, or at a side."""
        e, s, walk = self.e, self.s, self.walk
        whole = e.smaller(walk.block_end, walk.channels // e.lanes)
        with e.either(e.both(left >= 0, left + s.reach <= walk.w_in)) as (inside, at_side):
            with inside:
                self._descend(column, left, whole, False, None)
            with at_side:
                self._descend(column, left, whole, True, None)
        if s.tail:
            with e.when(whole < walk.block_end):
                self._descend(column, left, walk.block_end, True, e.mask(walk.channels % e.lanes, e.lanes))

    def _descend(self, column: Int, left: Int, last: Int, at_side: bool, mask: Any) -> None:
        """Down the rows, for full vectors of channels up to `last`, or under `mask` for the last vector alone."""
        e, s, walk = self.e, self.s, self.walk
        first = walk.block_begin if mask is None else last - 1
        with e.loop("row", walk.end, start=walk.begin) as row, e.loop("vector", last, start=first) as vector:
            top = row.index * walk.h_stride - walk.h_before
            channel = vector.index * e.lanes
            weights = e.pointer("weights").at(channel * (walk.d_taps * walk.h_taps * s.taps))
            acc = walk.bias(channel)
            if s.depth:
                low, high = walk.meeting(walk.front, walk.d_dilation, walk.d_taps, walk.d_in)
                with e.loop("kd", high, start=low, carry=acc) as kd:
                    source = walk.source.at((walk.front + kd.index * walk.d_dilation) * walk.source_d + channel)
                    taps = weights.at(kd.index * walk.h_taps * (s.taps * e.lanes))
                    kd.carry(self._kernel_rows(kd.carried, source, taps, top, left, at_side, mask))
                acc = kd.result
            else:
                acc = self._kernel_rows(acc, walk.source.at(channel), weights, top, left, at_side, mask)
            walk.store(acc, row.index, column, channel, mask)

    def _kernel_rows(
        self, acc: list[Vec], source: Ptr, weights: Ptr, top: Int, left: Int, at_side: bool, mask: Any
    ) -> list[Vec]:
        """`acc` and what the kernel rows of one plane add to it."""
        e, walk = self.e, self.walk
        low, high = walk.meeting(top, walk.h_dilation, walk.h_taps, walk.h_in)
        with e.loop("kh", high, start=low, carry=acc) as kh:
            line = source.at((top + kh.index * walk.h_dilation) * walk.source_h)
            taps = weights.at(kh.index * (self.s.taps * e.lanes))
            kh.carry(self._kernel_row(list(kh.carried), line, taps, left, at_side, mask))
        return kh.result

    def _kernel_row(self, acc: list[Vec], line: Ptr, weights: Ptr, left: Int, at_side: bool, mask: Any) -> list[Vec]:
        e, s, step, lanes = self.e, self.s, self.walk.source_w, self.e.lanes
        taps = [weights.at(tap * lanes).load(lanes, align=4 * lanes) for tap in range(s.taps)]
        start = line.at(left * step)
        for column in range(s.reach):
            uses = s.uses(column)
            if not uses:
                continue
            if at_side:
                exists = e.both(left + column >= 0, left + column < self.walk.w_in)
                here = line.at(e.choose(exists, left + column, 0) * step)
                value = e.select(exists, flat.load(here, lanes, mask), 0.0)
            else:
                value = start.at(step * column).load(lanes)
            for pixel, tap in uses:
                acc[pixel] = e.fma(value, taps[tap], acc[pixel])
        return acc
