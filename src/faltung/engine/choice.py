"""Choosing by measurement: `backends.cpu.benchmark = True`.

Every kernel that fits runs twice the first time a shape comes along; the one with the fastest run is kept for it, in
memory and, beside the machine code, on disk: per chip, number of threads and set of switches. The file is trusted and
written as machine code is (see `engine.jit`).
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from faltung.engine import debug
from faltung.engine.epilogue import Epilogue
from faltung.engine.flags import flags

__all__ = ["fastest", "forget"]

Candidate = tuple[str, Callable[..., Any]]

_kept: dict[Hashable, Callable[..., Any]] = {}
_on_disk: dict[str, str] | None = None  # key -> label, as the file says; None: not looked yet
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
        text = repr(key)
        chosen = dict(candidates).get(_recall().get(text, ""))
        if chosen is None:
            times = [(_seconds(run, args, options), label, run) for label, run in candidates]
            times.sort(key=lambda entry: entry[0])
            _, label, chosen = times[0]
            told = ", ".join(f"{label} {1e3 * seconds_s:.3f} ms" for seconds_s, label, _ in times)
            debug.say(1, f"{name} {debug.describe(args)}: {told}")
            _remember(text, label)
        _kept[key] = chosen
    return chosen


def _seconds(run: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> float:
    best = float("inf")
    for _ in range(_RUNS):
        start = time.perf_counter()
        run(*args, **options)
        best = min(best, time.perf_counter() - start)
    return best


def forget() -> None:
    """Drop what is in memory: the number of threads or a switch has changed, and another file counts."""
    global _on_disk
    _kept.clear()
    _on_disk = None


def _file() -> Path | None:
    """Where the choices for this chip, these threads and switches are kept; None if nowhere."""
    from faltung.engine import jit, team
    from faltung.engine.target import host

    folder = jit.cache_folder()
    if folder is None:
        return None
    chip = host()
    state = (jit.generator_version(), chip.cpu, chip.features, team.get_num_threads(), flags.winograd)
    return folder / f"choices-{hashlib.sha256(repr(state).encode()).hexdigest()[:32]}.json"


def _recall() -> dict[str, str]:
    global _on_disk
    if _on_disk is None:
        _on_disk = _load()
    return _on_disk


def _load() -> dict[str, str]:
    from faltung.engine import jit

    path = _file()
    content = jit.read_kept(path) if path else None
    try:
        found = json.loads(content) if content else {}
    except ValueError:  # its checksum is right: another version's, perhaps
        return {}
    return found if isinstance(found, dict) else {}


def _remember(key: str, label: str) -> None:
    """Add a choice to the file, which another process may have written meanwhile."""
    global _on_disk
    from faltung.engine import jit

    _on_disk = _load() | _recall() | {key: label}
    path = _file()
    if path:
        jit.write_kept(path, json.dumps(_on_disk, indent=0).encode())
