"""Padding layers, all over `faltung.nn.functional.pad`.

`padding` is one integer for every side, or (left, right), (left, right, top, bottom), (..., front, back): the last
dimension first. Negative amounts cut. Inputs are (N, C, *spatial) or (C, *spatial).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from faltung.nn import functional as F
from faltung.nn.functional._checks import message, shape_text
from faltung.nn.modules.module import Module
from faltung.tensor import Tensor

__all__ = [
    f"{kind}Pad{n}d" for kind in ("Circular", "Constant", "Reflection", "Replication", "Zero") for n in (1, 2, 3)
]


def _sides(padding: Any, spatial_dims: int) -> tuple[Any, ...]:
    return tuple(padding) if isinstance(padding, Iterable) else (padding,) * (2 * spatial_dims)


class _PadNd(Module):
    """Amounts per side, and the mode in which the subclass pads."""

    __constants__: ClassVar[list[str]] = ["padding"]
    spatial_dims: ClassVar[int]
    mode: ClassVar[str]

    padding: tuple[int, ...]  # (before, after) of the last dimension first

    def __init__(self, padding: int | Sequence[int]) -> None:
        super().__init__()
        self.padding = _sides(padding, self.spatial_dims)

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, *spatial) -> (N, C, *(before + spatial + after))."""
        return F.pad(input, self.padding, self.mode)

    def extra_repr(self) -> str:
        """The amounts per side."""
        return f"{self.padding}"


class _ConstantPadNd(_PadNd):
    __constants__: ClassVar[list[str]] = ["padding", "value"]
    mode = "constant"

    value: float

    def __init__(self, padding: int | Sequence[int], value: float) -> None:
        super().__init__(padding)
        self.value = value

    def forward(self, input: Tensor) -> Tensor:
        """As `F.pad` with `value`."""
        return F.pad(input, self.padding, "constant", self.value)

    def extra_repr(self) -> str:
        """Amounts and value."""
        return f"padding={self.padding}, value={self.value}"


class ConstantPad1d(_ConstantPadNd):
    """Surrounds the last dimension with `value`."""

    spatial_dims = 1


class ConstantPad2d(_ConstantPadNd):
    """Surrounds the last two dimensions with `value`."""

    spatial_dims = 2


class ConstantPad3d(_ConstantPadNd):
    """Surrounds the last three dimensions with `value`."""

    spatial_dims = 3


class _ZeroPadNd(_ConstantPadNd):
    def __init__(self, padding: int | Sequence[int]) -> None:
        super().__init__(padding, 0.0)

    def extra_repr(self) -> str:
        """The amounts per side."""
        return f"{self.padding}"


class ZeroPad1d(_ZeroPadNd):
    """Surrounds the last dimension with zeros."""

    spatial_dims = 1


class ZeroPad2d(_ZeroPadNd):
    """Surrounds the last two dimensions with zeros."""

    spatial_dims = 2


class ZeroPad3d(_ZeroPadNd):
    """Surrounds the last three dimensions with zeros."""

    spatial_dims = 3


class _ReflectionPadNd(_PadNd):
    mode = "reflect"


class ReflectionPad1d(_ReflectionPadNd):
    """Mirrors the last dimension at its edges, which are not repeated; at most L - 1 samples per side."""

    spatial_dims = 1


class ReflectionPad2d(_ReflectionPadNd):
    """Mirrors the last two dimensions at their edges, which are not repeated."""

    spatial_dims = 2


class ReflectionPad3d(_ReflectionPadNd):
    """Mirrors the last three dimensions at their edges, which are not repeated."""

    spatial_dims = 3


class _ReplicationPadNd(_PadNd):
    mode = "replicate"


class ReplicationPad1d(_ReplicationPadNd):
    """Repeats the edge samples of the last dimension."""

    spatial_dims = 1


class ReplicationPad2d(_ReplicationPadNd):
    """Repeats the edge samples of the last two dimensions."""

    spatial_dims = 2


class ReplicationPad3d(_ReplicationPadNd):
    """Repeats the edge samples of the last three dimensions."""

    spatial_dims = 3


class _CircularPadNd(_PadNd):
    mode = "circular"

    def _check_input_dim(self, input: Tensor) -> None:
        n = self.spatial_dims
        if input.dim() not in (n + 1, n + 2):
            got = f"expected {n + 1}D or {n + 2}D input, got {input.dim()}D {shape_text(input.shape)}"
            raise ValueError(message(type(self).__name__, got))

    def forward(self, input: Tensor) -> Tensor:
        """As `F.pad` in mode "circular". Raises ValueError for an input of another rank."""
        self._check_input_dim(input)
        return F.pad(input, self.padding, "circular")


class CircularPad1d(_CircularPadNd):
    """Continues the last dimension from its other end."""

    spatial_dims = 1


class CircularPad2d(_CircularPadNd):
    """Continues the last two dimensions from their other ends."""

    spatial_dims = 2


class CircularPad3d(_CircularPadNd):
    """Continues the last three dimensions from their other ends."""

    spatial_dims = 3
