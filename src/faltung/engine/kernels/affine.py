"""Weights and biases of normalisations: where there are none, ones and zeros, so that kernels know one case."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

Array = np.ndarray


def affine(weight: Array | None, bias: Array | None, count: int) -> tuple[Array, Array]:
    """`weight` and `bias`, or `count` ones and zeros."""
    return ones(count) if weight is None else weight, zeros(count) if bias is None else bias


@lru_cache(maxsize=64)
def ones(count: int) -> Array:
    """`count` ones, to be read only."""
    return np.ones(count, np.float32)


@lru_cache(maxsize=64)
def zeros(count: int) -> Array:
    """`count` zeros, to be read only."""
    return np.zeros(count, np.float32)
