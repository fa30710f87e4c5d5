"""The pixel shuffling under the module name that model files import them from. See `shuffle`."""

from faltung.nn.modules.shuffle import (
    PixelShuffle,
    PixelUnshuffle,
)

__all__ = ["PixelShuffle", "PixelUnshuffle"]
