"""The marks that model files put on their functions for TorchScript. Everything runs as Python, so they change nothing.

PyTorch behaves the same way under `PYTORCH_JIT=0`: `script` and `trace` return what they are given.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

__all__ = [
    "Final",
    "export",
    "ignore",
    "is_scripting",
    "is_tracing",
    "script",
    "script_if_tracing",
    "trace",
    "unused",
]

T = TypeVar("T")


def is_scripting() -> bool:
    """False: no function is ever compiled from its source."""
    return False


def is_tracing() -> bool:
    """False: no calls are being recorded into a program."""
    return False


def script(obj: T, optimize: Any = None, _frames_up: int = 0, _rcb: Any = None, example_inputs: Any = None) -> T:
    """`obj` itself, a function or a module: it runs as Python, with the same results."""
    return obj


def trace(func: T, example_inputs: Any = None, *args: Any, **options: Any) -> T:
    """`func` itself, a function or a module: it runs as Python, with the same results."""
    return func


def script_if_tracing(fn: T) -> T:
    """`fn` itself."""
    return fn


def export(fn: T) -> T:
    """`fn` itself: every method can be called."""
    return fn


def unused(fn: T) -> T:
    """`fn` itself: it stays callable."""
    return fn


def ignore(drop: Any = False, **kwargs: Any) -> Any:
    """The function itself, used as `@ignore` or as `@ignore(drop=True)`."""
    return drop if callable(drop) else _itself


def _itself(fn: T) -> T:
    return fn


def _overload(func: Callable[..., Any]) -> Callable[..., Any]:
    """A declaration for compilers; the implementation that follows it replaces it."""
    return func


_overload_method = _overload
