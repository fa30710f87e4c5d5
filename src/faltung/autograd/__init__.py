"""Differentiation: the tape, its modes, and tools around it."""

from __future__ import annotations

from faltung.autograd import functional, modes
from faltung.autograd.function import Function, once_differentiable
from faltung.autograd.gradcheck import GradcheckError, gradcheck, gradgradcheck
from faltung.autograd.graph import Node, Op
from faltung.autograd.interface import backward, grad
from faltung.autograd.modes import (
    enable_grad,
    inference_mode,
    is_grad_enabled,
    is_inference_mode_enabled,
    no_grad,
    set_grad_enabled,
)

__all__ = [
    "Function",
    "GradcheckError",
    "Node",
    "Op",
    "backward",
    "enable_grad",
    "functional",
    "grad",
    "gradcheck",
    "gradgradcheck",
    "inference_mode",
    "is_grad_enabled",
    "is_inference_mode_enabled",
    "modes",
    "no_grad",
    "once_differentiable",
    "set_grad_enabled",
]
