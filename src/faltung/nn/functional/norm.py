"""Normalisation: PyTorch's signatures, and errors that say what to do.

Letters: N batch, C channels. The operations return statistics beside their result; running statistics are written here,
where it can be seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from faltung import dtypes
from faltung.nn.functional._checks import (
    as_int,
    as_number,
    check_tensors,
    message,
    not_implemented_for,
    shape_text,
    type_name,
)
from faltung.ops import norm as ops
from faltung.ops.deferred import Deferred, is_known, normalised
from faltung.tensor import Tensor


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-05,
) -> Tensor:
    """Each channel of (N, C, ...) to mean 0 and variance 1, then times weight plus bias. Twins: `nn.BatchNorm1d` to
    `3d`.

    training=True uses the batch's own statistics and moves running_mean and running_var (C,), where given, by
    `momentum` towards them (the variance unbiased); training=False uses the running ones.
    Raises ValueError for one value per channel in training or an eps that is not positive, RuntimeError for sizes and
    dtypes that do not fit.
    """
    return batch_norm_activation(input, running_mean, running_var, weight, bias, training, momentum, eps)


def batch_norm_activation(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    activation: str = "",
) -> Tensor:
    """`batch_norm`, then one of `engine.epilogue.ACTIVATIONS` in the same pass: for layers that stand together.

    Without statistics of the batch, an activation has no gradient here.
    """
    where = "batch_norm"
    if type(input) is Deferred and not training and running_mean is not None and running_var is not None:
        y = _of_deferred(input, running_mean, running_var, weight, bias, eps, activation)
        if y is not None:
            return y
    try:
        usual = are_usual(input._data.dtype, input._data.shape[1:2], running_mean, running_var, weight, bias)
    except AttributeError:
        usual = False
    if not usual:
        check_tensors(
            where, ("running_mean", "running_var", "weight", "bias"),
            input=input, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias,
        )  # fmt: skip
    shape = input._data.shape
    values = shape[0] * prod(shape[2:]) if shape else 1  # per channel
    if training and values == 1:
        raise ValueError(
            message(
                where,
                f"Expected more than 1 value per channel when training, got input size {shape_text(shape)}",
                "The variance of a single value is zero. Use a larger batch, or eval() for a module.",
            )
        )
    _check_eps(where, eps, training)
    if len(shape) < 2 and input._data.size != 0:
        raise RuntimeError(
            message(where, f"input must have at least 2 dimensions (N, C, ...), got {shape_text(shape)}", _ADD_A_BATCH)
        )
    if (running_mean is None) != (running_var is None):
        raise ValueError(message(where, "running_mean and running_var must both be None or both be tensors"))
    if len(shape) < 2:  # nothing to normalise
        return input.clone()
    if running_mean is None and not training and input._data.size:
        raise RuntimeError(
            message(where, "running_mean must be defined in evaluation mode", "Pass statistics, or training=True.")
        )
    if not usual:
        _check_statistics(where, input, shape[1], running_mean, running_var, weight, bias)
    if not training and running_mean is not None and running_var is not None:
        return ops.batch_norm_inference(input, running_mean, running_var, weight, bias, eps, activation)
    y, mean, var = ops.batch_norm(input, weight, bias, eps, activation)
    if running_mean is not None and running_var is not None and values > 0:
        momentum = as_number(where, "momentum", momentum)
        ops.track_statistics(running_mean, running_var, mean, var, momentum, values / (values - 1))
    return y


def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-05,
) -> Tensor:
    """Each channel of each sample of (N, C, ...) to mean 0 and variance 1. Twins: `nn.InstanceNorm1d` to `3d`.

    use_input_stats=False uses the running statistics (C,) instead; with it, they move towards the mean over the batch.
    Raises ValueError for a single position in space, RuntimeError for sizes and dtypes that do not fit.
    """
    where = "instance_norm"
    check_tensors(
        where, ("running_mean", "running_var", "weight", "bias"),
        input=input, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias,
    )  # fmt: skip
    shape = input._data.shape
    positions = prod(shape[2:])
    if use_input_stats and positions == 1:
        raise ValueError(
            message(
                where,
                f"Expected more than 1 spatial element when training, got input size {shape_text(shape)}",
                "The variance of a single value is zero: give (N, C, ...) with more than one position.",
            )
        )
    if len(shape) < 2:
        raise RuntimeError(message(where, f"input must be (N, C, ...), got {shape_text(shape)}", _ADD_A_BATCH))
    eps = as_number(where, "eps", eps)
    _check_statistics(where, input, shape[1], running_mean, running_var, weight, bias)
    if not use_input_stats:
        if running_mean is None or running_var is None:
            raise RuntimeError(
                message(where, "Expected running_mean and running_var to be defined when use_input_stats is false")
            )
        return ops.batch_norm_inference(input, running_mean, running_var, weight, bias, eps)
    y, mean, var = ops.group_norm(input, max(shape[1], 1), weight, bias, eps)
    if running_mean is not None and running_var is not None and input._data.size:
        momentum, correction = as_number(where, "momentum", momentum), positions / (positions - 1)
        ops.track_statistics(running_mean, running_var, mean.mean(0), var.mean(0), momentum, correction)
    return y


def group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-05
) -> Tensor:
    """Groups of channels of each sample of (N, C, ...) to mean 0 and variance 1 (Wu and He 2018). Twin: `nn.GroupNorm`.

    weight and bias (C,). Raises RuntimeError for channels that do not divide into groups and for sizes that do not fit,
    ValueError for a single value per group.
    """
    where = "group_norm"
    check_tensors(where, ("weight", "bias"), input=input, weight=weight, bias=bias)
    shape = input._data.shape
    if len(shape) < 2:
        raise RuntimeError(message(where, f"input must be (N, C, ...), got {shape_text(shape)}", _ADD_A_BATCH))
    num_groups = as_int(where, "num_groups", num_groups)
    if num_groups <= 0:
        raise RuntimeError(message(where, f"num_groups must be positive, got {num_groups}"))
    if shape[1] % num_groups:
        raise RuntimeError(
            message(
                where,
                f"the {shape[1]} channels of input {shape_text(shape)} do not divide into num_groups={num_groups}",
            )
        )
    if shape[0] * (shape[1] // num_groups) * prod(shape[2:]) == 1:
        raise ValueError(
            message(
                where,
                f"Expected more than 1 value per channel when training, got input size {shape_text(shape)} "
                f"with num_groups={num_groups}",
                "The variance of a single value is zero: use fewer groups.",
            )
        )
    eps = as_number(where, "eps", eps)
    _check_statistics(where, input, shape[1], None, None, weight, bias)
    return ops.group_norm(input, num_groups, weight, bias, eps)[0]


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-05,
) -> Tensor:
    """The last dimensions, `normalized_shape`, to mean 0 and variance 1 (Ba et al. 2016). Twin: `nn.LayerNorm`.

    weight and bias have the normalized_shape. Raises RuntimeError for shapes and dtypes that do not fit.
    """
    axes = _check_trailing("layer_norm", input, normalized_shape, weight=weight, bias=bias)
    return ops.layer_norm(input, axes, weight, bias, as_number("layer_norm", "eps", eps))


def rms_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """The last dimensions, `normalized_shape`, divided by their root mean square. Twin: `nn.RMSNorm`.

    eps=None is the smallest number that changes 1 in the dtype of input. Raises RuntimeError for shapes that do not
    fit.
    """
    where = "rms_norm"
    axes = _check_trailing(where, input, normalized_shape, weight=weight)
    eps = dtypes.finfo(input.dtype).eps if eps is None else as_number(where, "eps", eps)
    if weight is None or weight.dtype is input.dtype:
        return ops.rms_norm(input, axes, weight, eps)
    wide = dtypes.promote_types(input.dtype, weight.dtype)
    return ops.rms_norm(input.to(wide), axes, weight.to(wide), eps).to(input.dtype)


def local_response_norm(input: Tensor, size: int, alpha: float = 0.0001, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """x / (k + alpha * mean of x^2 over `size` neighbouring channels)^beta, (N, C, ...). Twin: `nn.LocalResponseNorm`.

    Raises ValueError below 3 dimensions, RuntimeError for a size that is not positive.
    """
    where = "local_response_norm"
    check_tensors(where, input=input)
    if input.dim() < 3:
        raise ValueError(
            message(where, f"Expected 3D or higher dimensionality input (N, C, ...), got {shape_text(input.shape)}")
        )
    size = as_int(where, "size", size)
    if size <= 0:
        raise RuntimeError(message(where, f"size must be positive, got {size}"))
    return input if input.numel() == 0 else ops.local_response_norm(input, size, alpha, beta, k)


def _of_deferred(
    input: Deferred,
    mean: Tensor,
    var: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    activation: str,
) -> Tensor | None:
    """Batch norm in the registers of a convolution that waits for it; None where that is not to be."""
    if input.dim() < 2 or not are_usual(_FLOAT, input.shape[1:2], mean, var, weight, bias):
        return None
    if type(eps) is not float or not eps >= 0 or not is_known(mean, var, weight, bias):
        return None

    def apart(x: Tensor) -> Tensor:
        return ops.batch_norm_inference(x, mean, var, weight, bias, eps, activation)

    return normalised(input, lambda: ops.channel_affine(mean, var, weight, bias, eps), activation, apart)


# --- checks -----------------------------------------------------------------------------------------------------------

_FLOAT = np.dtype(np.float32)
_ADD_A_BATCH = "A single sample needs a batch dimension: x.unsqueeze(0)."


def _check_eps(where: str, eps: float, training: bool) -> None:
    if as_number(where, "eps", eps) <= 0 and (training or eps < 0):
        wanted = "positive during training" if training else "non-negative"
        raise ValueError(message(where, f"eps must be {wanted}, got {eps}"))


def are_usual(
    kind: np.dtype[Any], wanted: tuple[int, ...], running_mean: Any, running_var: Any, weight: Any, bias: Any
) -> bool:
    """Whether tensors are what they nearly always are, so that `check_tensors` and `_check_statistics` may be left out:
    all of the input's floating-point type, one value per channel, no gradient for running statistics.
    """
    try:
        for values in (running_mean, running_var, weight, bias):
            if values is not None and (values._data.shape != wanted or values._data.dtype != kind):
                return False
    except AttributeError:
        return False
    for values in (running_mean, running_var):
        if values is not None and (values._requires_grad or values._view is not None):
            return False
    return kind.kind == "f"


def _check_statistics(
    where: str,
    input: Tensor,
    channels: int,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
) -> None:
    """Sizes and dtypes of what belongs to each channel."""
    if input._data.dtype.kind != "f":
        raise not_implemented_for(where, input)
    found = input._data.dtype
    parameters = None
    for name, values in (
        ("running_mean", running_mean),
        ("running_var", running_var),
        ("weight", weight),
        ("bias", bias),
    ):
        if values is None:
            continue
        data = values._data
        if data.shape != (channels,):
            raise RuntimeError(
                message(
                    where,
                    f"{name} should contain {channels} elements, one per channel of input {shape_text(input.shape)}, "
                    f"got {name} {shape_text(data.shape)}",
                )
            )
        parameters = parameters or data.dtype
        if data.dtype != parameters or (data.dtype != found and (found.itemsize != 2 or data.dtype != "float32")):
            raise RuntimeError(
                message(
                    where,
                    f"input and {name} must have one dtype, got input {input.dtype} and {name} {values.dtype}",
                    f"Convert the data: input.to({values.dtype}).",
                )
            )
        if name.startswith("running") and values.requires_grad:
            raise RuntimeError(
                message(
                    where, f"not differentiable with respect to {name}, which requires grad", f"Pass {name}.detach()."
                )
            )


def _check_trailing(where: str, input: Tensor, normalized_shape: Any, **parameters: Tensor | None) -> int:
    """The number of dimensions to normalise, all checked."""
    check_tensors(where, tuple(parameters), input=input, **parameters)
    if not isinstance(normalized_shape, (list, tuple)):
        raise TypeError(
            message(
                where,
                f"normalized_shape must be a tuple of ints, got {normalized_shape!r} ({type_name(normalized_shape)})",
            )
        )
    wanted = tuple(as_int(where, f"normalized_shape[{i}]", size) for i, size in enumerate(normalized_shape))
    if not wanted:
        raise RuntimeError(message(where, "normalized_shape must name at least one dimension, got ()"))
    shape = input._data.shape
    if len(shape) < len(wanted) or shape[-len(wanted) :] != wanted:
        short = len(shape) < len(wanted) and where == "rms_norm"
        raise (ValueError if short else RuntimeError)(
            message(
                where,
                f"normalized_shape={list(wanted)} needs an input whose last dimensions are {shape_text(wanted)}, "
                f"got input {shape_text(shape)}",
            )
        )
    if input._data.dtype.kind not in ("f" if where == "layer_norm" else "fc"):
        raise not_implemented_for(where, input)
    for name, values in parameters.items():
        if values is None:
            continue
        if values._data.shape != wanted:
            raise RuntimeError(
                message(
                    where, f"{name} must have the normalized_shape {shape_text(wanted)}, got {shape_text(values.shape)}"
                )
            )
        mixed = input._data.dtype.itemsize == 2 and values.dtype is dtypes.float32
        if where == "layer_norm" and values.dtype is not input.dtype and not mixed:
            raise RuntimeError(
                message(
                    where,
                    f"input and {name} must have one dtype, got input {input.dtype} and {name} {values.dtype}",
                    f"Convert the data: input.to({values.dtype}).",
                )
            )
    return len(wanted)
