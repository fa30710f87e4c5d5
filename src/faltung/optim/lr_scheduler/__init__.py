"""Schedules of the learning rate: after every epoch, or every `optimizer.step()`, call the scheduler's `step()`."""

from faltung.optim.lr_scheduler.base import LRScheduler
from faltung.optim.lr_scheduler.composite import ChainedScheduler, SequentialLR
from faltung.optim.lr_scheduler.cosine import CosineAnnealingLR, CosineAnnealingWarmRestarts
from faltung.optim.lr_scheduler.cyclic import CyclicLR, OneCycleLR
from faltung.optim.lr_scheduler.decay import (
    ConstantLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    MultiplicativeLR,
    MultiStepLR,
    PolynomialLR,
    StepLR,
)
from faltung.optim.lr_scheduler.plateau import ReduceLROnPlateau

_LRScheduler = LRScheduler  # the name of its first years, which scripts still derive from

__all__ = [
    "ChainedScheduler",
    "ConstantLR",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "CyclicLR",
    "ExponentialLR",
    "LRScheduler",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "MultiplicativeLR",
    "OneCycleLR",
    "PolynomialLR",
    "ReduceLROnPlateau",
    "SequentialLR",
    "StepLR",
]
