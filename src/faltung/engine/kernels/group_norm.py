"""Group norm: statistics of each sample over groups of channels; instance norm has groups of one channel.

    for samples and ranges of groups in chunks:                  # threads
        moments   for blocks: partial[block] = mean and sum of squared deviations, in double
        finish    combine blocks, then the channels of a group; mean[c], scale[c] = weight / std for each channel
        apply     for blocks: y = (x - mean[c]) * scale[c] + bias[c]
    backward
        slopes    for blocks: partial[block] = sum of gy and of gy * (x - mean) for each channel
        finish    combine blocks; a group's sums weighted over its channels give per_gy and per_x
        descend   for blocks: gx = gy * scale[c] - ((x - mean[c]) * per_x[c] + per_gy[c])

Two memory orders. *last*: channels lie innermost; blocks are rows of pixels, and the inner loops hold VECTORS registers
of channels. *lines*: each channel of a sample is a line, a group is a stretch of lines; the inner loops run along them.

A chunk does all steps where its share of the arrays stays in the second-level cache: memory is read once and written
once. Where it would not, or where there are too few chunks, each step is a launch of its own, over blocks. Blocks are
fixed by sizes, so the bits don't depend on threads. Registers: 3 per vector of channels held forward, 4 backward, and 3
in flight: 15 with VECTORS = 4 forward, 19 backward, where chips with 16 registers hold half as many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from faltung.engine import layout
from faltung.engine.emit import Emitter, Int, Vec, f32, f64
from faltung.engine.kernel import Kernel, address, bits, pack_last
from faltung.engine.kernels import flat, row_sums
from faltung.engine.kernels.affine import affine, refuse
from faltung.engine.kernels.column_moments import BLOCK_ELEMENTS, block_rows_for, column_moments, combined
from faltung.engine.target import host

VECTORS = 4
FEWEST_CHUNKS = 8  # from which on a chunk may do all steps

Array = np.ndarray
Ints = tuple[int, ...]

# x and y as (batch, channels, positions); a chunk's share as `ranges` of `range_channels` and `parts` of `part_blocks`
SIZES = "batch channels groups positions block blocks chunk_samples ranges range_channels parts part_blocks"
FORWARD = f"x y partial mean var weight bias means scales eps {SIZES}"
BACKWARD = f"x gy gx partial mean var weight means scales per_gy per_x sums eps {SIZES}"


@dataclass(frozen=True)
class Schedule:
    """What shapes the code of one kernel."""

    steps: tuple[str, ...]  # of _STEPS, in order
    last: bool  # channels lie innermost
    vectors: int  # of channels, held at once


@dataclass
class _Share:
    """The sample at hand, and what of it belongs to this chunk."""

    sample: Int
    first_channel: Int
    last_channel: Int
    first_block: Int
    last_block: Int


def emit(e: Emitter, schedule: Schedule) -> None:
    """One chunk: a few samples, or a range of channels or blocks of one sample."""
    batch, channels, blocks = e.fields("batch channels blocks")
    chunk_samples, ranges, range_channels, parts, part_blocks = e.fields(
        "chunk_samples ranges range_channels parts part_blocks"
    )
    part, rest = e.chunk % parts, e.chunk // parts
    first_channel, first_sample = rest % ranges * range_channels, rest // ranges * chunk_samples
    last_channel = e.smaller(first_channel + range_channels, channels)
    first_block = part * part_blocks
    last_block = e.smaller(first_block + part_blocks, blocks)
    with e.loop("sample", e.smaller(first_sample + chunk_samples, batch), start=first_sample) as sample:
        share = _Share(sample.index, first_channel, last_channel, first_block, last_block)
        for step in schedule.steps:
            _STEPS[step](e, schedule, share)


# --- forward ----------------------------------------------------------------------------------------------------------


def _moments(e: Emitter, schedule: Schedule, share: _Share) -> None:
    x, partial = e.pointer("x"), e.pointer("partial", f64)
    channels, groups, positions, blocks = e.fields("channels groups positions blocks")
    if schedule.last:
        for start, rows, index in _blocks(e, share, positions):
            row = share.sample * positions + start
            to = partial.at((share.sample * blocks + index) * channels * 2)
            column_moments(e, x.at(row * channels), to, rows, channels, schedule.vectors)
        return
    for group, size in _groups(e, share):
        begin = (share.sample * groups + group) * size * positions
        for start, count, index in _blocks(e, share, size * positions):
            first = begin + start
            mean, square = row_sums.moments(
                e, first, first + count, lambda at, lanes, mask: flat.load(x.at(at), lanes, mask)
            )
            to = partial.at((share.sample * blocks + index) * groups * 2 + group)
            to.store(mean, align=8)
            to.at(groups).store(square, align=8)


def _blocks(e: Emitter, share: _Share, length: Int) -> Iterator[tuple[Int, Int, Int]]:
    """Yield (start, length, index) of this chunk's blocks of a stretch; the caller's body is emitted once."""
    with e.loop("part", share.last_block, start=share.first_block) as block:
        start = block.index * e.field("block")
        yield start, e.smaller(e.field("block"), length - start), block.index


def _groups(e: Emitter, share: _Share) -> Iterator[tuple[Int, Int]]:
    """Yield (group, its number of channels) of this chunk's groups."""
    size = e.field("channels") // e.field("groups")
    with e.loop("group", share.last_channel // size, start=share.first_channel // size) as group:
        yield group.index, size


def _finish(e: Emitter, schedule: Schedule, share: _Share) -> None:
    """Statistics of each group, and what `apply` needs of them for each channel."""
    channels, groups, positions = e.fields("channels groups positions")
    units = channels if schedule.last else groups  # that have partial sums of their own
    partial = e.pointer("partial", f64).at(share.sample * e.field("blocks") * units * 2)
    size = channels // groups
    parts, length = (size, positions) if schedule.last else (e.int(1), size * positions)
    first, last = share.first_channel // size * parts, share.last_channel // size * parts
    for unit, _, lanes, mask in flat.columns(e, first, last, 1):
        place = partial.at(unit)
        mean, square = combined(e, place, length, e.field("block"), e.field("blocks"), units, lanes, mask)
        flat.store(place, mean, mask)  # every block of the unit has been read
        flat.store(place.at(units), square, mask)
    for group, _ in _groups(e, share):
        mean, square = _group_moments(e, partial.at(group * parts), parts, units, length)
        var = e.convert(e.maximum(square / e.convert(size * positions, f64), 0.0), f32)
        at = share.sample * groups + group
        e.pointer("mean").at(at).store(e.convert(mean, f32))
        e.pointer("var").at(at).store(var)
        _write_scales(e, share.sample * channels, group * size, size, e.convert(mean, f32), var)


def _group_moments(e: Emitter, partial: Any, parts: Int, units: Int, length: Int) -> tuple[Vec, Vec]:
    zero, each = e.convert(e.zero(1), f64), e.convert(length, f64)
    with e.loop("unit", parts, carry=[zero]) as unit:
        unit.carry([unit.carried[0] + partial.at(unit.index).load(align=8)])
    mean = unit.result[0] / e.convert(parts, f64)
    with e.loop("unit_again", parts, carry=[zero]) as unit:
        place = partial.at(unit.index)
        apart, inside = place.load(align=8) - mean, place.at(units).load(align=8)
        unit.carry([unit.carried[0] + e.fma(apart * apart, each, inside)])
    return mean, unit.result[0]


def _write_scales(e: Emitter, row: Int, first: Int, size: Int, mean: Vec, var: Vec) -> None:
    """A group's mean and weight / std to each of its channels, of the sample whose channels start at `row`."""
    invstd = e.convert(row_sums.inverse_deviation(e, var), f32)
    with e.loop("channel", size) as channel:
        at = first + channel.index
        e.pointer("means").at(row + at).store(mean)
        e.pointer("scales").at(row + at).store(e.pointer("weight").at(at).load() * invstd)


def _apply(e: Emitter, schedule: Schedule, share: _Share) -> None:
    x, y = e.pointer("x"), e.pointer("y")

    def write(offset: Int, lanes: int, mask: Any, per_channel: list[Vec]) -> None:
        mean, scale, bias = per_channel
        flat.store(y.at(offset), e.fma(flat.load(x.at(offset), lanes, mask) - mean, scale, bias), mask)

    _over(e, schedule, share, ("means", "scales", "bias"), write)


def _over(
    e: Emitter,
    schedule: Schedule,
    share: _Share,
    names: tuple[str, ...],
    body: Callable[[Int, int, Any, list[Vec]], None],
) -> None:
    """`body(offset, lanes, mask, per_channel)` over a chunk's elements, with the values of the named arrays."""
    channels, positions = e.fields("channels positions")
    if schedule.last:
        for start, rows, _ in _blocks(e, share, positions):
            first = share.sample * positions + start
            for column, vectors, lanes, mask in flat.columns(e, 0, channels, schedule.vectors):
                held = [_per_channel(e, share, names, column + u * lanes, lanes, mask) for u in range(vectors)]
                with e.loop("row", first + rows, start=first) as row:
                    for u in range(vectors):
                        body(row.index * channels + column + u * lanes, lanes, mask, held[u])
        return
    with e.loop("line", share.last_channel, start=share.first_channel) as line:
        scalars = _per_channel(e, share, names, line.index, 1, None)
        first = (share.sample * channels + line.index) * positions

        def along(offset: Int, lanes: int, mask: Any) -> None:
            body(offset, lanes, mask, [e.splat(value, lanes) for value in scalars])

        flat.over_range(e, first, first + positions, 2, along)


def _per_channel(e: Emitter, share: _Share, names: tuple[str, ...], channel: Int, lanes: int, mask: Any) -> list[Vec]:
    """Values of channels from arrays (channels,) or (batch, channels)."""
    row = share.sample * e.field("channels")
    shared = ("weight", "bias")
    return [flat.load(e.pointer(name).at(channel if name in shared else row + channel), lanes, mask) for name in names]


# --- backward ---------------------------------------------------------------------------------------------------------


def _slopes(e: Emitter, schedule: Schedule, share: _Share) -> None:
    channels, positions, blocks = e.fields("channels positions blocks")
    x, gy, partial = e.pointer("x"), e.pointer("gy"), e.pointer("partial", f64)
    if schedule.last:
        for start, rows, index in _blocks(e, share, positions):
            first = share.sample * positions + start
            to = partial.at((share.sample * blocks + index) * channels * 2)
            _column_slopes(e, schedule, share, first, first + rows, to)
        return
    with e.loop("line", share.last_channel, start=share.first_channel) as line:
        (mean,) = _per_channel(e, share, ("means",), line.index, 1, None)
        first = (share.sample * channels + line.index) * positions

        def terms(at: Int, lanes: int, mask: Any) -> list[Vec]:
            gradient = flat.load(gy.at(at), lanes, mask)
            return [gradient, gradient * (flat.load(x.at(at), lanes, mask) - e.splat(mean, lanes))]

        total, slope = row_sums.sums(e, first, first + positions, 2, terms, 2)
        to = partial.at(share.sample * channels * 2 + line.index)  # a line is one block
        to.store(total, align=8)
        to.at(channels).store(slope, align=8)


def _column_slopes(e: Emitter, schedule: Schedule, share: _Share, first: Int, last: Int, to: Any) -> None:
    channels, x, gy = e.field("channels"), e.pointer("x"), e.pointer("gy")
    for column, vectors, lanes, mask in flat.columns(e, 0, channels, schedule.vectors):
        means = [_per_channel(e, share, ("means",), column + u * lanes, lanes, mask)[0] for u in range(vectors)]
        with e.loop("row", last, start=first, carry=[e.zero(lanes)] * (2 * vectors)) as row:
            sums, slopes = row.carried[:vectors], row.carried[vectors:]
            for u in range(vectors):
                offset = row.index * channels + column + u * lanes
                gradient = flat.load(gy.at(offset), lanes, mask)
                centred = flat.load(x.at(offset), lanes, mask) - means[u]
                sums[u], slopes[u] = sums[u] + gradient, e.fma(gradient, centred, slopes[u])
            row.carry(sums + slopes)
        for u in range(vectors):
            place = to.at(column + u * lanes)
            flat.store(place, e.convert(row.result[u], f64), mask)
            flat.store(place.at(channels), e.convert(row.result[vectors + u], f64), mask)


def _finish_slopes(e: Emitter, schedule: Schedule, share: _Share) -> None:
    """What `descend` needs for each channel, and each sample's share of the gradients of weight and bias."""
    channels, groups, positions, blocks = e.fields("channels groups positions blocks")
    partial = e.pointer("partial", f64).at(share.sample * blocks * channels * 2)
    sums, weight = e.pointer("sums", f64).at(share.sample * channels * 2), e.pointer("weight")
    zero = e.convert(e.zero(1), f64)
    for column, _, lanes, mask in flat.columns(e, share.first_channel, share.last_channel, 1):
        with e.loop("block", blocks, carry=[e.convert(e.zero(lanes), f64)] * 2) as block:
            place = partial.at(block.index * channels * 2 + column)
            found = [flat.load(place, lanes, mask), flat.load(place.at(channels), lanes, mask)]
            block.carry([total + part for total, part in zip(block.carried, found, strict=True)])
        for u, total in enumerate(block.result):
            flat.store(sums.at(channels * u + column), total, mask)
    for group, size in _groups(e, share):
        first, at = group * size, share.sample * groups + group
        with e.loop("channel", first + size, start=first, carry=[zero, zero]) as channel:
            scale, place = e.convert(weight.at(channel.index).load(), f64), sums.at(channel.index)
            found = [place.load(align=8), place.at(channels).load(align=8)]
            channel.carry([e.fma(scale, part, total) for total, part in zip(channel.carried, found, strict=True)])
        invstd = row_sums.inverse_deviation(e, e.pointer("var").at(at).load())
        each = invstd / e.convert(size * positions, f64)
        per_gy, per_x = channel.result[0] * each, channel.result[1] * each * invstd * invstd
        with e.loop("channel_again", first + size, start=first) as channel:
            to = share.sample * channels + channel.index
            e.pointer("scales").at(to).store(weight.at(channel.index).load() * e.convert(invstd, f32))
            e.pointer("per_gy").at(to).store(e.convert(per_gy, f32))
            e.pointer("per_x").at(to).store(e.convert(per_x, f32))
            slope = sums.at(channels + channel.index)
            slope.store(slope.load(align=8) * invstd, align=8)


def _descend(e: Emitter, schedule: Schedule, share: _Share) -> None:
    x, gy, gx = e.pointer("x"), e.pointer("gy"), e.pointer("gx")

    def write(offset: Int, lanes: int, mask: Any, per_channel: list[Vec]) -> None:
        mean, scale, per_gy, per_x = per_channel
        through = e.fma(flat.load(x.at(offset), lanes, mask) - mean, per_x, per_gy)
        flat.store(gx.at(offset), e.fma(flat.load(gy.at(offset), lanes, mask), scale, -through), mask)

    _over(e, schedule, share, ("means", "scales", "per_gy", "per_x"), write)


_STEPS: dict[str, Callable[[Emitter, Schedule, _Share], None]] = {
    "moments": _moments,
    "finish": _finish,
    "apply": _apply,
    "slopes": _slopes,
    "finish_slopes": _finish_slopes,
    "descend": _descend,
}

# --- plans ------------------------------------------------------------------------------------------------------------

_WAYS = {"forward": ("moments", "finish", "apply"), "backward": ("slopes", "finish_slopes", "descend")}


@dataclass(frozen=True)
class Launch:
    """One region: its kernel, its chunks, and its last fields, which addresses don't change."""

    kernel: Kernel
    chunks: int
    sizes: bytes


@dataclass(frozen=True)
class Plan:
    """The launches of one way, and how many blocks of how many units have partial sums."""

    launches: tuple[Launch, ...]
    blocks: int
    units: int


@lru_cache(maxsize=1024)
def plan_for(shape: Ints, groups: int, last: bool, way: str) -> Plan:
    """The plan for x of this shape."""
    batch, channels, positions = shape[0], shape[1], prod(shape[2:])
    size = channels // groups
    if last:
        block, length, units = block_rows_for(channels), positions, channels
    elif way == "forward":  # the lines of a group are one stretch
        block, length, units = BLOCK_ELEMENTS, size * positions, groups
    else:  # a line is one block
        block, length, units = positions, positions, channels
    blocks = -(-length // block)
    sizes = (batch, channels, groups, positions, block, blocks)
    small = batch * channels * positions <= BLOCK_ELEMENTS
    if small:
        shares = [(batch, channels, 1, blocks)]
    elif _stays_near(batch, channels, groups, positions, last, way):
        shares = [(*_whole_groups(channels, groups, positions, last), 1, blocks)]
    else:
        lines = (1, max(1, BLOCK_ELEMENTS // positions), 1, 1)
        by_block = (1, channels if last else size, blocks, 1)
        shares = [
            by_block if last or way == "forward" else lines,
            (1, channels, 1, blocks),
            by_block if last else lines,
        ]
    steps = [_WAYS[way]] if len(shares) == 1 else [(step,) for step in _WAYS[way]]
    vectors = vectors_held(channels, last, way, host().registers)
    launches = [_launch(part, last, vectors, sizes, share) for part, share in zip(steps, shares, strict=True)]
    return Plan(tuple(launches), blocks, units)


def _stays_near(batch: int, channels: int, groups: int, positions: int, last: bool, way: str) -> bool:
    """Whether all steps on a sample, or on a group of lines, run in the second-level cache, on all threads."""
    chunks = batch if last else batch * groups
    elements = channels * positions if last else channels // groups * positions
    arrays = 2 if way == "forward" else 3
    return chunks >= FEWEST_CHUNKS and elements * 4 * arrays <= host().l2_bytes


def _whole_groups(channels: int, groups: int, positions: int, last: bool) -> tuple[int, int]:
    """Samples and channels of a chunk that does all steps."""
    samples = BLOCK_ELEMENTS // (channels * positions)
    if last or samples > 1:
        return max(1, samples), channels
    size = channels // groups
    return 1, size * min(groups, max(1, BLOCK_ELEMENTS // (size * positions)))


def vectors_held(channels: int, last: bool, way: str, registers: int) -> int:
    """Vectors of channels held at once; backward has four values for each."""
    at_most = VECTORS if way == "forward" or registers >= 32 else VECTORS // 2
    return flat.vectors_for(channels, at_most) if last else 1


def _launch(steps: tuple[str, ...], last: bool, vectors: int, sizes: Ints, share: Ints) -> Launch:
    batch, channels, *_ = sizes
    samples, range_channels, parts, part_blocks = share
    ranges = -(-channels // range_channels)
    fields = pack_last(*sizes, samples, ranges, range_channels, parts, part_blocks)
    return Launch(_kernel(steps, last, vectors), -(-batch // samples) * ranges * parts, fields)


@lru_cache(maxsize=64)
def _kernel(steps: tuple[str, ...], last: bool, vectors: int) -> Kernel:
    fields = FORWARD if steps[0] in _WAYS["forward"] else BACKWARD
    return Kernel(f"group_norm_{'_'.join(steps)}", fields, Schedule(steps, last, vectors), emit)


# --- the engine's functions -------------------------------------------------------------------------------------------


def _ordered(x: Array) -> tuple[Array, bool]:
    """`x`, or a copy, and whether its channels lie innermost."""
    if layout.is_channels_last(x):
        return x, True
    return (x, False) if x.flags.c_contiguous else (layout.channels_last(x), True)


def refuse_group_forward(x: Array, groups: int, weight: Array | None, bias: Array | None, eps: float) -> str | None:
    """The reason against, or None."""
    return refuse(x, weight, bias)


def group_forward(
    x: Array, groups: int, weight: Array | None, bias: Array | None, eps: float
) -> tuple[Array, Array, Array]:
    """As `reference.norm.group_forward`."""
    x, last = _ordered(x)
    plan, y = plan_for(x.shape, groups, last, "forward"), flat.like(x)
    batch, channels = x.shape[:2]
    mean, var = np.empty((batch, groups), np.float32), np.empty((batch, groups), np.float32)
    partial = np.empty(batch * plan.blocks * 2 * plan.units)
    per_channel = np.empty((2, batch * channels), np.float32)
    arrays = (x, y, partial, mean, var, *affine(weight, bias, channels), *per_channel)
    fields = (*map(address, arrays), bits(eps))
    for launch in plan.launches:
        launch.kernel.launch_packed(launch.chunks, *fields, rest=launch.sizes)
    return y, mean, var


def refuse_group_backward(
    gy: Array, x: Array, mean: Array, var: Array, groups: int, weight: Array | None, eps: float
) -> str | None:
    """The reason against, or None."""
    return refuse(gy) or refuse(x, mean, var, weight)


def group_backward(
    gy: Array, x: Array, mean: Array, var: Array, groups: int, weight: Array | None, eps: float
) -> tuple[Array, Array, Array]:
    """As `reference.norm.group_backward`."""
    x, last = _ordered(x)
    gy = layout.channels_last(gy) if last else layout.contiguous(gy)
    plan, gx = plan_for(x.shape, groups, last, "backward"), flat.like(x)
    batch, channels = x.shape[:2]
    weight, _ = affine(weight, None, channels)
    means = mean if groups == channels else np.repeat(mean, channels // groups, axis=1)
    partial, sums = np.empty(batch * plan.blocks * 2 * channels), np.empty((batch, 2, channels))
    per_channel = np.empty((3, batch * channels), np.float32)
    arrays = (x, gy, gx, partial, mean, var, weight, means, *per_channel, sums)
    fields = (*map(address, arrays), bits(eps))
    for launch in plan.launches:
        launch.kernel.launch_packed(launch.chunks, *fields, rest=launch.sizes)
    gbias, gweight = sums.sum(axis=0).astype(np.float32)
    return gx, gweight, gbias
