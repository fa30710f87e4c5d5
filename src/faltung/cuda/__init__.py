"""CUDA, for scripts that ask whether it is there: it is not.

Questions are answered (`is_available()`, `device_count()`, `memory_allocated()`), seeds and clean-ups do nothing, and
what needs a device raises the error that names the way out.
"""

from __future__ import annotations

from typing import Any, NoReturn

from faltung.attributes import no_such_device
from faltung.cuda import amp as amp

__all__ = [
    "Event",
    "Stream",
    "amp",
    "current_device",
    "current_stream",
    "device",
    "device_count",
    "empty_cache",
    "get_arch_list",
    "get_device_capability",
    "get_device_name",
    "get_device_properties",
    "get_rng_state_all",
    "init",
    "ipc_collect",
    "is_available",
    "is_bf16_supported",
    "is_initialized",
    "manual_seed",
    "manual_seed_all",
    "max_memory_allocated",
    "max_memory_reserved",
    "mem_get_info",
    "memory_allocated",
    "memory_reserved",
    "reset_peak_memory_stats",
    "seed",
    "seed_all",
    "set_device",
    "set_rng_state_all",
    "synchronize",
]

# --- questions


def is_available() -> bool:
    """False."""
    return False


def is_initialized() -> bool:
    """False."""
    return False


def device_count() -> int:
    """0."""
    return 0


def is_bf16_supported(including_emulation: bool = True) -> bool:
    """False."""
    return False


def get_arch_list() -> list[str]:
    """No architectures."""
    return []


def memory_allocated(device: Any = None) -> int:
    """0 bytes."""
    return 0


def max_memory_allocated(device: Any = None) -> int:
    """0 bytes."""
    return 0


def memory_reserved(device: Any = None) -> int:
    """0 bytes."""
    return 0


def max_memory_reserved(device: Any = None) -> int:
    """0 bytes."""
    return 0


def get_rng_state_all() -> list[Any]:
    """No states, there being no devices."""
    return []


# --- for devices that are not there: nothing to do


def manual_seed(seed: int) -> None:
    """Seeds no device. `faltung.manual_seed` seeds the CPU."""
    int(seed)


def manual_seed_all(seed: int) -> None:
    """Seeds no device. `faltung.manual_seed` seeds the CPU."""
    int(seed)


def seed() -> None:
    """Seeds no device."""


def seed_all() -> None:
    """Seeds no device."""


def set_rng_state_all(new_states: Any) -> None:
    """Sets the state of no device."""


def empty_cache() -> None:
    """Frees no memory."""


def synchronize(device: Any = None) -> None:
    """Waits for nothing: operations are done when they return."""


def ipc_collect() -> None:
    """Frees no memory."""


def reset_peak_memory_stats(device: Any = None) -> None:
    """Resets no counters."""


class device:
    """Selects a device for a block; does nothing, as PyTorch's does without CUDA."""

    def __init__(self, device: Any) -> None:
        self.device = device

    def __enter__(self) -> None:
        return None

    def __exit__(self, *exc_info: object) -> None:
        return None


# --- what needs a device


def _refuse() -> NoReturn:
    no_such_device("cuda")


def init() -> NoReturn:
    """Raises: there is no CUDA."""
    _refuse()


def set_device(device: Any) -> NoReturn:
    """Raises: there is no CUDA."""
    _refuse()


def current_device() -> NoReturn:
    """Raises: there is no CUDA."""
    _refuse()


def current_stream(device: Any = None) -> NoReturn:
    """Raises: there is no CUDA."""
    _refuse()


def get_device_name(device: Any = None) -> NoReturn:
    """Raises: there is no CUDA."""
    _refuse()


def get_device_capability(device: Any = None) -> NoReturn:
    """Raises: there is no CUDA."""
    _refuse()


def get_device_properties(device: Any = None) -> NoReturn:
    """Raises: there is no CUDA."""
    _refuse()


def mem_get_info(device: Any = None) -> NoReturn:
    """Raises: there is no CUDA."""
    _refuse()


class Stream:
    """Raises when made: there is no CUDA."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        _refuse()


class Event:
    """Raises when made: there is no CUDA."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        _refuse()
