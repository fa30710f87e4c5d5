"""Moving values between channels and pixels, and channels among groups."""

from __future__ import annotations

from typing import ClassVar

from faltung.nn import functional as F
from faltung.tensor import Tensor

from .module import Module

__all__ = ["ChannelShuffle", "PixelShuffle", "PixelUnshuffle"]


class PixelShuffle(Module):
    """(*, C r^2, H, W) -> (*, C, H r, W r): sub-pixel convolution's last step. Twin: `nn.functional.pixel_shuffle`."""

    __constants__: ClassVar[list[str]] = ["upscale_factor"]

    upscale_factor: int

    def __init__(self, upscale_factor: int) -> None:
        super().__init__()
        self.upscale_factor = upscale_factor

    def forward(self, input: Tensor) -> Tensor:
        return F.pixel_shuffle(input, self.upscale_factor)

    def extra_repr(self) -> str:
        return f"upscale_factor={self.upscale_factor}"


class PixelUnshuffle(Module):
    """(*, C, H r, W r) -> (*, C r^2, H, W). Twin: `nn.functional.pixel_unshuffle`."""

    __constants__: ClassVar[list[str]] = ["downscale_factor"]

    downscale_factor: int

    def __init__(self, downscale_factor: int) -> None:
        super().__init__()
        self.downscale_factor = downscale_factor

    def forward(self, input: Tensor) -> Tensor:
        return F.pixel_unshuffle(input, self.downscale_factor)

    def extra_repr(self) -> str:
        return f"downscale_factor={self.downscale_factor}"


class ChannelShuffle(Module):
    """Mixes the channels of grouped convolutions: (N, C, *) -> (N, C, *). Twin: `nn.functional.channel_shuffle`."""

    __constants__: ClassVar[list[str]] = ["groups"]

    groups: int

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, input: Tensor) -> Tensor:
        return F.channel_shuffle(input, self.groups)

    def extra_repr(self) -> str:
        return f"groups={self.groups}"
