"""DataLoader: batches of a dataset, in a sampler's order, optionally made by worker threads."""

from __future__ import annotations

import itertools
import math
import multiprocessing
import queue
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

from faltung.random import Generator
from faltung.utils.data.collate import default_collate, default_convert
from faltung.utils.data.dataset import IterableDataset
from faltung.utils.data.fetch import make_fetch
from faltung.utils.data.sampler import BatchSampler, RandomSampler, Sampler, SequentialSampler, draw_seed
from faltung.utils.data.worker import END, RESTART, Failure, Job, get_worker_info, start_worker, stop_workers

__all__ = ["DataLoader", "default_collate", "default_convert", "get_worker_info"]

T_co = TypeVar("T_co", covariant=True)

_WAKE_UP_S = 0.5


class _EndlessSampler(Sampler[None]):
    """Stands in for a sampler where the dataset itself is iterated."""

    def __iter__(self) -> Iterator[None]:
        return itertools.repeat(None)


class DataLoader(Generic[T_co]):
    """Iterates over a dataset in batches.

    A shuffled order, and every random number drawn before and after, are PyTorch's for the same seed.

    Args:
        dataset: by index (`__getitem__`, `__len__`), or an `IterableDataset`.
        batch_size: samples per batch; None gives single samples.
        shuffle: a new random order at every iteration.
        sampler: an iterable of indices, in place of `shuffle`.
        batch_sampler: an iterable of lists of indices, in place of batch_size, shuffle, sampler and drop_last.
        num_workers: worker threads; 0 loads in the thread that iterates. Datasets that spend their time in NumPy,
            decoders or files gain by workers; those in pure Python don't, since all threads share the interpreter.
        collate_fn: makes a batch from a list of samples; `default_collate` stacks them.
        pin_memory, pin_memory_device, multiprocessing_context: accepted; there are no devices and no processes.
        drop_last: leave out a last batch that is not full.
        timeout: seconds to wait for a worker's batch; 0 waits for ever.
        worker_init_fn: called in each worker with its number, before anything else.
        generator: draws the order and the workers' seeds; the default one if None.
        prefetch_factor: batches that each worker makes ahead; 2 by default.
        persistent_workers: keep the workers between iterations.
        in_order: give the batches in the order of the sampler, and not as they are ready.

    Raises:
        ValueError: arguments that exclude each other.
    """

    dataset: Any
    batch_size: int | None
    num_workers: int
    drop_last: bool
    sampler: Any
    batch_sampler: Any
    _fixed = ("batch_size", "batch_sampler", "sampler", "drop_last", "dataset", "persistent_workers")
    _initialized = False

    def __init__(
        self,
        dataset: Any,
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: Iterable[Any] | None = None,
        batch_sampler: Iterable[Any] | None = None,
        num_workers: int = 0,
        collate_fn: Callable[[Any], Any] | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        timeout: float = 0,
        worker_init_fn: Callable[[int], None] | None = None,
        multiprocessing_context: Any = None,
        generator: Generator | None = None,
        *,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
        pin_memory_device: str = "",
        in_order: bool = True,
    ) -> None:
        _check_workers(num_workers, timeout, prefetch_factor, persistent_workers, multiprocessing_context)
        iterable = isinstance(dataset, IterableDataset)
        _check_order(iterable, batch_size, shuffle, sampler, batch_sampler, drop_last)
        if batch_sampler is not None:
            batch_size, drop_last = None, False
        if sampler is None:
            sampler = _default_sampler(dataset, iterable, bool(shuffle), generator)
        if batch_size is not None and batch_sampler is None:
            batch_sampler = BatchSampler(sampler, batch_size, drop_last)
        self.dataset = dataset
        self.num_workers = num_workers
        self.prefetch_factor = 2 if num_workers > 0 and prefetch_factor is None else prefetch_factor
        self.pin_memory = pin_memory
        self.pin_memory_device = pin_memory_device
        self.timeout = timeout
        self.worker_init_fn = worker_init_fn
        self.multiprocessing_context = multiprocessing_context
        self.in_order = in_order
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.sampler = sampler
        self.batch_sampler = batch_sampler
        self.generator = generator
        if collate_fn is None:
            collate_fn = default_collate if self._auto_collation else default_convert
        self.collate_fn = collate_fn
        self.persistent_workers = persistent_workers
        self._announced_length: int | None = None  # what len() said of an iterable dataset
        self._iterator: _ThreadedIterator | None = None
        self._initialized = True

    def __setattr__(self, name: str, value: Any) -> None:
        if self._initialized and name in self._fixed:
            raise ValueError(
                f"DataLoader: {name} attribute should not be set after {type(self).__name__} is initialized. "
                "Make a new loader."
            )
        super().__setattr__(name, value)

    @property
    def _auto_collation(self) -> bool:
        return self.batch_sampler is not None

    @property
    def _index_sampler(self) -> Any:
        return self.batch_sampler if self._auto_collation else self.sampler

    def __iter__(self) -> _Iterator:
        if self.num_workers == 0:
            return _SerialIterator(self)
        if not self.persistent_workers:
            return _ThreadedIterator(self)
        if self._iterator is None:
            self._iterator = _ThreadedIterator(self)
        else:
            self._iterator.restart(self)
        return self._iterator

    def __len__(self) -> int:
        if not isinstance(self.dataset, IterableDataset):
            return len(self._index_sampler)
        count = self._announced_length = len(self.dataset)  # type: ignore[arg-type]  # TypeError where it has none
        if self.batch_size is None:
            return count
        return count // self.batch_size if self.drop_last else math.ceil(count / self.batch_size)


def _default_sampler(dataset: Any, iterable: bool, shuffle: bool, generator: Generator | None) -> Iterable[Any]:
    if iterable:
        return _EndlessSampler()
    return RandomSampler(dataset, generator=generator) if shuffle else SequentialSampler(dataset)


def _check_workers(
    num_workers: int, timeout: float, prefetch_factor: int | None, persistent_workers: bool, context: Any
) -> None:
    if num_workers < 0:
        raise ValueError(f"DataLoader: num_workers option should be non-negative, got {num_workers}. Use 0 for none.")
    if timeout < 0:
        raise ValueError(f"DataLoader: timeout option should be non-negative, got {timeout}.")
    if num_workers == 0 and prefetch_factor is not None:
        raise ValueError(
            f"DataLoader: prefetch_factor option could only be specified with workers, got {prefetch_factor} and "
            "num_workers=0. Let num_workers > 0, or leave prefetch_factor out."
        )
    if prefetch_factor is not None and prefetch_factor < 0:
        raise ValueError(f"DataLoader: prefetch_factor option should be non-negative, got {prefetch_factor}.")
    if persistent_workers and num_workers == 0:
        raise ValueError("DataLoader: persistent_workers option needs num_workers > 0.")
    if context is None:
        return
    if num_workers == 0:
        raise ValueError(
            "DataLoader: multiprocessing_context can only be used with num_workers > 0, got num_workers=0."
        )
    if isinstance(context, str):
        methods = multiprocessing.get_all_start_methods()
        if context not in methods:
            raise ValueError(f"DataLoader: expected multiprocessing_context from {methods}, got {context!r}.")
    elif not hasattr(context, "get_start_method"):
        raise TypeError(f"DataLoader: multiprocessing_context option should be a context or its name, got {context!r}.")


def _check_order(
    iterable: bool, batch_size: int | None, shuffle: bool | None, sampler: Any, batch_sampler: Any, drop_last: bool
) -> None:
    if iterable:
        for name, value in (("shuffle", shuffle or None), ("sampler", sampler), ("batch_sampler", batch_sampler)):
            if value is not None:
                raise ValueError(
                    f"DataLoader with IterableDataset: expected unspecified {name} option, but got {name}={value}: "
                    "such a dataset sets its order itself."
                )
    if sampler is not None and shuffle:
        raise ValueError("DataLoader: sampler option is mutually exclusive with shuffle. Shuffle in the sampler.")
    if batch_sampler is not None:
        if batch_size != 1 or shuffle or sampler is not None or drop_last:
            raise ValueError(
                "DataLoader: batch_sampler option is mutually exclusive with batch_size, shuffle, sampler, and "
                "drop_last."
            )
    elif batch_size is None and drop_last:
        raise ValueError(
            "DataLoader: batch_size=None option disables auto-batching and is mutually exclusive with drop_last."
        )


class _Iterator(Iterator[Any]):
    """One pass over a loader."""

    def __init__(self, loader: DataLoader[Any]) -> None:
        if loader.pin_memory:
            warnings.warn(
                "DataLoader: 'pin_memory' argument is set as true but no accelerator is found, then device pinned "
                "memory won't be used.",
                stacklevel=3,
            )
        self._loader = loader
        self._sampler = loader._index_sampler
        self._indices = iter(self._sampler)
        self._base_seed = draw_seed(loader.generator)  # drawn even without workers: the stream moves on as PyTorch's
        self._given = 0

    def _next_batch(self) -> Any:
        raise NotImplementedError

    def __next__(self) -> Any:
        batch = self._next_batch()
        self._given += 1
        announced = self._loader._announced_length
        if announced is not None and isinstance(self._loader.dataset, IterableDataset):
            limit = announced if self._loader.batch_size is None else math.ceil(announced / self._loader.batch_size)
            if self._given > limit:
                warnings.warn(
                    f"DataLoader: Length of {type(self._loader.dataset).__name__} was reported to be {announced} (when "
                    f"accessing len(dataloader)), but batch {self._given} has been fetched. With several workers, "
                    "each has to give only its share of the samples: see get_worker_info().",
                    stacklevel=2,
                )
        return batch

    def __len__(self) -> int:
        return len(self._sampler)

    def __reduce__(self) -> Any:
        raise NotImplementedError(f"{type(self).__name__} cannot be pickled.")


class _SerialIterator(_Iterator):
    """Loads in the thread that iterates."""

    def __init__(self, loader: DataLoader[Any]) -> None:
        super().__init__(loader)
        if loader.timeout != 0:
            raise AssertionError(f"DataLoader: timeout needs workers, got timeout={loader.timeout} and num_workers=0.")
        self._fetch = make_fetch(loader.dataset, loader._auto_collation, loader.collate_fn, loader.drop_last)

    def _next_batch(self) -> Any:
        return self._fetch(next(self._indices))


class _ThreadedIterator(_Iterator):
    """Hands out tasks to worker threads in turn, `prefetch_factor` ahead for each, and gives their batches in order.

    Which worker makes which batch is fixed, so that random augmentations don't depend on speed. The threads know the
    queues but not this object: when it is dropped, or the program ends, its finalizer stops them.
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        super().__init__(loader)
        if not loader.prefetch_factor or loader.prefetch_factor < 1:
            raise AssertionError(f"DataLoader: prefetch_factor must be greater than 0, got {loader.prefetch_factor}.")
        count = loader.num_workers
        self._results: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._tasks: list[queue.SimpleQueue[Any]] = [queue.SimpleQueue() for _ in range(count)]
        done = threading.Event()
        job = Job(
            loader.dataset,
            loader._auto_collation,
            loader.collate_fn,
            loader.drop_last,
            self._base_seed,
            loader.worker_init_fn,
            count,
        )
        threads = [start_worker(job, number, self._tasks[number], self._results, done) for number in range(count)]
        self._stop = weakref.finalize(self, stop_workers, threads, self._tasks, done)
        self._epoch = 0
        self._begin(loader)

    def restart(self, loader: DataLoader[Any]) -> None:
        """Begin another pass with the same workers."""
        if not self._stop.alive:
            raise RuntimeError("DataLoader: the workers of this iterator were stopped. Make a new loader.")
        self._epoch += 1
        for tasks in self._tasks:
            tasks.put(((self._epoch, -1), RESTART))
        self._loader = loader
        self._given = 0
        self._begin(loader)

    def _begin(self, loader: DataLoader[Any]) -> None:
        self._indices = iter(self._sampler)
        self._sent = self._received = 0
        self._owner: dict[int, int] = {}  # worker of each task that is under way
        self._ready: dict[int, Any] = {}  # batches that came before their turn
        self._active = [True] * len(self._tasks)
        self._turns = itertools.cycle(range(len(self._tasks)))
        assert loader.prefetch_factor is not None  # checked when the iterator was made
        for _ in range(loader.prefetch_factor * len(self._tasks)):
            self._send()

    def _send(self) -> None:
        """Give the next task to the next worker that has not run out of samples."""
        for _ in self._tasks:
            worker = next(self._turns)
            if self._active[worker]:
                break
        else:
            return
        try:
            indices = next(self._indices)
        except StopIteration:
            return
        self._tasks[worker].put(((self._epoch, self._sent), indices))
        self._owner[self._sent] = worker
        self._sent += 1

    def _receive(self) -> tuple[int, int, Any]:
        """The next result of this epoch, as it comes."""
        timeout_s = self._loader.timeout or math.inf
        waiting_since = time.monotonic()
        while True:
            left_s = waiting_since + timeout_s - time.monotonic()
            try:
                # Wakes up now and then: a signal that comes just before the wait begins would not end it.
                (epoch, number), worker, result = self._results.get(timeout=max(min(left_s, _WAKE_UP_S), 0))
            except queue.Empty:
                if left_s > _WAKE_UP_S:
                    continue
                raise RuntimeError(f"DataLoader timed out after {timeout_s} seconds waiting for a worker.") from None
            if epoch == self._epoch and number >= 0:
                return number, worker, result
            if number < 0 and isinstance(result, Failure):  # the new pass could not begin
                self._raise(result)

    def _next_batch(self) -> Any:
        while self._owner:
            if self._received in self._ready:
                return self._give(self._received, self._ready.pop(self._received))
            if self._received not in self._owner:  # its worker had run out of samples
                self._received += 1
                continue
            number, worker, result = self._receive()
            if result is END:
                self._active[worker] = False
                del self._owner[number]
                self._send()
            elif number == self._received or not self._loader.in_order:
                return self._give(number, result)
            else:
                self._ready[number] = result
        if not self._loader.persistent_workers:
            self._stop()
        raise StopIteration

    def _give(self, number: int, result: Any) -> Any:
        del self._owner[number]
        if number == self._received:
            self._received += 1
        self._send()
        if isinstance(result, Failure):
            self._raise(result)
        return result

    def _raise(self, failure: Failure) -> None:
        failure.error.add_note(f"Caught {type(failure.error).__name__} in DataLoader worker {failure.worker}.")
        raise failure.error
