"""Functions of the top level that are no operations: questions about tensors, and switches of the library."""

from __future__ import annotations

import math
from typing import Any

from faltung import dtypes
from faltung.attributes import CPU, check_device, device
from faltung.ops import softmax as softmax_family
from faltung.ops.dims import wrap_dim
from faltung.ops.promotion import cast
from faltung.tensor import Tensor


def numel(input: Tensor) -> int:
    """The number of elements."""
    return math.prod(input.shape)


def is_floating_point(input: Tensor) -> bool:
    """Whether the elements are real floating-point numbers."""
    return input.dtype.is_floating_point


def is_complex(input: Tensor) -> bool:
    """Whether the elements are complex numbers."""
    return input.dtype.is_complex


def is_inference(input: Tensor) -> bool:
    """Whether the tensor was made in inference mode."""
    return input._storage.inference


def is_same_size(input: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same shape."""
    return input._data.shape == other._data.shape


def is_nonzero(input: Tensor) -> bool:
    """Whether the only element isn't zero."""
    if input._data.size != 1:
        raise RuntimeError(f"is_nonzero: Boolean value of Tensor with {input._data.size} values is ambiguous.")
    return bool(input._data.item())


def softmax(input: Tensor, dim: int, dtype: Any = None) -> Tensor:
    """exp(input) / sum(exp(input)) along `dim`."""
    x = input if dtype is None else cast(input, dtype)
    return softmax_family.softmax(x, wrap_dim("softmax", dim, x._data.ndim))


def log_softmax(input: Tensor, dim: int, dtype: Any = None) -> Tensor:
    """log(softmax(input)) along `dim`."""
    x = input if dtype is None else cast(input, dtype)
    return softmax_family.log_softmax(x, wrap_dim("log_softmax", dim, x._data.ndim))


def get_num_interop_threads() -> int:
    """Always 1: operations run one after the other."""
    return 1


def set_num_interop_threads(int: int, /) -> None:
    """Nothing: operations run one after the other."""


def set_default_device(device: Any) -> None:
    """Accept the CPU, refuse any other device."""
    check_device(device)


def set_default_tensor_type(t: Any, /) -> None:
    """The old way to choose the default dtype: `FloatTensor` or "torch.DoubleTensor"."""
    if isinstance(t, str):
        name = t.rsplit(".", 1)[-1].removesuffix("Tensor")
        found = [d for d in dtypes.ALL_DTYPES if d.legacy_name == name]
        if not found:
            raise TypeError(
                f"set_default_tensor_type: invalid type object: {t!r}. Use set_default_dtype(faltung.float32)."
            )
        dtypes.set_default_dtype(found[0])
        return
    dtypes.set_default_dtype(t.element_type)


def save(*args: Any, **kwargs: Any) -> None:
    """Write an object with its tensors to a file; see `faltung.serialization.save`."""
    from faltung import serialization

    serialization.save(*args, **kwargs)


def load(*args: Any, **kwargs: Any) -> Any:
    """Read what `save` wrote; see `faltung.serialization.load`."""
    from faltung import serialization

    return serialization.load(*args, **kwargs)


def detach(input: Tensor) -> Tensor:
    """The same memory without history."""
    return input.detach()


def is_signed(input: Tensor) -> bool:
    """Whether the dtype has negative numbers."""
    return input.dtype.is_signed


def typename(obj: Any, /) -> str:
    """The name of a tensor's old-style type, or of any object's type with its module."""
    if isinstance(obj, Tensor):
        return f"faltung.{obj.dtype.legacy_name}Tensor"
    kind = obj if isinstance(obj, type) else type(obj)
    return f"{kind.__module__}.{kind.__qualname__}" if kind.__module__ != "builtins" else kind.__qualname__


def get_default_device() -> device:
    """Always the CPU."""
    return CPU


def set_flush_denormal(mode: bool) -> bool:
    """Denormal numbers are never flushed: False says that the mode isn't supported."""
    return False
