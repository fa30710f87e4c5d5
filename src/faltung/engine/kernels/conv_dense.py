"""Dense and large-group convolutions on the direct kernel: planning, packing and launching.

`schedule_for` chooses the register tile by the result's width, the channel block by the near caches, and how the work
is cut into chunks by the number of threads (which never changes a bit of the result).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from faltung.engine import memory, team
from faltung.engine.epilogue import NO_STEPS, Epilogue, Steps, steps_of
from faltung.engine.geometry import ConvGeometry
from faltung.engine.kernel import Kernel, address, pack_last
from faltung.engine.kernels import conv_direct, pack_weights
from faltung.engine.kernels import epilogue as epilogues
from faltung.engine.kernels.conv_direct import Schedule
from faltung.engine.kernels.conv_problem import Problem, Sizes, backward_problems, forward_problem, panel_table, three
from faltung.engine.kernels.microkernel import PIXELS_PER_BASE, largest_tile, shares_of
from faltung.engine.kernels.rows import planes_of
from faltung.engine.target import Target, host

Cache = dict[Any, Any] | None


def refuse_forward(
    geometry: ConvGeometry, x: np.ndarray, w: np.ndarray, bias: np.ndarray | None, **_: Any
) -> str | None:
    """Why the direct kernel does not fit, or None."""
    return refuse(geometry, x, w)


def refuse_backward_data(geometry: ConvGeometry, gy: np.ndarray, w: np.ndarray, **_: Any) -> str | None:
    """Why the direct kernel does not fit, or None."""
    return refuse(geometry, gy, w)


def refuse(geometry: ConvGeometry, a: np.ndarray, b: np.ndarray) -> str | None:
    """What no dense kernel takes."""
    if a.dtype != np.float32 or b.dtype != np.float32:
        return "generated code is float32"
    if 0 in geometry.output_shape or 0 in geometry.input_shape or geometry.in_channels == 0:
        return "nothing to compute"
    return None


def forward(
    geometry: ConvGeometry,
    x: np.ndarray,
    w: np.ndarray,
    bias: np.ndarray | None,
    *,
    cache: Cache = None,
    epilogue: Epilogue | None = None,
) -> np.ndarray:
    """y = conv(x, w) + bias, then the epilogue, physically channels last."""
    y = memory.empty_channels_last(geometry.output_shape)
    steps = steps_of(epilogue)
    launches, _ = _launches(geometry, "forward", x.strides, team.get_num_threads(), steps)
    _run(launches[0], x, w, bias, y, cache, epilogues.channels_last(epilogue))
    return y


def backward_data(geometry: ConvGeometry, gy: np.ndarray, w: np.ndarray, *, cache: Cache = None) -> np.ndarray:
    """The gradient of the input, physically channels last."""
    gx = memory.empty_channels_last(geometry.input_shape)
    launches, complete = _launches(geometry, "backward", gy.strides, team.get_num_threads())
    if not complete:
        gx.fill(0.0)
    for launch in launches:
        _run(launch, gy, w, None, gx, cache)
    return gx


@dataclass(frozen=True, slots=True)
class Plan:
    """A schedule with the numbers that go with it."""

    schedule: Schedule
    channel_block: int
    rows_per_chunk: int
    row_blocks: int
    blocks: int
    blocks_per_group: int
    channel_groups: int
    out_w: int
    out_h: int
    planes: int
    batch: int
    row_pixels: int
    all_pixels: int
    packed_w: int
    scratch_floats: int

    @property
    def chunks_per_group(self) -> int:
        """Chunks of one weight group."""
        return self.batch * self.planes * self.row_blocks * self.channel_groups


@dataclass(frozen=True, slots=True)
class _Launch:
    """Everything about a launch that its arrays' addresses don't change."""

    problem: Problem
    kernel_size: Sizes
    weight_roles: str
    plan: Plan
    kernel: Kernel
    groups: int
    padded: int  # output channels of a group, in whole blocks
    y_offset_bytes: int
    scratch_floats: int  # of all threads
    chunks: int
    panels_key: str  # of the packed weights in their cache
    zeros: np.ndarray  # in place of a bias
    fields: bytes  # behind the addresses and what depends on bias and epilogue


@lru_cache(maxsize=4096)
def _launches(
    geometry: ConvGeometry,
    roles: str,
    x_strides: tuple[int, ...],
    threads: int,
    steps: Steps = NO_STEPS,
) -> tuple[tuple[_Launch, ...], bool]:
    """The launches of a pass, and whether they write every pixel of the result."""
    problems, complete = ((forward_problem(geometry),), True) if roles == "forward" else backward_problems(geometry)
    shapes = (geometry.input_shape, geometry.output_shape)
    x_shape, y_shape = shapes if roles == "forward" else shapes[::-1]
    xs, ys = _in_elements(x_shape, x_strides), _in_elements(y_shape, memory.channels_last_strides(y_shape))
    large = 4 * prod(y_shape) > max(host().l3_bytes, memory.POOLED_BYTES)  # from the pool, which aligns
    return tuple(_launch(p, geometry, roles, x_shape, xs, ys, large, threads, steps) for p in problems), complete


def _launch(
    problem: Problem, geometry: ConvGeometry, roles: str, x_shape: tuple[int, ...], xs: tuple[int, ...],
    ys: tuple[int, ...], large: bool, threads: int, steps: Steps,
) -> _Launch:  # fmt: skip
    step, start = problem.out_step, problem.out_start
    y_d, y_h, y_w = (ys[2 + i] * step[i] for i in range(3))
    y_offset_bytes = 4 * sum(ys[2 + i] * start[i] for i in range(3))
    flat = problem.is_pointwise and _is_flat(x_shape, xs) and step == (1, 1, 1)
    streams = large and y_offset_bytes % host().vector_bytes == 0
    planes = planes_of(problem.channels, xs[1], xs[4]) if problem.groups == 1 else 0
    plan = plan_for(problem, flat, xs[1] == 1, streams, threads, host(), planes)
    x_d, x_h, x_w = (0, plan.row_pixels * xs[4], xs[4]) if flat else xs[2:]
    if flat:
        y_d, y_h, y_w = 0, plan.row_pixels * ys[4], ys[4]
    width, schedule = plan.schedule.vectors * host().lanes, replace(plan.schedule, epilogue=steps)
    padded, taps = plan.blocks * width, problem.taps[0] * problem.taps[1] * problem.taps[2]
    fields = pack_last(
        taps * problem.channels * width,
        problem.groups, plan.channel_groups, plan.planes, plan.row_blocks, plan.rows_per_chunk,
        plan.blocks_per_group, plan.blocks,
        plan.out_w, plan.out_h, plan.row_pixels, plan.all_pixels,
        *problem.input, *problem.stride, *problem.dilation, *problem.before,
        *problem.taps, problem.channels, plan.channel_block, problem.out_channels,
        xs[0], x_d, x_h, x_w, xs[1], problem.channels * xs[1],
        ys[0], y_d, y_h, y_w, problem.out_channels,
        plan.scratch_floats, plan.packed_w,
    )  # fmt: skip
    key = f"direct {roles} {problem.groups} {problem.tap_index} {plan.schedule.vectors} {plan.channel_block}"
    return _Launch(
        problem, three(geometry.kernel), roles, plan, _kernel(schedule), problem.groups, padded, y_offset_bytes,
        threads * plan.scratch_floats, plan.chunks_per_group * problem.groups, key, zeros_of(padded), fields,
    )  # fmt: skip


def _run(
    launch: _Launch,
    x: np.ndarray,
    w: np.ndarray,
    bias: np.ndarray | None,
    y: np.ndarray,
    cache: Cache,
    epilogue: Epilogue | None = None,
) -> None:
    panels = cache.get(launch.panels_key) if cache else None
    if panels is None:
        panels = _panels(launch, w, cache)
    biases, bias_g = (launch.zeros, 0) if bias is None else padded_bias(bias, launch.problem, launch.padded)
    scratch = memory.empty((launch.scratch_floats,)) if launch.scratch_floats else biases
    finish, _kept = epilogues.values(epilogue, launch.groups, launch.padded)
    launch.kernel.launch_packed(
        launch.chunks, address(x), address(panels), address(biases), bias_g,
        address(y) + launch.y_offset_bytes, address(scratch), *finish, rest=launch.fields,
    )  # fmt: skip


@lru_cache(maxsize=256)
def _kernel(schedule: Schedule) -> Kernel:
    return Kernel("conv_direct", conv_direct.FIELDS, schedule, conv_direct.emit)


def strides_of(array: np.ndarray) -> tuple[int, ...]:
    """Strides in elements as (n, c, d, h, w)."""
    return _in_elements(array.shape, array.strides)


def _in_elements(shape: tuple[int, ...], strides: tuple[int, ...]) -> tuple[int, ...]:
    batch, channels, *spatial = (stride // 4 for stride in strides)
    if shape[1] == 1:
        channels = 1  # a single channel lies beside itself
    return (batch, channels, *(0,) * (3 - len(spatial)), *spatial)


def channels_adjacent(a: np.ndarray) -> np.ndarray:
    """The array itself if its channels lie together, else a channels-last copy."""
    if a.strides[1] == 4 or a.shape[1] == 1:
        return a
    copied = memory.empty_channels_last(a.shape)
    copied[...] = a
    return copied


def _is_flat(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """True if all pixels of all images lie one fixed step apart, their channels together."""
    batch, channel, *spatial = strides
    if channel != 1:
        return False
    step, reach = spatial[-1], 1
    sizes = (1,) * (5 - len(shape)) + shape[2:]
    for size, stride in zip(reversed(sizes), reversed(spatial), strict=True):
        if size != 1 and stride != step * reach:
            return False
        reach *= size
    return shape[0] == 1 or batch == step * reach


@lru_cache(maxsize=4096)
def plan_for(
    problem: Problem, flat: bool, channels_adjacent: bool, streams: bool, threads: int, target: Target, planes: int = 0
) -> Plan:
    """Tile, blocks and chunks for a problem on a chip."""
    lanes = target.lanes
    vectors_needed = -(-problem.out_channels // lanes)
    vectors = vectors_for(vectors_needed)
    pixels = min(largest_tile(target, vectors), 14)
    tail_vectors = vectors_needed % vectors
    taps = problem.taps[0] * problem.taps[1] * problem.taps[2]
    packed = not flat and not (channels_adjacent and _needs_no_padding(problem))
    channel_block = _channel_block(problem.channels, taps * vectors * lanes * 4, target)
    fused = packed and problem.dilation[2] == 1 and channel_block >= problem.channels
    run = problem.taps[2] * problem.channels if fused else channel_block
    unroll, exact = _unroll(run)
    if channel_block < problem.channels and problem.channels % channel_block % unroll:
        exact = False
    blocks = -(-vectors_needed // vectors)
    shape = _flat_shape(problem.batch * problem.pixels, pixels, blocks) if flat else _plane_shape(problem, pixels)
    cut = _cut(problem, shape, blocks, threads, target, packed)
    masked = problem.out_channels % lanes != 0
    schedule = Schedule(
        rows=shape.rows,
        columns=shape.columns,
        vectors=vectors,
        unroll=unroll,
        packed=packed,
        fused_run=fused,
        exact=exact,
        narrow=shape.narrow,
        single=shape.single,
        short_rows=shape.rows > 1 and (shape.out_h % shape.rows != 0 or cut.rows_per_chunk % shape.rows != 0),
        tail_vectors=tail_vectors,
        masked=masked,
        stream=streams and not masked and channel_block >= problem.channels,
        accumulate=channel_block < problem.channels,
        shares=shares_of(-(-cut.rows_per_chunk // shape.rows) * -(-shape.out_w // shape.columns)),
        planes=planes if packed else 0,
    )
    packed_w = (shape.out_w - 1) * problem.stride[2] + (problem.taps[2] - 1) * problem.dilation[2] + 1
    rows_in = (cut.rows_per_chunk - 1) * problem.stride[1] + (problem.taps[1] - 1) * problem.dilation[1] + 1
    scratch = -(-problem.taps[0] * rows_in * packed_w * problem.channels // 16) * 16 if packed else 0
    return Plan(
        schedule, channel_block, cut.rows_per_chunk, -(-shape.out_h // cut.rows_per_chunk), blocks,
        cut.blocks_per_group, -(-blocks // cut.blocks_per_group), shape.out_w, shape.out_h,
        1 if flat else problem.output[0], 1 if flat else problem.batch, shape.out_w if flat else 0,
        shape.all_pixels, packed_w, scratch,
    )  # fmt: skip


def vectors_for(needed: int) -> int:
    """Vectors of a channel block: the widest of 2 and 3 that leaves no tail, 2 otherwise."""
    if needed <= 3:
        return needed
    return 3 if needed % 3 == 0 and needed % 2 else 2


def _needs_no_padding(problem: Problem) -> bool:
    return all(
        before >= 0 and before == 0 and (out - 1) * stride + (taps - 1) * dilation < size
        for before, out, stride, taps, dilation, size in zip(
            problem.before, problem.output, problem.stride, problem.taps, problem.dilation, problem.input, strict=True
        )
    )


def _channel_block(channels: int, panel_bytes_per_channel: int, target: Target) -> int:
    """Input channels whose panel takes at most a quarter of L2, all of them if they fit."""
    room = target.l2_bytes // 4
    if channels * panel_bytes_per_channel <= room:
        return channels
    blocks = -(-channels * panel_bytes_per_channel // room)
    even = -(-channels // blocks)
    return min(channels, -(-even // 16) * 16)


def _unroll(run: int) -> tuple[int, bool]:
    """Rounds per loop turn, and whether they divide the run."""
    if run <= 9:
        return run, True
    for rounds in (4, 6, 5, 7, 9, 3):
        if run % rounds == 0:
            return rounds, True
    return 4, False


@dataclass(frozen=True, slots=True)
class _Shape:
    rows: int
    columns: int
    out_w: int
    out_h: int
    all_pixels: int
    narrow: bool
    single: bool


_UNBOUNDED = 1 << 60
_MOST_BASES = 8  # base pointers of a tile; general registers are few


def _plane_shape(problem: Problem, pixels: int) -> _Shape:
    """The tile for a plane: whole rows where they are short, else columns that divide the width evenly."""
    _, out_h, out_w = problem.output
    if out_w <= pixels:
        bases = -(-out_w // PIXELS_PER_BASE)
        rows = max(1, min(pixels // out_w, out_h, _MOST_BASES // bases))
        return _Shape(rows, out_w, out_w, out_h, _UNBOUNDED, False, False)
    columns = even_columns(out_w, pixels)
    return _Shape(1, columns, out_w, out_h, _UNBOUNDED, out_w % columns != 0, False)


def _flat_shape(total: int, pixels: int, blocks: int) -> _Shape:
    """All pixels of all images as rows of tiles, of the width that computes them in the least time.

    No plane, no image boundary. A tile takes as long as its pixels and one more (loads of the panel), a pixel alone as
    long as 5. Rows are what chunks are made of, so that some must be there, unless many blocks of channels are.
    """
    if total <= pixels:
        return _Shape(1, total, total, 1, total, False, False)
    best, choice = (total * 5, True, 0), (pixels, 1)
    for columns in range(pixels, pixels // 2, -1):
        for tiles in range(min(12, -(-total // columns)), 0, -1):
            if tiles > 1 and total < 4 * columns * tiles and blocks < 8:
                continue
            rows, rest = divmod(total, columns * tiles)
            cost = (rows * tiles * (columns + 1) + _last_row(rest, columns), rest > 0, abs(tiles - 8))
            if cost < best:
                best, choice = cost, (columns, tiles)
    columns, tiles = choice
    width = columns * tiles
    rest = total % width
    return _Shape(1, columns, width, -(-total // width), total, rest % columns != 0, _has_singles(rest, columns))


def _last_row(width: int, columns: int) -> int:
    """What a row that is not full costs, by the measure of `_flat_shape`: tiles, some a pixel narrower, or singles."""
    tiles = -(-width // columns)
    if _has_singles(width, columns):
        return width // columns * (columns + 1) + width % columns * 5
    return width + tiles


def _has_singles(width: int, columns: int) -> bool:
    """True where full and one-narrower tiles cannot make up a width."""
    tiles = -(-width // columns)
    return tiles * columns - width > tiles


def even_columns(width: int, most: int) -> int:
    """The most columns, so that tiles of that many and of one less make up the width."""
    return next(columns for columns in range(most, 0, -1) if not _has_singles(width, columns))


@dataclass(frozen=True, slots=True)
class _Cut:
    rows_per_chunk: int
    blocks_per_group: int


def _cut(problem: Problem, shape: _Shape, blocks: int, threads: int, target: Target, packed: bool) -> _Cut:
    """Rows and channel blocks per chunk: the least estimated time over the threads.

    Counted beside the arithmetic: packing, panels read once per chunk, and input that is too large for L1 read from L2
    for every channel block. The last chunk is half expected to start late, so that many small chunks beat few large
    ones.
    """
    row_bytes = (
        4
        * problem.taps[0]
        * problem.channels
        * ((shape.out_w - 1) * problem.stride[2] + (problem.taps[2] - 1) * problem.dilation[2] + 1)
    )
    halo = (problem.taps[1] - 1) * problem.dilation[1] + 1 - problem.stride[1]
    images = problem.groups if shape.all_pixels != _UNBOUNDED else problem.batch * problem.output[0] * problem.groups
    row_work = (
        shape.out_w * problem.out_channels * problem.channels * problem.taps[0] * problem.taps[1] * problem.taps[2]
    )
    lanes_per_round = 2.0 * target.lanes  # multiply-adds per cycle
    best, choice = float("inf"), _Cut(shape.rows, blocks)
    rows = shape.rows
    options = sorted({min(shape.out_h, rows * m) for m in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64)} | {shape.out_h})
    for per_chunk in options:
        scratch = (per_chunk * problem.stride[1] + halo) * row_bytes
        if packed and scratch > target.l2_bytes // 2 and per_chunk > rows:
            break
        for groups in {1, 2, 4, 8, 16, blocks}:
            if groups > blocks:
                continue
            per_group = -(-blocks // groups)
            chunks = images * -(-shape.out_h // per_chunk) * -(-blocks // per_group)
            rounds = -(-chunks // threads)
            share = per_group / blocks
            pack_cycles = scratch / 16 if packed else 0.0
            cycles = per_chunk * row_work * share / lanes_per_round + pack_cycles + 400
            # the panels pass through the near cache once per chunk
            cycles += share * problem.out_channels * problem.channels * 4 * problem.taps[1] * problem.taps[2] / 64
            if scratch > target.l1_bytes // 2:
                cycles += per_group * scratch / 64
            total = 0.5 * rounds * cycles + 0.5 * (chunks / threads + 0.5) * cycles
            if total < best:
                best, choice = total, _Cut(per_chunk, per_group)
    return choice


def _panels(launch: _Launch, w: np.ndarray, cache: Cache) -> np.ndarray:
    """Packed weights (groups, blocks, depth, vectors * lanes), left in the cache."""
    problem, kernel, roles = launch.problem, launch.kernel_size, launch.weight_roles
    vectors, channel_block = launch.plan.schedule.vectors, launch.plan.channel_block
    w = np.ascontiguousarray(w)
    table = panel_table(problem, kernel, channel_block)
    kernel_taps = kernel[0] * kernel[1] * kernel[2]
    depth = problem.channels * problem.taps[0] * problem.taps[1] * problem.taps[2]
    width = vectors * host().lanes
    panels = memory.empty((problem.groups, -(-problem.out_channels // width), depth, width))
    for group in range(problem.groups):
        if roles == "forward":
            row = problem.channels * kernel_taps
            shape = (problem.out_channels, row, 1, row, row)
        else:
            row = problem.out_channels * kernel_taps
            shape = (problem.out_channels, kernel_taps, problem.channels, row, kernel_taps)
        offset = group * problem.channels * problem.out_channels * kernel_taps
        pack_weights.pack(w, offset, *shape, table, vectors, depth, panels[group])
    if cache is not None:
        cache[launch.panels_key] = panels
    return panels


def padded_bias(bias: np.ndarray | None, problem: Problem, padded: int) -> tuple[np.ndarray, int]:
    """Bias of every group padded to whole blocks, and the floats from group to group (0: the same zeros for all)."""
    if bias is None:
        return zeros_of(padded), 0
    if padded == problem.out_channels and bias.flags.c_contiguous and bias.dtype == np.float32:
        return bias, padded
    full = np.zeros((problem.groups, padded), np.float32)
    full[:, : problem.out_channels] = bias.reshape(problem.groups, -1)
    return full, padded


_zeros = np.zeros(1024, np.float32)


def zeros_of(count: int) -> np.ndarray:
    """At least `count` zeros, to read only."""
    global _zeros
    zeros = _zeros  # another thread may put a shorter array there
    if zeros.size < count:
        zeros = _zeros = np.zeros(count, np.float32)
    return zeros
