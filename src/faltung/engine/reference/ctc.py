"""Connectionist temporal classification (Graves et al. 2006) in plain NumPy, in log space, one sequence at a time.

forward(log_probs, targets, input_lengths, target_lengths, blank) -> (loss, alpha)
    log_probs (T, N, C); targets: one integer array per sequence; loss (N,); alpha (N, T, 2 * longest target + 1), the
    log probability of all prefixes that end in a state of the target with blanks between, before and after its labels.
backward(gy, log_probs, targets, input_lengths, target_lengths, blank, loss, alpha, zero_infinity) -> glog_probs
    gy (N,). As in PyTorch the gradient includes the normalisation, exp(log_probs) minus the posterior: the two agree
    once the gradient has passed through log_softmax.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from faltung.engine.reference.precision import reference

Array = np.ndarray


def _with_blanks(target: Array, blank: int) -> tuple[Array, Array]:
    """The labels with blanks around each, and where a path may skip the blank before a state."""
    states = np.full(2 * len(target) + 1, blank, dtype=np.int64)
    states[1::2] = target
    skips = np.zeros(len(states), dtype=bool)
    skips[3::2] = target[1:] != target[:-1]
    return states, skips


def _step(previous: Array, skips: Array) -> Array:
    """Log-sum over staying, advancing by one state, and skipping a blank between two different labels."""
    advanced = np.full_like(previous, -np.inf)
    advanced[1:] = previous[:-1]
    skipped = np.full_like(previous, -np.inf)
    skipped[2:] = np.where(skips[2:], previous[:-2], -np.inf)
    return np.logaddexp(np.logaddexp(previous, advanced), skipped)


@reference()
def forward(
    log_probs: Array, targets: Sequence[Array], input_lengths: Sequence[int], target_lengths: Sequence[int], blank: int
) -> tuple[Array, Array]:
    steps, batch, _ = log_probs.shape
    longest = 2 * max(target_lengths, default=0) + 1
    alpha = np.full((batch, steps, longest), -np.inf)
    loss = np.full(batch, np.inf, dtype=log_probs.dtype)
    for n in range(batch):
        states, skips = _with_blanks(targets[n], blank)
        length = input_lengths[n]
        if length == 0:
            loss[n] = 0 if len(states) == 1 else np.inf
            continue
        emissions = log_probs[:, n, states].astype(np.float64)  # (T, S)
        row = alpha[n, :, : len(states)]
        row[0, :2] = emissions[0, :2]
        for t in range(1, length):
            row[t] = _step(row[t - 1], skips) + emissions[t]
        loss[n] = -np.logaddexp.reduce(row[length - 1, -2:])
    return loss, alpha


@reference()
def backward(
    gy: Array,
    log_probs: Array,
    targets: Sequence[Array],
    input_lengths: Sequence[int],
    target_lengths: Sequence[int],
    blank: int,
    loss: Array,
    alpha: Array,
    zero_infinity: bool,
) -> Array:
    gx = np.zeros_like(log_probs)
    for n in range(log_probs.shape[1]):
        length = input_lengths[n]
        if length == 0 or (zero_infinity and np.isinf(loss[n])):
            continue
        states, skips = _with_blanks(targets[n], blank)
        emissions = log_probs[:length, n, states].astype(np.float64)
        beta = np.full((length, len(states)), -np.inf)
        beta[-1, -2:] = emissions[-1, -2:]
        # A suffix is a prefix of the reversed sequence: the skip into state s is the skip out of it backwards.
        backward_skips = np.zeros_like(skips)
        backward_skips[2:] = skips[::-1][:-2] if len(skips) > 2 else False
        for t in range(length - 2, -1, -1):
            beta[t] = _step(beta[t + 1][::-1], backward_skips)[::-1] + emissions[t]
        joint = alpha[n, :length, : len(states)] + beta - emissions  # (t, S): emission counted once
        posterior = np.zeros((length, log_probs.shape[2]))
        total = np.logaddexp.reduce(alpha[n, length - 1, : len(states)][-2:])
        np.add.at(posterior.T, states, np.exp(joint - total).T)
        gx[:length, n] = gy[n] * (np.exp(log_probs[:length, n]) - posterior)
    return gx
