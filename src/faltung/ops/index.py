"""Square brackets: reading and writing with integers, slices, None, Ellipsis, and tensors of positions or truth values.

An index is taken apart into a basic part, which makes a view, and then an advanced part (tensors), which copies.
Integers
belong to the basic part, as in PyTorch: `x[0, :, i]` first selects, so that the result keeps the order of dimensions.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from faltung.autograd.graph import Op
from faltung.ops.apply import apply, apply_inplace
from faltung.ops.convert import Copy, fill_
from faltung.ops.promotion import is_number, number
from faltung.ops.split import Select, zeros_like_layout
from faltung.tensor import Tensor

_wrap = Tensor._wrap
_ALL = slice(None)


class BasicIndex(Op):
    """x[index] with integers, slices, None and Ellipsis: a view."""

    name = "slice"
    is_view = True
    quiet = True

    @staticmethod
    def forward(ctx: Any, x: Any, *, index: Any) -> Any:
        ctx.shape, ctx.index = x.shape, index
        return x[(*index, ...)] if Ellipsis not in index else x[index]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        found: Tensor = apply(PutBasic, grad, shape=ctx.shape, index=ctx.index)
        return found


class PutBasic(Op):
    """Zeros of `shape` with the input written at a basic index."""

    name = "slice_backward"
    quiet = True

    @staticmethod
    def forward(ctx: Any, x: Any, *, shape: Any, index: Any) -> Any:
        ctx.index = index
        found = zeros_like_layout(x, shape) if x.ndim == len(shape) else np.zeros(shape, x.dtype)
        found[index] = x
        return found

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        found: Tensor = apply(BasicIndex, grad, index=ctx.index)
        return found


class AdvancedIndex(Op):
    """x indexed by integer tensors at `places`, all other dimensions whole."""

    name = "index"
    quiet = True

    @staticmethod
    def forward(ctx: Any, x: Any, *indices: Any, places: tuple[int, ...], distinct: bool) -> Any:
        ctx.shape, ctx.places, ctx.distinct = x.shape, places, distinct
        ctx.save_inputs(*range(1, 1 + len(indices)))
        key = full_key(indices, places)
        try:
            return np.asarray(x[key])
        except IndexError as error:
            raise IndexError(f"index: {error}. Indices were given for a tensor of shape {list(x.shape)}.") from None

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        indices = ctx.saved
        found = apply(PutAdvanced, grad, *indices, shape=ctx.shape, places=ctx.places, distinct=ctx.distinct)
        return (found, *(None for _ in indices))


class PutAdvanced(Op):
    """Zeros of `shape` with the input added at integer tensors of positions."""

    name = "index_backward"
    quiet = True

    @staticmethod
    def forward(ctx: Any, x: Any, *indices: Any, shape: Any, places: tuple[int, ...], distinct: bool) -> Any:
        ctx.places, ctx.distinct = places, distinct
        ctx.save_inputs(*range(1, 1 + len(indices)))
        found = np.zeros(shape, x.dtype)
        add_at(found, indices, places, x, distinct)
        return found

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        indices = ctx.saved
        found = apply(AdvancedIndex, grad, *indices, places=ctx.places, distinct=ctx.distinct)
        return (found, *(None for _ in indices))


def full_key(indices: tuple[Any, ...], places: tuple[int, ...]) -> tuple[Any, ...]:
    """The NumPy index with `indices` at `places` and whole dimensions before and between them."""
    key: list[Any] = [_ALL] * (max(places, default=-1) + 1)
    for index, place in zip(indices, places):
        key[place] = index
    return tuple(key)


def add_at(target: Any, indices: tuple[Any, ...], places: tuple[int, ...], values: Any, distinct: bool) -> None:
    """target[...] += values, where positions may repeat unless `distinct`."""
    key = full_key(indices, places)
    if distinct:
        target[key] += values
    elif len(indices) == 1 and places == (0,) and target.ndim > 1 and target.flags.c_contiguous:
        add_rows(target, indices[0].reshape(-1), values.reshape(-1, *target.shape[1:]))
    else:
        np.add.at(target, key, values)


def add_rows(target: Any, rows: Any, values: Any) -> None:
    """target[rows[i]] += values[i]: rows sorted, equal ones summed together; far quicker than
    np.add.at for wide rows.
    """
    if not rows.size:
        return
    rows = np.where(rows < 0, rows + target.shape[0], rows)
    order = np.argsort(rows, kind="stable")
    ordered = rows[order]
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    target[ordered[starts]] += np.add.reduceat(values[order], starts, axis=0, dtype=target.dtype)


class IndexPut(Op):
    """The first tensor with the second written (or added) at integer tensors of positions."""

    name = "index_put"
    quiet = True

    @staticmethod
    def forward(ctx: Any, x: Any, values: Any, *indices: Any, places: Any, accumulate: bool) -> Any:
        ctx.places, ctx.accumulate, ctx.shape = places, accumulate, values.shape
        ctx.save_inputs(*range(2, 2 + len(indices)))
        found = x.copy(order="K")
        write_at(found, values, indices, places, accumulate)
        return found

    @staticmethod
    def inplace(ctx: Any, x: Any, values: Any, *indices: Any, places: Any, accumulate: bool) -> None:
        write_at(x, values, indices, places, accumulate)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        indices = ctx.saved
        gx = gv = None
        if ctx.needs_input_grad[0]:
            gx = grad
            if not ctx.accumulate:
                zero = number(0, grad._data.dtype)
                gx = apply(IndexPut, grad, zero, *indices, places=ctx.places, accumulate=False)
        if ctx.needs_input_grad[1]:
            gv = apply(AdvancedIndex, grad, *indices, places=ctx.places, distinct=False)
        return (gx, gv, *(None for _ in indices))


def write_at(target: Any, values: Any, indices: tuple[Any, ...], places: tuple[int, ...], accumulate: bool) -> None:
    """target[key] = values, or += with repeats counted."""
    key = full_key(indices, places)
    try:
        if accumulate:
            np.add.at(target, key, values)
        else:
            target[key] = values
    except IndexError as error:
        raise IndexError(
            f"index_put: {error}. Indices were given for a tensor of shape {list(target.shape)}."
        ) from None
    except ValueError:
        wanted = target[key].shape
        raise RuntimeError(
            f"index_put: shape mismatch: value tensor of shape {list(values.shape)} cannot be broadcast to indexing "
            f"result of shape {list(wanted)}."
        ) from None


# --- taking an index apart


class _Parts:
    """A basic index, and the tensors of positions with the dimensions (of the basic index's result) they belong to."""

    __slots__ = ("basic", "distinct", "indices", "mask", "places")

    def __init__(self) -> None:
        self.basic: list[Any] = []
        self.indices: list[Tensor] = []
        self.places: list[int] = []
        self.mask: Tensor | None = None  # where a single mask is the whole advanced part
        self.distinct = False


def _as_index_tensor(value: Any) -> Tensor:
    """A tensor, array, list or range used as an index."""
    if isinstance(value, Tensor):
        found = value
    else:
        if isinstance(value, list | tuple):
            value = [v._data if isinstance(v, Tensor) else v for v in value]
        array = np.asarray(value)
        if array.size == 0 and array.dtype.kind == "f":
            array = array.astype(np.int64)
        found = _wrap(array)
    kind = found._data.dtype.kind
    if kind == "b" or kind in "iu":
        return found
    raise IndexError(
        f"index: tensors used as indices must be long, int, byte or bool tensors, got {found._data.dtype.name}. "
        "Convert positions with .long()."
    )


def _is_advanced(item: Any) -> bool:
    if isinstance(item, Tensor):
        return item._data.ndim > 0 or item._data.dtype.kind in "bfc"
    return isinstance(item, list | tuple | range | np.ndarray | bool | np.bool_)


def _dims_used(item: Any) -> int:
    if item is None or item is Ellipsis or isinstance(item, bool | np.bool_):
        return 0
    if isinstance(item, Tensor) and _is_mask(item):
        return item._data.ndim
    return 1


def _is_mask(tensor: Tensor) -> bool:
    return tensor._data.dtype.kind == "b" or tensor._data.dtype == np.uint8


def _position(item: Any) -> int:
    if isinstance(item, str):
        raise TypeError(f"index: a tensor has no named entries, got the index {item!r}.")
    try:
        found: int = item.__index__()
    except (AttributeError, TypeError):
        raise IndexError(
            "index: only integers, slices (`:`), ellipsis (`...`), None and long or byte Variables are valid indices "
            f"(got {type(item).__name__})."
        ) from None
    return found


def _parse(data: Any, index: Any) -> _Parts:
    """Take an index of an array apart, checking it against the array's shape."""
    items = list(index) if isinstance(index, tuple) else [index]
    items = [
        _as_index_tensor(item) if _is_advanced(item) and not isinstance(item, bool | np.bool_) else item
        for item in items
    ]
    used = sum([_dims_used(item) for item in items])
    if used > data.ndim:
        raise IndexError(f"index: too many indices for tensor of dimension {data.ndim}, got {used}.")
    if sum(item is Ellipsis for item in items) > 1:
        raise IndexError("index: an index can only have a single ellipsis ('...').")
    if not any(item is Ellipsis for item in items):
        items.append(Ellipsis)
    parts = _Parts()
    dim = place = 0  # in the array; in the view
    for item in items:
        if item is Ellipsis:
            whole = data.ndim - used
            parts.basic.append(Ellipsis)
            dim, place = dim + whole, place + whole
        elif item is None:
            parts.basic.append(None)
            place += 1
        elif isinstance(item, slice):
            parts.basic.append(_slice(item))
            dim, place = dim + 1, place + 1
        elif isinstance(item, bool | np.bool_):
            parts.basic.append(None)
            parts.indices.append(_wrap(np.zeros(int(item), np.int64)))
            parts.places.append(place)
            place += 1
        elif _is_advanced(item):
            taken = _add_advanced(parts, item, data.shape, dim, place)
            dim, place = dim + taken, place + taken
        else:
            parts.basic.append(_checked_position(item, dim, data.shape))
            dim += 1
    parts.distinct = parts.mask is not None and len(parts.places) == parts.mask._data.ndim
    if not parts.distinct:
        parts.mask = None
    return parts


def _add_advanced(parts: _Parts, item: Tensor, shape: tuple[int, ...], dim: int, place: int) -> int:
    if not _is_mask(item):
        parts.basic.append(_ALL)
        parts.indices.append(item)
        parts.places.append(place)
        return 1
    mask = item._data
    if mask.shape != shape[dim : dim + mask.ndim]:
        wrong = next(i for i in range(mask.ndim) if mask.shape[i] != shape[dim + i])
        raise IndexError(
            f"index: The shape of the mask {list(mask.shape)} at index {wrong} does not match the shape of the "
            f"indexed tensor {list(shape)} at index {dim + wrong}."
        )
    parts.mask = item
    if not mask.ndim:
        parts.basic.append(None)
        parts.indices.append(_wrap(np.zeros(int(mask), np.int64)))
        parts.places.append(place)
        parts.mask = None
        return 1
    for offset, positions in enumerate(np.nonzero(mask)):
        parts.basic.append(_ALL)
        parts.indices.append(_wrap(positions))
        parts.places.append(place + offset)
    return mask.ndim


def _slice(item: slice) -> slice:
    start, stop, step = [None if v is None else _position(v) for v in (item.start, item.stop, item.step)]
    if step is not None and step <= 0:
        raise ValueError(f"index: step must be greater than zero, got {step}. Use flip() to reverse a dimension.")
    return slice(start, stop, step)


def _checked_position(item: Any, dim: int, shape: tuple[int, ...]) -> int:
    position = _position(item)
    size = shape[dim]
    if not -size <= position < size:
        raise IndexError(f"index: index {position} is out of bounds for dimension {dim} with size {size}.")
    return position


def _is_whole(basic: list[Any]) -> bool:
    return all(item is Ellipsis or (isinstance(item, slice) and item == _ALL) for item in basic)


# --- reading and writing


def getitem(input: Tensor, index: Any) -> Tensor:
    """input[index]."""
    data = input._data
    if type(index) is int and data.ndim:
        size = data.shape[0]
        if not -size <= index < size:
            raise IndexError(f"index: index {index} is out of bounds for dimension 0 with size {size}.")
        found: Tensor = apply(Select, input, dim=0, index=index % size)
        return found
    if not data.ndim and not _has_no_position(index):
        raise IndexError(
            "index: invalid index of a 0-dim tensor. Use `tensor.item()` in Python to convert a 0-dim tensor to a "
            "number."
        )
    parts = _parse(data, index)
    if not parts.indices:
        found = apply(BasicIndex, input, index=tuple(parts.basic))
        return found
    viewed = input if _is_whole(parts.basic) else apply(BasicIndex, input, index=tuple(parts.basic))
    found = apply(AdvancedIndex, viewed, *parts.indices, places=tuple(parts.places), distinct=parts.distinct)
    return found


def _has_no_position(index: Any) -> bool:
    items = index if isinstance(index, tuple) else (index,)
    return all(item is None or item is Ellipsis or _dims_used(item) == 0 for item in items)


def setitem(input: Tensor, index: Any, value: Any) -> None:
    """input[index] = value."""
    if not input._data.ndim and not _has_no_position(index):
        raise IndexError("index: invalid index of a 0-dim tensor. Use fill_() to set its value.")
    parts = _parse(input._data, index)
    whole = _is_whole(parts.basic)
    if not parts.indices:
        target = input if whole else apply(BasicIndex, input, index=tuple(parts.basic))
        _write(target, value)
        return
    target = input if whole else apply(BasicIndex, input, index=tuple(parts.basic))
    if not isinstance(value, Tensor):
        if not is_number(value):
            value = _wrap(np.asarray(value))
        else:
            from faltung.ops.convert import fitting_number

            value = number(fitting_number("index_put", value, input._data.dtype), input._data.dtype)
        if value._data.dtype != input._data.dtype:
            value = _wrap(value._data.astype(input._data.dtype))
    if value._data.dtype != input._data.dtype:
        raise RuntimeError(
            "index_put: Index put requires the source and destination dtypes match, got "
            f"{input.dtype.legacy_name} for the destination and {value.dtype.legacy_name} for the source."
        )
    apply_inplace(IndexPut, target, value, *parts.indices, places=tuple(parts.places), accumulate=False)


def _write(target: Tensor, value: Any) -> None:
    if is_number(value):
        fill_(target, value)
        return
    if not isinstance(value, Tensor):
        try:
            value = _wrap(np.asarray(value))
        except ValueError:
            raise TypeError(f"index: can't assign a {type(value).__name__} to a tensor.") from None
        if value._data.dtype.kind not in "biufc":
            raise TypeError(f"index: can't assign a {type(value).__name__} to a tensor of {target.dtype}.")
    shape = value._data.shape
    extra = len(shape) - target._data.ndim
    if extra > 0 and all(size == 1 for size in shape[:extra]):
        value = value.reshape(shape[extra:])
    apply_inplace(Copy, target, value)


def index_put(input: Tensor, indices: Any, values: Tensor, accumulate: bool = False) -> Tensor:
    """`input` with `values` written (or added) at a tuple of index tensors."""
    parts = _parse(input._data, tuple([_ALL if index is None else index for index in indices]))
    found: Tensor = apply(IndexPut, input, values, *parts.indices, places=tuple(parts.places), accumulate=accumulate)
    return found


def index_put_(input: Tensor, indices: Any, values: Tensor, accumulate: bool = False) -> Tensor:
    """Write (or add) `values` at a tuple of index tensors."""
    parts = _parse(input._data, tuple([_ALL if index is None else index for index in indices]))
    if values._data.dtype != input._data.dtype:
        raise RuntimeError(
            f"index_put_: Index put requires the source and destination dtypes match, got {input.dtype.legacy_name} "
            f"for the destination and {values.dtype.legacy_name} for the source."
        )
    return apply_inplace(IndexPut, input, values, *parts.indices, places=tuple(parts.places), accumulate=accumulate)
