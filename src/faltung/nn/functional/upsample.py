"""interpolate and its older names: images at another size."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

from faltung.ops.resample import antialias_taps, cubic_taps, linear_taps, nearest_taps, resample, resample_planes
from faltung.tensor import Tensor

from ._checks import check_tensor, message

_SPATIAL_DIMS = {"linear": 1, "bilinear": 2, "bicubic": 2, "lanczos": 2, "trilinear": 3}  # others take 1 to 3
_ANY_DIMS = ("nearest", "nearest-exact", "area")


def interpolate(
    input: Tensor,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Tensor:
    """`input` (N, C, L), (N, C, H, W) or (N, C, D, H, W) at another spatial size.

    Args: `size` of the output, or `scale_factor`, each one number or one per dimension. `mode`: "nearest",
    "nearest-exact", "area" (any rank), "linear" (3-d), "bilinear", "bicubic" (4-d), "trilinear" (5-d), "lanczos" (4-d,
    with antialias). `align_corners`: the corner pixels keep their places (the linear and cubic modes only).
    `recompute_scale_factor`: derive the scale from the rounded output size. `antialias`: filter when shrinking.

    ValueError for contradictory arguments, NotImplementedError where mode and rank do not go together.
    """
    check_tensor("interpolate", "input", input)
    if mode in _ANY_DIMS and align_corners is not None:
        raise ValueError(
            "interpolate: align_corners option can only be set with the interpolating modes: linear | bilinear | "
            f"bicubic | trilinear, got mode={mode!r}. Leave it out."
        )
    dims = input.dim() - 2
    sizes, scales = _output_size(input, size, scale_factor, mode, recompute_scale_factor)
    if antialias and not (mode in ("bilinear", "bicubic", "lanczos") and input.dim() == 4):
        raise ValueError(
            "interpolate: Anti-alias option is restricted to bilinear, bicubic, and lanczos modes and requires a 4-D "
            f"tensor as input, got mode={mode!r} and input {tuple(input.shape)}."
        )
    _check_mode(input, mode, dims)
    if mode == "lanczos" and (align_corners or not antialias):
        raise ValueError("interpolate: lanczos mode needs antialias=True and no align_corners.")
    if min(sizes) <= 0 or (input.numel() == 0 and 0 in input.shape[1:]):
        raise RuntimeError(
            f"interpolate: Input and output sizes should be greater than 0, got input {tuple(input.shape)} and output "
            f"size {tuple(sizes)}."
        )
    if mode == "area":
        return _area(input, sizes)
    steps = [None if scale is None else 1.0 / scale if scale > 0 else None for scale in scales]
    return _resampled(input, sizes, steps, mode, bool(align_corners), antialias)


def _output_size(
    input: Tensor, size: Any, scale_factor: Any, mode: str, recompute: bool | None
) -> tuple[list[int], list[float | None]]:
    """The spatial output size, and the scale factors where these (rather than the size) decide positions."""
    dims = input.dim() - 2
    if size is not None and scale_factor is not None:
        raise ValueError("interpolate: only one of size or scale_factor should be defined")
    if size is None and scale_factor is None:
        raise ValueError("interpolate: either size or scale_factor should be defined")
    if size is not None:
        if recompute:
            raise ValueError("interpolate: recompute_scale_factor is not meaningful with an explicit size.")
        sizes = _per_dimension("size", size, input)
        for entry in sizes:
            if isinstance(entry, bool) or not hasattr(entry, "__index__"):
                raise TypeError(
                    f"interpolate: expected size to be one of int or Tuple[int], got {size!r}. "
                    "For a factor, use scale_factor=."
                )
        return [int(entry) for entry in sizes], [None] * dims
    factors = [float(factor) for factor in _per_dimension("scale_factor", scale_factor, input)]
    if not all(math.isfinite(factor) for factor in factors):
        raise ValueError(f"interpolate: scale_factor must be finite, got {scale_factor!r}.")
    sizes = [int(length * factor) for length, factor in zip(input.shape[2:], factors, strict=True)]
    return sizes, [None] * dims if recompute or mode == "area" else list(factors)


def _per_dimension(name: str, value: Any, input: Tensor) -> list[Any]:
    dims = input.dim() - 2
    if not isinstance(value, (list, tuple)):
        return [value] * max(dims, 0)
    if len(value) != dims:
        raise ValueError(
            f"interpolate: Input and {name} must have the same number of spatial dimensions, got input "
            f"{tuple(input.shape)} with {dims} and {name}={tuple(value)}. The first two are batch and channels."
        )
    return list(value)


def _check_mode(input: Tensor, mode: str, dims: int) -> None:
    modes = [*_ANY_DIMS, *_SPATIAL_DIMS]
    if mode not in modes or dims not in (1, 2, 3):
        raise NotImplementedError(
            f"interpolate: Input Error: Only 3D, 4D and 5D input Tensors supported (got {input.dim()}D) for the modes: "
            f"{' | '.join(modes)} (got {mode})"
        )
    wanted = _SPATIAL_DIMS.get(mode, dims)
    if wanted != dims:
        raise NotImplementedError(
            f"interpolate: Got {input.dim()}D input, but {mode} mode needs {wanted + 2}D input. "
            f"For {input.dim()}-d data use {('linear', 'bilinear', 'trilinear')[dims - 1]!r} or 'nearest'."
        )


def _area(input: Tensor, sizes: list[int]) -> Tensor:
    """Every output is the mean of the inputs it covers."""
    from . import pool

    adaptive = (pool.adaptive_avg_pool1d, pool.adaptive_avg_pool2d, pool.adaptive_avg_pool3d)[len(sizes) - 1]
    return adaptive(input, sizes)


def _resampled(
    input: Tensor, sizes: list[int], steps: list[float | None], mode: str, align_corners: bool, antialias: bool
) -> Tensor:
    nearest = mode.startswith("nearest")
    kind = input.dtype
    if not nearest and not kind.is_floating_point and kind.name != "uint8":
        raise NotImplementedError(message("interpolate", f"{mode} is not implemented for {kind}", "Use input.float()."))
    narrow = not nearest and kind.itemsize < 4  # halves and bytes are mixed in float32
    out = input.float() if narrow else input
    tables = []
    for length, wanted, step in zip(input.shape[2:], sizes, steps, strict=True):
        if nearest:
            tables.append(nearest_taps(length, wanted, step, mode == "nearest-exact"))
        elif antialias:
            tables.append(antialias_taps(length, wanted, step, align_corners, mode))
        else:
            taps_of = cubic_taps if mode == "bicubic" else linear_taps
            tables.append(taps_of(length, wanted, step, align_corners, kind.name == "float64"))
    if len(tables) == 2:
        out = resample_planes(out, *tables)
    else:
        for axis in range(input.dim() - 1, 1, -1):  # the last axis first: its runs are the contiguous ones
            out = resample(out, axis, tables[axis - 2])
    if narrow:
        out = out.round().clamp(0, 255).to(kind) if kind.name == "uint8" else out.to(kind)
    return out


def upsample(
    input: Tensor,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
) -> Tensor:
    """Deprecated name of `interpolate`."""
    warnings.warn("`nn.functional.upsample` is deprecated. Use `nn.functional.interpolate` instead.", stacklevel=2)
    return interpolate(input, size, scale_factor, mode, align_corners)


def upsample_nearest(
    input: Tensor, size: int | Sequence[int] | None = None, scale_factor: float | Sequence[float] | None = None
) -> Tensor:
    """Deprecated: `interpolate(..., mode="nearest")`."""
    warnings.warn(
        "`nn.functional.upsample_nearest` is deprecated. Use `nn.functional.interpolate` instead.", stacklevel=2
    )
    return interpolate(input, size, scale_factor, mode="nearest")


def upsample_bilinear(
    input: Tensor, size: int | Sequence[int] | None = None, scale_factor: float | Sequence[float] | None = None
) -> Tensor:
    """Deprecated: `interpolate(..., mode="bilinear", align_corners=True)`."""
    warnings.warn(
        "`nn.functional.upsample_bilinear` is deprecated. Use `nn.functional.interpolate` instead.", stacklevel=2
    )
    return interpolate(input, size, scale_factor, mode="bilinear", align_corners=True)
