"""Weights and biases of normalisations: where there are none, ones and zeros, so that kernels know one case; and what
kernels over channels don't take.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from faltung.engine.kernels import flat

Array = np.ndarray


def refuse(x: Array, *values: Array | None) -> str | None:
    """The reason why kernels that normalise (N, C, *spatial) don't take x and values per channel, or None."""
    if x.dtype != flat.FLOAT:
        return f"only float32 is generated, not {x.dtype}"
    if x.ndim < 2 or x.size == 0:
        return f"nothing to normalise in {x.shape}"
    for array in values:
        if array is not None and (array.dtype != flat.FLOAT or not array.flags.c_contiguous):
            return "parameters are not contiguous float32"
    return None


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
