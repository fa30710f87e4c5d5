"""The matrices of Winograd's minimal filtering F(m, r), derived from interpolation points (Toom 1963, Cook 1966).

    y = At [ (G g) * (Bt d) ]      d: m + r - 1 samples, g: r taps, y: m outputs of the correlation of d with g

Multiplying two polynomials of degrees r - 1 and m - 1 by evaluating them at m + r - 1 points (one of them infinity) and
interpolating is a bilinear algorithm; its transpose computes the correlation. With V_n the rows (1, p, ..., p^(n-1)),
At = V_m transposed, G = V_r, and Bt = inverse of V_(m+r-1), transposed. Rows of Bt are scaled to small integers, which
G takes back.

The points decide the rounding error. Measured with F(4, 3) on 3x3 layers of 64 to 256 standard normal channels, largest
error over the largest result: see `tests/engine/test_conv_dense.py`, which states and checks it.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

Matrix = tuple[tuple[Fraction, ...], ...]

# finite points by their number, in pairs of opposite sign so that transforms share their halves
POINTS = {
    3: (Fraction(0), Fraction(1), Fraction(-1)),
    5: (Fraction(0), Fraction(1), Fraction(-1), Fraction(2), Fraction(-2)),
}


@dataclass(frozen=True, slots=True)
class Winograd:
    """F(m, r) as exact matrices."""

    outputs: int  # m
    size: int  # m + r - 1
    At: Matrix  # (m, size)
    G: Matrix  # (size, r)
    Bt: Matrix  # (size, size)


@lru_cache(maxsize=8)
def winograd(outputs: int, taps: int = 3) -> Winograd:
    """The matrices of F(outputs, taps) at the points of `POINTS`."""
    size = outputs + taps - 1
    points = POINTS[size - 1]
    at = tuple(zip(*_vandermonde(points, outputs), strict=True))
    g = _vandermonde(points, taps)
    bt = tuple(zip(*_inverse(_vandermonde(points, size)), strict=True))
    scales = [_product(p - q for q in points if q != p) for p in points] + [Fraction(1)]
    return Winograd(
        outputs,
        size,
        at,
        tuple(tuple(value / scale for value in row) for row, scale in zip(g, scales, strict=True)),
        tuple(tuple(value * scale for value in row) for row, scale in zip(bt, scales, strict=True)),
    )


def _vandermonde(points: tuple[Fraction, ...], columns: int) -> Matrix:
    """Rows of powers; the last row is the point at infinity, the highest coefficient alone."""
    rows = [tuple(p**k for k in range(columns)) for p in points]
    return (*rows, tuple(Fraction(int(k == columns - 1)) for k in range(columns)))


def _inverse(matrix: Matrix) -> Matrix:
    """Gauss-Jordan on exact fractions."""
    n = len(matrix)
    rows = [list(row) + [Fraction(int(i == j)) for j in range(n)] for i, row in enumerate(matrix)]
    for column in range(n):
        pivot = next(r for r in range(column, n) if rows[r][column])
        rows[column], rows[pivot] = rows[pivot], rows[column]
        lead = rows[column][column]
        rows[column] = [value / lead for value in rows[column]]
        for r in range(n):
            factor = rows[r][column]
            if r != column and factor:
                rows[r] = [a - factor * b for a, b in zip(rows[r], rows[column], strict=True)]
    return tuple(tuple(row[n:]) for row in rows)


def _product(values: object) -> Fraction:
    result = Fraction(1)
    for value in values:  # type: ignore[attr-defined]
        result *= value
    return result
