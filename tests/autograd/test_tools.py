"""Anomaly detection, hooks on saved tensors, hooks on several gradients, the old name Variable."""

from __future__ import annotations

from typing import Any

import pytest

import faltung as t
from faltung.autograd.graph import register_multi_grad_hook, save_on_cpu, saved_tensors_hooks


class TestAnomaly:
    def test_nan_is_an_error_that_names_the_operation(self) -> None:
        with t.autograd.detect_anomaly():
            x = t.tensor([0.0], requires_grad=True)
            y = x.sqrt() * 0
            with (
                pytest.warns(UserWarning, match="test_tools"),
                pytest.raises(RuntimeError, match=r"SqrtBackward0.*nan"),
            ):
                y.sum().backward()

    def test_without_it_nan_passes(self) -> None:
        x = t.tensor([0.0], requires_grad=True)
        (x.sqrt() * 0).sum().backward()
        assert x.grad.isnan().all()

    def test_an_error_in_backward_shows_where_forward_was_called(self) -> None:
        class Broken(t.autograd.Function):
            @staticmethod
            def forward(ctx: Any, x: Any) -> Any:
                return x * 1

            @staticmethod
            def backward(ctx: Any, grad: Any) -> Any:
                raise ValueError("broken")

        x = t.ones(1, requires_grad=True)
        with t.autograd.set_detect_anomaly(True):
            y = Broken.apply(x)
            with pytest.warns(UserWarning, match="BrokenBackward"), pytest.raises(ValueError, match="broken"):
                y.backward()


class TestSavedTensors:
    def test_they_go_through_the_hooks(self) -> None:
        packed, unpacked = [], []

        def pack(x: Any) -> Any:
            packed.append(x.tolist())
            return x.numpy().copy() if not x.requires_grad else x.detach().numpy().copy()

        def unpack(x: Any) -> Any:
            unpacked.append(x.tolist())
            return t.from_numpy(x)

        x = t.tensor([2.0], requires_grad=True)
        with saved_tensors_hooks(pack, unpack):
            y = (x * x).exp()
        y.backward()
        assert packed == [[2.0], [2.0], [pytest.approx(54.59815)]]
        assert len(unpacked) == 3
        assert x.grad.item() == pytest.approx(4 * 54.59815)

    def test_a_users_own_function(self) -> None:
        class Square(t.autograd.Function):
            @staticmethod
            def forward(ctx: Any, x: Any) -> Any:
                ctx.save_for_backward(x)
                return x * x

            @staticmethod
            def backward(ctx: Any, grad: Any) -> Any:
                (x,) = ctx.saved_tensors
                return 2 * x * grad

        x = t.tensor([3.0], requires_grad=True)
        with saved_tensors_hooks(lambda v: v * 2, lambda v: v / 2):
            y = Square.apply(x)
        y.backward()
        assert x.grad.item() == 6

    def test_save_on_cpu(self) -> None:
        x = t.tensor([3.0], requires_grad=True)
        with save_on_cpu(pin_memory=True):
            y = x * x
        y.backward()
        assert x.grad.item() == 6


def test_multi_grad_hook() -> None:
    seen: list[Any] = []
    x, y = t.ones(2, requires_grad=True), t.ones(2, requires_grad=True)
    handle = register_multi_grad_hook((x, y), lambda grads: seen.append([g.tolist() for g in grads]))
    (x * 2 + y * 3).sum().backward()
    assert seen == [[[2, 2], [3, 3]]]
    handle.remove()
    (x + y).sum().backward()
    assert len(seen) == 1


def test_variable() -> None:
    x = t.autograd.Variable(t.ones(2), requires_grad=True)
    assert isinstance(x, t.autograd.Variable)
    assert isinstance(x, t.Tensor)
    assert x.requires_grad
