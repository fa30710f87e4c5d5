"""Timing contenders against one another on a machine that is never quite still.

Contenders take turns, in an order that rotates from round to round, and only times of the same round are divided: a
neighbour or a change of clock then meets all of them alike. Medians of those ratios are reported.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

SAMPLE_S = 0.010  # calls are repeated until a sample lasts this long
SETTLE_S = 0.012  # untimed calls before it: threads of the contender before may spin on a core as long as this
MIN_ROUNDS, MAX_ROUNDS = 5, 200


@dataclass(frozen=True)
class Times:
    """Seconds per call of each contender: one row per round."""

    names: tuple[str, ...]
    seconds: np.ndarray  # (rounds, contenders)

    def median_s(self, name: str) -> float:
        return float(np.median(self._of(name)))

    def ratio(self, name: str, base: str) -> float:
        """How many times longer `name` takes than `base`: the median over the rounds."""
        return float(np.median(self._of(name) / self._of(base)))

    def _of(self, name: str) -> np.ndarray:
        return self.seconds[:, self.names.index(name)]


def contest(contenders: Mapping[str, Callable[[], object]], budget_s: float, rounds: int | None = None) -> Times:
    """Time all contenders in turn for about `budget_s` seconds, or for a fixed number of rounds."""
    calls = {name: _calls_per_sample(call) for name, call in contenders.items()}
    order = list(contenders)
    samples: list[list[float]] = []
    end_s = time.perf_counter() + budget_s
    while len(samples) < (rounds or MAX_ROUNDS):
        if rounds is None and len(samples) >= MIN_ROUNDS and time.perf_counter() > end_s:
            break
        row = {name: _sample(contenders[name], calls[name]) for name in order}
        samples.append([row[name] for name in contenders])
        order = order[1:] + order[:1]
    return Times(tuple(contenders), np.asarray(samples))


def _calls_per_sample(call: Callable[[], object]) -> int:
    call()  # compiles, packs, allocates
    start_s = time.perf_counter()
    call()
    once_s = time.perf_counter() - start_s
    return max(1, int(SAMPLE_S / max(once_s, 1e-7)))


def _sample(call: Callable[[], object], calls: int) -> float:
    settled_s = time.perf_counter() + SETTLE_S
    call()  # wakes this contender's threads and brings its data back into the cache
    while time.perf_counter() < settled_s:
        call()
    start_s = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start_s) / calls
