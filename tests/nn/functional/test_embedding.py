"""embedding, embedding_bag, one_hot: values, gradients, in-place renorm, refusals."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import faltung as torch
import faltung.nn.functional as F
from faltung import nn
from faltung.autograd import gradcheck, gradgradcheck


def table(rows: int = 5, columns: int = 3) -> torch.Tensor:
    return torch.from_numpy(np.random.RandomState(0).randn(rows, columns)).requires_grad_()


INDICES = [[1, 0, 1], [[4, 2], [2, 2]], [], 3]


@pytest.mark.parametrize("indices", INDICES, ids=str)
@pytest.mark.parametrize("kind", [torch.int64, torch.int32], ids=str)
def test_embedding_looks_up_rows(indices: Any, kind: torch.dtype) -> None:
    weight, index = table(), torch.tensor(indices, dtype=kind)
    got = F.embedding(index, weight)
    assert got.shape == (*index.shape, 3)
    np.testing.assert_array_equal(got.detach().numpy(), weight.detach().numpy()[np.array(indices, dtype=int)])


@pytest.mark.parametrize("padding_idx", [None, 2, -1, 0])
@pytest.mark.parametrize("by_frequency", [False, True])
def test_embedding_gradient(padding_idx: int | None, by_frequency: bool) -> None:
    weight, index = table(), torch.tensor([[1, 0, 1], [4, 2, 2]])
    seed = np.random.RandomState(1).randn(2, 3, 3)
    out = F.embedding(index, weight, padding_idx=padding_idx, scale_grad_by_freq=by_frequency)
    out.backward(torch.from_numpy(seed))
    expected = np.zeros((5, 3))
    counts = np.bincount(index.numpy().ravel(), minlength=5)
    for place in np.ndindex(2, 3):
        row = index.numpy()[place]
        if padding_idx is None or row != padding_idx % 5:
            expected[row] += seed[place] / (counts[row] if by_frequency else 1)
    assert weight.grad is not None
    np.testing.assert_allclose(weight.grad.numpy(), expected)


@pytest.mark.parametrize("options", [{}, {"padding_idx": 1}, {"scale_grad_by_freq": True}])
def test_embedding_second_derivatives(options: dict[str, Any]) -> None:
    index = torch.tensor([1, 0, 1])
    if not options:
        assert gradcheck(lambda w: F.embedding(index, w), (table(),))
    out = F.embedding(index, table(), **options)
    assert out.requires_grad
    w = table()
    (first,) = torch.autograd.grad(F.embedding(index, w, **options).pow(3).sum(), w, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), w)
    assert second.shape == w.shape


def test_embedding_with_max_norm_rescales_used_rows_in_place() -> None:
    weight = torch.tensor([[3.0, 4.0], [0.3, 0.4], [30.0, 40.0]])
    got = F.embedding(torch.tensor([0, 1, 0]), weight, max_norm=1.0)
    np.testing.assert_allclose(got.numpy(), [[0.6, 0.8], [0.3, 0.4], [0.6, 0.8]], rtol=1e-6)
    assert weight[2].tolist() == [30, 40]
    param = nn.Parameter(torch.tensor([[3.0, 4.0]]))
    F.embedding(torch.tensor([0]), param, max_norm=1.0, norm_type=1.0).sum().backward()
    assert param.abs().sum().item() == pytest.approx(1)
    assert param.is_leaf


BAGS = [
    ([[1, 0], [4, 2]], None, {}),
    ([1, 0, 4, 2, 2], [0, 2, 2], {}),
    ([1, 0, 4, 2, 2], [0, 2, 5], {"include_last_offset": True}),
    ([1, 2, 2, 2], [0, 1], {"padding_idx": 2}),
    ([1, 0, 1], [0], {"scale_grad_by_freq": True}),
]


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize(("indices", "offsets", "options"), BAGS)
def test_embedding_bag(indices: Any, offsets: Any, options: dict[str, Any], mode: str) -> None:
    if mode == "max" and "scale_grad_by_freq" in options:
        return
    weight = table()
    starts = None if offsets is None else torch.tensor(offsets)
    got = F.embedding_bag(torch.tensor(indices), weight, starts, mode=mode, **options).detach().numpy()
    if offsets is None:
        bags = indices
    else:
        ends = [*offsets[1:], *([] if options.get("include_last_offset") else [len(indices)])]
        bags = [indices[a:b] for a, b in zip(offsets, ends)]
    for row, bag in zip(got, bags, strict=True):
        members = weight.detach().numpy()[[i for i in bag if i != options.get("padding_idx")]]
        reduce = {"sum": np.sum, "mean": np.mean, "max": np.max}[mode]
        np.testing.assert_allclose(row, reduce(members, axis=0) if len(members) else 0, rtol=1e-12)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_embedding_bag_gradients(mode: str) -> None:
    index, offsets = torch.tensor([1, 0, 4, 2, 2]), torch.tensor([0, 2, 2])
    assert gradcheck(lambda w: F.embedding_bag(index, w, offsets, mode=mode), (table(),))
    assert gradgradcheck(lambda w: F.embedding_bag(index, w, offsets, mode=mode), (table(),))


def test_embedding_bag_weights_of_samples() -> None:
    index, offsets = torch.tensor([1, 0, 1]), torch.tensor([0, 1])
    factors = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64, requires_grad=True)
    operation = lambda w, f: F.embedding_bag(index, w, offsets, mode="sum", per_sample_weights=f)  # noqa: E731
    assert gradcheck(operation, (table(), factors))
    assert gradgradcheck(operation, (table(), factors))


def test_one_hot() -> None:
    assert F.one_hot(torch.tensor([0, 2])).tolist() == [[1, 0, 0], [0, 0, 1]]
    assert F.one_hot(torch.tensor(1), 4).tolist() == [0, 1, 0, 0]
    assert F.one_hot(torch.tensor([[0], [1]]), 2).shape == (2, 1, 2)
    assert F.one_hot(torch.empty(0, 3, dtype=torch.int64), 5).shape == (0, 3, 5)
    assert F.one_hot(torch.tensor([0])).dtype is torch.int64


W = torch.ones(4, 2)
L = lambda *v: torch.tensor(v, dtype=torch.int64)  # noqa: E731
REFUSED: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: F.embedding(L(4), W), IndexError, "index out of range in self: got 4, weight has 4 rows"),
    (lambda: F.embedding(L(-1), W), IndexError, "got -1"),
    (lambda: F.embedding(torch.ones(2), W), RuntimeError, r"Long, Int; but got faltung.float32.*\n.*input.long\(\)"),
    (lambda: F.embedding(L(1), torch.ones(3)), RuntimeError, "'weight' must be 2-d"),
    (lambda: F.embedding(L(1), W, padding_idx=4), AssertionError, "Padding_idx must be within num_embeddings"),
    (lambda: F.embedding(L(1), W, padding_idx=-5), AssertionError, "Padding_idx must be within"),
    (lambda: F.embedding([1], W), TypeError, "input must be a Tensor, got list"),
    (lambda: F.embedding_bag(L(1), W), ValueError, "offsets has to be a 1D Tensor but got None"),
    (lambda: F.embedding_bag(L(1).reshape(1, 1), W, L(0)), ValueError, "offsets has to be None"),
    (lambda: F.embedding_bag(L(1).reshape(1, 1, 1), W), ValueError, "1D or 2D"),
    (lambda: F.embedding_bag(L(1), W, L(0), mode="median"), ValueError, "sum, mean or max, got 'median'"),
    (lambda: F.embedding_bag(L(1), W, L(1)), RuntimeError, r"offsets\[0\] has to be 0"),
    (lambda: F.embedding_bag(L(1), W, L(0, 5)), RuntimeError, "offsets must rise"),
    (lambda: F.embedding_bag(L(1), W, L(0), per_sample_weights=torch.ones(1)), NotImplementedError, "mode='sum'"),
    (lambda: F.embedding_bag(L(1), W, L(0), per_sample_weights=torch.ones(2)), ValueError, "shape of the input"),
    (lambda: F.embedding_bag(L(1), W, L(0), mode="max", scale_grad_by_freq=True), ValueError, "frequency"),
    (lambda: F.embedding_bag(L(1), torch.ones(3), L(0)), ValueError, "2D Tensor"),
    (lambda: F.one_hot(torch.ones(2)), RuntimeError, "int64"),
    (lambda: F.one_hot(L(-1)), RuntimeError, "non-negative"),
    (lambda: F.one_hot(L(3), 3), RuntimeError, "smaller than num_classes, got 3 and 3"),
    (lambda: F.one_hot(torch.empty(0, dtype=torch.int64)), RuntimeError, "Can not infer"),
    (lambda: nn.Embedding(3, 2, padding_idx=3), AssertionError, "within num_embeddings"),
    (lambda: nn.Embedding(3, 2, _weight=torch.ones(2, 2)), AssertionError, "Shape of weight"),
    (lambda: nn.Embedding.from_pretrained(torch.ones(2)), AssertionError, "2-dimensional"),
]


@pytest.mark.parametrize(("call", "kind", "message"), REFUSED)
def test_refusals(call: Callable[[], Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()


def test_modules() -> None:
    layer = nn.Embedding(5, 3, padding_idx=-1)
    assert layer.padding_idx == 4
    assert layer.weight[4].tolist() == [0, 0, 0]
    assert torch.equal(layer(L(1, 2)), layer.weight[1:3])
    fixed = nn.Embedding.from_pretrained(W)
    assert not fixed.weight.requires_grad
    assert nn.Embedding.from_pretrained(W, freeze=False).weight.requires_grad
    bag = nn.EmbeddingBag.from_pretrained(W, mode="sum")
    assert bag(L(0, 1, 2), L(0, 1)).tolist() == [[1, 1], [2, 2]]
    assert repr(nn.Embedding(5, 3, max_norm=1.0, sparse=True)) == "Embedding(5, 3, max_norm=1.0, sparse=True)"
    assert repr(nn.EmbeddingBag(5, 3)) == "EmbeddingBag(5, 3, mode='mean')"
