"""Losses in plain NumPy: the oracle, and the fallback. N batch, C classes, d spatial sizes (maybe none).

cross_entropy_forward(logits, target, weight, ignore_index, label_smoothing, reduction) -> (loss, lse, total)
    logits (N, C, *d), target (N, *d) of class indices, weight (C,) or None; lse (N, *d) is the logarithm of the sum of
    exponentials over the classes, total the 0-d weight of all targets that count (the divisor of "mean").
cross_entropy_backward(gy, logits, target, weight, lse, total, ignore_index, label_smoothing, reduction) -> glogits
nll_forward(log_probs, target, weight, ignore_index, reduction) -> (loss, total)
nll_backward(gy, log_probs, target, weight, total, ignore_index, reduction) -> glog_probs
mse_forward(x, target, reduction) -> loss
mse_backward(gy, x, target, reduction) -> gx
l1_forward(x, target, reduction) -> loss
l1_backward(gy, x, target, reduction) -> gx
smooth_l1_forward(x, target, reduction, beta) -> loss, beta > 0
smooth_l1_backward(gy, x, target, reduction, beta) -> gx
huber_forward(x, target, reduction, delta) -> loss
huber_backward(gy, x, target, reduction, delta) -> gx
bce_forward(p, target, weight, reduction) -> loss
bce_backward(gy, p, target, weight, reduction) -> gp
bce_logits_forward(x, target, weight, pos_weight, reduction) -> loss
bce_logits_backward(gy, x, target, weight, pos_weight, reduction) -> gx

`reduction` is "none", "mean" or "sum"; a reduced loss is 0-d. Targets are checked before they get here.
"""

from __future__ import annotations

import numpy as np

from faltung.engine.reference.activation import log_sigmoid_forward, sigmoid_forward
from faltung.engine.reference.precision import reference

Array = np.ndarray


def _reduced(loss: Array, reduction: str) -> Array:
    if reduction == "none":
        return loss
    total = loss.sum(dtype=np.float64)
    if reduction == "mean":
        total = total / np.float64(loss.size)
    return np.asarray(total, dtype=loss.dtype)


def _spread(gy: Array, count: int, reduction: str) -> Array:
    """The gradient of every element of an unreduced loss of `count` elements."""
    return gy / np.asarray(count, dtype=gy.dtype) if reduction == "mean" else gy


def _class_weights(weight: Array | None, target: Array, counts: Array, dtype: np.dtype) -> Array:
    """The weight of every target, zero where it is ignored; (N, *d)."""
    if weight is None:
        return counts.astype(dtype)
    return np.where(counts, weight[np.where(counts, target, 0)], 0).astype(dtype, copy=False)


def _of_class(values: Array, index: Array) -> Array:
    """values (N, C, *d) at class index (N, *d)."""
    return np.take_along_axis(values, np.expand_dims(index, 1), axis=1).squeeze(1)


def _smoothing_weights(weight: Array | None, classes: int, ndim: int, dtype: np.dtype) -> Array:
    values = np.ones(classes, dtype) if weight is None else weight
    return values.reshape((1, -1) + (1,) * (ndim - 2))


def _weighted_mean(loss: Array, total: Array, reduction: str) -> Array:
    if reduction == "none":
        return loss
    value = loss.sum(dtype=np.float64)
    return np.asarray(value / total if reduction == "mean" else value, dtype=loss.dtype)


def _by_total(gy: Array, total: Array, reduction: str) -> Array:
    """The gradient of every weighted loss. Where nothing counts the mean is NaN, but no input has a part in it."""
    return gy / np.where(total == 0, 1, total) if reduction == "mean" else gy


@reference(wide=(1, 2))
def cross_entropy_forward(
    logits: Array, target: Array, weight: Array | None, ignore_index: int, label_smoothing: float, reduction: str
) -> tuple[Array, Array, Array]:
    counts = target != ignore_index
    w = _class_weights(weight, target, counts, logits.dtype)
    largest = logits.max(axis=1, keepdims=True) if logits.size else np.zeros_like(logits[:, :1])
    shifted = logits - largest
    log_sum = np.log(np.exp(shifted).sum(axis=1))  # (N, *d)
    picked = np.where(counts, log_sum - _of_class(shifted, np.where(counts, target, 0)), 0)
    loss = w * picked
    if label_smoothing:
        share = label_smoothing / logits.shape[1]
        smooth = _smoothing_weights(weight, logits.shape[1], logits.ndim, logits.dtype)
        spread = np.where(counts, (smooth * (log_sum[:, None] - shifted)).sum(axis=1), 0)
        loss = (1 - label_smoothing) * loss + share * spread
    total = np.asarray(w.sum(dtype=np.float64), dtype=logits.dtype)
    return _weighted_mean(loss, total, reduction), log_sum + largest.squeeze(1), total


@reference()
def cross_entropy_backward(
    gy: Array,
    logits: Array,
    target: Array,
    weight: Array | None,
    lse: Array,
    total: Array,
    ignore_index: int,
    label_smoothing: float,
    reduction: str,
) -> Array:
    counts = target != ignore_index
    w = _class_weights(weight, target, counts, logits.dtype) * (1 - label_smoothing)
    smooth = _smoothing_weights(weight, logits.shape[1], logits.ndim, logits.dtype) * (
        label_smoothing / logits.shape[1]
    )
    mass = w + counts * smooth.sum()  # what multiplies the probabilities; (N, *d)
    gx = np.exp(logits - lse[:, None]) * mass[:, None].astype(logits.dtype, copy=False)
    index = np.expand_dims(np.where(counts, target, 0), 1)
    at_target = np.take_along_axis(gx, index, axis=1) - w[:, None]
    np.put_along_axis(gx, index, at_target, axis=1)
    if label_smoothing:
        gx -= smooth * counts[:, None]
    scale = _by_total(gy, total, reduction)
    return gx * (scale if reduction != "none" else scale[:, None])


@reference(wide=(1,))
def nll_forward(
    log_probs: Array, target: Array, weight: Array | None, ignore_index: int, reduction: str
) -> tuple[Array, Array]:
    counts = target != ignore_index
    w = _class_weights(weight, target, counts, log_probs.dtype)
    loss = np.where(counts, -w * _of_class(log_probs, np.where(counts, target, 0)), 0).astype(log_probs.dtype)
    total = np.asarray(w.sum(dtype=np.float64), dtype=log_probs.dtype)
    return _weighted_mean(loss, total, reduction), total


@reference()
def nll_backward(
    gy: Array, log_probs: Array, target: Array, weight: Array | None, total: Array, ignore_index: int, reduction: str
) -> Array:
    counts = target != ignore_index
    w = _class_weights(weight, target, counts, log_probs.dtype)
    scale = _by_total(gy, total, reduction)
    gx = np.zeros_like(log_probs)
    values = np.where(counts, -w * scale, 0).astype(log_probs.dtype, copy=False)
    np.put_along_axis(gx, np.expand_dims(np.where(counts, target, 0), 1), values[:, None], axis=1)
    return gx


@reference()
def mse_forward(x: Array, target: Array, reduction: str) -> Array:
    error = x - target
    return _reduced(error * error, reduction)


@reference()
def mse_backward(gy: Array, x: Array, target: Array, reduction: str) -> Array:
    return (x - target) * (2 * _spread(gy, x.size, reduction))


@reference()
def l1_forward(x: Array, target: Array, reduction: str) -> Array:
    return _reduced(np.abs(x - target), reduction)


@reference()
def l1_backward(gy: Array, x: Array, target: Array, reduction: str) -> Array:
    return np.sign(x - target) * _spread(gy, x.size, reduction)


@reference()
def smooth_l1_forward(x: Array, target: Array, reduction: str, beta: float) -> Array:
    error = np.abs(x - target)
    return _reduced(np.where(error < beta, 0.5 * error * error / beta, error - 0.5 * beta), reduction)


@reference()
def smooth_l1_backward(gy: Array, x: Array, target: Array, reduction: str, beta: float) -> Array:
    error = x - target
    return np.where(np.abs(error) < beta, error / beta, np.sign(error)) * _spread(gy, x.size, reduction)


@reference()
def huber_forward(x: Array, target: Array, reduction: str, delta: float) -> Array:
    error = np.abs(x - target)
    return _reduced(np.where(error <= delta, 0.5 * error * error, delta * (error - 0.5 * delta)), reduction)


@reference()
def huber_backward(gy: Array, x: Array, target: Array, reduction: str, delta: float) -> Array:
    return np.minimum(np.maximum(x - target, -delta), delta) * _spread(gy, x.size, reduction)


@reference()
def bce_forward(p: Array, target: Array, weight: Array | None, reduction: str) -> Array:
    # Logarithms stop at -100, so that p = 0 or 1 gives a finite loss, as in PyTorch.
    loss = -(target * np.maximum(np.log(p), -100) + (1 - target) * np.maximum(np.log1p(-p), -100))
    return _reduced(loss if weight is None else loss * weight, reduction)


@reference()
def bce_backward(gy: Array, p: Array, target: Array, weight: Array | None, reduction: str) -> Array:
    gp = _spread(gy, p.size, reduction) * (p - target) / np.maximum((1 - p) * p, 1e-12)
    return gp if weight is None else gp * weight


@reference()
def bce_logits_forward(
    x: Array, target: Array, weight: Array | None, pos_weight: Array | None, reduction: str
) -> Array:
    if pos_weight is None:
        loss = (1 - target) * x - log_sigmoid_forward(x)
    else:
        loss = (1 - target) * x - (1 + (pos_weight - 1) * target) * log_sigmoid_forward(x)
    return _reduced(loss if weight is None else loss * weight, reduction)


@reference()
def bce_logits_backward(
    gy: Array, x: Array, target: Array, weight: Array | None, pos_weight: Array | None, reduction: str
) -> Array:
    count = np.broadcast_shapes(x.shape, () if pos_weight is None else pos_weight.shape)
    s = sigmoid_forward(x)
    if pos_weight is None:
        gx = s - target
    else:
        positive = pos_weight * target
        gx = (positive + 1 - target) * s - positive
    gx = gx * _spread(gy, int(np.prod(count)), reduction)
    return gx if weight is None else gx * weight
