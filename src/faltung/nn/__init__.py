"""Neural networks: layers with state here, their stateless twins in `functional`, initial values in `init`."""

from . import functional, init, modules, parameter, utils
from .modules import *  # noqa: F403  # the one public surface of all layer families
from .parameter import Buffer, Parameter, UninitializedBuffer, UninitializedParameter

__all__ = [
    *modules.__all__,
    "Buffer",
    "Parameter",
    "UninitializedBuffer",
    "UninitializedParameter",
    "functional",
    "init",
    "modules",
    "parameter",
    "utils",
]
