"""Pooling: PyTorch's signatures, and errors that say what to do.

Shapes throughout: input (N, C, *spatial) or unbatched (C, *spatial), the result likewise. `stride=None` means the
kernel size. Functions with `return_indices` then return (values, indices); an index counts the samples of one plane.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from faltung.dtypes import int64
from faltung.nn.functional import _checks as checks
from faltung.nn.functional._checks import IntOrInts, as_ints, check_at_least, check_rank, message, shape_text
from faltung.nn.functional._pool_plan import (
    LAYOUTS,
    adaptive_output,
    check_ordered,
    check_samples,
    is_default,
    pool_geometry,
    unpooled_size,
    worst_index,
)
from faltung.ops import pool as ops
from faltung.ops.random import rand
from faltung.tensor import Tensor

Pooled = Any  # a Tensor; with return_indices (values, indices)


# --- maximum ----------------------------------------------------------------------------------------------------------


def max_pool1d(
    input: Tensor,
    kernel_size: IntOrInts,
    stride: IntOrInts | None = None,
    padding: IntOrInts = 0,
    dilation: IntOrInts = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Pooled:
    """Largest sample of each window of (N, C, L). Module twin: `nn.MaxPool1d`.

    L' = (L + 2 padding - dilation (kernel_size - 1) - 1) / stride + 1, rounded down, or up with `ceil_mode`. Padding
    never wins. Raises RuntimeError for sizes that do not fit, TypeError for arguments of the wrong type.
    """
    return _max_pool("max_pool1d", 1, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool2d(
    input: Tensor,
    kernel_size: IntOrInts,
    stride: IntOrInts | None = None,
    padding: IntOrInts = 0,
    dilation: IntOrInts = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Pooled:
    """Largest sample of each window of (N, C, H, W). Module twin: `nn.MaxPool2d`. As `max_pool1d`, per dimension."""
    return _max_pool("max_pool2d", 2, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool3d(
    input: Tensor,
    kernel_size: IntOrInts,
    stride: IntOrInts | None = None,
    padding: IntOrInts = 0,
    dilation: IntOrInts = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Pooled:
    """Largest sample of each window of (N, C, D, H, W). Module twin: `nn.MaxPool3d`. As `max_pool1d`, per dimension."""
    return _max_pool("max_pool3d", 3, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool1d_with_indices(
    input: Tensor,
    kernel_size: IntOrInts,
    stride: IntOrInts | None = None,
    padding: IntOrInts = 0,
    dilation: IntOrInts = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Pooled:
    """`max_pool1d` that always returns (values, indices)."""
    return _max_pool("max_pool1d", 1, input, kernel_size, stride, padding, dilation, ceil_mode, True)


def max_pool2d_with_indices(
    input: Tensor,
    kernel_size: IntOrInts,
    stride: IntOrInts | None = None,
    padding: IntOrInts = 0,
    dilation: IntOrInts = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Pooled:
    """`max_pool2d` that always returns (values, indices)."""
    return _max_pool("max_pool2d", 2, input, kernel_size, stride, padding, dilation, ceil_mode, True)


def max_pool3d_with_indices(
    input: Tensor,
    kernel_size: IntOrInts,
    stride: IntOrInts | None = None,
    padding: IntOrInts = 0,
    dilation: IntOrInts = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Pooled:
    """`max_pool3d` that always returns (values, indices)."""
    return _max_pool("max_pool3d", 3, input, kernel_size, stride, padding, dilation, ceil_mode, True)


def _max_pool(
    where: str,
    ndim: int,
    input: Tensor,
    kernel: IntOrInts,
    stride: IntOrInts | None,
    padding: IntOrInts,
    dilation: IntOrInts,
    ceil_mode: bool,
    with_indices: bool,
    activation: str = "",
) -> Pooled:
    geometry = pool_geometry(where, ndim, input, kernel, stride, padding, dilation, ceil_mode)
    batched = input.dim() == ndim + 2
    x = input if batched else input.unsqueeze(0)
    if not with_indices:
        y = ops.max_pool(x, geometry, activation)
        return y if batched else y.squeeze(0)
    y, indices = ops.max_pool_with_indices(x, geometry)
    return (y, indices) if batched else (y.squeeze(0), indices.squeeze(0))


def max_pool_activated(
    ndim: int,
    input: Tensor,
    activation: str,
    kernel_size: IntOrInts,
    stride: IntOrInts | None,
    padding: IntOrInts,
    dilation: IntOrInts,
    ceil_mode: bool,
) -> Tensor:
    """`max_pool1d` to `3d` of what relu or relu6 made, whose gradient it leaves to the pooling: for layers that stand
    together.
    """
    window = (kernel_size, stride, padding, dilation, ceil_mode)
    pooled: Tensor = _max_pool(f"max_pool{ndim}d", ndim, input, *window, with_indices=False, activation=activation)
    return pooled


# --- mean -------------------------------------------------------------------------------------------------------------


def avg_pool1d(
    input: Tensor,
    kernel_size: IntOrInts,
    stride: IntOrInts | None = None,
    padding: IntOrInts = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """Mean of each window of (N, C, L). Module twin: `nn.AvgPool1d`.

    Sizes as in `max_pool1d`. `count_include_pad`: whether padding zeros count as samples.
    Raises RuntimeError for sizes that do not fit, TypeError for arguments of the wrong type.
    """
    return _avg_pool("avg_pool1d", 1, input, kernel_size, stride, padding, ceil_mode, count_include_pad, None)


def avg_pool2d(
    input: Tensor,
    kernel_size: IntOrInts,
    stride: IntOrInts | None = None,
    padding: IntOrInts = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """Mean of each window of (N, C, H, W), or its sum over `divisor_override`. Module twin: `nn.AvgPool2d`."""
    args = (kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)
    return _avg_pool("avg_pool2d", 2, input, *args)


def avg_pool3d(
    input: Tensor,
    kernel_size: IntOrInts,
    stride: IntOrInts | None = None,
    padding: IntOrInts = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """Mean of each window of (N, C, D, H, W), or its sum over `divisor_override`. Module twin: `nn.AvgPool3d`."""
    args = (kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)
    return _avg_pool("avg_pool3d", 3, input, *args)


def _avg_pool(
    where: str,
    ndim: int,
    input: Tensor,
    kernel: IntOrInts,
    stride: IntOrInts | None,
    padding: IntOrInts,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor: int | None,
) -> Tensor:
    geometry = pool_geometry(where, ndim, input, kernel, stride, padding, 1, ceil_mode)
    if divisor is not None and checks.as_int(where, "divisor_override", divisor) == 0:
        raise RuntimeError(message(where, "divisor_override must not be 0", "None divides by the window's size."))
    if not input.dtype.is_floating_point and input.dtype is not int64:
        raise checks.not_implemented_for(where, input)
    if input.dim() == ndim + 2:
        return ops.avg_pool(input, geometry, count_include_pad, divisor)
    return ops.avg_pool(input.unsqueeze(0), geometry, count_include_pad, divisor).squeeze(0)


# --- adaptive ---------------------------------------------------------------------------------------------------------


def adaptive_avg_pool1d(input: Tensor, output_size: IntOrInts) -> Tensor:
    """Mean over `output_size` windows as even as possible along L of (N, C, L). Module twin: `nn.AdaptiveAvgPool1d`."""
    return _adaptive_avg_pool("adaptive_avg_pool1d", 1, input, output_size)


def adaptive_avg_pool2d(input: Tensor, output_size: Any) -> Tensor:
    """Mean over windows as even as possible: (N, C, H, W) -> (N, C, *output_size). Module twin: `nn.AdaptiveAvgPool2d`.

    `output_size`: one int for both, or a pair where None keeps the input's size; 1 is the global mean.
    """
    return _adaptive_avg_pool("adaptive_avg_pool2d", 2, input, output_size)


def adaptive_avg_pool3d(input: Tensor, output_size: Any) -> Tensor:
    """Mean over windows as even as possible: (N, C, D, H, W) -> (N, C, *output_size). As `adaptive_avg_pool2d`."""
    return _adaptive_avg_pool("adaptive_avg_pool3d", 3, input, output_size)


def _adaptive_avg_pool(where: str, ndim: int, input: Tensor, output_size: Any) -> Tensor:
    output = adaptive_output(where, ndim, input, output_size)
    if not input.dtype.is_floating_point:
        raise checks.not_implemented_for(where, input)
    if input.dim() == ndim + 2:
        return ops.adaptive_avg_pool(input, output)
    return ops.adaptive_avg_pool(input.unsqueeze(0), output).squeeze(0)


def adaptive_max_pool1d(input: Tensor, output_size: IntOrInts, return_indices: bool = False) -> Pooled:
    """Largest samples of `output_size` windows as even as possible along L. Module twin: `nn.AdaptiveMaxPool1d`."""
    return _adaptive_max_pool("adaptive_max_pool1d", 1, input, output_size, return_indices)


def adaptive_max_pool2d(input: Tensor, output_size: Any, return_indices: bool = False) -> Pooled:
    """Largest samples of windows as even as possible: (N, C, H, W) -> (N, C, *output_size); None keeps a size."""
    return _adaptive_max_pool("adaptive_max_pool2d", 2, input, output_size, return_indices)


def adaptive_max_pool3d(input: Tensor, output_size: Any, return_indices: bool = False) -> Pooled:
    """Largest samples of windows as even as possible: (N, C, D, H, W) -> (N, C, *output_size); None keeps a size."""
    return _adaptive_max_pool("adaptive_max_pool3d", 3, input, output_size, return_indices)


def adaptive_max_pool1d_with_indices(input: Tensor, output_size: IntOrInts, return_indices: bool = False) -> Pooled:
    """`adaptive_max_pool1d` that always returns (values, indices)."""
    return _adaptive_max_pool("adaptive_max_pool1d", 1, input, output_size, True)


def adaptive_max_pool2d_with_indices(input: Tensor, output_size: Any, return_indices: bool = False) -> Pooled:
    """`adaptive_max_pool2d` that always returns (values, indices)."""
    return _adaptive_max_pool("adaptive_max_pool2d", 2, input, output_size, True)


def adaptive_max_pool3d_with_indices(input: Tensor, output_size: Any, return_indices: bool = False) -> Pooled:
    """`adaptive_max_pool3d` that always returns (values, indices)."""
    return _adaptive_max_pool("adaptive_max_pool3d", 3, input, output_size, True)


def _adaptive_max_pool(where: str, ndim: int, input: Tensor, output_size: Any, with_indices: bool) -> Pooled:
    output = adaptive_output(where, ndim, input, output_size)
    check_ordered(where, input.dtype)
    batched = input.dim() == ndim + 2
    y, indices = ops.adaptive_max_pool(input if batched else input.unsqueeze(0), output)
    if not batched:
        y, indices = y.squeeze(0), indices.squeeze(0)
    return (y, indices) if with_indices else y


# --- powers, random windows, and back ---------------------------------------------------------------------------------


def lp_pool1d(
    input: Tensor,
    norm_type: int | float,
    kernel_size: int,
    stride: IntOrInts | None = None,
    ceil_mode: bool = False,
) -> Tensor:
    """(sum of x^p over each window of (N, C, L))^(1/p) with p = `norm_type`. Module twin: `nn.LPPool1d`."""
    return _lp_pool("lp_pool1d", 1, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool2d(
    input: Tensor,
    norm_type: int | float,
    kernel_size: IntOrInts,
    stride: IntOrInts | None = None,
    ceil_mode: bool = False,
) -> Tensor:
    """(sum of x^p over each window of (N, C, H, W))^(1/p). Module twin: `nn.LPPool2d`."""
    return _lp_pool("lp_pool2d", 2, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool3d(
    input: Tensor,
    norm_type: int | float,
    kernel_size: IntOrInts,
    stride: IntOrInts | None = None,
    ceil_mode: bool = False,
) -> Tensor:
    """(sum of x^p over each window of (N, C, D, H, W))^(1/p). Module twin: `nn.LPPool3d`."""
    return _lp_pool("lp_pool3d", 3, input, norm_type, kernel_size, stride, ceil_mode)


def _lp_pool(
    where: str,
    ndim: int,
    input: Tensor,
    norm_type: int | float,
    kernel: IntOrInts,
    stride: IntOrInts | None,
    ceil_mode: bool,
) -> Tensor:
    checks.check_tensor(where, "input", input)
    inverse = 1.0 / norm_type
    means = _avg_pool(where, ndim, input.pow(norm_type), kernel, stride, 0, ceil_mode, True, None)
    sums = means * prod(as_ints(where, "kernel_size", kernel, ndim))
    return (sums.sign() * sums.abs()).pow(inverse)  # sign times size: PyTorch's gradient at sums of zero


def fractional_max_pool2d(
    input: Tensor,
    kernel_size: IntOrInts,
    output_size: IntOrInts | None = None,
    output_ratio: Any = None,
    return_indices: bool = False,
    _random_samples: Tensor | None = None,
) -> Pooled:
    """Max pooling over pseudo-random windows of (N, C, H, W) (Graham 2014). Module twin: `nn.FractionalMaxPool2d`.

    Give `output_size`, or `output_ratio` of the input's. `_random_samples` (N, C, 2) in [0, 1) fixes the windows.
    """
    return _fractional(
        "fractional_max_pool2d", 2, input, kernel_size, output_size, output_ratio, return_indices, _random_samples
    )


def fractional_max_pool3d(
    input: Tensor,
    kernel_size: IntOrInts,
    output_size: IntOrInts | None = None,
    output_ratio: Any = None,
    return_indices: bool = False,
    _random_samples: Tensor | None = None,
) -> Pooled:
    """Max pooling over pseudo-random windows of (N, C, D, H, W); `_random_samples` (N, C, 3). As in 2-d."""
    return _fractional(
        "fractional_max_pool3d", 3, input, kernel_size, output_size, output_ratio, return_indices, _random_samples
    )


def fractional_max_pool2d_with_indices(
    input: Tensor,
    kernel_size: IntOrInts,
    output_size: IntOrInts | None = None,
    output_ratio: Any = None,
    return_indices: bool = False,
    _random_samples: Tensor | None = None,
) -> Pooled:
    """`fractional_max_pool2d` that always returns (values, indices)."""
    return _fractional("fractional_max_pool2d", 2, input, kernel_size, output_size, output_ratio, True, _random_samples)


def fractional_max_pool3d_with_indices(
    input: Tensor,
    kernel_size: IntOrInts,
    output_size: IntOrInts | None = None,
    output_ratio: Any = None,
    return_indices: bool = False,
    _random_samples: Tensor | None = None,
) -> Pooled:
    """`fractional_max_pool3d` that always returns (values, indices)."""
    return _fractional("fractional_max_pool3d", 3, input, kernel_size, output_size, output_ratio, True, _random_samples)


def _fractional(
    where: str,
    ndim: int,
    input: Tensor,
    kernel_size: IntOrInts,
    output_size: IntOrInts | None,
    output_ratio: Any,
    with_indices: bool,
    samples: Tensor | None,
) -> Pooled:
    checks.check_tensor(where, "input", input)
    if output_size is None and output_ratio is None:
        raise ValueError(message(where, "needs output_size or output_ratio"))
    unbatched, batched_layout = LAYOUTS[ndim]
    if input.dim() < ndim + 1:
        raise IndexError(
            message(where, f"input must be {batched_layout} or {unbatched}, got {shape_text(input.shape)}")
        )
    check_rank(where, "input", input, {ndim + 1: unbatched, ndim + 2: batched_layout})
    check_samples(where, ndim, input.shape)
    kernel = as_ints(where, "kernel_size", kernel_size, ndim)
    sizes = tuple(input.shape[-ndim:])
    if output_size is None:
        ratios = tuple(output_ratio) if isinstance(output_ratio, (list, tuple)) else (output_ratio,) * ndim
        output_size = tuple(int(size * ratio) for size, ratio in zip(sizes, ratios, strict=True))
    output = as_ints(where, "output_size", output_size, ndim)
    check_at_least(where, "kernel_size", kernel, 1)
    check_at_least(where, "output_size", output, 1)
    if any(o + k - 1 > size for o, k, size in zip(output, kernel, sizes, strict=True)):
        got = f"kernel {kernel} and output {output} are too large for input {shape_text(input.shape)}"
        raise RuntimeError(message(where, got, "output_size + kernel_size - 1 must not exceed the input's size."))
    batched = input.dim() == ndim + 2
    x = input if batched else input.unsqueeze(0)
    if samples is None:
        samples = rand(x.shape[0], x.shape[1], ndim, dtype=x.dtype)
    elif samples.dim() != 3 or samples.shape[0] < x.shape[0] or samples.shape[1:] != (x.shape[1], ndim):
        want = (x.shape[0], x.shape[1], ndim)
        raise RuntimeError(message(where, f"_random_samples must be {want}, got {shape_text(samples.shape)}"))
    samples = samples[: x.shape[0]]
    if ndim == 2:
        samples = samples.flip(-1)  # PyTorch's 2-d form draws W first, its 3-d form D first
    y, indices = ops.fractional_max_pool(x, samples, kernel, output)
    if not batched:
        y, indices = y.squeeze(0), indices.squeeze(0)
    return (y, indices) if with_indices else y


def max_unpool1d(
    input: Tensor,
    indices: Tensor,
    kernel_size: IntOrInts,
    stride: IntOrInts | None = None,
    padding: IntOrInts = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """Undo `max_pool1d`: values go to `indices`, zeros elsewhere. Module twin: `nn.MaxUnpool1d`.

    `output_size` picks one of the sizes that pool to the same L; by default (L - 1) stride + kernel_size - 2 padding.
    Raises ValueError for an output_size out of reach, RuntimeError for shapes, dtypes or indices that do not fit.
    """
    return _max_unpool("max_unpool1d", 1, input, indices, kernel_size, stride, padding, output_size)


def max_unpool2d(
    input: Tensor,
    indices: Tensor,
    kernel_size: IntOrInts,
    stride: IntOrInts | None = None,
    padding: IntOrInts = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """Undo `max_pool2d`: values go to `indices`, zeros elsewhere. Module twin: `nn.MaxUnpool2d`. As `max_unpool1d`."""
    return _max_unpool("max_unpool2d", 2, input, indices, kernel_size, stride, padding, output_size)


def max_unpool3d(
    input: Tensor,
    indices: Tensor,
    kernel_size: IntOrInts,
    stride: IntOrInts | None = None,
    padding: IntOrInts = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """Undo `max_pool3d`: values go to `indices`, zeros elsewhere. Module twin: `nn.MaxUnpool3d`. As `max_unpool1d`."""
    return _max_unpool("max_unpool3d", 3, input, indices, kernel_size, stride, padding, output_size)


def _max_unpool(
    where: str,
    ndim: int,
    input: Tensor,
    indices: Tensor,
    kernel_size: IntOrInts,
    stride: IntOrInts | None,
    padding: IntOrInts,
    output_size: Sequence[int] | None,
) -> Tensor:
    checks.check_tensors(where, input=input, indices=indices)
    if indices.dtype is not int64:
        got = f"indices must be {int64}, got {indices.dtype}"
        raise RuntimeError(message(where, got, "They come from a pooling with return_indices=True."))
    unbatched, batched = LAYOUTS[ndim]
    check_rank(where, "input", input, {ndim + 1: unbatched, ndim + 2: batched})
    if indices.shape != input.shape:
        got = f"indices must have the input's shape {shape_text(input.shape)}, got {shape_text(indices.shape)}"
        raise RuntimeError(message(where, got))
    kernel = as_ints(where, "kernel_size", kernel_size, ndim)
    strides = kernel if is_default(stride) else as_ints(where, "stride", stride, ndim)
    check_at_least(where, "stride", strides, 1)
    pads = as_ints(where, "padding", padding, ndim)
    output = unpooled_size(where, ndim, input, kernel, strides, pads, output_size)
    plane = prod(output)
    if indices.numel() and not 0 <= (worst := worst_index(indices, plane)) < plane:
        raise RuntimeError(message(where, f"found index {worst}, but the output planes {output} have {plane} samples"))
    if input.dim() == ndim + 2:
        return ops.max_unpool(input, indices, output)
    return ops.max_unpool(input.unsqueeze(0), indices.unsqueeze(0), output).squeeze(0)
