"""Faltung: nn and nn.functional without PyTorch, on machine code written from Python. `import faltung as torch`."""

from __future__ import annotations

import importlib
import math as _math
from typing import Any

from faltung import autograd, dtypes, tensor_methods
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
from faltung.ops.arithmetic import (
    add,
    sub,
    rsub,
    mul,
    div,
    floor_divide,
    remainder,
    fmod,
    pow,
    maximum,
    minimum,
    fmax,
    fmin,
)
from faltung.ops.compare import (
    eq,
    ne,
    lt,
    le,
    gt,
    ge,
    logical_and,
    logical_or,
    logical_xor,
    logical_not,
    bitwise_and,
    bitwise_or,
    bitwise_xor,
    bitwise_not,
    bitwise_left_shift,
    bitwise_right_shift,
    isnan,
    isinf,
    isfinite,
    isposinf,
    isneginf,
    isreal,
    signbit,
    isclose,
    allclose,
    equal,
)
from faltung.ops.unary import (
    neg,
    positive,
    exp,
    exp2,
    expm1,
    log,
    log2,
    log10,
    log1p,
    sqrt,
    rsqrt,
    reciprocal,
    square,
    abs,
    sin,
    cos,
    tan,
    asin,
    acos,
    atan,
    sinh,
    cosh,
    asinh,
    acosh,
    atanh,
    rad2deg,
    deg2rad,
    floor,
    ceil,
    trunc,
    frac,
    round,
    sign,
    sgn,
    angle,
    real,
    imag,
)
from faltung.ops.reduce import (
    sum,
    nansum,
    mean,
    nanmean,
    var,
    std,
    var_mean,
    std_mean,
    prod,
    any,
    all,
    count_nonzero,
    logsumexp,
)
from faltung.ops.shape import (
    reshape,
    flatten,
    ravel,
    unflatten,
    permute,
    transpose,
    t,
    movedim,
    unsqueeze,
    squeeze,
    broadcast_to,
    broadcast_shapes,
    broadcast_tensors,
    as_strided,
)
from faltung.ops.join import (
    narrow,
    cat,
    stack,
    hstack,
    vstack,
    dstack,
    column_stack,
    atleast_1d,
    atleast_2d,
    atleast_3d,
    split,
    chunk,
    tensor_split,
    select,
    unbind,
    tile,
    flip,
    fliplr,
    flipud,
    roll,
    rot90,
)
from faltung.ops.matmul import (
    matmul,
    mm,
    bmm,
    mv,
    dot,
    vdot,
    inner,
    outer,
    addmm,
    addmv,
    addr,
    baddbmm,
    addbmm,
    tensordot,
    chain_matmul,
)
from faltung.ops.convert import (
    clone,
)
from faltung.ops.creation import (
    tensor,
    as_tensor,
    asarray,
    from_numpy,
    frombuffer,
    scalar_tensor,
    empty,
    zeros,
    ones,
    full,
    empty_like,
    zeros_like,
    ones_like,
    full_like,
    arange,
    linspace,
    logspace,
    eye,
    complex,
)
from faltung.ops.index import (
    index_put,
)
from faltung.ops.random import (
    rand,
    randn,
    randint,
    rand_like,
    randn_like,
    randint_like,
    randperm,
    bernoulli,
    normal,
    multinomial,
)
from faltung.random import (
    Generator,
    default_generator,
    get_rng_state,
    initial_seed,
    manual_seed,
    seed,
    set_rng_state,
)
from faltung.tensor import Tensor, is_tensor

__version__ = "0.1.0"

inf, nan, pi, e = _math.inf, _math.nan, _math.pi, _math.e

# Imported when first named: a script that doesn't train needn't wait for optimizers.
_SUBMODULES = ("backends", "cuda", "engine", "nn", "optim", "random", "serialization", "utils")


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"faltung.{name}")
    raise AttributeError(f"module 'faltung' has no attribute {name!r}")
