"""Parts, directions and conjugates of complex numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from faltung import dtypes
from faltung.autograd.graph import Op
from faltung.ops.apply import apply
from faltung.ops.arithmetic import conj
from faltung.ops.promotion import as_float, operands
from faltung.ops.unary import Step, sign
from faltung.tensor import Tensor


class Sgn(Op):
    """z / |z|, 0 for 0: the sign of a complex number."""

    name = "sgn"

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_inputs(0)
        return np.sign(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (x,) = ctx.saved
        size = x.abs()
        direction = x / size
        found = (grad - (conj(direction) * grad).real * direction) / size
        return found.masked_fill(size == 0, 0)


def sgn(input: Tensor) -> Tensor:
    """The direction of complex numbers; `sign` of real ones."""
    if input._data.dtype.kind != "c":
        return sign(input)
    found: Tensor = apply(Sgn, input)
    return found


class Conj(Op):
    """The complex conjugate."""

    name = "conj"

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return np.conjugate(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return conj(grad)


class Real(Op):
    """The real parts, as a view."""

    name = "real"
    is_view = True
    quiet = True

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return x.real

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return grad.to(grad.dtype.to_complex())


class Imag(Op):
    """The imaginary parts, as a view."""

    name = "imag"
    is_view = True
    quiet = True

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return x.imag

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return grad.to(grad.dtype.to_complex()) * 1j


class MakeComplex(Op):
    """real + i imag."""

    name = "complex"

    @staticmethod
    def forward(ctx: Any, real: Any, imag: Any) -> Any:
        found = np.empty(np.broadcast_shapes(real.shape, imag.shape), np.result_type(real, np.complex64))
        found.real, found.imag = real, imag
        return found

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return grad.real, grad.imag


class RealAngle(Step):
    """0 for positive numbers, pi for negative ones."""

    name = "angle"

    @staticmethod
    def ufunc(x: Any, **out: Any) -> Any:
        return np.where(np.isnan(x), x, np.where(x < 0, x.dtype.type(math.pi), x.dtype.type(0)))


def conjugate(input: Tensor) -> Tensor:
    """The complex conjugate; real tensors as they are."""
    if input._data.dtype.kind != "c":
        return input
    found: Tensor = apply(Conj, input)
    return found


def real(input: Tensor) -> Tensor:
    """The real parts, sharing memory."""
    if input._data.dtype.kind != "c":
        return input
    found: Tensor = apply(Real, input)
    return found


def imag(input: Tensor) -> Tensor:
    """The imaginary parts, sharing memory."""
    if input._data.dtype.kind != "c":
        raise RuntimeError("imag: is not implemented for tensors with non-complex dtypes.")
    found: Tensor = apply(Imag, input)
    return found


def make_complex(real: Tensor, imag: Tensor) -> Tensor:
    """A complex tensor from its two parts."""
    x, y = operands("complex", real, imag)
    if x.dtype not in (dtypes.float32, dtypes.float64) or real.dtype is not imag.dtype:
        raise RuntimeError(
            "complex: Expected both inputs to be Half, Float or Double tensors of one type but got "
            f"{real.dtype.legacy_name} and {imag.dtype.legacy_name}."
        )
    found: Tensor = apply(MakeComplex, x, y)
    return found


def angle(input: Tensor) -> Tensor:
    """The argument of complex numbers; 0 or pi for real ones."""
    x = as_float(input)
    if x._data.dtype.kind == "c":
        return x.imag.atan2(x.real)
    found: Tensor = apply(RealAngle, x)
    return found
