"""Grouped convolution of a few channels per group: values are spread over their group's lanes once, then used by all.

With 2 to 8 outputs per group, a vector of outputs spans several groups, and each lane needs the input channel of its
own group. Spreading is a shuffle, which takes the place of a multiply-add; so a tile (`group_walk`) does it once per
input sample, into a ring of rows that stays in L1, and the taps of all kernel rows and columns read whole vectors:

    for tile of P columns, for vector of groups, for row of the strip:
        for input row not yet in the ring, for column, for channel c:
            ring[row][column][c] = channel c of each lane's own group, zeros outside the input
        acc[P] = bias
        for kernel row that meets the input, for channel c:                  its taps' weights in registers
            for column that the tile reads: acc[p] += ring[row][column][c] * weight[c][k]     for (p, k) that it serves
        store the epilogue of acc

Registers: P accumulators + K taps' weights + the value. With 4 -> 8 channels per group, a 3x3 kernel and P = 20, 720
multiply-adds go with 88 shuffles; spreading at every use would need 264.

Channels-last images in one plane; the forward pass and, with flipped taps, the data gradient at stride 1. The rest is
`conv_grouped`'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from faltung.engine import layout, memory
from faltung.engine.emit import Emitter, Int, Ptr, Vec
from faltung.engine.epilogue import NO_STEPS, Epilogue, Steps, steps_of
from faltung.engine.geometry import ConvGeometry
from faltung.engine.kernel import Kernel, address
from faltung.engine.kernels import conv_grouped, group_plan, group_walk
from faltung.engine.kernels import epilogue as epilogues
from faltung.engine.kernels.group_rows import Lanes
from faltung.engine.kernels.group_weights import Weights
from faltung.engine.target import Target, host

STRIP_ROWS = 16  # result rows of one chunk: the ring is filled anew for each
CHUNKS = 12  # chunks that are enough; with fewer strips, the groups are shared out too

Cache = dict[Any, Any] | None


@dataclass(frozen=True, slots=True)
class Schedule:
    """Everything that shapes the code."""

    lanes: Lanes
    pixels: int  # P: result columns of a tile
    taps: int  # K: of a kernel row
    stride: int
    dilation: int
    stream: bool  # the result goes past the caches
    epilogue: Steps = NO_STEPS

    @property
    def reach(self) -> int:
        """Source columns from the first to the last that a tile reads."""
        return (self.pixels - 1) * self.stride + (self.taps - 1) * self.dilation + 1

    @property
    def row_floats(self) -> int:
        """Floats of one row of the ring."""
        return self.reach * self.lanes.ins * self.lanes.lanes

    def uses(self, column: int) -> list[tuple[int, int]]:
        """The (pixel, tap) pairs that a source column of the tile serves."""
        return group_walk.uses(column, self.pixels, self.taps, self.stride, self.dilation)


def refuse_forward(
    geometry: ConvGeometry, x: np.ndarray, w: np.ndarray, bias: np.ndarray | None, **_: Any
) -> str | None:
    """None if this kernel computes the forward pass, else why not."""
    return conv_grouped.refuse_forward(geometry, x, w, bias) or _refuse(group_plan.forward_pass(geometry), host())


def refuse_backward_data(geometry: ConvGeometry, gy: np.ndarray, w: np.ndarray, *, cache: Cache = None) -> str | None:
    """None if this kernel computes the data gradient, else why not."""
    return conv_grouped.refuse_backward_data(geometry, gy, w) or _refuse(group_plan.data_pass(geometry), host())


def _refuse(p: group_plan.Pass, target: Target) -> str | None:
    lanes = Lanes(target.lanes, p.ins, p.outs)
    if p.scatter:
        return "a strided data gradient"
    if (p.kernel[0], p.before[0], p.source[0], p.result[0]) != (1, 0, 1, 1):
        return "more than one plane"
    if lanes.packs == 1 or lanes.slot == 1:
        return f"{p.outs} outputs per group need no spreading"
    if lanes.slot != p.outs or p.groups % lanes.packs:
        return f"{p.groups} groups of {p.outs} outputs leave lanes idle"
    if p.kernel[2] > group_plan.MOST_TAPS:
        return f"rows of {p.kernel[2]} taps"
    ring = p.kernel[1] * schedule_for(p, NO_STEPS, False, target).row_floats * 4
    return None if ring <= target.l1_bytes else "the ring of rows outgrows L1"


def forward(
    geometry: ConvGeometry,
    x: np.ndarray,
    w: np.ndarray,
    bias: np.ndarray | None,
    *,
    cache: Cache = None,
    epilogue: Epilogue | None = None,
) -> np.ndarray:
    """y[n, o, p] = bias[o] + sum over i, tap of x[n, i, p * stride + tap * dilation - padding] * w[o, i, tap], then
    the epilogue.
    """
    y = memory.empty_channels_last(geometry.output_shape)
    x = layout.channels_last(x)
    job = _job(geometry, False, x.strides, address(y) % 64 == 0, steps_of(epilogue))
    group_walk.run(job, x, w, bias, y, cache, epilogues.channels_last(epilogue))
    return y


def backward_data(geometry: ConvGeometry, gy: np.ndarray, w: np.ndarray, *, cache: Cache = None) -> np.ndarray:
    """gx: every input sample collects the gradients of the outputs that it reached, times the weights."""
    gx = memory.empty_channels_last(geometry.input_shape)
    gy = layout.channels_last(gy)
    job = _job(geometry, True, gy.strides, address(gx) % 64 == 0, NO_STEPS)
    group_walk.run(job, gy, w, None, gx, cache, None)
    return gx


@lru_cache(maxsize=2048)
def _job(g: ConvGeometry, back: bool, strides: tuple[int, ...], aligned: bool, steps: Steps) -> group_walk.Job:
    p = group_plan.data_pass(g) if back else group_plan.forward_pass(g)
    s = schedule_for(p, steps, aligned and conv_grouped.streams(p), host())
    ring = ((p.kernel[1] - 1) * p.dilation[1] + 1) * s.row_floats
    kind = Weights(s.lanes, 1, s.taps)
    return group_walk.prepare(p, back, kind, row_kernel(s), strides, STRIP_ROWS, CHUNKS, -(-ring // 16) * 16)


def schedule_for(p: group_plan.Pass, steps: Steps, stream: bool, target: Target) -> Schedule:
    """The tile that covers a row with the fewest loads."""
    lanes, taps = Lanes(target.lanes, p.ins, p.outs), p.kernel[2]
    most = min(group_plan.most_pixels(target, lanes, taps), p.result[2])
    pixels = min(range(1, most + 1), key=lambda width: (-(-p.result[2] // width) * (width + taps - 1), -width))
    return Schedule(lanes, pixels, taps, p.stride[2], p.dilation[2], stream, steps)


@lru_cache(maxsize=512)
def row_kernel(schedule: Schedule) -> Kernel:
    """The kernel of a schedule."""
    return Kernel("conv_spread", group_walk.FIELDS, schedule, emit)


def emit(e: Emitter, s: Schedule) -> None:
    """The loop nest of this file's docstring."""
    rows = _Rows(e, s, group_walk.Walk(e, s.epilogue, s.pixels, s.stream))
    rows.walk.tiles(s.stride, rows.tile)


class _Rows:
    """The ring, and what reads it."""

    def __init__(self, e: Emitter, s: Schedule, walk: group_walk.Walk) -> None:
        self.e, self.s, self.walk = e, s, walk
        self.ring_rows = (walk.h_taps - 1) * walk.h_dilation + 1
        self.ring = e.pointer("scratch").at(e.thread * walk.scratch_floats)

    def tile(self, column: Int, left: Int) -> None:
        """The tile at result column `column`, source column `left`, down the rows of every vector of groups."""
        e, s, walk, lanes = self.e, self.s, self.walk, self.s.lanes
        with e.loop("block", walk.block_end, start=walk.block_begin) as block:
            source = walk.source.at(block.index * (lanes.packs * lanes.ins))
            channel = block.index * e.lanes
            weights = e.pointer("weights").at(channel * (walk.h_taps * (lanes.ins * s.taps)))
            with e.loop("row", walk.end, start=walk.begin, carry=[e.int(0)]) as row:
                top = row.index * walk.h_stride - walk.h_before
                filled = self._fill(source, left, top, row.carried[0])
                acc = self._kernel_rows(walk.bias(channel), weights, top)
                walk.store(acc, row.index, column, channel)
                row.carry([filled])

    def _fill(self, source: Ptr, left: Int, top: Int, filled: Int) -> Int:
        """Bring the rows from `top` on that are not there yet into the ring; the new count of rows seen."""
        e, s, walk, lanes = self.e, self.s, self.walk, self.s.lanes
        end = e.smaller(top + self.ring_rows, walk.h_in)
        whole = e.both(left >= 0, left + s.reach <= walk.w_in)
        with e.loop("fill", end, start=e.larger(e.larger(top, 0), filled)) as row:
            line, to = source.at(row.index * walk.source_h), self.ring.at(row.index % self.ring_rows * s.row_floats)
            with e.loop("column", e.int(s.reach)) as column:
                at = left + column.index
                exists = e.any_of(whole, e.both(at >= 0, at < walk.w_in))
                pixel = line.at(e.choose(exists, at, 0) * walk.source_w)
                for channel, value in enumerate(self._spread(pixel)):
                    place = to.at((column.index * lanes.ins + channel) * e.lanes)
                    place.store(e.select(exists, value, 0.0), align=4 * e.lanes)
        return e.larger(end, filled)

    def _spread(self, pixel: Ptr) -> list[Vec]:
        """Each input channel of a group, in the lanes of its group."""
        e, lanes = self.e, self.s.lanes
        parts = [pixel.at(start).load(min(lanes.width, e.lanes)) for start in range(0, lanes.width, e.lanes)]
        values = []
        for channel in range(lanes.ins):
            places = [lane // lanes.slot * lanes.ins + channel for lane in range(e.lanes)]
            values.append(_picked(e, parts, places))
        return values

    def _kernel_rows(self, acc: list[Vec], weights: Ptr, top: Int) -> list[Vec]:
        """`acc` and what all kernel rows add to it."""
        e, s, walk, lanes = self.e, self.s, self.walk, self.s.lanes
        low, high = walk.meeting(top, walk.h_dilation, walk.h_taps, walk.h_in)
        with e.loop("kh", high, start=low, carry=acc) as kh:
            line = self.ring.at((top + kh.index * walk.h_dilation) % self.ring_rows * s.row_floats)
            taps = weights.at(kh.index * (lanes.ins * s.taps * e.lanes))
            with e.loop("channel", e.int(lanes.ins), carry=kh.carried) as channel:
                here, there = line.at(channel.index * e.lanes), taps.at(channel.index * (s.taps * e.lanes))
                channel.carry(self._kernel_row(list(channel.carried), here, there))
            kh.carry(channel.result)
        return kh.result

    def _kernel_row(self, acc: list[Vec], line: Ptr, weights: Ptr) -> list[Vec]:
        e, s = self.e, self.s
        taps = [weights.at(tap * e.lanes).load(e.lanes, align=4 * e.lanes) for tap in range(s.taps)]
        for column in range(s.reach):
            uses = s.uses(column)
            if uses:
                value = line.at(column * (s.lanes.ins * e.lanes)).load(e.lanes, align=4 * e.lanes)
                for pixel, tap in uses:
                    acc[pixel] = e.fma(value, taps[tap], acc[pixel])
        return acc


def _picked(e: Emitter, parts: list[Vec], places: list[int]) -> Vec:
    """The floats `places` of the concatenation of `parts`, two at most being looked at together."""
    size = parts[0].lanes
    result: Vec | None = None
    for index in range(0, len(parts), 2):
        pair = parts[index : index + 2]
        low, high = index * size, (index + len(pair)) * size
        inside = [low <= place < high for place in places]
        if not any(inside):
            continue
        order = [place - low if here else 0 for place, here in zip(places, inside, strict=True)]
        found = e.shuffle(pair[0], pair[-1], order)
        if result is not None:
            lanes = range(e.lanes)
            found = e.shuffle(result, found, [e.lanes + i if inside[i] else i for i in lanes])
        result = found
    assert result is not None
    return result
