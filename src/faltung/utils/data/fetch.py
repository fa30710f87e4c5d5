"""From indices to batches: the part of a loader that touches the dataset."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from faltung.autograd.modes import is_grad_enabled
from faltung.tensor import Tensor
from faltung.utils.data.collate import default_collate
from faltung.utils.data.dataset import IterableDataset, Subset, TensorDataset

__all__ = ["Fetch", "make_fetch"]

Fetch = Callable[[Any], Any]


def make_fetch(dataset: Any, auto_collation: bool, collate_fn: Callable[[Any], Any], drop_last: bool) -> Fetch:
    """A function from what the sampler gives (an index, or a list of them) to a batch. It raises StopIteration at the
    end of an iterable dataset."""
    if isinstance(dataset, IterableDataset):
        return _IterableFetch(dataset, auto_collation, collate_fn, drop_last)
    if not auto_collation:
        return lambda index: collate_fn(dataset[index])
    if collate_fn is default_collate and _is_plain_tensors(dataset):
        return _gather(dataset)

    def fetch(indices: list[Any]) -> Any:
        together = getattr(dataset, "__getitems__", None)
        return collate_fn(together(indices) if together else [dataset[index] for index in indices])

    return fetch


def _is_plain_tensors(dataset: Any) -> bool:
    """A TensorDataset, or a Subset of one, whose indexing nobody has overridden."""
    if type(dataset) is Subset:
        return _is_plain_tensors(dataset.dataset)
    return type(dataset) is TensorDataset and all(tensor.dim() > 0 for tensor in dataset.tensors)


def _gather(dataset: Any) -> Fetch:
    """The rows of a whole batch in one copy per tensor: what stacking them one by one gives, much faster."""

    def fetch(indices: list[int]) -> list[Tensor]:
        source, rows = dataset, indices
        while type(source) is Subset:
            rows = [source.indices[row] for row in rows]
            source = source.dataset
        if is_grad_enabled() and any(tensor.requires_grad for tensor in source.tensors):
            return default_collate([source[row] for row in rows])
        return [Tensor._wrap(np.take(tensor._data, rows, axis=0)) for tensor in source.tensors]

    return fetch


class _IterableFetch:
    """Takes the next samples of an iterator; the indices only say how many."""

    def __init__(self, dataset: Any, auto_collation: bool, collate_fn: Callable[[Any], Any], drop_last: bool) -> None:
        self._iterator = iter(dataset)
        self._auto_collation = auto_collation
        self._collate_fn = collate_fn
        self._drop_last = drop_last
        self._ended = False

    def __call__(self, indices: Any) -> Any:
        if self._ended:
            raise StopIteration
        if not self._auto_collation:
            return self._collate_fn(next(self._iterator))
        samples = []
        for _ in indices:
            try:
                samples.append(next(self._iterator))
            except StopIteration:
                self._ended = True
                break
        if not samples or (self._drop_last and len(samples) < len(indices)):
            raise StopIteration
        return self._collate_fn(samples)
