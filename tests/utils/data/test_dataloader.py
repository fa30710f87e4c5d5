"""DataLoader: PyTorch's order and random stream, workers, exceptions, clean endings."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import numpy as np
import pytest

import faltung
from faltung import Tensor
from faltung.utils import data


class Noisy(data.Dataset[dict[str, Any]]):
    """Structured samples with a random number each."""

    def __init__(self, library: Any, n: int = 37) -> None:
        self.library, self.n = library, n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {"x": self.library.ones(2, 3) * i, "pair": (i, str(i)), "noise": self.library.rand(2)}


class Shared(data.IterableDataset[int]):
    """Gives each worker its share of 23 numbers."""

    def __iter__(self) -> Iterator[int]:
        info = data.get_worker_info()
        return iter(range(23)) if info is None else iter(range(info.id, 23, info.num_workers))


class Failing(data.Dataset[int]):
    def __len__(self) -> int:
        return 10

    def __getitem__(self, i: int) -> int:
        if i == 5:
            raise LookupError("no sample five")
        return i


def plain(batch: Any) -> Any:
    if isinstance(batch, list):
        return [plain(part) for part in batch]
    return batch.tolist() if isinstance(batch, Tensor) else batch


def rows(loader: Any) -> list[Any]:
    return [plain(batch) for batch in loader]


def alive() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("faltung-data-worker")}


def numbers(n: int) -> data.TensorDataset:
    return data.TensorDataset(faltung.arange(n))


def same(ours: Any, theirs: Any) -> None:
    if isinstance(ours, Tensor):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
        assert str(ours.numpy().dtype) == str(theirs.numpy().dtype)
    elif isinstance(ours, dict):
        assert list(ours) == list(theirs)
        for key in ours:
            same(ours[key], theirs[key])
    elif isinstance(ours, (list, tuple)):
        assert type(ours) is type(theirs)
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            same(a, b)
    else:
        assert ours == theirs


# --- order and random stream


def test_order_and_stream_are_pytorchs() -> None:
    """Stored from PyTorch: two epochs of a shuffled loader, then two numbers of the default stream."""
    faltung.manual_seed(0)
    first = rows(data.DataLoader(numbers(10), batch_size=4, shuffle=True))
    second = rows(data.DataLoader(numbers(10), batch_size=4, shuffle=True, drop_last=True))
    assert first == [[[6, 7, 1, 4]], [[2, 0, 9, 8]], [[3, 5]]]
    assert second == [[[2, 4, 7, 0]], [[8, 9, 5, 3]]]
    assert faltung.rand(2).tolist() == pytest.approx([0.455627977848053, 0.6323062777519226])


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("options", [{}, {"shuffle": True}, {"batch_size": 5, "shuffle": True}, {"batch_size": None}])
def test_workers_don_t_change_the_batches(workers: int, options: dict[str, Any]) -> None:
    expected, got = [], []
    for into, count in ((expected, 0), (got, workers)):
        faltung.manual_seed(4)
        into += rows(data.DataLoader(numbers(23), num_workers=count, **options))
        into.append(faltung.rand(2).tolist())
    assert got == expected


def test_gathering_is_stacking() -> None:
    x, y = faltung.randn(20, 3, 4), faltung.arange(20)

    class Plain(data.Dataset[Any]):
        def __len__(self) -> int:
            return 20

        def __getitem__(self, i: int) -> Any:
            return x[i], y[i]

    order = [[3, 3, -1], [19, 0, 7]]
    quick = list(data.DataLoader(data.TensorDataset(x, y), batch_sampler=order))
    slow = list(data.DataLoader(Plain(), batch_sampler=order))
    part = data.Subset(data.Subset(data.TensorDataset(x, y), range(20)), range(20))
    for loader in (quick, list(data.DataLoader(part, batch_sampler=order))):
        same(loader, slow)
    quick[0][0].zero_()  # a copy, not a view of the dataset
    assert x[3].abs().sum().item() > 0
    turned = data.TensorDataset(faltung.randn(4, 20).t(), faltung.randn(20, 2, 3, 4).permute(0, 3, 1, 2))
    for batch in data.DataLoader(turned, batch_size=20):
        same(batch, [tensor.contiguous() for tensor in turned.tensors])
    with pytest.raises(IndexError):
        next(iter(data.DataLoader(data.TensorDataset(x), batch_sampler=[[20]])))


def test_gradients_flow_through_batches_of_tensors_that_require_them() -> None:
    x = faltung.ones(4, 2, requires_grad=True)
    (batch,) = next(iter(data.DataLoader(data.TensorDataset(x), batch_size=2)))
    batch.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[1, 1], [1, 1], [0, 0], [0, 0]]


def test_lengths() -> None:
    assert len(data.DataLoader(numbers(10), batch_size=3)) == 4
    assert len(data.DataLoader(numbers(10), batch_size=3, drop_last=True)) == 3
    assert len(data.DataLoader(numbers(10), batch_size=None)) == 10
    assert len(iter(data.DataLoader(numbers(10), batch_size=3))) == 4
    with pytest.raises(TypeError):
        len(data.DataLoader(Shared()))


def test_own_collate_and_samplers() -> None:
    assert list(data.DataLoader(numbers(3), collate_fn=len, batch_size=2)) == [2, 1]
    assert rows(data.DataLoader(numbers(9), sampler=[4, 2, 0], batch_size=2)) == [[[4, 2]], [[0]]]
    assert rows(data.DataLoader(range(5), batch_size=3)) == [[0, 1, 2], [3, 4]]


def test_getitems_is_called_per_batch() -> None:
    class Together(data.Dataset[int]):
        def __len__(self) -> int:
            return 5

        def __getitems__(self, indices: list[int]) -> list[int]:
            return [10 * index for index in indices]

    assert rows(data.DataLoader(Together(), batch_size=3)) == [[0, 10, 20], [30, 40]]


# --- workers


@pytest.mark.parametrize("workers", [0, 1, 2, 3])
@pytest.mark.parametrize("options", [{}, {"batch_size": 4}, {"batch_size": 4, "drop_last": True}, {"batch_size": None}])
def test_iterable_datasets(workers: int, options: dict[str, Any]) -> None:
    found = rows(data.DataLoader(Shared(), num_workers=workers, **options))
    flat = sorted(found if options.get("batch_size", 1) is None else chain(*found))
    if "drop_last" not in options:
        assert flat == list(range(23))
    elif workers <= 1:
        assert flat == list(range(20))


def test_iterable_dataset_longer_than_it_said() -> None:
    class Lying(data.IterableDataset[int]):
        def __iter__(self) -> Iterator[int]:
            return iter(range(5))

        def __len__(self) -> int:
            return 3

    loader = data.DataLoader(Lying())
    assert len(loader) == 3
    with pytest.warns(UserWarning, match="was reported to be 3"):
        assert len(list(loader)) == 5


def test_persistent_workers_begin_every_epoch_anew() -> None:
    for dataset in (Shared(), numbers(23)):
        loader = data.DataLoader(dataset, num_workers=2, persistent_workers=True, batch_size=4)
        before = alive()
        epochs = [rows(loader) for _ in range(3)]
        assert epochs[0] == epochs[1] == epochs[2]
        assert len(alive() - before) == 2
        del loader
        gc.collect()
        assert not alive() - before


def test_an_epoch_abandoned_half_way_does_not_leak_into_the_next() -> None:
    loader = data.DataLoader(numbers(40), num_workers=2, persistent_workers=True, batch_size=4)
    whole = rows(loader)
    next(iter(loader))
    assert rows(loader) == whole


def test_worker_info_seeds_and_init() -> None:
    started: list[int] = []

    class Telling(data.Dataset[Any]):
        def __len__(self) -> int:
            return 6

        def __getitem__(self, i: int) -> Any:
            info = data.get_worker_info()
            assert info is not None
            return info.id, info.num_workers, info.seed, faltung.initial_seed()

    loader = data.DataLoader(Telling(), num_workers=2, worker_init_fn=started.append)
    batches = rows(loader)
    assert sorted(started) == [0, 1]
    assert [batch[0] for batch in batches] == [[0], [1], [0], [1], [0], [1]]  # in turn
    assert all(batch[2] == batch[3] for batch in batches)
    assert batches[1][2][0] == batches[0][2][0] + 1
    assert data.get_worker_info() is None


@pytest.mark.parametrize("workers", [0, 2])
def test_exceptions_come_through_and_iteration_can_go_on(workers: int) -> None:
    iterator = iter(data.DataLoader(Failing(), batch_size=2, num_workers=workers))
    found: list[Any] = []
    while True:
        try:
            found.append(next(iterator).tolist())
        except LookupError as error:
            frames = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
            found.append((str(error), "__getitem__" in frames, getattr(error, "__notes__", None)))
        except StopIteration:
            break
    notes = ["Caught LookupError in DataLoader worker 0."] if workers else None
    assert found == [[0, 1], [2, 3], ("no sample five", True, notes), [6, 7], [8, 9]]


def test_a_failing_worker_init_is_reported_once() -> None:
    def init(worker: int) -> None:
        raise OSError("no disk")

    iterator = iter(data.DataLoader(numbers(4), num_workers=1, worker_init_fn=init))
    with pytest.raises(OSError, match="no disk"):
        next(iterator)


class Slow(data.Dataset[int]):
    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __len__(self) -> int:
        return 20

    def __getitem__(self, i: int) -> int:
        time.sleep(self.seconds)
        return i


def test_timeout() -> None:
    with pytest.raises(RuntimeError, match=r"timed out after 0\.05 seconds"):
        next(iter(data.DataLoader(Slow(0.4), num_workers=1, timeout=0.05)))


def test_no_thread_is_left_behind() -> None:
    before = alive()
    rows(data.DataLoader(numbers(9), num_workers=3))
    assert not alive() - before
    iterator = iter(data.DataLoader(Slow(0.001), num_workers=3))
    next(iterator)
    assert len(alive() - before) == 3
    del iterator
    gc.collect()
    assert not alive() - before


@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT")
def test_ctrl_c_ends_a_program_that_waits_for_its_workers() -> None:
    code = """
import time
from faltung.utils import data

class Stuck:
    def __len__(self):
        return 9

    def __getitem__(self, i):
        print("waiting", flush=True)
        time.sleep(60)

next(iter(data.DataLoader(Stuck(), num_workers=2)))
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        try:
            assert run.stdout is not None
            assert "waiting" in run.stdout.readline()
            run.send_signal(signal.SIGINT)
            _, errors = run.communicate(timeout=30)
        finally:
            run.kill()
    assert run.returncode != 0
    assert "KeyboardInterrupt" in errors


def test_batches_may_come_as_they_are_ready() -> None:
    class Uneven(Slow):
        def __getitem__(self, i: int) -> int:
            time.sleep(0.3 if i == 0 else 0)
            return i

    found = rows(data.DataLoader(Uneven(0), num_workers=2, in_order=False))
    assert sorted(found) == [[i] for i in range(20)]
    assert found[0] != [0]


# --- refusals

MANY: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: data.DataLoader(numbers(3), num_workers=-1), ValueError, "num_workers option should be non-negative"),
    (lambda: data.DataLoader(numbers(3), timeout=-1), ValueError, "timeout option should be non-negative"),
    (lambda: data.DataLoader(numbers(3), prefetch_factor=2), ValueError, "prefetch_factor option could only"),
    (lambda: data.DataLoader(numbers(3), num_workers=1, prefetch_factor=-2), ValueError, "prefetch_factor"),
    (lambda: data.DataLoader(numbers(3), persistent_workers=True), ValueError, "needs num_workers > 0"),
    (lambda: data.DataLoader(numbers(3), multiprocessing_context="fork"), ValueError, "num_workers > 0"),
    (lambda: data.DataLoader(numbers(3), num_workers=1, multiprocessing_context="x"), ValueError, "got 'x'"),
    (lambda: data.DataLoader(numbers(3), num_workers=1, multiprocessing_context=5), TypeError, "context"),
    (lambda: data.DataLoader(Shared(), shuffle=True), ValueError, "unspecified shuffle"),
    (lambda: data.DataLoader(Shared(), sampler=[1]), ValueError, "unspecified sampler"),
    (lambda: data.DataLoader(Shared(), batch_sampler=[[1]]), ValueError, "unspecified batch_sampler"),
    (lambda: data.DataLoader(numbers(3), shuffle=True, sampler=[1]), ValueError, "mutually exclusive with shuffle"),
    (lambda: data.DataLoader(numbers(3), batch_size=2, batch_sampler=[[1]]), ValueError, "mutually exclusive"),
    (lambda: data.DataLoader(numbers(3), batch_size=None, drop_last=True), ValueError, "disables auto-batching"),
    (lambda: data.DataLoader(numbers(3), batch_size=0), ValueError, "batch_size=0"),
    (lambda: data.DataLoader(numbers(0), shuffle=True), ValueError, "num_samples=0"),
    (lambda: setattr(data.DataLoader(numbers(3)), "batch_size", 5), ValueError, "Make a new loader"),
    (lambda: iter(data.DataLoader(numbers(3), timeout=1)), AssertionError, "timeout needs workers"),
]


@pytest.mark.parametrize("number", range(len(MANY)))
def test_refusals(number: int) -> None:
    call, error, message = MANY[number]
    with pytest.raises(error, match=message):
        call()


def test_pinning_warns() -> None:
    with pytest.warns(UserWarning, match="no accelerator is found"):
        iter(data.DataLoader(numbers(3), pin_memory=True))


# --- PyTorch itself


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("options", [{}, {"batch_size": 5, "shuffle": True, "drop_last": True}, {"batch_size": None}])
def test_live(workers: int, options: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    for library in (faltung, torch):
        library.manual_seed(11)
    ours = data.DataLoader(Noisy(faltung), num_workers=workers, **options)
    theirs = torch.utils.data.DataLoader(Noisy(torch), num_workers=workers, **options)
    for _ in range(2):
        same(list(ours), list(theirs))
        same(faltung.rand(3), torch.rand(3))
