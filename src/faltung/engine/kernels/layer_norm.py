"""Layer norm and RMS norm: rows of `count` contiguous elements, each normalised by itself.

    forward     for rows of a block in chunks:                       # threads
                    mean = sum(x) / count                            # RMS norm: 0
                    var = sum((x - mean)^2) / count
                    y = (x - mean) * (weight / sqrt(var + eps)) + bias
    backward    for blocks of rows in chunks:
                    for rows of the block, ROWS at a time:
                        for vectors: S[r] += gy * weight; Q[r] += gy * weight * (x - mean)
                        for vectors: gx[r] = (gy * weight - S[r] / n - xhat * Q[r] / (n * std)) / std
                                     gweight[block] += gy * xhat; gbias[block] += gy     # over all r at once
                gweight and gbias of all blocks are added up in order

Mean and variance are `row_sums.moments`. Backward computes several rows at once, which share each load and store of the
block's gweight and gbias. Blocks have rows by sizes alone: bits don't depend on threads. Registers of backward: 4
values for each row, 3 of the column and 2 or 3 in flight: 22 at 4 rows, 14 at 2.

Other dimensions may lie between the rows in any order, and those of a row as well (channels-last data over C, H, W):
weight and bias are brought into its order. Only rows with gaps are copied.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from faltung.engine import layout, memory
from faltung.engine.emit import Emitter, Int, Ptr, Vec, f32, f64
from faltung.engine.kernel import Kernel, address, bits
from faltung.engine.kernels import flat, rows
from faltung.engine.kernels.affine import affine
from faltung.engine.kernels.row_sums import UNROLL, inverse_deviation, moments, sums
from faltung.engine.registry import call
from faltung.engine.target import host

BLOCK_ELEMENTS = flat.BLOCK  # of whole rows in one chunk, as far as the bounds below let it
SHORTEST_BLOCK, LONGEST_BLOCK = 16, 256  # rows of backward: few make many partial sums, many lose precision
FEWEST_BLOCKS = 8  # that long rows are cut into, if need be shorter than SHORTEST_BLOCK

Array = np.ndarray
Ints = tuple[int, ...]


@dataclass(frozen=True)
class Schedule:
    """What shapes the code of one kernel."""

    function: str  # forward or backward
    centred: bool  # layer norm; False: RMS norm, whose mean is zero
    rows: int  # that backward computes together


@dataclass(frozen=True)
class Plan:
    """How an array is seen as rows."""

    order: Ints  # axes from the outermost to the innermost in memory, those of a row last
    rows: int
    count: int
    statistics: Ints  # shape of a mean: the leading sizes, then ones
    leading: Ints  # axes before a row, in memory order
    row: Ints  # shape of a row, in memory order
    natural: bool  # memory order is logical order
    block_rows: int  # of a chunk of backward


@lru_cache(maxsize=1024)
def plan_for(shape: Ints, strides: Ints, axes: int) -> Plan | None:
    """The plan, or None where rows don't lie in one stretch each."""
    first = len(shape) - axes
    dense = flat.dense_order(shape, strides)
    if dense is None:
        return None
    order = (*(axis for axis in dense if axis < first), *(axis for axis in dense if axis >= first))
    long_axes = [axis for axis in dense if shape[axis] > 1]
    if [axis for axis in order if shape[axis] > 1] != long_axes:
        return None
    natural = long_axes == sorted(long_axes)
    if natural:
        order = tuple(range(len(shape)))
    count, total = prod(shape[first:]), prod(shape[:first])
    together = rows_together(host().registers)
    block = min(max(BLOCK_ELEMENTS // count, SHORTEST_BLOCK), LONGEST_BLOCK)
    if total * count > BLOCK_ELEMENTS:
        block = min(block, -(-total // FEWEST_BLOCKS))
    block = -(-block // together) * together
    row_shape = tuple([shape[axis] for axis in order[first:]])
    return Plan(order, total, count, (*shape[:first], *(1,) * axes), order[:first], row_shape, natural, block)


def rows_together(registers: int) -> int:
    """Rows whose values fit the registers."""
    return 4 if registers >= 32 else 2


# --- the kernels ------------------------------------------------------------------------------------------------------

FORWARD = "x y mean var weight bias eps rows count block_rows"
BACKWARD = "x gy gx mean var weight shares eps rows count block_rows"


def emit(e: Emitter, schedule: Schedule) -> None:
    """One chunk: a block of rows."""
    if schedule.function == "backward":
        _emit_backward(e, schedule)
        return
    start = e.chunk * e.field("block_rows")
    with e.loop("row", e.smaller(start + e.field("block_rows"), e.field("rows")), start=start) as row:
        _normalise(e, schedule, row.index)


def _normalise(e: Emitter, schedule: Schedule, row: Int) -> None:
    count = e.field("count")
    x, y, weight, bias = (e.pointer(name) for name in ("x", "y", "weight", "bias"))
    x, y = x.at(row * count), y.at(row * count)
    mean = e.zero(1)
    if schedule.centred:
        exact, square = moments(e, e.int(0), count, lambda at, lanes, mask: flat.load(x.at(at), lanes, mask))
        mean = e.convert(exact, f32)
        e.pointer("mean").at(row).store(mean)
    else:
        (square,) = sums(e, 0, count, 1, lambda at, lanes, mask: [_square(x.at(at), lanes, mask)], UNROLL)
    var = e.convert(square / e.convert(count, f64), f32)
    e.pointer("var").at(row).store(var)
    invstd = e.convert(inverse_deviation(e, var), f32)

    def write(at: Int, lanes: int, mask: Any) -> None:
        value = _centred(e, schedule, x, mean, at, lanes, mask)
        scale = flat.load(weight.at(at), lanes, mask) * e.splat(invstd, lanes)
        value = e.fma(value, scale, flat.load(bias.at(at), lanes, mask)) if schedule.centred else value * scale
        flat.store(y.at(at), value, mask)

    flat.over_range(e, e.int(0), count, 2, write)


def _centred(e: Emitter, schedule: Schedule, x: Ptr, mean: Vec, at: Int, lanes: int, mask: Any) -> Vec:
    value = flat.load(x.at(at), lanes, mask)
    return value - e.splat(mean, lanes) if schedule.centred else value


def _square(x: Ptr, lanes: int, mask: Any) -> Vec:
    value = flat.load(x, lanes, mask)
    return value * value


def _emit_backward(e: Emitter, schedule: Schedule) -> None:
    count, block_rows = e.fields("count block_rows")
    start = e.chunk * block_rows
    stop = e.smaller(start + block_rows, e.field("rows"))
    shares = e.pointer("shares").at(e.chunk * count * 2)
    rows.fill(e, shares, count * 2)
    whole = start + (stop - start) // schedule.rows * schedule.rows
    with e.loop("rows", whole, start=start, step=schedule.rows) as row:
        _descend(e, schedule, [row.index + r for r in range(schedule.rows)], shares)
    with e.loop("row", stop, start=whole) as row:
        _descend(e, schedule, [row.index], shares)


@dataclass
class _Row:
    """One row of backward: its places in memory and its scalars."""

    x: Ptr
    gy: Ptr
    gx: Ptr
    mean: Vec
    invstd: Vec


def _row(e: Emitter, schedule: Schedule, index: Int) -> _Row:
    x, gy, gx = (e.pointer(name).at(index * e.field("count")) for name in ("x", "gy", "gx"))
    mean = e.pointer("mean").at(index).load() if schedule.centred else e.zero(1)
    return _Row(x, gy, gx, mean, e.convert(inverse_deviation(e, e.pointer("var").at(index).load()), f32))


def _descend(e: Emitter, schedule: Schedule, indices: list[Int], shares: Ptr) -> None:
    """Gradients of a few rows, and their share of those of weight and bias."""
    count, weight = e.field("count"), e.pointer("weight")
    together = [_row(e, schedule, index) for index in indices]

    def slopes(at: Int, lanes: int, mask: Any) -> list[Vec]:
        found, scale = [], flat.load(weight.at(at), lanes, mask)
        for row in together:
            gradient = flat.load(row.gy.at(at), lanes, mask) * scale
            centred = _centred(e, schedule, row.x, row.mean, at, lanes, mask)
            found += [gradient, gradient * centred] if schedule.centred else [gradient * centred]
        return found

    each = 2 if schedule.centred else 1
    totals = sums(e, 0, count, each * len(together), slopes)
    offsets, factors = [], []
    for r, row in enumerate(together):
        *total, slope = totals[r * each : (r + 1) * each]
        invstd = e.convert(row.invstd, f64)
        share = invstd / e.convert(count, f64)
        offsets += [e.convert(value * share, f32) for value in total]
        factors.append(e.convert(slope * share * invstd * invstd, f32))

    def write(at: Int, lanes: int, mask: Any) -> None:
        scale = flat.load(weight.at(at), lanes, mask)
        to_weight, to_bias = shares.at(at), shares.at(count + at)
        gweight, gbias = (flat.load(place, lanes, mask) for place in (to_weight, to_bias))
        for r, row in enumerate(together):
            gy = flat.load(row.gy.at(at), lanes, mask)
            centred = _centred(e, schedule, row.x, row.mean, at, lanes, mask)
            invstd, factor = e.splat(row.invstd, lanes), e.splat(factors[r], lanes)
            through = e.fma(centred, factor, e.splat(offsets[r], lanes)) if schedule.centred else centred * factor
            flat.store(row.gx.at(at), e.fma(gy * scale, invstd, -through), mask)
            gweight, gbias = e.fma(gy, centred * invstd, gweight), gbias + gy
        flat.store(to_weight, gweight, mask)
        if schedule.centred:
            flat.store(to_bias, gbias, mask)

    flat.over_range(e, e.int(0), count, 1, write)


@lru_cache(maxsize=4)
def _kernel(function: str, centred: bool) -> Kernel:
    fields = FORWARD if function == "forward" else BACKWARD
    schedule = Schedule(function, centred, rows_together(host().registers))
    return Kernel(f"{'layer' if centred else 'rms'}_norm_{function}", fields, schedule, emit)


# --- the engine's functions -------------------------------------------------------------------------------------------


def _as_rows(x: Array, axes: int) -> tuple[Array, Plan]:
    """`x`, or a copy, with its plan."""
    plan = plan_for(x.shape, x.strides, axes)
    if plan is None:
        x = layout.contiguous(x)
        plan = plan_for(x.shape, x.strides, axes)
        assert plan is not None  # contiguous memory is rows
    return x, plan


def _statistics(plan: Plan) -> tuple[Array, Array]:
    """An array with one value per row in memory order, and the view of it that the caller gets."""
    if plan.natural:
        values = np.empty(plan.statistics, np.float32)
        return values, values
    values = np.empty([plan.statistics[axis] for axis in plan.leading], np.float32)
    return values, values.transpose(np.argsort(plan.leading)).reshape(plan.statistics)


def _per_row(values: Array, plan: Plan) -> Array:
    """Statistics in the order of the rows."""
    if not plan.natural:
        values = values.reshape(values.shape[: len(plan.leading)]).transpose(plan.leading)
    return layout.contiguous(values)


def _along_row(values: Array | None, plan: Plan) -> Array | None:
    """A weight in the order of a row's elements."""
    if values is None:
        return None
    if not plan.natural:
        first = len(plan.leading)
        values = values.transpose([axis - first for axis in plan.order[first:]])
    return layout.contiguous(values)


def _forward(x: Array, axes: int, weight: Array | None, bias: Array | None, eps: float, centred: bool) -> list[Array]:
    x, plan = _as_rows(x, axes)
    y = flat.like(x)
    (mean, mean_seen), (var, var_seen) = _statistics(plan), _statistics(plan)
    pair = affine(_along_row(weight, plan), _along_row(bias, plan), plan.count)
    block_rows = max(1, BLOCK_ELEMENTS // plan.count)
    _kernel("forward", centred).launch(
        -(-plan.rows // block_rows), *map(address, (x, y, mean, var, *pair)), bits(eps), plan.rows, plan.count,
        block_rows,
    )  # fmt: skip
    return [y, mean_seen, var_seen]


def _backward(
    gy: Array, x: Array, mean: Array | None, var: Array, axes: int, weight: Array | None, eps: float
) -> list[Array]:
    """Without a mean, RMS norm's; what it says of the bias then means nothing."""
    x, plan = _as_rows(x, axes)
    gy, gx = flat.matching(gy, x), flat.like(x)
    weight, _ = affine(_along_row(weight, plan), None, plan.count)
    blocks = -(-plan.rows // plan.block_rows)
    shares = memory.empty((blocks, 2, plan.count))
    var = _per_row(var, plan)
    arrays = (x, gy, gx, var if mean is None else _per_row(mean, plan), var, weight, shares)
    _kernel("backward", mean is not None).launch(
        blocks, *map(address, arrays), bits(eps), plan.rows, plan.count, plan.block_rows
    )
    totals = shares[0] if blocks == 1 else call("reduce.sum", shares, (0,))
    gweight, gbias = totals.reshape((2, *plan.row))
    if not plan.natural:
        back = np.argsort(plan.order[len(plan.leading) :])
        gweight, gbias = gweight.transpose(back), gbias.transpose(back)
    return [gx, gweight, gbias]


def _refuse(x: Array, *others: Array | None) -> str | None:
    if x.dtype != flat.FLOAT:
        return f"only float32 is generated, not {x.dtype}"
    if x.size == 0:
        return f"nothing to normalise in {x.shape}"
    for values in others:
        if values is not None and values.dtype != flat.FLOAT:
            return f"only float32 is generated, not {values.dtype}"
    return None


def refuse_layer_forward(x: Array, axes: int, weight: Array | None, bias: Array | None, eps: float) -> str | None:
    """The reason against, or None."""
    return _refuse(x, weight, bias)


def layer_forward(
    x: Array, axes: int, weight: Array | None, bias: Array | None, eps: float
) -> tuple[Array, Array, Array]:
    """As `reference.norm.layer_forward`."""
    y, mean, var = _forward(x, axes, weight, bias, eps, centred=True)
    return y, mean, var


def refuse_layer_backward(
    gy: Array, x: Array, mean: Array, var: Array, axes: int, weight: Array | None, eps: float
) -> str | None:
    """The reason against, or None."""
    return _refuse(x, gy, mean, var, weight)


def layer_backward(
    gy: Array, x: Array, mean: Array, var: Array, axes: int, weight: Array | None, eps: float
) -> tuple[Array, Array, Array]:
    """As `reference.norm.layer_backward`."""
    gx, gweight, gbias = _backward(gy, x, mean, var, axes, weight, eps)
    return gx, gweight, gbias


def refuse_rms_forward(x: Array, axes: int, weight: Array | None, eps: float) -> str | None:
    """The reason against, or None."""
    return _refuse(x, weight)


def rms_forward(x: Array, axes: int, weight: Array | None, eps: float) -> tuple[Array, Array]:
    """As `reference.norm.rms_forward`."""
    y, _, square = _forward(x, axes, weight, None, eps, centred=False)
    return y, square


def refuse_rms_backward(gy: Array, x: Array, square: Array, axes: int, weight: Array | None, eps: float) -> str | None:
    """The reason against, or None."""
    return _refuse(x, gy, square, weight)


def rms_backward(
    gy: Array, x: Array, square: Array, axes: int, weight: Array | None, eps: float
) -> tuple[Array, Array]:
    """As `reference.norm.rms_backward`."""
    gx, gweight, _ = _backward(gy, x, None, square, axes, weight, eps)
    return gx, gweight
