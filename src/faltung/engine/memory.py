"""The buffer pool: large results reuse freed blocks instead of faulting in fresh pages.

Arrays of at least `POOLED_BYTES` take blocks mapped from the system in huge pages where it grants them; when the last
array over a block dies, the pool finds it at its next turn. It keeps at most `KEEP_FRACTION` of the machine's memory in
free blocks.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import mmap
import os
import threading
import weakref
from collections import deque
from functools import lru_cache
from typing import Any

import numpy as np

POOLED_BYTES = 1 << 16
KEEP_FRACTION = 0.25
_HUGE_PAGE = 2 << 20
_FLOAT, _BYTE = np.dtype(np.float32), np.dtype(np.uint8)

_lock = threading.RLock()  # a signal handler may allocate while the pool is at work
_free: dict[int, list[_Block]] = {}
_free_bytes = 0
# a shared mapping, which is mmap's default, would let a forked child write into its parent's tensors
_PRIVATE: dict[str, int] = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}


class _Block:
    """A stretch of mapped memory, `start` bytes into `pages`."""

    __slots__ = ("pages", "size", "start")

    def __init__(self, pages: mmap.mmap, start: int, size: int) -> None:
        self.pages, self.start, self.size = pages, start, size


def _map_blocks(size: int) -> list[_Block]:
    """New blocks of one size on huge pages: one large block, or as many small ones as fill a huge page.

    Small ones too: 4 KiB pages lie anywhere in physical memory, so that working sets meant for L2 may collide there.
    """
    count = max(1, _HUGE_PAGE // size)
    pages = mmap.mmap(-1, -(-count * size // _HUGE_PAGE) * _HUGE_PAGE + _HUGE_PAGE, **_PRIVATE)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without transparent huge pages
            pages.madvise(mmap.MADV_HUGEPAGE)
    start = -address(np.frombuffer(pages, np.uint8)) % _HUGE_PAGE
    return [_Block(pages, start + index * size, size) for index in range(count)]


class _Lease(np.ndarray):
    """What an array over a block holds on to, as its base: the block is free again when the lease dies.

    Its own base is the mapping, not an array: NumPy would make a chain of plain arrays short and drop the lease.
    """


class _Ticket(weakref.ref[_Lease]):
    """Told of a lease's death. The callback is a built-in: Python code would swallow a Ctrl-C that meets it there."""

    __slots__ = ("block",)
    block: _Block


_leased: dict[int, _Ticket] = {}  # by the block's identity: a weak reference that nobody holds tells nobody
_returned: deque[_Ticket] = deque()  # of leases that died


def is_lease(array: Any) -> bool:
    """Whether an array's memory is a block of the pool, held by this array for those that have it as base."""
    return isinstance(array, _Lease)


def empty(shape: tuple[int, ...], dtype: Any = _FLOAT, strides: tuple[int, ...] | None = None) -> np.ndarray:
    """An uninitialised array, from the pool if it is large: C-contiguous, or with the `strides` of a dense array."""
    size = _block_bytes(shape, dtype)
    if not size:
        return np.empty(shape, dtype) if strides is None else np.ndarray(shape, dtype, strides=strides)
    block = _take(size)
    lease = _Lease((size,), _BYTE, block.pages, block.start)
    ticket = _Ticket(lease, _returned.append)
    ticket.block = block
    _leased[id(block)] = ticket
    return np.ndarray(shape, dtype, lease, 0, strides)


@lru_cache(maxsize=4096)
def _block_bytes(shape: tuple[int, ...], dtype: Any) -> int:
    """The size of the block that an array takes: a size class, so that like sizes share blocks; 0 outside the pool.

    Classes lie an eighth of the next power of two apart: at most 1/8 of a block is idle.
    """
    size = np.dtype(dtype).itemsize * math.prod(shape)
    if size < POOLED_BYTES:
        return 0
    step = max(4096, 1 << max(0, size.bit_length() - 4))
    return -(-size // step) * step


def empty_channels_last(shape: tuple[int, ...], dtype: Any = _FLOAT) -> np.ndarray:
    """An uninitialised array of logical shape (N, C, *spatial) whose channels lie innermost in memory."""
    return empty(shape, dtype, channels_last_strides(shape, 4 if dtype is _FLOAT else np.dtype(dtype).itemsize))


@lru_cache(maxsize=4096)
def channels_last_strides(shape: tuple[int, ...], itemsize: int = 4) -> tuple[int, ...]:
    """Bytes from element to element of a dense array (N, C, *spatial) whose channels lie innermost."""
    _, channels, *spatial = shape
    strides = [itemsize]
    for size in (channels, *reversed(spatial)):
        strides.append(strides[-1] * max(size, 1))
    inner, *outer = strides
    return (outer.pop(), inner, *reversed(outer))


_HEAD_BYTES = object.__basicsize__  # NumPy's C interface: the data pointer follows the object's head
_word_at = ctypes.c_size_t.from_address


def address(array: np.ndarray) -> int:
    """Where an array's first element lies (`array.ctypes.data` takes eight times as long)."""
    return _word_at(id(array) + _HEAD_BYTES).value


def _address_by_interface(array: np.ndarray) -> int:
    return array.ctypes.data


_probe = np.empty(1)
if address(_probe) != _probe.ctypes.data:  # another Python than CPython
    address = _address_by_interface


def aligned_bytes(count: int) -> np.ndarray:
    """`count` bytes starting at a cache line, outside the pool."""
    raw = np.empty(count + 64, np.uint8)
    start = -address(raw) % 64
    return raw[start : start + count]


def trim() -> None:
    """Give every free block back to the system."""
    global _free_bytes
    with _lock:
        _collect()
        _free.clear()
        _free_bytes = 0


def free_bytes() -> int:
    """Bytes in free blocks."""
    with _lock:
        _collect()
    return _free_bytes


def _take(size: int) -> _Block:
    global _free_bytes
    with _lock:
        _collect()
        blocks = _free.get(size)
        if blocks:
            _free_bytes -= size
            return blocks.pop()
    try:
        blocks = _map_blocks(size)
    except (OSError, ValueError, OverflowError):
        trim()
        try:
            blocks = _map_blocks(size)
        except (OSError, ValueError, OverflowError) as error:
            raise MemoryError(f"cannot allocate {size} bytes for a result: {error}") from None
    with _lock:
        for spare in blocks[1:]:
            _keep(spare)
    return blocks[0]


def _collect() -> None:
    """Take back the blocks of leases that died since the last turn."""
    while _returned:
        block = _returned.popleft().block
        del _leased[id(block)]
        _keep(block)


def _keep(block: _Block) -> None:
    """Put a free block where `_take` finds it, unless the pool is full."""
    global _free_bytes
    if _free_bytes + block.size <= _keep_limit():
        _free.setdefault(block.size, []).append(block)
        _free_bytes += block.size


_limit = 0


def _keep_limit() -> int:
    global _limit
    if not _limit:
        try:
            _limit = int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * KEEP_FRACTION)
        except (ValueError, OSError, AttributeError):
            _limit = 1 << 30
    return _limit


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
