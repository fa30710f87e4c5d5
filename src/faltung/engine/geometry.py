"""Canonical sizes of convolutions and poolings.

After `ConvGeometry.of(...)` nobody sees `3` versus `(3, 3)` versus `"same"`: kernels, caches, error messages, test ids
and benchmarks all speak these two frozen records. They check nothing; the functional floor has checked.

Letters: N batch, C channels, I / O in and out channels, G groups, D the number of spatial dimensions (1 to 3).
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import lru_cache
from math import prod
from typing import Any

Ints = tuple[int, ...]
Pairs = tuple[tuple[int, int], ...]
_CACHE_SIZE = 4096


def _per_dimension(value: int | Ints, ndim: int) -> Ints:
    """`3` or `(3,)` -> `(3, 3)`; a full tuple stays."""
    if isinstance(value, int):
        return (value,) * ndim
    return tuple(value) * ndim if len(value) == 1 else tuple(value)


def same_padding(kernel: Ints, dilation: Ints) -> Pairs:
    """Zeros before and after each dimension for which a stride-1 convolution keeps the size; an odd one goes after."""
    totals = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    return tuple((total // 2, total - total // 2) for total in totals)


def _pairs(padding: str | int | tuple[int, ...] | Pairs, kernel: Ints, dilation: Ints) -> Pairs:
    ndim = len(kernel)
    if padding == "same":
        return same_padding(kernel, dilation)
    if padding == "valid":
        return ((0, 0),) * ndim
    if isinstance(padding, int):
        return ((padding, padding),) * ndim
    sides: list[Any] = list(padding) * (ndim if len(padding) == 1 else 1)
    return tuple((p, p) if isinstance(p, int) else (p[0], p[1]) for p in sides)


def conv_output_size(size: int, kernel: int, stride: int, dilation: int, padding: tuple[int, int]) -> int:
    """Number of positions of the dilated kernel on `size` samples plus padding; at most 0 where it does not fit."""
    return (size + padding[0] + padding[1] - dilation * (kernel - 1) - 1) // stride + 1


def pool_output_size(size: int, kernel: int, stride: int, dilation: int, padding: tuple[int, int], ceil: bool) -> int:
    """As `conv_output_size`; with `ceil` a last, cut-off window counts if it starts before the right padding."""
    span = size + padding[0] + padding[1] - dilation * (kernel - 1) - 1
    output = -(-span // stride) + 1 if ceil else span // stride + 1
    if ceil and (output - 1) * stride >= size + padding[0]:
        output -= 1
    return output


def hash_once(record: Any) -> int:
    """`__hash__` of a frozen record that is the key of many caches: worked out at the first use, kept in `_hash`."""
    if record._hash is None:
        values = tuple([getattr(record, part.name) for part in fields(record) if part.compare])
        object.__setattr__(record, "_hash", hash(values))
    return record._hash


@dataclass(frozen=True, slots=True)
class ConvGeometry:
    """Sizes of one convolution: x (N, I, *input), w (O, I/G, *kernel) -> y (N, O, *output).

    `output` is a fact, not a formula: the mirrored geometry of a transposed convolution may ask for fewer positions
    than would fit. Input samples that no position reaches have gradient zero.
    """

    batch: int
    in_channels: int
    out_channels: int
    groups: int
    input: Ints
    kernel: Ints
    output: Ints
    stride: Ints
    dilation: Ints
    padding: Pairs  # (before, after) per spatial dimension
    _hash: int | None = field(default=None, init=False, repr=False, compare=False)

    __hash__ = hash_once

    @classmethod
    def of(
        cls,
        input_shape: Ints,
        weight_shape: Ints,
        stride: int | Ints = 1,
        padding: str | int | Ints | Pairs = 0,
        dilation: int | Ints = 1,
        groups: int = 1,
    ) -> ConvGeometry:
        """From the shapes of x and w. `padding`: "same", "valid", integers or (before, after) pairs."""
        return _conv_geometry(input_shape, weight_shape, stride, padding, dilation, groups)

    @classmethod
    def mirrored(
        cls,
        input_shape: Ints,
        weight_shape: Ints,
        stride: int | Ints = 1,
        padding: int | Ints | Pairs = 0,
        output_padding: int | Ints = 0,
        groups: int = 1,
        dilation: int | Ints = 1,
    ) -> ConvGeometry:
        """The convolution whose data gradient is the transposed convolution of x (N, I, *sizes), w (I, O/G, *kernel).

        Its `input` is the transposed convolution's output, and the other way round.
        """
        return _mirrored_geometry(input_shape, weight_shape, stride, padding, output_padding, groups, dilation)

    @property
    def ndim(self) -> int:
        """Number of spatial dimensions."""
        return len(self.kernel)

    @property
    def input_shape(self) -> Ints:
        """(N, I, *input)."""
        return (self.batch, self.in_channels, *self.input)

    @property
    def weight_shape(self) -> Ints:
        """(O, I/G, *kernel)."""
        return (self.out_channels, self.in_channels // self.groups, *self.kernel)

    @property
    def output_shape(self) -> Ints:
        """(N, O, *output)."""
        return (self.batch, self.out_channels, *self.output)

    @property
    def flops(self) -> int:
        """Floating-point operations of one pass, a multiply-add counted as two, padding counted as if it were data."""
        taps = prod(self.kernel) * (self.in_channels // self.groups)
        return 2 * self.batch * self.out_channels * prod(self.output) * taps

    @property
    def name(self) -> str:
        """Short name such as `3x3 64->128 @56x56 n32 s2 p1 g8`; parts at their defaults are left out."""
        parts = [f"{_by(self.kernel)} {self.in_channels}->{self.out_channels} @{_by(self.input)}"]
        if self.batch != 1:
            parts.append(f"n{self.batch}")
        parts += _strides_name(self.stride, self.padding, self.dilation)
        if self.groups != 1:
            parts.append(f"g{self.groups}")
        return " ".join(parts)

    def __str__(self) -> str:
        return self.name


NO_TAP = 255  # in place of a window's kernel tap: no gradient goes back from there


@dataclass(frozen=True, slots=True)
class PoolGeometry:
    """Sizes of one pooling: x (N, C, *input) -> y (N, C, *output)."""

    batch: int
    channels: int
    input: Ints
    kernel: Ints
    output: Ints
    stride: Ints
    dilation: Ints
    padding: Pairs  # (before, after) per spatial dimension
    ceil_mode: bool = False
    _hash: int | None = field(default=None, init=False, repr=False, compare=False)

    __hash__ = hash_once

    @classmethod
    def of(
        cls,
        input_shape: Ints,
        kernel: int | Ints,
        stride: int | Ints | None = None,
        padding: int | Ints | Pairs = 0,
        dilation: int | Ints = 1,
        ceil_mode: bool = False,
    ) -> PoolGeometry:
        """From the shape (N, C, *input); `stride=None` means the kernel size."""
        return _pool_geometry(input_shape, kernel, stride, padding, dilation, ceil_mode)

    @property
    def ndim(self) -> int:
        """Number of spatial dimensions."""
        return len(self.kernel)

    @property
    def input_shape(self) -> Ints:
        """(N, C, *input)."""
        return (self.batch, self.channels, *self.input)

    @property
    def output_shape(self) -> Ints:
        """(N, C, *output)."""
        return (self.batch, self.channels, *self.output)

    @property
    def name(self) -> str:
        """Short name such as `pool 2x2 64 @56x56 n32 s2`; parts at their defaults are left out."""
        parts = [f"pool {_by(self.kernel)} {self.channels} @{_by(self.input)}"]
        if self.batch != 1:
            parts.append(f"n{self.batch}")
        parts += _strides_name(self.stride, self.padding, self.dilation)
        if self.ceil_mode:
            parts.append("ceil")
        return " ".join(parts)

    def __str__(self) -> str:
        return self.name


def _by(sizes: Ints) -> str:
    return "x".join(map(str, sizes))


def _brief(sizes: Ints) -> str:
    return str(sizes[0]) if len(set(sizes)) == 1 else _by(sizes)


def _strides_name(stride: Ints, padding: Pairs, dilation: Ints) -> list[str]:
    parts = []
    if set(stride) != {1}:
        parts.append(f"s{_brief(stride)}")
    if set(padding) != {(0, 0)}:
        even = all(before == after for before, after in padding)
        parts.append("p" + (_brief(tuple(p[0] for p in padding)) if even else ",".join(f"{a}:{b}" for a, b in padding)))
    if set(dilation) != {1}:
        parts.append(f"d{_brief(dilation)}")
    return parts


@lru_cache(maxsize=_CACHE_SIZE)
def _conv_geometry(
    input_shape: Ints,
    weight_shape: Ints,
    stride: int | Ints,
    padding: str | int | Ints | Pairs,
    dilation: int | Ints,
    groups: int,
) -> ConvGeometry:
    batch, in_channels, *sizes = input_shape
    out_channels, _, *taps = weight_shape
    kernel, ndim = tuple(taps), len(taps)
    strides, dilations = _per_dimension(stride, ndim), _per_dimension(dilation, ndim)
    pads = _pairs(padding, kernel, dilations)
    output = tuple(map(conv_output_size, sizes, kernel, strides, dilations, pads))
    return ConvGeometry(
        batch, in_channels, out_channels, groups, tuple(sizes), kernel, output, strides, dilations, pads
    )


@lru_cache(maxsize=_CACHE_SIZE)
def _mirrored_geometry(
    input_shape: Ints,
    weight_shape: Ints,
    stride: int | Ints,
    padding: int | Ints | Pairs,
    output_padding: int | Ints,
    groups: int,
    dilation: int | Ints,
) -> ConvGeometry:
    batch, in_channels, *sizes = input_shape
    _, out_per_group, *taps = weight_shape
    kernel, ndim = tuple(taps), len(taps)
    strides, dilations = _per_dimension(stride, ndim), _per_dimension(dilation, ndim)
    pads = _pairs(padding, kernel, dilations)
    extras = _per_dimension(output_padding, ndim)
    grown = tuple(
        (size - 1) * s - before - after + d * (k - 1) + extra + 1
        for size, s, (before, after), d, k, extra in zip(sizes, strides, pads, dilations, kernel, extras, strict=True)
    )
    return ConvGeometry(
        batch, out_per_group * groups, in_channels, groups, grown, kernel, tuple(sizes), strides, dilations, pads
    )


@lru_cache(maxsize=_CACHE_SIZE)
def _pool_geometry(
    input_shape: Ints,
    kernel: int | Ints,
    stride: int | Ints | None,
    padding: int | Ints | Pairs,
    dilation: int | Ints,
    ceil_mode: bool,
) -> PoolGeometry:
    batch, channels, *sizes = input_shape
    ndim = len(sizes)
    windows = _per_dimension(kernel, ndim)
    strides = windows if stride is None else _per_dimension(stride, ndim)
    dilations = _per_dimension(dilation, ndim)
    pads = _pairs(padding, windows, dilations)
    output = tuple(map(pool_output_size, sizes, windows, strides, dilations, pads, (ceil_mode,) * ndim))
    return PoolGeometry(batch, channels, tuple(sizes), windows, output, strides, dilations, pads, ceil_mode)
