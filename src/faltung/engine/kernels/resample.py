"""Resampling of planes by tables of taps: interpolation of every kind and, with the tables transposed, its gradient.

    for lines (n, row of the result) in chunks:                      # threads
        line = sum over the row's taps of weight * x[n, tap]         # whole lines of width * channels floats
        for column of the result:
            for channels, VECTORS registers at a time:               # the last ones masked
                y[n, row, column, channels] = sum over the column's taps of weight * line[tap, channels]

Rows first: they are contiguous whatever the channels, and one pass over the taps of a row serves all columns. A row of
one tap of weight 1 (nearest) is read in place; where columns stay as they are, a row is mixed into the result itself.
Nothing is scattered: a gradient gathers from the outputs that its pixel has entered.

Everything is channels last; other inputs are copied into that order first. Few channels take the smallest vector that
holds a pixel: a wide one, masked, would cross cache lines. The line is the thread's scratch, in the near cache.
Registers: VECTORS sums, the weights of unrolled taps, one value in flight: 9 at most.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from faltung.engine import layout, memory, team
from faltung.engine.emit import Emitter, Int, Ptr, Vec, i64
from faltung.engine.kernel import Kernel, address, pack_last
from faltung.engine.kernels import flat
from faltung.engine.taps import Taps
from faltung.engine.target import host

VECTORS = 4
UNROLLED_TAPS = 4
BLOCK_ELEMENTS = flat.BLOCK  # of the result or of its sources, whichever are more, in one chunk

FIELDS = (
    "result source scratch row_spans row_index row_weights column_spans column_index column_weights "
    "source_rows result_rows source_columns result_columns channels lines block_lines line_floats"
)


@dataclass(frozen=True)
class Mix:
    """How taps of one axis are written down."""

    taps: int | None  # of every output, unrolled; None: a loop over as many as its span says
    weighted: bool  # False: one tap of weight 1, copied


@dataclass(frozen=True)
class Schedule:
    """What shapes the code."""

    rows: Mix
    columns: Mix
    vectors: int  # of channels, held at once
    pixel: int  # lanes of a vector that holds all channels of a pixel; 0: they fill whole vectors
    masked: bool  # not all lanes of it do
    keeps_columns: bool  # every column stays where it is


def emit(e: Emitter, s: Schedule) -> None:
    """One chunk: a block of lines."""
    source_rows, result_rows, source_columns, result_columns, channels = e.fields(
        "source_rows result_rows source_columns result_columns channels"
    )
    width, start = source_columns * channels, e.chunk * e.field("block_lines")
    mask = e.mask(channels, s.pixel) if s.masked else None  # one for all pixels
    with e.loop("line", e.smaller(start + e.field("block_lines"), e.field("lines")), start=start) as line:
        sample, row = line.index // result_rows, line.index % result_rows
        plane = e.pointer("source").at(sample * source_rows * width)
        result = e.pointer("result").at(line.index * result_columns * channels)
        from_rows = _Taps(e, s.rows, "row", row)
        if s.keeps_columns:
            _mix(from_rows, plane, width, result, flat.columns(e, 0, width, VECTORS))
        elif s.rows.weighted:
            scratch = e.pointer("scratch").at(e.thread * e.field("line_floats"))
            _mix(from_rows, plane, width, scratch, flat.columns(e, 0, width, VECTORS))
            _mix_columns(e, s, scratch, result, mask)
        else:
            _mix_columns(e, s, plane.at(from_rows.index(0) * width), result, mask)


def _mix_columns(e: Emitter, s: Schedule, line: Ptr, result: Ptr, mask: Any) -> None:
    """Every column of a result's line from the line of its row."""
    channels = e.field("channels")
    with e.loop("column", e.field("result_columns")) as column:
        groups: Iterable[Any] = [(e.int(0), 1, s.pixel, mask)]
        if not s.pixel:
            groups = flat.columns(e, 0, channels, s.vectors)
        to = result.at(column.index * channels)
        _mix(_Taps(e, s.columns, "column", column.index), line, channels, to, groups)


class _Taps:
    """The taps of one output along one axis."""

    def __init__(self, e: Emitter, mix: Mix, axis: str, output: Int) -> None:
        self.e, self.mix = e, mix
        if mix.taps is None:
            span = e.pointer(f"{axis}_spans", i64).at(output * 2)
            first, self.count = span.load_int(), span.at(1).load_int()
        else:
            first, self.count = output * mix.taps, e.int(mix.taps)
        self._index = e.pointer(f"{axis}_index", i64).at(first)
        self._weights = e.pointer(f"{axis}_weights").at(first)

    def index(self, tap: Any) -> Int:
        return self._index.at(tap).load_int()

    def weight(self, tap: Any) -> Vec:
        return self._weights.at(tap).load()


def _mix(taps: _Taps, source: Ptr, step: Int, to: Ptr, groups: Iterable[Any]) -> None:
    """to[i] = sum over taps of weight * source[index * step + i], for `groups` of i."""
    e, unrolled = taps.e, taps.mix.taps
    if unrolled is None:
        for start, vectors, lanes, mask in groups:
            _mix_in_loop(taps, source.at(start), step, to.at(start), vectors, lanes, mask)
        return
    places = [source.at(taps.index(k) * step) for k in range(unrolled)]
    weights = [taps.weight(k) for k in range(unrolled)] if taps.mix.weighted else []
    for start, vectors, lanes, mask in groups:
        for u in range(vectors):
            at = start + u * lanes
            values = [flat.load(place.at(at), lanes, mask) for place in places]
            total = values[0]
            if weights:
                total = total * e.splat(weights[0], lanes)
                for value, weight in zip(values[1:], weights[1:], strict=True):
                    total = e.fma(value, e.splat(weight, lanes), total)
            flat.store(to.at(at), total, mask)


def _mix_in_loop(taps: _Taps, source: Ptr, step: Int, to: Ptr, vectors: int, lanes: int, mask: Any) -> None:
    e = taps.e
    with e.loop("tap", taps.count, carry=[e.zero(lanes)] * vectors) as tap:
        place, weight = source.at(taps.index(tap.index) * step), e.splat(taps.weight(tap.index), lanes)
        values = [flat.load(place.at(u * lanes), lanes, mask) for u in range(vectors)]
        tap.carry([e.fma(value, weight, total) for value, total in zip(values, tap.carried, strict=True)])
    for u, total in enumerate(tap.result):
        flat.store(to.at(u * lanes), total, mask)


# --- the engine's functions -------------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def _kernel(schedule: Schedule) -> Kernel:
    return Kernel("resample_planes", FIELDS, schedule, emit)


def _mix_of(taps: Taps) -> Mix:
    uniform = taps.table.uniform
    return Mix(uniform if uniform and uniform <= UNROLLED_TAPS else None, taps.weights is not None)


def _lanes_of_pixel(channels: int, lanes: int) -> int:
    """Lanes of the smallest vector for all channels, or 0 if there is none."""
    smallest = 1 << (channels - 1).bit_length()
    return smallest if smallest <= lanes and (smallest == channels or lanes >= 8) else 0


_Arrays = tuple[np.ndarray, ...]


@lru_cache(maxsize=512)
def _prepared(shape: tuple[int, ...], rows: Taps, columns: Taps) -> tuple[Kernel, int, int, bytes, _Arrays]:
    """Kernel, chunks, floats of a thread's line, the last fields, and the arrays whose addresses they hold."""
    batch, channels, source_rows, source_columns = shape
    vectors, pixel = flat.vectors_for(channels, VECTORS), _lanes_of_pixel(channels, host().lanes)
    masked = 0 < channels < pixel
    schedule = Schedule(_mix_of(rows), _mix_of(columns), vectors, pixel, masked, columns.keeps)
    lines = batch * rows.outputs
    width = channels * max(columns.outputs, source_columns)
    block_lines = max(1, BLOCK_ELEMENTS // width)
    line_floats = -(-source_columns * channels // 16) * 16
    arrays = (*_arrays(rows), *_arrays(columns))
    sizes = (source_rows, rows.outputs, source_columns, columns.outputs, channels, lines, block_lines, line_floats)
    return _kernel(schedule), -(-lines // block_lines), line_floats, pack_last(*map(address, arrays), *sizes), arrays


def _arrays(taps: Taps) -> _Arrays:
    return taps.table.spans, taps.table.index, taps.table.weights


def _refuse(x: np.ndarray, *tables: Taps) -> str | None:
    if x.dtype != flat.FLOAT:
        return f"only float32 is generated, not {x.dtype}"
    return "nothing to resample" if x.size == 0 or any(taps.outputs == 0 for taps in tables) else None


def refuse_planes(x: np.ndarray, rows: Taps, columns: Taps) -> str | None:
    """The reason against, or None."""
    return _refuse(x, rows, columns)


def planes(x: np.ndarray, rows: Taps, columns: Taps) -> np.ndarray:
    """As `reference.resample.planes`, channels last."""
    x = layout.channels_last(x)
    y = memory.empty_channels_last((*x.shape[:2], rows.outputs, columns.outputs))
    kernel, chunks, line_floats, rest, _ = _prepared(x.shape, rows, columns)
    _scratch, start = team.scratch(line_floats)
    kernel.launch_packed(chunks, address(y), address(x), start, rest=rest)
    return y


_ONE = Taps(1, np.zeros((1, 1), np.int64), None)


def refuse_axis(x: np.ndarray, axis: int, taps: Taps) -> str | None:
    """The reason against, or None."""
    return _refuse(x, taps)


def axis(x: np.ndarray, axis: int, taps: Taps) -> np.ndarray:
    """As `reference.resample.axis`: in memory order, what lies inside of the axis are the channels of a plane."""
    order = layout.order_of(x)
    in_memory = layout.contiguous(x.transpose(order))
    place = order.index(axis)
    sizes = list(in_memory.shape)
    outer, inner = prod(sizes[:place]), prod(sizes[place + 1 :])
    if inner < host().lanes:
        found = planes(in_memory.reshape(outer, 1, taps.inputs, inner).transpose(0, 3, 1, 2), _ONE, taps)
    else:
        found = planes(in_memory.reshape(outer, taps.inputs, 1, inner).transpose(0, 3, 1, 2), taps, _ONE)
    sizes[place] = taps.outputs
    return found.transpose(0, 2, 3, 1).reshape(sizes).transpose(np.argsort(order))
