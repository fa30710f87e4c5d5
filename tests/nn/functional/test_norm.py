"""Normalisation: values, statistics, gradients of any order, layouts, and what bad input gets."""

import re
import warnings

import numpy as np
import pytest

import faltung
import faltung.nn.functional as F
from faltung.autograd import gradcheck, gradgradcheck
from tests.cases.norm import BATCH, GROUP, LAYER, RESPONSE, NormCase
from tests.oracle import norm as oracle

TOLERANCE = {"float32": {"rtol": 2e-5, "atol": 2e-5}, "float64": {"rtol": 1e-11, "atol": 1e-11}}
DTYPES = pytest.mark.parametrize("dtype", [faltung.float32, faltung.float64], ids=str)


def operands(case: NormCase, dtype: faltung.dtype = faltung.float64, grad: bool = False) -> list:
    """x, weight and bias (None without affine)."""
    rng = np.random.default_rng(0)
    x = faltung.from_numpy(rng.standard_normal(case.shape) * 2 + case.offset).to(dtype)
    if case.channels_last:
        x = x.contiguous(memory_format=faltung.channels_last)
    channels = case.shape[1]
    weight = faltung.from_numpy(rng.uniform(0.5, 2, channels)).to(dtype)
    bias = faltung.from_numpy(rng.standard_normal(channels)).to(dtype)
    tensors = [x, weight, bias] if case.affine else [x]
    return [t.requires_grad_(grad) for t in tensors] + [None] * (3 - len(tensors))


def arrays(*tensors: faltung.Tensor | None) -> list:
    return [None if t is None else t.detach().double().numpy() for t in tensors]


def scaled(case: NormCase, dtype: faltung.dtype) -> dict[str, float]:
    """float32 holds a mean of 1000 only to 6e-5 of the deviation."""
    tolerance = dict(TOLERANCE[dtype.name])
    if case.offset:
        tolerance["atol"] *= 20
    return tolerance


def check_derivatives(function, tensors: list) -> None:
    assert gradcheck(function, tensors)
    if tensors[0].numel() <= 120:
        assert gradgradcheck(function, tensors)


# --- batch


@DTYPES
@pytest.mark.parametrize("case", BATCH, ids=str)
def test_batch_norm_values(case: NormCase, dtype: faltung.dtype) -> None:
    x, weight, bias = operands(case, dtype)
    y = F.batch_norm(x, None, None, weight, bias, training=True, eps=case.eps)
    expected, mean, var = oracle.batch_norm(*arrays(x, weight, bias), case.eps)
    assert y.dtype is dtype
    np.testing.assert_allclose(y.numpy(), expected, **scaled(case, dtype))
    given = [faltung.from_numpy(statistic).to(dtype) for statistic in (mean, var)]
    y = F.batch_norm(x, *given, weight, bias, eps=case.eps)
    np.testing.assert_allclose(y.numpy(), expected, **scaled(case, dtype))


@pytest.mark.parametrize("case", [case for case in BATCH if not case.offset], ids=str)
def test_batch_norm_derivatives(case: NormCase) -> None:
    tensors = [t for t in operands(case, grad=True) if t is not None]
    channels = case.shape[1]
    mean, var = faltung.linspace(-1, 1, channels).double(), faltung.linspace(0.5, 2, channels).double()
    check_derivatives(lambda x, w=None, b=None: F.batch_norm(x, None, None, w, b, True, eps=case.eps), tensors)
    check_derivatives(lambda x, w=None, b=None: F.batch_norm(x, mean, var, w, b, eps=case.eps), tensors)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("wanted", ["x", "w", "b", "xw", "xb", "wb", "xwb"])
def test_only_needed_gradients(wanted: str, training: bool) -> None:
    tensors = operands(BATCH[2])
    for name, tensor in zip("xwb", tensors, strict=True):
        tensor.requires_grad_(name in wanted)
    x, weight, bias = tensors
    statistics = (faltung.zeros(5).double(), faltung.ones(5).double())
    F.batch_norm(x, *statistics, weight, bias, training).square().sum().backward()
    assert "".join(name for name, t in zip("xwb", tensors, strict=True) if t.grad is not None) == wanted


@pytest.mark.parametrize("momentum", [0.1, 0.0, 1.0, 0.3])
def test_running_statistics(momentum: float) -> None:
    """They move by `momentum` towards the batch's, the variance with n - 1 in the denominator."""
    case = BATCH[2]
    x, weight, bias = operands(case)
    mean, var = faltung.full((5,), 0.5).double(), faltung.full((5,), 3.0).double()
    F.batch_norm(x, mean, var, weight, bias, True, momentum, case.eps)
    _, batch_mean, batch_var = oracle.batch_norm(*arrays(x, weight, bias), case.eps)
    n = x.numel() / 5
    np.testing.assert_allclose(mean.numpy(), (1 - momentum) * 0.5 + momentum * batch_mean, rtol=1e-12)
    np.testing.assert_allclose(var.numpy(), (1 - momentum) * 3.0 + momentum * batch_var * n / (n - 1), rtol=1e-12)


def test_running_statistics_may_change_before_backward() -> None:
    mean, var = faltung.zeros(3), faltung.ones(3)
    x = faltung.randn(4, 3, 2, 2, requires_grad=True)
    y = F.batch_norm(F.batch_norm(x, mean, var, training=True), mean, var, training=True)
    y.sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (0, 3), (2, 3, 0)])
def test_nothing_to_normalise(shape: tuple[int, ...]) -> None:
    mean, var = faltung.ones(3), faltung.full((3,), 2.0)
    x = faltung.empty(shape, requires_grad=True)
    y = F.batch_norm(x, mean, var, training=True)
    y.sum().backward()
    assert y.shape == shape
    assert x.grad.shape == shape
    assert mean.tolist() == [1, 1, 1]
    assert var.tolist() == [2, 2, 2]


def test_memory_order_is_kept() -> None:
    x = faltung.randn(2, 6, 4, 5).contiguous(memory_format=faltung.channels_last).requires_grad_()
    for function in (
        lambda x: F.batch_norm(x, None, None, training=True),
        lambda x: F.batch_norm(x, faltung.zeros(6), faltung.ones(6)),
        lambda x: F.group_norm(x, 3),
        lambda x: F.instance_norm(x),
    ):
        y = function(x)
        assert y.stride() == x.stride()
        (gx,) = faltung.autograd.grad(y.square().sum(), x)
        assert gx.stride() == x.stride()


# --- group, instance, layer, root mean square, local response


@DTYPES
@pytest.mark.parametrize(("case", "groups"), GROUP, ids=str)
def test_group_norm_values(case: NormCase, groups: int, dtype: faltung.dtype) -> None:
    x, weight, bias = operands(case, dtype)
    expected = oracle.group_norm(arrays(x)[0], groups, *arrays(weight, bias), case.eps)
    np.testing.assert_allclose(F.group_norm(x, groups, weight, bias, case.eps).numpy(), expected, **scaled(case, dtype))


@pytest.mark.parametrize(("case", "groups"), [(case, g) for case, g in GROUP if not case.offset], ids=str)
def test_group_norm_derivatives(case: NormCase, groups: int) -> None:
    tensors = [t for t in operands(case, grad=True) if t is not None]
    check_derivatives(lambda x, w=None, b=None: F.group_norm(x, groups, w, b, case.eps), tensors)


@DTYPES
@pytest.mark.parametrize("case", [case for case in BATCH if len(case.shape) > 2], ids=str)
def test_instance_norm_values(case: NormCase, dtype: faltung.dtype) -> None:
    x, weight, bias = operands(case, dtype)
    expected = oracle.group_norm(arrays(x)[0], case.shape[1], *arrays(weight, bias), case.eps)
    y = F.instance_norm(x, weight=weight, bias=bias, eps=case.eps)
    np.testing.assert_allclose(y.numpy(), expected, **scaled(case, dtype))


def test_instance_norm_running_statistics() -> None:
    x = faltung.randn(3, 2, 5, dtype=faltung.float64)
    mean, var = faltung.zeros(2).double(), faltung.ones(2).double()
    F.instance_norm(x, mean, var, momentum=0.25)
    np.testing.assert_allclose(mean.numpy(), 0.25 * x.numpy().mean(2).mean(0), rtol=1e-12)
    np.testing.assert_allclose(var.numpy(), 0.75 + 0.25 * x.numpy().var(2, ddof=1).mean(0), rtol=1e-12)
    y = F.instance_norm(x, mean, var, use_input_stats=False)
    np.testing.assert_allclose(y.numpy(), F.batch_norm(x, mean, var).numpy(), rtol=1e-12)


@DTYPES
@pytest.mark.parametrize(("shape", "axes", "affine"), LAYER, ids=str)
def test_layer_and_rms_norm(shape: tuple[int, ...], axes: int, affine: bool, dtype: faltung.dtype) -> None:
    rng = np.random.default_rng(1)
    normalized = shape[-axes:]
    x = faltung.from_numpy(rng.standard_normal(shape) + 1).to(dtype)
    weight, bias = (faltung.from_numpy(rng.uniform(0.5, 2, normalized)).to(dtype) if affine else None for _ in "wb")
    expected = oracle.layer_norm(arrays(x)[0], axes, *arrays(weight, bias), 1e-5)
    np.testing.assert_allclose(F.layer_norm(x, normalized, weight, bias).numpy(), expected, **TOLERANCE[dtype.name])
    expected = oracle.rms_norm(arrays(x)[0], axes, *arrays(weight), 1e-3)
    np.testing.assert_allclose(F.rms_norm(x, normalized, weight, 1e-3).numpy(), expected, **TOLERANCE[dtype.name])
    if dtype is faltung.float64:
        tensors = [t.requires_grad_() for t in (x, weight, bias) if t is not None]
        check_derivatives(lambda x, w=None, b=None: F.layer_norm(x, normalized, w, b, 1e-2), tensors)
        check_derivatives(lambda x, w=None: F.rms_norm(x, normalized, w, 1e-2), tensors[:2])


def test_rms_norm_without_eps() -> None:
    x = faltung.tensor([1e-4, -1e-4])
    expected = 1e-4 / np.sqrt(1e-8 + np.finfo(np.float32).eps)
    np.testing.assert_allclose(F.rms_norm(x, (2,)).numpy(), [expected, -expected], rtol=1e-6)


@pytest.mark.parametrize(("shape", "size"), RESPONSE, ids=str)
def test_local_response_norm(shape: tuple[int, ...], size: int) -> None:
    x = np.random.default_rng(3).standard_normal(shape)
    expected = oracle.local_response_norm(x, size, 0.5, 0.75, 2.0)
    t = faltung.from_numpy(x).requires_grad_()
    np.testing.assert_allclose(F.local_response_norm(t, size, 0.5, 0.75, 2.0).detach().numpy(), expected, rtol=1e-12)
    check_derivatives(lambda x: F.local_response_norm(x, size, 0.5, 0.75, 2.0), [t])


W6, W5 = faltung.linspace(0.5, 2, 6), faltung.linspace(0.5, 2, 5)
FUSED = {
    "group_norm": lambda x: F.group_norm(x, 3, W6, W6),
    "instance_norm": lambda x: F.instance_norm(x, weight=W6),
    "layer_norm": lambda x: F.layer_norm(x, (5,), W5, W5),
    "rms_norm": lambda x: F.rms_norm(x, (5,), W5),
    "local_response_norm": lambda x: F.local_response_norm(x, 3, 0.5, 0.75, 2.0),
}


@pytest.mark.parametrize("name", FUSED)
@pytest.mark.parametrize("layout", [faltung.contiguous_format, faltung.channels_last], ids=str)
def test_fused_gradients_are_those_of_the_graph(name: str, layout: faltung.memory_format) -> None:
    """float32 gradients come from kernels; with a graph, from the formula in tensor operations."""
    x = faltung.randn(2, 6, 4, 5, generator=faltung.Generator().manual_seed(0))
    x = x.contiguous(memory_format=layout).requires_grad_()
    y = FUSED[name](x)
    gy = faltung.randn(y.shape, generator=faltung.Generator().manual_seed(1))
    (fused,) = faltung.autograd.grad(y, x, gy, retain_graph=True)
    (graph,) = faltung.autograd.grad(y, x, gy, create_graph=True)
    assert graph.requires_grad
    np.testing.assert_allclose(fused.numpy(), graph.detach().numpy(), rtol=2e-5, atol=2e-5)


def test_float16_is_computed_in_float32() -> None:
    x = faltung.randn(4, 3, 5, 5) * 100
    y = F.batch_norm(x.half(), None, None, training=True)
    assert y.dtype is faltung.float16
    np.testing.assert_allclose(y.float().numpy(), F.batch_norm(x, None, None, training=True).numpy(), atol=5e-3)


# --- bad input

X = faltung.ones(2, 3, 4, 4)
THREE, FOUR = faltung.ones(3), faltung.ones(4)
BAD = [
    (lambda: F.batch_norm(X[:1, :, :1, :1], THREE, THREE, training=True), ValueError, "got input size (1, 3, 1, 1)"),
    (lambda: F.batch_norm(X, None, None), RuntimeError, "running_mean must be defined in evaluation mode"),
    (lambda: F.batch_norm(X, FOUR, FOUR), RuntimeError, "running_mean should contain 3 elements"),
    (lambda: F.batch_norm(X, THREE, THREE, FOUR), RuntimeError, "weight should contain 3 elements"),
    (lambda: F.batch_norm(X, THREE, THREE, None, FOUR), RuntimeError, "got bias (4,)"),
    (lambda: F.batch_norm(X, THREE, None, training=True), ValueError, "must both be None or both be tensors"),
    (lambda: F.batch_norm(X, THREE, THREE, training=True, eps=0), ValueError, "eps must be positive during training"),
    (lambda: F.batch_norm(X, THREE, THREE, eps=-1), ValueError, "eps must be non-negative, got -1"),
    (lambda: F.batch_norm(X, THREE, THREE, training=True, momentum=None), TypeError, "momentum must be a number"),
    (lambda: F.batch_norm(X.double(), THREE, THREE), RuntimeError, "Convert the data: input.to(faltung.float32)"),
    (lambda: F.batch_norm(X.long(), THREE, THREE), NotImplementedError, "batch_norm: not implemented for"),
    (lambda: F.batch_norm(THREE, THREE, THREE), RuntimeError, "x.unsqueeze(0)"),
    (lambda: F.batch_norm(X.numpy(), THREE, THREE), TypeError, "input must be a Tensor, got ndarray"),
    (
        lambda: F.batch_norm(X, THREE.clone().requires_grad_(), THREE),
        RuntimeError,
        "not differentiable with respect to running_mean",
    ),
    (lambda: F.instance_norm(X[:, :, :1, :1]), ValueError, "more than 1 spatial element"),
    (lambda: F.instance_norm(X, use_input_stats=False), RuntimeError, "to be defined when use_input_stats is false"),
    (lambda: F.group_norm(X, 2), RuntimeError, "the 3 channels of input (2, 3, 4, 4) do not divide into num_groups=2"),
    (lambda: F.group_norm(X, 0), RuntimeError, "num_groups must be positive, got 0"),
    (lambda: F.group_norm(X, 1.5), TypeError, "num_groups must be an int, got 1.5"),
    (lambda: F.group_norm(THREE, 1), RuntimeError, "input must be (N, C, ...), got (3,)"),
    (lambda: F.group_norm(X[:1, :, 0, 0], 3), ValueError, "Expected more than 1 value per channel"),
    (lambda: F.layer_norm(X, 4), TypeError, "normalized_shape must be a tuple of ints, got 4 (int)"),
    (lambda: F.layer_norm(X, ()), RuntimeError, "at least one dimension"),
    (lambda: F.layer_norm(X, (5,)), RuntimeError, "last dimensions are (5,), got input (2, 3, 4, 4)"),
    (lambda: F.layer_norm(X, (4,), THREE), RuntimeError, "weight must have the normalized_shape (4,), got (3,)"),
    (lambda: F.layer_norm(X.double(), (4,), FOUR), RuntimeError, "must have one dtype"),
    (lambda: F.rms_norm(X, (3,)), RuntimeError, "rms_norm: normalized_shape=[3]"),
    (lambda: F.local_response_norm(X[0, 0], 2), ValueError, "Expected 3D or higher"),
    (lambda: F.local_response_norm(X, 0), RuntimeError, "size must be positive, got 0"),
]


@pytest.mark.parametrize(("call", "kind", "text"), BAD)
def test_messages(call, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=re.escape(text)), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        call()
