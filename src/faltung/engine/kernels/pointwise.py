"""Elementwise kernels, one generator for all: an entry of EXPRESSIONS is the formula, everything else follows from it.

    for block in chunks:                           # threads, BLOCK elements each
        for i in block, 4 vectors at a time:       # transcendental formulas: 1 vector
            out[i] = formula(a[i], b[i], c[i], numbers)
        for i in the rest: the same, masked

Registers: one per operand and unrolled vector plus the formula's constants; nothing is carried, so that up to 4 vectors
never
spill. Bound by memory: 4 bytes for every operand and result. Results that exceed the last-level cache go past it.

Operands are dense float32 arrays of one shape (`flat`); where the memory orders differ, copies in the first operand's
order are made. NaN and infinity mean what they mean in `reference.activation`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from faltung.engine.emit import Emitter, Vec
from faltung.engine.kernel import Kernel, address, bits
from faltung.engine.kernels import elementary, flat

_SQRT_2_OVER_PI = math.sqrt(2 / math.pi)
_GELU_CUBIC = 0.044715  # Hendrycks and Gimpel 2016, section 2

Formula = Callable[..., Vec]


@dataclass(frozen=True)
class Schedule:
    """What shapes the code of one kernel."""

    expression: str
    operands: int
    numbers: int
    unroll: int
    stream: bool  # store past the caches


@dataclass(frozen=True)
class Expression:
    """A formula over `operands` arrays and the numbers after them."""

    formula: Formula
    operands: int
    unroll: int
    numbers: tuple[str, ...]  # keyword names of the numbers, in order


EXPRESSIONS: dict[str, Expression] = {}


def expression(operands: int, unroll: int = 4) -> Callable[[Formula], Formula]:
    """Enter a formula f(e, operands..., numbers...) under its own name."""

    def enter(formula: Formula) -> Formula:
        numbers = tuple(inspect.signature(formula).parameters)[1 + operands :]
        EXPRESSIONS[formula.__name__] = Expression(formula, operands, unroll, numbers)
        return formula

    return enter


# --- arithmetic -----------------------------------------------------------------------------------------------------


@expression(2)
def add(e: Emitter, a: Vec, b: Vec) -> Vec:
    return a + b


@expression(2)
def sub(e: Emitter, a: Vec, b: Vec) -> Vec:
    return a - b


@expression(2)
def mul(e: Emitter, a: Vec, b: Vec) -> Vec:
    return a * b


@expression(2)
def div(e: Emitter, a: Vec, b: Vec) -> Vec:
    return a / b


@expression(1)
def add_number(e: Emitter, a: Vec, number: Vec) -> Vec:
    return a + number


@expression(1)
def sub_number(e: Emitter, a: Vec, number: Vec) -> Vec:
    return a - number


@expression(1)
def mul_number(e: Emitter, a: Vec, number: Vec) -> Vec:
    return a * number


@expression(1)
def div_number(e: Emitter, a: Vec, number: Vec) -> Vec:
    return a / number


@expression(1)
def copy(e: Emitter, a: Vec) -> Vec:
    return a


@expression(2)
def add_relu(e: Emitter, a: Vec, b: Vec) -> Vec:
    return e.maximum(a + b, 0.0)


@expression(1, unroll=1)
def exp(e: Emitter, x: Vec) -> Vec:
    return elementary.exp(e, x)


@expression(1, unroll=1)
def log(e: Emitter, x: Vec) -> Vec:
    return elementary.log(e, x)


@expression(1)
def sqrt(e: Emitter, x: Vec) -> Vec:
    return e.unary("sqrt", x)


# --- activations: <name>_forward(x, ...) and <name>_backward(gy, kept, ...), as in reference.activation -------------


@expression(1)
def relu_forward(e: Emitter, x: Vec) -> Vec:
    return e.maximum(x, 0.0)


@expression(2)
def relu_backward(e: Emitter, gy: Vec, y: Vec) -> Vec:
    return e.select(y.compare("<=", 0.0), 0.0, gy)


@expression(1)
def leaky_relu_forward(e: Emitter, x: Vec, negative_slope: Vec) -> Vec:
    return e.select(x.compare(">", 0.0), x, x * negative_slope)


@expression(2)
def leaky_relu_backward(e: Emitter, gy: Vec, y: Vec, negative_slope: Vec) -> Vec:
    return e.select(y.compare(">", 0.0), gy, gy * negative_slope)


@expression(1, unroll=1)
def sigmoid_forward(e: Emitter, x: Vec) -> Vec:
    return elementary.sigmoid(e, x)


@expression(2)
def sigmoid_backward(e: Emitter, gy: Vec, y: Vec) -> Vec:
    return gy * ((1.0 - y) * y)


@expression(1, unroll=1)
def tanh_forward(e: Emitter, x: Vec) -> Vec:
    return elementary.tanh(e, x)


@expression(2)
def tanh_backward(e: Emitter, gy: Vec, y: Vec) -> Vec:
    return gy * (1.0 - y * y)


@expression(1, unroll=1)
def elu_forward(e: Emitter, x: Vec, alpha: Vec, scale: Vec, input_scale: Vec) -> Vec:
    below = elementary.expm1(e, e.minimum(x, 0.0) * input_scale) * (alpha * scale)
    return e.select(x.compare(">", 0.0), x * scale, below)


@expression(2)
def elu_backward(e: Emitter, gy: Vec, y: Vec, alpha: Vec, scale: Vec, input_scale: Vec) -> Vec:
    return gy * e.select(y.compare(">", 0.0), scale, (y + alpha * scale) * input_scale)


@expression(1)
def hardtanh_forward(e: Emitter, x: Vec, low: Vec, high: Vec) -> Vec:
    return e.minimum(e.maximum(x, low), high)


@expression(2)
def hardtanh_backward(e: Emitter, gy: Vec, y: Vec, low: Vec, high: Vec) -> Vec:
    return e.select(e.any_of(y.compare("<=", low), y.compare(">=", high)), 0.0, gy)


@expression(1)
def hardsigmoid_forward(e: Emitter, x: Vec) -> Vec:
    return e.minimum(e.maximum(x + 3.0, 0.0), 6.0) / 6.0


@expression(2)
def hardsigmoid_backward(e: Emitter, gy: Vec, y: Vec) -> Vec:
    return e.select(e.both(y.compare(">", 0.0), y.compare("<", 1.0)), gy / 6.0, 0.0)


@expression(1)
def threshold_forward(e: Emitter, x: Vec, threshold: Vec, value: Vec) -> Vec:
    return e.select(x.compare("<=", threshold), value, x)


@expression(2)
def threshold_backward(e: Emitter, gy: Vec, x: Vec, threshold: Vec, value: Vec) -> Vec:
    return e.select(x.compare("<=", threshold), 0.0, gy)


@expression(1)
def hardswish_forward(e: Emitter, x: Vec) -> Vec:
    return x * e.minimum(e.maximum(x + 3.0, 0.0), 6.0) / 6.0


@expression(2)
def hardswish_backward(e: Emitter, gy: Vec, x: Vec) -> Vec:
    inside = e.select(x.compare("<", 3.0), gy * (x / 3.0 + 0.5), gy)
    return e.select(x.compare("<=", -3.0), 0.0, inside)


@expression(1, unroll=1)
def silu_forward(e: Emitter, x: Vec) -> Vec:
    return x * elementary.sigmoid(e, x)


@expression(2, unroll=1)
def silu_backward(e: Emitter, gy: Vec, x: Vec) -> Vec:
    s = elementary.sigmoid(e, x)
    return gy * (s * (1.0 + x * (1.0 - s)))


@expression(1, unroll=1)
def gelu_forward(e: Emitter, x: Vec) -> Vec:
    return 0.5 * x * (1.0 + elementary.erf(e, x * math.sqrt(0.5)))


@expression(2, unroll=1)
def gelu_backward(e: Emitter, gy: Vec, x: Vec) -> Vec:
    density = elementary.exp(e, -0.5 * x * x) * (0.5 * _SQRT_2_OVER_PI)
    return gy * (0.5 * (1.0 + elementary.erf(e, x * math.sqrt(0.5))) + x * density)


@expression(1, unroll=1)
def gelu_tanh_forward(e: Emitter, x: Vec) -> Vec:
    return 0.5 * x * (1.0 + _gelu_tanh(e, x))


@expression(2, unroll=1)
def gelu_tanh_backward(e: Emitter, gy: Vec, x: Vec) -> Vec:
    t = _gelu_tanh(e, x)
    inner = _SQRT_2_OVER_PI * (1.0 + 3 * _GELU_CUBIC * x * x)
    return gy * (0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * inner)


def _gelu_tanh(e: Emitter, x: Vec) -> Vec:
    return elementary.tanh(e, _SQRT_2_OVER_PI * (x + _GELU_CUBIC * x * x * x))


@expression(1, unroll=1)
def mish_forward(e: Emitter, x: Vec) -> Vec:
    return x * elementary.tanh(e, _softplus(e, x))


@expression(2, unroll=1)
def mish_backward(e: Emitter, gy: Vec, x: Vec) -> Vec:
    t = elementary.tanh(e, _softplus(e, x))
    return gy * (t + x * elementary.sigmoid(e, x) * (1.0 - t * t))


@expression(1, unroll=1)
def softplus_forward(e: Emitter, x: Vec, beta: Vec, threshold: Vec) -> Vec:
    scaled = x * beta
    return e.select(scaled.compare(">", threshold), x, _softplus(e, scaled) / beta)


@expression(2, unroll=1)
def softplus_backward(e: Emitter, gy: Vec, x: Vec, beta: Vec, threshold: Vec) -> Vec:
    scaled = x * beta
    return e.select(scaled.compare(">", threshold), gy, gy * elementary.sigmoid(e, scaled))


@expression(1, unroll=1)
def log_sigmoid_forward(e: Emitter, x: Vec) -> Vec:
    return e.minimum(x, 0.0) - elementary.log1p_exp_negative(e, e.unary("fabs", x))


@expression(2, unroll=1)
def log_sigmoid_backward(e: Emitter, gy: Vec, x: Vec) -> Vec:
    return gy * elementary.sigmoid(e, -x)


@expression(1)
def softshrink_forward(e: Emitter, x: Vec, lambd: Vec) -> Vec:
    inside = e.select(x.compare("<", -lambd), x + lambd, x * 0.0)  # x * 0 keeps NaN
    return e.select(x.compare(">", lambd), x - lambd, inside)


@expression(1)
def hardshrink_forward(e: Emitter, x: Vec, lambd: Vec) -> Vec:
    return e.select(e.both(x.compare(">=", -lambd), x.compare("<=", lambd)), 0.0, x)


@expression(2)
def softshrink_backward(e: Emitter, gy: Vec, x: Vec, lambd: Vec) -> Vec:
    return e.select(e.both(x.compare(">=", -lambd), x.compare("<=", lambd)), 0.0, gy)


@expression(2)
def hardshrink_backward(e: Emitter, gy: Vec, x: Vec, lambd: Vec) -> Vec:
    return softshrink_backward(e, gy, x, lambd)


def _softplus(e: Emitter, x: Vec) -> Vec:
    return e.maximum(x, 0.0) + elementary.log1p_exp_negative(e, e.unary("fabs", x))


# --- kernels --------------------------------------------------------------------------------------------------------

_POINTERS = ("a", "b", "c")


def emit(e: Emitter, schedule: Schedule) -> None:
    """The loop over a block, around the formula."""
    formula = EXPRESSIONS[schedule.expression].formula
    out, pointers = e.pointer("out"), [e.pointer(name) for name in _POINTERS[: schedule.operands]]
    scalars = [e.number(f"number{i}") for i in range(schedule.numbers)]

    def body(offset: Any, lanes: int, mask: Any) -> None:
        numbers = [e.splat(scalar, lanes) for scalar in scalars]
        if mask is None:
            operands = [pointer.at(offset).load(lanes) for pointer in pointers]
            result = formula(e, *operands, *numbers)
            stream = schedule.stream and lanes == e.lanes
            out.at(offset).store(result, align=4 * lanes if stream else 4, stream=stream)
        else:
            operands = [pointer.at(offset).load_masked(mask, lanes) for pointer in pointers]
            out.at(offset).store_masked(formula(e, *operands, *numbers), mask)

    flat.over_block(e, schedule.unroll, body)


@lru_cache(maxsize=256)
def kernel(name: str, stream: bool = False) -> Kernel:
    """The kernel of one expression; `stream` needs a result that starts at a whole vector."""
    entry = EXPRESSIONS[name]
    schedule = Schedule(name, entry.operands, len(entry.numbers), entry.unroll, stream)
    fields = ["n", "out", *_POINTERS[: entry.operands], *(f"number{i}" for i in range(len(entry.numbers)))]
    return Kernel(f"pointwise_{name}", " ".join(fields), schedule, emit)


def run(name: str, operands: tuple[np.ndarray, ...], numbers: tuple[float, ...], out: np.ndarray | None) -> np.ndarray:
    """Compute an expression into `out`, or into a new array in the memory order of the last operand."""
    model = operands[-1]
    strides, size = model.strides, model.size
    for operand in operands:
        if operand.strides != strides:
            operands = tuple([flat.matching(operand, model) for operand in operands])
            break
    result = flat.like(model) if out is None else out
    place = address(result)
    stream = size > flat.BLOCK and flat.streams(size * 4) and place % 64 == 0
    places = [address(operand) for operand in operands]
    if numbers:
        places += [bits(number) for number in numbers]
    kernel(name, stream).launch(flat.chunks(size), size, place, *places)
    return result


def _refuse_overlap(out: np.ndarray, operands: tuple[np.ndarray, ...]) -> str | None:
    """The result may replace an operand, but not lie across one."""
    if out.dtype != flat.FLOAT or out.shape != operands[-1].shape or out.strides != operands[-1].strides:
        return "the result's place differs from the operands in dtype or memory order"
    for operand in operands:
        if address(operand) != address(out) and np.may_share_memory(operand, out):
            return "the result's place overlaps an operand"
    return None


def candidate(function: str) -> tuple[Callable[..., str | None], Callable[..., np.ndarray]]:
    """(refuse, run) of an engine function: operands by position, numbers by keyword, perhaps `out` to overwrite."""
    names = EXPRESSIONS[function].numbers
    if function in ("add", "sub", "mul", "div"):
        return _arithmetic(function)

    def refuse(*operands: np.ndarray, out: np.ndarray | None = None, **numbers: float) -> str | None:
        reason = flat.refuse(operands[-1], *operands[:-1])
        return reason if reason or out is None else _refuse_overlap(out, operands)

    def compute(*operands: np.ndarray, out: np.ndarray | None = None, **numbers: float) -> np.ndarray:
        return run(function, operands, tuple([numbers[name] for name in names]), out)

    return (refuse, compute) if not function.startswith("gelu") else (refuse, _gelu(function))


def _arithmetic(function: str) -> tuple[Callable[..., str | None], Callable[..., np.ndarray]]:
    """Of two arrays, the second perhaps one number."""

    def refuse(a: np.ndarray, b: np.ndarray, out: np.ndarray | None = None) -> str | None:
        if b.dtype != flat.FLOAT:
            return f"only float32 is generated, not {b.dtype}"
        operands = (a,) if b.ndim == 0 else (a, b)
        reason = flat.refuse(*operands)
        if reason is None and b.ndim and b.strides != a.strides:
            return "operands differ in memory order"
        return reason if reason or out is None else _refuse_overlap(out, operands)

    def compute(a: np.ndarray, b: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        if b.ndim == 0:
            return run(f"{function}_number", (a,), (float(b),), out)
        return run(function, (a, b), (), out)

    return refuse, compute


def _gelu(function: str) -> Callable[..., np.ndarray]:
    """Two formulas behind one function: `approximate` is a word, not a number."""
    tanh_function = function.replace("gelu", "gelu_tanh")

    def compute(*operands: np.ndarray, approximate: str, out: np.ndarray | None = None) -> np.ndarray:
        return run(tanh_function if approximate == "tanh" else function, operands, (), out)

    return compute
