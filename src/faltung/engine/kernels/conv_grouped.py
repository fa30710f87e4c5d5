"""draft"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from faltung.engine import memory, team
from faltung.engine.emit import Emitter, Int, Ptr, Vec
from faltung.engine.geometry import ConvGeometry
from faltung.engine.kernel import Kernel
from faltung.engine.kernels.group_rows import Lanes, Rows, pieces
from faltung.engine.target import Target, host


@dataclass(frozen=True, slots=True)
class Schedule:
    """Everything that shapes a kernel's code."""

    lanes: Lanes
    planar: bool  # the input's memory runs along the width
    pixels: int  # P: output pixels of a tile
    block: int  # B
    taps: int  # K: taps of a kernel row in one list entry
    stride: int
    spread: int  # of a scattering kernel: column stride of the outputs that one tap meets
    dilation: int
    scatter: bool

    @property
    def shift(self) -> int:
        return -(-(self.taps - 1) * self.dilation // self.spread)

    def uses(self) -> dict[int, list[tuple[int, int]]]:
        """Input column of a tile -> the (pixel, tap) pairs that it serves."""
        found: dict[int, list[tuple[int, int]]] = {}
        for p in range(self.pixels):
            for k in range(self.taps):
                if not self.scatter:
                    found.setdefault(p * self.stride + k * self.dilation, []).append((p, k))
                elif (p - k * self.dilation) % self.spread == 0:
                    found.setdefault((p - k * self.dilation) // self.spread + self.shift, []).append((p, k))
        return dict(sorted(found.items()))

    @property
    def advance(self) -> int:
        return self.pixels // self.spread if self.scatter else self.pixels * self.stride


import os

STREAM = bool(os.environ.get("STREAM"))
FIELDS = "result result_n result_d result_h result_w weights bias result_first columns_out " + Rows.FIELDS


def emit_forward(e: Emitter, s: Schedule) -> None:
    lanes = s.lanes
    tap_floats = s.block * s.taps * lanes.lanes
    rows = Rows(e, lanes, s.planar, s.block, tap_floats, s.scatter)
    rows.begin(e.chunk // rows.f.block_chunks, e.chunk % rows.f.block_chunks)
    result_n, result_d, result_h, result_w, result_first, columns_out = e.fields(
        "result_n result_d result_h result_w result_first columns_out"
    )
    plane = e.pointer("result").at(rows.image * result_n + rows.plane * result_d)
    weights, bias = e.pointer("weights"), e.pointer("bias")
    all_tiles = (columns_out - result_first + (s.pixels - 1)) // s.pixels
    tiles = e.smaller(rows.f.span_tiles, all_tiles - rows.tile_begin)
    with e.loop("row", rows.row_end, start=rows.row_begin, carry=[e.int(0)]) as row:
        filled = rows.fetch(row.index, row.carried[0])
        count = rows.list_taps(row.index)
        with e.loop("block", rows.block_count) as block, e.loop("sub", lanes.subs) as sub:
            number = rows.block_begin + block.index
            vector = number * lanes.subs + sub.index
            w = weights.at(vector * rows.entries * tap_floats)
            b = bias.at(vector * lanes.lanes).load(lanes.lanes)
            x = rows.memory.at(block.index * rows.block_floats)
            with e.loop("tile", tiles) as tile:
                acc = _accumulate(e, s, rows, x.at(tile.index * (s.advance * lanes.width)), w, b, count)
                first = result_first + (rows.tile_begin + tile.index) * s.pixels
                channel = number * (lanes.packs * lanes.outs) + sub.index * lanes.lanes
                place = plane.at(row.index * result_h + first * result_w + channel)
                _store(e, s, acc, place, result_w, first, columns_out, rows.f.groups, number, sub.index)
        row.carry([filled])


def _accumulate(e: Emitter, s: Schedule, rows: Rows, x: Ptr, w: Ptr, start: Vec, count: Int) -> list[Vec]:
    lanes, L = s.lanes, s.lanes.lanes
    with e.loop("tap", count, carry=[start] * s.pixels) as loop:
        offset, tap = rows.entry(loop.index)
        acc = list(loop.carried)
        here, weights = x.at(offset), w.at(tap)
        for channel in range(s.block):
            ws = [weights.at((channel * s.taps + k) * L).load(L, align=4 * L) for k in range(s.taps)]
            for column, uses in s.uses().items():
                value = lanes.spread(e, here.at(column * lanes.width), channel)
                for pixel, tap_number in uses:
                    acc[pixel] = e.fma(value, ws[tap_number], acc[pixel])
        loop.carry(acc)
    return loop.result


def _store(
    e: Emitter,
    s: Schedule,
    acc: list[Vec],
    place: Ptr,
    step: Int,
    first: Int,
    columns: Int,
    groups: Int,
    number: Int,
    sub: Int,
) -> None:
    lanes = s.lanes
    if lanes.slot != lanes.outs and lanes.subs == 1:
        for pixel, value in enumerate(acc):
            column = first + pixel
            with e.when(e.both(column >= 0, column < columns)):
                for pack in range(lanes.packs):
                    with e.when(number * lanes.packs + pack < groups):
                        piece = e.shuffle(value, value, [pack * lanes.slot + k for k in range(lanes.slot)])
                        _store_few(e, piece, place.at(step * pixel + pack * lanes.outs), lanes.outs)
        return
    present = e.smaller(groups - number * lanes.packs, lanes.packs) * lanes.outs - sub * lanes.lanes
    inside = e.both(first >= 0, first + s.pixels <= columns)
    with e.either(e.both(inside, present >= lanes.lanes)) as (whole, partial):
        with whole:
            for pixel, value in enumerate(acc):
                place.at(step * pixel).store(value, align=64 if STREAM else 4, stream=STREAM)
        with partial:
            mask = e.mask(present, lanes.lanes)
            for pixel, value in enumerate(acc):
                column = first + pixel
                with e.when(e.both(column >= 0, column < columns)):
                    place.at(step * pixel).store_masked(value, mask)


def _store_few(e: Emitter, value: Vec, place: Ptr, count: int) -> None:
    for done, size in pieces(count, e.lanes):
        piece = e.lane(value, done) if size == 1 else e.shuffle(value, value, list(range(done, done + size)))
        place.at(done).store(piece)


@lru_cache(maxsize=256)
def forward_kernel(s: Schedule) -> Kernel:
    return Kernel("conv_rows%d" % STREAM, FIELDS, s, emit_forward)


def pack(w: np.ndarray, lanes: Lanes, block: int, taps: int) -> np.ndarray:
    """(G, outs, ins, kd, kh, kw) -> vectors of outputs, then list entries, then [channel][tap][lane]."""
    groups, outs, ins, *kernel = w.shape
    blocks = -(-groups // lanes.packs)
    slots = lanes.slot * lanes.subs
    full = np.zeros((blocks * lanes.packs, slots, ins, *kernel), np.float32)
    full[:groups, :outs] = w
    # blocks, packs, subs, slot, lines, block, d, h, w blocks, taps
    full = full.reshape(
        blocks, lanes.packs, lanes.subs, lanes.slot, ins // block, block, kernel[0], kernel[1], kernel[2] // taps, taps
    )
    return np.ascontiguousarray(full.transpose(0, 2, 6, 7, 8, 4, 5, 9, 1, 3))


def pack_bias(bias, groups, lanes):
    blocks = -(-groups // lanes.packs)
    full = np.zeros((blocks * lanes.packs, lanes.slot * lanes.subs), np.float32)
    if bias is not None:
        full[:groups, : lanes.outs] = bias.reshape(groups, lanes.outs)
    return full.reshape(blocks, lanes.packs, lanes.subs, lanes.slot).transpose(0, 2, 1, 3).copy()


@dataclass(frozen=True)
class Axis3:
    pass


@lru_cache(maxsize=1024)
def plan_forward(g: ConvGeometry, planar: bool, target: Target, P=None, block_step=None, strip_rows=None, block=None):
    lift = 3 - g.ndim
    one = (1,) * lift
    kernel, stride, dilation = one + g.kernel, one + g.stride, one + g.dilation
    size, out = one + g.input, one + g.output
    pad = (0,) * lift + tuple(p[0] for p in g.padding)
    i, o = g.in_channels // g.groups, g.out_channels // g.groups
    lanes = Lanes(target.lanes, i, o)
    if block is None:
        block = max(b for b in range(1, 5) if i % b == 0)
    kw = kernel[2]
    taps = max(t for t in range(1, 8) if kw % t == 0)
    if P is None:
        top = target.registers - taps - (4 if target.registers == 32 else 2)
        P = min(range(1, top + 1), key=lambda p: (-(-out[2] // p) * (p + 3), -p))
    s = Schedule(lanes, planar, P, block, taps, stride[2], 1, dilation[2], False)
    tiles = -(-out[2] // P)
    span_tiles = max(1, min(tiles, 256 // P))
    w_blocks = kw // taps
    reach = max(s.uses()) + 1 + (w_blocks - 1) * taps * dilation[2]
    ring_columns = (span_tiles - 1) * s.advance + reach
    ring = (kernel[1] - 1) * dilation[1] + 1
    blocks = -(-g.groups // lanes.packs)
    ring_bytes = kernel[0] * ring * (ring_columns + target.lanes) * lanes.width * 4
    if block_step is None:
        block_step = max(1, min(blocks, target.l1_bytes // 2 // ring_bytes))
    if strip_rows is None:
        strip_rows = max(min(out[1], 16), 1)
    strips = -(-out[1] // strip_rows)
    spans = -(-tiles // span_tiles)
    block_chunks = -(-blocks // block_step)
    chunks = g.batch * out[0] * strips * spans * block_chunks
    entries = kernel[0] * kernel[1] * w_blocks * (i // block)
    floats = block_step * ring_bytes // 4 + entries * 4 + 32
    floats = -(-floats // 16) * 16
    fields = dict(
        result_first=0,
        columns_out=out[2],
        scratch_floats=floats,
        groups=g.groups,
        blocks=blocks,
        block_step=block_step,
        block_chunks=block_chunks,
        strips=strips,
        strip_rows=strip_rows,
        spans=spans,
        span_tiles=span_tiles,
        planes_out=out[0],
        rows_out=out[1],
        planes=size[0],
        rows=size[1],
        columns=size[2],
        d_taps=kernel[0],
        d_scale=stride[0],
        d_base=-pad[0],
        d_step=dilation[0],
        d_divide=1,
        h_taps=kernel[1],
        h_scale=stride[1],
        h_base=-pad[1],
        h_step=dilation[1],
        h_divide=1,
        h_lead=0,
        h_shift=pad[1],
        ring=ring,
        first=-pad[2],
        advance=s.advance,
        ring_columns=ring_columns,
        w_blocks=w_blocks,
        w_block_step=taps * dilation[2],
    )
    return s, chunks, fields


def strides5(x):
    st = [v // 4 for v in x.strides]
    n, c, *sp = st
    sp = [0] * (3 - len(sp)) + sp
    return n, *sp, c


def forward(geometry, x, w, bias, *, cache=None, **kw):
    g = geometry
    n, d, h, ww, c = strides5(x)
    if c == 1:
        planar = False
    elif ww == 1:
        planar = True
    s, chunks, f = plan_forward(g, planar, host(), **kw)
    y = memory.empty_channels_last(g.output_shape)
    rn, rd, rh, rw, rc = strides5(y)
    key = ("g", s.lanes, s.block, s.taps)
    if cache is not None and key in cache:
        pw, pb = cache[key]
    else:
        w6 = w.reshape(g.groups, g.out_channels // g.groups, -1, *(1,) * (3 - g.ndim), *g.kernel)
        pw = aligned(pack(w6, s.lanes, s.block, s.taps))
        pb = aligned(pack_bias(bias, g.groups, s.lanes))
        if cache is not None:
            cache[key] = (pw, pb)
    scratch = memory.empty((f["scratch_floats"] * team.get_num_threads() + 16,))
    base = scratch.ctypes.data
    base += -base % 64
    f = dict(
        f,
        source=x.ctypes.data,
        source_n=n,
        source_d=d,
        source_h=h,
        source_w=ww,
        source_c=c,
        result=y.ctypes.data,
        result_n=rn,
        result_d=rd,
        result_h=rh,
        result_w=rw,
        weights=pw.ctypes.data,
        bias=pb.ctypes.data,
        scratch=base,
    )
    k = forward_kernel(s)
    k.launch(chunks, *[f[name] for name in k.fields])
    return y


def aligned(a):
    raw = memory.aligned_bytes(a.nbytes).view(np.float32).reshape(a.shape)
    raw[:] = a
    return raw
