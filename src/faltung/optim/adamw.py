"""AdamW, under the module name that PyTorch gives it."""

from faltung.optim.adam import AdamW

__all__ = ["AdamW"]
