"""Parametrisations: a parameter that is computed from another one by a module, every time it is read."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from faltung.autograd import no_grad
from faltung.nn.modules.container import ModuleDict, ModuleList
from faltung.nn.modules.module import Module
from faltung.nn.parameter import Parameter
from faltung.tensor import Tensor

M = TypeVar("M", bound=Module)

_cache: dict[tuple[int, str], Any] | None = None  # a dict inside cached()
_cache_depth = 0


@contextmanager
def cached() -> Iterator[None]:
    """Inside, every parametrised tensor is computed once: for recurrent use of one weight."""
    global _cache, _cache_depth
    _cache_depth += 1
    _cache = {} if _cache is None else _cache
    try:
        yield
    finally:
        _cache_depth -= 1
        if not _cache_depth:
            _cache = None


def _register(module: Module, name: str, tensor: Tensor) -> None:
    if isinstance(tensor, Parameter):
        module.register_parameter(name, tensor)
    else:
        module.register_buffer(name, tensor)


class ParametrizationList(ModuleList):
    """The parametrisations of one tensor, first to last, and their start: `original` (or original0, 1, ...)."""

    original: Tensor
    unsafe: bool

    def __init__(self, modules: Sequence[Module], original: Tensor, unsafe: bool = False) -> None:
        if not modules:
            raise ValueError("ParametrizationList requires one or more modules.")
        super().__init__(modules)
        self.unsafe = unsafe
        with no_grad():
            start: Any = original
            for module in reversed(self._steps()):
                if hasattr(module, "right_inverse"):
                    with suppress(NotImplementedError):
                        start = module.right_inverse(start)
        if not isinstance(start, (Tensor, Sequence)):
            raise ValueError(
                "'right_inverse' must return a Tensor or a Sequence of tensors (list, tuple...). "
                f"Got {type(start).__name__}"
            )
        self.is_tensor = isinstance(start, Tensor)
        self.ntensors = 1 if isinstance(start, Tensor) else len(start)
        shape, dtype = original.shape, original.dtype
        if isinstance(start, Tensor):
            if start.dtype != dtype:
                raise ValueError(
                    f"When `right_inverse` outputs one tensor, it may not change the dtype: {dtype}, {start.dtype}."
                )
            original.data = start.data
            _register(self, "original", original)
        else:
            self._register_originals(start, original)
        if not unsafe:
            _check_same("Registering a parametrization", self(), shape, dtype)

    def _register_originals(self, start: Sequence[Any], original: Tensor) -> None:
        for i, tensor in enumerate(start):
            if not isinstance(tensor, Tensor):
                raise ValueError(
                    "'right_inverse' must return a Tensor or a Sequence of tensors. "
                    f"Got element {i} of the sequence with type {type(tensor).__name__}."
                )
            if isinstance(original, Parameter):
                tensor = Parameter(tensor, original.requires_grad)
            _register(self, f"original{i}", tensor.requires_grad_(original.requires_grad))

    def right_inverse(self, value: Tensor) -> None:
        """Makes `value` the parametrised tensor: what assigning to it does."""
        with no_grad():
            start: Any = value
            for module in reversed(self._steps()):
                if not hasattr(module, "right_inverse"):
                    raise RuntimeError(
                        f"parametrization {type(module).__name__} does not implement right_inverse, so the tensor "
                        "can't be assigned to."
                    )
                start = module.right_inverse(start)
            if self.is_tensor:
                self._set_original("original", start)
                return
            if not isinstance(start, Sequence):
                raise ValueError(f"'right_inverse' must return a sequence of tensors. Got {type(start).__name__}.")
            if len(start) != self.ntensors:
                raise ValueError(
                    f"'right_inverse' must return a sequence of tensors of length {self.ntensors}. "
                    f"Got a sequence of length {len(start)}."
                )
            for i, tensor in enumerate(start):
                self._set_original(f"original{i}", tensor)

    def _set_original(self, name: str, tensor: Any) -> None:
        if not isinstance(tensor, Tensor):
            raise ValueError(f"`right_inverse` should return a tensor for {name}. Got {type(tensor).__name__}")
        kept = getattr(self, name)
        if tensor.dtype != kept.dtype:
            raise ValueError(
                f"The tensor returned by `right_inverse` has dtype {tensor.dtype} while `{name}` has dtype {kept.dtype}"
            )
        kept.data = tensor.data

    def _steps(self) -> list[Any]:
        """The parametrisations. `original` may be parametrised in turn, so not every child is one."""
        return [module for name, module in self._modules.items() if name.isdigit()]

    def forward(self) -> Tensor:
        """The parametrised tensor."""
        first, *rest = self._steps()
        starts = [self.original] if self.is_tensor else [getattr(self, f"original{i}") for i in range(self.ntensors)]
        value: Tensor = first(*starts)
        for module in rest:
            value = module(value)
        return value


def _check_same(what: str, value: Any, shape: Any, dtype: Any) -> None:
    if not isinstance(value, Tensor):
        raise ValueError(f"{what}: A parametrization must return a tensor. Got {type(value).__name__}.")
    for name, before, after in (("dtype", dtype, value.dtype), ("shape", shape, value.shape)):
        if after != before:
            raise ValueError(
                f"{what} may not change the {name} of the tensor, unless the `unsafe` flag is enabled: {before} became "
                f"{after}."
            )


def _inject_new_class(module: Module) -> None:
    """Gives the instance a class of its own, where properties can be put."""
    parent = type(module)

    def deepcopy(self: Any, memo: dict[int, Any]) -> Any:
        """The copy keeps the class made here, with its properties."""
        if id(self) not in memo:
            replica = self.__new__(type(self))
            memo[id(self)] = replica
            replica.__dict__ = copy.deepcopy(self.__dict__, memo)
        return memo[id(self)]

    def getstate(self: Any) -> Any:
        raise RuntimeError(
            "Serialization of parametrized modules is only supported through state_dict(): save that instead."
        )

    members: dict[str, Any] = {"__getstate__": getstate, "__module__": parent.__module__}
    if not hasattr(parent, "__deepcopy__"):
        members["__deepcopy__"] = deepcopy
    module.__class__ = type(f"Parametrized{parent.__name__}", (parent,), members)


def _inject_property(module: Module, name: str) -> None:
    def read(self: Module) -> Tensor:
        parametrization = self.parametrizations[name]
        if _cache is None:
            return parametrization()
        key = (id(self), name)
        if key not in _cache:
            _cache[key] = parametrization()
        return _cache[key]

    def write(self: Module, value: Tensor) -> None:
        self.parametrizations[name].right_inverse(value)

    setattr(type(module), name, property(read, write))


def register_parametrization(module: M, tensor_name: str, parametrization: Module, *, unsafe: bool = False) -> M:
    """Makes `module.<tensor_name>` the result of `parametrization(original)`.

    `original` stands under `module.parametrizations.<tensor_name>` and is what the optimizer trains. A `right_inverse`
    method gives the original for an assigned value. unsafe=True allows another shape or dtype. ValueError if the module
    has no parameter or buffer of that name.
    """
    parametrization.train(module.training)
    if is_parametrized(module, tensor_name):
        if not unsafe:
            _check_addition(module, tensor_name, parametrization)
        module.parametrizations[tensor_name].append(parametrization)
        module.parametrizations[tensor_name].unsafe |= unsafe
    elif tensor_name in module._buffers or tensor_name in module._parameters:
        entry = ParametrizationList([parametrization], getattr(module, tensor_name), unsafe=unsafe)
        delattr(module, tensor_name)
        if not is_parametrized(module):
            _inject_new_class(module)
            module.parametrizations = ModuleDict()
        _inject_property(module, tensor_name)
        module.parametrizations[tensor_name] = entry
    else:
        raise ValueError(
            f"Module '{module}' does not have a parameter, a buffer, or a parametrized element with name "
            f"'{tensor_name}'"
        )
    return module


def _check_addition(module: Module, name: str, parametrization: Module) -> None:
    """A further parametrisation must keep shape and dtype, and so must its right_inverse."""
    before = getattr(module, name)
    after = parametrization(before)
    _check_same("Registering a parametrization", after, before.shape, before.dtype)
    if hasattr(parametrization, "right_inverse"):
        try:
            back = parametrization.right_inverse(after)
        except NotImplementedError:
            return
        _check_same("parametrization.right_inverse", back, before.shape, before.dtype)


def is_parametrized(module: Module, tensor_name: str | None = None) -> bool:
    """Whether `module` has parametrisations, of `tensor_name` if one is given."""
    entries = getattr(module, "parametrizations", None)
    if not isinstance(entries, ModuleDict):
        return False
    return len(entries) > 0 if tensor_name is None else tensor_name in entries


def remove_parametrizations(module: M, tensor_name: str, leave_parametrized: bool = True) -> M:
    """Makes the tensor an ordinary one again: with its present value, or the original if not leave_parametrized."""
    if not is_parametrized(module, tensor_name):
        raise ValueError(f"Module {module} does not have a parametrization on {tensor_name}")
    entry = module.parametrizations[tensor_name]
    if entry.is_tensor:
        original = entry.original
        if leave_parametrized:
            with no_grad():
                original.data = getattr(module, tensor_name).data
    elif leave_parametrized:
        value = getattr(module, tensor_name)
        original = Parameter(value) if value.requires_grad else value
    else:
        raise ValueError(
            "Cannot leave unparametrized (`leave_parametrized=False`) a tensor that is parametrized in terms of a "
            "sequence of tensors."
        )
    delattr(type(module), tensor_name)
    del module.parametrizations[tensor_name]
    _register(module, tensor_name, original)
    if not is_parametrized(module):
        delattr(module, "parametrizations")
        module.__class__ = type(module).__bases__[0]
    return module


def type_before_parametrizations(module: Module) -> type:
    """The class the module had before its first parametrisation."""
    return type(module).__bases__[0] if is_parametrized(module) else type(module)


def transfer_parametrizations_and_params(
    from_module: Module, to_module: Module, tensor_name: str | None = None
) -> Module:
    """Gives `to_module` the parametrisations of `from_module` (of one tensor, or all) and their originals."""
    if is_parametrized(from_module):
        names = list(from_module.parametrizations) if tensor_name is None else [tensor_name]
        for name in names:
            source = from_module.parametrizations[name]
            if not hasattr(to_module, name):
                setattr(to_module, name, Parameter(getattr(from_module, name)))
            for parametrization in source:
                register_parametrization(to_module, name, parametrization)
            target = to_module.parametrizations[name]
            originals = ["original"] if source.is_tensor else [f"original{i}" for i in range(source.ntensors)]
            for original in originals:
                setattr(target, original, getattr(source, original))
    return to_module
