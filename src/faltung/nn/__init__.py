"""Neural networks: layers with state here, their stateless twins in `functional`, initial values in `init`."""

from . import common_types, functional, init, modules, parallel, parameter, utils
from .modules import *  # noqa: F403  # the one public surface of all layer families
from .parallel import DataParallel
from .parameter import Buffer, Parameter, UninitializedBuffer, UninitializedParameter

__all__ = [
    *modules.__all__,
    "Buffer",
    "DataParallel",
    "Parameter",
    "UninitializedBuffer",
    "UninitializedParameter",
    "common_types",
    "functional",
    "init",
    "modules",
    "parallel",
    "parameter",
    "utils",
]
