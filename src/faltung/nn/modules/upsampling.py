"""The upsampling layers under the module name that model files import them from. See `upsample`."""

from faltung.nn.modules.upsample import (
    Upsample,
    UpsamplingBilinear2d,
    UpsamplingNearest2d,
)

__all__ = ["Upsample", "UpsamplingBilinear2d", "UpsamplingNearest2d"]
