"""Matrix product by register tiles over packed panels.

    C (M x N) = A (M x K) B (K x N) [+ bias (N)], for every matrix of a batch; C has adjacent columns

    chunk = one matrix of the batch x block of rows x block of columns
    for k block of at most KC:
        pack A's rows of the block           [row][k]
        pack B's columns of the block        [panel][k][W]  unless B has adjacent columns and is used once
        for panel of W = V * L columns:                     stays in L1
            for tile of R rows:
                acc[r][v] = bias or 0 (first k block), C (later ones)
                for k:  acc[r][v] += A[r][k] * B[k][v]
                store acc

Registers: R * V accumulators + V vectors of B + 1 broadcast value of A: 14 x 2 beside 32 registers, 6 x 2 beside 16.
Rows and columns behind the last one are computed from whatever lies there in scratch memory, and not stored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from faltung.engine.emit import Emitter, Int, IntLike, Ptr, Vec
from faltung.engine.kernel import Kernel
from faltung.engine.kernels.group_rows import interleave
from faltung.engine.target import Target

ALIGNED = 16  # floats of a cache line
ROWS_AHEAD = 8  # rows of an unpacked B that are fetched before their turn


@dataclass(frozen=True, slots=True)
class TileSchedule:
    """Everything that shapes the code."""

    rows: int  # R
    vectors: int  # V
    depth: int  # KC
    pack_b: bool
    a_by_row: bool  # A's rows have adjacent elements (else its columns have)
    b_by_row: bool  # B's rows have adjacent elements (else its columns have)
    bias: bool
    unroll: int = 4

    @property
    def pitch(self) -> int:
        """Floats between packed rows of A: no multiple of a page, so that rows don't compete for cache sets."""
        return self.depth + ALIGNED


FIELDS = (
    "c a b bias scratch scratch_floats m n k row_blocks column_blocks block_rows block_columns "
    "a_row a_column b_row b_column c_row inner a_outer a_inner b_outer b_inner c_outer c_inner"
)


@lru_cache(maxsize=256)
def tile_kernel(schedule: TileSchedule) -> Kernel:
    """The kernel of a schedule."""
    return Kernel("gemm_tile", FIELDS, schedule, emit)


def most_rows(target: Target, vectors: int) -> int:
    """Rows of the tallest tile that does not spill: the next vectors of B want registers too."""
    free = target.registers - 2 * vectors
    if target.registers >= 32 and not target.broadcast_operand:
        free -= 2  # factors are loaded, several ahead
    if vectors == 1:
        free = min(24, free - 3) if target.registers >= 32 else free - 3
    return max(1, free // vectors)


def scratch_floats(s: TileSchedule, target: Target, block_rows: int, block_columns: int) -> int:
    """Per thread: packed A, then packed B."""
    width = s.vectors * target.lanes
    rows = _padded_rows(s, target.lanes, block_rows)
    panels = -(-block_columns // width)
    a = rows * s.pitch
    b = panels * _panel_floats(s, width) if s.pack_b else 0
    return -(-(a + b) // ALIGNED) * ALIGNED + ALIGNED


def _padded_rows(s: TileSchedule, lanes: int, block_rows: Any) -> Any:
    """Rows of packed A: tiles read, and transposing packs write, some behind the last one."""
    return block_rows + max(s.rows, lanes)


def _panel_floats(s: TileSchedule, width: int) -> int:
    return (s.depth + ALIGNED) * width  # a transposing pack writes whole vectors of k


def emit(e: Emitter, s: TileSchedule) -> None:
    """The loop nest of this file's docstring."""
    block = _Block(e, s)
    with e.loop("kblock", block.k, step=s.depth) as outer:
        count = e.smaller(block.k - outer.index, s.depth)
        block.pack_a(outer.index, count)
        block.pack_b(outer.index, count)
        with e.loop("panel", block.columns, step=block.width) as panel:
            b, b_step = block.panel_of_b(outer.index, panel.index)
            with e.loop("tile", block.rows, step=s.rows) as tile:
                block.tile(b, b_step, tile.index, panel.index, count, outer.index.equals(0))


class _Block:
    """One chunk's block of C and the operands that meet there."""

    def __init__(self, e: Emitter, s: TileSchedule) -> None:
        self.e, self.s, self.width = e, s, s.vectors * e.lanes
        m, n, self.k, row_blocks, column_blocks, block_rows, block_columns = e.fields(
            "m n k row_blocks column_blocks block_rows block_columns"
        )
        self.a_row, self.a_column, self.b_row, self.b_column, self.c_row = e.fields(
            "a_row a_column b_row b_column c_row"
        )
        first_column, rest = e.chunk % column_blocks * block_columns, e.chunk // column_blocks
        first_row, matrix = rest % row_blocks * block_rows, rest // row_blocks
        inner = e.field("inner")
        high, low = matrix // inner, matrix % inner
        places = {}
        for name in "abc":
            outer_step, inner_step = e.fields(f"{name}_outer {name}_inner")
            places[name] = e.pointer(name).at(high * outer_step + low * inner_step)
        self.rows, self.columns = e.smaller(block_rows, m - first_row), e.smaller(block_columns, n - first_column)
        self.a = places["a"].at(first_row * self.a_row)
        self.b = places["b"].at(first_column * self.b_column)
        self.c = places["c"].at(first_row * self.c_row + first_column)
        self.bias = e.pointer("bias").at(first_column) if s.bias else None
        scratch = e.pointer("scratch").at(e.thread * e.field("scratch_floats"))
        self.packed_a = scratch
        self.packed_b = scratch.at(_padded_rows(s, e.lanes, block_rows) * s.pitch)

    def pack_a(self, k: Int, count: Int) -> None:
        """A's rows, from column k on."""
        source = self.a.at(k * self.a_column)
        if self.s.a_by_row:
            with self.e.loop("row", self.rows) as row:
                _copy(self.e, source.at(row.index * self.a_row), self.packed_a.at(row.index * self.s.pitch), count)
        else:
            _transpose(self.e, source, self.a_column, self.packed_a, self.s.pitch, count, self.rows)

    def pack_b(self, k: Int, count: Int) -> None:
        """B's block of columns, panel by panel."""
        if not self.s.pack_b:
            return
        with self.e.loop("pack", self.columns, step=self.width) as panel:
            source = self.b.at(k * self.b_row + panel.index * self.b_column)
            pack = self._pack_rows if self.s.b_by_row else self._pack_columns
            pack(source, self._packed_panel(panel.index), self.columns - panel.index, count)

    def _pack_rows(self, source: Ptr, target: Ptr, present: Int, count: Int) -> None:
        """Adjacent columns are copied row by row, zeros behind the last one."""
        e, vectors = self.e, self.s.vectors
        masks = [e.mask(present - v * e.lanes, e.lanes) for v in range(vectors)]
        with e.either(present >= self.width) as (whole, part):
            for branch, used in ((whole, [None] * vectors), (part, masks)):
                with branch, e.loop("pack_k", count) as row:
                    for v, mask in enumerate(used):
                        place = source.at(row.index * self.b_row + v * e.lanes)
                        e.prefetch(place.at(self.width))
                        value = place.load(e.lanes) if mask is None else place.load_masked(mask, e.lanes)
                        target.at(row.index * self.width + v * e.lanes).store(value)

    def _pack_columns(self, source: Ptr, target: Ptr, present: Int, count: Int) -> None:
        """Columns with adjacent elements are transposed."""
        e = self.e
        for v in range(self.s.vectors):
            here = e.smaller(e.larger(present - v * e.lanes, 0), e.lanes)
            place = source.at(self.b_column * (v * e.lanes))
            _transpose(e, place, self.b_column, target.at(v * e.lanes), self.width, here, count)

    def _packed_panel(self, column: Int) -> Ptr:
        return self.packed_b.at((column // self.width) * _panel_floats(self.s, self.width))

    def panel_of_b(self, k: Int, column: Int) -> tuple[Ptr, IntLike]:
        """The panel that begins at `column`, and the floats from one k to the next."""
        if self.s.pack_b:
            return self._packed_panel(column), self.width
        return self.b.at(k * self.b_row + column), self.b_row

    def begin_sums(self, column: Int) -> list[Vec]:
        """One row of a tile before anything is added."""
        e = self.e
        if self.bias is None:
            return [e.zero()] * self.s.vectors
        masks = self._masks(column)
        return [self.bias.at(column + v * e.lanes).load_masked(mask, e.lanes) for v, mask in enumerate(masks)]

    def tile(self, b: Ptr, b_step: IntLike, row: Int, column: Int, count: Int, first: Any) -> None:
        """One register tile over one k block."""
        if self.s.pack_b:
            self._finish(self._sum(b, b_step, row, count, None), row, column, first)
            return
        with self.e.either(column + self.width <= self.columns) as (whole, part):
            with whole:
                self._finish(self._sum(b, b_step, row, count, None), row, column, first)
            with part:
                self._finish(self._sum(b, b_step, row, count, self._masks(column)), row, column, first)

    def _masks(self, column: Int) -> list[Any]:
        """Which lanes of the panel at `column` are columns of C."""
        e = self.e
        return [e.mask(self.columns - column - v * e.lanes, e.lanes) for v in range(self.s.vectors)]

    def _sum(self, b: Ptr, b_step: IntLike, row: Int, count: Int, masks: list[Any] | None) -> list[Vec]:
        s = self.s
        a, sums = self.packed_a.at(row * s.pitch), [self.e.zero()] * (s.rows * s.vectors)
        main = count - count % s.unroll
        a, b, sums = self._rounds(a, b, b_step, main, sums, s.unroll, masks)
        return self._rounds(a, b, b_step, count - main, sums, 1, masks)[2]

    def _finish(self, sums: list[Vec], row: Int, column: Int, first: Any) -> None:
        with self.e.either(first) as (yes, no):
            with yes:
                begin = self.begin_sums(column)
                values = [value + begin[i % self.s.vectors] for i, value in enumerate(sums)] if self.s.bias else sums
                self.store(values, row, column)
            with no:
                self.store(sums, row, column, add=True)

    def _rounds(
        self, a: Ptr, b: Ptr, b_step: IntLike, count: Int, sums: list[Vec], unroll: int, masks: list[Any] | None
    ) -> tuple[Ptr, Ptr, list[Vec]]:
        e, s = self.e, self.s
        with e.loop("k", count, carry=[a, b, *sums], step=unroll) as loop:
            rows, panel, *acc = loop.carried
            for k in range(unroll):
                line = panel.at(e.int(b_step) * k) if k else panel
                places = [line.at(v * e.lanes) for v in range(s.vectors)]
                if not s.pack_b:  # rows of B are read once, from far away
                    for place in places:
                        e.prefetch(place.at(e.int(b_step) * ROWS_AHEAD))
                if masks is None:
                    values = [place.load(e.lanes) for place in places]
                else:
                    values = [place.load_masked(mask, e.lanes) for place, mask in zip(places, masks, strict=True)]
                for r in range(s.rows):
                    factor = rows.at(r * s.pitch + k).broadcast(e.lanes)
                    for v, value in enumerate(values):
                        acc[r * s.vectors + v] = e.fma(factor, value, acc[r * s.vectors + v])
            loop.carry([rows.at(unroll), panel.at(e.int(b_step) * unroll), *acc])
        return loop.result[0], loop.result[1], loop.result[2:]

    def store(self, sums: list[Vec], row: Int, column: Int, add: bool = False) -> None:
        """Write (or add to) the part of a tile that exists."""
        e, s = self.e, self.s
        place = self.c.at(row * self.c_row + column)
        whole = e.both(row + s.rows <= self.rows, column + self.width <= self.columns)
        with e.either(whole) as (yes, no):
            with yes:
                for r in range(s.rows):
                    for v in range(s.vectors):
                        target, value = place.at(self.c_row * r + v * e.lanes), sums[r * s.vectors + v]
                        target.store(target.load(e.lanes) + value if add else value)
            with no:
                masks = self._masks(column)
                for r in range(s.rows):
                    with e.when(row + r < self.rows):
                        for v, mask in enumerate(masks):
                            target, value = place.at(self.c_row * r + v * e.lanes), sums[r * s.vectors + v]
                            target.store_masked(target.load_masked(mask, e.lanes) + value if add else value, mask)


def _copy(e: Emitter, source: Ptr, target: Ptr, count: Int) -> None:
    whole = count - count % e.lanes
    with e.loop("copy", whole, step=e.lanes) as at:
        target.at(at.index).store(source.at(at.index).load(e.lanes))
    with e.when(whole < count):
        mask = e.mask(count - whole, e.lanes)
        target.at(whole).store(source.at(whole).load_masked(mask, e.lanes))


def _transpose(
    e: Emitter, source: Ptr, source_step: IntLike, target: Ptr, target_step: IntLike, lines: Int, length: Int
) -> None:
    """target[j * target_step + i] = source[i * source_step + j] for i < lines, j < length, in squares of L.

    Squares are written whole: behind `length` with anything, behind `lines` with zeros.
    """

    def square(line: Int, start: Int, load: Callable[[Ptr, int], Vec]) -> None:
        places = [source.at((line + i) * source_step + start) for i in range(e.lanes)]
        for place in places:  # the same columns of the next lines: hardware does not foresee so many short streams
            e.prefetch(place.at(e.int(source_step) * e.lanes))
        streams = [load(place, i) for i, place in enumerate(places)]
        for j, value in enumerate(interleave(e, streams)):
            target.at((start + j) * target_step + line).store(value)

    with e.loop("line", lines, step=e.lanes) as line:
        present = lines - line.index
        whole = length - length % e.lanes
        with e.either(present >= e.lanes) as (yes, no):
            with yes, e.loop("square", whole, step=e.lanes) as at:
                square(line.index, at.index, lambda place, i: place.load(e.lanes))
            with no, e.loop("square_few", whole, step=e.lanes) as at:
                masks = [e.mask(e.choose(present > i, e.lanes, 0), e.lanes) for i in range(e.lanes)]
                square(line.index, at.index, lambda place, i: place.load_masked(masks[i], e.lanes))
        with e.when(whole < length):
            rest = length - whole
            tail = [e.mask(e.choose(present > i, rest, 0), e.lanes) for i in range(e.lanes)]
            square(line.index, whole, lambda place, i: place.load_masked(tail[i], e.lanes))
