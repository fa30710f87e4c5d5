"""Switches of the machinery underneath, and answers for scripts that ask about other machinery.

`cpu` holds the engine's own switches. The others answer for libraries that are not there (`cudnn`, `cuda`, `mps`), or
whose work the engine does itself (`mkldnn`, `mkl`, `openmp`).
"""

from faltung.backends import cpu, cuda, cudnn, mkl, mkldnn, mps, openmp
from faltung.backends._determinism import (
    are_deterministic_algorithms_enabled,
    get_float32_matmul_precision,
    is_deterministic_algorithms_warn_only_enabled,
    set_float32_matmul_precision,
    use_deterministic_algorithms,
)

__all__ = [
    "are_deterministic_algorithms_enabled",
    "cpu",
    "cuda",
    "cudnn",
    "get_float32_matmul_precision",
    "is_deterministic_algorithms_warn_only_enabled",
    "mkl",
    "mkldnn",
    "mps",
    "openmp",
    "set_float32_matmul_precision",
    "use_deterministic_algorithms",
]
