"""Linear algebra: norms, products, and what follows from solving systems of equations."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from faltung.autograd.graph import Op
from faltung.ops.apply import apply
from faltung.ops.arithmetic import conj
from faltung.ops.combine import cross as _cross
from faltung.ops.composed import vector_norm
from faltung.ops.dims import as_dims
from faltung.ops.matmul import chain_matmul, matmul
from faltung.tensor import Tensor

__all__ = [
    "cross",
    "det",
    "inv",
    "matmul",
    "matrix_norm",
    "matrix_power",
    "multi_dot",
    "norm",
    "slogdet",
    "solve",
    "svdvals",
    "vector_norm",
]


def norm(
    A: Tensor, ord: Any = None, dim: Any = None, keepdim: bool = False, *, dtype: Any = None, out: Any = None
) -> Tensor:
    """A vector norm, or a matrix norm where `ord` and two dimensions ask for one; of all elements without both."""
    if ord is None:
        return vector_norm(A, 2, dim, keepdim, dtype=dtype)
    is_matrix = len(dim) == 2 if isinstance(dim, tuple | list) else dim is None and A._data.ndim == 2
    if isinstance(ord, str) or is_matrix:
        return matrix_norm(A, ord, (-2, -1) if dim is None else dim, keepdim, dtype=dtype)
    return vector_norm(A, ord, dim, keepdim, dtype=dtype)


def matrix_norm(
    A: Tensor, ord: Any = "fro", dim: Any = (-2, -1), keepdim: bool = False, *, dtype: Any = None
) -> Tensor:
    """A norm of matrices: 'fro', 'nuc', 1, -1, 2, -2, inf or -inf."""
    if dtype is not None:
        A = A.to(dtype)
    if A._data.ndim < 2:
        raise RuntimeError(
            f"linalg.matrix_norm: The input tensor A must have at least 2 dimensions, got {A._data.ndim}."
        )
    if not isinstance(dim, tuple | list) or len(dim) != 2:
        raise RuntimeError(f"linalg.matrix_norm: dim must be a 2-tuple. Got {dim}.")
    rows, columns = as_dims("linalg.matrix_norm", dim, A._data.ndim)
    if ord == "fro":
        return vector_norm(A, 2, (rows, columns), keepdim)
    if ord in ("nuc", 2, -2):
        return _spectral_norm(A, ord, rows, columns, keepdim)
    if ord not in (1, -1, math.inf, -math.inf):
        raise RuntimeError(f"linalg.matrix_norm: Order {ord} not supported.")
    summed, best = (rows, columns) if abs(ord) == 1 else (columns, rows)
    sums = A.abs().sum(summed, keepdim=True)
    found = sums.amax(best, keepdim=True) if ord > 0 else sums.amin(best, keepdim=True)
    return found if keepdim else found.squeeze((rows, columns))


def _spectral_norm(A: Tensor, ord: Any, rows: int, columns: int, keepdim: bool) -> Tensor:
    values = svdvals(A.movedim((rows, columns), (-2, -1)))
    found = values.sum(-1) if ord == "nuc" else values.amax(-1) if ord == 2 else values.amin(-1)
    if keepdim:
        for dim in sorted((rows, columns)):
            found = found.unsqueeze(dim)
    return found  # methods are bound at run time


class SingularValues(Op):
    """Singular values in descending order."""

    name = "linalg_svdvals"

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        u, values, vh = np.linalg.svd(x, full_matrices=False)
        ctx.save_outputs(0)
        ctx.u, ctx.vh = u, vh
        return values

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        u, vh = Tensor._wrap(ctx.u), Tensor._wrap(ctx.vh)
        return (u * grad.unsqueeze(-2).to(u.dtype)) @ vh


def svdvals(A: Tensor, *, driver: Any = None) -> Tensor:
    """Singular values of matrices, in descending order. Differentiable once."""
    found: Tensor = apply(SingularValues, A)
    return found


def _square(where: str, A: Tensor) -> None:
    if A._data.ndim < 2 or A._data.shape[-1] != A._data.shape[-2]:
        raise RuntimeError(
            f"linalg.{where}: A must be batches of square matrices, but they are of shape {list(A.shape)}."
        )


class Inverse(Op):
    """The inverse of square matrices."""

    name = "linalg_inv"

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_outputs(0)
        try:
            return np.linalg.inv(x)
        except np.linalg.LinAlgError:
            raise RuntimeError("linalg.inv: The diagonal element is zero, the input matrix is singular.") from None

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (inverse,) = ctx.saved
        turned = conj(inverse).transpose(-2, -1)
        return -(turned @ grad @ turned)


def inv(A: Tensor) -> Tensor:
    """The inverse of square matrices."""
    _square("inv", A)
    found: Tensor = apply(Inverse, A)
    return found


class Solve(Op):
    """The X with A X = B."""

    name = "linalg_solve"

    @staticmethod
    def forward(ctx: Any, a: Any, b: Any) -> Any:
        ctx.save_inputs(0)
        ctx.save_outputs(0)
        try:
            return np.linalg.solve(a, b)
        except np.linalg.LinAlgError:
            raise RuntimeError("linalg.solve: The solver failed because the input matrix is singular.") from None

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        a, x = ctx.saved
        gb = apply(Solve, conj(a).transpose(-2, -1), grad)
        return -(gb @ conj(x).transpose(-2, -1)), gb


def solve(A: Tensor, B: Tensor, *, left: bool = True) -> Tensor:
    """The X with A X = B (or X A = B where left is false); B may be a vector."""
    _square("solve", A)
    if not left:
        return solve(A.transpose(-2, -1), B.transpose(-2, -1)).transpose(-2, -1)
    is_vector = B._data.ndim == 1 or (B._data.ndim == A._data.ndim - 1 and B._data.shape == A._data.shape[:-1])
    right = B.unsqueeze(-1) if is_vector else B
    if right._data.shape[-2] != A._data.shape[-1]:
        raise RuntimeError(
            f"linalg.solve: Incompatible shapes of A and B for the equation AX = B ({list(A.shape)} and "
            f"{list(B.shape)})."
        )
    found: Tensor = apply(Solve, A, right)
    return found.squeeze(-1) if is_vector else found


class Determinant(Op):
    """The determinant of square matrices."""

    name = "linalg_det"

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_inputs(0)
        ctx.save_outputs(0)
        return np.asarray(np.linalg.det(x))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, value = ctx.saved
        return conj(inv(x)).transpose(-2, -1) * (grad * conj(value)).unsqueeze(-1).unsqueeze(-1)


def det(A: Tensor) -> Tensor:
    """The determinant of square matrices."""
    _square("det", A)
    found: Tensor = apply(Determinant, A)
    return found


def slogdet(A: Tensor) -> tuple[Tensor, Tensor]:
    """(sign, logarithm of the magnitude) of the determinant."""
    value = det(A)
    return value.sgn(), value.abs().log()


def matrix_power(A: Tensor, n: int) -> Tensor:
    """Square matrices multiplied by themselves n times; n may be negative."""
    _square("matrix_power", A)
    if n < 0:
        return matrix_power(inv(A), -n)
    result: Tensor | None = None
    base = A
    while n:
        if n % 2:
            result = base if result is None else matmul(result, base)
        n //= 2
        base = matmul(base, base) if n else base
    if result is None:
        identity: Tensor = A.new_zeros(A.shape)
        identity.diagonal(0, -2, -1).fill_(1)
        return identity
    return result


def multi_dot(tensors: Any) -> Tensor:
    """The product of several matrices, multiplied in the cheapest order."""
    return chain_matmul(list(tensors))


def cross(input: Tensor, other: Tensor, *, dim: int = -1) -> Tensor:
    """The cross product along `dim`."""
    return _cross(input, other, dim)
