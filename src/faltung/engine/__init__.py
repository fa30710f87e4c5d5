"""Floor 1: arrays in, arrays out. Knows nothing of tensors, gradients or modules.

`call(name, ...)` is the entry: it names an operation ("conv.forward"), never a kernel; `chosen` settles on one for a
convolution that is to be computed later. Importing this package imports neither llvmlite nor any kernel; the first call
of an operation that has generated candidates does.
"""

from faltung.engine.registry import call, chosen

__all__ = ["call", "chosen"]
