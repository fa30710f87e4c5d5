"""Convolutions: PyTorch's signatures, and errors that say what to do.

`_plan` checks and canonicalises once per combination of shapes and arguments; a call that was seen before costs one
look into its cache.

Letters: N batch, I / O in and out channels, L / H / W / D spatial sizes, G groups.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from faltung.autograd import is_grad_enabled
from faltung.dtypes import OF_NUMPY
from faltung.engine.geometry import ConvGeometry
from faltung.nn.functional._checks import (
    IntOrInts,
    as_int,
    as_ints,
    check_at_least,
    check_rank,
    check_same_dtype,
    check_tensors,
    message,
    shape_text,
)
from faltung.ops.conv import convolution, convolution_finished, transposed_convolution
from faltung.ops.norm import channel_affine
from faltung.tensor import Tensor

_LAYOUTS = {1: "(N, C, L)", 2: "(N, C, H, W)", 3: "(N, C, D, H, W)"}
_CHANNELS_LAST_TO_FIRST = {1: "(0, 2, 1)", 2: "(0, 3, 1, 2)", 3: "(0, 4, 1, 2, 3)"}
Shape = tuple[int, ...]


def conv1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: IntOrInts = 1,
    padding: str | IntOrInts = 0,
    dilation: IntOrInts = 1,
    groups: int = 1,
) -> Tensor:
    """1-d convolution (cross-correlation, as everywhere in deep learning). Module twin: `nn.Conv1d`.

    Shapes: input (N, I, L) or (I, L), weight (O, I/groups, k), bias (O,) -> (N, O, L') or (O, L') with
    L' = (L + 2 padding - dilation (k - 1) - 1) // stride + 1. `padding` may be "valid" (none) or "same" (L' = L, for
    stride 1).
    Raises RuntimeError for shapes, dtypes or values that do not fit, TypeError for arguments of the wrong type.
    """
    return _conv("conv1d", 1, input, weight, bias, stride, padding, dilation, groups)


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: IntOrInts = 1,
    padding: str | IntOrInts = 0,
    dilation: IntOrInts = 1,
    groups: int = 1,
) -> Tensor:
    """2-d convolution: input (N, I, H, W) or (I, H, W), weight (O, I/groups, kH, kW). Module twin: `nn.Conv2d`.

    Arguments, output sizes and errors as in `conv1d`, per dimension; integers stand for equal values in both.
    """
    return _conv("conv2d", 2, input, weight, bias, stride, padding, dilation, groups)


def conv3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: IntOrInts = 1,
    padding: str | IntOrInts = 0,
    dilation: IntOrInts = 1,
    groups: int = 1,
) -> Tensor:
    """3-d convolution: input (N, I, D, H, W) or unbatched, weight (O, I/groups, kD, kH, kW). As `conv1d`."""
    return _conv("conv3d", 3, input, weight, bias, stride, padding, dilation, groups)


def conv_transpose1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: IntOrInts = 1,
    padding: IntOrInts = 0,
    output_padding: IntOrInts = 0,
    groups: int = 1,
    dilation: IntOrInts = 1,
) -> Tensor:
    """1-d transposed convolution: what the gradient of `conv1d` does to its input. Module twin: `nn.ConvTranspose1d`.

    Shapes: input (N, I, L) or (I, L), weight (I, O/groups, k), bias (O,) -> (N, O, L') or (O, L') with
    L' = (L - 1) stride - 2 padding + dilation (k - 1) + output_padding + 1. `output_padding` picks one of the sizes
    that a strided convolution maps to the same L; it adds no values. Mind the order: groups stands before dilation.
    """
    args = (stride, padding, output_padding, groups, dilation)
    return _conv_transpose("conv_transpose1d", 1, input, weight, bias, *args)


def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: IntOrInts = 1,
    padding: IntOrInts = 0,
    output_padding: IntOrInts = 0,
    groups: int = 1,
    dilation: IntOrInts = 1,
) -> Tensor:
    """2-d transposed convolution: input (N, I, H, W), weight (I, O/groups, kH, kW). As `conv_transpose1d`."""
    args = (stride, padding, output_padding, groups, dilation)
    return _conv_transpose("conv_transpose2d", 2, input, weight, bias, *args)


def conv_transpose3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: IntOrInts = 1,
    padding: IntOrInts = 0,
    output_padding: IntOrInts = 0,
    groups: int = 1,
    dilation: IntOrInts = 1,
) -> Tensor:
    """3-d transposed convolution: input (N, I, D, H, W), weight (I, O/groups, kD, kH, kW). As `conv_transpose1d`."""
    args = (stride, padding, output_padding, groups, dilation)
    return _conv_transpose("conv_transpose3d", 3, input, weight, bias, *args)


def conv_tbc(input: Tensor, weight: Tensor, bias: Tensor, pad: int = 0) -> Tensor:
    """1-d convolution of a sequence in (time, batch, channels) order.

    Shapes: input (T, N, I), weight (k, I, O), bias (O,) -> (T + 2 pad - k + 1, N, O). Errors as in `conv1d`.
    """
    where = "conv_tbc"
    check_tensors(where, input=input, weight=weight, bias=bias)
    check_rank(where, "input", input, {3: "(T, N, C)"})
    check_rank(where, "weight", weight, {3: "(kernel, in_channels, out_channels)"})
    x, w = input.permute(1, 2, 0), weight.permute(2, 1, 0)
    return _conv(where, 1, x, w, bias, 1, pad, 1, 1).permute(2, 0, 1)


def finished_convolution(
    ndim: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: IntOrInts,
    padding: str | IntOrInts,
    dilation: IntOrInts,
    groups: int,
    statistics: tuple[Tensor, Tensor, Tensor | None, Tensor | None, float] | None,
    activation: str,
    pooled: bool = False,
    waits: bool = False,
) -> Tensor:
    """A convolution of a batch, then the batch norm of `statistics` (mean, var, weight, bias, eps; checked) and one of
    `engine.epilogue.ACTIVATIONS`, both in its kernel's registers. Only relu and relu6 alone have gradients, which
    `pooled` leaves to the max pooling behind it. `waits`: a residual may come behind it (`ops.deferred`).
    """
    geometry = _geometry(_plan, f"conv{ndim}d", ndim, input, weight, bias, stride, padding, dilation, groups)
    if is_grad_enabled():
        return convolution(input, weight, bias, geometry, activation, pooled)
    affine = None if statistics is None else channel_affine(*statistics)
    return convolution_finished(input, weight, bias, geometry, affine, None, activation, waits)


def _conv(where: str, ndim: int, input: Tensor, weight: Tensor, bias: Tensor | None, *args: Any) -> Tensor:
    geometry = _geometry(_plan, where, ndim, input, weight, bias, *args)
    if input.dim() == ndim + 2:
        return convolution(input, weight, bias, geometry)
    return convolution(input.unsqueeze(0), weight, bias, geometry).squeeze(0)


def _conv_transpose(where: str, ndim: int, input: Tensor, weight: Tensor, bias: Tensor | None, *args: Any) -> Tensor:
    geometry = _geometry(_plan_transpose, where, ndim, input, weight, bias, *args)
    if input.dim() == ndim + 2:
        return transposed_convolution(input, weight, bias, geometry)
    return transposed_convolution(input.unsqueeze(0), weight, bias, geometry).squeeze(0)


def _geometry(
    plan: Any, where: str, ndim: int, input: Tensor, weight: Tensor, bias: Tensor | None, *args: Any
) -> ConvGeometry:
    """The checked geometry; a combination that was seen before costs one look into the plan's cache."""
    try:
        x, w, b = input._data, weight._data, None if bias is None else bias._data
        kind = x.dtype
        geometry: ConvGeometry = plan(where, ndim, kind, x.shape, w.shape, None if b is None else b.shape, *args)
        if w.dtype == kind and (b is None or b.dtype == kind):
            return geometry
    except (AttributeError, TypeError):
        pass
    return _canonical_plan(plan, where, ndim, input, weight, bias, *args)


def _canonical_plan(plan: Any, where: str, ndim: int, input: Any, weight: Any, bias: Any, *args: Any) -> ConvGeometry:
    """The way of arguments that do not hash (lists), and of every error about types and dtypes."""
    check_tensors(where, optional=("bias",), input=input, weight=weight, bias=bias)
    hashable = tuple(tuple(arg) if isinstance(arg, list) else arg for arg in args)
    bias_shape = None if bias is None else bias.shape
    geometry: ConvGeometry = plan.__wrapped__(
        where, ndim, input._data.dtype, input.shape, weight.shape, bias_shape, *hashable
    )
    check_same_dtype(where, input=input, weight=weight, bias=bias)
    return geometry


@lru_cache(maxsize=4096, typed=True)
def _plan(
    where: str,
    ndim: int,
    kind: np.dtype[Any],
    x: Shape,
    w: Shape,
    bias: Shape | None,
    stride: IntOrInts,
    padding: str | IntOrInts,
    dilation: IntOrInts,
    groups: int,
) -> ConvGeometry:
    """Checks every shape and argument of a convolution; what comes out, the floors below trust."""
    groups = as_int(where, "groups", groups)
    check_at_least(where, "groups", (groups,), 1)
    _check_ranks(where, ndim, x, w, "(out_channels, in_channels/groups, *kernel)")
    strides = as_ints(where, "stride", stride, ndim)
    dilations = as_ints(where, "dilation", dilation, ndim)
    check_at_least(where, "stride", strides, 1)
    check_at_least(where, "dilation", dilations, 1)
    pads = _padding(where, padding, strides, ndim)
    _check_weight(where, w, groups)
    _check_channels(where, ndim, x, w, groups, w[1] * groups)
    _check_bias(where, w, bias, w[0])
    _check_dtype(where, kind)
    batched = x if len(x) == ndim + 2 else (1, *x)
    geometry = ConvGeometry.of(tuple(batched), tuple(w), strides, pads, dilations, groups)
    _check_kernel_fits(where, geometry)
    return geometry


@lru_cache(maxsize=4096, typed=True)
def _plan_transpose(
    where: str,
    ndim: int,
    kind: np.dtype[Any],
    x: Shape,
    w: Shape,
    bias: Shape | None,
    stride: IntOrInts,
    padding: IntOrInts,
    output_padding: IntOrInts,
    groups: int,
    dilation: IntOrInts,
) -> ConvGeometry:
    """As `_plan`; the geometry is that of the convolution which maps the other way."""
    groups = as_int(where, "groups", groups)
    check_at_least(where, "groups", (groups,), 1)
    _check_ranks(where, ndim, x, w, "(in_channels, out_channels/groups, *kernel)")
    strides = as_ints(where, "stride", stride, ndim)
    pads = as_ints(where, "padding", padding, ndim)
    extras = as_ints(where, "output_padding", output_padding, ndim)
    dilations = as_ints(where, "dilation", dilation, ndim)
    check_at_least(where, "stride", strides, 1)
    check_at_least(where, "dilation", dilations, 1)
    check_at_least(where, "padding", pads, 0)
    check_at_least(where, "output_padding", extras, 0)
    _check_weight(where, w, groups)
    _check_channels(where, ndim, x, w, groups, w[0])
    _check_bias(where, w, bias, w[1] * groups)
    if any(extra >= max(s, d) for extra, s, d in zip(extras, strides, dilations, strict=True)):
        got = f"output_padding={extras} must be smaller than stride={strides} or dilation={dilations}"
        raise RuntimeError(message(where, got, "It only picks among the sizes that the stride makes ambiguous."))
    _check_dtype(where, kind)
    batched = x if len(x) == ndim + 2 else (1, *x)
    geometry = ConvGeometry.mirrored(tuple(batched), tuple(w), strides, pads, extras, groups, dilations)
    if min(geometry.output) == 0:
        raise RuntimeError(message(where, f"input {shape_text(x)} has no samples: only batch or channels may be 0"))
    if min(geometry.input) < 1:
        got = f"padding={pads} leaves nothing of the result: its size would be {geometry.input}"
        raise RuntimeError(message(where, got, "Here padding makes the result smaller; reduce it."))
    return geometry


def _check_ranks(where: str, ndim: int, x: Shape, w: Shape, weight_layout: str) -> None:
    layout = _LAYOUTS[ndim]
    if len(w) != ndim + 2:
        got = f"weight must be {ndim + 2}-d {weight_layout}, got {len(w)}-d {shape_text(w)}"
        hint = f"For {len(w) - 2}-d data use {where[:-2]}{len(w) - 2}d." if len(w) in (3, 4, 5) else None
        raise RuntimeError(message(where, got, hint))
    if len(x) in (ndim + 1, ndim + 2):
        return
    unbatched = layout.replace("N, ", "")
    got = f"input must be {ndim + 2}-d {layout} or unbatched {ndim + 1}-d {unbatched}, got {len(x)}-d {shape_text(x)}"
    raise RuntimeError(message(where, got, _rank_hint(ndim, x, w)))


def _rank_hint(ndim: int, x: Shape, w: Shape) -> str | None:
    """What probably happened to data of the wrong rank: flattened too early, or without its channel dimension."""
    if len(x) == 2 and ndim == 2 and w[1]:
        side = round((x[1] / w[1]) ** 0.5)
        if side * side * w[1] == x[1] and side >= max(w[2:]):
            return (
                "It looks flattened: convolution needs the image, linear layers the flat form. "
                f"Flatten after the convolutions, or use x.view(-1, {w[1]}, {side}, {side})."
            )
    if len(x) == ndim:
        return f"If this is one image without channels, use x[None]: (1, {', '.join(map(str, x))})."
    return None


def _padding(where: str, padding: str | IntOrInts, strides: Shape, ndim: int) -> str | Shape:
    if not isinstance(padding, str):
        pads = as_ints(where, "padding", padding, ndim)
        check_at_least(where, "padding", pads, 0)
        return pads
    if padding not in ("same", "valid"):
        raise RuntimeError(message(where, f"padding must be ints, 'same' or 'valid', got padding={padding!r}"))
    if padding == "same" and set(strides) != {1}:
        got = f"padding='same' needs stride 1, got stride={strides}"
        raise RuntimeError(message(where, got, "Give the padding in numbers: (kernel_size - 1) // 2 is usual."))
    return padding


def _check_weight(where: str, w: Shape, groups: int) -> None:
    if w[0] < 1:
        raise RuntimeError(message(where, f"weight must have at least one filter, got {shape_text(w)}"))
    if min(w[2:]) < 1:
        raise RuntimeError(message(where, f"the kernel must have at least one tap, got weight {shape_text(w)}"))
    if w[0] % groups:
        got = f"weight {shape_text(w)} needs a first dimension divisible by groups={groups}, got {w[0]}"
        better = f"Use {-(-w[0] // groups) * groups} instead of {w[0]}, or groups=1."
        raise RuntimeError(message(where, got, better))


def _check_channels(where: str, ndim: int, x: Shape, w: Shape, groups: int, channels: int) -> None:
    at = len(x) - ndim - 1
    if x[at] == channels:
        return
    need = f"weight {shape_text(w)} with groups={groups} needs an input with {channels} channels"
    raise RuntimeError(
        message(where, f"{need}, got input {shape_text(x)}", _channels_hint(where, ndim, x, w, groups, channels))
    )


def _channels_hint(where: str, ndim: int, x: Shape, w: Shape, groups: int, channels: int) -> str | None:
    plain = "transpose" not in where
    if plain and groups > 1 and w[1] == x[-ndim - 1] and w[1] % groups == 0:
        return f"With groups={groups} the weight's second dimension is in_channels/groups, here {w[1] // groups}."
    if x[-1] == channels and len(x) == ndim + 2:
        order = _CHANNELS_LAST_TO_FIRST[ndim]
        return f"Its last dimension is {channels}: if the data is channels last, use x.permute{order}."
    if x[-1] == channels:
        order = ", ".join(map(str, (ndim, *range(ndim))))
        return f"Its last dimension is {channels}: if the data is channels last, use x.permute({order})."
    if len(x) == ndim + 1 and channels == 1:
        return "It is taken as one unbatched image: if it is a batch without channels, use x.unsqueeze(1)."
    if not plain:
        if w[1] * groups == x[-ndim - 1]:
            return "A transposed convolution's weight is (in_channels, out_channels/groups, *kernel): transpose(0, 1)?"
        return None
    if w[0] == x[-ndim - 1] and groups == 1:
        return "A weight is (out_channels, in_channels, *kernel): if the two are swapped, use weight.transpose(0, 1)."
    return None


def _check_dtype(where: str, kind: np.dtype[Any]) -> None:
    if kind == np.bool_:
        raise NotImplementedError(
            message(where, f"not implemented for {OF_NUMPY[kind]}", "Convert the data: input.float().")
        )


def _check_bias(where: str, w: Shape, bias: Shape | None, channels: int) -> None:
    if bias is not None and tuple(bias) != (channels,):
        got = f"weight {shape_text(w)} needs a bias of shape ({channels},), got bias {shape_text(bias)}"
        raise RuntimeError(message(where, got))


def _check_kernel_fits(where: str, geometry: ConvGeometry) -> None:
    g = geometry
    if min(g.output) >= 1 and min(g.input) >= 1:
        return
    if min(g.input) == 0 and min(g.output) >= 1:
        raise RuntimeError(
            message(where, f"input {shape_text(g.input_shape)} has no samples: only batch or channels may be 0")
        )
    padded = tuple(size + before + after for size, (before, after) in zip(g.input, g.padding, strict=True))
    spans = tuple(d * (k - 1) + 1 for k, d in zip(g.kernel, g.dilation, strict=True))
    dilated = "" if spans == g.kernel else f" (kernel {g.kernel}, dilation {g.dilation})"
    got = f"the kernel spans {spans}{dilated}, which is larger than the padded input {padded}"
    hint = "Use a smaller kernel, more padding, or fewer strided layers before this one."
    raise RuntimeError(message(where, got, hint))
