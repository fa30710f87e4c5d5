"""Rows of channel vectors: what depthwise and grouped convolutions, and their gradients, have in common.

With few channels per group, one vector of output channels spans several groups. Each lane then needs the input channel
of its own group (and no other one times a zero weight: an infinity in one group must not reach another). So the lanes
of those groups take turns, and channel c of all of them is one short vector, which a load repeats over the lanes:

    4 -> 8 channels per group, 16 lanes:   a1 b1  ->  a1 b1 a1 b1 a1 b1 a1 b1 a1 b1 a1 b1 a1 b1 a1 b1

The repeated vector serves every tap and every output pixel in reach of its column; results are put in order when they
are stored. Depthwise is the case 1 -> 1, where the short vector is a whole one; with one group per vector, repeating is
a broadcast.

A chunk is a strip of output rows. Input rows are brought, one at a time and only when first needed, into a ring in the
thread's scratch memory: there they lie as [column][channel of the group][group], zeros left and right, whatever the
input's strides were. So the inner loops have constant offsets and no edges, the ring stays in L1, and no input is
copied as a whole:

    for each output row of the strip:
        fetch the input rows that it is the first to need                       (Rows.fetch)
        list the kernel rows that meet the input, as offsets into ring, weights (Rows.list_taps)
        for each vector of output channels, for each run of P pixels: compute over that list

Letters: L lanes, B input channels of a group that one list entry covers, K taps of one kernel row.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from llvmlite import ir

from faltung.engine.emit import Emitter, Int, Ptr, Vec, i64


def power_above(n: int) -> int:
    """The smallest power of two that is at least n."""
    return 1 << max(0, n - 1).bit_length()


@dataclass(frozen=True, slots=True)
class Lanes:
    """How the channels of groups lie in vectors.

    A vector of outputs holds `packs` groups of up to `slot` outputs, whose lanes take turns: output p of group g lies
    in lane p * packs + g. A group with more outputs than a vector has lanes takes `subs` vectors. The inputs of those
    groups lie as [channel of the group][group].
    """

    lanes: int
    ins: int  # input channels of a group
    outs: int  # output channels of a group

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
    def takes_no_turns(self) -> bool:
        """True if outputs lie in vectors as they do in memory."""
        return self.packs in (1, self.lanes)

    @property
    def width(self) -> int:
        """Floats of one input pixel."""
        return self.ins * self.packs

    @property
    def order(self) -> tuple[int, ...]:
        """For each float of an input pixel, its place among the groups' channels in memory."""
        return tuple(place % self.packs * self.ins + place // self.packs for place in range(self.width))

    @property
    def out_order(self) -> tuple[int | None, ...]:
        """For each lane of the output vectors, its place among the groups' output channels; None for an idle lane."""
        if self.subs > 1:
            return tuple(place if place < self.outs else None for place in range(self.subs * self.lanes))
        places = (divmod(lane, self.packs) for lane in range(self.lanes))
        return tuple(pack * self.outs + place if place < self.outs else None for place, pack in places)

    def in_order(self, pack: int, start: int, size: int) -> list[int]:
        """The lanes of outputs `start`, `start` + 1, ... of one group."""
        return [place * self.packs + pack for place in range(start, start + size)]

    def spread(self, pixel: Ptr, channel: int) -> Vec:
        """Input channel `channel` of each lane's own group, in every lane."""
        return pixel.at(channel * self.packs).repeat(self.packs, self.lanes)


class Rows:
    """The part of a kernel that walks rows: decodes chunks, keeps the ring, lists taps."""

    FIELDS = (
        "source source_n source_d source_h source_w source_c scratch scratch_floats "
        "groups blocks block_step steps parts part_steps strips strip_rows spans span_tiles planes_out rows_out "
        "planes rows columns d_taps d_scale d_base d_step d_divide h_taps h_scale h_base h_step h_divide "
        "h_lead h_shift ring first advance ring_columns w_blocks w_block_step"
    )

    def __init__(self, e: Emitter, lanes: Lanes, planar: bool, block: int, tap_floats: int, scatter: bool) -> None:
        self.e, self.lanes, self.planar, self.scatter = e, lanes, planar, scatter
        self.block, self.tap_floats = block, tap_floats  # channels, and floats of the weights, of one list entry
        self.f = SimpleNamespace(**dict(zip(self.FIELDS.split(), e.fields(self.FIELDS), strict=True)))
        f = self.f
        self.row_floats = (f.ring_columns + e.lanes) * lanes.width  # a planar fetch writes whole vectors of pixels
        self.block_floats = self.row_floats * f.ring * f.d_taps
        memory = e.pointer("scratch").at(e.thread * f.scratch_floats)
        self.table = Ptr(e, memory.value, i64)
        self.entries = f.d_taps * f.h_taps * f.w_blocks * (lanes.ins // block)
        self.memory = memory.at(((self.entries * 4 + 15) >> 4) << 4)  # behind a table of two 64-bit offsets per entry

    def steps(self, part: Int) -> tuple[Int, Int]:
        """First and last (exclusive) step through the channel vectors of one part."""
        first = part * self.f.part_steps
        return first, self.e.smaller(first + self.f.part_steps, self.f.steps)

    def begin(self, item: Int, step: Int) -> None:
        """Decode a strip of rows and a step through the channel vectors."""
        e, f = self.e, self.f
        span, rest = item % f.spans, item // f.spans
        strip, rest = rest % f.strips, rest // f.strips
        self.plane, self.image = rest % f.planes_out, rest // f.planes_out
        self.row_begin = strip * f.strip_rows
        self.row_end = e.smaller(self.row_begin + f.strip_rows, f.rows_out)
        self.tile_begin = span * f.span_tiles
        self.first_column = f.first + self.tile_begin * f.advance
        self.block_begin = step * f.block_step
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
                    fill = Fill(e, self.lanes.order, self.lanes.ins, self.planar, f.source_h, f.source_w, f.source_c)
                    fill.row(
                        self.origin.at(offset),
                        self.memory.at(target),
                        self.first_column,
                        f.columns,
                        f.ring_columns,
                        present,
                    )
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
        e, f, lines = self.e, self.f, self.lanes.ins // self.block
        with e.loop("list.d", f.d_taps, carry=[e.int(0)]) as d:
            meets_plane, _ = self._meets_plane(d.index)
            with e.loop("list.h", f.h_taps, carry=d.carried) as h:
                meets_row, at = self._meets(row * f.h_scale + f.h_base + h.index * f.h_step, f.h_divide, f.rows)
                meets = e.both(meets_plane, meets_row)
                count = h.carried[0]
                with e.when(meets), e.loop("list.w", f.w_blocks) as w:
                    tap = ((d.index * f.h_taps + h.index) * f.w_blocks + w.index) * lines
                    place = (
                        d.index * f.ring + at % f.ring
                    ) * self.row_floats + w.index * f.w_block_step * self.lanes.width
                    for line in range(lines):
                        entry = self.table.at((count + w.index * lines + line) << 1)
                        entry.store_int(place + line * self.block * self.lanes.packs)
                        entry.at(1).store_int((tap + line) * self.tap_floats)
                h.carry([e.choose(meets, count + f.w_blocks * lines, count)])
            d.carry(h.result)
        return d.result[0]

    def entry(self, index: Int) -> tuple[Int, Int]:
        """One listed tap: its offset in the ring and in the weights."""
        place = self.table.at(index << 1)
        return place.load_int(), place.at(1).load_int()


class Fill:
    """Copies one row of one block of groups, its channels reordered, zeros outside the input.

    `order[t]` is the place, among the block's channels, of float t of a pixel (None: zero).
    """

    def __init__(
        self,
        e: Emitter,
        order: tuple[int | None, ...],
        channels: int,
        planar: bool,
        step_h: Int,
        step_w: Int,
        step_c: Int,
    ) -> None:
        self.e, self.order, self.channels, self.planar = e, order, channels, planar
        self.step_h, self.step_w, self.step_c = step_h, step_w, step_c
        self.width = len(order)
        self.floats = max(place for place in order if place is not None) + 1  # of a pixel in memory
        self.packs = self.floats // channels

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
        with self.e.loop("zero", end, start=begin) as column:
            for start, size in pieces(self.width, self.e.lanes):
                target.at(column.index * self.width + start).store(self.e.zero(size))

    def _channels_last(self, source: Ptr, target: Ptr, begin: Int, end: Int, present: Int) -> None:
        """Pixel by pixel: load whole vectors of the groups' channels, reorder, store."""
        e = self.e
        if self.packs == 1:
            self._each_pixel(source, target, begin, end, None)
            return
        with e.either(present >= self.packs) as (all_present, some_missing):
            with all_present:
                self._each_pixel(source, target, begin, end, None)
            with some_missing:
                self._each_pixel(source, target, begin, end, present * self.channels)

    def _each_pixel(self, source: Ptr, target: Ptr, begin: Int, end: Int, floats: Int | None) -> None:
        """`floats` of each pixel may be read; None: all of them."""
        e = self.e
        parts = pieces(self.floats, e.lanes)
        masks = [None if floats is None else e.mask(floats - start, max(size, 2)) for start, size in parts]
        with e.loop("pixel", end, start=begin, carry=[source]) as pixel:
            read, write = pixel.carried[0], target.at(pixel.index * self.width)
            for start in range(0, self.floats, 16):
                e.prefetch(read.at(self.step_h + start))
            values = []
            for (start, size), mask in zip(parts, masks, strict=True):
                place = read.at(start)
                values.append(place.load(size) if mask is None else place.load_masked(mask, max(size, 2)))
            for start, size in pieces(self.width, e.lanes):
                write.at(start).store(gather(e, values, parts, self.order[start : start + size]))
            pixel.carry([read.at(self.step_w)])

    def _planar(self, source: Ptr, target: Ptr, begin: Int, end: Int, present: Int) -> None:
        """Vectors of pixels, one per channel, are interleaved into pixels of channels."""
        e = self.e
        starts: list[Ptr | None] = []
        for place in self.order:
            if place is None:
                starts.append(None)
                continue
            pack, channel = divmod(place, self.channels)
            group = e.smaller(pack, present - 1)  # a missing group's lanes are never stored: any channel will do
            starts.append(source.at((group * self.channels + channel) * self.step_c))
        full = begin + (((end - begin) // e.lanes) * e.lanes)
        with e.loop("pixels", full, start=begin, step=e.lanes) as pixels:
            self._interleave(starts, pixels.index - begin, target, pixels.index, None)
        with e.when(full < end):
            self._interleave(starts, full - begin, target, full, e.mask(end - full, e.lanes))

    def _interleave(self, starts: list[Ptr | None], offset: Int, target: Ptr, column: Int, mask: Any) -> None:
        """L pixels of all channels; behind the last pixel of a masked call, what is written does not matter."""
        e, width = self.e, self.width
        for start, size in pieces(width, e.lanes):
            streams = []
            for place in starts[start : start + size]:
                if place is None:
                    streams.append(e.zero())
                elif mask is None:
                    streams.append(place.at(offset).load(e.lanes))
                else:
                    streams.append(place.at(offset).load_masked(mask, e.lanes))
            for number, vector in enumerate(interleave(e, streams)):
                if size == width:
                    target.at(column * width + number * e.lanes).store(vector)
                    continue
                for pixel in range(e.lanes // size):
                    part = e.shuffle(vector, vector, list(range(pixel * size, (pixel + 1) * size)))
                    place = target.at((column + number * (e.lanes // size) + pixel) * width + start)
                    place.store(part if size > 1 else e.lane(part, 0))


def interleave(e: Emitter, streams: list[Vec]) -> list[Vec]:
    """n streams (a power of two) of L elements -> one of n * L: element 0 of every stream, then element 1, ..."""
    count, lanes = len(streams), e.lanes
    low = [place for k in range(lanes // 2) for place in (k, lanes + k)]
    high = [place + lanes // 2 for place in low]
    half = count // 2
    for _ in range(count.bit_length() - 1):
        streams = [e.shuffle(streams[j], streams[j + half], order) for j in range(half) for order in (low, high)]
    return streams


def gather(e: Emitter, values: list[Vec], parts: list[tuple[int, int]], order: tuple[int | None, ...]) -> Vec:
    """The floats `order` of the concatenation of `values` (cut into `parts`), zero for None."""
    size = len(order)
    if size == 1 and order[0] is not None:
        for (start, length), value in zip(parts, values, strict=True):
            if start <= order[0] < start + length:
                return e.lane(value, order[0] - start) if isinstance(value.value.type, ir.VectorType) else value
    result, known = e.zero(size), [place is None for place in order]
    for (start, length), value in zip(parts, values, strict=True):
        inside = [place is not None and start <= place < start + length for place in order]
        if not any(inside):
            continue
        scalar = not isinstance(value.value.type, ir.VectorType)
        local = [place - start if here and place is not None else 0 for place, here in zip(order, inside, strict=True)]
        picked = e.splat(value, size) if scalar else e.shuffle(value, value, local)
        if any(known):
            picked = e.shuffle(result, picked, [size + k if here else k for k, here in enumerate(inside)])
        result, known = picked, [a or b for a, b in zip(known, inside, strict=True)]
    return result


def pieces(count: int, most: int) -> list[tuple[int, int]]:
    """(start, size) of powers of two up to `most` that make up `count` floats: what vector moves can carry."""
    found, done = [], 0
    while done < count:
        size = min(most, 1 << (count - done).bit_length() - 1)
        found.append((done, size))
        done += size
    return found
