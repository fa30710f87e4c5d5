"""Elementwise kernels, one generator for all: `expressions` and `activation_expressions` hold the formulas.

    for block in chunks:                           # threads, BLOCK elements each
        for i in block, 4 vectors at a time:       # transcendental formulas: 1 vector
            out[i] = formula(a[i], b[i], ..., numbers)
        for i in the rest: the same, masked

Registers: one per operand and unrolled vector plus the formula's constants; nothing is carried, so that up to 4 vectors
never spill. Bound by memory: 4 bytes for every operand and result. Results that exceed the last-level cache go past it.

Operands are dense float32 arrays of one shape (`flat`); where the memory orders differ, copies in the first operand's
order are made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from faltung.engine.emit import Emitter
from faltung.engine.kernel import Kernel, address, bits
from faltung.engine.kernels import activation_expressions as _activations  # noqa: F401  # enters its formulas
from faltung.engine.kernels import flat
from faltung.engine.kernels.expressions import EXPRESSIONS
from faltung.engine.registry import ARITHMETIC


@dataclass(frozen=True)
class Schedule:
    """What shapes the code of one kernel."""

    expression: str
    operands: int
    numbers: int
    unroll: int
    stream: bool  # store past the caches


_POINTERS = ("a", "b", "c", "d", "e")


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


def refuse_place(out: np.ndarray, operands: tuple[np.ndarray, ...]) -> str | None:
    """Why a result can't be written to `out`: it may replace an operand of its last one's order, not lie across one."""
    if out.dtype != flat.FLOAT or out.shape != operands[-1].shape or out.strides != operands[-1].strides:
        return "the result's place differs from the operands in dtype or memory order"
    for operand in operands:
        if address(operand) != address(out) and np.may_share_memory(operand, out):
            return "the result's place overlaps an operand"
    return None


def candidate(function: str) -> tuple[Callable[..., str | None], Callable[..., np.ndarray]]:
    """(refuse, run) of an engine function: operands by position, numbers by keyword, perhaps `out` to overwrite."""
    names = EXPRESSIONS[function].numbers
    if function in ARITHMETIC:
        return _arithmetic(function)

    def refuse(*operands: np.ndarray, out: np.ndarray | None = None, **numbers: float) -> str | None:
        reason = flat.refuse(operands[-1], *operands[:-1])
        return reason if reason or out is None else refuse_place(out, operands)

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
        return reason if reason or out is None else refuse_place(out, operands)

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
