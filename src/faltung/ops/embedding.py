"""Rows of a table by index, and the gradient that adds up per row."""

from __future__ import annotations

from typing import Any

import numpy as np

from faltung.autograd.graph import Op
from faltung.ops.apply import apply, apply_inplace
from faltung.tensor import Tensor


class Embedding(Op):
    """weight (V, D), indices (*) -> (*, D). Rows at `padding_idx` get no gradient."""

    name = "embedding"
    quiet = True

    @staticmethod
    def forward(
        ctx: Any, weight: np.ndarray, indices: np.ndarray, *, padding_idx: int | None, scale_grad_by_freq: bool
    ) -> np.ndarray:
        ctx.save_inputs(1)
        ctx.rows, ctx.padding_idx, ctx.scale = weight.shape[0], padding_idx, scale_grad_by_freq
        return weight[indices]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (indices,) = ctx.saved
        gradient = apply(
            RowSums, grad, indices, rows=ctx.rows, padding_idx=ctx.padding_idx, scale_grad_by_freq=ctx.scale
        )
        return gradient, None


class RowSums(Op):
    """values (*, D) added up per index into (rows, D): the transpose of a lookup."""

    name = "embedding_dense_backward"
    quiet = True

    @staticmethod
    def forward(
        ctx: Any,
        values: np.ndarray,
        indices: np.ndarray,
        *,
        rows: int,
        padding_idx: int | None,
        scale_grad_by_freq: bool,
    ) -> np.ndarray:
        ctx.save_inputs(1)
        ctx.padding_idx, ctx.scale, ctx.rows = padding_idx, scale_grad_by_freq, rows
        flat = indices.reshape(-1)
        scaled = _row_weights(flat, rows, padding_idx, scale_grad_by_freq)
        values = values.reshape(flat.size, values.shape[-1])
        if scaled is not None:
            values = values * scaled[:, None].astype(values.dtype)
        return row_sums(values, flat, rows)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (indices,) = ctx.saved
        rows = apply(Embedding, grad, indices, padding_idx=None, scale_grad_by_freq=False)
        scaled = _row_weights(indices._data.reshape(-1), ctx.rows, ctx.padding_idx, ctx.scale)
        if scaled is not None:
            factor = scaled.reshape(*indices.shape, 1).astype(grad._data.dtype)
            rows = rows * Tensor._wrap(factor)
        return rows, None


def _row_weights(flat: np.ndarray, rows: int, padding_idx: int | None, by_frequency: bool) -> np.ndarray | None:
    """What each lookup's gradient is multiplied by: 0 at the padding, 1/count with `by_frequency`; None for all 1."""
    if padding_idx is None and not by_frequency:
        return None
    weights = np.ones(flat.size)
    if by_frequency:
        weights /= np.bincount(flat, minlength=rows)[flat]
    if padding_idx is not None:
        weights[flat == padding_idx] = 0
    return weights


def row_sums(values: np.ndarray, flat: np.ndarray, rows: int) -> np.ndarray:
    """values (n, D) added up per index into (rows, D). Sorted first: one run per row, added in order."""
    total = np.zeros((rows, values.shape[1]), values.dtype)
    if flat.size:
        order = np.argsort(flat, kind="stable")
        found, starts = np.unique(flat[order], return_index=True)
        total[found] = np.add.reduceat(values[order], starts, axis=0)
    return total


class RenormRows(Op):
    """The rows at `indices` scaled down to a norm of at most `max_norm`."""

    name = "embedding_renorm"

    @staticmethod
    def forward(ctx: Any, weight: np.ndarray, indices: np.ndarray, *, max_norm: float, norm_type: float) -> np.ndarray:
        result = weight.copy()
        used = np.unique(indices)
        rows = result[used]
        norms = np.linalg.norm(rows, ord=norm_type, axis=1)
        factors = np.where(norms > max_norm, max_norm / (norms + 1e-7), 1.0)
        result[used] = rows * factors[:, None].astype(rows.dtype)
        return result


class OneHot(Op):
    """indices (*) -> (*, classes) of zeros with a one at each index."""

    quiet = True

    @staticmethod
    def forward(ctx: Any, indices: np.ndarray, *, classes: int) -> np.ndarray:
        result = np.zeros((indices.size, classes), np.int64)
        result[np.arange(indices.size), indices.reshape(-1)] = 1
        return result.reshape(*indices.shape, classes)


class EmbeddingBag(Op):
    """weight (V, D), flat indices (n,), bag of each index (n,), per-index weights (n,) -> sums (bags, D)."""

    name = "embedding_bag"
    quiet = True

    @staticmethod
    def forward(
        ctx: Any, weight: np.ndarray, indices: np.ndarray, bag_of: np.ndarray, factors: np.ndarray, *, bags: int
    ) -> np.ndarray:
        ctx.save_inputs(0, 1, 2, 3)
        return row_sums(weight[indices] * factors[:, None], bag_of, bags)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, None, Tensor | None]:
        weight, indices, bag_of, factors = ctx.saved
        per_index = apply(Embedding, grad, bag_of, padding_idx=None, scale_grad_by_freq=False)  # (n, D)
        to_weight = to_factors = None
        if ctx.needs_input_grad[0]:
            spread = per_index * factors.unsqueeze(1)
            to_weight = apply(
                RowSums, spread, indices, rows=weight.shape[0], padding_idx=None, scale_grad_by_freq=False
            )
        if ctx.needs_input_grad[3]:
            looked_up = apply(Embedding, weight, indices, padding_idx=None, scale_grad_by_freq=False)
            to_factors = (per_index * looked_up).sum(dim=1)
        return to_weight, None, None, to_factors


class BagMax(Op):
    """The largest value of each column among a bag's rows; 0 for an empty bag. Indices sorted by bag."""

    name = "embedding_bag"
    quiet = True

    @staticmethod
    def forward(ctx: Any, weight: np.ndarray, indices: np.ndarray, bag_of: np.ndarray, *, bags: int) -> np.ndarray:
        result = np.zeros((bags, weight.shape[1]), weight.dtype)
        winners = np.full(result.shape, -1, np.int64)
        for bag, start, end in _runs(bag_of):
            rows = indices[start:end]
            best = np.argmax(weight[rows], axis=0)
            winners[bag] = rows[best]
            result[bag] = weight[winners[bag], np.arange(weight.shape[1])]
        ctx.winners, ctx.rows = winners, weight.shape[0]
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return apply(BagMaxGrad, grad, winners=ctx.winners, rows=ctx.rows), None, None


class BagMaxGrad(Op):
    """Each gradient to the row that won its column."""

    quiet = True

    @staticmethod
    def forward(ctx: Any, grad: np.ndarray, *, winners: np.ndarray, rows: int) -> np.ndarray:
        ctx.won, ctx.rows = winners, rows
        result = np.zeros((rows, grad.shape[1]), grad.dtype)
        bags, columns = np.nonzero(winners >= 0)
        np.add.at(result, (winners[bags, columns], columns), grad[bags, columns])
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        won = Tensor._wrap(np.maximum(ctx.won, 0))
        mask = Tensor._wrap((ctx.won >= 0).astype(grad._data.dtype))
        return grad.gather(0, won) * mask


def _runs(bag_of: np.ndarray) -> list[tuple[int, int, int]]:
    """(bag, start, end) of each run of equal entries."""
    found, starts = np.unique(bag_of, return_index=True)
    ends = np.append(starts[1:], bag_of.size)
    return [(int(bag), int(start), int(end)) for bag, start, end in zip(found, starts, ends, strict=True)]


def embedding(weight: Tensor, indices: Tensor, padding_idx: int | None, scale_grad_by_freq: bool) -> Tensor:
    return apply(Embedding, weight, indices, padding_idx=padding_idx, scale_grad_by_freq=scale_grad_by_freq)


def renorm_rows_(weight: Tensor, indices: Tensor, max_norm: float, norm_type: float) -> Tensor:
    return apply_inplace(RenormRows, weight, indices, max_norm=max_norm, norm_type=norm_type)


def one_hot(indices: Tensor, classes: int) -> Tensor:
    return apply(OneHot, indices, classes=classes)


def embedding_bag(weight: Tensor, indices: Tensor, bag_of: Tensor, factors: Tensor, bags: int) -> Tensor:
    return apply(EmbeddingBag, weight, indices, bag_of, factors, bags=bags)


def embedding_bag_max(weight: Tensor, indices: Tensor, bag_of: Tensor, bags: int) -> Tensor:
    return apply(BagMax, weight, indices, bag_of, bags=bags)
