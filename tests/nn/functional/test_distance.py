"""cosine_similarity, pairwise_distance, pdist, normalize."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import faltung as torch
import faltung.nn.functional as F
from faltung import nn
from faltung.autograd import gradcheck, gradgradcheck


def values(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.RandomState(seed).randn(*shape)).requires_grad_()


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_cosine_similarity(dim: int) -> None:
    a, b = values(3, 4, 5), values(3, 4, 5, seed=1)
    x, y = a.detach().numpy(), b.detach().numpy()
    expected = (x * y).sum(dim) / np.sqrt((x * x).sum(dim) * (y * y).sum(dim))
    np.testing.assert_allclose(nn.CosineSimilarity(dim)(a, b).detach().numpy(), expected, rtol=1e-10)
    assert gradcheck(lambda s, t: F.cosine_similarity(s, t, dim), (a, b))


def test_cosine_similarity_broadcasts_and_survives_zeros() -> None:
    assert F.cosine_similarity(torch.ones(4, 1, 3), torch.ones(5, 3), dim=-1).shape == (4, 5)
    x = torch.zeros(2, 3, requires_grad=True)
    got = F.cosine_similarity(x, torch.ones(2, 3))
    assert got.tolist() == [0, 0]
    got.sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("p", [0.5, 1.0, 2.0, 3.0, math.inf])
def test_pairwise_distance(p: float) -> None:
    a, b = values(4, 5), values(4, 5, seed=1)
    difference = np.abs(a.detach().numpy() - b.detach().numpy() + 1e-6)
    expected = difference.max(1) if p == math.inf else (difference**p).sum(1) ** (1 / p)
    np.testing.assert_allclose(nn.PairwiseDistance(p)(a, b).detach().numpy(), expected, rtol=1e-10)
    assert nn.PairwiseDistance(p, keepdim=True)(a, b).shape == (4, 1)
    assert gradcheck(lambda s, t: F.pairwise_distance(s, t, p), (a, b))


@pytest.mark.parametrize("p", [0.0, 1.0, 2.0, 3.0, math.inf])
def test_pdist(p: float) -> None:
    x = values(5, 3)
    rows = x.detach().numpy()
    pairs = [np.linalg.norm(rows[i] - rows[j], p) for i in range(5) for j in range(i + 1, 5)]
    np.testing.assert_allclose(F.pdist(x, p).detach().numpy(), pairs, rtol=1e-10)
    assert gradcheck(lambda t: F.pdist(t, p), (x,))
    assert F.pdist(torch.ones(1, 3)).shape == (0,)


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, math.inf])
def test_normalize(p: float) -> None:
    x = values(3, 4, 2)
    got = F.normalize(x, p, dim=1)
    np.testing.assert_allclose(np.linalg.norm(got.detach().numpy(), p, axis=1), 1, rtol=1e-10)
    assert gradcheck(lambda t: F.normalize(t, p), (x,))
    assert gradgradcheck(lambda t: F.normalize(t, p), (x,))


def test_normalize_into_out_and_of_zeros() -> None:
    out = torch.empty(2, 2)
    got = F.normalize(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), out=out)
    assert got is out
    np.testing.assert_allclose(out.numpy(), [[0.6, 0.8], [0, 0]], rtol=1e-6)


REFUSED: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: F.cosine_similarity(torch.tensor([[1]]), torch.tensor([[1]])), RuntimeError, "floating point"),
    (lambda: F.cosine_similarity(torch.ones(2, 3), torch.ones(2, 4)), RuntimeError, "2, 3.*2, 4|match"),
    (lambda: F.cosine_similarity(torch.ones(2, 3), torch.ones(2, 3), dim=2), IndexError, "range"),
    (lambda: F.pairwise_distance(torch.ones(2, 3), torch.ones(2, 4)), RuntimeError, "2, 3.*2, 4|match"),
    (lambda: F.pdist(torch.ones(3)), RuntimeError, "2D tensors"),
    (lambda: F.pdist(torch.ones(3, 3), -1), RuntimeError, "non-negative p"),
    (lambda: F.pdist(torch.ones(3, 3).long()), RuntimeError, "floating-point"),
    (lambda: F.normalize([1.0]), TypeError, "must be a Tensor"),
]


@pytest.mark.parametrize(("call", "kind", "message"), REFUSED)
def test_refusals(call: Callable[[], Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()
