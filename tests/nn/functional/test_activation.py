"""Activations: values, gradients of any order, layouts, in-place forms, and what bad input gets."""

import math
import re
import warnings

import numpy as np
import pytest

import faltung
import faltung.nn.functional as F
from faltung import nn
from faltung.autograd import gradcheck, gradgradcheck
from tests.cases.activation import CASES, VALUES, ActivationCase

WITH_INPLACE = [case for case in CASES if case.inplace]


def smooth_values(case: ActivationCase) -> faltung.Tensor:
    """Numbers at least 0.05 away from every kink."""
    numbers = [v for v in np.linspace(-4, 7, 23) if all(abs(v - kink) > 0.05 for kink in case.kinks)]
    return faltung.tensor(numbers, dtype=faltung.float64, requires_grad=True)


@pytest.mark.parametrize("dtype", [faltung.float16, faltung.float32, faltung.float64], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_values(case: ActivationCase, dtype: faltung.dtype) -> None:
    x = faltung.tensor(VALUES, dtype=dtype)
    y = getattr(F, case.function)(x, **case.options)
    expected = [case.formula(v) for v in x.double().tolist()]
    assert y.dtype is dtype
    relative, absolute = {"float16": (2e-3, 1e-3), "float32": (2e-6, 2e-6), "float64": (1e-13, 1e-13)}[dtype.name]
    np.testing.assert_allclose(y.double().numpy(), expected, rtol=relative, atol=absolute)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_derivatives(case: ActivationCase) -> None:
    def function(x: faltung.Tensor) -> faltung.Tensor:
        return getattr(F, case.function)(x, **case.options)

    assert gradcheck(function, [smooth_values(case)])
    assert gradgradcheck(function, [smooth_values(case)])


@pytest.mark.parametrize("case", CASES, ids=str)
def test_fused_gradient_is_the_one_of_a_graph(case: ActivationCase) -> None:
    """Where no graph of the gradient is wanted another formula runs: it must agree, kinks included."""
    x = faltung.tensor([*VALUES, *case.kinks], dtype=faltung.float64, requires_grad=True)
    y = getattr(F, case.function)(x, **case.options)
    seed = faltung.linspace(-2, 3, x.numel(), dtype=faltung.float64)
    (fused,) = faltung.autograd.grad(y, x, seed, retain_graph=True)
    (graph,) = faltung.autograd.grad(y, x, seed, create_graph=True)
    np.testing.assert_allclose(fused.numpy(), graph.detach().numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("case", WITH_INPLACE, ids=str)
def test_inplace(case: ActivationCase) -> None:
    function = getattr(F, case.function)
    leaf = faltung.tensor(VALUES, dtype=faltung.float64, requires_grad=True)
    expected = function(leaf, **case.options)
    expected.square().sum().backward()
    wanted, leaf.grad = leaf.grad, None
    assert wanted is not None
    x = leaf * 1
    y = function(x, **case.options, inplace=True)
    assert y is x
    np.testing.assert_array_equal(x.detach().numpy(), expected.detach().numpy())
    y.square().sum().backward()
    assert leaf.grad is not None
    np.testing.assert_allclose(leaf.grad.numpy(), wanted.numpy(), rtol=1e-12)
    with faltung.no_grad():
        z = leaf.clone()
        assert function(z, **case.options, inplace=True) is z
    np.testing.assert_array_equal(z.numpy(), expected.detach().numpy())


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("relu_", ()),
        ("elu_", (1.5,)),
        ("celu_", (1.5,)),
        ("selu_", ()),
        ("leaky_relu_", (0.3,)),
        ("rrelu_", ()),
        ("hardtanh_", (-0.5, 0.5)),
        ("threshold_", (0.1, 2.0)),
    ],
)
def test_names_with_an_underscore(name: str, arguments: tuple) -> None:
    x = faltung.tensor([-1.5, -0.2, 0.0, 0.3, 2.0])
    expected = getattr(F, name.rstrip("_"))(x, *arguments)
    assert getattr(F, name)(x, *arguments) is x
    np.testing.assert_array_equal(x.numpy(), expected.numpy())


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (1,), (2, 3, 5, 7)], ids=str)
def test_shapes(case: ActivationCase, shape: tuple[int, ...]) -> None:
    x = faltung.randn(shape, requires_grad=True)
    y = getattr(F, case.function)(x, **case.options)
    assert y.shape == shape
    y.sum().backward()
    assert x.grad.shape == shape


@pytest.mark.parametrize("case", CASES, ids=str)
def test_memory_order_is_kept(case: ActivationCase) -> None:
    values = faltung.randn(2, 3, 5, 7)
    x = values.contiguous(memory_format=faltung.channels_last).requires_grad_()
    y = getattr(F, case.function)(x, **case.options)
    assert y.stride() == x.stride()
    np.testing.assert_allclose(
        y.detach().numpy(), getattr(F, case.function)(values, **case.options).numpy(), 1e-6, 1e-6
    )
    strided = faltung.randn(6, 8)[::2, 1::3]
    expected = getattr(F, case.function)(strided.contiguous(), **case.options)
    np.testing.assert_allclose(getattr(F, case.function)(strided, **case.options).numpy(), expected.numpy(), 1e-6, 1e-6)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_nan_stays_nan(case: ActivationCase) -> None:
    assert math.isnan(getattr(F, case.function)(faltung.tensor([math.nan, 1.0]), **case.options)[0].item())


@pytest.mark.parametrize("case", [case for case in CASES if case.module], ids=str)
def test_module_is_its_function(case: ActivationCase) -> None:
    module = getattr(nn, case.module)(**case.options)
    x = faltung.tensor(VALUES)
    np.testing.assert_array_equal(module(x).numpy(), getattr(F, case.function)(x, **case.options).numpy())
    assert not module.state_dict()


# --- those with more than one number at a time


@pytest.mark.parametrize("dim", [0, 1, 2, -1])
def test_softmax(dim: int) -> None:
    x = np.random.default_rng(0).standard_normal((3, 4, 5)) * 4
    lines = np.moveaxis(x, dim, -1).reshape(-1, x.shape[dim])
    rows = []
    for line in lines:
        total = math.fsum(math.exp(v) for v in line)
        rows.append([math.exp(v) / total for v in line])
    shape = np.moveaxis(x, dim, -1).shape
    expected = np.moveaxis(np.array(rows).reshape(shape), -1, dim)
    t = faltung.from_numpy(x)
    np.testing.assert_allclose(F.softmax(t, dim).numpy(), expected, rtol=1e-12)
    np.testing.assert_allclose(F.log_softmax(t, dim).numpy(), np.log(expected), rtol=1e-11)
    np.testing.assert_allclose(F.softmin(-t, dim).numpy(), expected, rtol=1e-12)
    for function in (F.softmax, F.log_softmax, F.softmin):
        assert gradcheck(lambda x, f=function: f(x, dim), [t.clone().requires_grad_()])
        assert gradgradcheck(lambda x, f=function: f(x, dim), [t.clone().requires_grad_()])


def test_softmax_does_not_overflow() -> None:
    x = faltung.tensor([[1e4, 1e4 + 1, -1e4]])
    assert F.softmax(x, 1).sum().item() == pytest.approx(1)
    np.testing.assert_allclose(F.log_softmax(x, 1).numpy(), [[-1.3132616, -0.3132617, -20001.3132617]], rtol=1e-6)


def test_softmax_in_another_dtype_and_of_one_number() -> None:
    assert F.softmax(faltung.tensor([1, 2, 3]), 0, dtype=faltung.float64).dtype is faltung.float64
    assert F.softmax(faltung.tensor(3.0), 0).item() == 1
    assert F.log_softmax(faltung.zeros(0, 3), 0).shape == (0, 3)


@pytest.mark.parametrize(("shape", "dim"), [((3,), 0), ((2, 3), 1), ((2, 3, 4), 0), ((2, 3, 4, 5), 1)])
def test_softmax_without_dim_warns_and_chooses(shape: tuple[int, ...], dim: int) -> None:
    x = faltung.randn(shape)
    with pytest.warns(UserWarning, match="Implicit dimension choice for softmax") as caught:
        y = F.softmax(x)
    assert caught[0].filename == __file__
    np.testing.assert_array_equal(y.numpy(), F.softmax(x, dim).numpy())
    with pytest.warns(UserWarning, match="Implicit dimension choice for log_softmax"):
        nn.LogSoftmax()(x)


def test_softmax2d() -> None:
    x = faltung.randn(2, 3, 4, 5)
    np.testing.assert_array_equal(nn.Softmax2d()(x).numpy(), F.softmax(x, 1).numpy())
    np.testing.assert_array_equal(nn.Softmax2d()(x[0]).numpy(), F.softmax(x[0], 0).numpy())


def test_glu() -> None:
    x = faltung.randn(2, 6, 3, dtype=faltung.float64, requires_grad=True)
    expected = x.detach().numpy()[:, :3] / (1 + np.exp(-x.detach().numpy()[:, 3:]))
    np.testing.assert_allclose(F.glu(x, 1).detach().numpy(), expected, rtol=1e-12)
    assert gradcheck(lambda x: F.glu(x, 1), [x])
    assert gradgradcheck(lambda x: F.glu(x, 1), [x])


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 5), (2, 3, 4, 5)], ids=str)
def test_prelu(shape: tuple[int, ...], count: int) -> None:
    rng = np.random.default_rng(2)
    x, weight = rng.standard_normal(shape), rng.uniform(0.1, 0.5, count)
    expected = np.where(x > 0, x, x * weight.reshape((1, -1) + (1,) * (len(shape) - 2)))
    inputs = [faltung.from_numpy(x).requires_grad_(), faltung.from_numpy(weight).requires_grad_()]
    np.testing.assert_allclose(F.prelu(*inputs).detach().numpy(), expected, rtol=1e-12)
    assert gradcheck(F.prelu, inputs)
    assert gradgradcheck(F.prelu, inputs)


def test_rrelu_draws_one_slope_for_each_negative_number() -> None:
    """PyTorch 2.13: torch.manual_seed(0); F.rrelu(torch.tensor([1., -1, 1, -1]), training=True)."""
    faltung.manual_seed(0)
    x = faltung.tensor([1.0, -1, 1, -1], requires_grad=True)
    y = F.rrelu(x, training=True)
    np.testing.assert_allclose(y.detach().numpy(), [1.0, -0.3271, 1.0, -0.2725], atol=5e-5)
    y.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), [1.0, 0.3271, 1.0, 0.2725], atol=5e-5)


def test_gumbel_softmax() -> None:
    faltung.manual_seed(0)
    logits = faltung.zeros(4, 3, requires_grad=True)
    soft = F.gumbel_softmax(logits)
    np.testing.assert_allclose(soft.detach().numpy()[0], [0.1047, 0.2984, 0.5969], atol=5e-5)
    faltung.manual_seed(0)
    hard = F.gumbel_softmax(logits, hard=True)
    np.testing.assert_allclose(hard.detach().numpy(), np.eye(3)[soft.detach().numpy().argmax(1)], atol=1e-6)
    faltung.manual_seed(1)
    (first,) = faltung.autograd.grad(F.gumbel_softmax(logits)[:, 0].sum(), logits)
    faltung.manual_seed(1)
    (second,) = faltung.autograd.grad(F.gumbel_softmax(logits, hard=True)[:, 0].sum(), logits)
    np.testing.assert_allclose(first.numpy(), second.numpy(), atol=1e-6)


# --- bad input

X = faltung.ones(2, 3)
BAD = [
    (lambda: F.relu(X > 0), RuntimeError, "relu: Boolean inputs not supported"),
    (lambda: F.relu(X.numpy()), TypeError, "relu: input must be a Tensor, got ndarray"),
    (lambda: F.relu([1.0]), TypeError, "torch.tensor(input) makes a tensor of it"),
    (lambda: F.relu(X.to(faltung.complex64)), NotImplementedError, "relu: not implemented for faltung.complex64"),
    (lambda: F.elu(X.long()), NotImplementedError, "elu: not implemented for faltung.int64"),
    (lambda: F.elu(X, None), TypeError, "elu: alpha must be a number, got None"),
    (lambda: F.leaky_relu(X, "0.1"), TypeError, "leaky_relu: negative_slope must be a number, got '0.1' (str)"),
    (lambda: F.gelu(X, "exact"), RuntimeError, "approximate argument must be either none or tanh, got 'exact'"),
    (lambda: F.celu(X, 0.0), RuntimeError, "alpha cannot be 0"),
    (lambda: F.softshrink(X, -1.0), RuntimeError, "must be greater or equal to 0, but found to be -1.0"),
    (lambda: F.hardtanh(X, 2, 1), ValueError, "min_val cannot be greater than max_val, got min_val=2 and max_val=1"),
    (lambda: F.hardtanh(X.byte()), RuntimeError, "min_val=-1.0 is negative, which faltung.uint8 can't hold"),
    (lambda: nn.Hardtanh(1, 1), AssertionError, "max_val (1) must be greater than min_val (1)"),
    (lambda: F.rrelu(X, 0.5, 0.1), RuntimeError, "lower must not be greater than upper, got lower=0.5 and upper=0.1"),
    (lambda: F.prelu(X, faltung.ones(2)), RuntimeError, "1 or 3 numbers, one per channel of input (2, 3), got 2"),
    (lambda: F.prelu(X, faltung.ones(1, 3)), RuntimeError, "weight must have 0 or 1 dimensions, got (1, 3)"),
    (lambda: F.prelu(X.double(), faltung.ones(1)), RuntimeError, "input.to(faltung.float32)"),
    (lambda: F.prelu(faltung.ones(()), faltung.ones(3)), RuntimeError, "a 0-d input takes one weight, got 3"),
    (lambda: F.glu(X), RuntimeError, "Halving dimension must be even, but dimension 1 is size 3"),
    (lambda: F.glu(faltung.ones(())), RuntimeError, "does not support scalars"),
    (lambda: F.glu(X, 2), IndexError, "glu: Dimension out of range (expected to be in range of [-2, 1], but got 2)"),
    (lambda: F.softmax(X, 2), IndexError, "expected to be in range of [-2, 1], but got 2"),
    (lambda: F.softmax(X, 1.0), TypeError, "dim"),
    (lambda: F.softmax(X.long(), 1), NotImplementedError, "pass dtype="),
    (lambda: nn.Softmax2d()(X), ValueError, "3D or 4D, (C, H, W) or (N, C, H, W), got (2, 3)"),
    (lambda: F.gumbel_softmax(X.long()), RuntimeError, "logits must be floating point, got faltung.int64"),
]


@pytest.mark.parametrize(("call", "kind", "text"), BAD)
def test_messages(call, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=re.escape(text)), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        call()


def test_old_argument_names_of_hardtanh_warn() -> None:
    with pytest.warns(FutureWarning, match="`min_value` is deprecated and renamed to `min_val`"):
        assert nn.Hardtanh(min_value=-2.0).min_val == -2.0
