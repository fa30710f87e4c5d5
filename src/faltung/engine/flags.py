"""What a user may set: read by the kernels' choice and the thread team, written by `faltung.backends.cpu`.

Importing this imports neither llvmlite nor any kernel.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Flags", "flags"]


@dataclass
class Flags:
    """The switches of the engine; `flags` is the one instance.

    Attributes:
        winograd: let 3x3 convolutions save multiplications where that is faster.
        deterministic: direct convolution only, and a choice of kernels that never depends on timing.
        repeatable: a choice of kernels that never depends on timing, whatever `benchmark` says.
        benchmark: time all kernels that fit, once per shape, and keep the fastest.
        threads: size of the thread team; None for all usable cores.
    """

    winograd: bool = True
    deterministic: bool = False
    repeatable: bool = False
    benchmark: bool = False
    threads: int | None = None

    @property
    def measuring(self) -> bool:
        """Whether kernels are chosen by measurement."""
        return self.benchmark and not (self.deterministic or self.repeatable)


flags = Flags()
