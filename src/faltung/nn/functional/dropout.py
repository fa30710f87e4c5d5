"""Dropout: PyTorch's signatures and, for the same seed, PyTorch's masks.

These functions are on unless told otherwise (`training=True` is the default of all but the alpha ones), whatever
`eval()` says: only the modules know a mode. p is the probability of being zeroed; ValueError outside [0, 1].
"""

from __future__ import annotations

import warnings

from faltung.nn.functional._checks import as_number, check_tensor, message, not_implemented_for, shape_text
from faltung.ops import dropout as ops
from faltung.tensor import Tensor


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Zeroes elements with probability `p` and divides the others by 1 - p. Module twin: `nn.Dropout`."""
    _check("dropout", input, p)
    return _drop("dropout", input, p, training, inplace)


def dropout1d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Zeroes whole channels of (N, C, L) or (C, L). Module twin: `nn.Dropout1d`."""
    where = "dropout1d"
    _check(where, input, p)
    if input.dim() not in (2, 3):
        raise RuntimeError(
            message(
                where,
                f"Expected 2D or 3D input (C, L) or (N, C, L), got {shape_text(input.shape)}",
                "dropout zeroes single elements of any shape.",
            )
        )
    return _drop_channels(where, input, p, training, inplace, unbatched=input.dim() == 2)


def dropout2d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Zeroes whole channels of (N, C, H, W). A 3-d input is read as (N, C, L), with a warning. Twin: `nn.Dropout2d`."""
    where = "dropout2d"
    _check(where, input, p)
    if input.dim() == 3:
        warnings.warn(
            f"dropout2d: Received a 3D input {shape_text(input.shape)}, which is read as (N, C, L) with whole channels "
            "dropped. Use dropout1d for that, or x.unsqueeze(0) for one sample (C, H, W).",
            stacklevel=2,
        )
    elif input.dim() != 4:
        _warn_rank(where, input, "dropout2d zeroes channels of 4D inputs (N, C, H, W)")
    return _drop_channels(where, input, p, training, inplace, unbatched=False)


def dropout3d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Zeroes whole channels of (N, C, D, H, W) or (C, D, H, W). Module twin: `nn.Dropout3d`."""
    where = "dropout3d"
    _check(where, input, p)
    if input.dim() not in (4, 5):
        _warn_rank(where, input, "dropout3d zeroes channels of 5D inputs (N, C, D, H, W) or 4D inputs (C, D, H, W)")
    return _drop_channels(where, input, p, training, inplace, unbatched=input.dim() != 5)


def alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """Dropout for SELU networks: drops to SELU's lower limit, keeps mean and variance. Twin: `nn.AlphaDropout`."""
    _check("alpha_dropout", input, p)
    return _drop("alpha_dropout", input, p, training, inplace, alpha=True)


def feature_alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """`alpha_dropout` of whole channels of (N, C, ...). Module twin: `nn.FeatureAlphaDropout`."""
    where = "feature_alpha_dropout"
    _check(where, input, p)
    return _drop_channels(where, input, p, training, inplace, unbatched=False, alpha=True)


def _check(where: str, input: Tensor, p: float) -> None:
    if not 0.0 <= as_number(where, "p", p) <= 1.0:
        raise ValueError(message(where, f"dropout probability has to be between 0 and 1, but got {p}"))
    check_tensor(where, "input", input)


def _warn_rank(where: str, input: Tensor, meant_for: str) -> None:
    warnings.warn(
        f"{where}: Received a {input.dim()}-D input, which is deprecated and will be an error. {meant_for}; use "
        f"dropout for "
        "single elements.",
        stacklevel=3,
    )


def _drop(
    where: str, input: Tensor, p: float, training: bool, inplace: bool, channels: bool = False, alpha: bool = False
) -> Tensor:
    if not training or p == 0 or input.numel() == 0:
        return input
    kind = input._data.dtype.kind
    if kind == "c":
        raise not_implemented_for(where, input, "Drop real and imaginary parts: torch.view_as_real(x).")
    if kind != "f":
        raise RuntimeError(
            message(where, f"input must be floating point, got {input.dtype}", "The result is scaled: use x.float().")
        )
    if alpha and p < 1:
        return ops.alpha_dropout(input, p, channels, inplace)
    return ops.dropout(input, p, channels, inplace)


def _drop_channels(
    where: str, input: Tensor, p: float, training: bool, inplace: bool, unbatched: bool, alpha: bool = False
) -> Tensor:
    if not training or p == 0 or p == 1 or input.numel() == 0:
        return _drop(where, input, p, training, inplace)
    if unbatched:
        batch = input.unsqueeze(0)
        dropped = _drop_channels(where, batch, p, training, inplace, unbatched=False, alpha=alpha)
        return input if inplace else dropped.squeeze(0)
    if input.dim() < 2:
        raise RuntimeError(
            message(where, f"requires at least 2 dimensions (N, C, ...) in the input, got {shape_text(input.shape)}")
        )
    return _drop(where, input, p, training, inplace, channels=True, alpha=alpha)
