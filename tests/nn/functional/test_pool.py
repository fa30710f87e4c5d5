"""Pooling through nn.functional: values, gradients, indices, and what bad input gets."""

import re
from collections.abc import Callable

import numpy as np
import pytest

import faltung
import faltung.nn.functional as F
from faltung.autograd import gradcheck, gradgradcheck
from tests.cases.pool import ADAPTIVE, CASES, PoolCase
from tests.oracle import pool as oracle

Ints = tuple[int, ...]
SMALL = [case for case in CASES if np.prod(case.input) < 260]


def distinct(shape: Ints) -> faltung.Tensor:
    """Values at least 0.1 apart, so that a finite difference never changes which one is largest."""
    size = int(np.prod(shape))
    values = np.random.default_rng(0).permutation(size).reshape(shape) * 0.1 - size * 0.05
    return faltung.from_numpy(values).requires_grad_()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_max_pool(case: PoolCase) -> None:
    x = distinct(case.input)
    pool, args = (
        getattr(F, f"max_pool{case.ndim}d"),
        (case.kernel, case.stride, case.padding, case.dilation, case.ceil_mode),
    )
    expected, places = oracle.max_pool(x.detach().numpy(), *args)
    y, indices = pool(x, *args, return_indices=True)
    np.testing.assert_array_equal(y.detach().numpy(), expected)
    np.testing.assert_array_equal(indices.numpy(), places)
    assert indices.dtype is faltung.int64
    assert not indices.requires_grad
    with faltung.no_grad():
        np.testing.assert_array_equal(pool(x, *args).numpy(), expected)


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_max_pool_derivatives(case: PoolCase) -> None:
    pool, args = (
        getattr(F, f"max_pool{case.ndim}d"),
        (case.kernel, case.stride, case.padding, case.dilation, case.ceil_mode),
    )
    assert gradcheck(lambda x: pool(x, *args), [distinct(case.input)])
    assert gradgradcheck(lambda x: pool(x, *args), [distinct(case.input)])


@pytest.mark.parametrize("case", CASES, ids=str)
def test_single_precision(case: PoolCase) -> None:
    """The kernels' values, indices and gradients against float64, which definition and finite differences confirm."""
    largest, average = getattr(F, f"max_pool{case.ndim}d"), getattr(F, f"avg_pool{case.ndim}d")
    args, found = (case.kernel, case.stride, case.padding), []
    for dtype in (faltung.float32, faltung.float64):
        x = distinct(case.input).detach().to(dtype).requires_grad_()
        y, indices = largest(x, *args, case.dilation, case.ceil_mode, return_indices=True)
        means = [average(x, *args, case.ceil_mode, include) for include in (True, False)]
        results = [y, *means]
        rng = np.random.default_rng(1)
        grads = [
            faltung.autograd.grad(result, x, faltung.from_numpy(rng.standard_normal(result.shape)).to(dtype))[0]
            for result in results
        ]
        found.append([indices, largest(x.detach(), *args, case.dilation, case.ceil_mode), *results, *grads])
    for single, double in zip(*found, strict=True):
        np.testing.assert_allclose(single.detach().numpy(), double.detach().numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_avg_pool(case: PoolCase, include: bool) -> None:
    x = distinct(case.input)
    pool = getattr(F, f"avg_pool{case.ndim}d")
    args = (case.kernel, case.stride, case.padding, case.ceil_mode, include)
    np.testing.assert_allclose(pool(x, *args).detach().numpy(), oracle.avg_pool(x.detach().numpy(), *args), atol=1e-12)
    if case in SMALL:
        assert gradcheck(lambda t: pool(t, *args), [x])
        assert gradgradcheck(lambda t: pool(t, *args), [x])


def test_avg_pool_divisor() -> None:
    x = distinct((1, 2, 4, 6))
    expected = oracle.avg_pool(x.detach().numpy(), 2, divisor=3)
    np.testing.assert_allclose(F.avg_pool2d(x, 2, divisor_override=3).detach().numpy(), expected)


@pytest.mark.parametrize(("name", "shape", "output"), ADAPTIVE)
def test_adaptive(name: str, shape: Ints, output: Ints) -> None:
    x, n = distinct(shape), len(output)
    average, largest = getattr(F, f"adaptive_avg_pool{n}d"), getattr(F, f"adaptive_max_pool{n}d")
    plain = x.detach().numpy()
    np.testing.assert_allclose(average(x, output).detach().numpy(), oracle.adaptive(plain, output, "mean"), atol=1e-12)
    y, indices = largest(x, output, return_indices=True)
    np.testing.assert_array_equal(y.detach().numpy(), oracle.adaptive(plain, output, "max"))
    for index in np.ndindex(*y.shape):
        assert plain[index[:2]].flat[int(indices[index])] == y[index].item()
    for pool in (average, largest) if x.numel() < 300 else ():
        assert gradcheck(lambda t, pool=pool: pool(t, output), [x])
        assert gradgradcheck(lambda t, pool=pool: pool(t, output), [x])


def test_adaptive_keeps_a_size() -> None:
    x = distinct((1, 2, 4, 6))
    assert F.adaptive_avg_pool2d(x, (None, 3)).shape == (1, 2, 4, 3)
    assert F.adaptive_max_pool2d(x, (2, None)).shape == (1, 2, 2, 6)
    assert F.adaptive_avg_pool2d(x, 1).shape == (1, 2, 1, 1)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_unbatched_is_a_batch_of_one(n: int) -> None:
    x = distinct((2, *range(4, 4 + n)))
    calls: list[Callable[[faltung.Tensor], faltung.Tensor]] = [
        lambda t: getattr(F, f"max_pool{n}d")(t, 2),
        lambda t: getattr(F, f"max_pool{n}d")(t, 2, return_indices=True)[1],
        lambda t: getattr(F, f"avg_pool{n}d")(t, 2),
        lambda t: getattr(F, f"adaptive_avg_pool{n}d")(t, 3),
        lambda t: getattr(F, f"adaptive_max_pool{n}d")(t, 3),
        lambda t: getattr(F, f"lp_pool{n}d")(t.abs(), 2, 2),
    ]
    for call in calls:
        np.testing.assert_array_equal(call(x).detach().numpy(), call(x[None])[0].detach().numpy())


@pytest.mark.parametrize("shape", [(2, 3, 6), (2, 3, 4, 6), (1, 2, 4, 4, 6)])
def test_unpool_undoes_pool(shape: Ints) -> None:
    n = len(shape) - 2
    x = distinct(shape)
    y, indices = getattr(F, f"max_pool{n}d")(x, 2, return_indices=True)
    back = getattr(F, f"max_unpool{n}d")(y, indices, 2)
    kept = back.detach().numpy() != 0
    assert back.shape == shape
    np.testing.assert_array_equal(back.detach().numpy()[kept], x.detach().numpy()[kept])
    assert kept.sum() >= y.numel() - 1
    assert gradcheck(lambda t: getattr(F, f"max_unpool{n}d")(t, indices, 2), [y.detach().requires_grad_()])


def test_unpool_to_an_odd_size() -> None:
    y, indices = F.max_pool2d(distinct((1, 2, 5, 7)), 2, return_indices=True)
    assert F.max_unpool2d(y, indices, 2, output_size=(5, 7)).shape == (1, 2, 5, 7)
    assert F.max_unpool2d(y, indices, 2, output_size=(1, 2, 5, 7)).shape == (1, 2, 5, 7)


def test_lp_pool() -> None:
    x = distinct((1, 2, 4, 6)).detach().abs()
    expected = np.sqrt(oracle.avg_pool(x.numpy() ** 2, 2) * 4)
    np.testing.assert_allclose(F.lp_pool2d(x, 2, 2).numpy(), expected)


@pytest.mark.parametrize("shape", [(2, 3, 9, 11), (1, 2, 7, 8, 9)])
def test_fractional_max_pool(shape: Ints) -> None:
    n = len(shape) - 2
    pool, x = getattr(F, f"fractional_max_pool{n}d"), distinct(shape)
    faltung.manual_seed(0)
    y, indices = pool(x, 2, output_size=(4,) * n, return_indices=True)
    assert y.shape == (*shape[:2], *(4,) * n)
    plain = x.detach().numpy()
    for index in np.ndindex(*y.shape):
        assert plain[index[:2]].flat[int(indices[index])] == y[index].item()
    samples = faltung.rand(*shape[:2], n, dtype=faltung.float64)
    assert gradcheck(lambda t: pool(t, 2, output_ratio=(0.5,) * n, _random_samples=samples), [x])


def ones(*shape: int, **options: object) -> faltung.Tensor:
    return faltung.ones(*shape, **options)


X = (1, 3, 8, 8)
BAD = [  # (id, call, exception, message)
    ("no size", lambda: F.max_pool2d(ones(*X)), TypeError, r"max_pool2d\(\).*'kernel_size'"),
    ("None size", lambda: F.max_pool2d(ones(*X), None), TypeError,
     r"max_pool2d: kernel_size must be an int.*None"),
    ("float size", lambda: F.max_pool2d(ones(*X), 2.0), TypeError, r"kernel_size .*got 2\.0"),
    ("size 0", lambda: F.max_pool2d(ones(*X), 0), RuntimeError, r"kernel_size must be positive, got kernel_size=0"),
    ("three sizes", lambda: F.max_pool2d(ones(*X), (2, 2, 2)), RuntimeError, r"2 of them, got 3"),
    ("stride 0", lambda: F.max_pool2d(ones(*X), 2, 0), RuntimeError, r"stride must be positive"),
    ("dilation 0", lambda: F.max_pool2d(ones(*X), 2, dilation=0), RuntimeError, r"dilation must be positive"),
    ("padding", lambda: F.max_pool2d(ones(*X), 2, padding=2), RuntimeError,
     r"at most half of kernel_size.*padding=\(2, 2\)"),
    ("negative padding", lambda: F.max_pool2d(ones(*X), 2, padding=-1), RuntimeError, r"padding must not be negative"),
    ("too large", lambda: F.max_pool2d(ones(*X), 9), RuntimeError,
     r"windows that span \(9, 9\) do not fit input \(1, 3, 8, 8\)"),
    ("rank", lambda: F.max_pool2d(ones(8, 8), 2), RuntimeError,
     r"4-d \(N, C, H, W\) or 3-d \(C, H, W\), got 2-d \(8, 8\)"),
    ("no channels", lambda: F.max_pool2d(ones(1, 0, 8, 8), 2), RuntimeError,
     r"no samples: only the batch may be empty"),
    ("bool", lambda: F.max_pool2d(ones(*X, dtype=faltung.bool), 2), NotImplementedError, r"faltung\.bool"),
    ("array", lambda: F.max_pool2d(np.ones(X), 2), TypeError,
     r"input must be a Tensor, got ndarray"),
    ("divisor", lambda: F.avg_pool2d(ones(*X), 2, divisor_override=0), RuntimeError, r"divisor_override must not be 0"),
    ("integers", lambda: F.avg_pool2d(ones(*X, dtype=faltung.int32), 2), NotImplementedError, r"int32"),
    ("adaptive rank", lambda: F.adaptive_avg_pool2d(ones(8, 8), 2), RuntimeError, r"got 2-d \(8, 8\)"),
    ("adaptive sizes", lambda: F.adaptive_avg_pool2d(ones(3, 8, 8), (2, 2, 2)), ValueError, r"got \(2, 2, 2\)"),
    ("adaptive negative", lambda: F.adaptive_avg_pool2d(ones(*X), -1), RuntimeError,
     r"output_size must not be negative"),
    ("adaptive float", lambda: F.adaptive_avg_pool2d(ones(*X), 2.0), TypeError, r"output_size"),
    ("adaptive missing", lambda: F.adaptive_avg_pool2d(ones(*X)), TypeError, r"output_size"),
    ("adaptive empty", lambda: F.adaptive_max_pool2d(ones(1, 3, 0, 8), 2), RuntimeError, r"no samples"),
    ("unpool dtype", lambda: F.max_unpool2d(ones(1, 1, 2, 2), ones(1, 1, 2, 2), 2), RuntimeError,
     r"int64.*return_indices"),
    ("unpool shape", lambda: F.max_unpool2d(ones(1, 1, 2, 2), ones(1, 1, 2, 3).long(), 2), RuntimeError,
     r"\(1, 1, 2, 3\)"),
    ("unpool index", lambda: F.max_unpool2d(ones(1, 1, 2, 2), ones(1, 1, 2, 2).long() * 16, 2), RuntimeError,
     r"index 16, but the output planes \(4, 4\) have 16 samples"),
    ("unpool size", lambda: F.max_unpool2d(ones(1, 1, 2, 2), ones(1, 1, 2, 2).long(), 2, None, 0, (9, 9)), ValueError,
     r"\(9, 9\) is out of reach: dimension 0 must lie between 3 and 5"),
    ("unpool sizes", lambda: F.max_unpool2d(ones(1, 1, 2, 2), ones(1, 1, 2, 2).long(), 2, output_size=(4,)), ValueError,
     r"must have 2 or 4 elements, got 1"),
    ("fractional size", lambda: F.fractional_max_pool2d(ones(*X), 2), ValueError, r"output_size or output_ratio"),
    ("fractional large", lambda: F.fractional_max_pool2d(ones(*X), 2, output_size=8), RuntimeError,
     r"too large for input"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "kind", "pattern"), [row[1:] for row in BAD], ids=[str(row[0]) for row in BAD])
def test_bad_input(call: Callable[[], object], kind: type[Exception], pattern: str) -> None:
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    assert re.search(pattern, str(caught.value), re.DOTALL), str(caught.value)
