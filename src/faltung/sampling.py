"""Random numbers in NumPy arrays, drawn from a `Generator` by PyTorch's rules, number for number.

`fill_*(out, ...)` overwrite an array; `uniform`, `normal`, `integers`, `bernoulli` and `permutation` return a new one.
w is a 32-bit word of the stream, d a 64-bit draw made of two words, the first one high.

Equal to the bit: uniform, integers, permutation, bernoulli. Equal to the last place or two, because the C library's and
NumPy's log, cos and exp differ there: normal, exponential, log_normal, cauchy.
(On Intel CPUs PyTorch takes `bernoulli_(p)` and `exponential_` from MKL's generator instead; here they are as on every
other CPU.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from faltung import engine
from faltung.engine.reference.random import below
from faltung.random import Generator, choose

__all__ = [
    "bernoulli",
    "fill_bernoulli",
    "fill_cauchy",
    "fill_exponential",
    "fill_geometric",
    "fill_integers",
    "fill_log_normal",
    "fill_normal",
    "fill_random",
    "fill_uniform",
    "integers",
    "multinomial",
    "normal",
    "permutation",
    "uniform",
]

_CHUNK = 1 << 16  # elements drawn at a time: words, temporaries and result stay in the second-level cache
_BULK = 1 << 14  # draws from which on the generated code compares
_BLOCK = 16  # normals are made in blocks of 16: eight radii, eight angles
_WIDE_SPAN = 1 << 28  # from this span on, an integer takes a 64-bit draw
_LARGE_PERMUTATION = (2**32 - 1) // 20

Shape = int | Sequence[int]
Draw = Callable[[Generator, int], np.ndarray]


# --- the stream as numbers ------------------------------------------------------------------------------------------


def _unit_floats(generator: Generator, count: int) -> np.ndarray:
    """(w & (2^24-1)) * 2^-24, float32."""
    values = _low_bits(generator, count).astype(np.float32)
    values *= np.float32(2.0**-24)
    return values


def _low_bits(generator: Generator, count: int) -> np.ndarray:
    """w & (2^24-1), int32."""
    words = generator.words(count)
    words &= np.uint32(2**24 - 1)
    return words.view(np.int32)


def _wide_words(generator: Generator, count: int) -> np.ndarray:
    """64-bit draws, uint64."""
    pairs = generator.words(2 * count).reshape(count, 2)
    wide = pairs[:, 0].astype(np.uint64)
    wide <<= np.uint64(32)
    wide |= pairs[:, 1]
    return wide


def _unit_doubles(generator: Generator, count: int) -> np.ndarray:
    """(d & (2^53-1)) * 2^-53, float64."""
    wide = _wide_words(generator, count)
    wide &= np.uint64(2**53 - 1)
    values = wide.view(np.int64).astype(np.float64)
    values *= 2.0**-53
    return values


# --- where the numbers go -------------------------------------------------------------------------------------------


def _in_logical_order(out: np.ndarray) -> bool:
    """Contiguous, or physically channels last (the engine's own choice, which no user made)."""
    return out.flags.c_contiguous or (out.ndim >= 3 and np.moveaxis(out, 1, -1).flags.c_contiguous)


def _drawing_order(out: np.ndarray) -> np.ndarray:
    """A view of `out` whose dimensions run in the order of PyTorch's serial kernels: largest stride first."""
    if _in_logical_order(out):
        return out
    return out.transpose(sorted(range(out.ndim), key=lambda axis: -abs(out.strides[axis])))


def _fill(out: np.ndarray, generator: Generator | None, draw: Draw) -> np.ndarray:
    """Overwrite `out`, chunk by chunk, with what `draw(generator, count)` returns."""
    generator = choose(generator)
    view = _drawing_order(out)
    direct = view.flags.c_contiguous
    flat = view.reshape(-1) if direct else np.empty(view.size, dtype=out.dtype)
    with generator:
        for start in range(0, flat.size, _CHUNK):
            stop = min(start + _CHUNK, flat.size)
            flat[start:stop] = draw(generator, stop - start)
    if not direct:
        view[...] = flat.reshape(view.shape)
    return out


def _real_parts(out: np.ndarray) -> np.ndarray:
    """A complex array as pairs of reals, (..., 2)."""
    part = np.float32 if out.dtype == np.complex64 else np.float64
    if out.flags.c_contiguous:
        return out.reshape(*out.shape, 1).view(part)
    parts = np.lib.stride_tricks.as_strided(
        out.real, (*out.shape, 2), (*out.strides, out.itemsize // 2), writeable=True
    )
    return parts


# --- continuous distributions ---------------------------------------------------------------------------------------


def fill_uniform(
    out: np.ndarray, low: float = 0.0, high: float = 1.0, generator: Generator | None = None
) -> np.ndarray:
    """Overwrite a floating point array with numbers from [low, high); complex ones get both parts."""
    if out.dtype.kind == "c":
        fill_uniform(_real_parts(out), low, high, generator)
        return out
    if low == 0 and high == 1:
        plain = _unit_doubles if out.dtype == np.float64 else _unit_floats
        if out.dtype.itemsize >= 4:
            return _fill(out, generator, plain)

    work = np.float64 if out.dtype == np.float64 else np.float32
    span = float(work(high) - work(low))
    start = float(work(low))
    first, last = out.dtype.type(low), out.dtype.type(high)

    def draw(stream: Generator, count: int) -> np.ndarray:
        if work is np.float64:
            values = _unit_doubles(stream, count) * span + start
        else:  # one rounding, as a fused multiply-add makes it: products of two float32 are exact in float64
            wide = _low_bits(stream, count).astype(np.float64)
            wide *= span * 2.0**-24
            wide += start
            values = wide.astype(np.float32)
        values = values.astype(out.dtype, copy=False)
        values[values == last] = first
        return values

    return _fill(out, generator, draw)


def _box_muller(radius_source: np.ndarray, angle_source: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """r cos t and r sin t for r = sqrt(-2 ln(1 - u1)), t = 2 pi u2, in the precision of the sources."""
    kind = radius_source.dtype.type
    radius = np.sqrt(kind(-2) * np.log(kind(1) - radius_source))
    angle = kind(2 * math.pi) * angle_source
    return radius * np.cos(angle), radius * np.sin(angle)


def _normal_blocks(uniforms: np.ndarray, mean: float, std: float) -> np.ndarray:
    """Normals from uniforms, both (16 n,), in blocks of 16."""
    blocks = uniforms.reshape(-1, 2, _BLOCK // 2)
    first, second = _box_muller(blocks[:, 0], blocks[:, 1])
    values = np.stack((first, second), axis=1).reshape(-1)
    if std == 1 and mean == 0:
        return values
    kind = values.dtype.type  # one rounding, as a fused multiply-add makes it
    return (values.astype(np.float64) * float(kind(std)) + float(kind(mean))).astype(kind)


def _normal_pairs(uniforms: np.ndarray) -> np.ndarray:
    """Normals in float64 from uniforms u1, u2, u1, u2, ...: r cos t, r sin t, r cos t, ..."""
    if uniforms.size <= 2 * _BLOCK:  # the C library's functions, as PyTorch calls them: the same last place
        values = []
        for u1, u2 in uniforms.reshape(-1, 2).tolist():
            radius, angle = math.sqrt(-2.0 * math.log1p(-u2)), 2.0 * math.pi * u1
            values += [radius * math.cos(angle), radius * math.sin(angle)]
        return np.array(values)
    radius = np.sqrt(-2.0 * np.log1p(-uniforms[1::2]))
    angle = 2.0 * math.pi * uniforms[0::2]
    return np.stack((radius * np.cos(angle), radius * np.sin(angle)), axis=1).reshape(-1)


def _serial_normals(generator: Generator, count: int) -> np.ndarray:
    """Standard normals one after the other in float64, in pairs, the odd one kept for the next call."""
    values = np.empty(count)
    if not count:
        return values
    kept = generator.take_normal()
    done = 0
    if kept is not None:
        values[0], done = kept, 1
    pairs = (count - done + 1) // 2
    fresh = _normal_pairs(_unit_doubles(generator, 2 * pairs))
    values[done:] = fresh[: count - done]
    if (count - done) % 2:
        generator.keep_normal(float(fresh[-1]))
    return values


def fill_normal(out: np.ndarray, mean: float = 0.0, std: float = 1.0, generator: Generator | None = None) -> np.ndarray:
    """Overwrite a floating point array with normal numbers; a complex one gets std/sqrt(2) in each part."""
    generator = choose(generator)
    if out.dtype.kind == "c":
        fill_normal(_real_parts(out), mean, std / math.sqrt(2), generator)
        return out
    if out.size < _BLOCK or not _in_logical_order(out):
        return _fill(out, generator, lambda stream, count: _serial_normals(stream, count) * std + mean)

    uniforms = _unit_doubles if out.dtype == np.float64 else _unit_floats
    flat = out.reshape(-1) if out.flags.c_contiguous else np.empty(out.size, dtype=out.dtype)
    whole = out.size - out.size % _BLOCK
    with generator:
        for start in range(0, whole, _CHUNK):
            stop = min(start + _CHUNK, whole)
            flat[start:stop] = _normal_blocks(uniforms(generator, stop - start), mean, std)
        if whole < out.size:
            if out.dtype.itemsize >= 4:
                uniforms(generator, out.size - whole)  # PyTorch draws these before it replaces the last 16
            flat[-_BLOCK:] = _normal_blocks(uniforms(generator, _BLOCK), mean, std)
    if not out.flags.c_contiguous:
        out[...] = flat.reshape(out.shape)
    return out


def fill_exponential(out: np.ndarray, rate: float = 1.0, generator: Generator | None = None) -> np.ndarray:
    """Overwrite with -ln(1 - u) / rate."""
    return _fill(out, generator, lambda stream, count: -1.0 / rate * np.log1p(-_unit_doubles(stream, count)))


def fill_log_normal(
    out: np.ndarray, mean: float = 1.0, std: float = 2.0, generator: Generator | None = None
) -> np.ndarray:
    """Overwrite with exp(normal(mean, std))."""
    return _fill(out, generator, lambda stream, count: np.exp(_serial_normals(stream, count) * std + mean))


def fill_cauchy(
    out: np.ndarray, median: float = 0.0, sigma: float = 1.0, generator: Generator | None = None
) -> np.ndarray:
    """Overwrite with median + sigma tan(pi (u - 1/2))."""
    return _fill(
        out, generator, lambda stream, count: median + sigma * np.tan(math.pi * (_unit_doubles(stream, count) - 0.5))
    )


# --- discrete distributions -----------------------------------------------------------------------------------------


def fill_geometric(out: np.ndarray, p: float, generator: Generator | None = None) -> np.ndarray:
    """Overwrite with the number of trials up to the first success of probability `p`: ceil(ln u / ln(1 - p))."""

    def draw(stream: Generator, count: int) -> np.ndarray:
        with np.errstate(divide="ignore"):
            return np.ceil(np.log(_unit_doubles(stream, count)) / math.log1p(-p))

    return _fill(out, generator, draw)


def fill_bernoulli(out: np.ndarray, p: float | np.ndarray, generator: Generator | None = None) -> np.ndarray:
    """Overwrite with 1 where a draw falls below `p` and 0 elsewhere.

    A number, or a float64 array, is compared with a double per element; a float32 or float16 array with a float32.
    """
    if isinstance(p, np.ndarray):
        return _fill_bernoulli_array(out, p, generator)
    threshold = math.ceil(p * 2**53)  # d < p, decided on the integers

    def draw(stream: Generator, count: int) -> np.ndarray:
        words = stream.words(2 * count)
        if count < _BULK:
            return below(words, threshold)
        return engine.call("random.below", words, threshold)

    return _fill(out, generator, draw)


def _fill_bernoulli_array(out: np.ndarray, p: np.ndarray, generator: Generator | None) -> np.ndarray:
    generator = choose(generator)
    view = _drawing_order(out)
    axes = sorted(range(out.ndim), key=lambda axis: -abs(out.strides[axis])) if view is not out else range(out.ndim)
    p = np.broadcast_to(p, out.shape).transpose(tuple(axes))
    uniforms = _unit_doubles if p.dtype == np.float64 else _unit_floats
    with generator:
        view[...] = uniforms(generator, view.size).reshape(view.shape) < p
    return out


def _remainder(values: np.ndarray, span: int) -> np.ndarray:
    """values % span, in place. NumPy divides by a scalar in vector code, but takes remainders one at a time."""
    divisor = values.dtype.type(span)
    values -= values // divisor * divisor
    return values


def fill_integers(out: np.ndarray, low: int, high: int, generator: Generator | None = None) -> np.ndarray:
    """Overwrite with integers from [low, high), -2**63 <= low < high <= 2**63; any dtype."""
    span = high - low
    base = np.int64(low if span < 2**64 else 0)  # all 64 bits: the draw is the number

    def draw(stream: Generator, count: int) -> np.ndarray:
        if span < _WIDE_SPAN:
            values = _remainder(stream.words(count), span).astype(np.int64)
        else:
            wide = _wide_words(stream, count)
            values = (wide if span >= 2**64 else _remainder(wide, span)).view(np.int64)
        values += base
        return values

    return _fill(out, generator, draw)


def fill_random(out: np.ndarray, generator: Generator | None = None) -> np.ndarray:
    """Overwrite with integers from all that the dtype holds exactly: [0, max], or [0, 2**digits] for floats."""
    if out.dtype.kind == "f":
        spread = 2 ** (np.finfo(out.dtype).nmant + 1) + 1
    elif out.dtype.kind == "b":
        spread = 2
    else:
        spread = int(np.iinfo(out.dtype).max) + 1
    wide = out.dtype in (np.float64, np.int64)
    source: Draw = _wide_words if wide else Generator.words
    return _fill(out, generator, lambda stream, count: _remainder(source(stream, count), spread))


def permutation(n: int, dtype: np.dtype | type = np.int64, generator: Generator | None = None) -> np.ndarray:
    """The numbers 0 to n-1 in random order, by the Fisher-Yates shuffle."""
    generator = choose(generator)
    if n >= _LARGE_PERMUTATION:
        return _large_permutation(n, dtype, generator)
    if n < 2:
        return np.arange(n, dtype=dtype)
    positions = np.arange(n - 1)
    partners = (generator.words(n - 1) % (n - positions) + positions).tolist()
    order = list(range(n))
    for i, j in enumerate(partners):
        order[i], order[j] = order[j], order[i]
    return np.array(order, dtype=dtype)


def _large_permutation(n: int, dtype: np.dtype | type, generator: Generator) -> np.ndarray:
    """The shuffle that fills as it goes, with a 64-bit draw for each of so many positions."""
    order = np.empty(n, dtype=dtype)
    with generator:
        for start in range(0, n, _CHUNK):
            positions = np.arange(start, min(start + _CHUNK, n), dtype=np.uint64)
            partners = _wide_words(generator, positions.size) % (positions + np.uint64(1))
            for i, j in enumerate(partners.tolist(), start):
                order[i] = order[j]
                order[j] = i
    return order


def multinomial(
    probabilities: np.ndarray, count: int, replacement: bool = False, generator: Generator | None = None
) -> np.ndarray:
    """Indices drawn in proportion to the rows of `probabilities`, (categories,) or (rows, categories) -> int64."""
    generator = choose(generator)
    if not replacement or count == 1:
        noise = fill_exponential(np.empty(probabilities.shape, dtype=probabilities.dtype), 1.0, generator)
        with np.errstate(divide="ignore", invalid="ignore"):
            scores = probabilities / noise
        if count == 1:
            return scores.argmax(axis=-1, keepdims=True)
        return np.argsort(-scores, axis=-1, kind="stable")[..., :count]
    rows = probabilities.reshape(-1, probabilities.shape[-1])
    result = np.empty((len(rows), count), dtype=np.int64)
    with generator:
        for row, drawn in zip(rows, result, strict=True):
            cumulative = np.cumsum(row, dtype=row.dtype)
            cumulative /= cumulative[-1]
            cumulative[-1] = 1
            drawn[...] = np.searchsorted(cumulative.astype(np.float64), _unit_doubles(generator, count), side="left")
    return result.reshape(*probabilities.shape[:-1], count)


# --- new arrays -----------------------------------------------------------------------------------------------------


def uniform(
    shape: Shape,
    low: float = 0.0,
    high: float = 1.0,
    dtype: np.dtype | type = np.float32,
    generator: Generator | None = None,
) -> np.ndarray:
    """A new array of uniform numbers from [low, high)."""
    return fill_uniform(np.empty(shape, dtype=dtype), low, high, generator)


def normal(
    shape: Shape,
    mean: float = 0.0,
    std: float = 1.0,
    dtype: np.dtype | type = np.float32,
    generator: Generator | None = None,
) -> np.ndarray:
    """A new array of normal numbers."""
    return fill_normal(np.empty(shape, dtype=dtype), mean, std, generator)


def integers(
    shape: Shape, low: int, high: int, dtype: np.dtype | type = np.int64, generator: Generator | None = None
) -> np.ndarray:
    """A new array of integers from [low, high)."""
    return fill_integers(np.empty(shape, dtype=dtype), low, high, generator)


def bernoulli(
    shape: Shape, p: float | np.ndarray, dtype: np.dtype | type = np.bool_, generator: Generator | None = None
) -> np.ndarray:
    """A new array, in logical order, that is 1 (True) with probability `p`."""
    return fill_bernoulli(np.empty(shape, dtype=dtype), p, generator)
