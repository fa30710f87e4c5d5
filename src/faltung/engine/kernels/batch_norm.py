"""Batch normalisation over channels-last data, seen as a matrix of `rows` samples by `channels`.

    moments     for blocks of rows in chunks:            # threads
                    partial[block] = mean and sum of squared deviations of the block, in double (`column_moments`)
    finish      for channels in chunks: combine the blocks in order, in double
    apply       for blocks of rows in chunks: y = (x - mean) * scale + bias, and its activation if asked for

One pass over x gives the statistics. Backward likewise: `slopes` sums gy and gy * (x - mean) per block, `finish`
combines, `descend` writes

    gx = (gy - mean(gy) - xhat * mean(gy * xhat)) * scale

With `activation` relu or relu6, gy counts only where the forward result, computed anew from x, was let through: no mask
is kept.

Blocks have fixed rows, so the bits don't depend on threads. Registers: at most 3 per vector of channels held, plus one
for the value in flight: 13 with VECTORS = 4. Bound by memory: x is read twice and y written once; backward reads x and
gy twice and writes gx.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from faltung.engine import layout
from faltung.engine.emit import Emitter, Int, Vec, f32, f64
from faltung.engine.epilogue import DIFFERENTIABLE
from faltung.engine.kernel import Kernel, address, bits
from faltung.engine.kernels import flat
from faltung.engine.kernels.affine import affine, refuse
from faltung.engine.kernels.column_moments import AHEAD, block_rows_for, column_moments, combined
from faltung.engine.kernels.epilogue import activated, gradient_through

VECTORS = 4
FINISH_COLUMNS = 64  # channels of one chunk when blocks are combined

Array = np.ndarray


@dataclass(frozen=True)
class Schedule:
    """What shapes the code of one kernel."""

    step: str
    vectors: int
    activation: str  # of engine.epilogue.ACTIVATIONS; backward knows relu and relu6


# --- forward --------------------------------------------------------------------------------------------------------

_MOMENTS = "x partial rows channels block_rows"
_FINISH = "partial mean var rows channels block_rows blocks"
_APPLY = "x y mean var weight bias eps rows channels block_rows"


def _rows_of_block(e: Emitter) -> tuple[Int, Int]:
    start = e.chunk * e.field("block_rows")
    return start, e.smaller(start + e.field("block_rows"), e.field("rows"))


def _emit_moments(e: Emitter, schedule: Schedule) -> None:
    channels = e.field("channels")
    start, stop = _rows_of_block(e)
    partial = e.pointer("partial", f64).at(e.chunk * channels * 2)
    column_moments(e, e.pointer("x").at(start * channels), partial, stop - start, channels, schedule.vectors)


def _emit_finish(e: Emitter, schedule: Schedule) -> None:
    rows, channels, block_rows, blocks = e.fields("rows channels block_rows blocks")
    start = e.chunk * FINISH_COLUMNS
    for column, _, lanes, mask in flat.columns(e, start, e.smaller(start + FINISH_COLUMNS, channels), 1):
        partial = e.pointer("partial", f64).at(column)
        mean, squares = combined(e, partial, rows, block_rows, blocks, channels, lanes, mask)
        var = e.maximum(squares / e.splat(e.convert(rows, f64), lanes), 0.0)
        for name, value in (("mean", mean), ("var", var)):
            flat.store(e.pointer(name).at(column), e.convert(value, f32), mask)


def _emit_apply(e: Emitter, schedule: Schedule) -> None:
    x, y, channels = e.pointer("x"), e.pointer("y"), e.field("channels")
    start, stop = _rows_of_block(e)
    for column, vectors, lanes, mask in flat.columns(e, 0, channels, schedule.vectors):
        mean, bias = (_channel_vectors(e, name, column, vectors, lanes, mask) for name in ("mean", "bias"))
        scale = _scales(e, column, vectors, lanes, mask)
        with e.loop("row", stop, start=start) as row:
            for u in range(vectors):
                offset = row.index * channels + column + u * lanes
                e.prefetch(x.at(offset + channels * AHEAD))
                value = e.fma(flat.load(x.at(offset), lanes, mask) - mean[u], scale[u], bias[u])
                flat.store(y.at(offset), activated(e, schedule.activation, value), mask)


# --- backward -------------------------------------------------------------------------------------------------------

_SLOPES = "x gy partial mean var weight bias eps rows channels block_rows"
_FINISH_SLOPES = "partial var gweight gbias per_gy per_x eps rows channels blocks"
_DESCEND = "x gy gx mean var weight bias per_gy per_x eps rows channels block_rows"


def _emit_slopes(e: Emitter, schedule: Schedule) -> None:
    x, gy, partial, channels = e.pointer("x"), e.pointer("gy"), e.pointer("partial", f64), e.field("channels")
    start, stop = _rows_of_block(e)
    for column, vectors, lanes, mask in flat.columns(e, 0, channels, schedule.vectors):
        mean, bias = (_channel_vectors(e, name, column, vectors, lanes, mask) for name in ("mean", "bias"))
        scale = _scales(e, column, vectors, lanes, mask)  # dropped by the compiler where nothing uses it
        with e.loop("row", stop, start=start, carry=[e.zero(lanes)] * (2 * vectors)) as row:
            sums, slopes = row.carried[:vectors], row.carried[vectors:]
            for u in range(vectors):
                offset = row.index * channels + column + u * lanes
                e.prefetch(x.at(offset + channels * AHEAD))
                e.prefetch(gy.at(offset + channels * AHEAD))
                centred = flat.load(x.at(offset), lanes, mask) - mean[u]
                gradient = flat.load(gy.at(offset), lanes, mask)
                if schedule.activation:
                    result = e.fma(centred, scale[u], bias[u])
                    gradient = gradient_through(e, schedule.activation, gradient, result)
                sums[u], slopes[u] = sums[u] + gradient, e.fma(gradient, centred, slopes[u])
            row.carry(sums + slopes)
        for u in range(vectors):
            place = partial.at(e.chunk * channels * 2 + column + u * lanes)
            flat.store(place, e.convert(row.result[u], f64), mask)
            flat.store(place.at(channels), e.convert(row.result[vectors + u], f64), mask)


def _emit_finish_slopes(e: Emitter, schedule: Schedule) -> None:
    rows, channels, blocks = e.fields("rows channels blocks")
    start = e.chunk * FINISH_COLUMNS
    for column, _, lanes, mask in flat.columns(e, start, e.smaller(start + FINISH_COLUMNS, channels), 1):
        with e.loop("block", blocks, carry=[_zero(e, lanes)] * 2) as block:
            place = _partial(e, block.index, column)
            block.carry(
                [
                    block.carried[0] + flat.load(place, lanes, mask),
                    block.carried[1] + flat.load(place.at(channels), lanes, mask),
                ]
            )
        total, slope = block.result
        var = e.convert(flat.load(e.pointer("var").at(column), lanes, mask), f64)
        invstd = 1.0 / e.unary("sqrt", var + e.splat(e.number("eps", f64), lanes))
        count = e.splat(e.convert(rows, f64), lanes)
        results = {"gbias": total, "gweight": slope * invstd, "per_gy": total / count}
        results["per_x"] = slope * invstd * invstd / count
        for name, value in results.items():
            flat.store(e.pointer(name).at(column), e.convert(value, f32), mask)


def _emit_descend(e: Emitter, schedule: Schedule) -> None:
    x, gy, gx, channels = e.pointer("x"), e.pointer("gy"), e.pointer("gx"), e.field("channels")
    start, stop = _rows_of_block(e)
    names = ("mean", "bias", "per_gy", "per_x")
    for column, vectors, lanes, mask in flat.columns(e, 0, channels, schedule.vectors):
        mean, bias, per_gy, per_x = (_channel_vectors(e, name, column, vectors, lanes, mask) for name in names)
        scale = _scales(e, column, vectors, lanes, mask)
        with e.loop("row", stop, start=start) as row:
            for u in range(vectors):
                offset = row.index * channels + column + u * lanes
                e.prefetch(x.at(offset + channels * AHEAD))
                e.prefetch(gy.at(offset + channels * AHEAD))
                centred = flat.load(x.at(offset), lanes, mask) - mean[u]
                gradient = flat.load(gy.at(offset), lanes, mask)
                if schedule.activation:
                    result = e.fma(centred, scale[u], bias[u])
                    gradient = gradient_through(e, schedule.activation, gradient, result)
                value = (gradient - e.fma(centred, per_x[u], per_gy[u])) * scale[u]
                flat.store(gx.at(offset), value, mask)


# --- pieces ---------------------------------------------------------------------------------------------------------


def _channel_vectors(e: Emitter, name: str, column: Int, vectors: int, lanes: int, mask: Any) -> list[Vec]:
    return [flat.load(e.pointer(name).at(column + u * lanes), lanes, mask) for u in range(vectors)]


def _scales(e: Emitter, column: Int, vectors: int, lanes: int, mask: Any) -> list[Vec]:
    """weight / sqrt(var + eps); forward and backward must agree on its bits for `activation`."""
    weights, variances = (_channel_vectors(e, name, column, vectors, lanes, mask) for name in ("weight", "var"))
    eps = e.splat(e.number("eps"), lanes)
    return [weight / e.unary("sqrt", var + eps) for weight, var in zip(weights, variances, strict=True)]


def _zero(e: Emitter, lanes: int) -> Vec:
    return e.convert(e.zero(lanes), f64)


def _partial(e: Emitter, block: Int, column: Int) -> Any:
    return e.pointer("partial", f64).at(block * e.field("channels") * 2 + column)


_STEPS = {
    "moments": (_MOMENTS, _emit_moments),
    "finish": (_FINISH, _emit_finish),
    "apply": (_APPLY, _emit_apply),
    "slopes": (_SLOPES, _emit_slopes),
    "finish_slopes": (_FINISH_SLOPES, _emit_finish_slopes),
    "descend": (_DESCEND, _emit_descend),
}


@lru_cache(maxsize=64)
def _kernel(step: str, vectors: int = 1, activation: str = "") -> Kernel:
    fields, emit = _STEPS[step]
    return Kernel(f"batch_norm_{step}", fields, Schedule(step, vectors, activation), emit)


@lru_cache(maxsize=512)
def _plan(shape: tuple[int, ...]) -> tuple[int, int, int, int, int, int]:
    """(rows, channels, rows of a block, blocks, vectors, chunks of the finish) for x of this shape."""
    channels = shape[1]
    rows = int(np.prod(shape)) // channels
    block_rows = block_rows_for(channels)
    blocks = -(-rows // block_rows)
    return rows, channels, block_rows, blocks, flat.vectors_for(channels, VECTORS), -(-channels // FINISH_COLUMNS)


# --- the engine's functions -----------------------------------------------------------------------------------------


def refuse_batch_forward(
    x: Array, weight: Array | None, bias: Array | None, eps: float, activation: str = ""
) -> str | None:
    """The reason against, or None."""
    return refuse(x, weight, bias)


def batch_forward(
    x: Array, weight: Array | None, bias: Array | None, eps: float, activation: str = ""
) -> tuple[Array, Array, Array]:
    """As `reference.norm.batch_forward`."""
    x = layout.channels_last(x)
    rows, channels, block_rows, blocks, vectors, finish_chunks = _plan(x.shape)
    mean, var = np.empty(channels, np.float32), np.empty(channels, np.float32)
    partial = np.empty((blocks, 2, channels))
    _kernel("moments", vectors).launch(blocks, address(x), address(partial), rows, channels, block_rows)
    results: tuple[Array, ...] = (partial, mean, var)
    _kernel("finish").launch(finish_chunks, *map(address, results), rows, channels, block_rows, blocks)
    return batch_inference(x, mean, var, weight, bias, eps, activation), mean, var


def refuse_batch_inference(
    x: Array, mean: Array, var: Array, weight: Array | None, bias: Array | None, eps: float, activation: str = ""
) -> str | None:
    """The reason against, or None."""
    return refuse(x, mean, var, weight, bias)


def batch_inference(
    x: Array, mean: Array, var: Array, weight: Array | None, bias: Array | None, eps: float, activation: str = ""
) -> Array:
    """As `reference.norm.batch_inference`."""
    x = layout.channels_last(x)
    rows, channels, block_rows, blocks, vectors, _ = _plan(x.shape)
    y = flat.like(x)
    arrays: tuple[Array, ...] = (x, y, mean, var, *affine(weight, bias, channels))
    _kernel("apply", vectors, activation).launch(blocks, *map(address, arrays), bits(eps), rows, channels, block_rows)
    return y


def refuse_batch_backward(
    gy: Array,
    x: Array,
    mean: Array,
    var: Array,
    weight: Array | None,
    eps: float,
    bias: Array | None = None,
    activation: str = "",
) -> str | None:
    """The reason against, or None."""
    if activation and activation not in DIFFERENTIABLE:
        return f"no derivative of {activation} from the result's sign"
    return refuse(gy) or refuse(x, mean, var, weight, bias)


def batch_backward(
    gy: Array,
    x: Array,
    mean: Array,
    var: Array,
    weight: Array | None,
    eps: float,
    bias: Array | None = None,
    activation: str = "",
) -> tuple[Array, Array, Array]:
    """As `reference.norm.batch_backward`."""
    x, gy = layout.channels_last(x), layout.channels_last(gy)
    rows, channels, block_rows, blocks, vectors, finish_chunks = _plan(x.shape)
    weight, bias = affine(weight, bias, channels)
    gweight, gbias, per_gy, per_x = (np.empty(channels, np.float32) for _ in range(4))
    partial, gx = np.empty((blocks, 2, channels)), flat.like(x)
    tail = (bits(eps), rows, channels, block_rows)
    _kernel("slopes", vectors, activation).launch(
        blocks, *map(address, (x, gy, partial, mean, var, weight, bias)), *tail
    )
    finish = _kernel("finish_slopes")
    totals = (partial, var, gweight, gbias, per_gy, per_x)
    finish.launch(finish_chunks, *map(address, totals), bits(eps), rows, channels, blocks)
    arrays = (x, gy, gx, mean, var, weight, bias, per_gy, per_x)
    _kernel("descend", vectors, activation).launch(blocks, *map(address, arrays), *tail)
    return gx, gweight, gbias
