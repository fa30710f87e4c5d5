"""Depthwise convolution, one result channel per input channel: reads channels-last rows where they lie.

    for strip of result rows, part of the channels, in chunks:
        for tile of P result columns, for row of the strip, for vector of channels:
            acc[P] = bias
            for kernel row that meets the input:                             its taps' weights in registers
                for column that the tile reads:                                  unrolled
                    v = source[row][column]
                    acc[p] += v * weight[k] for each (p, k) that the column serves
            store the epilogue of acc

Registers: P accumulators + K taps' weights + v. The tile walks down the rows, all channels of a row before the next, so
that what it reads is a narrow column of whole runs of channels, most of it still in L1 from the row above: each input
sample comes from memory (P + K - 1) / P times, and nothing is copied beforehand. Tiles at the sides, which read columns
that do not exist, take zeros there instead; the last tile is moved left to end with the row.

A 3x3 kernel at stride 1 does 9 multiply-adds for 3 (P + 2) / P loads. The forward pass and, with flipped taps, the data
gradient at stride 1 come here; other strides' data gradients, channel multipliers and rows that run along the width are
`conv_grouped`'s, whose ring of rows takes any layout (on Sapphire Rapids it takes twice as long).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from faltung.engine import memory
from faltung.engine.emit import Emitter, Int, Ptr, Vec
from faltung.engine.epilogue import NO_STEPS, Epilogue, Steps, steps_of
from faltung.engine.geometry import ConvGeometry
from faltung.engine.kernel import Kernel, address, pack_last
from faltung.engine.kernels import conv_grouped, conv_grouped_weights, flat, group_plan, group_weights
from faltung.engine.kernels import epilogue as epilogues
from faltung.engine.kernels.chunk import Fields
from faltung.engine.kernels.group_rows import Lanes
from faltung.engine.kernels.group_weights import Weights
from faltung.engine.target import Target, host

MOST_COLUMNS = 8  # of a tile: wider ones leave L1 less to keep from row to row
STRIP_ROWS = 4  # result rows of one chunk
CHUNKS = 12  # chunks that are enough; with fewer strips, the channels are shared out too

Cache = dict[Any, Any] | None

backward_weights = conv_grouped_weights.backward_weights


@dataclass(frozen=True, slots=True)
class Schedule:
    """Everything that shapes the code."""

    pixels: int  # P: result columns of a tile
    taps: int  # K: of a kernel row
    stride: int
    dilation: int
    depth: bool  # more than one plane
    tail: bool  # the last vector of channels is not full
    stream: bool  # the result goes past the caches
    epilogue: Steps = NO_STEPS

    @property
    def reach(self) -> int:
        """Source columns from the first to the last that a tile reads."""
        return (self.pixels - 1) * self.stride + (self.taps - 1) * self.dilation + 1

    def uses(self, column: int) -> list[tuple[int, int]]:
        """The (pixel, tap) pairs that a source column of the tile serves."""
        pairs = ((pixel, column - pixel * self.stride) for pixel in range(self.pixels))
        found = ((pixel, divmod(offset, self.dilation)) for pixel, offset in pairs)
        return [(pixel, tap) for pixel, (tap, rest) in found if rest == 0 and 0 <= tap < self.taps]


def refuse_forward(
    geometry: ConvGeometry, x: np.ndarray, w: np.ndarray, bias: np.ndarray | None, **_: Any
) -> str | None:
    """None if this kernel computes the forward pass, else why not."""
    return _refuse(geometry) or conv_grouped.refuse_forward(geometry, x, w, bias)


def refuse_backward_data(geometry: ConvGeometry, gy: np.ndarray, w: np.ndarray, *, cache: Cache = None) -> str | None:
    """None if this kernel computes the data gradient, else why not."""
    return _refuse(geometry) or conv_grouped.refuse_backward_data(geometry, gy, w)


def refuse_backward_weights(
    geometry: ConvGeometry, x: np.ndarray, gy: np.ndarray, *, with_bias: bool = False
) -> str | None:
    """None if this kernel computes the weight gradient, else why not."""
    return _refuse(geometry) or conv_grouped_weights.refuse_backward_weights(geometry, x, gy)


def _refuse(g: ConvGeometry) -> str | None:
    return None if g.groups == g.in_channels else f"{g.in_channels} input channels in {g.groups} groups"


def forward(
    geometry: ConvGeometry,
    x: np.ndarray,
    w: np.ndarray,
    bias: np.ndarray | None,
    *,
    cache: Cache = None,
    epilogue: Epilogue | None = None,
) -> np.ndarray:
    """y[n, c, p] = bias[c] + sum over tap of x[n, c, p * stride + tap * dilation - padding] * w[c, 0, tap], then the
    epilogue.
    """
    if not _in_place(group_plan.forward_pass(geometry), x):
        return conv_grouped.forward(geometry, x, w, bias, cache=cache, epilogue=epilogue)
    y = memory.empty_channels_last(geometry.output_shape)
    _run(geometry, False, x, w, bias, y, cache, epilogues.channels_last(epilogue))
    return y


def backward_data(geometry: ConvGeometry, gy: np.ndarray, w: np.ndarray, *, cache: Cache = None) -> np.ndarray:
    """gx: every input sample collects the gradients of the outputs that it reached, times the weights."""
    if not _in_place(group_plan.data_pass(geometry), gy):
        return conv_grouped.backward_data(geometry, gy, w, cache=cache)
    gx = memory.empty_channels_last(geometry.input_shape)
    _run(geometry, True, gy, w, None, gx, cache, None)
    return gx


def _in_place(p: group_plan.Pass, source: np.ndarray) -> bool:
    """Whether this file's kernel takes the pass, rather than `conv_grouped`'s."""
    readable = source.strides[1] == 4 and source.flags.aligned
    return readable and p.outs == p.ins == 1 and not p.scatter and p.kernel[2] <= group_plan.MOST_TAPS


def _run(
    g: ConvGeometry,
    back: bool,
    source: np.ndarray,
    w: np.ndarray,
    bias: np.ndarray | None,
    result: np.ndarray,
    cache: Cache,
    epilogue: Epilogue | None,
) -> None:
    place = address(result)
    job = _prepared(g, back, source.strides, place % 64 == 0, steps_of(epilogue))
    packed = cache.get(job.key) if cache is not None else None
    if packed is None:
        packed = group_weights.pack(job.purpose, Weights(job.lanes, 1, job.schedule.taps), w, job.vectors)
        if cache is not None:
            cache[job.key] = packed
    bias = job.no_bias if bias is None else conv_grouped.packed_bias(g.groups, job.lanes, job.vectors, bias)
    finish, _kept = epilogues.values(epilogue, 1, job.no_bias.size)
    addresses = (place, address(packed), address(bias), address(source))
    job.kernel.launch_packed(job.chunks, *addresses, *finish, rest=job.fields)


@dataclass(frozen=True, slots=True)
class _Job:
    """One pass of one geometry, prepared: everything but the addresses."""

    purpose: group_plan.Pass
    schedule: Schedule
    lanes: Lanes
    kernel: Kernel
    key: str  # of the packed weights in a cache
    chunks: int
    vectors: int
    fields: bytes  # behind the addresses and the epilogue's
    no_bias: np.ndarray


@lru_cache(maxsize=2048)
def _prepared(g: ConvGeometry, back: bool, strides: tuple[int, ...], aligned: bool, steps: Steps) -> _Job:
    p = group_plan.data_pass(g) if back else group_plan.forward_pass(g)
    schedule = schedule_for(p, steps, aligned and conv_grouped.streams(p), host())
    lanes = Lanes(host().lanes, 1, 1)
    vectors = -(-p.groups // lanes.lanes)
    strip_rows = min(STRIP_ROWS, p.result[1])
    strips = -(-p.result[1] // strip_rows)
    items = p.batch * p.result[0] * strips
    part_vectors = -(-vectors // min(vectors, -(-CHUNKS // items)))
    parts = -(-vectors // part_vectors)
    known = {**sizes_of(p, strides, strip_rows), "parts": parts, "part_vectors": part_vectors}
    key = conv_grouped.weights_key(lanes, 1, schedule.taps, back, p.flip)
    fields = pack_last(*(known[name] for name in _KNOWN.split()))
    no_bias = np.zeros(vectors * lanes.lanes, np.float32)
    return _Job(p, schedule, lanes, row_kernel(schedule), key, items * parts, vectors, fields, no_bias)


def schedule_for(p: group_plan.Pass, steps: Steps, stream: bool, target: Target) -> Schedule:
    """The tile that covers a row with the fewest loads."""
    taps = p.kernel[2]
    most = min(MOST_COLUMNS, group_plan.most_pixels(target, Lanes(target.lanes, 1, 1), taps), p.result[2])
    pixels = min(range(1, most + 1), key=lambda width: (-(-p.result[2] // width) * (width + taps - 1), -width))
    tail = p.groups % target.lanes != 0
    depth = (p.kernel[0], p.before[0], p.source[0], p.result[0]) != (1, 0, 1, 1)
    return Schedule(pixels, taps, p.stride[2], p.dilation[2], depth, tail, stream and not tail, steps)


SIZES = (
    "source_n source_d source_h source_w channels strips strip_rows d_in h_in w_in d_out h_out w_out "
    "d_before h_before w_before d_taps h_taps d_stride h_stride d_dilation h_dilation"
)
_KNOWN = f"{SIZES} parts part_vectors"


def sizes_of(p: group_plan.Pass, strides: tuple[int, ...], strip_rows: int) -> dict[str, int]:
    """Values of `SIZES`: what `Strip` reads."""
    return {
        **group_plan.source_steps("source", strides),
        "channels": p.groups,
        "strips": -(-p.result[1] // strip_rows),
        "strip_rows": strip_rows,
        **{f"{name}_in": size for name, size in zip("dhw", p.source, strict=True)},
        **{f"{name}_out": size for name, size in zip("dhw", p.result, strict=True)},
        **{f"{name}_before": size for name, size in zip("dhw", p.before, strict=True)},
        **{f"{name}_taps": size for name, size in zip("dh", p.kernel[:2], strict=True)},
        **{f"{name}_stride": size for name, size in zip("dh", p.stride[:2], strict=True)},
        **{f"{name}_dilation": size for name, size in zip("dh", p.dilation[:2], strict=True)},
    }


@lru_cache(maxsize=512)
def row_kernel(schedule: Schedule) -> Kernel:
    """The kernel of a schedule."""
    return Kernel("conv_depthwise", f"result weights bias source {epilogues.FIELDS} {_KNOWN}", schedule, emit)


def emit(e: Emitter, s: Schedule) -> None:
    """The loop nest of this file's docstring."""
    w_out, w_in, w_before, channels, part_vectors, parts = e.fields("w_out w_in w_before channels part_vectors parts")
    rows = _Rows(e, s, e.chunk // parts)
    first = e.chunk % parts * part_vectors
    last = e.smaller(first + part_vectors, channels // e.lanes)
    with e.loop("tile", (w_out + (s.pixels - 1)) // s.pixels) as tile:
        column = e.smaller(tile.index * s.pixels, w_out - s.pixels)
        left = column * s.stride - w_before
        with e.either(e.both(left >= 0, left + s.reach <= w_in)) as (inside, at_side):
            with inside:
                rows.walk(column, left, first, last, False)
            with at_side:
                rows.walk(column, left, first, last, True)
        if s.tail:
            partial = channels // e.lanes
            with e.when(e.both(first <= partial, partial < first + part_vectors)):
                rows.walk(column, left, partial, partial + 1, True, e.mask(channels % e.lanes, e.lanes))


class Strip(Fields):
    """A strip of result rows, and the source that they read."""

    def __init__(self, e: Emitter, item: Int) -> None:
        super().__init__(e, SIZES)
        strip, rest = item % self.strips, item // self.strips
        self.plane, self.image = rest % self.d_out, rest // self.d_out
        self.begin = strip * self.strip_rows
        self.end = e.smaller(self.begin + self.strip_rows, self.h_out)
        self.source = e.pointer("source").at(self.image * self.source_n)
        self.front = self.plane * self.d_stride - self.d_before  # source plane of the first tap

    def planes(self) -> tuple[Int, Int]:
        """First and last (exclusive) kernel plane that meets the input."""
        return self._meeting(self.front, self.d_dilation, self.d_taps, self.d_in)

    def kernel_rows(self, top: Int) -> tuple[Int, Int]:
        """First and last (exclusive) kernel row that meets the input, the first of all lying at row `top`."""
        return self._meeting(top, self.h_dilation, self.h_taps, self.h_in)

    def _meeting(self, start: Int, dilation: Int, taps: Int, size: Int) -> tuple[Int, Int]:
        e = self.e
        low = (e.larger(0 - start, 0) + (dilation - 1)) // dilation
        return low, e.smaller(taps, (e.larger(size - start, 0) + (dilation - 1)) // dilation)

    def sample(self, line: Ptr, column: Int, at_side: bool, mask: Any) -> Vec:
        """A vector of channels of one source column; at a side, zeros where the column does not exist."""
        e, lanes = self.e, self.e.lanes
        if not at_side:
            return flat.load(line.at(column * self.source_w), lanes, mask)
        exists = e.both(column >= 0, column < self.w_in)
        here = line.at(e.choose(exists, column, 0) * self.source_w)
        return e.select(exists, flat.load(here, lanes, mask), 0.0)


class _Rows(Strip):
    """The rows of one strip, tile by tile."""

    def __init__(self, e: Emitter, s: Schedule, item: Int) -> None:
        super().__init__(e, item)
        self.s = s
        self.result_row = (self.image * self.d_out + self.plane) * self.h_out  # before this plane's
        self.finish = epilogues.Finish(e, s.epilogue)

    def walk(self, column: Int, left: Int, first: Int, last: Int, at_side: bool, mask: Any = None) -> None:
        """The tile at result column `column`, source column `left`, for vectors of channels from `first` to `last`."""
        e, s = self.e, self.s
        with e.loop("row", self.end, start=self.begin) as row, e.loop("vector", last, start=first) as vector:
            top = row.index * self.h_stride - self.h_before
            channel = vector.index * e.lanes
            weights = e.pointer("weights").at(channel * (self.d_taps * self.h_taps * s.taps))
            acc: list[Vec] = [e.pointer("bias").at(channel).load(e.lanes)] * s.pixels
            if s.depth:
                low, high = self.planes()
                with e.loop("kd", high, start=low, carry=acc) as kd:
                    source = self.source.at((self.front + kd.index * self.d_dilation) * self.source_d + channel)
                    taps = weights.at(kd.index * self.h_taps * (s.taps * e.lanes))
                    kd.carry(self._kernel_rows(kd.carried, source, taps, top, left, at_side, mask))
                acc = kd.result
            else:
                acc = self._kernel_rows(acc, self.source.at(channel), weights, top, left, at_side, mask)
            self._store(acc, row.index, column, channel, mask)

    def _kernel_rows(
        self, acc: list[Vec], source: Ptr, weights: Ptr, top: Int, left: Int, at_side: bool, mask: Any
    ) -> list[Vec]:
        """`acc` and what the kernel rows of one plane add to it."""
        e = self.e
        low, high = self.kernel_rows(top)
        with e.loop("kh", high, start=low, carry=acc) as kh:
            line = source.at((top + kh.index * self.h_dilation) * self.source_h)
            taps = weights.at(kh.index * (self.s.taps * e.lanes))
            kh.carry(self._kernel_row(list(kh.carried), line, taps, left, at_side, mask))
        return kh.result

    def _kernel_row(self, acc: list[Vec], line: Ptr, weights: Ptr, left: Int, at_side: bool, mask: Any) -> list[Vec]:
        e, s, lanes = self.e, self.s, self.e.lanes
        taps = [weights.at(tap * lanes).load(lanes, align=4 * lanes) for tap in range(s.taps)]
        for column in range(s.reach):
            uses = s.uses(column)
            if not uses:
                continue
            value = self.sample(line, left + column, at_side, mask)
            for pixel, tap in uses:
                acc[pixel] = e.fma(value, taps[tap], acc[pixel])
        return acc

    def _store(self, acc: list[Vec], row: Int, column: Int, channel: Int, mask: Any) -> None:
        e, s = self.e, self.s
        start = ((self.result_row + row) * self.w_out + column) * self.channels + channel
        result = e.pointer("result").at(start)
        residual = None if self.finish.residual is None else self.finish.residual.at(start)
        for pixel, value in enumerate(acc):
            offset = self.channels * pixel
            value = self.finish(value, channel, None if residual is None else residual.at(offset), mask)
            if mask is not None:
                result.at(offset).store_masked(value, mask)
            else:
                result.at(offset).store(value, align=4 * e.lanes if s.stream else 4, stream=s.stream)
