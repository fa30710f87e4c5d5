"""What a dense convolution kernel is asked for, in one canonical form.

Every pass that sums over taps and channels comes here: the forward pass, and the data gradient as one stride-1 problem
per residue class of the stride. Spatial sizes are always (D, H, W), missing dimensions are 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product
from math import gcd

import numpy as np

from faltung.engine.geometry import ConvGeometry, hash_once

Sizes = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Problem:
    """y[n, o, out] = sum over c, tap of x[n, c, out * stride - before + tap * dilation] *
    panel[o][tap][c], per group.
    """

    batch: int
    groups: int
    channels: int  # summed over, per group
    out_channels: int  # per group
    input: Sizes
    output: Sizes
    taps: Sizes
    stride: Sizes
    dilation: Sizes
    before: Sizes  # zeros before; negative leaves input out
    # which weight taps the problem's taps are, per dimension
    tap_index: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    # where its outputs lie among the result's pixels, per dimension
    out_start: Sizes = (0, 0, 0)
    out_step: Sizes = (1, 1, 1)
    _hash: int | None = field(default=None, init=False, repr=False, compare=False)

    __hash__ = hash_once

    @property
    def pixels(self) -> int:
        """Outputs of one image."""
        return self.output[0] * self.output[1] * self.output[2]

    @property
    def is_pointwise(self) -> bool:
        """One tap that needs no padding and leaves nothing out."""
        return (
            self.taps == (1, 1, 1)
            and self.stride == (1, 1, 1)
            and self.before == (0, 0, 0)
            and self.input == self.output
        )


def three(sizes: tuple[int, ...], fill: int = 1) -> Sizes:
    """Sizes with missing leading dimensions filled in."""
    return (fill,) * (3 - len(sizes)) + tuple(sizes)  # type: ignore[return-value]


@lru_cache(maxsize=4096)
def forward_problem(geometry: ConvGeometry) -> Problem:
    """The forward pass."""
    kernel = three(geometry.kernel)
    return Problem(
        geometry.batch,
        geometry.groups,
        geometry.in_channels // geometry.groups,
        geometry.out_channels // geometry.groups,
        three(geometry.input),
        three(geometry.output),
        kernel,
        three(geometry.stride),
        three(geometry.dilation),
        three(tuple(before for before, _ in geometry.padding), 0),
        tuple(tuple(range(k)) for k in kernel),  # type: ignore[arg-type]
    )


@lru_cache(maxsize=4096)
def backward_problems(geometry: ConvGeometry) -> tuple[tuple[Problem, ...], bool]:
    """The data gradient: one stride-1 problem over gy per residue class, and whether they reach every input pixel.

    Input pixel i receives gy[o] through tap k where o * s - p + k * d = i. With c = (i + p) mod s, taps need k * d = c
    (mod s), so k = k0 + m * s / gcd(s, d), and o falls by d / gcd(s, d) from one such tap to the next.
    """
    per_dimension = [
        _classes(*sizes)
        for sizes in zip(
            three(geometry.input),
            three(geometry.output),
            three(geometry.kernel),
            three(geometry.stride),
            three(geometry.dilation),
            three(tuple(before for before, _ in geometry.padding), 0),
            strict=True,
        )
    ]
    problems = []
    complete = True
    for classes in product(*per_dimension):
        if any(not found.taps for found in classes):
            complete = False
            continue
        problems.append(
            Problem(
                geometry.batch,
                geometry.groups,
                geometry.out_channels // geometry.groups,
                geometry.in_channels // geometry.groups,
                three(geometry.output),
                tuple(found.count for found in classes),  # type: ignore[arg-type]
                tuple(len(found.taps) for found in classes),  # type: ignore[arg-type]
                (1, 1, 1),
                tuple(found.dilation for found in classes),  # type: ignore[arg-type]
                tuple(found.before for found in classes),  # type: ignore[arg-type]
                tuple(found.taps for found in classes),  # type: ignore[arg-type]
                tuple(found.start for found in classes),  # type: ignore[arg-type]
                tuple(found.step for found in classes),  # type: ignore[arg-type]
            )
        )
    return tuple(problems), complete


@dataclass(frozen=True, slots=True)
class _Class:
    """One residue class of one dimension."""

    start: int  # its first input pixel
    step: int
    count: int
    taps: tuple[int, ...]  # last tap first, so that gy is read forwards
    dilation: int
    before: int


def _classes(size: int, out: int, kernel: int, stride: int, dilation: int, before: int) -> list[_Class]:
    classes = []
    common = gcd(stride, dilation)
    for start in range(min(stride, size)):
        count = len(range(start, size, stride))
        taps = tuple(k for k in reversed(range(kernel)) if (start + before - k * dilation) % stride == 0)
        # pixel `start` reads gy[(start + before - k * dilation) / stride] through tap k; the last tap reads the least
        least = (start + before - taps[0] * dilation) // stride if taps else 0
        classes.append(_Class(start, stride, count, taps, dilation // common if len(taps) > 1 else 1, -least))
    return classes


def tap_columns(problem: Problem, kernel: Sizes) -> list[int]:
    """For each weight tap, in memory order, its place among the problem's taps, -1 where it
    belongs to another class.
    """
    places = [{tap: at for at, tap in enumerate(found)} for found in problem.tap_index]
    columns = []
    for kd, kh, kw in product(*map(range, kernel)):
        at = (places[0].get(kd, -1), places[1].get(kh, -1), places[2].get(kw, -1))
        columns.append(-1 if min(at) < 0 else (at[0] * problem.taps[1] + at[1]) * problem.taps[2] + at[2])
    return columns


@lru_cache(maxsize=1024)
def panel_table(problem: Problem, kernel: Sizes, channel_block: int) -> np.ndarray:
    """Panel position of every (channel, tap) of a weight row: [channel block][tap][channel in block].

    The table runs over channels, then taps, which is memory order both for rows of the forward pass and, channel by
    channel, for those of the data gradient.
    """
    taps = problem.taps[0] * problem.taps[1] * problem.taps[2]
    columns = np.array(tap_columns(problem, kernel))
    channel = np.arange(problem.channels)
    start = channel // channel_block * channel_block
    size = np.minimum(channel_block, problem.channels - start)
    places = start[:, None] * taps + columns[None, :] * size[:, None] + (channel - start)[:, None]
    places[:, columns < 0] = -1
    return np.ascontiguousarray(places.reshape(-1), dtype=np.int64)
