"""Normalisation by its definition: one set of values at a time, with exact sums. Shares nothing with the library."""

from __future__ import annotations

import math

import numpy as np


def moments(values: np.ndarray) -> tuple[float, float]:
    """Mean and biased variance of all values."""
    numbers = [float(v) for v in values.reshape(-1)]
    mean = math.fsum(numbers) / len(numbers)
    return mean, math.fsum((v - mean) ** 2 for v in numbers) / len(numbers)


def batch_norm(
    x: np.ndarray, weight: np.ndarray | None, bias: np.ndarray | None, eps: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x (N, C, ...) -> (y, mean (C,), biased variance (C,))."""
    channels = x.shape[1]
    y, mean, var = np.empty(x.shape), np.empty(channels), np.empty(channels)
    for c in range(channels):
        mean[c], var[c] = moments(x[:, c])
        y[:, c] = (x[:, c] - mean[c]) / math.sqrt(var[c] + eps)
        y[:, c] = y[:, c] * (1 if weight is None else weight[c]) + (0 if bias is None else bias[c])
    return y, mean, var


def group_norm(
    x: np.ndarray, groups: int, weight: np.ndarray | None, bias: np.ndarray | None, eps: float
) -> np.ndarray:
    """x (N, C, ...): every sample's channels of a group by themselves."""
    y = np.empty(x.shape)
    size = x.shape[1] // groups
    for n in range(x.shape[0]):
        for c in range(x.shape[1]):
            first = c // size * size
            mean, var = moments(x[n, first : first + size])
            y[n, c] = (x[n, c] - mean) / math.sqrt(var + eps)
            y[n, c] = y[n, c] * (1 if weight is None else weight[c]) + (0 if bias is None else bias[c])
    return y


def layer_norm(x: np.ndarray, axes: int, weight: np.ndarray | None, bias: np.ndarray | None, eps: float) -> np.ndarray:
    """The last `axes` dimensions of every leading index by themselves."""
    y = np.empty(x.shape)
    for index in np.ndindex(*x.shape[: x.ndim - axes]):
        mean, var = moments(x[index])
        y[index] = (x[index] - mean) / math.sqrt(var + eps) * (1 if weight is None else weight)
        y[index] += 0 if bias is None else bias
    return y


def rms_norm(x: np.ndarray, axes: int, weight: np.ndarray | None, eps: float) -> np.ndarray:
    """The last `axes` dimensions over their root mean square."""
    y = np.empty(x.shape)
    for index in np.ndindex(*x.shape[: x.ndim - axes]):
        square = math.fsum(float(v) ** 2 for v in x[index].reshape(-1)) / x[index].size
        y[index] = x[index] / math.sqrt(square + eps) * (1 if weight is None else weight)
    return y


def local_response_norm(x: np.ndarray, size: int, alpha: float, beta: float, k: float) -> np.ndarray:
    """Every channel over a power of the squares of `size` neighbours: size // 2 before it, the rest from it on."""
    y = np.empty(x.shape)
    channels = x.shape[1]
    for c in range(channels):
        window = range(max(0, c - size // 2), min(channels, c - size // 2 + size))
        total = sum(x[:, j] ** 2 for j in window)
        y[:, c] = x[:, c] / (k + alpha * total / size) ** beta
    return y
