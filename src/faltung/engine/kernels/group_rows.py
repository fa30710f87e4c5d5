"""Rows of channel vectors: what depthwise and grouped convolutions, and their gradients, have in common.

With few channels per group, one vector of output channels spans several groups. Each lane then needs the input channel of
its own group, so an input vector is loaded once per output vector and its lanes are permuted (never multiplied by zero
weights: an infinity in one group must not reach another):

    4 -> 8 channels per group, 16 lanes:   input  a0 a1 a2 a3 b0 b1 b2 b3
                                           c = 1  a1 a1 a1 a1 a1 a1 a1 a1 b1 b1 b1 b1 b1 b1 b1 b1

The permuted vector serves every tap and every output pixel in reach of its column. Depthwise is the case 1 -> 1, where
nothing is permuted; with one group per vector the permutation is a broadcast.

A chunk is a strip of output rows. Input rows are brought, one at a time and only when first needed, into a ring in the
thread's scratch memory: there they lie as [line][column][lane], zeros left and right, whatever the input's strides were.
So the inner loops have constant offsets and no edges, the ring stays in L1, and no input is copied as a whole:

    for each output row of the strip:
        fetch the input rows that it is the first to need                       (Rows.fetch)
        list the kernel rows that meet the input, as offsets into ring, weights (Rows.list_taps)
        for each vector of output channels, for each run of P pixels: compute over that list

Letters: L lanes, B input channels of a line (a permutable stretch of a group's channels), K taps of one kernel row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from faltung.engine.emit import Emitter, Int, Ptr, Vec, i64


def power_above(n: int) -> int:
    """The smallest power of two that is at least n."""
    return 1 << max(0, n - 1).bit_length()


@dataclass(frozen=True, slots=True)
class Lanes:
    """How the channels of groups lie in vectors: one per schedule, printable.

    A vector of outputs holds `packs` groups in slots of `slot` lanes; a group with more outputs than a vector has lanes
    takes `subs` vectors. The input channels of those groups come in `lines`: `block` channels of each group, a group every
    `segment` floats.
    """

    lanes: int
    ins: int  # input channels of a group
    outs: int  # output channels of a group
    block: int  # input channels of one line

    @classmethod
    def of(cls, lanes: int, ins: int, outs: int, most: int = 4) -> Lanes:
        """Lines of at most `most` channels, as even as they come."""
        widest = min(most, ins, power_above(outs), lanes)
        lines = -(-ins // widest)
        return cls(lanes, ins, outs, -(-ins // lines))

    @property
    def slot(self) -> int:
        """Lanes that one group takes in a vector."""
        return min(self.lanes, power_above(self.outs))

    @property
    def packs(self) -> int:
        """Groups in one vector."""
        return self.lanes // self.slot

    @property
    def subs(self) -> int:
        """Vectors that one group takes."""
        return -(-self.outs // self.lanes)

    @property
    def lines(self) -> int:
        """Stretches of `block` channels that cover a group's inputs."""
        return -(-self.ins // self.block)

    @property
    def segment(self) -> int:
        """Floats from one group to the next in a line."""
        return power_above(self.block)

    @property
    def width(self) -> int:
        """Floats of one pixel in a line."""
        return self.packs * self.segment

    def channels_of(self, line: int) -> int:
        """Channels of each group that a line really holds."""
        return min(self.block, self.ins - line * self.block)

    def spread(self, e: Emitter, pixel: Ptr, channel: int) -> Vec:
        """Input channel `channel` of each lane's own group, in every lane."""
        if self.packs == 1:
            return pixel.at(channel).broadcast(self.lanes)
        line = pixel.load(self.width, align=4 * self.width)
        if self.slot == 1:
            return line
        order = [lane // self.slot * self.segment + channel for lane in range(self.lanes)]
        return e.shuffle(line, line, order)


class Rows:
    """The part of a kernel that walks rows: decodes chunks, keeps the ring, lists taps."""

    FIELDS = (
        "source source_n source_d source_h source_w source_c scratch scratch_floats "
        "groups blocks block_step block_chunks strips strip_rows spans span_tiles planes_out rows_out "
        "planes rows columns d_taps d_scale d_base d_step d_divide h_taps h_scale h_base h_step h_divide "
        "h_lead h_shift ring first advance ring_columns w_blocks w_block_step"
    )

    def __init__(self, e: Emitter, lanes: Lanes, planar: bool, tap_floats: int, scatter: bool) -> None:
        self.e, self.lanes, self.planar, self.scatter = e, lanes, planar, scatter
        self.tap_floats = tap_floats  # of the weights, per (kernel row, line)
        self.f = SimpleNamespace(**dict(zip(self.FIELDS.split(), e.fields(self.FIELDS), strict=True)))
        f = self.f
        self.line_floats = (f.ring_columns + e.lanes) * lanes.width  # a planar fetch writes whole vectors of pixels
        self.row_floats = self.line_floats * lanes.lines
        self.block_floats = self.row_floats * f.ring * f.d_taps
        memory = e.pointer("scratch").at(e.thread * f.scratch_floats)
        self.table = Ptr(e, memory.value, i64)
        self.entries = f.d_taps * f.h_taps * f.w_blocks * lanes.lines
        self.memory = memory.at(((self.entries * 4 + 15) >> 4) << 4)  # behind a table of two 64-bit offsets per entry

    def begin(self, item: Int, blocks_of: Int) -> None:
        """Decode a strip of rows and a range of channel vectors."""
        e, f = self.e, self.f
        span, rest = item % f.spans, item // f.spans
        strip, rest = rest % f.strips, rest // f.strips
        self.plane, self.image = rest % f.planes_out, rest // f.planes_out
        self.row_begin = strip * f.strip_rows
        self.row_end = e.smaller(self.row_begin + f.strip_rows, f.rows_out)
        self.tile_begin = span * f.span_tiles
        self.first_column = f.first + self.tile_begin * f.advance
        self.block_begin = blocks_of * f.block_step
        self.block_count = e.smaller(f.block_step, f.blocks - self.block_begin)
        self.block_source = f.source_c * (self.lanes.packs * self.lanes.ins)
        start = self.image * f.source_n + self.block_begin * self.block_source
        self.origin = e.pointer("source").at(start)

    def fetch(self, row: Int, filled: Int) -> Int:
        """Bring in the input rows up to the last one that output row `row` needs; the new count of rows seen."""
        e, f = self.e, self.f
        low = row * f.h_scale + f.h_lead
        if self.scatter:
            low = low // f.h_divide
        low = low - f.h_shift
        high = e.smaller(low + f.ring, f.rows)
        with e.loop("fetch", high, start=e.larger(filled, low)) as loop:
            slot = loop.index % f.ring
            with e.loop("kd", f.d_taps) as kd:
                meets, plane = self._meets_plane(kd.index)
                with e.when(meets), e.loop("block", self.block_count) as block:
                    offset = plane * f.source_d + loop.index * f.source_h + block.index * self.block_source
                    target = block.index * self.block_floats + (kd.index * f.ring + slot) * self.row_floats
                    present = f.groups - (self.block_begin + block.index) * self.lanes.packs
                    fill = Fill(e, self.lanes, self.planar, f.source_w, f.source_c, self.line_floats)
                    fill.row(self.origin.at(offset), self.memory.at(target), self.first_column, f.columns,
                             f.ring_columns, present)  # fmt: skip
        return e.larger(high, filled)

    def _meets_plane(self, tap: Int) -> tuple[Any, Int]:
        f = self.f
        return self._meets(self.plane * f.d_scale + f.d_base + tap * f.d_step, f.d_divide, f.planes)

    def _meets(self, position: Int, divide: Int, size: Int) -> tuple[Any, Int]:
        """Whether a tap at `position` (in input samples, times `divide`) meets the input, and where."""
        e = self.e
        inside = position >= 0
        if self.scatter:
            inside = e.both(inside, (position % divide).equals(0))
            position = position // divide
        return e.both(inside, position < size), position

    def list_taps(self, row: Int) -> Int:
        """Write (ring offset, weight offset) of every tap that meets the input; returns how many there are."""
        e, f, lines = self.e, self.f, self.lanes.lines
        with e.loop("list.d", f.d_taps, carry=[e.int(0)]) as d:
            meets_plane, _ = self._meets_plane(d.index)
            with e.loop("list.h", f.h_taps, carry=d.carried) as h:
                meets_row, at = self._meets(row * f.h_scale + f.h_base + h.index * f.h_step, f.h_divide, f.rows)
                meets = e.both(meets_plane, meets_row)
                count = h.carried[0]
                with e.when(meets), e.loop("list.w", f.w_blocks) as w:
                    tap = ((d.index * f.h_taps + h.index) * f.w_blocks + w.index) * lines
                    place = (d.index * f.ring + at % f.ring) * self.row_floats + w.index * f.w_block_step * self.lanes.width
                    for line in range(lines):
                        entry = self.table.at((count + w.index * lines + line) << 1)
                        entry.store_int(place + self.line_floats * line)
                        entry.at(1).store_int((tap + line) * self.tap_floats)
                h.carry([e.choose(meets, count + f.w_blocks * lines, count)])
            d.carry(h.result)
        return d.result[0]

    def entry(self, index: Int) -> tuple[Int, Int]:
        """One listed tap: its offset in the ring and in the weights."""
        place = self.table.at(index << 1)
        return place.load_int(), place.at(1).load_int()


class Fill:
    """Copies one row of one block of groups into [line][column][lane], zeros outside the input."""

    def __init__(self, e: Emitter, lanes: Lanes, planar: bool, step_w: Int, step_c: Int, line_floats: Int) -> None:
        self.e, self.lanes, self.planar = e, lanes, planar
        self.step_w, self.step_c, self.line_floats = step_w, step_c, line_floats

    def row(self, source: Ptr, target: Ptr, first: Int, size: Int, columns: Int, present: Int) -> None:
        """`source` is column 0 of the input row; target column 0 is input column `first`; `present` groups exist."""
        e = self.e
        begin = e.smaller(e.larger(0 - first, 0), columns)
        end = e.larger(begin, e.smaller(size - first, columns))
        self._zero(target, e.int(0), begin)
        start = source.at((begin + first) * self.step_w)
        if self.planar:
            self._planar(start, target, begin, end, present)
        else:
            self._channels_last(start, target, begin, end, present)
        self._zero(target, end, columns)

    def _zero(self, target: Ptr, begin: Int, end: Int) -> None:
        width = self.lanes.width
        with self.e.loop("zero", end, start=begin) as column:
            for line in range(self.lanes.lines):
                place = target.at(column.index * width + self.line_floats * line)
                place.store(self.e.zero(width), align=4 * width)

    def _channels_last(self, source: Ptr, target: Ptr, begin: Int, end: Int, present: Int) -> None:
        """Pixel by pixel; a line that is one stretch of memory in one piece, else group by group."""
        e, lanes, width = self.e, self.lanes, self.lanes.width
        whole = lanes.lines == 1 and lanes.segment == lanes.block
        if whole and lanes.packs == 1:
            self._each_pixel(source, target, begin, end, self._copy_vector(None))
            return
        with e.either(present >= lanes.packs) as (all_present, some_missing):
            with all_present:
                copy = self._copy_vector(None) if whole else self._copy_groups(lanes.packs)
                self._each_pixel(source, target, begin, end, copy)
            with some_missing:
                copy = self._copy_vector(e.mask(present * lanes.ins, width)) if whole else self._copy_groups(present)
                self._each_pixel(source, target, begin, end, copy)

    def _each_pixel(self, source: Ptr, target: Ptr, begin: Int, end: Int, copy: Callable[[Ptr, Ptr], None]) -> None:
        with self.e.loop("pixel", end, start=begin, carry=[source]) as pixel:
            copy(pixel.carried[0], target.at(pixel.index * self.lanes.width))
            pixel.carry([pixel.carried[0].at(self.step_w)])

    def _copy_vector(self, mask: Any) -> Callable[[Ptr, Ptr], None]:
        width = self.lanes.width

        def copy(source: Ptr, target: Ptr) -> None:
            value = source.load(width) if mask is None else source.load_masked(mask, width)
            target.store(value, align=4 * width)

        return copy

    def _copy_groups(self, count: Int | int) -> Callable[[Ptr, Ptr], None]:
        lanes = self.lanes

        def copy(source: Ptr, target: Ptr) -> None:
            with self.e.loop("group", count) as group:
                for line in range(lanes.lines):
                    read = source.at(group.index * lanes.ins + line * lanes.block)
                    write = target.at(group.index * lanes.segment + self.line_floats * line)
                    self._copy_few(read, write, lanes.channels_of(line))

        return copy

    def _copy_few(self, source: Ptr, target: Ptr, count: int) -> None:
        """`count` floats, then zeros up to the end of the segment."""
        for done, piece in pieces(count):
            target.at(done).store(source.at(done).load(piece))
        for place in range(count, self.lanes.segment):
            target.at(place).store(self.e.constant(0.0))

    def _planar(self, source: Ptr, target: Ptr, begin: Int, end: Int, present: Int) -> None:
        """Vectors of pixels, one per channel, are interleaved into pixels of channels."""
        e, lanes = self.e, self.lanes
        starts: dict[tuple[int, int], Ptr] = {}
        for pack in range(lanes.packs):
            group = e.smaller(pack, present - 1)  # a missing group's lanes are never stored: any channel will do
            for channel in range(lanes.ins):
                starts[pack, channel] = source.at((group * lanes.ins + channel) * self.step_c)
        full = begin + (((end - begin) // e.lanes) * e.lanes)
        with e.loop("pixels", full, start=begin, step=e.lanes) as pixels:
            self._interleave(starts, pixels.index - begin, target, pixels.index, None)
        with e.when(full < end):
            self._interleave(starts, full - begin, target, full, e.mask(end - full, e.lanes))

    def _interleave(self, starts: dict[tuple[int, int], Ptr], offset: Int, target: Ptr, column: Int, mask: Any) -> None:
        e, lanes = self.e, self.lanes
        for line in range(lanes.lines):
            streams: list[Vec] = []
            for lane in range(lanes.width):
                pack, channel = divmod(lane, lanes.segment)
                if channel >= lanes.channels_of(line):
                    streams.append(e.zero())
                    continue
                place = starts[pack, line * lanes.block + channel].at(offset)
                streams.append(place.load(e.lanes) if mask is None else place.load_masked(mask, e.lanes))
            start = target.at(column * lanes.width + self.line_floats * line)
            for number, vector in enumerate(interleave(e, streams)):
                start.at(number * e.lanes).store(vector, align=4 * lanes.width)


def interleave(e: Emitter, streams: list[Vec]) -> list[Vec]:
    """n streams (a power of two) of L elements -> one stream of n * L: element 0 of every stream, then element 1, ..."""
    count, lanes = len(streams), e.lanes
    low = [place for k in range(lanes // 2) for place in (k, lanes + k)]
    high = [place + lanes // 2 for place in low]
    half = count // 2
    for _ in range(count.bit_length() - 1):
        streams = [e.shuffle(streams[j], streams[j + half], order) for j in range(half) for order in (low, high)]
    return streams


def pieces(count: int) -> list[tuple[int, int]]:
    """(start, size) of the powers of two that make up `count` floats, largest first: what vector moves can carry."""
    found, done = [], 0
    while done < count:
        size = 1 << (count - done).bit_length() - 1
        found.append((done, size))
        done += size
    return found
