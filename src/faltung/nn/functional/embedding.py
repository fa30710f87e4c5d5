"""Lookup tables: embedding, embedding_bag, one_hot."""

from __future__ import annotations

import numpy as np

from faltung.autograd import no_grad
from faltung.ops import embedding as ops
from faltung.tensor import Tensor

from ._checks import check_rank, check_tensor, message, shape_text


def embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """Row input[i] of `weight` for every i: input (*) of integers, weight (V, D) -> (*, D).

    Args: `padding_idx`, a row that gets no gradient; `max_norm`, scales rows that are used down to this norm, in place;
    `scale_grad_by_freq`, divides a row's gradient by how often it is used. `sparse` is accepted: the gradient is dense.

    IndexError for an index outside 0..V-1.
    """
    where = "embedding"
    check_tensor(where, "input", input)
    check_rank(where, "'weight'", weight, {2: "(num_embeddings, embedding_dim)"})
    rows = weight.shape[0]
    padding_idx = _padding_row(padding_idx, rows)
    _check_indices(where, input, rows)
    if max_norm is not None:
        with no_grad():
            ops.renorm_rows_(weight, input, float(max_norm), float(norm_type))
    return ops.embedding(weight, input, padding_idx, scale_grad_by_freq)


def _padding_row(padding_idx: int | None, rows: int) -> int | None:
    if padding_idx is None:
        return None
    if not -rows <= padding_idx < rows:
        raise AssertionError(
            f"embedding: Padding_idx must be within num_embeddings, got padding_idx={padding_idx} for {rows} rows."
        )
    return padding_idx % rows


def _check_indices(where: str, input: Tensor, rows: int) -> None:
    if input.dtype.name not in ("int64", "int32"):
        raise RuntimeError(
            message(
                where,
                "Expected tensor for argument 'indices' to have one of the following scalar types: Long, Int; "
                f"but got {input.dtype} instead",
                "Convert them with input.long().",
            )
        )
    values = input._data
    if values.size:
        low, high = int(values.min()), int(values.max())
        if low < 0 or high >= rows:
            raise IndexError(
                f"{where}: index out of range in self: got {low if low < 0 else high}, weight has {rows} rows (0 to "
                f"{rows - 1})."
            )


def embedding_bag(
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    """Sums, means or maxima of rows: input (B, n), or (n,) with the start of each bag in `offsets`; -> (B, D).

    Args: `mode`, "sum", "mean" or "max"; `per_sample_weights`, a factor per index ("sum" only);
    `include_last_offset`, the last offset is the end of the last bag; `padding_idx`, a row that does not count.
    An empty bag gives zeros.
    """
    _check_bag_arguments(input, weight, offsets, mode, scale_grad_by_freq, sparse, per_sample_weights)
    rows = weight.shape[0]
    padding = _padding_row(padding_idx, rows)
    _check_indices("embedding_bag", input, rows)
    if max_norm is not None:
        with no_grad():
            ops.renorm_rows_(weight, input, float(max_norm), float(norm_type))
    bag_of, bags = _bags(input, offsets, include_last_offset)
    flat = input.reshape(-1)
    kept = np.ones(flat.numel(), bool) if padding is None else flat._data != padding
    indices = Tensor._wrap(flat._data[kept])
    bag_of = bag_of[kept]
    if mode == "max":
        return ops.embedding_bag_max(weight, indices, Tensor._wrap(bag_of), bags)
    counts = np.bincount(bag_of, minlength=bags)
    plain = np.ones(bag_of.size) if mode == "sum" else 1.0 / counts[bag_of]
    factors = Tensor._wrap(plain.astype(weight._data.dtype))
    if per_sample_weights is not None:
        factors = factors * per_sample_weights.reshape(-1)[Tensor._wrap(np.flatnonzero(kept))]
    if scale_grad_by_freq:
        weight = _scaled_by_frequency(weight, indices)
    return ops.embedding_bag(weight, indices, Tensor._wrap(bag_of), factors, bags)


def _scaled_by_frequency(weight: Tensor, indices: Tensor) -> Tensor:
    """The same table, whose gradient is divided by how often each row is used."""
    counts = np.maximum(np.bincount(indices._data, minlength=weight.shape[0]), 1)[:, None]
    share = Tensor._wrap((1.0 / counts).astype(weight._data.dtype))
    return weight * share + (weight * (1 - share)).detach()


def _check_bag_arguments(
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None,
    mode: str,
    scale_grad_by_freq: bool,
    sparse: bool,
    per_sample_weights: Tensor | None,
) -> None:
    where = "embedding_bag"
    check_tensor(where, "input", input)
    if per_sample_weights is not None and per_sample_weights.shape != input.shape:
        raise ValueError(
            f"{where}: per_sample_weights must have the shape of the input {shape_text(input.shape)}, got "
            f"{shape_text(per_sample_weights.shape)}."
        )
    if weight.dim() != 2:
        raise ValueError(f"{where}: weight has to be a 2D Tensor, but got Tensor of dimension {weight.dim()}")
    if input.dim() == 2 and offsets is not None:
        raise ValueError(f"{where}: if input is 2D, then offsets has to be None: each row is a bag.")
    if input.dim() == 1 and (offsets is None or offsets.dim() != 1):
        raise ValueError(f"{where}: offsets has to be a 1D Tensor but got {None if offsets is None else offsets.shape}")
    if input.dim() not in (1, 2):
        raise ValueError(f"{where}: input has to be 1D or 2D Tensor, but got Tensor of dimension {input.dim()}")
    if mode not in ("sum", "mean", "max"):
        raise ValueError(f"{where}: mode has to be one of sum, mean or max, got {mode!r}")
    if mode == "max" and scale_grad_by_freq:
        raise ValueError(f"{where}: max mode does not support scaling the gradient by the frequency")
    if mode == "max" and sparse:
        raise ValueError(f"{where}: max mode does not support sparse weights")
    if per_sample_weights is not None and mode != "sum":
        raise NotImplementedError(f"{where}: per_sample_weights is only supported for mode='sum' (got mode='{mode}').")


def _bags(input: Tensor, offsets: Tensor | None, include_last_offset: bool) -> tuple[np.ndarray, int]:
    """The bag of each index, and the number of bags."""
    if offsets is None:
        bags, length = input.shape
        return np.repeat(np.arange(bags), length), bags
    starts = offsets._data.astype(np.int64)
    total = input.numel()
    if starts.size and starts[0] != 0:
        raise RuntimeError(f"embedding_bag: offsets[0] has to be 0, the first bag starts at 0; got {int(starts[0])}.")
    if starts.size and (int(starts.max()) > total or (np.diff(starts) < 0).any()):
        raise RuntimeError(
            f"embedding_bag: offsets must rise and end at or before the input's length {total}, got {starts.tolist()}."
        )
    if include_last_offset:
        if not starts.size:
            raise RuntimeError("embedding_bag: include_last_offset: number of offsets should be at least 1")
        ends = starts[1:]
        starts = starts[:-1]
    else:
        ends = np.append(starts[1:], total)
    bag_of = np.repeat(np.arange(starts.size), ends - starts)
    if bag_of.size < total:  # indices past the last end belong to no bag
        bag_of = np.append(bag_of, np.full(total - bag_of.size, starts.size - 1))
    return bag_of, int(starts.size)


def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """Integers (*) -> zeros (*, num_classes) with a one at each; -1 takes the largest value plus one."""
    where = "one_hot"
    check_tensor(where, "tensor", tensor)
    if tensor.dtype.name != "int64":
        raise RuntimeError(
            f"{where}: one_hot is only applicable to index tensor of type int64, got {tensor.dtype}. "
            "Convert it with tensor.long()."
        )
    values = tensor._data
    if not values.size:
        if num_classes <= 0:
            raise RuntimeError(f"{where}: Can not infer total number of classes from empty tensor. Give num_classes.")
        return ops.one_hot(tensor, num_classes)
    if int(values.min()) < 0:
        raise RuntimeError(f"{where}: Class values must be non-negative, got {int(values.min())}.")
    if num_classes == -1:
        num_classes = int(values.max()) + 1
    elif int(values.max()) >= num_classes:
        raise RuntimeError(
            f"{where}: Class values must be smaller than num_classes, got {int(values.max())} and {num_classes}."
        )
    return ops.one_hot(tensor, num_classes)
