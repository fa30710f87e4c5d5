"""Distances and similarities of vectors, and scaling to unit length."""

from __future__ import annotations

import numpy as np

from faltung.dtypes import result_type
from faltung.ops.shape import broadcast_tensors
from faltung.tensor import Tensor

from ._checks import check_tensors, message, shape_text


def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """The cosine of the angle between vectors along `dim`: x1 and x2 broadcast, `dim` disappears.

    Each norm counts as at least `eps`. Module twin: `nn.CosineSimilarity`.
    """
    where = "cosine_similarity"
    check_tensors(where, x1=x1, x2=x2)
    kind = result_type(x1, x2)
    if not (kind.is_floating_point or kind.is_complex):
        raise RuntimeError(
            message(where, f"expected common dtype to be floating point, yet common dtype is {kind}", "Use x1.float().")
        )
    x1, x2 = broadcast_tensors(x1.to(kind), x2.to(kind))
    first = x1 / x1.norm(2, dim, keepdim=True).clamp(min=eps)
    second = x2 / x2.norm(2, dim, keepdim=True).clamp(min=eps)
    return (first * second).sum(dim)


def pairwise_distance(x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Tensor:
    """The p-norm of x1 - x2 + eps along the last dimension. Module twin: `nn.PairwiseDistance`."""
    check_tensors("pairwise_distance", x1=x1, x2=x2)
    difference = x1 - x2 + eps
    return difference.norm(p, -1, keepdim=keepdim)


def pdist(input: Tensor, p: float = 2) -> Tensor:
    """Distances between all pairs of rows of (N, M), i before j: -> (N (N - 1) / 2,)."""
    check_tensors("pdist", input=input)
    if input.dim() != 2:
        raise RuntimeError(f"pdist only supports 2D tensors, got: {input.dim()}D, {shape_text(input.shape)}")
    if not input.dtype.is_floating_point:
        raise RuntimeError(f"pdist only supports floating-point dtypes, got {input.dtype}. Use input.float().")
    if p < 0:
        raise RuntimeError(f"pdist only supports non-negative p values, got p={p}")
    first, second = np.triu_indices(input.shape[0], 1)
    pairs = input[Tensor._wrap(first)] - input[Tensor._wrap(second)]
    return pairs.norm(p, -1)


def normalize(input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: Tensor | None = None) -> Tensor:
    """`input` over its p-norm along `dim` (at least `eps`); written into `out` if given."""
    check_tensors("normalize", optional=("out",), input=input, out=out)
    length = input.norm(p, dim, keepdim=True).clamp(min=eps)
    result: Tensor = input / length
    return result if out is None else out.copy_(result)
