"""Making a module without spending time on initial values."""

from __future__ import annotations

import inspect
from typing import Any

from faltung.nn.modules.module import Module


def skip_init(module_cls: type[Module], *args: Any, **kwargs: Any) -> Module:
    """`module_cls(*args, **kwargs)` whose random stream stays untouched: for weights that are loaded next.

    The values are undefined. The class must take `device=`, as all of `nn` do; RuntimeError otherwise.
    """
    from faltung.random import fork_rng

    if not issubclass(module_cls, Module):
        raise RuntimeError(f"skip_init: expected a Module class, got {module_cls}.")
    if "device" not in inspect.signature(module_cls).parameters:
        raise RuntimeError(f"skip_init: {module_cls.__name__} takes no `device` argument.")
    with fork_rng():
        return module_cls(*args, **kwargs).to_empty(device=kwargs.get("device", "cpu"))
