"""backward() and grad(): checked entrances to the tape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from faltung.autograd.backward import run_backward

if TYPE_CHECKING:
    from faltung.tensor import Tensor

__all__ = ["backward", "grad"]


def backward(
    tensors: Any,
    grad_tensors: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Any = None,
) -> None:
    """Compute the gradients of the leaves of `tensors` and add them to their `.grad`.

    Args:
        tensors: a tensor or several.
        grad_tensors: their gradients; None where a tensor has one element.
        retain_graph: keep the saved tensors for another pass; defaults to `create_graph`.
        create_graph: record the backward pass itself, for higher derivatives.
        inputs: accumulate only into these tensors.
    """
    roots = _as_tuple(tensors)
    grads = _root_gradients("backward", roots, _as_tuple(grad_tensors, len(roots)))
    if inputs is not None:
        inputs = _as_tuple(inputs)
        if not inputs:
            raise RuntimeError(
                "backward: inputs argument to backward() cannot be empty. Leave it out to reach all leaves."
            )
        for position, tensor in enumerate(inputs):
            if not tensor.requires_grad:
                raise RuntimeError(f"backward: inputs[{position}] does not require grad.")
    keep = create_graph if retain_graph is None else retain_graph
    run_backward(roots, grads, retain_graph=keep, create_graph=create_graph, inputs=inputs)


def grad(
    outputs: Any,
    inputs: Any,
    grad_outputs: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    only_inputs: bool = True,
    allow_unused: bool | None = None,
    is_grads_batched: bool = False,
    materialize_grads: bool = False,
) -> tuple[Tensor | None, ...]:
    """The gradients of `outputs` with respect to `inputs`, returned instead of accumulated.

    Args:
        outputs: a tensor or several.
        inputs: the tensors to differentiate by.
        grad_outputs: gradients of `outputs`; None where an output has one element.
        retain_graph: keep the saved tensors for another pass; defaults to `create_graph`.
        create_graph: record the computation, for higher derivatives.
        only_inputs: always true.
        allow_unused: give None for inputs that outputs don't depend on, instead of an error.
        is_grads_batched: `grad_outputs` has a leading dimension of many gradients at once.
        materialize_grads: give zeros instead of None.
    """
    roots, wanted = _as_tuple(outputs), _as_tuple(inputs)
    if materialize_grads and allow_unused is False:
        raise ValueError("grad: expected allow_unused to be True or not given when materialize_grads is True.")
    if is_grads_batched:
        return _batched_grad(roots, wanted, grad_outputs, retain_graph, create_graph, bool(allow_unused))
    grads = _root_gradients("grad", roots, _as_tuple(grad_outputs, len(roots)))
    for position, tensor in enumerate(wanted):
        if not tensor.requires_grad:
            raise RuntimeError(
                f"grad: One of the differentiated Tensors does not require grad: inputs[{position}]. "
                "Call requires_grad_() on it before computing the outputs."
            )
    keep = create_graph if retain_graph is None else retain_graph
    found = run_backward(roots, grads, retain_graph=keep, create_graph=create_graph, inputs=wanted, accumulate=False)
    if materialize_grads:
        return tuple([x.new_zeros(x.shape) if g is None else g for g, x in zip(found, wanted)])
    if not allow_unused and any(g is None for g in found):
        position = next(i for i, g in enumerate(found) if g is None)
        raise RuntimeError(
            "grad: One of the differentiated Tensors appears to not have been used in the graph: "
            f"inputs[{position}]. Set allow_unused=True if this is the desired behavior."
        )
    return tuple(found)


def _batched_grad(
    roots: tuple[Any, ...], wanted: tuple[Any, ...], grads: Any, retain: bool | None, create: bool, unused: bool
) -> tuple[Tensor | None, ...]:
    batches = _as_tuple(grads, len(roots))
    count = next(batch.shape[0] for batch in batches if batch is not None)
    rows = []
    for row in range(count):
        last = row == count - 1
        keep = bool(retain or create) or not last
        rows.append(
            grad(roots, wanted, [None if b is None else b[row] for b in batches], keep, create, allow_unused=unused)
        )
    stacked: list[Any] = []
    for column in zip(*rows):
        first = column[0]
        stacked.append(None if first is None else type(first)._stack(column))
    return tuple(stacked)


def _as_tuple(values: Any, count: int = 1) -> tuple[Any, ...]:
    if values is None:
        return (None,) * count
    return tuple(values) if isinstance(values, Sequence) else (values,)


def _root_gradients(where: str, roots: tuple[Any, ...], grads: tuple[Any, ...]) -> list[Tensor]:
    if len(roots) != len(grads):
        raise RuntimeError(
            f"{where}: got {len(roots)} tensors and {len(grads)} gradients. Give one gradient per tensor."
        )
    found = []
    for position, (root, grad_) in enumerate(zip(roots, grads)):
        if not root.requires_grad:
            raise RuntimeError(
                f"{where}: element {position} of tensors does not require grad and does not have a grad_fn. "
                "Did the computation run under no_grad(), or through detach(), item() or numpy()?"
            )
        found.append(_root_gradient(where, root, grad_))
    return found


def _root_gradient(where: str, root: Any, given: Any) -> Tensor:
    data = root._data
    if given is None:
        if data.size != 1:
            raise RuntimeError(
                f"{where}: grad can be implicitly created only for scalar outputs, got a tensor of shape "
                f"{list(data.shape)}. Reduce it first, with sum() or mean(), or give the gradient of the output."
            )
        if data.dtype.kind == "c":
            raise RuntimeError(
                f"{where}: grad can be implicitly created only for real scalar outputs but got {root.dtype}."
            )
        found: Tensor = type(root)._wrap(np.ones(data.shape, data.dtype))
        return found
    if not hasattr(given, "_data"):
        raise TypeError(f"{where}: gradients can be either Tensors or None, but got {type(given).__name__}.")
    if given._data.shape != data.shape:
        raise RuntimeError(
            f"{where}: Mismatch in shape: the gradient has a shape of {list(given._data.shape)} and the output has a "
            f"shape of {list(data.shape)}."
        )
    fitting: Tensor = given if given._data.dtype == data.dtype else given.to(root.dtype)
    return fitting
