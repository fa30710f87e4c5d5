"""Weights of grouped convolutions between PyTorch's layout and the kernels' vectors.

    packed[vector][d][h][entry of taps][entry of channels][channel][tap][lane]  <->  w[output channel][input
    channel][d][h][w]

A chunk is one vector. Packing copies lane by lane; collecting adds the segments' partial gradients, in order, vector by
vector, and writes the lanes out. Strides of w are arguments, so that the data gradient's weights (the channels of a
group change sides, taps may be flipped) are packed by the same kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from faltung.engine import memory
from faltung.engine.emit import Emitter, Int, Ptr
from faltung.engine.kernel import Kernel, address
from faltung.engine.kernels.group_plan import Pass
from faltung.engine.kernels.group_rows import Lanes

SIZES = "groups depth height width group_step out_step in_step d_step h_step w_step"
PACK = f"packed weights {SIZES}"
COLLECT = f"packed weights segments part_floats {SIZES}"


@dataclass(frozen=True, slots=True)
class Weights:
    """What shapes the code: lanes, channels and taps of an entry."""

    lanes: Lanes
    block: int
    taps: int


def pack(p: Pass, kind: Weights, w: np.ndarray, vectors: int) -> np.ndarray:
    """w (O, I/G, *kernel), any strides -> its vectors, on cache lines."""
    taps = p.kernel[0] * p.kernel[1] * p.kernel[2]
    packed = memory.aligned_bytes(vectors * p.ins * taps * kind.lanes.lanes * 4).view(np.float32)
    start, steps = _steps(p, w)
    _pack_kernel(kind).launch(vectors, address(packed), start, p.groups, *p.kernel, *steps)
    return packed


def collect(p: Pass, kind: Weights, parts: np.ndarray, vectors: int, gw: np.ndarray) -> None:
    """Sum of the segments `parts` (segments, floats) into gw (O, I/G, *kernel)."""
    start, steps = _steps(p, gw)
    _collect_kernel(kind).launch(vectors, address(parts), start, *parts.shape, p.groups, *p.kernel, *steps)


def _steps(p: Pass, w: np.ndarray) -> tuple[int, tuple[int, ...]]:
    """Address of the first weight that the pass sees, and steps in floats: group, out, in, d, h, w."""
    outer, inner, *taps = (stride // 4 for stride in w.strides)
    taps = [0] * (3 - len(taps)) + taps
    start = address(w)
    if p.flip:
        start += 4 * sum((k - 1) * step for k, step in zip(p.kernel, taps, strict=True))
        taps = [-step for step in taps]
    if p.flip or p.scatter:  # the data gradient writes input channels
        return start, (outer * p.ins, inner, outer, *taps)
    return start, (outer * p.outs, outer, inner, *taps)


@lru_cache(maxsize=256)
def _pack_kernel(kind: Weights) -> Kernel:
    return Kernel("conv_grouped_pack", PACK, kind, emit_pack)


@lru_cache(maxsize=256)
def _collect_kernel(kind: Weights) -> Kernel:
    return Kernel("conv_grouped_collect", COLLECT, kind, emit_collect)


class _Walk:
    """Goes through one vector of output channels."""

    def __init__(self, e: Emitter, kind: Weights) -> None:
        self.e, self.kind, self.lanes = e, kind, kind.lanes
        (
            self.groups,
            self.depth,
            self.height,
            self.width,
            self.group_step,
            self.out_step,
            self.in_step,
            self.d_step,
            self.h_step,
            self.w_step,
        ) = e.fields(SIZES)
        self.block, self.sub = e.chunk // kind.lanes.subs, e.chunk % kind.lanes.subs
        self.floats = self.depth * self.height * self.width * (kind.lanes.ins * kind.lanes.lanes)

    def lane(self, lane: int) -> tuple[Int, Int, Int]:
        """Group, output channel in the group, and whether both exist (as 0 or 1 in a comparison with 1)."""
        place, pack = divmod(lane, self.lanes.packs)
        group = self.block * self.lanes.packs + pack
        out = self.sub * self.lanes.lanes + place
        exists = self.e.both(group < self.groups, out < self.lanes.outs)
        return group, out, exists

    def each(self, body: Callable[[Int, Int], None]) -> None:
        """`body(place of the vector, offset of the weight)` for every channel and tap."""
        e, kind, size = self.e, self.kind, self.lanes.lanes
        entries = self.lanes.ins // kind.block
        with e.loop("d", self.depth) as d, e.loop("h", self.height) as h:
            rows = (d.index * self.height + h.index) * (self.width * (self.lanes.ins * size))
            row_offset = d.index * self.d_step + h.index * self.h_step
            with e.loop("taps", self.width // kind.taps) as group, e.loop("channels", entries) as entry:
                place = rows + (group.index * entries + entry.index) * (kind.block * kind.taps * size)
                offset = row_offset + group.index * self.w_step * kind.taps + entry.index * self.in_step * kind.block
                for channel in range(kind.block):
                    for tap in range(kind.taps):
                        body(
                            place + (channel * kind.taps + tap) * size,
                            offset + self.in_step * channel + self.w_step * tap,
                        )


def emit_pack(e: Emitter, kind: Weights) -> None:
    """Lane by lane; idle lanes are zero."""
    walk = _Walk(e, kind)
    packed, weights = e.pointer("packed").at(e.chunk * walk.floats), e.pointer("weights")
    size = kind.lanes.lanes
    lanes = [walk.lane(lane) for lane in range(size)]
    starts = [
        weights.at(e.choose(exists, group * walk.group_step + out * walk.out_step, 0)) for group, out, exists in lanes
    ]
    bits = [exists for _, _, exists in lanes]

    def copy(place: Int, offset: Int) -> None:
        target = packed.at(place)
        for lane in range(size):
            value = starts[lane].at(offset).load()
            target.at(lane).store(e.select(bits[lane], value, e.constant(0.0)))

    walk.each(copy)


def emit_collect(e: Emitter, kind: Weights) -> None:
    """Vectors of all segments are added, first to last; each existing lane is written."""
    walk = _Walk(e, kind)
    segments, part_floats = e.fields("segments part_floats")
    parts, weights = e.pointer("packed").at(e.chunk * walk.floats), e.pointer("weights")
    size = kind.lanes.lanes
    lanes = [walk.lane(lane) for lane in range(size)]

    def add(place: Int, offset: Int) -> None:
        first: Ptr = parts.at(place)
        with e.loop("segment", segments, start=1, carry=[first.load(size)]) as segment:
            more = first.at(segment.index * part_floats).load(size)
            segment.carry([segment.carried[0] + more])
        for lane, (group, out, exists) in enumerate(lanes):
            with e.when(exists):
                target = weights.at(group * walk.group_step + out * walk.out_step + offset)
                target.store(e.lane(segment.result[0], lane))

    walk.each(add)
