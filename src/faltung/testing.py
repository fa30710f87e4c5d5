"""Comparing tensors in tests: `assert_close`, with tolerances that follow the dtype."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from faltung import dtypes
from faltung.dtypes import dtype
from faltung.tensor import Tensor

__all__ = ["assert_allclose", "assert_close", "make_tensor"]

_TOLERANCES = {  # dtype name -> (rtol, atol)
    "float16": (1e-3, 1e-5),
    "bfloat16": (1.6e-2, 1e-5),
    "float32": (1.3e-6, 1e-5),
    "float64": (1e-7, 1e-7),
    "complex64": (1.3e-6, 1e-5),
    "complex128": (1e-7, 1e-7),
}

Message = str | Callable[[str], str] | None


def assert_close(
    actual: Any,
    expected: Any,
    *,
    allow_subclasses: bool = True,
    rtol: float | None = None,
    atol: float | None = None,
    equal_nan: bool = False,
    check_device: bool = True,
    check_dtype: bool = True,
    check_layout: bool = True,
    check_stride: bool = False,
    msg: Message = None,
) -> None:
    """AssertionError unless |actual - expected| <= atol + rtol |expected| everywhere.

    Takes tensors, NumPy arrays, numbers, and sequences and mappings of them. Without tolerances they follow the dtype
    (float32: rtol 1.3e-6, atol 1e-5; float64: 1e-7 both; integers: exact); give both or neither. `msg`, a text or a
    function of the generated text, replaces the message.
    """
    if (rtol is None) != (atol is None):
        raise ValueError(
            f"assert_close: rtol and atol must both be given or both be left out, got rtol={rtol}, atol={atol}."
        )
    checks = _Checks(rtol, atol, equal_nan, check_dtype, check_stride, allow_subclasses)
    problem = checks.compare(actual, expected, "")
    if problem is not None:
        raise AssertionError(problem if msg is None else msg(problem) if callable(msg) else msg)


def assert_allclose(
    actual: Any,
    expected: Any,
    rtol: float | None = None,
    atol: float | None = None,
    equal_nan: bool = True,
    msg: str = "",
) -> None:
    """Older form of `assert_close`: any dtypes, nan equal to nan."""
    assert_close(
        actual,
        expected,
        rtol=rtol,
        atol=atol,
        equal_nan=equal_nan,
        check_dtype=False,
        check_stride=False,
        msg=msg or None,
    )


class _Checks:
    """The options of one comparison."""

    def __init__(
        self,
        rtol: float | None,
        atol: float | None,
        equal_nan: bool,
        check_dtype: bool,
        check_stride: bool,
        allow_subclasses: bool,
    ) -> None:
        self.rtol, self.atol, self.equal_nan = rtol, atol, equal_nan
        self.check_dtype, self.check_stride, self.allow_subclasses = check_dtype, check_stride, allow_subclasses

    def compare(self, actual: Any, expected: Any, path: str) -> str | None:
        """What differs, or None."""
        if isinstance(actual, Mapping) and isinstance(expected, Mapping):
            return self._mappings(actual, expected, path)
        if _is_sequence(actual) and _is_sequence(expected):
            return self._sequences(actual, expected, path)
        if actual is None or expected is None:
            return None if actual is expected else f"None mismatch{path}: {actual!r} is not {expected!r}"
        if isinstance(actual, (int, float, complex)) and isinstance(expected, (int, float, complex)):
            return self._numbers(actual, expected, path)
        if not self.allow_subclasses and type(actual) is not type(expected):
            raise TypeError(f"assert_close{path}: got {type(actual).__name__} and {type(expected).__name__}.")
        return self._tensors(_as_tensor(actual, path), _as_tensor(expected, path), path)

    def _mappings(self, actual: Mapping[Any, Any], expected: Mapping[Any, Any], path: str) -> str | None:
        if set(actual) != set(expected):
            missing = sorted(map(repr, set(expected) - set(actual)))
            extra = sorted(map(repr, set(actual) - set(expected)))
            return f"The keys of the mappings do not match{path}:\nMissing: {missing}\nAdditional: {extra}"
        problems = (self.compare(actual[key], expected[key], _item(path, repr(key))) for key in expected)
        return next((problem for problem in problems if problem), None)

    def _sequences(self, actual: Sequence[Any], expected: Sequence[Any], path: str) -> str | None:
        if len(actual) != len(expected):
            return f"The length of the sequences mismatch{path}: {len(actual)} != {len(expected)}"
        pairs = enumerate(zip(actual, expected, strict=True))
        problems = (self.compare(a, e, _item(path, str(i))) for i, (a, e) in pairs)
        return next((problem for problem in problems if problem), None)

    def _numbers(self, actual: Any, expected: Any, path: str) -> str | None:
        if self.check_dtype and type(actual) is not type(expected):
            return f"The types of the numbers do not match{path}: {type(actual).__name__} != {type(expected).__name__}"
        precision = "float64" if isinstance(expected, (float, complex)) or isinstance(actual, (float, complex)) else ""
        rtol, atol = self._tolerances(precision)
        if not _close(np.asarray(actual), np.asarray(expected), rtol, atol, self.equal_nan).all():
            word = "equal" if rtol == atol == 0 else "close"
            return (
                f"Scalars are not {word}!{path}\n\nExpected {expected} but got {actual}.\n"
                f"Absolute difference: {abs(actual - expected)} (up to {atol} allowed)\n"
                f"Relative difference: {abs(actual - expected) / abs(expected) if expected else float('inf')} "
                f"(up to {rtol} allowed)"
            )
        return None

    def _tensors(self, actual: Tensor, expected: Tensor, path: str) -> str | None:
        if actual.shape != expected.shape:
            return f"The values for attribute 'shape' do not match{path}: {actual.shape} != {expected.shape}."
        if self.check_stride and actual.stride() != expected.stride():
            return f"The values for attribute 'stride()' do not match{path}: {actual.stride()} != {expected.stride()}."
        if self.check_dtype and actual.dtype != expected.dtype:
            return f"The values for attribute 'dtype' do not match{path}: {actual.dtype} != {expected.dtype}."
        pair = [self._tolerances(tensor.dtype.name) for tensor in (actual, expected)]
        rtol, atol = max(r for r, _ in pair), max(a for _, a in pair)
        left, right = actual.detach().numpy(), expected.detach().numpy()
        close = _close(left, right, rtol, atol, self.equal_nan)
        return None if close.all() else _report(left, right, close, rtol, atol, path)

    def _tolerances(self, name: str) -> tuple[float, float]:
        if self.rtol is not None and self.atol is not None:
            return self.rtol, self.atol
        return _TOLERANCES.get(name, (0.0, 0.0))


def _is_sequence(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def _item(path: str, key: str) -> str:
    return f"{path or ' at '}[{key}]"


def _as_tensor(value: Any, path: str) -> Tensor:
    if isinstance(value, Tensor):
        return value
    if isinstance(value, (np.ndarray, np.generic, int, float, complex)):
        return Tensor._wrap(np.asarray(value))
    raise TypeError(
        f"assert_close{path}: expected tensors, arrays, numbers or containers of them, got {type(value).__name__}."
    )


def _wide(array: np.ndarray) -> np.ndarray:
    """At a precision in which the comparison itself does not round."""
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64) if array.dtype.kind in "fc" else array


def _close(actual: np.ndarray, expected: np.ndarray, rtol: float, atol: float, equal_nan: bool) -> np.ndarray:
    if rtol == atol == 0:
        equal = actual == expected
        return equal | (_isnan(actual) & _isnan(expected)) if equal_nan else equal
    return np.isclose(_wide(actual), _wide(expected), rtol=rtol, atol=atol, equal_nan=equal_nan)


def _isnan(array: np.ndarray) -> np.ndarray:
    return np.isnan(array) if array.dtype.kind in "fc" else np.zeros(array.shape, bool)


def _report(actual: np.ndarray, expected: np.ndarray, close: np.ndarray, rtol: float, atol: float, path: str) -> str:
    """How many elements differ, and where the largest differences are."""
    with np.errstate(all="ignore"):
        kind = np.complex128 if "c" in (actual.dtype.kind, expected.dtype.kind) else np.float64
        left, right = actual.astype(kind), expected.astype(kind)
        absolute = np.where(close, 0, np.abs(left - right))
        relative = np.where(close, 0, absolute / np.abs(right))
    wrong = int(np.count_nonzero(~close))
    equal = rtol == atol == 0
    lines = [
        f"Tensor-likes are not {'equal' if equal else 'close'}!{path}",
        "",
        f"Mismatched elements: {wrong} / {close.size} ({wrong / close.size:.1%})",
    ]
    for name, difference, allowed in (("absolute", absolute, atol), ("relative", relative, rtol)):
        flat = int(np.argmax(np.nan_to_num(difference, nan=np.inf, posinf=np.inf)))
        index = tuple(int(i) for i in np.unravel_index(flat, close.shape))
        limit = "" if equal else f" (up to {allowed} allowed)"
        lines.append(f"Greatest {name} difference: {difference.reshape(-1)[flat]} at index {index}{limit}")
    return "\n".join(lines)


def make_tensor(
    *shape: Any,
    dtype: dtype,
    device: Any = None,
    low: float | None = None,
    high: float | None = None,
    requires_grad: bool = False,
    noncontiguous: bool = False,
    exclude_zero: bool = False,
) -> Tensor:
    """A tensor of random values from [low, high), by default -9 to 9 (unsigned: 0 to 9; bool: 0 or 1)."""
    from faltung.random import choose

    sizes = tuple(shape[0]) if len(shape) == 1 and not isinstance(shape[0], int) else tuple(shape)
    stream = np.random.RandomState(int(choose(None).words(1)[0]))
    full = (*sizes[:-1], 2 * sizes[-1]) if noncontiguous and sizes else sizes
    if dtype is dtypes.bool:
        array = stream.randint(0, 2, full).astype(bool)
    elif not (dtype.is_floating_point or dtype.is_complex):
        lowest = 0 if not dtype.is_signed else -9
        array = stream.randint(int(lowest if low is None else low), int(10 if high is None else high), full)
    else:
        span = (-9.0 if low is None else low, 9.0 if high is None else high)
        array = stream.uniform(*span, full)
        if dtype.is_complex:
            array = array + 1j * stream.uniform(*span, full)
    if exclude_zero:
        array = np.where(array == 0, 1, array)
    array = np.asarray(array).astype(dtype.np)
    if noncontiguous and sizes:
        array = array[..., ::2]
    return Tensor._wrap(array).requires_grad_(requires_grad)
