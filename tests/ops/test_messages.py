"""What a wrong call says: PyTorch's exception class, and a message with place, expectation, finding and way out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import faltung as t


def leaf() -> Any:
    return t.ones(3, requires_grad=True)


def twice() -> None:
    x = leaf()
    y = (x * x).sum()
    y.backward()
    y.backward()


def changed() -> None:
    y = leaf().exp()
    y.add_(1)
    y.sum().backward()


MESSAGES: list[tuple[str, Callable[[], Any], type[Exception], list[str]]] = [
    (
        "broadcast",
        lambda: t.ones(2, 3) + t.ones(2, 4),
        RuntimeError,
        ["add", "(3)", "(4)", "dimension 1", "equal or 1"],
    ),
    ("matmul shapes", lambda: t.ones(2, 3) @ t.ones(2, 3), RuntimeError, ["matmul", "2x3 and 2x3", "cannot be mult"]),
    ("matmul types", lambda: t.ones(2, 2) @ t.ones(2, 2).double(), RuntimeError, ["same dtype", "float64", ".to("]),
    ("matmul of numbers", lambda: t.matmul(t.tensor(1.0), t.ones(2)), RuntimeError, ["at least 1D", "0D"]),
    ("dim", lambda: t.ones(2).sum(1), IndexError, ["sum", "[-1, 0]", "got 1"]),
    ("dims twice", lambda: t.ones(2, 2).sum((0, 0)), RuntimeError, ["dim 0", "multiple times"]),
    ("view size", lambda: t.ones(6).view(4), RuntimeError, ["view", "[4]", "size 6"]),
    ("view strides", lambda: t.ones(2, 3).t().view(6), RuntimeError, ["not compatible", ".reshape(...)"]),
    ("two unknowns", lambda: t.ones(6).view(-1, -1), RuntimeError, ["only one dimension can be inferred"]),
    ("expand", lambda: t.ones(2, 3).expand(2, 4), RuntimeError, ["expanded size", "(4)", "(3)"]),
    ("index", lambda: t.ones(3)[3], IndexError, ["index 3", "dimension 0", "size 3"]),
    ("index in tensor", lambda: t.ones(3)[t.tensor([4])], IndexError, ["index 4", "size 3"]),
    ("too many indices", lambda: t.ones(3)[0, 0], IndexError, ["too many indices", "dimension 1"]),
    ("mask", lambda: t.ones(3)[t.tensor([True, False])], IndexError, ["mask", "[2]", "[3]"]),
    ("step", lambda: t.ones(3)[::-1], ValueError, ["greater than zero", "flip()"]),
    ("index of a float", lambda: t.ones(3)[1.5], IndexError, ["float"]),
    ("cat sizes", lambda: t.cat([t.ones(2, 3), t.ones(3, 3)], 1), RuntimeError, ["cat", "dimension 1", "2", "3"]),
    ("cat nothing", lambda: t.cat([]), ValueError, ["non-empty list"]),
    ("stack", lambda: t.stack([t.ones(2), t.ones(3)]), RuntimeError, ["equal size", "[2]", "[3]"]),
    ("int mean", lambda: t.ones(3, dtype=t.int64).mean(), RuntimeError, ["mean", "Long", ".float()"]),
    ("bool minus", lambda: t.tensor([True]) - t.tensor([False]), RuntimeError, ["Subtraction", "logical_xor"]),
    ("bool negative", lambda: -t.tensor([True]), RuntimeError, ["Negation", "logical_not"]),
    ("in place cast", lambda: t.ones(2, dtype=t.int64).add_(1.5), RuntimeError, ["Float", "Long", "out-of-place"]),
    ("in place growth", lambda: t.ones(3).add_(t.ones(2, 3)), RuntimeError, ["output with shape [3]", "[2, 3]"]),
    ("in place leaf", lambda: leaf().add_(1), RuntimeError, ["leaf Variable", "no_grad"]),
    ("in place view of leaf", lambda: leaf()[0].zero_(), RuntimeError, ["view of a leaf", "no_grad"]),
    ("integer division", lambda: t.tensor([1]) // t.tensor([0]), RuntimeError, ["ZeroDivisionError"]),
    ("item", lambda: t.ones(2).item(), RuntimeError, ["2 elements", "Scalar", "tolist"]),
    ("float", lambda: float(t.ones(2)), ValueError, ["only one element"]),
    ("truth", lambda: bool(t.ones(2)), RuntimeError, ["ambiguous", ".any()"]),
    ("length", lambda: len(t.tensor(1)), TypeError, ["0-d tensor"]),
    ("numpy", lambda: leaf().numpy(), RuntimeError, ["requires grad", "detach().numpy()"]),
    ("ragged", lambda: t.tensor([[1], [1, 2]]), ValueError, ["equal lengths"]),
    ("words", lambda: t.tensor(["a"]), ValueError, ["numbers", "str"]),
    ("negative size", lambda: t.zeros(-1), RuntimeError, ["negative dimension -1"]),
    ("overflow", lambda: t.full((2,), 300, dtype=t.uint8), RuntimeError, ["without overflow", "300"]),
    ("operand", lambda: t.add(t.ones(2), "a"), TypeError, ["add", "str", "faltung.tensor"]),
    ("operator", lambda: t.ones(2) + "a", TypeError, ["unsupported operand"]),
    ("gather index", lambda: t.ones(2, 2).gather(0, t.tensor([[2]])), RuntimeError, ["index 2", "size 2"]),
    ("gather type", lambda: t.ones(2).gather(0, t.ones(1)), RuntimeError, ["int64", "float32", ".long()"]),
    ("index_select", lambda: t.ones(2).index_select(0, t.tensor([5])), IndexError, ["index 5", "out of range"]),
    ("scatter type", lambda: t.ones(2).scatter(0, t.tensor([0]), t.ones(1).double()), RuntimeError, ["float64"]),
    ("put type", lambda: t.ones(2).__setitem__([0], t.ones(1).double()), RuntimeError, ["Double", "Float"]),
    ("masked_fill", lambda: t.ones(2).masked_fill(t.tensor([1, 0]), 0), RuntimeError, ["boolean", ".bool()"]),
    ("where", lambda: t.where(t.tensor([1.0]), t.ones(1), t.ones(1)), RuntimeError, ["boolean", "Float"]),
    ("clamp", lambda: t.ones(2).clamp(), RuntimeError, ["'min' or 'max'"]),
    ("split", lambda: t.ones(5).split([2, 2]), RuntimeError, ["sum exactly to 5", "[2, 2]"]),
    ("permute", lambda: t.ones(2, 3).permute(0), RuntimeError, ["input.dim() = 2", "len(dims) = 1"]),
    ("topk", lambda: t.ones(3).topk(4), RuntimeError, ["k=4", "3 elements"]),
    ("empty max", lambda: t.ones(0).max(), RuntimeError, ["numel() == 0"]),
    ("arange", lambda: t.arange(0, 5, -1), RuntimeError, ["inconsistent", "step=-1"]),
    ("device", lambda: t.ones(2, device="cuda"), AssertionError, ["'cuda'", "is_available()"]),
    ("einsum", lambda: t.einsum("ij->i", t.ones(2)), RuntimeError, ["operand 0", "subscripts"]),
    ("meshgrid", lambda: t.meshgrid(t.ones(2, 2)), RuntimeError, ["0D or 1D"]),
    ("pow", lambda: t.tensor([2]) ** -1, RuntimeError, ["negative integer powers", "floating point"]),
    # autograd
    ("backward of a vector", lambda: leaf().backward(), RuntimeError, ["scalar outputs", "[3]", "sum()"]),
    ("backward of a constant", lambda: t.ones(1).backward(), RuntimeError, ["does not require grad", "detach()"]),
    ("gradient of a wrong shape", lambda: leaf().backward(t.ones(2)), RuntimeError, ["[2]", "[3]"]),
    ("backward twice", twice, RuntimeError, ["second time", "retain_graph=True"]),
    ("changed in place", changed, RuntimeError, ["ExpBackward0", "version 1", "expected version 0", "clone()"]),
    ("unused input", lambda: t.autograd.grad(leaf().sum(), leaf()), RuntimeError, ["allow_unused=True"]),
    (
        "integer gradient",
        lambda: t.ones(2, dtype=t.int64).requires_grad_(),
        RuntimeError,
        ["floating point", ".float()"],
    ),
    ("flag of a result", lambda: (leaf() * 1).requires_grad_(False), RuntimeError, ["leaf variables", "detach()"]),
    ("hook on a constant", lambda: t.ones(2).register_hook(lambda g: g), RuntimeError, ["doesn't require gradient"]),
    ("grad of a wrong shape", lambda: setattr(leaf(), "grad", t.ones(2)), RuntimeError, ["expected [3]", "got [2]"]),
    ("grad of a wrong type", lambda: setattr(leaf(), "grad", 1.0), TypeError, ["Tensor or None", "float"]),
]


@pytest.mark.parametrize(("action", "kind", "parts"), [row[1:] for row in MESSAGES], ids=[row[0] for row in MESSAGES])
def test_message(action: Callable[[], Any], kind: type[Exception], parts: list[str]) -> None:
    with pytest.raises(kind) as caught:
        action()
    for part in parts:
        assert part in str(caught.value)
