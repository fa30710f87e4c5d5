"""DataParallel, for scripts that wrap their model in it. On one CPU there is one replica: the module itself."""

from __future__ import annotations

from typing import Any

from faltung.nn.modules.module import Module

__all__ = ["DataParallel"]


class DataParallel(Module):
    """Calls `module`. Keys of the state dict begin with "module.", as PyTorch's do.

    `device_ids` and `output_device` name GPUs in PyTorch; here they must be absent or empty. RuntimeError otherwise.
    """

    module: Module

    def __init__(self, module: Module, device_ids: Any = None, output_device: Any = None, dim: int = 0) -> None:
        super().__init__()
        if device_ids or output_device is not None:
            raise RuntimeError(
                f"DataParallel: there are no devices to spread over, got device_ids={device_ids} and "
                f"output_device={output_device}. Leave both out: one CPU's cores all work on each batch already."
            )
        self.dim = dim
        self.module = module
        self.device_ids: list[int] = []

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        """What the module returns."""
        return self.module(*inputs, **kwargs)
