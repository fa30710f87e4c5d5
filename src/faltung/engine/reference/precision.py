"""How the references compute float16: in float32, rounded once at the end."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import numpy as np

Kernel = TypeVar("Kernel", bound=Callable[..., Any])


def _widen(value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.dtype == np.float16:
        return value.astype(np.float32)
    return value


def _narrow(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype == np.float32:
        return value.astype(np.float16)
    return value


def into(out: np.ndarray | None, result: Any) -> Any:
    """The result, written into `out` if there is one."""
    if out is None:
        return result
    np.copyto(out, result, casting="same_kind")
    return out


def reference(*, wide: tuple[int, ...] = ()) -> Callable[[Kernel], Kernel]:
    """Mark a reference: float16 arguments are computed in float32, and results rounded once.

    Args:
        wide: positions in a tuple of results that stay float32 (statistics: a mean square soon exceeds float16).

    A reference with one array as its result also takes `out`, an array to write it into.
    """

    def mark(kernel: Kernel) -> Kernel:
        @wraps(kernel)
        def run(*args: Any, out: np.ndarray | None = None, **options: Any) -> Any:
            for value in args:
                if isinstance(value, np.ndarray) and value.dtype == np.float16:
                    result = kernel(*map(_widen, args), **options)
                    if isinstance(result, tuple):
                        return tuple(part if i in wide else _narrow(part) for i, part in enumerate(result))
                    return into(out, _narrow(result))
            return into(out, kernel(*args, **options))

        return run  # type: ignore[return-value]

    return mark
