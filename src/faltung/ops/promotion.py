"""Bringing operands to a common type before they go through the door."""

from __future__ import annotations

from typing import Any

import numpy as np

from faltung import dtypes
from faltung.autograd.graph import Op
from faltung.dtypes import FLOATING, OF_NUMPY, dtype, result_type
from faltung.ops.apply import apply
from faltung.tensor import Tensor

__all__ = ["Cast", "as_float", "as_number", "as_operand", "cast", "is_number", "number", "operands"]

_wrap = Tensor._wrap
_SMALL = 3e4  # numbers below are finite in every floating type


class Cast(Op):
    """Conversion to another type; the gradient converts back."""

    name = "to_copy"

    @staticmethod
    def forward(ctx: Any, x: Any, *, to: Any) -> Any:
        return convert(x, to)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad  # the tape gives every gradient the type of its input


def convert(array: np.ndarray[Any, Any], numpy_type: Any) -> np.ndarray[Any, Any]:
    """`array` in another type, keeping the order of its dimensions in memory; complex to real
    drops the imaginary part.
    """
    if array.dtype.kind == "c" and numpy_type.kind not in "cb":
        array = array.real
    if array.dtype.kind == "f" and numpy_type.kind == "u":  # C wraps negative numbers round, as PyTorch does
        return array.astype(np.int64).astype(numpy_type)
    return array.astype(numpy_type, order="K")


def cast(tensor: Tensor, to: dtype) -> Tensor:
    """`tensor` with elements of type `to`: itself if they are."""
    if tensor._data.dtype is to.np or tensor._data.dtype == to.np:
        return tensor
    found: Tensor = apply(Cast, tensor, to=dtypes.to_numpy_dtype(to))
    return found


def is_number(value: Any) -> bool:
    """Whether `value` is a Python or NumPy number."""
    return isinstance(value, int | float | complex | np.number | np.bool_)


def as_number(value: Any) -> Any:
    """A Python number from a number or a one-element tensor."""
    if isinstance(value, Tensor):
        return value.item()
    return value.item() if isinstance(value, np.generic) else value


def number(value: Any, numpy_type: Any) -> Tensor:
    """A number as a 0-d tensor of the given type."""
    if numpy_type.kind == "f" and -_SMALL < value < _SMALL:
        return _wrap(np.array(value, numpy_type))
    return _wrap(_any_number(value, numpy_type))


@np.errstate(all="ignore")
def _any_number(value: Any, numpy_type: Any) -> np.ndarray[Any, Any]:
    if numpy_type.kind in "iu" and isinstance(value, int):
        bits = numpy_type.itemsize * 8  # wraps round as C does
        value = int(value) & (2**bits - 1)
        return np.array(value, np.dtype(f"u{numpy_type.itemsize}")).astype(numpy_type)
    return np.asarray(value).astype(numpy_type)


def as_operand(where: str, value: Any, like: Tensor | None = None) -> Tensor:
    """A tensor argument: a tensor, or a number in its own type."""
    if isinstance(value, Tensor):
        return value
    if is_number(value):
        kind = dtypes.scalar_dtype(value) if like is None else result_type(like, value)
        return number(value, dtypes.to_numpy_dtype(kind))
    raise TypeError(
        f"{where}: expected a Tensor or a number, got {type(value).__name__}. Convert it with faltung.tensor(...) "
        "first."
    )


def operands(where: str, x: Any, y: Any) -> tuple[Tensor, Tensor]:
    """Two operands (tensors or numbers) as tensors of the common type."""
    if isinstance(x, Tensor):
        data = x._data
        if isinstance(y, Tensor):
            other = y._data
            if data.dtype is other.dtype or data.dtype == other.dtype:
                return x, y
            common = result_type(x, y)
            return cast(x, common), cast(y, common)
        kind = data.dtype.kind
        if kind == "f" and isinstance(y, int | float):
            return x, number(y, data.dtype)
    if not isinstance(x, Tensor) and not isinstance(y, Tensor):
        require_tensor(where, "input", x)
    for value in (x, y):
        if not isinstance(value, Tensor) and not is_number(value):
            raise TypeError(
                f"{where}: expected a Tensor or a number, got {type(value).__name__}. "
                "Convert it with faltung.tensor(...) first."
            )
    common = result_type(x, y)
    return _as_common(x, common), _as_common(y, common)


def _as_common(value: Any, common: dtype) -> Tensor:
    return cast(value, common) if isinstance(value, Tensor) else number(value, dtypes.to_numpy_dtype(common))


def require_tensor(where: str, name: str, value: Any) -> None:
    """TypeError unless `value` is a tensor."""
    if not isinstance(value, Tensor):
        raise TypeError(
            f"{where}: argument '{name}' must be Tensor, not {type(value).__name__}. Convert it with "
            "faltung.tensor(...) first."
        )


def tensor_pair(where: str, x: Any, y: Any) -> tuple[Tensor, Tensor]:
    """Two operands that both have to be tensors, of the common type."""
    require_tensor(where, "input", x)
    require_tensor(where, "other", y)
    return operands(where, x, y)


def as_float(tensor: Tensor) -> Tensor:
    """`tensor`, converted to the default floating type if it holds integers or truth values."""
    if tensor._data.dtype.kind in "fc":
        return tensor
    return cast(tensor, dtypes.get_default_dtype())


def require_differentiable_kind(where: str, tensor: Tensor) -> None:
    """RuntimeError for an integer tensor where the result has to be of the same, fractional type."""
    found = OF_NUMPY[tensor._data.dtype]
    if found.kind < FLOATING:
        raise RuntimeError(
            f"{where}: expected a floating point or complex tensor, got {found.legacy_name} ({found}). "
            "Convert it with .float() first."
        )
