"""Results that wait for what comes next, so that one kernel may compute both.

A batch norm, a residual and an activation behind a convolution cost a pass over memory each where a network calls its
layers one by one; in the convolution's registers they cost next to nothing. So, as long as a module's `forward` runs
and nothing is recorded, a convolution's result is a `Deferred`: a tensor that knows its shape and how to compute its
values. An operation that the kernel can take along (`engine.epilogue`) adds itself to it, and every other one asks for
the values, which computes them. A batch norm alone waits likewise for its activation. The bits are those of the
operations one by one. Where the convolution's own values are still held when those behind it are asked for, it is
computed once and the step behind it apart.

The arrays that it will be computed from keep their values: everything that waits, in any thread, is computed before any
tensor is written to in place or handed to NumPy, and when the outermost module's call ends. What NumPy can write to is
not waited with at all. While it waits, `type(y)` is `Deferred`; `isinstance` and `y.__class__` say Tensor.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from faltung import dtypes, engine
from faltung.attributes import Size
from faltung.autograd.modes import modes, settle_all, waiting
from faltung.engine import layout
from faltung.engine.epilogue import Epilogue
from faltung.engine.geometry import ConvGeometry
from faltung.storage import InferenceStorage, Storage
from faltung.tensor import Tensor

__all__ = ["Deferred", "activated", "added", "convolution", "is_known", "norm", "normalised", "run_inside", "settle"]

_get_data, _set_data = Tensor._data.__get__, Tensor._data.__set__  # type: ignore[attr-defined]  # the hidden slot
_set_class = object.__dict__["__class__"].__set__
_new = object.__new__

Apart = Callable[[Tensor], Tensor]  # the step behind a result, as an operation of its own


class _Work:
    """What a result waits with."""

    __slots__ = ("activation", "apart", "is_source", "lock", "reference", "shape", "source")

    shape: tuple[int, ...]
    activation: str
    reference: Any  # to the result, in `modes.waiting`

    def __init__(self) -> None:
        self.lock = threading.RLock()  # a signal handler may ask while it is computed
        self.is_source = False  # another result waits that takes this one along
        self.source: Any = None  # weak reference to the result that this one takes along
        self.apart: Apart | None = None

    def then(self, step: Apart) -> None:
        """Another step, in place."""
        before = self.apart
        self.apart = None if before is None else lambda source: step(before(source))

    def compute(self) -> np.ndarray:
        source = None if self.source is None else self.source()
        if source is None or self.apart is None or type(source) is Deferred:
            return self.compute_together()
        before = modes.grad, modes.inside
        modes.grad = modes.inside = False
        try:
            return self.laid_out(self.apart(source)._data)
        finally:
            modes.grad, modes.inside = before

    def laid_out(self, array: np.ndarray) -> np.ndarray:
        """Values computed apart in the memory order of those computed together."""
        return array

    def compute_together(self) -> np.ndarray:
        raise NotImplementedError

    def activated(self, activation: str) -> _Work:
        """The same with an activation."""
        raise NotImplementedError

    def takes_affine(self) -> bool:
        """Whether a batch norm may come behind."""
        return False

    def takes_residual(self) -> bool:
        """Whether a residual may come behind."""
        return False


class _Convolution(_Work):
    """A convolution and the steps behind it."""

    __slots__ = ("affine", "compute_with", "residual")

    def __init__(
        self,
        shape: tuple[int, ...],
        compute_with: Callable[[Epilogue | None], np.ndarray],
        affine: np.ndarray | None = None,
        residual: np.ndarray | None = None,
        activation: str = "",
    ) -> None:
        super().__init__()
        self.shape, self.compute_with = shape, compute_with
        self.affine, self.residual, self.activation = affine, residual, activation

    def activated(self, activation: str) -> _Work:
        return _Convolution(self.shape, self.compute_with, self.affine, self.residual, activation)

    def takes_affine(self) -> bool:
        return self.affine is None and self.takes_residual()

    def takes_residual(self) -> bool:
        return self.residual is None and not self.activation

    def laid_out(self, array: np.ndarray) -> np.ndarray:
        return layout.channels_last(array)  # as a sum in place, where the other operand lies otherwise

    def compute_together(self) -> np.ndarray:
        if self.affine is None and self.residual is None and not self.activation:
            return self.compute_with(None)
        return self.compute_with(Epilogue(self.affine, self.residual, self.activation))


class _Norm(_Work):
    """A batch norm by given statistics, and an activation."""

    __slots__ = ("arrays", "eps")

    def __init__(self, arrays: tuple[Any, ...], eps: float, activation: str = "") -> None:
        super().__init__()
        self.shape, self.arrays, self.eps, self.activation = arrays[0].shape, arrays, eps, activation

    def activated(self, activation: str) -> _Work:
        return _Norm(self.arrays, self.eps, activation)

    def compute_together(self) -> np.ndarray:
        return engine.call("norm.batch_inference", *self.arrays, self.eps, activation=self.activation)


class Deferred(Tensor):
    """A float32 tensor whose values are computed when they are first asked for; an ordinary one from then on."""

    __slots__ = ()

    _work: _Work

    @property
    def _data(self) -> np.ndarray:
        return settle(self)

    @_data.setter
    def _data(self, array: np.ndarray) -> None:
        settle_all()
        _set_data(self, array)

    @property
    def __class__(self) -> Any:
        return Tensor

    @__class__.setter
    def __class__(self, cls: Any) -> None:
        settle(self)
        _set_class(self, cls)

    @property
    def shape(self) -> Size:
        """The sizes of all dimensions."""
        return Size(_shape(self))

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return len(_shape(self))

    def dim(self) -> int:
        """The number of dimensions."""
        return len(_shape(self))

    @property
    def dtype(self) -> dtypes.dtype:
        """The type of the elements."""
        return dtypes.float32


def _shape(tensor: Deferred) -> tuple[int, ...]:
    work = tensor.__dict__.get("_work")
    return _get_data(tensor).shape if work is None else work.shape  # None: another thread computed it


def _behind(source: Tensor, before: _Work, work: _Work, apart: Apart) -> Deferred | None:
    """The result of `work`, which takes `source` along; None if that has been computed meanwhile."""
    # else another thread might compute the source, then write to what this one will be computed from
    with before.lock:
        if type(source) is not Deferred:
            return None
        before.is_source = True
        work.source, work.apart = weakref.ref(source), apart
        return _deferred(work)


def _changed(x: Tensor, work: _Work, apart: Apart, **steps: Any) -> Tensor | None:
    """x with other steps, in place; None where they must be taken on its values."""
    if work.is_source:
        settle_all()  # what takes its values along
    with work.lock:
        if type(x) is not Deferred or work.is_source or x._storage.inference and not modes.inference:
            return None
        for name, value in steps.items():
            setattr(work, name, value)
        work.then(apart)
        x._storage.bump()
        return x


def _deferred(work: _Work) -> Deferred:
    tensor = _new(Deferred)
    tensor._storage = InferenceStorage() if modes.inference else Storage()
    tensor._requires_grad = False
    tensor._grad = tensor._grad_fn = tensor._view = tensor._kept = tensor._hooks = None
    tensor._output_nr = 0
    tensor._work = work
    work.reference = weakref.ref(tensor, waiting.discard)
    waiting.add(work.reference)
    return tensor


def settle(tensor: Deferred) -> np.ndarray:
    """Compute the values; the tensor is an ordinary one then."""
    work = tensor.__dict__.get("_work")
    if work is not None:
        source = None if work.source is None else work.source()
        if source is not None:
            source._data  # noqa: B018  # somebody holds it: computed once, the step behind it apart
        del source
        with work.lock:
            array = work.compute() if type(tensor) is Deferred else None
            if array is not None and type(tensor) is Deferred:
                _set_data(tensor, array)
                _set_class(tensor, Tensor)
                tensor.__dict__.pop("_work", None)
                waiting.discard(work.reference)
    found: np.ndarray = _get_data(tensor)
    return found


def _after_fork_in_child() -> None:
    """Threads that were computing don't live on here, and would leave their locks locked."""
    for reference in tuple(waiting):
        tensor = reference()
        work = None if tensor is None else tensor.__dict__.get("_work")
        if work is not None:
            work.lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def run_inside(forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`forward(*args, **kwargs)` of the outermost module: what it calls may wait, what it leaves behind may not."""
    modes.inside = True
    try:
        return forward(*args, **kwargs)
    finally:
        modes.inside = False
        settle_all()


def is_known(*tensors: Tensor | None) -> bool:
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
    if data.dtype.char != "f" or cache is None or not is_known(x, bias):
        return None
    offsets = None if bias is None else bias._data
    run = engine.chosen("conv.forward", geometry, data, weights, offsets, cache=cache)

    def compute_with(epilogue: Epilogue | None) -> np.ndarray:
        found: np.ndarray = run(geometry, data, weights, offsets, cache=cache, epilogue=epilogue)
        return found

    return _deferred(_Convolution(geometry.output_shape, compute_with, None if affine is None else affine._data))


def norm(x: Tensor, mean: Tensor, var: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor | None:
    """Batch norm by given statistics as a result that waits; None if it must be computed at once."""
    if not modes.inside or modes.grad or not is_known(x, mean, var, weight, bias):
        return None
    arrays = tuple([None if t is None else t._data for t in (x, mean, var, weight, bias)])
    return _deferred(_Norm(arrays, eps)) if x._data.dtype.char == "f" else None


# --- what it may wait for ---------------------------------------------------------------------------------------------


def _work_of(x: Any) -> Any:
    """What x waits with, if it waits and nothing is recorded."""
    return None if type(x) is not Deferred or modes.grad else x.__dict__.get("_work")


def normalised(x: Deferred, affine: Callable[[], Tensor], activation: str, apart: Apart) -> Tensor | None:
    """The batch norm of a waiting convolution, `affine()` (3, O), with an activation; None if x can't take it along."""
    work = _work_of(x)
    if work is None or not work.takes_affine():
        return None
    return _behind(x, work, _Convolution(work.shape, work.compute_with, affine()._data, None, activation), apart)


def activated(x: Tensor, activation: str, apart: Apart, inplace: bool = False) -> Tensor | None:
    """An activation, by its name in `engine.epilogue`, of a result that waits; None if x isn't one or has its own."""
    work = _work_of(x)
    if work is None or work.activation:
        return None
    if inplace:
        return _changed(x, work, apart, activation=activation)
    return _behind(x, work, work.activated(activation), apart)


def added(x: Any, y: Any, apart: Callable[[Tensor, Tensor], Tensor], inplace: bool = False) -> Tensor | None:
    """x + y where one is a waiting convolution and the other a tensor of its shape; None if it can't be taken along.

    Of two that wait, y takes x along, as a network's shortcut path is computed last; in place x takes y.
    """
    if not (isinstance(x, Tensor) and isinstance(y, Tensor)):
        return None
    work = None if inplace else _work_of(y)
    base, other = (x, y) if work is None or not work.takes_residual() else (y, x)
    work = _work_of(base)
    if work is None or not work.takes_residual() or base is other:
        return None
    residual = other._data
    if not is_known(other) or residual.dtype.char != "f" or residual.shape != work.shape:
        return None

    def then(source: Tensor) -> Tensor:
        return apart(source, Tensor._wrap(residual))

    if inplace:
        return _changed(base, work, then, residual=residual)
    if not layout.is_channels_last(residual):  # the sum would lie otherwise in memory
        return None
    return _behind(base, work, _Convolution(work.shape, work.compute_with, work.affine, residual), then)
