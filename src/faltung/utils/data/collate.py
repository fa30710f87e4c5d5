"""From samples to a batch: stack what can be stacked, keep the structure around it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, MutableMapping, MutableSequence, Sequence
from typing import Any

import numpy as np

from faltung.autograd.modes import is_grad_enabled
from faltung.dtypes import float64
from faltung.ops.creation import as_tensor, tensor
from faltung.ops.join import stack
from faltung.tensor import Tensor

__all__ = ["collate", "default_collate", "default_collate_fn_map", "default_convert"]

CollateMap = dict[Any, Callable[..., Any]]

_UNSTACKABLE = "SaUO"  # NumPy kinds of text, bytes and objects


def _refuse(found: Any) -> TypeError:
    return TypeError(
        f"default_collate: batch must contain tensors, numpy arrays, numbers, dicts or lists; found {found}. "
        "Pass a collate_fn of your own to DataLoader."
    )


def _rebuilt_mapping(elem: Any, make: Callable[[Any], Any]) -> Any:
    """A mapping of elem's type with `make(key)` for every key; a dict where that type can't be made so."""
    values = {key: make(key) for key in elem}
    try:
        if isinstance(elem, MutableMapping):
            clone = copy.copy(elem)
            clone.update(values)
            return clone
        return type(elem)(values)
    except TypeError:
        return values


def _rebuilt_sequence(elem: Any, values: list[Any]) -> Any:
    """A sequence of elem's type with these values; a list where that type can't be made so."""
    try:
        if isinstance(elem, MutableSequence):
            clone = copy.copy(elem)
            for position, value in enumerate(values):
                clone[position] = value
            return clone
        return type(elem)(values)
    except TypeError:
        return values


def default_convert(data: Any) -> Any:
    """NumPy arrays and numbers inside `data` as tensors, everything else as it is; what loaders do without batching."""
    if isinstance(data, Tensor):
        return data
    if isinstance(data, np.ndarray):
        return data if data.dtype.kind in _UNSTACKABLE else as_tensor(data)
    if isinstance(data, np.generic):
        return data if data.dtype.kind in _UNSTACKABLE else as_tensor(data)
    if isinstance(data, Mapping):
        return _rebuilt_mapping(data, lambda key: default_convert(data[key]))
    if isinstance(data, tuple) and hasattr(data, "_fields"):
        return type(data)(*(default_convert(entry) for entry in data))
    if isinstance(data, tuple):
        return [default_convert(entry) for entry in data]
    if isinstance(data, Sequence) and not isinstance(data, (str, bytes)):
        return _rebuilt_sequence(data, [default_convert(entry) for entry in data])
    return data


def collate(batch: Any, *, collate_fn_map: CollateMap | None = None) -> Any:
    """Collate `batch`, a sequence of samples, by the first entry of the map whose type (or types) the first sample has.

    Mappings, named tuples and sequences are collated entry by entry.

    Raises:
        RuntimeError: samples that are sequences differ in length.
        TypeError: no rule for the samples' type.
    """
    elem = batch[0]
    if collate_fn_map is not None:
        function = collate_fn_map.get(type(elem))
        if function is None:
            function = next((f for kind, f in collate_fn_map.items() if isinstance(elem, kind)), None)
        if function is not None:
            return function(batch, collate_fn_map=collate_fn_map)

    def together(samples: Any) -> Any:
        return collate(samples, collate_fn_map=collate_fn_map)

    if isinstance(elem, Mapping):
        return _rebuilt_mapping(elem, lambda key: together([sample[key] for sample in batch]))
    if isinstance(elem, tuple) and hasattr(elem, "_fields"):
        return type(elem)(*(together(column) for column in zip(*batch, strict=False)))
    if isinstance(elem, Sequence):
        if any(len(sample) != len(elem) for sample in batch):
            raise RuntimeError(
                "default_collate: each element in list of batch should be of equal size, got lengths "
                f"{sorted({len(sample) for sample in batch})}. Pass a collate_fn that pads them."
            )
        columns = [together(column) for column in zip(*batch, strict=True)]
        return columns if isinstance(elem, tuple) else _rebuilt_sequence(elem, columns)
    raise _refuse(type(elem))


def _alike(arrays: Sequence[Any]) -> bool:
    """Arrays of one shape and dtype, and nothing else."""
    first = arrays[0]
    return all(
        isinstance(array, np.ndarray) and array.shape == first.shape and array.dtype == first.dtype for array in arrays
    )


def _collate_tensors(batch: Any, *, collate_fn_map: CollateMap | None = None) -> Tensor:
    # Plain data, which is what batches are made of: nothing to record, so the arrays are stacked directly.
    if all(isinstance(sample, Tensor) for sample in batch):
        arrays = [sample._data for sample in batch]
        if _alike(arrays) and not (is_grad_enabled() and any(sample.requires_grad for sample in batch)):
            return Tensor._wrap(np.stack(arrays))
    return stack(batch, 0)


def _collate_arrays(batch: Any, *, collate_fn_map: CollateMap | None = None) -> Any:
    if batch[0].dtype.kind in _UNSTACKABLE:
        raise _refuse(batch[0].dtype)
    if _alike(batch):
        return as_tensor(np.stack(batch))
    return collate([as_tensor(array) for array in batch], collate_fn_map=collate_fn_map)


def _collate_numpy_scalars(batch: Any, *, collate_fn_map: CollateMap | None = None) -> Tensor:
    return as_tensor(np.array(batch))


def _collate_floats(batch: Any, *, collate_fn_map: CollateMap | None = None) -> Tensor:
    return tensor(batch, dtype=float64)


def _collate_ints(batch: Any, *, collate_fn_map: CollateMap | None = None) -> Tensor:
    return tensor(batch)


def _keep(batch: Any, *, collate_fn_map: CollateMap | None = None) -> Any:
    return batch


default_collate_fn_map: CollateMap = {
    Tensor: _collate_tensors,
    np.ndarray: _collate_arrays,
    (np.bool_, np.number, np.object_): _collate_numpy_scalars,
    float: _collate_floats,
    int: _collate_ints,
    str: _keep,
    bytes: _keep,
}


def default_collate(batch: Any) -> Any:
    """A batch from a list of samples: tensors, arrays and numbers are stacked along a new first dimension.

    Floats become float64, ints int64; text stays a list; dicts, lists and (named) tuples are collated entry by entry.
    """
    return collate(batch, collate_fn_map=default_collate_fn_map)
