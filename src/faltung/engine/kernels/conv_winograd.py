"""Convolution at stride 1 through Winograd's F(m x m, r x r): (m + r - 1)^2 multiplications for m^2 outputs.

3x3 kernels have m 4 or 2, 4x4 ones 3, 5x5 ones 2: transforms of 6 points a side, or 4, which keep the error small.

    chunk: a block of tiles, a part of the channel blocks
      for tile:                           V[xi] = Bt d B        input tiles of (m+r-1)^2 pixels, m apart
      for channel block of the part:
        for xi < (m+r-1)^2:               M[xi] = V[xi] U[xi]   the register tile of `microkernel`, over input channels
        for tile:                         y = At M A + bias     m x m pixels, clipped at the plane's edge

V and M stay in the thread's scratch memory, in its L2: handing V from one core to another costs more than transforming
a tile twice where the channel blocks are shared out (256 -> 256 channels at 14 px: 60 of 410 microseconds, 2 cores of a
Sapphire Rapids). U = G g Gt is transformed once per weight. Backward-data is the same over the flipped kernel; the
weight gradient (`conv_winograd_gradient`) is F(r x r, m x m), whose Bt is the same.

    V   [xi][tile][channel]          U   [channel block][xi][channel][vectors * lanes]
    M   [xi][tile][vectors * lanes]

Three kernels, since they depend on different things and each compilation costs a start its tenth of a second: the
product, which drives the other two through `Emitter.run_kernel`, knows nothing of m, r and the epilogue.

Registers: product pixels * vectors + vectors + 1; transforms see `winograd_transforms`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from faltung.engine.emit import Emitter, Int, IntLike, Ptr, Vec
from faltung.engine.epilogue import NO_STEPS, Steps
from faltung.engine.kernels import epilogue, flat
from faltung.engine.kernels.chunk import Fields, each_width, tiles_of
from faltung.engine.kernels.linear_form import apply_matrix
from faltung.engine.kernels.microkernel import Ahead, Row, accumulate
from faltung.engine.kernels.winograd_matrices import winograd
from faltung.engine.kernels.winograd_transforms import InputSchedule, TileReader

FIELDS = (
    f"read_tiles write_tiles x u bias y scratch {epilogue.FIELDS} "
    "zeros points tiles tile_blocks tile_block part_blocks channels channel_blocks out_channels tiles_h tiles_w "
    "in_h in_w before_h before_w out_h out_w x_n x_h x_w y_n y_h y_w width scratch_floats v_floats v_pitch"
)
SHARES = 2  # register tiles among which the next panel is shared out


@dataclass(frozen=True, slots=True)
class Schedule:
    """What shapes the product's code."""

    masked: ClassVar[bool] = False  # M has whole vectors
    tiles: int  # of a register tile
    vectors: int
    narrow: bool  # some register tiles have one tile less
    unroll: int
    exact: bool  # channels are a multiple of unroll
    tail_vectors: int


@dataclass(frozen=True, slots=True)
class OutputSchedule:
    """What shapes the code of the output transform."""

    outputs: int  # m
    taps: int  # r
    masked: bool  # output channels are no multiple of the lanes
    epilogue: Steps = NO_STEPS


class _Chunk(Fields):
    """The run-time numbers of a chunk."""

    def __init__(self, e: Emitter, chunk: Int) -> None:
        super().__init__(e, FIELDS)
        # tile blocks first, so that a thread keeps to its part of U
        tile_group, self.part = chunk % self.tile_blocks, chunk // self.tile_blocks
        self.first = tile_group * self.tile_block
        self.count = e.smaller(self.tile_block, self.tiles - self.first)
        self.V = e.pointer("scratch").at(e.thread * self.scratch_floats)
        self.M = self.V.at(self.v_floats)


def emit(e: Emitter, s: Schedule) -> None:
    """The loop nest of this file's docstring, the loops over tiles in kernels of their own."""
    e.is_scheduled()
    k = _Chunk(e, e.chunk)
    e.run_kernel(e.field("read_tiles"), e.chunk)
    start = k.part * k.part_blocks
    with e.loop("block", e.smaller(start + k.part_blocks, k.channel_blocks), start=start) as blocks:
        block = blocks.index
        each_width(e, s, block, k.channel_blocks, lambda vectors, _: _multiply(k, s, block, vectors))
        e.run_kernel(e.field("write_tiles"), block * k.tile_blocks + e.chunk % k.tile_blocks)


def emit_tiles(e: Emitter, s: InputSchedule) -> None:
    """V of a chunk."""
    e.is_scheduled()
    k = _Chunk(e, e.chunk)
    reader = TileReader(e, s)
    with e.loop("tile", k.count) as tile:
        reader.read(k.first + tile.index, k.V.at(tile.index * k.v_pitch), k.tile_block * k.v_pitch)


def _multiply(k: _Chunk, s: Schedule, block: Int, vectors: int) -> None:
    """M of a channel block. Where full and narrower tiles don't share the tiles out evenly, the last one overlaps."""
    e, width = k.e, s.vectors * k.e.lanes
    panels = e.pointer("u").at(block * k.points * k.channels * width)
    _, full = tiles_of(k.count, s.tiles)
    even = full >= 0
    full = e.choose(even, full, k.count // s.tiles) * s.tiles
    start = e.choose(even, full, e.larger(k.count - (s.tiles - 1), 0))
    with e.loop("xi", k.points) as xi:
        panel = panels.at(xi.index * k.channels * width)
        source = k.V.at(xi.index * k.tile_block * k.v_pitch)
        to = k.M.at(xi.index * k.tile_block * width)
        with e.loop("t", full, step=s.tiles) as t:
            _register_tile(k, s, s.tiles, vectors, source, panel, to, t.index)
        if s.narrow and s.tiles > 1:
            with e.loop("t1", k.count, start=start, step=s.tiles - 1) as t:
                _register_tile(k, s, s.tiles - 1, vectors, source, panel, to, t.index)


def _register_tile(
    k: _Chunk, s: Schedule, tiles: int, vectors: int, source: Ptr, panel: Ptr, to: Ptr, first: Int
) -> None:
    e, width = k.e, s.vectors * k.e.lanes
    accs = [e.zero() for _ in range(tiles * vectors)]
    row = Row.of(source.at(first * k.v_pitch), k.v_pitch, tiles)
    floats = k.channels * width
    ahead = Ahead.of(panel.at(floats), floats, first // s.tiles, SHARES)
    accs, _, _ = accumulate(e, [row], panel, k.channels, accs, vectors, s.unroll, s.exact, s.vectors, ahead)
    for t in range(tiles):
        for v in range(vectors):
            to.at((first + t) * width + v * e.lanes).store(accs[t * vectors + v])


def emit_outputs(e: Emitter, s: OutputSchedule) -> None:
    """y of a tile block and a channel block, whose numbers make up the chunk's."""
    e.is_scheduled()
    k = _Chunk(e, e.chunk)
    tiles = _Outputs(k, s)
    channel = k.part * k.width
    end = e.smaller(channel + k.width, k.out_channels)
    with e.loop("tile", k.count) as tile:
        tiles.place(tile.index)
        with e.loop("v", end, start=channel, step=e.lanes) as v:
            tiles.vector(k.M.at(tile.index * k.width + v.index - channel), v.index, end)


class _Outputs:
    """At M A + bias of tile after tile, through the epilogue."""

    def __init__(self, k: _Chunk, s: OutputSchedule) -> None:
        self.k, self.s, e = k, s, k.e
        self.f = winograd(s.outputs, s.taps)
        self.bias, self.y = e.pointer("bias"), e.pointer("y")
        self.finish = epilogue.Finish(e, s.epilogue)
        self.room = e.stack(s.outputs**2 * e.lanes)

    def place(self, tile: Int) -> None:
        """Go to tile number `tile` of the chunk."""
        k, m, e = self.k, self.s.outputs, self.k.e
        at = k.first + tile
        n, th, tw = at // k.tiles_w // k.tiles_h, at // k.tiles_w % k.tiles_h, at % k.tiles_w
        top, left = th * m, tw * m
        self.start = n * k.y_n + top * k.y_h + left * k.y_w
        self.rows, self.columns = e.smaller(k.out_h - top, m), e.smaller(k.out_w - left, m)

    def vector(self, source: Ptr, channel: Int, end: Int) -> None:
        """Output channels from `channel` on, below `end`."""
        e = self.k.e
        if not self.s.masked:
            self._transform(source, channel, None)
            return
        with e.either(channel + e.lanes <= end) as (whole, partial):
            with whole:
                self._transform(source, channel, None)
            with partial:
                self._transform(source, channel, e.mask(end - channel, e.lanes))

    def _transform(self, source: Ptr, channel: Int, mask: object) -> None:
        k, m, e, f = self.k, self.s.outputs, self.k.e, self.f
        step = k.tile_block * k.width
        columns = []  # [j][i]
        for j in range(f.size):
            loaded = [source.at(step * (i * f.size + j)).load(e.lanes) for i in range(f.size)]
            columns.append(apply_matrix(e, f.At, loaded))
        offset = self.bias.at(channel).load(e.lanes)
        results = []
        for i in range(m):
            line = apply_matrix(e, f.At, [columns[j][i] for j in range(f.size)])
            results.append([value + offset for value in line])
        self.to = self.y.at(self.start + channel)
        with e.either(e.both(self.rows.equals(m), self.columns.equals(m))) as (whole, clipped):
            with whole:
                for i in range(m):
                    for j in range(m):
                        self._write(results[i][j], channel, i, j, mask)
            with clipped:
                for i in range(m):
                    for j in range(m):
                        self.room.at((i * m + j) * e.lanes).store(results[i][j])
                with e.loop("i", self.rows) as row, e.loop("j", self.columns) as column:
                    value = self.room.at((row.index * m + column.index) * e.lanes).load(e.lanes)
                    self._write(value, channel, row.index, column.index, mask)

    def _write(self, value: Vec, channel: Int, i: IntLike, j: IntLike, mask: object) -> None:
        k, finish = self.k, self.finish
        offset = k.y_h * i + k.y_w * j
        residual = None if finish.residual is None else finish.residual.at(self.start + channel).at(offset)
        flat.store(self.to.at(offset), finish(value, channel, residual, mask), mask)
