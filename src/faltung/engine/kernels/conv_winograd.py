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

Registers: product pixels * vectors + vectors + 1; transforms see `winograd_transforms`.
"""

from __future__ import annotations

from dataclasses import dataclass

from faltung.engine.emit import Emitter, Int, Ptr, Vec
from faltung.engine.epilogue import NO_STEPS, Steps
from faltung.engine.kernels import epilogue, flat
from faltung.engine.kernels.chunk import Fields, each_width
from faltung.engine.kernels.linear_form import apply_matrix
from faltung.engine.kernels.microkernel import Ahead, Row, accumulate
from faltung.engine.kernels.winograd_matrices import winograd
from faltung.engine.kernels.winograd_transforms import InputSchedule, TileReader

FIELDS = (
    f"transform x u bias y scratch {epilogue.FIELDS} "
    "zeros tiles tile_blocks tile_block part_blocks channels channel_blocks out_channels tiles_h tiles_w "
    "in_h in_w before_h before_w out_h out_w x_n x_h x_w y_n y_h y_w panel_floats scratch_floats v_floats v_pitch"
)
SHARES = 2  # register tiles among which the next panel is shared out


@dataclass(frozen=True, slots=True)
class Schedule:
    """What shapes the code."""

    outputs: int  # m
    taps: int  # r
    tiles: int  # of a register tile
    vectors: int
    narrow: bool  # some register tiles have one tile less
    unroll: int
    exact: bool  # channels are a multiple of unroll
    tail_vectors: int
    masked: bool  # output channels are none
    epilogue: Steps = NO_STEPS


class _Chunk(Fields):
    """The run-time numbers of one chunk."""

    def __init__(self, e: Emitter, s: Schedule) -> None:
        super().__init__(e, FIELDS)
        self.s, self.f = s, winograd(s.outputs, s.taps)
        # tile blocks first, so that a thread keeps to its part of U
        self.tile_group, part = e.chunk % self.tile_blocks, e.chunk // self.tile_blocks
        self.block_start = part * self.part_blocks
        self.block_end = e.smaller(self.block_start + self.part_blocks, self.channel_blocks)
        self.width = s.vectors * e.lanes
        self.first = self.tile_group * self.tile_block
        self.count = e.smaller(self.tile_block, self.tiles - self.first)
        self.finish = epilogue.Finish(e, s.epilogue)
        self.V = e.pointer("scratch").at(e.thread * self.scratch_floats)
        self.M = self.V.at(self.v_floats)


def emit(e: Emitter, s: Schedule) -> None:
    """The loop nest of this file's docstring, its first loop in a kernel of its own (`emit_tiles`)."""
    e.is_scheduled()
    k = _Chunk(e, s)
    e.run_kernel(e.field("transform"), e.chunk)
    with e.loop("block", k.block_end, start=k.block_start) as block:
        each_width(e, s, block.index, k.channel_blocks, lambda *width: _multiply(k, block.index, *width))


def emit_tiles(e: Emitter, s: InputSchedule) -> None:
    """V of a chunk. Apart, it is compiled once for all epilogues and register tiles."""
    tiles, tile_blocks, tile_block, pitch = e.fields("tiles tile_blocks tile_block v_pitch")
    first = e.chunk % tile_blocks * tile_block
    v = e.pointer("scratch").at(e.thread * e.field("scratch_floats"))
    reader = TileReader(e, s)
    with e.loop("tile", e.smaller(tile_block, tiles - first)) as tile:
        reader.read(first + tile.index, v.at(tile.index * pitch), tile_block * pitch)


def _multiply(k: _Chunk, block: Int, vectors: int, masked: bool) -> None:
    e, s = k.e, k.s
    panels = e.pointer("u").at(block * k.panel_floats)
    tiles = (k.count + (s.tiles - 1)) // s.tiles
    lacking = tiles * s.tiles - k.count
    even = lacking <= tiles
    full = e.choose(even, tiles - lacking, k.count // s.tiles) * s.tiles
    with e.loop("xi", e.int(k.f.size * k.f.size)) as xi:
        panel = panels.at(xi.index * k.channels * k.width)
        source = k.V.at(xi.index * k.tile_block * k.v_pitch)
        to = k.M.at(xi.index * k.tile_block * k.width)
        with e.loop("t", full, step=s.tiles) as t:
            _register_tile(k, s.tiles, vectors, source, panel, to, t.index)
        end = full
        if s.narrow and s.tiles > 1:
            end = e.choose(even, k.count, full)
            with e.loop("t1", end, start=full, step=s.tiles - 1) as t:
                _register_tile(k, s.tiles - 1, vectors, source, panel, to, t.index)
        if s.narrow and s.tiles > 2:
            with e.loop("t2", k.count, start=end) as t:
                _register_tile(k, 1, vectors, source, panel, to, t.index)
    mask = e.mask(k.out_channels - block * k.width - (vectors - 1) * e.lanes, e.lanes) if masked else None
    with e.loop("tile", k.count) as tile:
        _outputs(k, block * k.width, tile.index, vectors, mask)


def _register_tile(k: _Chunk, tiles: int, vectors: int, source: Ptr, panel: Ptr, to: Ptr, first: Int) -> None:
    e, s = k.e, k.s
    accs = [e.zero() for _ in range(tiles * vectors)]
    row = Row.of(source.at(first * k.v_pitch), k.v_pitch, tiles)
    floats = k.channels * k.width
    ahead = Ahead.of(panel.at(floats), floats, first // s.tiles, SHARES)
    accs, _, _ = accumulate(e, [row], panel, k.channels, accs, vectors, s.unroll, s.exact, s.vectors, ahead)
    for t in range(tiles):
        for v in range(vectors):
            to.at((first + t) * k.width + v * e.lanes).store(accs[t * vectors + v])


def _outputs(k: _Chunk, channel: Int, tile: Int, vectors: int, mask: object) -> None:
    """At M A + bias of one tile, output channels from `channel`."""
    e, f, m = k.e, k.f, k.s.outputs
    at = k.first + tile
    n, th, tw = at // k.tiles_w // k.tiles_h, at // k.tiles_w % k.tiles_h, at % k.tiles_w
    top, left = th * m, tw * m
    place = n * k.y_n + top * k.y_h + left * k.y_w + channel
    y = e.pointer("y").at(place)
    residual = None if k.finish.residual is None else k.finish.residual.at(place)
    bias = e.pointer("bias").at(channel)
    source = k.M.at(tile * k.width)
    step = k.tile_block * k.width
    whole = e.both(top + m <= k.out_h, left + m <= k.out_w)
    for v in range(vectors):
        part = source.at(v * e.lanes)
        columns = []  # [j][i]
        for j in range(f.size):
            loaded = [part.at(step * (i * f.size + j)).load(e.lanes) for i in range(f.size)]
            columns.append(apply_matrix(e, f.At, loaded))
        offset = bias.at(v * e.lanes).load(e.lanes)
        results = []
        for i in range(m):
            row = apply_matrix(e, f.At, [columns[j][i] for j in range(f.size)])
            results.append([value + offset for value in row])
        last = mask if v == vectors - 1 else None

        def write(i: int, j: int, v: int = v, results: list[list[Vec]] = results, last: object = last) -> None:
            at = k.y_h * i + k.y_w * j + v * e.lanes
            add = None if residual is None else residual.at(at)
            flat.store(y.at(at), k.finish(results[i][j], channel + v * e.lanes, add, last), last)

        with e.either(whole) as (yes, no):
            with yes:
                for i in range(m):
                    for j in range(m):
                        write(i, j)
            with no:
                for i in range(m):
                    for j in range(m):
                        with e.when(e.both(top + i < k.out_h, left + j < k.out_w)):
                            write(i, j)
