"""Elementwise choice by truth values: x where the condition holds, else y; each an array or one number.

    for block in chunks:                              # threads, BLOCK elements each
        for i in block, UNROLL vectors at a time:     # the condition: bytes
            out[i] = condition[i] ? x[i] : y[i]
        for i in the rest: the same, masked

Registers: a condition and two operands per unrolled vector. Bound by memory.

The result has the memory order of its first array. A condition in another order, or repeated along dimensions, is
copied first: its elements are bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from llvmlite import ir

from faltung.engine import layout, memory
from faltung.engine.emit import Emitter, Int, i8
from faltung.engine.kernel import Kernel, address, bits
from faltung.engine.kernels import flat
from faltung.engine.kernels.pointwise import refuse_place

UNROLL = 4

Array = np.ndarray


@dataclass(frozen=True)
class Schedule:
    """What shapes the code of one kernel."""

    x_is_number: bool
    y_is_number: bool


def emit(e: Emitter, s: Schedule) -> None:
    """The loop over a block."""
    condition, out = e.pointer("condition", i8), e.pointer("out")
    x = e.number("x") if s.x_is_number else e.pointer("x")
    y = e.number("y") if s.y_is_number else e.pointer("y")

    def operand(of: Any, is_number: bool, offset: Int, lanes: int, mask: Any) -> Any:
        return e.splat(of, lanes) if is_number else flat.load(of.at(offset), lanes, mask)

    def body(offset: Int, lanes: int, mask: Any) -> None:
        holds = flat.load(condition.at(offset), lanes, mask)
        bit = e.ir.icmp_unsigned("!=", holds.value, ir.Constant(holds.value.type, None if lanes > 1 else 0))
        yes, no = operand(x, s.x_is_number, offset, lanes, mask), operand(y, s.y_is_number, offset, lanes, mask)
        flat.store(out.at(offset), e.select(bit, yes, no), mask)

    flat.over_block(e, UNROLL, body)


@lru_cache(maxsize=4)
def _kernel(x_is_number: bool, y_is_number: bool) -> Kernel:
    return Kernel("where", "n condition x y out", Schedule(x_is_number, y_is_number), emit)


def refuse_where(condition: Array, x: Array, y: Array, out: Array | None = None) -> str | None:
    """The reason against, or None."""
    if condition.dtype != bool:
        return f"the condition is {condition.dtype}, not bool"
    if x.dtype != flat.FLOAT or y.dtype != flat.FLOAT:
        return f"only float32 is generated, not {x.dtype} and {y.dtype}"
    arrays = [operand for operand in (x, y) if operand.ndim]
    if arrays:
        reason = flat.refuse(*arrays)
        if reason:
            return reason
        if not layout.broadcasts_to(condition.shape, arrays[0].shape):
            return f"no kernel spreads operands {arrays[0].shape} over a condition {condition.shape}"
    elif flat.dense_order(condition.shape, condition.strides, 1) is None:
        return f"strides {condition.strides} of shape {condition.shape} leave gaps"
    if out is None:
        return None
    return refuse_place(out, (*arrays, arrays[0])) if arrays else "the result's place has no operand to replace"


def where(condition: Array, x: Array, y: Array, out: Array | None = None) -> Array:
    """As `reference.pointwise.where`."""
    model = x if x.ndim else y
    if model.ndim:
        result = flat.like(model) if out is None else out
        condition = _ordered(condition, model)
        x, y = (flat.matching(operand, model) if operand.ndim else operand for operand in (x, y))
    elif out is None:
        result = memory.empty(condition.shape, flat.FLOAT, tuple([4 * step for step in condition.strides]))
    else:
        result = out
    operands = [address(operand) if operand.ndim else bits(float(operand)) for operand in (x, y)]
    launch = _kernel(not x.ndim, not y.ndim).launch
    launch(flat.chunks(result.size), result.size, address(condition), *operands, address(result))
    return result


def _ordered(condition: Array, model: Array) -> Array:
    """The condition itself, or a copy in the memory order of `model`."""
    if condition.shape == model.shape and tuple([4 * step for step in condition.strides]) == model.strides:
        return condition
    ordered = memory.empty(model.shape, bool, tuple([step // 4 for step in model.strides]))
    np.copyto(ordered, condition)
    return ordered
