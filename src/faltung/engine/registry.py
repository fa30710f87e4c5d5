"""Ordered candidates for every engine operation.

An operation is named "family.function". `CANDIDATES` lists its generated kernels, best first; the last resort of every
operation is `engine.reference.<family>.<function>`, plain NumPy with the same signature. A candidate module says
through `refuse_<function>(...)` why it does not fit the arguments (None means that it fits) and computes in
`<function>(...)`; a module that makes many functions by one rule returns the pair from `candidate(function)`.
`FALTUNG_DEBUG=1` prints each new choice with the refusals before it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np

from faltung.engine import choice, debug
from faltung.engine.flags import flags

_ACTIVATIONS = (
    "relu leaky_relu sigmoid tanh elu hardtanh hardsigmoid threshold gelu silu mish hardswish softplus log_sigmoid "
    "softshrink hardshrink"
).split()
ARITHMETIC = ("add", "sub", "mul", "div", "maximum", "minimum")
_FUNCTIONS = (
    "neg abs sign floor ceil trunc round square cube sqrt rsqrt reciprocal inverse_square exp expm1 log log1p clamp"
).split()
_SLOPES = [f"{name}_backward" for name in "abs square cube sqrt rsqrt reciprocal expm1 log1p clamp".split()]
_POOLINGS = ("max", "max_taps", "avg", "adaptive_avg")
_LOSSES = ("mse", "l1", "smooth_l1", "huber", "bce", "bce_logits")  # of elements

# operation -> modules under engine.kernels, tried in this order before the reference
CANDIDATES: dict[str, tuple[str, ...]] = {
    "conv.forward": (
        "conv_depthwise",
        "conv_grouped",
        "conv_dense_winograd",
        "conv_folded",
        "conv_dense",
    ),
    "conv.backward_data": (
        "conv_depthwise",
        "conv_grouped",
        "conv_scatter",
        "conv_dense_winograd",
        "conv_dense",
    ),
    "conv.backward_weights": (
        "conv_depthwise",
        "conv_grouped_weights",
        "conv_winograd_gradient",
        "conv_gathered_weights",
        "conv_dense_weights",
    ),
    **{f"linear.{name}": ("gemm",) for name in ("forward", "backward_data", "backward_weights", "matmul")},
    **{f"norm.batch_{name}": ("batch_norm",) for name in ("forward", "backward", "inference")},
    **{f"norm.{kind}_{way}": ("layer_norm",) for kind in ("layer", "rms") for way in ("forward", "backward")},
    **{f"norm.response_{way}": ("response_norm",) for way in ("forward", "backward")},
    **{f"norm.group_{way}": ("group_norm",) for way in ("forward", "backward")},
    **{f"softmax.{name}": ("softmax",) for name in ("forward", "backward", "log_forward", "log_backward")},
    "loss.cross_entropy_forward": ("cross_entropy",),
    "loss.cross_entropy_backward": ("cross_entropy",),
    **{f"loss.{name}_{way}": ("element_loss",) for name in _LOSSES for way in ("forward", "backward")},
    "layout.copy": ("relayout",),
    **{f"reduce.{name}": ("reduce",) for name in ("sum", "dot", "largest", "smallest")},
    "random.words": ("mersenne",),
    "random.below": ("mersenne",),
    "dropout.forward": ("dropout",),
    "dropout.backward": ("dropout",),
    "optimizer.sgd": ("optimizer",),
    "optimizer.adam": ("optimizer",),
    **{f"pool.{name}_{way}": ("pool",) for name in _POOLINGS for way in ("forward", "backward")},
    "resample.axis": ("resample",),
    "resample.planes": ("resample",),
    **{f"pointwise.{name}": ("pointwise", "broadcast") for name in ARITHMETIC},
    **{f"pointwise.{name}": ("pointwise",) for name in (*_FUNCTIONS, *_SLOPES)},
    "pointwise.where": ("where",),
    **{f"activation.{name}_{way}": ("pointwise",) for name in _ACTIVATIONS for way in ("forward", "backward")},
}

_MEASURABLE = {"conv.forward", "conv.backward_data", "conv.backward_weights"}  # backends.cpu.benchmark chooses by time
_BY_GEOMETRY = _MEASURABLE  # called with a geometry first; candidates ask nothing of the arrays but their types

Refuse = Callable[..., "str | None"]
_chosen: dict[Hashable, Callable[..., Any]] = {}  # of the operations in _BY_GEOMETRY
_MOST_CHOSEN = 4096
_resolved: dict[str, tuple[list[tuple[str, Refuse, Callable[..., Any]]], Callable[..., Any]]] = {}


def call(name: str, *args: Any, **options: Any) -> Any:
    """Run the operation `name` on the first candidate that fits, else on the NumPy reference."""
    if name in _BY_GEOMETRY and not (flags.benchmark or debug.LEVEL):
        return chosen(name, *args, **options)(*args, **options)
    kernels, reference = _resolved.get(name) or _resolve(name)
    if flags.benchmark and flags.measuring and name in _MEASURABLE:
        fitting = [(label, run) for label, refuse, run in kernels if refuse(*args, **options) is None]
        if len(fitting) > 1:
            return choice.fastest(name, fitting, args, options)(*args, **options)
    if debug.LEVEL:
        return _call_and_tell(name, kernels, reference, args, options)
    for _, refuse, run in kernels:
        if refuse(*args, **options) is None:
            return run(*args, **options)
    return reference(*args, **options)


def chosen(name: str, *args: Any, **options: Any) -> Callable[..., Any]:
    """What `call` runs for a convolution with these arguments, as switches stand now."""
    if flags.benchmark or debug.LEVEL:
        return partial(call, name)
    kinds = args[1].dtype, args[2].dtype
    key = (name, args[0], kinds, options.get("cache") is None, flags.winograd, flags.deterministic)
    return _chosen.get(key) or _choose(key, args, options)


def _choose(key: tuple[Any, ...], args: tuple[Any, ...], options: dict[str, Any]) -> Callable[..., Any]:
    """The first candidate that fits: asked once per operation (the key's first part), geometry, types and switches."""
    kernels, reference = _resolved.get(key[0]) or _resolve(key[0])
    if len(_chosen) >= _MOST_CHOSEN:  # shapes without end
        _chosen.clear()
    fitting = (run for _, refuse, run in kernels if refuse(*args, **options) is None)
    run = _chosen[key] = next(fitting, reference)
    return run


def candidates(name: str) -> list[tuple[str, Refuse, Callable[..., Any]]]:
    """Every candidate of an operation as (label, refuse, run), the reference last: for tests and benchmarks."""
    kernels, reference = _resolved.get(name) or _resolve(name)
    return [*kernels, ("reference", lambda *args, **options: None, reference)]


def _resolve(name: str) -> tuple[list[tuple[str, Refuse, Callable[..., Any]]], Callable[..., Any]]:
    family, function = name.split(".")
    # what is infinite or not a number comes without NumPy's warnings, as from generated code
    reference = np.errstate(all="ignore")(getattr(import_module(f"faltung.engine.reference.{family}"), function))
    kernels = []
    if CANDIDATES.get(name) and _can_generate():
        for label in CANDIDATES[name]:
            module = import_module(f"faltung.engine.kernels.{label}")
            if hasattr(module, "candidate"):
                kernels.append((label, *module.candidate(function)))
            else:
                kernels.append((label, getattr(module, f"refuse_{function}"), getattr(module, function)))
    _resolved[name] = (kernels, reference)
    return _resolved[name]


def _can_generate() -> bool:
    """True where llvmlite can be imported; elsewhere every operation runs on its reference."""
    try:
        import_module("llvmlite.binding")
    except (ImportError, OSError) as error:
        debug.say(1, f"no generated kernels: llvmlite cannot be loaded ({error})")
        return False
    return True


def _call_and_tell(name: str, kernels: list, reference: Callable[..., Any], args: tuple, options: dict) -> Any:
    story = []
    chosen, label = reference, "reference"
    for kernel_label, refuse, run in kernels:
        reason = refuse(*args, **options)
        if reason is None:
            chosen, label = run, kernel_label
            break
        story.append(f"{kernel_label}: {reason}")
    refusals = f" (refused: {'; '.join(story)})" if story else ""
    debug.say_once(1, f"{name} {debug.describe(args)} -> {label}{refusals}")
    with debug.timed(2, f"{name} {label}"):
        return chosen(*args, **options)
