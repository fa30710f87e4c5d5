"""Modules kept in a plain list or dict register nothing: an optimizer never sees their parameters. Said once."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from faltung.nn.parameter import Parameter

if TYPE_CHECKING:
    from .module import Module

_warned: set[tuple[type, str]] = set()


def may_hide_modules(value: Any, module_type: type) -> bool:
    """Whether an attribute has to be looked into later: lists and dicts may still be filled, tuples may not."""
    if isinstance(value, tuple):
        return any(isinstance(item, (module_type, Parameter)) for item in value)
    return isinstance(value, (list, dict))


def warn_about_plain_containers(root: Module, suspects: Iterable[Module]) -> None:
    """Looks into the plain containers of `suspects` for modules and parameters that are not registered below `root`.

    Called when parameters are listed, not at the assignment: only then is it known what was never registered (a list
    whose modules also stand in a Sequential is fine, and an empty list may be filled later).
    """
    from .module import Module

    known: set[int] | None = None
    for module in suspects:
        for name in tuple(module.__dict__["_plain_containers"]):
            value = module.__dict__.get(name)
            if not isinstance(value, (list, dict, tuple)) or (type(module), name) in _warned:
                continue
            found = list(_contents(value, Module))
            if not found:
                continue
            if known is None:
                known = _registered_below(root)
            lost = [item for item in found if _has_unknown_parameters(item, known)]
            if lost:
                _warned.add((type(module), name))
                better = _better_container(value, isinstance(lost[0], Module))
                warnings.warn(
                    f"{type(module).__name__}.{name} is a plain {type(value).__name__} that holds "
                    f"{type(lost[0]).__name__}: nothing in it is registered, so parameters(), state_dict() and to() "
                    f"miss it and it will not be trained. Use self.{name} = nn.{better}(...).",
                    UserWarning,
                    stacklevel=4,
                )


def _contents(value: Any, module_type: type, depth: int = 0) -> Iterator[Any]:
    """Modules and parameters in nested lists, tuples and dicts, a few levels deep."""
    if isinstance(value, (module_type, Parameter)):
        yield value
    elif depth < 3 and isinstance(value, (list, tuple, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _contents(item, module_type, depth + 1)


def _registered_below(root: Module) -> set[int]:
    return {id(param) for module in root.modules() for param in module._parameters.values()}


def _has_unknown_parameters(item: Any, known: set[int]) -> bool:
    if isinstance(item, Parameter):
        return id(item) not in known
    params = (param for module in item.modules() for param in module._parameters.values())
    return any(param is not None and id(param) not in known for param in params)


def _better_container(value: Any, holds_modules: bool) -> str:
    return ("Module" if holds_modules else "Parameter") + ("Dict" if isinstance(value, dict) else "List")
