"""state_dict and load_state_dict: a module's parameters and persistent buffers by dotted name, out and in again."""

from __future__ import annotations

import itertools
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from faltung.autograd import no_grad
from faltung.autograd.hooks import RemovableHandle
from faltung.nn.parameter import Parameter, is_lazy
from faltung.tensor import Tensor

from ._hooks import Hook, _WrappedHook

if TYPE_CHECKING:
    from .module import Module

_EXTRA_STATE_KEY_SUFFIX = "_extra_state"


class _Keys(NamedTuple):
    missing_keys: list[str]
    unexpected_keys: list[str]


class _IncompatibleKeys(_Keys):
    """What `load_state_dict` returns: the keys that model and state dict do not share."""

    __slots__ = ()

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return f"_IncompatibleKeys(missing_keys={self.missing_keys}, unexpected_keys={self.unexpected_keys})"

    __str__ = __repr__


class StateMixin:
    """The saving and loading half of Module."""

    _version: int = 1  # a layer raises this when its keys change, and translates older ones in _load_from_state_dict
    _parameters: dict[str, Parameter | None]
    _buffers: dict[str, Tensor | None]
    _modules: dict[str, Module | None]
    _non_persistent_buffers_set: set[str]
    _state_dict_hooks: OrderedDict[int, Hook]
    _state_dict_pre_hooks: OrderedDict[int, Hook]
    _load_state_dict_pre_hooks: OrderedDict[int, Hook]
    _load_state_dict_post_hooks: OrderedDict[int, Hook]

    def get_extra_state(self) -> Any:
        """More state than tensors: define it together with `set_extra_state`; the value stands in the state dict."""
        raise RuntimeError(f"{type(self).__name__}: get_extra_state is not defined for this class. Override it.")

    def set_extra_state(self, state: Any) -> None:
        """Takes back what `get_extra_state` returned."""
        raise RuntimeError(f"{type(self).__name__}: set_extra_state is not defined for this class. Override it.")

    def _register_state_dict_hook(self, hook: Hook) -> RemovableHandle:
        """`hook(module, state_dict, prefix, metadata)`; what it returns (not None) replaces the state dict."""
        if getattr(hook, "_from_public_api", False):
            raise RuntimeError("state_dict hook: this function was registered by register_state_dict_post_hook before.")
        handle = RemovableHandle(self._state_dict_hooks)
        self._state_dict_hooks[handle.id] = hook
        return handle

    def register_state_dict_post_hook(self, hook: Hook) -> RemovableHandle:
        """`hook(module, state_dict, prefix, metadata)` runs after this module filled state_dict; it edits in place."""
        hook._from_public_api = True  # type: ignore[attr-defined]
        handle = RemovableHandle(self._state_dict_hooks)
        self._state_dict_hooks[handle.id] = hook
        return handle

    def register_state_dict_pre_hook(self, hook: Hook) -> RemovableHandle:
        """`hook(module, prefix, keep_vars)` runs before this module writes into a state dict."""
        handle = RemovableHandle(self._state_dict_pre_hooks)
        self._state_dict_pre_hooks[handle.id] = hook
        return handle

    def _register_load_state_dict_pre_hook(self, hook: Hook, with_module: bool = False) -> RemovableHandle:
        handle = RemovableHandle(self._load_state_dict_pre_hooks)
        self._load_state_dict_pre_hooks[handle.id] = _WrappedHook(hook, self if with_module else None)  # type: ignore[arg-type]
        return handle

    def register_load_state_dict_pre_hook(self, hook: Hook) -> RemovableHandle:
        """`hook(module, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)` runs
        before this module loads: the place to rename keys of an older layout."""
        return self._register_load_state_dict_pre_hook(hook, with_module=True)

    def register_load_state_dict_post_hook(self, hook: Hook) -> RemovableHandle:
        """`hook(module, incompatible_keys)` runs after module and children loaded; it edits the keys in place."""
        handle = RemovableHandle(self._load_state_dict_post_hooks)
        self._load_state_dict_post_hooks[handle.id] = hook
        return handle

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        """Writes this module's own entries (not its children's) into `destination`."""
        persistent = ((k, b) for k, b in self._buffers.items() if k not in self._non_persistent_buffers_set)
        for name, tensor in itertools.chain(self._parameters.items(), persistent):
            if tensor is not None:
                destination[prefix + name] = tensor if keep_vars else tensor.detach()
        if type(self).get_extra_state is not StateMixin.get_extra_state:
            destination[prefix + _EXTRA_STATE_KEY_SUFFIX] = self.get_extra_state()

    def state_dict(self, *args: Any, destination: Any = None, prefix: str = "", keep_vars: bool = False) -> Any:
        """All parameters and persistent buffers by dotted name, in order of registration, sharing the tensors' memory.

        keep_vars=True returns the tensors themselves (with gradients) rather than detached ones.
        """
        if args:
            warnings.warn(
                "Module.state_dict: pass destination=, prefix= and keep_vars= by name; positions are deprecated.",
                FutureWarning,
                stacklevel=2,
            )
            destination = args[0] if destination is None else destination
            prefix = args[1] if len(args) > 1 and prefix == "" else prefix
            keep_vars = args[2] if len(args) > 2 and keep_vars is False else keep_vars
        if destination is None:
            destination = OrderedDict()
            destination._metadata = OrderedDict()  # versions, by module name
        metadata = {"version": self._version}
        if hasattr(destination, "_metadata"):
            destination._metadata[prefix[:-1]] = metadata
        for hook in self._state_dict_pre_hooks.values():
            hook(self, prefix, keep_vars)
        self._save_to_state_dict(destination, prefix, keep_vars)
        for name, child in self._modules.items():
            if child is not None:
                child.state_dict(destination=destination, prefix=f"{prefix}{name}.", keep_vars=keep_vars)
        for hook in self._state_dict_hooks.values():
            replaced = hook(self, destination, prefix, metadata)
            if replaced is None:
                continue
            if getattr(hook, "_from_public_api", False):
                raise RuntimeError("state_dict post-hook must return None")
            destination = replaced
        return destination

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Loads this module's own entries (not its children's) and adds to the three lists what went wrong.

        The method to override when a layer must read the keys of an older version (`local_metadata["version"]`).
        """
        for hook in self._load_state_dict_pre_hooks.values():
            hook(state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)
        persistent = ((k, b) for k, b in self._buffers.items() if k not in self._non_persistent_buffers_set)
        own = {k: v for k, v in itertools.chain(self._parameters.items(), persistent) if v is not None}
        assign = bool(local_metadata.get("assign_to_params_buffers", False))
        for name, tensor in own.items():
            if prefix + name in state_dict:
                problem = self._load_tensor(name, tensor, state_dict[prefix + name], prefix + name, assign)
                if problem:
                    error_msgs.append(problem)
            elif strict:
                missing_keys.append(prefix + name)
        extra_key = prefix + _EXTRA_STATE_KEY_SUFFIX
        if type(self).set_extra_state is not StateMixin.set_extra_state:
            if extra_key in state_dict:
                self.set_extra_state(state_dict[extra_key])
            elif strict:
                missing_keys.append(extra_key)
        elif strict and extra_key in state_dict:
            unexpected_keys.append(extra_key)
        if strict:
            for key in state_dict:
                if key.startswith(prefix) and key != extra_key:
                    first, _, rest = key[len(prefix) :].partition(".")
                    known = first in self._modules if rest or key.endswith(".") else first in own
                    if not known:
                        unexpected_keys.append(key)

    def _load_tensor(self, name: str, tensor: Tensor, value: Any, key: str, assign: bool) -> str | None:
        """Copies (or assigns) one value; returns what is wrong with it, if anything."""
        if not isinstance(value, Tensor):
            return (
                f'While copying the parameter named "{key}", expected faltung.Tensor from the checkpoint but received '
                f"{type(value)}. Convert it with faltung.as_tensor(...) first."
            )
        lazy = is_lazy(tensor)
        if not lazy and tensor.dim() == 0 and tuple(value.shape) == (1,):
            value = value[0]  # scalars used to be saved with one dimension
        if not lazy and value.shape != tensor.shape:
            return (
                f"size mismatch for {key}: copying a param with shape {value.shape} from checkpoint, "
                f"the shape in current model is {tensor.shape}."
            )
        try:
            with no_grad():
                if not assign:
                    tensor.copy_(value)
                elif not isinstance(tensor, Parameter):
                    setattr(self, name, value)
                elif isinstance(value, Parameter):
                    setattr(self, name, value.requires_grad_(tensor.requires_grad))
                else:
                    setattr(self, name, Parameter(value, requires_grad=tensor.requires_grad))
        except Exception as error:
            return (
                f'While copying the parameter named "{key}", whose dimensions in the model are {tensor.size()} and '
                f"whose dimensions in the checkpoint are {value.size()}, an exception occurred : {error.args}."
            )
        return None

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> _IncompatibleKeys:
        """Copies values in by name; every missing, unexpected or mismatched key is reported in one RuntimeError.

        strict=False loads what fits by name and returns the rest as (missing_keys, unexpected_keys); a wrong shape is
        an error either way. assign=True takes the given tensors themselves rather than copying their values.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(
                f"Expected state_dict to be dict-like, got {type(state_dict)}. "
                "Pass what model.state_dict() returned, or faltung.load(path)."
            )
        missing: list[str] = []
        unexpected: list[str] = []
        errors: list[str] = []
        metadata = getattr(state_dict, "_metadata", None)
        values: Any = OrderedDict(state_dict)  # a shallow copy: hooks and layers may rename keys in it
        if metadata is not None:
            values._metadata = metadata
        _load_tree(self, values, metadata or {}, assign, (missing, unexpected, errors), "")  # type: ignore[arg-type]
        if strict:
            for what, keys in (("Missing", missing), ("Unexpected", unexpected)):
                if keys:
                    quoted = ", ".join(f'"{key}"' for key in keys)
                    errors.insert(0 if what == "Missing" else bool(missing), f"{what} key(s) in state_dict: {quoted}. ")
        if errors:
            raise RuntimeError(f"Error(s) in loading state_dict for {type(self).__name__}:\n\t" + "\n\t".join(errors))
        return _IncompatibleKeys(missing, unexpected)


def _load_tree(
    module: Module,
    values: dict[str, Any],
    metadata: Mapping[str, dict[str, Any]],
    assign: bool,
    problems: tuple[list[str], list[str], list[str]],
    prefix: str,
) -> None:
    local_metadata = dict(metadata.get(prefix[:-1], {}))
    if assign:
        local_metadata["assign_to_params_buffers"] = assign
    missing, unexpected, errors = problems
    module._load_from_state_dict(values, prefix, local_metadata, True, missing, unexpected, errors)
    for name, child in module._modules.items():
        if child is not None:
            child_prefix = f"{prefix}{name}."
            child_values = {k: v for k, v in values.items() if k.startswith(child_prefix)}
            _load_tree(child, child_values, metadata, assign, problems, child_prefix)
    keys = _IncompatibleKeys(missing, unexpected)
    for hook in module._load_state_dict_post_hooks.values():
        if hook(module, keys) is not None:
            raise AssertionError(
                "A hook of register_load_state_dict_post_hook must not return a value: edit incompatible_keys in place."
            )
