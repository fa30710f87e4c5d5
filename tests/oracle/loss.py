"""Losses by their definitions: one sample at a time, with the math module. Shares nothing with the library."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np

Array = np.ndarray


def log_softmax(scores: Sequence[float]) -> list[float]:
    """Of one vector of scores."""
    largest = max(scores)
    total = math.log(math.fsum(math.exp(s - largest) for s in scores))
    return [s - largest - total for s in scores]


def cross_entropy(
    scores: Array,
    target: Array,
    weight: Array | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    from_scores: bool = True,
) -> tuple[Array, float]:
    """scores (N, C, *d), target (N, *d) -> (losses (N, *d), total weight)."""
    classes = scores.shape[1]
    w = np.ones(classes) if weight is None else weight
    losses, total = np.zeros(target.shape), 0.0
    for index in np.ndindex(*target.shape):
        label = int(target[index])
        if label == ignore_index:
            continue
        vector = [float(scores[(index[0], c, *index[1:])]) for c in range(classes)]
        logs = log_softmax(vector) if from_scores else vector
        spread = math.fsum(w[c] * logs[c] for c in range(classes)) / classes
        losses[index] = -(1 - label_smoothing) * w[label] * logs[label] - label_smoothing * spread
        total += w[label]
    return losses, total


def probability_cross_entropy(
    scores: Array, target: Array, weight: Array | None = None, label_smoothing: float = 0.0
) -> Array:
    """scores and target (N, C, *d) -> losses (N, *d)."""
    classes = scores.shape[1]
    w = np.ones(classes) if weight is None else weight
    losses = np.zeros((scores.shape[0], *scores.shape[2:]))
    for index in np.ndindex(*losses.shape):
        logs = log_softmax([float(scores[(index[0], c, *index[1:])]) for c in range(classes)])
        for c in range(classes):
            wanted = target[(index[0], c, *index[1:])] * (1 - label_smoothing) + label_smoothing / classes
            losses[index] -= wanted * w[c] * logs[c]
    return losses


def multi_margin(scores: Array, target: Array, p: int, margin: float, weight: Array | None) -> Array:
    """scores (N, C), target (N,) -> (N,)."""
    losses = np.zeros(len(target))
    for n, label in enumerate(target):
        for c in range(scores.shape[1]):
            if c != label:
                losses[n] += max(0.0, margin - scores[n, label] + scores[n, c]) ** p * (
                    1 if weight is None else weight[label]
                )
    return losses / scores.shape[1]


def multilabel_margin(scores: Array, target: Array) -> Array:
    """scores (N, C), target (N, C) of labels up to the first -1 -> (N,)."""
    losses = np.zeros(len(target))
    for n, row in enumerate(target):
        labels = list(itertools.takewhile(lambda label: label >= 0, row))
        for label, other in itertools.product(labels, set(range(len(row))) - set(labels)):
            losses[n] += max(0.0, 1 - scores[n, label] + scores[n, other])
    return losses / scores.shape[1]


def ctc(log_probs: Array, target: Sequence[int], blank: int) -> float:
    """log_probs (T, C): the sum over every alignment that collapses to the target. Exponential in T."""
    probability = 0.0
    for path in itertools.product(range(log_probs.shape[1]), repeat=log_probs.shape[0]):
        collapsed = [label for label, _ in itertools.groupby(path) if label != blank]
        if collapsed == list(target):
            probability += math.exp(math.fsum(log_probs[t, label] for t, label in enumerate(path)))
    return -math.log(probability) if probability else math.inf


def each(function: Callable[..., float], *arrays: Array) -> Array:
    """`function` of the numbers at every position of arrays that broadcast."""
    return np.vectorize(function, otypes=[float])(*arrays)


def reduced(losses: Array, reduction: str, total: float | None = None) -> Array:
    """The losses, their sum, or their mean (by `total`, if given)."""
    if reduction == "none":
        return losses
    value = math.fsum(losses.reshape(-1).tolist())
    return np.array(value if reduction == "sum" else value / (losses.size if total is None else total))
