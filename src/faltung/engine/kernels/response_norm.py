"""Local response norm: every channel of a pixel over a power of the squares of its neighbours.

    for pixels in chunks:                                            # threads
        squares = x^2, between margins of zeros                      # the thread's scratch; each pass: whole vectors,
        d = k + alpha / size * sum of squares[c + j], j < size       # then a masked one
        y = x * d^-beta
    backward
        gx = gy * d^-beta; shares = gy * x * d^-(beta + 1), between margins
        gx -= 2 alpha beta / size * x * sum of shares[c + j], j < size

The window is unrolled: neighbours are unaligned loads around a vector. A power is exp(-beta log d). Nothing is kept for
backward, where d costs less to compute than to read. Registers: a handful beside the constants of exp and log. Pixels
are channels last; other inputs are copied into that order first.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from faltung.engine import layout, team
from faltung.engine.emit import Emitter, Int, Ptr, Vec
from faltung.engine.kernel import Kernel, address, bits
from faltung.engine.kernels import elementary, flat, rows

BLOCK_ELEMENTS = flat.BLOCK  # of whole pixels in one chunk
WIDEST = 32  # channels of a window that is unrolled

FIELDS = "x gy result scratch alpha beta k factor pixels channels block_pixels line_floats"
Array = np.ndarray


@dataclass(frozen=True)
class Schedule:
    """What shapes the code of one kernel."""

    function: str  # forward or backward
    size: int  # channels of a window: size // 2 before the middle, the rest from it on


def emit(e: Emitter, s: Schedule) -> None:
    """One chunk: a block of pixels."""
    channels, block_pixels, line_floats = e.fields("channels block_pixels line_floats")
    squares = e.pointer("scratch").at(e.thread * line_floats * 2)
    shares = squares.at(line_floats)
    rows.fill(e, squares, line_floats * 2)
    start = e.chunk * block_pixels
    with e.loop("pixel", e.smaller(start + block_pixels, e.field("pixels")), start=start) as pixel:
        x, gy, result = (e.pointer(name).at(pixel.index * channels) for name in ("x", "gy", "result"))
        _square(e, x, squares.at(s.size // 2))
        if s.function == "forward":
            _divide(e, s, x, squares, result)
        else:
            _share(e, s, x, gy, squares, shares.at((s.size - 1) // 2), result)
            _gather(e, s, x, shares, result)


def _square(e: Emitter, x: Ptr, to: Ptr) -> None:
    def body(at: Int, lanes: int, mask: Any) -> None:
        value = flat.load(x.at(at), lanes, mask)
        flat.store(to.at(at), value * value, mask)

    flat.over_range(e, e.int(0), e.field("channels"), 1, body)


def _window(s: Schedule, line: Ptr, at: Int, lanes: int, mask: Any) -> Vec:
    """The sum of `size` neighbours; `line` starts with the first channel's."""
    total = flat.load(line.at(at), lanes, mask)
    for j in range(1, s.size):
        total = total + flat.load(line.at(at + j), lanes, mask)
    return total


def _divisor(e: Emitter, s: Schedule, squares: Ptr, at: Int, lanes: int, mask: Any) -> tuple[Vec, Vec]:
    """d, and d^-beta."""
    alpha, beta, k = (e.splat(e.number(name), lanes) for name in ("alpha", "beta", "k"))
    divisor = e.fma(_window(s, squares, at, lanes, mask), alpha, k)
    return divisor, elementary.exp(e, -(beta * elementary.log(e, divisor)))


def _divide(e: Emitter, s: Schedule, x: Ptr, squares: Ptr, y: Ptr) -> None:
    def body(at: Int, lanes: int, mask: Any) -> None:
        _, power = _divisor(e, s, squares, at, lanes, mask)
        flat.store(y.at(at), flat.load(x.at(at), lanes, mask) * power, mask)

    flat.over_range(e, e.int(0), e.field("channels"), 1, body)


def _share(e: Emitter, s: Schedule, x: Ptr, gy: Ptr, squares: Ptr, shares: Ptr, gx: Ptr) -> None:
    def body(at: Int, lanes: int, mask: Any) -> None:
        divisor, power = _divisor(e, s, squares, at, lanes, mask)
        gradient = flat.load(gy.at(at), lanes, mask) * power
        flat.store(gx.at(at), gradient, mask)
        flat.store(shares.at(at), gradient * flat.load(x.at(at), lanes, mask) / divisor, mask)

    flat.over_range(e, e.int(0), e.field("channels"), 1, body)


def _gather(e: Emitter, s: Schedule, x: Ptr, shares: Ptr, gx: Ptr) -> None:
    def body(at: Int, lanes: int, mask: Any) -> None:
        through = _window(s, shares, at, lanes, mask) * e.splat(e.number("factor"), lanes)
        value = e.fma(-flat.load(x.at(at), lanes, mask), through, flat.load(gx.at(at), lanes, mask))
        flat.store(gx.at(at), value, mask)

    flat.over_range(e, e.int(0), e.field("channels"), 1, body)


# --- the engine's functions -------------------------------------------------------------------------------------------


@lru_cache(maxsize=16)
def _kernel(function: str, size: int) -> Kernel:
    return Kernel(f"response_norm_{function}", FIELDS, Schedule(function, size), emit)


def _launch(function: str, x: Array, gy: Array, size: int, alpha: float, beta: float, k: float) -> Array:
    result, channels = flat.like(x), x.shape[1]
    pixels, block_pixels = x.size // channels, max(1, BLOCK_ELEMENTS // channels)
    line_floats = -(-(channels + size) // 16) * 16
    _scratch, start = team.scratch(2 * line_floats)
    numbers = map(bits, (alpha / size, beta, k, 2 * alpha * beta / size))
    _kernel(function, size).launch(
        -(-pixels // block_pixels), address(x), address(gy), address(result), start, *numbers, pixels, channels,
        block_pixels, line_floats,
    )  # fmt: skip
    return result


def _refuse(x: Array, size: int, alpha: float, beta: float, k: float) -> str | None:
    if x.dtype != flat.FLOAT:
        return f"only float32 is generated, not {x.dtype}"
    if x.ndim < 2 or x.size == 0:
        return f"nothing to normalise in {x.shape}"
    if size > WIDEST:
        return f"windows of {size} channels, more than {WIDEST}"
    if alpha < 0 or k < 0:
        return "a negative alpha or k, of which there is no logarithm"
    return "beta is 0: the power is 1, even of zero and infinity" if beta == 0 else None


def refuse_response_forward(x: Array, size: int, alpha: float, beta: float, k: float) -> str | None:
    """The reason against, or None."""
    return _refuse(x, size, alpha, beta, k)


def response_forward(x: Array, size: int, alpha: float, beta: float, k: float) -> Array:
    """As `reference.norm.response_forward`."""
    x = layout.channels_last(x)
    return _launch("forward", x, x, size, alpha, beta, k)


def refuse_response_backward(gy: Array, x: Array, size: int, alpha: float, beta: float, k: float) -> str | None:
    """The reason against, or None."""
    return _refuse(gy, size, alpha, beta, k) or _refuse(x, size, alpha, beta, k)


def response_backward(gy: Array, x: Array, size: int, alpha: float, beta: float, k: float) -> Array:
    """As `reference.norm.response_backward`."""
    return _launch("backward", layout.channels_last(x), layout.channels_last(gy), size, alpha, beta, k)
