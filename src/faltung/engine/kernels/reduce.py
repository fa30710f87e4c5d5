"""Sums, sums of products and extremes over any axes of dense memory.

In memory order, neighbouring axes that are all kept or all reduced are one. The longest reduced stretch goes through a
kernel, seen as (outer, reduced, inner); what else is to be reduced has become small, and NumPy does it.

    lines (inner is 1)      for rows of a chunk:  for `reduced`, VECTORS registers at a time: acc += x
                            all lanes combined at the row's end
    columns                 for rows of a chunk:  for inner, VECTORS registers at a time:
                                for `reduced`: acc[v] += x[v]

Long stretches are cut into segments of a length that depends on the shape alone, so the bits don't depend on threads.
Segments are short enough for float32 accumulators and are added up in double, in order: the error stays near that of
one rounding. Registers: VECTORS accumulators and the value in flight. Bound by memory: x is read once.

A sum of products of x and y takes x * y for x, and nothing else is different.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from math import prod
from typing import Any

import numpy as np

from faltung.engine.emit import Emitter, Int, Ptr, Vec, f64
from faltung.engine.kernel import Kernel, address
from faltung.engine.kernels import flat

VECTORS = 4
SMALLEST = 1 << 14  # elements from which on a kernel beats NumPy
LINE_SEGMENT = 2048  # elements of a line that float32 lanes add up: some hundred for each lane
COLUMN_SEGMENT = 128  # rows of a column
CHUNK_ELEMENTS = 16384

_NUMPY = {"sum": np.add, "dot": np.add, "largest": np.maximum, "smallest": np.minimum}
_FIELDS = "x y result rows count inner segments segment block_rows column_blocks block_columns"

Axes = tuple[int, ...]


@dataclass(frozen=True)
class Schedule:
    """What shapes the code of one kernel."""

    kind: str  # sum, dot, largest, smallest
    columns: bool


@dataclass(frozen=True)
class Plan:
    """How a shape is reduced: the kernel's view, and what is left for NumPy."""

    outer: int
    count: int
    inner: int
    segments: int
    segment: int
    shape: tuple[int, ...]  # of the kernel's results, axes in memory order, segments first among the reduced ones
    left: Axes  # axes of `shape` that NumPy reduces
    order: Axes  # from what remains to the logical order of the kept axes


@lru_cache(maxsize=1024)
def plan_for(shape: tuple[int, ...], strides: tuple[int, ...], axes: Axes) -> Plan | None:
    """The plan, or None where memory has gaps."""
    memory_order = flat.dense_order(shape, strides)
    if memory_order is None:
        return None
    runs = [(reduced, tuple(run)) for reduced, run in groupby(memory_order, key=lambda axis: axis in axes)]
    sizes = [prod(shape[axis] for axis in run) for _, run in runs]
    reduced_runs = [number for number, (reduced, _) in enumerate(runs) if reduced]
    at = max(reduced_runs, key=lambda number: sizes[number])
    outer, count, inner = prod(sizes[:at]), sizes[at], prod(sizes[at + 1 :])
    segment = min(count, LINE_SEGMENT if inner == 1 else COLUMN_SEGMENT)
    segments = -(-count // segment)
    segment = -(-count // segments)
    result = [shape[axis] for _, run in runs[:at] for axis in run]
    left = [place for place, axis in enumerate(axis for _, run in runs[:at] for axis in run) if axis in axes]
    left.append(len(result))
    result.append(segments)
    for _, run in runs[at + 1 :]:
        for axis in run:
            if axis in axes:
                left.append(len(result))
            result.append(shape[axis])
    kept = [axis for axis in memory_order if axis not in axes]
    order = tuple(kept.index(axis) for axis in sorted(kept))
    return Plan(outer, count, inner, segments, segment, tuple(result), tuple(left), order)


def emit(e: Emitter, s: Schedule) -> None:
    """One chunk: a block of rows, each a segment of `reduced`; for columns, a block of these."""
    arrays = [e.pointer(name) for name in (("x", "y") if s.kind == "dot" else ("x",))]
    result = e.pointer("result", f64)
    rows, count, inner, segments, segment, block_rows, column_blocks, block_columns = e.fields(
        "rows count inner segments segment block_rows column_blocks block_columns"
    )
    block, columns = e.chunk // column_blocks, e.chunk % column_blocks
    first = block * block_rows
    with e.loop("row", e.smaller(first + block_rows, rows), start=first) as row:
        start = row.index % segments * segment
        here = [array.at((row.index // segments * count + start) * inner) for array in arrays]
        length = e.smaller(segment, count - start)
        to = result.at(row.index * inner)
        if not s.columns:
            to.store(e.convert(_line(e, s, here, length), f64), align=8)
        else:
            begin = columns * block_columns
            _columns(e, s, here, to, begin, e.smaller(begin + block_columns, inner), length)


def _element(arrays: list[Ptr], offset: Int, lanes: int, mask: Any) -> Vec:
    """x, or the product of x and y."""
    value, *factors = [flat.load(array.at(offset), lanes, mask) for array in arrays]
    return value * factors[0] if factors else value


def _columns(e: Emitter, s: Schedule, arrays: list[Ptr], to: Ptr, begin: Int, end: Int, length: Int) -> None:
    """Columns `begin` to `end` of `length` rows."""
    inner = e.field("inner")
    for column, vectors, lanes, mask in flat.columns(e, begin, end, VECTORS):
        with e.loop("i", length, carry=[_neutral(e, s, lanes)] * vectors, at_least_once=True) as loop:
            place, accs = loop.index * inner + column, []
            for v, acc in enumerate(loop.carried):
                accs.append(_combine(e, s, acc, _element(arrays, place + v * lanes, lanes, mask)))
            loop.carry(accs)
        for v, acc in enumerate(loop.result):
            flat.store(to.at(column + v * lanes), e.convert(acc, f64), mask)


def _line(e: Emitter, s: Schedule, arrays: list[Ptr], length: Int) -> Vec:
    """All elements of a line combined."""
    lanes, step = e.lanes, VECTORS * e.lanes
    whole = length - length % step
    with e.loop("whole", whole, step=step, carry=[_neutral(e, s, lanes)] * VECTORS) as loop:
        elements = [_element(arrays, loop.index + v * lanes, lanes, None) for v in range(VECTORS)]
        loop.carry([_combine(e, s, acc, value) for acc, value in zip(loop.carried, elements, strict=True)])
    accs = loop.result
    while len(accs) > 1:
        accs = [_combine(e, s, a, b) for a, b in zip(accs[::2], accs[1::2], strict=True)]
    total = e.fold(accs[0], lambda low, high: _combine(e, s, low, high))
    with e.loop("rest", length, start=whole, carry=[total]) as rest:
        rest.carry([_combine(e, s, rest.carried[0], _element(arrays, rest.index, 1, None))])
    return rest.result[0]


def _neutral(e: Emitter, s: Schedule, lanes: int) -> Vec:
    return e.constant({"largest": -float("inf"), "smallest": float("inf")}.get(s.kind, 0.0), lanes)


def _combine(e: Emitter, s: Schedule, a: Vec, b: Vec) -> Vec:
    if s.kind in ("sum", "dot"):
        return a + b
    return e.maximum_or_nan(a, b) if s.kind == "largest" else -e.maximum_or_nan(-a, -b)


@lru_cache(maxsize=16)
def _kernel(kind: str, columns: bool) -> Kernel:
    return Kernel(f"reduce_{kind}", _FIELDS, Schedule(kind, columns), emit)


def _refuse(x: np.ndarray, axes: Axes) -> str | None:
    if x.dtype != flat.FLOAT:
        return f"only float32 is generated, not {x.dtype}"
    if x.size < SMALLEST:
        return f"{x.size} elements: NumPy is as fast"
    if not axes:
        return "nothing to reduce"
    return None if plan_for(x.shape, x.strides, axes) else f"strides {x.strides} of shape {x.shape} leave gaps"


def _run(kind: str, x: np.ndarray, axes: Axes, y: np.ndarray | None = None) -> np.ndarray:
    plan = plan_for(x.shape, x.strides, axes)
    assert plan is not None  # _refuse has looked
    rows = plan.outer * plan.segments
    partial = np.empty(plan.shape)
    block_rows = max(1, CHUNK_ELEMENTS // (plan.segment * plan.inner))
    block_columns = plan.inner
    if plan.inner > 1 and block_rows == 1:
        block_columns = max(16 * VECTORS, CHUNK_ELEMENTS // plan.segment // 16 * 16)
    column_blocks = -(-plan.inner // block_columns)
    _kernel(kind, plan.inner > 1).launch(
        -(-rows // block_rows) * column_blocks, address(x), 0 if y is None else address(y), address(partial),
        rows, plan.count, plan.inner, plan.segments, plan.segment, block_rows, column_blocks, block_columns,
    )  # fmt: skip
    total = _NUMPY[kind].reduce(partial, axis=plan.left)
    return np.asarray(total, np.float32).transpose(plan.order)


def refuse_sum(x: np.ndarray, axes: Axes) -> str | None:
    """The reason against, or None."""
    return _refuse(x, axes)


def sum(x: np.ndarray, axes: Axes) -> np.ndarray:
    """As `reference.reduce.sum`."""
    return _run("sum", x, axes)


def refuse_dot(x: np.ndarray, y: np.ndarray, axes: Axes) -> str | None:
    """The reason against, or None."""
    return flat.refuse(y, x) or _refuse(y, axes)


def dot(x: np.ndarray, y: np.ndarray, axes: Axes) -> np.ndarray:
    """As `reference.reduce.dot`."""
    return _run("dot", y, axes, flat.matching(x, y))


def refuse_largest(x: np.ndarray, axes: Axes) -> str | None:
    """The reason against, or None."""
    return _refuse(x, axes)


def largest(x: np.ndarray, axes: Axes) -> np.ndarray:
    """As `reference.reduce.largest`."""
    return _run("largest", x, axes)


def refuse_smallest(x: np.ndarray, axes: Axes) -> str | None:
    """The reason against, or None."""
    return _refuse(x, axes)


def smallest(x: np.ndarray, axes: Axes) -> np.ndarray:
    """As `reference.reduce.smallest`."""
    return _run("smallest", x, axes)
