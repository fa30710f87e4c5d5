"""Tensor: a NumPy array with strides, plus what gradients need.

The class holds the bookkeeping only: memory, history, gradient, hooks. Its operations are functions of `faltung.ops`,
bound as methods by `faltung.tensor_methods`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from faltung import attributes, dtypes
from faltung.attributes import CPU, Size
from faltung.autograd.graph import Node
from faltung.autograd.hooks import RemovableHandle
from faltung.autograd.modes import modes, settle_all
from faltung.storage import InferenceStorage, Storage

if TYPE_CHECKING:
    from faltung._interface import Methods
else:
    Methods = object

__all__ = ["Tensor", "ViewOf", "is_tensor"]

_new = object.__new__


class ViewOf:
    """How a view was made: `chain` of view operations applied to `base`."""

    __slots__ = ("base", "chain", "several", "tracked", "version")

    def __init__(self, base: Tensor, chain: tuple[Any, ...], version: int) -> None:
        self.base = base
        self.chain = chain  # ((operation, attributes), ...)
        self.version = version  # of the memory, when the view's grad_fn was made
        self.tracked = modes.grad  # False under no_grad: its history isn't renewed after writes
        self.several = False  # one of several views that one call made (split, unbind): not to be written


class LeafHooks:
    """Hooks of a leaf: on its gradient, and after the gradient has been accumulated."""

    __slots__ = ("after_accumulation", "on_grad")

    def __init__(self) -> None:
        self.on_grad: OrderedDict[int, Any] = OrderedDict()
        self.after_accumulation: OrderedDict[int, Any] = OrderedDict()


class Tensor(Methods):
    """An n-dimensional array that records its operations.

    Make one with `faltung.tensor(data)`, `faltung.zeros(...)` and the like; `Tensor(2, 3)` is the old way to make an
    uninitialised float32 tensor of that size.
    """

    __slots__ = (
        "__dict__",
        "__weakref__",
        "_data",  # np.ndarray, any strides; 0-d stays an array
        "_grad",
        "_grad_fn",
        "_hooks",  # LeafHooks or None
        "_kept",  # (storage, content key, dict): what the engine keeps for this tensor
        "_output_nr",  # which output of grad_fn this is
        "_requires_grad",
        "_storage",  # shared with all views
        "_view",  # ViewOf or None
    )

    __array_priority__ = 1000  # array + tensor asks the tensor

    _data: np.ndarray[Any, Any]
    _storage: Storage
    _requires_grad: bool
    _grad: Tensor | None
    _grad_fn: Node | None
    _output_nr: int
    _view: ViewOf | None
    _kept: tuple[Storage, int, dict[Any, Any]] | None
    _hooks: LeafHooks | None
    _refresh: Callable[[], None]  # renews the history of a view; bound by ops.apply

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return legacy_tensor(cls, args, **kwargs)

    @staticmethod
    def _wrap(array: np.ndarray[Any, Any]) -> Tensor:
        """A tensor on this very array: no copy, no history."""
        tensor = _new(Tensor)
        tensor._data = array
        tensor._storage = InferenceStorage() if modes.inference else Storage()
        tensor._requires_grad = False
        tensor._grad = tensor._grad_fn = tensor._view = tensor._kept = tensor._hooks = None
        tensor._output_nr = 0
        return tensor

    def _alias(self, cls: type[Tensor] | None = None) -> Tensor:
        """A tensor without history on the same memory, sharing its version."""
        alias = _wrap(self._data)
        alias._storage = self._storage
        self._storage.aliased = True
        if cls is not None:
            alias.__class__ = cls
        return alias

    # --- what it is

    @property
    def shape(self) -> Size:
        """The sizes of all dimensions."""
        return Size(self._data.shape)

    @property
    def dtype(self) -> dtypes.dtype:
        """The type of the elements."""
        return dtypes.OF_NUMPY[self._data.dtype]

    @property
    def device(self) -> attributes.device:
        """Always the CPU."""
        return CPU

    @property
    def layout(self) -> attributes.layout:
        """Always strided."""
        return attributes.strided

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return self._data.ndim

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return self._data.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self._data.nbytes

    is_cuda = is_mps = is_sparse = is_quantized = is_mkldnn = is_meta = is_nested = is_xpu = False
    is_cpu = True
    names_are_supported = False

    # --- history

    @property
    def requires_grad(self) -> bool:
        """Whether gradients of this tensor are wanted or pass through it."""
        link = self._view
        if link is not None:
            if not link.tracked:  # PyTorch's answer too, though such a view has no history
                return self._requires_grad or link.base.requires_grad
            if link.version != self._storage.version:
                self._refresh()
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self.requires_grad_(value)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Say whether gradients are wanted for this leaf; returns the tensor itself."""
        if self.grad_fn is not None:
            if not requires_grad:
                raise RuntimeError(
                    "requires_grad_: you can only change requires_grad flags of leaf variables, and this tensor is "
                    f"the result of {self.grad_fn.name()}. Use detach() to get a tensor without history."
                )
            return self
        if requires_grad and self._data.dtype.kind not in "fc":
            raise RuntimeError(
                "requires_grad_: only Tensors of floating point and complex dtype can require gradients, got "
                f"{self.dtype}. Convert it with .float() first."
            )
        if requires_grad and self._storage.inference and not modes.inference:
            raise RuntimeError(
                "requires_grad_: Setting requires_grad=True on inference tensor outside InferenceMode is not allowed. "
                "Make a clone() of it first."
            )
        self._requires_grad = bool(requires_grad)
        return self

    @property
    def grad_fn(self) -> Node | None:
        """The node that made this tensor; None for leaves."""
        link = self._view
        if link is not None and link.version != self._storage.version:
            self._refresh()
        return self._grad_fn

    @property
    def is_leaf(self) -> bool:
        """True for tensors that no recorded operation made; only they accumulate gradients."""
        return self.grad_fn is None

    @property
    def output_nr(self) -> int:
        """Which output of `grad_fn` this is."""
        return self._output_nr

    @property
    def _version(self) -> int:
        if self._storage.inference:
            raise RuntimeError("_version: Inference tensors do not track version counter. Make a clone() of it.")
        return self._storage.version

    @property
    def _base(self) -> Tensor | None:
        return None if self._view is None else self._view.base

    def _is_view(self) -> bool:
        return self._view is not None

    @property
    def grad(self) -> Tensor | None:
        """The gradient, accumulated by backward(); None before."""
        return self._grad

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None:
            if not isinstance(value, Tensor):
                raise TypeError(f"grad: expected a Tensor or None, got {type(value).__name__}.")
            if value is self:
                raise RuntimeError("grad: can't assign a tensor as its own gradient.")
            if value._data.shape != self._data.shape:
                raise RuntimeError(
                    f"grad: assigned grad has data of a different size: expected {list(self.shape)}, got "
                    f"{list(value.shape)}."
                )
            if value._data.dtype != self._data.dtype:
                raise RuntimeError(
                    f"grad: assigned grad has data of a different type: expected {self.dtype}, got {value.dtype}."
                )
        self._grad = value

    @grad.deleter
    def grad(self) -> None:
        self._grad = None

    def detach(self) -> Tensor:
        """The same memory without history: results computed from it are constants to autograd."""
        return self._alias()

    def detach_(self) -> Tensor:
        """Forget the history of this tensor."""
        if self._view is not None:
            raise RuntimeError("detach_: Can't detach views in-place. Use detach() instead.")
        self._grad_fn, self._requires_grad, self._output_nr = None, False, 0
        return self

    @property
    def data(self) -> Tensor:
        """The same memory, hidden from autograd: writes through it raise no version."""
        alias = _wrap(self._data)
        alias._storage = self._storage.detached_writer()
        return alias

    @data.setter
    def data(self, value: Tensor) -> None:
        if not isinstance(value, Tensor):
            raise TypeError(f"data: expected a Tensor, got {type(value).__name__}.")
        if self._requires_grad and value._data.dtype.kind not in "fc":
            raise RuntimeError(f"data: a tensor that requires gradients can't hold {value.dtype} data.")
        settle_all()
        version = self._storage.version
        self._data = value._data
        self._storage = value._storage.detached_writer()
        if not self._storage.inference:
            self._storage.version = version
        self._kept = None

    def backward(
        self,
        gradient: Tensor | None = None,
        retain_graph: bool | None = None,
        create_graph: bool = False,
        inputs: Any = None,
    ) -> None:
        """Compute the gradients of the leaves and add them to their `.grad`.

        Args:
            gradient: gradient of this tensor; may be left out for one element.
            retain_graph: keep what is needed to run backward again.
            create_graph: record the computation of the gradients, for higher derivatives.
            inputs: accumulate only into these tensors.
        """
        from faltung.autograd.interface import backward

        backward(self, gradient, retain_graph, create_graph, inputs)

    # --- hooks

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> RemovableHandle:
        """Call `hook(grad)` when this tensor's gradient is computed; a returned tensor replaces it."""
        if not self.requires_grad:
            raise RuntimeError(
                "register_hook: cannot register a hook on a tensor that doesn't require gradient. "
                "Call requires_grad_() on it first."
            )
        if self._grad_fn is not None:
            return RemovableHandle.adding(self._grad_fn.tensor_hooks(self._output_nr), hook)
        return RemovableHandle.adding(self._leaf_hooks().on_grad, hook)

    def register_post_accumulate_grad_hook(self, hook: Callable[[Tensor], None]) -> RemovableHandle:
        """Call `hook(tensor)` each time after a gradient has been added to this leaf's `.grad`."""
        if not self.requires_grad:
            raise RuntimeError(
                "register_post_accumulate_grad_hook: cannot register a hook on a tensor that doesn't require gradient."
            )
        if self._grad_fn is not None:
            raise RuntimeError(
                "register_post_accumulate_grad_hook: post accumulate grad hooks cannot be registered on non-leaf "
                "tensors. Use register_hook() there."
            )
        return RemovableHandle.adding(self._leaf_hooks().after_accumulation, hook)

    def _leaf_hooks(self) -> LeafHooks:
        if self._hooks is None:
            self._hooks = LeafHooks()
        return self._hooks

    def retain_grad(self) -> None:
        """Have backward() fill `.grad` of this tensor although it isn't a leaf."""
        if not self.requires_grad:
            raise RuntimeError("retain_grad: can't retain_grad on Tensor that has requires_grad=False.")
        if self._grad_fn is not None:
            self._grad_fn.retain(self._output_nr, self)

    @property
    def retains_grad(self) -> bool:
        """Whether `retain_grad()` was called on this non-leaf."""
        grad_fn = self.grad_fn
        if grad_fn is None or grad_fn.retaining is None:
            return False
        reference = grad_fn.retaining.get(self._output_nr)
        return reference is not None and reference() is self

    # --- the engine's notes

    def engine_cache(self) -> dict[Any, Any] | None:
        """A dictionary for what the engine derives from this tensor's values (packed weights).

        It is empty again after every write. None where writes go unnoticed, since NumPy holds the memory too.
        """
        key = self._storage.content_key()
        if key is None:
            return None
        kept = self._kept
        if kept is None or kept[0] is not self._storage or kept[1] != key:
            kept = self._kept = (self._storage, key, {})
        return kept[2]

    # --- Python's protocols that aren't operations

    def __hash__(self) -> int:
        return id(self)

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        from faltung._printing import tensor_repr

        return tensor_repr(self, tensor_contents)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        from faltung._copying import deepcopy_tensor

        return deepcopy_tensor(self, memo)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        from faltung._copying import reduce_tensor

        return reduce_tensor(self)


_wrap = Tensor._wrap


def is_tensor(obj: Any, /) -> bool:
    """Whether `obj` is a Tensor."""
    return isinstance(obj, Tensor)


def legacy_tensor(cls: type[Tensor], args: tuple[Any, ...], dtype: Any = np.float32, **kwargs: Any) -> Tensor:
    """`Tensor()`, `Tensor(2, 3)` (uninitialised) or `Tensor([1, 2])`, always of one type."""
    attributes.check_device(kwargs.pop("device", None))
    if kwargs:
        raise TypeError(
            f"{cls.__name__}: unexpected keyword {next(iter(kwargs))!r}. Use faltung.tensor(...) for options."
        )
    if len(args) == 1 and isinstance(args[0], Tensor):
        found = args[0]._alias() if args[0]._data.dtype == dtype else _wrap(args[0]._data.astype(dtype))
    elif len(args) == 1 and isinstance(args[0], np.ndarray | list | tuple) and not isinstance(args[0], Size):
        found = _wrap(np.array([t._data if isinstance(t, Tensor) else t for t in args[0]], dtype=dtype))
    else:
        found = _wrap(np.empty(attributes.as_size(args) if args else (0,), dtype=dtype))
    if cls is not Tensor:
        found.__class__ = cls
    return found
