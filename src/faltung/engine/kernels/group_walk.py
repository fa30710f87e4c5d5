"""How depthwise and grouped kernels walk down channels-last rows, tile by tile.

    chunk: a strip of result rows, a part of the channel vectors
      for tile of P result columns, for row of the strip, for vector of channels:
        acc[P] = bias, plus what the kernel's own `rows` add; store the epilogue of acc

A tile that walks down the rows reads a narrow column of the source, most of it still in L1 from the row above. The last
tile is moved left to end with the row. Kernels differ in how they read: in place (`conv_depthwise`), or through a ring
of rows whose values are spread over the lanes of their groups (`conv_spread`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from faltung.engine import team
from faltung.engine.emit import Emitter, Int, Vec
from faltung.engine.epilogue import Epilogue, Steps
from faltung.engine.kernel import Kernel, address, pack_last
from faltung.engine.kernels import epilogue as epilogues
from faltung.engine.kernels import flat, group_plan, group_weights
from faltung.engine.kernels.group_weights import Weights

FIRST = f"result weights bias source scratch {epilogues.FIELDS}"
SIZES = (
    "scratch_floats source_n source_d source_h source_w blocks channels parts part_blocks strips strip_rows "
    "d_in h_in w_in d_out h_out w_out d_before h_before w_before d_taps h_taps d_stride h_stride d_dilation h_dilation"
)
FIELDS = f"{FIRST} {SIZES}"

Cache = dict[Any, Any] | None


@dataclass(frozen=True, slots=True)
class Job:
    """One pass of one geometry, prepared: everything but the addresses."""

    purpose: group_plan.Pass
    kind: Weights
    kernel: Kernel
    key: tuple[Any, ...]  # of the packed weights in a cache
    chunks: int
    vectors: int
    scratch_floats: int  # per thread
    fields: bytes  # behind the addresses and the epilogue's
    no_bias: np.ndarray


def prepare(
    p: group_plan.Pass,
    back: bool,
    kind: Weights,
    kernel: Kernel,
    strides: tuple[int, ...],
    strip_rows: int,
    chunks: int,
    scratch_floats: int = 0,
) -> Job:
    """The numbers of a pass: strips of `strip_rows`, and at least about `chunks` chunks."""
    lanes = kind.lanes
    blocks = -(-p.groups // lanes.packs)
    strip_rows = min(strip_rows, p.result[1])
    strips = -(-p.result[1] // strip_rows)
    items = p.batch * p.result[0] * strips
    part_blocks = -(-blocks // min(blocks, -(-chunks // items)))
    parts = -(-blocks // part_blocks)
    known = {
        **group_plan.source_steps("source", strides),
        "scratch_floats": scratch_floats,
        "blocks": blocks,
        "channels": p.groups * p.outs,
        "parts": parts,
        "part_blocks": part_blocks,
        "strips": strips,
        "strip_rows": strip_rows,
        **{f"{name}_in": size for name, size in zip("dhw", p.source, strict=True)},
        **{f"{name}_out": size for name, size in zip("dhw", p.result, strict=True)},
        **{f"{name}_before": size for name, size in zip("dhw", p.before, strict=True)},
        **{f"{name}_taps": size for name, size in zip("dh", p.kernel[:2], strict=True)},
        **{f"{name}_stride": size for name, size in zip("dh", p.stride[:2], strict=True)},
        **{f"{name}_dilation": size for name, size in zip("dh", p.dilation[:2], strict=True)},
    }
    fields = pack_last(*(known[name] for name in SIZES.split()))
    no_bias = np.zeros(blocks * lanes.lanes, np.float32)
    key = ("conv_grouped", lanes, kind.block, kind.taps, back, p.flip)
    return Job(p, kind, kernel, key, items * parts, blocks, scratch_floats, fields, no_bias)


def run(
    job: Job,
    source: np.ndarray,
    w: np.ndarray,
    bias: np.ndarray | None,
    result: np.ndarray,
    cache: Cache,
    epilogue: Epilogue | None,
) -> None:
    """Launch a job."""
    packed = cache.get(job.key) if cache is not None else None
    if packed is None:
        packed = group_weights.pack(job.purpose, job.kind, w, job.vectors)
        if cache is not None:
            cache[job.key] = packed
    lanes = job.kind.lanes
    if bias is None:
        bias = job.no_bias
    elif bias.size != job.no_bias.size or bias.strides[0] != 4:
        bias = group_plan.pack_bias(bias, job.purpose.groups, lanes)
    _scratch, scratch = team.scratch(job.scratch_floats) if job.scratch_floats else (None, 0)
    finish, _kept = epilogues.values(epilogue, 1, job.no_bias.size)
    addresses = (address(result), address(packed), address(bias), address(source), scratch)
    job.kernel.launch_packed(job.chunks, *addresses, *finish, rest=job.fields)


def uses(column: int, pixels: int, taps: int, stride: int, dilation: int) -> list[tuple[int, int]]:
    """The (pixel, tap) pairs that a source column of a tile serves."""
    pairs = ((pixel, column - pixel * stride) for pixel in range(pixels))
    found = ((pixel, divmod(offset, dilation)) for pixel, offset in pairs)
    return [(pixel, tap) for pixel, (tap, rest) in found if rest == 0 and 0 <= tap < taps]


class Walk:
    """The loop nest, built around a kernel's own reading."""

    def __init__(self, e: Emitter, steps: Steps, pixels: int, stream: bool) -> None:
        self.e, self.pixels, self.stream = e, pixels, stream
        for name in SIZES.split():
            setattr(self, name, e.field(name))
        part, item = e.chunk % self.parts, e.chunk // self.parts
        strip, rest = item % self.strips, item // self.strips
        plane, image = rest % self.d_out, rest // self.d_out
        self.block_begin = part * self.part_blocks
        self.block_end = e.smaller(self.block_begin + self.part_blocks, self.blocks)
        self.begin = strip * self.strip_rows
        self.end = e.smaller(self.begin + self.strip_rows, self.h_out)
        self.source = e.pointer("source").at(image * self.source_n)
        self.front = plane * self.d_stride - self.d_before  # source plane of the first tap
        self.result_row = (image * self.d_out + plane) * self.h_out  # rows of the result before this plane's
        self.finish = epilogues.Finish(e, steps)

    def __getattr__(self, name: str) -> Int:  # fields, set in __init__
        raise AttributeError(name)

    def tiles(self, stride: int, body: Callable[[Int, Int], None]) -> None:
        """`body(result column, source column)` for every tile."""
        with self.e.loop("tile", (self.w_out + (self.pixels - 1)) // self.pixels) as tile:
            column = self.e.smaller(tile.index * self.pixels, self.w_out - self.pixels)
            body(column, column * stride - self.w_before)

    def meeting(self, start: Int, dilation: Int, taps: Int, size: Int) -> tuple[Int, Int]:
        """First and last (exclusive) tap that meets the input, the first of all lying at `start`."""
        e = self.e
        low = (e.larger(0 - start, 0) + (dilation - 1)) // dilation
        return low, e.smaller(taps, (e.larger(size - start, 0) + (dilation - 1)) // dilation)

    def bias(self, channel: Int) -> list[Vec]:
        """What the accumulators of a tile begin with."""
        return [self.e.pointer("bias").at(channel).load(self.e.lanes)] * self.pixels

    def store(self, acc: list[Vec], row: Int, column: Int, channel: Int, mask: Any = None) -> None:
        """The epilogue of a tile, to its place."""
        e = self.e
        start = ((self.result_row + row) * self.w_out + column) * self.channels + channel
        result = e.pointer("result").at(start)
        residual = None if self.finish.residual is None else self.finish.residual.at(start)
        for pixel, value in enumerate(acc):
            offset = self.channels * pixel
            value = self.finish(value, channel, None if residual is None else residual.at(offset), mask)
            if self.stream and mask is None:
                result.at(offset).store(value, align=4 * e.lanes, stream=True)
            else:
                flat.store(result.at(offset), value, mask)
