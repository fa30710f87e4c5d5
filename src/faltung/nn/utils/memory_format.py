"""Converting the weights of convolutions to a memory format."""

from __future__ import annotations

from typing import Any, TypeVar

from faltung.nn.modules.module import Module

M = TypeVar("M", bound=Module)


def convert_conv2d_weight_memory_format(module: M, memory_format: Any) -> M:
    """Converts the 4-d weights of all convolutions (transposed ones too) below `module`, in place."""
    return _convert(module, memory_format, "2d")


def convert_conv3d_weight_memory_format(module: M, memory_format: Any) -> M:
    """Converts the 5-d weights of all convolutions (transposed ones too) below `module`, in place."""
    return _convert(module, memory_format, "3d")


def _convert(module: M, memory_format: Any, dims: str) -> M:
    from faltung.nn.modules import conv

    kinds = tuple(kind for name in ("Conv", "ConvTranspose") if (kind := getattr(conv, name + dims, None)))
    for child in module.modules():
        if isinstance(child, kinds):
            child.weight.data = child.weight.detach().clone().contiguous(memory_format=memory_format)
    return module
