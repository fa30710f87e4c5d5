"""Affine maps. Letters: B any leading dimensions, K in_features, M out_features."""

from __future__ import annotations

from math import prod

from faltung.dtypes import bool as bool_dtype
from faltung.nn.functional._checks import (
    check_same_dtype,
    check_tensors,
    message,
    not_implemented_for,
    shape_text,
)
from faltung.ops.linear import linear as affine
from faltung.tensor import Tensor


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`input @ weight.T + bias`. Module twin: `nn.Linear`.

    Shapes: input (*B, K), weight (M, K), bias (M,) -> (*B, M); a weight (K,) gives (*B).
    Raises RuntimeError for shapes or dtypes that do not fit, TypeError for what is no tensor.
    """
    try:
        wanted, kind = weight.shape, input.dtype
        plain = (
            len(wanted) == 2
            and input.shape[-1] == wanted[1]
            and weight.dtype is kind
            and kind is not bool_dtype
            and (bias is None or (bias.dtype is kind and bias.shape == (wanted[0],)))
        )
    except (AttributeError, IndexError):
        plain = False
    if plain:
        return affine(input, weight, bias)
    return _unusual_linear(input, weight, bias)


def _unusual_linear(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The way of every error, of 1-d weights and of biases that broadcast."""
    check_tensors("linear", optional=("bias",), input=input, weight=weight, bias=bias)
    if input.dim() == 0 or weight.dim() not in (1, 2):
        want = "input must be (*, in_features) and weight (out_features, in_features)"
        got = f"got input {shape_text(input.shape)} and weight {shape_text(weight.shape)}"
        raise RuntimeError(message("linear", f"{want}, {got}"))
    if input.shape[-1] != weight.shape[-1]:
        raise RuntimeError(message("linear", _mismatch(input, weight), _mismatch_hint(input, weight)))
    check_same_dtype("linear", input=input, weight=weight, bias=bias)
    if input.dtype is bool_dtype:
        raise not_implemented_for("linear", input)
    if weight.dim() == 1:
        if bias is not None and (input.dim() == 2 or bias.dim() > 0):
            raise RuntimeError(
                message("linear", f"a 1-d weight {shape_text(weight.shape)} takes no bias", "Use a weight (1, K).")
            )
        product = affine(input, weight.unsqueeze(0), None).squeeze(-1)
        return product if bias is None else product + bias
    result = (*input.shape[:-1], weight.shape[0])
    if bias is None or bias.shape == result[-1:]:
        return affine(input, weight, bias)
    if not _broadcasts(bias.shape, result):
        need = f"weight {shape_text(weight.shape)} needs a bias of shape ({result[-1]},)"
        raise RuntimeError(message("linear", f"{need}, got bias {shape_text(bias.shape)}"))
    return affine(input, weight, None) + bias


def _broadcasts(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    """Whether `shape` expands to `target`."""
    tail = target[len(target) - len(shape) :]
    return len(shape) <= len(target) and all(a in (1, b) for a, b in zip(shape, tail, strict=True))


def _mismatch(input: Tensor, weight: Tensor) -> str:
    return (
        f"weight {shape_text(weight.shape)} needs an input whose last dimension is {weight.shape[-1]}, "
        f"got input {shape_text(input.shape)}"
    )


def _mismatch_hint(input: Tensor, weight: Tensor) -> str | None:
    """Unflattened images, swapped weights, or both."""
    shape = tuple(input.shape)
    flat = prod(shape[1:])
    if len(shape) > 2:
        hint = f"input.flatten(1) would make it {(shape[0], flat)}"
        if flat == weight.shape[-1]:
            return f"{hint}, which fits."
        if weight.dim() == 2 and flat == weight.shape[0]:
            return f"{hint}; and a weight is (out_features, in_features): this one looks transposed, use weight.t()."
        return f"{hint}: a layer after it needs in_features={flat}."
    if prod(shape) == weight.shape[-1] and len(shape) == 2:
        return f"input.flatten() would make it ({prod(shape)},), which fits if this is one sample."
    if weight.dim() == 2 and weight.shape[0] == shape[-1]:
        return "A weight is (out_features, in_features): this one looks transposed, use weight.t()."
    return None


def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """y[m] = sum over i, j of input1[i] weight[m, i, j] input2[j], plus bias. Module twin: `nn.Bilinear`.

    Shapes: input1 (*B, I), input2 (*B, J), weight (M, I, J), bias (M,) -> (*B, M). Raises RuntimeError for others.
    """
    check_tensors("bilinear", optional=("bias",), input1=input1, input2=input2, weight=weight, bias=bias)
    shapes = f"input1 {shape_text(input1.shape)}, input2 {shape_text(input2.shape)}, weight {shape_text(weight.shape)}"
    wanted = "weight must be (out, in1, in2), input1 (*, in1) and input2 (*, in2) with equal leading dimensions"
    if (
        weight.dim() != 3
        or min(input1.dim(), input2.dim()) == 0
        or input1.shape[:-1] != input2.shape[:-1]
        or (input1.shape[-1], input2.shape[-1]) != tuple(weight.shape[1:])
    ):
        raise RuntimeError(message("bilinear", f"{wanted}, got {shapes}"))
    check_same_dtype("bilinear", input1=input1, input2=input2, weight=weight, bias=bias)
    out, first, second = weight.shape
    if bias is not None and bias.shape != (out,):
        raise RuntimeError(
            message("bilinear", f"weight {shape_text(weight.shape)} needs a bias ({out},), got {bias.shape}")
        )
    rows = weight.permute(0, 2, 1).reshape(out * second, first)
    products = affine(input1, rows, None).reshape(*input1.shape[:-1], out, second)  # (*B, M, J)
    result = (products * input2.unsqueeze(-2)).sum(-1)
    return result if bias is None else result + bias
