"""The formulas of elementwise kernels: an entry of EXPRESSIONS is all the code that a new one needs; `registry` lists
its name. Activations have a file of their own, `activation_expressions`; so have losses, `element_loss`.
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


# --- functions of one operand: <name>(x), and <name>_backward(gy, kept) as in `reference.pointwise` ------------------


@expression(1)
def neg(e: Emitter, x: Vec) -> Vec:
    return -x


@expression(1)
def abs(e: Emitter, x: Vec) -> Vec:
    return e.unary("fabs", x)


@expression(2)
def abs_backward(e: Emitter, gy: Vec, x: Vec) -> Vec:
    return gy * sign(e, x)


@expression(1)
def sign(e: Emitter, x: Vec) -> Vec:
    zero_or_nan = e.select(x.compare("==", 0.0), 0.0, x)
    return e.select(x.compare(">", 0.0), 1.0, e.select(x.compare("<", 0.0), -1.0, zero_or_nan))


@expression(1)
def floor(e: Emitter, x: Vec) -> Vec:
    return e.unary("floor", x)


@expression(1)
def ceil(e: Emitter, x: Vec) -> Vec:
    return e.unary("ceil", x)


@expression(1)
def trunc(e: Emitter, x: Vec) -> Vec:
    return e.unary("trunc", x)


@expression(1)
def round(e: Emitter, x: Vec) -> Vec:
    return e.unary("nearbyint", x)


@expression(1)
def square(e: Emitter, x: Vec) -> Vec:
    return x * x


@expression(2)
def square_backward(e: Emitter, gy: Vec, x: Vec) -> Vec:
    return gy * (x + x)


@expression(1)
def cube(e: Emitter, x: Vec) -> Vec:
    return x * x * x


@expression(2)
def cube_backward(e: Emitter, gy: Vec, x: Vec) -> Vec:
    return gy * (x * x * 3.0)


@expression(1)
def sqrt(e: Emitter, x: Vec) -> Vec:
    return e.unary("sqrt", x)


@expression(2)
def sqrt_backward(e: Emitter, gy: Vec, y: Vec) -> Vec:
    return gy / (y + y)


@expression(1)
def rsqrt(e: Emitter, x: Vec) -> Vec:
    return 1.0 / sqrt(e, x)


@expression(2)
def rsqrt_backward(e: Emitter, gy: Vec, y: Vec) -> Vec:
    return gy * (y * y * y * -0.5)


@expression(1)
def reciprocal(e: Emitter, x: Vec) -> Vec:
    return 1.0 / x


@expression(2)
def reciprocal_backward(e: Emitter, gy: Vec, y: Vec) -> Vec:
    return gy * -(y * y)


@expression(1)
def inverse_square(e: Emitter, x: Vec) -> Vec:
    return 1.0 / (x * x)


@expression(1, unroll=1)
def exp(e: Emitter, x: Vec) -> Vec:
    return elementary.exp(e, x)


@expression(1, unroll=1)
def expm1(e: Emitter, x: Vec) -> Vec:
    return e.select(x.compare("==", 0.0), x, elementary.expm1(e, x))  # -0 keeps its sign


@expression(2)
def expm1_backward(e: Emitter, gy: Vec, y: Vec) -> Vec:
    return gy * (y + 1.0)


@expression(1, unroll=1)
def log(e: Emitter, x: Vec) -> Vec:
    return elementary.log(e, x)


@expression(1, unroll=1)
def log1p(e: Emitter, x: Vec) -> Vec:
    return e.select(x.compare("==", 0.0), x, elementary.log1p(e, x))


@expression(2)
def log1p_backward(e: Emitter, gy: Vec, x: Vec) -> Vec:
    return gy / (x + 1.0)


@expression(1)
def clamp(e: Emitter, x: Vec, low: Vec, high: Vec) -> Vec:
    return e.minimum(e.maximum(x, low), high)


@expression(2)
def clamp_backward(e: Emitter, gy: Vec, x: Vec, low: Vec, high: Vec) -> Vec:
    return e.select(e.both(x.compare(">=", low), x.compare("<=", high)), gy, 0.0)
