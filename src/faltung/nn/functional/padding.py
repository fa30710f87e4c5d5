"""Padding of trailing dimensions."""

from __future__ import annotations

from collections.abc import Sequence

from faltung.nn.functional._checks import as_int, check_tensor, message, shape_text
from faltung.ops.padding import constant_pad, index_pad
from faltung.tensor import Tensor

Pairs = tuple[tuple[int, int], ...]


def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """Pad (or, with negative amounts, cut) trailing dimensions. Module twins: `nn.ZeroPad2d`, `nn.ReflectionPad2d`, ...

    `pad` is (before, after) of the last dimension, then of the one before it, and so on. Modes: "constant" (any rank,
    filled with `value`, 0 by default), "reflect" (mirror without the edge), "replicate" (repeat the edge) and
    "circular"; these three pad the last 1, 2 or 3 dimensions of (N, C, ...) or (C, ...).
    Raises RuntimeError for amounts that do not fit, NotImplementedError for ranks or modes that do not exist.
    """
    check_tensor("pad", "input", input)
    if not isinstance(pad, (list, tuple)):
        raise TypeError(
            message("pad", f"pad must be a tuple of ints, got {pad!r}", "(1, 1, 2, 2) pads W by 1 and H by 2.")
        )
    amounts = [as_int("pad", f"pad[{i}]", amount) for i, amount in enumerate(pad)]
    if len(amounts) % 2:
        raise RuntimeError(
            message("pad", f"pad must hold pairs (before, after), got {len(amounts)} values: {tuple(pad)}")
        )
    if len(amounts) > 2 * input.dim():
        got = (
            f"pad has {len(amounts) // 2} pairs, but input {shape_text(input.shape)} has only {input.dim()} dimensions"
        )
        raise RuntimeError(message("pad", got))
    pads = _per_dimension(amounts, input.dim())
    if mode == "constant":
        _check_result(input, pads)
        return constant_pad(input, pads, 0 if value is None else value)
    if mode not in ("reflect", "replicate", "circular"):
        modes = "'constant', 'reflect', 'replicate' or 'circular'"
        raise NotImplementedError(message("pad", f"mode must be {modes}, got {mode!r}"))
    if value is not None and value != 0:
        raise RuntimeError(message("pad", f"mode={mode!r} takes no value, got value={value}"))
    _check_framed(input, amounts, pads, mode)
    return index_pad(input, pads, mode)


def _per_dimension(amounts: Sequence[int], ndim: int) -> Pairs:
    """PyTorch's flat list, last dimension first -> one pair per dimension, first dimension first."""
    pairs = [(amounts[i], amounts[i + 1]) for i in range(0, len(amounts), 2)]
    return ((0, 0),) * (ndim - len(pairs)) + tuple(reversed(pairs))


def _check_result(input: Tensor, pads: Pairs) -> None:
    for d, (size, (before, after)) in enumerate(zip(input.shape, pads, strict=True)):
        if size + before + after < 0 or min(before, 0) + min(after, 0) < -size:
            raise RuntimeError(message("pad", _cuts_too_much(d, input.shape, (before, after))))


def _cuts_too_much(d: int, shape: tuple[int, ...], amounts: tuple[int, int]) -> str:
    return f"pad {amounts} cuts more than dimension {d} of input {shape_text(shape)} has"


def _check_framed(input: Tensor, amounts: Sequence[int], pads: Pairs, mode: str) -> None:
    """What reflect, replicate and circular ask of ranks and sizes."""
    shape, ndim = input.shape, len(amounts) // 2
    if ndim not in (1, 2, 3) or input.dim() not in (ndim + 1, ndim + 2):
        got = (
            f"mode={mode!r} pads the last {ndim} of {ndim + 1} or {ndim + 2} dimensions, got input {shape_text(shape)}"
        )
        want = (
            f"{input.dim() - 2} or {input.dim() - 1} pairs" if input.dim() > 2 else "one pair and a channel dimension"
        )
        raise NotImplementedError(
            message("pad", got, f"A {input.dim()}-d input takes {want} (N and C are not padded).")
        )
    if 0 in (shape[1:] if input.dim() == ndim + 2 else shape):
        raise RuntimeError(message("pad", f"mode={mode!r} needs samples to repeat, got input {shape_text(shape)}"))
    for d in range(input.dim() - ndim, input.dim()):
        size, (before, after) = shape[d], pads[d]
        limit = size - 1 if mode == "reflect" else size + min(before, 0) + min(after, 0)  # what cutting leaves
        if mode != "replicate" and max(before, after) > limit:
            can = f"mode={mode!r} can pad dimension {d} of input {shape_text(shape)} by at most {limit}"
            raise RuntimeError(message("pad", f"{can}, got {(before, after)}"))
        if size + before + after < 0:
            raise RuntimeError(message("pad", _cuts_too_much(d, shape, (before, after))))
