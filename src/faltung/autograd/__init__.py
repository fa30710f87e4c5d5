"""Differentiation: the tape, its modes, and tools around it."""

from __future__ import annotations

from faltung.autograd import functional, graph, modes
from faltung.autograd.anomaly import detect_anomaly, set_detect_anomaly
from faltung.autograd.function import Function, once_differentiable
from faltung.autograd.gradcheck import GradcheckError, gradcheck, gradgradcheck
from faltung.autograd.graph import Node, Op
from faltung.autograd.interface import backward, grad
from faltung.autograd.legacy import Variable, variable
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
    "Variable",
    "backward",
    "detect_anomaly",
    "enable_grad",
    "functional",
    "grad",
    "graph",
    "gradcheck",
    "gradgradcheck",
    "inference_mode",
    "is_grad_enabled",
    "is_inference_mode_enabled",
    "modes",
    "no_grad",
    "once_differentiable",
    "set_detect_anomaly",
    "set_grad_enabled",
    "variable",
]
