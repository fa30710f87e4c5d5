"""Similarity and distance of pairs of vectors."""

from __future__ import annotations

from typing import ClassVar

from faltung.nn import functional as F
from faltung.tensor import Tensor

from .module import Module

__all__ = ["CosineSimilarity", "PairwiseDistance"]


class PairwiseDistance(Module):
    """The p-norm of differences along the last dimension. Twin: `nn.functional.pairwise_distance`.

    Shapes: (N, D) or (D), twice -> (N) or (), with keepdim (N, 1) or (1).
    """

    __constants__: ClassVar[list[str]] = ["eps", "keepdim", "norm"]

    norm: float
    eps: float
    keepdim: bool

    def __init__(self, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> None:
        super().__init__()
        self.norm, self.eps, self.keepdim = p, eps, keepdim

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        return F.pairwise_distance(x1, x2, p=self.norm, eps=self.eps, keepdim=self.keepdim)


class CosineSimilarity(Module):
    """The cosine of the angle between vectors along `dim`. Twin: `nn.functional.cosine_similarity`."""

    __constants__: ClassVar[list[str]] = ["dim", "eps"]

    dim: int
    eps: float

    def __init__(self, dim: int = 1, eps: float = 1e-8) -> None:
        super().__init__()
        self.dim, self.eps = dim, eps

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        return F.cosine_similarity(x1, x2, dim=self.dim, eps=self.eps)
