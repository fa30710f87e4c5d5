"""Sampling images at any positions: affine_grid makes the positions, grid_sample reads there (spatial transformers).

Letters: N batch, C channels, P sampled positions (all output pixels), D the 2 or 3 spatial dimensions. Positions run
from -1 to 1 over the image, x first. Everything is composed of differentiable operations, so all derivatives exist.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Sequence

from faltung.ops.creation import linspace
from faltung.ops.join import stack
from faltung.ops.masks import where
from faltung.tensor import Tensor

from ._checks import check_same_dtype, check_tensors, message, shape_text

_MODES = ("bilinear", "nearest", "bicubic")
_PADDINGS = ("zeros", "border", "reflection")
_ALIGN_WARNING = (
    "{}: align_corners is not given and counts as False: -1 and 1 are the outer edges of the corner pixels, not their "
    "centres. Give align_corners=False or True."
)


def grid_sample(
    input: Tensor,
    grid: Tensor,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool | None = None,
) -> Tensor:
    """`input` (N, C, H, W) read at `grid` (N, oH, oW, 2) -> (N, C, oH, oW); with one more dimension for volumes.

    Args: `mode`, "bilinear", "nearest" or "bicubic" (images only); `padding_mode`, what stands outside the image:
    "zeros", the nearest pixel of the "border", or its "reflection"; `align_corners`, whether -1 and 1 mean the centres
    of the corner pixels, or their outer edges.
    """
    where_ = "grid_sample"
    if mode not in _MODES:
        raise ValueError(f"{where_}: expected mode to be 'bilinear', 'nearest' or 'bicubic', but got: {mode!r}")
    if padding_mode not in _PADDINGS:
        raise ValueError(
            f"{where_}: expected padding_mode to be 'zeros', 'border', or 'reflection', but got: {padding_mode!r}"
        )
    if align_corners is None:
        warnings.warn(_ALIGN_WARNING.format(where_), stacklevel=2)
        align_corners = False
    check_tensors(where_, input=input, grid=grid)
    _check_shapes(where_, input, grid, mode)
    check_same_dtype(where_, input=input, grid=grid)
    if input.dtype.itemsize < 4:  # positions need more digits than a half has
        return grid_sample(input.float(), grid.float(), mode, padding_mode, align_corners).to(input.dtype)
    batch, channels, *image = input.shape
    pixels = input.reshape(batch, channels, math.prod(image))
    points = grid.reshape(batch, -1, len(image))  # (N, P, D)
    sizes = image[::-1]  # x first, as in the grid
    to_pixels = _to_pixels if len(image) == 2 else _to_voxels
    positions = [to_pixels(points.select(-1, d), size, align_corners) for d, size in enumerate(sizes)]
    sampler = _Sampler(pixels, sizes, padding_mode, align_corners)
    out = {"bilinear": sampler.linear, "nearest": sampler.nearest, "bicubic": sampler.cubic}[mode](positions)
    return out.reshape(batch, channels, *grid.shape[1:-1])


def _check_shapes(where_: str, input: Tensor, grid: Tensor, mode: str) -> None:
    got = f"got input {shape_text(input.shape)} and grid {shape_text(grid.shape)}"
    if input.dim() not in (4, 5) or grid.dim() != input.dim():
        raise RuntimeError(message(where_, f"expected 4D or 5D input and grid with same number of dimensions, {got}"))
    if grid.shape[0] != input.shape[0]:
        raise RuntimeError(message(where_, f"expected grid and input to have same batch size, {got}"))
    if grid.shape[-1] != input.dim() - 2:
        raise RuntimeError(message(where_, f"expected grid to have size {input.dim() - 2} in last dimension, {got}"))
    if 0 in input.shape[2:]:
        raise RuntimeError(message(where_, f"expected input to have non-empty spatial dimensions, {got}"))
    if mode == "bicubic" and input.dim() == 5:
        raise RuntimeError(message(where_, f"bicubic interpolation only supports 4D input, {got}"))


# From -1..1 to coordinates in which pixel centres are whole numbers. Under the identity transform every position is
# one, and rounding decides on which side its derivative is taken: PyTorch rounds differently for images and volumes.


def _to_pixels(position: Tensor, size: int, align_corners: bool) -> Tensor:
    if align_corners:
        return (position + 1) * ((size - 1) / 2)
    scaled = (position + 1).double() * (size / 2) - 0.5  # multiplied and subtracted with one rounding
    return scaled.to(position.dtype)


def _to_voxels(position: Tensor, size: int, align_corners: bool) -> Tensor:
    if align_corners:
        return (position + 1) / 2 * (size - 1)
    return ((position + 1) * size - 1) / 2


class _Sampler:
    """Weighted sums of the pixels around positions."""

    def __init__(self, pixels: Tensor, sizes: Sequence[int], padding_mode: str, align_corners: bool) -> None:
        self.pixels = pixels  # (N, C, all pixels)
        self.sizes = sizes  # x first
        self.padding_mode = padding_mode
        self.align_corners = align_corners

    def linear(self, positions: list[Tensor]) -> Tensor:
        """The 2^D pixels around each position, weighted by nearness."""
        inside = [self._brought_inside(p, size) for p, size in zip(positions, self.sizes, strict=True)]
        below = [p.detach().floor() for p in inside]
        share = [p - low for p, low in zip(inside, below, strict=True)]
        total: Tensor | None = None
        for corner in itertools.product((0, 1), repeat=len(inside)):
            weight = None
            for step, part in zip(corner, share, strict=True):
                factor = part if step else 1 - part
                weight = factor if weight is None else weight * factor
            assert weight is not None  # there are two or three dimensions
            term = self._weighted([low + step for low, step in zip(below, corner, strict=True)], weight)
            total = term if total is None else total + term
        assert total is not None
        return total

    def nearest(self, positions: list[Tensor]) -> Tensor:
        """The pixel whose centre is nearest; halves go to the even one."""
        inside = [self._brought_inside(p, size).round() for p, size in zip(positions, self.sizes, strict=True)]
        return self._weighted(inside, inside[0] * 0 + 1)  # on the tape: the grid's gradient is zero, not missing

    def cubic(self, positions: list[Tensor]) -> Tensor:
        """The 4 x 4 pixels around each position under Keys' cubic (a = -0.75)."""
        x, y = positions
        left, top = x.detach().floor(), y.detach().floor()
        across, down = _cubic_weights(x - left), _cubic_weights(y - top)
        total: Tensor | None = None
        for i, j in itertools.product(range(4), range(4)):
            at = [
                self._brought_inside(p, size)
                for p, size in zip((left + (j - 1), top + (i - 1)), self.sizes, strict=True)
            ]
            term = self._weighted(at, down[i] * across[j])
            total = term if total is None else total + term
        assert total is not None
        return total

    def _weighted(self, at: list[Tensor], weight: Tensor) -> Tensor:
        """Pixels at whole coordinates (N, P) times weights (N, P) -> (N, C, P); 0 outside the image."""
        index: Tensor | None = None
        valid: Tensor | None = None
        stride = 1
        for coordinate, size in zip(at, self.sizes, strict=True):
            coordinate = coordinate.detach()
            fits = (coordinate >= 0) & (coordinate <= size - 1)  # False for nan
            place = where(fits, coordinate, coordinate.new_zeros(())).long() * stride
            index = place if index is None else index + place
            valid = fits if valid is None else valid & fits
            stride *= size
        assert index is not None
        assert valid is not None
        weight = where(valid, weight, weight.new_zeros(()))
        batch, channels, _ = self.pixels.shape
        found = self.pixels.gather(2, index.unsqueeze(1).expand(batch, channels, index.shape[1]))
        return found * weight.unsqueeze(1)

    def _brought_inside(self, position: Tensor, size: int) -> Tensor:
        """The position that stands for one outside the image; gradients stop at the border."""
        if self.padding_mode == "zeros":
            return position
        if self.padding_mode == "reflection":
            low, high = (0.0, size - 1.0) if self.align_corners else (-0.5, size - 0.5)
            position = _reflected(position, low, high - low)
        kept = (position > 0) & (position < size - 1)
        return where(kept, position, position.detach().nan_to_num(0.0).clamp(0, size - 1))


def _reflected(position: Tensor, low: float, span: float) -> Tensor:
    """`position` mirrored at `low` and `low + span` until it lies between."""
    if span == 0:
        return position * 0
    distance = (position - low).abs()
    flips = (distance.detach() / span).floor()
    rest = distance - flips * span
    return where(flips % 2 == 0, rest + low, span - rest + low)


def _cubic_weights(share: Tensor) -> list[Tensor]:
    """Of the pixels at -1, 0, 1 and 2, for a position `share` past pixel 0."""
    a = -0.75
    near = [((a + 2) * d - (a + 3)) * d * d + 1 for d in (share, 1 - share)]
    far = [((a * d - 5 * a) * d + 8 * a) * d - 4 * a for d in (share + 1, 2 - share)]
    return [far[0], near[0], near[1], far[1]]


def affine_grid(theta: Tensor, size: Sequence[int], align_corners: bool | None = None) -> Tensor:
    """Positions for `grid_sample` under affine maps: theta (N, 2, 3), size (N, C, H, W) -> (N, H, W, 2).

    For volumes theta is (N, 3, 4) and size (N, C, D, H, W). The map takes output positions to input positions.
    """
    where_ = "affine_grid"
    if align_corners is None:
        warnings.warn(_ALIGN_WARNING.format(where_), stacklevel=2)
        align_corners = False
    check_tensors(where_, theta=theta)
    if not theta.dtype.is_floating_point:
        raise ValueError(
            f"{where_}: Expected theta to have floating point type, but got {theta.dtype}. Use theta.float()."
        )
    size = tuple(size)
    dims = len(size) - 2
    if dims not in (2, 3):
        raise NotImplementedError(f"{where_}: only supports 4D and 5D sizes, got size {size}.")
    if theta.dim() != 3 or tuple(theta.shape[1:]) != (dims, dims + 1):
        raise ValueError(
            f"{where_}: Expected a batch of affine matrices of shape ({size[0]}, {dims}, {dims + 1}) for size {size}, "
            f"got {shape_text(theta.shape)}."
        )
    if min(size) <= 0:
        raise ValueError(f"{where_}: Expected non-zero, positive output size. Got {size}")
    spatial = size[2:]
    axes = []
    for place, length in enumerate(reversed(spatial)):  # x first
        shape = [1] * dims
        shape[dims - 1 - place] = length
        axes.append(_centres(length, align_corners, theta).reshape(shape).expand(spatial))
    homogeneous = stack([*axes, theta.new_ones(spatial)], -1).reshape(-1, dims + 1)  # (P, D + 1)
    return (homogeneous @ theta.transpose(1, 2)).reshape(theta.shape[0], *spatial, dims)


def _centres(length: int, align_corners: bool, like: Tensor) -> Tensor:
    """Positions of the pixels' centres."""
    if length <= 1:
        return like.new_zeros((length,))
    positions = linspace(-1, 1, length, dtype=like.dtype)
    return positions if align_corners else positions * (length - 1) / length
