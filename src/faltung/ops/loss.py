"""Classification and regression losses as differentiable operations. N batch, C classes, d spatial sizes.

`reduction` is "none", "mean" or "sum". The losses that training spends time in are fused, forward and backward; the
rest is written in operations on tensors. First gradients of the fused ones run as one kernel; when a graph of the
gradient is wanted, the same formula runs in operations on tensors.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np

from faltung import engine
from faltung.autograd import is_grad_enabled
from faltung.autograd.graph import Op
from faltung.ops.activation import log_sigmoid, sigmoid
from faltung.ops.apply import apply
from faltung.ops.arithmetic import LARGE
from faltung.ops.softmax import softmax
from faltung.tensor import Tensor

Gradients = tuple[Tensor | None, ...]
Array = np.ndarray


def reduced(loss: Tensor, reduction: str) -> Tensor:
    """The loss itself, its mean or its sum."""
    if reduction == "none":
        return loss
    return loss.mean() if reduction == "mean" else loss.sum()


def _per_element(gy: Tensor, count: int, reduction: str) -> Tensor:
    """The gradient of every element of an unreduced loss of `count` elements."""
    return gy / count if reduction == "mean" else gy


class LossBackward(Op):
    """The fused first gradient of a loss."""

    name = "loss_backward"

    @staticmethod
    def forward(ctx: Any, *arrays: Array | None, kernel: str, arguments: tuple[Any, ...]) -> Array:
        return engine.call(kernel, *arrays, *arguments)


# --- classes --------------------------------------------------------------------------------------------------------


def _check_classes(where: str, target: Array, classes: int, ignore_index: int) -> None:
    """IndexError unless every target that counts is the index of a class."""
    wrong = ((target < 0) | (target >= classes)) & (target != ignore_index)
    if wrong.any():
        raise IndexError(
            f"{where}: Target {target[wrong].reshape(-1)[0]} is out of bounds: expected class indices from 0 to "
            f"{classes - 1} (the input has {classes} classes) or ignore_index={ignore_index}.\n"
            "Count classes from 0, or give the input one channel per class."
        )


class CrossEntropy(Op):
    """-log softmax(logits)[target], weighted, smoothed and reduced: (loss, log-sum-exp, total weight).

    logits (N, C, *d), target (N, *d) of class indices, weight (C,) or None.
    """

    name = "cross_entropy"

    @staticmethod
    def forward(
        ctx: Any,
        logits: Array,
        target: Array,
        weight: Array | None,
        ignore_index: int,
        label_smoothing: float,
        reduction: str,
    ) -> tuple[Array, ...]:
        _check_classes("cross_entropy", target, logits.shape[1], ignore_index)
        ctx.save_inputs(0, 1, 2)
        ctx.save_outputs(1, 2)
        ctx.mark_non_differentiable(1, 2)
        ctx.arguments = (ignore_index, label_smoothing, reduction)
        return engine.call("loss.cross_entropy_forward", logits, target, weight, *ctx.arguments)

    @staticmethod
    def backward(ctx: Any, gy: Tensor, *_: Tensor | None) -> Gradients:
        logits, target, weight, lse, total = ctx.saved
        if not is_grad_enabled():
            how = {"kernel": "loss.cross_entropy_backward", "arguments": ctx.arguments}
            return apply(LossBackward, gy, logits, target, weight, lse, total, **how), None, None
        ignore_index, label_smoothing, reduction = ctx.arguments
        mass, pull = apply(
            CrossEntropyPull, logits, target, weight, ignore_index=ignore_index, label_smoothing=label_smoothing
        )
        gx = softmax(logits, 1) * mass - pull
        if reduction == "none":
            return gx * gy.unsqueeze(1), None, None
        total = total.detach()
        return gx * (gy / total.masked_fill(total == 0, 1) if reduction == "mean" else gy), None, None


class CrossEntropyPull(Op):
    """The constants in cross entropy's gradient mass * softmax(logits) - pull: (mass (N, 1, *d), pull (N, C, *d))."""

    name = "cross_entropy_pull"

    @staticmethod
    def forward(
        ctx: Any, logits: Array, target: Array, weight: Array | None, ignore_index: int, label_smoothing: float
    ) -> tuple[Array, Array]:
        classes = logits.shape[1]
        w = np.ones(classes, logits.dtype) if weight is None else weight
        counts = (target != ignore_index)[:, None]
        index = np.where(counts, target[:, None], 0)
        smooth = (w * (label_smoothing / classes)).reshape((1, -1) + (1,) * (logits.ndim - 2))
        pull = smooth * counts.astype(logits.dtype)
        at_target = (1 - label_smoothing) * w[index] * counts
        np.put_along_axis(pull, index, np.take_along_axis(pull, index, 1) + at_target, 1)
        return pull.sum(1, keepdims=True), pull


class NllLoss(Op):
    """-weight[target] * log_probs[target], reduced: (loss, total weight)."""

    name = "nll_loss"

    @staticmethod
    def forward(
        ctx: Any, log_probs: Array, target: Array, weight: Array | None, ignore_index: int, reduction: str
    ) -> tuple[Array, ...]:
        _check_classes("nll_loss", target, log_probs.shape[1], ignore_index)
        ctx.save_inputs(0, 1, 2)
        ctx.save_outputs(1)
        ctx.mark_non_differentiable(1)
        ctx.arguments = (ignore_index, reduction)
        return engine.call("loss.nll_forward", log_probs, target, weight, ignore_index, reduction)

    @staticmethod
    def backward(ctx: Any, gy: Tensor, *_: Tensor | None) -> Gradients:
        log_probs, target, weight, total = ctx.saved
        gx = apply(NllBackward, gy, log_probs.detach(), target, weight, total.detach(), arguments=ctx.arguments)
        return gx, None, None


class NllBackward(Op):
    """The gradient of NllLoss, which is linear: the gradient of this one is NllLoss again."""

    name = "nll_loss_backward"

    @staticmethod
    def forward(
        ctx: Any,
        gy: Array,
        log_probs: Array,
        target: Array,
        weight: Array | None,
        total: Array,
        arguments: tuple[int, str],
    ) -> Array:
        ctx.save_inputs(2, 3)
        ctx.arguments = arguments
        return engine.call("loss.nll_backward", gy, log_probs, target, weight, total, *arguments)

    @staticmethod
    def backward(ctx: Any, ggx: Tensor) -> Gradients:
        target, weight = ctx.saved
        return nll_loss(ggx, target, weight, *ctx.arguments), None, None, None, None


def cross_entropy(
    logits: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int, label_smoothing: float, reduction: str
) -> Tensor:
    """logits (N, C, *d), target (N, *d) of class indices."""
    how = {"ignore_index": ignore_index, "label_smoothing": label_smoothing, "reduction": reduction}
    return apply(CrossEntropy, logits, target, weight, **how)[0]


def nll_loss(log_probs: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int, reduction: str) -> Tensor:
    """log_probs (N, C, *d), target (N, *d) of class indices."""
    return apply(NllLoss, log_probs, target, weight, ignore_index=ignore_index, reduction=reduction)[0]


# --- element by element, fused --------------------------------------------------------------------------------------


class ElementLoss(Op):
    """A loss of x - target, reduced: kernels "loss.<kernel>_forward" and "_backward". Both have one shape."""

    forward_kernel: ClassVar[str]
    backward_kernel: ClassVar[str]

    def __init_subclass__(cls, kernel: str) -> None:
        cls.name = f"{kernel}_loss"
        cls.forward_kernel, cls.backward_kernel = f"loss.{kernel}_forward", f"loss.{kernel}_backward"

    @classmethod
    def forward(cls, ctx: Any, x: Array, target: Array, reduction: str, **number: float) -> Array:
        ctx.save_inputs(0, 1)
        ctx.reduction, ctx.number = reduction, number
        return engine.call(cls.forward_kernel, x, target, reduction, *number.values())

    @classmethod
    def backward(cls, ctx: Any, gy: Tensor) -> Gradients:
        x, target = ctx.saved
        if is_grad_enabled():
            gx = cls.slope(x - target, **ctx.number) * _per_element(gy, x.numel(), ctx.reduction)
        else:
            arguments = (ctx.reduction, *ctx.number.values())
            gx = apply(LossBackward, gy, x, target, kernel=cls.backward_kernel, arguments=arguments)
        return gx if ctx.needs_input_grad[0] else None, -gx if ctx.needs_input_grad[1] else None

    @staticmethod
    def slope(error: Tensor, **number: float) -> Tensor:
        """The derivative by the error, in operations on tensors."""
        raise NotImplementedError


class MseLoss(ElementLoss, kernel="mse"):
    """The squared error."""

    @staticmethod
    def slope(error: Tensor) -> Tensor:
        return error * 2


class L1Loss(ElementLoss, kernel="l1"):
    """The absolute error."""

    @staticmethod
    def slope(error: Tensor) -> Tensor:
        return error.sign()


class SmoothL1Loss(ElementLoss, kernel="smooth_l1"):
    """A parabola within `beta` of the target, lines of slope 1 outside; beta > 0."""

    @staticmethod
    def slope(error: Tensor, beta: float) -> Tensor:
        return (error / beta).clamp(-1, 1)


class HuberLoss(ElementLoss, kernel="huber"):
    """A parabola within `delta` of the target, lines of slope `delta` outside."""

    @staticmethod
    def slope(error: Tensor, delta: float) -> Tensor:
        return error.clamp(-delta, delta)


def _scaled(slope: Tensor, ctx: Any, gy: Tensor, weight: Tensor | None) -> Tensor:
    """The gradient of a weighted loss from the derivative of one element's loss."""
    found = slope * _per_element(gy, slope.numel(), ctx.reduction)
    return found if weight is None else found * weight


def extent(values: Array) -> tuple[Any, Any]:
    """The smallest and the largest element."""
    if values.size < LARGE:
        return values.min(), values.max()
    axes = tuple(range(values.ndim))
    return engine.call("reduce.smallest", values, axes), engine.call("reduce.largest", values, axes)


class BceLoss(Op):
    """-(t log p + (1 - t) log(1 - p)), weighted and reduced; logarithms stop at -100."""

    name = "binary_cross_entropy"

    @staticmethod
    def forward(ctx: Any, p: Array, target: Array, weight: Array | None, reduction: str) -> Array:
        for name, values in (("input", p), ("target", target)):
            least, most = extent(values) if values.size else (0, 0)
            if not (least >= 0 and most <= 1):  # NaN fails as well
                raise RuntimeError(
                    f"binary_cross_entropy: all elements of {name} should be between 0 and 1, got values from "
                    f"{least:g} to {most:g}.\n"
                    "For raw scores use binary_cross_entropy_with_logits, or apply sigmoid first."
                )
        ctx.save_inputs(0, 1, 2)
        ctx.reduction = reduction
        return engine.call("loss.bce_forward", p, target, weight, reduction)

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Gradients:
        p, target, weight = ctx.saved
        gp = gtarget = None
        if ctx.needs_input_grad[0] and not is_grad_enabled():
            how = {"kernel": "loss.bce_backward", "arguments": (ctx.reduction,)}
            gp = apply(LossBackward, gy, p, target, weight, **how)
        elif ctx.needs_input_grad[0]:
            slope = (p - target) / ((1 - p) * p).clamp(min=1e-12)
            gp = _scaled(slope, ctx, gy, weight)
        if ctx.needs_input_grad[1]:
            slope = (1 - p).log().clamp(min=-100) - p.log().clamp(min=-100)
            gtarget = _scaled(slope, ctx, gy, weight)
        return gp, gtarget, None


class BceWithLogits(Op):
    """Binary cross entropy of sigmoid(x), weighted and reduced; positives count pos_weight times."""

    name = "binary_cross_entropy_with_logits"

    @staticmethod
    def forward(
        ctx: Any, x: Array, target: Array, weight: Array | None, pos_weight: Array | None, reduction: str
    ) -> Array:
        ctx.save_inputs(0, 1, 2, 3)
        ctx.reduction = reduction
        return engine.call("loss.bce_logits_forward", x, target, weight, pos_weight, reduction)

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Gradients:
        x, target, weight, pos_weight = ctx.saved
        gx = gtarget = None
        if ctx.needs_input_grad[0] and not is_grad_enabled():
            how = {"kernel": "loss.bce_logits_backward", "arguments": (ctx.reduction,)}
            gx = apply(LossBackward, gy, x, target, weight, pos_weight, **how)
        elif ctx.needs_input_grad[0] and pos_weight is None:
            gx = _scaled(sigmoid(x) - target, ctx, gy, weight)
        elif ctx.needs_input_grad[0]:
            positive = pos_weight * target
            gx = _scaled((positive + 1 - target) * sigmoid(x) - positive, ctx, gy, weight)
        if ctx.needs_input_grad[1]:
            # log sigmoid(-x) - pos_weight * log sigmoid(x), which is -x without pos_weight
            slope = -x if pos_weight is None else log_sigmoid(-x) - pos_weight * log_sigmoid(x)
            gtarget = _scaled(slope, ctx, gy, weight)
        return gx, gtarget, None, None


def mse_loss(x: Tensor, target: Tensor, reduction: str) -> Tensor:
    return apply(MseLoss, x, target, reduction=reduction)


def l1_loss(x: Tensor, target: Tensor, reduction: str) -> Tensor:
    if x._data.dtype.kind != "f":
        return reduced((x - target).abs(), reduction)
    return apply(L1Loss, x, target, reduction=reduction)


def smooth_l1_loss(x: Tensor, target: Tensor, reduction: str, beta: float) -> Tensor:
    """Parabola within `beta` > 0 of the target, lines of slope 1 outside."""
    return apply(SmoothL1Loss, x, target, reduction=reduction, beta=beta)


def huber_loss(x: Tensor, target: Tensor, reduction: str, delta: float) -> Tensor:
    """delta times smooth_l1_loss with beta = delta."""
    return apply(HuberLoss, x, target, reduction=reduction, delta=delta)


def binary_cross_entropy(p: Tensor, target: Tensor, weight: Tensor | None, reduction: str) -> Tensor:
    return apply(BceLoss, p, target, weight, reduction=reduction)


def binary_cross_entropy_with_logits(
    x: Tensor, target: Tensor, weight: Tensor | None, pos_weight: Tensor | None, reduction: str
) -> Tensor:
    return apply(BceWithLogits, x, target, weight, pos_weight, reduction=reduction)


# --- element by element, in operations on tensors -------------------------------------------------------------------


def kl_div(x: Tensor, target: Tensor, reduction: str, log_target: bool) -> Tensor:
    """target * (log target - x), or exp(target) * (target - x); zero where the target probability is zero."""
    if log_target:
        return reduced(target.exp() * (target - x), reduction)
    return reduced(target.xlogy(target) - target * x, reduction)


def poisson_nll_loss(x: Tensor, target: Tensor, log_input: bool, full: bool, eps: float, reduction: str) -> Tensor:
    """exp(x) - target * x, or x - target * log(x + eps); `full` adds Stirling's formula for log(target!)."""
    loss = x.exp() - target * x if log_input else x - target * (x + eps).log()
    if full:
        stirling = target * target.log() - target + 0.5 * (2 * math.pi * target).log()
        loss = loss + stirling.masked_fill(target <= 1, 0)
    return reduced(loss, reduction)


def gaussian_nll_loss(x: Tensor, target: Tensor, var: Tensor, full: bool, reduction: str) -> Tensor:
    """0.5 * (log var + (x - target)^2 / var), with 0.5 * log(2 pi) if `full`."""
    loss = 0.5 * (var.log() + (x - target) ** 2 / var)
    return reduced(loss + 0.5 * math.log(2 * math.pi) if full else loss, reduction)


def soft_margin_loss(x: Tensor, target: Tensor, reduction: str) -> Tensor:
    """log(1 + exp(-target * x))."""
    return reduced(-log_sigmoid(target * x), reduction)
