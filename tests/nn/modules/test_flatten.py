"""Flatten and Unflatten."""

import re

import pytest

import faltung
from faltung import nn


@pytest.mark.parametrize(
    ("arguments", "shape"),
    [((), (2, 60)), ((0,), (120,)), ((0, 1), (6, 4, 5)), ((-2, -1), (2, 3, 20)), ((2, 2), (2, 3, 4, 5))],
)
def test_flatten(arguments: tuple, shape: tuple) -> None:
    x = faltung.arange(120.0).reshape(2, 3, 4, 5)
    assert nn.Flatten(*arguments)(x).shape == shape
    assert nn.Flatten(0)(x).tolist() == x.reshape(-1).tolist()
    assert nn.Flatten()(faltung.ones(0, 3, 2)).shape == (0, 6)


def test_order_is_logical_whatever_the_memory_order() -> None:
    x = faltung.arange(120.0).reshape(2, 3, 4, 5)
    assert faltung.equal(nn.Flatten()(x.contiguous(memory_format=faltung.channels_last)), nn.Flatten()(x))


def test_unflatten() -> None:
    x = faltung.randn(2, 12)
    assert nn.Unflatten(1, (3, 2, 2))(x).shape == (2, 3, 2, 2)
    assert nn.Unflatten(-1, (3, -1))(x).shape == (2, 3, 4)
    assert faltung.equal(nn.Flatten()(nn.Unflatten(1, [3, 4])(x)), x)
    assert repr(nn.Unflatten(1, (3, 4))) == "Unflatten(dim=1, unflattened_size=(3, 4))"
    assert repr(nn.Flatten()) == "Flatten(start_dim=1, end_dim=-1)"


BAD = [
    (lambda: nn.Unflatten(1, 3), TypeError, "unflattened_size must be a tuple of ints, got int"),
    (lambda: nn.Unflatten(1, (3, 1.5)), TypeError, "got 1.5 (float) at position 1"),
    (lambda: nn.Unflatten(1, (5, 2))(faltung.ones(2, 12)), RuntimeError, "12"),
    (lambda: nn.Flatten(3)(faltung.ones(2, 3)), IndexError, "Dimension out of range"),
]


@pytest.mark.parametrize(("call", "kind", "text"), BAD)
def test_messages(call, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=re.escape(text)):
        call()
