"""Worker threads: each takes its tasks from a queue of its own, and all put their batches into one.

Workers are threads, not processes: nothing is pickled, the dataset is shared, and NumPy, decoders and file reads
release the interpreter lock. Each has a random stream of its own, seeded as PyTorch seeds its worker processes; the
streams of Python's `random` and of `numpy.random` are the process's, shared by all.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from faltung.random import Generator, use_in_this_thread
from faltung.utils.data.dataset import IterableDataset
from faltung.utils.data.fetch import make_fetch

__all__ = ["END", "RESTART", "Failure", "Job", "WorkerInfo", "get_worker_info", "start_worker", "stop_workers"]

END = object()  # in place of a batch: this worker's iterator has no more
RESTART = object()  # in place of a task: begin a new epoch


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """What a worker knows of itself: its number, how many there are, its seed, and the dataset."""

    id: int
    num_workers: int
    seed: int
    dataset: Any


@dataclass(frozen=True, slots=True)
class Failure:
    """An exception in a worker, on its way to the thread that iterates."""

    error: BaseException
    worker: int


@dataclass(frozen=True, slots=True)
class Job:
    """What all workers of an iterator do."""

    dataset: Any
    auto_collation: bool
    collate_fn: Callable[[Any], Any]
    drop_last: bool
    base_seed: int
    init_fn: Callable[[int], None] | None
    num_workers: int


class _OfThread(threading.local):
    info: WorkerInfo | None = None


_of_thread = _OfThread()


def get_worker_info() -> WorkerInfo | None:
    """What the calling worker knows of itself; None outside of workers."""
    return _of_thread.info


def start_worker(
    job: Job, number: int, tasks: queue.SimpleQueue[Any], results: queue.SimpleQueue[Any], done: threading.Event
) -> threading.Thread:
    """Start worker `number`, which ends when its task is None."""
    thread = threading.Thread(
        target=_run, args=(job, number, tasks, results, done), name=f"faltung-data-worker-{number}", daemon=True
    )
    thread.start()
    return thread


def stop_workers(threads: list[threading.Thread], tasks: list[queue.SimpleQueue[Any]], done: threading.Event) -> None:
    """Have the workers end after the sample that they are working on."""
    done.set()
    for waiting in tasks:
        waiting.put(None)
    for thread in threads:
        if thread is not threading.current_thread():
            thread.join(timeout=1.0)  # a worker stuck in a dataset must not hold up the program; it is a daemon


def _run(
    job: Job, number: int, tasks: queue.SimpleQueue[Any], results: queue.SimpleQueue[Any], done: threading.Event
) -> None:
    seed = job.base_seed + number
    use_in_this_thread(Generator().manual_seed(seed % 2**64))
    _of_thread.info = WorkerInfo(number, job.num_workers, seed, job.dataset)

    def begin() -> Any:
        return make_fetch(job.dataset, job.auto_collation, job.collate_fn, job.drop_last)

    fetch: Any = None
    broken: BaseException | None = None
    try:
        if job.init_fn is not None:
            job.init_fn(number)
        fetch = begin()
    except BaseException as error:  # whatever it is, the iterating thread has to know, else it would wait for ever
        broken = error

    while (task := tasks.get()) is not None:
        if done.is_set():
            continue
        key, indices = task
        try:
            if broken is not None:
                first, broken = broken, None
                raise first
            if indices is RESTART:
                fetch = begin()
                continue
            result = fetch(indices)
        except StopIteration as error:
            result = END if isinstance(job.dataset, IterableDataset) else Failure(error, number)
        except BaseException as error:
            result = Failure(error, number)
        results.put((key, number, result))
        del result
