"""Writing results into existing tensors: in-place methods of composed functions, and `out=`."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from faltung.autograd.modes import settle_all
from faltung.ops.apply import apply_inplace, check_inplace, check_result_cast
from faltung.ops.convert import Copy
from faltung.tensor import Tensor

__all__ = ["inplace", "with_out"]


def inplace(function: Callable[..., Tensor], name: str) -> Callable[..., Tensor]:
    """The in-place method of a function: computes out of place and writes into the first argument."""

    def method(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        check_inplace(name, self, *args, *kwargs.values())
        result = function(self, *args, **kwargs)
        if result._data.dtype != self._data.dtype:
            check_result_cast(result._data, self._data)
        if result._data.shape != self._data.shape:
            raise RuntimeError(
                f"{name}: output with shape {list(self.shape)} doesn't match the broadcast shape {list(result.shape)}. "
                "An in-place operation can't grow its tensor: use the out-of-place form."
            )
        return apply_inplace(Copy, self, result)

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"In-place form of `{function.__name__}`."
    return method


def with_out(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with a keyword `out`: a tensor (or a tuple of them) that receives the result."""

    @functools.wraps(function)
    def wrapper(*args: Any, out: Any = None, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        if out is None:
            return result
        if isinstance(result, tuple):
            if not isinstance(out, tuple | list) or len(out) != len(result):
                raise TypeError(f"{function.__name__}: expected out to be a tuple of {len(result)} tensors.")
            written = [_write_out(function.__name__, r, o) for r, o in zip(result, out)]
            return type(result)(*written) if hasattr(result, "_fields") else tuple(written)
        return _write_out(function.__name__, result, out)

    return wrapper


def _write_out(where: str, result: Tensor, out: Any) -> Tensor:
    if not isinstance(out, Tensor):
        raise TypeError(f"{where}: argument 'out' must be Tensor, not {type(out).__name__}.")
    if result.requires_grad or out.requires_grad:
        raise RuntimeError(
            f"{where}: functions with out=... arguments don't support automatic differentiation, but one of the "
            "arguments requires grad. Compute under no_grad(), or leave out= away."
        )
    if result._data.dtype != out._data.dtype:
        check_result_cast(result._data, out._data)
    if out._data.shape != result._data.shape:
        if out._data.size:
            warnings.warn(
                f"{where}: An output with one or more elements was resized since it had shape {list(out.shape)}, "
                f"which does not match the required output shape {list(result.shape)}.",
                UserWarning,
                stacklevel=3,
            )
        settle_all()
        out._data = np.empty_like(result._data, dtype=out._data.dtype)
    return apply_inplace(Copy, out, result)
