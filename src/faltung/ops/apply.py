"""The one door: every operation on tensors is called here, so here the tape records (and a compiler can trace).

`apply` takes tensors apart, runs the operation's forward on arrays and wraps what comes back; `compute` does so where
there is nothing to record. `apply_inplace` writes the result into its first tensor instead, and rewrites that tensor's
history. Nothing computes on arrays outside this door.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from faltung.autograd.anomaly import note_origin
from faltung.autograd.graph import Edge, Node, Op, SavedTensor, gradient_edge, next_sequence
from faltung.autograd.modes import modes, settle_all
from faltung.autograd.saved_hooks import pack_saved
from faltung.dtypes import OF_NUMPY, can_cast
from faltung.tensor import Tensor, ViewOf

__all__ = ["apply", "apply_inplace", "check_inplace", "check_result_cast", "compute"]

_ndarray = np.ndarray
_NONE_NEEDED: tuple[tuple[bool, ...], ...] = tuple((False,) * count for count in range(64))
_wrap = Tensor._wrap


@np.errstate(all="ignore")
def _silently(op: type[Op], node: Node, arrays: list[Any], attributes: dict[str, Any]) -> Any:
    """Run forward without NumPy's floating-point warnings: PyTorch gives inf and nan without a word."""
    return op.forward(node, *arrays, **attributes)


def apply(op: type[Op], *tensors: Any, **attributes: Any) -> Any:
    """Run `op` on tensors (or None) and return its result as a tensor, or a tuple of tensors.

    Args:
        op: the operation.
        tensors: its tensor arguments, in order; None for an absent one.
        attributes: everything that isn't a tensor.
    """
    arrays = [None if t is None else t._data for t in tensors]
    node = Node()
    node.op = op
    recording = False
    if modes.grad and op.backward is not None:
        needs = tuple([t is not None and (t._requires_grad if t._view is None else t.requires_grad) for t in tensors])
        recording = True in needs
        node.needs_input_grad = needs
    else:
        node.needs_input_grad = _NONE_NEEDED[len(tensors)] if len(tensors) < 64 else (False,) * len(tensors)
    if op.quiet:
        found = op.forward(node, *arrays, **attributes)
    else:
        found = _silently(op, node, arrays, attributes)
    if op.is_view:
        result = _as_view(op, tensors[0], found, attributes)
    elif type(found) is _ndarray:
        result = _wrap(found)
    elif type(found) is tuple:
        results = tuple([_wrap(array if type(array) is _ndarray else np.asarray(array)) for array in found])
        if recording:
            _record(node, tensors, results)
        return results
    else:
        result = _wrap(np.asarray(found))
    if recording:
        _record(node, tensors, (result,))
    return result


def compute(op: type[Op], *tensors: Any, **attributes: Any) -> Tensor:
    """As `apply`, for a quiet operation without gradient whose forward asks nothing of its context: no node is made."""
    return _wrap(op.forward(None, *[None if t is None else t._data for t in tensors], **attributes))


def _as_view(op: type[Op], source: Tensor, array: Any, attributes: dict[str, Any]) -> Tensor:
    """A tensor on memory it shares with `source`, remembering how it was made from the base."""
    result = _wrap(array)
    storage = result._storage = source._storage
    storage.aliased = True
    link = source._view
    if link is None:
        result._view = ViewOf(source, ((op, attributes),), storage.version)
    else:
        result._view = ViewOf(link.base, (*link.chain, (op, attributes)), storage.version)
    return result


def _record(node: Node, tensors: tuple[Any, ...], results: tuple[Tensor, ...]) -> None:
    """Put the node on the tape: edges to the inputs, saved tensors, and the results' grad_fn."""
    node.sequence = next_sequence()
    if modes.anomaly:
        note_origin(node)
    needs = node.needs_input_grad
    node.edges = tuple([gradient_edge(t) if need else None for t, need in zip(tensors, needs)])
    if node.kept_inputs or node.kept_outputs:
        _save(node, tensors, results)
    skipped = node.not_differentiable
    shapes = []
    for position, result in enumerate(results):
        data = result._data
        shapes.append((data.shape, data.dtype))
        if position not in skipped and data.dtype.kind in "fc":
            result._requires_grad = True
            result._grad_fn = node
            result._output_nr = position
    node.output_shapes = tuple(shapes)


def _save(node: Node, tensors: tuple[Any, ...], results: tuple[Tensor, ...]) -> None:
    packed: list[Any] = []
    for position in node.kept_inputs:
        tensor = tensors[position]
        if tensor is None:
            packed.append(None)
            continue
        if tensor._storage.inference:
            raise RuntimeError(
                f"{node.name()}: Inference tensors cannot be saved for backward, got one as input {position}. "
                "Make a clone() of it outside inference_mode and use that."
            )
        packed.append(SavedTensor(tensor, None, tensor._storage, position))
    for position in node.kept_outputs:
        result = results[position]
        packed.append(SavedTensor(None, result._data, result._storage, position))
    node.packed = pack_saved(packed, node) if modes.saved_hooks else packed


def _refresh(view: Tensor) -> None:
    """Renew a view's history after a write to the memory it shares: replay the view operations on its base."""
    link = view._view
    assert link is not None  # only called on views
    link.version = view._storage.version
    if not link.tracked or not link.base.requires_grad or view._grad_fn is None and view._requires_grad:
        return
    before = modes.grad
    modes.grad = True
    try:
        renewed = link.base
        for op, attributes in link.chain:
            renewed = apply(op, renewed, **attributes)
    finally:
        modes.grad = before
    assert renewed._grad_fn is not None
    _set_history(view, renewed._grad_fn)


Tensor._refresh = _refresh  # type: ignore[assignment]  # bound here: tensors know nothing of operations


# --- in place


def apply_inplace(op: type[Op], target: Tensor, *others: Any, **attributes: Any) -> Tensor:
    """Run `op` on `target` and `others` and write the result into `target`, which is returned.

    The version of the memory goes up, and the target's history becomes the operation's. If the target is a view, the
    base's history records that a part of it was replaced, and other views of the base follow.
    """
    settle_all()
    tensors = (target, *others)
    node = Node()
    node.op = op
    recording = False
    if modes.grad:
        needs = tuple([t is not None and t.requires_grad for t in tensors])
        recording = True in needs
        if recording:
            _check_writable_history(_label(op), target)
            recording = op.backward is not None and target._data.dtype.kind in "fc"
        node.needs_input_grad = needs
    else:
        node.needs_input_grad = _NONE_NEEDED[len(tensors)]
    _check_writable_memory(_label(op), target)
    arrays = [None if t is None else t._data for t in tensors]
    if recording:
        _write_recorded(op, node, tensors, arrays, attributes)
    else:
        _write(op, node, arrays, attributes)
        target._storage.bump()
    return target


def check_inplace(label: str, target: Tensor, *others: Any) -> None:
    """Raise what an in-place operation would raise, before anything is computed."""
    settle_all()
    if modes.grad and (target.requires_grad or any(isinstance(t, Tensor) and t.requires_grad for t in others)):
        _check_writable_history(label, target)
    _check_writable_memory(label, target)


def _check_writable_history(label: str, target: Tensor) -> None:
    link = target._view
    if target.requires_grad and target._grad_fn is None:
        raise RuntimeError(
            f"{label}: a leaf Variable that requires grad is being used in an in-place operation. "
            "Write inside `with no_grad():`, or use the out-of-place form of the operation."
        )
    if link is not None and link.base._grad_fn is None and link.base._requires_grad:
        raise RuntimeError(
            f"{label}: a view of a leaf Variable that requires grad is being used in an in-place operation. "
            "Write inside `with no_grad():`, or on a clone() of the leaf."
        )
    if link is not None and link.several:
        raise RuntimeError(
            f"{label}: Output of a function that returns multiple views (split, chunk, unbind, iteration) is being "
            "modified inplace. Use narrow(), select() or an index to get a view that may be written, or the "
            "out-of-place form."
        )
    if link is not None and not link.tracked:
        raise RuntimeError(
            f"{label}: A view was created in no_grad mode and is being modified inplace with grad mode enabled. "
            "Make the view outside `no_grad()`, or write inside it too."
        )


def _check_writable_memory(label: str, target: Tensor) -> None:
    if not target._data.flags.writeable and target._data.size:
        raise RuntimeError(
            f"{label}: unsupported operation: more than one element of the written-to tensor refers to a single memory "
            "location (it was expanded, or made from a read-only array). Please clone() the tensor before performing "
            "the operation."
        )
    if target._storage.inference and not modes.inference:
        raise RuntimeError(
            f"{label}: Inplace update to inference tensor outside InferenceMode is not allowed. "
            "Make a clone() of it outside inference_mode and change that."
        )


def _label(op: type[Op]) -> str:
    return (op.name or op.__name__).lower() + "_"


def _write(op: type[Op], node: Node, arrays: list[Any], attributes: dict[str, Any]) -> None:
    """Compute into arrays[0]."""
    if op.inplace is not None:
        _silently_inplace(op, node, arrays, attributes)
        return
    _assign(op, arrays[0], _silently(op, node, arrays, attributes))


@np.errstate(all="ignore")
def _silently_inplace(op: type[Op], node: Node, arrays: list[Any], attributes: dict[str, Any]) -> None:
    assert op.inplace is not None
    op.inplace(node, *arrays, **attributes)


@np.errstate(all="ignore")
def _assign(op: type[Op], target: np.ndarray[Any, Any], result: Any) -> None:
    result = np.asarray(result)
    if result.shape != target.shape:
        raise RuntimeError(
            f"{_label(op)}: output with shape {list(target.shape)} doesn't match the broadcast shape "
            f"{list(result.shape)}. An in-place operation can't grow its tensor: use the out-of-place form."
        )
    if result.dtype != target.dtype:
        check_result_cast(result, target)
    np.copyto(target, result, casting="unsafe")


def check_result_cast(result: np.ndarray[Any, Any], target: np.ndarray[Any, Any]) -> None:
    """RuntimeError where PyTorch doesn't let a result be written into a tensor of a lower kind."""
    source_type, target_type = OF_NUMPY[result.dtype], OF_NUMPY[target.dtype]
    if not can_cast(source_type, target_type):
        raise RuntimeError(
            f"result type {source_type.legacy_name} can't be cast to the desired output type "
            f"{target_type.legacy_name}. Convert the tensor with .to({source_type}) first, or use the out-of-place "
            "form."
        )


def _write_recorded(
    op: type[Op], node: Node, tensors: tuple[Any, ...], arrays: list[Any], attributes: dict[str, Any]
) -> None:
    target = tensors[0]
    target.grad_fn  # noqa: B018  # bring a view's history up to date before it is replaced
    edges = tuple([gradient_edge(t) if need else None for t, need in zip(tensors, node.needs_input_grad)])
    if op.inplace_keeps:
        _silently_inplace(op, node, arrays, attributes)
    else:
        result = _silently(op, node, arrays, attributes)
        # what backward needs of the memory that is written here, be it the target or an operand that shares it
        tensors = tuple(
            [
                _before_write(t) if t is not None and i in node.kept_inputs and t._storage is target._storage else t
                for i, t in enumerate(tensors)
            ]
        )
        _assign(op, target._data, result)
    target._storage.bump()
    node.sequence = next_sequence()
    node.edges = edges
    node.output_shapes = ((target._data.shape, target._data.dtype),)
    if node.kept_inputs or node.kept_outputs:
        _save(node, tensors, (target,))
    _rebase(target, node)


def _before_write(tensor: Tensor) -> Tensor:
    """A tensor's old values with its old history, for operations that need them in backward."""
    old = _wrap(tensor._data.copy(order="K"))
    old._requires_grad = tensor._requires_grad
    old._grad_fn = tensor._grad_fn
    old._output_nr = tensor._output_nr
    return old


def _rebase(target: Tensor, node: Node) -> None:
    """Make `node` the history of `target`, and of its base if it is a view."""
    link = target._view
    if link is None:
        _set_history(target, node)
        return
    base = link.base
    scatter = Node()
    scatter.op = ScatterView
    scatter.chain = link.chain  # type: ignore[attr-defined]  # an attribute of the operation
    scatter.strides = base._data.strides  # type: ignore[attr-defined]
    scatter.needs_input_grad = (base._requires_grad, True)
    scatter.sequence = next_sequence()
    edge: Edge = (node, 0, target._data.shape, target._data.dtype)
    scatter.edges = (gradient_edge(base) if base._requires_grad else None, edge)
    scatter.output_shapes = ((base._data.shape, base._data.dtype),)
    _set_history(base, scatter)
    target.grad_fn  # noqa: B018  # made anew from the base


def _set_history(tensor: Tensor, node: Node) -> None:
    old = tensor._grad_fn
    if old is not None and old.retaining is not None and tensor._output_nr in old.retaining:
        del old.retaining[tensor._output_nr]
        node.retain(0, tensor)
    tensor._grad_fn = node
    tensor._output_nr = 0
    tensor._requires_grad = True


def view_array(array: np.ndarray[Any, Any], chain: tuple[Any, ...]) -> np.ndarray[Any, Any]:
    """The view of `array` that a chain of view operations makes."""
    for op, attributes in chain:
        array = op.forward(Node(), array, **attributes)
    return array


class ScatterView(Op):
    """`base` with the part that a chain of views selects replaced: the history of a base after a write to its view."""

    name = "copy_slices"

    @staticmethod
    def forward(ctx: Node, base: Any, part: Any, *, chain: Any) -> Any:
        ctx.chain = chain  # type: ignore[attr-defined]
        ctx.strides = base.strides  # type: ignore[attr-defined]
        result = like_strides(base)
        view_array(result, chain)[...] = part
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, Any]:
        outside = inside = None
        if ctx.needs_input_grad[1]:
            inside = grad
            for op, attributes in ctx.chain:
                inside = apply(op, inside, **attributes)
        if ctx.needs_input_grad[0]:
            outside = apply(ClearView, grad, chain=ctx.chain, strides=ctx.strides)
        return outside, inside


class ClearView(Op):
    """`base` with zeros in the part that a chain of views selects."""

    @staticmethod
    def forward(ctx: Node, grad: Any, *, chain: Any, strides: Any) -> Any:
        ctx.chain, ctx.strides = chain, strides  # type: ignore[attr-defined]
        result = like_strides(grad, strides)
        view_array(result, chain)[...] = 0
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return apply(ClearView, grad, chain=ctx.chain, strides=ctx.strides)


def like_strides(array: np.ndarray[Any, Any], strides: Any = None) -> np.ndarray[Any, Any]:
    """A copy of `array` whose dimensions lie in memory in the order that `strides` has."""
    strides = array.strides if strides is None else strides
    order = sorted(range(array.ndim), key=lambda dim: (-abs(strides[dim]), dim))
    fresh = np.empty([array.shape[dim] for dim in order], array.dtype)
    result = fresh.transpose(np.argsort(order)) if array.ndim else fresh
    np.copyto(result, array)
    return result
