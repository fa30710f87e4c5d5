"""Connectionist temporal classification as a differentiable operation. First derivatives only, as in PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np

from faltung import engine
from faltung.autograd.graph import Op
from faltung.ops.apply import apply
from faltung.tensor import Tensor


def _sequences(targets: np.ndarray, lengths: tuple[int, ...]) -> list[np.ndarray]:
    """The targets of each sample, from a padded (N, S) or a concatenated (sum of lengths,) array."""
    if targets.ndim == 2:
        return [row[:length] for row, length in zip(targets, lengths)]
    ends = np.cumsum(lengths)
    return [targets[end - length : end] for end, length in zip(ends, lengths)]


class CtcLoss(Op):
    """-log of the probability of all alignments of each target: (loss (N,), forward variables)."""

    name = "ctc_loss"

    @staticmethod
    def forward(
        ctx: Any,
        log_probs: np.ndarray,
        targets: np.ndarray,
        input_lengths: tuple[int, ...],
        target_lengths: tuple[int, ...],
        blank: int,
        zero_infinity: bool,
    ) -> tuple[np.ndarray, ...]:
        sequences = _sequences(targets, target_lengths)
        loss, alpha = engine.call("ctc.forward", log_probs, sequences, input_lengths, target_lengths, blank)
        ctx.save_inputs(0, 1)
        ctx.save_outputs(1)
        ctx.mark_non_differentiable(1)
        ctx.raw_loss = loss
        ctx.lengths, ctx.blank, ctx.zero_infinity = (input_lengths, target_lengths), blank, zero_infinity
        return np.where(np.isinf(loss), 0, loss) if zero_infinity else loss, alpha

    @staticmethod
    def backward(ctx: Any, gy: Tensor, *_: Tensor | None) -> tuple[Tensor | None, ...]:
        log_probs, targets, alpha = ctx.saved
        how = {"lengths": ctx.lengths, "blank": ctx.blank, "zero_infinity": ctx.zero_infinity}
        return apply(CtcBackward, gy, log_probs, targets, Tensor._wrap(ctx.raw_loss), alpha, **how), None


class CtcBackward(Op):
    """The gradient of CtcLoss."""

    name = "ctc_loss_backward"

    @staticmethod
    def forward(
        ctx: Any,
        gy: np.ndarray,
        log_probs: np.ndarray,
        targets: np.ndarray,
        loss: np.ndarray,
        alpha: np.ndarray,
        lengths: tuple[tuple[int, ...], tuple[int, ...]],
        blank: int,
        zero_infinity: bool,
    ) -> np.ndarray:
        sequences = _sequences(targets, lengths[1])
        return engine.call("ctc.backward", gy, log_probs, sequences, *lengths, blank, loss, alpha, zero_infinity)

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> None:
        raise NotImplementedError(
            "ctc_loss: the second derivative is not implemented. Use the loss without create_graph."
        )


def ctc_loss(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: tuple[int, ...],
    target_lengths: tuple[int, ...],
    blank: int,
    zero_infinity: bool,
) -> Tensor:
    """log_probs (T, N, C), targets (N, S) or (sum of lengths,) -> (N,)."""
    how = {"input_lengths": input_lengths, "target_lengths": target_lengths}
    return apply(CtcLoss, log_probs, targets, **how, blank=blank, zero_infinity=zero_infinity)[0]
