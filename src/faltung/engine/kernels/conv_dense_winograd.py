"""Planning and launching of Winograd convolutions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from faltung.engine import memory, team
from faltung.engine.emit import Emitter
from faltung.engine.epilogue import NO_STEPS, Epilogue, Steps, steps_of
from faltung.engine.flags import flags
from faltung.engine.geometry import ConvGeometry
from faltung.engine.kernel import Kernel, address
from faltung.engine.kernels import conv_winograd, pack_weights
from faltung.engine.kernels import epilogue as epilogues
from faltung.engine.kernels.conv_dense import (
    channels_adjacent,
    even_columns,
    padded_bias,
    refuse,
    strides_of,
    vectors_for,
    zeros_of,
)
from faltung.engine.kernels.conv_problem import Problem, backward_problems, forward_problem, panel_table
from faltung.engine.kernels.conv_winograd import InputSchedule, ProductSchedule, WeightSchedule
from faltung.engine.kernels.microkernel import largest_tile
from faltung.engine.target import Target, host

Cache = dict[Any, Any] | None
_LEAST_CHANNELS = 16
_SPARE_REGISTERS = 2  # of 32: a tile that takes all but one spills here, where accumulators begin as zeros
_SHARE_OF_L3 = 4  # V of one batch of tiles takes at most this part of the shared cache


def refuse_forward(
    geometry: ConvGeometry,
    x: np.ndarray,
    w: np.ndarray,
    bias: np.ndarray | None,
    *,
    cache: Cache = None,
    epilogue: Epilogue | None = None,
) -> str | None:
    """Why Winograd does not fit, or None."""
    return refuse(geometry, x, w) or _unfit(geometry, False, cache is not None)


def refuse_backward_data(geometry: ConvGeometry, gy: np.ndarray, w: np.ndarray, *, cache: Cache = None) -> str | None:
    """Why Winograd does not fit, or None."""
    return refuse(geometry, gy, w) or _unfit(geometry, True, cache is not None)


def _unfit(geometry: ConvGeometry, backward: bool, kept: bool) -> str | None:
    reason = unfit(geometry)
    if reason:
        return reason
    problem = backward_problems(geometry)[0][0] if backward else forward_problem(geometry)
    return None if outputs_for(problem, kept, host()) else "direct convolution is estimated faster"


def unfit(geometry: ConvGeometry) -> str | None:
    """What no Winograd kernel takes."""
    if not flags.winograd or flags.deterministic:
        return "switched off"
    if geometry.ndim != 2 or geometry.kernel != (3, 3):
        return "not a 3x3 kernel"
    if geometry.stride != (1, 1) or geometry.dilation != (1, 1):
        return "strided or dilated"
    if geometry.groups != 1 or min(geometry.in_channels, geometry.out_channels) < _LEAST_CHANNELS:
        return "too few channels per group"
    return None


@lru_cache(maxsize=4096)
def outputs_for(problem: Problem, weights_are_kept: bool, target: Target) -> int:
    """m of the fastest F(m, 3) by an estimate in thread-cycles, 0 where direct convolution is faster.

    Measured on 2-core AVX-512 machines (Zen 5, Sapphire Rapids): direct, 90% of the peak; the product of Winograd 76%;
    an input vector 8 cycles; weights read at 6 bytes a cycle, between a shared cache that has them still and memory, as
    long as U fits that cache, else at 3, and once more per block of tiles at 16 where a panel outgrows L2. Where
    weights are used only once, packing reads 3.6 bytes a cycle and their transform writes 3.2.
    """
    lanes = target.lanes
    c, o = problem.channels, problem.out_channels
    _, out_h, out_w = problem.output
    rate = 2.0 * lanes
    weight_bytes = 4.0 * 9 * c * o
    packing = 0.0 if weights_are_kept else weight_bytes / 3.6
    best, choice = problem.batch * out_h * out_w * 9 * c * o / (0.90 * rate) + weight_bytes / 6 + packing, 0
    for m in (2, 4):
        size = (m + 2) ** 2
        tiles = problem.batch * -(-out_h // m) * -(-out_w // m)
        u_bytes, panel_bytes = 4.0 * size * c * o, 4.0 * size * c * 2 * lanes
        total = tiles * size * c * o / (0.76 * rate) + 8.0 * tiles * size * c / lanes + 4000
        total += u_bytes / (6 if u_bytes <= target.l3_bytes else 3)
        if panel_bytes > target.l2_bytes / 2:
            total += u_bytes / 16 * (4.0 * tiles * size * c // (target.l2_bytes / 2))
        if not weights_are_kept:
            total += packing + u_bytes / 3.2
        if total < best:
            best, choice = total, m
    return choice


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
    _run(forward_problem(geometry), x, w, bias, y, cache, "forward", epilogues.channels_last(epilogue))
    return y


def backward_data(geometry: ConvGeometry, gy: np.ndarray, w: np.ndarray, *, cache: Cache = None) -> np.ndarray:
    """The gradient of the input, physically channels last."""
    gx = memory.empty_channels_last(geometry.input_shape)
    problems, _ = backward_problems(geometry)
    _run(problems[0], gy, w, None, gx, cache, "backward")
    return gx


@dataclass(frozen=True, slots=True)
class Plan:
    """Schedules with the numbers that go with them."""

    outputs: int
    input_schedule: InputSchedule
    product_schedule: ProductSchedule
    tiles_h: int
    tiles_w: int
    tile_block: int
    blocks_per_batch: int  # tile blocks that go through both regions together
    channel_blocks: int
    tiles_per_chunk: int


def _run(
    problem: Problem,
    x: np.ndarray,
    w: np.ndarray,
    bias: np.ndarray | None,
    y: np.ndarray,
    cache: Cache,
    roles: str,
    epilogue: Epilogue | None = None,
) -> None:
    threads = team.get_num_threads()
    plan = plan_for(problem, cache is not None, threads, host(), steps_of(epilogue))
    m, s = plan.outputs, plan.product_schedule
    size = (m + 2) ** 2
    width = s.vectors * host().lanes
    c, o = problem.channels, problem.out_channels
    u = _weights(problem, w, m, s.vectors, plan.channel_blocks, cache, roles)
    biases, _ = padded_bias(bias, problem, plan.channel_blocks * width)
    x = channels_adjacent(x)
    xs, ys = strides_of(x), strides_of(y)
    block_floats = size * plan.tile_block * c
    tiles = problem.batch * plan.tiles_h * plan.tiles_w
    batch_tiles = plan.tile_block * plan.blocks_per_batch
    v = memory.empty((min(-(-tiles // plan.tile_block), plan.blocks_per_batch) * block_floats,))
    scratch_floats = size * plan.tile_block * width
    scratch = memory.empty((threads * scratch_floats,))
    finish, _kept = epilogues.values(epilogue, 1, plan.channel_blocks * width)
    for first in range(0, tiles, batch_tiles):
        count = min(batch_tiles, tiles - first)
        kernel_for("conv_winograd_input", plan.input_schedule).launch(
            -(-count // plan.tiles_per_chunk),
            address(x), address(v), address(zeros_of(c)), count, first, plan.tiles_h, plan.tiles_w, c,
            *problem.input[1:], *problem.before[1:], plan.tiles_per_chunk, plan.tile_block,
            xs[0], xs[3], xs[4], block_floats,
        )  # fmt: skip
        blocks = -(-count // plan.tile_block)
        kernel_for("conv_winograd_product", s).launch(
            blocks * plan.channel_blocks,
            address(v), address(u), address(biases), address(y), address(scratch), count, first, blocks,
            plan.tile_block, c, plan.channel_blocks, o, plan.tiles_h, plan.tiles_w, *problem.output[1:],
            ys[0], ys[3], ys[4], block_floats, size * c * width, scratch_floats, *finish,
        )  # fmt: skip


@lru_cache(maxsize=64)
def kernel_for(name: str, schedule: Any) -> Kernel:
    """The kernel of a schedule, one per process."""
    tables: dict[str, tuple[str, Callable[[Emitter, Any], None]]] = {
        "conv_winograd_input": (conv_winograd.INPUT_FIELDS, conv_winograd.emit_input),
        "conv_winograd_product": (conv_winograd.PRODUCT_FIELDS, conv_winograd.emit_product),
        "conv_winograd_weights": (conv_winograd.WEIGHT_FIELDS, conv_winograd.emit_weights),
        "conv_winograd_weight_sums": (conv_winograd.WEIGHT_SUM_FIELDS, conv_winograd.emit_weight_sums),
    }
    fields, emit = tables[name]
    return Kernel(name, fields, schedule, emit)


@lru_cache(maxsize=4096)
def plan_for(problem: Problem, weights_are_kept: bool, threads: int, target: Target, steps: Steps = NO_STEPS) -> Plan:
    """Tile blocks small enough that V and M of a chunk stay in L2, and enough chunks for every thread."""
    m = outputs_for(problem, weights_are_kept, target) or 4
    lanes = target.lanes
    size = (m + 2) ** 2
    tiles_h, tiles_w = -(-problem.output[1] // m), -(-problem.output[2] // m)
    tiles = problem.batch * tiles_h * tiles_w
    needed = -(-problem.out_channels // lanes)
    vectors = vectors_for(needed)
    channel_blocks = -(-needed // vectors)
    most = min(largest_tile(target, vectors, _SPARE_REGISTERS if target.registers >= 32 else 0), 14)
    room = target.l2_bytes // 2
    per_tile = size * 4 * (problem.channels + vectors * lanes)
    tile_block = min(tiles, max(most, room // per_tile))
    # a block count that shares evenly among the threads, as long as blocks stay wide enough for their panels
    while tile_block > 2 * most and -(-tiles // tile_block) * channel_blocks < 4 * threads:
        tile_block = -(-tile_block // 2 // most) * most
    if tiles > tile_block:
        tile_block = -(-tiles // -(-tiles // tile_block))
    register_tiles = even_columns(tile_block, most)
    last = tiles % tile_block
    narrow = tile_block % register_tiles != 0 or last % register_tiles != 0
    unroll, exact = (4, problem.channels % 4 == 0)
    v_bytes = size * 4 * problem.channels * tile_block
    per_batch = max(1, target.l3_bytes // _SHARE_OF_L3 // v_bytes)
    tiles_per_chunk = max(1, min(16, tile_block, -(-tiles // (4 * threads))))
    return Plan(
        m,
        InputSchedule(m, problem.channels % lanes != 0),
        ProductSchedule(
            m, register_tiles, vectors, narrow, unroll, exact, needed % vectors, problem.out_channels % lanes != 0,
            4 * tiles <= problem.out_channels, steps,
        ),
        tiles_h, tiles_w, tile_block, per_batch, channel_blocks, tiles_per_chunk,
    )  # fmt: skip


def _weights(
    problem: Problem, w: np.ndarray, m: int, vectors: int, blocks: int, cache: Cache, roles: str
) -> np.ndarray:
    """U, from the cache if it is there."""
    key = ("winograd", roles, m, vectors)
    if cache is not None and key in cache:
        return cache[key]
    c, o, width = problem.channels, problem.out_channels, vectors * host().lanes
    table = panel_table(problem, (1, 3, 3), c)
    packed = memory.empty((blocks, 9 * c, width))
    rows = (o, 9 * c, 1, 9 * c, 9 * c) if roles == "forward" else (o, 9, c, 9 * o, 9)
    pack_weights.pack(np.ascontiguousarray(w), 0, *rows, table, vectors, 9 * c, packed)
    size = (m + 2) ** 2
    u = memory.empty((blocks, size, c, width))
    per_chunk = 16
    chunks_per_block = -(-c // per_chunk)
    kernel_for("conv_winograd_weights", WeightSchedule(m, vectors)).launch(
        blocks * chunks_per_block, address(packed), address(u), c, per_chunk, chunks_per_block
    )
    if cache is not None:
        cache[key] = u
    return u
