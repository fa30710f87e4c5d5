"""Copying rows of pixels into channels-last memory: what kernels do before they compute."""

from __future__ import annotations

from faltung.engine.emit import Emitter, Int, Ptr


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
