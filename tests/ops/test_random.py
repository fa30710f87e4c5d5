"""Random tensors: arguments, refusals with PyTorch's exception classes, gradients of fills."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import faltung
from faltung import Generator, Tensor


def test_sizes_come_in_every_form() -> None:
    for make in (faltung.rand, faltung.randn):
        for x in (make(2, 3), make((2, 3)), make([2, 3]), make(faltung.Size([2, 3])), make(size=(2, 3))):
            assert x.shape == (2, 3)
        assert make(()).shape == ()
        assert make(0, 3).shape == (0, 3)
    assert faltung.randint(5, (2, 3)).shape == (2, 3)
    assert faltung.randint(2, 5, (2,)).shape == (2,)
    assert faltung.randint(low=2, high=5, size=(2,)).shape == (2,)
    assert faltung.randint(high=5, size=(2,)).shape == (2,)


def test_dtypes_and_requires_grad() -> None:
    assert faltung.rand(2).dtype is faltung.float32
    assert faltung.randint(5, (2,)).dtype is faltung.int64
    assert faltung.randperm(5).dtype is faltung.int64
    for dtype in (faltung.float16, faltung.float64, faltung.complex64):
        assert faltung.rand(2, dtype=dtype).dtype is dtype
        assert faltung.randn(2, dtype=dtype).dtype is dtype
    assert faltung.rand(2, requires_grad=True).requires_grad
    assert faltung.randperm(3, dtype=faltung.float32, requires_grad=True).requires_grad
    x = faltung.zeros(2, 3, dtype=faltung.float64)
    assert faltung.rand_like(x).dtype is faltung.float64
    assert faltung.randn_like(x, dtype=faltung.float32).dtype is faltung.float32
    assert set(faltung.randint_like(x, 2, 4).flatten().tolist()) <= {2.0, 3.0}
    assert faltung.randint_like(x, 3).shape == (2, 3)


def test_out_is_filled() -> None:
    out = faltung.empty(3)
    faltung.manual_seed(1)
    assert faltung.rand(3, out=out) is out
    faltung.manual_seed(1)
    assert faltung.equal(faltung.rand(3), out)
    order = faltung.empty(4, dtype=faltung.int64)
    faltung.randperm(4, out=order)
    assert sorted(order.tolist()) == [0, 1, 2, 3]
    drawn = faltung.empty(2, dtype=faltung.int64)
    faltung.multinomial(faltung.ones(5), 2, out=drawn)
    assert len(set(drawn.tolist())) == 2


def test_like_keeps_the_values_of_the_logical_order() -> None:
    x = faltung.zeros(2, 3, 4, 5).contiguous(memory_format=faltung.channels_last)
    faltung.manual_seed(1)
    got = faltung.rand_like(x)
    faltung.manual_seed(1)
    assert faltung.equal(got, faltung.rand(2, 3, 4, 5))


def test_bernoulli_and_normal_broadcast() -> None:
    assert faltung.empty(3, 2).bernoulli_(faltung.tensor([0.0, 1.0])).tolist() == [[0, 1]] * 3
    assert faltung.normal(faltung.zeros(3, 1), faltung.ones(4)).shape == (3, 4)
    assert faltung.normal(5.0, faltung.zeros(3)).tolist() == [5, 5, 5]
    assert faltung.bernoulli(faltung.tensor([1, 1]), p=0.0).tolist() == [0, 0]


def test_multinomial_never_draws_weight_zero() -> None:
    weights = faltung.tensor([0.0, 1.0, 0.0, 2.0])
    assert set(faltung.multinomial(weights, 200, replacement=True).tolist()) == {1, 3}
    assert set(faltung.multinomial(weights, 2).tolist()) == {1, 3}
    assert faltung.multinomial(faltung.ones(3, 5), 4).shape == (3, 4)
    assert faltung.multinomial(faltung.empty(0, 3), 2).shape == (0, 2)


FILLS: dict[str, Callable[[Tensor], Tensor]] = {
    "uniform_": lambda x: x.uniform_(),
    "normal_": lambda x: x.normal_(),
    "exponential_": lambda x: x.exponential_(),
    "cauchy_": lambda x: x.cauchy_(),
    "log_normal_": lambda x: x.log_normal_(),
    "geometric_": lambda x: x.geometric_(0.5),
    "bernoulli_": lambda x: x.bernoulli_(0.5),
    "bernoulli_tensor": lambda x: x.bernoulli_(faltung.full((3,), 0.5)),
    "random_": lambda x: x.random_(10),
}


@pytest.mark.parametrize("name", FILLS)
def test_fills_cut_the_gradient(name: str) -> None:
    x = faltung.ones(3, requires_grad=True)
    y = x * 2
    version = y._version
    assert FILLS[name](y) is y
    assert y._version > version
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 0, 0]
    with pytest.raises(RuntimeError, match="leaf Variable"):
        FILLS[name](x)
    with faltung.no_grad():
        FILLS[name](x)


def test_samples_have_gradient_zero() -> None:
    p = faltung.full((3,), 0.5, requires_grad=True)
    faltung.bernoulli(p).sum().backward()
    assert p.grad is not None
    assert p.grad.tolist() == [0, 0, 0]
    mean, std = faltung.zeros(3, requires_grad=True), faltung.ones(3, requires_grad=True)
    faltung.normal(mean, std).sum().backward()
    assert mean.grad is not None
    assert std.grad is not None
    assert mean.grad.tolist() == std.grad.tolist() == [0, 0, 0]


def test_float_bounds_move_inwards() -> None:
    x = faltung.empty(2000, dtype=faltung.float16)
    with pytest.warns(UserWarning, match="cannot hold every integer"):
        x.random_(0, 65504)
    assert x.max().item() < 65504
    y = faltung.empty(100, dtype=faltung.int32).random_(5, None)
    assert y.min().item() >= 5


F = faltung
REFUSALS: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: F.rand(2, dtype=F.int64), NotImplementedError, "expected a floating point"),
    (lambda: F.randn(2, dtype=F.bool), NotImplementedError, "expected a floating point"),
    (lambda: F.rand(-1), RuntimeError, "negative dimension -1"),
    (lambda: F.rand(2.5), TypeError, "tuple of ints, not float"),
    (lambda: F.rand("a"), TypeError, "tuple of ints, not str"),
    (lambda: F.rand(), TypeError, "missing argument 'size'"),
    (lambda: F.rand([2], 3), TypeError, "one tuple of ints"),
    (lambda: F.rand(2, sise=3), TypeError, "unexpected keyword argument 'sise'"),
    (lambda: F.rand(2, out=F.empty(2), dtype=F.float64), RuntimeError, "does not match dtype of out"),
    (lambda: F.rand(2, generator=5), TypeError, "expected a faltung.Generator"),
    (lambda: F.rand(2, device="cuda"), AssertionError, "expected 'cpu'"),
    (lambda: F.rand_like([1]), TypeError, "must be Tensor, not list"),
    (lambda: F.rand_like(F.ones(2, dtype=F.int64)), NotImplementedError, "Convert it with"),
    (lambda: F.randint(5, 5, (2,)), RuntimeError, "from=5 >= to=5"),
    (lambda: F.randint(0, (2,)), RuntimeError, "from=0 >= to=0"),
    (lambda: F.randint(300, (2,), dtype=F.uint8), RuntimeError, "to - 1 is out of bounds"),
    (lambda: F.randint(-1, 5, (2,), dtype=F.uint8), RuntimeError, "from is out of bounds"),
    (lambda: F.randint(10, (2,), dtype=F.complex64), RuntimeError, "complex"),
    (lambda: F.randint(10, (2,), requires_grad=True), RuntimeError, "floating point"),
    (lambda: F.randint(10, 3), TypeError, "tuple of ints, not int"),
    (lambda: F.randint(1.5, (2,)), TypeError, "'high' must be int, not float"),
    (lambda: F.randperm(-1), RuntimeError, "negative dimension"),
    (lambda: F.randperm(2.5), TypeError, "must be int, not float"),
    (lambda: F.randperm(300, dtype=F.uint8), RuntimeError, "cannot be greater than 255"),
    (lambda: F.randperm(3000, dtype=F.float16), RuntimeError, "cannot be greater than 2049"),
    (lambda: F.randperm(5, dtype=F.bool), NotImplementedError, "not implemented for 'Bool'"),
    (lambda: F.bernoulli(F.tensor([2.0])), RuntimeError, "probabilities in \\[0, 1\\]"),
    (lambda: F.bernoulli(F.tensor([float("nan")])), RuntimeError, "probabilities in \\[0, 1\\]"),
    (lambda: F.bernoulli(F.tensor([1])), NotImplementedError, "floating point"),
    (lambda: F.bernoulli(F.tensor([0.5]), p=2), RuntimeError, "got p=2"),
    (lambda: F.empty(2).bernoulli_(F.tensor([0.5, 0.5, 0.5])), RuntimeError, "broadcast"),
    (lambda: F.empty(2).normal_(0, -1), RuntimeError, "found std -1"),
    (lambda: F.normal(0.0, 1.0), TypeError, "missing argument 'size'"),
    (lambda: F.normal(0.0, -1.0, (2,)), RuntimeError, "std >= 0"),
    (lambda: F.normal(F.zeros(2), F.tensor([-1.0, 1.0])), RuntimeError, "all elements of std >= 0"),
    (lambda: F.normal(F.zeros(2), F.ones(3)), RuntimeError, "broadcast"),
    (lambda: F.empty(2, dtype=F.int64).uniform_(), NotImplementedError, "Convert it with"),
    (lambda: F.empty(2).uniform_(2, 1), RuntimeError, "from=2.0 > to=1.0"),
    (lambda: F.empty(2, dtype=F.float16).uniform_(0, 1e6), RuntimeError, "out of bounds"),
    (lambda: F.empty(2).exponential_(0), RuntimeError, "lambda > 0"),
    (lambda: F.empty(2, dtype=F.int64).exponential_(), RuntimeError, "floating point"),
    (lambda: F.empty(2).cauchy_(0, -1), RuntimeError, "sigma > 0"),
    (lambda: F.empty(2).log_normal_(0, 0), RuntimeError, "std > 0"),
    (lambda: F.empty(2, dtype=F.int64).log_normal_(), NotImplementedError, "floating point"),
    (lambda: F.empty(2).geometric_(1), RuntimeError, "p=1"),
    (lambda: F.empty(2, dtype=F.bool).geometric_(0.5), NotImplementedError, "geometric_cpu"),
    (lambda: F.empty(2).random_(5, 5), RuntimeError, "from=5 >= to=5"),
    (lambda: F.empty(2, dtype=F.complex64).random_(), NotImplementedError, "complex"),
    (lambda: F.multinomial(F.ones(3), 0), RuntimeError, "n_sample <= 0"),
    (lambda: F.multinomial(F.ones(3), 4), RuntimeError, "replacement=True"),
    (lambda: F.multinomial(F.ones(2, 2, 2), 1), RuntimeError, "1 or 2 dim"),
    (lambda: F.multinomial(F.ones(3, dtype=F.int64), 1), RuntimeError, "floating-point"),
    (lambda: F.multinomial(F.tensor([-1.0, 1.0]), 1), RuntimeError, "element < 0"),
    (lambda: F.multinomial(F.zeros(2), 2, True), RuntimeError, "sum of probabilities <= 0"),
]


@pytest.mark.parametrize("number", range(len(REFUSALS)))
def test_refusals(number: int) -> None:
    call, error, message = REFUSALS[number]
    with pytest.raises(error, match=message):
        call()


def test_distributions_have_their_moments() -> None:
    n = 200_000
    generator = Generator().manual_seed(0)
    x = faltung.empty(n, dtype=faltung.float64)
    expected = {
        "uniform": (x.uniform_(1, 3, generator=generator).clone(), 2.0, 1 / 3),
        "normal": (x.normal_(1, 2, generator=generator).clone(), 1.0, 4.0),
        "exponential": (x.exponential_(2.0, generator=generator).clone(), 0.5, 0.25),
        "geometric": (x.geometric_(0.25, generator=generator).clone(), 4.0, 12.0),
        "randint": (faltung.randint(0, 10, (n,), generator=generator), 4.5, 8.25),
    }
    for name, (values, mean, variance) in expected.items():
        array = values.numpy().astype(np.float64)
        assert array.mean() == pytest.approx(mean, abs=5 * np.sqrt(variance / n)), name
        assert array.var() == pytest.approx(variance, rel=0.03), name
