"""The formulas of elementwise kernels: an entry of EXPRESSIONS is all that a new one needs. Activations have a file of
their own, `activation_expressions`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

from faltung.engine.emit import Emitter, Vec
from faltung.engine.kernels import elementary

Formula = Callable[..., Vec]


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


@expression(2)
def maximum(e: Emitter, a: Vec, b: Vec) -> Vec:
    return e.maximum_or_nan(a, b)


@expression(2)
def minimum(e: Emitter, a: Vec, b: Vec) -> Vec:
    return -e.maximum_or_nan(-a, -b)


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
def maximum_number(e: Emitter, a: Vec, number: Vec) -> Vec:
    return e.maximum_or_nan(a, number)


@expression(1)
def minimum_number(e: Emitter, a: Vec, number: Vec) -> Vec:
    return -e.maximum_or_nan(-a, -number)


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
