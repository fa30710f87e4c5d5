"""Element types: promotion, limits, defaults."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import faltung as t

NAMES = "bool uint8 int8 int16 int32 int64 float16 bfloat16 float32 float64 complex64 complex128".split()

CODES = "b1 u1 i1 i2 i4 i8 f2 bf f4 f8 c8 c16".split()

# PyTorch 2.13's promote_types, rows and columns in the order of NAMES.
PROMOTED = """
    b1 u1 i1 i2 i4 i8 f2 bf f4 f8 c8 c16
    u1 u1 i2 i2 i4 i8 f2 bf f4 f8 c8 c16
    i1 i2 i1 i2 i4 i8 f2 bf f4 f8 c8 c16
    i2 i2 i2 i2 i4 i8 f2 bf f4 f8 c8 c16
    i4 i4 i4 i4 i4 i8 f2 bf f4 f8 c8 c16
    i8 i8 i8 i8 i8 i8 f2 bf f4 f8 c8 c16
    f2 f2 f2 f2 f2 f2 f2 f4 f4 f8 c8 c16
    bf bf bf bf bf bf f4 bf f4 f8 c8 c16
    f4 f4 f4 f4 f4 f4 f4 f4 f4 f8 c8 c16
    f8 f8 f8 f8 f8 f8 f8 f8 f8 f8 c16 c16
    c8 c8 c8 c8 c8 c8 c8 c8 c8 c16 c8 c16
    c16 c16 c16 c16 c16 c16 c16 c16 c16 c16 c16 c16
"""
TABLE = [line.split() for line in PROMOTED.split("\n") if line.strip()]


@pytest.mark.parametrize("first", NAMES)
@pytest.mark.parametrize("second", NAMES)
def test_promote_types(first: str, second: str) -> None:
    expected = NAMES[CODES.index(TABLE[NAMES.index(first)][NAMES.index(second)])]
    assert t.promote_types(getattr(t, first), getattr(t, second)) is getattr(t, expected)


RESULTS: list[tuple[list[Any], str]] = [
    ([t.ones(2, dtype=t.int64), 1.5], "float32"),
    ([t.ones(2, dtype=t.int64), t.tensor(1.5, dtype=t.float64)], "float64"),
    ([t.ones(2), t.tensor(1.5, dtype=t.float64)], "float32"),
    ([t.ones(2, dtype=t.uint8), 300], "uint8"),
    ([t.ones(2, dtype=t.bool), 1], "int64"),
    ([t.ones(2, dtype=t.bool), True], "bool"),
    ([t.ones(2, dtype=t.float16), t.ones(2)], "float32"),
    ([t.tensor(1), t.tensor(2.0)], "float32"),
    ([t.tensor(1, dtype=t.int8), t.tensor(2, dtype=t.int32)], "int32"),
    ([t.ones(2, dtype=t.int8), t.tensor(2, dtype=t.int32)], "int8"),
    ([t.ones(2), 1j], "complex64"),
    ([t.ones(2, dtype=t.float64), 1j], "complex128"),
    ([1, 2.0], "float32"),
]


@pytest.mark.parametrize(("operands", "expected"), RESULTS)
def test_result_type(operands: list[Any], expected: str) -> None:
    assert t.result_type(*operands) is getattr(t, expected)


def test_aliases_are_the_same_objects() -> None:
    assert t.float is t.float32
    assert t.double is t.float64
    assert t.half is t.float16
    assert t.long is t.int64
    assert t.int is t.int32
    assert t.short is t.int16
    assert t.cfloat is t.complex64


@pytest.mark.parametrize("name", NAMES)
def test_identity_survives_copies(name: str) -> None:
    kind = getattr(t, name)
    assert pickle.loads(pickle.dumps(kind)) is kind
    assert copy.deepcopy(kind) is kind
    assert repr(kind) == f"faltung.{name}"


@pytest.mark.parametrize("name", ["float16", "float32", "float64"])
def test_finfo(name: str) -> None:
    ours, numpys = t.finfo(getattr(t, name)), np.finfo(name)
    assert (ours.eps, ours.max, ours.min) == (float(numpys.eps), float(numpys.max), float(numpys.min))
    assert (ours.tiny, ours.bits, ours.dtype) == (float(numpys.tiny), numpys.bits, name)


@pytest.mark.parametrize("name", ["uint8", "int8", "int16", "int32", "int64"])
def test_iinfo(name: str) -> None:
    ours, numpys = t.iinfo(getattr(t, name)), np.iinfo(name)
    assert (ours.min, ours.max, ours.bits, ours.dtype) == (numpys.min, numpys.max, numpys.bits, name)


def test_limits_of_the_wrong_kind() -> None:
    with pytest.raises(TypeError, match="Use iinfo for integers"):
        t.finfo(t.int32)
    with pytest.raises(TypeError, match="Use finfo for floating point"):
        t.iinfo(t.float32)


def test_default_dtype() -> None:
    try:
        t.set_default_dtype(t.float64)
        assert t.tensor(1.0).dtype is t.float64
        assert t.zeros(1).dtype is t.float64
        assert (t.tensor([1]) / 2).dtype is t.float64
        assert t.tensor([1j]).dtype is t.complex128
    finally:
        t.set_default_dtype(t.float32)
    assert t.get_default_dtype() is t.float32
    with pytest.raises(TypeError, match="floating-point dtype"):
        t.set_default_dtype(t.int64)


def test_properties() -> None:
    assert t.float32.is_floating_point
    assert not t.int8.is_floating_point
    assert t.complex64.is_complex
    assert t.int8.is_signed
    assert not t.uint8.is_signed
    assert t.complex64.to_real() is t.float32
    assert t.float64.to_complex() is t.complex128
    assert (t.float64.itemsize, t.bool.itemsize) == (8, 1)
