"""Cross entropy on logits, forward and backward: one row of classes per target.

    forward    for rows in chunks:                           # threads
                   lse = largest + log(sum(exp(x - largest)))
                   loss = weight[target] * (1 - smoothing) * (lse - x[target]) + smoothing / C * sum(weight * (lse - x))
    backward   gx = (exp(x - lse) * mass - smoothing / C * weight) * scale
               gx[target] -= weight[target] * (1 - smoothing) * scale

Rows are channels-last logits (N, *d, C); other memory orders are copied first. Targets equal to `ignore_index` give no
loss and no gradient. The sums over all rows are few numbers and NumPy's.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from faltung.engine import layout
from faltung.engine.emit import Emitter, Int, Vec, i64
from faltung.engine.kernel import Kernel, address, bits
from faltung.engine.kernels import elementary, flat
from faltung.engine.kernels.softmax import BLOCK_ELEMENTS, Row, add, largest_and_total

Array = np.ndarray


@dataclass(frozen=True)
class Schedule:
    """What shapes the code of one kernel."""

    function: str
    smoothed: bool


_FORWARD = "x target weight lse loss counted ignore_index hard smooth rows count block_rows"
_BACKWARD = "x target weight lse scale scale_step gx ignore_index hard smooth mass rows count block_rows"


def _emit(e: Emitter, schedule: Schedule) -> None:
    count = e.field("count")
    start = e.chunk * e.field("block_rows")
    emit_row = _emit_forward if schedule.function == "forward" else _emit_backward
    with e.loop("row", e.smaller(start + e.field("block_rows"), e.field("rows")), start=start) as row:
        target = e.pointer("target", i64).at(row.index).load_int()
        ignored = target.equals(e.field("ignore_index"))
        emit_row(Row(e, row.index * count, count), row.index, e.choose(ignored, 0, target), ignored, schedule.smoothed)


def _emit_forward(row: Row, number: Int, target: Int, ignored: Any, smoothed: bool) -> None:
    """lse, loss and weight of one row."""
    e = row.e
    x, weight = e.pointer("x"), e.pointer("weight")
    largest, total = largest_and_total(row, x)
    log_total = elementary.log(e, total)
    own = weight.at(target).load()
    loss = own * e.number("hard") * (log_total - (x.at(row.start + target).load() - largest))
    if smoothed:

        def term(at: Int, lanes: int, mask: Any) -> Vec:
            apart = e.splat(log_total, lanes) - (flat.load(x.at(at), lanes, mask) - e.splat(largest, lanes))
            return apart * flat.load(weight.at(at - row.start), lanes, mask)

        loss = e.fma(row.reduce("smooth", 0.0, term, add), e.number("smooth"), loss)
    e.pointer("lse").at(number).store(log_total + largest)
    e.pointer("loss").at(number).store(e.select(ignored, 0.0, loss))
    e.pointer("counted").at(number).store(e.select(ignored, 0.0, own))


def _emit_backward(row: Row, number: Int, target: Int, ignored: Any, smoothed: bool) -> None:
    """gx of one row."""
    e = row.e
    x, weight, gx = e.pointer("x"), e.pointer("weight"), e.pointer("gx")
    lse = e.pointer("lse").at(number).load()
    scale = e.pointer("scale").at(number * e.field("scale_step")).load()
    own = weight.at(target).load() * e.number("hard")
    mass = own + e.number("mass")

    def body(at: Int, lanes: int, mask: Any) -> None:
        likely = elementary.exp(e, flat.load(x.at(at), lanes, mask) - e.splat(lse, lanes)) * e.splat(mass, lanes)
        if smoothed:
            share = e.splat(e.number("smooth"), lanes) * flat.load(weight.at(at - row.start), lanes, mask)
            likely = likely - share
        flat.store(gx.at(at), e.select(ignored, 0.0, likely * e.splat(scale, lanes)), mask)

    row.each(body)
    at_target = gx.at(row.start + target)
    at_target.store(e.select(ignored, 0.0, at_target.load() - own * scale))


@lru_cache(maxsize=4)
def _kernel(function: str, smoothed: bool) -> Kernel:
    fields = _FORWARD if function == "forward" else _BACKWARD
    return Kernel(f"cross_entropy_{function}", fields, Schedule(function, smoothed), _emit)


@lru_cache(maxsize=16)
def _ones(count: int) -> Array:
    return np.ones(count, np.float32)


def _rows(logits: Array) -> tuple[Array, int, int, int]:
    """Channels-last logits, rows, classes, rows of a block."""
    x = layout.channels_last(logits)
    classes = x.shape[1]
    return x, x.size // classes, classes, max(1, BLOCK_ELEMENTS // classes)


def _refuse(logits: Array, target: Array, weight: Array | None) -> str | None:
    if logits.dtype != flat.FLOAT:
        return f"only float32 is generated, not {logits.dtype}"
    if logits.ndim < 2 or logits.size == 0:
        return f"no classes in {logits.shape}"
    if target.dtype.kind not in "iu":
        return f"targets are {target.dtype}, not integers"
    if weight is not None and (weight.dtype != flat.FLOAT or not weight.flags.c_contiguous):
        return "weights are not contiguous float32"
    return None


def refuse_cross_entropy_forward(logits: Array, target: Array, weight: Array | None, *arguments: Any) -> str | None:
    """The reason against, or None."""
    return _refuse(logits, target, weight)


def cross_entropy_forward(
    logits: Array, target: Array, weight: Array | None, ignore_index: int, label_smoothing: float, reduction: str
) -> tuple[Array, Array, Array]:
    """As `reference.loss.cross_entropy_forward`."""
    x, rows, classes, block_rows = _rows(logits)
    targets = np.ascontiguousarray(target, np.int64)
    lse, loss, counted = (np.empty(target.shape, np.float32) for _ in range(3))
    _kernel("forward", bool(label_smoothing)).launch(
        -(-rows // block_rows),
        *map(address, (x, targets, _ones(classes) if weight is None else weight, lse, loss, counted)),
        ignore_index,
        *map(bits, (1 - label_smoothing, label_smoothing / classes)),
        *(rows, classes, block_rows),
    )
    total = counted.sum(dtype=np.float64)
    if reduction == "none":
        return loss, lse, np.asarray(total, np.float32)
    value = loss.sum(dtype=np.float64)
    if reduction == "mean":
        value = value / total if total else value * np.nan
    return np.asarray(value, np.float32), lse, np.asarray(total, np.float32)


def refuse_cross_entropy_backward(
    gy: Array, logits: Array, target: Array, weight: Array | None, lse: Array, total: Array, *arguments: Any
) -> str | None:
    """The reason against, or None."""
    return _refuse(logits, target, weight) or (
        None if lse.dtype == gy.dtype == flat.FLOAT else "gradients of mixed dtype"
    )


def cross_entropy_backward(
    gy: Array,
    logits: Array,
    target: Array,
    weight: Array | None,
    lse: Array,
    total: Array,
    ignore_index: int,
    label_smoothing: float,
    reduction: str,
) -> Array:
    """As `reference.loss.cross_entropy_backward`."""
    x, rows, classes, block_rows = _rows(logits)
    targets = np.ascontiguousarray(target, np.int64)
    weights = _ones(classes) if weight is None else weight
    smooth = label_smoothing / classes
    mass = smooth * float(weights.sum(dtype=np.float64)) if label_smoothing else 0.0
    scale = np.ascontiguousarray(gy)
    if reduction == "mean":
        scale = np.asarray(scale / total if total else scale * np.nan)
    gx = flat.like(x)
    _kernel("backward", bool(label_smoothing)).launch(
        -(-rows // block_rows),
        *map(address, (x, targets, weights, np.ascontiguousarray(lse), scale)),
        int(reduction == "none"),
        address(gx),
        ignore_index,
        *map(bits, (1 - label_smoothing, smooth, mass)),
        *(rows, classes, block_rows),
    )
    return gx
