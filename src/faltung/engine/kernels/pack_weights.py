"""Packed weights: panels whose vectors run over output channels.

    packed[block][j][v][lane] = source[(block * vectors + v) * lanes + lane][j]        zero behind the last row

`rows` become lanes; `j` runs over everything that a kernel sums over. The source holds a row's elements in runs of
consecutive floats: run r starts at r * run_stride. A table says at which j of the panel each element of a row belongs,
so
that flipped taps, transposed roles and blocked channels are all the same kernel. Registers: a square of `lanes`
vectors, transposed by log2(lanes) rounds of shuffles.

    for v in row vectors (chunks):  for r in runs:  for piece of a run, `lanes` long:
        load lanes x lanes, transpose, store each j's vector where the table says
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from faltung.engine.emit import Emitter, Int, Ptr, Vec, i64
from faltung.engine.kernel import Kernel, address
from faltung.engine.target import host


@dataclass(frozen=True, slots=True)
class Schedule:
    """Vectors per block; whether neighbouring rows are neighbours in memory (then no transposition is needed)."""

    vectors: int
    rows_adjacent: bool


def pack(
    source: np.ndarray, offset: int, rows: int, row_stride: int, runs: int, run_stride: int, run: int,
    table: np.ndarray, vectors: int, depth: int, packed: np.ndarray,
) -> None:  # fmt: skip
    """Fill `packed` (blocks, depth, vectors * lanes) from float32 memory.

    `offset`: the first element of `source` (in elements); `table[r * run + i]`: the panel position j of element i of
    run r, -1 to leave it out.
    """
    row_vectors = packed.shape[0] * vectors
    parts = max(1, min(runs, 16 // max(1, row_vectors)))
    _kernel(Schedule(vectors, row_stride == 1)).launch(
        row_vectors * parts, address(source) + 4 * offset, address(packed), address(table), rows, row_stride, runs,
        run_stride, run, depth, parts,
    )  # fmt: skip


@lru_cache(maxsize=64)
def _kernel(schedule: Schedule) -> Kernel:
    fields = "source packed table rows row_stride runs run_stride run depth parts"
    return Kernel("pack_weights", fields, schedule, emit)


def emit(e: Emitter, schedule: Schedule) -> None:
    """One chunk: one vector of rows, a part of its runs."""
    rows, row_stride, runs, run_stride, run, depth, parts = e.fields("rows row_stride runs run_stride run depth parts")
    source, table = e.pointer("source"), e.pointer("table", i64)
    vector, part = e.chunk // parts, e.chunk % parts
    width = schedule.vectors * e.lanes
    packed = e.pointer("packed").at(vector // schedule.vectors * depth * width + vector % schedule.vectors * e.lanes)
    first = vector * e.lanes
    present = e.mask(rows - first, e.lanes)
    with e.loop("run", runs * (part + 1) // parts, start=runs * part // parts) as outer:
        start = source.at(outer.index * run_stride + first * row_stride)
        places = table.at(outer.index * run)
        if schedule.rows_adjacent:
            _copy(e, start, places, run, present, packed, width)
        else:
            _transpose_run(e, start, places, run, row_stride, rows - first, packed, width)


def _copy(e: Emitter, start: Ptr, places: Ptr, run: Int, present: object, packed: Ptr, width: int) -> None:
    """Rows are neighbours: a panel vector is a vector of the source, a run's elements lie one row apart (run is 1)."""
    with e.loop("i", run) as inner:
        _place(e, places.at(inner.index).load_int(), start.at(inner.index).load_masked(present, e.lanes), packed, width)


def _transpose_run(
    e: Emitter, start: Ptr, places: Ptr, run: Int, row_stride: Int, rows_left: Int, packed: Ptr, width: int
) -> None:
    with e.loop("piece", run, step=e.lanes) as piece:
        length = e.smaller(run - piece.index, e.lanes)
        inside = e.mask(length, e.lanes)
        here = start.at(piece.index)
        square = []
        for row in range(e.lanes):
            valid = e.int(row) < rows_left
            # a row behind the last one reads row 0 with every lane forbidden
            at = here.at(e.choose(valid, row_stride * row, 0))
            mask = e.ir.select(valid, inside, e.mask(0, e.lanes))
            square.append(at.load_masked(mask, e.lanes))
        columns = transpose(e, square)
        for i, column in enumerate(columns):
            with e.when(e.int(i) < length):
                _place(e, places.at(piece.index + i).load_int(), column, packed, width)


def _place(e: Emitter, j: Int, vector: Vec, packed: Ptr, width: int) -> None:
    with e.when(j >= 0):
        packed.at(j * width).store(vector)


def transpose(e: Emitter, square: list[Vec]) -> list[Vec]:
    """Rows to columns of a square of `lanes` vectors: log2(lanes) rounds, each exchanging halves of pairs of rows."""
    lanes = len(square)
    rows = list(square)
    step = 1
    while step < lanes:
        following = list(rows)
        for i in range(lanes):
            if i & step:
                continue
            low, high = rows[i], rows[i | step]
            first = [(lane & ~step) if not lane & step else lanes + (lane & ~step) for lane in range(lanes)]
            second = [(lane | step) if not lane & step else lanes + (lane | step) for lane in range(lanes)]
            following[i], following[i | step] = e.shuffle(low, high, first), e.shuffle(low, high, second)
        rows = following
        step *= 2
    return rows


@dataclass(frozen=True, slots=True)
class UnpackSchedule:
    """Vectors per block of the sums."""

    vectors: int


def unpack(sums: np.ndarray, rows: int, table: np.ndarray, vectors: int, result: np.ndarray) -> None:
    """The way back, adding segments in order: sums (segments, blocks, depth, vectors * lanes) -> result (rows, depth).

    `table[e]`: the position in `depth` of element e of a row.
    """
    segments, _, depth, _ = sums.shape
    pieces = -(-depth // host().lanes)
    row_vectors = -(-rows // host().lanes)
    parts = max(1, min(pieces, 16 // row_vectors))
    _unpack_kernel(UnpackSchedule(vectors)).launch(
        row_vectors * parts, address(sums), address(result), address(table), rows, depth, segments,
        sums.strides[0] // 4, parts,
    )  # fmt: skip


@lru_cache(maxsize=16)
def _unpack_kernel(schedule: UnpackSchedule) -> Kernel:
    return Kernel("unpack_weights", "sums result table rows depth segments segment_step parts", schedule, emit_unpack)


def emit_unpack(e: Emitter, schedule: UnpackSchedule) -> None:
    """One chunk: one vector of rows, a part of their elements; a square of vectors at a time."""
    rows, depth, segments, segment_step, parts = e.fields("rows depth segments segment_step parts")
    vector, part = e.chunk // parts, e.chunk % parts
    width = schedule.vectors * e.lanes
    sums = e.pointer("sums").at(vector // schedule.vectors * depth * width + vector % schedule.vectors * e.lanes)
    result, table = e.pointer("result").at(vector * e.lanes * depth), e.pointer("table", i64)
    rows_left = rows - vector * e.lanes
    pieces = (depth + (e.lanes - 1)) // e.lanes
    with e.loop("piece", pieces * (part + 1) // parts, start=pieces * part // parts) as piece:
        start = piece.index * e.lanes
        length = e.smaller(depth - start, e.lanes)
        columns = []
        for i in range(e.lanes):
            # columns behind the last element repeat it; they are never stored
            place = table.at(start + e.smaller(e.int(i), length - 1)).load_int()
            at = sums.at(place * width)
            with e.loop("segment", segments, carry=[at, e.zero()]) as loop:
                here, total = loop.carried
                loop.carry([here.at(segment_step), total + here.load(e.lanes)])
            columns.append(loop.result[1])
        inside = e.mask(length, e.lanes)
        for i, row in enumerate(transpose(e, columns)):
            with e.when(e.int(i) < rows_left):
                result.at(depth * i + start).store_masked(row, inside)
