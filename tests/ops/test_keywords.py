"""PyTorch's functions understand NumPy's names of dim and keepdim."""

from __future__ import annotations

import pytest

import faltung as t


@pytest.mark.parametrize("name", ["sum", "mean", "prod", "amax", "argmax", "std", "any", "logsumexp"])
def test_axis_and_keepdims(name: str) -> None:
    x = t.arange(6.0).view(2, 3)
    expected = getattr(x, name)(dim=1, keepdim=True)
    assert t.equal(getattr(x, name)(axis=1, keepdims=True), expected)
    assert t.equal(getattr(t, name)(x, axis=1, keepdims=True), expected)


def test_joining() -> None:
    x = t.ones(2, 3)
    assert t.cat([x, x], axis=1).shape == (2, 6)
    assert x.softmax(axis=0).shape == (2, 3)
    assert t.max(x, axis=0).values.shape == (3,)
