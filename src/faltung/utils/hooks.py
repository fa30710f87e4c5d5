"""Handles of registered hooks, where scripts look for them."""

from faltung.autograd.hooks import RemovableHandle

__all__ = ["RemovableHandle"]
