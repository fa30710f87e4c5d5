"""Pooling, forward and backward, as one loop nest: every result gathers from a box of sources.

Forward a result is a window's output and its sources are the window's samples; backward a result is a sample's gradient
and its sources are the windows that hold the sample. So nothing is scattered, and threads never meet. Which sources a
position has is a table per dimension (`_Table`), made once per geometry: stride, dilation, padding, ceil_mode and
adaptive windows are all in there. 1-d and 2-d poolings have leading dimensions of size 1.

    for rows in chunks:                                # threads: lines (n, d, h) of the result, blocks of channels
        for w in line:
            for channels, VECTORS registers at a time: # the last ones masked
                for d, h, w in box:                    # run-time bounds from the tables
                    state = combine(state, source[n, d, h, w, channels])
                result[n, d, h, w, channels] = finish(state)

Everything is channels last; other inputs are copied into that order first. Registers: VECTORS values and, with indices,
as many 32-bit vectors of them; 2 * VECTORS + 2 in all. Bound by memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
from llvmlite import ir

from faltung.engine import layout, memory
from faltung.engine.emit import Emitter, Int, IntLike, Vec, i8, i32, i64
from faltung.engine.geometry import NO_TAP, PoolGeometry
from faltung.engine.kernel import Kernel, address, pack_last
from faltung.engine.kernels import flat
from faltung.engine.kernels.epilogue import gradient_through
from faltung.engine.kernels.pool_tables import (
    Tables,
    adaptive_tables,
    tables_of,
    uniform_divisor,
    whole_window,
    with_divisor,
)

VECTORS = 4
BLOCK_ELEMENTS = flat.BLOCK  # of the result or of its sources, whichever are more, in one chunk
UNROLLED_SOURCES = 9  # a whole window of up to so many sources has no loops
BLOCK_COLUMNS = 64  # channels of one chunk at least

Ints = tuple[int, ...]

_FIELDS = (
    "result source extra table_d table_h table_w step_d step_h step_w tap_d tap_h tap_w kernel_h kernel_w "
    "result_d result_h result_w source_d source_h source_w channels lines block_lines column_blocks block_columns"
)


@dataclass(frozen=True)
class Schedule:
    """What shapes the code. `mode`: max, max_index, max_tap, mean, sum, index_sum or tap_sum
    (see the classes below).
    """

    mode: str
    vectors: int  # of channels, held at once
    window: Ints | None  # sources per dimension where all positions have equally many: no loops over them
    activation: str = ""  # of max_tap: what made the sources, one of engine.epilogue.DIFFERENTIABLE


# --- what is done with the sources ----------------------------------------------------------------------------------


class _Max:
    """The largest source; NaN wins. `extra` unused."""

    def __init__(self, e: Emitter, s: Schedule) -> None:
        self.e, self.vectors, self.extra = e, s.vectors, e.pointer("extra", i64)

    def start(self, lanes: int, at: _Position) -> list[Any]:
        return [self.e.constant(float("-inf"), lanes) for _ in range(self.vectors)]

    def combine(self, state: list[Any], sources: list[Vec], place: Int, at: _Position, mask: Any) -> list[Any]:
        return [self.e.maximum_or_nan(best, source) for best, source in zip(state, sources, strict=True)]

    def finish(self, state: list[Any], place: Int, at: _Position, mask: Any) -> list[Vec]:
        return state


class _MaxIndex(_Max):
    """The largest source, and to `extra` its index in the plane, int64. Of equal ones the first, NaN above all."""

    def index(self, at: _Position) -> Int:
        return at.plane

    def start(self, lanes: int, at: _Position) -> list[Any]:
        return super().start(lanes, at) + [_spread(self.e, self.index(at), i32, lanes)] * self.vectors

    def combine(self, state: list[Any], sources: list[Vec], place: Int, at: _Position, mask: Any) -> list[Any]:
        e, lanes = self.e, sources[0].lanes
        here = _spread(e, self.index(at), i32, lanes)
        values, indices = [], []
        for best, index, source in zip(state[: self.vectors], state[self.vectors :], sources, strict=True):
            better = e.any_of(source.compare(">", best), source.compare_or_nan("!=", source))
            values.append(e.select(better, source, best))
            indices.append(Vec(e, e.ir.select(better, here.value, index.value)))
        return values + indices

    def finish(self, state: list[Any], place: Int, at: _Position, mask: Any) -> list[Vec]:
        kind, lanes = self.extra.element, state[0].lanes
        for u, index in enumerate(state[self.vectors :]):
            width = ir.VectorType(kind, lanes) if lanes > 1 else kind
            cast = self.e.ir.sext if kind == i64 else self.e.ir.trunc
            flat.store(self.extra.at(place + u * lanes), Vec(self.e, cast(index.value, width)), mask)
        return state[: self.vectors]


class _MaxTap(_MaxIndex):
    """The largest source, and to `extra` its kernel tap, uint8; NO_TAP if the activation lets no gradient through."""

    def __init__(self, e: Emitter, s: Schedule) -> None:
        super().__init__(e, s)
        self.extra, self.activation = e.pointer("extra", i8), s.activation

    def index(self, at: _Position) -> Int:
        return at.tap

    def finish(self, state: list[Any], place: Int, at: _Position, mask: Any) -> list[Vec]:
        if self.activation:
            e, lanes = self.e, state[0].lanes
            none = _spread(e, e.int(NO_TAP), i32, lanes)
            for u, best in enumerate(state[: self.vectors]):
                passed = gradient_through(e, self.activation, e.constant(1.0, lanes), best)
                tap = state[self.vectors + u]
                state[self.vectors + u] = e.select(passed.compare("==", 0.0), none, tap)
        return super().finish(state, place, at, mask)


class _Sum:
    """The sum of the sources, lines of the box added up first."""

    def __init__(self, e: Emitter, s: Schedule) -> None:
        self.e, self.vectors = e, s.vectors

    def start(self, lanes: int, at: _Position) -> list[Any]:
        return [self.e.zero(lanes) for _ in range(self.vectors)]

    def combine(self, state: list[Any], sources: list[Vec], place: Int, at: _Position, mask: Any) -> list[Any]:
        return [total + source for total, source in zip(state, sources, strict=True)]

    def finish(self, state: list[Any], place: Int, at: _Position, mask: Any) -> list[Vec]:
        return state


class _Mean(_Sum):
    """The sum over the product of the divisors."""

    def finish(self, state: list[Any], place: Int, at: _Position, mask: Any) -> list[Vec]:
        e, lanes = self.e, state[0].lanes
        divisor = Vec(
            e, e.ir.sitofp(at.divisor.value, state[0].value.type.element if lanes > 1 else state[0].value.type)
        )
        return [total / e.splat(divisor, lanes) for total in state]


class _IndexSum(_Sum):
    """The sum of those sources whose index in `extra`, int64, is the result's own."""

    def __init__(self, e: Emitter, s: Schedule) -> None:
        super().__init__(e, s)
        self.extra = e.pointer("extra", i64)

    def own(self, at: _Position) -> Int:
        return at.own_plane

    def combine(self, state: list[Any], sources: list[Vec], place: Int, at: _Position, mask: Any) -> list[Any]:
        e, lanes = self.e, sources[0].lanes
        own = _spread(e, self.own(at), self.extra.element, lanes)
        totals = []
        for u, (total, source) in enumerate(zip(state, sources, strict=True)):
            index = flat.load(self.extra.at(place + u * lanes), lanes, mask)
            mine = e.ir.icmp_signed("==", index.value, own.value)
            totals.append(total + e.select(mine, source, 0.0))
        return totals


class _TapSum(_IndexSum):
    """The sum of those sources whose kernel tap in `extra`, uint8, is the one that points at the result."""

    def __init__(self, e: Emitter, s: Schedule) -> None:
        super().__init__(e, s)
        self.extra = e.pointer("extra", i8)

    def own(self, at: _Position) -> Int:
        return at.tap


_MODES: dict[str, Callable[[Emitter, Schedule], Any]] = {
    "max": _Max,
    "max_index": _MaxIndex,
    "max_tap": _MaxTap,
    "mean": _Mean,
    "sum": _Sum,
    "index_sum": _IndexSum,
    "tap_sum": _TapSum,
}


@dataclass
class _Position:
    """Where the loops stand: a source's index in its plane, its kernel tap; the result's own index, its divisor."""

    own_plane: Int
    divisor: Int
    plane: Int
    tap: Int


# --- the loop nest --------------------------------------------------------------------------------------------------


@dataclass
class _Box:
    """One row of a table: the sources of one position along one dimension."""

    first: Int
    count: Int
    tap: Int
    divisor: Int


def _box(e: Emitter, dimension: str, position: Int) -> _Box:
    row = e.pointer(f"table_{dimension}", i64).at(position * 4)
    return _Box(*(row.at(column).load_int() for column in range(4)))


def emit(e: Emitter, schedule: Schedule) -> None:
    """The loops over lines and positions of the result."""
    result_d, result_h, result_w, channels = e.fields("result_d result_h result_w channels")
    lines, block_lines, column_blocks, block_columns = e.fields("lines block_lines column_blocks block_columns")
    start = e.chunk // column_blocks * block_lines
    first_column = e.chunk % column_blocks * block_columns
    last_column = e.smaller(first_column + block_columns, channels)
    with e.loop("line", e.smaller(start + block_lines, lines), start=start) as line:
        h, rest = line.index % result_h, line.index // result_h
        d, n = rest % result_d, rest // result_d
        box_d, box_h = _box(e, "d", d), _box(e, "h", h)
        with e.loop("w", result_w) as w:
            boxes = box_d, box_h, _box(e, "w", w.index)
            own_plane = (d * result_h + h) * result_w + w.index
            place = (line.index * result_w + w.index) * channels
            for column, vectors, lanes, mask in flat.columns(e, first_column, last_column, schedule.vectors):
                what = _MODES[schedule.mode](e, replace(schedule, vectors=vectors))
                _gather(e, what, schedule.window, n, boxes, own_plane, place + column, column, lanes, mask)


def _gather(
    e: Emitter,
    what: Any,
    window: Ints | None,
    n: Int,
    boxes: tuple[_Box, ...],
    own_plane: Int,
    place: Int,
    column: Int,
    lanes: int,
    mask: Any,
) -> None:
    """One group of channels of one result."""
    box_d, box_h, box_w = boxes
    source, channels = e.pointer("source"), e.field("channels")
    source_d, source_h, source_w, kernel_h, kernel_w = e.fields("source_d source_h source_w kernel_h kernel_w")
    step_d, step_h, step_w, tap_d, tap_h, tap_w = e.fields("step_d step_h step_w tap_d tap_h tap_w")
    batch_start = n * (source_d * source_h * source_w)

    def position(d: IntLike, h: IntLike, w: IntLike) -> _Position:
        plane_d, plane_h, plane_w = (
            box.first + step * i for box, step, i in zip(boxes, (step_d, step_h, step_w), (d, h, w), strict=True)
        )
        at_d, at_h, at_w = (
            box.tap + step * i for box, step, i in zip(boxes, (tap_d, tap_h, tap_w), (d, h, w), strict=True)
        )
        return _Position(
            own_plane,
            divisor=box_d.divisor * box_h.divisor * box_w.divisor,
            plane=(plane_d * source_h + plane_h) * source_w + plane_w,
            tap=(at_d * kernel_h + at_h) * kernel_w + at_w,
        )

    def combine(state: list[Any], d: IntLike, h: IntLike, w: IntLike) -> list[Any]:
        at = position(d, h, w)
        there = (batch_start + at.plane) * channels + column
        values = [flat.load(source.at(there + u * lanes), lanes, mask) for u in range(what.vectors)]
        return what.combine(state, values, there, at, mask)

    origin = position(0, 0, 0)
    state = what.start(lanes, origin)
    if window is not None:
        for d, h, w in np.ndindex(*window):
            state = combine(state, d, h, w)
    else:
        with e.loop("box_d", box_d.count, carry=state) as in_d:
            with e.loop("box_h", box_h.count, carry=in_d.carried) as in_h:
                with e.loop("box_w", box_w.count, carry=in_h.carried) as in_w:
                    in_w.carry(combine(in_w.carried, in_d.index, in_h.index, in_w.index))
                in_h.carry(in_w.result)
            in_d.carry(in_h.result)
        state = in_d.result
    result = e.pointer("result")
    for u, value in enumerate(what.finish(state, place, origin, mask)):
        flat.store(result.at(place + u * lanes), value, mask)


def _spread(e: Emitter, value: Int, kind: Any, lanes: int) -> Vec:
    """An integer, narrowed to `kind`, in every lane."""
    narrow = value.value if kind == i64 else e.ir.trunc(value.value, kind)
    if lanes == 1:
        return Vec(e, narrow)
    wide = ir.VectorType(kind, lanes)
    one = e.ir.insert_element(ir.Constant(wide, ir.Undefined), narrow, ir.Constant(i32, 0))
    return Vec(
        e,
        e.ir.shuffle_vector(one, ir.Constant(wide, ir.Undefined), ir.Constant(ir.VectorType(i32, lanes), [0] * lanes)),
    )


# --- the engine's functions -----------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def _kernel(schedule: Schedule) -> Kernel:
    return Kernel(f"pool_{schedule.mode}", _FIELDS, schedule, emit)


@lru_cache(maxsize=512)
def _kernel_for(mode: str, tables: Tables, channels: int, activation: str) -> Kernel:
    vectors = flat.vectors_for(channels, VECTORS)
    window = whole_window(tables)
    window = window if window is not None and prod(window) <= UNROLLED_SOURCES else None
    return _kernel(Schedule(mode, vectors, window, activation))


def _launch(
    mode: str,
    tables: Tables,
    source: np.ndarray,
    result: np.ndarray,
    extra: np.ndarray | None = None,
    kernel: Ints = (),
    activation: str = "",
) -> None:
    """`source` and `result` are channels last; `extra` lies beside the one that its mode indexes."""
    launch, chunks, rest = _prepared(mode, tables, source.shape, result.shape, kernel, activation)
    launch(chunks, address(result), address(source), 0 if extra is None else address(extra), rest=rest)


@lru_cache(maxsize=512)
def _prepared(
    mode: str, tables: Tables, source_shape: Ints, result_shape: Ints, kernel: Ints, activation: str
) -> tuple[Callable[..., None], int, bytes]:
    """What addresses don't change: the kernel's launch, the chunks, and the last fields."""
    batch, channels, *sizes = result_shape
    result_d, result_h, result_w = [1] * (3 - len(sizes)) + sizes
    source_d, source_h, source_w = [1] * (3 - len(sizes)) + list(source_shape[2:])
    lines = batch * result_d * result_h
    block_lines = max(
        1, BLOCK_ELEMENTS * prod(sizes) // (max(prod(sizes), source_d * source_h * source_w) * result_w * channels)
    )
    block_columns = channels if lines // block_lines >= 8 else max(BLOCK_COLUMNS, channels // 8)
    if batch * channels * max(prod(sizes), source_d * source_h * source_w) <= BLOCK_ELEMENTS:
        block_lines, block_columns = lines, channels
    column_blocks = -(-channels // block_columns)
    kernel_h, kernel_w = ([1, 1, *kernel])[-2:]
    rest = pack_last(
        *(address(table.rows) for table in tables),
        *(table.step for table in tables),
        *(table.tap_step for table in tables),
        kernel_h,
        kernel_w,
        *(result_d, result_h, result_w, source_d, source_h, source_w),
        *(channels, lines, block_lines, column_blocks, block_columns),
    )
    return _kernel_for(mode, tables, channels, activation).launch_packed, -(-lines // block_lines) * column_blocks, rest


def _refuse(geometry: PoolGeometry | None, x: np.ndarray, indices: np.ndarray | None = None) -> str | None:
    if x.dtype != flat.FLOAT:
        return f"only float32 is generated, not {x.dtype}"
    if not 3 <= x.ndim <= 5 or x.size == 0:
        return f"nothing to pool in {x.shape}"
    if geometry is not None and prod(geometry.input) >= 1 << 31:
        return "indices do not fit 32 bits"
    if indices is not None and indices.dtype != np.int64:
        return f"indices are {indices.dtype}, not int64"
    return None


def refuse_max_forward(geometry: PoolGeometry, x: np.ndarray, *, with_indices: bool = True) -> str | None:
    """The reason against, or None."""
    return _refuse(geometry, x) or _refuse_empty_windows(geometry)


def max_forward(
    geometry: PoolGeometry, x: np.ndarray, *, with_indices: bool = True
) -> tuple[np.ndarray, np.ndarray | None]:
    """As `reference.pool.max_forward`."""
    y = memory.empty_channels_last(geometry.output_shape)
    where = memory.empty_channels_last(geometry.output_shape, np.int64) if with_indices else None
    tables = tables_of(geometry, False, True, None)
    _launch("max_index" if with_indices else "max", tables, layout.channels_last(x), y, where, geometry.kernel)
    return y, where


def refuse_max_backward(geometry: PoolGeometry, gy: np.ndarray, indices: np.ndarray) -> str | None:
    """The reason against, or None."""
    return _refuse(geometry, gy, indices)


def max_backward(geometry: PoolGeometry, gy: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """As `reference.pool.max_backward`."""
    gx = memory.empty_channels_last(geometry.input_shape)
    tables = tables_of(geometry, True, True, None)
    _launch("index_sum", tables, layout.channels_last(gy), gx, layout.channels_last(indices), geometry.kernel)
    return gx


def refuse_max_taps_forward(geometry: PoolGeometry, x: np.ndarray, *, activation: str = "") -> str | None:
    """The reason against, or None."""
    return _refuse(geometry, x) or _refuse_empty_windows(geometry)


def max_taps_forward(geometry: PoolGeometry, x: np.ndarray, *, activation: str = "") -> tuple[np.ndarray, np.ndarray]:
    """As `reference.pool.max_taps_forward`."""
    y = memory.empty_channels_last(geometry.output_shape)
    taps = memory.empty_channels_last(geometry.output_shape, np.uint8)
    tables = tables_of(geometry, False, True, None)
    _launch("max_tap", tables, layout.channels_last(x), y, taps, geometry.kernel, activation)
    return y, taps


def refuse_max_taps_backward(geometry: PoolGeometry, gy: np.ndarray, taps: np.ndarray) -> str | None:
    """The reason against, or None."""
    return _refuse(geometry, gy)


def max_taps_backward(geometry: PoolGeometry, gy: np.ndarray, taps: np.ndarray) -> np.ndarray:
    """As `reference.pool.max_taps_backward`."""
    gx = memory.empty_channels_last(geometry.input_shape)
    tables = tables_of(geometry, True, True, None)
    _launch("tap_sum", tables, layout.channels_last(gy), gx, layout.channels_last(taps), geometry.kernel)
    return gx


def refuse_avg_forward(
    geometry: PoolGeometry, x: np.ndarray, *, count_include_pad: bool = True, divisor: int | None = None
) -> str | None:
    """The reason against, or None."""
    return _refuse(geometry, x)


def avg_forward(
    geometry: PoolGeometry, x: np.ndarray, *, count_include_pad: bool = True, divisor: int | None = None
) -> np.ndarray:
    """As `reference.pool.avg_forward`."""
    y = memory.empty_channels_last(geometry.output_shape)
    _launch("mean", tables_of(geometry, False, count_include_pad, divisor), layout.channels_last(x), y)
    return y


def refuse_avg_backward(
    geometry: PoolGeometry, gy: np.ndarray, *, count_include_pad: bool = True, divisor: int | None = None
) -> str | None:
    """The reason against, or None."""
    return _refuse(geometry, gy)


def avg_backward(
    geometry: PoolGeometry, gy: np.ndarray, *, count_include_pad: bool = True, divisor: int | None = None
) -> np.ndarray:
    """As `reference.pool.avg_backward`."""
    gx = memory.empty_channels_last(geometry.input_shape)
    _spread_means(tables_of(geometry, False, count_include_pad, divisor), tables_of(geometry, True, True, None), gy, gx)
    return gx


def refuse_adaptive_avg_forward(x: np.ndarray, output: Ints) -> str | None:
    """The reason against, or None."""
    return _refuse(None, x) or (None if prod(output) else "no outputs")


def adaptive_avg_forward(x: np.ndarray, output: Ints) -> np.ndarray:
    """As `reference.pool.adaptive_avg_forward`."""
    y = memory.empty_channels_last((*x.shape[:2], *output))
    _launch("mean", adaptive_tables(x.shape[2:], tuple(output), False), layout.channels_last(x), y)
    return y


def refuse_adaptive_avg_backward(gy: np.ndarray, input: Ints) -> str | None:
    """The reason against, or None."""
    return _refuse(None, gy) or (None if prod(input) else "no inputs")


def adaptive_avg_backward(gy: np.ndarray, input: Ints) -> np.ndarray:
    """As `reference.pool.adaptive_avg_backward`."""
    gx = memory.empty_channels_last((*gy.shape[:2], *input))
    forward = adaptive_tables(tuple(input), gy.shape[2:], False)
    _spread_means(forward, adaptive_tables(tuple(input), gy.shape[2:], True), gy, gx)
    return gx


def _spread_means(forward: Tables, backward: Tables, gy: np.ndarray, gx: np.ndarray) -> None:
    """The gradient of a mean: each window's share goes to all its samples."""
    gy = layout.channels_last(gy)
    divisor = uniform_divisor(forward)
    if divisor is not None:
        _launch("mean", with_divisor(backward, divisor), gy, gx)
        return
    divisors = np.ones((), np.int64)
    for table in forward[3 - (gy.ndim - 2) :]:
        divisors = divisors[..., None] * table.rows[:, 3]
    _launch("sum", backward, gy / divisors.astype(np.float32), gx)  # the quotient keeps gy's memory order


@lru_cache(maxsize=512)
def _refuse_empty_windows(geometry: PoolGeometry) -> str | None:
    """A window without samples has no first index to return."""
    tables = tables_of(geometry, False, True, None)
    return "a window lies in the padding" if any((table.rows[:, 1] == 0).any() for table in tables) else None
