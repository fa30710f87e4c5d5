"""Layers that take their input size from the first input they see."""

from __future__ import annotations

import itertools
from typing import Any

from faltung.autograd import no_grad
from faltung.nn.parameter import is_lazy

from .module import Module

__all__ = ["LazyModuleMixin"]


class LazyModuleMixin:
    """Mixed in before the layer: `class LazyLinear(LazyModuleMixin, Linear)`.

    The layer makes its parameters as `UninitializedParameter` and gives them a shape in `initialize_parameters(*args)`,
    which runs with the first input, or the state dict does when one is loaded before. After the first call the instance
    becomes a `cls_to_become`.
    """

    cls_to_become: type[Module] | None = None

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._load_hook = self._register_load_state_dict_pre_hook(self._lazy_load_hook)
        self._initialize_hook = self.register_forward_pre_hook(self._infer_parameters, with_kwargs=True)

    def initialize_parameters(self, *args: Any, **kwargs: Any) -> None:
        """Gives the parameters their shapes, from the arguments of the first call."""
        raise NotImplementedError(f"initialize_parameters is not implemented for {type(self).__name__}")

    def has_uninitialized_params(self: Any) -> bool:
        """Whether a parameter or buffer still has no shape."""
        return any(is_lazy(tensor) for tensor in itertools.chain(self._parameters.values(), self._buffers.values()))

    def _lazy_load_hook(self: Any, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
        """Takes shapes from a state dict."""
        for name, tensor in itertools.chain(self._parameters.items(), self._buffers.items()):
            value = state_dict.get(prefix + name)
            if is_lazy(tensor) and value is not None and not is_lazy(value):
                with no_grad():
                    tensor.materialize(tuple(value.shape))

    @staticmethod
    def _infer_parameters(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> None:
        """The forward pre-hook of the first call: shapes, then an ordinary layer from here on."""
        module.initialize_parameters(*args, **(kwargs or {}))
        if module.has_uninitialized_params():
            raise RuntimeError(f"module {type(module).__name__} has not been fully initialized by its first input")
        module._initialize_hook.remove()
        module._load_hook.remove()
        del module._initialize_hook, module._load_hook
        if module.cls_to_become is not None:
            module.__class__ = module.cls_to_become
