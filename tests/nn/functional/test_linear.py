"""Affine maps through nn.functional, and what bad input gets."""

import re
from collections.abc import Callable

import numpy as np
import pytest

import faltung
import faltung.nn.functional as F
from faltung.autograd import gradcheck, gradgradcheck

Ints = tuple[int, ...]


def random(*shape: int) -> faltung.Tensor:
    rng = np.random.default_rng(sum(shape) + len(shape))
    return faltung.from_numpy(rng.standard_normal(shape)).requires_grad_()


@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 5), (2, 1, 3, 5), (0, 5), (2, 0, 5)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear(shape: Ints, bias: bool) -> None:
    x, w, b = random(*shape), random(7, 5), random(7) if bias else None
    expected = np.einsum("...k,mk->...m", x.detach().numpy(), w.detach().numpy())
    if b is not None:
        expected = expected + b.detach().numpy()
    np.testing.assert_allclose(F.linear(x, w, b).detach().numpy(), expected, atol=1e-12)
    inputs = [t for t in (x, w, b) if t is not None]
    assert gradcheck(F.linear, inputs)
    assert gradgradcheck(F.linear, inputs)


def test_no_features() -> None:
    assert F.linear(faltung.ones(2, 0), faltung.ones(3, 0), faltung.ones(3)).tolist() == [[1.0] * 3] * 2
    assert F.linear(faltung.ones(2, 3), faltung.ones(0, 3)).shape == (2, 0)


def test_vector_weight() -> None:
    x, w = random(4, 5), random(5)
    np.testing.assert_allclose(F.linear(x, w).detach().numpy(), x.detach().numpy() @ w.detach().numpy())
    assert gradcheck(F.linear, [x, w])


def test_bias_that_broadcasts() -> None:
    x, w = random(2, 5), random(3, 5)
    for bias in (random(1), random(2, 3), random(2, 1)):
        expected = x.detach().numpy() @ w.detach().numpy().T + bias.detach().numpy()
        np.testing.assert_allclose(F.linear(x, w, bias).detach().numpy(), expected)


@pytest.mark.parametrize("leading", [(), (3,), (2, 3)])
def test_bilinear(leading: Ints) -> None:
    a, b, w, bias = random(*leading, 3), random(*leading, 4), random(5, 3, 4), random(5)
    expected = np.einsum("...i,mij,...j->...m", a.detach().numpy(), w.detach().numpy(), b.detach().numpy())
    np.testing.assert_allclose(F.bilinear(a, b, w, bias).detach().numpy(), expected + bias.detach().numpy())
    assert gradcheck(F.bilinear, [a, b, w, bias])
    assert gradgradcheck(F.bilinear, [a, b, w, bias])


def ones(*shape: int, **options: object) -> faltung.Tensor:
    return faltung.ones(*shape, **options)


BAD = [  # (id, call, exception, message)
    ("unflattened", lambda: F.linear(ones(64, 32, 4, 4), ones(10, 512)), RuntimeError,
     r"linear: weight \(10, 512\) needs an input whose last dimension is 512, got input \(64, 32, 4, 4\)\n"
     r"input\.flatten\(1\) would make it \(64, 512\), which fits"),
    ("unflattened, other size", lambda: F.linear(ones(64, 32, 5, 5), ones(10, 512)), RuntimeError,
     r"flatten\(1\) would make it \(64, 800\): a layer after it needs in_features=800"),
    ("transposed weight", lambda: F.linear(ones(64, 512), ones(512, 10)), RuntimeError,
     r"looks transposed.*weight\.t\(\)"),
    ("both", lambda: F.linear(ones(64, 32, 4, 4), ones(512, 10)), RuntimeError,
     r"flatten\(1\) would make it \(64, 512\).*weight\.t\(\)"),
    ("wrong size", lambda: F.linear(ones(64, 511), ones(10, 512)), RuntimeError,
     r"dimension is 512, got input \(64, 511\)$"),
    ("bias", lambda: F.linear(ones(2, 3), ones(4, 3), ones(5)), RuntimeError, r"\(4,\), got bias \(5,\)"),
    ("weight rank", lambda: F.linear(ones(2, 3), ones(2, 4, 3)), RuntimeError, r"weight \(out_features, in_features\)"),
    ("no dimension", lambda: F.linear(ones(), ones(4, 3)), RuntimeError, r"got input \(\)"),
    ("dtype", lambda: F.linear(ones(2, 3), ones(4, 3, dtype=faltung.float64)), RuntimeError,
     r"weight faltung\.float64"),
    ("bias dtype", lambda: F.linear(ones(2, 3), ones(4, 3), ones(4, dtype=faltung.float64)), RuntimeError,
     r"bias faltung"),
    ("integers", lambda: F.linear(ones(2, 3, dtype=faltung.int64), ones(4, 3)), RuntimeError,
     r"input\.to\(faltung\.float32\)"),
    ("bool", lambda: F.linear(ones(2, 3, dtype=faltung.bool), ones(4, 3, dtype=faltung.bool)), NotImplementedError,
     r"bool"),
    ("None", lambda: F.linear(None, ones(4, 3)), TypeError,
     r"linear: input must be a Tensor, got None"),
    ("list", lambda: F.linear(ones(2, 3), [1]), TypeError,
     r"weight must be a Tensor, got list"),
    ("bilinear batch", lambda: F.bilinear(ones(2, 3), ones(3, 4), ones(5, 3, 4)), RuntimeError,
     r"bilinear: .*\(2, 3\)"),
    ("bilinear size", lambda: F.bilinear(ones(2, 3), ones(2, 5), ones(5, 3, 4)), RuntimeError, r"input2 \(2, 5\)"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "kind", "pattern"), [row[1:] for row in BAD], ids=[str(row[0]) for row in BAD])
def test_bad_input(call: Callable[[], object], kind: type[Exception], pattern: str) -> None:
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    assert re.search(pattern, str(caught.value)), str(caught.value)
