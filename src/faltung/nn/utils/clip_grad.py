"""Clipping gradients, by their total norm or value by value."""

from __future__ import annotations

import math
import types
import warnings
from collections.abc import Iterable

import numpy as np

from faltung.autograd import no_grad
from faltung.tensor import Tensor

Tensors = Tensor | Iterable[Tensor]


def _listed(tensors: Tensors) -> list[Tensor]:
    return [tensors] if isinstance(tensors, Tensor) else list(tensors)


@no_grad()
def get_total_norm(
    tensors: Tensors, norm_type: float = 2.0, error_if_nonfinite: bool = False, foreach: bool | None = None
) -> Tensor:
    """The norm of the norms of `tensors`, as if all were one vector: a 0-d tensor.

    RuntimeError with error_if_nonfinite when it is nan or infinite. `foreach` is accepted and changes nothing.
    """
    norm_type = float(norm_type)
    norms = [tensor.detach().norm(norm_type) for tensor in _listed(tensors)]
    if not norms:
        return Tensor._wrap(np.zeros((), dtype=np.float32))
    total = norms[0].new_tensor([norm.item() for norm in norms]).norm(norm_type)
    if error_if_nonfinite and not math.isfinite(total.item()):
        raise RuntimeError(
            f"The total norm of order {norm_type} for gradients from `parameters` is non-finite, so it cannot be "
            "clipped. To scale the gradients by it anyway, set `error_if_nonfinite=False`."
        )
    return total


@no_grad()
def clip_grads_with_norm_(
    parameters: Tensors, max_norm: float, total_norm: Tensor, foreach: bool | None = None
) -> None:
    """Scales the gradients in place by max_norm / total_norm where that makes them smaller."""
    grads = [param.grad for param in _listed(parameters) if param.grad is not None]
    factor = (float(max_norm) / (total_norm + 1e-6)).clamp(max=1.0)  # no branch on its value: nan stays visible
    for grad in grads:
        grad.mul_(factor.to(grad.dtype))


@no_grad()
def clip_grad_norm_(
    parameters: Tensors,
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """Scales all gradients in place so that their total norm is at most `max_norm`; returns the norm before."""
    is_generator = isinstance(parameters, types.GeneratorType)
    params = _listed(parameters)
    if is_generator and not params:
        warnings.warn("`parameters` is an empty generator, no gradient clipping will occur.", stacklevel=3)
    total = get_total_norm([p.grad for p in params if p.grad is not None], norm_type, error_if_nonfinite, foreach)
    clip_grads_with_norm_(params, max_norm, total, foreach)
    return total


def clip_grad_norm(
    parameters: Tensors,
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """Deprecated name of `clip_grad_norm_`."""
    warnings.warn(
        "`nn.utils.clip_grad_norm` is now deprecated in favor of clip_grad_norm_.", FutureWarning, stacklevel=2
    )
    return clip_grad_norm_(parameters, max_norm, norm_type, error_if_nonfinite, foreach)


@no_grad()
def clip_grad_value_(parameters: Tensors, clip_value: float, foreach: bool | None = None) -> None:
    """Clips every gradient in place to [-clip_value, clip_value]."""
    limit = float(clip_value)
    for param in _listed(parameters):
        if param.grad is not None:
            param.grad.clamp_(min=-limit, max=limit)
