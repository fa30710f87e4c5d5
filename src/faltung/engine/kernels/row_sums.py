"""Sums over a stretch of contiguous memory: what kernels that normalise rows and lines share.

    for segments of the stretch:                     # in double, in order
        for whole vectors, `unroll` at a time: acc[u] += term
        for the rest: the same, masked or one by one
        total += all lanes of acc, folded pairwise

A segment is short enough for float32 lanes, so that the error stays near that of one rounding, and for the near cache:
`moments` reads each one twice, for its mean (around its first element, so that no large mean costs digits) and for its
squared deviations, and then goes on (Chan, Golub and LeVeque 1979 combine segments).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from faltung.engine.emit import Emitter, Int, IntLike, Vec, f32, f64
from faltung.engine.kernels import flat

SEGMENT = 4096  # elements that float32 lanes add up: at most some hundred for each lane

UNROLL = 4  # vectors of a sum that has nothing else to do while it waits for an addition

Terms = Callable[[Int, int, Any], list[Vec]]
Element = Callable[[Int, int, Any], Vec]


def sums(e: Emitter, start: IntLike, stop: Int, count: int, terms: Terms, unroll: int = 1) -> list[Vec]:
    """Totals, in double, of the `count` values that `terms(offset, lanes, mask)` gives from `start` below `stop`."""
    zeros = [e.convert(e.zero(1), f64)] * count
    with e.loop("segment", stop, start=start, step=SEGMENT, carry=zeros) as segment:
        end = e.smaller(segment.index + SEGMENT, stop)
        parts = _short_sums(e, segment.index, end, count, terms, unroll)
        segment.carry([total + e.convert(part, f64) for total, part in zip(segment.carried, parts, strict=True)])
    return segment.result


def moments(e: Emitter, start: Int, stop: Int, element: Element) -> tuple[Vec, Vec]:
    """Mean and sum of squared deviations, in double, of `element(offset, lanes, mask)` from `start` below `stop`."""
    zeros = [e.convert(e.zero(1), f64)] * 2
    with e.loop("segment", stop, start=start, step=SEGMENT, carry=zeros) as segment:
        end = e.smaller(segment.index + SEGMENT, stop)
        part_mean, part_square = _short_moments(e, segment.index, end, element)
        mean, square = segment.carried
        before, length = e.convert(segment.index - start, f64), e.convert(end - segment.index, f64)
        apart, weight = part_mean - mean, length / (before + length)
        between = apart * apart * before * weight
        segment.carry([mean + apart * weight, square + part_square + between])
    mean, square = segment.result
    return mean, square


def _short_moments(e: Emitter, start: Int, stop: Int, element: Element) -> tuple[Vec, Vec]:
    first = element(start, 1, None)

    def apart(at: Int, lanes: int, mask: Any) -> list[Vec]:
        return [element(at, lanes, mask) - e.splat(first, lanes)]

    (total,) = _short_sums(e, start, stop, 1, apart, UNROLL)
    mean = e.convert(first, f64) + e.convert(total, f64) / e.convert(stop - start, f64)
    rounded = e.convert(mean, f32)

    def square(at: Int, lanes: int, mask: Any) -> list[Vec]:
        value = element(at, lanes, mask) - e.splat(rounded, lanes)
        return [value * value]

    (squares,) = _short_sums(e, start, stop, 1, square, UNROLL)
    return mean, e.convert(squares, f64)


def _short_sums(e: Emitter, start: Int, stop: Int, count: int, terms: Terms, unroll: int) -> list[Vec]:
    lanes, step = e.lanes, e.lanes * unroll
    whole = start + (stop - start) // step * step
    with e.loop("sum", whole, start=start, step=step, carry=[e.zero()] * (count * unroll)) as loop:
        found = [term for u in range(unroll) for term in terms(loop.index + u * lanes, lanes, None)]
        loop.carry(_added(loop.carried, found))
    totals = loop.result[:count]
    for u in range(1, unroll):
        totals = _added(totals, loop.result[u * count : (u + 1) * count])
    if flat.masks(e):
        with e.loop("sum_rest", stop, start=whole, step=lanes, carry=totals) as rest:
            mask = e.mask(stop - rest.index, lanes)
            found = [e.select(mask, term, 0.0) for term in terms(rest.index, lanes, mask)]
            rest.carry(_added(rest.carried, found))
        return [e.total(total) for total in rest.result]
    with e.loop("sum_rest", stop, start=whole, carry=[e.total(total) for total in totals]) as rest:
        rest.carry(_added(rest.carried, terms(rest.index, 1, None)))
    return rest.result


def _added(totals: list[Vec], terms: list[Vec]) -> list[Vec]:
    return [total + term for total, term in zip(totals, terms, strict=True)]


def inverse_deviation(e: Emitter, var: Vec) -> Vec:
    """1 / sqrt(var + field eps), in double."""
    return 1.0 / e.unary("sqrt", e.convert(var, f64) + e.number("eps", f64))
