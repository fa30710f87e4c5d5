"""Random number generators: the 32-bit stream behind every random number, and its state.

PyTorch's CPU generator is MT19937 seeded by `init_genrand`; `numpy.random.RandomState(seed)` holds the same stream.
`Generator` wraps one such stream and adds what PyTorch keeps beside it: the 64-bit seed and the second value of the
last Box-Muller pair. What is made from the words (uniform, normal, permutations, ...) lives in `faltung.sampling`.

`numpy.random` is imported at the first draw, so that importing the library stays quick.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from faltung import engine

if TYPE_CHECKING:
    from faltung.tensor import Tensor

__all__ = [
    "Generator",
    "default_generator",
    "fork_rng",
    "get_rng_state",
    "initial_seed",
    "manual_seed",
    "seed",
    "set_rng_state",
]

_DEFAULT_SEED = 67280421310721  # PyTorch's seed of a fresh Generator()
_WORDS = 624  # length of the Mersenne Twister's state
_RAW_MASK = 2**32 - 1
_BULK = 1 << 15  # words from which on the generated code draws; a few initial weights should not load it

# The byte layout of a saved state, so that states can be exchanged with PyTorch.
_STATE_LAYOUT = [
    ("seed", "<u8"),
    ("left", "<i4"),
    ("seeded", "<i4"),
    ("next", "<u8"),
    ("words", "<u8", (_WORDS,)),
    ("normal_x", "<f8"),
    ("normal_y", "<f8"),
    ("normal_rho", "<f8"),
    ("normal_is_valid", "<i8"),
    ("float_normal", "<f4"),
    ("float_normal_is_valid", "<i4"),
]


def _nondeterministic_seed() -> int:
    return int.from_bytes(os.urandom(8), "little") & (2**53 - 1)


class Generator:
    """A stream of random numbers: PyTorch's CPU generator, number for number.

    Args:
        device: only `"cpu"` exists.
    """

    _seed: int
    _next_normal: float | None  # second value of the last Box-Muller pair, used by draws of fewer than 16 normals

    def __init__(self, device: Any = "cpu") -> None:
        if str(device).split(":")[0] != "cpu":
            raise RuntimeError(f"Generator: expected device 'cpu', got {str(device)!r}. Faltung computes on CPUs only.")
        self._lock = threading.RLock()
        self._stream: Any = None  # numpy.random.RandomState, made at the first draw
        self._set_seed(_DEFAULT_SEED)

    @property
    def device(self) -> Any:
        """The device of the generator, always the CPU."""
        from faltung.attributes import device

        return device("cpu")

    def _set_seed(self, seed: int) -> None:
        self._seed = seed
        self._next_normal = None
        self._stream = None

    def manual_seed(self, seed: int) -> Generator:
        """Restart the stream from `seed`, an integer in [-2**63, 2**64); a negative one counts from 2**64 downwards."""
        if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
            raise RuntimeError(
                f"Generator.manual_seed: expected an integer seed, got {type(seed).__name__}. Use int(seed)."
            )
        seed = int(seed)
        if not -(2**63) <= seed < 2**64:
            raise ValueError(
                f"Generator.manual_seed: expected a seed in [-2**63, 2**64), got {seed}. Use seed % 2**64 to fit it in."
            )
        with self._lock:
            self._set_seed(seed % 2**64)
        return self

    def seed(self) -> int:
        """Restart the stream from a seed that nobody can foresee, and return that seed."""
        with self._lock:
            self._set_seed(_nondeterministic_seed())
            return self._seed

    def initial_seed(self) -> int:
        """The seed that the stream was started from."""
        return self._seed

    def _open_stream(self) -> Any:
        if self._stream is None:
            from numpy.random import RandomState

            self._stream = RandomState(self._seed & _RAW_MASK)
        return self._stream

    def words(self, count: int) -> np.ndarray:
        """The next `count` 32-bit words of the stream, uint32."""
        with self._lock:
            stream = self._open_stream()
            if count < _BULK:
                return stream.randint(0, 2**32, size=count, dtype=np.uint32)
            return engine.call("random.words", stream, count)

    def take_normal(self) -> float | None:
        """Hand out, and forget, the normal value left over from the last pair; None if there is none."""
        with self._lock:
            value, self._next_normal = self._next_normal, None
            return value

    def keep_normal(self, value: float) -> None:
        """Keep the second normal value of a pair for the next draw."""
        self._next_normal = value

    def __enter__(self) -> Generator:
        """Hold the stream: no other thread draws from it until the block ends."""
        self._lock.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def _state_bytes(self) -> np.ndarray:
        """The state in PyTorch's byte layout, (5056,) uint8."""
        with self._lock:
            _, key, position, *_ = self._open_stream().get_state()
            record = np.zeros(1, dtype=_STATE_LAYOUT)
            # A stream that was seeded but never drawn from has next=0, left=1; after that left counts down from 624.
            untouched = position == _WORDS and int(key[0]) == self._seed & _RAW_MASK
            record["seed"], record["seeded"], record["words"] = self._seed, 1, key
            record["next"] = 0 if untouched else position
            record["left"] = 1 if untouched else _WORDS + 1 - position
            if self._next_normal is not None:
                record["normal_y"], record["normal_is_valid"] = self._next_normal, 1
        return record.view(np.uint8)

    def _load_bytes(self, state: np.ndarray) -> None:
        size_bytes = np.dtype(_STATE_LAYOUT).itemsize
        if state.dtype != np.uint8 or state.size != size_bytes:
            raise RuntimeError(
                f"Generator.set_state: expected a uint8 tensor of {size_bytes} bytes, got {state.size} elements of "
                f"{state.dtype}. Only a tensor that get_state() returned is a state."
            )
        record = np.ascontiguousarray(state).reshape(-1).view(_STATE_LAYOUT)[0]
        left, position = int(record["left"]), int(record["next"])
        if not record["seeded"] or not 0 < left <= _WORDS or position > _WORDS:
            raise RuntimeError(
                "Generator.set_state: expected a state that get_state() returned, got bytes that are no valid state "
                f"(left={left}, next={position})."
            )
        with self._lock:
            self._set_seed(int(record["seed"]))
            # left=1 means that the words are used up and the next draw makes 624 new ones.
            key = record["words"].astype(np.uint32)
            self._open_stream().set_state(("MT19937", key, _WORDS if left == 1 else position))
            self._next_normal = float(record["normal_y"]) if record["normal_is_valid"] else None

    def get_state(self) -> Tensor:
        """The state of the stream as a uint8 tensor, byte for byte PyTorch's."""
        from faltung.tensor import Tensor

        return Tensor._wrap(self._state_bytes())

    def set_state(self, new_state: Tensor) -> None:
        """Continue from a state that `get_state` returned.

        Raises:
            TypeError: `new_state` is no tensor.
            RuntimeError: it has the wrong size or dtype, or does not hold a state.
        """
        from faltung.tensor import Tensor

        if not isinstance(new_state, Tensor):
            raise TypeError(f"Generator.set_state: expected a uint8 Tensor, got {type(new_state).__name__}.")
        self._load_bytes(new_state._data)

    def clone_state(self) -> Generator:
        """A new generator that continues from the state of this one."""
        twin = Generator()
        twin._load_bytes(self._state_bytes())
        return twin

    def __getstate__(self) -> dict[str, Any]:
        return {"state": self._state_bytes()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._lock = threading.RLock()
        self._stream = None
        self._load_bytes(state["state"])

    def __repr__(self) -> str:
        return f"<faltung.Generator device=cpu initial_seed={self._seed}>"


default_generator = Generator()
default_generator.seed()


class _OfThread(threading.local):
    generator: Generator | None = None  # takes the default generator's place in this thread


_of_thread = _OfThread()


def use_in_this_thread(generator: Generator | None) -> None:
    """Make `generator` the default one of the calling thread; None goes back to the shared one.

    Worker threads of a DataLoader have one each, as PyTorch's worker processes do.
    """
    _of_thread.generator = generator


def choose(generator: Generator | None) -> Generator:
    """The generator to draw from: the given one, else the default one."""
    if generator is None:
        return _of_thread.generator or default_generator
    if not isinstance(generator, Generator):
        raise TypeError(f"generator: expected a faltung.Generator or None, got {type(generator).__name__}.")
    return generator


def manual_seed(seed: int) -> Generator:
    """Restart the default generator from `seed` and return it. The same seed gives PyTorch's numbers."""
    return choose(None).manual_seed(int(seed))


def seed() -> int:
    """Restart the default generator from an unforeseeable seed and return that seed."""
    return choose(None).seed()


def initial_seed() -> int:
    """The seed that the default generator was started from."""
    return choose(None).initial_seed()


def get_rng_state() -> Tensor:
    """The state of the default generator, a uint8 tensor."""
    return choose(None).get_state()


def set_rng_state(new_state: Tensor) -> None:
    """Continue the default generator from a state that `get_rng_state` returned."""
    choose(None).set_state(new_state)


@contextlib.contextmanager
def fork_rng(
    devices: Iterable[Any] | None = None,
    enabled: bool = True,
    _caller: str = "fork_rng",
    _devices_kw: str = "devices",
    device_type: str = "cuda",
) -> Iterator[None]:
    """Let the block draw from the default generator and put its state back afterwards.

    Args:
        devices: accepted for scripts that name accelerators; there are none.
        enabled: False makes the block an ordinary one.
    """
    if not enabled:
        yield
        return
    generator = choose(None)
    state = generator._state_bytes()
    try:
        yield
    finally:
        generator._load_bytes(state)
