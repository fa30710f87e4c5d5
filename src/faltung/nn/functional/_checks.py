"""Argument normalisation and the one error format: where, expected, got, way out.

Checks run after a cheap test has failed, or once per shape behind a cache, so they may take their time.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any

from faltung.tensor import Tensor

IntOrInts = int | Sequence[int]


def message(where: str, problem: str, way_out: str | None = None) -> str:
    """`where: problem`, and the way out as a sentence on a line of its own."""
    return f"{where}: {problem}" if not way_out else f"{where}: {problem}\n{way_out}"


def shape_text(shape: Iterable[int]) -> str:
    """`(64, 1, 28, 28)`."""
    return str(tuple(shape))


def type_name(value: object) -> str:
    """Short name of a value's type, for messages."""
    return "None" if value is None else type(value).__name__


def as_int(where: str, name: str, value: Any) -> int:
    """One integer; TypeError for booleans, floats, strings, None."""
    if type(value) is int:
        return value
    if not isinstance(value, (bool, str)) and hasattr(value, "__index__"):
        try:
            return operator.index(value)
        except TypeError:
            pass
    raise TypeError(message(where, f"{name} must be an int, got {value!r} ({type_name(value)})"))


def as_ints(where: str, name: str, value: Any, ndim: int) -> tuple[int, ...]:
    """`3`, `(3,)` or `(3, 5)` -> `ndim` integers. TypeError for other types, RuntimeError for another length."""
    if isinstance(value, (list, tuple)):
        items = tuple(as_int(where, f"{name}[{i}]", item) for i, item in enumerate(value))
        if len(items) == 1:
            return items * ndim
        if len(items) != ndim:
            raise RuntimeError(
                message(where, f"{name} must be an int or {ndim} of them, got {len(items)}: {name}={tuple(value)}")
            )
        return items
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(message(where, f"{name} must be an int or a tuple of ints, got {value!r} ({type_name(value)})"))
    return (as_int(where, name, value),) * ndim


def as_bool(where: str, name: str, value: Any) -> bool:
    """A bool; TypeError otherwise."""
    if isinstance(value, bool):
        return value
    raise TypeError(message(where, f"{name} must be a bool, got {value!r} ({type_name(value)})"))


def as_number(where: str, name: str, value: Any) -> float:
    """A Python number from anything like one (NumPy's, a 0-d tensor); TypeError for all else."""
    if isinstance(value, (int, float)):
        return value
    if hasattr(value, "__float__") and getattr(value, "ndim", 1) == 0:
        return float(value)
    raise TypeError(message(where, f"{name} must be a number, got {value!r} ({type_name(value)})"))


def check_at_least(where: str, name: str, values: Sequence[int], minimum: int) -> None:
    """RuntimeError unless every value is at least `minimum`."""
    if min(values, default=minimum) < minimum:
        shown = values[0] if len(set(values)) == 1 else tuple(values)
        kind = {0: "must not be negative", 1: "must be positive"}.get(minimum, f"must be at least {minimum}")
        raise RuntimeError(message(where, f"{name} {kind}, got {name}={shown}"))


def check_tensor(where: str, name: str, value: Any) -> Tensor:
    """The tensor itself; TypeError for anything else, saying how to make one."""
    if isinstance(value, Tensor):
        return value
    kind = type_name(value)
    hints = {
        "ndarray": f"torch.from_numpy({name}) makes a tensor of it.",
        "list": f"torch.tensor({name}) makes a tensor of it.",
        "tuple": f"torch.tensor({name}) makes a tensor of it.",
        "float": f"torch.tensor({name}) makes a tensor of it.",
        "int": f"torch.tensor({name}) makes a tensor of it.",
    }
    module = type(value).__module__.partition(".")[0]
    hint = hints.get(kind)
    if module == "torch":
        hint = f"This is PyTorch's own tensor: use torch.from_numpy({name}.numpy()) of this library."
    raise TypeError(
        message(where, f"{name} must be a Tensor, got {module + '.' if module == 'torch' else ''}{kind}", hint)
    )


def check_tensors(where: str, optional: Iterable[str] = (), **tensors: Any) -> None:
    """`check_tensor` for each; the names in `optional` may be None."""
    for name, value in tensors.items():
        if not (value is None and name in optional):
            check_tensor(where, name, value)


def check_same_dtype(where: str, **tensors: Tensor | None) -> None:
    """RuntimeError unless all given tensors (None apart) share their dtype; says which call converts."""
    (first, reference), *others = [(name, t) for name, t in tensors.items() if t is not None]
    for name, tensor in others:
        if tensor.dtype is not reference.dtype:
            got = f"{first} and {name} must have one dtype, got {first} {reference.dtype} and {name} {tensor.dtype}"
            raise RuntimeError(message(where, got, _dtype_hint(first, reference, name, tensor)))


def _dtype_hint(first: str, reference: Tensor, name: str, tensor: Tensor) -> str:
    if not reference.dtype.is_floating_point and tensor.dtype.is_floating_point:
        scale = " / 255" if reference.dtype.itemsize == 1 else ""
        return f"Convert the data: {first}.to({tensor.dtype}){scale}."
    return f"Convert one of them: {first}.to({tensor.dtype}), or {name}.to({reference.dtype})."


def check_rank(
    where: str,
    name: str,
    tensor: Tensor,
    layouts: dict[int, str],
    way_out: str | None = None,
    kind: type[Exception] = RuntimeError,
) -> None:
    """Raises `kind` unless the rank is a key of `layouts`, such as {3: "(C, H, W)", 4: "(N, C, H, W)"}."""
    if tensor.dim() not in layouts:
        wanted = " or ".join(f"{rank}-d {layout}" for rank, layout in sorted(layouts.items(), reverse=True))
        got = f"{name} must be {wanted}, got {tensor.dim()}-d {shape_text(tensor.shape)}"
        raise kind(message(where, got, way_out))


def not_implemented_for(where: str, tensor: Tensor, way_out: str | None = None) -> NotImplementedError:
    """The error for a dtype that an operation does not support."""
    hint = way_out or f"Convert the data: {tensor.dtype} input as x.float()."
    return NotImplementedError(message(where, f"not implemented for {tensor.dtype}", hint))
