"""Softmax and log-softmax along one dimension as differentiable operations. Both keep only their result."""

from __future__ import annotations

from typing import Any

import numpy as np

from faltung import engine
from faltung.autograd import is_grad_enabled
from faltung.autograd.graph import Op
from faltung.ops.apply import apply
from faltung.tensor import Tensor


class SoftmaxBackward(Op):
    """The fused first gradient of softmax or log-softmax."""

    name = "softmax_backward"

    @staticmethod
    def forward(ctx: Any, gy: np.ndarray, y: np.ndarray, kernel: str, axis: int) -> np.ndarray:
        return engine.call(kernel, gy, y, axis)


class Softmax(Op):
    """exp(x) / sum(exp(x)) along `axis`."""

    name = "softmax"

    @staticmethod
    def forward(ctx: Any, x: np.ndarray, axis: int) -> np.ndarray:
        ctx.axis = axis
        ctx.save_outputs(0)
        return engine.call("softmax.forward", x, axis)

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Tensor:
        (y,) = ctx.saved
        if is_grad_enabled():
            gx = gy * y
            return gx - y * gx.sum(ctx.axis, keepdim=True)
        return apply(SoftmaxBackward, gy, y, kernel="softmax.backward", axis=ctx.axis)


class LogSoftmax(Op):
    """x - log(sum(exp(x))) along `axis`."""

    name = "log_softmax"

    @staticmethod
    def forward(ctx: Any, x: np.ndarray, axis: int) -> np.ndarray:
        ctx.axis = axis
        ctx.save_outputs(0)
        return engine.call("softmax.log_forward", x, axis)

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Tensor:
        (y,) = ctx.saved
        if is_grad_enabled():
            return gy - y.exp() * gy.sum(ctx.axis, keepdim=True)
        return apply(SoftmaxBackward, gy, y, kernel="softmax.log_backward", axis=ctx.axis)


def softmax(x: Tensor, axis: int) -> Tensor:
    return apply(Softmax, x, axis=axis)


def log_softmax(x: Tensor, axis: int) -> Tensor:
    return apply(LogSoftmax, x, axis=axis)
