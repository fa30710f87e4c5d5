"""CUDA's switches, for scripts that set them without asking for a device.

Attributes: `matmul.allow_tf32`, `matmul.allow_fp16_reduced_precision_reduction`,
`matmul.allow_bf16_reduced_precision_reduction`; settable, without effect.
"""

from dataclasses import dataclass

__all__ = ["is_built", "matmul"]


@dataclass
class _Matmul:
    allow_tf32: bool = False
    allow_fp16_reduced_precision_reduction: bool = True
    allow_bf16_reduced_precision_reduction: bool = True
    fp32_precision: str = "none"


matmul = _Matmul()


def is_built() -> bool:
    """False."""
    return False
