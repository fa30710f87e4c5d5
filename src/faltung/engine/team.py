"""The thread team: Python threads that stay in generated code and compute chunks of a region together.

A region is a kernel and a number of chunks. The caller publishes it, takes part like everybody else, and returns when
all are done. Every thread begins with an equal stretch of the chunks, so that what one layer leaves in a core's cache
is where the next layer looks for it; a thread that is done takes from the stretches of the others, so that nobody waits
for a slow core. All taking is by atomic counters. Which thread computes a chunk never changes its bits. Workers spin
for a bounded time between regions, then sleep on a condition variable. One region runs at a time: a second caller, and
every caller after a fork until the child builds a team of its own, computes its chunks alone.

    state (64-bit words, hot ones on cache lines of their own)
      EPOCH    counts regions; a worker that sees it change looks for work
      OPEN     1 while a region hands out chunks
      NEXT     the next chunk to hand out of each thread's stretch
      INSIDE   workers that may be reading the region's description
      ASLEEP   workers on the condition variable
      BUSY     1 while a caller owns the team
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from llvmlite import ir

from faltung.engine import jit, memory
from faltung.engine.emit import KERNEL, i32, i64, pointer
from faltung.engine.flags import flags
from faltung.engine.memory import address, aligned_bytes
from faltung.engine.target import host, usable_cores

EPOCH, OPEN, INSIDE, ASLEEP, STOP, BUSY = 0, 8, 24, 32, 40, 41
FUNCTION, ARGUMENTS, CHUNKS, SIZE, MUTEX, CONDITION, NEXT = 48, 49, 50, 51, 64, 96, 128
NEXT_STEP = 16  # words from thread to thread: two cache lines, which some chips fetch as one

SPIN_ROUNDS = 20_000  # pauses before a worker sleeps: some 100 to 300 microseconds
WAIT_ROUNDS = 2_000  # pauses of a finished caller before it yields the core to a worker that was taken off it

_lock = threading.Lock()  # held while a team is assembled or stopped
_size: int | None = flags.threads  # asked for by set_num_threads
_team: _Team | None = None


def get_num_threads() -> int:
    """Threads that compute a region, the caller included."""
    return _size if _size is not None else _default_size()


@lru_cache(maxsize=1)
def _default_size() -> int:
    return usable_cores()  # reads files of the system: too slow for every call


def set_num_threads(count: int) -> None:
    """Use `count` threads from now on. Raises ValueError below 1."""
    global _size, _team
    if count < 1:
        raise ValueError(f"set_num_threads: expected a positive number of threads, got {count}.")
    with _lock:
        if _team is not None and _team.size != count:
            _team.stop()
            _team = None
        _size = count


def scratch(floats: int) -> tuple[Any, int]:
    """Memory for every thread, `floats` (a multiple of 16) each, and its first cache line's address."""
    room = memory.empty((floats * get_num_threads() + 16,))
    start = address(room)
    return room, start + -start % 64


def run(function: int, arguments: bytes, chunks: int) -> None:
    """Compute every chunk of a region: `function` is a kernel's address, `arguments` its packed fields."""
    if chunks > 1:
        team = _team or _assemble()
        if team.size > 1:
            team.run(team.address, function, arguments, chunks)
            return
    if chunks > 0:
        _entry()[1](function, arguments, chunks)


def _assemble() -> _Team:
    global _team
    with _lock:
        if _team is None:
            _team = _Team(get_num_threads())
        return _team


class _Team:
    """The state of a team and its worker threads."""

    def __init__(self, size: int) -> None:
        words = aligned_bytes((NEXT + size * NEXT_STEP) * 8)
        words[:] = 0
        _states.append(words)
        self.size = size
        self.address = address(words)
        self.run, _, worker, initialise, self._stop = _entry()
        initialise(self.address, size)
        for index in range(1, size):
            threading.Thread(target=worker, args=(self.address, index), name=f"faltung-{index}", daemon=True).start()

    def stop(self) -> None:
        """Let the workers return once they are done with the region they are in."""
        self._stop(self.address)


_states: list[Any] = []  # never freed: a worker of a team that was stopped may still be on its way out


def _after_fork_in_child() -> None:
    """Only the forking thread lives on in a child: forget the team, and a lock that another thread may hold."""
    global _lock, _team
    _lock = threading.Lock()
    _team = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


_functions: tuple[Any, ...] | None = None


def _entry() -> tuple[Any, ...]:
    """(run, run alone, worker, initialise, stop) as ctypes functions; they release the GIL while they run."""
    global _functions
    if _functions is None:
        spec = f"spin={SPIN_ROUNDS} wait={WAIT_ROUNDS} mutexes={_has_pthreads()}"
        word, block = ctypes.c_int64, ctypes.c_char_p
        signatures = {
            "run": (word, word, block, word),
            "alone": (word, block, word),
            "worker": (word, word),
            "initialise": (word, word),
            "stop": (word,),
        }
        places = jit.addresses(tuple(f"team_{name}" for name in signatures), spec, _build)
        _functions = tuple(
            ctypes.CFUNCTYPE(None, *kinds)(place) for place, kinds in zip(places, signatures.values(), strict=True)
        )
    return _functions


def _has_pthreads() -> bool:
    return sys.platform != "win32"


def _build() -> str:
    module = ir.Module("team")
    for emit in (_emit_alone, _emit_take, _emit_run, _emit_worker, _emit_initialise, _emit_stop):
        emit(module)
    return str(module)


class _Words:
    """Atomic access to the state in one function."""

    def __init__(self, module: Any, name: str, arguments: int) -> None:
        kind = ir.FunctionType(ir.VoidType(), [i64] * arguments)
        self.module = module
        self.function = ir.Function(module, kind, name=name)
        self.ir = ir.IRBuilder(self.function.append_basic_block("entry"))
        self.state = self.ir.inttoptr(self.function.args[0], i64.as_pointer())

    def at(self, word: Any) -> Any:
        return self.ir.gep(self.state, [_const(word)])

    def load(self, word: Any) -> Any:
        return self.ir.load_atomic(self.at(word), "seq_cst", 8)

    def store(self, word: Any, value: Any) -> None:
        self.ir.store_atomic(_const(value), self.at(word), "seq_cst", 8)

    def add(self, word: Any, amount: int) -> Any:
        return self.ir.atomic_rmw("add", self.at(word), _const(amount), "seq_cst")

    def next_of(self, thread: Any) -> Any:
        """The word that counts through a thread's stretch."""
        return self.ir.add(self.ir.mul(thread, _const(NEXT_STEP)), _const(NEXT))

    def start_of(self, thread: Any, chunks: Any, size: Any) -> Any:
        """The first chunk of a thread's stretch."""
        return self.ir.udiv(self.ir.mul(thread, chunks), size)

    @contextmanager
    def loop(self, name: str, count: Any) -> Iterator[Any]:
        """A loop over 0, 1, ... below `count`, at least once."""
        before, body, end = self.ir.block, self.block(name), self.block(f"{name}_end")
        self.ir.branch(body)
        self.ir.position_at_end(body)
        index = self.ir.phi(i64)
        index.add_incoming(_const(0), before)
        yield index
        following = self.ir.add(index, _const(1))
        index.add_incoming(following, self.ir.block)
        self.ir.cbranch(self.ir.icmp_signed("<", following, count), body, end)
        self.ir.position_at_end(end)

    def outside(self, name: str, *arguments: Any) -> Any:
        kinds = [pointer] * len(arguments)
        function = self.module.globals.get(name) or ir.Function(self.module, ir.FunctionType(i32, kinds), name=name)
        return self.ir.call(function, [self.ir.bitcast(argument, pointer) for argument in arguments])

    def pause(self) -> None:
        if host().triple.startswith("x86_64"):
            name, kinds, arguments = "llvm.x86.sse2.pause", [], []
        else:
            name, kinds, arguments = "llvm.aarch64.hint", [i32], [ir.Constant(i32, 1)]
        known = self.module.globals.get(name)
        self.ir.call(known or ir.Function(self.module, ir.FunctionType(ir.VoidType(), kinds), name=name), arguments)

    def block(self, name: str) -> Any:
        return self.function.append_basic_block(name)

    def wake(self) -> None:
        """Wake the sleepers, if there are any."""
        if _has_pthreads():
            with self.ir.if_then(self.ir.icmp_signed("!=", self.load(ASLEEP), _const(0))):
                self.outside("pthread_mutex_lock", self.at(MUTEX))
                self.outside("pthread_cond_broadcast", self.at(CONDITION))
                self.outside("pthread_mutex_unlock", self.at(MUTEX))


def _emit_alone(module: Any) -> None:
    """team_alone(function, arguments, chunks): every chunk, in order, as thread 0."""
    w = _Words(module, "team_alone", 3)
    function, arguments, chunks = w.function.args
    target, given = w.ir.inttoptr(function, KERNEL.as_pointer()), w.ir.inttoptr(arguments, pointer)
    with w.loop("chunk", chunks) as chunk:
        w.ir.call(target, [given, chunk, _const(0)])
    w.ir.ret_void()


def _emit_take(module: Any) -> None:
    """team_take(state, thread): compute chunks, of the own stretch first, until none is left."""
    w = _Words(module, "team_take", 2)
    function, arguments, chunks, size = (w.ir.load(w.at(word)) for word in (FUNCTION, ARGUMENTS, CHUNKS, SIZE))
    target, given = w.ir.inttoptr(function, KERNEL.as_pointer()), w.ir.inttoptr(arguments, pointer)
    thread = w.function.args[1]
    with w.loop("stretch", size) as step:
        turn = w.ir.add(thread, step)
        owner = w.ir.select(w.ir.icmp_signed("<", turn, size), turn, w.ir.sub(turn, size))
        counter, end = w.next_of(owner), w.start_of(w.ir.add(owner, _const(1)), chunks, size)
        look, body, done = w.block("look"), w.block("chunk"), w.block("done")
        w.ir.branch(look)
        w.ir.position_at_end(look)
        chunk = w.add(counter, 1)
        w.ir.cbranch(w.ir.icmp_signed("<", chunk, end), body, done)
        w.ir.position_at_end(body)
        w.ir.call(target, [given, chunk, thread])
        w.ir.branch(look)
        w.ir.position_at_end(done)
    w.ir.ret_void()


def _emit_run(module: Any) -> None:
    """team_run(state, function, arguments, chunks): publish a region, take part, wait for those still inside.

    Ownership lies here and not in a Python lock, which a KeyboardInterrupt could leave locked.
    """
    w = _Words(module, "team_run", 4)
    busy = w.ir.atomic_rmw("xchg", w.at(BUSY), _const(1), "seq_cst")
    with w.ir.if_then(w.ir.icmp_signed("!=", busy, _const(0)), likely=False):
        w.ir.call(module.globals["team_alone"], w.function.args[1:])
        w.ir.ret_void()
    for word, value in zip((FUNCTION, ARGUMENTS, CHUNKS), w.function.args[1:], strict=True):
        w.ir.store(value, w.at(word))
    size = w.ir.load(w.at(SIZE))
    with w.loop("deal", size) as thread:
        w.store(w.next_of(thread), w.start_of(thread, w.function.args[3], size))
    w.store(OPEN, 1)
    w.add(EPOCH, 1)
    w.wake()
    w.ir.call(module.globals["team_take"], [w.function.args[0], _const(0)])
    w.ir.atomic_rmw("xchg", w.at(OPEN), _const(0), "seq_cst")
    wait, spin, give, relax, end = (w.block(name) for name in ("wait", "spin", "give", "relax", "end"))
    before = w.ir.block
    w.ir.branch(wait)
    w.ir.position_at_end(wait)
    rounds = w.ir.phi(i64)
    rounds.add_incoming(_const(0), before)
    w.ir.cbranch(w.ir.icmp_signed("==", w.load(INSIDE), _const(0)), end, spin)
    w.ir.position_at_end(spin)
    following = w.ir.add(rounds, _const(1))
    patient = w.ir.icmp_signed("<", rounds, _const(WAIT_ROUNDS))
    w.ir.cbranch(patient, relax, give)
    w.ir.position_at_end(relax)
    w.pause()
    w.ir.branch(wait)
    rounds.add_incoming(following, relax)
    w.ir.position_at_end(give)
    if _has_pthreads():
        w.outside("sched_yield")
    w.ir.branch(wait)
    rounds.add_incoming(rounds, give)
    w.ir.position_at_end(end)
    w.store(BUSY, 0)
    w.ir.ret_void()


def _emit_worker(module: Any) -> None:
    """team_worker(state, thread): serve regions until told to stop."""
    w = _Words(module, "team_worker", 2)
    names = ("idle", "look", "pause", "sleep", "check", "doze", "woken", "enter", "work", "leave", "end")
    idle, look, pause, sleep, check, doze, woken, enter, work, leave, end = (w.block(name) for name in names)
    first = w.ir.block
    w.ir.branch(idle)

    w.ir.position_at_end(idle)  # a round of waiting begins, having seen epoch `seen`
    seen = w.ir.phi(i64)
    seen.add_incoming(_const(0), first)
    w.ir.branch(look)

    w.ir.position_at_end(look)
    rounds = w.ir.phi(i64)
    rounds.add_incoming(_const(0), idle)
    epoch = w.load(EPOCH)
    w.ir.cbranch(w.ir.icmp_signed("!=", epoch, seen), enter, pause)

    w.ir.position_at_end(pause)
    w.pause()
    rounds.add_incoming(w.ir.add(rounds, _const(1)), pause)
    spinning = w.ir.icmp_signed("<", rounds, _const(SPIN_ROUNDS if _has_pthreads() else 2**62))
    w.ir.cbranch(spinning, look, sleep)

    w.ir.position_at_end(sleep)
    if _has_pthreads():
        w.outside("pthread_mutex_lock", w.at(MUTEX))
    w.add(ASLEEP, 1)
    w.ir.branch(check)
    w.ir.position_at_end(check)
    w.ir.cbranch(w.ir.icmp_signed("==", w.load(EPOCH), seen), doze, woken)
    w.ir.position_at_end(doze)
    if _has_pthreads():
        w.outside("pthread_cond_wait", w.at(CONDITION), w.at(MUTEX))
    w.ir.branch(check)
    w.ir.position_at_end(woken)
    w.add(ASLEEP, -1)
    if _has_pthreads():
        w.outside("pthread_mutex_unlock", w.at(MUTEX))
    w.ir.branch(enter)

    w.ir.position_at_end(enter)  # be counted before reading the region, so that its caller waits
    now = w.load(EPOCH)
    with w.ir.if_then(w.ir.icmp_signed("!=", w.load(STOP), _const(0))):
        w.ir.branch(end)
    w.add(INSIDE, 1)
    w.ir.cbranch(w.ir.icmp_signed("==", w.load(OPEN), _const(1)), work, leave)
    w.ir.position_at_end(work)
    w.ir.call(module.globals["team_take"], [w.function.args[0], w.function.args[1]])
    w.ir.branch(leave)
    w.ir.position_at_end(leave)
    w.add(INSIDE, -1)
    w.ir.branch(idle)
    seen.add_incoming(now, leave)
    w.ir.position_at_end(end)
    w.ir.ret_void()


def _emit_initialise(module: Any) -> None:
    w = _Words(module, "team_initialise", 2)
    w.ir.store(w.function.args[1], w.at(SIZE))
    if _has_pthreads():
        nothing = ir.Constant(pointer, None)
        w.outside("pthread_mutex_init", w.at(MUTEX), nothing)
        w.outside("pthread_cond_init", w.at(CONDITION), nothing)
    w.ir.ret_void()


def _emit_stop(module: Any) -> None:
    w = _Words(module, "team_stop", 1)
    w.store(STOP, 1)
    w.add(EPOCH, 1)
    w.wake()
    w.ir.ret_void()


def _const(value: Any) -> Any:
    return ir.Constant(i64, value) if isinstance(value, int) else value
