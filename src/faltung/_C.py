"""The one name of PyTorch's private C module that libraries of models call from Python."""

from __future__ import annotations


def _log_api_usage_once(event: str) -> None:
    """Nothing: Faltung keeps no record of what is used."""
