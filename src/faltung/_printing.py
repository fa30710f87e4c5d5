"""Printing tensors as PyTorch does."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from faltung import dtypes
from faltung.tensor import Tensor

__all__ = ["set_printoptions", "tensor_repr"]


class _Options:
    precision: int = 4
    threshold: float = 1000
    edgeitems: int = 3
    linewidth: int = 80
    sci_mode: bool | None = None


_options = _Options()
_PROFILES: dict[str, dict[str, Any]] = {
    "default": {"precision": 4, "threshold": 1000, "edgeitems": 3, "linewidth": 80},
    "short": {"precision": 2, "threshold": 1000, "edgeitems": 2, "linewidth": 80},
    "full": {"precision": 4, "threshold": math.inf, "edgeitems": 3, "linewidth": 80},
}


def set_printoptions(
    precision: int | None = None,
    threshold: float | None = None,
    edgeitems: int | None = None,
    linewidth: int | None = None,
    profile: str | None = None,
    sci_mode: bool | None = None,
) -> None:
    """Choose how tensors are printed.

    Args:
        precision: digits after the point.
        threshold: above this many elements, only the edges are shown.
        edgeitems: how many elements at each edge.
        linewidth: characters of a line.
        profile: "default", "short" or "full"; the other arguments refine it.
        sci_mode: True or False to force or forbid scientific notation; None to decide by the values.
    """
    if profile is not None:
        for name, value in _PROFILES[profile].items():
            setattr(_options, name, value)
    given = {"precision": precision, "threshold": threshold, "edgeitems": edgeitems, "linewidth": linewidth}
    for name, value in given.items():
        if value is not None:
            setattr(_options, name, value)
    _options.sci_mode = sci_mode


class _Formatter:
    """One width and notation for all the numbers that are shown."""

    def __init__(self, shown: np.ndarray[Any, Any]) -> None:
        self.kind = shown.dtype.kind
        self.scientific = self.whole = False
        self.width = 1
        if self.kind in "iub":
            self.width = max((len(self.format(value)) for value in shown.reshape(-1)), default=1)
            return
        values = shown.astype(np.float64)
        finite = np.abs(values[np.isfinite(values) & (values != 0)])
        if finite.size:
            low, high = float(finite.min()), float(finite.max())
            self.whole = bool(np.all(finite == np.ceil(finite)))
            self.scientific = high / low > 1000.0 or high > 1e8 or (not self.whole and low < 1e-4)
        else:
            self.whole = True
        if _options.sci_mode is not None:
            self.scientific = _options.sci_mode
        shown_values = values[np.isfinite(values) & (values != 0)]
        self.width = max((len(self._number(value)) for value in shown_values.reshape(-1)), default=1)

    def _number(self, value: float) -> str:
        if self.scientific:
            return f"{value:.{_options.precision}e}"
        if self.whole:
            text = f"{value:.0f}"
            return text if not math.isfinite(value) else text + "."
        return f"{value:.{_options.precision}f}"

    def format(self, value: Any) -> str:
        """One number, right aligned."""
        if self.kind == "b":
            text = "True" if value else "False"
        elif self.kind in "iu":
            text = str(int(value))
        else:
            text = self._number(float(value))
        return text.rjust(self.width)


class _ComplexFormatter:
    """Real and imaginary parts, each with a width of its own."""

    def __init__(self, shown: np.ndarray[Any, Any]) -> None:
        self.real, self.imag = _Formatter(shown.real), _Formatter(shown.imag)
        self.width = self.real.width + self.imag.width + 1

    def format(self, value: Any) -> str:
        """One number."""
        imaginary = self.imag.format(value.imag).lstrip() + "j"
        sign = "" if imaginary[0] in "+-" else "+"
        return self.real.format(value.real) + sign + imaginary


def _edges(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The elements at the edges of every dimension."""
    for dim in range(array.ndim):
        if array.shape[dim] > 2 * _options.edgeitems:
            keep = np.r_[: _options.edgeitems, array.shape[dim] - _options.edgeitems : array.shape[dim]]
            array = array.take(keep, axis=dim)
    return array


def _vector(array: np.ndarray[Any, Any], indent: int, summarise: bool, formatter: Any) -> str:
    width = formatter.width + 2
    per_line = max(1, (_options.linewidth - indent) // width)
    edge = _options.edgeitems
    if summarise and array.shape[0] > 2 * edge:
        cells = [formatter.format(v) for v in array[:edge]] + [" ..."] + [formatter.format(v) for v in array[-edge:]]
    else:
        cells = [formatter.format(v) for v in array]
    lines = [", ".join(cells[start : start + per_line]) for start in range(0, len(cells), per_line)]
    return "[" + (",\n" + " " * (indent + 1)).join(lines) + "]"


def _nested(array: np.ndarray[Any, Any], indent: int, summarise: bool, formatter: Any) -> str:
    if array.ndim == 0:
        return str(formatter.format(array[()]))
    if array.ndim == 1:
        return _vector(array, indent, summarise, formatter)
    edge = _options.edgeitems
    if summarise and array.shape[0] > 2 * edge:
        rows = [_nested(row, indent + 1, summarise, formatter) for row in array[:edge]]
        rows += ["..."]
        rows += [_nested(row, indent + 1, summarise, formatter) for row in array[-edge:]]
    else:
        rows = [_nested(row, indent + 1, summarise, formatter) for row in array]
    separator = "," + "\n" * (array.ndim - 1) + " " * (indent + 1)
    return "[" + separator.join(rows) + "]"


def tensor_repr(tensor: Tensor, contents: Any = None) -> str:
    """`tensor([...])` with what isn't evident: dtype, shape of empty tensors, history."""
    prefix = "tensor("
    array = tensor._data
    dtype = tensor.dtype
    suffixes: list[str] = []
    default = dtypes.get_default_dtype()
    implied = dtype in (default, default.to_complex(), dtypes.int64, dtypes.bool)
    if array.size == 0 and contents is None:
        if array.ndim != 1:
            suffixes.append(f"size={tuple(array.shape)}")
        if dtype is not dtypes.get_default_dtype():
            suffixes.append(f"dtype={dtype!r}")
        text = "[]"
    else:
        if not implied:
            suffixes.append(f"dtype={dtype!r}")
        text = _contents(array, len(prefix)) if contents is None else contents
    if tensor.grad_fn is not None:
        suffixes.append(f"grad_fn=<{tensor.grad_fn.name()}>")
    elif tensor.requires_grad:
        suffixes.append("requires_grad=True")
    return _with_suffixes(prefix + text, suffixes, len(prefix))


def _contents(array: np.ndarray[Any, Any], indent: int) -> str:
    summarise = array.size > _options.threshold
    shown = _edges(array) if summarise else array
    formatter = _ComplexFormatter(shown) if array.dtype.kind == "c" else _Formatter(shown)
    return _nested(array, indent, summarise, formatter)


def _with_suffixes(text: str, suffixes: list[str], indent: int) -> str:
    last = len(text) - text.rfind("\n") + 1
    for suffix in suffixes:
        if last + len(suffix) + 2 > _options.linewidth:
            text += ",\n" + " " * indent + suffix
            last = indent + len(suffix)
        else:
            text += ", " + suffix
            last += len(suffix) + 2
    return text + ")"
