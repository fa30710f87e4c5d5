"""Losses computed element by element, with their mean or sum in the same pass.

    total       for block in chunks:                                  # threads, BLOCK elements each
                    for segments of the block:
                        for i, `unroll` vectors at a time: acc += loss(target[i], x[i])
                        sum of the block, in double += all lanes of acc
                the blocks' sums are few, and NumPy's
    backward    for i: gx[i] = slope(target[i], x[i]) * gy            # as any pointwise kernel; gy[i] without reduction

Blocks are the same for any number of threads, and so are the bits. A segment is short enough for float32 accumulators.
Weights are operands like the target; where they are repeated along dimensions, copies are made. Registers: an
accumulator and the operands of each unrolled vector, and what a logarithm needs. Bound by memory where there is none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from faltung.engine import layout
from faltung.engine.emit import Emitter, Int, Vec, f64
from faltung.engine.kernel import Kernel, address, bits
from faltung.engine.kernels import elementary, flat, pointwise
from faltung.engine.kernels.expressions import EXPRESSIONS, Expression
from faltung.engine.kernels.reduce import LINE_SEGMENT
from faltung.engine.kernels.softmax import Row, add

UNROLL = 4
SEGMENT = LINE_SEGMENT  # elements that float32 lanes add up, as in any sum
_NAMES = ("a", "b", "c", "d")
Array = np.ndarray
Formula = Callable[..., Vec]


# --- formulas: f(e, weights..., target, x, numbers...) ----------------------------------------------------------------


def _mse(e: Emitter, target: Vec, x: Vec) -> Vec:
    error = x - target
    return error * error


def _mse_slope(e: Emitter, target: Vec, x: Vec) -> Vec:
    error = x - target
    return error + error


def _l1(e: Emitter, target: Vec, x: Vec) -> Vec:
    return e.unary("fabs", x - target)


def _l1_slope(e: Emitter, target: Vec, x: Vec) -> Vec:
    return EXPRESSIONS["sign"].formula(e, x - target)


def _smooth_l1(e: Emitter, target: Vec, x: Vec, beta: Vec) -> Vec:
    error = e.unary("fabs", x - target)
    return e.select(error.compare("<", beta), 0.5 * error * error / beta, error - 0.5 * beta)


def _smooth_l1_slope(e: Emitter, target: Vec, x: Vec, beta: Vec) -> Vec:
    error = x - target
    inside = e.unary("fabs", error).compare("<", beta)
    return e.select(inside, error / beta, EXPRESSIONS["sign"].formula(e, error))


def _huber(e: Emitter, target: Vec, x: Vec, delta: Vec) -> Vec:
    error = e.unary("fabs", x - target)
    return e.select(error.compare("<=", delta), 0.5 * error * error, delta * (error - 0.5 * delta))


def _huber_slope(e: Emitter, target: Vec, x: Vec, delta: Vec) -> Vec:
    return e.minimum(e.maximum(x - target, -delta), delta)


def _bce(e: Emitter, target: Vec, p: Vec) -> Vec:
    yes, no = e.maximum(elementary.log(e, p), -100.0), e.maximum(elementary.log1p(e, -p), -100.0)
    return (target - 1.0) * no - target * yes


def _bce_slope(e: Emitter, target: Vec, p: Vec) -> Vec:
    return (p - target) / e.maximum((1.0 - p) * p, 1e-12)


def _bce_logits(e: Emitter, target: Vec, x: Vec) -> Vec:
    return (1.0 - target) * x - _log_sigmoid(e, x)


def _bce_logits_slope(e: Emitter, target: Vec, x: Vec) -> Vec:
    return elementary.sigmoid(e, x) - target


def _bce_logits_positive(e: Emitter, pos_weight: Vec, target: Vec, x: Vec) -> Vec:
    return (1.0 - target) * x - (1.0 + (pos_weight - 1.0) * target) * _log_sigmoid(e, x)


def _bce_logits_positive_slope(e: Emitter, pos_weight: Vec, target: Vec, x: Vec) -> Vec:
    positive = pos_weight * target
    return (positive + 1.0 - target) * elementary.sigmoid(e, x) - positive


def _log_sigmoid(e: Emitter, x: Vec) -> Vec:
    return EXPRESSIONS["log_sigmoid_forward"].formula(e, x)


@dataclass(frozen=True)
class Loss:
    """A loss and its derivative by x."""

    value: Formula
    slope: Formula
    operands: int = 2
    numbers: tuple[str, ...] = ()
    unroll: int = UNROLL
    smallest: int = 1  # elements from which on a kernel beats NumPy


LOSSES = {
    "mse": Loss(_mse, _mse_slope, smallest=8192),
    "l1": Loss(_l1, _l1_slope, smallest=8192),
    "smooth_l1": Loss(_smooth_l1, _smooth_l1_slope, numbers=("beta",)),
    "huber": Loss(_huber, _huber_slope, numbers=("delta",)),
    "bce": Loss(_bce, _bce_slope, unroll=1, smallest=1024),
    "bce_logits": Loss(_bce_logits, _bce_logits_slope, unroll=1),
    "bce_logits_positive": Loss(_bce_logits_positive, _bce_logits_positive_slope, operands=3, unroll=1),
}
WEIGHTS = {"bce": 1, "bce_logits": 2}  # how many weights an engine function takes after x and the target


def _times(formula: Formula) -> Formula:
    """The formula times one more operand, which comes first."""
    return lambda e, factor, *operands: formula(e, *operands) * factor


def _scaled(formula: Formula) -> Formula:
    """The formula times one more number, which comes last."""
    return lambda e, *operands: formula(e, *operands[:-1]) * operands[-1]


def _enter(name: str, loss: Loss) -> None:
    """The expressions of a loss: its value, and its gradient for a gradient of each element or one number for all."""
    for weighted in (False, True):
        value, slope = (_times(f) if weighted else f for f in (loss.value, loss.slope))
        own, count = name + "_weighted" * weighted, loss.operands + weighted
        EXPRESSIONS[f"{own}_loss"] = Expression(value, count, loss.unroll, loss.numbers)
        EXPRESSIONS[f"{own}_slope"] = Expression(_times(slope), count + 1, loss.unroll, loss.numbers)
        EXPRESSIONS[f"{own}_scaled_slope"] = Expression(_scaled(slope), count, loss.unroll, (*loss.numbers, "scale"))


for _name, _loss in LOSSES.items():
    _enter(_name, _loss)


# --- kernels ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Schedule:
    """What shapes the code of a kernel that sums a loss."""

    expression: str
    operands: int
    numbers: int
    unroll: int


def emit_total(e: Emitter, s: Schedule) -> None:
    """The sum of one block, in double."""
    formula = EXPRESSIONS[s.expression].formula
    pointers = [e.pointer(name) for name in _NAMES[: s.operands]]
    scalars = [e.number(f"number{i}") for i in range(s.numbers)]

    def element(offset: Int, lanes: int, mask: Any) -> Vec:
        operands = [flat.load(pointer.at(offset), lanes, mask) for pointer in pointers]
        return formula(e, *operands, *[e.splat(scalar, lanes) for scalar in scalars])

    start = e.chunk * flat.BLOCK
    stop = e.smaller(start + flat.BLOCK, e.field("n"))
    nothing = e.convert(e.constant(0.0), f64)
    with e.loop("segment", stop, start=start, step=SEGMENT, carry=[nothing]) as segment:
        row = Row(e, segment.index, e.smaller(segment.index + SEGMENT, stop) - segment.index)
        total = row.reduce("total", 0.0, element, add, s.unroll)
        segment.carry([segment.carried[0] + e.convert(total, f64)])
    e.pointer("partial", f64).at(e.chunk).store(segment.result[0], align=8)


@lru_cache(maxsize=64)
def _kernel(expression: str) -> Kernel:
    entry = EXPRESSIONS[expression]
    schedule = Schedule(expression, entry.operands, len(entry.numbers), entry.unroll)
    fields = ["n", "partial", *_NAMES[: entry.operands], *(f"number{i}" for i in range(len(entry.numbers)))]
    return Kernel(f"total_{expression}", " ".join(fields), schedule, emit_total)


def _total(expression: str, operands: tuple[Array, ...], numbers: tuple[float, ...]) -> float:
    """The sum of an expression over all elements."""
    model = operands[-1]
    operands = tuple([flat.matching(operand, model) for operand in operands])
    partial = np.empty(flat.chunks(model.size))
    _kernel(expression).launch(partial.size, model.size, address(partial), *map(address, operands), *map(bits, numbers))
    return float(np.add.reduce(partial))


# --- the engine's functions -------------------------------------------------------------------------------------------


def _expression(name: str, x: Array, target: Array, weights: tuple[Array | None, ...]) -> tuple[str, tuple[Array, ...]]:
    """An expression's name without its ending, and its operands."""
    operands = [target, x]
    if weights[1:] and weights[1] is not None:
        name, operands = f"{name}_positive", [np.broadcast_to(weights[1], x.shape), *operands]
    if weights and weights[0] is not None:
        name, operands = f"{name}_weighted", [np.broadcast_to(weights[0], x.shape), *operands]
    return name, tuple(operands)


def _refuse(x: Array, target: Array, *weights: Array | None) -> str | None:
    reason = flat.refuse(x, target)
    if reason:
        return reason
    for weight in weights:
        if weight is None:
            continue
        if weight.dtype != flat.FLOAT:
            return f"only float32 is generated, not {weight.dtype}"
        if not layout.broadcasts_to(weight.shape, x.shape):
            return "a weight is larger than the input"
    return None


def candidate(function: str) -> tuple[Callable[..., str | None], Callable[..., Array]]:
    """(refuse, run) of "<loss>_forward(x, target, weights..., reduction, numbers...)", or "_backward(gy, x, ...)"."""
    name, way = function.rsplit("_", 1)
    arrays = 2 + WEIGHTS.get(name, 0)

    def refuse_forward(x: Array, *arguments: Any) -> str | None:
        if x.size < LOSSES[name].smallest:
            return "so few elements: NumPy is as fast"
        return _refuse(x, *arguments[: arrays - 1])

    def forward(*arguments: Any) -> Array:
        x, target, *weights = arguments[:arrays]
        reduction, *numbers = arguments[arrays:]
        expression, operands = _expression(name, x, target, tuple(weights))
        if reduction == "none":
            return pointwise.run(f"{expression}_loss", operands, tuple(numbers), None)
        total = _total(f"{expression}_loss", operands, tuple(numbers))
        return np.asarray(total / x.size if reduction == "mean" else total, np.float32)

    def refuse_backward(gy: Array, *arguments: Any) -> str | None:
        if gy.dtype != flat.FLOAT:
            return f"only float32 is generated, not {gy.dtype}"
        return refuse_forward(*arguments)

    def backward(gy: Array, *arguments: Any) -> Array:
        x, target, *weights = arguments[:arrays]
        reduction, *numbers = arguments[arrays:]
        expression, operands = _expression(name, x, target, tuple(weights))
        if reduction == "none":
            return pointwise.run(f"{expression}_slope", (gy, *operands), tuple(numbers), None)
        scale = float(gy) / x.size if reduction == "mean" else float(gy)
        return pointwise.run(f"{expression}_scaled_slope", operands, (*numbers, scale), None)

    return (refuse_forward, forward) if way == "forward" else (refuse_backward, backward)
