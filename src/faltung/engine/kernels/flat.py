"""What kernels over flat memory share: dense operands of any memory order, and the loop over a range of elements.

A pointwise kernel never sees shapes. Operands that fill one stretch of memory in the same order (contiguous, channels
last, any permutation) are just N floats. Chunks are fixed stretches of BLOCK elements, whatever the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from faltung.engine import memory
from faltung.engine.emit import Emitter, Int, IntLike, Ptr, Vec
from faltung.engine.registry import call
from faltung.engine.target import host

BLOCK = 16384  # elements of one chunk: 64 KiB of each operand
FLOAT = np.dtype(np.float32)

Body = Callable[[Int, int, Any], None]


@lru_cache(maxsize=4096)
def dense_order(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int = 4) -> tuple[int, ...] | None:
    """Axes from the outermost to the innermost if elements fill one stretch of memory, without gaps; else None."""
    if 0 in shape:
        return tuple(range(len(shape)))
    order = tuple(sorted(range(len(shape)), key=lambda axis: (-strides[axis], -shape[axis])))
    step = itemsize
    for axis in reversed(order):
        if shape[axis] != 1:
            if strides[axis] != step:
                return None
            step *= shape[axis]
    return order


def refuse(x: np.ndarray, *others: np.ndarray) -> str | None:
    """The reason why arrays are not float32 operands of one dense order and shape."""
    if x.dtype != FLOAT:
        return f"only float32 is generated, not {x.dtype}"
    shape, strides = x.shape, x.strides
    if dense_order(shape, strides) is None:
        return f"strides {strides} of shape {shape} leave gaps"
    for other in others:
        if other.dtype != FLOAT:
            return f"only float32 is generated, not {other.dtype}"
        if other.shape != shape:
            return "operands differ in shape"
    return None


def like(x: np.ndarray) -> np.ndarray:
    """An uninitialised array with the shape and the memory order of the dense float32 array `x`."""
    if x.nbytes < memory.POOLED_BYTES:
        return np.empty_like(x, subok=False)
    return memory.empty(x.shape, FLOAT, x.strides)


def matching(x: np.ndarray, model: np.ndarray) -> np.ndarray:
    """`x` in the memory order of `model`: itself, or a copy."""
    if x.strides == model.strides or dense_order(x.shape, x.strides) == dense_order(model.shape, model.strides):
        return x
    copy = like(model)
    call("layout.copy", copy, x)
    return copy


def chunks(elements: int) -> int:
    """Number of blocks."""
    return -(-elements // BLOCK)


def streams(nbytes: int) -> bool:
    """Whether a result of so many bytes should go past the caches, which it would only flush."""
    return nbytes > host().l3_bytes


def over_block(e: Emitter, unroll: int, body: Body) -> None:
    """`body(offset, lanes, mask)` over this chunk's block of field `n` elements."""
    start = e.chunk * BLOCK
    over_range(e, start, e.smaller(start + BLOCK, e.field("n")), unroll, body)


def over_range(e: Emitter, start: Int, stop: Int, unroll: int, body: Body) -> None:
    """`body(offset, lanes, mask)` from `start` below `stop`: `unroll` whole vectors a round, then the rest.

    The rest runs in masked vectors where the chip has them, else element by element.
    """
    lanes, step = e.lanes, e.lanes * unroll
    whole = start + (stop - start) // step * step
    with e.loop("whole", whole, start=start, step=step) as i:
        for u in range(unroll):
            body(i.index + u * lanes, lanes, None)
    if masks(e):
        with e.loop("rest", stop, start=whole, step=lanes) as i:
            body(i.index, lanes, e.mask(stop - i.index, lanes))
    else:
        with e.loop("rest", stop, start=whole) as i:
            body(i.index, 1, None)


def columns(e: Emitter, start: IntLike, stop: IntLike, vectors: int) -> Iterator[tuple[Int, int, int, Any]]:
    """Yield (column, vectors, lanes, mask): groups of whole vectors, then the rest in masked vectors or single
    elements.

    The caller's loop body is emitted once for each of the two loops.
    """
    step, start = vectors * e.lanes, e.int(start)
    whole = start + (e.int(stop) - start) // step * step
    with e.loop("columns", whole, start=start, step=step) as column:
        yield column.index, vectors, e.lanes, None
    if masks(e):
        with e.loop("rest", stop, start=whole, step=e.lanes) as column:
            yield column.index, 1, e.lanes, e.mask(e.int(stop) - column.index, e.lanes)
    else:
        with e.loop("rest", stop, start=whole) as column:
            yield column.index, 1, 1, None


def vectors_for(channels: int, at_most: int = 4) -> int:
    """Vectors of channels to hold at once: no more than whole ones are there."""
    return max(1, min(at_most, channels // host().lanes))


def load(place: Ptr, lanes: int, mask: Any) -> Vec:
    """A vector from any address, under a mask if there is one."""
    return place.load(lanes, align=place.align) if mask is None else place.load_masked(mask, lanes)


def store(place: Ptr, value: Vec, mask: Any) -> None:
    """A vector to any address, under a mask if there is one."""
    if mask is None:
        place.store(value, align=place.align)
    else:
        place.store_masked(value, mask)


def masks(e: Emitter) -> bool:
    """Whether the chip loads and stores parts of vectors."""
    return e.lanes >= 8
