"""The register tile that direct convolution, Winograd and backward kernels share.

    acc[p][v] += x[pixel p][k] * panel[k][v]        p < pixels, v < vectors, k < count

`panel` holds `vectors` full vectors per k, one after another. Pixels lie `pitch` elements apart; seven of them
hang on one moving base, since an x86 address adds one register once, twice or four times: 1, 3 and 5 times the pitch
make 0 to 6. With a base per three pixels, LLVM ran out of registers for addresses and then spilled sums.

While a tile runs over one panel, it asks for a share of the next one, into L2: the weights of a whole network come from
the shared cache or from memory, more slowly than one tile could use them, but several tiles run over each panel. With
weights from memory, 1x1 1024 -> 256 channels at 14 px take 314 microseconds; 343 when each panel is asked for 6 KiB
ahead of its own use; 302 with weights at hand (Sapphire Rapids, 2 cores).

Registers: pixels * vectors accumulators + `vectors` for the panel + 1 for the broadcast value.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from faltung.engine.emit import Emitter, Int, IntLike, Ptr, Vec, i8
from faltung.engine.target import Target

PIXELS_PER_BASE = 7


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


def shares_of(tiles: int) -> int:
    """Among how many of the `tiles` that run over a panel the next one is shared out."""
    return 4 if tiles >= 4 else 2 if tiles >= 2 else 1


@dataclass(frozen=True, slots=True)
class Ahead:
    """The next panel while a tile runs over this one."""

    place: Ptr  # where this tile's share begins
    shares: int

    @classmethod
    def of(cls, next_panel: Ptr, floats: Int, tile: Int, shares: int) -> Ahead:
        """Of a panel of so many floats, the share of tile number `tile`."""
        if shares == 1:
            return cls(next_panel, 1)
        return cls(next_panel.at((tile & (shares - 1)) * (floats // shares)), shares)

    def ask(self, round_floats: int) -> Ahead:
        """Ask for what a round uses up, of this share."""
        line = 16
        floats = -(-round_floats // self.shares // line) * line
        for start in range(0, floats, line):
            self.place.e.prefetch(self.place.at(start), locality=2)
        return Ahead(self.place.at(floats), self.shares)


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
    ahead: Ahead | None = None,
) -> tuple[list[Vec], Ptr, Ahead | None]:
    """Run the tile over k; `rows` together hold the tile's pixels in order.

    `unroll` rounds per machine loop; `exact` promises that `count` is a positive multiple of it. `panel_vectors` is the
    panel's width where the tile uses only its first `vectors`. Returns the accumulators, the panel's end, and what is
    to be asked for next.
    """
    width = (panel_vectors or vectors) * e.lanes
    main = count if exact else e.int(count) - e.int(count) % unroll
    state = (rows, panel, accs, ahead)
    state = _rounds(e, *state, main, vectors, width, unroll, exact)
    if not exact and unroll > 1:
        rows, panel, accs, ahead = state
        rows, panel, accs, _ = _rounds(e, rows, panel, accs, None, e.int(count) - main, vectors, width, 1, False)
        return accs, panel, ahead
    return state[2], state[1], state[3]


def _rounds(
    e: Emitter,
    rows: list[Row],
    panel: Ptr,
    accs: list[Vec],
    ahead: Ahead | None,
    count: IntLike,
    vectors: int,
    width: int,
    unroll: int,
    exact: bool,
) -> tuple[list[Row], Ptr, list[Vec], Ahead | None]:
    bases = [base for row in rows for base in row.bases]
    asked = [] if ahead is None else [ahead.place]
    with e.loop("k", count, carry=[*bases, panel, *asked, *accs], step=unroll, at_least_once=exact) as loop:
        here, at, sums, next_ahead = _unpacked(loop.carried, len(bases), ahead)
        moved = _split(rows, here)
        if next_ahead is not None:
            next_ahead = next_ahead.ask(unroll * width)
        for k in range(unroll):
            weights = [at.at(k * width + v * e.lanes).load(e.lanes) for v in range(vectors)]
            p = 0
            for row in moved:
                for pixel in range(row.pixels):
                    value = row.pixel(pixel).at(k).broadcast(e.lanes)
                    for v in range(vectors):
                        sums[p * vectors + v] = e.fma(value, weights[v], sums[p * vectors + v])
                    p += 1
        asked = [] if next_ahead is None else [next_ahead.place]
        loop.carry([*[base.at(unroll) for base in here], at.at(unroll * width), *asked, *sums])
    here, at, sums, ahead = _unpacked(loop.result, len(bases), ahead)
    return _split(rows, here), at, sums, ahead


def _unpacked(carried: list[Any], bases: int, ahead: Ahead | None) -> tuple[list[Ptr], Ptr, list[Vec], Ahead | None]:
    """Base pointers, panel, sums and what is asked for, as a loop carries them."""
    rest = carried[bases + 1 :]
    if ahead is None:
        return carried[:bases], carried[bases], rest, None
    return carried[:bases], carried[bases], rest[1:], Ahead(rest[0], ahead.shares)


def _split(rows: list[Row], bases: list[Ptr]) -> list[Row]:
    """Hand a flat list of base pointers back to their rows."""
    moved, start = [], 0
    for row in rows:
        moved.append(row.moved(bases[start : start + len(row.bases)]))
        start += len(row.bases)
    return moved
