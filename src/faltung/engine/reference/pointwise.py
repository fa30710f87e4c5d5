"""Arithmetic of two arrays in plain NumPy: the oracle, and the fallback.

add, sub, mul, div, maximum, minimum(a, b, out=None) broadcast like NumPy; with `out` the result is written there, cast
if need be.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Array = np.ndarray


def _binary(ufunc: np.ufunc) -> Callable[..., Array]:
    def run(a: Array, b: Array, out: Array | None = None) -> Array:
        return ufunc(a, b) if out is None else ufunc(a, b, out=out, casting="unsafe")

    return run


add, sub, mul, div = map(_binary, (np.add, np.subtract, np.multiply, np.true_divide))
maximum, minimum = _binary(np.maximum), _binary(np.minimum)
