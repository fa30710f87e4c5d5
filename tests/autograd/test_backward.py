"""What the tape keeps, frees, shares and never touches."""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from typing import Any

import numpy as np
import pytest

import faltung as t
from faltung.autograd.graph import Op
from faltung.ops import apply, apply_inplace


class Fresh(Op):
    """Its backward makes a new array, and remembers which."""

    made: list[Any] = []

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return x * 2

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        array = grad._data * 2
        Fresh.made.append(array.ctypes.data)
        return t.Tensor._wrap(array)


def test_a_gradient_nobody_holds_is_taken_without_copying() -> None:
    x = t.ones(4, requires_grad=True)
    apply(Fresh, x).sum().backward()
    assert x.grad.data_ptr() == Fresh.made[-1]


def test_a_gradient_held_elsewhere_is_copied() -> None:
    x, y = t.ones(2, requires_grad=True), t.ones(2, requires_grad=True)
    given = t.ones(2)
    (x + y).backward(given)
    x.grad.add_(1)
    assert y.grad.tolist() == [1, 1]
    assert given.tolist() == [1, 1]
    seen = []
    z = t.ones(2, requires_grad=True)
    z.register_hook(seen.append)
    apply(Fresh, z).sum().backward()
    z.grad.add_(5)
    assert seen[0].tolist() == [2, 2]


def test_gradients_are_laid_out_like_their_tensor() -> None:
    x = t.randn(2, 3, 4, 5).to(memory_format=t.channels_last).requires_grad_()
    (x * 2).permute(0, 2, 1, 3).contiguous().sum().backward()
    assert x.grad.stride() == x.stride()


def test_accumulation_happens_in_place() -> None:
    x = t.ones(2, requires_grad=True)
    x.sum().backward()
    first = x.grad
    x.sum().backward()
    assert x.grad is first
    assert first.tolist() == [2, 2]


def test_a_chain_of_a_hundred_thousand_operations() -> None:
    assert sys.getrecursionlimit() < 100_000
    x = t.ones((), requires_grad=True)
    y = x
    for _ in range(100_000):
        y = y + 0
    y.backward()
    assert x.grad.item() == 1
    del y  # taking the chain apart must not recurse either


def test_saved_tensors_are_freed_by_backward() -> None:
    x = t.ones(3, requires_grad=True)
    kept = x * 2
    reference = weakref.ref(kept)
    loss = (kept * kept).sum()
    del kept
    assert reference() is not None
    loss.backward()
    assert reference() is None


def test_the_graph_holds_no_cycles() -> None:
    gc.collect()
    gc.disable()
    try:
        x = t.ones(3, requires_grad=True)
        y = x.exp().sigmoid()
        y.mul_(2)[0].add_(1)
        reference = weakref.ref(y)
        del y
        assert reference() is None
    finally:
        gc.enable()


def test_only_what_is_asked_for_is_computed() -> None:
    ran = []

    class Noted(Op):
        @staticmethod
        def forward(ctx: Any, x: Any, *, label: str) -> Any:
            ctx.label = label
            return x + 0

        @staticmethod
        def backward(ctx: Any, grad: Any) -> Any:
            ran.append(ctx.label)
            return grad

    x, y = t.ones(2, requires_grad=True), t.ones(2, requires_grad=True)
    loss = (apply(Noted, x, label="x") * apply(Noted, y, label="y")).sum()
    t.autograd.grad(loss, x)
    assert ran == ["x"]


def test_inputs_that_need_no_gradient_are_not_saved() -> None:
    x, w = t.ones(2), t.ones(2, requires_grad=True)
    product = x * w
    assert [saved.tensor is x for saved in product.grad_fn.packed] == [True]
    x.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.sum().backward()
    kept = w * x
    w_plain = w.detach()
    w_plain.add_(1)  # w itself isn't needed for its own gradient
    kept.sum().backward()
    assert w.grad.tolist() == [2, 2]


def test_a_view_of_a_changed_base_gets_a_new_history() -> None:
    x = t.ones(4, requires_grad=True)
    y = x * 1
    view = y[:2]
    before = view.grad_fn
    y.mul_(3)
    assert view.grad_fn is not before
    view.sum().backward()
    assert x.grad.tolist() == [3, 3, 0, 0]


def test_several_writes_through_views() -> None:
    x = t.arange(6.0).requires_grad_()
    y = (x * 1).view(2, 3)
    y[0].mul_(2)
    y.t()[1].add_(x[:2])
    y[1, 2:] = 7
    (y * y).sum().backward()
    np.testing.assert_allclose(y.detach().numpy(), [[0, 2, 4], [3, 5, 7]])
    np.testing.assert_allclose(x.grad.numpy(), [4, 18, 16, 6, 10, 0])


def test_threads_record_and_differentiate_apart() -> None:
    results: dict[int, Any] = {}

    def work(number: int) -> None:
        x = t.full((3,), float(number), requires_grad=True)
        with t.set_grad_enabled(True):
            for _ in range(50):
                (x * x).sum().backward()
        results[number] = x.grad.tolist()

    with t.no_grad():
        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert results == {n: [100.0 * n] * 3 for n in range(4)}


def test_modes_belong_to_their_thread() -> None:
    seen = []
    with t.no_grad():
        thread = threading.Thread(target=lambda: seen.append(t.is_grad_enabled()))
        thread.start()
        thread.join()
    assert seen == [True]


class TestInPlaceOperations:
    def test_an_operation_may_save_its_old_input(self) -> None:
        x = t.tensor([2.0, 3.0], requires_grad=True)
        w = t.tensor([5.0, 7.0], requires_grad=True)
        y = x * 1
        y.mul_(w)
        (gx, gw) = t.autograd.grad(y.sum(), (x, w), create_graph=True)
        assert gx.tolist() == [5, 7]
        assert gw.tolist() == [2, 3]
        assert t.autograd.grad(gw.sum(), x)[0].tolist() == [1, 1]

    def test_integers_have_no_history(self) -> None:
        counts = t.zeros(3, dtype=t.int64)
        counts += t.ones(3, dtype=t.int64)
        assert counts.tolist() == [1, 1, 1]
        assert not counts.requires_grad

    def test_the_version_goes_up_once(self) -> None:
        x = t.zeros(3)
        view = x[1:]
        view.add_(1)
        x.mul_(2)
        x[0] = 5
        assert (x._version, view._version) == (3, 3)

    def test_an_operation_without_a_form_of_its_own(self) -> None:
        class Cube(Op):
            @staticmethod
            def forward(ctx: Any, x: Any) -> Any:
                ctx.save_inputs(0)
                return x**3

            @staticmethod
            def backward(ctx: Any, grad: Any) -> Any:
                (x,) = ctx.saved
                return grad * x * x * 3

        x = t.tensor([2.0], requires_grad=True)
        y = x * 1
        assert apply_inplace(Cube, y) is y
        y.backward()
        assert x.grad.item() == 12
        assert y.item() == 8


def test_create_graph_gives_differentiable_gradients() -> None:
    x = t.tensor([1.0, 2.0], requires_grad=True)
    (first,) = t.autograd.grad((x**3).sum(), x, create_graph=True)
    (second,) = t.autograd.grad(first.sum(), x, create_graph=True)
    (third,) = t.autograd.grad(second.sum(), x)
    assert (first.tolist(), second.tolist(), third.tolist()) == ([3, 12], [6, 12], [6, 6])


def test_gradient_penalty() -> None:
    w = t.tensor([[1.0, -2.0], [0.5, 3.0]], requires_grad=True)
    x = t.tensor([[1.0, 2.0]], requires_grad=True)
    (g,) = t.autograd.grad((x @ w).tanh().sum(), x, create_graph=True)
    ((g.norm() - 1) ** 2).backward()
    assert w.grad is not None
    assert t.isfinite(w.grad).all()


def test_in_place_with_an_operand_in_the_same_memory() -> None:
    """Backward needs the operand's values from before the write."""
    x = t.tensor([1.0, 2.0, 3.0], requires_grad=True)
    y = x * 2
    y.mul_(y)
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [8, 16, 24]
    x.grad = None
    y = x * 2
    y[:2].mul_(y[1:])  # 4 x0 x1, 4 x1 x2, 2 x2
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [8, 16, 10]
