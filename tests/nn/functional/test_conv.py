"""Convolutions through nn.functional: values, gradients of any order, layouts, and what bad input gets."""

import re
from collections.abc import Callable

import numpy as np
import pytest

import faltung
import faltung.nn.functional as F
from faltung.autograd import gradcheck, gradgradcheck
from tests.cases.conv import CASES, ConvCase
from tests.oracle import conv as oracle

SMALL = [case for case in CASES if np.prod(case.input) * np.prod(case.weight) < 6000]


def operands(case: ConvCase, dtype: faltung.dtype = faltung.float64, grad: bool = False) -> list:
    rng = np.random.default_rng(0)
    shapes = [case.input, case.weight, *([(case.out_channels,)] if case.bias else [])]
    made = [faltung.from_numpy(rng.standard_normal(shape)).to(dtype).requires_grad_(grad) for shape in shapes]
    return made if case.bias else [*made, None]


def expected_of(case: ConvCase, *operands: faltung.Tensor | None) -> np.ndarray:
    definition = oracle.conv_transpose if case.transposed else oracle.conv
    arrays = [None if t is None else t.detach().numpy() for t in operands]
    return definition(*arrays, **case.options)


@pytest.mark.parametrize("dtype", [faltung.float32, faltung.float64], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_values(case: ConvCase, dtype: faltung.dtype) -> None:
    x, w, bias = operands(case, dtype)
    y = getattr(F, case.function)(x, w, bias, **case.options)
    expected = expected_of(case, x, w, bias)
    assert y.dtype is dtype
    tolerance = 1e-10 if dtype is faltung.float64 else 3e-5
    np.testing.assert_allclose(y.numpy(), expected, rtol=tolerance, atol=tolerance * 10)


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_first_derivatives(case: ConvCase) -> None:
    operation = getattr(F, case.function)
    inputs = [t for t in operands(case, grad=True) if t is not None]
    assert gradcheck(lambda x, w, b=None: operation(x, w, b, **case.options), inputs)


@pytest.mark.parametrize("case", [case for case in SMALL if np.prod(case.input) * np.prod(case.weight) < 2500], ids=str)
def test_second_derivatives(case: ConvCase) -> None:
    operation = getattr(F, case.function)
    inputs = [t for t in operands(case, grad=True) if t is not None]
    assert gradgradcheck(lambda x, w, b=None: operation(x, w, b, **case.options), inputs)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_single_precision_gradients(case: ConvCase) -> None:
    """The kernels' gradients against those in float64, which finite differences have confirmed."""
    operation, found = getattr(F, case.function), []
    for dtype in (faltung.float32, faltung.float64):
        inputs = [t for t in operands(case, dtype, grad=True) if t is not None]
        y = operation(*inputs, **case.options)
        seed = faltung.from_numpy(np.random.default_rng(9).standard_normal(y.shape)).to(dtype)
        found.append(faltung.autograd.grad(y, inputs, seed))
    for single, double in zip(*found, strict=True):
        scale = np.abs(double.numpy()).max(initial=1.0)
        np.testing.assert_allclose(single.numpy(), double.numpy(), rtol=1e-4, atol=3e-6 * scale)


def test_time_batch_channels() -> None:
    rng = np.random.default_rng(3)
    x, w, bias = (faltung.from_numpy(rng.standard_normal(shape)) for shape in [(7, 2, 3), (4, 3, 5), (5,)])
    expected = oracle.conv(x.numpy().transpose(1, 2, 0), w.numpy().transpose(2, 1, 0), bias.numpy(), padding=1)
    np.testing.assert_allclose(F.conv_tbc(x, w, bias, 1).numpy(), expected.transpose(2, 0, 1), atol=1e-12)


@pytest.mark.parametrize("wanted", ["x", "w", "b", "xw", "xb", "wb", "xwb"])
def test_only_needed_gradients(wanted: str) -> None:
    case = CASES[0]
    tensors = operands(case)
    for name, tensor in zip("xwb", tensors, strict=True):
        tensor.requires_grad_(name in wanted)
    F.conv2d(*tensors).square().sum().backward()
    assert "".join(name for name, t in zip("xwb", tensors, strict=True) if t.grad is not None) == wanted


@pytest.mark.parametrize("n", [1, 2, 3])
def test_unbatched_is_a_batch_of_one(n: int) -> None:
    rng = np.random.default_rng(1)
    x = faltung.from_numpy(rng.standard_normal((4, *range(5, 5 + n))))
    w = faltung.from_numpy(rng.standard_normal((4, 2, *(2,) * n)))
    for name in (f"conv{n}d", f"conv_transpose{n}d"):
        operation = getattr(F, name)
        kernels = w.repeat(1, 2, *(1,) * n) if name == f"conv{n}d" else w
        np.testing.assert_array_equal(operation(x, kernels).numpy(), operation(x[None], kernels)[0].numpy())


def test_results_are_channels_last_and_view_still_works() -> None:
    y = F.conv2d(faltung.ones(2, 3, 8, 8), faltung.ones(4, 3, 3, 3))
    assert y.is_contiguous(memory_format=faltung.channels_last)
    assert y.view(2, -1).shape == (2, 4 * 36)


def test_transposed_and_strided_inputs() -> None:
    rng = np.random.default_rng(2)
    x = faltung.from_numpy(rng.standard_normal((2, 9, 10, 3))).permute(0, 3, 1, 2)[:, :, ::2, 1:]
    w = faltung.from_numpy(rng.standard_normal((3, 5, 3, 3))).transpose(0, 1)
    expected = oracle.conv(x.numpy(), w.numpy(), None)
    np.testing.assert_allclose(F.conv2d(x, w).numpy(), expected, atol=1e-12)
    expanded = faltung.ones(1, 1, 1, 1, dtype=faltung.float64).expand(2, 3, 5, 5)
    np.testing.assert_allclose(
        F.conv2d(expanded, w).numpy(), oracle.conv(expanded.numpy(), w.numpy(), None), atol=1e-12
    )


@pytest.mark.parametrize("dtype", [faltung.int64, faltung.int32, faltung.uint8], ids=str)
def test_integers(dtype: faltung.dtype) -> None:
    x = faltung.arange(32).reshape(1, 2, 4, 4).to(dtype)
    w = faltung.ones(1, 2, 2, 2, dtype=dtype)
    expected = oracle.conv(x.numpy(), w.numpy(), None).astype(np.int64)
    assert F.conv2d(x, w).dtype is dtype
    np.testing.assert_array_equal(F.conv2d(x, w).numpy(), expected.astype(x.numpy().dtype))


def test_arguments_may_be_lists_and_single_element_tuples() -> None:
    x, w = faltung.ones(1, 2, 6, 6), faltung.ones(2, 2, 3, 3)
    expected = F.conv2d(x, w, stride=2, padding=1).numpy()
    for form in ([2], (2,), [2, 2], np.int64(2)):
        np.testing.assert_array_equal(F.conv2d(x, w, stride=form, padding=[1, 1]).numpy(), expected)


def test_half_precision_rounds_once() -> None:
    x, w = faltung.ones(1, 4096, 1, 1).half(), faltung.ones(1, 4096, 1, 1).half()
    assert F.conv2d(x, w).item() == 4096


def ones(*shape: int, **options: object) -> faltung.Tensor:
    return faltung.ones(*shape, **options)


X, W = (2, 4, 8, 8), (6, 4, 3, 3)

BAD = [  # (id, call, exception, message)
    ("wrong rank", lambda: F.conv2d(ones(2, 2, 4, 8, 8), ones(*W)), RuntimeError,
     r"conv2d: input must be 4-d \(N, C, H, W\) or unbatched 3-d \(C, H, W\), got 5-d \(2, 2, 4, 8, 8\)"),
    ("flattened images", lambda: F.conv2d(ones(64, 784), ones(16, 1, 5, 5)), RuntimeError,
     r"got 2-d \(64, 784\).*\n.*flattened.*x\.view\(-1, 1, 28, 28\)"),
    ("no channel dimension", lambda: F.conv2d(ones(28, 28), ones(16, 1, 5, 5)), RuntimeError,
     r"x\[None\]: \(1, 28, 28\)"),
    ("weight rank", lambda: F.conv2d(ones(*X), ones(6, 4, 3)), RuntimeError,
     r"weight must be 4-d \(out_channels, in_channels/groups, \*kernel\), got 3-d \(6, 4, 3\)\.?\n.*conv1d"),
    ("wrong channels", lambda: F.conv2d(ones(2, 3, 8, 8), ones(*W)), RuntimeError,
     r"weight \(6, 4, 3, 3\) with groups=1 needs an input with 4 channels, got input \(2, 3, 8, 8\)"),
    ("channels last", lambda: F.conv2d(ones(64, 1, 28, 28), ones(32, 28, 5, 5)), RuntimeError,
     r"conv2d: weight \(32, 28, 5, 5\) with groups=1 needs an input with 28 channels, got input \(64, 1, 28, 28\).*\n"
     r"Its last dimension is 28: if the data is channels last, use x\.permute\(0, 3, 1, 2\)"),
    ("channels last unbatched", lambda: F.conv2d(ones(28, 30, 3), ones(4, 3, 5, 5)), RuntimeError,
     r"x\.permute\(2, 0, 1\)"),
    ("batch without channels", lambda: F.conv2d(ones(64, 28, 28), ones(16, 1, 5, 5)), RuntimeError,
     r"x\.unsqueeze\(1\)"),
    ("weight against groups", lambda: F.conv2d(ones(*X), ones(6, 4, 3, 3), groups=2), RuntimeError,
     r"weight \(6, 4, 3, 3\) with groups=2 needs an input with 8 channels.*\n.*in_channels/groups, here 2"),
    ("swapped weight", lambda: F.conv2d(ones(*X), ones(4, 6, 3, 3)), RuntimeError, r"weight\.transpose\(0, 1\)"),
    ("out channels not a multiple of groups", lambda: F.conv2d(ones(*X), ones(5, 2, 3, 3), groups=2), RuntimeError,
     r"divisible by groups=2, got 5.*\nUse 6 instead of 5"),
    ("no filters", lambda: F.conv2d(ones(*X), ones(0, 4, 3, 3)), RuntimeError, r"at least one filter.*\(0, 4, 3, 3\)"),
    ("empty kernel", lambda: F.conv2d(ones(*X), ones(6, 4, 0, 3)), RuntimeError, r"at least one tap.*\(6, 4, 0, 3\)"),
    ("bias length", lambda: F.conv2d(ones(*X), ones(*W), ones(5)), RuntimeError,
     r"bias of shape \(6,\), got bias \(5,\)"),
    ("bias rank", lambda: F.conv2d(ones(*X), ones(*W), ones(6, 1)), RuntimeError, r"\(6,\), got bias \(6, 1\)"),
    ("kernel too large", lambda: F.conv2d(ones(*X), ones(6, 4, 11, 3), padding=1), RuntimeError,
     r"kernel spans \(11, 3\), which is larger than the padded input \(10, 10\)"),
    ("dilated kernel too large", lambda: F.conv2d(ones(*X), ones(*W), dilation=4), RuntimeError,
     r"kernel spans \(9, 9\) \(kernel \(3, 3\), dilation \(4, 4\)\)"),
    ("no samples", lambda: F.conv2d(ones(2, 4, 0, 8), ones(*W), padding=3), RuntimeError, r"has no samples"),
    ("stride 0", lambda: F.conv2d(ones(*X), ones(*W), stride=0), RuntimeError,
     r"stride must be positive, got stride=0"),
    ("stride negative", lambda: F.conv2d(ones(*X), ones(*W), stride=(1, -2)), RuntimeError, r"stride=\(1, -2\)"),
    ("dilation 0", lambda: F.conv2d(ones(*X), ones(*W), dilation=0), RuntimeError,
     r"dilation must be positive, got dilation=0"),
    ("negative padding", lambda: F.conv2d(ones(*X), ones(*W), padding=-1), RuntimeError,
     r"padding must not be negative.*-1"),
    ("groups 0", lambda: F.conv2d(ones(*X), ones(*W), groups=0), RuntimeError,
     r"groups must be positive, got groups=0"),
    ("three strides", lambda: F.conv2d(ones(*X), ones(*W), stride=(1, 1, 1)), RuntimeError, r"2 of them, got 3"),
    ("float stride", lambda: F.conv2d(ones(*X), ones(*W), stride=1.5), TypeError, r"stride must be an int.*got 1\.5"),
    ("float in a tuple", lambda: F.conv2d(ones(*X), ones(*W), stride=(1, 1.5)), TypeError, r"stride\[1\].*got 1\.5"),
    ("float groups", lambda: F.conv2d(ones(*X), ones(*W), groups=1.0), TypeError, r"groups must be an int, got 1\.0"),
    ("string stride", lambda: F.conv2d(ones(*X), ones(*W), stride="2"), TypeError, r"stride"),
    ("None stride", lambda: F.conv2d(ones(*X), ones(*W), stride=None), TypeError, r"stride.*None"),
    ("unknown padding", lambda: F.conv2d(ones(*X), ones(*W), padding="full"), RuntimeError,
     r"'same' or 'valid', got padding='full'"),
    ("same with stride", lambda: F.conv2d(ones(*X), ones(*W), padding="same", stride=2), RuntimeError,
     r"padding='same' needs stride 1, got stride=\(2, 2\)"),
    ("float64 against float32", lambda: F.conv2d(ones(*X, dtype=faltung.float64), ones(*W)), RuntimeError,
     r"input faltung\.float64 and weight faltung\.float32"),
    ("uint8 against float32", lambda: F.conv2d(ones(*X, dtype=faltung.uint8), ones(*W)), RuntimeError,
     r"input faltung\.uint8.*\n.*input\.to\(faltung\.float32\) / 255"),
    ("bias dtype", lambda: F.conv2d(ones(*X), ones(*W), ones(6, dtype=faltung.float64)), RuntimeError,
     r"bias faltung\.float64"),
    ("bool", lambda: F.conv2d(ones(*X, dtype=faltung.bool), ones(*W, dtype=faltung.bool)), NotImplementedError,
     r"faltung\.bool"),
    ("array", lambda: F.conv2d(np.ones(X), ones(*W)), TypeError, r"input must be a Tensor, got ndarray\n.*from_numpy"),
    ("list", lambda: F.conv2d([1.0], ones(*W)), TypeError, r"input must be a Tensor, got list"),
    ("None weight", lambda: F.conv2d(ones(*X), None), TypeError, r"weight must be a Tensor, got None"),
    ("no weight", lambda: F.conv2d(ones(*X)), TypeError, r"weight"),
    ("transposed channels", lambda: F.conv_transpose2d(ones(*X), ones(3, 4, 3, 3)), RuntimeError,
     r"conv_transpose2d: weight \(3, 4, 3, 3\) with groups=1 needs an input with 3 channels"),
    ("transposed bias", lambda: F.conv_transpose2d(ones(*X), ones(4, 3, 3, 3), ones(4)), RuntimeError,
     r"\(3,\), got bias \(4,\)"),
    ("output padding", lambda: F.conv_transpose2d(ones(*X), ones(4, 3, 3, 3), output_padding=1), RuntimeError,
     r"output_padding=\(1, 1\) must be smaller than stride=\(1, 1\) or dilation=\(1, 1\)"),
    ("negative output padding", lambda: F.conv_transpose2d(ones(*X), ones(4, 3, 3, 3), output_padding=-1), RuntimeError,
     r"output_padding must not be negative"),
    ("transposed same", lambda: F.conv_transpose2d(ones(*X), ones(4, 3, 3, 3), padding="same"), TypeError, r"padding"),
    ("cut to nothing", lambda: F.conv_transpose2d(ones(*X), ones(4, 3, 3, 3), padding=9), RuntimeError,
     r"padding=\(9, 9\)"),
    ("transposed groups", lambda: F.conv_transpose2d(ones(*X), ones(4, 3, 3, 3), groups=3), RuntimeError, r"groups=3"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "kind", "pattern"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_bad_input(call: Callable[[], object], kind: type[Exception], pattern: str) -> None:
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    assert re.search(pattern, str(caught.value)), str(caught.value)


@pytest.mark.parametrize(("call", "kind"), [row[1:3] for row in BAD], ids=[row[0] for row in BAD])
def test_bad_input_again(call: Callable[[], object], kind: type[Exception]) -> None:
    """An error is not remembered as an answer, nor an answer for equal values of another type."""
    with pytest.raises(kind):
        call()
