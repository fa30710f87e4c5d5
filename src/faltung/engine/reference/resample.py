"""Resampling in plain NumPy: the oracle of the generated kernels, and the fallback without them.

axis(x, axis, taps) -> y
    one axis of x by an `engine.taps.Taps`, any dtype, in the memory order of x.
planes(x, rows, columns) -> y
    x (N, C, H, W), both of its spatial axes.
"""

from __future__ import annotations

import numpy as np

from faltung.engine import layout
from faltung.engine.taps import Taps


def axis(x: np.ndarray, axis: int, taps: Taps) -> np.ndarray:
    order = layout.order_of(x)  # in memory order, so that a channels-last array stays one
    y = _along(x.transpose(order), order.index(axis), taps)
    return y.transpose(np.argsort(order))


def planes(x: np.ndarray, rows: Taps, columns: Taps) -> np.ndarray:
    return axis(axis(x, 3, columns), 2, rows)


def _along(x: np.ndarray, axis: int, taps: Taps) -> np.ndarray:
    if taps.weights is None:
        return np.take(x, taps.index[:, 0], axis=axis)
    shape = (-1,) + (1,) * (x.ndim - axis - 1)
    total: np.ndarray | None = None
    for k in range(taps.index.shape[1]):
        term = np.take(x, taps.index[:, k], axis=axis)
        term *= taps.weights[:, k].astype(x.dtype).reshape(shape)
        if taps.counts is not None:  # an entry that is no tap reads the first element, which may be infinite
            term[(slice(None),) * axis + (taps.counts <= k,)] = 0
        total = term if total is None else np.add(total, term, out=total)
    assert total is not None  # a table has at least one column
    return total
