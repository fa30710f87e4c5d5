"""Named loss cases: losses of classes, and losses of numbers with their formula."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class ClassCase:
    """Scores (N, C, *d), or (C,), and class indices."""

    name: str
    shape: tuple[int, ...]
    weight: bool = False
    ignore_index: int = -100
    label_smoothing: float = 0.0

    def __str__(self) -> str:
        return self.name


CLASSES = [
    ClassCase("vectors", (5, 4)),
    ClassCase("weight", (5, 4), weight=True),
    ClassCase("ignored", (6, 4), ignore_index=2),
    ClassCase("ignored and weight", (6, 4), weight=True, ignore_index=2),
    ClassCase("smoothed", (5, 4), label_smoothing=0.2),
    ClassCase("smoothed, ignored and weight", (6, 4), weight=True, ignore_index=2, label_smoothing=0.3),
    ClassCase("smoothed to the end", (5, 4), label_smoothing=1.0),
    ClassCase("sequences", (3, 4, 5), weight=True),
    ClassCase("images", (2, 3, 4, 5), weight=True, ignore_index=1, label_smoothing=0.1),
    ClassCase("volumes", (2, 3, 2, 2, 3)),
    ClassCase("a vector of classes and one", (4, 17), weight=True),
    ClassCase("one class", (3, 1)),
    ClassCase("one sample", (1, 6)),
]


@dataclass(frozen=True)
class NumberCase:
    """`formula` of (input, target) numbers; `inputs` and `targets` say which numbers make sense."""

    function: str
    formula: Callable[..., float]
    options: dict[str, Any] = field(default_factory=dict)
    inputs: str = "real"  # real, probability, positive
    targets: str = "real"  # real, probability, sign, count, positive
    module: str = ""

    def __str__(self) -> str:
        options = ", ".join(f"{name}={value}" for name, value in self.options.items())
        return f"{self.function}({options})"


def softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def smooth(beta: float) -> Callable[[float, float], float]:
    return lambda x, t: 0.5 * (x - t) ** 2 / beta if abs(x - t) < beta else abs(x - t) - 0.5 * beta


def huber(delta: float) -> Callable[[float, float], float]:
    return lambda x, t: 0.5 * (x - t) ** 2 if abs(x - t) <= delta else delta * (abs(x - t) - 0.5 * delta)


def stirling(t: float) -> float:
    return t * math.log(t) - t + 0.5 * math.log(2 * math.pi * t) if t > 1 else 0.0


NUMBERS = [
    NumberCase("mse_loss", lambda x, t: (x - t) ** 2, module="MSELoss"),
    NumberCase("l1_loss", lambda x, t: abs(x - t), module="L1Loss"),
    NumberCase("smooth_l1_loss", smooth(1.0), module="SmoothL1Loss"),
    NumberCase("smooth_l1_loss", smooth(0.25), {"beta": 0.25}, module="SmoothL1Loss"),
    NumberCase("smooth_l1_loss", lambda x, t: abs(x - t), {"beta": 0.0}, module="SmoothL1Loss"),
    NumberCase("huber_loss", huber(1.0), module="HuberLoss"),
    NumberCase("huber_loss", huber(0.4), {"delta": 0.4}, module="HuberLoss"),
    NumberCase(
        "binary_cross_entropy",
        lambda p, t: -(t * math.log(p) + (1 - t) * math.log1p(-p)),
        inputs="probability",
        targets="probability",
        module="BCELoss",
    ),
    NumberCase(
        "binary_cross_entropy_with_logits",
        lambda x, t: t * softplus(-x) + (1 - t) * softplus(x),
        targets="probability",
        module="BCEWithLogitsLoss",
    ),
    NumberCase(
        "kl_div",
        lambda x, t: t * (math.log(t) - x) if t else 0.0,
        targets="probability",
        module="KLDivLoss",
    ),
    NumberCase("kl_div", lambda x, t: math.exp(t) * (t - x), {"log_target": True}, module="KLDivLoss"),
    NumberCase("poisson_nll_loss", lambda x, t: math.exp(x) - t * x, targets="count", module="PoissonNLLLoss"),
    NumberCase(
        "poisson_nll_loss",
        lambda x, t: x - t * math.log(x + 1e-8) + stirling(t),
        {"log_input": False, "full": True},
        inputs="positive",
        targets="count",
        module="PoissonNLLLoss",
    ),
    NumberCase("soft_margin_loss", lambda x, t: softplus(-t * x), targets="sign", module="SoftMarginLoss"),
    NumberCase(
        "hinge_embedding_loss",
        lambda x, t: x if t == 1 else max(0.0, 1 - x),
        targets="sign",
        module="HingeEmbeddingLoss",
    ),
    NumberCase(
        "hinge_embedding_loss",
        lambda x, t: x if t == 1 else max(0.0, 0.3 - x),
        {"margin": 0.3},
        targets="sign",
        module="HingeEmbeddingLoss",
    ),
]
