"""Hooks on what operations keep for backward: pack it on the way in, unpack it on the way out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from faltung.autograd.graph import Node, SavedTensor, rebuild_output
from faltung.autograd.hooks import RemovableHandle
from faltung.autograd.modes import modes

if TYPE_CHECKING:
    from faltung.tensor import Tensor

__all__ = ["pack_saved", "register_multi_grad_hook", "save_on_cpu", "saved_tensors_hooks"]


class saved_tensors_hooks:
    """While this context lasts, saved tensors go through `pack_hook` when kept and through `unpack_hook` when used.

    Args:
        pack_hook: takes a tensor, returns anything.
        unpack_hook: takes what `pack_hook` returned, returns a tensor of the same values.
    """

    def __init__(self, pack_hook: Callable[[Tensor], Any], unpack_hook: Callable[[Any], Tensor]) -> None:
        self.hooks = (pack_hook, unpack_hook)

    def __enter__(self) -> None:
        modes.saved_hooks = (*modes.saved_hooks, self.hooks)

    def __exit__(self, *exc_info: object) -> None:
        modes.saved_hooks = modes.saved_hooks[:-1]


class save_on_cpu(saved_tensors_hooks):
    """Saved tensors are on the CPU anyway; accepted for scripts that ask for it."""

    def __init__(self, pin_memory: bool = False, device_type: str = "cuda") -> None:
        super().__init__(lambda tensor: tensor, lambda tensor: tensor)


class PackedTensor:
    """A saved tensor that went through a pack hook."""

    __slots__ = ("content", "grad_fn", "output", "requires_grad", "unpack_hook")

    def __init__(self, saved: SavedTensor, node: Node, hooks: tuple[Any, Any]) -> None:
        tensor = saved.tensor
        if tensor is None:
            given = rebuild_output(saved.array, saved.storage, node, saved.output).detach()
            self.grad_fn, self.output, self.requires_grad = None, saved.output, True
        else:
            given = tensor
            self.grad_fn, self.output, self.requires_grad = tensor._grad_fn, tensor._output_nr, tensor.requires_grad
        before = modes.grad
        modes.grad = False
        try:
            self.content = hooks[0](given)
        finally:
            modes.grad = before
        self.unpack_hook = hooks[1]

    def unpack(self, node: Node) -> Tensor:
        """The tensor, attached to the graph as the saved one was."""
        before = modes.grad
        modes.grad = False
        try:
            found = self.unpack_hook(self.content)
        finally:
            modes.grad = before
        if not hasattr(found, "_data"):
            raise TypeError(
                "saved_tensors_hooks: Output of saved tensor unpack_hook expected to be a Tensor but got result of "
                f"type {type(found).__name__}."
            )
        if self.requires_grad and not found.requires_grad:
            found = found.detach()
            grad_fn = self.grad_fn or node
            found._requires_grad, found._grad_fn, found._output_nr = True, grad_fn, self.output
        result: Tensor = found
        return result


def pack_saved(packed: list[Any], node: Node) -> list[Any]:
    """The saved tensors of a node, sent through the innermost hooks."""
    hooks = modes.saved_hooks[-1]
    return [None if saved is None else PackedTensor(saved, node, hooks) for saved in packed]


def register_multi_grad_hook(
    tensors: Sequence[Tensor], fn: Callable[..., Any], *, mode: str = "all"
) -> RemovableHandle:
    """Call `fn` once per backward: with all gradients when the last of `tensors` has its own, or with the first one.

    Args:
        tensors: which must require grad.
        fn: takes the list of gradients (None for those that got none) for mode "all", one gradient for mode "any".
        mode: "all" or "any".
    """
    if mode not in ("all", "any"):
        raise ValueError(f"register_multi_grad_hook: mode must be one of ('all', 'any'), got {mode!r}.")
    found: list[Any] = [None] * len(tensors)
    count = 0

    def on_gradient(position: int) -> Callable[[Tensor], None]:
        def hook(grad: Tensor) -> None:
            nonlocal count
            found[position] = grad
            count += 1
            if mode == "any" and count == 1:
                fn(grad)
            if count == len(tensors):
                if mode == "all":
                    fn(list(found))
                found[:] = [None] * len(tensors)
                count = 0

        return hook

    handles = [tensor.register_hook(on_gradient(position)) for position, tensor in enumerate(tensors)]

    class Handles(RemovableHandle):
        def __init__(self) -> None:
            """Stands for all of them."""

        def remove(self) -> None:
            for handle in handles:
                handle.remove()

    return Handles()
