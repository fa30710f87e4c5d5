"""checkpoint: same values and gradients as without it, on less memory, and errors where the two runs differ."""

from __future__ import annotations

import numpy as np
import pytest

import faltung
from faltung import nn
from faltung.utils.checkpoint import CheckpointError, checkpoint, checkpoint_sequential


def block() -> nn.Module:
    faltung.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.MaxPool2d(2)
    )


def run(checkpointed: bool, reentrant: bool, x_needs_grad: bool) -> list[np.ndarray]:
    model = block()
    x = faltung.randn(2, 3, 6, 6, requires_grad=x_needs_grad)
    y = checkpoint(model, x, use_reentrant=reentrant) if checkpointed else model(x)
    (y * y).sum().backward()
    grads = [p.grad for p in model.parameters()] + ([x.grad] if x_needs_grad else [])
    return [y.detach().numpy(), *(grad.numpy() for grad in grads if grad is not None), faltung.rand(1).numpy()]


@pytest.mark.parametrize(("reentrant", "x_needs_grad"), [(False, False), (False, True), (True, True)])
def test_same_gradients_and_random_numbers(reentrant: bool, x_needs_grad: bool) -> None:
    plain, checkpointed = run(False, reentrant, x_needs_grad), run(True, reentrant, x_needs_grad)
    assert len(plain) == len(checkpointed) == 6 + x_needs_grad
    for expected, got in zip(plain, checkpointed):
        np.testing.assert_array_equal(got, expected)


def test_nothing_is_kept_until_backward() -> None:
    calls = []

    def function(x: faltung.Tensor) -> faltung.Tensor:
        calls.append(1)
        return (x.exp() * x).sin()

    x = faltung.ones(3, requires_grad=True)
    y = checkpoint(function, x, use_reentrant=False)
    assert y.grad_fn.saved == ()
    (first,) = faltung.autograd.grad(y.sum(), x, create_graph=True)
    assert len(calls) == 2
    (second,) = faltung.autograd.grad(first.sum(), x)
    a = faltung.ones(3, dtype=faltung.float64, requires_grad=True)
    (expected,) = faltung.autograd.grad((a.exp() * a).sin().sum(), a, create_graph=True)
    (curvature,) = faltung.autograd.grad(expected.sum(), a)
    np.testing.assert_allclose(first.detach().numpy(), expected.detach().numpy(), rtol=1e-5)
    np.testing.assert_allclose(second.numpy(), curvature.numpy(), rtol=1e-5)


def test_captured_tensors_and_keyword_arguments() -> None:
    w = faltung.full((3,), 2.0, requires_grad=True)
    hidden = w * w
    y = checkpoint(lambda x, *, power: hidden * x**power, faltung.ones(3), use_reentrant=False, power=2)
    y.sum().backward()
    assert w.grad is not None
    assert w.grad.tolist() == [4.0, 4.0, 4.0]


def test_without_gradients_it_is_a_call() -> None:
    with faltung.no_grad():
        assert not checkpoint(block(), faltung.ones(1, 3, 4, 4), use_reentrant=False).requires_grad


def test_sequential() -> None:
    faltung.manual_seed(0)
    model = nn.Sequential(*[layer for _ in range(5) for layer in (nn.Linear(4, 4), nn.Tanh())])
    x = faltung.randn(2, 4, requires_grad=True)
    for function in (model, lambda x: checkpoint_sequential(model, 3, x, use_reentrant=False)):
        function(x).sum().backward()
    assert x.grad is not None
    twice = x.grad.clone()
    x.grad = None
    model(x).sum().backward()
    assert x.grad is not None
    np.testing.assert_allclose(twice.numpy(), 2 * x.grad.numpy(), rtol=1e-6)


def test_errors() -> None:
    x = faltung.ones(2, requires_grad=True)
    with pytest.raises(ValueError, match=r"Unexpected keyword arguments: power\. Pass use_reentrant=False"):
        checkpoint(lambda x: x, x, use_reentrant=True, power=2)
    with pytest.raises(ValueError, match="checkpoint_sequential: Unexpected keyword"):
        checkpoint_sequential([lambda x: x], 1, x, use_reentrant=False, power=2)
    with pytest.warns(UserWarning, match="pass use_reentrant explicitly"):
        checkpoint(lambda x: x * 2, x)
    with pytest.warns(UserWarning, match="None of the inputs have requires_grad=True"):
        assert not checkpoint(lambda y: y * x, faltung.ones(2), use_reentrant=True).requires_grad


@pytest.mark.parametrize("second", [lambda x: x.exp().exp(), lambda x: x.sin(), lambda x: x.repeat(2).exp()])
def test_a_function_that_changes_its_mind(second: object) -> None:
    functions = iter([lambda x: x.exp(), second])
    x = faltung.ones(2, requires_grad=True)
    y = checkpoint(lambda x: next(functions)(x), x, use_reentrant=False)
    with pytest.raises(CheckpointError, match="on every call with the same arguments"):
        y.sum().backward()
