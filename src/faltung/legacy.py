"""The old tensor types, `FloatTensor(2, 3)` and the like: constructors of one dtype, and names for isinstance."""

from __future__ import annotations

from typing import Any

from faltung import dtypes
from faltung.tensor import Tensor, legacy_tensor


class _LegacyType(type):
    """A type whose instances are all tensors of one dtype."""

    element_type: dtypes.dtype

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        return legacy_tensor(Tensor, args, dtype=cls.element_type.np, **kwargs)

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, Tensor) and instance.dtype is cls.element_type

    @property
    def dtype(cls) -> dtypes.dtype:
        """The dtype of the elements."""
        return cls.element_type


def _legacy(element_type: dtypes.dtype) -> _LegacyType:
    name = f"{element_type.legacy_name}Tensor"
    return _LegacyType(name, (), {"element_type": element_type, "__doc__": f"Tensors of {element_type}."})


FloatTensor = _legacy(dtypes.float32)
DoubleTensor = _legacy(dtypes.float64)
HalfTensor = _legacy(dtypes.float16)
LongTensor = _legacy(dtypes.int64)
IntTensor = _legacy(dtypes.int32)
ShortTensor = _legacy(dtypes.int16)
CharTensor = _legacy(dtypes.int8)
ByteTensor = _legacy(dtypes.uint8)
BoolTensor = _legacy(dtypes.bool)
