"""The weight gradient of a dense convolution, and the bias gradient with it.

    gw[o][i][tap] = sum over n, out of gy[n, o, out] * x[n, i, out * stride - before + tap * dilation]

    chunk: segment of the pixels, group, range of taps, range of input channels, range of channel blocks
      for block of pixels (rows of a plane, or whole planes; its gy stays in the near cache):
        for channel block ob (vectors * lanes output channels):
          bias sums of the block
          for tap, for tile of input channels:
            acc[i][vector] = sums so far
            for image, row, column inside:       # the range where the tap meets the input: no padding, no copy
              acc[i][vector] += x[i] * gy[vector]
            sums so far = acc

Registers: channels * vectors accumulators, `vectors` of gy, one broadcast. No sum crosses chunks, except over segments,
whose number depends on the geometry alone, and over launches that continue earlier sums; a second kernel adds segments
in order while it brings the sums [segment][group][block][tap][i][o] into PyTorch's layout (o, i, taps).

Few input channels (the first layer) would waste the tile: there a row is padded once, so that the taps of a row and
their channels are one run of "channels", and the kernel sees a convolution one tap wide.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from faltung.engine.emit import Emitter, Int, Ptr, Vec
from faltung.engine.kernels.chunk import Fields, each_width, tiles_of

FIELDS = (
    "x gy sums bias_sums zeros "
    "groups segments tap_groups channel_groups block_groups "
    "pixel_blocks blocks_per_segment row_blocks rows_per_block planes_per_block planes out_d "
    "taps_per_group taps_d taps_h taps_w channels channels_per_group blocks blocks_per_group out_channels with_bias "
    "in_d in_h in_w out_h out_w stride_d stride_h stride_w dil_d dil_h dil_w before_d before_h before_w "
    "x_n x_d x_h x_w x_g y_n y_d y_h y_w y_g sums_segment bias_segment continued"
)


@dataclass(frozen=True, slots=True)
class Schedule:
    """What shapes the code."""

    channels: int  # of a tile
    vectors: int
    narrow: bool  # some tiles have one channel less
    tail_vectors: int  # vectors of the last channel block, 0 if it is full
    masked: bool  # the last vector of the last block is partial
    unroll: int = 2


class Chunk(Fields):
    """The run-time numbers of one chunk: of this kernel, or of another that cuts its work in the same way."""

    def __init__(self, e: Emitter, s: Any, fields: str) -> None:
        super().__init__(e, fields)
        self.s = s
        chunk = e.chunk
        block_group, chunk = chunk % self.block_groups, chunk // self.block_groups
        channel_group, chunk = chunk % self.channel_groups, chunk // self.channel_groups
        tap_group, chunk = chunk % self.tap_groups, chunk // self.tap_groups
        self.g, self.segment = chunk % self.groups, chunk // self.groups
        self.block_start = block_group * self.blocks_per_group
        self.block_end = e.smaller(self.block_start + self.blocks_per_group, self.blocks)
        self.tap_start = tap_group * self.taps_per_group
        self.taps = self.taps_d * self.taps_h * self.taps_w
        self.tap_end = e.smaller(self.tap_start + self.taps_per_group, self.taps)
        self.channel_start = channel_group * self.channels_per_group
        self.channel_end = e.smaller(self.channel_start + self.channels_per_group, self.channels)
        self.sums_here = e.pointer("sums").at(self.segment * self.sums_segment)
        self.bias_here = e.pointer("bias_sums").at(self.segment * self.bias_segment)
        self.makes_bias = e.both((channel_group + tap_group).equals(0), self.with_bias.differs(0))
        self.width = s.vectors * e.lanes
        self.tile_count, self.wide = tiles_of(self.channel_end - self.channel_start, s.channels)


@dataclass(slots=True)
class _Pixels:
    """One block of pixels."""

    plane_start: Int
    plane_end: Int
    row_start: Int
    row_end: Int
    begun: Any  # bit: sums of an earlier block wait in memory


def emit(e: Emitter, s: Schedule) -> None:
    """One chunk of the loop nest above."""
    e.is_scheduled()
    k = Chunk(e, s, FIELDS)
    first = k.segment * k.blocks_per_segment
    end = e.smaller(first + k.blocks_per_segment, k.pixel_blocks)
    with e.loop("pixels", end, start=first) as loop:
        plane = loop.index // k.row_blocks * k.planes_per_block
        row = loop.index % k.row_blocks * k.rows_per_block
        pixels = _Pixels(
            plane,
            e.smaller(plane + k.planes_per_block, k.planes),
            row,
            e.smaller(row + k.rows_per_block, k.out_h),
            e.any_of(loop.index > first, k.continued.differs(0)),
        )
        with e.loop("ob", k.block_end, start=k.block_start) as blocks:
            each_width(e, s, blocks.index, k.blocks, lambda *width: _channel_block(k, pixels, blocks.index, *width))


def _channel_block(k: Chunk, pixels: _Pixels, ob: Int, vectors: int, masked: bool) -> None:
    e, s = k.e, k.s
    first = ob * k.width
    gy = e.pointer("gy").at(k.g * k.y_g + first)
    mask = e.mask(k.out_channels - first - (vectors - 1) * e.lanes, e.lanes) if masked else None
    with e.when(k.makes_bias):
        _bias(k, pixels, gy, k.bias_here.at((k.g * k.blocks + ob) * k.width), vectors, mask)
    sums = k.sums_here.at((k.g * k.blocks + ob) * k.taps * k.channels * k.width)
    with e.loop("tap", k.tap_end, start=k.tap_start) as taps:
        at = tap_at(k, taps.index)
        here = sums.at(at.number * k.channels * k.width)
        full = k.channel_start + k.wide * s.channels
        with e.loop("i", full, start=k.channel_start, step=s.channels) as i:
            _tile(k, pixels, at, gy, here.at(i.index * k.width), i.index, s.channels, vectors, mask)
        if s.narrow:
            with e.loop("i1", k.channel_end, start=full, step=s.channels - 1) as i:
                _tile(k, pixels, at, gy, here.at(i.index * k.width), i.index, s.channels - 1, vectors, mask)


class Tap:
    """One tap: where it meets the input."""

    def __init__(self, k: Any, number: Int, kd: Int, kh: Int, kw: Int) -> None:
        self.number = number
        self.depth = kd * k.dil_d - k.before_d
        self.height = kh * k.dil_h - k.before_h
        self.column = kw * k.dil_w - k.before_w
        self.first_row, self.last_row = _meeting(k.e, self.height, k.stride_h, k.in_h, k.out_h)
        self.first_column, self.last_column = _meeting(k.e, self.column, k.stride_w, k.in_w, k.out_w)


def tap_at(k: Any, number: Int) -> Tap:
    """Tap `number` of a kernel whose sizes are attributes of `k`."""
    return Tap(k, number, number // k.taps_w // k.taps_h, number // k.taps_w % k.taps_h, number % k.taps_w)


def _meeting(e: Emitter, shift: Int, stride: Int, size: Int, out: Int) -> tuple[Int, Int]:
    """The outputs o with 0 <= o * stride + shift < size, as a range."""
    first = (e.larger(0 - shift, 0) + stride - 1) // stride
    last = e.choose(size > shift, (e.larger(size - shift, 1) - 1) // stride + 1, 0)
    return first, e.smaller(last, out)


def _tile(
    k: Chunk, pixels: _Pixels, tap: Tap, gy: Ptr, sums: Ptr, channel: Int, channels: int, vectors: int, mask: Any
) -> None:
    """One register tile over a block of pixels."""
    e = k.e
    start = Ptr(e, e.ir.select(pixels.begun, sums.value, e.pointer("zeros").value))
    step = e.choose(pixels.begun, k.width, 0)
    accs = [start.at(step * i + v * e.lanes).load(e.lanes) for i in range(channels) for v in range(vectors)]
    x = e.pointer("x").at(k.g * k.x_g + channel)
    with e.loop("plane", pixels.plane_end, carry=accs, start=pixels.plane_start) as plane:
        n, od = plane.index // k.out_d, plane.index % k.out_d
        depth = od * k.stride_d + tap.depth
        inside = e.both(depth >= 0, depth < k.in_d)
        first = e.larger(pixels.row_start, tap.first_row)
        last = e.choose(inside, e.smaller(pixels.row_end, tap.last_row), first)
        with e.loop("oh", last, carry=plane.carried, start=first) as oh:
            x_row = x.at(
                n * k.x_n + depth * k.x_d + (oh.index * k.stride_h + tap.height) * k.x_h
                + (tap.first_column * k.stride_w + tap.column) * k.x_w
            )  # fmt: skip
            y_row = gy.at(n * k.y_n + od * k.y_d + oh.index * k.y_h + tap.first_column * k.y_w)
            count = e.larger(tap.last_column - tap.first_column, 0)
            oh.carry(_row(k, x_row, y_row, count, oh.carried, channels, vectors, mask))
        plane.carry(oh.result)
    for i in range(channels):
        for v in range(vectors):
            sums.at(i * k.width + v * e.lanes).store(plane.result[i * vectors + v])


def _row(k: Chunk, x: Ptr, gy: Ptr, count: Int, accs: list[Vec], channels: int, vectors: int, mask: Any) -> list[Vec]:
    """The microkernel: one row of pixels, `unroll` at a time."""
    e, unroll = k.e, k.s.unroll
    x_step = k.stride_w * k.x_w

    def rounds(state: list[Any], limit: Int, pixels: int) -> list[Any]:
        with e.loop("ow", limit, carry=state, step=pixels) as loop:
            x_at, y_at, sums = loop.carried[0], loop.carried[1], loop.carried[2:]
            for _ in range(pixels):
                ys = [_load(y_at.at(v * e.lanes), mask if v == vectors - 1 else None) for v in range(vectors)]
                for i in range(channels):
                    value = x_at.at(i).broadcast(e.lanes)
                    for v in range(vectors):
                        sums[i * vectors + v] = e.fma(value, ys[v], sums[i * vectors + v])
                x_at, y_at = x_at.at(x_step), y_at.at(k.y_w)
            loop.carry([x_at, y_at, *sums])
        return loop.result

    whole = count - count % unroll
    state = rounds([x, gy, *accs], e.larger(whole, 0), unroll)
    return rounds(state, e.larger(count - whole, 0), 1)[2:]


def _bias(k: Chunk, pixels: _Pixels, gy: Ptr, sums: Ptr, vectors: int, mask: Any) -> None:
    """Sums of gy over a block of pixels; the first touch that brings it near."""
    e = k.e
    start = Ptr(e, e.ir.select(pixels.begun, sums.value, e.pointer("zeros").value))
    accs = [start.at(v * e.lanes).load(e.lanes) for v in range(vectors)]
    with e.loop("plane", pixels.plane_end, carry=accs, start=pixels.plane_start) as plane:
        n, od = plane.index // k.out_d, plane.index % k.out_d
        with e.loop("oh", pixels.row_end, carry=plane.carried, start=pixels.row_start) as oh:
            row = gy.at(n * k.y_n + od * k.y_d + oh.index * k.y_h)
            with e.loop("ow", k.out_w, carry=oh.carried) as ow:
                at = row.at(ow.index * k.y_w)
                ow.carry(
                    [
                        acc + _load(at.at(v * e.lanes), mask if v == vectors - 1 else None)
                        for v, acc in enumerate(ow.carried)
                    ]
                )
            oh.carry(ow.result)
        plane.carry(oh.result)
    for v in range(vectors):
        sums.at(v * e.lanes).store(plane.result[v])


def _load(at: Ptr, mask: Any) -> Vec:
    return at.load(at.e.lanes) if mask is None else at.load_masked(mask, at.e.lanes)
