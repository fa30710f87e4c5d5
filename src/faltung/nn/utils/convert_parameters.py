"""Parameters as one flat vector, and back."""

from __future__ import annotations

from collections.abc import Iterable

from faltung.tensor import Tensor


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """All elements of `parameters` one after the other, as a differentiable 1-d tensor."""
    from faltung.ops.join import cat

    return cat([param.reshape(-1) for param in parameters])


def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Makes consecutive pieces of `vec` the data of `parameters`. TypeError unless `vec` is a tensor."""
    if not isinstance(vec, Tensor):
        raise TypeError(f"vector_to_parameters: vec must be a faltung.Tensor, got {type(vec).__name__}.")
    start = 0
    for param in parameters:
        size = param.numel()
        param.data = vec[start : start + size].view_as(param).data
        start += size
