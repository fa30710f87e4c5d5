"""Layer classes are found under the module names that model files import them from."""

from __future__ import annotations

import importlib

import pytest

from faltung import nn


@pytest.mark.parametrize(
    ("module", "base", "layer"),
    [
        ("activation", "ReLU", nn.ReLU),
        ("batchnorm", "_BatchNorm", nn.BatchNorm2d),
        ("conv", "_ConvNd", nn.Conv2d),
        ("conv", "_ConvTransposeNd", nn.ConvTranspose2d),
        ("dropout", "_DropoutNd", nn.Dropout2d),
        ("instancenorm", "_InstanceNorm", nn.InstanceNorm2d),
        ("linear", "Linear", nn.Linear),
        ("loss", "_Loss", nn.MSELoss),
        ("normalization", "GroupNorm", nn.GroupNorm),
        ("pixelshuffle", "PixelShuffle", nn.PixelShuffle),
        ("pooling", "_AdaptiveAvgPoolNd", nn.AdaptiveAvgPool2d),
        ("pooling", "_AdaptiveMaxPoolNd", nn.AdaptiveMaxPool2d),
        ("pooling", "_AvgPoolNd", nn.AvgPool2d),
        ("pooling", "_LPPoolNd", nn.LPPool2d),
        ("pooling", "_MaxPoolNd", nn.MaxPool2d),
        ("pooling", "_MaxUnpoolNd", nn.MaxUnpool2d),
        ("upsampling", "Upsample", nn.Upsample),
    ],
)
def test_base_class(module: str, base: str, layer: type) -> None:
    assert issubclass(layer, getattr(importlib.import_module(f"faltung.nn.modules.{module}"), base))
