"""Direct convolution, 1d to 3d, any stride, dilation, padding and groups; channels last in and out.

    chunk: image n, group g, output plane od, a block of output rows, a group of channel blocks
      pack: the input rows that the block reads, with their zeros, into this thread's scratch
            (skipped where nothing is padded and the channels already lie together)
      for channel block ob (vectors * lanes output channels):
        for input-channel block ib (its panel stays in the near cache):
          for row tile, column tile:
            acc[pixel][vector] = bias, or the partial sum of the last ib
            for tap row (kd, kh), tap kw:                 # kw and channels are one run where they lie together
              for channel c in the run:                   # microkernel
                acc[pixel][vector] += x[pixel][c] * panel[c][vector]
            store

Registers: rows * columns * vectors accumulators, `vectors` of the panel, one broadcast. Letters: N batch, I and O
channels of one group, D H W spatial; D and H are 1 where the convolution has fewer dimensions.

Backward-data is the same kernel run over the output gradient: one launch per residue class of the stride, each a
stride-1 convolution with the taps of that class, flipped, writing every stride-th pixel of the input gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

from faltung.engine.emit import Emitter, Int, IntLike, Ptr, Vec
from faltung.engine.epilogue import NO_STEPS, Steps
from faltung.engine.kernels import epilogue
from faltung.engine.kernels.chunk import Fields, each_width
from faltung.engine.kernels.microkernel import Ahead, Row, accumulate
from faltung.engine.kernels.rows import copy_pixels, copy_planes, fill

FIELDS = (
    f"x w bias bias_g y scratch {epilogue.FIELDS} "
    "panel_floats groups channel_groups planes row_blocks rows_per_chunk blocks_per_group blocks "  # how chunks are cut
    "out_w out_h row_pixels all_pixels "  # all_pixels bounds flattened rows
    "in_d in_h in_w stride_d stride_h stride_w dil_d dil_h dil_w before_d before_h before_w "
    "taps_d taps_h taps_w channels channel_block out_channels "
    "x_n x_d x_h x_w x_c x_g y_n y_d y_h y_w y_g "  # strides in elements
    "scratch_floats packed_w"
)


@dataclass(frozen=True, slots=True)
class Schedule:
    """What shapes the code of one direct kernel."""

    rows: int  # of a tile
    columns: int
    vectors: int
    unroll: int
    packed: bool  # input rows go through scratch
    fused_run: bool  # kw and channels of a packed row are one run (dilation 1, channels not blocked)
    exact: bool  # the run is a multiple of unroll
    narrow: bool  # some column tiles have one pixel less
    single: bool  # some pixels are computed alone
    short_rows: bool  # the last row tile of a block may have fewer rows
    tail_vectors: int  # vectors of the last channel block, 0 if it is full
    masked: bool  # the last vector of the last block is partial
    stream: bool  # results go past the caches
    accumulate: bool = False  # channels are blocked: partial sums wait in y
    shares: int = 1  # tiles among which the next panel is shared out
    planes: int = 0  # channels of an input that keeps each in a plane, interleaved on the way to scratch
    epilogue: Steps = NO_STEPS


def emit(e: Emitter, s: Schedule) -> None:
    """One chunk of the loop nest above."""
    e.is_scheduled()
    k = _Chunk(e, s)
    if s.packed:
        _pack_rows(k)
    with e.loop("ob", k.block_end, start=k.block_start) as ob:
        each_width(e, s, ob.index, k.blocks, lambda vectors, masked: _channel_block(k, ob.index, vectors, masked))


class _Chunk(Fields):
    """The run-time numbers of one chunk."""

    def __init__(self, e: Emitter, s: Schedule) -> None:
        super().__init__(e, FIELDS)
        self.s = s
        chunk = e.chunk
        group_of_blocks, chunk = chunk % self.channel_groups, chunk // self.channel_groups
        row_block, chunk = chunk % self.row_blocks, chunk // self.row_blocks
        self.od, chunk = chunk % self.planes, chunk // self.planes
        self.g, self.n = chunk % self.groups, chunk // self.groups
        self.row_start = row_block * self.rows_per_chunk
        self.row_end = e.smaller(self.row_start + self.rows_per_chunk, self.out_h)
        self.block_start = group_of_blocks * self.blocks_per_group
        self.block_end = e.smaller(self.block_start + self.blocks_per_group, self.blocks)
        self.image = e.pointer("x").at(self.n * self.x_n + self.g * self.x_g)
        self.result = e.pointer("y").at(self.n * self.y_n + self.od * self.y_d + self.g * self.y_g)
        self.finish = epilogue.Finish(e, s.epilogue)
        self.panels = e.pointer("w").at(self.g * self.blocks * self.panel_floats)
        self.biases = e.pointer("bias").at(self.g * self.bias_g)
        self.room = e.pointer("scratch").at(e.thread * self.scratch_floats)
        self.rows_in = (self.row_end - self.row_start - 1) * self.stride_h + (self.taps_h - 1) * self.dil_h + 1
        self.taps = self.taps_d * self.taps_h * self.taps_w
        if s.packed:
            self.pitch_w: Int = self.channels
            self.pitch_h = self.packed_w * self.channels
            self.pitch_d = self.rows_in * self.pitch_h
        else:
            self.pitch_w, self.pitch_h, self.pitch_d = self.x_w, self.x_h * self.dil_h, self.x_d * self.dil_d


def _pack_rows(k: _Chunk) -> None:
    """Copy the input rows of every tap plane to scratch: (taps_d, rows_in, packed_w, channels), zeros where padded."""
    e = k.e
    left = e.larger(k.before_w, 0)
    skip = e.larger(0 - k.before_w, 0)  # negative padding leaves input columns out
    real = e.larger(e.smaller(k.in_w - skip, k.packed_w - left), 0)
    with e.loop("pd", k.taps_d) as plane:
        depth = k.od * k.stride_d + plane.index * k.dil_d - k.before_d
        with e.loop("pr", k.rows_in) as row:
            height = k.row_start * k.stride_h + row.index - k.before_h
            to = k.room.at(plane.index * k.pitch_d + row.index * k.pitch_h)
            inside = e.both(e.both(depth >= 0, depth < k.in_d), e.both(height >= 0, height < k.in_h))
            with e.either(inside) as (yes, no):
                with yes:
                    source = k.image.at(depth * k.x_d + height * k.x_h + skip * k.x_w)
                    fill(e, to, left * k.channels)
                    if k.s.planes:
                        copy_planes(e, source, to.at(left * k.channels), real, k.s.planes, k.x_c)
                    else:
                        copy_pixels(e, source, to.at(left * k.channels), real, k.channels, k.x_w, k.x_c)
                    end = left + real
                    fill(e, to.at(end * k.channels), (k.packed_w - end) * k.channels)
                with no:
                    fill(e, to, k.pitch_h)


def _channel_block(k: _Chunk, ob: Int, vectors: int, masked: bool) -> None:
    """All pixels of the chunk for one block of output channels."""
    e, s = k.e, k.s
    panel = k.panels.at(ob * k.panel_floats)
    first = ob * (s.vectors * e.lanes)
    mask = e.mask(k.out_channels - first - (vectors - 1) * e.lanes, e.lanes) if masked else None
    if not s.accumulate:
        _rows(k, panel, first, vectors, mask, e.int(0), k.channels)
        return
    with e.loop("ib", k.channels, step=k.channel_block) as loop:
        start = loop.index
        size = e.smaller(k.channel_block, k.channels - start)
        _rows(k, panel.at(start * k.taps * (s.vectors * e.lanes)), first, vectors, mask, start, size)


def _rows(k: _Chunk, panel: Ptr, first: Int, vectors: int, mask: object, start: Int, size: Int) -> None:
    """Row tiles of the chunk, whole ones first."""
    e, s = k.e, k.s
    whole = k.row_end - (k.row_end - k.row_start) % s.rows
    with e.loop("oh", whole, start=k.row_start, step=s.rows) as loop:
        _columns(k, s.rows, loop.index, panel, first, vectors, mask, start, size)
    if s.short_rows:
        with e.loop("oh1", k.row_end, start=whole) as loop:
            _columns(k, 1, loop.index, panel, first, vectors, mask, start, size)


def _columns(
    k: _Chunk, rows: int, oh: Int, panel: Ptr, first: Int, vectors: int, mask: object, start: Int, size: Int
) -> None:
    """Column tiles of a row: `columns` wide, then one less, then single pixels, so that every width comes out even."""
    e, s = k.e, k.s
    width = e.smaller(k.out_w, k.all_pixels - oh * k.row_pixels)
    tiles = (width + (s.columns - 1)) // s.columns
    lacking = tiles * s.columns - width
    even = lacking <= tiles
    full = e.choose(even, tiles - lacking, width // s.columns)
    end = full * s.columns

    def at(ow: IntLike, columns: int) -> None:
        _tile(k, rows, columns, oh, e.int(ow), panel, first, vectors, mask, start, size)

    with e.loop("ow", end, step=s.columns) as loop:
        at(loop.index, s.columns)
    if s.narrow and s.columns > 1:
        narrow_end = e.choose(even, width, end)
        with e.loop("ow1", narrow_end, start=end, step=s.columns - 1) as loop:
            at(loop.index, s.columns - 1)
        end = narrow_end
    if s.single and s.columns > 2:
        with e.loop("ow2", width, start=end) as loop:
            at(loop.index, 1)


def _tile(
    k: _Chunk, rows: int, columns: int, oh: Int, ow: Int, panel: Ptr, first: Int, vectors: int, mask: object,
    start: Int, size: Int,
) -> None:  # fmt: skip
    """One register tile, from its first value to its store."""
    e, s = k.e, k.s
    lanes = e.lanes
    offset = oh * k.y_h + ow * k.y_w + first
    out = k.result.at(offset)
    bias = k.biases.at(first)
    begun = start > 0

    def place(row: int, column: int) -> Ptr:
        return out.at(k.y_h * row + k.y_w * column)

    accs: list[Vec] = []
    for row in range(rows):
        for column in range(columns):
            for v in range(vectors):
                accs.append(_first_value(k, place(row, column), bias, begun, v, mask if v == vectors - 1 else None))
    accs = _taps(k, rows, columns, oh, ow, panel, accs, vectors, start, size)

    def store(values: list[Vec]) -> None:
        pixels = [(row, column) for row in range(rows) for column in range(columns)]
        for i, value in enumerate(values):
            to = place(*pixels[i // vectors]).at(i % vectors * lanes)
            if mask is not None and i % vectors == vectors - 1:
                to.store_masked(value, mask)
            else:
                to.store(value, align=4 * lanes if s.stream else 4, stream=s.stream)

    if s.epilogue == NO_STEPS:
        store(accs)
    elif not s.accumulate:
        store(_finished(k, accs, rows, columns, offset, first, vectors, mask))
    else:
        with e.either(start + size >= k.channels) as (complete, partial):
            with complete:
                store(_finished(k, accs, rows, columns, offset, first, vectors, mask))
            with partial:
                store(accs)


def _finished(
    k: _Chunk, accs: list[Vec], rows: int, columns: int, offset: Int, first: Int, vectors: int, mask: object
) -> list[Vec]:
    """The epilogue on a register tile."""
    lanes = k.e.lanes
    channel = k.g * (k.blocks * (k.s.vectors * lanes)) + first
    residual = k.finish.residual
    if residual is not None:
        residual = residual.at(k.n * k.y_n + k.od * k.y_d + k.g * k.y_g + offset)
    results: list[Vec] = []
    for row in range(rows):
        for column in range(columns):
            for v in range(vectors):
                at = None if residual is None else residual.at(k.y_h * row + k.y_w * column + v * lanes)
                last = mask if v == vectors - 1 else None
                results.append(k.finish(accs[len(results)], channel + v * lanes, at, last))
    return results


def _first_value(k: _Chunk, place: Ptr, bias: Ptr, begun: object, v: int, mask: object) -> Vec:
    """The bias (its buffer is padded to whole vectors), or the partial sum so far."""
    e = k.e
    source = bias.at(v * e.lanes)
    if not k.s.accumulate:
        return source.load(e.lanes)
    chosen = Ptr(e, e.ir.select(begun, place.at(v * e.lanes).value, source.value))
    return chosen.load(e.lanes) if mask is None else chosen.load_masked(mask, e.lanes)


def _taps(
    k: _Chunk,
    rows: int,
    columns: int,
    oh: Int,
    ow: Int,
    panel: Ptr,
    accs: list[Vec],
    vectors: int,
    start: Int,
    size: Int,
) -> list[Vec]:
    """Sum over the taps; the panel is read from beginning to end."""
    e, s = k.e, k.s
    if s.packed:
        origin = k.room.at((oh - k.row_start) * k.stride_h * k.pitch_h + ow * k.stride_w * k.channels + start)
        step_h = k.dil_h * k.pitch_h
    else:
        origin = k.image.at(
            (k.od * k.stride_d - k.before_d) * k.x_d
            + (oh * k.stride_h - k.before_h) * k.x_h
            + (ow * k.stride_w - k.before_w) * k.x_w
            + start
        )
        step_h = k.pitch_h
    row_step = k.stride_h * (k.pitch_h if s.packed else k.x_h)
    pixel_step = k.stride_w * k.pitch_w
    # panels hold s.vectors per k even where the last block computes fewer
    tile = ((oh - k.row_start) * k.out_w + ow) // s.columns
    floats = k.taps * size * (s.vectors * e.lanes)
    ahead = Ahead.of(panel.at(floats), floats, tile, s.shares)
    with e.loop("kd", k.taps_d, carry=[panel, ahead.place, *accs], at_least_once=True) as kd:
        with e.loop("kh", k.taps_h, carry=kd.carried, at_least_once=True) as kh:
            line = origin.at(kd.index * k.pitch_d + kh.index * step_h)
            if s.fused_run:
                state = _run(k, rows, columns, line, row_step, pixel_step, kh.carried, k.taps_w * k.channels, vectors)
            else:
                with e.loop("kw", k.taps_w, carry=kh.carried, at_least_once=True) as kw:
                    there = line.at(kw.index * k.dil_w * k.pitch_w)
                    kw.carry(_run(k, rows, columns, there, row_step, pixel_step, kw.carried, size, vectors))
                state = kw.result
            kh.carry(state)
        kd.carry(kh.result)
    return kd.result[2:]


def _run(
    k: _Chunk, rows: int, columns: int, line: Ptr, row_step: Int, pixel_step: Int, state: list, count: Int, vectors: int
) -> list:
    """The microkernel over one contiguous run of channels."""
    s = k.s
    tile_rows = [Row.of(line.at(row_step * row), pixel_step, columns) for row in range(rows)]
    accs, panel, ahead = accumulate(
        k.e, tile_rows, state[0], count, state[2:], vectors, s.unroll, s.exact, s.vectors, Ahead(state[1], s.shares)
    )
    assert ahead is not None
    return [panel, ahead.place, *accs]
