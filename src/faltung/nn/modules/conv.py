"""Convolution layers. Each holds weight and bias and calls its functional twin in `faltung.nn.functional`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from faltung.engine.geometry import same_padding
from faltung.nn import functional as F
from faltung.nn import init
from faltung.nn.functional._checks import IntOrInts, as_int, message, shape_text
from faltung.nn.modules.lazy import LazyModuleMixin
from faltung.nn.modules.module import Module
from faltung.nn.parameter import Parameter, UninitializedParameter
from faltung.ops.creation import empty
from faltung.tensor import Tensor

__all__ = [
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "LazyConv1d",
    "LazyConv2d",
    "LazyConv3d",
    "LazyConvTranspose1d",
    "LazyConvTranspose2d",
    "LazyConvTranspose3d",
]

_PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


def _tuple(value: Any, ndim: int) -> tuple[Any, ...]:
    """`3` -> `(3, 3)`; a sequence stays as it is (the functional twin checks its length)."""
    return tuple(value) if isinstance(value, Iterable) else (value,) * ndim


class _ConvNd(Module):
    """What all convolution layers share; `spatial_dims` tells them apart."""

    spatial_dims: ClassVar[int]
    __constants__: ClassVar[list[str]] = [
        "stride",
        "padding",
        "dilation",
        "groups",
        "padding_mode",
        "output_padding",
        "in_channels",
        "out_channels",
        "kernel_size",
    ]

    weight: Parameter  # (out, in/groups, *kernel); transposed: (in, out/groups, *kernel)
    bias: Parameter | None  # (out,)
    in_channels: int
    out_channels: int
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: str | tuple[int, ...]
    dilation: tuple[int, ...]
    transposed: bool
    output_padding: tuple[int, ...]
    groups: int
    padding_mode: str  # zeros, reflect, replicate or circular

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, ...],
        stride: tuple[int, ...],
        padding: str | tuple[int, ...],
        dilation: tuple[int, ...],
        transposed: bool,
        output_padding: tuple[int, ...],
        groups: int,
        bias: bool,
        padding_mode: str,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        where = type(self).__name__
        self.in_channels = as_int(where, "in_channels", in_channels)
        self.out_channels = as_int(where, "out_channels", out_channels)
        self.kernel_size = tuple(as_int(where, "kernel_size", k) for k in kernel_size)
        self.stride, self.padding, self.dilation = stride, padding, dilation
        self.transposed, self.output_padding = transposed, output_padding
        self.groups, self.padding_mode = groups, padding_mode
        self._check_arguments(where)
        self._reversed_padding_repeated_twice = self._frame()
        shape = (in_channels, out_channels // groups) if transposed else (out_channels, in_channels // groups)
        self.weight = Parameter(empty((*shape, *self.kernel_size), device=device, dtype=dtype))
        if bias:
            self.bias = Parameter(empty((out_channels,), device=device, dtype=dtype))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def _check_arguments(self, where: str) -> None:
        """Raises ValueError for combinations that no input could make right."""
        if self.groups <= 0:
            raise ValueError(message(where, f"groups must be a positive integer, got groups={self.groups}"))
        for name in ("in_channels", "out_channels"):
            if getattr(self, name) % self.groups:
                got = f"{name} must be divisible by groups, got {name}={getattr(self, name)} and groups={self.groups}"
                raise ValueError(message(where, got))
        if isinstance(self.padding, str):
            if self.padding not in ("same", "valid"):
                got = f"Invalid padding string {self.padding!r}, should be 'same' or 'valid' (or integers)"
                raise ValueError(message(where, got))
            if self.padding == "same" and any(s != 1 for s in self.stride):
                got = f"padding='same' is not supported for strided convolutions, got stride={self.stride}"
                raise ValueError(message(where, got, "Give the padding in numbers: kernel_size // 2 is usual."))
        if self.padding_mode not in _PADDING_MODES:
            got = f"padding_mode must be one of {_PADDING_MODES}, got padding_mode={self.padding_mode!r}"
            raise ValueError(message(where, got))

    def _frame(self) -> list[int]:
        """The padding as `F.pad` wants it: (before, after) of the last dimension first."""
        if self.padding == "valid":
            return [0, 0] * len(self.kernel_size)
        if isinstance(self.padding, str):
            pairs: Sequence[Any] = same_padding(self.kernel_size, self.dilation)
        else:
            pairs = [(p, p) for p in self.padding]
        return [amount for pair in reversed(pairs) for amount in pair]

    def reset_parameters(self) -> None:
        """Draws weight and bias anew, uniformly within 1/sqrt(fan_in) of zero (He et al. 2015 with a = sqrt 5)."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            fan_in, _ = init._calculate_fan_in_and_fan_out(self.weight)
            if fan_in:
                bound = 1 / math.sqrt(fan_in)
                init.uniform_(self.bias, -bound, bound)

    def extra_repr(self) -> str:
        """The arguments that differ from their defaults."""
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        zeros, ones = (0,) * len(self.stride), (1,) * len(self.stride)
        for name, default in (("padding", zeros), ("dilation", ones), ("output_padding", zeros), ("groups", 1)):
            if getattr(self, name) != default:
                text += f", {name}={getattr(self, name)}"
        if self.bias is None:
            text += ", bias=False"
        return text if self.padding_mode == "zeros" else f"{text}, padding_mode={self.padding_mode}"


class _ConvForward(_ConvNd):
    """Constructor and frame of the three convolutions."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntOrInts,
        stride: IntOrInts = 1,
        padding: str | IntOrInts = 0,
        dilation: IntOrInts = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        n = self.spatial_dims
        super().__init__(
            in_channels,
            out_channels,
            _tuple(kernel_size, n),
            _tuple(stride, n),
            padding if isinstance(padding, str) else _tuple(padding, n),
            _tuple(dilation, n),
            False,
            (0,) * n,
            groups,
            bias,
            padding_mode,
            device,
            dtype,
        )

    def _framed(self, input: Tensor) -> tuple[Tensor, str | tuple[int, ...]]:
        """(input, zero padding left to the convolution): a padding mode other than zeros is applied here."""
        if self.padding_mode == "zeros":
            return input, self.padding
        framed = F.pad(input, self._reversed_padding_repeated_twice, mode=self.padding_mode)
        return framed, (0,) * self.spatial_dims


class Conv1d(_ConvForward):
    """1-d convolution of (N, C, L) or (C, L). Functional twin: `faltung.nn.functional.conv1d`.

    Args: channels in and out; `kernel_size`, `stride`, `padding` (integers, "same" or "valid"), `dilation`; `groups`,
    into which both channel counts divide; `bias`; `padding_mode` "zeros", "reflect", "replicate" or "circular".
    Raises ValueError for groups that do not divide and for unknown paddings.
    """

    spatial_dims = 1

    def forward(self, input: Tensor) -> Tensor:
        """(N, in_channels, L) -> (N, out_channels, L')."""
        return self._conv_forward(input, self.weight, self.bias)

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        x, padding = self._framed(input)
        return F.conv1d(x, weight, bias, self.stride, padding, self.dilation, self.groups)


class Conv2d(_ConvForward):
    """2-d convolution of (N, C, H, W) or (C, H, W). Functional twin: `faltung.nn.functional.conv2d`.

    Arguments as for `Conv1d`; integers stand for both dimensions. `weight` is (out, in/groups, kH, kW), `bias` (out,).
    """

    spatial_dims = 2

    def forward(self, input: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, H', W')."""
        return self._conv_forward(input, self.weight, self.bias)

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        x, padding = self._framed(input)
        return F.conv2d(x, weight, bias, self.stride, padding, self.dilation, self.groups)


class Conv3d(_ConvForward):
    """3-d convolution of (N, C, D, H, W) or (C, D, H, W). Functional twin: `faltung.nn.functional.conv3d`.

    Arguments as for `Conv1d`; integers stand for all three dimensions.
    """

    spatial_dims = 3

    def forward(self, input: Tensor) -> Tensor:
        """(N, in_channels, D, H, W) -> (N, out_channels, D', H', W')."""
        return self._conv_forward(input, self.weight, self.bias)

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        x, padding = self._framed(input)
        return F.conv3d(x, weight, bias, self.stride, padding, self.dilation, self.groups)


class _ConvTransposeNd(_ConvNd):
    """Constructor and output size of the three transposed convolutions."""

    padding: tuple[int, ...]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntOrInts,
        stride: IntOrInts = 1,
        padding: IntOrInts = 0,
        output_padding: IntOrInts = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: IntOrInts = 1,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        n, where = self.spatial_dims, type(self).__name__
        if padding_mode != "zeros":
            raise ValueError(
                message(where, f'Only "zeros" padding mode is supported for {where}, got padding_mode={padding_mode!r}')
            )
        if isinstance(padding, str):
            raise TypeError(message(where, f"padding must be an int or a tuple of ints, got padding={padding!r}"))
        super().__init__(
            in_channels,
            out_channels,
            _tuple(kernel_size, n),
            _tuple(stride, n),
            _tuple(padding, n),
            _tuple(dilation, n),
            True,
            _tuple(output_padding, n),
            groups,
            bias,
            padding_mode,
            device,
            dtype,
        )

    def _output_padding(self, input: Tensor, output_size: Sequence[int] | None) -> tuple[int, ...]:
        """What `output_padding` must be for the wanted size. Raises ValueError for sizes out of reach."""
        if output_size is None:
            return self.output_padding
        n, where = self.spatial_dims, type(self).__name__
        wanted = tuple(output_size)
        if len(wanted) == n + 2 or (len(wanted) == input.dim() and input.dim() == n + 1):
            wanted = wanted[-n:]
        if len(wanted) != n:
            got = f"for {input.dim()}-d input, output_size must have {n} or {n + 2} elements, got {len(wanted)}"
            raise ValueError(message(where, got))
        smallest = tuple(
            (size - 1) * s - 2 * p + d * (k - 1) + 1
            for size, s, p, d, k in zip(
                input.shape[-n:], self.stride, self.padding, self.dilation, self.kernel_size, strict=True
            )
        )
        largest = tuple(low + s - 1 for low, s in zip(smallest, self.stride, strict=True))
        if not all(low <= size <= high for low, size, high in zip(smallest, wanted, largest, strict=True)):
            got = f"output_size {wanted} is out of reach: input {shape_text(input.shape)} gives {smallest} to {largest}"
            raise ValueError(message(where, got))
        return tuple(size - low for size, low in zip(wanted, smallest, strict=True))


class ConvTranspose1d(_ConvTransposeNd):
    """1-d transposed convolution of (N, C, L). Functional twin: `faltung.nn.functional.conv_transpose1d`.

    Turns the shapes of a `Conv1d` with the same arguments around. `output_padding`, or `output_size` at the call, picks
    among the sizes that a stride makes ambiguous. `weight` is (in, out/groups, k).
    """

    spatial_dims = 1

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """(N, in_channels, L) -> (N, out_channels, L')."""
        extra = self._output_padding(input, output_size)
        args = (self.stride, self.padding, extra, self.groups, self.dilation)
        return F.conv_transpose1d(input, self.weight, self.bias, *args)


class ConvTranspose2d(_ConvTransposeNd):
    """2-d transposed convolution of (N, C, H, W). Functional twin: `faltung.nn.functional.conv_transpose2d`.

    As `ConvTranspose1d`; `weight` is (in, out/groups, kH, kW).
    """

    spatial_dims = 2

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, H', W')."""
        extra = self._output_padding(input, output_size)
        args = (self.stride, self.padding, extra, self.groups, self.dilation)
        return F.conv_transpose2d(input, self.weight, self.bias, *args)


class ConvTranspose3d(_ConvTransposeNd):
    """3-d transposed convolution of (N, C, D, H, W). Functional twin: `faltung.nn.functional.conv_transpose3d`."""

    spatial_dims = 3

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """(N, in_channels, D, H, W) -> (N, out_channels, D', H', W')."""
        extra = self._output_padding(input, output_size)
        args = (self.stride, self.padding, extra, self.groups, self.dilation)
        return F.conv_transpose3d(input, self.weight, self.bias, *args)


class _LazyConv(LazyModuleMixin, _ConvNd):
    """Learns `in_channels` from its first input, then becomes the layer that it stands for."""

    weight: UninitializedParameter
    bias: UninitializedParameter | None

    def _wait_for_input(self, out_channels: int, bias: bool, device: Any, dtype: Any) -> None:
        self.out_channels = as_int(type(self).__name__, "out_channels", out_channels)
        self.weight = UninitializedParameter(device=device, dtype=dtype)
        if bias:
            self.bias = UninitializedParameter(device=device, dtype=dtype)

    def reset_parameters(self) -> None:
        """Draws weight and bias anew; nothing happens before the first input."""
        if not self.has_uninitialized_params() and self.in_channels:
            super().reset_parameters()

    def initialize_parameters(self, input: Tensor, *args: Any, **kwargs: Any) -> None:
        """Takes `in_channels` from `input`. RuntimeError for a wrong rank, ValueError where groups do not divide it."""
        if not self.has_uninitialized_params():
            return
        n, where = self.spatial_dims, type(self).__name__
        if input.dim() not in (n + 1, n + 2):
            got = f"input must be {n + 2}-d (batched) or {n + 1}-d (unbatched), got {shape_text(input.shape)}"
            raise RuntimeError(message(where, got))
        self.in_channels = input.shape[-n - 1]
        self._check_arguments(where)
        channels = (self.out_channels, self.in_channels // self.groups)
        if self.transposed:
            channels = (self.in_channels, self.out_channels // self.groups)
        self.weight.materialize((*channels, *self.kernel_size))
        if self.bias is not None:
            self.bias.materialize((self.out_channels,))
        self.reset_parameters()


class _LazyConvForward(_LazyConv, _ConvForward):
    def __init__(
        self,
        out_channels: int,
        kernel_size: IntOrInts,
        stride: IntOrInts = 1,
        padding: str | IntOrInts = 0,
        dilation: IntOrInts = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        args = (kernel_size, stride, padding, dilation, groups, False, padding_mode, device, dtype)
        super().__init__(0, 0, *args)
        self._wait_for_input(out_channels, bias, device, dtype)


class _LazyConvTranspose(_LazyConv, _ConvTransposeNd):
    def __init__(
        self,
        out_channels: int,
        kernel_size: IntOrInts,
        stride: IntOrInts = 1,
        padding: IntOrInts = 0,
        output_padding: IntOrInts = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: IntOrInts = 1,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        args = (kernel_size, stride, padding, output_padding, groups, False, dilation, padding_mode, device, dtype)
        super().__init__(0, 0, *args)
        self._wait_for_input(out_channels, bias, device, dtype)


class LazyConv1d(_LazyConvForward, Conv1d):
    """`Conv1d` that takes `in_channels` from its first input."""

    cls_to_become = Conv1d


class LazyConv2d(_LazyConvForward, Conv2d):
    """`Conv2d` that takes `in_channels` from its first input."""

    cls_to_become = Conv2d


class LazyConv3d(_LazyConvForward, Conv3d):
    """`Conv3d` that takes `in_channels` from its first input."""

    cls_to_become = Conv3d


class LazyConvTranspose1d(_LazyConvTranspose, ConvTranspose1d):
    """`ConvTranspose1d` that takes `in_channels` from its first input."""

    cls_to_become = ConvTranspose1d


class LazyConvTranspose2d(_LazyConvTranspose, ConvTranspose2d):
    """`ConvTranspose2d` that takes `in_channels` from its first input."""

    cls_to_become = ConvTranspose2d


class LazyConvTranspose3d(_LazyConvTranspose, ConvTranspose3d):
    """`ConvTranspose3d` that takes `in_channels` from its first input."""

    cls_to_become = ConvTranspose3d
