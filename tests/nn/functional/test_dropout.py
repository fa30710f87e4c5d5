"""Dropout: PyTorch's masks for the same seed, gradients, special probabilities, and what bad input gets.

The expected numbers are PyTorch 2.13's on a CPU, after torch.manual_seed(0).
"""

import math
import re
import warnings

import numpy as np
import pytest

import faltung
import faltung.nn.functional as F
from faltung import nn
from faltung.autograd import gradcheck

ALL = [F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout]
SHAPES = {F.dropout1d: (2, 3, 4), F.dropout2d: (2, 3, 4, 5), F.dropout3d: (2, 3, 2, 3, 2)}


def ones_for(function) -> faltung.Tensor:
    return faltung.ones(SHAPES.get(function, (2, 3, 4)), dtype=faltung.float64)


def test_masks_of_torch() -> None:
    faltung.manual_seed(0)
    assert F.dropout(faltung.ones(12), 0.4).bool().int().tolist() == [0, 0, 1, 0, 0, 0, 1, 1, 1, 1, 1, 1]
    faltung.manual_seed(0)
    assert F.dropout2d(faltung.ones(2, 4, 2, 2))[:, :, 0, 0].tolist() == [[0, 0, 2, 0], [0, 0, 2, 2]]
    faltung.manual_seed(0)
    assert F.dropout1d(faltung.ones(5, 2))[:, 0].tolist() == [0, 0, 2, 0, 0]
    faltung.manual_seed(0)
    assert F.dropout3d(faltung.ones(4, 2, 1, 2))[:, 0, 0, 0].tolist() == [0, 0, 2, 0]
    faltung.manual_seed(0)
    dropped = F.alpha_dropout(faltung.arange(6.0) - 2, 0.3, True)
    expected = [-1.0595482588, -1.0595482588, 0.4540920556, -1.0595482588, 2.1759972572, -1.0595482588]
    np.testing.assert_allclose(dropped.numpy(), expected, rtol=1e-6)
    faltung.manual_seed(0)
    dropped = F.feature_alpha_dropout(faltung.ones(2, 3, 2), 0.5, True)[:, :, 0]
    np.testing.assert_allclose(dropped.numpy(), [[-0.77919394, -0.77919394, 1.6655989], [-0.77919394] * 3], rtol=1e-6)


def test_kept_numbers_are_scaled() -> None:
    y = F.dropout(faltung.ones(1000), 0.2)
    assert set(np.unique(y.numpy())) == {np.float32(0), np.float32(1.25)}
    assert 0.7 < (y > 0).float().mean().item() < 0.9


@pytest.mark.parametrize("name", ["dropout1d", "dropout2d", "dropout3d", "feature_alpha_dropout"])
def test_channels_live_or_die_as_a_whole(name: str) -> None:
    function = getattr(F, name)
    y = function(ones_for(function), 0.5, True)
    flat = y.reshape(y.shape[0] * y.shape[1], -1)
    assert (flat == flat[:, :1]).all()


def test_memory_order_does_not_change_the_mask() -> None:
    x = faltung.rand(2, 8, 5, 5) + 1
    for function in (F.dropout, F.dropout2d):
        faltung.manual_seed(3)
        expected = function(x)
        faltung.manual_seed(3)
        y = function(x.contiguous(memory_format=faltung.channels_last))
        assert y.is_contiguous(memory_format=faltung.channels_last)
        assert faltung.equal(y, expected)


@pytest.mark.parametrize("function", ALL)
def test_gradient(function) -> None:
    def seeded(x: faltung.Tensor) -> faltung.Tensor:
        faltung.manual_seed(5)
        return function(x, 0.4, True)

    assert gradcheck(seeded, [ones_for(function).requires_grad_()])


def test_fused_gradient_is_the_one_of_a_graph() -> None:
    x = faltung.ones(4, 5, requires_grad=True)
    y = F.dropout(x)
    (fused,) = faltung.autograd.grad(y.sum(), x, retain_graph=True)
    (graph,) = faltung.autograd.grad(y.sum(), x, create_graph=True)
    assert fused.tolist() == graph.tolist() == y.tolist()


@pytest.mark.parametrize("function", ALL)
def test_special_probabilities(function) -> None:
    x = ones_for(function)
    faltung.manual_seed(0)
    assert function(x, 0.0, True) is x
    assert function(x, 0.5, False) is x
    assert not function(x, 1.0, True).any()
    fresh = faltung.rand(1)
    faltung.manual_seed(0)
    assert fresh.item() == faltung.rand(1).item()  # nothing was drawn
    empty = faltung.empty(0, 3, 2, 2)
    assert function(empty if function is not F.dropout1d else empty[..., 0], 0.5, True).numel() == 0


@pytest.mark.parametrize("function", ALL)
def test_inplace(function) -> None:
    leaf = ones_for(function).requires_grad_()
    x = leaf * 1
    faltung.manual_seed(1)
    y = function(x, 0.5, True, inplace=True)
    assert y is x
    faltung.manual_seed(1)
    assert faltung.equal(y, function(leaf, 0.5, True))
    y.sum().backward()
    assert leaf.grad is not None


def test_inplace_without_a_batch() -> None:
    x = faltung.ones(3, 4)
    assert F.dropout1d(x, 1.0, inplace=True) is x
    assert not x.any()


def test_function_is_on_unless_told_otherwise_and_the_module_obeys_eval() -> None:
    x = faltung.ones(1000)
    assert not faltung.equal(F.dropout(x), x)
    for kind in (nn.Dropout, nn.AlphaDropout):
        module = kind(0.5)
        assert not faltung.equal(module(x), x)
        assert module.eval()(x) is x
    assert not faltung.equal(nn.Dropout1d()(faltung.ones(64, 2, 1)), faltung.ones(64, 2, 1))
    assert repr(nn.Dropout2d(0.3, True)) == "Dropout2d(p=0.3, inplace=True)"


def test_ranks_that_are_deprecated_warn() -> None:
    with pytest.warns(UserWarning, match=re.escape("dropout2d: Received a 3D input (2, 3, 4)")) as caught:
        F.dropout2d(faltung.ones(2, 3, 4))
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match="dropout2d: Received a 5-D input") as caught:
        F.dropout2d(faltung.ones(2, 3, 4, 1, 1))
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match="dropout3d: Received a 3-D input"):
        F.dropout3d(faltung.ones(2, 3, 4))


X = faltung.ones(4)
BAD = [
    (lambda: F.dropout(X, 1.5), ValueError, "dropout probability has to be between 0 and 1, but got 1.5"),
    (lambda: F.dropout(X, -0.1), ValueError, "but got -0.1"),
    (lambda: F.dropout(X, math.nan), ValueError, "but got nan"),
    (lambda: F.dropout(X, None), TypeError, "p must be a number, got None"),
    (lambda: nn.Dropout(2), ValueError, "Dropout: dropout probability has to be between 0 and 1, but got 2"),
    (lambda: F.dropout(X.numpy()), TypeError, "dropout: input must be a Tensor, got ndarray"),
    (lambda: F.dropout(X.long()), RuntimeError, "dropout: input must be floating point, got faltung.int64"),
    (lambda: F.dropout(X.to(faltung.complex64)), NotImplementedError, "not implemented for faltung.complex64"),
    (lambda: F.dropout1d(X), RuntimeError, "Expected 2D or 3D input (C, L) or (N, C, L), got (4,)"),
    (lambda: F.feature_alpha_dropout(X, 0.5, True), RuntimeError, "requires at least 2 dimensions"),
]


@pytest.mark.parametrize(("call", "kind", "text"), BAD)
def test_messages(call, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=re.escape(text)), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        call()
