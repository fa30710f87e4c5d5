"""Matrix products of float32: linear layers, their gradients, and batched products with any transposition.

Two kernels share the work. `gemm_dot` reads rows of both operands where they lie, and takes small products whose
operands are both adjacent in k (a linear layer on few samples, or with few outputs). `gemm_tile` packs panels and takes
the rest. Sums run over k in an order that sizes alone decide, so results don't depend on the number of threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from faltung.engine import layout, memory, team
from faltung.engine.kernel import Kernel, address
from faltung.engine.kernels import gemm_dot, gemm_tile
from faltung.engine.target import Target, host

FEW = 32  # rows or columns below which packing does not pay
CHUNK_WORK = 1 << 19  # multiply-adds that are worth a chunk of their own
CHUNKS = 32  # chunks that are enough for many cores to share
SMALL_WORK = 1 << 14  # multiply-adds that NumPy has done before a kernel is launched


def refuse_forward(x: np.ndarray, w: np.ndarray, bias: np.ndarray | None) -> str | None:
    """None if these kernels compute the affine map, else why not."""
    if bias is not None and bias.dtype != np.float32:
        return f"bias is {bias.dtype}"
    return _refuse(x, w, x.size * w.shape[0])


def refuse_backward_data(gy: np.ndarray, w: np.ndarray) -> str | None:
    """None if these kernels compute the data gradient, else why not."""
    return _refuse(gy, w, gy.size * w.shape[1])


def refuse_backward_weights(x: np.ndarray, gy: np.ndarray, *, with_bias: bool = False) -> str | None:
    """None if these kernels compute the weight gradient, else why not."""
    return _refuse(x, gy, x.size * gy.shape[-1])


def refuse_matmul(a: np.ndarray, b: np.ndarray) -> str | None:
    """None if these kernels compute the product, else why not."""
    return _refuse(a, b, max(a.size * b.shape[-1], b.size * a.shape[-2]))


def _refuse(a: np.ndarray, b: np.ndarray, work: int) -> str | None:
    if a.dtype != np.float32 or b.dtype != np.float32:
        return f"{a.dtype} and {b.dtype}, not float32"
    return "too small to launch a kernel" if work < SMALL_WORK else None


def forward(x: np.ndarray, w: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
    """y = x w^T + bias over the last dimension."""
    rows = x.reshape(-1, x.shape[-1])
    if bias is not None and bias.strides[0] != 4:
        bias = np.ascontiguousarray(bias)
    return _multiply(rows, w.T, bias).reshape(*x.shape[:-1], w.shape[0])


def backward_data(gy: np.ndarray, w: np.ndarray) -> np.ndarray:
    """gx = gy w."""
    return _multiply(gy.reshape(-1, gy.shape[-1]), w).reshape(*gy.shape[:-1], w.shape[1])


def backward_weights(x: np.ndarray, gy: np.ndarray, *, with_bias: bool = False) -> tuple[np.ndarray, np.ndarray | None]:
    """gw = gy^T x and gb = the column sums of gy, all leading dimensions taken as one."""
    rows, samples = gy.reshape(-1, gy.shape[-1]), x.reshape(-1, x.shape[-1])
    gw = _multiply(rows.T, samples)
    if not with_bias:
        return gw, None
    return gw, np.add.reduce(rows, axis=0) if rows.size < SMALL_WORK else _multiply(_ones(len(rows)), rows)[0]


@lru_cache(maxsize=16)
def _ones(count: int) -> np.ndarray:
    return np.ones((1, count), np.float32)


def matmul(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Product of the last two dimensions; leading dimensions broadcast."""
    if b.ndim == 2 and a.ndim > 2:
        rows = a.reshape(-1, a.shape[-1])
        return _multiply(rows, b).reshape(*a.shape[:-1], b.shape[-1])
    if a.ndim == b.ndim == 2:
        return _multiply(a, b)
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    outer, inner = (int(np.prod(batch[:-1])), batch[-1]) if batch else (1, 1)
    a, b = (_two_batch_dimensions(x, batch, outer, inner) for x in (a, b))
    return _multiply(a, b).reshape(*batch, a.shape[-2], b.shape[-1])


def _two_batch_dimensions(x: np.ndarray, batch: tuple[int, ...], outer: int, inner: int) -> np.ndarray:
    """Leading dimensions broadcast and merged into (outer, inner): a view wherever strides allow."""
    x = np.broadcast_to(x, (*batch, *x.shape[-2:]))
    return x.reshape(outer, inner, *x.shape[-2:])


def _multiply(a: np.ndarray, b: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    """a (M, K) or (outer, inner, M, K), b likewise (K, N) -> their product, contiguous."""
    if not a.size or not b.size:
        return _empty_sums((*a.shape[:-1], b.shape[-1]), bias)
    job = _prepared(a.shape, a.strides, b.shape, b.strides, bias is not None)
    if job is None or (address(a) | address(b)) & 3:
        return _multiply(_adjacent(a), _adjacent(b), bias)
    c = memory.empty((*a.shape[:-1], b.shape[-1]))
    places = [address(c), address(a), address(b), 0 if bias is None else address(bias)]
    if job.scratch_floats:
        _scratch, start = team.scratch(job.scratch_floats)
        places.append(start)
    job.kernel.launch(job.chunks, *places, *job.fields)
    return c


def _empty_sums(shape: tuple[int, ...], bias: np.ndarray | None) -> np.ndarray:
    c = np.zeros(shape, np.float32)
    return c if bias is None else c + bias


def _adjacent(x: np.ndarray) -> np.ndarray:
    """x where its rows or columns have adjacent elements, else a copy."""
    return x if _is_readable(x.shape, x.strides) and not address(x) & 3 else layout.contiguous(x)


def _is_readable(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    return (4 in strides[-2:] or 1 in shape[-2:]) and all(stride % 4 == 0 for stride in strides)


@dataclass(frozen=True, slots=True)
class _Job:
    """A product prepared: everything but the addresses."""

    kernel: Kernel
    chunks: int
    scratch_floats: int
    fields: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Sizes:
    """One product: C (m x n) over k, for `matrices` of a batch."""

    m: int
    n: int
    k: int
    matrices: int


@lru_cache(maxsize=2048)
def _prepared(
    a_shape: tuple[int, ...],
    a_strides: tuple[int, ...],
    b_shape: tuple[int, ...],
    b_strides: tuple[int, ...],
    bias: bool,
) -> _Job | None:
    """None for operands that must be copied first."""
    if not (_is_readable(a_shape, a_strides) and _is_readable(b_shape, b_strides)):
        return None
    sizes = Sizes(a_shape[-2], b_shape[-1], a_shape[-1], a_shape[0] * a_shape[1] if len(a_shape) == 4 else 1)
    inner = a_shape[1] if len(a_shape) == 4 else 1
    a_row, a_column = _steps(a_shape, a_strides)
    b_row, b_column = _steps(b_shape, b_strides)
    known = {"m": sizes.m, "n": sizes.n, "k": sizes.k, "a_row": a_row, "a_column": a_column, "b_row": b_row,
             "b_column": b_column, "c_row": sizes.n, "inner": inner, "c_outer": inner * sizes.m * sizes.n,
             "c_inner": sizes.m * sizes.n}  # fmt: skip
    for name, strides in (("a", a_strides), ("b", b_strides)):
        known[f"{name}_outer"], known[f"{name}_inner"] = _batch_steps(strides)
    if a_column == 1 and b_row == 1 and suits_dot(sizes):
        rows, columns = gemm_dot.shape(host(), sizes.m, sizes.n)
        kernel = gemm_dot.dot_kernel(gemm_dot.DotSchedule(rows, columns, bias))
        block_rows, block_columns, scratch_floats = *blocks(sizes, rows, columns), 0
    else:
        schedule = choose(sizes, a_column == 1, b_column == 1, bias, host())
        kernel = gemm_tile.tile_kernel(schedule)
        width = schedule.vectors * host().lanes
        block_rows, block_columns = blocks(sizes, schedule.rows, width)
        scratch_floats = gemm_tile.scratch_floats(schedule, host(), block_rows, block_columns)
    row_blocks, column_blocks = -(-sizes.m // block_rows), -(-sizes.n // block_columns)
    known |= {"row_blocks": row_blocks, "column_blocks": column_blocks, "block_rows": block_rows,
              "block_columns": block_columns, "scratch_floats": scratch_floats}  # fmt: skip
    given = ("c", "a", "b", "bias", "scratch")
    fields = tuple(known[name] for name in kernel.fields if name not in given)
    return _Job(kernel, sizes.matrices * row_blocks * column_blocks, scratch_floats, fields)


def _steps(shape: tuple[int, ...], strides: tuple[int, ...]) -> tuple[int, int]:
    """Floats from row to row and from column to column; of a single row or column whatever suits."""
    row, column = strides[-2] // 4, strides[-1] // 4
    if shape[-1] == 1 and row != 1:
        column = 1
    if shape[-2] == 1 and column != 1:
        row = 1
    return row, column


def _batch_steps(strides: tuple[int, ...]) -> tuple[int, int]:
    return (strides[0] // 4, strides[1] // 4) if len(strides) == 4 else (0, 0)


def suits_dot(p: Sizes) -> bool:
    """Whether an operand is too small for packing the other to pay."""
    return min(p.m, p.n) < FEW and p.k >= 2 * host().lanes


def choose(p: Sizes, a_by_row: bool, b_by_row: bool, bias: bool, target: Target) -> gemm_tile.TileSchedule:
    """The tile that computes least in vain, and blocks of k for which a panel of B stays in L1."""
    vectors, rows = min(_tiles(p, target), key=lambda tile: _cost(p, target, *tile))
    width = vectors * target.lanes
    depth = max(64, min(512, target.l1_bytes // 2 // (4 * width) // 16 * 16))
    if p.k <= depth:
        depth = -(-max(p.k, 1) // 64) * 64
    pack_b = not b_by_row or p.m > rows
    return gemm_tile.TileSchedule(rows, vectors, depth, pack_b, a_by_row, b_by_row, bias)


def _tiles(p: Sizes, target: Target) -> list[tuple[int, int]]:
    """(V, R) that fit: the tallest for each width, evened out over few rows."""
    found = []
    for vectors in (1, 2, 3, 4, 6, 8):
        most = min(gemm_tile.most_rows(target, vectors), 24)
        tiles = -(-p.m // most)
        found.append((vectors, most if tiles > 8 else -(-p.m // tiles)))
    return found


def _cost(p: Sizes, target: Target, vectors: int, rows: int) -> float:
    """Time of all tiles per k, in cycles: multiply-adds and loads two a cycle, or the latency of a sum."""
    tiles = -(-p.m // rows) * -(-p.n // (vectors * target.lanes))
    return tiles * max(rows * vectors / 2, (rows + vectors) / 2, 4.0)


def blocks(p: Sizes, rows: int, columns: int) -> tuple[int, int]:
    """(rows, columns) of a chunk, in whole tiles; decided by sizes alone."""
    row_tiles, column_tiles = -(-p.m // rows), -(-p.n // columns)
    work = p.m * p.n * p.k * p.matrices
    wanted = max(1, min(CHUNKS, work // CHUNK_WORK, p.matrices * row_tiles * column_tiles))
    per_matrix = -(-wanted // p.matrices)
    row_parts = column_parts = 1
    while row_parts * column_parts < per_matrix:  # halve the longer side
        if row_tiles // row_parts * rows >= column_tiles // column_parts * columns:
            row_parts *= 2
        else:
            column_parts *= 2
    return -(-row_tiles // row_parts) * rows, -(-column_tiles // column_parts) * columns
