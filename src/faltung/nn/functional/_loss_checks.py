"""Checks that the losses share: reductions, targets, broadcasts."""

from __future__ import annotations

import warnings
from typing import Any

from faltung import dtypes
from faltung.nn.functional._checks import check_tensors, message, not_implemented_for, shape_text
from faltung.tensor import Tensor


def reduction_name(where: str, reduction: Any, size_average: bool | None = None, reduce: bool | None = None) -> str:
    """The reduction "none", "mean" or "sum"; the two deprecated flags win where given. ValueError for anything else."""
    if size_average is not None or reduce is not None:
        keep = reduce is False
        reduction = "none" if keep else ("sum" if size_average is False else "mean")
        warnings.warn(
            f"size_average and reduce args will be deprecated, please use reduction='{reduction}' instead.",
            stacklevel=3,
        )
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(
            message(where, f"{reduction} is not a valid value for reduction, expected 'none', 'mean' or 'sum'")
        )
    return reduction


def floating(where: str, input: Tensor) -> Tensor:
    """The tensor itself; NotImplementedError unless it is floating point."""
    if input._data.dtype.kind != "f":
        raise not_implemented_for(where, input)
    return input


def broadcast_pair(where: str, input: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Both in one shape and dtype, with PyTorch's warning where the shapes differ."""
    check_tensors(where, input=input, target=target)
    if input._data.shape != target._data.shape:
        warnings.warn(
            f"{where}: Using a target size ({shape_text(target.shape)}) that is different to the input size "
            f"({shape_text(input.shape)}). This will likely lead to incorrect results due to broadcasting. Please "
            f"ensure they "
            "have the same size.",
            stacklevel=3,
        )
        shape = broadcast_shape(where, input=input, target=target)
        input, target = input.expand(shape), target.expand(shape)
    if input.dtype is not target.dtype:
        wide = dtypes.result_type(input, target)
        input, target = input.to(wide), target.to(wide)
    return input, target


def broadcast_shape(where: str, **tensors: Tensor) -> tuple[int, ...]:
    """The shape that all broadcast to; RuntimeError naming the sizes that do not fit."""
    result: list[int] = []
    for tensor in tensors.values():
        shape = list(tensor._data.shape)
        longer, shorter = (result, shape) if len(result) >= len(shape) else (shape, result)
        shorter = [1] * (len(longer) - len(shorter)) + shorter
        result = [b if a == 1 else a for a, b in zip(longer, shorter)]
        if any(size not in (1, wanted) for sizes in (longer, shorter) for size, wanted in zip(sizes, result)):
            given = " and ".join(f"{name} {shape_text(t.shape)}" for name, t in tensors.items())
            raise RuntimeError(message(where, f"sizes must match (or be 1) in every dimension, got {given}"))
    return tuple(result)


def class_targets(where: str, input: Tensor, target: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """Scores and class indices as (N, C, *d) and (N, *d), all sizes and dtypes checked."""
    shape, wanted = input._data.shape, target._data.shape
    if target.dtype is not dtypes.int64 and target.dtype is not dtypes.uint8:
        hint = "Class indices are integers: target.long()."
        if target._data.dtype.kind == "f" and where == "cross_entropy":
            hint += f" Class probabilities need the shape of the input, {shape_text(shape)}."
        raise RuntimeError(
            message(where, f"expected target dtype to be int64 or uint8 (class indices), got {target.dtype}", hint)
        )
    if len(shape) == 0:
        raise ValueError(message(where, "Expected 1 or more dimensions, (C,) or (N, C, ...), got a 0-d input"))
    if len(shape) == 1:
        if target.numel() != 1 or len(wanted) > 1:
            raise ValueError(
                message(
                    where, f"For 1D input (C,), 1D target must have size 1, but got target size {shape_text(wanted)}"
                )
            )
    elif len(wanted) == 0 or shape[0] != wanted[0]:
        got = wanted[0] if wanted else "none"
        raise ValueError(
            message(
                where,
                f"Expected input batch_size ({shape[0]}) to match target batch_size ({got}), got input "
                f"{shape_text(shape)} "
                f"and target {shape_text(wanted)}",
            )
        )
    elif (shape[0], *shape[2:]) != wanted:
        right = shape_text((shape[0], *shape[2:]))
        hint = "The target holds class indices, not one column per class."
        hint += " One-hot rows become indices by target.argmax(1)." if shape == wanted else ""
        hint += " A last dimension of 1 goes away by target.squeeze(-1)." if wanted[-1] == 1 else ""
        raise RuntimeError(
            message(
                where,
                f"input {shape_text(shape)} needs a target {right} of class indices, got {shape_text(wanted)}",
                hint,
            )
        )
    classes = shape[0] if len(shape) == 1 else shape[1]
    _check_class_weight(where, input, weight, classes)
    if len(shape) == 1:
        return input.reshape(1, classes), target.reshape(1)
    return input, target


def _check_class_weight(where: str, input: Tensor, weight: Tensor | None, classes: int) -> None:
    if weight is None:
        return
    if weight._data.shape != (classes,):
        raise RuntimeError(
            message(
                where,
                f"weight tensor should be defined either for all {classes} classes or no classes but got weight "
                f"tensor of "
                f"shape {shape_text(weight.shape)}",
            )
        )
    if weight.dtype is not input.dtype:
        raise RuntimeError(
            message(
                where,
                f"input and weight must have one dtype, got input {input.dtype} and weight {weight.dtype}",
                f"Convert one of them: weight.to({input.dtype}).",
            )
        )
