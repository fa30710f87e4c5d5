"""Matrix product of two operands whose rows are both adjacent in k.

    C[i][j] = sum over k of A[i][k] * B[j][k] [+ bias[j]]

Where one of the operands is small there is nothing to gain from packing the other; here both are read where they lie.

    chunk = one matrix of the batch x block of rows x block of columns
    for tile of I rows, J columns:
        acc[i][j] = 0                                     vectors of partial sums
        for k in steps of L:  acc[i][j] += A[i][k : k + L] * B[j][k : k + L]
        C[i][j] = total of the lanes of acc[i][j] + bias[j]

Registers: I * J accumulators + I vectors of A + 1 of B: 4 x 6 beside 32 registers, 3 x 3 beside 16. Rows and columns
behind the last one repeat the last one and are not stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from faltung.engine.emit import Emitter, Int, Ptr, Vec
from faltung.engine.kernel import Kernel
from faltung.engine.target import Target


@dataclass(frozen=True, slots=True)
class DotSchedule:
    """Everything that shapes the code."""

    rows: int  # I
    columns: int  # J
    bias: bool
    unroll: int = 2


FIELDS = (
    "c a b bias m n k row_blocks column_blocks block_rows block_columns a_row b_column c_row "
    "inner a_outer a_inner b_outer b_inner c_outer c_inner"
)


@lru_cache(maxsize=256)
def dot_kernel(schedule: DotSchedule) -> Kernel:
    """The kernel of a schedule."""
    return Kernel("gemm_dot", FIELDS, schedule, emit)


def shape(target: Target, m: int, n: int) -> tuple[int, int]:
    """(I, J): as much reuse as registers allow, little waste at the edges."""
    most_rows, most_sums = (4, 24) if target.registers >= 32 else (3, 9)
    rows = -(-m // -(-m // min(m, most_rows)))
    most_columns = min(8, target.lanes, most_sums // rows)
    return rows, -(-n // -(-n // min(n, most_columns)))


def emit(e: Emitter, s: DotSchedule) -> None:
    """The loop nest of this file's docstring."""
    m, n, k, row_blocks, column_blocks, block_rows, block_columns = e.fields(
        "m n k row_blocks column_blocks block_rows block_columns"
    )
    a_row, b_column, c_row = e.fields("a_row b_column c_row")
    first_column, rest = e.chunk % column_blocks * block_columns, e.chunk // column_blocks
    first_row, matrix = rest % row_blocks * block_rows, rest // row_blocks
    inner = e.field("inner")
    places = {}
    for name in "abc":
        outer_step, inner_step = e.fields(f"{name}_outer {name}_inner")
        places[name] = e.pointer(name).at(matrix // inner * outer_step + matrix % inner * inner_step)
    last_row, last_column = e.smaller(first_row + block_rows, m), e.smaller(first_column + block_columns, n)
    with e.loop("column", last_column, start=first_column, step=s.columns) as column:
        b = _lines(e, places["b"], column.index, last_column, b_column, s.columns)
        with e.loop("row", last_row, start=first_row, step=s.rows) as row:
            a = _lines(e, places["a"], row.index, last_row, a_row, s.rows)
            sums = _products(e, s, a, b, k)
            _store(e, s, sums, places["c"].at(row.index * c_row + column.index), c_row, last_row - row.index,
                   last_column - column.index, column.index)  # fmt: skip


def _lines(e: Emitter, start: Ptr, first: Int, end: Int, step: Int, count: int) -> list[Ptr]:
    """Addresses of `count` lines from `first` on; those behind the end are the last one."""
    return [start.at(e.smaller(first + i, end - 1) * step) for i in range(count)]


def _products(e: Emitter, s: DotSchedule, a: list[Ptr], b: list[Ptr], k: Int) -> list[Vec]:
    step = e.lanes * s.unroll
    long, whole = k - k % step, k - k % e.lanes
    sums = [e.zero()] * (s.rows * s.columns)
    with e.loop("k", long, carry=sums, step=step) as loop:
        acc = loop.carried
        for u in range(s.unroll):
            acc = _step(e, a, b, loop.index + u * e.lanes, acc, None)
        loop.carry(acc)
    with e.loop("k1", whole, start=long, carry=loop.result, step=e.lanes) as single:
        single.carry(_step(e, a, b, single.index, single.carried, None))
    rest = e.mask(k - whole, e.lanes)
    with e.loop("tail", k, start=whole, carry=single.result, step=e.lanes) as tail:
        tail.carry(_step(e, a, b, tail.index, tail.carried, rest))
    return tail.result


def _step(e: Emitter, a: list[Ptr], b: list[Ptr], k: Int, sums: list[Vec], mask: Any) -> list[Vec]:
    def value(line: Ptr) -> Vec:
        place = line.at(k)
        return place.load(e.lanes) if mask is None else place.load_masked(mask, e.lanes)

    left, acc = [value(line) for line in a], list(sums)
    for j, line in enumerate(b):
        right = value(line)
        for i, factor in enumerate(left):
            acc[i * len(b) + j] = e.fma(factor, right, acc[i * len(b) + j])
    return acc


def _store(
    e: Emitter, s: DotSchedule, sums: list[Vec], place: Ptr, step: Int, rows: Int, columns: Int, column: Int
) -> None:
    for i in range(s.rows):
        total = totals(e, sums[i * s.columns : (i + 1) * s.columns])
        width = total.value.type.count
        mask = e.mask(e.smaller(columns, s.columns), width)
        if s.bias:
            total = total + e.pointer("bias").at(column).load_masked(mask, width)
        with e.when(rows > i):
            place.at(step * i).store_masked(total, mask)


def totals(e: Emitter, vectors: list[Vec]) -> Vec:
    """The sums of the lanes of every vector, as the first elements of one vector (of at least two)."""
    count = 2
    while count < len(vectors):
        count *= 2
    count = min(count, max(e.lanes, 2))
    group = [*vectors, *[e.zero()] * (count - len(vectors))]
    block = e.lanes
    while len(group) > 1:  # halves of two vectors' blocks are added into one vector with twice the blocks
        half = block // 2
        starts = range(0, e.lanes, block)
        low = [start + i + other for other in (0, e.lanes) for start in starts for i in range(half)]
        high = [place + half for place in low]
        group = [e.shuffle(x, y, low) + e.shuffle(x, y, high) for x, y in zip(group[::2], group[1::2], strict=True)]
        block = half
    result = group[0]
    while block > 1:
        half = block // 2
        low = [start + i for start in range(0, count * block, block) for i in range(half)]
        result = e.shuffle(result, result, low) + e.shuffle(result, result, [place + half for place in low])
        block = half
    return result
