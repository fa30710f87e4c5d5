"""Calling a module with other parameters than its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from faltung.nn.modules.module import Module
from faltung.tensor import Tensor


def functional_call(
    module: Module,
    parameters_and_buffers: Mapping[str, Tensor],
    args: Any = None,
    kwargs: dict[str, Any] | None = None,
    *,
    tie_weights: bool = True,
    strict: bool = False,
) -> Any:
    """`module(*args, **kwargs)` with the named parameters and buffers replaced for the time of the call.

    Gradients flow into the given tensors. tie_weights: a tensor shared under several names is replaced under all.
    strict: every parameter and buffer must be given. RuntimeError for unknown names.
    """
    if not isinstance(parameters_and_buffers, Mapping):
        raise ValueError(
            f"functional_call: expected a dict of tensors by name, got {type(parameters_and_buffers).__name__}."
        )
    args = () if args is None else args if isinstance(args, tuple) else (args,)
    with _replaced(module, parameters_and_buffers, tie_weights, strict):
        return module(*args, **(kwargs or {}))


@contextmanager
def _replaced(module: Module, values: Mapping[str, Tensor], tie_weights: bool, strict: bool) -> Iterator[None]:
    own = {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }
    unexpected = [name for name in values if name not in own]
    missing = [name for name in own if name not in values] if strict else []
    if unexpected or missing:
        raise RuntimeError(
            f"functional_call of {type(module).__name__}: "
            + (f"Unexpected key(s): {', '.join(unexpected)}. " if unexpected else "")
            + (f"Missing key(s): {', '.join(missing)}." if missing else "")
        )
    given = dict(values)
    if tie_weights:
        by_identity = {id(own[name]): value for name, value in values.items()}
        given.update(
            {name: by_identity[id(t)] for name, t in own.items() if id(t) in by_identity and name not in given}
        )
    places = []
    for name, value in given.items():
        path, _, attribute = name.rpartition(".")
        owner = module.get_submodule(path)
        table = owner._parameters if attribute in owner._parameters else owner._buffers
        places.append((table, attribute, table[attribute], value))
    for table, attribute, _, value in places:
        table[attribute] = value  # type: ignore[assignment]  # past __setattr__, which would want a Parameter
    try:
        yield
    finally:
        for table, attribute, kept, _ in places:
            table[attribute] = kept  # type: ignore[assignment]
