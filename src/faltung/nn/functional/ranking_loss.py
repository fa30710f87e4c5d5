"""Margin, ranking and embedding losses: PyTorch's signatures, and errors that say what to do.

`reduction` is "mean", "sum" or "none" (ValueError otherwise); `size_average` and `reduce` are its deprecated forms.
"""

from __future__ import annotations

from collections.abc import Callable

from faltung import dtypes
from faltung.nn.functional._checks import as_number, check_tensors, message, shape_text
from faltung.nn.functional._loss_checks import broadcast_shape, floating, reduction_name
from faltung.nn.functional.distance import pairwise_distance
from faltung.ops import loss as loss_ops
from faltung.ops import ranking_loss as ops
from faltung.tensor import Tensor


def hinge_embedding_loss(
    input: Tensor,
    target: Tensor,
    margin: float = 1.0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """x where target is 1, max(0, margin - x) where it is -1. Module twin: `nn.HingeEmbeddingLoss`."""
    where = "hinge_embedding_loss"
    check_tensors(where, input=input, target=target)
    reduction = reduction_name(where, reduction, size_average, reduce)
    broadcast_shape(where, input=input, target=target)
    return ops.hinge_embedding_loss(input, target, as_number(where, "margin", margin), reduction)


def soft_margin_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """log(1 + exp(-target * input)) for targets 1 and -1. Module twin: `nn.SoftMarginLoss`."""
    where = "soft_margin_loss"
    check_tensors(where, input=input, target=target)
    reduction = reduction_name(where, reduction, size_average, reduce)
    broadcast_shape(where, input=input, target=target)
    if input._data.dtype.kind != "f":
        raise RuntimeError(
            message(where, f"the result is floating point, which input {input.dtype} can't hold", "Use input.float().")
        )
    return loss_ops.soft_margin_loss(input, target, reduction).to(input.dtype)


def margin_ranking_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    margin: float = 0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """max(0, margin - target * (input1 - input2)): target 1 ranks input1 higher, -1 lower. Twin:
    `nn.MarginRankingLoss`.

    Raises RuntimeError for tensors of different numbers of dimensions.
    """
    where = "margin_ranking_loss"
    check_tensors(where, input1=input1, input2=input2, target=target)
    reduction = reduction_name(where, reduction, size_average, reduce)
    if not input1.dim() == input2.dim() == target.dim():
        raise RuntimeError(
            message(
                where,
                f"All input tensors should have same dimension but got input1 {shape_text(input1.shape)}, input2 "
                f"{shape_text(input2.shape)}, target {shape_text(target.shape)}",
            )
        )
    broadcast_shape(where, input1=input1, input2=input2, target=target)
    return ops.margin_ranking_loss(input1, input2, target, as_number(where, "margin", margin), reduction)


def multi_margin_loss(
    input: Tensor,
    target: Tensor,
    p: int = 1,
    margin: float = 1.0,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Mean over classes of max(0, margin - x[target] + x[class])^p; input (N, C) or (C,). Twin: `nn.MultiMarginLoss`.

    target (N,) of class indices (int64), weight (C,). Raises ValueError for p other than 1 and 2, RuntimeError for
    the rest.
    """
    where = "multi_margin_loss"
    check_tensors(where, ("weight",), input=input, target=target, weight=weight)
    reduction = reduction_name(where, reduction, size_average, reduce)
    if p not in (1, 2):
        raise ValueError(message(where, f"only p == 1 and p == 2 supported, got p={p}"))
    if weight is not None and weight.dim() != 1:
        raise ValueError(message(where, f"weight must be one-dimensional, got {shape_text(weight.shape)}"))
    scores = _vector_or_matrix(where, input)
    if target.dim() > 1 or target.numel() != scores.shape[0]:
        raise RuntimeError(
            message(where, f"target must be 1-D with one class index per sample, {scores.shape[0]}, got "
                           f"{shape_text(target.shape)} for input {shape_text(input.shape)}")
        )  # fmt: skip
    classes = scores.shape[1]
    _check_labels(where, target, 0, classes)
    if weight is not None and weight.numel() != classes:
        raise RuntimeError(
            message(where, f"inconsistent weight size, expected {classes} but got {shape_text(weight.shape)}")
        )
    if scores.shape[0] == 0:
        return loss_ops.reduced(scores.sum(1), "none" if reduction == "none" else "sum")
    loss = ops.multi_margin_loss(scores, target.reshape(-1), p, as_number(where, "margin", margin), weight, reduction)
    return loss.reshape(target.shape) if reduction == "none" else loss


def multilabel_margin_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Mean of max(0, 1 - x[label] + x[other]) over labels and others; input, target (N, C) or (C,).

    target holds int64 class indices; a row ends at its first -1. Module twin: `nn.MultiLabelMarginLoss`.
    """
    where = "multilabel_margin_loss"
    check_tensors(where, input=input, target=target)
    reduction = reduction_name(where, reduction, size_average, reduce)
    scores = _vector_or_matrix(where, input)
    if target._data.shape != input._data.shape:
        raise RuntimeError(
            message(
                where, f"target must have the size of input {shape_text(input.shape)}, got {shape_text(target.shape)}"
            )
        )
    _check_labels(where, target, -1, scores.shape[1])
    if scores.shape[0] == 0:
        return loss_ops.reduced(scores.sum(1), "none" if reduction == "none" else "sum")
    loss = ops.multilabel_margin_loss(scores, target.reshape(scores.shape), reduction)
    return loss.reshape(input.shape[:-1]) if reduction == "none" else loss


def multilabel_soft_margin_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Binary cross entropy of sigmoid(x), averaged over the last dimension. Twin: `nn.MultiLabelSoftMarginLoss`."""
    where = "multilabel_soft_margin_loss"
    check_tensors(where, ("weight",), input=input, target=target, weight=weight)
    reduction = reduction_name(where, reduction, size_average, reduce)
    floating(where, input)
    if input.dim() == 0:
        raise IndexError(message(where, "input needs a last dimension of classes, got a 0-d tensor"))
    broadcast_shape(where, input=input, target=target)
    return ops.multilabel_soft_margin_loss(input, target, weight, reduction)


def triplet_margin_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    margin: float = 1.0,
    p: float = 2,
    eps: float = 1e-06,
    swap: bool = False,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """max(0, margin + |anchor - positive| - |anchor - negative|) with p-norms of the last dimension.

    swap=True takes the closer of anchor and positive to the negative (Balntas et al. 2016). Module twin:
    `nn.TripletMarginLoss`. Raises ValueError for a margin that is not positive, RuntimeError for sizes that do not fit.
    """
    where = "triplet_margin_loss"
    reduction = reduction_name(where, reduction, size_average, reduce)

    def distance(x1: Tensor, x2: Tensor) -> Tensor:
        return pairwise_distance(x1, x2, p, eps)

    return _triplet(where, anchor, positive, negative, distance, margin, swap, reduction)


def triplet_margin_with_distance_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    distance_function: Callable[[Tensor, Tensor], Tensor] | None = None,
    margin: float = 1.0,
    swap: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """`triplet_margin_loss` for any distance, Euclidean by default. Module twin: `nn.TripletMarginWithDistanceLoss`."""
    where = "triplet_margin_with_distance_loss"
    reduction = reduction_name(where, reduction)
    distance = pairwise_distance if distance_function is None else distance_function
    return _triplet(where, anchor, positive, negative, distance, margin, swap, reduction)


def _triplet(
    where: str,
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    distance: Callable[[Tensor, Tensor], Tensor],
    margin: float,
    swap: bool,
    reduction: str,
) -> Tensor:
    check_tensors(where, anchor=anchor, positive=positive, negative=negative)
    if as_number(where, "margin", margin) <= 0:
        raise ValueError(message(where, f"margin must be greater than 0, got {margin}"))
    if not anchor.dim() == positive.dim() == negative.dim():
        raise RuntimeError(
            message(
                where,
                "The anchor, positive, and negative tensors are expected to have the same number of dimensions, but "
                "got "
                f"anchor {shape_text(anchor.shape)}, positive {shape_text(positive.shape)} and negative "
                f"{shape_text(negative.shape)}",
            )
        )
    broadcast_shape(where, anchor=anchor, positive=positive, negative=negative)
    to_negative = distance(anchor, negative)
    if swap:
        to_negative = to_negative.minimum(distance(positive, negative))
    return ops.triplet_loss(distance(anchor, positive), to_negative, margin, reduction)


def cosine_embedding_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    margin: float = 0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """1 - cos(x1, x2) where target is 1, max(0, cos - margin) where it is -1; (N, D) with (N,), or (D,) with ().

    Module twin: `nn.CosineEmbeddingLoss`. Raises RuntimeError for shapes that do not fit.
    """
    where = "cosine_embedding_loss"
    check_tensors(where, input1=input1, input2=input2, target=target)
    reduction = reduction_name(where, reduction, size_average, reduce)
    if target.dim() > 1:
        raise RuntimeError(
            message(
                where, f"0D or 1D target tensor expected, multi-target not supported, got {shape_text(target.shape)}"
            )
        )
    wanted = target.dim() + 1
    if input1.dim() != wanted or input2.dim() != wanted:
        raise RuntimeError(
            message(
                where,
                f"{target.dim()}D target tensor expects {wanted}D input tensors, but found inputs with sizes "
                f"{shape_text(input1.shape)} and {shape_text(input2.shape)}",
            )
        )
    shape = broadcast_shape(where, input1=input1, input2=input2)
    if target.dim() and target.shape[0] not in (1, shape[0]) and shape[0] != 1:
        raise RuntimeError(
            message(where, f"target must hold one label per row, {shape[0]}, got {shape_text(target.shape)}")
        )
    return ops.cosine_embedding_loss(input1, input2, target, as_number(where, "margin", margin), reduction)


def _vector_or_matrix(where: str, input: Tensor) -> Tensor:
    """(N, C) from (N, C), (C,) or ()."""
    floating(where, input)
    shape = input._data.shape
    if len(shape) > 2 or 0 in shape[-1:]:
        raise RuntimeError(
            message(
                where, f"Expected non-empty vector or matrix with optional 0-dim batch size, got {shape_text(shape)}"
            )
        )
    return input if len(shape) == 2 else input.reshape(1, -1)


def _check_labels(where: str, target: Tensor, lowest: int, classes: int) -> None:
    if target.dtype is not dtypes.int64:
        raise RuntimeError(message(where, f"target must be int64, got {target.dtype}", "Use target.long()."))
    data = target._data
    if data.size and (data.min() < lowest or data.max() >= classes):
        raise RuntimeError(
            message(where, f"target out of range: expected {lowest} to {classes - 1}, got {data.min()} to {data.max()}")
        )
