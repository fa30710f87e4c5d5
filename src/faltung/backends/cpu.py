"""The engine's switches: `faltung.backends.cpu.benchmark = True`.

Attributes (settable):
    benchmark: time the kernels that fit a convolution, once per shape, and keep the fastest; the flag that cuDNN has.
    deterministic: direct convolution only, and a choice of kernels that never depends on timing. Results are the same
        for any number of threads with or without it.
    winograd: let 3x3 convolutions save multiplications where that is faster; errors grow to some 1e-5, relatively.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from types import ModuleType

from faltung.engine.flags import flags as _flags

__all__ = ["flags", "get_cpu_capability", "get_num_threads", "set_flags", "set_num_threads"]


def _changed() -> None:
    from faltung.engine import choice

    choice.forget()


def set_flags(
    benchmark: bool | None = None, deterministic: bool | None = None, winograd: bool | None = None
) -> tuple[bool, bool, bool]:
    """Set the switches that are given, and return what (benchmark, deterministic, winograd) were."""
    before = _flags.benchmark, _flags.deterministic, _flags.winograd
    for name, value in (("benchmark", benchmark), ("deterministic", deterministic), ("winograd", winograd)):
        if value is not None:
            setattr(_flags, name, bool(value))
    _changed()
    return before


@contextlib.contextmanager
def flags(
    benchmark: bool | None = None, deterministic: bool | None = None, winograd: bool | None = None
) -> Iterator[None]:
    """Set switches for a block."""
    before = set_flags(benchmark, deterministic, winograd)
    try:
        yield
    finally:
        set_flags(*before)


def get_num_threads() -> int:
    """How many threads compute a kernel; the cores that affinity mask and cgroup quota leave, unless set."""
    from faltung.engine.target import usable_cores

    return usable_cores() if _flags.threads is None else _flags.threads


def set_num_threads(num: int) -> None:
    """Compute with `num` threads. Results don't depend on it.

    Raises:
        RuntimeError: not a positive integer.
    """
    if isinstance(num, bool) or not isinstance(num, int):
        raise RuntimeError(f"set_num_threads: expects an int, but got {type(num).__name__}.")
    if num < 1:
        raise RuntimeError(f"set_num_threads: expects a positive integer, got {num}.")
    _flags.threads = num
    team = sys.modules.get("faltung.engine.team")  # if no kernel has run yet, the team will read the flag
    if team is not None:
        team.set_num_threads(num)
    _changed()


def get_cpu_capability() -> str:
    """The instruction set that kernels are written for: "AVX512", "AVX2", "NEON" or "DEFAULT"."""
    from faltung.engine.target import host

    try:
        target = host()
    except ImportError:  # no llvmlite: no kernels, NumPy computes
        return "DEFAULT"
    if target.triple.startswith(("aarch64", "arm64")):
        return "NEON"
    return {64: "AVX512", 32: "AVX2"}.get(target.vector_bytes, "DEFAULT")


class _Switches(ModuleType):
    """Gives this module attributes that write through to the engine."""

    @property
    def benchmark(self) -> bool:
        return _flags.benchmark

    @benchmark.setter
    def benchmark(self, value: bool) -> None:
        set_flags(benchmark=value)

    @property
    def deterministic(self) -> bool:
        return _flags.deterministic

    @deterministic.setter
    def deterministic(self, value: bool) -> None:
        set_flags(deterministic=value)

    @property
    def winograd(self) -> bool:
        return _flags.winograd

    @winograd.setter
    def winograd(self, value: bool) -> None:
        set_flags(winograd=value)


sys.modules[__name__].__class__ = _Switches
