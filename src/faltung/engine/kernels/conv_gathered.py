"""The weight gradient of a dense convolution from gathered pixels, and the bias gradient with it.

    gw[o][i][tap] = sum over n, out of gy[n, o, out] * x[n, i, out * stride - before + tap * dilation]

    chunk: segment of the pixels, group, range of taps, range of input channels, range of channel blocks
      for block of pixels (rows of the output, or parts of a row):
        gathered[ob][pixel] = gy of channel block ob (vectors * lanes output channels), in the thread's scratch, in L2
        sums of it for the bias
        for tap:
          tile[i][pixel] = x of tile i of the input channels where the tap meets the input, else 0, in L2
          for ob, for i:                                            gathered[ob] stays in L1
            acc[channel][vector] = sums so far
            for pixel: acc[channel][vector] += tile[i][pixel][channel] * gathered[ob][pixel][vector]
            sums so far = acc

Gathering costs two moves per pixel and vector, and buys an inner loop without edges or strides. Read in place
(`conv_backward_weights`), pixels that lie a power of two apart meet in few sets of L1: 1x1 1024 -> 256 channels at 14
px, batch 8, in vectors of 8 lanes, 76% of the FMA peak instead of 42%. With 16 lanes arithmetic is cheaper, the moves
are not, and reading in place is the faster way (57% and 62%; Sapphire Rapids).

Registers: channels * vectors accumulators, `vectors` of gy, one broadcast. No sum crosses chunks, except over segments,
whose number depends on the geometry alone. Sums are [segment][group][block][tap][i][o], as in `conv_backward_weights`,
and few input channels are treated as there.
"""

from __future__ import annotations

from dataclasses import dataclass

from faltung.engine.emit import Emitter, Int, Ptr
from faltung.engine.kernels import flat
from faltung.engine.kernels.chunk import each_width
from faltung.engine.kernels.conv_backward_weights import Chunk, Tap, tap_at
from faltung.engine.kernels.group_rows import pieces, power_above

FIELDS = (
    "x gy sums bias_sums zeros scratch scratch_floats "
    "groups segments tap_groups channel_groups block_groups "
    "pixel_blocks blocks_per_segment column_blocks columns_per_block rows_per_block rows out_d "
    "taps_per_group taps_d taps_h taps_w channels channels_per_group blocks blocks_per_group out_channels with_bias "
    "in_d in_h in_w out_h out_w stride_d stride_h stride_w dil_d dil_h dil_w before_d before_h before_w "
    "x_n x_d x_h x_w x_g y_n y_d y_h y_w y_g sums_segment bias_segment"
)
UNROLL = 2  # pixels of a turn of the inner loop; gathered pixels are rounded up to it


@dataclass(frozen=True, slots=True)
class Schedule:
    """What shapes the code."""

    channels: int  # of a tile
    vectors: int
    narrow: bool  # some tiles have one channel less
    tail_vectors: int  # vectors of the last channel block, 0 if it is full
    masked: bool  # the last vector of the last block is partial

    @property
    def pitch(self) -> int:
        """Floats from pixel to pixel of a tile."""
        return power_above(self.channels)


class _Chunk(Chunk):
    """The run-time numbers of one chunk, and where its gathered pixels lie."""

    def __init__(self, e: Emitter, s: Schedule) -> None:
        super().__init__(e, s, FIELDS)
        self.most_pixels = self.rows_per_block * self.columns_per_block + (UNROLL - 1)
        self.gathered = e.pointer("scratch").at(e.thread * self.scratch_floats)
        self.tiles = self.gathered.at(self.blocks_per_group * self.most_pixels * self.width)


class _Pixels:
    """One block of pixels: rows of all images and planes, one after the other, and a range of columns."""

    def __init__(self, k: _Chunk, index: Int, first: Int) -> None:
        e = k.e
        self.k = k
        self.row_start = index // k.column_blocks * k.rows_per_block
        self.row_end = e.smaller(self.row_start + k.rows_per_block, k.rows)
        self.column_start = index % k.column_blocks * k.columns_per_block
        self.column_end = e.smaller(self.column_start + k.columns_per_block, k.out_w)
        self.columns = self.column_end - self.column_start
        self.count = (self.row_end - self.row_start) * self.columns
        self.rounded = (self.count + (UNROLL - 1)) // UNROLL * UNROLL
        self.begun = index > first  # sums of an earlier block wait in memory

    def start(self, sums: Ptr) -> Ptr:
        """Where sums begin: at those so far, or at zeros."""
        e = self.k.e
        return Ptr(e, e.ir.select(self.begun, sums.value, e.pointer("zeros").value))

    def place(self, row: Int) -> tuple[Int, Int, Int]:
        """Image, plane and row of an output row."""
        k = self.k
        return row // k.out_h // k.out_d, row // k.out_h % k.out_d, row % k.out_h


def emit(e: Emitter, s: Schedule) -> None:
    """One chunk of the loop nest above."""
    e.is_scheduled()
    k = _Chunk(e, s)
    first = k.segment * k.blocks_per_segment
    with e.loop("pixels", e.smaller(first + k.blocks_per_segment, k.pixel_blocks), start=first) as loop:
        pixels = _Pixels(k, loop.index, first)
        _gather(k, pixels)
        with e.when(k.makes_bias), e.loop("bias", k.block_end, start=k.block_start) as ob:
            _bias(k, pixels, ob.index)
        with e.loop("tap", k.tap_end, start=k.tap_start) as loop_tap:
            tap = tap_at(k, loop_tap.index)
            _gather_tiles(k, pixels, tap)
            with e.loop("ob", k.block_end, start=k.block_start) as ob:
                each_width(e, s, ob.index, k.blocks, lambda vectors, _: _products(k, pixels, tap, ob.index, vectors))


def _gather(k: _Chunk, pixels: _Pixels) -> None:
    """gy of a block of pixels, channel block by channel block."""
    e, s = k.e, k.s
    source = e.pointer("gy").at(k.g * k.y_g + pixels.column_start * k.y_w)
    step = k.most_pixels * k.width
    with e.loop("row", pixels.row_end, start=pixels.row_start) as row:
        n, od, oh = pixels.place(row.index)
        line = source.at(n * k.y_n + od * k.y_d + oh * k.y_h)
        first = (row.index - pixels.row_start) * pixels.columns
        with e.loop("column", pixels.columns) as column:
            here = line.at(column.index * k.y_w)
            to = k.gathered.at((first + column.index) * k.width)
            whole = e.smaller(k.block_end, k.blocks - 1) if s.tail_vectors or s.masked else k.block_end
            with e.loop("ob", whole, start=k.block_start) as ob:
                for v in range(s.vectors):
                    value = here.at(ob.index * k.width + v * e.lanes).load(e.lanes)
                    to.at((ob.index - k.block_start) * step + v * e.lanes).store(value)
            if s.tail_vectors or s.masked:
                with e.when(whole < k.block_end):
                    _gather_last(k, here, to.at((whole - k.block_start) * step))
    with e.loop("rest", pixels.rounded, start=pixels.count) as rest, e.loop("ob", k.block_end - k.block_start) as ob:
        for v in range(s.vectors):
            k.gathered.at(ob.index * step + rest.index * k.width + v * e.lanes).store(e.zero())


def _gather_last(k: _Chunk, here: Ptr, to: Ptr) -> None:
    """One pixel of the last channel block, which has fewer vectors, or a partial one."""
    e, s = k.e, k.s
    vectors, first = s.tail_vectors or s.vectors, (k.blocks - 1) * k.width
    mask = e.mask(k.out_channels - first - (vectors - 1) * e.lanes, e.lanes) if s.masked else None
    for v in range(vectors):
        to.at(v * e.lanes).store(flat.load(here.at(first + v * e.lanes), e.lanes, mask if v == vectors - 1 else None))


def _bias(k: _Chunk, pixels: _Pixels, ob: Int) -> None:
    """Sums of gy over a block of pixels, for the bias."""
    e, vectors = k.e, k.s.vectors
    sums = k.bias_here.at((k.g * k.blocks + ob) * k.width)
    start = pixels.start(sums)
    source = k.gathered.at((ob - k.block_start) * k.most_pixels * k.width)
    with e.loop("pixel", pixels.count, carry=[start.at(v * e.lanes).load(e.lanes) for v in range(vectors)]) as pixel:
        here = source.at(pixel.index * k.width)
        pixel.carry([acc + here.at(v * e.lanes).load(e.lanes) for v, acc in enumerate(pixel.carried)])
    for v, total in enumerate(pixel.result):
        sums.at(v * e.lanes).store(total)


def _gather_tiles(k: _Chunk, pixels: _Pixels, tap: Tap) -> None:
    """The channels of x that the tap brings to each output pixel, tile by tile; zeros where it meets none."""
    e, s = k.e, k.s
    x = e.pointer("x").at(k.g * k.x_g + k.channel_start)
    step = k.most_pixels * s.pitch
    narrow = k.tiles.at(k.wide * step)
    with e.loop("row", pixels.row_end, start=pixels.row_start) as row:
        n, od, oh = pixels.place(row.index)
        depth, height = od * k.stride_d + tap.depth, oh * k.stride_h + tap.height
        inside = e.both(e.both(depth >= 0, depth < k.in_d), e.both(height >= 0, height < k.in_h))
        first = e.smaller(e.larger(tap.first_column, pixels.column_start), pixels.column_end)
        last = e.choose(inside, e.larger(e.smaller(tap.last_column, pixels.column_end), first), first)
        place = (row.index - pixels.row_start) * pixels.columns - pixels.column_start
        _zeros(k, place + pixels.column_start, place + first)
        line = x.at(n * k.x_n + depth * k.x_d + height * k.x_h + tap.column * k.x_w)
        with e.loop("column", last, start=first) as column:
            here, at = line.at(column.index * k.stride_w * k.x_w), (place + column.index) * s.pitch
            with e.loop("tile", k.wide) as tile:
                _copy(k, here.at(tile.index * s.channels), k.tiles.at(tile.index * step + at), s.channels)
            if s.narrow:
                here = here.at(k.wide * s.channels)
                with e.loop("tile1", k.tile_count - k.wide) as tile:
                    _copy(k, here.at(tile.index * (s.channels - 1)), narrow.at(tile.index * step + at), s.channels - 1)
        _zeros(k, place + last, place + pixels.column_end)
    _zeros(k, pixels.count, pixels.rounded)


def _zeros(k: _Chunk, first: Int, last: Int) -> None:
    """Pixels that lie outside the input, or beyond the last one."""
    with k.e.loop("zero", last, start=first) as pixel, k.e.loop("tile", k.tile_count) as tile:
        to = k.tiles.at((tile.index * k.most_pixels + pixel.index) * k.s.pitch)
        for start, size in pieces(k.s.pitch, k.e.lanes):
            to.at(start).store(k.e.zero(size))


def _copy(k: _Chunk, source: Ptr, to: Ptr, channels: int) -> None:
    """The channels of one pixel; what follows them in the tile does not matter."""
    e, s = k.e, k.s
    if e.lanes >= 8 and s.pitch <= e.lanes:
        to.store(source.load_masked(e.mask(channels, s.pitch), s.pitch))
        return
    for start, size in pieces(channels, e.lanes):
        to.at(start).store(source.at(start).load(size))


def _products(k: _Chunk, pixels: _Pixels, tap: Tap, ob: Int, vectors: int) -> None:
    """All tiles of input channels against one channel block."""
    e, s = k.e, k.s
    gathered = k.gathered.at((ob - k.block_start) * k.most_pixels * k.width)
    sums = k.sums_here.at((((k.g * k.blocks + ob) * k.taps + tap.number) * k.channels + k.channel_start) * k.width)
    step = k.most_pixels * s.pitch
    with e.loop("tile", k.wide) as tile:
        to = sums.at(tile.index * (s.channels * k.width))
        _product(k, pixels, k.tiles.at(tile.index * step), gathered, to, s.channels, vectors)
    if s.narrow:
        sums = sums.at(k.wide * (s.channels * k.width))
        with e.loop("tile1", k.tile_count - k.wide) as tile:
            to = sums.at(tile.index * ((s.channels - 1) * k.width))
            source = k.tiles.at((k.wide + tile.index) * step)
            _product(k, pixels, source, gathered, to, s.channels - 1, vectors)


def _product(k: _Chunk, pixels: _Pixels, x: Ptr, gathered: Ptr, sums: Ptr, channels: int, vectors: int) -> None:
    """One register tile over a block of pixels: the microkernel."""
    e, s = k.e, k.s
    start, step = pixels.start(sums), e.choose(pixels.begun, k.width, 0)
    accs = [start.at(step * i + v * e.lanes).load(e.lanes) for i in range(channels) for v in range(vectors)]
    with e.loop("pixel", pixels.rounded, carry=[x, gathered, *accs], step=UNROLL, at_least_once=True) as loop:
        here, y, acc = loop.carried[0], loop.carried[1], loop.carried[2:]
        for pixel in range(UNROLL):
            ys = [y.at(pixel * k.width + v * e.lanes).load(e.lanes) for v in range(vectors)]
            for i in range(channels):
                value = here.at(pixel * s.pitch + i).broadcast(e.lanes)
                for v in range(vectors):
                    acc[i * vectors + v] = e.fma(value, ys[v], acc[i * vectors + v])
        loop.carry([here.at(UNROLL * s.pitch), y.at(UNROLL * k.width), *acc])
    for i in range(channels):
        for v in range(vectors):
            sums.at(i * k.width + v * e.lanes).store(loop.result[2 + i * vectors + v])
