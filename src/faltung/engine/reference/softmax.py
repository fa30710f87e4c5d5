"""Softmax and log-softmax along one axis in plain NumPy: the oracle, and the fallback.

forward(x, axis) -> y               backward(gy, y, axis) -> gx
log_forward(x, axis) -> y           log_backward(gy, y, axis) -> gx

The largest element of every line is subtracted first, so that nothing overflows. A 0-d `x` is one line of one element.
"""

from __future__ import annotations

import numpy as np

from faltung.engine.reference.precision import reference


def _shifted(x: np.ndarray, axis: int | None) -> np.ndarray:
    if x.size == 0:
        return x.copy()
    return x - x.max(axis=axis, keepdims=True)


@reference()
def forward(x: np.ndarray, axis: int) -> np.ndarray:
    line = axis if x.ndim else None
    y = np.exp(_shifted(x, line))
    y /= y.sum(axis=line, keepdims=True)
    return y


@reference()
def backward(gy: np.ndarray, y: np.ndarray, axis: int) -> np.ndarray:
    gx = gy * y
    return gx - y * gx.sum(axis=axis if y.ndim else None, keepdims=True)


@reference()
def log_forward(x: np.ndarray, axis: int) -> np.ndarray:
    line = axis if x.ndim else None
    y = _shifted(x, line)
    return y - np.log(np.exp(y).sum(axis=line, keepdims=True))


@reference()
def log_backward(gy: np.ndarray, y: np.ndarray, axis: int) -> np.ndarray:
    return gy - np.exp(y) * gy.sum(axis=axis if y.ndim else None, keepdims=True)
