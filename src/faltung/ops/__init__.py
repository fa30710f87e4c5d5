"""Floor 2: differentiable operations, one file per family. All of them run through `apply`."""

from faltung.ops.apply import apply, apply_inplace

__all__ = ["apply", "apply_inplace"]
