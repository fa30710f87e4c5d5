"""Patches of an image as columns (unfold), and columns added back into an image (fold): each the other's gradient.

Letters: N batch, C channels, K = kernel height * kernel width, L positions of the kernel.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from faltung.autograd.graph import Op
from faltung.ops.apply import apply
from faltung.tensor import Tensor

Pair = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Patches:
    """Where the patches of an image of size `image` lie."""

    image: Pair
    kernel: Pair
    dilation: Pair
    padding: Pair
    stride: Pair

    @property
    def positions(self) -> Pair:
        """How often the kernel fits, down and across."""
        down, across = (
            (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
            for size, kernel, dilation, padding, stride in zip(
                self.image, self.kernel, self.dilation, self.padding, self.stride, strict=True
            )
        )
        return down, across

    def pieces(self) -> Iterator[tuple[int, int, slice, slice]]:
        """For each kernel element: its row and column, and the padded pixels that it meets."""
        down, across = self.positions
        for i in range(self.kernel[0]):
            for j in range(self.kernel[1]):
                top, left = i * self.dilation[0], j * self.dilation[1]
                rows = slice(top, top + (down - 1) * self.stride[0] + 1, self.stride[0])
                columns = slice(left, left + (across - 1) * self.stride[1] + 1, self.stride[1])
                yield i, j, rows, columns


class Unfold(Op):
    """(N, C, H, W) -> (N, C K, L)."""

    name = "im2col"
    quiet = True

    @staticmethod
    def forward(ctx: Any, x: np.ndarray, *, patches: Patches) -> np.ndarray:
        ctx.patches = patches
        batch, channels = x.shape[:2]
        vertical, horizontal = patches.padding
        padded = np.pad(x, ((0, 0), (0, 0), (vertical, vertical), (horizontal, horizontal)))
        columns = np.empty((batch, channels, *patches.kernel, *patches.positions), x.dtype)
        for i, j, rows, across in patches.pieces():
            columns[:, :, i, j] = padded[:, :, rows, across]
        kernel_size, count = patches.kernel[0] * patches.kernel[1], patches.positions[0] * patches.positions[1]
        return columns.reshape(batch, channels * kernel_size, count)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return fold(grad, ctx.patches)


class Fold(Op):
    """(N, C K, L) -> (N, C, H, W); values that meet at a pixel are added."""

    name = "col2im"
    quiet = True

    @staticmethod
    def forward(ctx: Any, x: np.ndarray, *, patches: Patches) -> np.ndarray:
        ctx.patches = patches
        kernel = patches.kernel
        batch, channels = x.shape[0], x.shape[1] // (kernel[0] * kernel[1])
        columns = x.reshape(batch, channels, *kernel, *patches.positions)
        (height, width), (vertical, horizontal) = patches.image, patches.padding
        padded = np.zeros((batch, channels, height + 2 * vertical, width + 2 * horizontal), x.dtype)
        for i, j, rows, across in patches.pieces():
            padded[:, :, rows, across] += columns[:, :, i, j]
        return padded[:, :, vertical : vertical + height, horizontal : horizontal + width]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return unfold(grad, ctx.patches)


def unfold(x: Tensor, patches: Patches) -> Tensor:
    return apply(Unfold, x, patches=patches)


def fold(x: Tensor, patches: Patches) -> Tensor:
    return apply(Fold, x, patches=patches)
