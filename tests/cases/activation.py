"""Named activation cases: the function, its options, and the formula for one number in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class ActivationCase:
    """`function` of `nn.functional`, `formula` the same for one Python float, `kinks` where it has no derivative."""

    function: str
    formula: Callable[[float], float]
    options: dict[str, Any] = field(default_factory=dict)
    kinks: tuple[float, ...] = ()
    module: str | None = None
    inplace: bool = False  # takes inplace=

    def __str__(self) -> str:
        options = ", ".join(f"{name}={value}" for name, value in self.options.items())
        return f"{self.function}({options})"


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def elu(alpha: float, scale: float = 1.0, stretch: float = 1.0) -> Callable[[float], float]:
    return lambda x: scale * (x if x > 0 else alpha * math.expm1(x * stretch))


def leaky(slope: float) -> Callable[[float], float]:
    return lambda x: x if x > 0 else slope * x


def gelu_tanh(x: float) -> float:
    return 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def softshrink(lambd: float) -> Callable[[float], float]:
    return lambda x: math.copysign(max(abs(x) - lambd, 0.0), x)


SELU = elu(1.6732632423543772, 1.0507009873554805)

CASES = [
    ActivationCase("relu", lambda x: max(x, 0.0), kinks=(0.0,), module="ReLU", inplace=True),
    ActivationCase("relu6", lambda x: min(max(x, 0.0), 6.0), kinks=(0.0, 6.0), module="ReLU6", inplace=True),
    ActivationCase("leaky_relu", leaky(0.01), kinks=(0.0,), module="LeakyReLU", inplace=True),
    ActivationCase("leaky_relu", leaky(0.2), {"negative_slope": 0.2}, (0.0,), "LeakyReLU", True),
    ActivationCase("leaky_relu", leaky(0.0), {"negative_slope": 0.0}, (0.0,), "LeakyReLU", True),
    ActivationCase("leaky_relu", leaky(-0.5), {"negative_slope": -0.5}, (0.0,), "LeakyReLU", True),
    ActivationCase("elu", elu(1.0), kinks=(0.0,), module="ELU", inplace=True),
    ActivationCase("elu", elu(1.7), {"alpha": 1.7}, (0.0,), "ELU", True),
    ActivationCase("elu", elu(-0.3), {"alpha": -0.3}, (0.0,), "ELU", True),
    ActivationCase("selu", SELU, kinks=(0.0,), module="SELU", inplace=True),
    ActivationCase("celu", elu(1.0), kinks=(0.0,), module="CELU", inplace=True),
    ActivationCase("celu", elu(2.5, stretch=1 / 2.5), {"alpha": 2.5}, (0.0,), "CELU", True),
    ActivationCase("gelu", lambda x: 0.5 * x * math.erfc(-x / math.sqrt(2)), module="GELU"),
    ActivationCase("gelu", gelu_tanh, {"approximate": "tanh"}, module="GELU"),
    ActivationCase("silu", lambda x: x * sigmoid(x), module="SiLU", inplace=True),
    ActivationCase("mish", lambda x: x * math.tanh(softplus(x)), module="Mish", inplace=True),
    ActivationCase(
        "hardswish", lambda x: x * min(max(x + 3, 0), 6) / 6, kinks=(-3.0, 3.0), module="Hardswish", inplace=True
    ),
    ActivationCase(
        "hardsigmoid", lambda x: min(max(x + 3, 0), 6) / 6, kinks=(-3.0, 3.0), module="Hardsigmoid", inplace=True
    ),
    ActivationCase("hardtanh", lambda x: min(max(x, -1.0), 1.0), kinks=(-1.0, 1.0), module="Hardtanh", inplace=True),
    ActivationCase(
        "hardtanh", lambda x: min(max(x, -0.5), 2.0), {"min_val": -0.5, "max_val": 2.0}, (-0.5, 2.0), "Hardtanh", True
    ),
    ActivationCase("softplus", lambda x: x if x > 20 else softplus(x), module="Softplus"),
    ActivationCase(
        "softplus", lambda x: x if 2 * x > 3 else softplus(2 * x) / 2, {"beta": 2, "threshold": 3}, (1.5,), "Softplus"
    ),
    ActivationCase("softsign", lambda x: x / (1 + abs(x)), kinks=(0.0,), module="Softsign"),
    ActivationCase("softshrink", softshrink(0.5), kinks=(-0.5, 0.5), module="Softshrink"),
    ActivationCase("softshrink", softshrink(1.25), {"lambd": 1.25}, (-1.25, 1.25), "Softshrink"),
    ActivationCase("hardshrink", lambda x: x if abs(x) > 0.5 else 0.0, kinks=(-0.5, 0.5), module="Hardshrink"),
    ActivationCase("tanhshrink", lambda x: x - math.tanh(x), module="Tanhshrink"),
    ActivationCase(
        "threshold", lambda x: x if x > 0.25 else 3.0, {"threshold": 0.25, "value": 3.0}, (0.25,), "Threshold", True
    ),
    ActivationCase("sigmoid", sigmoid, module="Sigmoid"),
    ActivationCase("tanh", math.tanh, module="Tanh"),
    ActivationCase("logsigmoid", lambda x: -softplus(-x), module="LogSigmoid"),
    ActivationCase("rrelu", leaky((1 / 8 + 1 / 3) / 2), kinks=(0.0,), inplace=True),
]

# Both sides of every kink, exact hits, both ends of the range, and enough of them to fill several vectors with a rest.
VALUES = [
    *(i / 4 for i in range(-37, 38)),
    *(sign * (edge + shift) for sign in (-1, 1) for edge in (0.5, 1.0, 3.0, 6.0, 20.0) for shift in (-1e-3, 1e-3)),
    0.0,
    -0.0,
    30.0,
    -30.0,
    85.0,
    -85.0,
]
