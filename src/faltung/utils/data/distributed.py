"""The sampler that gives every process of a distributed training its share."""

from __future__ import annotations

import math
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from faltung import sampling
from faltung.random import Generator
from faltung.utils.data.sampler import Sampler

__all__ = ["DistributedSampler"]


def _process_group() -> Any:
    """faltung.distributed, where it is installed and can be used."""
    try:
        distributed = import_module("faltung.distributed")
        available = distributed.is_available()
    except ImportError:
        available = False
    if not available:
        raise RuntimeError(
            "DistributedSampler: Requires distributed package to be available, to ask for the number of processes "
            "and the rank. Pass num_replicas and rank."
        )
    return distributed


class DistributedSampler(Sampler[int]):
    """Every `num_replicas`-th index, beginning at `rank`, of an order that all processes share.

    Call `set_epoch(epoch)` before each epoch: the shuffle depends on seed + epoch only.

    Args:
        dataset: whose length counts.
        num_replicas: number of processes; that of the process group if None.
        rank: this process; that in the process group if None.
        shuffle: shuffle the indices.
        seed: of the shuffle, the same in all processes.
        drop_last: leave out what doesn't divide evenly; otherwise some samples are given twice.
    """

    def __init__(
        self,
        dataset: Any,
        num_replicas: int | None = None,
        rank: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
    ) -> None:
        count: int = _process_group().get_world_size() if num_replicas is None else num_replicas
        own: int = _process_group().get_rank() if rank is None else rank
        if not 0 <= own < count:
            raise ValueError(
                f"DistributedSampler: Invalid rank {own}, rank should be in the interval [0, {count - 1}]."
            )
        self.dataset = dataset
        self.num_replicas = count
        self.rank = own
        self.epoch = 0
        self.drop_last = drop_last
        whole = len(dataset)
        if drop_last and whole % count != 0:
            self.num_samples = math.ceil((whole - count) / count)
        else:
            self.num_samples = math.ceil(whole / count)
        self.total_size = self.num_samples * count
        self.shuffle = shuffle
        self.seed = seed

    def __iter__(self) -> Iterator[int]:
        whole = len(self.dataset)
        if self.shuffle:
            generator = Generator().manual_seed(self.seed + self.epoch)
            indices = sampling.permutation(whole, generator=generator).tolist()
        else:
            indices = list(range(whole))
        if not self.drop_last and indices:
            missing = self.total_size - whole
            indices += (indices * math.ceil(missing / whole))[:missing]
        return iter(indices[self.rank : self.total_size : self.num_replicas])

    def __len__(self) -> int:
        return self.num_samples

    def set_epoch(self, epoch: int) -> None:
        """Choose the shuffle of this epoch."""
        self.epoch = epoch
