"""Binds the functions of `faltung.ops` to Tensor as methods and operators: tables, one line per family."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from faltung import dtypes, linalg
from faltung.autograd.modes import settle_all
from faltung.ops import (
    activation,
    arithmetic,
    combine,
    compare,
    complex_numbers,
    composed,
    convert,
    creation,
    diagonals,
    distinct,
    extremes,
    gather,
    index,
    join,
    masks,
    matmul,
    metadata,
    order,
    powers,
    random,
    random_fill,
    reduce,
    scan,
    scatter_reduce,
    shape,
    softmax,
    special,
    split,
    trigonometry,
    unary,
)
from faltung.ops.dims import wrap_dim
from faltung.ops.keywords import numpy_names
from faltung.ops.promotion import is_number
from faltung.ops.write import inplace
from faltung.tensor import Tensor

_wrap = Tensor._wrap

# --- methods that are the function itself

_SAME: dict[Any, str] = {
    arithmetic: "add sub rsub mul div floor_divide remainder fmod add_ sub_ mul_ div_",
    powers: "pow",
    extremes: "maximum minimum fmax fmin",
    compare: (
        "eq ne lt le gt ge logical_and logical_or logical_xor logical_not bitwise_and bitwise_or bitwise_xor "
        "bitwise_not bitwise_left_shift bitwise_right_shift isnan isinf isfinite isposinf isneginf isreal signbit "
        "isclose allclose equal"
    ),
    unary: (
        "neg positive exp exp2 expm1 log log2 log10 log1p sqrt rsqrt reciprocal square abs floor ceil trunc frac "
        "round sign"
    ),
    trigonometry: "sin cos tan asin acos atan sinh cosh asinh acosh atanh rad2deg deg2rad",
    complex_numbers: "sgn angle",
    reduce: (
        "sum nansum mean nanmean sum_to_size var std prod any all count_nonzero logsumexp"
    ),
    shape: (
        "view reshape view_as reshape_as flatten ravel unflatten permute transpose t movedim unsqueeze squeeze expand "
        "expand_as broadcast_to as_strided stride"
    ),
    join: "repeat tile flip fliplr flipud roll rot90",
    split: "narrow split chunk tensor_split select unbind",
    matmul: "matmul mm bmm mv dot vdot inner outer addmm addmv addr baddbmm addbmm",
    convert: (
        "clone contiguous is_contiguous to type_as cpu cuda copy_ fill_ zero_ numpy item tolist"
    ),
    creation: "new_tensor new_empty new_zeros new_ones new_full",
    index: "index_put index_put_",
    masks: (
        "masked_fill masked_fill_ masked_select masked_scatter nonzero argwhere clamp clamp_ clamp_min clamp_max "
        "nan_to_num heaviside tril triu"
    ),
    gather: (
        "gather scatter scatter_add take_along_dim index_select index_add index_copy index_fill take put"
    ),
    metadata: (
        "squeeze_ unsqueeze_ transpose_ swapaxes_ swapdims_ t_ as_strided_ resize_ resize_as_ set_ fill_diagonal_ "
        "apply_ storage_offset get_device is_pinned is_shared is_set_to dim_order untyped_storage"
    ),
    order: (
        "amax amin aminmax argmax argmin max min argsort sort msort topk kthvalue median nanmedian mode"
    ),
    scatter_reduce: "scatter_reduce",
    combine: (
        "repeat_interleave split_with_sizes hsplit vsplit dsplit select_scatter slice_scatter kron cross "
        "float_power cov corrcoef histc"
    ),
    distinct: "unique unique_consecutive bincount",
    scan: "cumsum cumprod cummax cummin logcumsumexp diff",
    composed: (
        "atan2 hypot logaddexp logaddexp2 copysign nextafter gcd lcm ldexp xlogy lerp addcmul addcdiv norm dist "
        "renorm quantile nanquantile"
    ),
    diagonals: "diagonal diag diag_embed diagflat diagonal_scatter trace",
    special: "erf erfc erfinv lgamma digamma sinc i0 logit",
    activation: "relu relu_ sigmoid sigmoid_ tanh tanh_ hardshrink prelu",
    random: "bernoulli multinomial",
    random_fill: "uniform_ normal_ bernoulli_ exponential_ cauchy_ log_normal_ geometric_ random_",
}  # fmt: skip

# --- in-place methods of functions without one of their own

_INPLACE: dict[Any, str] = {
    arithmetic: "floor_divide remainder fmod",
    powers: "pow",
    compare: (
        "eq ne lt le gt ge logical_and logical_or logical_xor logical_not bitwise_and bitwise_or bitwise_xor "
        "bitwise_not bitwise_left_shift bitwise_right_shift"
    ),
    unary: (
        "neg exp exp2 expm1 log log2 log10 log1p sqrt rsqrt reciprocal square abs floor ceil trunc frac round sign"
    ),
    trigonometry: "sin cos tan asin acos atan sinh cosh asinh acosh atanh rad2deg deg2rad",
    complex_numbers: "sgn",
    matmul: "addmm addmv addr baddbmm addbmm",
    masks: "clamp_min clamp_max masked_scatter nan_to_num heaviside tril triu",
    gather: "scatter scatter_add index_add index_copy index_fill put",
    scatter_reduce: "scatter_reduce",
    scan: "cumsum cumprod",
    composed: ("atan2 hypot copysign nextafter gcd lcm ldexp xlogy lerp addcmul addcdiv renorm"),
    special: "erf erfc erfinv lgamma digamma sinc i0 logit",
}

# --- further names

_ALIASES: dict[Any, str] = {  # each with the function it stands for; in-place forms follow
    arithmetic: "subtract=sub multiply=mul divide=div true_divide=div",
    compare: (
        "greater=gt greater_equal=ge less=lt less_equal=le not_equal=ne __invert__=bitwise_not __eq__=operator_eq "
        "__ne__=operator_ne"
    ),
    complex_numbers: "conj=conjugate conj_physical=conjugate",
    composed: "arctan2=atan2",
    convert: "type=type_ __array__=array_protocol",
    index: "__getitem__=getitem __setitem__=setitem",
    linalg: "det=det inverse=inv matrix_power=matrix_power",
    masks: "clip=clamp",
    matmul: "ger=outer",
    shape: "swapaxes=transpose swapdims=transpose moveaxis=movedim",
    trigonometry: "arcsin=asin arccos=acos arctan=atan arcsinh=asinh arccosh=acosh arctanh=atanh",
    unary: "absolute=abs negative=neg fix=trunc __neg__=neg __pos__=positive __abs__=abs",
}

_OPERATORS: dict[str, Any] = {
    "add": arithmetic.add, "sub": arithmetic.sub, "mul": arithmetic.mul, "truediv": arithmetic.div,
    "floordiv": arithmetic.floor_divide, "mod": arithmetic.remainder, "pow": powers.pow, "matmul": matmul.matmul,
    "and": compare.bitwise_and, "or": compare.bitwise_or, "xor": compare.bitwise_xor,
    "lshift": compare.bitwise_left_shift, "rshift": compare.bitwise_right_shift,
    "lt": compare.lt, "le": compare.le, "gt": compare.gt, "ge": compare.ge,
}  # fmt: skip
_UNREFLECTED = ("lt", "le", "gt", "ge")

_CASTS: dict[str, dtypes.dtype] = {
    "float": dtypes.float32, "double": dtypes.float64, "half": dtypes.float16, "bfloat16": dtypes.bfloat16,
    "long": dtypes.int64, "int": dtypes.int32, "short": dtypes.int16, "char": dtypes.int8, "byte": dtypes.uint8,
    "bool": dtypes.bool, "cfloat": dtypes.complex64, "cdouble": dtypes.complex128,
}  # fmt: skip


def _of_numpy(array: np.ndarray[Any, Any]) -> Tensor:
    """A tensor on an array's own memory, which its owner may write to."""
    found = _wrap(array)
    found._storage.export()
    return found


def _operand(value: Any) -> bool:
    return isinstance(value, Tensor | np.ndarray) or is_number(value)


def _forward_operator(function: Callable[..., Any]) -> Callable[..., Any]:
    def operator(self: Tensor, other: Any) -> Any:
        if type(other) is Tensor or _operand(other):
            return function(self, _of_numpy(other) if isinstance(other, np.ndarray) else other)
        return NotImplemented

    return operator


def _reflected_operator(function: Callable[..., Any]) -> Callable[..., Any]:
    def operator(self: Tensor, other: Any) -> Any:
        if isinstance(other, np.ndarray):
            return function(_of_numpy(other), self)
        return function(other, self) if _operand(other) else NotImplemented

    return operator


def _cast_method(name: str, to: dtypes.dtype) -> Callable[..., Tensor]:
    def method(self: Tensor, memory_format: Any = convert.preserve_format) -> Tensor:
        return convert.to(self, to, memory_format=memory_format)

    method.__name__ = name
    method.__doc__ = f"The tensor converted to {to}."
    return method


# --- methods whose signature differs from the function's


def _where(self: Tensor, condition: Tensor, other: Any) -> Tensor:
    """The tensor where `condition` is true, `other` elsewhere."""
    found: Tensor = masks.where(condition, self, other)
    return found


def _softmax(self: Tensor, dim: int, dtype: Any = None) -> Tensor:
    """exp(x) / sum(exp(x)) along `dim`."""
    x = self if dtype is None else convert.to(self, dtype)
    return softmax.softmax(x, wrap_dim("softmax", dim, x._data.ndim))


def _log_softmax(self: Tensor, dim: int, dtype: Any = None) -> Tensor:
    """log(softmax(x)) along `dim`."""
    x = self if dtype is None else convert.to(self, dtype)
    return softmax.log_softmax(x, wrap_dim("log_softmax", dim, x._data.ndim))


def _unfold(self: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """Windows of `size` along a dimension, every `step`, as a new last dimension; a view."""
    return split.windows(self, dimension, size, step)


_METHODS: dict[str, Any] = {
    "_stack": staticmethod(join.stack),
    "where": _where, "softmax": _softmax, "log_softmax": _log_softmax, "unfold": _unfold,
}  # fmt: skip

# --- Python's protocols


def _len(self: Tensor) -> int:
    if not self._data.ndim:
        raise TypeError("len() of a 0-d tensor.")
    return self._data.shape[0]


def _iter(self: Tensor) -> Any:
    if not self._data.ndim:
        raise TypeError("iteration over a 0-d tensor.")
    return iter(split.unbind(self, 0))


def _bool(self: Tensor) -> bool:
    if self._data.size != 1:
        if self._data.size == 0:
            raise RuntimeError("bool: Boolean value of Tensor with no values is ambiguous.")
        raise RuntimeError(
            "bool: Boolean value of Tensor with more than one value is ambiguous. Use .any() or .all(), or compare "
            "one element."
        )
    return bool(self._data.item())


def _only_element(self: Tensor) -> Any:
    if self._data.size != 1:
        raise ValueError(
            f"only one element tensors can be converted to Python scalars, got shape {list(self.shape)}. Use tolist()."
        )
    return self._data.item()


def _float(self: Tensor) -> float:
    return float(_only_element(self))


def _int(self: Tensor) -> int:
    return int(_only_element(self))


def _complex(self: Tensor) -> complex:
    return complex(_only_element(self))


def _index(self: Tensor) -> int:
    if self._data.dtype.kind not in "iub" or self._data.size != 1:
        raise TypeError("only integer tensors of a single element can be converted to an index.")
    return int(self._data.item())


def _contains(self: Tensor, value: Any) -> bool:
    if not _operand(value):
        raise RuntimeError(
            f"in: Tensor.__contains__ only supports Tensor or scalar, but you passed in a {type(value).__name__}."
        )
    return bool(compare.eq(self, value)._data.any())


def _format(self: Tensor, spec: str) -> str:
    if not self._data.ndim and type(self) is Tensor:
        return self._data.item().__format__(spec)
    return object.__format__(self, spec)


def _dir_size(self: Tensor, dim: int | None = None) -> Any:
    return self.shape if dim is None else self._data.shape[wrap_dim("size", dim, self._data.ndim)]


def _dim(self: Tensor) -> int:
    return self._data.ndim


def _numel(self: Tensor) -> int:
    return self._data.size


def _element_size(self: Tensor) -> int:
    return self._data.itemsize


def _data_ptr(self: Tensor) -> int:
    settle_all()  # who asks for an address may write there
    return int(self._data.ctypes.data)


def _is_floating_point(self: Tensor) -> bool:
    return self._data.dtype.kind == "f"


def _is_complex(self: Tensor) -> bool:
    return self._data.dtype.kind == "c"


def _is_signed(self: Tensor) -> bool:
    return self.dtype.is_signed


def _is_inference(self: Tensor) -> bool:
    return self._storage.inference


def _as_subclass(self: Tensor, cls: type[Tensor]) -> Tensor:
    """The same tensor, history included, as an instance of a subclass."""
    alias = self._alias(cls)
    alias._requires_grad, alias._grad_fn, alias._output_nr = self.requires_grad, self._grad_fn, self._output_nr
    return alias


def _same_tensor(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """The tensor itself: the method has no meaning on a CPU."""
    return self


_PROTOCOL: dict[str, Any] = {
    "__len__": _len, "__iter__": _iter, "__bool__": _bool, "__float__": _float, "__int__": _int, "__index__": _index,
    "__complex__": _complex, "__contains__": _contains, "__format__": _format, "size": _dir_size, "dim": _dim,
    "ndimension": _dim, "numel": _numel, "nelement": _numel, "element_size": _element_size, "data_ptr": _data_ptr,
    "is_floating_point": _is_floating_point, "is_complex": _is_complex, "is_signed": _is_signed,
    "is_inference": _is_inference, "as_subclass": _as_subclass, "pin_memory": _same_tensor,
    "share_memory_": _same_tensor, "resolve_conj": _same_tensor, "resolve_neg": _same_tensor,
}  # fmt: skip

_PROPERTIES: dict[str, Any] = {
    "T": shape.reverse_dims, "mT": shape.matrix_transpose, "real": complex_numbers.real, "imag": complex_numbers.imag,
    "H": lambda self: complex_numbers.conjugate(shape.transpose(self, 0, 1)),
    "mH": lambda self: complex_numbers.conjugate(shape.matrix_transpose(self)),
}  # fmt: skip


def bind() -> None:
    """Put everything on Tensor; called once, when the library is imported."""
    for module, names in _SAME.items():
        for name in names.split():
            setattr(Tensor, name, numpy_names(getattr(module, name)))
    for module, names in _INPLACE.items():
        for name in names.split():
            setattr(Tensor, name + "_", inplace(getattr(module, name), name + "_"))
    for module, pairs in _ALIASES.items():
        for name, _, original in (pair.partition("=") for pair in pairs.split()):
            setattr(Tensor, name, getattr(module, original))
            if hasattr(Tensor, original + "_") and not name.startswith("_"):
                setattr(Tensor, name + "_", getattr(Tensor, original + "_"))
    for name, function in (_METHODS | _PROTOCOL).items():
        setattr(Tensor, name, numpy_names(function))
    for name, function in _OPERATORS.items():
        setattr(Tensor, f"__{name}__", _forward_operator(function))
        if name not in _UNREFLECTED:
            setattr(Tensor, f"__r{name}__", _reflected_operator(function))
    for name, to in _CASTS.items():
        setattr(Tensor, name, _cast_method(name, to))
    for name, getter in _PROPERTIES.items():
        setattr(Tensor, name, property(getter))
    augmented = {
        "iadd": "add_",
        "isub": "sub_",
        "imul": "mul_",
        "itruediv": "div_",
        "ifloordiv": "floor_divide_",
        "imod": "remainder_",
        "ipow": "pow_",
        "iand": "bitwise_and_",
        "ior": "bitwise_or_",
        "ixor": "bitwise_xor_",
        "ilshift": "bitwise_left_shift_",
        "irshift": "bitwise_right_shift_",
    }
    for operator, method in augmented.items():
        setattr(Tensor, f"__{operator}__", _forward_operator(getattr(Tensor, method)))


bind()
