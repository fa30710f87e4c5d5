"""Reductions in plain NumPy: the oracle of the generated kernels, and the fallback without them.

    reduce.sum(x, axes), reduce.largest(x, axes), reduce.smallest(x, axes)  ->  the other axes, in their order
    reduce.dot(x, y, axes)  ->  the same of x * y, summed

`axes` are distinct and not negative. NaN travels through all of them; the extremes need at least one element.
"""

from __future__ import annotations

import numpy as np

from faltung.engine.reference.precision import reference

Axes = tuple[int, ...]


@reference()
def sum(x: np.ndarray, axes: Axes) -> np.ndarray:
    return np.asarray(np.add.reduce(x, axis=axes))


@reference()
def dot(x: np.ndarray, y: np.ndarray, axes: Axes) -> np.ndarray:
    return np.asarray(np.add.reduce(x * y, axis=axes))


@reference()
def largest(x: np.ndarray, axes: Axes) -> np.ndarray:
    return np.asarray(np.maximum.reduce(x, axis=axes))


@reference()
def smallest(x: np.ndarray, axes: Axes) -> np.ndarray:
    return np.asarray(np.minimum.reduce(x, axis=axes))
