"""Faltung: nn and nn.functional without PyTorch, on machine code written from Python. `import faltung as torch`."""

from __future__ import annotations

import importlib.util
import math as _math
from typing import TYPE_CHECKING, Any

from faltung import _face, autograd, dtypes, tensor_methods
from faltung._printing import set_printoptions
from faltung.attributes import (
    Size,
    channels_last,
    channels_last_3d,
    contiguous_format,
    device,
    layout,
    memory_format,
    preserve_format,
    strided,
)
from faltung.autograd.modes import (
    enable_grad,
    inference_mode,
    is_grad_enabled,
    is_inference_mode_enabled,
    no_grad,
    set_grad_enabled,
)
from faltung.dtypes import *  # noqa: F403  # float32 and its like
from faltung.legacy import (
    BoolTensor,
    ByteTensor,
    CharTensor,
    DoubleTensor,
    FloatTensor,
    HalfTensor,
    IntTensor,
    LongTensor,
    ShortTensor,
)
from faltung.tensor import Tensor, is_tensor

if TYPE_CHECKING:
    from faltung.ops.creation import tensor as tensor  # the function, although a module has this name

__version__ = "0.1.0"

inf, nan, pi, e = _math.inf, _math.nan, _math.pi, _math.e
newaxis = None

globals().update(_face.functions())  # zeros, cat, matmul, ...: see the table there

# Imported when first named: a script that doesn't train needn't wait for optimizers.
_SUBMODULES = (
    "_C", "accelerator", "amp", "backends", "compiler", "cuda", "distributed", "engine", "explain", "fx", "hub",
    "interop", "jit", "linalg", "mps", "nn", "optim", "random", "return_types", "serialization", "special", "testing",
    "utils", "xpu",
)  # fmt: skip

# Names by the module that has them; imported when first named, too.
_ELSEWHERE = {
    "autocast": "amp.autocast_mode",
    "is_autocast_enabled": "amp.autocast_mode",
    "get_num_threads": "backends.cpu",
    "set_num_threads": "backends.cpu",
    "are_deterministic_algorithms_enabled": "backends",
    "get_float32_matmul_precision": "backends",
    "is_deterministic_algorithms_warn_only_enabled": "backends",
    "set_float32_matmul_precision": "backends",
    "use_deterministic_algorithms": "backends",
}

# Functions of nn.functional that scripts also call as torch.conv2d and the like.
_FUNCTIONAL = (
    "adaptive_avg_pool1d alpha_dropout avg_pool1d bilinear celu celu_ channel_shuffle conv1d conv2d conv3d conv_tbc "
    "conv_transpose1d conv_transpose2d conv_transpose3d cosine_similarity dropout feature_alpha_dropout group_norm "
    "hardshrink layer_norm max_pool1d max_pool1d_with_indices max_pool2d max_pool3d pairwise_distance pdist "
    "pixel_shuffle pixel_unshuffle prelu rms_norm rrelu rrelu_ selu selu_ threshold threshold_"
)
_ELSEWHERE.update(dict.fromkeys(_FUNCTIONAL.split(), "nn.functional"))


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES and importlib.util.find_spec(f"faltung.{name}") is not None:
        return importlib.import_module(f"faltung.{name}")
    if name in _ELSEWHERE:
        return getattr(importlib.import_module(f"faltung.{_ELSEWHERE[name]}"), name)
    raise AttributeError(f"module 'faltung' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_SUBMODULES})
