"""The largest singular value of a weight, tracked by power iteration (Miyato et al. 2018)."""

from __future__ import annotations

from faltung.nn.modules.module import Module
from faltung.tensor import Tensor


def as_matrix(weight: Tensor, dim: int) -> Tensor:
    """The weight as a matrix whose rows run over `dim`."""
    if dim != 0:
        weight = weight.permute(dim, *(d for d in range(weight.dim()) if d != dim))
    return weight.reshape(weight.shape[0], -1)


def normalized(vector: Tensor, eps: float) -> Tensor:
    """The vector at length 1; divided by eps where it is shorter than that."""
    return vector / vector.norm().clamp(min=eps)


def improve(matrix: Tensor, u: Tensor, v: Tensor, iterations: int, eps: float) -> None:
    """Brings u and v nearer to the first singular vectors, in place: parallel replicas share these buffers."""
    matrix = matrix.detach()
    for _ in range(iterations):
        u.copy_(normalized(matrix.mv(v), eps))
        v.copy_(normalized(matrix.t().mv(u), eps))


def singular_value(matrix: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """u^T W v, differentiable in W. Copies of u and v: a later forward changes them in place."""
    return u.clone().dot(matrix.mv(v.clone()))


def default_dim(module: Module) -> int:
    """The dimension of the output channels: 1 for transposed convolutions, else 0."""
    from faltung.nn.modules import conv

    transposed = tuple(kind for n in (1, 2, 3) if (kind := getattr(conv, f"ConvTranspose{n}d", None)) is not None)
    return 1 if isinstance(module, transposed) else 0
