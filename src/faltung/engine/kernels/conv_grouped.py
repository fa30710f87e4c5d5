"""Grouped convolution with few channels per group: forward and data gradient.

    chunk = strip of result rows x range of channel vectors
    for row in strip:
        fetch source rows into the ring, list the taps that meet the source      (group_rows)
        for vector of result channels:
            for tile of P result pixels:
                acc[p] = bias
                for (ring offset, weight offset) in list:                        kernel row x B channels
                    for c in B:                                                  unrolled
                        for column that the tile reads:                          unrolled
                            v = source[column][c] of each lane's own group       one load, spread over the lanes
                            for (p, k) that column serves:  acc[p] += v * weight[c][k]
                store acc

Registers: P accumulators + K taps' weights + the spread vector + the pattern of the spread. 22 pixels for 3 taps beside
32 registers, 10 beside 16.

With P = 20 and 4 -> 8 channels per group, 60 multiply-adds go with 22 spreads and 3 loads of weights, so the
multiply-adds set the pace.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from faltung.engine import memory, team
from faltung.engine.emit import Emitter, Int, Ptr, Vec
from faltung.engine.geometry import ConvGeometry
from faltung.engine.kernel import Kernel, address
from faltung.engine.kernels.group_plan import (
    MOST_SCATTERED_TAPS,
    Pass,
    Plan,
    Schedule,
    data_pass,
    forward_pass,
    pack_bias,
    plan,
)
from faltung.engine.kernels.group_rows import Rows, pieces
from faltung.engine.kernels.group_weights import pack
from faltung.engine.target import host

Cache = dict[Any, Any] | None

FIELDS = f"result result_n result_d result_h result_w weights bias result_first columns_out {Rows.FIELDS}"


def refuse_forward(
    geometry: ConvGeometry, x: np.ndarray, w: np.ndarray, bias: np.ndarray | None, *, cache: Cache = None
) -> str | None:
    """None if this kernel computes the forward pass, else why not."""
    if bias is not None and bias.dtype != np.float32:
        return f"bias is {bias.dtype}"
    return refuse_types(x, w) or _refuse_geometry(geometry)


def refuse_backward_data(geometry: ConvGeometry, gy: np.ndarray, w: np.ndarray, *, cache: Cache = None) -> str | None:
    """None if this kernel computes the data gradient, else why not."""
    return refuse_types(gy, w) or _refuse_geometry(geometry)


def refuse_types(a: np.ndarray, b: np.ndarray) -> str | None:
    """Only float32 is generated."""
    return None if a.dtype == b.dtype == np.float32 else f"{a.dtype} and {b.dtype}, not float32"


@lru_cache(maxsize=4096)
def _refuse_geometry(g: ConvGeometry) -> str | None:
    if g.groups == 1:
        return "one group: a dense convolution"
    return refuse_sizes(g)


@lru_cache(maxsize=4096)
def refuse_sizes(g: ConvGeometry) -> str | None:
    """What neither depthwise nor grouped kernels take."""
    if 0 in (g.batch, g.in_channels, g.out_channels, *g.input, *g.output):
        return "nothing to compute"
    ins, outs = g.in_channels // g.groups, g.out_channels // g.groups
    if min(ins, outs) >= host().lanes and max(ins, outs) > host().lanes:
        return f"{ins} -> {outs} channels per group fill vectors by themselves"
    if g.kernel[-1] > MOST_SCATTERED_TAPS and set(g.stride) != {1}:
        return f"strided rows of {g.kernel[-1]} taps"
    return None


def forward(
    geometry: ConvGeometry, x: np.ndarray, w: np.ndarray, bias: np.ndarray | None, *, cache: Cache = None
) -> np.ndarray:
    """y[n, o, p] = bias[o] + sum over i, tap of x[n, i, p * stride + tap * dilation - padding] * w[o, i, tap]."""
    y = memory.empty_channels_last(geometry.output_shape)
    _run(_forward_pass(geometry), x, w, bias, y, cache)
    return y


def backward_data(geometry: ConvGeometry, gy: np.ndarray, w: np.ndarray, *, cache: Cache = None) -> np.ndarray:
    """gx: every input sample collects the gradients of the outputs that it reached, times the weights."""
    gx = memory.empty_channels_last(geometry.input_shape)
    _run(_data_pass(geometry), gy, w, None, gx, cache)
    return gx


_forward_pass = lru_cache(maxsize=4096)(forward_pass)
_data_pass = lru_cache(maxsize=4096)(data_pass)


def _run(p: Pass, source: np.ndarray, w: np.ndarray, bias: np.ndarray | None, result: np.ndarray, cache: Cache) -> None:
    source, planar = readable(source)
    chosen, kernel, strides, sized = _prepared(p, source.strides, planar, result.strides, _streams(p, result))
    packed = _packed(p, chosen, w, cache)
    biases = _no_bias(chosen.vectors * chosen.schedule.lanes.lanes) if bias is None else _packed_bias(p, chosen, bias)
    scratch, start = thread_scratch(chosen.scratch_floats)
    places = (address(result), address(packed), address(biases), address(source), start)
    kernel.launch(chosen.items * chosen.parts, *places, *strides, *sized)


@lru_cache(maxsize=2048)
def _prepared(
    p: Pass, source_strides: tuple[int, ...], planar: bool, result_strides: tuple[int, ...], stream: bool
) -> tuple[Plan, Kernel, tuple[int, ...], tuple[int, ...]]:
    """Plan, kernel, and the fields that stay the same from call to call."""
    chosen = plan(p, planar, stream, host())
    kernel = row_kernel(chosen.schedule)
    strides = (*_elements(source_strides), *_elements(result_strides)[:4])
    known = {**chosen.fields, "scratch_floats": chosen.scratch_floats, "result_first": chosen.result_first,
             "columns_out": p.result[2]}  # fmt: skip
    return chosen, kernel, strides, tuple(known[name] for name in kernel.fields[len(_CHANGING) :])


def _elements(strides: tuple[int, ...]) -> tuple[int, ...]:
    """(N, C, *spatial) strides in bytes -> (n, d, h, w, c) in floats."""
    n, c, *spatial = (stride // 4 for stride in strides)
    return (n, *(0,) * (3 - len(spatial)), *spatial, c)


def readable(x: np.ndarray) -> tuple[np.ndarray, bool]:
    """x as a fetch can read it, and whether it runs along the width rather than along the channels."""
    channels_last = x.strides[1] == 4 or x.shape[1] == 1
    if (channels_last or x.strides[-1] == 4) and x.flags.aligned:
        return x, not channels_last
    copy = memory.empty_channels_last(x.shape)
    copy[...] = x
    return copy, False


def thread_scratch(floats: int) -> tuple[np.ndarray, int]:
    """Memory for every thread of the team, `floats` (a multiple of 16) each, and its first cache line's address."""
    scratch = memory.empty((floats * team.get_num_threads() + 16,))
    start = address(scratch)
    return scratch, start + -start % 64


def _streams(p: Pass, result: np.ndarray) -> bool:
    """Whether the result is large, and its vectors are whole cache lines, so that writing past the caches pays."""
    target = host()
    lines = target.vector_bytes == 64 and result.strides[-1] % 64 == 0 and address(result) % 64 == 0
    return lines and result.nbytes > target.l3_bytes // 4 and p.outs & (p.outs - 1) == 0


def _packed(p: Pass, chosen: Plan, w: np.ndarray, cache: Cache) -> np.ndarray:
    s = chosen.schedule
    key = ("conv_grouped", s.lanes, s.block, s.taps, p.flip)
    packed = None if cache is None else cache.get(key)
    if packed is None:
        packed = pack(p, s, w, chosen.vectors)
        if cache is not None:
            cache[key] = packed
    return packed


@lru_cache(maxsize=64)
def _no_bias(floats: int) -> np.ndarray:
    return np.zeros(floats + 16, np.float32)


def _packed_bias(p: Pass, chosen: Plan, bias: np.ndarray) -> np.ndarray:
    """The bias as vectors: itself where every lane counts."""
    lanes = chosen.schedule.lanes
    if bias.size == chosen.vectors * lanes.lanes and bias.strides[0] == 4:
        return bias
    return pack_bias(bias, p.groups, lanes)


_CHANGING = (
    "result weights bias source scratch source_n source_d source_h source_w source_c "
    "result_n result_d result_h result_w"
).split()
_ORDER = " ".join([*_CHANGING, *(name for name in FIELDS.split() if name not in _CHANGING)])


@lru_cache(maxsize=512)
def row_kernel(schedule: Schedule) -> Kernel:
    """The kernel of a schedule."""
    return Kernel("conv_grouped", _ORDER, schedule, emit)


def emit(e: Emitter, s: Schedule) -> None:
    """The loop nest of this file's docstring."""
    lanes = s.lanes
    rows = Rows(e, lanes, s.planar, s.block, s.block * s.taps * lanes.lanes, s.scatter)
    first, last = rows.steps(e.chunk % rows.f.parts)
    with e.loop("step", last, start=first) as step:
        rows.begin(e.chunk // rows.f.parts, step.index)
        writer = Writer(e, s, rows)
        with e.loop("row", rows.row_end, start=rows.row_begin, carry=[e.int(0)]) as row:
            filled = rows.fetch(row.index, row.carried[0])
            _emit_row(e, s, rows, writer, row.index)
            row.carry([filled])


def _emit_row(e: Emitter, s: Schedule, rows: Rows, writer: Writer, row: Int) -> None:
    """One result row, for every vector of the step."""
    lanes = s.lanes
    count = rows.list_taps(row)
    vector_floats = rows.entries * rows.tap_floats
    with e.loop("block", rows.block_count) as block, e.loop("sub", lanes.subs) as sub:
        number = rows.block_begin + block.index
        vector = number * lanes.subs + sub.index
        weights = e.pointer("weights").at(vector * vector_floats)
        start = e.pointer("bias").at(vector * lanes.lanes).load(lanes.lanes)
        source = rows.memory.at(block.index * rows.block_floats)
        with e.loop("tile", writer.tiles) as tile:
            here = source.at(tile.index * (s.advance * lanes.width))
            acc = _accumulate(e, s, rows, here, weights, start, count)
            writer.store(acc, row, rows.tile_begin + tile.index, number, sub.index)


def _accumulate(e: Emitter, s: Schedule, rows: Rows, source: Ptr, weights: Ptr, start: Vec, count: Int) -> list[Vec]:
    lanes, size = s.lanes, s.lanes.lanes
    with e.loop("entry", count, carry=[start] * s.pixels) as loop:
        place, tap_place = rows.entry(loop.index)
        acc, here, w = list(loop.carried), source.at(place), weights.at(tap_place)
        for channel in range(s.block):
            taps = [w.at((channel * s.taps + k) * size).load(size, align=4 * size) for k in range(s.taps)]
            for column, uses in s.uses().items():
                value = lanes.spread(e, here.at(column * lanes.width), channel)
                for pixel, tap in uses:
                    acc[pixel] = e.fma(value, taps[tap], acc[pixel])
        loop.carry(acc)
    return loop.result


class Writer:
    """Stores a tile: whole vectors inside the result, pixel by pixel and masked at its edges."""

    def __init__(self, e: Emitter, s: Schedule, rows: Rows) -> None:
        self.e, self.s, self.groups = e, s, rows.f.groups
        n, d, self.step_h, self.step_w, self.first, self.columns = e.fields(
            "result_n result_d result_h result_w result_first columns_out"
        )
        self.plane = e.pointer("result").at(rows.image * n + rows.plane * d)
        tiles = (self.columns - self.first + (s.pixels - 1)) // s.pixels
        self.tiles = e.smaller(rows.f.span_tiles, tiles - rows.tile_begin)

    def store(self, acc: list[Vec], row: Int, tile: Int, block: Int, sub: Int) -> None:
        """`acc` of one tile, for vector `sub` of the groups of `block`."""
        e, s, lanes = self.e, self.s, self.s.lanes
        first = self.first + tile * s.pixels
        channel = block * (lanes.packs * lanes.outs) + sub * lanes.lanes
        place = self.plane.at(row * self.step_h + first * self.step_w + channel)
        if lanes.slot != lanes.outs and lanes.subs == 1:
            self._each_pixel(acc, place, first, lambda value, at: self._store_slots(value, at, block))
            return
        present = e.smaller(self.groups - block * lanes.packs, lanes.packs) * lanes.outs - sub * lanes.lanes
        inside = e.both(first >= 0, first + s.pixels <= self.columns)
        with e.either(e.both(inside, present >= lanes.lanes)) as (whole, partial):
            with whole:
                for pixel, value in enumerate(acc):
                    to = place.at(self.step_w * pixel)
                    to.store(value, align=4 * lanes.lanes if s.stream else 4, stream=s.stream)
            with partial:
                mask = e.mask(present, lanes.lanes)
                self._each_pixel(acc, place, first, lambda value, at: at.store_masked(value, mask))

    def _each_pixel(self, acc: list[Vec], place: Ptr, first: Int, store: Any) -> None:
        for pixel, value in enumerate(acc):
            column = first + pixel
            with self.e.when(self.e.both(column >= 0, column < self.columns)):
                store(value, place.at(self.step_w * pixel))

    def _store_slots(self, value: Vec, place: Ptr, block: Int) -> None:
        """Groups that leave lanes of their slots idle, one after the other."""
        e, lanes = self.e, self.s.lanes
        for pack in range(lanes.packs):
            with e.when(block * lanes.packs + pack < self.groups):
                for start, size in pieces(lanes.outs, lanes.lanes):
                    lane = pack * lanes.slot + start
                    part = e.lane(value, lane) if size == 1 else e.shuffle(value, value, list(range(lane, lane + size)))
                    place.at(pack * lanes.outs + start).store(part)
