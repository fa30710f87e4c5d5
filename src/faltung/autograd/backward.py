"""Running the tape backward: newest node first, iteratively.

Edges only ever lead from a younger node to an older one, so a heap ordered by creation number visits every node after
all of its users; no recursion, no counting of dependencies. Gradients that meet are added; a buffer is only added into
in place when the sum was made here.
"""

from __future__ import annotations

import heapq
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from faltung import engine
from faltung.autograd.anomaly import check_gradients, report_origin
from faltung.autograd.graph import Node
from faltung.autograd.modes import modes, settle_all
from faltung.engine import layout, memory

if TYPE_CHECKING:
    from faltung.tensor import Tensor

__all__ = ["run_backward"]

_LARGE = 1 << 17  # elements from which on the engine's threads are worth a call


def run_backward(
    roots: Sequence[Tensor],
    grads: Sequence[Tensor],
    *,
    retain_graph: bool,
    create_graph: bool,
    inputs: Sequence[Tensor] | None = None,
    accumulate: bool = True,
) -> list[Tensor | None]:
    """Propagate `grads` from `roots` to the leaves.

    Args:
        roots: tensors to differentiate; each requires grad.
        grads: their gradients, of the same shapes.
        retain_graph: keep saved tensors for another pass.
        create_graph: record the backward pass itself.
        inputs: only compute gradients of these tensors; None means all leaves.
        accumulate: add to `.grad` of the leaves (or of `inputs`) instead of returning gradients.

    Returns:
        The gradients of `inputs` where `accumulate` is false, None for those that were not reached.
    """
    settle_all()  # gradients may be added to in place
    walk = _Walk(retain_graph, create_graph, inputs, accumulate)
    before = modes.grad
    modes.grad = create_graph
    try:
        for root, grad in zip(roots, grads):
            grad_fn = root.grad_fn
            if grad_fn is None:
                walk.give(root, -1, grad)
            else:
                walk.give(grad_fn, root._output_nr, grad)
        walk.prune(roots)
        walk.run()
    finally:
        modes.grad = before
    return walk.captured


class _Walk:
    """One pass over the tape."""

    def __init__(
        self, retain_graph: bool, create_graph: bool, inputs: Sequence[Tensor] | None, accumulate: bool
    ) -> None:
        self.retain_graph = retain_graph
        self.create_graph = create_graph
        self.accumulate = accumulate
        self.heap: list[tuple[int, Node]] = []
        self.grads: dict[Node, list[Any]] = {}  # gradients of a node's outputs so far
        self.leaves: dict[int, list[Any]] = {}  # id(leaf) -> [leaf, gradient]
        self.sums: set[tuple[Any, int]] = set()  # (node or leaf, output) whose gradient is a sum made here
        self.needed: set[Any] | None = None  # nodes on a path to `inputs`
        self.targets: dict[tuple[Any, int], list[int]] = {}  # (node or id of leaf, output) -> positions in inputs
        self.inputs = inputs
        self.captured: list[Any] = [None] * len(inputs or ())
        for position, tensor in enumerate(inputs or ()):
            grad_fn = tensor.grad_fn
            key = (id(tensor), -1) if grad_fn is None else (grad_fn, tensor._output_nr)
            self.targets.setdefault(key, []).append(position)

    def give(self, where: Any, output: int, grad: Tensor) -> None:
        """Add `grad` to the gradient of a node's output or of a leaf."""
        if output < 0:
            slot = self.leaves.get(id(where))
            if slot is None:
                self.leaves[id(where)] = [where, grad]
            else:
                slot[1] = self.add(slot[1], grad, (where, output))
            return
        buffer = self.grads.get(where)
        if buffer is None:
            buffer = self.grads[where] = [None] * len(where.output_shapes)
            heapq.heappush(self.heap, (-where.sequence, where))
        present = buffer[output]
        buffer[output] = grad if present is None else self.add(present, grad, (where, output))

    def add(self, total: Tensor, grad: Tensor, place: tuple[Any, int]) -> Tensor:
        """The sum of two gradients."""
        if self.create_graph:
            return total + grad
        if place in self.sums and total._data.dtype == grad._data.dtype:
            add_into(total._data, grad._data)
            return total
        self.sums.add(place)
        return total + grad

    def prune(self, roots: Sequence[Tensor]) -> None:
        """Find the nodes that lead to `inputs`, so that nothing else is computed."""
        if self.inputs is None:
            return
        wanted = {key[0] for key in self.targets}
        order: list[Node] = []
        seen: set[Node] = set()
        stack = [root.grad_fn for root in roots if root.grad_fn is not None]
        while stack:
            node = stack.pop()
            if node in seen:
                continue
            seen.add(node)
            order.append(node)
            stack.extend(edge[0] for edge in node.edges if edge is not None and edge[1] >= 0)
        needed: set[Any] = set()
        for node in sorted(order, key=lambda n: n.sequence):
            for edge in node.edges:
                if edge is None:
                    continue
                where = id(edge[0]) if edge[1] < 0 else edge[0]
                if where in needed or where in wanted:
                    needed.add(node)
                    break
        self.needed = needed

    def run(self) -> None:
        """Visit the nodes, then the leaves."""
        heap, grads = self.heap, self.grads
        while heap:
            node = heapq.heappop(heap)[1]
            buffer = grads.pop(node)
            if node.capture_hooks is not None or node.retaining is not None or self.targets:
                self.on_outputs(node, buffer)
            if self.needed is not None and node not in self.needed:
                continue
            self.visit(node, buffer)
        for slot in list(self.leaves.values()):
            self.finish_leaf(slot)

    def visit(self, node: Node, buffer: list[Any]) -> None:
        """Run one node and hand its gradients on."""
        if node.pre_hooks:
            buffer = _run_pre_hooks(node, buffer)
        found = node.run(buffer) if not modes.anomaly else _run_watched(node, buffer)
        edges = node.edges
        if len(found) != len(edges):
            raise RuntimeError(
                f"{node.name()}: expected {len(edges)} gradients from backward (one per input), got {len(found)}."
            )
        if node.post_hooks:
            found = _run_post_hooks(node, found, buffer)
        if not self.retain_graph:
            node.release()
        for edge, grad in zip(edges, found):
            if edge is None or grad is None:
                continue
            data = grad._data
            if data.shape != edge[2] or data.dtype != edge[3]:
                grad = fit_gradient(grad, edge, node)
            self.give(edge[0], edge[1], grad)

    def on_outputs(self, node: Node, buffer: list[Any]) -> None:
        """Tensor hooks, captured inputs and retained gradients of a node's outputs, in that order."""
        for output, grad in enumerate(buffer):
            if grad is None:
                continue
            hooks = None if node.capture_hooks is None else node.capture_hooks.get(output)
            if hooks:
                grad = buffer[output] = run_tensor_hooks(hooks, grad)
            for position in self.targets.get((node, output), ()):
                tensor = self.inputs[position]  # type: ignore[index]  # targets come from inputs
                if self.accumulate:
                    self.store([tensor, grad])
                else:
                    self.captured[position] = grad
            if node.retaining is not None and output in node.retaining:
                tensor = node.retaining[output]()
                if tensor is not None and not (self.accumulate and (node, output) in self.targets):
                    tensor._grad = grad if tensor._grad is None else tensor._grad + grad

    def finish_leaf(self, slot: list[Any]) -> None:
        """Run a leaf's hooks and accumulate or capture its gradient."""
        leaf = slot[0]
        if leaf._hooks is not None and leaf._hooks.on_grad:
            slot[1] = run_tensor_hooks(leaf._hooks.on_grad, slot[1])
        if self.inputs is None:
            self.store(slot)
            return
        for position in self.targets.get((id(leaf), -1), ()):
            if self.accumulate:
                self.store(slot)
                break
            self.captured[position] = slot[1]

    def store(self, slot: list[Any]) -> None:
        """Add a gradient to `.grad`; `slot` is [tensor, gradient] and holds the walk's only
        reference to the gradient.
        """
        leaf = slot[0]
        present = leaf._grad
        if present is None:
            leaf._grad = slot[1] if self.create_graph else own_gradient(slot)
        elif self.create_graph:
            leaf._grad = present + slot[1]
        elif present._data.dtype == slot[1]._data.dtype and present._data.flags.writeable:
            add_into(present._data, slot[1]._data)
            present._storage.bump()
        else:
            leaf._grad = (present + slot[1]).detach()
        hooks = leaf._hooks
        if hooks is not None and hooks.after_accumulation and leaf._grad_fn is None:
            for hook in list(hooks.after_accumulation.values()):
                hook(leaf)


@np.errstate(all="ignore")
def add_into(total: np.ndarray[Any, Any], addend: np.ndarray[Any, Any]) -> None:
    """Add in place, silently as PyTorch does."""
    if total.size < _LARGE:
        np.add(total, addend, out=total)
    else:
        engine.call("pointwise.add", total, addend, out=total)


def _references(slot: list[Any]) -> list[int]:
    """References to the gradient's tensor, to its array, and to whatever owns that array's memory."""
    found = [sys.getrefcount(slot[1]), sys.getrefcount(slot[1]._data)]
    holder = slot[1]._data
    while getattr(holder, "base", None) is not None:
        found.append(sys.getrefcount(holder.base))
        holder = holder.base
        if memory.is_lease(holder):  # what lies behind it is the pool's
            break
    return found


class _Held:
    """Stands for a tensor in the calibration below."""

    __slots__ = ("_data",)
    _data: np.ndarray


def _sole_references() -> tuple[int, int, int]:
    """What `_references` counts when nobody else holds the gradient; differs between Python versions."""
    held = _Held()
    held._data = np.zeros(1)[:]
    slot = [None, held]
    del held
    counts = _references(slot)
    return counts[0], counts[1], counts[2]


_SOLE_TENSOR, _SOLE_ARRAY, _SOLE_BASE = _sole_references()


def own_gradient(slot: list[Any]) -> Tensor:
    """A gradient in memory of its own, laid out like its tensor: the very array where nobody else holds it, else a
    copy.

    A backward function may hand the same array to several inputs (addition does), or a view of what a user holds.
    """
    like, data, wrap = slot[0]._data, slot[1]._data, type(slot[1])._wrap
    fits = data.strides == like.strides and data.flags.writeable
    del data
    if fits:
        tensor, array, *bases = _references(slot)
        if tensor <= _SOLE_TENSOR and array <= _SOLE_ARRAY and all(base <= _SOLE_BASE for base in bases):
            found: Tensor = wrap(slot[1]._data)
            return found
    copied: Tensor = wrap(layout.copied(slot[1]._data, layout.order_of(like)))
    return copied


def _run_watched(node: Node, buffer: list[Any]) -> tuple[Any, ...]:
    """Run a node under anomaly detection."""
    try:
        found = node.run(buffer)
    except Exception:
        report_origin(node)
        raise
    if modes.anomaly == "nan":
        check_gradients(node, found)
    return found


def run_tensor_hooks(hooks: Any, grad: Tensor) -> Tensor:
    """Call the hooks on a gradient, each with the result of the one before."""
    for hook in list(hooks.values()):
        found = hook(grad)
        if found is not None:
            if found._data.shape != grad._data.shape:
                raise RuntimeError(
                    f"backward hook: expected a gradient of shape {list(grad.shape)}, got {list(found.shape)}. "
                    "A hook may change values, not the shape."
                )
            grad = found
    return grad


def _run_pre_hooks(node: Node, buffer: list[Any]) -> list[Any]:
    for hook in list((node.pre_hooks or {}).values()):
        found = hook(tuple(buffer))
        if found is not None:
            buffer = list(found) if isinstance(found, tuple | list) else [found]
    return buffer


def _run_post_hooks(node: Node, found: tuple[Any, ...], buffer: list[Any]) -> tuple[Any, ...]:
    for hook in list((node.post_hooks or {}).values()):
        replaced = hook(found, tuple(buffer))
        if replaced is not None:
            found = tuple(replaced) if isinstance(replaced, tuple | list) else (replaced,)
    return found


def fit_gradient(grad: Tensor, edge: Any, node: Node) -> Tensor:
    """Sum a gradient over the dimensions that its input was broadcast along, and give it the input's type."""
    shape, numpy_type = edge[2], edge[3]
    if grad._data.shape != shape:
        given = grad._data.shape
        offset = len(given) - len(shape)
        if offset < 0 or any(size not in (1, got) for size, got in zip(shape, given[offset:])):
            raise RuntimeError(
                f"Function {node.name()} returned an invalid gradient at index {node.edges.index(edge)} - got "
                f"{list(given)} but expected shape compatible with {list(shape)}."
            )
        grad = grad.sum_to_size(shape)
    if grad._data.dtype != numpy_type:
        if grad.is_complex() and numpy_type.kind != "c":
            grad = grad.real
        from faltung.dtypes import OF_NUMPY

        grad = grad.to(OF_NUMPY[numpy_type])
    return grad
