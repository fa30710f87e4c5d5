"""Dropout in plain NumPy: the oracle, and the fallback.

forward(x, keep, scale) -> y        backward(gy, keep, scale) -> gx

`keep` is a bool array of the shape of `x`, or one that broadcasts to it, such as (N, C, 1, 1) for whole channels.
What is kept is multiplied by `scale`, the rest by zero (so that inf and NaN give NaN there, as in any multiplication
by zero).
"""

from __future__ import annotations

import numpy as np

from faltung.engine.reference.precision import reference


@reference()
def forward(x: np.ndarray, keep: np.ndarray, scale: float) -> np.ndarray:
    return x * (keep * x.real.dtype.type(scale))


backward = forward
