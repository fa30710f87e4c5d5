"""Arguments of pooling: checked once per combination of shapes and values, then remembered."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from faltung.dtypes import bool as bool_dtype
from faltung.dtypes import dtype
from faltung.engine.geometry import PoolGeometry
from faltung.nn.functional import _checks as checks
from faltung.nn.functional._checks import IntOrInts, as_ints, check_at_least, check_rank, message, shape_text
from faltung.tensor import Tensor

Shape = tuple[int, ...]
LAYOUTS = {1: ("(C, L)", "(N, C, L)"), 2: ("(C, H, W)", "(N, C, H, W)"), 3: ("(C, D, H, W)", "(N, C, D, H, W)")}


def is_default(stride: Any) -> bool:
    return stride is None or (isinstance(stride, (list, tuple)) and len(stride) == 0)


def pool_geometry(where: str, ndim: int, input: Tensor, *args: Any) -> PoolGeometry:
    """The checked geometry; a combination that was seen before costs one look into the cache."""
    try:
        return _plan(where, ndim, input.dtype, input.shape, *args)
    except (AttributeError, TypeError):
        pass
    checks.check_tensor(where, "input", input)
    hashable = (tuple(arg) if isinstance(arg, list) else arg for arg in args)
    return _plan.__wrapped__(where, ndim, input.dtype, input.shape, *hashable)


@lru_cache(maxsize=4096, typed=True)
def _plan(
    where: str,
    ndim: int,
    kind: dtype,
    shape: Shape,
    kernel_size: IntOrInts,
    stride: IntOrInts | None,
    padding: IntOrInts,
    dilation: IntOrInts,
    ceil_mode: bool,
) -> PoolGeometry:
    kernel = as_ints(where, "kernel_size", kernel_size, ndim)
    strides = kernel if is_default(stride) else as_ints(where, "stride", stride, ndim)
    pads = as_ints(where, "padding", padding, ndim)
    dilations = as_ints(where, "dilation", dilation, ndim)
    ceil_mode = checks.as_bool(where, "ceil_mode", ceil_mode)
    if len(shape) not in (ndim + 1, ndim + 2):
        unbatched, batched = LAYOUTS[ndim]
        got = (
            f"input must be {ndim + 2}-d {batched} or {ndim + 1}-d {unbatched}, got {len(shape)}-d {shape_text(shape)}"
        )
        raise RuntimeError(message(where, got))
    check_at_least(where, "kernel_size", kernel, 1)
    check_at_least(where, "stride", strides, 1)
    check_at_least(where, "dilation", dilations, 1)
    check_at_least(where, "padding", pads, 0)
    spans = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True))
    if any(2 * p > k for p, k in zip(pads, kernel, strict=True)):
        got = f"padding must be at most half of kernel_size, got padding={pads} and kernel_size={kernel}"
        raise RuntimeError(message(where, got, "A larger one would make windows of padding alone."))
    check_ordered(where, kind)
    check_samples(where, ndim, shape)
    batched_shape = tuple(shape) if len(shape) == ndim + 2 else (1, *shape)
    geometry = PoolGeometry.of(batched_shape, kernel, strides, pads, dilations, ceil_mode)
    small = where == "avg_pool3d" and any(k > size for k, size in zip(kernel, geometry.input, strict=True))
    if min(geometry.output) < 1 or small:  # PyTorch's avg_pool3d wants the kernel to fit without padding
        got = f"windows that span {spans} do not fit input {shape_text(shape)} with padding={pads}"
        raise RuntimeError(message(where, got, "Use a smaller kernel_size, or pool fewer times before this layer."))
    return geometry


def check_samples(where: str, ndim: int, shape: Shape) -> None:
    if 0 in shape[-ndim - 1 :]:
        raise RuntimeError(message(where, f"input {shape_text(shape)} has no samples: only the batch may be empty"))


def check_ordered(where: str, kind: dtype) -> None:
    if kind.is_complex or kind is bool_dtype:
        raise NotImplementedError(message(where, f"not implemented for {kind}", "Convert the data: input.float()."))


def adaptive_output(where: str, ndim: int, input: Tensor, output_size: Any) -> Shape:
    """The sizes that an adaptive pooling makes; None keeps one of the input's."""
    checks.check_tensor(where, "input", input)
    unbatched, batched = LAYOUTS[ndim]
    layouts, sizes = {ndim + 1: unbatched, ndim + 2: batched}, input.shape[-ndim:]
    if ndim > 1 and isinstance(output_size, (list, tuple)):
        kind = ValueError if input.dim() <= len(output_size) else RuntimeError  # PyTorch's classes
        if len(output_size) != ndim:
            got = f"output_size must be an int or {ndim} of them (None keeps a size), got {tuple(output_size)}"
            raise kind(message(where, got))
        check_rank(where, "input", input, layouts, kind=kind)
        output_size = tuple(size if wanted is None else wanted for wanted, size in zip(output_size, sizes, strict=True))
    check_rank(where, "input", input, layouts)
    if output_size is None and ndim > 1:
        output_size = tuple(sizes)
    output = as_ints(where, "output_size", output_size, ndim)
    check_at_least(where, "output_size", output, 0)
    check_samples(where, ndim, input.shape)
    return output


def worst_index(indices: Tensor, plane: int) -> int:
    low = int(indices.min().item())
    return low if low < 0 else int(indices.max().item())


def unpooled_size(
    where: str, ndim: int, input: Tensor, kernel: Shape, strides: Shape, pads: Shape, output_size: Sequence[int] | None
) -> Shape:
    sizes = zip(input.shape[-ndim:], strides, kernel, pads, strict=True)
    usual = tuple((size - 1) * s + k - 2 * p for size, s, k, p in sizes)
    if output_size is None:
        check_at_least(where, "the result's size", usual, 1)
        return usual
    wanted = tuple(output_size)
    if len(wanted) == ndim + 2:
        wanted = wanted[2:]
    if len(wanted) != ndim:
        got = f"output_size must have {ndim} or {ndim + 2} elements, got {len(wanted)}: {tuple(output_size)}"
        raise ValueError(message(where, got))
    for d in range(ndim):
        low, high = usual[d] - strides[d], usual[d] + strides[d]
        if not low < wanted[d] < high:
            got = f"output_size {wanted} is out of reach: dimension {d} must lie between {low + 1} and {high - 1}"
            raise ValueError(message(where, got))
    return wanted
