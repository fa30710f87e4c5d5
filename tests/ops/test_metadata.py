"""Shapes changed in place, and what a tensor tells of its memory."""

from __future__ import annotations

import pytest

import faltung as t


def test_reshaping_in_place_keeps_memory_and_history() -> None:
    x = t.arange(6.0).requires_grad_()
    y = (x * 2).view(2, 3)
    pointer = y.data_ptr()
    assert y.t_() is y
    assert y.unsqueeze_(0).transpose_(0, 1).shape == (3, 1, 2)
    y.squeeze_()
    assert (tuple(y.shape), y.data_ptr()) == ((3, 2), pointer)
    (y * t.tensor([[1.0, 2], [3, 4], [5, 6]])).sum().backward()
    assert x.grad.tolist() == [2, 6, 10, 4, 8, 12]


def test_a_leaf_with_gradient_keeps_its_shape() -> None:
    with pytest.raises(RuntimeError, match="leaf Variable"):
        t.ones(2, requires_grad=True).unsqueeze_(0)


def test_resize() -> None:
    x = t.arange(6)
    assert x.resize_(2, 2).tolist() == [[0, 1], [2, 3]]
    assert x.resize_(5).shape == (5,)
    assert x[:4].tolist() == [0, 1, 2, 3]
    with pytest.raises(RuntimeError, match="negative"):
        x.resize_(-1)


def test_fill_diagonal() -> None:
    assert t.zeros(2, 3).fill_diagonal_(5).tolist() == [[5, 0, 0], [0, 5, 0]]
    assert t.zeros(5, 2).fill_diagonal_(1, wrap=True).sum().item() == 4
    assert t.zeros(2, 2, 2).fill_diagonal_(1).sum().item() == 2


def test_places_in_memory() -> None:
    x = t.arange(12).view(3, 4)
    part = x[1:, 2:]
    assert part.storage_offset() == 6
    assert part.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
    assert x.is_set_to(x.view(3, 4))
    assert not part.is_set_to(x)
    assert x.t().dim_order() == (1, 0)
    assert part.data_ptr() - x.data_ptr() == 6 * part.element_size()


def test_set_shares_memory() -> None:
    x, y = t.ones(2), t.zeros(3)
    x.set_(y)
    x.add_(1)
    assert y.tolist() == [1, 1, 1]
    assert y._version == 1
