"""Planning and launching of the dense weight gradient."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from faltung.engine import memory, team
from faltung.engine.geometry import ConvGeometry
from faltung.engine.kernel import Kernel, address
from faltung.engine.kernels import conv_backward_weights, pack_weights
from faltung.engine.kernels.conv_backward_weights import Schedule
from faltung.engine.kernels.conv_dense import channels_adjacent, even_columns, refuse, strides_of, vectors_for, zeros_of
from faltung.engine.kernels.conv_problem import Problem, forward_problem, panel_table, three
from faltung.engine.kernels.microkernel import largest_tile
from faltung.engine.kernels.pad_rows import pad_rows
from faltung.engine.target import Target, host

_SEGMENTS = 16
_FEW_CHANNELS = 8


def refuse_backward_weights(geometry: ConvGeometry, x: np.ndarray, gy: np.ndarray, **_: Any) -> str | None:
    """Why the dense weight gradient does not fit, or None."""
    return refuse(geometry, x, gy)


def backward_weights(
    geometry: ConvGeometry, x: np.ndarray, gy: np.ndarray, *, with_bias: bool
) -> tuple[np.ndarray, np.ndarray | None]:
    """gw in PyTorch's layout, and gb if asked for."""
    problem = forward_problem(geometry)
    plan = plan_for(problem, team.get_num_threads(), host())
    seen = plan.problem
    gy_last = channels_adjacent(gy)
    x_strides, x_memory = readable(x, problem)
    s, width = plan.schedule, plan.schedule.vectors * host().lanes
    sums, bias_sums = room_for_sums(problem, plan.segments, plan.blocks, width)
    ys = strides_of(gy_last)
    kernel_for(s).launch(
        plan.segments * problem.groups * plan.tap_groups * plan.channel_groups * plan.block_groups,
        address(x_memory), address(gy_last), address(sums), address(bias_sums), address(zeros_of(width)),
        problem.groups, plan.segments, plan.tap_groups, plan.channel_groups, plan.block_groups,
        plan.pixel_blocks, -(-plan.pixel_blocks // plan.segments), plan.row_blocks, plan.rows_per_block,
        plan.planes_per_block, problem.batch * problem.output[0], problem.output[0],
        plan.taps_per_group, *seen.taps, seen.channels, plan.channels_per_group, plan.blocks, plan.blocks_per_group,
        problem.out_channels, int(with_bias),
        *seen.input, *problem.output[1:], *seen.stride, *seen.dilation, *seen.before,
        x_strides[0], *x_strides[2:], problem.channels, ys[0], *ys[2:], problem.out_channels,
        sums.strides[0] // 4, bias_sums.strides[0] // 4, 0,
    )  # fmt: skip
    return collected(geometry, sums, bias_sums, s.vectors, with_bias)


def room_for_sums(problem: Problem, segments: int, blocks: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """[segment][group][block][tap and input channel][output channel], and those of the bias."""
    depth = problem.taps[0] * problem.taps[1] * problem.taps[2] * problem.channels
    return (
        memory.empty((segments, problem.groups, blocks, depth, width)),
        memory.empty((segments, problem.groups, blocks, width)),
    )


def collected(
    geometry: ConvGeometry, sums: np.ndarray, bias_sums: np.ndarray, vectors: int, with_bias: bool
) -> tuple[np.ndarray, np.ndarray | None]:
    """Segments added in order, gw in PyTorch's layout."""
    problem = forward_problem(geometry)
    gw = memory.empty((geometry.out_channels, *geometry.weight_shape[1:]))
    table = panel_table(problem, three(geometry.kernel), problem.channels)
    for group in range(problem.groups):
        rows = slice(group * problem.out_channels, (group + 1) * problem.out_channels)
        pack_weights.unpack(sums[:, group], problem.out_channels, table, vectors, gw[rows])
    if not with_bias:
        return gw, None
    used = bias_sums.reshape(len(sums), problem.groups, -1)[:, :, : problem.out_channels]
    return gw, np.add.reduce(used, axis=0).reshape(-1)


def _is_wide(problem: Problem) -> bool:
    """True where the taps of a row and their channels are taken as one run of channels."""
    return problem.groups == 1 and problem.channels < _FEW_CHANNELS and problem.taps[2] > 1 and problem.dilation[2] == 1


@lru_cache(maxsize=1024)
def as_seen(problem: Problem) -> Problem:
    """The problem as weight gradient kernels see it."""
    if not _is_wide(problem):
        return problem
    width = (problem.output[2] - 1) * problem.stride[2] + problem.taps[2]
    return replace(
        problem,
        channels=problem.channels * problem.taps[2],
        taps=(*problem.taps[:2], 1),
        input=(*problem.input[:2], width),
        before=(*problem.before[:2], 0),
    )


def readable(x: np.ndarray, problem: Problem) -> tuple[tuple[int, ...], np.ndarray]:
    """Strides (n, c, d, h, w) and memory of x as `as_seen` says: channels together, or rows with their zeros."""
    if not _is_wide(problem):
        x = channels_adjacent(x)
        return strides_of(x), x
    sizes = (problem.batch, *problem.input)
    padded = pad_rows(x, strides_of(x), sizes, problem.before[2], as_seen(problem).input[2])
    n, d, h, w, c = (stride // 4 for stride in padded.strides)
    return (n, c, d, h, w), padded


@dataclass(frozen=True, slots=True)
class Plan:
    """A schedule with the numbers that go with it."""

    schedule: Schedule
    problem: Problem  # as the kernel sees it
    segments: int
    pixel_blocks: int
    row_blocks: int
    rows_per_block: int
    planes_per_block: int
    tap_groups: int
    taps_per_group: int
    channel_groups: int
    channels_per_group: int
    blocks: int
    block_groups: int
    blocks_per_group: int


@lru_cache(maxsize=1024)
def plan_for(problem: Problem, threads: int, target: Target) -> Plan:
    """Tile, pixel blocks and chunks. Only what adds no sums may depend on the number of threads."""
    lanes = target.lanes
    seen = as_seen(problem)
    needed = -(-problem.out_channels // lanes)
    vectors = _vectors_for(needed, target)
    blocks = -(-needed // vectors)
    taps = seen.taps[0] * seen.taps[1] * seen.taps[2]
    planes = problem.batch * problem.output[0]
    pixels = max(1, target.l1_bytes // 3 // (vectors * lanes * 4))
    rows = max(1, min(problem.output[1], pixels // problem.output[2]))
    planes_per_block = max(1, pixels // (problem.output[1] * problem.output[2])) if rows == problem.output[1] else 1
    row_blocks = -(-problem.output[1] // rows)
    pixel_blocks = -(-planes // planes_per_block) * row_blocks
    sums = problem.groups * blocks * vectors * lanes * taps * seen.channels
    data = planes * problem.output[1] * problem.output[2] * problem.groups * (problem.channels + problem.out_channels)
    segments = segments_for(pixel_blocks, data, sums)
    channel_groups, tap_groups, block_groups = split_work(
        problem.groups * segments, blocks, vectors * lanes, seen, taps, threads, target
    )
    channels_per_group = -(-seen.channels // channel_groups)
    tile, narrow = tile_for(seen.channels, channels_per_group, min(largest_tile(target, vectors), 14))
    return Plan(
        Schedule(
            tile, vectors, narrow, needed % vectors,
            problem.out_channels % lanes != 0,
        ),
        seen, segments, pixel_blocks, row_blocks, rows, planes_per_block,
        tap_groups, -(-taps // tap_groups), -(-seen.channels // channels_per_group), channels_per_group,
        blocks, block_groups, -(-blocks // block_groups),
    )  # fmt: skip


def _vectors_for(needed: int, target: Target) -> int:
    """Vectors of a channel block. Every block reads all of x once: a wide one reads it less often, and where registers
    allow, 6 x 4 is a third faster than 14 x 2 for 1024 -> 256 channels, 8 x 3 a tenth (AVX-512).
    """
    if target.registers >= 32 and target.broadcast_operand:
        for vectors in (4, 3):
            if needed % vectors == 0:
                return vectors
    return vectors_for(needed)


def split_work(
    units: int, blocks: int, width: int, seen: Problem, taps: int, threads: int, target: Target
) -> tuple[int, int, int]:
    """(channel groups, tap groups, block groups) of every unit: the least estimated time over the threads.

    In cycles per pixel: the product, and the chunk's part of x and gy, which comes from the shared cache at 6 bytes a
    cycle, or at 24 if the near one holds all of x and gy.
    """
    pixels = seen.batch * seen.pixels
    near = 4 * pixels * (seen.channels + seen.out_channels) <= target.l2_bytes
    best, choice = float("inf"), (1, 1, 1)
    for channel_groups in range(1, min(32, max(1, seen.channels // 12)) + 1):
        for tap_groups in sorted({1, min(2, taps), min(4, taps), taps}):
            for block_groups in sorted({1, min(2, blocks), min(4, blocks), min(8, blocks), blocks}):
                channels, outs = -(-seen.channels // channel_groups), -(-blocks // block_groups) * width
                product = -(-taps // tap_groups) * channels * outs / (2.0 * target.lanes)
                chunks = units * channel_groups * tap_groups * block_groups
                cycles = product + 4.0 * (channels + outs) / (24 if near else 6) + 2000.0 / pixels
                total = cycles * (-(-chunks // threads) + chunks / threads + 0.5)
                if total < best:
                    best, choice = total, (channel_groups, tap_groups, block_groups)
    return choice


def segments_for(pixel_blocks: int, data: int, sums: int) -> int:
    """Segments of the pixels, none of them empty: several where the data dwarfs the sums, of which each has its own."""
    segments = max(1, min(_SEGMENTS, pixel_blocks // 4)) if data >= _SEGMENTS * sums else 1
    return -(-pixel_blocks // -(-pixel_blocks // segments))


def tile_for(channels: int, per_group: int, most: int) -> tuple[int, bool]:
    """The largest tile that, with tiles one narrower, makes up every group of channels, the last one too; and whether
    some are narrower.
    """
    last = channels % per_group or per_group
    tile = next(t for t in range(most, 0, -1) if even_columns(per_group, t) == t and even_columns(last, t) == t)
    return tile, per_group % tile != 0 or last % tile != 0


@lru_cache(maxsize=64)
def kernel_for(schedule: Schedule) -> Kernel:
    """The kernel of a schedule, one per process."""
    return Kernel("conv_backward_weights", conv_backward_weights.FIELDS, schedule, conv_backward_weights.emit)
