"""Planning and launching of the weight gradient through Winograd's F(3x3, 4x4).

    for batch of tiles whose transforms stay in the shared cache:
        V = Bt d B of the input, W = G gy Gt of the output gradient        two regions of `conv_winograd`
        M[xi] += sum over tiles of V[xi] x W[xi]                           `conv_backward_weights` with xi as its groups
    gw = At M A, brought into PyTorch's layout

The bias gradient comes along: at the point (1, 1) W is the sum of a tile's output gradient, up to G's exact scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from faltung.engine import memory, team
from faltung.engine.geometry import ConvGeometry
from faltung.engine.kernel import address
from faltung.engine.kernels import pack_weights
from faltung.engine.kernels.conv_backward_weights import Schedule
from faltung.engine.kernels.conv_dense import (
    channels_adjacent,
    even_columns,
    refuse,
    strides_of,
    vectors_for,
    zeros_of,
)
from faltung.engine.kernels.conv_dense_weights import kernel_for as sums_kernel
from faltung.engine.kernels.conv_dense_winograd import kernel_for, unfit
from faltung.engine.kernels.conv_problem import forward_problem, panel_table
from faltung.engine.kernels.microkernel import largest_tile
from faltung.engine.kernels.winograd_matrices import winograd
from faltung.engine.kernels.winograd_transforms import InputSchedule, WeightSchedule
from faltung.engine.target import Target, host

M = 4
POINTS = (M + 2) ** 2
_SHARE_OF_L3 = 4  # V and W of a batch of tiles take at most this part of the shared cache


def refuse_backward_weights(geometry: ConvGeometry, x: np.ndarray, gy: np.ndarray, **_: Any) -> str | None:
    """Why Winograd does not fit, or None."""
    return refuse(geometry, x, gy) or unfit(geometry) or _not_worth_it(geometry, host())


@lru_cache(maxsize=4096)
def _not_worth_it(geometry: ConvGeometry, target: Target) -> str | None:
    """Compare estimates in thread-cycles, as `conv_dense_winograd.outputs_for` does."""
    if geometry.kernel != (3, 3):
        return "not a 3x3 kernel"
    c, o, lanes = geometry.in_channels, geometry.out_channels, target.lanes
    pixels = geometry.batch * geometry.output[0] * geometry.output[1]
    tiles = geometry.batch * -(-geometry.output[0] // M) * -(-geometry.output[1] // M)
    direct = pixels * 9 * c * o / (0.88 * 2 * lanes)
    product = tiles * POINTS * c * o / (0.80 * 2 * lanes)
    transforms = 8.0 * tiles * POINTS * (c + o) / lanes
    gathering = 4.0 * POINTS * c * o / 2.1
    return None if product + transforms + gathering + 8000 < direct else "direct sums are estimated faster"


def backward_weights(
    geometry: ConvGeometry, x: np.ndarray, gy: np.ndarray, *, with_bias: bool
) -> tuple[np.ndarray, np.ndarray | None]:
    """gw in PyTorch's layout, and gb if asked for."""
    plan = plan_for(geometry, team.get_num_threads(), host())
    c, o, width = geometry.in_channels, geometry.out_channels, plan.schedule.vectors * host().lanes
    x, gy = channels_adjacent(x), channels_adjacent(gy)
    v = memory.empty((POINTS * plan.batch_tiles * c,))
    w = memory.empty((POINTS * plan.batch_tiles * o,))
    products = memory.empty((POINTS, plan.blocks, c, width))
    bias_sums = memory.empty((POINTS, plan.blocks, width))
    before = (geometry.padding[0][0], geometry.padding[1][0])
    for first in range(0, plan.tiles, plan.batch_tiles):
        count = min(plan.batch_tiles, plan.tiles - first)
        _transform(plan, InputSchedule(M, c % host().lanes != 0), x, v, geometry.input, before, first, count)
        _transform(
            plan, InputSchedule(M, o % host().lanes != 0, gradient=True), gy, w, geometry.output, (0, 0), first, count
        )
        _multiply(plan, v, w, products, bias_sums, c, o, count, with_bias, continued=first > 0)
    per_chunk = 8
    chunks_per_block = -(-c // per_chunk)
    sums = memory.empty((1, plan.blocks, 9 * c, width))
    kernel_for("conv_winograd_weight_sums", WeightSchedule(M, plan.schedule.vectors)).launch(
        plan.blocks * chunks_per_block, address(products), address(sums), c, per_chunk, chunks_per_block, plan.blocks
    )
    gw = memory.empty(geometry.weight_shape)
    pack_weights.unpack(sums, o, panel_table(forward_problem(geometry), (1, 3, 3), c), plan.schedule.vectors, gw)
    if not with_bias:
        return gw, None
    one, scale = _sum_point()
    return gw, bias_sums[one].reshape(-1)[:o] * np.float32(scale)


@lru_cache(maxsize=1)
def _sum_point() -> tuple[int, float]:
    """The point whose row of G sums a tile's side, and what turns W there into the tile's sum."""
    matrix = winograd(3, M).G
    row = next(i for i, entries in enumerate(matrix) if len(set(entries)) == 1)
    return row * (M + 2) + row, float(1 / matrix[row][0] ** 2)


@dataclass(frozen=True, slots=True)
class Plan:
    """A schedule of the product with the numbers that go with it."""

    schedule: Schedule
    tiles: int
    tiles_h: int
    tiles_w: int
    batch_tiles: int
    tiles_per_chunk: int
    blocks: int


@lru_cache(maxsize=1024)
def plan_for(geometry: ConvGeometry, threads: int, target: Target) -> Plan:
    """Tile batches that fit the shared cache; they shape the sums, so that threads have no say in them."""
    lanes, c, o = target.lanes, geometry.in_channels, geometry.out_channels
    tiles_h, tiles_w = -(-geometry.output[0] // M), -(-geometry.output[1] // M)
    tiles = geometry.batch * tiles_h * tiles_w
    needed = -(-o // lanes)
    vectors = vectors_for(needed)
    blocks = -(-needed // vectors)
    fitting = max(64, target.l3_bytes // _SHARE_OF_L3 // (4 * POINTS * (c + o)))
    batch_tiles = -(-tiles // -(-tiles // fitting))
    most = min(largest_tile(target, vectors), 14)
    tile = even_columns(c, most)
    schedule = Schedule(tile, vectors, c % tile != 0, needed % vectors, o % lanes != 0)
    return Plan(
        schedule, tiles, tiles_h, tiles_w, batch_tiles, max(1, min(16, batch_tiles // (4 * threads))), blocks,
    )  # fmt: skip


def _transform(
    plan: Plan, schedule: InputSchedule, source: np.ndarray, to: np.ndarray, sizes: tuple[int, ...],
    before: tuple[int, int], first: int, count: int,
) -> None:  # fmt: skip
    """V or W of a batch of tiles as [xi][tile][channel]."""
    channels = source.shape[1]
    strides = strides_of(source)
    kernel_for("conv_winograd_input", schedule).launch(
        -(-count // plan.tiles_per_chunk),
        address(source), address(to), address(zeros_of(channels)), count, first, plan.tiles_h, plan.tiles_w, channels,
        *sizes, *before, plan.tiles_per_chunk, strides[0], strides[3], strides[4],
    )  # fmt: skip


def _multiply(
    plan: Plan, v: np.ndarray, w: np.ndarray, products: np.ndarray, bias_sums: np.ndarray, c: int, o: int, count: int,
    with_bias: bool, continued: bool,
) -> None:  # fmt: skip
    """M += V W for every point: a weight gradient of one tap over an image of `count` pixels in one row per point."""
    columns = next((n for n in range(min(count, 256), 31, -1) if count % n == 0), count)
    rows = count // columns
    width = plan.schedule.vectors * host().lanes
    sums_kernel(plan.schedule).launch(
        POINTS * plan.blocks,
        address(v), address(w), address(products), address(bias_sums), address(zeros_of(width)),
        POINTS, 1, 1, 1, plan.blocks,
        rows, rows, rows, 1, 1, 1, 1,
        1, 1, 1, 1, c, c, plan.blocks, 1, o, int(with_bias),
        1, rows, columns, rows, columns, 1, 1, 1, 1, 1, 1, 0, 0, 0,
        0, 0, columns * c, c, count * c, 0, 0, columns * o, o, count * o, 0, 0, int(continued),
    )  # fmt: skip
