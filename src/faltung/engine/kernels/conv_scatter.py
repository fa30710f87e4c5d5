"""The data gradient where the input has few channels: each output pixel's share is computed at once for all taps of a
row.

The gather form (`conv_direct` over gy) would fill its vectors with input channels, of which a first layer has three.
Here vectors run over (kw, channel) together, which lie side by side in a row of the gradient:

    chunk: image n, group g, plane and rows of gx
      for row ih of gx:
        line = 0                                             # one padded row of gx, in the thread's scratch
        for kd, kh with a gy row (od, oh) on the stride:
          for block of (kw, i) vectors, tile of columns ow:
            acc[ow][vector] = sum over o of gy[ow][o] * panel[kd, kh][o][vector]     # microkernel
            line[ow * stride .. + taps_w][i] += acc[ow]
        gx[ih] = line without its padding

It also does no work for the zeros that a gather form meets around a small plane. Registers: pixels * vectors
accumulators, `vectors` of the panel, one broadcast.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from faltung.engine import memory, team
from faltung.engine.emit import Emitter, Int, Ptr
from faltung.engine.geometry import ConvGeometry
from faltung.engine.kernel import Kernel, address
from faltung.engine.kernels import pack_weights
from faltung.engine.kernels.chunk import Fields
from faltung.engine.kernels.conv_dense import channels_adjacent, even_columns, refuse, strides_of
from faltung.engine.kernels.conv_problem import backward_problems, three
from faltung.engine.kernels.microkernel import Row, accumulate, largest_tile
from faltung.engine.kernels.rows import copy, fill
from faltung.engine.target import Target, host

FIELDS = (
    "gy panels gx scratch groups planes row_blocks rows_per_chunk blocks "
    "out_channels channels taps_d taps_h stride_d stride_h stride_w dil_d dil_h before_d before_h before_w "
    "in_h in_w out_d out_h out_w y_n y_d y_h y_w x_n x_d x_h x_w line_floats panel_floats"
)
_APART = 6  # pixels between consecutive additions to a line: three channels of them are more than a vector
_SCATTER_COST = 1.3  # a multiply-add here against one of the gather form, both measured at the document's first layer


@dataclass(frozen=True, slots=True)
class Schedule:
    """What shapes the code."""

    columns: int
    vectors: int
    narrow: bool
    tail_vectors: int  # vectors of the last block, 0 if it is full
    unroll: int
    exact: bool


def refuse_backward_data(geometry: ConvGeometry, gy: np.ndarray, w: np.ndarray, **_: Any) -> str | None:
    """Why scattering does not fit, or None."""
    return refuse(geometry, gy, w) or _unfit(geometry)


@lru_cache(maxsize=4096)
def _unfit(geometry: ConvGeometry) -> str | None:
    if geometry.dilation[-1] != 1:
        return "dilated along the row"
    lanes = host().lanes
    channels, outs = geometry.in_channels // geometry.groups, geometry.out_channels // geometry.groups
    gather = 0
    for problem in backward_problems(geometry)[0]:
        taps = problem.taps[0] * problem.taps[1] * problem.taps[2]
        gather += problem.pixels * taps * -(-channels // lanes) * outs
    kernel, output = three(geometry.kernel), three(geometry.output)
    pixels = output[0] * output[1] * output[2]
    scatter = pixels * kernel[0] * kernel[1] * -(-kernel[2] * channels // lanes) * outs
    return None if _SCATTER_COST * scatter < gather else "gathering costs no more"


def backward_data(
    geometry: ConvGeometry, gy: np.ndarray, w: np.ndarray, *, cache: dict[Any, Any] | None = None
) -> np.ndarray:
    """The gradient of the input, physically channels last."""
    gx = memory.empty_channels_last(geometry.input_shape)
    plan = plan_for(geometry, team.get_num_threads(), host())
    s = plan.schedule
    panels = _panels(geometry, w, plan, cache)
    gy = channels_adjacent(gy)
    ys, xs = strides_of(gy), strides_of(gx)
    scratch = memory.empty((team.get_num_threads() * plan.line_floats,))
    size, out = three(geometry.input), three(geometry.output)
    stride, dilation = three(geometry.stride), three(geometry.dilation)
    before = three(tuple(a for a, _ in geometry.padding), 0)
    kernel = three(geometry.kernel)
    row_blocks = -(-size[1] // plan.rows_per_chunk)
    _kernel(s).launch(
        geometry.batch * geometry.groups * size[0] * row_blocks,
        address(gy), address(panels), address(gx), address(scratch), geometry.groups, size[0], row_blocks,
        plan.rows_per_chunk, plan.blocks, geometry.out_channels // geometry.groups,
        geometry.in_channels // geometry.groups, *kernel[:2], *stride, *dilation[:2], *before, *size[1:], *out,
        ys[0], *ys[2:], xs[0], *xs[2:], plan.line_floats, panels.shape[-2] * panels.shape[-1],
    )  # fmt: skip
    return gx


@dataclass(frozen=True, slots=True)
class Plan:
    """A schedule with the numbers that go with it."""

    schedule: Schedule
    blocks: int  # of (kw, i) vectors
    rows_per_chunk: int
    line_floats: int


@lru_cache(maxsize=1024)
def plan_for(geometry: ConvGeometry, threads: int, target: Target) -> Plan:
    """Tile, blocks and chunks."""
    lanes = target.lanes
    channels, outs = geometry.in_channels // geometry.groups, geometry.out_channels // geometry.groups
    needed = -(-geometry.kernel[-1] * channels // lanes)
    vectors = needed if needed <= 3 else 3 if needed % 3 == 0 else 2
    width = geometry.output[-1]
    columns = even_columns(width, min(largest_tile(target, vectors), 14))
    size = three(geometry.input)
    images = geometry.batch * geometry.groups * size[0]
    rows = max(1, min(size[1], images * size[1] // (8 * threads), 16))
    # the last pixel's vectors reach past its taps into the padding of the line
    reach = (width - 1) * geometry.stride[-1] * channels + -(-needed // vectors) * vectors * lanes
    extent = (geometry.input[-1] + max(0, geometry.padding[-1][0])) * channels
    return Plan(
        Schedule(
            columns, vectors, width % columns != 0, needed % vectors, 4, outs % 4 == 0
        ),
        -(-needed // vectors),
        rows,
        -(-max(reach, extent) // lanes) * lanes,
    )  # fmt: skip


@lru_cache(maxsize=64)
def _kernel(schedule: Schedule) -> Kernel:
    return Kernel("conv_scatter", FIELDS, schedule, emit)


def _panels(geometry: ConvGeometry, w: np.ndarray, plan: Plan, cache: dict[Any, Any] | None) -> np.ndarray:
    """Weights as [group][kd, kh][block][o][vectors * lanes] with (kw, i) along the vectors."""
    vectors = plan.schedule.vectors
    key = ("scatter", vectors)
    if cache is not None and key in cache:
        return cache[key]
    groups, outs = geometry.groups, geometry.out_channels // geometry.groups
    channels = geometry.in_channels // groups
    taps_d, taps_h, taps_w = three(geometry.kernel)
    # rows (kw, i) of a tap line: small, so that NumPy may arrange them
    lines = w.reshape(groups, outs, channels, taps_d * taps_h, taps_w).transpose(0, 3, 4, 2, 1)
    lines = np.ascontiguousarray(lines, dtype=np.float32).reshape(groups * taps_d * taps_h, taps_w * channels, outs)
    panels = memory.empty((len(lines), plan.blocks, outs, vectors * host().lanes))
    table = np.arange(outs, dtype=np.int64)
    for line in range(len(lines)):
        rows = taps_w * channels
        pack_weights.pack(lines, line * rows * outs, rows, outs, 1, outs, outs, table, vectors, outs, panels[line])
    if cache is not None:
        cache[key] = panels
    return panels


class _Chunk(Fields):
    """The run-time numbers of one chunk."""

    def __init__(self, e: Emitter, s: Schedule) -> None:
        super().__init__(e, FIELDS)
        self.s = s
        chunk = e.chunk
        row_block, chunk = chunk % self.row_blocks, chunk // self.row_blocks
        self.plane, chunk = chunk % self.planes, chunk // self.planes
        self.g, self.n = chunk % self.groups, chunk // self.groups
        self.row_start = row_block * self.rows_per_chunk
        self.row_end = e.smaller(self.row_start + self.rows_per_chunk, self.in_h)
        self.source = e.pointer("gy").at(self.n * self.y_n + self.g * self.out_channels)
        self.target = e.pointer("gx").at(self.n * self.x_n + self.plane * self.x_d + self.g * self.channels)
        self.line = e.pointer("scratch").at(e.thread * self.line_floats)
        self.width = s.vectors * e.lanes


def emit(e: Emitter, s: Schedule) -> None:
    """One chunk of the loop nest above."""
    e.is_scheduled()
    k = _Chunk(e, s)
    with e.loop("ih", k.row_end, start=k.row_start) as ih:
        fill(e, k.line, k.line_floats)
        with e.loop("kd", k.taps_d) as kd:
            deep = k.plane + k.before_d - kd.index * k.dil_d
            with e.when(_lands(e, deep, k.stride_d, k.out_d)):
                with e.loop("kh", k.taps_h) as kh:
                    high = ih.index + k.before_h - kh.index * k.dil_h
                    with e.when(_lands(e, high, k.stride_h, k.out_h)):
                        row = k.source.at(deep // k.stride_d * k.y_d + high // k.stride_h * k.y_h)
                        tap = (k.g * k.taps_d + kd.index) * k.taps_h + kh.index
                        _tap_line(k, row, tap * k.blocks)
        _write_line(k, k.target.at(ih.index * k.x_h))


def _lands(e: Emitter, position: Int, stride: Int, size: Int) -> Any:
    """True if a position of the stretched plane is one of the `size` pixels of gy."""
    reached = e.both(position >= 0, position < size * stride)
    return e.both(reached, (e.larger(position, 0) % stride).equals(0))


def _tap_line(k: _Chunk, row: Ptr, first_panel: Int) -> None:
    e, s = k.e, k.s
    with e.loop("block", k.blocks) as block:
        panel = e.pointer("panels").at((first_panel + block.index) * k.panel_floats)
        line = k.line.at(block.index * k.width)
        if s.tail_vectors:
            with e.either(block.index.equals(k.blocks - 1)) as (yes, no):
                with yes:
                    _columns(k, row, panel, line, s.tail_vectors)
                with no:
                    _columns(k, row, panel, line, s.vectors)
        else:
            _columns(k, row, panel, line, s.vectors)


def _columns(k: _Chunk, row: Ptr, panel: Ptr, line: Ptr, vectors: int) -> None:
    """Column tiles of a gy row: `columns` wide, then one less."""
    e, s = k.e, k.s
    tiles = (k.out_w + (s.columns - 1)) // s.columns
    end = (tiles - (tiles * s.columns - k.out_w)) * s.columns
    with e.loop("ow", end, step=s.columns) as ow:
        _tile(k, row, panel, line, ow.index, s.columns, vectors)
    if s.narrow:
        with e.loop("ow1", k.out_w, start=end, step=s.columns - 1) as ow:
            _tile(k, row, panel, line, ow.index, s.columns - 1, vectors)


def _tile(k: _Chunk, row: Ptr, panel: Ptr, line: Ptr, ow: Int, columns: int, vectors: int) -> None:
    e, s = k.e, k.s
    accs = [e.zero() for _ in range(columns * vectors)]
    pixels = Row.of(row.at(ow * k.y_w), k.y_w, columns)
    accs, _, _ = accumulate(
        e, [pixels], panel, k.out_channels, accs, vectors, s.unroll, s.exact, panel_vectors=s.vectors
    )
    step = k.stride_w * k.channels
    # neighbours overlap in the line: far apart in time, a sum need not wait for the store of the one before
    for p in sorted(range(columns), key=lambda p: (p % _APART, p)):
        for v in range(vectors):
            at = line.at((ow + p) * step + v * e.lanes)
            at.store(at.load(e.lanes) + accs[p * vectors + v])


def _write_line(k: _Chunk, to: Ptr) -> None:
    """The part of the line that is input."""
    e = k.e
    line = k.line.at(k.before_w * k.channels)
    with e.either(k.x_w.equals(k.channels)) as (yes, no):
        with yes:
            copy(e, line, to, k.in_w * k.channels)
        with no, e.loop("px", k.in_w) as px:
            copy(e, line.at(px.index * k.channels), to.at(px.index * k.x_w), k.channels)
