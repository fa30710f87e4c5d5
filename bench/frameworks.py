"""Faltung and PyTorch as contenders: the same calls on the same numbers, each in a stated memory layout."""

import importlib
import importlib.util
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Framework:
    """A library with PyTorch's names, and the physical order of the 4-d data it is handed."""

    name: str
    lib: Any
    channels_last: bool | None  # None: as it comes, channels last inside a network and (N, C, H, W) for raw images

    def takes_channels_last(self, is_image: bool) -> bool:
        return not is_image if self.channels_last is None else self.channels_last

    def data(self, array: np.ndarray, is_image: bool = False) -> Any:
        """A tensor of the same shape: over `array` itself if its memory layout is the wanted one, else over a copy."""
        if array.ndim == 4 and self.takes_channels_last(is_image):
            return self.lib.from_numpy(np.ascontiguousarray(array.transpose(0, 2, 3, 1))).permute(0, 3, 1, 2)
        return self.lib.from_numpy(array)

    def parameter(self, array: np.ndarray) -> Any:
        """A parameter holding a copy of `array`."""
        value = self.lib.from_numpy(array).clone()
        if array.ndim == 4 and self.channels_last:
            value = value.to(memory_format=self.lib.channels_last)
        return self.lib.nn.Parameter(value)

    def model(self, make: Any, seed: int = 0) -> Any:
        """What `make(lib)` builds, from a fixed seed."""
        self.lib.manual_seed(seed)
        model = make(self.lib)
        return model.to(memory_format=self.lib.channels_last) if self.channels_last else model


def load(threads: int | None, with_torch: bool) -> tuple[list[Framework], int]:
    """The frameworks, Faltung first, and the number of threads that all of them use."""
    faltung = importlib.import_module("faltung")
    if threads:
        faltung.set_num_threads(threads)
    threads = faltung.get_num_threads()
    found = [Framework("faltung", faltung, None)]
    if with_torch and importlib.util.find_spec("torch"):
        torch = importlib.import_module("torch")
        torch.set_num_threads(threads)
        found += [Framework("torch NCHW", torch, False), Framework("torch NHWC", torch, True)]
    return found, threads
