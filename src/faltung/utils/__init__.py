"""Helpers around training: data, and checkpoints that save memory."""

from __future__ import annotations

import importlib
from typing import Any

from faltung.utils import data as data

__all__ = ["data"]

_SUBMODULES = ("checkpoint", "hooks", "model_zoo")  # imported when first named


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"faltung.utils.{name}")
    raise AttributeError(f"module 'faltung.utils' has no attribute {name!r}")
