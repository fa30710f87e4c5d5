"""Softmax and log-softmax along one axis, as rows of contiguous memory.

    for rows in chunks:                              # threads
        largest = max(row)                           # every pass over a row: whole vectors, then a masked one
        y = exp(x - largest); total = sum(y)         # log-softmax: total only
        y = y / total                                # log-softmax: x - largest - log(total)

    backward:      gx = y * (gy - sum(gy * y))       # log-softmax: gy - exp(y) * sum(gy)

An axis that is not innermost in memory is copied there first. Sums over a row run in one vector of partial sums, folded
pairwise. Registers: a handful, for exp's constants. A row lies in the first-level cache between its passes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from faltung.engine.emit import Emitter, Int, Ptr, Vec
from faltung.engine.kernel import Kernel, address
from faltung.engine.kernels import elementary, flat

BLOCK_ELEMENTS = flat.BLOCK  # of whole rows in one chunk
UNROLL = 4  # vectors of a cheap reduction


@dataclass(frozen=True)
class Schedule:
    """What shapes the code of one kernel."""

    function: str
    log: bool


@dataclass(frozen=True)
class Row:
    """A row of `count` elements from element `start` of every array."""

    e: Emitter
    start: Int
    count: Int

    def reduce(
        self, name: str, begin: float, element: Callable[[Int, int, Any], Vec], combine: Any, unroll: int = 1
    ) -> Vec:
        """Fold `element(offset, lanes, mask)` over the row, a scalar; lanes behind the row's end are left out.

        `unroll` running vectors hide the latency of `combine` where the elements themselves cost little.
        """
        e = self.e
        lanes, step = e.lanes, e.lanes * unroll
        whole = self.count // step * step
        with e.loop(name, whole, carry=[e.constant(begin, lanes)] * unroll, step=step) as i:
            elements = [element(self.start + i.index + u * lanes, lanes, None) for u in range(unroll)]
            i.carry([combine(running, value) for running, value in zip(i.carried, elements, strict=True)])
        total, *others = i.result
        for other in others:
            total = combine(total, other)
        if flat.masks(e):
            with e.loop(f"{name}_rest", self.count, carry=[total], start=whole, step=lanes) as j:
                mask = e.mask(self.count - j.index, lanes)
                rest = combine(j.carried[0], element(self.start + j.index, lanes, mask))
                j.carry([e.select(mask, rest, j.carried[0])])
            return e.fold(j.result[0], combine)
        with e.loop(f"{name}_rest", self.count, carry=[e.fold(total, combine)], start=whole) as j:
            j.carry([combine(j.carried[0], element(self.start + j.index, 1, None))])
        return j.result[0]

    def each(self, body: Callable[[Int, int, Any], None]) -> None:
        """`body(offset, lanes, mask)` over the row."""
        flat.over_range(self.e, self.start, self.start + self.count, 1, body)


def larger(e: Emitter) -> Callable[[Vec, Vec], Vec]:
    """The running maximum; NaN is left to the sum that follows."""
    return lambda best, value: e.select(value.compare(">", best), value, best)


def add(total: Vec, value: Vec) -> Vec:
    """The running sum."""
    return total + value


def largest_and_total(row: Row, x: Ptr, keep: Ptr | None = None) -> tuple[Vec, Vec]:
    """The largest element of a row and the sum of exp(x - largest), whose terms are stored to `keep`."""
    e = row.e
    largest = row.reduce(
        "max", float("-inf"), lambda at, lanes, mask: flat.load(x.at(at), lanes, mask), larger(e), UNROLL
    )

    def term(at: Int, lanes: int, mask: Any) -> Vec:
        value = elementary.exp(e, flat.load(x.at(at), lanes, mask) - e.splat(largest, lanes))
        if keep is not None:
            flat.store(keep.at(at), value, mask)
        return value

    return largest, row.reduce("sum", 0.0, term, add)


def _emit(e: Emitter, schedule: Schedule) -> None:
    count = e.field("count")
    start = e.chunk * e.field("block_rows")
    emit_row = _emit_forward if schedule.function == "forward" else _emit_backward
    with e.loop("row", e.smaller(start + e.field("block_rows"), e.field("rows")), start=start) as row:
        emit_row(Row(e, row.index * count, count), schedule.log)


def _emit_forward(row: Row, log: bool) -> None:
    e = row.e
    x, y = e.pointer("x"), e.pointer("y")
    largest, total = largest_and_total(row, x, None if log else y)
    shift = elementary.log(e, total) if log else total

    def finish(at: Int, lanes: int, mask: Any) -> None:
        if log:
            value = flat.load(x.at(at), lanes, mask) - e.splat(largest, lanes) - e.splat(shift, lanes)
        else:
            value = flat.load(y.at(at), lanes, mask) / e.splat(total, lanes)
        flat.store(y.at(at), value, mask)

    row.each(finish)


def _emit_backward(row: Row, log: bool) -> None:
    e = row.e
    gy, y, gx = e.pointer("gy"), e.pointer("y"), e.pointer("gx")

    def term(at: Int, lanes: int, mask: Any) -> Vec:
        gradient = flat.load(gy.at(at), lanes, mask)
        return gradient if log else gradient * flat.load(y.at(at), lanes, mask)

    total = row.reduce("sum", 0.0, term, add, UNROLL)

    def finish(at: Int, lanes: int, mask: Any) -> None:
        gradient, result = flat.load(gy.at(at), lanes, mask), flat.load(y.at(at), lanes, mask)
        if log:
            value = gradient - elementary.exp(e, result) * e.splat(total, lanes)
        else:
            value = gradient * result - result * e.splat(total, lanes)
        flat.store(gx.at(at), value, mask)

    row.each(finish)


@lru_cache(maxsize=4)
def _kernel(function: str, log: bool) -> Kernel:
    fields = "x y" if function == "forward" else "gy y gx"
    name = f"{'log_' if log else ''}softmax_{function}"
    return Kernel(name, f"{fields} rows count block_rows", Schedule(function, log), _emit)


def _launch(function: str, log: bool, count: int, *arrays: np.ndarray) -> None:
    rows = arrays[0].size // count
    block_rows = max(1, BLOCK_ELEMENTS // count)
    _kernel(function, log).launch(-(-rows // block_rows), *map(address, arrays), rows, count, block_rows)


# --- the engine's functions -------------------------------------------------------------------------------------------


def innermost(x: np.ndarray, axis: int) -> np.ndarray:
    """`x`, or a copy, dense with `axis` innermost in memory."""
    if x.strides[axis] == x.itemsize and flat.dense_order(x.shape, x.strides) is not None:
        return x
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(x, axis, -1)), -1, axis)


def _refuse(x: np.ndarray, axis: int) -> str | None:
    if x.dtype != flat.FLOAT:
        return f"only float32 is generated, not {x.dtype}"
    return "no lines" if x.ndim == 0 or x.size == 0 else None


def _forward(x: np.ndarray, axis: int, log: bool) -> np.ndarray:
    x = innermost(x, axis)
    y = flat.like(x)
    _launch("forward", log, x.shape[axis], x, y)
    return y


def _backward(gy: np.ndarray, y: np.ndarray, axis: int, log: bool) -> np.ndarray:
    y = innermost(y, axis)
    gy = flat.matching(gy, y)
    gx = flat.like(y)
    _launch("backward", log, y.shape[axis], gy, y, gx)
    return gx


def refuse_forward(x: np.ndarray, axis: int) -> str | None:
    """The reason against, or None."""
    return _refuse(x, axis)


def forward(x: np.ndarray, axis: int) -> np.ndarray:
    """As `reference.softmax.forward`."""
    return _forward(x, axis, log=False)


def refuse_log_forward(x: np.ndarray, axis: int) -> str | None:
    """The reason against, or None."""
    return _refuse(x, axis)


def log_forward(x: np.ndarray, axis: int) -> np.ndarray:
    """As `reference.softmax.log_forward`."""
    return _forward(x, axis, log=True)


def refuse_backward(gy: np.ndarray, y: np.ndarray, axis: int) -> str | None:
    """The reason against, or None."""
    return _refuse(y, axis) or _refuse(gy, axis)


def backward(gy: np.ndarray, y: np.ndarray, axis: int) -> np.ndarray:
    """As `reference.softmax.backward`."""
    return _backward(gy, y, axis, log=False)


def refuse_log_backward(gy: np.ndarray, y: np.ndarray, axis: int) -> str | None:
    """The reason against, or None."""
    return _refuse(y, axis) or _refuse(gy, axis)


def log_backward(gy: np.ndarray, y: np.ndarray, axis: int) -> np.ndarray:
    """As `reference.softmax.log_backward`."""
    return _backward(gy, y, axis, log=True)
