"""Checkpointing: trade time for memory by computing a part of the network again during backward.

The part runs once and is recorded as always; then what its nodes saved is dropped. The first of these nodes that
backward reaches runs the part again and takes over, node by node, what the second recording saved. The graph itself
stays, so closures, hooks, `autograd.grad` and higher derivatives work as without a checkpoint.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from faltung.autograd.graph import Node, next_sequence
from faltung.autograd.modes import enable_grad, is_grad_enabled, no_grad
from faltung.random import fork_rng, get_rng_state, set_rng_state
from faltung.tensor import Tensor

__all__ = ["CheckpointError", "checkpoint", "checkpoint_sequential", "noop_context_fn"]


class CheckpointError(RuntimeError):
    """The second run of a checkpointed function differed from the first."""


def noop_context_fn() -> tuple[contextlib.AbstractContextManager[Any], contextlib.AbstractContextManager[Any]]:
    """Two contexts that do nothing: for the first run and for the second."""
    return contextlib.nullcontext(), contextlib.nullcontext()


def checkpoint(
    function: Callable[..., Any],
    *args: Any,
    use_reentrant: bool | None = None,
    context_fn: Callable[[], tuple[Any, Any]] = noop_context_fn,
    determinism_check: str = "default",
    debug: bool = False,
    early_stop: bool = True,
    **kwargs: Any,
) -> Any:
    """`function(*args, **kwargs)`, whose intermediate results are computed again in backward instead of being kept.

    Args:
        function: what to run, for example a module. It runs twice, so a batch norm inside counts its batch twice.
        args: its arguments.
        use_reentrant: pass False. True keeps the limits of PyTorch's older variant: no keyword arguments, and no
            gradients unless one of `args` requires them. None means True, with a warning.
        context_fn: returns two context managers, one for each run.
        determinism_check: accepted; that both runs made the same operations is always checked.
        debug: accepted.
        early_stop: accepted; the second run is a whole one.
        kwargs: keyword arguments of `function`; `preserve_rng_state=False` lets the second run draw other random
            numbers.

    ValueError for keyword arguments under `use_reentrant=True`; CheckpointError in backward if the runs differ.
    """
    if use_reentrant is None:
        warnings.warn(
            "checkpoint: pass use_reentrant explicitly. use_reentrant=False is recommended; the default is True.",
            stacklevel=2,
        )
        use_reentrant = True
    preserve = kwargs.pop("preserve_rng_state", True)
    if use_reentrant:
        _check_reentrant(kwargs, context_fn, debug)
        if not any(tensor.requires_grad for tensor in _tensors(args)):
            if is_grad_enabled():
                warnings.warn(
                    "checkpoint: None of the inputs have requires_grad=True. Gradients will be None. "
                    "Pass use_reentrant=False to get them.",
                    stacklevel=2,
                )
            with no_grad():
                return function(*args)
    first, second = context_fn()
    state = get_rng_state() if preserve else None
    start = next_sequence()
    with first:
        result = function(*args, **kwargs)
    if is_grad_enabled():
        again = functools.partial(_run_again, function, args, kwargs, second, state)
        _Segment(_recorded_since(start, result), again).drop()
    return result


def _check_reentrant(kwargs: dict[str, Any], context_fn: Callable[..., Any], debug: bool) -> None:
    if kwargs:
        raise ValueError(
            f"checkpoint: Unexpected keyword arguments: {','.join(kwargs)}. Pass use_reentrant=False to use them."
        )
    if context_fn is not noop_context_fn or debug:
        raise ValueError("checkpoint: Passing `context_fn` or `debug` is only supported when use_reentrant=False.")


def _run_again(function: Callable[..., Any], args: Any, kwargs: Any, context: Any, state: Any) -> list[Node]:
    """The nodes of a second recording."""
    with enable_grad(), contextlib.ExitStack() as stack:
        if state is not None:
            stack.enter_context(fork_rng())
            set_rng_state(state)
        stack.enter_context(context)
        start = next_sequence()
        return _recorded_since(start, function(*args, **kwargs))


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in nested tuples, lists and dicts."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)


def _recorded_since(start: int, result: Any) -> list[Node]:
    """The nodes behind `result` that are newer than `start`, in order of creation."""
    found: dict[int, Node] = {}
    pending = [tensor.grad_fn for tensor in _tensors(result)]
    while pending:
        node = pending.pop()
        if not isinstance(node, Node) or node.sequence < start or node.sequence in found:
            continue
        found[node.sequence] = node
        pending.extend(edge[0] for edge in node.edges if edge is not None and edge[1] >= 0)
    return [found[sequence] for sequence in sorted(found)]


class _Segment:
    """The nodes of one checkpointed call, and the way to bring back what they saved."""

    def __init__(self, nodes: list[Node], again: Callable[[], list[Node]]) -> None:
        self.nodes = nodes
        self.again = again
        self.arrays: list[list[str]] = []  # of each node, the names of the arrays that its operation kept

    def drop(self) -> None:
        """Free what the nodes saved, and have them ask for it before they run."""
        for node in self.nodes:
            state = node.__dict__
            names = [name for name, value in state.items() if isinstance(value, np.ndarray)]
            self.arrays.append(names)
            for name in names:
                del state[name]
            node.packed = None
            state["run"] = functools.partial(self._run, node)

    def _run(self, node: Node, grads: list[Any]) -> tuple[Any, ...]:
        self._restore()
        return node.run(grads)

    def _restore(self) -> None:
        renewed = self.again()
        self._check(renewed)
        for node, twin, names in zip(self.nodes, renewed, self.arrays, strict=True):
            del node.__dict__["run"]
            node.packed = twin.packed
            for name in names:
                setattr(node, name, getattr(twin, name))
        self.nodes, self.arrays = [], []

    def _check(self, renewed: list[Node]) -> None:
        before, after = [node.name() for node in self.nodes], [node.name() for node in renewed]
        if before != after:
            step = next((i for i, (a, b) in enumerate(zip(before, after)) if a != b), min(len(before), len(after)))
            raise CheckpointError(
                f"checkpoint: A different number of tensors or other operations were recorded in the second run: "
                f"expected {len(before)} operations, got {len(after)}; they part at number {step}. The function must "
                "do the same on every call with the same arguments."
            )
        for node, twin in zip(self.nodes, renewed):
            if node.output_shapes != twin.output_shapes:
                raise CheckpointError(
                    f"checkpoint: {node.name()} gave {node.output_shapes} in the first run and {twin.output_shapes} "
                    "in the second. The function must do the same on every call with the same arguments."
                )


def checkpoint_sequential(
    functions: Any, segments: int, input: Any, use_reentrant: bool | None = None, **kwargs: Any
) -> Any:
    """Run functions one after the other, checkpointed in `segments` groups; the last group keeps its results.

    Args:
        functions: a Sequential, or a list of modules or functions of one argument.
        segments: how many groups to make, at most as many as there are functions.
        input: the argument of the first one.
        use_reentrant: as in `checkpoint`.
        kwargs: `preserve_rng_state`, as in `checkpoint`.

    ValueError for other keyword arguments.
    """
    preserve = kwargs.pop("preserve_rng_state", True)
    if kwargs:
        raise ValueError(f"checkpoint_sequential: Unexpected keyword arguments: {','.join(kwargs)}.")
    if use_reentrant is None:
        warnings.warn(
            "checkpoint_sequential: pass use_reentrant explicitly. use_reentrant=False is recommended; the default "
            "is True.",
            stacklevel=2,
        )
        use_reentrant = True
    steps = list(functions.children()) if hasattr(functions, "children") else list(functions)

    def run(group: list[Any], value: Any) -> Any:
        for step in group:
            value = step(value)
        return value

    size = len(steps) // segments
    end = 0
    for start in range(0, size * (segments - 1), size):
        end = start + size
        input = checkpoint(
            functools.partial(run, steps[start:end]),
            input,
            use_reentrant=use_reentrant,
            preserve_rng_state=preserve,
        )
    return run(steps[end:], input)
