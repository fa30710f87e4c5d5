"""Derivatives of functions: jacobian, hessian, and products with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

import faltung.tensor as tensors  # by module: it is still being imported when this package is
from faltung.autograd.interface import grad as gradients
from faltung.autograd.modes import enable_grad

if TYPE_CHECKING:
    from faltung.tensor import Tensor

__all__ = ["hessian", "hvp", "jacobian", "jvp", "vhp", "vjp"]


def _as_tuple(values: Any) -> tuple[bool, tuple[Any, ...]]:
    return (True, tuple(values)) if isinstance(values, tuple | list) else (False, (values,))


def _fresh(inputs: tuple[Any, ...], create_graph: bool) -> tuple[Any, ...]:
    if create_graph:
        return tuple([x if x.requires_grad else x.detach().requires_grad_() for x in inputs])
    return tuple([x.detach().requires_grad_() for x in inputs])


def _gradients(out: Tensor, inputs: tuple[Any, ...], seed: Any, create_graph: bool, strict: bool) -> list[Tensor]:
    if not out.requires_grad:
        if strict:
            raise RuntimeError("jacobian: The output of the user-provided function is independent of the input.")
        return [x.new_zeros(x.shape) for x in inputs]
    found = gradients(out, inputs, seed, retain_graph=True, create_graph=create_graph, allow_unused=True)
    if strict and any(g is None for g in found):
        raise RuntimeError("jacobian: The output of the user-provided function is independent of an input.")
    return [x.new_zeros(x.shape) if g is None else g for g, x in zip(found, inputs)]


def jacobian(
    func: Callable[..., Any],
    inputs: Any,
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
    strategy: str = "reverse-mode",
) -> Any:
    """All partial derivatives: shape of the output followed by the shape of the input, for each pair of them.

    Args:
        func: takes the inputs, returns a tensor or a tuple.
        inputs: a tensor or a tuple.
        create_graph: make the result differentiable.
        strict: raise where an output doesn't depend on an input, instead of giving zeros.
        vectorize: accepted for compatibility.
        strategy: accepted for compatibility.
    """
    several_inputs, given = _as_tuple(inputs)
    with enable_grad():
        fresh = _fresh(given, create_graph)
        several_outputs, outputs = _as_tuple(func(*fresh))
    rows = []
    for out in outputs:
        columns: list[list[Tensor]] = [[] for _ in fresh]
        for element in range(out._data.size):
            seed = np.zeros(out._data.size, out._data.dtype)
            seed[element] = 1
            shaped = tensors.Tensor._wrap(seed.reshape(out._data.shape))
            for column, g in zip(columns, _gradients(out, fresh, shaped, create_graph, strict)):
                column.append(g)
        rows.append(tuple([_stacked(c, out, x) for c, x in zip(columns, fresh)]))
    found = [row if several_inputs else row[0] for row in rows]
    return tuple(found) if several_outputs else found[0]


def _stacked(column: list[Tensor], out: Tensor, x: Tensor) -> Tensor:
    shape = (*out._data.shape, *x._data.shape)
    if not column:
        return x.new_zeros(shape)  # methods are bound at run time
    return type(x)._stack(column).reshape(shape)  # type: ignore[attr-defined]


def _scalar(func: Callable[..., Any]) -> Callable[..., Any]:
    def checked(*inputs: Any) -> Any:
        out = func(*inputs)
        if not isinstance(out, tensors.Tensor) or out._data.size != 1:
            raise RuntimeError("hessian: The Tensor returned by the function should contain a single element.")
        return out.reshape(())

    return checked


def hessian(
    func: Callable[..., Any],
    inputs: Any,
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
    outer_jacobian_strategy: str = "reverse-mode",
) -> Any:
    """All second derivatives of a function with one value."""
    several, _ = _as_tuple(inputs)

    def first(*given: Any) -> Any:
        found = jacobian(_scalar(func), given, create_graph=True, strict=strict)
        return found if several else found[0]

    return jacobian(first, inputs, create_graph=create_graph, strict=strict)


def vjp(
    func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """(outputs, v times the Jacobian)."""
    several, given = _as_tuple(inputs)
    with enable_grad():
        fresh = _fresh(given, create_graph)
        result = func(*fresh)
        _, outputs = _as_tuple(result)
        seeds = [None] * len(outputs) if v is None else list(_as_tuple(v)[1])
        found = gradients(outputs, fresh, seeds, create_graph=create_graph, allow_unused=not strict)
    grads = tuple([x.new_zeros(x.shape) if g is None else g for g, x in zip(found, fresh)])
    detached = result if create_graph else _detached(result)
    return detached, grads if several else grads[0]


def _detached(result: Any) -> Any:
    return tuple([r.detach() for r in result]) if isinstance(result, tuple | list) else result.detach()


def jvp(
    func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """(outputs, the Jacobian times v), by differentiating the vector-Jacobian product."""
    _, given = _as_tuple(inputs)
    tangents = [None] * len(given) if v is None else list(_as_tuple(v)[1])
    with enable_grad():
        fresh = _fresh(given, create_graph)
        result = func(*fresh)
        several, outputs = _as_tuple(result)
        seeds = [out.new_zeros(out.shape).requires_grad_() for out in outputs]
        found = gradients(outputs, fresh, seeds, create_graph=True, allow_unused=True)
        kept = [(g, t) for g, t in zip(found, tangents) if g is not None]
        products = gradients(
            [g for g, _ in kept], seeds, [t for _, t in kept], create_graph=create_graph, allow_unused=True
        )
    filled = tuple([out.new_zeros(out.shape) if p is None else p for p, out in zip(products, outputs)])
    return (result if create_graph else _detached(result)), filled if several else filled[0]


def vhp(
    func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """(output, v times the Hessian) of a function with one value."""
    several, given = _as_tuple(inputs)
    with enable_grad():
        fresh = _fresh(given, True)
        out = _scalar(func)(*fresh)
        first = gradients(out, fresh, create_graph=True, allow_unused=True)
        kept = [(g, t) for g, t in zip(first, _as_tuple(v)[1]) if g is not None and g.requires_grad]
        found: Any = [None] * len(fresh)
        if kept:
            found = gradients(
                [g for g, _ in kept], fresh, [t for _, t in kept], create_graph=create_graph, allow_unused=True
            )
    filled = tuple([x.new_zeros(x.shape) if g is None else g for g, x in zip(found, fresh)])
    return (out if create_graph else out.detach()), filled if several else filled[0]


hvp = vhp  # the Hessian is symmetric
