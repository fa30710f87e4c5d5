"""Margin, ranking and embedding losses in operations on tensors. `reduction` is "none", "mean" or "sum"."""

from __future__ import annotations

from faltung.ops.activation import log_sigmoid, relu
from faltung.ops.loss import reduced
from faltung.tensor import Tensor


def hinge_embedding_loss(x: Tensor, target: Tensor, margin: float, reduction: str) -> Tensor:
    """x where the target is 1, max(0, margin - x) where it is -1."""
    apart = (margin - x).clamp(min=0).masked_fill(target == 1, 0)
    return reduced(apart + x.masked_fill(target == -1, 0), reduction)


def margin_ranking_loss(x1: Tensor, x2: Tensor, target: Tensor, margin: float, reduction: str) -> Tensor:
    """max(0, margin - target * (x1 - x2))."""
    return reduced((-target * (x1 - x2) + margin).clamp(min=0), reduction)


def multi_margin_loss(
    x: Tensor, target: Tensor, p: int, margin: float, weight: Tensor | None, reduction: str
) -> Tensor:
    """Mean over the other classes' max(0, margin - x[target] + x[class])^p; x (N, C), target (N,)."""
    index = target.unsqueeze(1)
    excess = relu(margin - x.gather(1, index) + x)
    if p == 2:
        excess = excess * excess
    if weight is not None:
        excess = excess * weight.index_select(0, target).unsqueeze(1)
    return reduced(excess.scatter(1, index, 0.0).sum(1) / x.shape[1], reduction)


def multilabel_margin_loss(x: Tensor, target: Tensor, reduction: str) -> Tensor:
    """Mean of max(0, 1 - x[target] + x[other]) over pairs; a target row ends at its first -1; x, target (N, C)."""
    listed = (target < 0).cumsum(1) == 0  # (N, C): before the first -1
    index = target.masked_fill(listed.logical_not(), 0)
    counts = x.new_zeros(x.shape).scatter_add(1, index, listed.to(x.dtype))
    others = (counts == 0).to(x.dtype)
    wanted = x.gather(1, index)  # (N, C): the scores of the targets
    excess = relu(1 - wanted.unsqueeze(2) + x.unsqueeze(1)) * others.unsqueeze(1)  # (N, target, other)
    return reduced((excess.sum(2) * listed.to(x.dtype)).sum(1) / x.shape[1], reduction)


def multilabel_soft_margin_loss(x: Tensor, target: Tensor, weight: Tensor | None, reduction: str) -> Tensor:
    """Binary cross entropy of sigmoid(x), averaged over the classes in the last dimension."""
    loss = -(target * log_sigmoid(x) + (1 - target) * log_sigmoid(-x))
    loss = loss if weight is None else loss * weight
    return reduced(loss.sum(-1) / x.shape[-1] if x.ndim else loss, reduction)


def triplet_loss(to_positive: Tensor, to_negative: Tensor, margin: float, reduction: str) -> Tensor:
    """max(0, margin + distance to the positive - distance to the negative)."""
    return reduced((margin + to_positive - to_negative).clamp(min=0), reduction)


def cosine_embedding_loss(x1: Tensor, x2: Tensor, target: Tensor, margin: float, reduction: str) -> Tensor:
    """1 - cos(x1, x2) where the target is 1, max(0, cos(x1, x2) - margin) where it is -1; along the last dimension."""
    tiny = 1e-12  # keeps the gradient of zero vectors finite
    lengths = ((x1 * x1).sum(-1) + tiny) * ((x2 * x2).sum(-1) + tiny)
    cosine = (x1 * x2).sum(-1) / lengths.sqrt()
    together = (1 - cosine).masked_fill(target != 1, 0)
    apart = (cosine - margin).clamp(min=0).masked_fill(target != -1, 0)
    return reduced(together + apart, reduction)
