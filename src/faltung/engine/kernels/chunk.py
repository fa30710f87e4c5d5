"""What kernels with register tiles say about a chunk: its fields, the widths of channel blocks, even tiles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from faltung.engine.emit import Emitter, Int


class Fields:
    """The run-time numbers of one chunk: integer fields as attributes, and what a kernel derives from them."""

    def __init__(self, e: Emitter, names: str) -> None:
        self.e = e
        for name in names.split():
            setattr(self, name, e.field(name))

    def __getattr__(self, name: str) -> Any:  # fields, set in __init__
        raise AttributeError(name)


def each_width(e: Emitter, s: Any, block: Int, blocks: Int, body: Callable[[int, bool], None]) -> None:
    """`body(vectors, masked)` for a channel block: the last one may have fewer vectors, the last of them partial."""
    if not (s.tail_vectors or s.masked):
        body(s.vectors, False)
        return
    with e.either(block.equals(blocks - 1)) as (yes, no):
        with yes:
            body(s.tail_vectors or s.vectors, s.masked)
        with no:
            body(s.vectors, False)


def tiles_of(count: Int, size: int) -> tuple[Int, Int]:
    """How many tiles make up `count`, and how many of them have the whole `size`; the others have one less."""
    tiles = (count + (size - 1)) // size
    return tiles, tiles - (tiles * size - count)
