"""A small constant matrix times vectors in registers, with few operations.

Two rows whose entries agree up to sign share their common and their opposite part: u + v and u - v. Entries 1 and -1
cost an addition, others a multiply-add.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from faltung.engine.emit import Emitter, Vec

Row = Sequence[Fraction]


def apply_matrix(e: Emitter, matrix: Sequence[Row], inputs: Sequence[Vec]) -> list[Vec]:
    """Every row of `matrix` times `inputs`."""
    results: list[Vec | None] = [None] * len(matrix)
    for i, row in enumerate(matrix):
        if results[i] is not None:
            continue
        twin = next((j for j in range(i + 1, len(matrix)) if results[j] is None and _are_twins(row, matrix[j])), None)
        if twin is None:
            results[i] = _sum(e, row, inputs)
            continue
        same = [a if a == b else Fraction(0) for a, b in zip(row, matrix[twin], strict=True)]
        opposite = [a if a != b else Fraction(0) for a, b in zip(row, matrix[twin], strict=True)]
        u, v = _sum(e, same, inputs), _sum(e, opposite, inputs)
        results[i], results[twin] = u + v, u - v
    return [result for result in results if result is not None]


def _are_twins(a: Row, b: Row) -> bool:
    signs = {x == y for x, y in zip(a, b, strict=True) if x}
    return all(abs(x) == abs(y) for x, y in zip(a, b, strict=True)) and signs == {True, False}


def _sum(e: Emitter, row: Row, inputs: Sequence[Vec]) -> Vec:
    """One row times the inputs, entries of size one first."""
    terms = sorted(
        ((c, x) for c, x in zip(row, inputs, strict=True) if c), key=lambda term: (abs(term[0]) != 1, term[0] < 0)
    )
    lanes = inputs[0].lanes
    if not terms:
        return e.zero(lanes)
    total: Vec | None = None
    for c, x in terms:
        if total is None:
            total = x if c == 1 else -x if c == -1 else x * float(c)
        elif abs(c) == 1:
            total = total + x if c == 1 else total - x
        else:
            total = e.fma(x, e.constant(float(c), lanes), total)
    assert total is not None
    return total
