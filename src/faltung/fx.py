"""What model files say to PyTorch's symbolic tracer. Faltung's functions are never traced by it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

__all__ = ["wrap"]

T = TypeVar("T", bound="Callable[..., object] | str")


def wrap(fn_or_name: T) -> T:
    """Names a function that a tracer should not look into; returns its argument, so it decorates, too.

    RuntimeError for what is neither a function nor the name of one.
    """
    if not callable(fn_or_name) and not isinstance(fn_or_name, str):
        raise RuntimeError(
            "wrap: Unsupported type for global function! Must be either a callable or string name, "
            f"got {type(fn_or_name).__name__}."
        )
    return fn_or_name
