"""New tensors."""

from __future__ import annotations

import builtins
import math
from typing import Any

import numpy as np

from faltung import attributes, dtypes
from faltung.attributes import as_size, check_device, contiguous_format, preserve_format
from faltung.dtypes import INTEGER, get_default_dtype, to_numpy_dtype
from faltung.dtypes import dtype as _dtype
from faltung.engine import memory
from faltung.ops.convert import clone, fitting_number, laid_out
from faltung.ops.promotion import as_number, cast
from faltung.tensor import Tensor

_wrap = Tensor._wrap


def _finish(array: Any, requires_grad: bool, device: Any = None, layout: Any = None) -> Tensor:
    check_device(device)
    if layout not in (None, attributes.strided):
        raise RuntimeError(f"layout: expected faltung.strided, got {layout!r}. Faltung has no sparse tensors.")
    found = _wrap(array)
    return found.requires_grad_() if requires_grad else found


# --- from data


def tensor(
    data: Any, *, dtype: _dtype | None = None, device: Any = None, requires_grad: bool = False, pin_memory: bool = False
) -> Tensor:
    """A tensor with a copy of `data`: a number, nested lists, an array or a tensor.

    Python floats become the default dtype (float32), ints int64, bools bool; arrays keep their type.
    """
    check_device(device)
    return _finish(_array_from(data, dtype), requires_grad)


def _array_from(data: Any, dtype: _dtype | None) -> np.ndarray[Any, Any]:
    if isinstance(data, Tensor):
        source = data._data
    elif isinstance(data, np.ndarray | np.generic):
        source = np.asarray(data)
        dtypes.from_numpy_dtype(source.dtype)
        source = source.astype(source.dtype.newbyteorder("="), copy=False)
    else:
        return _array_from_python(data, dtype)
    wanted = source.dtype if dtype is None else to_numpy_dtype(dtype)
    return _convert_quietly(source, wanted)


@np.errstate(all="ignore")
def _convert_quietly(source: np.ndarray[Any, Any], wanted: Any) -> np.ndarray[Any, Any]:
    return source.astype(wanted, order="C", copy=True)


def _array_from_python(data: Any, dtype: _dtype | None) -> np.ndarray[Any, Any]:
    if isinstance(data, list | tuple | range):
        data = _without_tensors(data)
    elif hasattr(data, "__array__"):
        return _array_from(np.asarray(data), dtype)
    try:
        found = np.array(data)
    except ValueError:
        raise ValueError(
            f"tensor: expected nested sequences of equal lengths at every level, got {_shorten(data)}. Pad them first."
        ) from None
    except OverflowError:
        raise RuntimeError(f"tensor: Overflow when unpacking long: {_shorten(data)}.") from None
    if found.dtype.kind in "OUSV":
        if found.dtype.kind == "O" and _holds_huge_int(found):
            raise RuntimeError(f"tensor: Overflow when unpacking long: {_shorten(data)}.")
        if isinstance(data, str):
            raise TypeError("tensor: new(): invalid data type 'str'. Tensors hold numbers only.")
        kinds = sorted({type(x).__name__ for x in found.reshape(-1)})
        error: type[Exception] = TypeError if found.dtype.kind == "O" and found.ndim == 0 else ValueError
        if found.dtype.kind == "O" and "NoneType" in kinds and found.ndim == 0:
            error = RuntimeError
        raise error(f"tensor: expected numbers, got {', '.join(kinds)}: {_shorten(data)}.")
    if dtype is not None:
        return _python_to(found, to_numpy_dtype(dtype))
    if found.dtype.kind == "f":
        keep = _first_number(data, np.generic)  # NumPy's numbers know their type, Python's floats don't
        return _convert_quietly(found, found.dtype if keep else to_numpy_dtype(get_default_dtype()))
    if found.dtype.kind == "c":
        return _convert_quietly(found, to_numpy_dtype(get_default_dtype().to_complex()))
    if found.dtype.kind in "iu":
        return found.astype(np.int64, copy=False)
    return found


def _python_to(found: np.ndarray[Any, Any], wanted: Any) -> np.ndarray[Any, Any]:
    if wanted.kind in "iu" and found.size:
        limits = np.iinfo(wanted)
        if found.dtype.kind in "iu" and (found.min() < limits.min or found.max() > limits.max):
            raise RuntimeError(
                f"tensor: value cannot be converted to type {wanted.name} without overflow: range {found.min()} to "
                f"{found.max()}."
            )
    if wanted.kind not in "c" and found.dtype.kind == "c":
        raise RuntimeError(f"tensor: complex values can't be converted to {wanted.name}. Take .real or .abs() first.")
    return _convert_quietly(found, wanted)


def _shorten(data: Any) -> str:
    text = repr(data)
    return text if len(text) < 80 else text[:77] + "..."


def _holds_huge_int(found: np.ndarray[Any, Any]) -> bool:
    return found.size > 0 and all(isinstance(x, int) for x in found.reshape(-1))


def _first_number(data: Any, kind: type) -> bool:
    while isinstance(data, list | tuple) and data:
        data = data[0]
    return isinstance(data, kind | np.ndarray)


def _without_tensors(data: Any) -> Any:
    """Nested sequences with tensors in them, as arrays and lists."""
    found = []
    for entry in data:
        if isinstance(entry, Tensor):
            found.append(entry._data if entry._data.ndim else entry._data.item())
        elif isinstance(entry, list | tuple):
            found.append(_without_tensors(entry))
        else:
            found.append(entry)
    return found


def as_tensor(data: Any, dtype: _dtype | None = None, device: Any = None) -> Tensor:
    """`data` as a tensor, sharing memory with arrays and tensors of the right type."""
    check_device(device)
    if isinstance(data, Tensor):
        return data if dtype is None else cast(data, dtypes.as_dtype(dtype))
    if isinstance(data, np.ndarray) and (dtype is None or data.dtype == to_numpy_dtype(dtype)):
        return from_numpy(data)
    return tensor(data, dtype=dtype)


def asarray(
    obj: Any, *, dtype: _dtype | None = None, device: Any = None, copy: bool | None = None, requires_grad: bool = False
) -> Tensor:
    """`obj` as a tensor; copy=True always copies, copy=False never."""
    if copy:
        found = clone(obj) if isinstance(obj, Tensor) else tensor(obj)
        found = found if dtype is None else cast(found, dtype)
    else:
        found = as_tensor(obj, dtype, device)
        shares = found is obj or isinstance(obj, np.ndarray) and np.shares_memory(found._data, obj)
        if copy is False and not shares:
            raise ValueError("asarray: can't alias the memory of this object with the given dtype: use copy=None.")
    return found.detach().requires_grad_() if requires_grad else found


def from_numpy(ndarray: np.ndarray[Any, Any], /) -> Tensor:
    """A tensor on the memory of an array: writes to either show in both."""
    if not isinstance(ndarray, np.ndarray):
        raise TypeError(f"from_numpy: expected np.ndarray (got {type(ndarray).__name__}).")
    dtypes.from_numpy_dtype(ndarray.dtype)
    if not ndarray.dtype.isnative:
        raise ValueError("from_numpy: given numpy array has byte order different from the native byte order.")
    if any(step < 0 for step in ndarray.strides):
        raise ValueError(
            "from_numpy: At least one stride in the given numpy array is negative, and tensors with negative strides "
            "are not currently supported. Make a copy first: array.copy()."
        )
    found = _wrap(ndarray.view(np.ndarray))
    found._storage.export()
    return found


def frombuffer(buffer: Any, *, dtype: _dtype, count: int = -1, offset: int = 0, requires_grad: bool = False) -> Tensor:
    """A 1-d tensor on the memory of an object with the buffer protocol."""
    found = from_numpy(np.frombuffer(buffer, to_numpy_dtype(dtype), count, offset))
    return found.requires_grad_() if requires_grad else found


def scalar_tensor(s: Any, *, dtype: _dtype | None = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A 0-d tensor of the default dtype (or `dtype`)."""
    return full((), as_number(s), dtype=dtype or get_default_dtype(), device=device, requires_grad=requires_grad)


# --- filled


def _sizes(where: str, size: tuple[Any, ...]) -> tuple[int, ...]:
    try:
        sizes = as_size(size)
    except (TypeError, AttributeError):
        raise TypeError(f"{where}: expected a size as integers, got {size!r}.") from None
    if any(s < 0 for s in sizes):
        raise RuntimeError(f"{where}: Trying to create tensor with negative dimension {min(sizes)}: {list(sizes)}.")
    return sizes


def empty(
    *size: Any,
    dtype: _dtype | None = None,
    layout: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    pin_memory: bool = False,
    memory_format: attributes.memory_format = contiguous_format,
) -> Tensor:
    """An uninitialised tensor."""
    found = memory.empty(_sizes("empty", size), to_numpy_dtype(dtype or get_default_dtype()))
    if memory_format not in (contiguous_format, preserve_format):
        found = laid_out(found, memory_format, "empty")
    return _finish(found, requires_grad, device, layout)


def zeros(
    *size: Any,
    dtype: _dtype | None = None,
    layout: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    **_: Any,
) -> Tensor:
    """A tensor of zeros."""
    found = np.zeros(_sizes("zeros", _size_keyword(size, _)), to_numpy_dtype(dtype or get_default_dtype()))
    return _finish(found, requires_grad, device, layout)


def ones(
    *size: Any,
    dtype: _dtype | None = None,
    layout: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    **_: Any,
) -> Tensor:
    """A tensor of ones."""
    found = np.ones(_sizes("ones", _size_keyword(size, _)), to_numpy_dtype(dtype or get_default_dtype()))
    return _finish(found, requires_grad, device, layout)


def _size_keyword(size: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, ...]:
    """zeros(size=(2, 3)) is allowed too; pin_memory means nothing on a CPU."""
    options.pop("pin_memory", None)
    if "size" in options:
        size = (options.pop("size"),)
    if options:
        raise TypeError(f"unexpected keyword argument {next(iter(options))!r}.")
    return size


def full(
    size: Any,
    fill_value: Any,
    *,
    dtype: _dtype | None = None,
    layout: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    pin_memory: bool = False,
) -> Tensor:
    """A tensor filled with a number, whose kind (bool, int, float) decides the dtype unless given."""
    value = as_number(fill_value)
    numpy_type = to_numpy_dtype(dtype or dtypes.scalar_dtype(value))
    found = np.full(_sizes("full", (size,)), fitting_number("full", value, numpy_type), numpy_type)
    return _finish(found, requires_grad, device, layout)


def _like(
    where: str, input: Tensor, dtype: Any, device: Any, layout: Any, memory_format: Any
) -> tuple[np.ndarray[Any, Any], Any]:
    check_device(device)
    if not isinstance(input, Tensor):
        raise TypeError(f"{where}: argument 'input' must be Tensor, not {type(input).__name__}.")
    numpy_type = input._data.dtype if dtype is None else to_numpy_dtype(dtype)
    format = preserve_format if memory_format is None else memory_format
    if format is preserve_format:
        return np.empty_like(input._data, dtype=numpy_type, order="K", subok=False), layout
    return laid_out(np.empty(input._data.shape, numpy_type), format, where), layout


def empty_like(
    input: Tensor,
    *,
    dtype: Any = None,
    layout: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    memory_format: Any = None,
    pin_memory: bool = False,
) -> Tensor:
    """An uninitialised tensor of the shape, dtype and memory order of `input`."""
    return _finish(_like("empty_like", input, dtype, device, layout, memory_format)[0], requires_grad)


def zeros_like(input: Tensor, *, requires_grad: bool = False, **options: Any) -> Tensor:
    """Zeros of the shape, dtype and memory order of `input`."""
    return full_like(input, 0, requires_grad=requires_grad, **options)


def ones_like(input: Tensor, *, requires_grad: bool = False, **options: Any) -> Tensor:
    """Ones of the shape, dtype and memory order of `input`."""
    return full_like(input, 1, requires_grad=requires_grad, **options)


def full_like(
    input: Tensor,
    fill_value: Any,
    *,
    dtype: Any = None,
    layout: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    memory_format: Any = None,
    pin_memory: bool = False,
) -> Tensor:
    """A number repeated in the shape, dtype and memory order of `input`."""
    found, _ = _like("full_like", input, dtype, device, layout, memory_format)
    found[...] = fitting_number("full_like", fill_value, found.dtype)
    return _finish(found, requires_grad)


def _new_dtype(self: Tensor, dtype: Any) -> _dtype:
    return self.dtype if dtype is None else dtypes.as_dtype(dtype)


def new_tensor(
    self: Tensor, data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False, **_: Any
) -> Tensor:
    """A tensor with a copy of `data`, of this tensor's dtype."""
    return tensor(data, dtype=_new_dtype(self, dtype), device=device, requires_grad=requires_grad)


def new_empty(
    self: Tensor,
    *size: Any,
    dtype: Any = None,
    layout: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    **_: Any,
) -> Tensor:
    """An uninitialised tensor of this tensor's dtype."""
    sizes = _size_keyword(size, _)
    return empty(*sizes, dtype=_new_dtype(self, dtype), layout=layout, device=device, requires_grad=requires_grad)


def new_zeros(self: Tensor, *size: Any, dtype: Any = None, **options: Any) -> Tensor:
    """Zeros of this tensor's dtype."""
    return zeros(*size, dtype=_new_dtype(self, dtype), **options)


def new_ones(self: Tensor, *size: Any, dtype: Any = None, **options: Any) -> Tensor:
    """Ones of this tensor's dtype."""
    return ones(*size, dtype=_new_dtype(self, dtype), **options)


def new_full(self: Tensor, size: Any, fill_value: Any, *, dtype: Any = None, **options: Any) -> Tensor:
    """A number repeated, in this tensor's dtype."""
    return full(size, fill_value, dtype=_new_dtype(self, dtype), **options)


# --- sequences


def arange(
    *bounds: Any,
    start: Any = 0,
    end: Any = None,
    step: Any = 1,
    dtype: _dtype | None = None,
    layout: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    pin_memory: bool = False,
) -> Tensor:
    """Numbers from `start` up to but without `end`, in steps; int64 where all three are integers."""
    given = [as_number(bound) for bound in bounds]
    if len(given) == 1 and end is None:
        end = given[0]
    elif len(given) == 1:
        start = given[0]
    elif given:
        start, end, *rest = given
        step = rest[0] if rest else step
    if end is None:
        raise TypeError("arange: expected arange(end), arange(start, end) or arange(start, end, step).")
    start, end, step = as_number(start), as_number(end), as_number(step)
    if step == 0:
        raise RuntimeError("arange: step must be nonzero.")
    if not (math.isfinite(start) and math.isfinite(end)):
        raise RuntimeError(f"arange: unsupported range: {start} -> {end}.")
    if (end - start) * step < 0:
        raise RuntimeError(
            f"arange: upper bound and lower bound inconsistent with step sign: start={start}, end={end}, step={step}."
        )
    integers = all(isinstance(value, int) for value in (start, end, step))
    chosen = dtype or (dtypes.int64 if integers else get_default_dtype())
    if chosen is dtypes.int64 and not integers:  # PyTorch counts in the result's type where that is int64
        start, end, step, integers = int(start), int(end), int(step), True
    count = math.ceil((end - start) / step) if not integers else -((start - end) // step)
    numpy_type = to_numpy_dtype(chosen)
    if integers:
        found = np.arange(start, start + count * step, step)[:count].astype(numpy_type)
    else:  # each element from its index, as PyTorch does: no error adds up
        if chosen.kind <= INTEGER:
            start, step = int(start), int(step)
        found = _convert_quietly(start + step * np.arange(count, dtype=np.float64), numpy_type)
    return _finish(found, requires_grad, device, layout)


def linspace(
    start: Any,
    end: Any,
    steps: int,
    *,
    dtype: _dtype | None = None,
    layout: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """`steps` evenly spaced numbers from `start` to `end`, both included."""
    first, last = as_number(start), as_number(end)
    if steps < 0:
        raise RuntimeError(f"linspace: number of steps must be non-negative, got {steps}.")
    is_complex = any(isinstance(bound, builtins.complex) for bound in (first, last))
    chosen = dtype or (get_default_dtype().to_complex() if is_complex else get_default_dtype())
    work = np.float64 if not chosen.is_complex else np.complex128
    if chosen.kind == INTEGER:
        first, last = int(first), int(last)
        step = (last - first) / (steps - 1) if steps > 1 else 0
        index = np.arange(steps)
        half = steps // 2
        values = np.where(index < half, first + step * index, last - step * (steps - 1 - index))
        found = (
            np.trunc(values).astype(to_numpy_dtype(chosen))
            if steps != 1
            else np.array([int(first)], to_numpy_dtype(chosen))
        )
    elif chosen is dtypes.float32 and steps > 1:
        found = _single_linspace(np.float32(first), np.float32(last), steps)
    else:
        found = np.linspace(first, last, steps, dtype=work).astype(to_numpy_dtype(chosen))
    return _finish(found, requires_grad, device, layout)


def _single_linspace(first: np.float32, last: np.float32, steps: int) -> np.ndarray[Any, Any]:
    """PyTorch's numbers to the bit: a step in float32, counted from the nearer end, one rounding for each number."""
    step = np.float64((last - first) / np.float32(steps - 1))
    index = np.arange(steps)
    from_end = last - step * (steps - 1 - index)
    return np.where(index < steps // 2, first + step * index, from_end).astype(np.float32)


def logspace(
    start: Any,
    end: Any,
    steps: int,
    base: float = 10.0,
    *,
    dtype: _dtype | None = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """base ** linspace(start, end, steps)."""
    chosen = dtype or get_default_dtype()
    if chosen.kind == INTEGER:
        start, end = int(as_number(start)), int(as_number(end))
    exponents = linspace(start, end, steps, dtype=dtypes.float64)
    found = np.power(float(base), exponents._data).astype(to_numpy_dtype(chosen))
    return _finish(found, requires_grad, device)


def eye(
    n: int,
    m: int | None = None,
    *,
    dtype: _dtype | None = None,
    layout: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """A matrix with ones on its diagonal."""
    if n < 0 or (m is not None and m < 0):
        raise RuntimeError(f"eye: n and m must be greater or equal to 0, got {n} and {m}.")
    found = np.eye(n, n if m is None else m, dtype=to_numpy_dtype(dtype or get_default_dtype()))
    return _finish(found, requires_grad, device, layout)


def complex(real: Tensor, imag: Tensor) -> Tensor:
    """A complex tensor from its two parts."""
    from faltung.ops.complex_numbers import make_complex

    return make_complex(real, imag)
