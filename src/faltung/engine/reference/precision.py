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


def reference(*, wide: tuple[int, ...] = ()) -> Callable[[Kernel], Kernel]:
    """Mark a reference: float16 arguments are computed in float32, and results rounded once.

    Args:
        wide: positions in a tuple of results that stay float32 (statistics: a mean square soon exceeds float16).
    """

    def mark(kernel: Kernel) -> Kernel:
        @wraps(kernel)
        def run(*args: Any, **options: Any) -> Any:
            for value in args:
                if isinstance(value, np.ndarray) and value.dtype == np.float16:
                    result = kernel(*map(_widen, args), **options)
                    if isinstance(result, tuple):
                        return tuple(part if i in wide else _narrow(part) for i, part in enumerate(result))
                    return _narrow(result)
            return kernel(*args, **options)

        return run  # type: ignore[return-value]

    return mark
