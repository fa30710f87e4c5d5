"""Element types, and PyTorch's rules for mixing them.

Arrays are NumPy's, but promotion is not: an int64 tensor plus a float32 tensor is float32 here, a Python number never
widens a tensor of its own kind, and a 0-d tensor only widens a dimensioned one of a lower kind.
"""

from __future__ import annotations

from builtins import bool as _py_bool
from builtins import float as _py_float
from builtins import int as _py_int
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from faltung.tensor import Tensor

__all__ = [
    "bfloat16",
    "bool",
    "can_cast",
    "cdouble",
    "cfloat",
    "complex64",
    "complex128",
    "double",
    "dtype",
    "finfo",
    "float",
    "float16",
    "float32",
    "float64",
    "get_default_dtype",
    "half",
    "iinfo",
    "int",
    "int8",
    "int16",
    "int32",
    "int64",
    "long",
    "promote_types",
    "result_type",
    "set_default_dtype",
    "short",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
]

# Kinds, from weakest to strongest: the first step of every promotion.
BOOL, INTEGER, FLOATING, COMPLEX = range(4)


class dtype:
    """The type of a tensor's elements; one object per type, compared by identity.

    Attributes:
        name: `"float32"` and so on.
        np: the NumPy type that stores it; None for bfloat16, which NumPy cannot store.
        kind: `BOOL`, `INTEGER`, `FLOATING` or `COMPLEX`.
        itemsize: bytes of one element.
    """

    __slots__ = ("itemsize", "kind", "legacy_name", "name", "np")

    def __init__(self, name: str, numpy_type: Any, kind: _py_int, itemsize: _py_int, legacy_name: str) -> None:
        self.name = name
        self.np: Any = None if numpy_type is None else np.dtype(numpy_type)
        self.kind = kind
        self.itemsize = itemsize
        self.legacy_name = legacy_name  # FloatTensor's Float: error messages and type() speak of it

    @property
    def is_floating_point(self) -> _py_bool:
        """Whether this is a real floating-point type."""
        return self.kind == FLOATING

    @property
    def is_complex(self) -> _py_bool:
        """Whether this is a complex type."""
        return self.kind == COMPLEX

    @property
    def is_signed(self) -> _py_bool:
        """Whether negative numbers can be represented."""
        return self.kind >= FLOATING or (self.kind == INTEGER and not self.name.startswith("u"))

    @property
    def is_differentiable(self) -> _py_bool:
        """Whether tensors of this type may require gradients."""
        return self.kind >= FLOATING

    def to_real(self) -> dtype:
        """The real type of the same precision."""
        return {"complex64": float32, "complex128": float64}.get(self.name, self)

    def to_complex(self) -> dtype:
        """The complex type of the same precision."""
        if self.kind == COMPLEX:
            return self
        return complex128 if self.name == "float64" else complex64

    def __repr__(self) -> str:
        return f"faltung.{self.name}"

    def __reduce__(self) -> tuple[Any, ...]:
        return (_by_name, (self.name,))


bool = dtype("bool", np.bool_, BOOL, 1, "Bool")
uint8 = dtype("uint8", np.uint8, INTEGER, 1, "Byte")
int8 = dtype("int8", np.int8, INTEGER, 1, "Char")
int16 = short = dtype("int16", np.int16, INTEGER, 2, "Short")
int32 = int = dtype("int32", np.int32, INTEGER, 4, "Int")
int64 = long = dtype("int64", np.int64, INTEGER, 8, "Long")
uint16 = dtype("uint16", np.uint16, INTEGER, 2, "UInt16")
uint32 = dtype("uint32", np.uint32, INTEGER, 4, "UInt32")
uint64 = dtype("uint64", np.uint64, INTEGER, 8, "UInt64")
float16 = half = dtype("float16", np.float16, FLOATING, 2, "Half")
bfloat16 = dtype("bfloat16", None, FLOATING, 2, "BFloat16")
float32 = float = dtype("float32", np.float32, FLOATING, 4, "Float")
float64 = double = dtype("float64", np.float64, FLOATING, 8, "Double")
complex64 = cfloat = dtype("complex64", np.complex64, COMPLEX, 8, "ComplexFloat")
complex128 = cdouble = dtype("complex128", np.complex128, COMPLEX, 16, "ComplexDouble")

ALL_DTYPES: tuple[dtype, ...] = (
    bool, uint8, int8, int16, int32, int64, uint16, uint32, uint64,
    float16, bfloat16, float32, float64, complex64, complex128,
)  # fmt: skip
_NAMED: dict[str, dtype] = {d.name: d for d in ALL_DTYPES}
OF_NUMPY: dict[Any, dtype] = {d.np: d for d in ALL_DTYPES if d.np is not None}
_SCALARS: dict[type, dtype] = {_py_bool: bool, _py_int: int64}
_default_dtype: dtype = float32


def _by_name(name: str) -> dtype:
    return _NAMED[name]


def from_numpy_dtype(numpy_type: Any) -> dtype:
    """The dtype of a NumPy array's elements; TypeError where no tensor can hold them."""
    found = OF_NUMPY.get(np.dtype(numpy_type)) or OF_NUMPY.get(np.dtype(numpy_type).newbyteorder("="))
    if found is None:
        names = ", ".join(str(d.np) for d in ALL_DTYPES if d.np is not None)
        raise TypeError(
            f"can't convert np.ndarray of type numpy.{np.dtype(numpy_type).name}: expected one of {names}. "
            "Convert the array with .astype(...) first."
        )
    return found


def to_numpy_dtype(element_type: Any) -> Any:
    """The NumPy type that stores a dtype; accepts the Python types float, int, bool and complex as PyTorch does."""
    if type(element_type) is not dtype:
        element_type = as_dtype(element_type)
    if element_type.np is None:
        raise NotImplementedError(
            f"dtype: {element_type} tensors can't be stored, since NumPy has no such type. Use float32 or float16."
        )
    return element_type.np


def as_dtype(value: Any) -> dtype:
    """`value` as a dtype: a dtype itself, or Python's float, int, bool, complex; TypeError for anything else."""
    if type(value) is dtype:
        return value
    if value is _py_float:
        return float64
    if value is _py_int:
        return int64
    if value is _py_bool:
        return bool
    if value is complex:
        return complex128
    raise TypeError(f"dtype: expected a faltung.dtype such as faltung.float32, got {value!r} ({type(value).__name__}).")


def get_default_dtype() -> dtype:
    """The floating-point type of new tensors made from Python floats: float32 unless set."""
    return _default_dtype


def set_default_dtype(d: dtype, /) -> None:
    """Choose the floating-point type of new tensors made from Python floats."""
    global _default_dtype
    if type(d) is not dtype or not d.is_floating_point:
        raise TypeError(f"set_default_dtype: expected a floating-point dtype, got {d!r}.")
    to_numpy_dtype(d)
    _default_dtype = d


def scalar_dtype(value: Any) -> dtype:
    """The dtype that a Python number stands for in promotion."""
    if isinstance(value, _py_bool | np.bool_):
        return bool
    if isinstance(value, _py_int | np.integer):
        return int64
    if isinstance(value, _py_float | np.floating):
        return _default_dtype
    if isinstance(value, complex | np.complexfloating):
        return _default_dtype.to_complex()
    raise TypeError(f"expected a Tensor or a number, got {type(value).__name__}.")


def promote_types(type1: dtype, type2: dtype) -> dtype:
    """The smallest type that both can be converted to, by PyTorch's table."""
    if type1 is type2:
        return type1
    low, high = (type1, type2) if type1.kind <= type2.kind else (type2, type1)
    if low.kind != high.kind:
        return complex128 if low is float64 else high
    if bfloat16 in (low, high):
        return (
            high
            if low is bfloat16 and high is not float16
            else low
            if high is bfloat16 and low is not float16
            else float32
        )
    found = OF_NUMPY[np.promote_types(low.np, high.np)]
    if found.kind != low.kind:  # NumPy answers float64 for uint64 with a signed type; PyTorch refuses
        raise RuntimeError(f"Promotion for uint16, uint32, uint64 types is not supported: got {type1} and {type2}.")
    return found


def _combine(higher: dtype | None, lower: dtype | None) -> dtype | None:
    """Type of a group of stronger operands together with a group of weaker ones (either may be absent)."""
    if higher is None or lower is None:
        return higher or lower
    if higher.kind == COMPLEX:
        return higher
    if higher.kind == FLOATING:
        return higher.to_complex() if lower.kind == COMPLEX else higher
    if higher.kind == BOOL or lower.kind >= FLOATING:
        return promote_types(higher, lower)
    return higher


def result_type(*operands: Any) -> dtype:
    """The type in which tensors and numbers are combined.

    Dimensioned tensors decide; 0-d tensors count only where their kind is stronger (bool < integer < float < complex),
    and Python numbers only where theirs is stronger still.
    """
    dimensioned: dtype | None = None
    zero_dim: dtype | None = None
    number: dtype | None = None
    for operand in operands:
        data = getattr(operand, "_data", None)
        if data is None:
            found = operand if type(operand) is dtype else scalar_dtype(operand)
            if type(operand) is dtype:
                dimensioned = found if dimensioned is None else promote_types(dimensioned, found)
            else:
                number = found if number is None else promote_types(number, found)
            continue
        found = OF_NUMPY[data.dtype]
        if data.ndim:
            dimensioned = found if dimensioned is None else promote_types(dimensioned, found)
        else:
            zero_dim = found if zero_dim is None else promote_types(zero_dim, found)
    found_type = _combine(dimensioned, _combine(zero_dim, number))
    if found_type is None:
        raise TypeError("result_type: expected at least one tensor or number, got none.")
    return found_type


def can_cast(from_: dtype, to: dtype) -> _py_bool:
    """Whether an in-place operation may write a result of type `from_` into a tensor of type `to`."""
    return from_.kind <= to.kind or (from_.kind == BOOL)


def default_type_of(value: Tensor | _py_float) -> dtype:
    """A tensor's floating type, or the default one for integers: the type of a true division's result."""
    found = getattr(value, "dtype", None) or scalar_dtype(value)
    return found if found.kind >= FLOATING else _default_dtype


class finfo:
    """Limits of a floating-point type: bits, eps, max, min, tiny, smallest_normal, resolution, dtype."""

    def __init__(self, type: dtype | None = None) -> None:
        element_type = get_default_dtype() if type is None else as_dtype(type)
        if element_type.kind < FLOATING:
            raise TypeError(f"finfo: expected a floating-point dtype, got {element_type}. Use iinfo for integers.")
        element_type = element_type.to_real()
        self.dtype = element_type.name
        self.bits = element_type.itemsize * 8
        if element_type is bfloat16:
            self.eps, self.max, self.resolution = 2.0**-7, 3.3895313892515355e38, 0.01
            self.smallest_normal = 2.0**-126
        else:
            info = np.finfo(element_type.np)
            self.eps, self.max, self.resolution = _py_float(info.eps), _py_float(info.max), _py_float(info.resolution)
            self.smallest_normal = _py_float(info.smallest_normal)
        self.min, self.tiny = -self.max, self.smallest_normal

    def __repr__(self) -> str:
        return (
            f"finfo(resolution={self.resolution:g}, min={self.min:g}, max={self.max:g}, eps={self.eps:g}, "
            f"smallest_normal={self.smallest_normal:g}, tiny={self.tiny:g}, dtype={self.dtype})"
        )


class iinfo:
    """Limits of an integer type: bits, max, min, dtype."""

    def __init__(self, type: dtype) -> None:
        element_type = as_dtype(type)
        if element_type.kind != INTEGER:
            raise TypeError(f"iinfo: expected an integer dtype, got {element_type}. Use finfo for floating point.")
        info = np.iinfo(element_type.np)
        self.dtype, self.bits = element_type.name, info.bits
        self.max, self.min = _py_int(info.max), _py_int(info.min)

    def __repr__(self) -> str:
        return f"iinfo(min={self.min:g}, max={self.max:g}, dtype={self.dtype})"
