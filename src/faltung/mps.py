"""Apple's GPUs, for scripts that ask: there are none here."""

__all__ = ["device_count", "empty_cache", "is_available", "manual_seed", "synchronize"]


def is_available() -> bool:
    """False."""
    return False


def device_count() -> int:
    """0."""
    return 0


def manual_seed(seed: int) -> None:
    """Seeds no device. `faltung.manual_seed` seeds the CPU."""
    int(seed)


def empty_cache() -> None:
    """Frees no memory."""


def synchronize() -> None:
    """Waits for nothing: operations are done when they return."""
