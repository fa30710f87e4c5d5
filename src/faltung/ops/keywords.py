"""NumPy's keywords: PyTorch also understands `axis` for `dim` and `keepdims` for `keepdim`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

__all__ = ["numpy_names"]

_NAMES = {"axis": "dim", "keepdims": "keepdim"}


def numpy_names(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, understanding NumPy's keywords too; itself where it has neither `dim` nor `keepdim`."""
    code = getattr(function, "__code__", None)
    if code is None or not {"dim", "keepdim"} & set(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]):
        return function

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if kwargs and ("axis" in kwargs or "keepdims" in kwargs):
            kwargs = {_NAMES.get(name, name): value for name, value in kwargs.items()}
        return function(*args, **kwargs)

    return wrapper
