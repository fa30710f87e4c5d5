"""Arithmetic of a dense operand and a smaller one, which is repeated along some dimensions.

In the dense operand's memory order, neighbouring dimensions along which the small one is repeated are one, and so are
those along which it isn't. What remains is rows of `inner` elements:

    for blocks of rows, or of a long row's columns, in chunks:         # threads
        for rows of the block:                                         # `place` in the small operand goes with them
            for columns, UNROLL vectors at a time:
                out[row, column] = formula(dense[row, column], small[place + column] or small[place])

A scale of (N, C, 1, 1) on channels-last data has rows of C channels, one per pixel, whose place moves on after every
image; on contiguous data it has rows of H * W pixels and one element for each. Short rows are made longer by a small
operand that is written down several times.

Registers: two operands and a result per unrolled vector. Bound by memory, that of the dense operand and the result.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from math import prod
from typing import Any

import numpy as np

from faltung.engine import layout
from faltung.engine.emit import Emitter, Int
from faltung.engine.kernel import Kernel, address
from faltung.engine.kernels import flat
from faltung.engine.kernels.expressions import EXPRESSIONS
from faltung.engine.kernels.pointwise import refuse_place

UNROLL = 4
SHORT_ROW = 64  # elements below which a row is made longer,
LONG_ROW = 512  # to no more than this
MOST_REPEATED = 1 << 14  # elements of a small operand written down several times

_FIELDS = "dense small out inner rows period near turn block_rows column_blocks block_columns"

Array = np.ndarray


@dataclass(frozen=True)
class Schedule:
    """What shapes the code of one kernel."""

    expression: str
    adjacent: bool  # the small operand has an element for each of a row, else one for all of them
    reverse: bool  # the small operand comes first
    stream: bool  # store past the caches


@dataclass(frozen=True)
class Plan:
    """How a small operand goes along with a dense one."""

    rows: int
    inner: int
    adjacent: bool
    period: int  # rows of a period; of three runs the small operand has the outer two's first or second
    near: int  # elements of the small operand from one row's place to the next one's
    turn: int  # the same from a period's last row to the next period
    order: tuple[int, ...]  # axes of the small operand, of as many dimensions as the dense one, in memory order
    repeated: int  # how often each of its runs is written down
    is_ready: bool  # its elements lie just as the kernel wants them


@lru_cache(maxsize=1024)
def plan_for(
    shape: tuple[int, ...], strides: tuple[int, ...], small: tuple[int, ...], small_strides: tuple[int, ...]
) -> Plan | str:
    """The plan for a dense shape and a small one (strides in bytes), or the reason against."""
    order = flat.dense_order(shape, strides)
    if order is None or 0 in shape:
        return f"strides {strides} of shape {shape} leave gaps, or nothing is there"
    if not layout.broadcasts_to(small, shape):
        return f"{small} is not repeated along dimensions of {shape}"
    missing = len(shape) - len(small)
    has = [False] * missing + [n != 1 and step != 0 for n, step in zip(small, small_strides, strict=True)]
    axes = [axis for axis in order if shape[axis] != 1]
    runs = [(own, prod(shape[axis] for axis in run)) for own, run in groupby(axes, key=has.__getitem__)] or [(False, 1)]
    if len(runs) > 3:
        return f"{small} is repeated along scattered dimensions of {shape}"
    adjacent, inner = runs.pop()
    outer = [size for _, size in runs]
    repeated = 1
    if adjacent and outer and inner < SHORT_ROW:
        held = inner * (outer[0] if len(outer) == 2 else 1)
        repeated = _largest_divisor(outer[-1], min(LONG_ROW // inner, max(1, MOST_REPEATED // held)))
        inner, outer[-1] = inner * repeated, outer[-1] // repeated
    period = outer[-1] if outer else 1
    near, far = (0, inner) if adjacent else (1, 0)
    turn = far - (period - 1) * near
    own_shape = [n if step else 1 for n, step in zip(small, small_strides, strict=True)]
    own_order = [axis - missing for axis in order if axis >= missing]
    is_ready = repeated == 1 and _lie_in_order(own_shape, small_strides, own_order)
    return Plan(prod(outer), inner, adjacent, period, near, turn, order, repeated, is_ready)


def _lie_in_order(shape: list[int], strides: tuple[int, ...], order: list[int]) -> bool:
    """Whether elements lie one behind the other, axes from the outermost to the innermost as `order` says."""
    step = 4
    for axis in reversed(order):
        if shape[axis] != 1:
            if strides[axis] != step:
                return False
            step *= shape[axis]
    return True


def _largest_divisor(number: int, at_most: int) -> int:
    return next(divisor for divisor in range(at_most, 0, -1) if number % divisor == 0)


def emit(e: Emitter, s: Schedule) -> None:
    """One chunk: a block of rows, each from the first to the last column of a block of columns."""
    formula = EXPRESSIONS[s.expression].formula
    dense, small, out = e.pointer("dense"), e.pointer("small"), e.pointer("out")
    inner, rows, period, near, turn = e.fields("inner rows period near turn")
    block_rows, column_blocks, block_columns = e.fields("block_rows column_blocks block_columns")
    first = e.chunk // column_blocks * block_rows
    begin = e.chunk % column_blocks * block_columns
    end = e.smaller(begin + block_columns, inner)
    phase = first % period
    place = first // period * (turn + (period - 1) * near) + phase * near
    with e.loop("row", e.smaller(first + block_rows, rows), start=first, carry=[phase, place]) as row:
        phase, place = row.carried
        start, other = row.index * inner, small.at(place)
        one = None if s.adjacent else other.load()

        def body(column: Int, lanes: int, mask: Any) -> None:
            a = flat.load(dense.at(start + column), lanes, mask)
            b = flat.load(other.at(column), lanes, mask) if one is None else e.splat(one, lanes)
            result = formula(e, b, a) if s.reverse else formula(e, a, b)
            to = out.at(start + column)
            if s.stream and lanes == e.lanes and mask is None:
                to.store(result, align=4 * lanes, stream=True)
            else:
                flat.store(to, result, mask)

        flat.over_range(e, begin, end, UNROLL, body)
        is_last = (phase + 1).equals(period)
        row.carry([e.choose(is_last, 0, phase + 1), place + e.choose(is_last, turn, near)])


@lru_cache(maxsize=64)
def _kernel(expression: str, adjacent: bool, reverse: bool, stream: bool) -> Kernel:
    return Kernel(f"broadcast_{expression}", _FIELDS, Schedule(expression, adjacent, reverse, stream), emit)


def _sorted(a: Array, b: Array) -> tuple[Array, Array, Plan | str, bool]:
    """The dense operand, the small one, how they go together, and whether the small one comes first."""
    plan: Plan | str = "the second operand is larger"
    if a.size >= b.size:
        plan = plan_for(a.shape, a.strides, b.shape, b.strides)
    if isinstance(plan, str) and b.size >= a.size:
        other = plan_for(b.shape, b.strides, a.shape, a.strides)
        if not isinstance(other, str):
            return b, a, other, True
    return a, b, plan, False


def _written_out(small: Array, ndim: int, plan: Plan) -> Array:
    """The small operand's own elements in the dense one's memory order, each run as often as the plan says."""
    if plan.is_ready:
        return small
    small = small.reshape((1,) * (ndim - small.ndim) + small.shape)
    own = small[tuple([slice(None) if step else slice(1) for step in small.strides])]
    ordered = np.ascontiguousarray(own.transpose(plan.order))
    if plan.repeated == 1:
        return ordered
    runs = ordered.reshape(-1, 1, plan.inner // plan.repeated)
    return np.ascontiguousarray(np.broadcast_to(runs, (len(runs), plan.repeated, runs.shape[2])))


def _run(expression: str, a: Array, b: Array, out: Array | None) -> Array:
    dense, small, plan, reverse = _sorted(a, b)
    assert isinstance(plan, Plan)  # refuse has looked
    written = _written_out(small, dense.ndim, plan)
    result = flat.like(dense) if out is None else out
    place = address(result)
    stream = flat.streams(dense.nbytes) and place % 64 == 0 and plan.inner % 16 == 0
    block_rows = max(1, flat.BLOCK // plan.inner)
    column_blocks = flat.chunks(plan.inner)
    _kernel(expression, plan.adjacent, reverse, stream).launch(
        -(-plan.rows // block_rows) * column_blocks, address(dense), address(written), place, plan.inner, plan.rows,
        plan.period, plan.near, plan.turn, block_rows, column_blocks, flat.BLOCK,
    )  # fmt: skip
    return result


def candidate(function: str) -> tuple[Callable[..., str | None], Callable[..., Array]]:
    """(refuse, run) of an engine function of two arrays that may write into `out`."""

    def refuse(a: Array, b: Array, out: Array | None = None) -> str | None:
        if a.dtype != flat.FLOAT or b.dtype != flat.FLOAT:
            return f"only float32 is generated, not {a.dtype} and {b.dtype}"
        dense, small, plan, _ = _sorted(a, b)
        if isinstance(plan, str):
            return plan
        if out is None:
            return None
        if np.may_share_memory(small, out):
            return "the result's place overlaps the smaller operand"
        return refuse_place(out, (dense,))

    def compute(a: Array, b: Array, out: Array | None = None) -> Array:
        return _run(function, a, b, out)

    return refuse, compute
