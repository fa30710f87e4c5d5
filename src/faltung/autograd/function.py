"""Function: operations that users define with their own forward and backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from faltung.autograd.anomaly import note_origin
from faltung.autograd.graph import Edge, Node, Op, SavedTensor, gradient_edge, next_sequence
from faltung.autograd.modes import modes
from faltung.autograd.saved_hooks import pack_saved

__all__ = ["Function", "once_differentiable"]


class FunctionContext(Node):
    """What `forward` and `backward` of a Function share: saved tensors, marks, and any attributes of the user's."""

    function: type[Function]
    materialize_grads = True
    _to_save: tuple[Any, ...] = ()
    _dirty: tuple[Any, ...] = ()
    _not_differentiable: tuple[Any, ...] = ()
    _returned: tuple[Any, ...] = ()

    def name(self) -> str:
        """The name of the backward step."""
        return self.function.__name__ + "Backward"

    def save_for_backward(self, *tensors: Any) -> None:
        """Keep tensors (or None) for backward, where they appear as `saved_tensors`."""
        for tensor in tensors:
            if tensor is not None and not hasattr(tensor, "_data"):
                raise TypeError(
                    f"{self.name()}: save_for_backward can only save variables, but got {type(tensor).__name__}. "
                    "Store other values as attributes of ctx."
                )
        self._to_save = tensors

    def save_for_forward(self, *tensors: Any) -> None:
        """Accepted for compatibility; there is no forward-mode differentiation."""

    def mark_dirty(self, *tensors: Any) -> None:
        """Name the inputs that forward changes in place; it must return them."""
        self._dirty = tensors

    def mark_non_differentiable(self, *tensors: Any) -> None:
        """Name outputs that carry no gradient."""
        self._not_differentiable = tensors

    def set_materialize_grads(self, value: bool) -> None:
        """False: backward receives None instead of zeros for outputs without gradient."""
        self.materialize_grads = value

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        """The tensors given to `save_for_backward`."""
        if self.released:
            from faltung.autograd.graph import raise_backward_twice

            raise_backward_twice()
        if self.packed is None:
            return self._to_save
        return tuple([None if p is None else p.unpack(self) for p in self.packed])

    @property
    def saved_variables(self) -> tuple[Any, ...]:
        """The old name of `saved_tensors`."""
        return self.saved_tensors

    def run(self, grads: list[Any]) -> tuple[Any, ...]:
        """Call the user's backward and bring its result into the shape of the inputs."""
        if self.materialize_grads:
            grads = [self._zeros(i) if grad is None else grad for i, grad in enumerate(grads)]
        found = self.function.backward(self, *grads)
        given = found if isinstance(found, tuple | list) else (found,)
        count = len(self.needs_input_grad)
        if len(given) > count and all(grad is None for grad in given[count:]):
            given = given[:count]
        if len(given) != count:
            raise RuntimeError(
                f"function {self.name()} returned an incorrect number of gradients (expected {count}, got "
                f"{len(given)})."
            )
        tensor_edges = len(self.edges)
        for position, grad in enumerate(given):
            if grad is not None and not hasattr(grad, "_data"):
                raise TypeError(
                    f"{self.name()}: expected a Tensor or None as gradient {position}, got {type(grad).__name__}."
                )
        return tuple(given)[:tensor_edges]

    def _zeros(self, output: int) -> Any:
        import numpy as np

        from faltung.tensor import Tensor

        shape, numpy_type = self.output_shapes[output]
        return None if shape is None else Tensor._wrap(np.zeros(shape, numpy_type))


class Function:
    """Base of operations with a backward of the user's own.

    Define `forward(ctx, *args)` and `backward(ctx, *grad_outputs)` as static methods and call `apply`. Forward may also
    be written without ctx, with a separate `setup_context(ctx, inputs, output)`. Backward returns one gradient (or
    None) per argument of forward.
    """

    forward: Callable[..., Any]
    backward: Callable[..., Any]
    setup_context: Callable[..., Any] | None = None
    generate_vmap_rule = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise RuntimeError(
            f"{type(self).__name__}: autograd functions are not instantiated. Call {type(self).__name__}.apply(...) "
            "instead."
        )

    @classmethod
    def apply(cls, *args: Any, **kwargs: Any) -> Any:
        """Run forward and record backward."""
        if not hasattr(cls, "forward"):
            raise NotImplementedError(f"{cls.__name__}: You must implement the forward function for custom Function.")
        context = FunctionContext()
        context.function = cls
        context.op = Op
        context.needs_input_grad = tuple([_requires_grad(arg) for arg in args])
        recording = modes.grad and True in context.needs_input_grad
        versions = [(arg, arg._storage.version) for arg in args if hasattr(arg, "_data")]
        edges: list[Edge | None] = [
            gradient_edge(arg) if recording and needed else None for arg, needed in zip(args, context.needs_input_grad)
        ]
        before = modes.grad
        modes.grad = False
        try:
            if cls.setup_context is None:
                result = cls.forward(context, *args, **kwargs)
            else:
                result = cls.forward(*args, **kwargs)
                cls.setup_context(context, args, result)
        finally:
            modes.grad = before
        outputs = result if isinstance(result, tuple | list) else (result,)
        if recording:
            outputs = _record(context, args, tuple(outputs), edges, versions)
        return tuple(outputs) if isinstance(result, tuple | list) else outputs[0]


def _requires_grad(value: Any) -> bool:
    return hasattr(value, "_data") and bool(value.requires_grad)


def _record(
    context: FunctionContext, args: tuple[Any, ...], outputs: tuple[Any, ...], edges: list[Any], versions: list[Any]
) -> tuple[Any, ...]:
    context.sequence = next_sequence()
    if modes.anomaly:
        note_origin(context)
    context.edges = tuple(edges)
    inputs = {id(arg) for arg in args if hasattr(arg, "_data")}
    dirty = {id(tensor) for tensor in context._dirty}
    plain = {id(tensor) for tensor in context._not_differentiable}
    shapes: list[Any] = []
    found = []
    replaced: dict[int, Any] = {}
    for position, output in enumerate(outputs):
        if not hasattr(output, "_data"):
            shapes.append((None, None))
            found.append(output)
            continue
        data = output._data
        shapes.append((data.shape, data.dtype))
        if id(output) in plain or data.dtype.kind not in "fc":
            found.append(output)
            continue
        if id(output) in dirty:
            _check_dirty_leaf(context, output)
            target = output
        elif id(output) in inputs or output._grad_fn is not None or output._requires_grad:
            target = output._alias()  # an input returned as it came: a new tensor on the same memory
        else:
            target = output
        replaced[id(output)] = target
        target._requires_grad, target._grad_fn, target._output_nr = True, context, position
        target._view = None
        found.append(target)
    context.output_shapes = tuple(shapes)
    for tensor in context._dirty:
        if {id(arg): version for arg, version in versions}.get(id(tensor)) == tensor._storage.version:
            tensor._storage.bump()
    _pack(context, replaced)
    return tuple(found)


def _check_dirty_leaf(context: FunctionContext, tensor: Any) -> None:
    if tensor._grad_fn is None and tensor._requires_grad:
        raise RuntimeError(
            f"{context.name()}: a leaf Variable that requires grad is being used in an in-place operation (mark_dirty)."
        )


def _pack(context: FunctionContext, replaced: dict[int, Any]) -> None:
    packed: list[Any] = []
    for tensor in context._to_save:
        if tensor is None:
            packed.append(None)
            continue
        target = replaced.get(id(tensor))
        if target is not None and target._grad_fn is context:
            packed.append(SavedTensor(None, target._data, target._storage, target._output_nr))
        else:
            packed.append(SavedTensor(tensor, None, tensor._storage, 0))
    context.packed = pack_saved(packed, context) if modes.saved_hooks else packed
    context._to_save = ()


def once_differentiable(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Decorates a backward that can't itself be differentiated: differentiating it raises an error."""

    def wrapper(ctx: Any, *grads: Any) -> Any:
        recording = modes.grad
        modes.grad = False
        try:
            found = backward(ctx, *grads)
        finally:
            modes.grad = recording
        if not recording or not any(_requires_grad(grad) for grad in grads):
            return found
        outputs = found if isinstance(found, tuple) else (found,)
        guarded = tuple([_Undifferentiable.guard(output, grads) for output in outputs])
        return guarded if isinstance(found, tuple) else guarded[0]

    return wrapper


class _Undifferentiable(Node):
    """Raises where the gradient of a `once_differentiable` backward is asked for."""

    op = Op

    def name(self) -> str:
        return "OnceDifferentiableBackward"

    @classmethod
    def guard(cls, output: Any, grads: tuple[Any, ...]) -> Any:
        if output is None:
            return None
        node = cls()
        node.sequence = next_sequence()
        node.needs_input_grad = tuple([_requires_grad(grad) for grad in grads])
        node.edges = tuple([gradient_edge(grad) if _requires_grad(grad) else None for grad in grads])
        node.output_shapes = ((output._data.shape, output._data.dtype),)
        alias = output._alias()
        alias._requires_grad, alias._grad_fn = True, node
        return alias

    def run(self, grads: list[Any]) -> tuple[Any, ...]:
        raise RuntimeError("trying to differentiate twice a function that was marked with @once_differentiable.")
