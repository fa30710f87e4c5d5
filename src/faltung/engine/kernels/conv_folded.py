"""First layers at stride 2 through Winograd: each 2 x 2 block of pixels becomes one pixel of four times the channels.

    folded[i][j][a][b][c] = x[2 i + a][2 j + b][c], zeros beyond the input

Over the folded image the convolution has stride 1 and half as many taps a side, rounded up. A 7x7 kernel over 3
channels is a 4x4 kernel over 12: for 9 outputs, F(3, 4) multiplies 36 * 12 times, direct convolution 9 * 147 times. So
few channels make transforms dear, so that `refuse_forward` compares estimates.

    chunk: a row of the folded image
      for input row a of its two:
        for pixel pair: copy 2 C floats                       rows of planes are interleaved in scratch memory first

Bound by memory: the image is read and written once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from faltung.engine import layout, memory, team
from faltung.engine.emit import Emitter, Int, Ptr
from faltung.engine.epilogue import Epilogue
from faltung.engine.flags import flags
from faltung.engine.geometry import ConvGeometry
from faltung.engine.kernel import Kernel, address
from faltung.engine.kernels import conv_dense_winograd
from faltung.engine.kernels import epilogue as epilogues
from faltung.engine.kernels.conv_dense import refuse
from faltung.engine.kernels.conv_problem import Problem, forward_problem, three
from faltung.engine.kernels.group_rows import pieces
from faltung.engine.kernels.rows import MOST_PLANES, copy_planes
from faltung.engine.target import Target, host

FIELDS = "x folded scratch scratch_floats height width x_n x_c x_h"

Cache = dict[Any, Any] | None


@dataclass(frozen=True, slots=True)
class Schedule:
    """What shapes the code."""

    channels: int
    planar: bool  # each channel lies in a plane of its own


def refuse_forward(
    geometry: ConvGeometry, x: np.ndarray, w: np.ndarray, bias: np.ndarray | None, *, cache: Cache = None, **_: Any
) -> str | None:
    """Why folding does not fit, or None."""
    if not flags.winograd or flags.deterministic:
        return "Winograd is switched off"
    return refuse(geometry, x, w) or _refuse(geometry, cache is not None, host())


@lru_cache(maxsize=4096)
def _refuse(g: ConvGeometry, weights_are_kept: bool, target: Target) -> str | None:
    if g.ndim != 2 or g.stride != (2, 2) or g.dilation != (1, 1) or g.kernel[0] != g.kernel[1]:
        return "not a square kernel at stride 2"
    if g.groups != 1 or g.in_channels > MOST_PLANES:
        return f"{g.in_channels} channels in {g.groups} groups, not a first layer"
    problem = folded_problem(g)
    if problem.taps[1] != problem.taps[2] or problem.taps[2] not in conv_dense_winograd.OUTPUTS:
        return f"{problem.taps[1]}x{problem.taps[2]} taps over the folded image"
    direct = conv_dense_winograd.direct_cycles(forward_problem(g), weights_are_kept, target)
    m = conv_dense_winograd.outputs_for(problem, weights_are_kept, target)
    folding = 4.0 * g.batch * g.input[0] * g.input[1]
    if m == 0 or conv_dense_winograd.cycles(problem, m, weights_are_kept, target) + folding > direct:
        return "direct convolution is estimated faster"
    return None


@lru_cache(maxsize=1024)
def folded_problem(g: ConvGeometry) -> Problem:
    """The convolution over the folded image."""
    before = tuple(pair[0] for pair in g.padding)
    taps = tuple((k + p % 2 + 1) // 2 for k, p in zip(g.kernel, before, strict=True))
    half = tuple((size + 1) // 2 for size in g.input)
    return Problem(
        batch=g.batch,
        groups=1,
        channels=4 * g.in_channels,
        out_channels=g.out_channels,
        input=three(half),
        output=three(g.output),
        taps=three(taps),
        stride=(1, 1, 1),
        dilation=(1, 1, 1),
        before=three(tuple((p + 1) // 2 for p in before), 0),
        tap_index=((0,), tuple(range(taps[0])), tuple(range(taps[1]))),
    )


def forward(
    geometry: ConvGeometry,
    x: np.ndarray,
    w: np.ndarray,
    bias: np.ndarray | None,
    *,
    cache: Cache = None,
    epilogue: Epilogue | None = None,
) -> np.ndarray:
    """y = conv(x, w) + bias, then the epilogue, physically channels last."""
    y = memory.empty_channels_last(geometry.output_shape)
    # a cache of their own: where taps lie in their blocks, and so the transforms, depends on the padding
    kept = None if cache is None else cache.setdefault(("folded", geometry.padding), {})
    weights = kept.get("weights") if kept is not None else None
    if weights is None:
        weights = fold_weights(geometry, w)
        if kept is not None:
            kept["weights"] = weights
    problem, finish = folded_problem(geometry), epilogues.channels_last(epilogue)
    conv_dense_winograd.run(problem, fold(x), weights, bias, y, kept, "forward", finish)
    return y


def fold_weights(g: ConvGeometry, w: np.ndarray) -> np.ndarray:
    """(O, C, k, k) -> (O, 4 C, r, r), taps of even and odd pixels apart."""
    _, rows, columns = folded_problem(g).taps
    lead = [pair[0] % 2 for pair in g.padding]
    full = np.zeros((*w.shape[:2], 2 * rows, 2 * columns), np.float32)
    full[:, :, lead[0] : lead[0] + g.kernel[0], lead[1] : lead[1] + g.kernel[1]] = w
    apart = full.reshape(*w.shape[:2], rows, 2, columns, 2)  # O, C, r, a, r, b
    return np.ascontiguousarray(apart.transpose(0, 3, 5, 1, 2, 4)).reshape(w.shape[0], -1, rows, columns)


def fold(x: np.ndarray) -> np.ndarray:
    """(N, C, H, W) -> (N, 4 C, H / 2, W / 2), physically channels last."""
    batch, channels, height, width = x.shape
    together = channels == 1 or x.strides[1] == 4
    planar = x.strides[3] == 4 and not together
    if not planar and not (together and x.strides[3] == 4 * channels):
        x = layout.channels_last(x)
    half_h, half_w = (height + 1) // 2, (width + 1) // 2
    folded = memory.empty((batch, half_h, half_w, 4 * channels))
    floats = -(-width * channels // 16) * 16 if planar else 0
    _scratch, scratch = team.scratch(floats) if planar else (None, 0)
    n, c, h, _ = (stride // 4 for stride in x.strides)
    _kernel(Schedule(channels, planar)).launch(
        batch * half_h, address(x), address(folded), scratch, floats, height, width, n, c, h
    )
    return folded.transpose(0, 3, 1, 2)


@lru_cache(maxsize=16)
def _kernel(schedule: Schedule) -> Kernel:
    return Kernel("conv_fold", FIELDS, schedule, emit)


def emit(e: Emitter, s: Schedule) -> None:
    """One row of the folded image."""
    height, width, x_n, x_c, x_h, floats = e.fields("height width x_n x_c x_h scratch_floats")
    half_h, half_w = (height + 1) >> 1, (width + 1) >> 1
    image, row = e.chunk // half_h, e.chunk % half_h
    to = e.pointer("folded").at(e.chunk * half_w * (4 * s.channels))
    for a in range(2):
        line = row * 2 + a
        part = to.at(2 * s.channels * a)
        with e.either(line < height) as (exists, beyond):
            with exists:
                source = e.pointer("x").at(image * x_n + line * x_h)
                if s.planar:
                    room = e.pointer("scratch").at(e.thread * floats)
                    copy_planes(e, source, room, width, s.channels, x_c)
                    source = room
                _pairs(e, source, part, width, s.channels)
            with beyond, e.loop("zero", half_w) as pair:
                _copy(e, None, part.at(pair.index * (4 * s.channels)), 2 * s.channels)


def _pairs(e: Emitter, source: Ptr, to: Ptr, width: Int, channels: int) -> None:
    """Pixels two by two; a last one alone gets zeros beside it."""
    with e.loop("pair", width >> 1) as pair:
        here = source.at(pair.index * (2 * channels))
        _copy(e, here, to.at(pair.index * (4 * channels)), 2 * channels)
    with e.when((width & 1).differs(0)):
        last = width >> 1
        end = to.at(last * (4 * channels))
        _copy(e, source.at(last * (2 * channels)), end, channels)
        _copy(e, None, end.at(channels), channels)


def _copy(e: Emitter, source: Ptr | None, to: Ptr, floats: int) -> None:
    """A few floats, or zeros."""
    for start, size in pieces(floats, e.lanes):
        to.at(start).store(e.zero(size) if source is None else source.at(start).load(size))
