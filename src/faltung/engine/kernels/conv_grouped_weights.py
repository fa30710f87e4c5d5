"""Grouped convolution with few channels per group: gradients of the weights and of the bias.

    chunk = segment of the strips of result rows x range of channel vectors
    for strip in segment, for row in strip:
        fetch source rows into the ring, list the taps that meet the source      (group_rows)
        for vector of output channels:
            bring in the row of gy as vectors
            for E entries (ring offset, weight offset) of the list:              kernel rows x B channels
                acc[entry][c][k] = 0
                for tile of P positions:
                    for column that the tile reads, entry, c in B:               unrolled
                        v = source[column][c] of each lane's own group
                        for (p, k) that column serves:  acc[entry][c][k] += v * gy[p]
                partial gradient of the segment += acc

Segments are cut by sizes alone, and their partial gradients are added in order: no sum depends on the number of
threads.
Positions behind the last tile are taken one by one: zeros in place of gy would turn an infinity of x into NaN.

Registers: S * B * K accumulators (S sets, so that enough sums run side by side) + P positions of gy + the spread
vector.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from faltung.engine import memory, team
from faltung.engine.emit import Emitter, Int, Ptr, Vec
from faltung.engine.geometry import ConvGeometry
from faltung.engine.kernel import Kernel, address
from faltung.engine.kernels.conv_grouped import readable, refuse_sizes, refuse_types
from faltung.engine.kernels.group_plan import (
    CHUNKS,
    Pass,
    Plan,
    Schedule,
    cut,
    forward_pass,
    largest_divisor,
    source_steps,
    unpack_bias,
)
from faltung.engine.kernels.group_rows import Fill, Lanes, Rows
from faltung.engine.kernels.group_weights import Weights, collect
from faltung.engine.target import Target, host

MOST_SEGMENTS = 16
MOST_POSITIONS = 10
SUMS_AT_ONCE = 8  # accumulators that keep two FMA units busy at a latency of four cycles


@dataclass(frozen=True, slots=True)
class WeightSchedule:
    """Everything that shapes the code: the source side as in the forward pass, the layout of gy, the sets."""

    rows: Schedule
    planar_gradient: bool
    together: int  # E
    sets: int  # S, where entries come one by one


def refuse_backward_weights(
    geometry: ConvGeometry, x: np.ndarray, gy: np.ndarray, *, with_bias: bool = False
) -> str | None:
    """None if this kernel computes the weight gradient, else why not."""
    return refuse_types(x, gy) or refuse_sizes(geometry)


def backward_weights(
    geometry: ConvGeometry, x: np.ndarray, gy: np.ndarray, *, with_bias: bool = False
) -> tuple[np.ndarray, np.ndarray | None]:
    """(gw, gb): correlation of x with gy, and with `with_bias` the sum of gy over batch and positions (else None)."""
    x, planar = readable(x)
    gy, planar_gradient = readable(gy)
    job = _prepared(geometry, x.strides, planar, gy.strides, planar_gradient)
    rows = job.plan.schedule
    parts = memory.empty((job.segments, job.part_floats))
    _scratch, start = team.scratch(job.plan.scratch_floats)
    places = (address(parts), address(gy), int(with_bias), address(x), start)
    job.kernel.launch(job.segments * job.plan.parts, *places, *job.fields)
    gw = np.empty(geometry.weight_shape, np.float32)
    collect(job.source, Weights(rows.lanes, rows.block, rows.taps), parts, job.plan.vectors, gw)
    gb = parts[:, job.weight_floats :].sum(axis=0) if with_bias else None
    return gw, None if gb is None else unpack_bias(gb, geometry.groups, job.plan.schedule.lanes)


@dataclass(frozen=True, slots=True)
class _Job:
    """A geometry prepared: everything but the addresses."""

    source: Pass
    plan: Plan
    kernel: Kernel
    fields: tuple[int, ...]
    segments: int
    weight_floats: int
    part_floats: int


@lru_cache(maxsize=2048)
def _prepared(
    g: ConvGeometry, x_strides: tuple[int, ...], planar: bool, gy_strides: tuple[int, ...], planar_gradient: bool
) -> _Job:
    p, target = forward_pass(g), host()
    schedule = choose(p, planar, planar_gradient, target)
    rows = schedule.rows
    # the last tile may be short: columns are counted for whole ones
    chosen = cut(p, rows, target, rows.pixels, rows.advance, rows.reach)
    lanes = rows.lanes
    segments = max(1, min(chosen.items, MOST_SEGMENTS, CHUNKS // chosen.parts))
    entries = p.kernel[0] * p.kernel[1] * p.kernel[2] * p.ins
    weight_floats = chosen.vectors * entries * lanes.lanes
    part_floats = weight_floats + chosen.vectors * lanes.lanes
    gradient_floats = chosen.fields["span_tiles"] * rows.pixels * lanes.subs * lanes.lanes
    gradient_floats += target.lanes * lanes.subs * lanes.lanes  # a planar fetch writes whole vectors of pixels
    chosen = Plan(
        rows, chosen.fields, chosen.items, chosen.parts, chosen.vectors, chosen.scratch_floats + gradient_floats, 0
    )
    kernel = weights_kernel(schedule)
    known = {
        **chosen.fields,
        **source_steps("source", x_strides),
        **source_steps("gradient", gy_strides),
        "scratch_floats": chosen.scratch_floats,
        "columns_out": p.result[2],
        "items": chosen.items,
        "segments": segments,
        "weight_floats": weight_floats,
        "part_floats": part_floats,
        "gradient_at": chosen.scratch_floats - gradient_floats,
    }
    fields = tuple(known[name] for name in kernel.fields[len(_CHANGING) :])
    return _Job(p, chosen, kernel, fields, segments, weight_floats, part_floats)


def choose(p: Pass, planar: bool, planar_gradient: bool, target: Target) -> WeightSchedule:
    """Channels, sets and positions that registers hold."""
    lanes = Lanes(target.lanes, p.ins, p.outs)
    taps = largest_divisor(p.kernel[2], 7)
    room = 15 if target.registers >= 32 else 9
    block = largest_divisor(p.ins, max(1, min(4, room // taps)))
    entries = p.kernel[0] * p.kernel[1] * (p.kernel[2] // taps) * (p.ins // block)
    together = max(1, min(4, entries, room // (block * taps)))
    sets = max(1, min(-(-SUMS_AT_ONCE // (block * taps)), room // (block * taps)))
    widths = range(1, MOST_POSITIONS + 1)
    pixels = min(widths, key=lambda w: (p.result[2] // w * (w + 1) + p.result[2] % w * 3, -w))
    rows = Schedule(lanes, planar, pixels, block, taps, p.stride[2], p.dilation[2], False, False)
    return WeightSchedule(rows, planar_gradient, together, min(sets, pixels))


_CHANGING = "sums gradient with_bias source scratch".split()
_SIZED = (
    "gradient_n gradient_d gradient_h gradient_w gradient_c columns_out items segments weight_floats part_floats "
    "gradient_at"
).split()
_ORDER = " ".join([*_CHANGING, *_SIZED, *(name for name in Rows.FIELDS.split() if name not in _CHANGING)])


@lru_cache(maxsize=512)
def weights_kernel(schedule: WeightSchedule) -> Kernel:
    """The kernel of a schedule."""
    return Kernel("conv_grouped_weights", _ORDER, schedule, emit)


def emit(e: Emitter, schedule: WeightSchedule) -> None:
    """The loop nest of this file's docstring."""
    s = schedule.rows
    rows = Rows(e, s.lanes, s.planar, s.block, s.block * s.taps * s.lanes.lanes, False)
    segment = e.chunk // rows.f.parts
    first_step, last_step = rows.steps(e.chunk % rows.f.parts)
    items, segments, part_floats = e.fields("items segments part_floats")
    part = e.pointer("sums").at(segment * part_floats)
    sums = Sums(e, schedule, rows, part)
    with e.loop("clear", last_step, start=first_step) as step:
        rows.begin(e.int(0), step.index)
        with e.loop("clear.block", rows.block_count) as block:
            sums.clear(rows.block_begin + block.index)
    first, last = segment * items // segments, (segment + 1) * items // segments
    with e.loop("item", last, start=first) as item, e.loop("step", last_step, start=first_step) as step:
        rows.begin(item.index, step.index)
        sums.begin()
        with e.loop("row", rows.row_end, start=rows.row_begin, carry=[e.int(0)]) as row:
            filled = rows.fetch(row.index, row.carried[0])
            count = rows.list_taps(row.index)
            with e.loop("block", rows.block_count) as block:
                sums.fetch_gradient(row.index, rows.block_begin + block.index)
                source = rows.memory.at(block.index * rows.block_floats)
                with e.loop("sub", s.lanes.subs) as sub:
                    sums.add_row(rows.block_begin + block.index, sub.index, source, count)
            row.carry([filled])


class Sums:
    """The partial gradient of one segment."""

    def __init__(self, e: Emitter, schedule: WeightSchedule, rows: Rows, part: Ptr) -> None:
        self.e, self.schedule, self.s, self.lanes, self.rows = e, schedule, schedule.rows, schedule.rows.lanes, rows
        self.size = self.lanes.lanes
        self.vector_floats = rows.entries * (self.s.block * self.s.taps * self.size)
        self.weights, self.bias = part, part.at(e.field("weight_floats"))
        self.with_bias = e.field("with_bias").differs(0)
        self.columns_out = e.field("columns_out")
        memory = e.pointer("scratch").at(e.thread * rows.f.scratch_floats)
        self.gradient_row = memory.at(e.field("gradient_at"))
        self.pixel_floats = self.lanes.subs * self.size

    def clear(self, block: Int) -> None:
        """Zeros for every vector of a block."""
        subs = self.lanes.subs
        weights = self.weights.at(block * subs * self.vector_floats)
        with self.e.loop("clear", self.vector_floats * subs, step=self.size) as at:
            weights.at(at.index).store(self.e.zero())
        for sub in range(subs):
            self.bias.at((block * subs + sub) * self.size).store(self.e.zero())

    def begin(self) -> None:
        """Addresses of the item that `rows` stands at."""
        e, rows = self.e, self.rows
        n, d, self.step_h, self.step_w, self.step_c = e.fields("gradient_n gradient_d gradient_h gradient_w gradient_c")
        self.first = rows.tile_begin * self.s.pixels
        self.count = e.smaller(rows.f.span_tiles * self.s.pixels, self.columns_out - self.first)
        start = rows.image * n + rows.plane * d + self.first * self.step_w
        self.gradient = e.pointer("gradient").at(start)

    def fetch_gradient(self, row: Int, block: Int) -> None:
        """The row of gy as vectors, and its share of the bias gradient."""
        e, lanes = self.e, self.lanes
        channels = lanes.packs * lanes.outs
        steps = (self.step_h, self.step_w, self.step_c)
        fill = Fill(e, lanes.out_order, lanes.outs, self.schedule.planar_gradient, *steps)
        source = self.gradient.at(row * self.step_h + block * self.step_c * channels)
        present = self.rows.f.groups - block * lanes.packs
        fill.row(source, self.gradient_row, e.int(0), self.count, self.count, present)
        with e.when(self.with_bias):
            for sub in range(lanes.subs):
                total = self.bias.at((block * lanes.subs + sub) * self.size)
                self._add_bias(total, self.gradient_row.at(sub * self.size))

    def _add_bias(self, total: Ptr, gradient: Ptr) -> None:
        """The sum of a row of gy, in four interleaved chains."""
        e, whole = self.e, self.count // 4

        def value(position: Int) -> Vec:
            return gradient.at(position * self.pixel_floats).load(self.size)

        with e.loop("bias4", whole, carry=[total.load(self.size), e.zero(), e.zero(), e.zero()]) as four:
            four.carry([chain + value(four.index * 4 + k) for k, chain in enumerate(four.carried)])
        a, b, c, d = four.result
        with e.loop("bias", self.count, start=whole * 4, carry=[(a + b) + (c + d)]) as one:
            one.carry([one.carried[0] + value(one.index)])
        total.store(one.result[0])

    def add_row(self, block: Int, sub: Int, source: Ptr, count: Int) -> None:
        """One row of positions, into every listed tap."""
        e, together = self.e, self.schedule.together
        weights = self.weights.at((block * self.lanes.subs + sub) * self.vector_floats)
        gradient = self.gradient_row.at(sub * self.size)
        start = e.int(0)
        if together > 1:
            start = count // together * together
            with e.loop("entries", start, step=together) as entries:
                self._add_entries([entries.index + k for k in range(together)], 1, source, weights, gradient)
        with e.loop("entry", count, start=start) as entry:
            self._add_entries([entry.index], self.schedule.sets, source, weights, gradient)

    def _add_entries(self, entries: list[Int], sets: int, source: Ptr, weights: Ptr, gradient: Ptr) -> None:
        e, s = self.e, self.s
        places = [self.rows.entry(entry) for entry in entries]
        here = [source.at(place) for place, _ in places]
        tiles = self.count // s.pixels
        zeros = [e.zero()] * (sets * len(entries) * s.block * s.taps)
        with e.loop("tile", tiles, carry=zeros) as tile:
            x = [row.at(tile.index * (s.advance * self.lanes.width)) for row in here]
            gy = gradient.at(tile.index * (s.pixels * self.pixel_floats))
            tile.carry(self._positions(s, sets, x, gy, tile.carried))
        one = Schedule(s.lanes, s.planar, 1, s.block, s.taps, s.stride, s.dilation, False, False)
        with e.loop("rest", self.count, start=tiles * s.pixels, carry=tile.result) as rest:
            x = [row.at(rest.index * (s.stride * self.lanes.width)) for row in here]
            rest.carry(self._positions(one, sets, x, gradient.at(rest.index * self.pixel_floats), rest.carried))
        totals = self._sets_added(rest.result, sets)
        per_entry = s.block * s.taps
        for number, (_, tap_place) in enumerate(places):
            for k, value in enumerate(totals[number * per_entry : (number + 1) * per_entry]):
                total = weights.at(tap_place + k * self.size)
                total.store(total.load(self.size) + value)

    def _positions(self, s: Schedule, sets: int, x: list[Ptr], gy: Ptr, carried: list[Vec]) -> list[Vec]:
        """Add the products of `s.pixels` positions, column by column, so that neighbouring sums are independent."""
        acc = list(carried)
        gradients: dict[int, Vec] = {}
        for column, uses in s.uses().items():
            for pixel, _ in uses:
                if pixel not in gradients:
                    gradients[pixel] = gy.at(pixel * self.pixel_floats).load(self.size)
            for entry, row in enumerate(x):
                for channel in range(s.block):
                    value = self.lanes.spread(row.at(column * self.lanes.width), channel)
                    for pixel, tap in uses:
                        index = ((pixel % sets * len(x) + entry) * s.block + channel) * s.taps + tap
                        acc[index] = self.e.fma(value, gradients[pixel], acc[index])
        return acc

    def _sets_added(self, acc: list[Vec], sets: int) -> list[Vec]:
        per_set = len(acc) // sets
        totals = acc[:per_set]
        for start in range(per_set, len(acc), per_set):
            totals = [a + b for a, b in zip(totals, acc[start : start + per_set], strict=True)]
        return totals
