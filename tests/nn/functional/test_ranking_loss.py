"""Margin, ranking and embedding losses: values, gradients of any order, and what bad input gets."""

import math
import re
import warnings

import numpy as np
import pytest

import faltung
import faltung.nn.functional as F
from faltung import nn
from faltung.autograd import gradcheck, gradgradcheck
from tests.oracle import loss as oracle

REDUCTIONS = pytest.mark.parametrize("reduction", ["none", "mean", "sum"])


def check(function, arrays: list[np.ndarray], expected: np.ndarray) -> None:
    tensors = [faltung.from_numpy(array).requires_grad_() for array in arrays]
    np.testing.assert_allclose(function(*tensors).detach().numpy(), expected, rtol=1e-10, atol=1e-12)
    assert gradcheck(function, tensors)
    assert gradgradcheck(function, tensors)


@REDUCTIONS
@pytest.mark.parametrize("margin", [0.0, 0.5])
def test_margin_ranking_loss(margin: float, reduction: str) -> None:
    rng = np.random.default_rng(0)
    x1, x2, sign = rng.standard_normal((5, 3)), rng.standard_normal((5, 3)), rng.choice([-1.0, 1.0], (5, 3))
    losses = oracle.each(lambda a, b, s: max(0.0, margin - s * (a - b)), x1, x2, sign)
    target = faltung.from_numpy(sign)
    options = {"margin": margin, "reduction": reduction}
    check(lambda a, b: F.margin_ranking_loss(a, b, target, **options), [x1, x2], oracle.reduced(losses, reduction))
    check(lambda a, b: nn.MarginRankingLoss(**options)(a, b, target), [x1, x2], oracle.reduced(losses, reduction))


@REDUCTIONS
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("p", [1, 2])
def test_multi_margin_loss(p: int, weighted: bool, reduction: str) -> None:
    rng = np.random.default_rng(1)
    x, labels = rng.standard_normal((4, 5)), rng.integers(0, 5, 4)
    weight = rng.uniform(0.5, 2, 5) if weighted else None
    expected = oracle.reduced(oracle.multi_margin(x, labels, p, 0.7, weight), reduction)
    options = {"p": p, "margin": 0.7, "weight": None if weight is None else faltung.from_numpy(weight)}
    target = faltung.from_numpy(labels)
    check(lambda x: F.multi_margin_loss(x, target, **options, reduction=reduction), [x], expected)
    check(lambda x: nn.MultiMarginLoss(**options, reduction=reduction)(x, target), [x], expected)
    one = oracle.multi_margin(x[:1], labels[:1], p, 0.7, weight)[0]
    assert F.multi_margin_loss(faltung.from_numpy(x[0]), target[0], **options).item() == pytest.approx(one)


@REDUCTIONS
def test_multilabel_margin_loss(reduction: str) -> None:
    rng = np.random.default_rng(2)
    x = rng.standard_normal((4, 5))
    labels = np.array([[3, 0, -1, 1, 2], [-1, 0, 1, 2, 3], [4, 3, 2, 1, 0], [1, -1, -1, -1, -1]])
    losses = oracle.multilabel_margin(x, labels)
    target = faltung.from_numpy(labels)
    expected = oracle.reduced(losses, reduction)
    check(lambda x: F.multilabel_margin_loss(x, target, reduction=reduction), [x], expected)
    check(lambda x: nn.MultiLabelMarginLoss(reduction=reduction)(x, target), [x], expected)
    assert F.multilabel_margin_loss(faltung.from_numpy(x[0]), target[0]).item() == pytest.approx(losses[0])


@REDUCTIONS
@pytest.mark.parametrize("weighted", [False, True])
def test_multilabel_soft_margin_loss(weighted: bool, reduction: str) -> None:
    rng = np.random.default_rng(3)
    x, t = rng.standard_normal((4, 5)), rng.choice([0.0, 1.0], (4, 5))
    weight = rng.uniform(0.5, 2, 5) if weighted else np.ones(5)

    def formula(x: float, t: float, w: float) -> float:
        return w * (t * math.log1p(math.exp(-x)) + (1 - t) * math.log1p(math.exp(x)))

    expected = oracle.reduced(oracle.each(formula, x, t, weight).mean(1), reduction)
    options = {"weight": faltung.from_numpy(weight) if weighted else None, "reduction": reduction}
    check(lambda x, t: F.multilabel_soft_margin_loss(x, t, **options), [x, t], expected)
    check(lambda x, t: nn.MultiLabelSoftMarginLoss(**options)(x, t), [x, t], expected)


@REDUCTIONS
@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
def test_triplet_margin_loss(p: float, swap: bool, reduction: str) -> None:
    rng = np.random.default_rng(4)
    anchor, positive, negative = (rng.standard_normal((4, 3)) for _ in range(3))

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        return math.fsum(abs(u - v + 1e-6) ** p for u, v in zip(a, b, strict=True)) ** (1 / p)

    losses = []
    for a, b, c in zip(anchor, positive, negative, strict=True):
        apart = min(distance(a, c), distance(b, c)) if swap else distance(a, c)
        losses.append(max(0.0, 1.2 + distance(a, b) - apart))
    expected = oracle.reduced(np.array(losses), reduction)
    options = {"margin": 1.2, "p": p, "swap": swap, "reduction": reduction}
    check(lambda *xs: F.triplet_margin_loss(*xs, **options), [anchor, positive, negative], expected)
    check(lambda *xs: nn.TripletMarginLoss(**options)(*xs), [anchor, positive, negative], expected)
    if p == 2:
        del options["p"]
        check(lambda *xs: F.triplet_margin_with_distance_loss(*xs, **options), [anchor, positive, negative], expected)
        check(lambda *xs: nn.TripletMarginWithDistanceLoss(**options)(*xs), [anchor, positive, negative], expected)


def test_triplet_loss_of_any_distance() -> None:
    a, b, c = (faltung.randn(4, 3) for _ in range(3))

    def city_block(x: faltung.Tensor, y: faltung.Tensor) -> faltung.Tensor:
        return (x - y).abs().sum(-1)

    loss = F.triplet_margin_with_distance_loss(a, b, c, distance_function=city_block, margin=0.5, reduction="none")
    expected = np.maximum(0, 0.5 + abs(a.numpy() - b.numpy()).sum(1) - abs(a.numpy() - c.numpy()).sum(1))
    np.testing.assert_allclose(loss.numpy(), expected, rtol=1e-5, atol=1e-6)


@REDUCTIONS
def test_cosine_embedding_loss(reduction: str) -> None:
    rng = np.random.default_rng(5)
    x1, x2, sign = rng.standard_normal((6, 3)), rng.standard_normal((6, 3)), np.array([1.0, -1, 1, -1, -1, 1])
    cosines = [np.dot(a, b) / math.sqrt(np.dot(a, a) * np.dot(b, b)) for a, b in zip(x1, x2, strict=True)]
    losses = np.array([1 - c if s == 1 else max(0.0, c - 0.1) for c, s in zip(cosines, sign, strict=True)])
    target, expected = faltung.from_numpy(sign), oracle.reduced(losses, reduction)
    options = {"margin": 0.1, "reduction": reduction}
    check(lambda a, b: F.cosine_embedding_loss(a, b, target, **options), [x1, x2], expected)
    check(lambda a, b: nn.CosineEmbeddingLoss(**options)(a, b, target), [x1, x2], expected)
    one = F.cosine_embedding_loss(faltung.from_numpy(x1[0]), faltung.from_numpy(x2[0]), faltung.tensor(1.0))
    assert one.item() == pytest.approx(losses[0])


def test_equal_vectors_have_a_finite_gradient() -> None:
    x = faltung.zeros(2, 3, requires_grad=True)
    F.cosine_embedding_loss(x, faltung.zeros(2, 3), faltung.ones(2)).backward()
    assert np.isfinite(x.grad.numpy()).all()


# --- bad input

X, Y = faltung.ones(4, 5), faltung.tensor([0, 1, 2, 4])
BAD = [
    (lambda: F.margin_ranking_loss(X, X, X[0]), RuntimeError, "All input tensors should have same dimension"),
    (lambda: F.margin_ranking_loss(X, X, X, margin=None), TypeError, "margin must be a number, got None"),
    (lambda: F.hinge_embedding_loss(X, X[:, :3]), RuntimeError, "sizes must match (or be 1)"),
    (lambda: F.soft_margin_loss(X.long(), X), RuntimeError, "Use input.float()"),
    (lambda: F.multi_margin_loss(X, Y + 1), RuntimeError, "target out of range: expected 0 to 4, got 1 to 5"),
    (lambda: F.multi_margin_loss(X, Y[:3]), RuntimeError, "one class index per sample, 4, got (3,)"),
    (lambda: F.multi_margin_loss(X, Y, p=3), ValueError, "only p == 1 and p == 2 supported, got p=3"),
    (lambda: F.multi_margin_loss(X, Y, weight=X), ValueError, "weight must be one-dimensional, got (4, 5)"),
    (lambda: F.multi_margin_loss(X, Y, weight=X[:, 0]), RuntimeError, "expected 5 but got (4,)"),
    (lambda: F.multi_margin_loss(X, Y.float()), RuntimeError, "target must be int64, got faltung.float32"),
    (lambda: F.multi_margin_loss(X[None], Y[None]), RuntimeError, "Expected non-empty vector or matrix"),
    (lambda: nn.MultiMarginLoss(p=3), ValueError, "only p == 1 and p == 2 supported, got p=3"),
    (lambda: nn.MultiMarginLoss(weight=X), ValueError, "weight must be None or 1D, got (4, 5)"),
    (lambda: F.multilabel_margin_loss(X, Y), RuntimeError, "must have the size of input (4, 5), got (4,)"),
    (lambda: F.multilabel_margin_loss(X, X.long() * 5), RuntimeError, "target out of range: expected -1 to 4"),
    (lambda: F.multilabel_soft_margin_loss(X[0, 0], X[0, 0]), IndexError, "needs a last dimension of classes"),
    (lambda: F.triplet_margin_loss(X, X, X, margin=0), ValueError, "margin must be greater than 0, got 0"),
    (lambda: F.triplet_margin_loss(X, X, X[0]), RuntimeError, "negative (5,)"),
    (lambda: nn.TripletMarginLoss(margin=-1.0), ValueError, "greater than 0, got -1.0"),
    (lambda: nn.TripletMarginWithDistanceLoss(margin=0), ValueError, "greater than 0, got 0"),
    (lambda: F.triplet_margin_with_distance_loss(X, X, X, reduction="avg"), ValueError, "avg is not a valid value"),
    (lambda: F.cosine_embedding_loss(X, X, X), RuntimeError, "0D or 1D target tensor expected"),
    (lambda: F.cosine_embedding_loss(X[0], X[0], X[0, :1]), RuntimeError, "1D target tensor expects 2D input tensors"),
    (lambda: F.cosine_embedding_loss(X, X[:, :4], X[:, 0]), RuntimeError, "input1 (4, 5) and input2 (4, 4)"),
    (lambda: F.cosine_embedding_loss(X, X, X[:3, 0]), RuntimeError, "one label per row, 4, got (3,)"),
]


@pytest.mark.parametrize(("call", "kind", "text"), BAD)
def test_messages(call, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=re.escape(text)), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        call()
