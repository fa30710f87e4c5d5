"""MKL's name for scripts that ask: it is not used."""

__all__ = ["is_available"]


def is_available() -> bool:
    """False."""
    return False
