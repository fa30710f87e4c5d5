"""The larger and the smaller of two elements."""

from __future__ import annotations

from typing import Any

import numpy as np

from faltung.dtypes import COMPLEX
from faltung.ops.apply import apply
from faltung.ops.arithmetic import Binary
from faltung.ops.promotion import tensor_pair
from faltung.tensor import Tensor


class _Extreme(Binary):
    """Base of maximum and minimum; equal elements share the gradient."""

    @classmethod
    def forward(cls, ctx: Any, x: Any, y: Any) -> Any:
        ctx.save_inputs(0, 1)
        return cls.compute(x, y)

    @classmethod
    def first_wins(cls, x: Tensor, y: Tensor) -> Tensor:
        """Where the result is x's element."""
        raise NotImplementedError

    @classmethod
    def backward(cls, ctx: Any, grad: Tensor) -> Any:
        x, y = ctx.saved
        shared = grad.masked_fill(x != y, 0) / 2
        wins, loses = cls.first_wins(x, y), cls.first_wins(y, x)
        return shared + grad.masked_fill(~wins, 0), shared + grad.masked_fill(~loses, 0)


class Maximum(_Extreme):
    """The larger of two elements; nan where either is nan."""

    name = "maximum"
    ufunc = np.maximum
    kernel = "pointwise.maximum"

    @classmethod
    def first_wins(cls, x: Tensor, y: Tensor) -> Tensor:
        return x > y


class Minimum(_Extreme):
    """The smaller of two elements; nan where either is nan."""

    name = "minimum"
    ufunc = np.minimum
    kernel = "pointwise.minimum"

    @classmethod
    def first_wins(cls, x: Tensor, y: Tensor) -> Tensor:
        return x < y


class Fmax(_Extreme):
    """The larger of two elements; the other one where one is nan."""

    name = "fmax"
    ufunc = np.fmax

    @classmethod
    def backward(cls, ctx: Any, grad: Tensor) -> Any:
        x, y = ctx.saved
        first = (x >= y) | y.isnan()
        return grad.masked_fill(~first, 0), grad.masked_fill(first, 0)


class Fmin(_Extreme):
    """The smaller of two elements; the other one where one is nan."""

    name = "fmin"
    ufunc = np.fmin

    @classmethod
    def backward(cls, ctx: Any, grad: Tensor) -> Any:
        x, y = ctx.saved
        first = (x <= y) | y.isnan()
        return grad.masked_fill(~first, 0), grad.masked_fill(first, 0)


def _real_pair(op: type[Binary], x: Any, y: Any) -> Tensor:
    a, b = tensor_pair(op.name, x, y)
    if a.dtype.kind == COMPLEX:
        raise RuntimeError(f"{op.name}: not implemented for complex tensors, which have no order.")
    found: Tensor = apply(op, a, b)
    return found


def maximum(input: Tensor, other: Tensor) -> Tensor:
    """The elementwise larger; nan where either is nan."""
    return _real_pair(Maximum, input, other)


def minimum(input: Tensor, other: Tensor) -> Tensor:
    """The elementwise smaller; nan where either is nan."""
    return _real_pair(Minimum, input, other)


def fmax(input: Tensor, other: Tensor) -> Tensor:
    """The elementwise larger; a nan loses against a number."""
    return _real_pair(Fmax, input, other)


def fmin(input: Tensor, other: Tensor) -> Tensor:
    """The elementwise smaller; a nan loses against a number."""
    return _real_pair(Fmin, input, other)
