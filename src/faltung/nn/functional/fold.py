"""unfold and fold: sliding patches as columns, and back."""

from __future__ import annotations

from typing import Any

from faltung.ops import fold as ops
from faltung.tensor import Tensor

from ._checks import IntOrInts, as_ints, check_at_least, check_rank, check_tensor, message, shape_text


def unfold(
    input: Tensor, kernel_size: IntOrInts, dilation: IntOrInts = 1, padding: IntOrInts = 0, stride: IntOrInts = 1
) -> Tensor:
    """Every patch of an image as a column: (N, C, H, W) -> (N, C * kernel elements, positions).

    A 3-d image (C, H, W) gives a 2-d result. RuntimeError if the kernel does not fit the padded image.
    """
    where = "unfold"
    check_tensor(where, "input", input)
    kernel, dilations, paddings, strides = _pairs(where, kernel_size, dilation, padding, stride)
    check_rank(where, "input", input, {3: "(C, H, W)", 4: "(N, C, H, W)"})
    if 0 in input.shape[-3:]:
        raise RuntimeError(
            message(where, f"only the batch of input (N, C, H, W) may be empty, got {shape_text(input.shape)}")
        )
    height, width = input.shape[-2:]
    patches = ops.Patches((height, width), kernel, dilations, paddings, strides)
    if min(patches.positions) < 1:
        raise RuntimeError(
            message(
                where,
                f"kernel_size={kernel} with dilation={dilations} does not fit input {shape_text(input.shape)} with "
                f"padding={paddings}: the array of sliding blocks would have shape {patches.positions}",
            )
        )
    if input.dim() == 3:
        return ops.unfold(input.unsqueeze(0), patches).squeeze(0)
    return ops.unfold(input, patches)


def fold(
    input: Tensor,
    output_size: IntOrInts,
    kernel_size: IntOrInts,
    dilation: IntOrInts = 1,
    padding: IntOrInts = 0,
    stride: IntOrInts = 1,
) -> Tensor:
    """Columns added into an image: (N, C * kernel elements, positions) -> (N, C, *output_size).

    A 2-d input gives a 3-d image. RuntimeError if rows or columns do not match kernel and output size.
    """
    where = "fold"
    check_tensor(where, "input", input)
    image = _pair(where, "output_size", output_size, 1)
    kernel, dilations, paddings, strides = _pairs(where, kernel_size, dilation, padding, stride)
    check_rank(where, "input", input, {2: "(C * K, L)", 3: "(N, C * K, L)"})
    rows, columns = input.shape[-2:]
    elements = kernel[0] * kernel[1]
    if rows == 0 or rows % elements:
        raise RuntimeError(
            message(
                where,
                f"Expected size of input's dimension {input.dim() - 2} to be divisible by the product of kernel_size, "
                f"got input {shape_text(input.shape)} and kernel_size={kernel}",
            )
        )
    patches = ops.Patches(image, kernel, dilations, paddings, strides)
    down, across = patches.positions
    if columns != down * across or min(down, across) < 1:
        raise RuntimeError(
            message(
                where,
                f"Given output_size={image}, kernel_size={kernel}, dilation={dilations}, padding={paddings}, "
                f"stride={strides}, expected input's last dimension to match the {down} * {across} sliding blocks, got "
                f"input {shape_text(input.shape)}",
            )
        )
    if input.dim() == 2:
        return ops.fold(input.unsqueeze(0), patches).squeeze(0)
    return ops.fold(input, patches)


def _pair(where: str, name: str, value: Any, minimum: int) -> ops.Pair:
    first, second = as_ints(where, name, value, 2)
    check_at_least(where, name, (first, second), minimum)
    return first, second


def _pairs(
    where: str, kernel_size: Any, dilation: Any, padding: Any, stride: Any
) -> tuple[ops.Pair, ops.Pair, ops.Pair, ops.Pair]:
    return (
        _pair(where, "kernel_size", kernel_size, 1),
        _pair(where, "dilation", dilation, 1),
        _pair(where, "padding", padding, 0),
        _pair(where, "stride", stride, 1),
    )
