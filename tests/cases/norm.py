"""Named normalisation cases."""

from __future__ import annotations

from dataclasses import dataclass

Ints = tuple[int, ...]


@dataclass(frozen=True)
class NormCase:
    """x of `shape` (N, C, *spatial); `affine`: with weight and bias."""

    name: str
    shape: Ints
    affine: bool = True
    eps: float = 1e-5
    channels_last: bool = False
    offset: float = 0.0  # added to x: large means are where one-pass variances fail

    def __str__(self) -> str:
        return self.name


BATCH = [
    NormCase("vectors", (5, 3)),
    NormCase("1d", (4, 3, 7)),
    NormCase("2d", (3, 5, 6, 4)),
    NormCase("2d channels last", (3, 5, 6, 4), channels_last=True),
    NormCase("3d", (2, 3, 4, 3, 5)),
    NormCase("no affine", (3, 4, 5, 5), affine=False),
    NormCase("large eps", (3, 4, 5, 5), eps=0.5),
    NormCase("large mean", (4, 3, 8, 8), offset=1000.0),
    NormCase("one channel", (6, 1, 3, 3)),
    NormCase("a vector of channels and one", (2, 17, 3, 3), channels_last=True),
    NormCase("two values", (2, 3)),
    NormCase("one sample", (1, 3, 4, 4)),
    NormCase("four dimensions of space", (2, 3, 2, 2, 2, 2)),
]

GROUP = [  # (case, groups)
    (NormCase("vectors", (3, 6)), 3),
    (NormCase("1d", (2, 6, 5)), 2),
    (NormCase("2d", (2, 6, 4, 5)), 3),
    (NormCase("2d channels last", (2, 6, 4, 5), channels_last=True), 3),
    (NormCase("one group", (2, 6, 4, 5)), 1),
    (NormCase("a group per channel", (2, 6, 4, 5), affine=False), 6),
    (NormCase("large mean", (2, 4, 8, 8), offset=1000.0), 2),
    (NormCase("3d", (2, 4, 3, 2, 5)), 2),
]

LAYER = [  # (x, number of normalised dimensions, affine)
    ((7,), 1, True),
    ((4, 6), 1, True),
    ((2, 3, 5), 1, True),
    ((2, 3, 5), 2, True),
    ((2, 3, 4, 5), 3, False),
    ((3, 4, 33), 1, True),
    ((2, 1), 1, True),
]

RESPONSE = [  # (x, size)
    ((2, 7, 5), 3),
    ((2, 7, 3, 4), 5),
    ((1, 6, 3, 4), 2),
    ((1, 4, 2, 3, 2), 1),
    ((1, 3, 2, 2), 9),
]
