"""Tables of taps: an axis resampled as weighted sums of a few inputs, and the transpose of that, its gradient."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True, eq=False)
class Taps:
    """output[o] = sum over k of weights[o, k] * input[index[o, k]]."""

    inputs: int
    index: np.ndarray  # (outputs, taps)
    weights: np.ndarray | None  # (outputs, taps), float64; None: one tap of weight 1
    counts: np.ndarray | None = None  # (outputs,): taps of each output, those behind have weight 0; None: all

    @property
    def outputs(self) -> int:
        """Length of the resampled axis."""
        return self.index.shape[0]

    @cached_property
    def keeps(self) -> bool:
        """Whether every output is the input of its place."""
        return self.weights is None and np.array_equal(self.index[:, 0], np.arange(self.inputs))

    @cached_property
    def _is_tap(self) -> np.ndarray:
        """(outputs, taps): which entries are taps."""
        if self.counts is None:
            return np.ones(self.index.shape, bool)
        return np.arange(self.index.shape[1]) < self.counts[:, None]

    @cached_property
    def transposed(self) -> Taps:
        """The taps of the gradient: for each input, the outputs that it enters."""
        output, tap = np.nonzero(self._is_tap)
        weights = np.ones(output.size) if self.weights is None else self.weights[output, tap]
        source = self.index[output, tap]
        order = np.argsort(source, kind="stable")
        counts = np.bincount(source, minlength=self.inputs)
        slot = np.arange(source.size) - np.repeat(np.cumsum(counts) - counts, counts)
        shape = (self.inputs, max(int(counts.max(initial=0)), 1))
        index, turned = np.zeros(shape, np.int64), np.zeros(shape)
        index[source[order], slot] = output[order]
        turned[source[order], slot] = weights[order]
        return Taps(self.outputs, index, turned, counts)

    @cached_property
    def table(self) -> Table:
        """The same for kernels."""
        counts = self._is_tap.sum(1)
        spans = np.stack([np.cumsum(counts) - counts, counts], 1).astype(np.int64)
        weights = np.ones(self.index.shape) if self.weights is None else self.weights
        uniform = int(counts[0]) if self.outputs and (counts == counts[0]).all() else None
        return Table(
            spans, self.index[self._is_tap].astype(np.int64), weights[self._is_tap].astype(np.float32), uniform
        )

    def __repr__(self) -> str:
        return f"{self.inputs}->{self.outputs} of {self.index.shape[1]}"


@dataclass(frozen=True, eq=False)
class Table:
    """Taps one behind the other: those of output o are the `spans[o, 1]` entries from `spans[o, 0]` on."""

    spans: np.ndarray  # (outputs, 2) int64
    index: np.ndarray  # int64
    weights: np.ndarray  # float32
    uniform: int | None  # taps of every output, if all have equally many
