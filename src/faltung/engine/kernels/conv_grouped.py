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
                            v = source[column][c] of each lane's own group       one load, which repeats it
                            for (p, k) that column serves:  acc[p] += v * weight[c][k]
                store acc

Registers: P accumulators + K taps' weights + the repeated vector. 24 pixels for 3 taps beside 32 registers, 10 beside
16.

With P = 20 and 4 -> 8 channels per group, 60 multiply-adds go with 25 loads, so the multiply-adds set the pace.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from faltung.engine import layout, memory, registry, team
from faltung.engine.emit import Emitter, Int, Ptr, Vec
from faltung.engine.epilogue import ACTIVATIONS, NO_STEPS, Epilogue, Steps, steps_of
from faltung.engine.geometry import ConvGeometry
from faltung.engine.kernel import Kernel, address, pack_last
from faltung.engine.kernels import epilogue as epilogues
from faltung.engine.kernels import flat
from faltung.engine.kernels.group_plan import (
    MOST_SCATTERED_TAPS,
    Pass,
    Schedule,
    data_pass,
    forward_pass,
    pack_bias,
    plan,
    source_steps,
)
from faltung.engine.kernels.group_rows import Lanes, Rows, pieces
from faltung.engine.kernels.group_weights import Weights, pack
from faltung.engine.target import host

Cache = dict[Any, Any] | None

FIELDS = (
    f"result result_n result_d result_h result_w weights bias {epilogues.FIELDS} result_first columns_out {Rows.FIELDS}"
)


def refuse_forward(
    geometry: ConvGeometry, x: np.ndarray, w: np.ndarray, bias: np.ndarray | None, **_: Any
) -> str | None:
    """None if this kernel computes the forward pass, else why not."""
    if bias is not None and bias.dtype != np.float32:
        return f"bias is {bias.dtype}"
    return refuse_types(x, w) or refuse_sizes(geometry)


def refuse_backward_data(geometry: ConvGeometry, gy: np.ndarray, w: np.ndarray, *, cache: Cache = None) -> str | None:
    """None if this kernel computes the data gradient, else why not."""
    return refuse_types(gy, w) or refuse_sizes(geometry)


def refuse_types(a: np.ndarray, b: np.ndarray) -> str | None:
    """Only float32 is generated."""
    return None if a.dtype == b.dtype == np.float32 else f"{a.dtype} and {b.dtype}, not float32"


@lru_cache(maxsize=4096)
def refuse_sizes(g: ConvGeometry) -> str | None:
    """What neither depthwise nor grouped kernels take."""
    if g.groups == 1 and g.in_channels > 1:
        return "one group: a dense convolution"
    if 0 in (g.batch, g.in_channels, g.out_channels, *g.input, *g.output):
        return "nothing to compute"
    ins, outs = g.in_channels // g.groups, g.out_channels // g.groups
    if min(ins, outs) >= host().lanes and max(ins, outs) > host().lanes:
        return f"{ins} -> {outs} channels per group fill vectors by themselves"
    if g.kernel[-1] > MOST_SCATTERED_TAPS and set(g.stride) != {1}:
        return f"strided rows of {g.kernel[-1]} taps"
    return None


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
    the epilogue; a residual is added in a pass of its own.
    """
    y = memory.empty_channels_last(geometry.output_shape)
    if epilogue is None or epilogue.residual is None:
        _run(geometry, False, x, w, bias, y, cache, epilogue)
        return y
    _run(geometry, False, x, w, bias, y, cache, Epilogue(epilogue.affine))
    y = registry.call("pointwise.add", y, epilogue.residual)
    if epilogue.activation:
        name, numbers = ACTIVATIONS[epilogue.activation]
        y = registry.call(f"activation.{name}_forward", y, **numbers)
    return y


def backward_data(geometry: ConvGeometry, gy: np.ndarray, w: np.ndarray, *, cache: Cache = None) -> np.ndarray:
    """gx: every input sample collects the gradients of the outputs that it reached, times the weights."""
    gx = memory.empty_channels_last(geometry.input_shape)
    _run(geometry, True, gy, w, None, gx, cache)
    return gx


def _run(
    g: ConvGeometry,
    back: bool,
    source: np.ndarray,
    w: np.ndarray,
    bias: np.ndarray | None,
    result: np.ndarray,
    cache: Cache,
    epilogue: Epilogue | None = None,
) -> None:
    source, planar = readable(source)
    place = address(result)
    steps = steps_of(epilogue)
    job = _prepared(g, back, source.strides, planar, place % 64 == 0, steps)
    lanes = job.schedule.lanes
    packed = cache.get(job.key) if cache is not None else None
    if packed is None:
        packed = pack(job.purpose, Weights(lanes, job.schedule.block, job.schedule.taps), w, job.vectors)
        if cache is not None:
            cache[job.key] = packed
    biases = job.no_bias if bias is None else packed_bias(g.groups, lanes, job.vectors, bias)
    _kept, start = team.scratch(job.scratch_floats)
    affine = None if epilogue is None or epilogue.affine is None else _packed_affine(g.groups, job, epilogue.affine)
    finish = (0, 0, 0) if affine is None else (address(affine), affine.size // 3, 0)
    addresses = (place, address(packed), address(biases), address(source), start)
    job.kernel.launch_packed(job.chunks, *addresses, *finish, rest=job.fields)


def weights_key(lanes: Lanes, block: int, taps: int, back: bool, flip: bool) -> str:
    """What packed weights are kept under: a string, which is hashed only once."""
    return f"grouped {lanes} {block} {taps} {back} {flip}"


@dataclass(frozen=True, slots=True)
class _Job:
    """One pass of one geometry, prepared: everything but the addresses."""

    purpose: Pass
    schedule: Schedule
    kernel: Kernel
    key: str  # of the packed weights in a cache
    chunks: int
    vectors: int
    scratch_floats: int
    fields: bytes  # behind the addresses and the epilogue's
    no_bias: np.ndarray


@lru_cache(maxsize=2048)
def _prepared(g: ConvGeometry, back: bool, strides: tuple[int, ...], planar: bool, aligned: bool, steps: Steps) -> _Job:
    purpose = data_pass(g) if back else forward_pass(g)
    chosen = plan(purpose, planar, aligned and streams(purpose), host())
    schedule, lanes = replace(chosen.schedule, epilogue=steps), chosen.schedule.lanes
    kernel = row_kernel(schedule)
    width = purpose.groups * purpose.outs
    depth, height, columns = purpose.result
    known = {
        **chosen.fields,
        **source_steps("source", strides),
        "scratch_floats": chosen.scratch_floats,
        "result_first": chosen.result_first,
        "columns_out": columns,
        "result_n": depth * height * columns * width,
        "result_d": height * columns * width,
        "result_h": columns * width,
        "result_w": width,
    }
    fields = pack_last(*(known[name] for name in kernel.fields[len(_FIRST) :]))
    key = weights_key(lanes, schedule.block, schedule.taps, back, purpose.flip)
    return _Job(
        purpose,
        schedule,
        kernel,
        key,
        chosen.items * chosen.parts,
        chosen.vectors,
        chosen.scratch_floats,
        fields,
        np.zeros(chosen.vectors * lanes.lanes, np.float32),
    )


def streams(p: Pass) -> bool:
    """Whether the result is large, and its vectors are whole cache lines, so that writing past the caches pays."""
    target, channels = host(), p.groups * p.outs
    nbytes = 4 * p.batch * channels * prod(p.result)
    power = p.outs & (p.outs - 1) == 0
    return target.vector_bytes == 64 and channels % 16 == 0 and power and flat.streams(nbytes)


def readable(x: np.ndarray) -> tuple[np.ndarray, bool]:
    """x as a fetch can read it, and whether it runs along the width rather than along the channels."""
    channels_last = x.strides[1] == 4 or x.shape[1] == 1
    if (channels_last or x.strides[-1] == 4) and x.flags.aligned:
        return x, not channels_last
    return layout.channels_last(x), False


def packed_bias(groups: int, lanes: Lanes, vectors: int, bias: np.ndarray) -> np.ndarray:
    """The bias as vectors: itself where every lane counts, in its order."""
    if lanes.takes_no_turns and bias.size == vectors * lanes.lanes and bias.strides[0] == 4:
        return bias
    return pack_bias(bias, groups, lanes)


def _packed_affine(groups: int, job: _Job, affine: np.ndarray) -> np.ndarray:
    """(3, O) as vectors, like the bias."""
    lanes = job.schedule.lanes
    if lanes.takes_no_turns and affine.shape[1] == job.vectors * lanes.lanes and affine.flags.c_contiguous:
        return affine
    return np.stack([pack_bias(row, groups, lanes).reshape(-1) for row in affine])


_FIRST = f"result weights bias source scratch {epilogues.FIELDS}".split()
_ORDER = " ".join([*_FIRST, *(name for name in FIELDS.split() if name not in _FIRST)])


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
                value = lanes.spread(here.at(column * lanes.width), channel)
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
        self.finish = epilogues.Finish(e, s.epilogue)
        self.plane = e.pointer("result").at(rows.image * n + rows.plane * d)
        tiles = (self.columns - self.first + (s.pixels - 1)) // s.pixels
        self.tiles = e.smaller(rows.f.span_tiles, tiles - rows.tile_begin)

    def store(self, acc: list[Vec], row: Int, tile: Int, block: Int, sub: Int) -> None:
        """`acc` of one tile, for vector `sub` of the groups of `block`."""
        e, s, lanes = self.e, self.s, self.s.lanes
        if s.epilogue != NO_STEPS:
            acc = [self.finish(value, (block * lanes.subs + sub) * lanes.lanes) for value in acc]
        if not lanes.takes_no_turns and lanes.slot == lanes.outs:
            order = [lane for pack in range(lanes.packs) for lane in lanes.in_order(pack, 0, lanes.outs)]
            acc = [e.shuffle(value, value, order) for value in acc]
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
        for slot in range(lanes.packs):
            with e.when(block * lanes.packs + slot < self.groups):
                for start, size in pieces(lanes.outs, lanes.lanes):
                    order = lanes.in_order(slot, start, size)
                    part = e.lane(value, order[0]) if size == 1 else e.shuffle(value, value, order)
                    place.at(slot * lanes.outs + start).store(part)
