"""Copies and conversions: clone, contiguous, to, and writing whole tensors."""

from __future__ import annotations

from typing import Any

import numpy as np

from faltung import attributes, dtypes
from faltung.attributes import channels_last, channels_last_3d, check_device, contiguous_format, preserve_format
from faltung.autograd.graph import Op
from faltung.autograd.modes import settle_all
from faltung.dtypes import dtype as _dtype
from faltung.engine import layout
from faltung.ops.apply import apply, apply_inplace
from faltung.ops.promotion import as_number, cast, convert
from faltung.tensor import Tensor

_wrap = Tensor._wrap


def laid_out(array: np.ndarray[Any, Any], format: attributes.memory_format, where: str) -> np.ndarray[Any, Any]:
    """A copy of `array` in the given memory format."""
    if format is preserve_format:
        dense = array.flags.c_contiguous or _is_dense(array)
        return layout.copied(array, layout.order_of(array) if dense else range(array.ndim))
    if format is contiguous_format:
        return layout.copied(array, range(array.ndim))
    order = format.order or ()
    if array.ndim != len(order):
        raise RuntimeError(
            f"{where}: required rank {len(order)} tensor to use {format} format, got a tensor with {array.ndim} "
            "dimensions."
        )
    return layout.copied(array, order)


def _is_dense(array: np.ndarray[Any, Any]) -> bool:
    """Whether the elements fill their memory without gaps or overlaps, in any order of dimensions."""
    expected = array.itemsize
    for stride, size in sorted((s, n) for s, n in zip(array.strides, array.shape) if n != 1):
        if stride != expected:
            return False
        expected *= size
    return True


class Clone(Op):
    """A copy."""

    name = "clone"
    quiet = True

    @staticmethod
    def forward(ctx: Any, x: Any, *, format: Any) -> Any:
        return laid_out(x, format, "clone")

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


def clone(input: Tensor, *, memory_format: attributes.memory_format = preserve_format) -> Tensor:
    """A copy with memory of its own; gradients flow through it."""
    found: Tensor = apply(Clone, input, format=memory_format)
    return found


def contiguous(input: Tensor, memory_format: attributes.memory_format = contiguous_format) -> Tensor:
    """The tensor itself if it lies in memory as asked, else such a copy."""
    return input if is_contiguous(input, memory_format) else clone(input, memory_format=memory_format)


def is_contiguous(input: Tensor, memory_format: attributes.memory_format = contiguous_format) -> bool:
    """Whether the elements lie in memory in logical order, or in the order of another memory format."""
    data = input._data
    if memory_format in (contiguous_format, preserve_format):
        return bool(data.flags.c_contiguous)
    order = memory_format.order or ()
    return data.ndim == len(order) and bool(data.transpose(order).flags.c_contiguous)


def _parse_to(args: tuple[Any, ...], dtype: Any, device: Any) -> tuple[Any, Any, list[Any]]:
    """The overloads of to(): a dtype, a device, another tensor, or device and dtype."""
    rest = list(args)
    if rest and isinstance(rest[0], Tensor):
        return rest[0].dtype, None, rest[1:]
    if rest and not isinstance(rest[0], _dtype) and rest[0] not in (float, int, bool, complex):
        if rest[0] is not None and not isinstance(rest[0], str | int | attributes.device):
            raise TypeError(f"to: expected a dtype, a device or a Tensor, got {rest[0]!r}.")
        device = rest.pop(0)
        if rest and (rest[0] is None or not isinstance(rest[0], bool)):
            dtype = rest.pop(0)
        return dtype, device, rest
    if rest:
        dtype = rest.pop(0)
    return dtype, device, rest


def to(
    input: Tensor,
    *args: Any,
    dtype: Any = None,
    device: Any = None,
    non_blocking: bool = False,
    copy: bool = False,
    memory_format: attributes.memory_format = preserve_format,
    other: Any = None,
) -> Tensor:
    """The tensor with another dtype (or on another device: only the CPU exists, or laid out in another memory format).

    Itself where nothing changes, unless `copy` is true.
    """
    if other is not None:
        args = (other, *args)
    dtype, device, rest = _parse_to(args, dtype, device)
    check_device(device)
    if rest:
        copy = bool(rest[1]) if len(rest) > 1 else copy
    result = input if dtype is None else cast(input, dtypes.as_dtype(dtype))
    if memory_format is not preserve_format and not is_contiguous(result, memory_format):
        return clone(result, memory_format=memory_format)
    return clone(result, memory_format=memory_format) if copy and result is input else result


def type_as(input: Tensor, other: Tensor) -> Tensor:
    """Converted to the dtype of `other`."""
    return cast(input, other.dtype)


def type_(input: Tensor, dtype: Any = None, non_blocking: bool = False) -> Any:
    """The old-style type name, or the tensor converted to a dtype (or to such a name)."""
    if dtype is None:
        return f"faltung.{input.dtype.legacy_name}Tensor"
    if isinstance(dtype, str):
        name = dtype.rsplit(".", 1)[-1].removesuffix("Tensor")
        found = [d for d in dtypes.ALL_DTYPES if d.legacy_name == name]
        if not found:
            raise ValueError(f"type: invalid type: {dtype!r}. Use a dtype such as faltung.float32.")
        return cast(input, found[0])
    legacy = getattr(dtype, "element_type", None)
    return cast(input, legacy if legacy is not None else dtypes.as_dtype(dtype))


def cpu(input: Tensor, memory_format: attributes.memory_format = preserve_format) -> Tensor:
    """The tensor itself: it is on the CPU."""
    return to(input, memory_format=memory_format)


def cuda(input: Tensor, device: Any = None, non_blocking: bool = False) -> Tensor:
    """Always an error: there is no GPU support."""
    attributes.no_such_device("cuda" if device is None else device)


# --- writing whole tensors


class Copy(Op):
    """The second tensor, broadcast and converted to the first one's shape and type."""

    name = "copy"
    quiet = True

    @staticmethod
    def forward(ctx: Any, target: Any, source: Any) -> Any:
        return convert_to(source, target)

    @staticmethod
    def inplace(ctx: Any, target: Any, source: Any) -> None:
        np.copyto(target, convert_to(source, target), casting="unsafe")

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return None, grad


def convert_to(source: np.ndarray[Any, Any], target: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """`source` in the shape and type of `target`; a view of it where possible."""
    if source.dtype != target.dtype:
        source = convert(source, target.dtype)
    if source.shape == target.shape:
        return source
    try:
        return np.broadcast_to(source, target.shape)
    except ValueError:
        raise RuntimeError(
            f"copy_: The size of the source tensor {list(source.shape)} must match the target's {list(target.shape)}, "
            "or broadcast to it."
        ) from None


def copy_(input: Tensor, src: Any, non_blocking: bool = False) -> Tensor:
    """Overwrite with the values of `src`, broadcast and converted."""
    if not isinstance(src, Tensor):
        raise TypeError(f"copy_: argument 'src' must be Tensor, not {type(src).__name__}. Use fill_() for a number.")
    return apply_inplace(Copy, input, src)


class Fill(Op):
    """All elements set to a number."""

    name = "fill"
    quiet = True

    @staticmethod
    def forward(ctx: Any, x: Any, *, value: Any) -> Any:
        found = np.empty_like(x)
        found.fill(value)
        return found

    @staticmethod
    def inplace(ctx: Any, x: Any, *, value: Any) -> None:
        x[...] = value

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return grad * 0


def fill_(input: Tensor, value: Any) -> Tensor:
    """Set every element to `value`, a number or a 0-d tensor."""
    if isinstance(value, Tensor):
        if value._data.ndim:
            raise RuntimeError(
                f"fill_: only supports 0-dimension value tensor but got tensor with {value._data.ndim} dimensions."
            )
        return apply_inplace(Copy, input, value)
    return apply_inplace(Fill, input, value=fitting_number("fill_", value, input._data.dtype))


def fitting_number(where: str, value: Any, numpy_type: Any) -> Any:
    """`value` as an element of the type; RuntimeError where it overflows."""
    value = as_number(value)
    if isinstance(value, complex) and numpy_type.kind != "c":
        raise RuntimeError(f"{where}: value cannot be converted to type {numpy_type.name} without overflow: {value}.")
    if numpy_type.kind in "iu":
        limits = np.iinfo(numpy_type)
        if value != value or not limits.min <= value <= limits.max:
            unsigned_wrap = numpy_type.kind == "u" and -limits.max <= value <= limits.max  # as C wraps round
            if not unsigned_wrap:
                raise RuntimeError(
                    f"{where}: value cannot be converted to type {numpy_type.name} without overflow: {value}."
                )
            value = int(value) & int(limits.max)
        return int(value)
    if numpy_type.kind == "f" and abs(value) != np.inf and abs(value) > np.finfo(numpy_type).max:
        raise RuntimeError(f"{where}: value cannot be converted to type {numpy_type.name} without overflow: {value}.")
    return value


def zero_(input: Tensor) -> Tensor:
    """Set every element to zero."""
    return apply_inplace(Fill, input, value=0)


# --- out of the library


def numpy(input: Tensor, *, force: bool = False) -> np.ndarray[Any, Any]:
    """The elements as a NumPy array on the same memory."""
    if force:
        input = input.detach()
    if input.requires_grad:
        raise RuntimeError(
            "numpy: Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead."
        )
    settle_all()
    input._storage.export()
    return input._data.view()


def array_protocol(input: Tensor, dtype: Any = None, copy: Any = None) -> np.ndarray[Any, Any]:
    """`np.asarray(tensor)`."""
    found = numpy(input)
    if dtype is not None and found.dtype != dtype:
        return found.astype(dtype)
    return found.copy(order="K") if copy else found


def item(input: Tensor) -> Any:
    """The only element as a Python number."""
    data = input._data
    if data.size != 1:
        raise RuntimeError(
            f"item: a Tensor with {data.size} elements cannot be converted to Scalar. Reduce it first, or use tolist()."
        )
    return data.item()


def tolist(input: Tensor) -> Any:
    """The elements as nested lists of Python numbers."""
    return input._data.tolist()


__all__ = ["Clone", "Copy", "channels_last", "channels_last_3d", "clone", "contiguous", "copy_", "fill_", "to", "zero_"]
