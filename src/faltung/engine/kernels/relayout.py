"""Copies between memory orders: what is contiguous in the source is strided in the target, and the other way round.

    for planes and stripes of q in chunks:               # threads
        for p, LANES at a time:                          # contiguous in the source
            for q in stripe, LANES at a time:            # contiguous in the target
                load LANES vectors along p, transpose them in registers, store LANES vectors along q

(N, C, H, W) contiguous <-> channels last is the case in mind: planes are samples, p and q channels and pixels. Any
other dimensions of source and target that cannot be merged are planes too, listed in a table of addresses. Edges of a
plane use masked tiles, or single elements where the chip has no masks. Registers: LANES vectors and one in flight; NEON
transposes 4 x 4 tiles, AVX2 8 x 8, AVX-512 16 x 16. Bound by memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from faltung.engine.emit import Emitter, Int, Ptr, Vec, i64
from faltung.engine.kernel import Kernel, address
from faltung.engine.kernels import flat, pointwise

SMALLEST = 4096  # elements that are worth a launch
MOST_PLANES = 1 << 16


@dataclass(frozen=True)
class Schedule:
    """What shapes the code: nothing but the chip's lanes."""

    name: str = "relayout"


@dataclass(frozen=True)
class Plan:
    """A copy as planes of p by q elements; strides in elements."""

    p: int
    q: int
    source_q: int
    target_p: int
    planes: np.ndarray  # (planes, 2): first element in the source and in the target


@lru_cache(maxsize=1024)
def plan(shape: tuple[int, ...], source: tuple[int, ...], target: tuple[int, ...]) -> Plan | None:
    """How to copy between strides in bytes, or None if no such plan fits."""
    dims = [(n, s // 4, t // 4) for n, s, t in zip(shape, source, target, strict=True) if n != 1]
    if any(s % 4 or t % 4 or s < 0 or t <= 0 for s, t in zip(source, target, strict=True)):
        return None
    dims = _merged(sorted(dims, key=lambda dim: -dim[2]))
    along_p = next((dim for dim in dims if dim[1] == 1), None)
    along_q = next((dim for dim in dims if dim[2] == 1), None)
    if along_p is None or along_q is None or along_p is along_q:
        return None
    planes = np.zeros((1, 2), np.int64)
    for dim in dims:
        if dim is not along_p and dim is not along_q:
            steps = np.arange(dim[0])[:, None] * np.array(dim[1:])
            planes = (planes[:, None] + steps).reshape(-1, 2)
    if len(planes) > MOST_PLANES:
        return None
    return Plan(along_p[0], along_q[0], along_q[1], along_p[2], planes)


def _merged(dims: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Neighbours that lie behind one another in both arrays become one dimension."""
    merged: list[tuple[int, int, int]] = []
    for n, s, t in dims:
        if merged and merged[-1][1] == n * s and merged[-1][2] == n * t:
            merged[-1] = (merged[-1][0] * n, s, t)
        else:
            merged.append((n, s, t))
    return merged


_FIELDS = "source target planes p q source_q target_p stripes stripe"


def _emit(e: Emitter, schedule: Schedule) -> None:
    p, q, stripes, stripe = e.fields("p q stripes stripe")
    entry = e.pointer("planes", i64).at(e.chunk // stripes * 2)
    source, target = e.pointer("source").at(entry.load_int()), e.pointer("target").at(entry.at(1).load_int())
    start = e.chunk % stripes * stripe
    stop = e.smaller(start + stripe, q)
    lanes = e.lanes
    whole_p, whole_q = p // lanes * lanes, start + (stop - start) // lanes * lanes
    with e.loop("p", whole_p, step=lanes) as i:
        with e.loop("q", whole_q, start=start, step=lanes) as j:
            _tile(e, source, target, i.index, j.index)
        if flat.masks(e):
            with e.when(whole_q < stop):
                _edge_tile(e, source, target, i.index, whole_q, e.int(lanes), stop - whole_q)
        else:
            _elements(e, source, target, i.index, i.index + lanes, whole_q, stop)
    if flat.masks(e):
        with e.when(whole_p < p), e.loop("edge", stop, start=start, step=lanes) as j:
            _edge_tile(e, source, target, whole_p, j.index, p - whole_p, e.smaller(stop - j.index, lanes))
    else:
        _elements(e, source, target, whole_p, p, start, stop)


def _tile(e: Emitter, source: Ptr, target: Ptr, p: Int, q: Int) -> None:
    source_q, target_p = e.fields("source_q target_p")
    rows = [source.at(p + (q + j) * source_q).load(e.lanes) for j in range(e.lanes)]
    for i, column in enumerate(transposed(e, rows)):
        target.at(q + (p + i) * target_p).store(column)


def _edge_tile(e: Emitter, source: Ptr, target: Ptr, p: Int, q: Int, count_p: Int, count_q: Int) -> None:
    """A tile of which only `count_p` by `count_q` elements exist."""
    source_q, target_p = e.fields("source_q target_p")
    along_p, along_q = e.mask(count_p, e.lanes), e.mask(count_q, e.lanes)
    last = count_q - 1
    # rows beyond the last one repeat it: nothing is read outside, and what they give is not stored
    rows = [source.at(p + (q + e.smaller(j, last)) * source_q).load_masked(along_p, e.lanes) for j in range(e.lanes)]
    for i, column in enumerate(transposed(e, rows)):
        with e.when(e.int(i) < count_p):
            target.at(q + (p + i) * target_p).store_masked(column, along_q)


def _elements(e: Emitter, source: Ptr, target: Ptr, p: Int, stop_p: Int, q: Int, stop_q: Int) -> None:
    source_q, target_p = e.fields("source_q target_p")
    with e.loop("one_p", stop_p, start=p) as i, e.loop("one_q", stop_q, start=q) as j:
        target.at(j.index + i.index * target_p).store(source.at(i.index + j.index * source_q).load())


def transposed(e: Emitter, rows: list[Vec]) -> list[Vec]:
    """The columns of as many vectors as they have lanes: pairs exchange halves, then quarters, and so on."""
    count = len(rows)
    distance = count // 2
    while distance:
        low = [lane if not lane & distance else lane - distance + count for lane in range(count)]
        high = [lane + distance if not lane & distance else lane + count for lane in range(count)]
        exchanged = list(rows)
        for i in range(count):
            if not i & distance:
                a, b = rows[i], rows[i + distance]
                exchanged[i], exchanged[i + distance] = e.shuffle(a, b, low), e.shuffle(a, b, high)
        rows, distance = exchanged, distance // 2
    return rows


@lru_cache(maxsize=1)
def _kernel() -> Kernel:
    return Kernel("relayout", _FIELDS, Schedule(), _emit)


# --- the engine's functions -------------------------------------------------------------------------------------------


def refuse_copy(target: np.ndarray, source: np.ndarray) -> str | None:
    """The reason against, or None."""
    if target.dtype != flat.FLOAT or source.dtype != flat.FLOAT:
        return f"only float32 is generated, not {source.dtype} to {target.dtype}"
    if source.size < SMALLEST or target.shape != source.shape:
        return f"{source.size} elements are not worth a launch, or shapes differ"
    if plan(target.shape, source.strides, target.strides) is None and not _is_plain(target, source):
        return "nothing to transpose"
    return None


def _is_plain(target: np.ndarray, source: np.ndarray) -> bool:
    return target.strides == source.strides and flat.dense_order(source.shape, source.strides) is not None


def copy(target: np.ndarray, source: np.ndarray) -> None:
    """As `reference.layout.copy`: overwrite `target`, which shares no memory with `source`."""
    found = plan(target.shape, source.strides, target.strides)
    if found is None:  # one stretch of memory
        pointwise.run("copy", (source,), (), target)
        return
    stripe = max(64, flat.BLOCK // found.p // 64 * 64)
    stripes = -(-found.q // stripe)
    numbers = (found.p, found.q, found.source_q, found.target_p, stripes, stripe)
    _kernel().launch(len(found.planes) * stripes, *map(address, (source, target, found.planes)), *numbers)
