"""The buffer pool: alignment, reuse, forks, threads, and its limit."""

import gc
import os
import sys
import threading
from typing import Any

import numpy as np
import pytest

from faltung.engine import memory

LARGE = memory.POOLED_BYTES  # float32 elements of a pooled array, four times over


@pytest.fixture(autouse=True)
def _empty_pool() -> None:
    gc.collect()
    memory.trim()


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (5,), (LARGE,), (3, 1 << 20)])
@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int64, np.bool_])
def test_shapes_and_types(shape: tuple[int, ...], kind: type) -> None:
    array = memory.empty(shape, kind)
    assert (array.shape, array.dtype) == (shape, np.dtype(kind))
    assert array.flags.c_contiguous
    assert array.flags.writeable
    array[...] = 1
    assert (array == 1).all()


def test_channels_last() -> None:
    array = memory.empty_channels_last((2, 64, 70, 70))
    assert array.shape == (2, 64, 70, 70)
    assert array.transpose(0, 2, 3, 1).flags.c_contiguous


def test_strides_of_a_dense_array() -> None:
    for shape in ((4, 5, 6), (4, 300, 600)):
        model = np.empty(shape[::-1], np.float32).T
        assert memory.empty(shape, np.float32, model.strides).strides == model.strides


def test_addresses() -> None:
    for count in (1, 100, LARGE, 10 * LARGE):
        array = memory.empty((count,))
        assert memory.address(array) == array.ctypes.data
        assert memory.address(array[count // 2 :]) == array[count // 2 :].ctypes.data
        if array.nbytes >= memory.POOLED_BYTES:
            assert memory.address(array) % 4096 == 0
    assert memory.address(memory.aligned_bytes(100)) % 64 == 0


def test_arrays_never_share_a_block() -> None:
    arrays = [memory.empty((LARGE,)) for _ in range(20)]
    for number, array in enumerate(arrays):
        array[...] = number
    for number, array in enumerate(arrays):
        assert (array == number).all()


def test_slices_of_a_lease_give_nothing_back() -> None:
    array = memory.empty((LARGE,))
    assert memory.is_lease(array.base)
    free = memory.free_bytes()
    piece = array.base[10:20]
    del piece
    gc.collect()
    assert memory.free_bytes() == free


def test_trim_and_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    array = memory.empty((LARGE,))
    size = memory.free_bytes()
    del array
    assert memory.free_bytes() > size
    memory.trim()
    assert memory.free_bytes() == 0
    monkeypatch.setattr(memory, "_keep_limit", lambda: 0)
    del size
    array = memory.empty((4 * LARGE,))
    del array
    assert memory.free_bytes() == 0


def test_an_interrupt_while_arrays_die_is_not_lost() -> None:
    """No Python code runs when a block's last array dies: what it raised there would be printed and forgotten."""
    called = []

    def note(frame: Any, event: str, argument: Any) -> None:
        if event == "call":
            called.append(frame.f_code.co_name)

    array = memory.empty((LARGE,))
    before = sys.getprofile()
    sys.setprofile(note)
    try:
        del array
    finally:
        sys.setprofile(before)
    assert called == []


def test_impossible_sizes() -> None:
    with pytest.raises(MemoryError, match="cannot allocate"):
        memory.empty((1 << 62,), np.uint8)


def test_a_collection_inside_the_pool() -> None:
    """Arrays in reference cycles die wherever the collector runs, perhaps while the pool is at work."""
    before = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for _ in range(200):
            knot: list[object] = [memory.empty((LARGE,))]
            knot.append(knot)
            del knot
    finally:
        gc.set_threshold(*before)


def test_threads_at_once() -> None:
    wrong = []

    def work(number: int) -> None:
        for _ in range(200):
            array = memory.empty((LARGE,))
            array[...] = number
            if not (array == number).all():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_does_not_write_into_its_parent() -> None:
    kept, freed = memory.empty((LARGE,)), memory.empty((LARGE,))
    kept[...] = 1
    del freed
    child = os.fork()
    if child == 0:
        again = memory.empty((LARGE,))
        again[...] = 7
        kept[...] = 8
        os._exit(0)
    mine = memory.empty((LARGE,))
    mine[...] = 2
    assert os.waitpid(child, 0)[1] == 0
    assert (mine == 2).all()
    assert (kept == 1).all()
