"""Affine maps of the last dimension in plain NumPy (its matrix product is a tuned BLAS).

Engine calls (x (*, K), w (M, K) in PyTorch's layout, gy (*, M); one dtype for all):

    linear.forward(x, w, bias)                          -> y  (*, M)
    linear.backward_data(gy, w)                         -> gx (*, K)
    linear.backward_weights(x, gy, *, with_bias=False)  -> (gw (M, K), gb (M,) or None)
    linear.matmul(a, b)                                 -> a (*, M, K) times b (*, K, N), leading dimensions broadcast
"""

from __future__ import annotations

import numpy as np

from faltung.engine.reference.precision import reference


@reference()
def forward(x: np.ndarray, w: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
    """y = x w^T + bias over the last dimension."""
    y = np.matmul(x, w.T)
    if bias is not None:
        y += bias
    return y


@reference()
def backward_data(gy: np.ndarray, w: np.ndarray) -> np.ndarray:
    """gx = gy w."""
    return np.matmul(gy, w)


@reference()
def backward_weights(x: np.ndarray, gy: np.ndarray, *, with_bias: bool = False) -> tuple[np.ndarray, np.ndarray | None]:
    """gw = gy^T x and gb = the column sums of gy, all leading dimensions taken as one."""
    rows = gy.reshape(-1, gy.shape[-1]) if gy.size else np.zeros((0, gy.shape[-1]), gy.dtype)
    samples = x.reshape(-1, x.shape[-1]) if x.size else np.zeros((len(rows), x.shape[-1]), x.dtype)
    gw = np.matmul(rows.T, samples)
    # as a product: NumPy's sum would add the rows one after the other
    return gw, np.ones(len(rows), gy.dtype) @ rows if with_bias else None


@reference()
def matmul(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Product of the last two dimensions, both operands at least 2-d."""
    return np.matmul(a, b)
