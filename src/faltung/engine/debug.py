"""What the engine tells when asked: the environment variable FALTUNG_DEBUG, read once at import.

| level | prints |
| --- | --- |
| 1 | which candidate runs an operation, and why earlier ones refused (each new choice once) |
| 2 | the time of every engine call |
| 3 | schedules: tile and block sizes of every kernel that is built or loaded |
| 4 | graphs before and after each compiler pass |
| 5 | LLVM IR of every kernel that is built |
| 6 | assembly of every kernel that is built |

A level includes the ones below it. Everything goes to standard error.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_text = os.environ.get("FALTUNG_DEBUG", "0")
LEVEL = int(_text) if _text.isdigit() else 0
_told: set[str] = set()


def say(level: int, text: str) -> None:
    """Print `text` when the debug level is at least `level`."""
    if level <= LEVEL:
        print(f"faltung[{level}] {text}", file=sys.stderr)


def say_once(level: int, text: str) -> None:
    """As `say`, but the same text only once per process."""
    if level <= LEVEL and text not in _told:
        _told.add(text)
        say(level, text)


@contextmanager
def timed(level: int, what: str) -> Iterator[None]:
    """Print how long the body took."""
    start = time.perf_counter()
    yield
    say(level, f"{what}: {(time.perf_counter() - start) * 1e3:.3f} ms")


def describe(args: tuple[Any, ...]) -> str:
    """Shapes and geometries of an engine call's arguments."""
    parts = []
    for arg in args:
        if hasattr(arg, "shape") and hasattr(arg, "dtype"):
            parts.append(f"{arg.dtype}{list(arg.shape)}")
        elif arg is None or isinstance(arg, int | float | bool | str):
            parts.append(str(arg))
        elif isinstance(arg, list | tuple):
            parts.append(f"{len(arg)} items")
        else:
            parts.append(str(arg))
    return " ".join(parts)
