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


def reference(kernel: Kernel) -> Kernel:
    """Mark a reference: float16 arguments are computed in float32, and results rounded once."""

    @wraps(kernel)
    def run(*args: Any, **options: Any) -> Any:
        for value in args:
            if isinstance(value, np.ndarray) and value.dtype == np.float16:
                result = kernel(*map(_widen, args), **options)
                return tuple(map(_narrow, result)) if isinstance(result, tuple) else _narrow(result)
        return kernel(*args, **options)

    return run  # type: ignore[return-value]
