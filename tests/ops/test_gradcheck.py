"""First and second derivatives of the tensor operations against differences of their values, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import faltung as t
from faltung.autograd import gradcheck, gradgradcheck


def values(*shape: int, low: float = -2.0, high: float = 2.0, seed: int = 0) -> Any:
    """Distinct numbers, none near an integer or near another: no kinks or ties within a difference's reach."""
    stream = np.random.default_rng(seed + sum(shape))
    count = int(np.prod(shape))
    steps = np.linspace(low, high, count + 2)[1:-1]
    spread = stream.permutation(steps + 0.013) if count else steps
    return t.tensor(spread.reshape(shape), dtype=t.float64).requires_grad_()


def positive(*shape: int, seed: int = 0) -> Any:
    return values(*shape, low=0.4, high=2.3, seed=seed)


def unit(*shape: int) -> Any:
    return values(*shape, low=-0.9, high=0.9)


INDEX = t.tensor([0, 2, 2, 1])
MASK = t.tensor([[True, False, True], [False, True, True]])

UNARY: dict[str, tuple[Callable[..., Any], Any]] = {
    "neg": (lambda x: -x, values(2, 3)),
    "exp": (t.exp, values(2, 3)),
    "exp2": (t.exp2, values(2, 3)),
    "expm1": (t.expm1, values(2, 3)),
    "log": (t.log, positive(2, 3)),
    "log2": (t.log2, positive(2, 3)),
    "log10": (t.log10, positive(2, 3)),
    "log1p": (t.log1p, positive(2, 3)),
    "sqrt": (t.sqrt, positive(2, 3)),
    "rsqrt": (t.rsqrt, positive(2, 3)),
    "reciprocal": (t.reciprocal, positive(2, 3)),
    "square": (t.square, values(2, 3)),
    "abs": (t.abs, values(2, 3)),
    "sin": (t.sin, values(2, 3)),
    "cos": (t.cos, values(2, 3)),
    "tan": (t.tan, unit(2, 3)),
    "asin": (t.asin, unit(2, 3)),
    "acos": (t.acos, unit(2, 3)),
    "atan": (t.atan, values(2, 3)),
    "sinh": (t.sinh, values(2, 3)),
    "cosh": (t.cosh, values(2, 3)),
    "asinh": (t.asinh, values(2, 3)),
    "acosh": (t.acosh, values(2, 3, low=1.2, high=3.0)),
    "atanh": (t.atanh, unit(2, 3)),
    "erf": (t.erf, values(2, 3)),
    "erfc": (t.erfc, values(2, 3)),
    "erfinv": (t.erfinv, unit(2, 3)),
    "lgamma": (t.lgamma, positive(2, 3)),
    "digamma": (t.digamma, positive(2, 3)),
    "sinc": (t.sinc, values(2, 3)),
    "i0": (t.i0, values(2, 3)),
    "logit": (t.logit, values(2, 3, low=0.1, high=0.9)),
    "sigmoid": (t.sigmoid, values(2, 3)),
    "tanh": (t.tanh, values(2, 3)),
    "clamp": (lambda x: x.clamp(-1, 1), values(2, 3)),
    "pow_2": (lambda x: x**2, values(2, 3)),
    "pow_3": (lambda x: x**3, values(2, 3)),
    "pow_half": (lambda x: x**0.5, positive(2, 3)),
    "pow_-1.5": (lambda x: x**-1.5, positive(2, 3)),
    "2_pow": (lambda x: 2**x, values(2, 3)),
    "nan_to_num": (t.nan_to_num, values(2, 3)),
}

BINARY: dict[str, tuple[Callable[..., Any], Any, Any]] = {
    "add": (lambda x, y: t.add(x, y, alpha=3), values(2, 3), values(3)),
    "sub": (lambda x, y: t.sub(x, y, alpha=2), values(2, 1), values(3)),
    "mul": (t.mul, values(2, 3), values(2, 1)),
    "div": (t.div, values(2, 3), positive(3)),
    "pow": (t.pow, positive(2, 3), values(3)),
    "remainder": (t.remainder, values(2, 3), positive(2, 3, seed=1)),
    "maximum": (t.maximum, values(2, 3), values(2, 3, seed=1)),
    "minimum": (t.minimum, values(2, 3), values(3, seed=1)),
    "atan2": (t.atan2, values(2, 3), values(2, 3, seed=1)),
    "hypot": (t.hypot, values(2, 3), values(3, seed=1)),
    "logaddexp": (t.logaddexp, values(2, 3), values(3, seed=1)),
    "xlogy": (t.xlogy, values(2, 3), positive(3)),
    "lerp": (lambda x, y: t.lerp(x, y, 0.3), values(2, 3), values(2, 3, seed=1)),
    "where": (lambda x, y: t.where(MASK, x, y), values(2, 3), values(3)),
    "matmul_2d": (t.matmul, values(2, 3), values(3, 4)),
    "matmul_1d": (t.matmul, values(3), values(3)),
    "matmul_matrix_vector": (t.matmul, values(2, 3), values(3)),
    "matmul_vector_matrix": (t.matmul, values(3), values(3, 2)),
    "matmul_batched": (t.matmul, values(2, 2, 3), values(3, 2)),
    "matmul_broadcast": (t.matmul, values(2, 1, 2, 3), values(2, 3, 1)),
    "outer": (t.outer, values(2), values(3)),
    "einsum": (lambda x, y: t.einsum("bij,kj->bik", x, y), values(2, 2, 3), values(4, 3)),
    "tensordot": (lambda x, y: t.tensordot(x, y, ([1], [0])), values(2, 3), values(3, 2)),
    "cat": (lambda x, y: t.cat([x, y], 1), values(2, 3), values(2, 2)),
    "stack": (lambda x, y: t.stack([x, y], 1), values(2, 3), values(2, 3, seed=1)),
    "cdist": (t.cdist, values(3, 2), values(2, 2, seed=1)),
    "cross": (lambda x, y: t.cross(x, y, 1), values(2, 3), values(2, 3, seed=1)),
    "kron": (t.kron, values(2, 2), values(1, 3)),
    "addcmul": (lambda x, y: t.addcmul(x, x, y, value=2), values(2, 3), values(3)),
    "addcdiv": (lambda x, y: t.addcdiv(x, x, y, value=2), values(2, 3), positive(3)),
    "index_add": (lambda x, y: x.index_add(0, INDEX, y, alpha=2), values(3, 2), values(4, 2)),
    "index_copy": (lambda x, y: x.index_copy(0, t.tensor([2, 0]), y), values(3, 2), values(2, 2)),
    "scatter": (lambda x, y: x.scatter(0, t.tensor([[0, 2], [1, 0]]), y), values(3, 2), values(2, 2)),
    "scatter_add": (lambda x, y: x.scatter_add(0, t.tensor([[0, 2], [0, 0]]), y), values(3, 2), values(2, 2)),
    "index_put": (lambda x, y: x.index_put((INDEX,), y, accumulate=True), values(3, 2), values(4, 2)),
    "masked_scatter": (lambda x, y: x.masked_scatter(MASK, y), values(2, 3), values(5)),
    "copysign": (lambda x, y: t.copysign(x, y.detach()), values(2, 3), values(2, 3, seed=1)),
    "solve": (lambda x, y: t.linalg.solve(x, y), values(2, 2), values(2, 3)),
}

SHAPED: dict[str, Callable[..., Any]] = {
    "sum": lambda x: x.sum(),
    "sum_dims": lambda x: x.sum((0, 2), keepdim=True),
    "mean": lambda x: x.mean(1),
    "var": lambda x: x.var((0, 2)),
    "std": lambda x: x.std(1, correction=0),
    "prod": lambda x: x.prod(),
    "prod_dim": lambda x: x.prod(1),
    "amax": lambda x: x.amax((0, 1)),
    "amin": lambda x: x.amin(2),
    "max_dim": lambda x: x.max(1).values,
    "median": lambda x: x.median(2).values,
    "sort": lambda x: x.sort(1).values,
    "topk": lambda x: x.topk(2, 1).values,
    "kthvalue": lambda x: x.kthvalue(2, 1).values,
    "logsumexp": lambda x: x.logsumexp((0, 1)),
    "norm": lambda x: x.norm(),
    "norm_1": lambda x: x.norm(1, 1),
    "norm_3": lambda x: x.norm(3, (0, 1)),
    "norm_inf": lambda x: t.linalg.vector_norm(x, t.inf, 1),
    "cumsum": lambda x: x.cumsum(1),
    "cumprod": lambda x: x.cumprod(1),
    "cummax": lambda x: x.cummax(2).values,
    "logcumsumexp": lambda x: x.logcumsumexp(1),
    "diff": lambda x: x.diff(dim=1),
    "view": lambda x: x.view(4, -1),
    "reshape_of_permuted": lambda x: x.permute(2, 0, 1).reshape(-1, 3),
    "expand": lambda x: x.unsqueeze(1).expand(2, 3, 3, 2),
    "repeat": lambda x: x.repeat(2, 1, 2),
    "repeat_interleave": lambda x: x.repeat_interleave(t.tensor([1, 0, 2]), 1),
    "flip": lambda x: x.flip(0, 2),
    "roll": lambda x: x.roll((1, -1), (0, 1)),
    "rot90": lambda x: x.rot90(1, (0, 1)),
    "unfold": lambda x: x.unfold(1, 2, 1),
    "diagonal": lambda x: x.diagonal(0, 0, 1),
    "diag_embed": lambda x: x.diag_embed(),
    "tril": lambda x: x.tril(),
    "narrow": lambda x: x.narrow(1, 1, 2),
    "select": lambda x: x.select(2, 1),
    "chunk": lambda x: x.chunk(2, 1)[1],
    "unbind": lambda x: x.unbind(1)[2],
    "index_int": lambda x: x[1],
    "index_slices": lambda x: x[:, 1:, None],
    "index_tensor": lambda x: x[:, INDEX],
    "index_tensors": lambda x: x[t.tensor([0, 1, 1]), INDEX[:3]],
    "index_mask": lambda x: x[:, t.tensor([True, False, True])],
    "index_select": lambda x: x.index_select(1, INDEX),
    "gather": lambda x: x.gather(1, t.tensor([[[0, 2]], [[1, 1]]])),
    "take": lambda x: x.take(t.tensor([0, 5, 5])),
    "masked_select": lambda x: x.masked_select(x.detach() > 0),
    "masked_fill": lambda x: x.masked_fill(x.detach() > 0, 3.0),
    "index_fill": lambda x: x.index_fill(1, t.tensor([0, 2]), 5.0),
    "softmax": lambda x: x.softmax(1),
    "as_strided": lambda x: x.as_strided((2, 2), (1, 2), 1),
    "quantile": lambda x: x.quantile(0.4, 1),
    "renorm": lambda x: x.renorm(2, 0, 1.5),
    "setitem": lambda x: _written(x),
    "inplace_chain": lambda x: (x * 1).mul_(2).add_(x).sub_(0.5).div_(3).clamp_(-5, 5),
    "to_float64": lambda x: x.to(t.float64) * 2,
    "trapezoid": lambda x: t.trapezoid(x, dim=1),
}


def _written(x: Any) -> Any:
    y = x * 2
    y[0, 1:] = x[1, 1:] * 3
    y[1][y[1].detach() > 0] = 0.5
    return y * x


@pytest.mark.parametrize("name", UNARY)
def test_elementwise(name: str) -> None:
    function, x = UNARY[name]
    assert gradcheck(function, (x,))
    assert gradgradcheck(function, (x,))


@pytest.mark.parametrize("name", BINARY)
def test_two_inputs(name: str) -> None:
    function, x, y = BINARY[name]
    assert gradcheck(function, (x, y), check_undefined_grad=False)
    assert gradgradcheck(function, (x, y))


@pytest.mark.parametrize("name", SHAPED)
def test_shapes_and_reductions(name: str) -> None:
    x = values(2, 3, 2)
    assert gradcheck(SHAPED[name], (x,))
    assert gradgradcheck(SHAPED[name], (x,))


@pytest.mark.parametrize("name", ["inv", "det", "svdvals"])
def test_linear_algebra(name: str) -> None:
    x = t.tensor([[2.0, 0.3, 0.1], [0.2, 1.5, -0.4], [-0.3, 0.1, 1.1]], dtype=t.float64, requires_grad=True)
    assert gradcheck(getattr(t.linalg, name), (x,))


@pytest.mark.parametrize("name", ["exp", "log", "sqrt", "sin", "reciprocal", "square", "tanh", "abs"])
def test_complex(name: str) -> None:
    x = t.tensor([0.7 + 0.4j, -0.3 + 1.1j], dtype=t.complex128, requires_grad=True)
    assert gradcheck(getattr(t, name), (x,))


def test_zeros_in_products() -> None:
    x = t.tensor([[2.0, 0.0, 3.0], [0.0, 0.0, 4.0]], dtype=t.float64, requires_grad=True)
    assert gradcheck(lambda v: v.prod(1), (x,))
    assert gradcheck(lambda v: v.cumprod(1), (x,))


def test_gradcheck_finds_a_wrong_gradient() -> None:
    class Wrong(t.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x * 2

        @staticmethod
        def backward(ctx: Any, grad: Any) -> Any:
            return grad * 2.01

    with pytest.raises(RuntimeError, match="Jacobian mismatch"):
        gradcheck(Wrong.apply, (values(3),))
    assert not gradcheck(Wrong.apply, (values(3),), raise_exception=False)
