"""Classification and regression losses: PyTorch's signatures, and errors that say what to do.

`reduction` is "mean", "sum" or "none" (ValueError otherwise); `size_average` and `reduce` are its deprecated forms.
Letters: N batch, C classes, d spatial sizes (maybe none).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from faltung import dtypes
from faltung.nn.functional._checks import (
    as_number,
    check_same_dtype,
    check_tensors,
    message,
    not_implemented_for,
    shape_text,
)
from faltung.nn.functional._loss_checks import (
    broadcast_pair,
    broadcast_shape,
    class_targets,
    floating,
    reduction_name,
)
from faltung.ops import ctc as ctc_ops
from faltung.ops import loss as ops
from faltung.ops.softmax import log_softmax
from faltung.tensor import Tensor

# --- classes ----------------------------------------------------------------------------------------------------------


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """-log softmax(input)[target]: logits in, no softmax before. Module twin: `nn.CrossEntropyLoss`.

    Shapes: input (N, C, *d) or (C,); target (N, *d) or () of class indices (int64 or uint8), or of class
    probabilities in the shape of input; weight (C,). Targets equal to ignore_index do not count; "mean" divides by
    the weight of those that do. Raises IndexError for an index that is no class, ValueError for batch sizes and
    RuntimeError for other shapes, dtypes and a label_smoothing that do not fit.
    """
    where = "cross_entropy"
    check_tensors(where, ("weight",), input=input, target=target, weight=weight)
    reduction = reduction_name(where, reduction, size_average, reduce)
    if label_smoothing > 1:
        raise RuntimeError(message(where, f"label_smoothing must be between 0.0 and 1.0, got {label_smoothing}"))
    label_smoothing = max(float(label_smoothing), 0.0)
    floating(where, input)
    if input._data.shape == target._data.shape and (target._data.dtype.kind == "f" or input.dim() == 0):
        return _probability_cross_entropy(input, target, weight, reduction, ignore_index, label_smoothing)
    logits, classes = class_targets(where, input, target, weight)
    loss = ops.cross_entropy(logits, classes, weight, ignore_index, label_smoothing, reduction)
    return loss.reshape(target.shape) if reduction == "none" else loss


def _probability_cross_entropy(
    input: Tensor, target: Tensor, weight: Tensor | None, reduction: str, ignore_index: int, label_smoothing: float
) -> Tensor:
    """-sum over classes of target * weight * log softmax(input); "mean" divides by everything but the classes."""
    where = "cross_entropy"
    if target._data.dtype.kind != "f":
        raise RuntimeError(
            message(where, f"Expected floating point type for target with class probabilities, got {target.dtype}")
        )
    if ignore_index >= 0:
        raise RuntimeError(
            message(where, f"ignore_index is not supported for floating point target, got ignore_index={ignore_index}")
        )
    axis = 0 if input.dim() <= 1 else 1
    classes = input.shape[axis] if input.dim() else 1
    if weight is not None and weight._data.shape != (classes,):
        raise RuntimeError(
            message(where, f"weight must hold one number for each of {classes} classes, got {shape_text(weight.shape)}")
        )
    if label_smoothing:
        target = target * (1 - label_smoothing) + label_smoothing / classes
    terms = log_softmax(input, axis) * target
    if weight is not None:
        terms = terms * weight.reshape([classes if d == axis else 1 for d in range(input.dim())])
    if reduction == "none":
        return -terms.sum(axis)
    total = -terms.sum()
    return total / (input.numel() / classes if input.numel() else 0) if reduction == "mean" else total


def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """-input[target] for log-probabilities, as `log_softmax` makes them. Module twin: `nn.NLLLoss`.

    Shapes, ignore_index, weight and errors as in `cross_entropy`.
    """
    where = "nll_loss"
    check_tensors(where, ("weight",), input=input, target=target, weight=weight)
    reduction = reduction_name(where, reduction, size_average, reduce)
    scores, classes = class_targets(where, floating(where, input), target, weight)
    loss = ops.nll_loss(scores, classes, weight, ignore_index, reduction)
    return loss.reshape(target.shape) if reduction == "none" else loss


def binary_cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """-(t log p + (1 - t) log(1 - p)) for probabilities p in [0, 1] and targets in [0, 1]. Module twin: `nn.BCELoss`.

    Raises ValueError for shapes that differ, RuntimeError for values outside [0, 1] and for dtypes that differ.
    """
    where = "binary_cross_entropy"
    check_tensors(where, ("weight",), input=input, target=target, weight=weight)
    reduction = reduction_name(where, reduction, size_average, reduce)
    if input._data.shape != target._data.shape:
        raise ValueError(
            message(
                where,
                f"Using a target size ({shape_text(target.shape)}) that is different to the input size "
                f"({shape_text(input.shape)}) is deprecated. Please ensure they have the same size",
            )
        )
    if weight is not None:
        shape = broadcast_shape(where, target=target, weight=weight)
        weight = weight.expand(shape)
    floating(where, input)
    check_same_dtype(where, input=input, target=target, weight=weight)
    return ops.binary_cross_entropy(input, target, weight, reduction)


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """`binary_cross_entropy` of sigmoid(input), exact for large scores. Module twin: `nn.BCEWithLogitsLoss`.

    weight and pos_weight (which counts positives that many times) broadcast to the input.
    Raises ValueError for shapes of input and target that differ, RuntimeError for weights that do not broadcast.
    """
    where = "binary_cross_entropy_with_logits"
    check_tensors(where, ("weight", "pos_weight"), input=input, target=target, weight=weight, pos_weight=pos_weight)
    reduction = reduction_name(where, reduction, size_average, reduce)
    if input._data.shape != target._data.shape:
        raise ValueError(
            message(
                where,
                f"Target size ({shape_text(target.shape)}) must be the same as input size ({shape_text(input.shape)})",
                "Scores (N, 1) against targets (N,): use input.squeeze(1), or target.unsqueeze(1).",
            )
        )
    floating(where, input)
    if target._data.dtype.kind != "f":
        raise RuntimeError(
            message(where, f"target must be floating point, got {target.dtype}", f"Use target.to({input.dtype}).")
        )
    extras = {name: t for name, t in (("weight", weight), ("pos_weight", pos_weight)) if t is not None}
    for name, extra in extras.items():
        if broadcast_shape(where, input=input, **{name: extra}) != input._data.shape:
            raise RuntimeError(
                message(
                    where, f"{name} must broadcast to input {shape_text(input.shape)}, got {shape_text(extra.shape)}"
                )
            )
    wide = dtypes.result_type(input, target)
    for extra in extras.values():
        wide = dtypes.promote_types(wide, extra.dtype)
    weights = [None if t is None else t.to(wide) for t in (weight, pos_weight)]
    return ops.binary_cross_entropy_with_logits(input.to(wide), target.to(wide), weights[0], weights[1], reduction)


def kl_div(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    log_target: bool = False,
) -> Tensor:
    """target * (log target - input) for log-probabilities `input` (and `target`, if log_target). Twin: `nn.KLDivLoss`.

    reduction="batchmean" divides by the batch size, which is the divergence; "mean" divides by all elements.
    """
    where = "kl_div"
    check_tensors(where, input=input, target=target)
    if size_average is not None or reduce is not None:
        reduction = reduction_name(where, reduction, size_average, reduce)
    elif reduction == "mean":
        warnings.warn(
            "reduction: 'mean' divides the total loss by both the batch size and the support size. 'batchmean' "
            "divides only "
            "by the batch size, and aligns with the KL div math definition.",
            stacklevel=2,
        )
    by_batch = reduction == "batchmean"
    reduction = reduction_name(where, "sum" if by_batch else reduction)
    for name, tensor in (("input", input), ("target", target)):
        if tensor._data.dtype.kind != "f":
            raise RuntimeError(message(where, f"Integral inputs not supported, got {name} {tensor.dtype}"))
    broadcast_shape(where, input=input, target=target)
    loss = ops.kl_div(input, target, reduction, log_target)
    return loss / input.shape[0] if by_batch and input.dim() else loss


# --- numbers ----------------------------------------------------------------------------------------------------------


def mse_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """(input - target)^2. Module twin: `nn.MSELoss`.

    Shapes that differ broadcast, with a warning. With `weight` (the shape of input) "mean" is the weighted mean.
    """
    where = "mse_loss"
    reduction = reduction_name(where, reduction, size_average, reduce)
    x, t = broadcast_pair(where, input, target)
    floating(where, x)
    if weight is None:
        return ops.mse_loss(x, t, reduction)
    return _weighted(where, ops.mse_loss(x, t, "none"), input, weight, reduction)


def l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """|input - target|. Module twin: `nn.L1Loss`. Broadcasting and `weight` as in `mse_loss`."""
    where = "l1_loss"
    reduction = reduction_name(where, reduction, size_average, reduce)
    x, t = broadcast_pair(where, input, target)
    if x._data.dtype.kind not in "fc" and reduction == "mean":
        raise RuntimeError(
            message(where, f"the mean needs floating point numbers, got {x.dtype}", "Use input.float().")
        )
    if weight is None:
        return ops.l1_loss(x, t, reduction)
    return _weighted(where, ops.l1_loss(x, t, "none"), input, weight, reduction)


def _weighted(where: str, loss: Tensor, input: Tensor, weight: Tensor, reduction: str) -> Tensor:
    check_tensors(where, weight=weight)
    if weight._data.shape != input._data.shape:
        raise ValueError(
            message(
                where,
                f"Weights and input must have the same size, got weight {shape_text(weight.shape)} and input "
                f"{shape_text(input.shape)}",
            )
        )
    weighted = loss * weight
    return weighted.sum() / weight.sum() if reduction == "mean" else ops.reduced(weighted, reduction)


def smooth_l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    beta: float = 1.0,
) -> Tensor:
    """Squared error / (2 beta) below `beta`, absolute error - beta / 2 above. Module twin: `nn.SmoothL1Loss`."""
    where = "smooth_l1_loss"
    reduction = reduction_name(where, reduction, size_average, reduce)
    x, t = broadcast_pair(where, input, target)
    if as_number(where, "beta", beta) < 0:
        raise RuntimeError(message(where, f"does not support negative values for beta, got {beta}"))
    if beta == 0:
        return ops.l1_loss(x, t, reduction)
    return ops.smooth_l1_loss(floating(where, x), t, reduction, beta)


def huber_loss(
    input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0, weight: Tensor | None = None
) -> Tensor:
    """Half the squared error up to `delta`, delta * (absolute error - delta / 2) above. Module twin: `nn.HuberLoss`."""
    where = "huber_loss"
    reduction = reduction_name(where, reduction)
    kept = input.dtype if isinstance(input, Tensor) else None
    x, t = broadcast_pair(where, input, target)
    if as_number(where, "delta", delta) <= 0:
        raise RuntimeError(message(where, f"does not support non-positive values for delta, got {delta}"))
    floating(where, x)
    if weight is None:
        loss = ops.huber_loss(x, t, reduction, delta)
        return loss if kept is None else loss.to(kept)
    if weight._data.shape != input._data.shape:
        raise ValueError(
            message(
                where,
                f"Weights and input must have the same size, got weight {shape_text(weight.shape)} and input "
                f"{shape_text(input.shape)}",
            )
        )
    return ops.reduced(ops.huber_loss(x, t, "none", delta) * weight, reduction)


def poisson_nll_loss(
    input: Tensor,
    target: Tensor,
    log_input: bool = True,
    full: bool = False,
    size_average: bool | None = None,
    eps: float = 1e-08,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """exp(input) - target * input: a Poisson distribution's -log likelihood of counts. Module twin:
    `nn.PoissonNLLLoss`.

    log_input=False reads input as the rate itself; full=True adds Stirling's formula for log(target!).
    """
    where = "poisson_nll_loss"
    check_tensors(where, input=input, target=target)
    reduction = reduction_name(where, reduction, size_average, reduce)
    broadcast_shape(where, input=input, target=target)
    return ops.poisson_nll_loss(input, target, log_input, full, eps, reduction)


def gaussian_nll_loss(
    input: Tensor,
    target: Tensor,
    var: Tensor | float,
    full: bool = False,
    eps: float = 1e-06,
    reduction: str = "mean",
) -> Tensor:
    """0.5 * (log var + (input - target)^2 / var), var at least `eps`. Module twin: `nn.GaussianNLLLoss`.

    var: a number, or the shape of input, possibly without its last dimension or with one dimension of size 1.
    Raises ValueError for a negative var or another shape.
    """
    where = "gaussian_nll_loss"
    check_tensors(where, input=input, target=target)
    spread: Tensor = var if isinstance(var, Tensor) else input.new_full(input.shape, as_number(where, "var", var))
    lowest = spread.detach().min().item() if spread.numel() else 0
    if lowest < 0:
        raise ValueError(
            message(where, f"var has negative entry/entries, got {lowest:g}", "It is a variance, not its log.")
        )
    shape, given = input._data.shape, spread._data.shape
    if given != shape:
        if shape[:-1] == given:
            spread = spread.unsqueeze(-1)
        elif not (len(shape) == len(given) and sum(g for s, g in zip(shape, given) if s != g) == 1):
            raise ValueError(
                message(
                    where,
                    f"var is of incorrect size: input {shape_text(shape)} needs var of that shape, without its last "
                    f"dimension or with one dimension of 1, got {shape_text(given)}",
                )
            )
    reduction = reduction_name(where, reduction)
    # Raised to eps without cutting the gradient of var there.
    raised = spread + (spread.detach().clamp(min=eps) - spread.detach())
    return ops.gaussian_nll_loss(input, target, raised, full, reduction)


def ctc_loss(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Tensor | Sequence[int],
    target_lengths: Tensor | Sequence[int],
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Tensor:
    """-log of the probability of all alignments of a label sequence (Graves et al. 2006). Module twin: `nn.CTCLoss`.

    Shapes: log_probs (T, N, C) or (T, C), from log_softmax; targets (N, S) padded or (sum of target_lengths,);
    lengths (N,). "mean" divides each loss by its target length, then averages; zero_infinity replaces infinite losses
    (target too long). Raises RuntimeError for lengths, sizes and labels that do not fit.
    """
    where = "ctc_loss"
    check_tensors(where, log_probs=log_probs, targets=targets)
    reduction = reduction_name(where, reduction)
    floating(where, log_probs)
    if log_probs.dim() not in (2, 3):
        raise RuntimeError(message(where, f"log_probs must be (T, N, C) or (T, C), got {shape_text(log_probs.shape)}"))
    batched = log_probs.dim() == 3
    probs = log_probs if batched else log_probs.unsqueeze(1)
    steps, batch, classes = probs._data.shape
    inputs = _lengths(where, "input_lengths", input_lengths, batch, steps)
    wanted = _lengths(where, "target_lengths", target_lengths, batch, None)
    if not 0 <= blank < classes:
        raise RuntimeError(message(where, f"blank must be in label range 0 to {classes - 1}, got {blank}"))
    _check_labels(where, targets, wanted, classes)
    loss = ctc_ops.ctc_loss(probs, targets.long(), inputs, wanted, blank, zero_infinity)
    if reduction == "mean":
        lengths = loss.new_tensor([max(length, 1) for length in wanted])
        return (loss / lengths).mean()
    if reduction == "sum":
        return loss.sum()
    return loss if batched else loss.squeeze(0)


def _lengths(where: str, name: str, lengths: Any, batch: int, most: int | None) -> tuple[int, ...]:
    if isinstance(lengths, Tensor):
        if lengths._data.dtype.kind not in "iu":
            raise RuntimeError(message(where, f"{name} must be integral, got {lengths.dtype}"))
        lengths = lengths.reshape(-1).tolist()
    values = tuple(int(length) for length in (lengths if isinstance(lengths, (list, tuple)) else (lengths,)))
    if len(values) != batch:
        raise RuntimeError(message(where, f"{name} must be of size batch_size {batch}, got {len(values)}"))
    if values and min(values) < 0:
        raise RuntimeError(message(where, f"Expected {name} to have value at least 0, got {min(values)}"))
    if most is not None and values and max(values) > most:
        raise RuntimeError(message(where, f"Expected {name} to have value at most {most}, got {max(values)}"))
    return values


def _check_labels(where: str, targets: Tensor, lengths: tuple[int, ...], classes: int) -> None:
    shape = targets._data.shape
    if targets.dim() == 1 and shape[0] != sum(lengths):
        raise RuntimeError(
            message(where, f"concatenated targets must hold the sum of target_lengths, {sum(lengths)}, got {shape[0]}")
        )
    if targets.dim() == 2 and (shape[0] != len(lengths) or shape[1] < max(lengths, default=0)):
        raise RuntimeError(
            message(
                where,
                f"targets must have size at least ({len(lengths)}, {max(lengths, default=0)}) for target_lengths="
                f"{list(lengths)}, got {shape_text(shape)}",
            )
        )
    if targets.dim() not in (1, 2):
        raise RuntimeError(message(where, f"targets must be (N, S) or (sum of lengths,), got {shape_text(shape)}"))
    if targets._data.dtype.kind == "c":
        raise not_implemented_for(where, targets)
    data = targets._data
    if data.ndim == 2:  # what pads the rows does not count
        data = data[[[column < length for column in range(shape[1])] for length in lengths]] if data.size else data
    if data.size and (data.min() < 0 or data.max() >= classes):
        raise RuntimeError(
            message(where, f"labels must be classes from 0 to {classes - 1}, got {data.min()} to {data.max()}")
        )
