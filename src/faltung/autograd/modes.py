"""Grad mode and inference mode: per thread, as context managers, decorators and switches."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Generator
from typing import Any

__all__ = [
    "enable_grad",
    "inference_mode",
    "is_grad_enabled",
    "is_inference_mode_enabled",
    "no_grad",
    "set_grad_enabled",
    "settle_all",
    "waiting",
]


class _Modes(threading.local):
    grad: bool = True  # operations record themselves on the tape
    inference: bool = False  # new tensors are inference tensors
    anomaly: str = ""  # "trace": nodes remember where they were made; "nan": and nan in a gradient is an error
    saved_hooks: tuple[Any, ...] = ()  # (pack, unpack) pairs, the innermost last
    inside: bool = False  # a module's forward runs and nothing is recorded: results may wait (ops.deferred)


modes = _Modes()


waiting: set[Any] = set()  # weak references to results, of any thread, that wait to be computed (`ops.deferred`)


def settle_all() -> None:
    """Compute every result that waits, and those that another thread adds meanwhile: called before any tensor is
    written to.
    """
    while waiting:
        failure = None
        for reference in tuple(waiting):
            tensor = reference()
            try:
                if tensor is not None:
                    tensor._data  # noqa: B018  # asking for the values computes them
                waiting.discard(reference)
            except Exception as error:
                failure = error
        if failure is not None:
            raise failure


def is_grad_enabled() -> bool:
    """Whether operations are being recorded in this thread."""
    return modes.grad


def is_inference_mode_enabled() -> bool:
    """Whether inference mode is on in this thread."""
    return modes.inference


class _Mode:
    """A context manager that also decorates functions, and generator functions step by step."""

    def _enter(self) -> None:
        raise NotImplementedError

    def _fresh(self) -> _Mode:
        return type(self)()

    def __enter__(self) -> None:
        saved = self.__dict__.setdefault("_saved", [])
        saved.append((modes.grad, modes.inference))
        self._enter()

    def __exit__(self, *exc_info: object) -> None:
        modes.grad, modes.inference = self.__dict__["_saved"].pop()

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        if inspect.isclass(function):
            raise TypeError(
                f"{type(self).__name__}: expected a function to decorate, got the class {function.__name__}."
            )
        if inspect.isgeneratorfunction(function):
            return self._wrap_generator(function)

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with self._fresh():
                return function(*args, **kwargs)

        return wrapper

    def _wrap_generator(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The mode holds while the generator's body runs, not while its consumer does."""

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            generator = function(*args, **kwargs)
            step, value = generator.send, None
            while True:
                try:
                    with self._fresh():
                        item = step(value)
                except StopIteration as stop:
                    return stop.value
                try:
                    value = yield item
                    step = generator.send
                except GeneratorExit:
                    with self._fresh():
                        generator.close()
                    raise
                except BaseException as error:
                    value, step = error, generator.throw

        return wrapper


class _BareDecoratorMode(_Mode):
    """Allows `@no_grad` beside `@no_grad()`."""

    def __new__(cls, function: Callable[..., Any] | None = None) -> Any:
        instance = super().__new__(cls)
        return instance if function is None else instance(function)


class no_grad(_BareDecoratorMode):
    """Operations inside are not recorded and their results don't require gradients."""

    def _enter(self) -> None:
        modes.grad = False


class enable_grad(_BareDecoratorMode):
    """Turns recording on again inside `no_grad`."""

    def _enter(self) -> None:
        modes.grad = True


class set_grad_enabled(_Mode):
    """Turns recording on or off: at once as a statement, until the block's end as a context manager.

    Args:
        mode: True to record.
    """

    def __init__(self, mode: bool) -> None:
        self.mode = bool(mode)
        self._before = modes.grad
        modes.grad = self.mode

    def __enter__(self) -> None:
        modes.grad = self._before
        super().__enter__()

    def _enter(self) -> None:
        modes.grad = self.mode

    def _fresh(self) -> _Mode:
        return set_grad_enabled(self.mode)

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        modes.grad = self._before  # as a decorator, it acts when the function runs
        return super().__call__(function)


class inference_mode(_Mode):
    """`no_grad` whose new tensors, moreover, keep no version and can never take part in a recorded graph.

    Args:
        mode: False leaves inference mode (and turns recording on) inside another `inference_mode` block.
    """

    def __new__(cls, mode: bool | Callable[..., Any] = True) -> Any:
        instance = super().__new__(cls)
        if isinstance(mode, bool):
            instance.mode = mode
            return instance
        instance.mode = True
        return instance(mode)

    mode: bool

    def _enter(self) -> None:
        modes.inference = self.mode
        modes.grad = not self.mode

    def _fresh(self) -> _Mode:
        found: _Mode = inference_mode(self.mode)
        return found
