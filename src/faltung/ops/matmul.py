"""Products of matrices."""

from __future__ import annotations

from typing import Any

import numpy as np

from faltung import engine
from faltung.autograd.graph import Op
from faltung.dtypes import result_type
from faltung.ops.apply import apply
from faltung.ops.arithmetic import conj
from faltung.ops.promotion import cast
from faltung.tensor import Tensor


class Matmul(Op):
    """Matrix product of the last two dimensions, batched over the others, which broadcast. Both at least 2-d."""

    name = "matmul"

    @staticmethod
    def forward(ctx: Any, x: Any, y: Any) -> Any:
        if ctx.needs_input_grad[0] and ctx.needs_input_grad[1]:
            ctx.save_inputs(0, 1)
        elif ctx.needs_input_grad[0]:
            ctx.save_inputs(1)
        else:
            ctx.save_inputs(0)
        return engine.call("linear.matmul", x, y)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        needs_x, needs_y = ctx.needs_input_grad
        saved = ctx.saved
        gx = gy = None
        if needs_x:
            gx = apply(Matmul, grad, conj(saved[-1]).transpose(-2, -1))
        if needs_y:
            gy = apply(Matmul, conj(saved[0]).transpose(-2, -1), grad)
        return gx, gy


def _same_type(where: str, *tensors: Tensor) -> None:
    for position, tensor in enumerate(tensors):
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{where}: argument {position + 1} must be Tensor, not {type(tensor).__name__}.")
    first = tensors[0]._data.dtype
    for tensor in tensors[1:]:
        if tensor._data.dtype != first:
            raise RuntimeError(
                f"{where}: expected m1 and m2 to have the same dtype, but got: {tensors[0].dtype} != {tensor.dtype}. "
                f"Convert one of them with .to({tensors[0].dtype})."
            )


def _shapes(x: Tensor, y: Tensor) -> str:
    return f"{list(x._data.shape)} and {list(y._data.shape)}"


def matmul(input: Tensor, other: Tensor) -> Tensor:
    """Matrix product; vectors count as a row on the left and a column on the right, and
    leading dimensions broadcast.
    """
    _same_type("matmul", input, other)
    a, b = input._data, other._data
    if not a.ndim or not b.ndim:
        raise RuntimeError(
            f"matmul: both arguments to matmul need to be at least 1D, but they are {a.ndim}D and {b.ndim}D."
        )
    inner = b.shape[0] if b.ndim == 1 else b.shape[-2]
    if a.shape[-1] != inner:
        rows = a.size // max(a.shape[-1], 1)
        raise RuntimeError(
            f"matmul: mat1 and mat2 shapes cannot be multiplied ({rows}x{a.shape[-1]} and {inner}x"
            f"{1 if b.ndim == 1 else b.shape[-1]}), got shapes {_shapes(input, other)}: the last size of the first "
            f"must equal the {'only' if b.ndim == 1 else 'second last'} size of the second."
        )
    if a.ndim >= 2 and b.ndim >= 2:
        return _matmul(input, other)
    x = input.reshape(1, -1) if a.ndim == 1 else input
    y = other.reshape(-1, 1) if b.ndim == 1 else other
    found: Tensor = _matmul(x, y)
    if a.ndim == 1 and b.ndim == 1:
        return found.reshape(())  # methods are bound at run time
    return found.squeeze(-2) if a.ndim == 1 else found.squeeze(-1)


def _matmul(x: Tensor, y: Tensor) -> Tensor:
    a, b = x._data, y._data
    if a.ndim > 2 and b.ndim == 2:  # one large product instead of many small ones
        flat = apply(Matmul, x.reshape(-1, a.shape[-1]), y) if a.size else None
        if flat is not None:
            return flat.reshape(*a.shape[:-1], b.shape[-1])
    try:
        found: Tensor = apply(Matmul, x, y)
    except ValueError:
        raise RuntimeError(
            f"matmul: The batch dimensions of {_shapes(x, y)} don't broadcast: sizes must be equal or 1."
        ) from None
    return found


def _check_rank(where: str, name: str, tensor: Tensor, rank: int) -> None:
    if tensor._data.ndim != rank:
        kind = {1: "1-D", 2: "a matrix", 3: "a 3D tensor"}[rank]
        raise RuntimeError(
            f"{where}: {name} must be {kind}, got {tensor._data.ndim}-D tensor of shape {list(tensor.shape)}."
        )


def mm(input: Tensor, mat2: Tensor) -> Tensor:
    """Product of two matrices."""
    _check_rank("mm", "self", input, 2)
    _check_rank("mm", "mat2", mat2, 2)
    return matmul(input, mat2)


def bmm(input: Tensor, mat2: Tensor) -> Tensor:
    """Products of two batches of matrices."""
    _check_rank("bmm", "batch1", input, 3)
    _check_rank("bmm", "batch2", mat2, 3)
    if input._data.shape[0] != mat2._data.shape[0]:
        raise RuntimeError(
            f"bmm: Expected size for first two dimensions of batch2 tensor to be: [{input._data.shape[0]}, "
            f"{input._data.shape[2]}] but got: [{mat2._data.shape[0]}, {mat2._data.shape[1]}]."
        )
    return matmul(input, mat2)


def mv(input: Tensor, vec: Tensor) -> Tensor:
    """Product of a matrix and a vector."""
    _check_rank("mv", "input", input, 2)
    _check_rank("mv", "vec", vec, 1)
    return matmul(input, vec)


def dot(input: Tensor, tensor: Tensor) -> Tensor:
    """Inner product of two vectors."""
    _check_rank("dot", "input", input, 1)
    _check_rank("dot", "tensor", tensor, 1)
    if input._data.shape != tensor._data.shape:
        raise RuntimeError(
            "dot: inconsistent tensor size, expected tensor and src to have the same number of elements, but got "
            f"{input._data.size} and {tensor._data.size} elements respectively."
        )
    return matmul(input, tensor)


def vdot(input: Tensor, other: Tensor) -> Tensor:
    """Inner product of two vectors, the first one conjugated."""
    return dot(conj(input), other)


def inner(input: Tensor, other: Tensor) -> Tensor:
    """Products over the last dimensions of both."""
    if not input._data.ndim or not other._data.ndim:
        return input * other
    if input._data.shape[-1] != other._data.shape[-1]:
        raise RuntimeError(
            f"inner: the last dimension must match on both input tensors but got shapes {_shapes(input, other)}."
        )
    return tensordot(input, other, dims=([-1], [-1]))


def outer(input: Tensor, vec2: Tensor) -> Tensor:
    """All products of the elements of two vectors."""
    _check_rank("outer", "self", input, 1)
    _check_rank("outer", "vec2", vec2, 1)
    return input.reshape(-1, 1) * vec2


def _scaled_sum(where: str, input: Tensor, product: Tensor, beta: Any, alpha: Any) -> Tensor:
    shape = product._data.shape
    if input._data.dtype != product._data.dtype:
        raise RuntimeError(
            f"{where}: self must have the same dtype as the product, got {input.dtype} and {product.dtype}."
        )
    if product._data.dtype.kind in "iub" and (isinstance(beta, float) or isinstance(alpha, float)):
        if where == "addmm":
            name = "beta" if isinstance(beta, float) else "alpha"
            raise RuntimeError(
                f"{where}: For integral input tensors, argument {name} must not be a floating point number."
            )
        beta, alpha = int(beta), int(alpha)
    added = input.expand(shape)
    if alpha != 1:
        product = product * alpha
    if beta == 0:  # nan and inf of the input don't spread
        return product
    return product + (added if beta == 1 else added * beta)


def addmm(input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """beta * input + alpha * (mat1 @ mat2)."""
    _check_rank("addmm", "mat1", mat1, 2)
    _check_rank("addmm", "mat2", mat2, 2)
    return _scaled_sum("addmm", input, mm(mat1, mat2), beta, alpha)


def addmv(input: Tensor, mat: Tensor, vec: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """beta * input + alpha * (mat @ vec)."""
    return _scaled_sum("addmv", input, mv(mat, vec), beta, alpha)


def addr(input: Tensor, vec1: Tensor, vec2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """beta * input + alpha * outer(vec1, vec2)."""
    common = result_type(input, vec1, vec2)
    product = outer(cast(vec1, common), cast(vec2, common))
    if product._data.dtype.kind == "b":
        beta, alpha = bool(beta), bool(alpha)
    return _scaled_sum("addr", cast(input, common), product, beta, alpha)


def baddbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """beta * input + alpha * bmm(batch1, batch2)."""
    return _scaled_sum("baddbmm", input, bmm(batch1, batch2), beta, alpha)


def addbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """beta * input + alpha * the sum of the products of a batch."""
    return _scaled_sum("addbmm", input, bmm(batch1, batch2).sum(0, dtype=batch1.dtype), beta, alpha)


def tensordot(a: Tensor, b: Tensor, dims: Any = 2) -> Tensor:
    """Product summed over `dims`: the last n of a with the first n of b, or two lists of dimensions."""
    if isinstance(dims, int):
        if dims < 0:
            raise RuntimeError(f"tensordot: expects dims >= 0, but got dims={dims}.")
        left, right = list(range(a._data.ndim - dims, a._data.ndim)), list(range(dims))
    else:
        left, right = [[d] if isinstance(d, int) else [int(i) for i in d] for d in dims]
    left = [d % a._data.ndim for d in left]
    right = [d % b._data.ndim for d in right]
    for i, j in zip(left, right):  # a size of 1 counts for any: the other side is summed
        if a._data.shape[i] == 1 != b._data.shape[j]:
            b = b.sum(j, keepdim=True, dtype=b.dtype)
        elif b._data.shape[j] == 1 != a._data.shape[i]:
            a = a.sum(i, keepdim=True, dtype=a.dtype)
    if [a._data.shape[d] for d in left] != [b._data.shape[d] for d in right]:
        raise RuntimeError(
            f"tensordot: contracted dimensions need to match, got sizes {[a._data.shape[d] for d in left]} and "
            f"{[b._data.shape[d] for d in right]}."
        )
    kept_a = [d for d in range(a._data.ndim) if d not in left]
    kept_b = [d for d in range(b._data.ndim) if d not in right]
    shape = [a._data.shape[d] for d in kept_a] + [b._data.shape[d] for d in kept_b]
    inner_size = int(np.prod([a._data.shape[d] for d in left]))
    x = a.permute(*kept_a, *left).reshape(int(np.prod([a._data.shape[d] for d in kept_a])), inner_size)
    y = b.permute(*right, *kept_b).reshape(inner_size, int(np.prod([b._data.shape[d] for d in kept_b])))
    return matmul(x, y).reshape(shape)


def chain_matmul(*matrices: Any) -> Tensor:
    """The product of several matrices, multiplied in the cheapest order."""
    chain = list(matrices[0]) if len(matrices) == 1 and isinstance(matrices[0], tuple | list) else list(matrices)
    sizes = [m._data.shape[0] for m in chain] + [chain[-1]._data.shape[1]]
    best: dict[tuple[int, int], tuple[float, int]] = {(i, i): (0.0, i) for i in range(len(chain))}
    for span in range(1, len(chain)):
        for i in range(len(chain) - span):
            j = i + span
            best[i, j] = min(
                (best[i, k][0] + best[k + 1, j][0] + sizes[i] * sizes[k + 1] * sizes[j + 1], k) for k in range(i, j)
            )

    def product(i: int, j: int) -> Tensor:
        if i == j:
            return chain[i]
        k = best[i, j][1]
        return mm(product(i, k), product(k + 1, j))

    return product(0, len(chain) - 1)
