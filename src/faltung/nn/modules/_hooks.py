"""Hooks: what runs before and after a module's forward and backward.

A call without hooks never enters this file (see `Module.__call__`). With hooks the order is

    forward pre-hooks -> input boundary -> forward -> forward hooks -> output boundary

and, going back, output boundary (backward pre-hooks) -> gradients of forward -> input boundary (backward hooks). Hooks
for all modules at once ("global") run before a module's own.
"""

from __future__ import annotations

import functools
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from faltung.autograd.hooks import RemovableHandle
from faltung.autograd.modes import settle_all
from faltung.ops.boundary import boundary
from faltung.tensor import Tensor

if TYPE_CHECKING:
    from .module import Module

Hook = Callable[..., Any]


class _WrappedHook:
    """A hook that also gets its module, held weakly so that module and hook do not keep each other alive."""

    def __init__(self, hook: Hook, module: Module | None = None) -> None:
        self.hook = hook
        functools.update_wrapper(self, hook)
        self.with_module = module is not None
        self.module: Callable[[], Module | None] = (lambda: None) if module is None else weakref.ref(module)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self.with_module:
            return self.hook(*args, **kwargs)
        module = self.module()
        if module is None:
            raise RuntimeError("hook: its module no longer exists. Keep the module alive, or remove the hook.")
        return self.hook(module, *args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        return {"hook": self.hook, "with_module": self.with_module, "module": self.module()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["hook"], state["module"] if state["with_module"] else None)  # type: ignore[misc]


# Hooks of all modules at once. Registration hooks see every parameter, buffer or child as it is registered.
_global_buffer_registration_hooks: OrderedDict[int, Hook] = OrderedDict()
_global_module_registration_hooks: OrderedDict[int, Hook] = OrderedDict()
_global_parameter_registration_hooks: OrderedDict[int, Hook] = OrderedDict()
_global_forward_pre_hooks: OrderedDict[int, Hook] = OrderedDict()
_global_forward_hooks: OrderedDict[int, Hook] = OrderedDict()
_global_forward_hooks_with_kwargs: OrderedDict[int, bool] = OrderedDict()
_global_forward_hooks_always_called: OrderedDict[int, bool] = OrderedDict()
_global_backward_pre_hooks: OrderedDict[int, Hook] = OrderedDict()
_global_backward_hooks: OrderedDict[int, Hook] = OrderedDict()
_global_backward_kind: list[str] = []  # at most one entry, "full" or "regular": the first registration decides


def _has_any_global_hook() -> bool:
    return bool(
        _global_forward_pre_hooks or _global_forward_hooks or _global_backward_pre_hooks or _global_backward_hooks
    )


def _add(table: OrderedDict[int, Hook], hook: Hook, *flags: tuple[OrderedDict[int, bool], bool]) -> RemovableHandle:
    """Registers `hook` in `table`, and its id in each flag table that is switched on."""
    handle = RemovableHandle(table, extra_dict=[flag_table for flag_table, _ in flags])
    table[handle.id] = hook
    for flag_table, on in flags:
        if on:
            flag_table[handle.id] = True
    return handle


def register_module_buffer_registration_hook(hook: Hook) -> RemovableHandle:
    """`hook(module, name, buffer)` runs at every buffer registration; a returned value replaces the buffer."""
    return _add(_global_buffer_registration_hooks, hook)


def register_module_module_registration_hook(hook: Hook) -> RemovableHandle:
    """`hook(module, name, child)` runs at every child registration; what it returns (not None) replaces the child."""
    return _add(_global_module_registration_hooks, hook)


def register_module_parameter_registration_hook(hook: Hook) -> RemovableHandle:
    """`hook(module, name, param)` runs at every parameter registration; a returned value replaces the parameter."""
    return _add(_global_parameter_registration_hooks, hook)


def register_module_forward_pre_hook(hook: Hook) -> RemovableHandle:
    """`hook(module, args)` runs before the forward of every module; what it returns replaces the arguments."""
    return _add(_global_forward_pre_hooks, hook)


def register_module_forward_hook(
    hook: Hook, *, with_kwargs: bool = False, always_call: bool = False
) -> RemovableHandle:
    """`hook(module, args, output)` runs after the forward of every module; what it returns replaces the output."""
    return _add(
        _global_forward_hooks,
        hook,
        (_global_forward_hooks_with_kwargs, with_kwargs),
        (_global_forward_hooks_always_called, always_call),
    )


def register_module_full_backward_pre_hook(hook: Hook) -> RemovableHandle:
    """`hook(module, grad_output)` runs before the backward of every module; a returned value replaces grad_output."""
    return _add(_global_backward_pre_hooks, hook)


def register_module_full_backward_hook(hook: Hook) -> RemovableHandle:
    """`hook(module, grad_input, grad_output)` runs after the backward of every module."""
    _one_kind(_global_backward_kind, "full", "global Module hook")
    return _add(_global_backward_hooks, hook)


def register_module_backward_hook(hook: Hook) -> RemovableHandle:
    """Older name of `register_module_full_backward_hook`; the two kinds can't be mixed."""
    _one_kind(_global_backward_kind, "regular", "global Module hook")
    return _add(_global_backward_hooks, hook)


def _one_kind(kinds: list[str], wanted: str, where: str) -> None:
    if kinds and kinds[0] != wanted:
        raise RuntimeError(
            f"Cannot use both regular backward hooks and full backward hooks on a {where}: {kinds[0]} ones are "
            f"registered, got a {wanted} one. Use register_full_backward_hook for all of them."
        )
    kinds[:] = [wanted]


class HookMixin:
    """The hook tables of one module, and the methods that register in them."""

    _backward_pre_hooks: OrderedDict[int, Hook]
    _backward_hooks: OrderedDict[int, Hook]
    _is_full_backward_hook: bool | None
    _forward_hooks: OrderedDict[int, Hook]
    _forward_hooks_with_kwargs: OrderedDict[int, bool]
    _forward_hooks_always_called: OrderedDict[int, bool]
    _forward_pre_hooks: OrderedDict[int, Hook]
    _forward_pre_hooks_with_kwargs: OrderedDict[int, bool]

    def register_forward_pre_hook(
        self, hook: Hook, *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """`hook(module, args)` runs before forward; what it returns (not None) replaces the positional arguments.

        with_kwargs=True: `hook(module, args, kwargs)`, which returns None or `(args, kwargs)`. prepend=True: before the
        hooks already there.
        """
        handle = _add(self._forward_pre_hooks, hook, (self._forward_pre_hooks_with_kwargs, with_kwargs))
        if prepend:
            self._forward_pre_hooks.move_to_end(handle.id, last=False)
        return handle

    def register_forward_hook(
        self, hook: Hook, *, prepend: bool = False, with_kwargs: bool = False, always_call: bool = False
    ) -> RemovableHandle:
        """`hook(module, args, output)` runs after forward; what it returns (not None) replaces the output.

        with_kwargs=True: `hook(module, args, kwargs, output)`. always_call=True: also when forward raised (output is
        then None, and the error goes on afterwards).
        """
        handle = _add(
            self._forward_hooks,
            hook,
            (self._forward_hooks_with_kwargs, with_kwargs),
            (self._forward_hooks_always_called, always_call),
        )
        if prepend:
            self._forward_hooks.move_to_end(handle.id, last=False)
        return handle

    def register_full_backward_pre_hook(self, hook: Hook, prepend: bool = False) -> RemovableHandle:
        """`hook(module, grad_output)` runs when the gradient reaches the output; a returned tuple replaces it."""
        handle = _add(self._backward_pre_hooks, hook)
        if prepend:
            self._backward_pre_hooks.move_to_end(handle.id, last=False)
        return handle

    def register_full_backward_hook(self, hook: Hook, prepend: bool = False) -> RemovableHandle:
        """`hook(module, grad_input, grad_output)` runs when the inputs' gradients exist; a returned tuple replaces
        grad_input. Both are tuples with None where an argument is no tensor or needs no gradient."""
        self._choose_backward_kind(full=True)
        handle = _add(self._backward_hooks, hook)
        if prepend:
            self._backward_hooks.move_to_end(handle.id, last=False)
        return handle

    def register_backward_hook(self, hook: Hook) -> RemovableHandle:
        """Older name of `register_full_backward_hook`: same arguments, always the gradients of the whole module."""
        self._choose_backward_kind(full=False)
        return _add(self._backward_hooks, hook)

    def _choose_backward_kind(self, full: bool) -> None:
        registered = (
            [] if self._is_full_backward_hook is None else ["full" if self._is_full_backward_hook else "regular"]
        )
        _one_kind(registered, "full" if full else "regular", "single Module")
        self._is_full_backward_hook = full


def call_with_hooks(module: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """One call of `module` that has hooks, or while global ones exist."""
    result = None
    called: set[int] = set()
    settle_all()  # hooks see tensors that are what they seem
    try:
        args, kwargs = _run_forward_pre_hooks(module, args, kwargs)
        border = _backward_border(module)
        if border is not None:
            args = border.enter(args)
        result = module.forward(*args, **kwargs)
        settle_all()
        for hook_id, hook, with_kwargs, _ in _forward_hooks_of(module):
            called.add(hook_id)
            replaced = hook(module, args, kwargs, result) if with_kwargs else hook(module, args, result)
            if replaced is not None:
                result = replaced
        return result if border is None else border.leave(result)
    except Exception:
        _run_always_called(module, args, kwargs, result, called)
        raise


def _run_forward_pre_hooks(
    module: Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    hooks = (*_global_forward_pre_hooks.items(), *module._forward_pre_hooks.items())
    for hook_id, hook in hooks:
        if hook_id in module._forward_pre_hooks_with_kwargs:
            replaced = hook(module, args, kwargs)
            if replaced is not None:
                if not (isinstance(replaced, tuple) and len(replaced) == 2):
                    raise RuntimeError(
                        f"{type(module).__name__}: a forward pre-hook with with_kwargs=True must return None or "
                        f"(args, kwargs), got {replaced!r}."
                    )
                args, kwargs = replaced
        else:
            replaced = hook(module, args)
            if replaced is not None:
                args = replaced if isinstance(replaced, tuple) else (replaced,)
    return args, kwargs


def _forward_hooks_of(module: Module) -> Iterator[tuple[int, Hook, bool, bool]]:
    """(id, hook, with_kwargs, always_call), global ones first. A snapshot: a hook may remove itself while it runs."""
    for hook_id, hook in tuple(_global_forward_hooks.items()):
        yield (
            hook_id,
            hook,
            hook_id in _global_forward_hooks_with_kwargs,
            hook_id in _global_forward_hooks_always_called,
        )
    for hook_id, hook in tuple(module._forward_hooks.items()):
        yield (
            hook_id,
            hook,
            hook_id in module._forward_hooks_with_kwargs,
            hook_id in module._forward_hooks_always_called,
        )


def _run_always_called(
    module: Module, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any, called: set[int]
) -> None:
    """forward raised: the hooks that asked for it still run; their own errors become warnings."""
    for hook_id, hook, with_kwargs, always in _forward_hooks_of(module):
        if not always or hook_id in called:
            continue
        try:
            replaced = hook(module, args, kwargs, result) if with_kwargs else hook(module, args, result)
        except Exception as error:
            warnings.warn(
                f"{type(module).__name__}: a forward hook with always_call=True raised an exception that was silenced "
                f"as another error was raised in forward: {error}",
                stacklevel=4,
            )
            continue
        if replaced is not None:
            result = replaced


def _backward_border(module: Module) -> _Border | None:
    pre = [*_global_backward_pre_hooks.values(), *module._backward_pre_hooks.values()]
    full = [*_global_backward_hooks.values(), *module._backward_hooks.values()]
    return _Border(module, pre, full) if pre or full else None


class _Border:
    """Identity operations around one forward, whose backward is where the backward hooks run."""

    def __init__(self, module: Module, pre_hooks: list[Hook], hooks: list[Hook]) -> None:
        self.module, self.pre_hooks, self.hooks = module, pre_hooks, hooks
        self.grad_outputs: tuple[Tensor | None, ...] | None = None
        self.input_places: list[int] | None = None  # None: no input needs a gradient
        self.inputs = 0

    def enter(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        self.inputs = len(args)
        args, self.input_places = _wrap_tensors(args, self._on_grad_inputs)
        return args

    def leave(self, result: Any) -> Any:
        if not isinstance(result, (Tensor, tuple)):
            warnings.warn(
                f"{type(self.module).__name__}: for backward hooks to be called, module output should be a Tensor or a "
                f"tuple of Tensors but received {type(result)}.",
                stacklevel=4,
            )
            return result
        if isinstance(result, tuple):
            return _wrap_tensors(result, self._on_grad_outputs)[0]
        return _wrap_tensors((result,), self._on_grad_outputs)[0][0]

    def _on_grad_outputs(self, grads: list[Tensor | None], places: list[int], size: int) -> list[Tensor | None]:
        grad_outputs = _spread(grads, places, size)
        for hook in self.pre_hooks:
            replaced = hook(self.module, grad_outputs)
            if replaced is not None:
                grad_outputs = self._checked(replaced, size, "pre hook", "grad_output")
        self.grad_outputs = grad_outputs
        if self.input_places is None:
            self._finish_without_inputs()
        return [grad_outputs[i] for i in places]

    def _finish_without_inputs(self) -> None:
        """No gradient will arrive at the inputs, so the hooks run here, with None for every input."""
        if self.hooks:
            warnings.warn(
                f"{type(self.module).__name__}: Full backward hook is firing when gradients are computed with respect "
                "to module outputs since no inputs require gradients: grad_input is None for every input.",
                stacklevel=2,
            )
        for hook in self.hooks:
            replaced = hook(self.module, (None,) * self.inputs, self.grad_outputs)
            if replaced is not None and any(grad is not None for grad in replaced):
                raise RuntimeError(
                    f"{type(self.module).__name__}: a backward hook of a module where no input requires gradient "
                    f"should always return None, got {replaced!r}."
                )
        self.grad_outputs = None

    def _on_grad_inputs(self, grads: list[Tensor | None], places: list[int], size: int) -> list[Tensor | None]:
        if self.grad_outputs is None:  # the gradient came to the input past the output, as in a double backward
            return grads
        grad_inputs = _spread(grads, places, size)
        for hook in self.hooks:
            replaced = hook(self.module, grad_inputs, self.grad_outputs)
            if replaced is not None:
                grad_inputs = self._checked(replaced, size, "hook", "grad_input")
        self.grad_outputs = None
        return [grad_inputs[i] for i in places]

    def _checked(self, replaced: Any, size: int, kind: str, what: str) -> tuple[Tensor | None, ...]:
        replaced = (replaced,) if isinstance(replaced, Tensor) else tuple(replaced)
        if len(replaced) != size:
            raise RuntimeError(
                f"Backward {kind} of {type(self.module).__name__} returned an invalid number of {what}, "
                f"got {len(replaced)}, but expected {size}."
            )
        return replaced


def _wrap_tensors(values: tuple[Any, ...], callback: Hook) -> tuple[tuple[Any, ...], list[int] | None]:
    """Passes the tensors among `values` through one boundary; also the places they stand at (None: no gradient)."""
    places = [i for i, value in enumerate(values) if isinstance(value, Tensor)]
    tensors = [values[i] for i in places]
    wrapped = boundary(tensors, lambda grads: callback(grads, places, len(values)))
    if wrapped is None:
        return values, None
    out = list(values)
    for i, tensor in zip(places, wrapped, strict=True):
        out[i] = tensor
    return (tuple(out) if type(values) is tuple else type(values)(*out)), places


def _spread(grads: list[Tensor | None], places: list[int], size: int) -> tuple[Tensor | None, ...]:
    full: list[Tensor | None] = [None] * size
    for i, grad in zip(places, grads, strict=True):
        full[i] = grad
    return tuple(full)
