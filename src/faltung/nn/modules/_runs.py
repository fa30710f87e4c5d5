"""Runs of layers in a Sequential that one kernel computes: convolution, batch norm, activation.

    in evaluation, nothing recorded     Conv, [BatchNorm], [activation]      the last two in the convolution's registers
    nothing recorded                    BatchNorm, activation                one pass over memory
    by the batch's statistics           BatchNorm, ReLU or ReLU6             one pass, forward and backward
    always                              Conv, ReLU or ReLU6                  one pass forward
    recorded                            Conv, ReLU or ReLU6, MaxPool         the activation's gradient where pooled

The bits are those of the layers one by one. Only layers that leave no trace are run together: of these very classes,
without hooks or methods of their own, on float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from faltung.autograd.modes import modes
from faltung.engine.epilogue import DIFFERENTIABLE
from faltung.engine.geometry import NO_TAP
from faltung.nn.functional.conv import finished_convolution
from faltung.nn.functional.norm import are_usual
from faltung.nn.functional.pool import max_pool_activated
from faltung.nn.modules._hooks import _has_any_global_hook
from faltung.nn.modules.activation import Hardswish, ReLU, ReLU6, SiLU
from faltung.nn.modules.batchnorm import BatchNorm1d, BatchNorm2d, BatchNorm3d
from faltung.nn.modules.conv import Conv1d, Conv2d, Conv3d
from faltung.nn.modules.module import Module
from faltung.nn.modules.pool import MaxPool1d, MaxPool2d, MaxPool3d
from faltung.ops.deferred import Deferred, settle
from faltung.tensor import Tensor

_NORM_AFTER: dict[type, type] = {Conv1d: BatchNorm1d, Conv2d: BatchNorm2d, Conv3d: BatchNorm3d}
_POOL_AFTER: dict[type, type] = {Conv1d: MaxPool1d, Conv2d: MaxPool2d, Conv3d: MaxPool3d}
_NORMS = frozenset(_NORM_AFTER.values())
_ACTIVATIONS: dict[type, str] = {ReLU: "relu", ReLU6: "relu6", Hardswish: "hardswish", SiLU: "silu"}


def forward(modules: Sequence[Module], input: Any) -> Any:
    """`input` through every module in turn."""
    if _has_any_global_hook():
        for module in modules:
            input = module(input)
        return input
    if type(input) is Deferred:
        settle(input)
    position, count = 0, len(modules)
    while position < count:
        module, taken = modules[position], 1
        kind = type(module)
        if position + 1 < count and (kind in _NORM_AFTER or kind in _NORMS) and _is_usual(module, input):
            after = modules[position + 1 : position + 3]
            if kind in _NORM_AFTER:
                taken, input = _convolved(module, after, input, count - position)
            else:
                taken, input = _normalised(module, after, input)
        else:
            input = module(input)
        position += taken
    return input


def _convolved(conv: Any, after: Sequence[Module], input: Tensor, left: int) -> tuple[int, Any]:
    """(layers taken, result) from a convolution on, of `left` layers; the last result may wait for a residual."""
    if conv.padding_mode != "zeros" or input.dim() != conv.spatial_dims + 2:
        return 1, conv(input)
    norm: Any = after[0]
    if modes.grad or not _belongs(norm, conv, input):
        norm = None
    activation = _activation(after, 0 if norm is None else 1)
    if norm is None and not activation or modes.grad and activation not in DIFFERENTIABLE:
        return 1, conv(input)
    statistics = None
    if norm is not None:
        state, learned = norm._buffers, norm._parameters
        statistics = (state["running_mean"], state["running_var"], learned["weight"], learned["bias"], norm.eps)
    settings = (conv.stride, conv.padding, conv.dilation, conv.groups)
    weight, bias = conv._parameters["weight"], conv._parameters["bias"]
    pool: Any = after[1] if modes.grad and len(after) > 1 else None  # norm is None here
    if pool is not None and _takes_gradient(pool, conv):
        y = finished_convolution(conv.spatial_dims, input, weight, bias, *settings, None, activation, pooled=True)
        return 3, max_pool_activated(conv.spatial_dims, y, activation, *pool._arguments()[:-1])
    taken = 1 + (norm is not None) + bool(activation)
    waits = taken == left
    y = finished_convolution(conv.spatial_dims, input, weight, bias, *settings, statistics, activation, waits=waits)
    return taken, y


def _takes_gradient(pool: Any, conv: Any) -> bool:
    """Whether a layer is the max pooling of this convolution, and of a kind that takes the activation's gradient."""
    kind: type = type(pool)
    if kind is not _POOL_AFTER[type(conv)] or pool.return_indices or not _is_plain(pool):
        return False
    kernel = pool.kernel_size
    sizes = (kernel,) * conv.spatial_dims if isinstance(kernel, int) else kernel
    return isinstance(sizes, (tuple, list)) and all(isinstance(size, int) for size in sizes) and prod(sizes) <= NO_TAP


def _belongs(norm: Any, conv: Any, input: Tensor) -> bool:
    """Whether a layer is the evaluating batch norm of this convolution."""
    kind: type = type(norm)
    if kind is not _NORM_AFTER[type(conv)] or norm.training or not _is_plain(norm):
        return False
    state, learned = norm._buffers, norm._parameters  # where the attributes lead, without the way there
    mean, var = state.get("running_mean"), state.get("running_var")
    if mean is None or var is None or not norm.eps >= 0:
        return False
    return are_usual(input._data.dtype, (conv.out_channels,), mean, var, learned["weight"], learned["bias"])


def _normalised(norm: Any, after: Sequence[Module], input: Tensor) -> tuple[int, Any]:
    """(layers taken, result) from a batch norm on."""
    activation = _activation(after, 0)
    by_batch = norm.training or norm.running_mean is None
    if not activation or (activation not in DIFFERENTIABLE if by_batch else modes.grad):
        return 1, norm(input)
    return 2, norm._normalise(input, activation)


def _activation(modules: Sequence[Module], position: int) -> str:
    """The name of the activation at a position, if there is one that may be fused."""
    if position >= len(modules) or not _is_plain(modules[position]):
        return ""
    return _ACTIVATIONS.get(type(modules[position]), "")


def _is_usual(module: Module, input: Any) -> bool:
    return type(input) is Tensor and input._data.dtype.char == "f" and _is_plain(module)


def _is_plain(module: Module) -> bool:
    """No hooks, and the methods of its class."""
    own = module.__dict__
    return not (
        own["_forward_hooks"]
        or own["_forward_pre_hooks"]
        or own["_backward_hooks"]
        or own["_backward_pre_hooks"]
        or "forward" in own
        or "__call__" in own
    )
