"""Named pooling cases in one to three dimensions."""

from __future__ import annotations

from dataclasses import dataclass

Ints = tuple[int, ...]


@dataclass(frozen=True)
class PoolCase:
    """Windows over x (N, C, *spatial); `dilation` is for max pooling alone."""

    name: str
    input: Ints
    kernel: int | Ints
    stride: int | Ints | None = None
    padding: int | Ints = 0
    dilation: int | Ints = 1
    ceil_mode: bool = False

    def __str__(self) -> str:
        return self.name

    @property
    def ndim(self) -> int:
        """Number of spatial dimensions."""
        return len(self.input) - 2


CASES = [
    PoolCase("2x2", (2, 3, 6, 8), 2),
    PoolCase("2x2 with a rest", (2, 5, 7, 9), 2),
    PoolCase("2x2 with a rest, ceil", (2, 5, 7, 9), 2, ceil_mode=True),
    PoolCase("3x3 stride 2 pad 1", (2, 9, 11, 10), 3, 2, 1),
    PoolCase("3x3 stride 2 pad 1 ceil", (1, 8, 11, 12), 3, 2, 1, ceil_mode=True),
    PoolCase("3x3 stride 1 pad 1", (1, 17, 5, 6), 3, 1, 1),
    PoolCase("ceil window only in right padding", (1, 2, 5, 5), 2, 3, 1, ceil_mode=True),
    PoolCase("uneven", (2, 4, 9, 12), (3, 2), (2, 3), (1, 0)),
    PoolCase("stride beyond kernel", (1, 3, 9, 9), 2, 4),
    PoolCase("dilated", (1, 3, 9, 10), 3, 2, 1, 2),
    PoolCase("dilated ceil", (1, 3, 8, 10), (2, 3), (2, 3), (0, 1), (3, 2), ceil_mode=True),
    PoolCase("1x1", (1, 2, 4, 5), 1),
    PoolCase("global", (2, 7, 5, 6), (5, 6)),
    PoolCase("empty batch", (0, 3, 6, 6), 2),
    PoolCase("1d", (2, 3, 9), 2),
    PoolCase("1d overlapping", (2, 3, 9), 3, 1, 1),
    PoolCase("3d", (2, 3, 4, 6, 5), 2),
    PoolCase("3d uneven", (1, 2, 5, 6, 7), (2, 3, 1), (1, 2, 2), (1, 1, 0), ceil_mode=True),
]

ADAPTIVE = [  # (name, input, output)
    ("global", (2, 3, 5, 7), (1, 1)),
    ("even", (2, 3, 6, 8), (3, 2)),
    ("uneven", (2, 9, 7, 10), (3, 4)),
    ("larger than the input", (1, 2, 3, 4), (5, 7)),
    ("identity", (1, 2, 3, 4), (3, 4)),
    ("1d", (2, 3, 10), (4,)),
    ("3d", (1, 2, 4, 5, 6), (2, 3, 4)),
    ("empty batch", (0, 2, 4, 5), (3, 2)),
    ("empty output", (1, 2, 4, 5), (0, 2)),
]
