"""How exact and how repeatable results are asked to be."""

from __future__ import annotations

from faltung.engine.flags import flags

__all__ = [
    "are_deterministic_algorithms_enabled",
    "get_float32_matmul_precision",
    "is_deterministic_algorithms_warn_only_enabled",
    "set_float32_matmul_precision",
    "use_deterministic_algorithms",
]

_PRECISIONS = ("highest", "high", "medium")


class _Asked:
    warn_only = False
    precision = "highest"


def use_deterministic_algorithms(mode: bool, *, warn_only: bool = False) -> None:
    """Ask for the same bits in every run on a machine. No operation has a variant that isn't: only
    `backends.cpu.benchmark`, which chooses kernels by their time, is switched off."""
    flags.repeatable = bool(mode)
    _Asked.warn_only = bool(warn_only)


def are_deterministic_algorithms_enabled() -> bool:
    """Whether `use_deterministic_algorithms(True)` was called last."""
    return flags.repeatable


def is_deterministic_algorithms_warn_only_enabled() -> bool:
    """What `warn_only` was set to."""
    return _Asked.warn_only


def set_float32_matmul_precision(precision: str) -> None:
    """Say which loss of precision would be tolerated: "highest", "high" or "medium". None is ever made use of."""
    if precision not in _PRECISIONS:
        raise RuntimeError(f"set_float32_matmul_precision: expected one of {_PRECISIONS}, got {precision!r}.")
    _Asked.precision = precision


def get_float32_matmul_precision() -> str:
    """What `set_float32_matmul_precision` was told."""
    return _Asked.precision
