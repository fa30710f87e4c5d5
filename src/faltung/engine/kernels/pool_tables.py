"""Which sources each position of a pooling gathers from, one table per dimension.

Forward a position is a window and its sources are the samples inside; backward a position is a sample and its sources
are the windows that hold it. Stride, dilation, padding, ceil_mode and adaptive windows all end here; the kernels know
only tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import gcd

import numpy as np

from faltung.engine.geometry import PoolGeometry

Ints = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Table:
    """Sources of every position along one dimension.

    `rows` (positions, 4): first source, number of sources, kernel tap of the first, divisor. From one source to the
    next the source moves by `step` and the tap by `tap_step`.
    """

    rows: np.ndarray
    step: int
    tap_step: int


Tables = tuple[Table, Table, Table]  # of depth, height, width
ONE = Table(np.array([[0, 1, 0, 1]], np.int64), 1, 1)


def _samples_of_windows(
    size: int, kernel: int, output: int, stride: int, dilation: int, pads: tuple[int, int]
) -> Table:
    """Forward: the samples of each window, cut off at the input's ends."""
    start = np.arange(output) * stride - pads[0]
    first_tap = np.maximum(0, -(start // dilation))
    first = start + first_tap * dilation
    last_tap = np.minimum(kernel - 1, (size - 1 - start) // dilation)
    count = np.maximum(last_tap - first_tap + 1, 0)
    whole = np.minimum(start + kernel, size + pads[1]) - start  # what ceil_mode lets stick out does not count
    return Table(np.stack([first, count, first_tap, whole], 1).astype(np.int64), dilation, 1)


def _windows_of_samples(
    size: int, kernel: int, output: int, stride: int, dilation: int, pads: tuple[int, int]
) -> Table:
    """Backward: the windows that hold each sample, in ascending order, hence descending taps."""
    common = gcd(stride, dilation)
    step, tap_step = dilation // common, stride // common
    rows = np.zeros((size, 4), np.int64)
    rows[:, 3] = 1
    for sample in range(size):
        windows = [
            (window, tap)
            for tap in range(kernel - 1, -1, -1)
            for window, remainder in [divmod(sample + pads[0] - tap * dilation, stride)]
            if remainder == 0 and 0 <= window < output
        ]
        if windows:
            rows[sample, :3] = windows[0][0], len(windows), windows[0][1]
    return Table(rows, step, -tap_step)


def _adaptive_samples(size: int, output: int) -> Table:
    i = np.arange(output)
    first = i * size // output
    count = -(-(i + 1) * size // output) - first
    return Table(np.stack([first, count, 0 * i, count], 1).astype(np.int64), 1, 1)


def _adaptive_windows(size: int, output: int) -> Table:
    i = np.arange(size)
    first = i * output // size
    count = -(-(i + 1) * output // size) - first
    return Table(np.stack([first, count, 0 * i, 0 * i + 1], 1).astype(np.int64), 1, 1)


@lru_cache(maxsize=512)
def tables_of(geometry: PoolGeometry, backward: bool, count_include_pad: bool, divisor: int | None) -> Tables:
    """Tables of the three dimensions; the divisor column holds what a mean divides by."""
    make = _windows_of_samples if backward else _samples_of_windows
    spans = zip(
        geometry.input,
        geometry.kernel,
        geometry.output,
        geometry.stride,
        geometry.dilation,
        geometry.padding,
        strict=True,
    )
    tables = [make(*span) for span in spans]
    if not backward:
        for d, table in enumerate(tables):
            if divisor is not None:
                table.rows[:, 3] = divisor if d == 0 else 1
            elif not count_include_pad:
                table.rows[:, 3] = table.rows[:, 1]
    depth, height, width = *[ONE] * (3 - len(tables)), *tables
    return depth, height, width


@lru_cache(maxsize=512)
def adaptive_tables(input: Ints, output: Ints, backward: bool) -> Tables:
    """Windows of adaptive pooling, or, for its gradient, the outputs that each input takes part in."""
    make = _adaptive_windows if backward else _adaptive_samples
    depth, height, width = *[ONE] * (3 - len(input)), *map(make, input, output)
    return depth, height, width


def whole_window(tables: Tables) -> Ints | None:
    """Sources per dimension if every position has equally many."""
    counts = [table.rows[:, 1] for table in tables]
    if any((count != count[0]).any() for count in counts):
        return None
    return tuple(int(count[0]) for count in counts)


def uniform_divisor(tables: Tables) -> int | None:
    """The product of the divisors if it is the same everywhere."""
    divisors = [table.rows[:, 3] for table in tables]
    if any((divisor != divisor[0]).any() for divisor in divisors):
        return None
    return int(np.prod([divisor[0] for divisor in divisors]))


@lru_cache(maxsize=512)
def with_divisor(tables: Tables, divisor: int) -> Tables:
    """The same sources, everything divided by `divisor`."""
    depth, height, width = tables
    rows = depth.rows.copy()
    rows[:, 3] = divisor
    return Table(rows, depth.step, depth.tap_step), height, width
