"""Results that wait for what comes next, so that one kernel may compute both.

A batch norm, a residual and an activation behind a convolution cost a pass over memory each where a network calls its
layers one by one; in the convolution's registers they cost next to nothing. So, as long as a module's `forward` runs
and nothing is recorded, a convolution's result is a `Deferred`: a tensor that knows its shape and how to compute its
values. An operation that the kernel can take along (`engine.epilogue`) adds itself to it, and every other one asks for
the values, which computes them. A batch norm alone waits likewise for its activation. The bits are those of the
operations one by one.

The arrays that it will be computed from keep their values: everything that waits is computed before any tensor is
written to in place or handed to NumPy, and when the outermost module's call ends. What NumPy can write to is not waited
with at all.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from faltung import dtypes, engine
from faltung.attributes import Size
from faltung.autograd.modes import modes, settle_all
from faltung.engine.epilogue import Epilogue
from faltung.engine.geometry import ConvGeometry
from faltung.storage import InferenceStorage, Storage
from faltung.tensor import Tensor

__all__ = ["Deferred", "activated", "added", "convolution", "normalised", "norm", "run_inside", "settle"]

_MOST_WAITING = 64  # references, dead ones included, before the list is looked through
_get_data, _set_data = Tensor._data.__get__, Tensor._data.__set__  # type: ignore[attr-defined]  # the hidden slot
_new = object.__new__


class _Convolution:
    """A convolution and the steps behind it."""

    __slots__ = ("activation", "affine", "compute_with", "residual", "shape")

    def __init__(
        self,
        shape: tuple[int, ...],
        compute_with: Callable[[Epilogue | None], np.ndarray],
        affine: np.ndarray | None = None,
        residual: np.ndarray | None = None,
        activation: str = "",
    ) -> None:
        self.shape, self.compute_with = shape, compute_with
        self.affine, self.residual, self.activation = affine, residual, activation

    def activated(self, activation: str) -> _Convolution:
        return _Convolution(self.shape, self.compute_with, self.affine, self.residual, activation)

    def takes_affine(self) -> bool:
        return self.affine is None and self.takes_residual()

    def takes_residual(self) -> bool:
        return self.residual is None and not self.activation

    def compute(self) -> np.ndarray:
        if self.affine is None and self.residual is None and not self.activation:
            return self.compute_with(None)
        return self.compute_with(Epilogue(self.affine, self.residual, self.activation))


class _Norm:
    """A batch norm by given statistics, and an activation."""

    __slots__ = ("activation", "arrays", "eps", "shape")

    def __init__(self, arrays: tuple[Any, ...], eps: float, activation: str = "") -> None:
        self.shape: tuple[int, ...] = arrays[0].shape
        self.arrays, self.eps, self.activation = arrays, eps, activation

    def activated(self, activation: str) -> _Norm:
        return _Norm(self.arrays, self.eps, activation)

    def takes_affine(self) -> bool:
        return False

    takes_residual = takes_affine

    def compute(self) -> np.ndarray:
        return engine.call("norm.batch_inference", *self.arrays, self.eps, activation=self.activation)


class Deferred(Tensor):
    """A float32 tensor whose values are computed when they are first asked for; an ordinary one from then on."""

    __slots__ = ()

    _waiting: Any  # what computes it

    @property
    def _data(self) -> np.ndarray:
        return settle(self)

    @_data.setter
    def _data(self, array: np.ndarray) -> None:
        _become_ordinary(self, array)

    @property
    def shape(self) -> Size:
        """The sizes of all dimensions."""
        return Size(self._waiting.shape)

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return len(self._waiting.shape)

    def dim(self) -> int:
        """The number of dimensions."""
        return len(self._waiting.shape)

    @property
    def dtype(self) -> dtypes.dtype:
        """The type of the elements."""
        return dtypes.float32


def _deferred(waiting: Any) -> Deferred:
    tensor = _new(Deferred)
    tensor._waiting = waiting
    tensor._storage = InferenceStorage() if modes.inference else Storage()
    tensor._requires_grad = False
    tensor._grad = tensor._grad_fn = tensor._view = tensor._kept = tensor._hooks = None
    tensor._output_nr = 0
    if not modes.waiting:
        modes.waiting = [weakref.ref(tensor)]
        return tensor
    if len(modes.waiting) >= _MOST_WAITING:
        modes.waiting = [reference for reference in modes.waiting if type(reference()) is Deferred]
    modes.waiting.append(weakref.ref(tensor))
    return tensor


def settle(tensor: Deferred) -> np.ndarray:
    """Compute the values; the tensor is an ordinary one then."""
    waiting = tensor.__dict__.get("_waiting")
    if waiting is None:  # another thread was faster
        return _get_data(tensor)
    array: np.ndarray = waiting.compute()
    _become_ordinary(tensor, array)
    return array


def _become_ordinary(tensor: Deferred, array: np.ndarray) -> None:
    _set_data(tensor, array)
    tensor.__class__ = Tensor  # type: ignore[assignment]
    tensor.__dict__.pop("_waiting", None)


def run_inside(forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`forward(*args, **kwargs)` of the outermost module: what it calls may wait, what it leaves behind may not."""
    modes.inside = True
    try:
        result = forward(*args, **kwargs)
    except BaseException:
        modes.waiting = []
        raise
    finally:
        modes.inside = False
    settle_all()
    return result


def _is_known(*tensors: Tensor | None) -> bool:
    """Whether NumPy holds none of these tensors: no write to them goes unnoticed."""
    return None not in [0 if tensor is None else tensor._storage.content_key() for tensor in tensors]


# --- what may wait ----------------------------------------------------------------------------------------------------


def convolution(
    x: Tensor,
    w: Tensor,
    bias: Tensor | None,
    geometry: ConvGeometry,
    affine: Tensor | None = None,
) -> Tensor | None:
    """The convolution, and `affine` (3, O) behind it, as a result that waits; None if it must be computed at once."""
    if not modes.inside or modes.grad:
        return None
    data, weights, cache = x._data, w._data, w.engine_cache()
    if data.dtype.char != "f" or cache is None or not _is_known(x, bias):
        return None
    offsets = None if bias is None else bias._data
    run = engine.chosen("conv.forward", geometry, data, weights, offsets, cache=cache)

    def compute_with(epilogue: Epilogue | None) -> np.ndarray:
        found: np.ndarray = run(geometry, data, weights, offsets, cache=cache, epilogue=epilogue)
        return found

    return _deferred(_Convolution(geometry.output_shape, compute_with, None if affine is None else affine._data))


def norm(x: Tensor, mean: Tensor, var: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor | None:
    """Batch norm by given statistics as a result that waits; None if it must be computed at once."""
    if not modes.inside or modes.grad or not _is_known(x, mean, var, weight, bias):
        return None
    arrays = tuple([None if t is None else t._data for t in (x, mean, var, weight, bias)])
    return _deferred(_Norm(arrays, eps)) if x._data.dtype.char == "f" else None


# --- what it may wait for ---------------------------------------------------------------------------------------------


def normalised(x: Deferred, affine: Callable[[], Tensor], activation: str = "") -> Tensor | None:
    """The batch norm of a waiting convolution, `affine()` (3, O), with an activation; None if x can't take it along."""
    waiting = x._waiting
    if modes.grad or not waiting.takes_affine():
        return None
    return _deferred(_Convolution(waiting.shape, waiting.compute_with, affine()._data, None, activation))


def activated(x: Tensor, activation: str, inplace: bool = False) -> Tensor | None:
    """An activation, by its name in `engine.epilogue`, of a result that waits; None if x isn't one or has its own."""
    if type(x) is not Deferred or modes.grad or x._waiting.activation:
        return None
    if inplace:
        x._waiting.activation = activation
        x._storage.bump()
        return x
    return _deferred(x._waiting.activated(activation))


def added(x: Any, y: Any, inplace: bool = False) -> Tensor | None:
    """x + y where one is a waiting convolution and the other a tensor of its shape; None if it can't be taken along.

    Of two that wait, y takes x along, as a network's shortcut path is computed last; in place x takes y.
    """
    if modes.grad or not (isinstance(x, Tensor) and isinstance(y, Tensor)):
        return None
    base, other = (y, x) if type(y) is Deferred and y._waiting.takes_residual() and not inplace else (x, y)
    if type(base) is not Deferred or not base._waiting.takes_residual() or base is other:
        return None
    residual = other._data
    if type(base) is not Deferred or not _is_known(other):  # computing one may have needed the other
        return None
    if residual.dtype.char != "f" or residual.shape != base._waiting.shape:
        return None
    if inplace:
        base._waiting.residual = residual
        base._storage.bump()
        return base
    waiting = base._waiting
    return _deferred(_Convolution(waiting.shape, waiting.compute_with, waiting.affine, residual))
