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
from faltung.engine.kernel import Kernel, address, pack_last
from faltung.engine.kernels import conv_winograd, pack_weights, winograd_transforms
from faltung.engine.kernels import epilogue as epilogues
from faltung.engine.kernels.conv_dense import (
    channels_adjacent,
    even_columns,
    padded_bias,
    refuse,
    vectors_for,
    zeros_of,
)
from faltung.engine.kernels.conv_problem import Problem, backward_problems, forward_problem, panel_table
from faltung.engine.kernels.conv_winograd import OutputSchedule, Schedule
from faltung.engine.kernels.microkernel import largest_tile
from faltung.engine.kernels.winograd_transforms import InputSchedule, WeightSchedule
from faltung.engine.target import Target, host

Cache = dict[Any, Any] | None
OUTPUTS = {3: (2, 4), 4: (3,), 5: (2,)}  # kernel width r -> m of F(m, r): transforms of 4 or 6 points
_LEAST_CHANNELS = 16
_SPARE_REGISTERS = 2  # of 32: a tile that takes all but one spills here, where accumulators begin as zeros


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
    if geometry.ndim != 2 or geometry.kernel[0] != geometry.kernel[1] or geometry.kernel[0] not in OUTPUTS:
        return "no kernel of 3x3, 4x4 or 5x5"
    if geometry.stride != (1, 1) or geometry.dilation != (1, 1):
        return "strided or dilated"
    if geometry.groups != 1 or min(geometry.in_channels, geometry.out_channels) < _LEAST_CHANNELS:
        return "too few channels per group"
    return None


@lru_cache(maxsize=4096)
def outputs_for(problem: Problem, weights_are_kept: bool, target: Target) -> int:
    """m of the fastest F(m, r) by an estimate in thread-cycles, 0 where direct convolution is faster."""
    times = {0: direct_cycles(problem, weights_are_kept, target)}
    for m in OUTPUTS[problem.taps[2]]:
        times[m] = cycles(problem, m, weights_are_kept, target)
    return min(times, key=lambda m: times[m])


def direct_cycles(problem: Problem, weights_are_kept: bool, target: Target) -> float:
    """Estimate for direct convolution: 90% of the peak (2-core AVX-512 machines, Zen 5 and Sapphire Rapids).

    Weights come at 6 bytes a cycle, from somewhere between a shared cache that has them still and memory; where they
    are used only once, packing reads 3.6 bytes a cycle.
    """
    weights = problem.channels * problem.out_channels * problem.taps[1] * problem.taps[2]
    work = problem.batch * problem.pixels * weights / (0.90 * 2.0 * target.lanes)
    return work + 4.0 * weights / 6 + (0.0 if weights_are_kept else 4.0 * weights / 3.6)


def cycles(problem: Problem, m: int, weights_are_kept: bool, target: Target) -> float:
    """Estimate for F(m, r): the product at 80% of the peak, less for few channels, whose tiles are stored often.

    A vector takes 6 cycles on the way in, 3 on the way out. U comes at 6 bytes a cycle as long as it fits the shared
    cache, else at 3, and once more per block of tiles at 16 where a panel outgrows L2; transforming it, where weights
    are used only once, writes 3.2.
    """
    lanes, c, o, r = target.lanes, problem.channels, problem.out_channels, problem.taps[2]
    _, out_h, out_w = problem.output
    size = (m + r - 1) ** 2
    tiles = problem.batch * -(-out_h // m) * -(-out_w // m)
    u_bytes, panel_bytes = 4.0 * size * c * o, 4.0 * size * c * 2 * lanes
    total = tiles * size * (c + 3) * o / (0.83 * 2.0 * lanes) + tiles * size * (6.0 * c + 3.0 * o) / lanes + 4000
    total += u_bytes / (6 if u_bytes <= target.l3_bytes else 3)
    if panel_bytes > target.l2_bytes / 2:
        total += u_bytes / 16 * (4.0 * tiles * size * c // (target.l2_bytes / 2))
    if not weights_are_kept:
        total += 4.0 * r * r * c * o / 3.6 + u_bytes / 3.2
    return total


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
    run(forward_problem(geometry), x, w, bias, y, cache, "forward", epilogues.channels_last(epilogue))
    return y


def backward_data(geometry: ConvGeometry, gy: np.ndarray, w: np.ndarray, *, cache: Cache = None) -> np.ndarray:
    """The gradient of the input, physically channels last."""
    gx = memory.empty_channels_last(geometry.input_shape)
    problems, _ = backward_problems(geometry)
    run(problems[0], gy, w, None, gx, cache, "backward")
    return gx


@dataclass(frozen=True, slots=True)
class Plan:
    """A schedule with the numbers that go with it."""

    schedule: Schedule
    outputs: int  # m
    product: Kernel
    read_tiles: Kernel
    write_tiles: Kernel
    channel_blocks: int
    chunks: int
    panel_width: int
    padded: int  # output channels in whole blocks
    scratch_floats: int  # per thread
    key: str  # of U in its cache, before the roles
    fields: bytes  # behind the addresses and the epilogue's
    zeros: np.ndarray  # in place of a bias, and for pixels outside the plane: `fields` holds its address


def run(
    problem: Problem,
    x: np.ndarray,
    w: np.ndarray,
    bias: np.ndarray | None,
    y: np.ndarray,
    cache: Cache,
    roles: str,
    epilogue: Epilogue | None = None,
) -> None:
    """A stride-1 problem over x, or over gy, into y."""
    x, threads = channels_adjacent(x), team.get_num_threads()
    steps = steps_of(epilogue)
    plan = plan_for(problem, cache is not None, threads, host(), steps, x.strides)
    u = cache.get(plan.key + roles) if cache else None
    if u is None:
        u = _weights(problem, w, plan, cache, roles)
    biases = plan.zeros if bias is None else padded_bias(bias, problem, plan.padded)[0]
    scratch = memory.empty((threads * plan.scratch_floats,))
    finish, _kept = epilogues.values(epilogue, 1, plan.padded)
    kernels = plan.read_tiles.address, plan.write_tiles.address
    addresses = (address(x), address(u), address(biases), address(y), address(scratch))
    plan.product.launch_packed(plan.chunks, *kernels, *addresses, *finish, rest=plan.fields)


@lru_cache(maxsize=64)
def kernel_for(name: str, schedule: Any) -> Kernel:
    """The kernel of a schedule, one per process."""
    tables: dict[str, tuple[str, Callable[[Emitter, Any], None]]] = {
        "conv_winograd": (conv_winograd.FIELDS, conv_winograd.emit),
        "conv_winograd_tiles": (conv_winograd.FIELDS, conv_winograd.emit_tiles),
        "conv_winograd_outputs": (conv_winograd.FIELDS, conv_winograd.emit_outputs),
        "conv_winograd_input": (winograd_transforms.INPUT_FIELDS, winograd_transforms.emit_input),
        "conv_winograd_weights": (winograd_transforms.WEIGHT_FIELDS, winograd_transforms.emit_weights),
        "conv_winograd_weight_sums": (winograd_transforms.WEIGHT_SUM_FIELDS, winograd_transforms.emit_weight_sums),
    }
    fields, emit = tables[name]
    return Kernel(name, fields, schedule, emit)


@lru_cache(maxsize=4096)
def plan_for(
    problem: Problem,
    weights_are_kept: bool,
    threads: int,
    target: Target,
    steps: Steps = NO_STEPS,
    x_strides: tuple[int, ...] = (0,) * 4,
) -> Plan:
    """Register tile and chunks; nothing here changes a bit of the result, but for m."""
    r = problem.taps[2]
    m = outputs_for(problem, weights_are_kept, target) or OUTPUTS[r][-1]
    lanes, c, o = target.lanes, problem.channels, problem.out_channels
    size = (m + r - 1) ** 2
    tiles_h, tiles_w = -(-problem.output[1] // m), -(-problem.output[2] // m)
    tiles = problem.batch * tiles_h * tiles_w
    needed = -(-o // lanes)
    vectors = vectors_for(needed)
    width, channel_blocks = vectors * lanes, -(-needed // vectors)
    most = min(largest_tile(target, vectors, _SPARE_REGISTERS if target.registers >= 32 else 0), 14)
    tile_block, part_blocks = _cut(size, tiles, c, width, channel_blocks, most, threads, target)
    register_tiles = even_columns(tile_block, most)
    schedule = Schedule(
        tiles=register_tiles,
        vectors=vectors,
        narrow=tile_block % register_tiles != 0 or tiles % tile_block % register_tiles != 0,
        unroll=4,
        exact=c % 4 == 0,
        tail_vectors=needed % vectors,
    )
    tile_blocks = -(-tiles // tile_block)
    v_pitch = c + _v_gap(c)
    v_floats, m_floats = (-(-size * tile_block * floats // 16) * 16 for floats in (v_pitch, width))
    _, out_h, out_w = problem.output
    padded = channel_blocks * width
    zeros = zeros_of(max(c, padded))
    fields = pack_last(
        address(zeros), size, tiles, tile_blocks, tile_block, part_blocks, c, channel_blocks, o, tiles_h, tiles_w,
        *problem.input[1:], *problem.before[1:], out_h, out_w, x_strides[0] // 4, x_strides[2] // 4, x_strides[3] // 4,
        out_h * out_w * o, out_w * o, o, width, v_floats + m_floats, v_floats, v_pitch,
    )  # fmt: skip
    chunks = tile_blocks * -(-channel_blocks // part_blocks)
    product = kernel_for("conv_winograd", schedule)
    reader = kernel_for("conv_winograd_tiles", InputSchedule(m, c % lanes != 0, r))
    writer = kernel_for("conv_winograd_outputs", OutputSchedule(m, r, o % lanes != 0, steps))
    return Plan(
        schedule, m, product, reader, writer, channel_blocks, chunks, width, padded, v_floats + m_floats,
        f"winograd {m} {r} {vectors} ", fields, zeros,
    )  # fmt: skip


def _v_gap(channels: int) -> int:
    """Floats between the tiles of V, lest those of one register tile meet in few sets of L1."""
    return 16 if channels % 256 == 0 else 0


def _cut(
    size: int, tiles: int, c: int, width: int, blocks: int, most: int, threads: int, target: Target
) -> tuple[int, int]:
    """Tiles and channel blocks of a chunk: the least estimated time over the threads.

    V and M of a chunk take at most half of L2. Each part of the channel blocks transforms its tiles anew; each chunk
    reads its part of U, from L2 as long as half of that holds it.
    """
    room = max(most, target.l2_bytes // 2 // (size * 4 * (c + width)))
    fewest = -(-tiles // room)
    best, choice = float("inf"), (min(tiles, room), blocks)
    for count in range(fewest, fewest + 4 * threads + 1):
        tile_block = -(-tiles // count)
        register_tile = even_columns(tile_block, most)
        if count > fewest and tile_block < most:
            break
        for part_blocks in sorted({-(-blocks // parts) for parts in range(1, min(blocks, 2 * threads) + 1)}):
            chunks = -(-tiles // tile_block) * -(-blocks // part_blocks)
            u_bytes = 4 * size * c * width * part_blocks
            products = tile_block * size * c * width * part_blocks / (2.0 * target.lanes * register_tile)
            cycles = products * (register_tile + 1.5) + 8.0 * tile_block * size * c / target.lanes
            cycles += u_bytes / (24 if u_bytes <= target.l2_bytes / 2 else 6) + 2000
            total = 0.5 * -(-chunks // threads) * cycles + 0.5 * (chunks / threads + 0.5) * cycles
            if total < best:
                best, choice = total, (tile_block, part_blocks)
    return choice


def _weights(problem: Problem, w: np.ndarray, plan: Plan, cache: Cache, roles: str) -> np.ndarray:
    """U, left in the cache."""
    r, m, vectors, blocks = problem.taps[2], plan.outputs, plan.schedule.vectors, plan.channel_blocks
    size, taps = (m + r - 1) ** 2, r * r
    c, o, width = problem.channels, problem.out_channels, plan.panel_width
    table = panel_table(problem, (1, r, r), c)
    packed = memory.empty((blocks, taps * c, width))
    rows = (o, taps * c, 1, taps * c, taps * c) if roles == "forward" else (o, taps, c, taps * o, taps)
    pack_weights.pack(np.ascontiguousarray(w), 0, *rows, table, vectors, taps * c, packed)
    u = memory.empty((blocks, size, c, width))
    per_chunk = 16
    chunks_per_block = -(-c // per_chunk)
    kernel_for("conv_winograd_weights", WeightSchedule(m, vectors, r)).launch(
        blocks * chunks_per_block, address(packed), address(u), c, per_chunk, chunks_per_block
    )
    if cache is not None:
        cache[plan.key + roles] = u
    return u
