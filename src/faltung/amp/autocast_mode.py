"""autocast: lower precision where it pays. Here it pays nowhere, and says so."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

from faltung import dtypes

__all__ = [
    "autocast",
    "custom_bwd",
    "custom_fwd",
    "is_autocast_available",
    "is_autocast_enabled",
]

_DEVICES = ("cpu", "cuda", "mps", "xpu", "hpu", "mtia", "ipu", "xla", "maia")


def is_autocast_available(device_type: str) -> bool:
    """False: everything computes in the dtype of its tensors."""
    return False


def is_autocast_enabled(device_type: str | None = None) -> bool:
    """False: everything computes in the dtype of its tensors."""
    return False


class autocast:
    """A context manager and decorator that leaves the dtypes as they are.

    PyTorch computes convolutions and products in bfloat16 or float16 inside it. Faltung's kernels are fastest in
    float32, and NumPy has no bfloat16: results are PyTorch's float32 ones. Enabled uses warn of that.

    Args:
        device_type: "cpu", "cuda", ...
        dtype: accepted.
        enabled: False makes it an ordinary block, without a warning.
        cache_enabled: accepted.
    """

    def __init__(
        self,
        device_type: str,
        dtype: dtypes.dtype | None = None,
        enabled: bool = True,
        cache_enabled: bool | None = None,
    ) -> None:
        if not isinstance(device_type, str):
            raise ValueError(f"autocast: Expected `device_type` of type `str`, got: `{type(device_type)}`.")
        if device_type not in _DEVICES:
            raise RuntimeError(f"autocast: User specified an unsupported autocast device_type {device_type!r}.")
        self.device = device_type
        self.fast_dtype = dtype
        if enabled and device_type == "cpu":
            _warn("autocast: on the CPU Faltung computes in the dtype of the tensors: nothing is cast.")
        elif enabled:
            _warn(f"autocast: {device_type.upper()} is not available. Disabling autocast: nothing is cast.")

    def __enter__(self) -> autocast:
        return self

    def __exit__(self, *exc_info: object) -> None:
        return None

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            with self:
                return function(*args, **kwargs)

        return run


def _warn(text: str) -> None:
    warnings.warn(text, UserWarning, stacklevel=3)


def custom_fwd(
    fwd: Callable[..., Any] | None = None, *, device_type: str = "cuda", cast_inputs: Any = None
) -> Callable[..., Any]:
    """Marks the forward of an `autograd.Function` for autocast; here it stays as it is."""
    if fwd is None:
        return functools.partial(custom_fwd, device_type=device_type, cast_inputs=cast_inputs)
    return fwd


def custom_bwd(bwd: Callable[..., Any] | None = None, *, device_type: str = "cuda") -> Callable[..., Any]:
    """Marks the backward of an `autograd.Function` for autocast; here it stays as it is."""
    if bwd is None:
        return functools.partial(custom_bwd, device_type=device_type)
    return bwd
