"""Choosing by measurement: `backends.cpu.benchmark = True`.

Every kernel that fits runs twice the first time a shape comes along; the one with the fastest run is kept for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from faltung.engine import debug
from faltung.engine.epilogue import Epilogue

__all__ = ["fastest", "forget"]

Candidate = tuple[str, Callable[..., Any]]

_kept: dict[Hashable, Callable[..., Any]] = {}
_RUNS = 2  # the first may compile, pack weights or touch fresh memory


def _key(value: Any) -> Hashable:
    if isinstance(value, np.ndarray):
        return value.shape, value.strides, value.dtype.char
    if isinstance(value, Epilogue):
        return value.steps
    if isinstance(value, Hashable):
        return value
    return type(value).__name__


def fastest(
    name: str, candidates: Sequence[Candidate], args: tuple[Any, ...], options: dict[str, Any]
) -> Callable[..., Any]:
    """The candidate that ran fastest on arguments of these shapes. Only for operations that don't write into them."""
    key = (name, *map(_key, args), *[(option, _key(value)) for option, value in options.items()])
    chosen = _kept.get(key)
    if chosen is None:
        times = [(_seconds(run, args, options), label, run) for label, run in candidates]
        times.sort(key=lambda entry: entry[0])
        chosen = _kept[key] = times[0][2]
        told = ", ".join(f"{label} {1e3 * seconds_s:.3f} ms" for seconds_s, label, _ in times)
        debug.say(1, f"{name} {debug.describe(args)}: {told}")
    return chosen


def _seconds(run: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> float:
    best = float("inf")
    for _ in range(_RUNS):
        start = time.perf_counter()
        run(*args, **options)
        best = min(best, time.perf_counter() - start)
    return best


def forget() -> None:
    """Drop all measurements: the number of threads or a switch has changed."""
    _kept.clear()
