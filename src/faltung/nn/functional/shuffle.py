"""Moving values between channels and pixels, and channels among groups. Letters: r the factor, G groups."""

from __future__ import annotations

from faltung.tensor import Tensor

from ._checks import as_int, check_tensor, message, shape_text


def pixel_shuffle(input: Tensor, upscale_factor: int) -> Tensor:
    """(*, C r^2, H, W) -> (*, C, H r, W r): each group of r^2 channels becomes an r x r block of pixels."""
    where, r = "pixel_shuffle", as_int("pixel_shuffle", "upscale_factor", upscale_factor)
    _check_image(where, input, "upscale_factor", r)
    *batch, channels, height, width = input.shape
    if channels % (r * r):
        raise RuntimeError(
            message(
                where,
                f"expects its input's 'channel' dimension to be divisible by the square of upscale_factor={r}, got "
                f"input {shape_text(input.shape)} with {channels} channels",
            )
        )
    n = len(batch)
    x = input.reshape(*batch, channels // (r * r), r, r, height, width)
    x = x.permute(*range(n), n, n + 3, n + 1, n + 4, n + 2)  # (*, C, H, r, W, r)
    return x.reshape(*batch, channels // (r * r), height * r, width * r)


def pixel_unshuffle(input: Tensor, downscale_factor: int) -> Tensor:
    """(*, C, H r, W r) -> (*, C r^2, H, W): the inverse of `pixel_shuffle`."""
    where, r = "pixel_unshuffle", as_int("pixel_unshuffle", "downscale_factor", downscale_factor)
    _check_image(where, input, "downscale_factor", r)
    *batch, channels, height, width = input.shape
    for name, size in (("height", height), ("width", width)):
        if size % r:
            raise RuntimeError(
                message(where, f"expects {name} to be divisible by downscale_factor={r}, got {shape_text(input.shape)}")
            )
    n = len(batch)
    x = input.reshape(*batch, channels, height // r, r, width // r, r)
    x = x.permute(*range(n), n, n + 2, n + 4, n + 1, n + 3)  # (*, C, r, r, H, W)
    return x.reshape(*batch, channels * r * r, height // r, width // r)


def channel_shuffle(input: Tensor, groups: int) -> Tensor:
    """(N, C, *): channels dealt out anew, so that each group of the result holds one of every group before."""
    where, count = "channel_shuffle", as_int("channel_shuffle", "groups", groups)
    check_tensor(where, "input", input)
    if input.dim() < 3:
        raise RuntimeError(message(where, f"expects input with > 2 dims, got {shape_text(input.shape)}"))
    if count <= 0:
        raise RuntimeError(message(where, f"number of groups to divide channels in must be positive, got {count}"))
    batch, channels, *spatial = input.shape
    if channels % count:
        raise RuntimeError(
            message(
                where, f"number of channels must be divisible by groups, got {channels} channels and groups={count}"
            )
        )
    x = input.reshape(batch, count, channels // count, *spatial)
    return x.transpose(1, 2).reshape(batch, channels, *spatial)


native_channel_shuffle = channel_shuffle


def _check_image(where: str, input: Tensor, name: str, factor: int) -> None:
    check_tensor(where, "input", input)
    if input.dim() < 3:
        raise RuntimeError(
            message(
                where, f"expects input to have at least 3 dimensions, got {input.dim()}-d {shape_text(input.shape)}"
            )
        )
    if factor <= 0:
        raise RuntimeError(message(where, f"expects a positive {name}, got {factor}"))
