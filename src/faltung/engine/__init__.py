"""Floor 1: arrays in, arrays out. Knows nothing of tensors, gradients or modules.

`call(name, ...)` is the only entry: it names an operation ("conv.forward"), never a kernel. Importing this package
imports neither llvmlite nor any kernel; the first call of an operation that has generated candidates does.
"""

from faltung.engine.registry import call

__all__ = ["call"]
