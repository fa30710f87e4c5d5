"""The register tile that direct convolution, Winograd and backward kernels share.

    acc[p][v] += x[pixel p][k] * panel[k][v]        p < pixels, v < vectors, k < count

`panel` holds `vectors` full vectors per k, one after another. Pixels lie `pitch` elements apart; seven of them
hang on one moving base, since an x86 address adds one register once, twice or four times: 1, 3 and 5 times the pitch
make 0 to 6. With a base per three pixels, LLVM ran out of registers for addresses and then spilled sums.

The panel is asked for some KiB ahead, into L2: weights of a whole network come from the shared cache or from memory,
and without that every page of a panel begins with a wait (512 -> 512 channels at 7 px from memory: 1.34 ms without,
0.95 with; Sapphire Rapids).

Registers: pixels * vectors accumulators + `vectors` for the panel + 1 for the broadcast value.
"""

from __future__ import annotations

from functools import lru_cache

from faltung.engine.emit import Emitter, Int, IntLike, Ptr, Vec, i8
from faltung.engine.target import Target

PIXELS_PER_BASE = 7
AHEAD = 1536  # floats of the panel between its use and the request for it: hardware stops asking at every page's end


@lru_cache(maxsize=64)
def largest_tile(target: Target, vectors: int, spare: int = 0) -> int:
    """Pixels that fit beside `vectors` panel vectors, the broadcasts and `spare` registers without spilling.

    x86 broadcasts from memory into one register; on NEON LLVM loads the scalars of several pixels and rounds ahead.
    """
    broadcasts = 1 if target.triple.startswith("x86_64") else 12
    return max(1, (target.registers - vectors - broadcasts - spare) // vectors)


class Row:
    """`pixels` addresses that lie `pitch` elements apart."""

    __slots__ = ("bases", "odd", "pixels")

    def __init__(self, bases: list[Ptr], odd: dict[int, Int], pixels: int) -> None:
        self.bases, self.odd, self.pixels = bases, odd, pixels

    @classmethod
    def of(cls, start: Ptr, pitch: Int, pixels: int) -> Row:
        """Row of addresses from the first one."""
        nbytes = pitch * 4
        e = start.e
        odd = {n: e.opaque(nbytes * n) for n in (1, 3, 5) if n < min(pixels, PIXELS_PER_BASE)}
        bases = [start.at(e.opaque(pitch * p)) if p else start for p in range(0, pixels, PIXELS_PER_BASE)]
        return cls(bases, odd, pixels)

    def pixel(self, p: int) -> Ptr:
        """Address of pixel p: a base, or a base and 1, 3 or 5 times the pitch, once, twice or four times."""
        base, rest = divmod(p, PIXELS_PER_BASE)
        start = self.bases[base]
        if not rest:
            return start
        twos = (rest & -rest).bit_length() - 1
        offset = self.odd[rest >> twos]
        return Ptr(start.e, Ptr(start.e, start.value, i8).at(offset << twos if twos else offset).value)

    def moved(self, bases: list[Ptr]) -> Row:
        """The same pixels elsewhere."""
        return Row(bases, self.odd, self.pixels)


def accumulate(
    e: Emitter,
    rows: list[Row],
    panel: Ptr,
    count: IntLike,
    accs: list[Vec],
    vectors: int,
    unroll: int,
    exact: bool = False,
    panel_vectors: int = 0,
) -> tuple[list[Vec], Ptr]:
    """Run the tile over k; `rows` together hold the tile's pixels in order.

    `unroll` rounds per machine loop; `exact` promises that `count` is a positive multiple of it. `panel_vectors` is the
    panel's width where the tile uses only its first `vectors`. Returns the accumulators and the panel's end.
    """
    width = (panel_vectors or vectors) * e.lanes
    main = count if exact else e.int(count) - e.int(count) % unroll
    rows, panel, accs = _rounds(e, rows, panel, main, accs, vectors, width, unroll, exact)
    if not exact and unroll > 1:
        rows, panel, accs = _rounds(e, rows, panel, e.int(count) - main, accs, vectors, width, 1, False)
    return accs, panel


def _rounds(
    e: Emitter,
    rows: list[Row],
    panel: Ptr,
    count: IntLike,
    accs: list[Vec],
    vectors: int,
    width: int,
    unroll: int,
    exact: bool,
) -> tuple[list[Row], Ptr, list[Vec]]:
    bases = [base for row in rows for base in row.bases]
    with e.loop("k", count, carry=[*bases, panel, *accs], step=unroll, at_least_once=exact) as loop:
        here, at, sums = loop.carried[: len(bases)], loop.carried[len(bases)], loop.carried[len(bases) + 1 :]
        moved = _split(rows, here)
        for k in range(unroll):
            for line in range(0, vectors * e.lanes, 16):
                e.prefetch(at.at(k * width + line + AHEAD), locality=2)
            weights = [at.at(k * width + v * e.lanes).load(e.lanes) for v in range(vectors)]
            p = 0
            for row in moved:
                for pixel in range(row.pixels):
                    value = row.pixel(pixel).at(k).broadcast(e.lanes)
                    for v in range(vectors):
                        sums[p * vectors + v] = e.fma(value, weights[v], sums[p * vectors + v])
                    p += 1
        loop.carry([*[base.at(unroll) for base in here], at.at(unroll * width), *sums])
    here, at, sums = loop.result[: len(bases)], loop.result[len(bases)], loop.result[len(bases) + 1 :]
    return _split(rows, here), at, sums


def _split(rows: list[Row], bases: list[Ptr]) -> list[Row]:
    """Hand a flat list of base pointers back to their rows."""
    moved, start = [], 0
    for row in rows:
        moved.append(row.moved(bases[start : start + len(row.bases)]))
        start += len(row.bases)
    return moved
