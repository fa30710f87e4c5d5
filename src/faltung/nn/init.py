"""Initialising parameters in place, with the same random numbers as PyTorch for the same seed.

Every function fills `tensor` outside of autograd and returns it. `generator=` draws from a `faltung.Generator` of your
own rather than from the one that `faltung.manual_seed` seeds.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from faltung.autograd import no_grad
from faltung.sampling import permutation
from faltung.tensor import Tensor

_LINEAR = ("linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d")


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor by which a layer's standard deviation must grow to keep the variance through `nonlinearity`.

    `param` is the negative slope of "leaky_relu" (0.01 if None). ValueError for a name that has no known gain.
    """
    if nonlinearity in _LINEAR or nonlinearity == "sigmoid":
        return 1
    if nonlinearity == "tanh":
        return 5.0 / 3
    if nonlinearity == "relu":
        return math.sqrt(2.0)
    if nonlinearity == "selu":
        return 3.0 / 4
    if nonlinearity == "leaky_relu":
        if param is not None and (isinstance(param, bool) or not isinstance(param, (int, float))):
            raise ValueError(f"calculate_gain: negative_slope {param} not a valid number")
        slope = 0.01 if param is None else param
        return math.sqrt(2.0 / (1 + slope**2))
    known = ", ".join([*_LINEAR, "sigmoid", "tanh", "relu", "leaky_relu", "selu"])
    raise ValueError(f"calculate_gain: Unsupported nonlinearity {nonlinearity!r}, expected one of {known}.")


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: Any = None) -> Tensor:
    """Uniform numbers from [a, b)."""
    with no_grad():
        return tensor.uniform_(a, b, generator=generator)


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Any = None) -> Tensor:
    """Normally distributed numbers."""
    with no_grad():
        return tensor.normal_(mean, std, generator=generator)


def trunc_normal_(
    tensor: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0, generator: Any = None
) -> Tensor:
    """Normally distributed numbers, drawn again where they fall outside [a, b]."""
    if mean < a - 2 * std or mean > b + 2 * std:
        warnings.warn(
            "mean is more than 2 std from [a, b] in nn.init.trunc_normal_: the distribution may be incorrect.",
            stacklevel=2,
        )
    share = _normal_cdf((b - mean) / std) - _normal_cdf((a - mean) / std)
    with no_grad():
        if share > 0.3:
            _redraw_outliers(tensor, mean, std, (a, b), generator)
        else:
            _reject_from_uniform(tensor, mean, std, (a, b), generator)
    return tensor


def _normal_cdf(x: float) -> float:
    return (1.0 + math.erf(x / math.sqrt(2.0))) / 2.0


def _redraw_outliers(tensor: Tensor, mean: float, std: float, limits: tuple[float, float], generator: Any) -> None:
    """Draws all numbers, then whole new sets for those outside, until none is. Limits rounded to the dtype."""
    low, high = (tensor.new_tensor(limit).item() for limit in limits)
    tensor.normal_(mean, std, generator=generator)
    while (outside := (tensor < low) | (tensor > high)).any():
        fresh = tensor.new_empty(tensor.shape).normal_(mean, std, generator=generator)
        tensor.copy_(fresh.where(outside, tensor))


def _reject_from_uniform(tensor: Tensor, mean: float, std: float, limits: tuple[float, float], generator: Any) -> None:
    """Rejection sampling: uniform candidates, each kept with the normal density's share of its maximum in [a, b]."""
    low, high = limits
    peak = -0.5 * ((max(low, min(mean, high)) - mean) / std) ** 2  # log density, up to a constant
    pending = None
    while pending is None or pending.any():
        candidates = tensor.new_empty(tensor.shape).uniform_(low, high, generator=generator)
        tensor.copy_(candidates if pending is None else candidates.where(pending, tensor))
        log_density = candidates.sub_(mean).div_(std).pow_(2).mul_(-0.5).sub_(peak)
        rejected = tensor.new_empty(tensor.shape).uniform_(generator=generator).log_() > log_density
        pending = rejected if pending is None else pending & rejected


def constant_(tensor: Tensor, val: float) -> Tensor:
    """`val` everywhere."""
    with no_grad():
        return tensor.fill_(val)


def ones_(tensor: Tensor) -> Tensor:
    """1 everywhere."""
    return constant_(tensor, 1.0)


def zeros_(tensor: Tensor) -> Tensor:
    """0 everywhere."""
    return constant_(tensor, 0.0)


def eye_(tensor: Tensor) -> Tensor:
    """The identity matrix: a linear layer that keeps its inputs. ValueError unless 2-d."""
    _expect_dims("eye_", tensor, (2,))
    with no_grad():
        tensor.zero_()
        for i in range(min(tensor.shape)):
            tensor[i, i] = 1
    return tensor


def dirac_(tensor: Tensor, groups: int = 1) -> Tensor:
    """A convolution weight (O, I/groups, *kernel) that hands channels on unchanged, within each group."""
    _expect_dims("dirac_", tensor, (3, 4, 5))
    out_channels, in_channels, *kernel = tensor.shape
    if out_channels % groups:
        raise ValueError(f"dirac_: dim 0 must be divisible by groups, got {out_channels} channels and groups={groups}.")
    per_group = out_channels // groups
    centre = tuple(size // 2 for size in kernel)
    with no_grad():
        tensor.zero_()
        for group in range(groups):
            for channel in range(min(per_group, in_channels)):
                tensor[(group * per_group + channel, channel, *centre)] = 1
    return tensor


def _expect_dims(where: str, tensor: Tensor, allowed: tuple[int, ...]) -> None:
    if tensor.dim() not in allowed:
        dims = str(allowed[0]) if len(allowed) == 1 else f"{', '.join(map(str, allowed[:-1]))}, or {allowed[-1]}"
        raise ValueError(
            f"{where}: Only tensors with {dims} dimensions are supported, got shape {tuple(tensor.shape)}."
        )


def _calculate_fan_in_and_fan_out(tensor: Tensor) -> tuple[int, int]:
    """Inputs per output, and outputs per input, of a weight (out, in, *kernel)."""
    if tensor.dim() < 2:
        raise ValueError(
            "Fan in and fan out can not be computed for tensor with fewer than 2 dimensions, got shape "
            f"{tuple(tensor.shape)}. Initialise vectors with uniform_, normal_ or constant_."
        )
    out_maps, in_maps, *kernel = tensor.shape
    field = math.prod(kernel)
    return in_maps * field, out_maps * field


def _calculate_correct_fan(tensor: Tensor, mode: str) -> int:
    mode = mode.lower()
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"Mode {mode} not supported, please use one of ['fan_in', 'fan_out']")
    return _calculate_fan_in_and_fan_out(tensor)[mode == "fan_out"]


def _xavier_std(tensor: Tensor, gain: float) -> float:
    fan_in, fan_out = _calculate_fan_in_and_fan_out(tensor)
    return gain * math.sqrt(2.0 / float(fan_in + fan_out))


def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: Any = None) -> Tensor:
    """Glorot and Bengio 2010: uniform, with variance 2 gain^2 / (fan_in + fan_out)."""
    bound = math.sqrt(3.0) * _xavier_std(tensor, gain)
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Any = None) -> Tensor:
    """Glorot and Bengio 2010: normal, with variance 2 gain^2 / (fan_in + fan_out)."""
    return normal_(tensor, 0.0, _xavier_std(tensor, gain), generator)


def _kaiming_std(tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float | None:
    if 0 in tensor.shape:
        warnings.warn("Initializing zero-element tensors is a no-op", stacklevel=3)
        return None
    fan = _calculate_correct_fan(tensor, mode)
    return calculate_gain(nonlinearity, a) / math.sqrt(fan)


def kaiming_uniform_(
    tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu", generator: Any = None
) -> Tensor:
    """He et al. 2015: uniform, with variance gain^2 / fan. `a`: the negative slope of leaky_relu."""
    std = _kaiming_std(tensor, a, mode, nonlinearity)
    if std is None:
        return tensor
    bound = math.sqrt(3.0) * std
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu", generator: Any = None
) -> Tensor:
    """He et al. 2015: normal, with variance gain^2 / fan. `a`: the negative slope of leaky_relu."""
    std = _kaiming_std(tensor, a, mode, nonlinearity)
    return tensor if std is None else normal_(tensor, 0.0, std, generator)


def orthogonal_(tensor: Tensor, gain: float = 1, generator: Any = None) -> Tensor:
    """Saxe et al. 2013: rows (or columns) orthonormal, times gain; dimensions after the first count as one."""
    if tensor.dim() < 2:
        raise ValueError(
            f"orthogonal_: Only tensors with 2 or more dimensions are supported, got shape {tuple(tensor.shape)}."
        )
    if tensor.numel() == 0:
        return tensor
    rows = tensor.shape[0]
    columns = tensor.numel() // rows
    with no_grad():
        noise = tensor.new_empty((rows, columns)).normal_(0, 1, generator=generator)
        matrix = noise.numpy() if rows >= columns else noise.numpy().T
        q, r = np.linalg.qr(matrix)
        q = q * np.sign(np.diag(r))  # makes the decomposition unique, and the result uniform over orthogonal matrices
        q = q if rows >= columns else q.T
        tensor.copy_(Tensor._wrap(np.ascontiguousarray(q).reshape(tuple(tensor.shape))))
        return tensor.mul_(gain)


def sparse_(tensor: Tensor, sparsity: float, std: float = 0.01, generator: Any = None) -> Tensor:
    """Martens 2010: normal numbers, with the share `sparsity` of each column set to zero. ValueError unless 2-d."""
    _expect_dims("sparse_", tensor, (2,))
    rows, columns = tensor.shape
    zeros = math.ceil(sparsity * rows)
    with no_grad():
        tensor.normal_(0, std, generator=generator)
        for column in range(columns):
            tensor[Tensor._wrap(permutation(rows)[:zeros]), column] = (
                0  # the default generator even with generator=, as in PyTorch
            )
    return tensor


def _deprecated(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The older name, without underscore."""
    old = function.__name__[:-1]

    def older(*args: Any, **kwargs: Any) -> Tensor:
        warnings.warn(f"`nn.init.{old}` is now deprecated in favor of `nn.init.{old}_`.", FutureWarning, stacklevel=2)
        return function(*args, **kwargs)

    functools.update_wrapper(older, function)
    older.__name__ = older.__qualname__ = old
    older.__doc__ = f"Deprecated name of `{old}_`."
    del older.__wrapped__  # type: ignore[attr-defined]  # its signature is (*args, **kwargs), as the contract has it
    return older


uniform = _deprecated(uniform_)
normal = _deprecated(normal_)
constant = _deprecated(constant_)
eye = _deprecated(eye_)
dirac = _deprecated(dirac_)
xavier_uniform = _deprecated(xavier_uniform_)
xavier_normal = _deprecated(xavier_normal_)
kaiming_uniform = _deprecated(kaiming_uniform_)
kaiming_normal = _deprecated(kaiming_normal_)
orthogonal = _deprecated(orthogonal_)
sparse = _deprecated(sparse_)
