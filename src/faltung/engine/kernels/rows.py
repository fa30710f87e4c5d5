"""Copying rows of pixels into channels-last memory: what kernels do before they compute."""

from __future__ import annotations

from faltung.engine.emit import Emitter, Int, Ptr, Vec

MOST_PLANES = 4


def fill(e: Emitter, to: Ptr, count: Int) -> None:
    """`count` zeros."""
    whole = count - count % e.lanes
    with e.loop("zero", whole, step=e.lanes) as loop:
        to.at(loop.index).store(e.zero())
    with e.loop("zero1", count, start=whole) as loop:
        to.at(loop.index).store(e.zero(1))


def copy(e: Emitter, source: Ptr, to: Ptr, count: Int) -> None:
    """`count` consecutive floats."""
    whole = count - count % e.lanes
    with e.loop("copy", whole, step=e.lanes) as loop:
        to.at(loop.index).store(source.at(loop.index).load(e.lanes))
    with e.loop("copy1", count, start=whole) as loop:
        to.at(loop.index).store(source.at(loop.index).load())


def copy_pixels(
    e: Emitter, source: Ptr, to: Ptr, pixels: Int, channels: Int, pixel_step: Int, channel_step: Int
) -> None:
    """A row of pixels, wherever its channels lie, to (pixels, channels)."""
    adjacent = channel_step.equals(1)
    with e.either(e.both(adjacent, pixel_step.equals(channels))) as (yes, no):
        with yes:
            copy(e, source, to, pixels * channels)
        with no, e.either(adjacent) as (together, apart):
            with together, e.loop("px", pixels) as px:
                copy(e, source.at(px.index * pixel_step), to.at(px.index * channels), channels)
            with apart, e.loop("ch", channels) as ch, e.loop("px", pixels) as px:
                value = source.at(ch.index * channel_step + px.index * pixel_step).load()
                to.at(px.index * channels + ch.index).store(value)


def planes_of(channels: int, channel_step: int, pixel_step: int) -> int:
    """How many planes `copy_planes` would interleave; 0 where it does not apply."""
    return channels if 1 < channels <= MOST_PLANES and pixel_step == 1 and channel_step != 1 else 0


def copy_planes(e: Emitter, source: Ptr, to: Ptr, pixels: Int, planes: int, plane_step: Int) -> None:
    """A row of an image whose few channels lie in planes of their own, to (pixels, planes): vectors, interleaved."""
    whole = pixels - pixels % e.lanes
    with e.loop("px", whole, step=e.lanes) as px:
        vectors = [source.at(plane_step * plane + px.index).load(e.lanes) for plane in range(planes)]
        for part, vector in enumerate(_interleaved(e, vectors)):
            to.at(px.index * planes + part * e.lanes).store(vector)
    with e.loop("px1", pixels, start=whole) as px:
        for plane in range(planes):
            to.at(px.index * planes + plane).store(source.at(plane_step * plane + px.index).load())


def _interleaved(e: Emitter, vectors: list[Vec]) -> list[Vec]:
    """Lane 0 of every vector, lane 1 of every vector, ...: as many vectors as came in."""
    lanes, count = e.lanes, len(vectors)
    results = []
    for part in range(count):
        wanted = [divmod(part * lanes + lane, count) for lane in range(lanes)]  # (pixel, plane) of each lane
        result = vectors[0]
        for plane in range(1, count):
            # lanes of this plane come from its vector, the others stay; plane 0 is picked in the first round
            order = [
                lanes + pixel if of == plane else pixel if plane == 1 and of == 0 else lane
                for lane, (pixel, of) in enumerate(wanted)
            ]
            result = e.shuffle(result, vectors[plane], order)
        results.append(result)
    return results
