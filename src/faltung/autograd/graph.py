"""The tape: operations, and the nodes that record their calls.

An operation is a class (`Op`) with a forward on arrays and a backward on tensors. Calling it through `ops.apply` makes
a `Node`, which is at once the operation's context (`ctx`) and, when gradients are needed, the result's `grad_fn`.
"""

from __future__ import annotations

import itertools
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from faltung.autograd.hooks import RemovableHandle

if TYPE_CHECKING:
    from faltung.storage import Storage
    from faltung.tensor import Tensor

__all__ = ["AccumulateGrad", "Edge", "Node", "Op", "gradient_edge"]

# Where a gradient goes: (node, its output number), or (leaf tensor, -1); then the input's shape and NumPy type.
Edge = tuple[Any, int, tuple[int, ...], Any]

_sequence = itertools.count()


class Op:
    """One differentiable operation. Subclass it; it is never instantiated.

    Example:
        class Square(Op):
            name = "square"

            @staticmethod
            def forward(ctx, x):
                ctx.save_inputs(0)
                return x * x

            @staticmethod
            def backward(ctx, grad):
                (x,) = ctx.saved
                return grad * x * 2

        y = apply(Square, x)

    Attributes:
        name: shown as the result's grad_fn: `square` becomes `SquareBackward0`.
        is_view: forward returns a NumPy view of input 0.
        backward: None for an operation without gradient (comparisons, argmax).
        inplace: `inplace(ctx, *arrays, **attributes)` writes the result into arrays[0]; None to let `apply_inplace`
            compute and copy. Only called when nothing is recorded, or with `inplace_keeps`.
        inplace_keeps: inplace also keeps what backward needs (the result, never the input that it overwrites).
        quiet: forward never meets a floating-point condition (overflow, division by zero), so NumPy's warnings need
            no silencing; saves half a microsecond.
    """

    name: ClassVar[str] = ""
    is_view: ClassVar[bool] = False
    quiet: ClassVar[bool] = False
    inplace_keeps: ClassVar[bool] = False
    forward: ClassVar[Callable[..., Any]]
    backward: ClassVar[Callable[..., Any] | None] = None
    inplace: ClassVar[Callable[..., Any] | None] = None


class Node:
    """The record of one call: what to run backward, with what, and where the gradients go.

    Operations use the part that `Op.forward` and `Op.backward` need (`save_inputs`, `save_outputs`, `saved`,
    `needs_input_grad`, `mark_non_differentiable`, and attributes of their own). Defaults stand on the class: most calls
    touch few of them.
    """

    op: type[Op]
    needs_input_grad: tuple[bool, ...]
    edges: tuple[Edge | None, ...] = ()
    sequence: int = -1  # creation order; backward runs from the highest to the lowest
    output_shapes: tuple[Any, ...] = ()  # (shape, NumPy type) of each output
    kept_inputs: tuple[int, ...] = ()
    kept_outputs: tuple[int, ...] = ()
    not_differentiable: tuple[int, ...] = ()
    packed: list[Any] | None = None  # the saved tensors
    released: bool = False
    capture_hooks: dict[int, OrderedDict[int, Any]] | None = None  # hooks on output tensors
    retaining: dict[int, Any] | None = None  # weak references to outputs that retain_grad() was called on
    pre_hooks: OrderedDict[int, Any] | None = None
    post_hooks: OrderedDict[int, Any] | None = None

    # --- for operations

    def save_inputs(self, *positions: int) -> None:
        """Keep these input tensors for backward; a later in-place change of one of them is an error there."""
        self.kept_inputs = positions

    def save_outputs(self, *positions: int) -> None:
        """Keep these outputs for backward."""
        self.kept_outputs = positions

    def input_shape(self, position: int) -> tuple[int, ...]:
        """In backward: the shape of an input that needs a gradient."""
        edge = self.edges[position]
        assert edge is not None  # there is one for every such input
        return edge[2]

    def mark_non_differentiable(self, *positions: int) -> None:
        """Outputs that never carry gradients (integer outputs don't need to be named)."""
        self.not_differentiable = positions

    @property
    def saved(self) -> tuple[Any, ...]:
        """The saved tensors: inputs in the order of `save_inputs`, then outputs; None for absent inputs."""
        packed = self.packed
        if packed is None:
            return ()
        return tuple([None if p is None else p.unpack(self) for p in packed])

    # --- for users (grad_fn)

    def name(self) -> str:
        """The name of the backward step, such as `AddBackward0`."""
        given = self.op.name or self.op.__name__
        if "Backward" in given:
            return given
        return "".join(part[:1].upper() + part[1:] for part in given.split("_")) + "Backward0"

    def __repr__(self) -> str:
        return f"<{self.name()} object at {id(self):#x}>"

    @property
    def next_functions(self) -> tuple[tuple[Any, int], ...]:
        """Nodes of the inputs, each with its output number; leaves appear as `AccumulateGrad`."""
        found: list[tuple[Any, int]] = []
        for edge in self.edges:
            if edge is None:
                found.append((None, 0))
            elif edge[1] < 0:
                found.append((AccumulateGrad(edge[0]), 0))
            else:
                found.append((edge[0], edge[1]))
        return tuple(found)

    @property
    def metadata(self) -> dict[str, Any]:
        """A dictionary for the user's own notes on this node."""
        found: dict[str, Any] = self.__dict__.setdefault("_metadata", {})
        return found

    def _sequence_nr(self) -> int:
        return self.sequence

    def register_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call `hook(grad_inputs, grad_outputs)` after this node ran; a returned tuple replaces grad_inputs."""
        if self.post_hooks is None:
            self.post_hooks = OrderedDict()
        return RemovableHandle.adding(self.post_hooks, hook)

    def register_prehook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call `hook(grad_outputs)` before this node runs; a returned tuple replaces grad_outputs."""
        if self.pre_hooks is None:
            self.pre_hooks = OrderedDict()
        return RemovableHandle.adding(self.pre_hooks, hook)

    # --- for the tape

    def run(self, grads: list[Any]) -> tuple[Any, ...]:
        """The gradients of the inputs from those of the outputs (None where there is none)."""
        if self.released:
            raise_backward_twice()
        backward = self.op.backward
        assert backward is not None  # a node is only recorded for operations that have one
        found = backward(self, *grads)
        return found if type(found) is tuple else (found,)

    def release(self) -> None:
        """Free what was saved, once backward has gone through."""
        if self.packed is not None:
            self.packed = None
            self.released = True
        state = self.__dict__
        arrays = [key for key, value in state.items() if isinstance(value, np.ndarray)]
        if arrays:
            self.released = True
            for key in arrays:
                del state[key]

    def tensor_hooks(self, output: int) -> OrderedDict[int, Any]:
        """The hooks on output number `output`."""
        if self.capture_hooks is None:
            self.capture_hooks = {}
        return self.capture_hooks.setdefault(output, OrderedDict())

    def retain(self, output: int, tensor: Tensor) -> None:
        """Store the gradient of this output in `tensor.grad` during backward."""
        if self.retaining is None:
            self.retaining = {}
        self.retaining[output] = weakref.ref(tensor)


def raise_backward_twice() -> None:
    """Raise the error of a graph whose saved tensors are gone."""
    raise RuntimeError(
        "Trying to backward through the graph a second time (or directly access saved tensors after they have "
        "already been freed): the tensors saved for backward are released by the first backward() or grad(). Pass "
        "retain_graph=True to the first call."
    )


def next_sequence() -> int:
    """The creation number of a new node."""
    return next(_sequence)


def gradient_edge(tensor: Tensor) -> Edge:
    """Where the gradient of `tensor` goes."""
    data = tensor._data
    grad_fn = tensor._grad_fn
    if grad_fn is None:
        return (tensor, -1, data.shape, data.dtype)
    return (grad_fn, tensor._output_nr, data.shape, data.dtype)


class SavedTensor:
    """A tensor kept for backward, with its version at the time."""

    __slots__ = ("array", "output", "storage", "tensor", "version")

    def __init__(self, tensor: Any, array: Any, storage: Storage, output: int) -> None:
        self.tensor = tensor  # inputs are kept as themselves; None for outputs, which would form a cycle
        self.array = array
        self.storage = storage
        self.version = storage.version
        self.output = output

    def unpack(self, node: Node) -> Tensor:
        """The tensor as it was; RuntimeError if an in-place operation has changed it since."""
        if self.storage.version != self.version:
            raise_modified(self, node)
        if self.tensor is not None:
            found: Tensor = self.tensor
            return found
        return rebuild_output(self.array, self.storage, node, self.output)


def rebuild_output(array: Any, storage: Storage, node: Node, output: int) -> Tensor:
    """A tensor for a saved output, attached to its node again."""
    from faltung.tensor import Tensor

    tensor = Tensor._wrap(array)
    tensor._storage = storage
    tensor._requires_grad = True
    tensor._grad_fn = node
    tensor._output_nr = output
    return tensor


def raise_modified(saved: SavedTensor, node: Node) -> None:
    """Raise the error of a saved tensor that was changed in place."""
    array = saved.array if saved.tensor is None else saved.tensor._data
    source = "an input" if saved.tensor is not None else f"output {saved.output}"
    raise RuntimeError(
        "one of the variables needed for gradient computation has been modified by an inplace operation: "
        f"{source} of {node.name()} with shape {list(array.shape)} is at version {saved.storage.version}; expected "
        f"version {saved.version} instead. Use the out-of-place form of the operation that changed it, or change a "
        "clone()."
    )


class AccumulateGrad:
    """The end of the tape at a leaf, as `next_functions` shows it."""

    def __init__(self, variable: Tensor) -> None:
        self.variable = variable

    next_functions: tuple[Any, ...] = ()

    def name(self) -> str:
        """The name of this node."""
        return "AccumulateGrad"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AccumulateGrad) and self.variable is other.variable

    def __hash__(self) -> int:
        return hash(id(self.variable))

    def __repr__(self) -> str:
        return f"<AccumulateGrad object at {id(self.variable):#x}>"

    def register_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call `hook(grad_inputs, grad_outputs)` after the leaf's gradient has been accumulated."""
        return self.variable.register_post_accumulate_grad_hook(lambda leaf: hook((), (leaf.grad,)))

    def register_prehook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call `hook(grad_outputs)` before the gradient is accumulated; a returned tuple replaces it."""

        def on_tensor(grad: Any) -> Any:
            found = hook((grad,))
            return found if found is None else found[0]

        return self.variable.register_hook(on_tensor)


def __getattr__(name: str) -> Any:
    """`saved_tensors_hooks` and its like, which PyTorch keeps in this module."""
    from faltung.autograd import saved_hooks

    if name in saved_hooks.__all__:
        return getattr(saved_hooks, name)
    raise AttributeError(f"module 'faltung.autograd.graph' has no attribute {name!r}")
