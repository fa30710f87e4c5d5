"""One way to check every kernel: against the float64 reference, between guard pages, for any number of threads."""

from __future__ import annotations

from typing import Any

import numpy as np

from faltung.engine import registry, team
from faltung.engine.target import host
from tests.engine.guard import guarded_results, guarded_strided

THREADS = (1, 2, 3, 4)


def sizes_around(*blocks: int) -> list[int]:
    """0, 1, and b - 1, b, b + 1 around every block."""
    return sorted({0, 1, *(block + step for block in blocks for step in (-1, 0, 1))})


def lanes() -> int:
    """float32 lanes of this chip."""
    return host().lanes


def floats(shape: Any, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    """Normal float32 numbers; always an array."""
    return np.asarray(np.random.default_rng(seed).standard_normal(shape) * scale, np.float32)


def channels_last(values: np.ndarray) -> np.ndarray:
    """The same values with channels innermost."""
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(values, 1, -1)), -1, 1)


def kernel(name: str, label: str | None = None) -> tuple[Any, Any]:
    """(refuse, run) of an operation's generated candidate: the first, or the one of that label."""
    found = {label: (refuse, run) for label, refuse, run in registry.candidates(name)[:-1]}
    return found[label or next(iter(found))]


def widened(value: Any) -> Any:
    """float32 arrays as float64, also in lists; everything else as it is."""
    if isinstance(value, np.ndarray) and value.dtype == np.float32:
        return value.astype(np.float64)
    return [widened(item) for item in value] if isinstance(value, list) else value


def _guard(value: Any, at_end: bool) -> Any:
    return guarded_strided(value, at_end) if isinstance(value, np.ndarray) else value


def _parts(result: Any) -> list[Any]:
    return [part for part in (result if isinstance(result, tuple) else (result,)) if part is not None]


def check(
    name: str, *args: Any, rtol: float = 2e-6, atol: float = 2e-6, label: str | None = None, **options: Any
) -> Any:
    """Run a kernel in every way, compare it with the reference in float64, and return its result."""
    refuse, run = kernel(name, label)
    assert refuse(*args, **options) is None, refuse(*args, **options)
    with np.errstate(all="ignore"):
        expected = registry.candidates(name)[-1][2](*map(widened, args), **options)
    results = []
    for threads, at_end in zip((*THREADS, 2), (True, True, False, True, False), strict=True):
        team.set_num_threads(threads)
        with guarded_results(at_end):
            results.append(run(*(_guard(arg, at_end) for arg in args), **options))
    first = _parts(results[0])
    for other in results[1:]:
        for a, b in zip(first, _parts(other), strict=True):
            assert a.tobytes() == b.tobytes(), f"{name}: bits depend on the number of threads"
    for a, b in zip(first, _parts(expected), strict=True):
        assert a.shape == b.shape
        assert a.dtype == (np.float32 if b.dtype == np.float64 else b.dtype)
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol, err_msg=name)
    return results[0]
