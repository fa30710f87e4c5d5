"""The pooling layers under the module name that model files import them from. See `pool`."""

from faltung.nn.modules.pool import (
    AdaptiveAvgPool1d,
    AdaptiveAvgPool2d,
    AdaptiveAvgPool3d,
    AdaptiveMaxPool1d,
    AdaptiveMaxPool2d,
    AdaptiveMaxPool3d,
    AvgPool1d,
    AvgPool2d,
    AvgPool3d,
    FractionalMaxPool2d,
    FractionalMaxPool3d,
    LPPool1d,
    LPPool2d,
    LPPool3d,
    MaxPool1d,
    MaxPool2d,
    MaxPool3d,
    MaxUnpool1d,
    MaxUnpool2d,
    MaxUnpool3d,
)
from faltung.nn.modules.pool import (
    _AdaptiveAvgPoolNd as _AdaptiveAvgPoolNd,
)
from faltung.nn.modules.pool import (
    _AdaptiveMaxPoolNd as _AdaptiveMaxPoolNd,
)
from faltung.nn.modules.pool import (
    _AvgPoolNd as _AvgPoolNd,
)
from faltung.nn.modules.pool import (
    _LPPoolNd as _LPPoolNd,
)
from faltung.nn.modules.pool import (
    _MaxPoolNd as _MaxPoolNd,
)
from faltung.nn.modules.pool import (
    _MaxUnpoolNd as _MaxUnpoolNd,
)

__all__ = [
    "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d",
    "AdaptiveAvgPool3d",
    "AdaptiveMaxPool1d",
    "AdaptiveMaxPool2d",
    "AdaptiveMaxPool3d",
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "FractionalMaxPool2d",
    "FractionalMaxPool3d",
    "LPPool1d",
    "LPPool2d",
    "LPPool3d",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
    "MaxUnpool1d",
    "MaxUnpool2d",
    "MaxUnpool3d",
]
