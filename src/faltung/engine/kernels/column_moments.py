"""Means and squared deviations of the columns of a matrix in one pass, block by block, and how blocks combine.

    for channels, VECTORS registers at a time:
        shift = mean of the block's first rows
        for rows: S += x - shift; Q += (x - shift)^2
    partial[block] = mean and sum of squared deviations of the block, in double

The first rows of a block as shift bound the loss by rounding: their mean lies within sqrt(rows) deviations of the
block's, so that Q - S^2 / n keeps all but rows * 2^-24 of its value, whatever the mean. Blocks combine in order, in
double (Chan, Golub and LeVeque 1979). Registers: 3 for each vector of channels, and the value in flight.
"""

from __future__ import annotations

from typing import Any

from faltung.engine.emit import Emitter, Int, Ptr, Vec, f64
from faltung.engine.kernels import flat

BLOCK_ELEMENTS = flat.BLOCK  # of one block of rows, as far as the bounds below let it
SHORTEST_BLOCK, LONGEST_BLOCK = 64, 256  # rows; longer blocks would lose precision, shorter ones make too many partials
SHIFT_ROWS = 8
AHEAD = 12  # rows between a value's use and the request for it: rows lie too far apart for the chip to guess


def block_rows_for(channels: int) -> int:
    """Rows of a block, by the number of channels alone."""
    return min(max(BLOCK_ELEMENTS // channels, SHORTEST_BLOCK), LONGEST_BLOCK)


def column_moments(e: Emitter, x: Ptr, to: Ptr, rows: Int, channels: Int, vectors: int) -> None:
    """Of `rows` rows from `x` on, each column's mean to `to` and its sum of squared deviations behind all means."""
    for column, count, lanes, mask in flat.columns(e, 0, channels, vectors):
        shifts = [_shift(e, x.at(column + u * lanes), rows, channels, lanes, mask) for u in range(count)]
        with e.loop("row", rows, carry=[e.zero(lanes)] * (2 * count)) as row:
            sums, squares = row.carried[:count], row.carried[count:]
            for u in range(count):
                place = x.at(row.index * channels + column + u * lanes)
                e.prefetch(place.at(channels * AHEAD))
                value = flat.load(place, lanes, mask) - shifts[u]
                sums[u], squares[u] = sums[u] + value, e.fma(value, value, squares[u])
            row.carry(sums + squares)
        length = e.splat(e.convert(rows, f64), lanes)
        for u in range(count):
            total, square = (e.convert(value, f64) for value in (row.result[u], row.result[count + u]))
            place = to.at(column + u * lanes)
            flat.store(place, e.convert(shifts[u], f64) + total / length, mask)
            flat.store(place.at(channels), square - total * total / length, mask)


def _shift(e: Emitter, x: Ptr, rows: Int, channels: Int, lanes: int, mask: Any) -> Vec:
    """The mean of a block's first rows, the last one repeated where there are fewer."""
    total = e.zero(lanes)
    for i in range(SHIFT_ROWS):
        total = total + flat.load(x.at(e.smaller(i, rows - 1) * channels), lanes, mask)
    return total * (1.0 / SHIFT_ROWS)


def combined(
    e: Emitter, partial: Ptr, rows: Int, block_rows: Int, blocks: Int, channels: Int, lanes: int, mask: Any
) -> tuple[Vec, Vec]:
    """Mean and sum of squared deviations of a vector of columns over all blocks of `rows` rows."""
    zero = e.convert(e.zero(lanes), f64)

    def rows_in(block: Int) -> Vec:
        return e.splat(e.convert(e.smaller(rows - block * block_rows, block_rows), f64), lanes)

    with e.loop("block", blocks, carry=[zero]) as block:
        mean = flat.load(partial.at(block.index * channels * 2), lanes, mask)
        block.carry([e.fma(mean, rows_in(block.index), block.carried[0])])
    mean = block.result[0] / e.splat(e.convert(rows, f64), lanes)
    with e.loop("block_again", blocks, carry=[zero]) as block:
        place = partial.at(block.index * channels * 2)
        apart, inside = flat.load(place, lanes, mask) - mean, flat.load(place.at(channels), lanes, mask)
        block.carry([block.carried[0] + e.fma(apart * apart, rows_in(block.index), inside)])
    return mean, block.result[0]
