"""What all optimizers share: parameter groups, state, state_dict and hooks."""

from __future__ import annotations

import copy
import functools
import warnings
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable
from typing import Any

from faltung.autograd.hooks import RemovableHandle
from faltung.autograd.modes import settle_all
from faltung.tensor import Tensor

__all__ = ["Optimizer", "register_optimizer_step_post_hook", "register_optimizer_step_pre_hook"]

Closure = Callable[[], Any]
ParamsT = Iterable[Any]
StateDict = dict[str, Any]

_global_pre_hooks: OrderedDict[int, Callable[..., Any]] = OrderedDict()
_global_post_hooks: OrderedDict[int, Callable[..., Any]] = OrderedDict()


class _Required:
    """The default of an option that every parameter group must give."""

    def __repr__(self) -> str:
        return "<required parameter>"


required = _Required()


def register_optimizer_step_pre_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Call `hook(optimizer, args, kwargs)` before every step of every optimizer."""
    return RemovableHandle.adding(_global_pre_hooks, hook)


def register_optimizer_step_post_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Call `hook(optimizer, args, kwargs)` after every step of every optimizer."""
    return RemovableHandle.adding(_global_post_hooks, hook)


def _with_hooks(step: Callable[..., Any]) -> Callable[..., Any]:
    """`step` between its pre- and post-hooks; a step that calls its base class's step runs them once."""

    @functools.wraps(step)
    def run(self: Optimizer, *args: Any, **kwargs: Any) -> Any:
        self._opt_called = True
        settle_all()
        if self._stepping:
            return step(self, *args, **kwargs)
        for hook in (*_global_pre_hooks.values(), *self._optimizer_step_pre_hooks.values()):
            result = hook(self, args, kwargs)
            if result is not None:
                if not isinstance(result, tuple) or len(result) != 2:
                    raise RuntimeError(
                        f"{type(self).__name__}.step: expected a step pre-hook to return None or (args, kwargs), "
                        f"got {result!r}."
                    )
                args, kwargs = result
        self._stepping = True
        try:
            loss = step(self, *args, **kwargs)
        finally:
            self._stepping = False
        for hook in (*self._optimizer_step_post_hooks.values(), *_global_post_hooks.values()):
            hook(self, args, kwargs)
        return loss

    return run


class Optimizer:
    """Base class: holds the parameters in groups, each with its options, and a state per parameter.

    Args:
        params: tensors, (name, tensor) pairs, or dicts with a key `"params"` and options of their own.
        defaults: options of the groups that don't give theirs.

    Attributes:
        param_groups: list of dicts, each with its `"params"` and options.
        state: for each parameter a dict of what the steps remember.

    Raises:
        TypeError: `params` is a single tensor, or holds something that is no tensor.
        ValueError: `params` is empty, holds a non-leaf tensor, or a parameter stands in two groups.
    """

    param_groups: list[dict[str, Any]]
    state: defaultdict[Any, Any]
    _opt_called = False  # whether step() ever ran: learning rate schedulers warn when they come first
    _scheduled = False  # whether a learning rate scheduler watches
    _stepping = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "step" in cls.__dict__:
            cls.step = _with_hooks(cls.__dict__["step"])  # type: ignore[method-assign]

    def __init__(self, params: ParamsT, defaults: dict[str, Any]) -> None:
        self.defaults = defaults
        self._make_hook_tables()
        if isinstance(params, Tensor):
            raise TypeError(
                f"{type(self).__name__}: expected an iterable of tensors or dicts, got a single tensor "
                f"{tuple(params.shape)}. Write [tensor], or model.parameters()."
            )
        self.state = defaultdict(dict)
        self.param_groups = []
        groups = list(params)
        if not groups:
            raise ValueError(
                f"{type(self).__name__}: optimizer got an empty parameter list. A generator such as model.parameters() "
                "can be read only once, and modules in a plain Python list register no parameters (use ModuleList)."
            )
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        for group in groups:
            self.add_param_group(group)

    def _make_hook_tables(self) -> None:
        self._optimizer_step_pre_hooks: OrderedDict[int, Any] = OrderedDict()
        self._optimizer_step_post_hooks: OrderedDict[int, Any] = OrderedDict()
        self._optimizer_state_dict_pre_hooks: OrderedDict[int, Any] = OrderedDict()
        self._optimizer_state_dict_post_hooks: OrderedDict[int, Any] = OrderedDict()
        self._optimizer_load_state_dict_pre_hooks: OrderedDict[int, Any] = OrderedDict()
        self._optimizer_load_state_dict_post_hooks: OrderedDict[int, Any] = OrderedDict()

    # --- parameters

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters, with options of their own: `{"params": ..., "lr": ...}`."""
        where = f"{type(self).__name__}.add_param_group"
        if not isinstance(param_group, dict):
            raise TypeError(f"{where}: param_group must be a dict, got {type(param_group).__name__}.")
        params = param_group["params"]
        if isinstance(params, Tensor):
            params = [params]
        elif isinstance(params, set):
            raise TypeError(
                f"{where}: expected parameters in ordered collections, got a set, whose order changes between runs. "
                "Use a list."
            )
        param_group["params"] = list(params)
        self._split_names(param_group, where)
        for param in param_group["params"]:
            self._check_param(param, where)
        for name, default in self.defaults.items():
            if default is required and name not in param_group:
                raise ValueError(f"{where}: parameter group didn't specify a value of required parameter {name}.")
            param_group.setdefault(name, default)

        identities = [id(param) for param in param_group["params"]]
        if len(set(identities)) != len(identities):
            warnings.warn(
                f"{where}: optimizer contains a parameter group with duplicate parameters; each step updates them more "
                "than once.",
                stacklevel=3,
            )
        known = {id(param) for group in self.param_groups for param in group["params"]}
        if not known.isdisjoint(identities):
            raise ValueError(f"{where}: some parameters appear in more than one parameter group.")
        self.param_groups.append(param_group)

    def _split_names(self, group: dict[str, Any], where: str) -> None:
        """Turn (name, tensor) pairs into `params` and `param_names`."""
        named = [isinstance(param, tuple) for param in group["params"]]
        if any(named):
            if not all(named):
                raise ValueError(
                    f"{where}: all optimizer params should be with/without names. Some param names are missing."
                )
            pairs = group["params"]
            group["params"] = [param for _, param in pairs]
            group["param_names"] = [name for name, _ in pairs]
        if self.param_groups and ("param_names" in group) != ("param_names" in self.param_groups[0]):
            raise ValueError(f"{where}: expected either all parameter groups with names or none, got a mixture.")

    def _check_param(self, param: Any, where: str) -> None:
        if not isinstance(param, Tensor):
            raise TypeError(f"{where}: optimizer can only optimize Tensors, but one of the params is {type(param)}.")
        if not self.defaults.get("differentiable") and not (param.is_leaf or param.retains_grad):
            raise ValueError(
                f"{where}: can't optimize a non-leaf Tensor: {tuple(param.shape)} is the result of {param.grad_fn}. "
                "Optimize the tensor that it was made from, or detach() it first."
            )

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters; with `set_to_none=False` fill them with zeros instead."""
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is None:
                    continue
                if set_to_none:
                    param.grad = None
                else:
                    param.grad = param.grad.detach()
                    param.grad.zero_()

    def step(self, closure: Closure | None = None) -> Any:
        """Update the parameters once. `closure` computes the loss anew, with gradients, and returns it."""
        raise NotImplementedError(f"{type(self).__name__}.step: an optimizer has to define its step().")

    # --- hooks

    def register_step_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call `hook(optimizer, args, kwargs)` before each step; it may return new (args, kwargs)."""
        return RemovableHandle.adding(self._optimizer_step_pre_hooks, hook)

    def register_step_post_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call `hook(optimizer, args, kwargs)` after each step."""
        return RemovableHandle.adding(self._optimizer_step_post_hooks, hook)

    def register_state_dict_pre_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Call `hook(optimizer)` before `state_dict`."""
        return _register(self._optimizer_state_dict_pre_hooks, hook, prepend)

    def register_state_dict_post_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Call `hook(optimizer, state_dict)` after `state_dict`; what it returns takes the dict's place."""
        return _register(self._optimizer_state_dict_post_hooks, hook, prepend)

    def register_load_state_dict_pre_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Call `hook(optimizer, state_dict)` before loading; what it returns is loaded instead."""
        return _register(self._optimizer_load_state_dict_pre_hooks, hook, prepend)

    def register_load_state_dict_post_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Call `hook(optimizer)` after loading."""
        return _register(self._optimizer_load_state_dict_post_hooks, hook, prepend)

    # --- state

    def state_dict(self) -> StateDict:
        """`{"state": {index: ...}, "param_groups": [...]}`, the parameters numbered through the groups in order."""
        for hook in self._optimizer_state_dict_pre_hooks.values():
            hook(self)
        numbers: dict[int, int] = {}
        groups = []
        for group in self.param_groups:
            for param in group["params"]:
                numbers.setdefault(id(param), len(numbers))
            packed = {key: value for key, value in group.items() if key != "params"}
            packed["params"] = [numbers[id(param)] for param in group["params"]]
            groups.append(packed)
        state = {(numbers[id(key)] if isinstance(key, Tensor) else key): value for key, value in self.state.items()}
        result: StateDict = {"state": state, "param_groups": groups}
        for hook in self._optimizer_state_dict_post_hooks.values():
            replaced = hook(self, result)
            result = result if replaced is None else replaced
        return result

    def load_state_dict(self, state_dict: StateDict) -> None:
        """Take over state and options that `state_dict()` returned. Tensors are copied, in their parameter's dtype.

        Raises:
            ValueError: the number of groups, or of parameters in a group, differs.
        """
        state_dict = state_dict.copy()
        for hook in self._optimizer_load_state_dict_pre_hooks.values():
            replaced = hook(self, state_dict)
            state_dict = state_dict if replaced is None else replaced

        where = f"{type(self).__name__}.load_state_dict"
        groups, saved_groups = self.param_groups, copy.deepcopy(state_dict["param_groups"])
        if len(groups) != len(saved_groups):
            raise ValueError(
                f"{where}: loaded state dict has a different number of parameter groups: expected {len(groups)}, got "
                f"{len(saved_groups)}."
            )
        for number, (group, saved) in enumerate(zip(groups, saved_groups, strict=True)):
            if len(group["params"]) != len(saved["params"]):
                raise ValueError(
                    f"{where}: loaded state dict contains a parameter group that doesn't match the size of "
                    f"optimizer's group: group {number} has {len(group['params'])} parameters, the loaded one "
                    f"{len(saved['params'])}."
                )

        saved_ids = [number for saved in saved_groups for number in saved["params"]]
        params = dict(zip(saved_ids, (param for group in groups for param in group["params"]), strict=True))
        state: defaultdict[Any, Any] = defaultdict(dict)
        for key, value in state_dict["state"].items():
            if key in params:
                state[params[key]] = _fitted(value, params[key])
            else:
                state[key] = value
        for group, saved in zip(groups, saved_groups, strict=True):
            saved["params"] = group["params"]
            if "param_names" in group:
                saved["param_names"] = group["param_names"]
        self.__setstate__({"state": state, "param_groups": saved_groups})
        for hook in self._optimizer_load_state_dict_post_hooks.values():
            hook(self)

    def __getstate__(self) -> dict[str, Any]:
        return {"defaults": self.defaults, "state": self.state, "param_groups": self.param_groups}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if "_optimizer_step_pre_hooks" not in self.__dict__:
            self._make_hook_tables()
        for group in self.param_groups:
            for name, default in self.defaults.items():
                group.setdefault(name, default)

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for number, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {number}")
            lines += [f"    {key}: {group[key]}" for key in sorted(group) if key != "params"]
        return "\n".join([*lines, ")"])


def _register(hooks: OrderedDict[int, Any], hook: Callable[..., Any], prepend: bool) -> RemovableHandle:
    handle = RemovableHandle.adding(hooks, hook)
    if prepend:
        hooks.move_to_end(handle.id, last=False)
    return handle


def _fitted(value: Any, param: Tensor, key: str | None = None) -> Any:
    """A copy of loaded state: tensors in the parameter's dtype, but step counts in their own."""
    if isinstance(value, Tensor):
        if param.is_floating_point() and key != "step":
            return value.detach().clone().to(dtype=param.dtype)
        return value.detach().clone()
    if isinstance(value, dict):
        return {name: _fitted(entry, param, name) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_fitted(entry, param) for entry in value)
    return value
