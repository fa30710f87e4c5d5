"""Planning and launching of the weight gradient from gathered pixels, on chips whose vectors have 8 lanes or fewer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from faltung.engine import team
from faltung.engine.geometry import ConvGeometry
from faltung.engine.kernel import Kernel, address
from faltung.engine.kernels import conv_gathered
from faltung.engine.kernels.conv_dense import channels_adjacent, refuse, strides_of, vectors_for, zeros_of
from faltung.engine.kernels.conv_dense_weights import (
    as_seen,
    collected,
    readable,
    room_for_sums,
    segments_for,
    tile_for,
)
from faltung.engine.kernels.conv_gathered import UNROLL, Schedule
from faltung.engine.kernels.conv_problem import Problem, forward_problem
from faltung.engine.kernels.microkernel import largest_tile
from faltung.engine.target import Target, host

_MOST_LANES = 8  # with 16, moving costs more than it brings


def refuse_backward_weights(geometry: ConvGeometry, x: np.ndarray, gy: np.ndarray, **_: Any) -> str | None:
    """Why gathering does not fit, or None."""
    if host().lanes > _MOST_LANES:
        return f"vectors of {host().lanes} lanes read in place faster"
    return refuse(geometry, x, gy)


def backward_weights(
    geometry: ConvGeometry, x: np.ndarray, gy: np.ndarray, *, with_bias: bool
) -> tuple[np.ndarray, np.ndarray | None]:
    """gw in PyTorch's layout, and gb if asked for."""
    problem = forward_problem(geometry)
    plan = plan_for(problem, team.get_num_threads(), host())
    seen, pixels, s = plan.problem, plan.pixels, plan.schedule
    width = s.vectors * host().lanes
    gy_last = channels_adjacent(gy)
    x_strides, x_memory = readable(x, problem)
    sums, bias_sums = room_for_sums(problem, plan.segments, plan.blocks, width)
    _scratch, scratch = team.scratch(plan.scratch_floats)
    ys = strides_of(gy_last)
    kernel_for(s).launch(
        plan.segments * problem.groups * plan.tap_groups * plan.channel_groups * plan.block_groups,
        address(x_memory), address(gy_last), address(sums), address(bias_sums), address(zeros_of(width)),
        scratch, plan.scratch_floats,
        problem.groups, plan.segments, plan.tap_groups, plan.channel_groups, plan.block_groups,
        plan.pixel_blocks, -(-plan.pixel_blocks // plan.segments), pixels.column_blocks, pixels.columns,
        pixels.rows, problem.batch * problem.output[0] * problem.output[1], problem.output[0],
        plan.taps_per_group, *seen.taps, seen.channels, plan.channels_per_group, plan.blocks, plan.blocks_per_group,
        problem.out_channels, int(with_bias),
        *seen.input, *problem.output[1:], *seen.stride, *seen.dilation, *seen.before,
        x_strides[0], *x_strides[2:], problem.channels, ys[0], *ys[2:], problem.out_channels,
        sums.strides[0] // 4, bias_sums.strides[0] // 4,
    )  # fmt: skip
    return collected(geometry, sums, bias_sums, s.vectors, with_bias)


@dataclass(frozen=True, slots=True)
class Pixels:
    """How the output's pixels are cut into blocks."""

    rows: int  # of a block, over all images and planes
    columns: int
    column_blocks: int

    @classmethod
    def of(cls, width: int, rows: int, most: int) -> Pixels:
        """Blocks of at most `most` pixels: whole rows, or even parts of a row."""
        if width <= most:
            return cls(min(rows, most // width), width, 1)
        blocks = -(-width // most)
        return cls(1, -(-width // blocks), blocks)


@dataclass(frozen=True, slots=True)
class Plan:
    """A schedule with the numbers that go with it."""

    schedule: Schedule
    problem: Problem  # as the kernel sees it
    segments: int
    pixels: Pixels
    pixel_blocks: int
    tap_groups: int
    taps_per_group: int
    channel_groups: int
    channels_per_group: int
    blocks: int
    block_groups: int
    blocks_per_group: int
    scratch_floats: int  # per thread


@lru_cache(maxsize=1024)
def plan_for(problem: Problem, threads: int, target: Target) -> Plan:
    """Tile, pixel blocks and chunks. Only what adds no sums may depend on the number of threads."""
    lanes, seen = target.lanes, as_seen(problem)
    needed = -(-problem.out_channels // lanes)
    vectors = vectors_for(needed)
    blocks = -(-needed // vectors)
    taps = seen.taps[0] * seen.taps[1] * seen.taps[2]
    most = min(largest_tile(target, vectors), 14)
    sums = problem.groups * blocks * vectors * lanes * taps * seen.channels
    rows = problem.batch * problem.output[0] * problem.output[1]
    pixels = Pixels.of(problem.output[2], rows, _pixels_of_block(vectors, min(most, seen.channels), 4 * sums, target))
    pixel_blocks = -(-rows // pixels.rows) * pixels.column_blocks
    data = rows * problem.output[2] * problem.groups * (problem.channels + problem.out_channels)
    segments = segments_for(pixel_blocks, data, sums)
    channel_groups, tap_groups, block_groups = _split(
        problem.groups * segments, blocks, seen.channels, taps, vectors, most, threads
    )
    channels_per_group = -(-seen.channels // channel_groups)
    blocks_per_group = -(-blocks // block_groups)
    tile, narrow = tile_for(seen.channels, channels_per_group, most)
    schedule = Schedule(tile, vectors, narrow, needed % vectors, problem.out_channels % lanes != 0)
    tiles_floats = -(-channels_per_group // tile) * schedule.pitch
    floats = (pixels.rows * pixels.columns + UNROLL - 1) * (blocks_per_group * vectors * lanes + tiles_floats)
    return Plan(
        schedule, seen, segments, pixels, pixel_blocks, tap_groups, -(-taps // tap_groups),
        -(-seen.channels // channels_per_group), channels_per_group, blocks, block_groups, blocks_per_group,
        -(-floats // 16) * 16,
    )  # fmt: skip


def _pixels_of_block(vectors: int, tile: int, sums_bytes: int, target: Target) -> int:
    """Pixels that a block can have: gy of a channel block takes a third of L1.

    Where the sums outgrow L2, every block brings them from further away: there a tile takes half of L1.
    """
    if sums_bytes > target.l2_bytes:
        return target.l1_bytes // 2 // (Schedule(tile, vectors, False, 0, False).pitch * 4)
    return max(16, target.l1_bytes // 3 // (vectors * target.lanes * 4))


def _split(
    units: int, blocks: int, channels: int, taps: int, vectors: int, tile: int, threads: int
) -> tuple[int, int, int]:
    """(channel groups, tap groups, block groups) of every unit: the least estimated time over the threads.

    In half cycles per pixel: the product, a tile gathered once per group of blocks, gy gathered once per chunk.
    """
    best, choice = float("inf"), (1, 1, 1)
    for channel_groups in range(1, min(16, max(1, channels // tile)) + 1):
        tiles = -(-channels // (channel_groups * tile))
        for tap_groups in sorted({1, min(3, taps), taps}):
            for block_groups in sorted({1, min(2, blocks), min(4, blocks), blocks}):
                chunk_taps, chunk_blocks = -(-taps // tap_groups), -(-blocks // block_groups)
                cost = tiles * chunk_taps * (chunk_blocks * vectors * (tile + 1) + 6) + 5 * chunk_blocks * vectors
                chunks = units * channel_groups * tap_groups * block_groups
                total = cost * (-(-chunks // threads) + chunks / threads + 0.5)
                if total < best:
                    best, choice = total, (channel_groups, tap_groups, block_groups)
    return choice


@lru_cache(maxsize=64)
def kernel_for(schedule: Schedule) -> Kernel:
    """The kernel of a schedule, one per process."""
    return Kernel("conv_gathered_weights", conv_gathered.FIELDS, schedule, conv_gathered.emit)
