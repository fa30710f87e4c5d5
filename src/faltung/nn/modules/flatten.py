"""Layers that change the shape and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from faltung.nn.functional._checks import message, type_name
from faltung.nn.modules.module import Module
from faltung.tensor import Tensor

__all__ = ["Flatten", "Unflatten"]


class Flatten(Module):
    """Joins dimensions start_dim to end_dim into one: (N, C, H, W) -> (N, C*H*W) by default."""

    __constants__: ClassVar[list[str]] = ["start_dim", "end_dim"]

    start_dim: int
    end_dim: int

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim = start_dim
        self.end_dim = end_dim

    def forward(self, input: Tensor) -> Tensor:
        return input.flatten(self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        """First and last dimension."""
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Unflatten(Module):
    """Splits dimension `dim` into several of `unflattened_size`, of which one may be -1."""

    __constants__: ClassVar[list[str]] = ["dim", "unflattened_size"]

    dim: int
    unflattened_size: Sequence[int]

    def __init__(self, dim: int, unflattened_size: Sequence[int]) -> None:
        super().__init__()
        if not isinstance(unflattened_size, (tuple, list)):
            raise TypeError(
                message("Unflatten", f"unflattened_size must be a tuple of ints, got {type_name(unflattened_size)}")
            )
        for position, size in enumerate(unflattened_size):
            if not isinstance(size, int):
                raise TypeError(
                    message(
                        "Unflatten",
                        f"unflattened_size must be tuple of ints, got {size!r} ({type_name(size)}) at position "
                        f"{position}",
                    )
                )
        self.dim = dim
        self.unflattened_size = unflattened_size

    def forward(self, input: Tensor) -> Tensor:
        return input.unflatten(self.dim, self.unflattened_size)

    def extra_repr(self) -> str:
        """The dimension and its new sizes."""
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"
