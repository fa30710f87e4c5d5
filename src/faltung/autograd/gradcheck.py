"""gradcheck and gradgradcheck: analytical gradients against differences of the function's values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

import faltung.tensor as tensors  # by module: it is still being imported when this package is
from faltung.autograd.interface import grad as gradients
from faltung.autograd.modes import enable_grad

if TYPE_CHECKING:
    from faltung.tensor import Tensor

__all__ = ["GradcheckError", "gradcheck", "gradgradcheck"]


class GradcheckError(RuntimeError):
    """Raised by gradcheck where gradients disagree."""


def gradcheck(
    func: Callable[..., Any],
    inputs: Any,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    check_grad_dtypes: bool = False,
    check_batched_grad: bool = False,
    fast_mode: bool = False,
) -> bool:
    """Whether the gradients that backward computes agree with central differences. Use float64 inputs.

    Args:
        func: takes tensors, returns a tensor or a tuple of them.
        inputs: a tensor or a tuple; those that require grad are checked.
        eps: half the distance of the two points of a difference.
        atol: allowed absolute error.
        rtol: allowed relative error.
        raise_exception: raise GradcheckError with the two Jacobians instead of returning False.
        nondet_tol: allowed difference between two backward runs.
        check_undefined_grad: also run backward where some outputs have no gradient.
        check_grad_dtypes: also compare the types of gradients with those of inputs.
        check_batched_grad: accepted for compatibility.
        fast_mode: accepted for compatibility; all entries are always checked.
    """
    arguments = _as_tuple(inputs)
    try:
        _check(func, arguments, eps, atol, rtol, nondet_tol, check_grad_dtypes)
    except GradcheckError:
        if raise_exception:
            raise
        return False
    return True


def gradgradcheck(
    func: Callable[..., Any],
    inputs: Any,
    grad_outputs: Any = None,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    gen_non_contig_grad_outputs: bool = False,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    check_grad_dtypes: bool = False,
    check_batched_grad: bool = False,
    fast_mode: bool = False,
) -> bool:
    """`gradcheck` of the gradient itself: second derivatives, also by `grad_outputs` (random unless given)."""
    arguments = _as_tuple(inputs)
    with enable_grad():
        outputs = _differentiable(func(*arguments))
    if grad_outputs is None:
        stream = np.random.default_rng(0)
        grads = tuple(
            tensors.Tensor._wrap(stream.standard_normal(out._data.shape).astype(out._data.dtype)).requires_grad_()
            for out in outputs
        )
    else:
        grads = _as_tuple(grad_outputs)

    def first_gradient(*mixed: Any) -> Any:
        given, weights = mixed[: len(arguments)], mixed[len(arguments) :]
        wanted = [x for x in given if isinstance(x, tensors.Tensor) and x.requires_grad]
        found = gradients(_differentiable(func(*given)), wanted, weights, create_graph=True, allow_unused=True)
        return tuple(g for g in found if g is not None and g.requires_grad)

    return gradcheck(
        first_gradient,
        (*arguments, *grads),
        eps=eps,
        atol=atol,
        rtol=rtol,
        raise_exception=raise_exception,
        nondet_tol=nondet_tol,
        check_grad_dtypes=check_grad_dtypes,
    )


def _as_tuple(values: Any) -> tuple[Any, ...]:
    return tuple(values) if isinstance(values, Sequence) else (values,)


def _differentiable(result: Any) -> tuple[Any, ...]:
    return tuple(out for out in _as_tuple(result) if isinstance(out, tensors.Tensor) and out.requires_grad)


def _check(
    func: Callable[..., Any],
    arguments: tuple[Any, ...],
    eps: float,
    atol: float,
    rtol: float,
    nondet_tol: float,
    check_grad_dtypes: bool,
) -> None:
    checked = [i for i, x in enumerate(arguments) if isinstance(x, tensors.Tensor) and x.requires_grad]
    if not checked:
        raise ValueError(
            "gradcheck: expects at least one input tensor to require gradient, but none of the them have "
            "requires_grad=True."
        )
    with enable_grad():
        outputs = _differentiable(func(*arguments))
    places = [
        i for i, out in enumerate(_as_tuple(func(*arguments))) if isinstance(out, tensors.Tensor) and out.requires_grad
    ]
    if not outputs:
        _check_constant(func, arguments, checked, eps, atol)
        return
    for number, out in enumerate(outputs):
        analytical = _analytical(out, [arguments[i] for i in checked])
        again = _analytical(out, [arguments[i] for i in checked])
        for which, i in enumerate(checked):
            if np.abs(analytical[which] - again[which]).max(initial=0) > nondet_tol:
                raise GradcheckError(
                    f"gradcheck: Backward is not reentrant: two runs differ for output {number}, input {i}."
                )
            numerical = _numerical(func, arguments, i, places[number], eps)
            _compare(analytical[which], numerical, number, i, atol, rtol)
            if check_grad_dtypes:
                _check_types(out, arguments[i])


def _check_types(out: Tensor, x: Tensor) -> None:
    (found,) = gradients(out, x, out.new_ones(out.shape), retain_graph=True, allow_unused=True)
    if found is not None and found.dtype is not x.dtype:
        raise GradcheckError(f"gradcheck: expected a gradient of type {x.dtype}, got {found.dtype}.")


def _check_constant(
    func: Callable[..., Any], arguments: tuple[Any, ...], checked: list[int], eps: float, atol: float
) -> None:
    for i in checked:
        for place, out in enumerate(_as_tuple(func(*arguments))):
            if isinstance(out, tensors.Tensor) and out._data.dtype.kind in "fc":
                numerical = _numerical(func, arguments, i, place, eps)
                if np.abs(numerical).max(initial=0) > atol:
                    raise GradcheckError(f"gradcheck: Numerical gradient for function expected to be zero: input {i}.")


def _compare(analytical: Any, numerical: Any, output: int, position: int, atol: float, rtol: float) -> None:
    close = np.isclose(analytical, numerical, rtol=rtol, atol=atol, equal_nan=True)
    if not close.all():
        raise GradcheckError(
            f"gradcheck: Jacobian mismatch for output {output} with respect to input {position},\n"
            f"numerical:{numerical}\nanalytical:{analytical}"
        )


def _units(data: Any) -> list[Any]:
    return [1.0, 1j] if data.dtype.kind == "c" else [1.0]


def _analytical(out: Tensor, wanted: list[Tensor]) -> list[Any]:
    """Rows: real (and imaginary) parts of each output element; columns: those of each input element."""
    rows: list[list[Any]] = [[] for _ in wanted]
    for element in range(out._data.size):
        for unit in _units(out._data):
            seed = np.zeros(out._data.size, out._data.dtype)
            seed[element] = unit
            found = gradients(
                out, wanted, tensors.Tensor._wrap(seed.reshape(out._data.shape)), retain_graph=True, allow_unused=True
            )
            for which, (g, x) in enumerate(zip(found, wanted)):
                row = np.zeros(x._data.shape, x._data.dtype) if g is None else g._data
                rows[which].append(_parts(row.reshape(-1)))
    return [np.array(r) if r else np.zeros((0, _parts(x._data.reshape(-1)).size)) for r, x in zip(rows, wanted)]


def _parts(flat: Any) -> Any:
    return np.stack([flat.real, flat.imag], axis=1).reshape(-1) if flat.dtype.kind == "c" else np.array(flat)


def _numerical(func: Callable[..., Any], arguments: tuple[Any, ...], position: int, place: int, eps: float) -> Any:
    """Central differences; the input is changed in place and restored."""
    data = arguments[position]._data
    columns = []
    for index in np.ndindex(*data.shape):
        for unit in _units(data):
            kept = data[index]
            ends = []
            for step in (eps, -eps):
                data[index] = kept + step * unit
                with enable_grad():  # gradients of gradients need the tape for their values
                    out = _as_tuple(func(*arguments))[place]
                ends.append(_parts(out._data.reshape(-1)).copy())
            data[index] = kept
            columns.append((ends[0] - ends[1]) / (2 * eps))
    if not columns:
        with enable_grad():
            out = _as_tuple(func(*arguments))[place]
        return np.zeros((_parts(out._data.reshape(-1)).size, 0))
    return np.stack(columns, axis=1)
