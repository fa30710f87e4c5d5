"""The Mersenne Twister MT19937 (Matsumoto and Nishimura 1998) in vectors, on the state of NumPy's generator itself.

    while words are wanted:
        if all 624 are used: twist      key[k] = key[k + 397 mod 624] ^ twisted(key[k], key[k + 1]), in place, in order
        temper as many as are left and wanted into the result

A word depends on words 1 and 397 places on and, the last 397 of them, on new words 227 places back: further apart than
any vector, so whole vectors can be made in order. The stream is serial by its nature: one chunk. Registers: below 8.
`below` compares pairs of words with a limit, in chunks.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from llvmlite import ir

from faltung.engine.emit import Emitter, Int, IntLike, Ptr, Vec, i8, i32
from faltung.engine.kernel import Kernel, address
from faltung.engine.kernels import flat

STATE, MIDDLE = 624, 397
_UPPER, _LOWER, _MATRIX = 0x80000000, 0x7FFFFFFF, 0x9908B0DF
_FEWEST = 4096  # words that are worth a launch


@dataclass(frozen=True)
class Schedule:
    """What shapes the code of one kernel."""

    function: str


class _Words:
    """32-bit integers in lanes, with the operators that the twister needs."""

    def __init__(self, e: Emitter, value: Any) -> None:
        self.e, self.value = e, value

    def _other(self, number: int) -> Any:
        kind = self.value.type
        return ir.Constant(kind, [number] * kind.count if isinstance(kind, ir.VectorType) else number)

    def __and__(self, number: int) -> _Words:
        return _Words(self.e, self.e.ir.and_(self.value, self._other(number)))

    def __xor__(self, other: _Words) -> _Words:
        return _Words(self.e, self.e.ir.xor(self.value, other.value))

    def __or__(self, other: _Words) -> _Words:
        return _Words(self.e, self.e.ir.or_(self.value, other.value))

    def __rshift__(self, count: int) -> _Words:
        return _Words(self.e, self.e.ir.lshr(self.value, self._other(count)))

    def __lshift__(self, count: int) -> _Words:
        return _Words(self.e, self.e.ir.shl(self.value, self._other(count)))

    def __neg__(self) -> _Words:
        return _Words(self.e, self.e.ir.sub(self._other(0), self.value))


def _emit_words(e: Emitter, schedule: Schedule) -> None:
    key, position, out = e.pointer("key", i32), e.pointer("position", i32), e.pointer("out", i32)
    count = e.field("count")
    used = Int(e, e.ir.zext(e.ir.load(position.value, typ=i32, align=4), e.raw(0).type))
    # rounds of at most 624 words; the first takes what is left of the state, perhaps nothing
    rounds = (count + used + (STATE - 1)) // STATE
    with e.loop("round", rounds, carry=[used, e.int(0)]) as turn:
        used, done = turn.carried
        with e.when(used.equals(STATE)):
            _twist(e, key)
        used = e.choose(used.equals(STATE), 0, used)
        take = e.smaller(count - done, e.int(STATE) - used)

        def temper(offset: Int, lanes: int, mask: Any, used: Int = used, done: Int = done) -> None:
            word = _Words(e, flat.load(key.at(used + offset), lanes, mask).value)
            word = word ^ (word >> 11)
            word = word ^ ((word << 7) & 0x9D2C5680)
            word = word ^ ((word << 15) & 0xEFC60000)
            flat.store(out.at(done + offset), Vec(e, (word ^ (word >> 18)).value), mask)

        flat.over_range(e, e.int(0), take, 1, temper)
        turn.carry([used + take, done + take])
    e.ir.store(e.ir.trunc(turn.result[0].value, i32), position.value, align=4)


def _twist(e: Emitter, key: Ptr) -> None:
    """All 624 new words, in place."""

    def new_words(start: int, stop: int, distance: int) -> None:
        def body(offset: Int, lanes: int, mask: Any) -> None:
            _twist_some(e, key, offset, offset + 1, offset + distance, lanes, mask)

        flat.over_range(e, e.int(start), e.int(stop), 1, body)

    new_words(0, STATE - MIDDLE, MIDDLE)
    new_words(STATE - MIDDLE, STATE - 1, MIDDLE - STATE)
    _twist_some(e, key, e.int(STATE - 1), 0, MIDDLE - 1, 1, None)


def _twist_some(e: Emitter, key: Ptr, at: Int, following: IntLike, far: IntLike, lanes: int, mask: Any) -> None:
    here, after, away = (_Words(e, flat.load(key.at(i), lanes, mask).value) for i in (at, following, far))
    mixed = (here & _UPPER) | (after & _LOWER)
    word = away ^ (mixed >> 1) ^ (-(mixed & 1) & _MATRIX)
    flat.store(key.at(at), Vec(e, word.value), mask)


def _emit_below(e: Emitter, schedule: Schedule) -> None:
    words, out = e.pointer("words", i32), e.pointer("out", i8)
    limits = [e.ir.trunc(e.field(name).value, i32) for name in ("high_limit", "low_limit")]

    def compare(pair: Int, lanes: int) -> None:
        first, second = (words.at(pair * 2 + half * lanes).load(lanes) for half in (0, 1))
        if lanes == 1:
            high, low = first.value, second.value
        else:
            high, low = (e.shuffle(first, second, range(odd, 2 * lanes, 2)).value for odd in (0, 1))
        high = (_Words(e, high) & (2**21 - 1)).value
        high_limit, low_limit = (e.splat(Vec(e, limit), lanes).value for limit in limits)
        less = e.ir.icmp_unsigned("<", high, high_limit)
        tie = e.both(e.ir.icmp_unsigned("==", high, high_limit), e.ir.icmp_unsigned("<", low, low_limit))
        kind = i8 if lanes == 1 else ir.VectorType(i8, lanes)
        out.at(pair).store(Vec(e, e.ir.zext(e.any_of(less, tie), kind)), align=1)

    start = e.chunk * flat.BLOCK
    stop = e.smaller(start + flat.BLOCK, e.field("n"))
    whole = start + (stop - start) // e.lanes * e.lanes
    with e.loop("whole", whole, start=start, step=e.lanes) as i:
        compare(i.index, e.lanes)
    with e.loop("rest", stop, start=whole) as i:
        compare(i.index, 1)


@lru_cache(maxsize=2)
def _kernel(function: str) -> Kernel:
    if function == "words":
        return Kernel("mersenne_words", "key position out count", Schedule(function), _emit_words)
    return Kernel("mersenne_below", "words out n high_limit low_limit", Schedule(function), _emit_below)


# --- the engine's functions -------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _knows_the_layout() -> bool:
    """Whether NumPy keeps its state as 624 words and the position: that of another build might differ."""
    stream = np.random.RandomState(123)
    stream.randint(0, 2**32, size=5, dtype=np.uint32)
    told: Any = stream.get_state()
    state = (ctypes.c_uint32 * (STATE + 1)).from_address(_state_address(stream))
    return bool(state[:] == [*told[1].tolist(), told[2]])


def _state_address(stream: Any) -> int:
    return int(stream._bit_generator.ctypes.state_address)


def refuse_words(stream: Any, count: int) -> str | None:
    """The reason against, or None."""
    if count < _FEWEST:
        return "too few words"
    return None if _knows_the_layout() else "NumPy keeps its state in another form"


def words(stream: Any, count: int) -> np.ndarray:
    """As `reference.random.words`."""
    out = np.empty(count, np.uint32)
    place = _state_address(stream)
    _kernel("words").launch(1, place, place + 4 * STATE, address(out), count)
    return out


def refuse_below(words: np.ndarray, limit: int) -> str | None:
    """The reason against, or None."""
    return "too few words" if words.size < _FEWEST else None


def below(words: np.ndarray, limit: int) -> np.ndarray:
    """As `reference.random.below`."""
    out = np.empty(words.size // 2, bool)
    high, low = limit >> 32, limit & (2**32 - 1)
    _kernel("below").launch(flat.chunks(out.size), address(words), address(out), out.size, high, low)
    return out
