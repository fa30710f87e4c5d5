"""How a depthwise or grouped convolution is cut up: lanes, tiles, strips, and the numbers that its kernels are given.

Every pass walks the rows of a result and reads rows of a source (see `group_rows`). The forward pass reads the input;
the
data gradient reads the gradient of the output, with the channels of a group changing sides: at stride 1 as a forward
pass with flipped taps, otherwise "scattering", where a result row meets only the taps that its residue allows.

    forward      source position * 1      = result position * stride - before + tap * dilation
    scattering   source position * stride = result position + before - tap * dilation

Spatial sizes are always (D, H, W); missing dimensions are 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from faltung.engine.epilogue import NO_STEPS, Steps
from faltung.engine.geometry import ConvGeometry
from faltung.engine.kernels.conv_problem import Sizes, three
from faltung.engine.kernels.group_rows import Lanes
from faltung.engine.target import Target

MOST_TAPS = 7  # taps of a kernel row that are unrolled together
MOST_SCATTERED_TAPS = 16  # a scattering kernel unrolls the whole row
MOST_COLUMNS = 256  # result columns of one chunk
STRIP_ROWS = 16  # result rows of one chunk
CHUNKS = 32  # chunks that are enough for many cores to share
TASTE_FOR_WIDTH = 3  # columns that a tile costs beyond its pixels, when tiles of different widths are compared


@dataclass(frozen=True, slots=True)
class Schedule:
    """Everything that shapes the code of a forward or data-gradient kernel."""

    lanes: Lanes
    planar: bool  # the source's memory runs along the width
    pixels: int  # P: result pixels of a tile
    block: int  # B: input channels of a list entry
    taps: int  # K: taps of a kernel row in a list entry
    stride: int
    dilation: int
    scatter: bool
    stream: bool  # the result goes past the caches
    epilogue: Steps = NO_STEPS  # without a residual

    @property
    def shift(self) -> int:
        """Columns before its first own one that a scattering tile reads."""
        return -(-(self.taps - 1) * self.dilation // self.stride) if self.scatter else 0

    @property
    def advance(self) -> int:
        """Source columns from one tile to the next."""
        return self.pixels // self.stride if self.scatter else self.pixels * self.stride

    def uses(self) -> dict[int, list[tuple[int, int]]]:
        """Source column of a tile -> the (pixel, tap) pairs that it serves, in order of columns."""
        found: dict[int, list[tuple[int, int]]] = {}
        for pixel in range(self.pixels):
            for tap in range(self.taps):
                column, rest = self._column(pixel, tap)
                if rest == 0:
                    found.setdefault(column, []).append((pixel, tap))
        return dict(sorted(found.items()))

    def _column(self, pixel: int, tap: int) -> tuple[int, int]:
        if not self.scatter:
            return pixel * self.stride + tap * self.dilation, 0
        column, rest = divmod(pixel - tap * self.dilation, self.stride)
        return column + self.shift, rest

    @property
    def reach(self) -> int:
        """Source columns of one tile, for one list entry."""
        return max(self.uses(), default=0) + 1


@dataclass(frozen=True, slots=True)
class Pass:
    """One pass of a convolution, sizes as (D, H, W): what is read, what is written, which taps connect them."""

    batch: int
    groups: int
    ins: int  # channels of a group that are read
    outs: int  # channels of a group that are written
    source: Sizes
    result: Sizes
    kernel: Sizes
    stride: Sizes
    dilation: Sizes
    before: Sizes
    scatter: bool
    flip: bool


@lru_cache(maxsize=4096)
def forward_pass(g: ConvGeometry) -> Pass:
    """y from x."""
    before = three(tuple(pair[0] for pair in g.padding), 0)
    ins, outs = g.in_channels // g.groups, g.out_channels // g.groups
    return Pass(
        g.batch,
        g.groups,
        ins,
        outs,
        three(g.input),
        three(g.output),
        three(g.kernel),
        three(g.stride),
        three(g.dilation),
        before,
        False,
        False,
    )


@lru_cache(maxsize=4096)
def data_pass(g: ConvGeometry) -> Pass:
    """gx from gy."""
    before = three(tuple(pair[0] for pair in g.padding), 0)
    ins, outs = g.in_channels // g.groups, g.out_channels // g.groups
    kernel, dilation, stride = three(g.kernel), three(g.dilation), three(g.stride)
    scatter = stride != (1, 1, 1)
    if not scatter:
        before = three(tuple(d * (k - 1) - p for d, k, p in zip(dilation, kernel, before, strict=True)))
    return Pass(
        g.batch,
        g.groups,
        outs,
        ins,
        three(g.output),
        three(g.input),
        kernel,
        stride,
        dilation,
        before,
        scatter,
        not scatter,
    )


@dataclass(frozen=True, slots=True)
class Plan:
    """A schedule and the numbers that go with it: `fields` are those of `group_rows.Rows` that sizes determine."""

    schedule: Schedule
    fields: dict[str, int]
    items: int  # strips of rows
    parts: int  # parts of the channel vectors, each a chunk of its own
    vectors: int  # vectors of result channels
    scratch_floats: int  # per thread
    result_first: int


@lru_cache(maxsize=2048)
def plan(p: Pass, planar: bool, stream: bool, target: Target) -> Plan:
    """Tiles and chunks of a pass. Nothing here depends on the number of threads."""
    schedule = choose(p, planar, stream, target)
    return cut(p, schedule, target, schedule.pixels, schedule.advance, schedule.reach)


def choose(p: Pass, planar: bool, stream: bool, target: Target) -> Schedule:
    """The widest tile that registers hold and that covers a row with little waste."""
    lanes = Lanes(target.lanes, p.ins, p.outs)
    width = p.kernel[2]
    taps = width if p.scatter else largest_divisor(width, MOST_TAPS)
    most = most_pixels(target, lanes, taps)
    step = p.stride[2] if p.scatter else 1
    columns = p.result[2] + (p.before[2] % step if p.scatter else 0)
    widths = range(step, max(most, step) + 1, step)
    pixels = min(widths, key=lambda w: (-(-columns // w) * (w + TASTE_FOR_WIDTH), -w))
    block = largest_divisor(p.ins, most_channels(target))
    return Schedule(lanes, planar, pixels, block, taps, p.stride[2], p.dilation[2], p.scatter, stream)


def most_pixels(target: Target, lanes: Lanes, taps: int) -> int:
    """Accumulators beside the weights of `taps` taps and the repeated vector, without a spill."""
    if target.registers >= 32:
        return target.registers - min(taps, MOST_TAPS) - 5
    return target.registers - (3 if taps <= 3 else 5) - 3  # taps that find no register are memory operands


def most_channels(target: Target) -> int:
    """Channels that are unrolled together: where every operand needs a register, more would tempt LLVM to spill.

    2 instead of 4 makes 8 groups of 4 -> 8 channels 9% faster, 32 of 4 -> 4 29% (AVX-512, Sapphire Rapids).
    """
    if target.registers >= 32:
        return 2 if target.broadcast_operand else 1
    return 4


def largest_divisor(n: int, most: int) -> int:
    """The largest divisor of n that is at most `most`."""
    return max(d for d in range(1, most + 1) if n % d == 0)


def cut(p: Pass, s: Schedule, target: Target, pixels: int, advance: int, reach: int) -> Plan:
    """Strips, spans and blocks of vectors for tiles of `pixels`."""
    lanes = s.lanes
    width = p.kernel[2]
    w_blocks = width // s.taps
    first_tap = p.before[2] // p.stride[2] * p.stride[2] if p.scatter else 0
    result_first = first_tap - p.before[2] if p.scatter else 0
    tiles = -(-(p.result[2] - result_first) // pixels)
    ring = _ring(p)
    column_bytes = p.kernel[0] * ring * lanes.width * 4
    span_tiles = max(1, min(tiles, target.l1_bytes * 3 // 4 // (column_bytes * advance), MOST_COLUMNS // pixels))
    spans = -(-tiles // span_tiles)
    span_tiles = -(-tiles // spans)
    ring_columns = (span_tiles - 1) * advance + reach + (w_blocks - 1) * s.taps * s.dilation
    row_bytes = (ring_columns + target.lanes) * lanes.width * 4
    blocks = -(-p.groups // lanes.packs)
    block_step = max(1, min(blocks, target.l1_bytes // 2 // (p.kernel[0] * ring * row_bytes)))
    strip_rows = min(p.result[1], STRIP_ROWS)
    strips = -(-p.result[1] // strip_rows)
    steps = -(-blocks // block_step)
    items = p.batch * p.result[0] * strips * spans
    parts = min(steps, -(-CHUNKS // items))
    part_steps = -(-steps // parts)
    parts = -(-steps // part_steps)
    entries = p.kernel[0] * p.kernel[1] * w_blocks * (p.ins // s.block)
    scratch = (entries * 4 + 15) // 16 * 16 + block_step * p.kernel[0] * ring * row_bytes // 4
    fields = {
        "groups": p.groups,
        "blocks": blocks,
        "block_step": block_step,
        "steps": steps,
        "parts": parts,
        "part_steps": part_steps,
        "strips": strips,
        "strip_rows": strip_rows,
        "spans": spans,
        "span_tiles": span_tiles,
        "planes_out": p.result[0],
        "rows_out": p.result[1],
        "planes": p.source[0],
        "rows": p.source[1],
        "columns": p.source[2],
        **_axis("d", p, 0),
        **_axis("h", p, 1),
        **_row_window(p),
        "ring": ring,
        "first": first_tap // p.stride[2] - s.shift if p.scatter else -p.before[2],
        "advance": advance,
        "ring_columns": ring_columns,
        "w_blocks": w_blocks,
        "w_block_step": s.taps * s.dilation,
    }
    return Plan(s, fields, items, parts, blocks * lanes.subs, -(-scratch // 16) * 16, result_first)


def _ring(p: Pass) -> int:
    """Source rows from the first to the last that one result row can meet."""
    span = (p.kernel[1] - 1) * p.dilation[1]
    return (span // p.stride[1] if p.scatter else span) + 1


def _axis(name: str, p: Pass, axis: int) -> dict[str, int]:
    """Source position (times `divide`) = result position * scale + base + tap * step."""
    if p.scatter:
        scale, base, step, divide = 1, p.before[axis], -p.dilation[axis], p.stride[axis]
    else:
        scale, base, step, divide = p.stride[axis], -p.before[axis], p.dilation[axis], 1
    return {
        f"{name}_taps": p.kernel[axis],
        f"{name}_scale": scale,
        f"{name}_base": base,
        f"{name}_step": step,
        f"{name}_divide": divide,
    }


def _row_window(p: Pass) -> dict[str, int]:
    """The first source row of a result row is (row * scale + lead) // divide - shift, the dividend never negative."""
    if not p.scatter:
        return {"h_lead": 0, "h_shift": p.before[1]}
    span, stride = (p.kernel[1] - 1) * p.dilation[1], p.stride[1]
    shift = -(-span // stride)
    return {"h_lead": p.before[1] - span + stride - 1 + stride * shift, "h_shift": shift}


def source_steps(name: str, strides: tuple[int, ...]) -> dict[str, int]:
    """Fields of (N, C, *spatial) strides in bytes, as floats."""
    n, c, *spatial = (stride // 4 for stride in strides)
    depth, height, width = (0,) * (3 - len(spatial)) + tuple(spatial)
    return {f"{name}_n": n, f"{name}_d": depth, f"{name}_h": height, f"{name}_w": width, f"{name}_c": c}


def pack_bias(bias: np.ndarray | None, groups: int, lanes: Lanes) -> np.ndarray:
    """(G * outs,) or None -> one vector per vector of outputs."""
    full = np.zeros((_padded_groups(groups, lanes), lanes.slot * lanes.subs), np.float32)
    if bias is not None:
        full[:groups, : lanes.outs] = bias.reshape(groups, lanes.outs)
    return _on_cache_lines(full.reshape(-1, lanes.packs, lanes.subs, lanes.slot).transpose(0, 2, 3, 1))


def unpack_bias(packed: np.ndarray, groups: int, lanes: Lanes) -> np.ndarray:
    """The inverse of `pack_bias`."""
    full = packed.reshape(-1, lanes.subs, lanes.slot, lanes.packs).transpose(0, 3, 1, 2)
    return full.reshape(-1, lanes.subs * lanes.slot)[:groups, : lanes.outs].reshape(-1)


def _padded_groups(groups: int, lanes: Lanes) -> int:
    return -(-groups // lanes.packs) * lanes.packs


def _on_cache_lines(array: np.ndarray) -> np.ndarray:
    from faltung.engine.memory import aligned_bytes

    copy = aligned_bytes(array.nbytes).view(np.float32).reshape(array.shape)
    copy[...] = array
    return copy
