"""Activations: PyTorch's signatures, and errors that say what to do.

All work element by element on tensors of any shape unless they say otherwise. Functions with `inplace` write their
result into the input and return it; those whose name ends in an underscore always do. Floating point input only,
except where noted; others raise NotImplementedError.
"""

from __future__ import annotations

import warnings
from typing import Any

from faltung import dtypes
from faltung.nn.functional._checks import as_number, check_tensor, message, not_implemented_for, shape_text
from faltung.ops import activation as ops
from faltung.ops import softmax as softmax_ops
from faltung.ops.deferred import Deferred
from faltung.ops.dims import wrap_dim
from faltung.tensor import Tensor


def _floating(where: str, input: Any) -> Tensor:
    if type(input) is Deferred:
        return input
    if isinstance(input, Tensor) and input._data.dtype.kind == "f":
        return input
    raise not_implemented_for(where, check_tensor(where, "input", input))


def _real(where: str, input: Any) -> Tensor:
    """Integers as well, but neither booleans nor complex numbers."""
    if type(input) is Deferred:
        return input
    tensor = check_tensor(where, "input", input)
    if tensor._data.dtype.kind in "fiu":
        return tensor
    if tensor.dtype is dtypes.bool:
        raise RuntimeError(message(where, "Boolean inputs not supported", "Convert the data: x.float()."))
    raise not_implemented_for(where, tensor, "It orders numbers, which complex ones are not: use x.real or x.abs().")


# --- rectifiers -------------------------------------------------------------------------------------------------------


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(x, 0); integers too. Module twin: `nn.ReLU`."""
    x = _real("relu", input)
    return ops.relu_(x) if inplace else ops.relu(x)


def relu_(input: Tensor) -> Tensor:
    """`relu` in place."""
    return ops.relu_(_real("relu_", input))


def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """min(max(x, 0), 6); integers too. Module twin: `nn.ReLU6`."""
    return ops.hardtanh(_real("relu6", input), 0, 6, inplace)


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """x where x > 0, else negative_slope * x. Module twin: `nn.LeakyReLU`."""
    slope = as_number("leaky_relu", "negative_slope", negative_slope)
    return ops.leaky_relu(_floating("leaky_relu", input), slope, inplace)


def leaky_relu_(input: Tensor, negative_slope: float = 0.01) -> Tensor:
    """`leaky_relu` in place."""
    return leaky_relu(input, negative_slope, inplace=True)


def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """x where x > 0, else weight * x, with one learned weight, or one per channel (dimension 1). Twin: `nn.PReLU`."""
    where = "prelu"
    check_tensor(where, "input", input)
    check_tensor(where, "weight", weight)
    if input.dtype is not weight.dtype:
        raise RuntimeError(
            message(where, f"Type promoting not supported, got input {input.dtype} and weight {weight.dtype}",
                    f"Convert the data: input.to({weight.dtype}).")
        )  # fmt: skip
    _floating(where, input)
    if weight.dim() > 1:
        raise RuntimeError(message(where, f"weight must have 0 or 1 dimensions, got {shape_text(weight.shape)}"))
    if weight.numel() != 1 and input.dim() == 0:
        raise RuntimeError(message(where, f"a 0-d input takes one weight, got {weight.numel()}"))
    channels = input.shape[1] if input.dim() > 1 else 1
    if weight.numel() not in (1, channels):
        raise RuntimeError(
            message(
                where,
                f"weight must hold 1 or {channels} numbers, one per channel of input {shape_text(input.shape)}, got "
                f"{weight.numel()}",
            )
        )
    return ops.prelu(input, weight)


def rrelu(
    input: Tensor, lower: float = 1.0 / 8, upper: float = 1.0 / 3, training: bool = False, inplace: bool = False
) -> Tensor:
    """x where x > 0, else r * x: r drawn for each element from [lower, upper) in training, else their mean.

    Module twin: `nn.RReLU`.
    """
    where = "rrelu"
    if not lower <= upper:
        raise RuntimeError(message(where, f"lower must not be greater than upper, got lower={lower} and upper={upper}"))
    x = _floating(where, input)
    return ops.rrelu(x, lower, upper, inplace) if training else ops.leaky_relu(x, (lower + upper) / 2, inplace)


def rrelu_(input: Tensor, lower: float = 1.0 / 8, upper: float = 1.0 / 3, training: bool = False) -> Tensor:
    """`rrelu` in place."""
    return rrelu(input, lower, upper, training, inplace=True)


def threshold(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
    """x where x > threshold, else value; integers too. Module twin: `nn.Threshold`."""
    where = "threshold"
    x = check_tensor(where, "input", input)
    if x._data.dtype.kind not in "fiu":
        raise not_implemented_for(where, x)
    return ops.threshold(x, as_number(where, "threshold", threshold), as_number(where, "value", value), inplace)


def threshold_(input: Tensor, threshold: float, value: float) -> Tensor:
    """`threshold` in place."""
    return ops.threshold(_real("threshold_", input), threshold, value, True)


# --- exponential ------------------------------------------------------------------------------------------------------


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x where x > 0, else alpha * (exp(x) - 1) (Clevert et al. 2015). Module twin: `nn.ELU`."""
    return ops.elu(_floating("elu", input), as_number("elu", "alpha", alpha), inplace=inplace)


def elu_(input: Tensor, alpha: float = 1.0) -> Tensor:
    """`elu` in place."""
    return elu(input, alpha, inplace=True)


def selu(input: Tensor, inplace: bool = False) -> Tensor:
    """Scaled `elu` that keeps mean 0 and variance 1 through layers (Klambauer et al. 2017). Module twin: `nn.SELU`."""
    return ops.selu(_floating("selu", input), inplace)


def selu_(input: Tensor) -> Tensor:
    """`selu` in place."""
    return selu(input, inplace=True)


def celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """max(0, x) + min(0, alpha * (exp(x / alpha) - 1)) (Barron 2017). Module twin: `nn.CELU`."""
    if as_number("celu", "alpha", alpha) == 0:
        raise RuntimeError(
            message("celu", "alpha cannot be 0: it divides the input", "relu is the limit for alpha -> 0.")
        )
    return ops.celu(_floating("celu", input), alpha, inplace)


def celu_(input: Tensor, alpha: float = 1.0) -> Tensor:
    """`celu` in place."""
    return celu(input, alpha, inplace=True)


def softplus(input: Tensor, beta: float = 1, threshold: float = 20) -> Tensor:
    """log(1 + exp(beta * x)) / beta, x itself where beta * x > threshold. Module twin: `nn.Softplus`."""
    where = "softplus"
    numbers = as_number(where, "beta", beta), as_number(where, "threshold", threshold)
    return ops.softplus(_floating(where, input), *numbers)


# --- sigmoids ---------------------------------------------------------------------------------------------------------


def sigmoid(input: Tensor) -> Tensor:
    """1 / (1 + exp(-x)); integers become floating point. Module twin: `nn.Sigmoid`."""
    return ops.sigmoid(check_tensor("sigmoid", "input", input))


def tanh(input: Tensor) -> Tensor:
    """Hyperbolic tangent; integers become floating point. Module twin: `nn.Tanh`."""
    return ops.tanh(check_tensor("tanh", "input", input))


def logsigmoid(input: Tensor) -> Tensor:
    """log(sigmoid(x)), exact for large |x|. Module twin: `nn.LogSigmoid`."""
    return ops.log_sigmoid(_floating("logsigmoid", input))


def softsign(input: Tensor) -> Tensor:
    """x / (1 + |x|). Module twin: `nn.Softsign`."""
    x = check_tensor("softsign", "input", input)
    if x.dtype is dtypes.bool:
        raise not_implemented_for("softsign", x)
    return x / (x.abs() + 1)


def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    """x limited to [min_val, max_val]; integers too. Module twin: `nn.Hardtanh`."""
    where = "hardtanh"
    min_val, max_val = as_number(where, "min_val", min_val), as_number(where, "max_val", max_val)
    if min_val > max_val:
        raise ValueError(
            message(where, f"min_val cannot be greater than max_val, got min_val={min_val} and max_val={max_val}")
        )
    x = _real(where, input)
    if x._data.dtype.kind == "u" and min_val < 0:
        raise RuntimeError(message(where, f"min_val={min_val} is negative, which {x.dtype} can't hold"))
    if x._data.dtype.kind in "iu":
        min_val, max_val = int(min_val), int(max_val)
    return ops.hardtanh(x, min_val, max_val, inplace)


def hardtanh_(input: Tensor, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    """`hardtanh` in place."""
    return hardtanh(input, min_val, max_val, inplace=True)


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """min(max(x + 3, 0), 6) / 6. Module twin: `nn.Hardsigmoid`."""
    return ops.hardsigmoid(_floating("hardsigmoid", input), inplace)


# --- gates ------------------------------------------------------------------------------------------------------------


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """x * Phi(x), Phi the normal distribution, or its approximation by "tanh". Module twin: `nn.GELU`."""
    if approximate not in ("none", "tanh"):
        raise RuntimeError(message("gelu", f"approximate argument must be either none or tanh, got {approximate!r}"))
    return ops.gelu(_floating("gelu", input), approximate)


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """x * sigmoid(x), also called swish; complex numbers too. Module twin: `nn.SiLU`."""
    if type(input) is Deferred:
        return ops.silu(input, inplace)
    x = check_tensor("silu", "input", input)
    if x._data.dtype.kind not in "fc":
        raise not_implemented_for("silu", x)
    return ops.silu(x, inplace)


def mish(input: Tensor, inplace: bool = False) -> Tensor:
    """x * tanh(softplus(x)) (Misra 2019). Module twin: `nn.Mish`."""
    return ops.mish(_floating("mish", input), inplace)


def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    """x * min(max(x + 3, 0), 6) / 6 (Howard et al. 2019). Module twin: `nn.Hardswish`."""
    return ops.hardswish(_floating("hardswish", input), inplace)


def glu(input: Tensor, dim: int = -1) -> Tensor:
    """First half times sigmoid of the second half along `dim` (Dauphin et al. 2016). Module twin: `nn.GLU`."""
    where = "glu"
    x = _floating(where, input)
    if x.dim() == 0:
        raise RuntimeError(message(where, "does not support scalars: a dimension is split into halves"))
    axis = wrap_dim(where, dim, x.dim())
    size = x.shape[axis]
    if size % 2:
        raise RuntimeError(message(where, f"Halving dimension must be even, but dimension {axis} is size {size}"))
    return x.narrow(axis, 0, size // 2) * ops.sigmoid(x.narrow(axis, size // 2, size // 2))


# --- shrinkage --------------------------------------------------------------------------------------------------------


def softshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """x moved towards zero by lambd, zero in between. Module twin: `nn.Softshrink`."""
    x = _floating("softshrink", input)
    if not as_number("softshrink", "lambd", lambd) >= 0:
        raise RuntimeError(message("softshrink", f"lambda must be greater or equal to 0, but found to be {lambd}"))
    return ops.softshrink(x, lambd)


def hardshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """x where |x| > lambd, else zero. Module twin: `nn.Hardshrink`."""
    return ops.hardshrink(_floating("hardshrink", input), as_number("hardshrink", "lambd", lambd))


def tanhshrink(input: Tensor) -> Tensor:
    """x - tanh(x). Module twin: `nn.Tanhshrink`."""
    x = check_tensor("tanhshrink", "input", input)
    if x.dtype is dtypes.bool:
        raise not_implemented_for("tanhshrink", x)
    return x - ops.tanh(x)


# --- along a dimension ------------------------------------------------------------------------------------------------


def softmax(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: dtypes.dtype | None = None) -> Tensor:
    """exp(x) / sum(exp(x)) along `dim`; computed in `dtype` if given. Module twin: `nn.Softmax`."""
    x, axis = _softmax_arguments("softmax", input, dim, _stacklevel, dtype)
    return softmax_ops.softmax(x, axis)


def softmin(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: dtypes.dtype | None = None) -> Tensor:
    """`softmax` of -x. Module twin: `nn.Softmin`."""
    x, axis = _softmax_arguments("softmin", input, dim, _stacklevel, dtype)
    return softmax_ops.softmax(-x, axis)


def log_softmax(
    input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: dtypes.dtype | None = None
) -> Tensor:
    """log(softmax(x)) along `dim`, exact where softmax would round to 0. Module twin: `nn.LogSoftmax`."""
    x, axis = _softmax_arguments("log_softmax", input, dim, _stacklevel, dtype)
    return softmax_ops.log_softmax(x, axis)


def gumbel_softmax(logits: Tensor, tau: float = 1, hard: bool = False, eps: float = 1e-10, dim: int = -1) -> Tensor:
    """A random sample of classes: softmax((logits + Gumbel noise) / tau) along `dim` (Jang et al. 2016).

    hard=True gives one-hot vectors with the gradient of the soft ones. `eps` has no effect.
    """
    where = "gumbel_softmax"
    if eps != 1e-10:
        warnings.warn("`eps` parameter is deprecated and has no effect.", stacklevel=2)
    check_tensor(where, "logits", logits)
    if logits._data.dtype.kind != "f":
        raise RuntimeError(message(where, f"logits must be floating point, got {logits.dtype}", "Use logits.float()."))
    axis = wrap_dim(where, dim, logits.dim())
    soft = softmax_ops.softmax((logits + ops.gumbel_noise(logits)) / tau, axis)
    if not hard:
        return soft
    one_hot = soft.new_zeros(soft.shape)
    one_hot.scatter_(axis, soft.detach().argmax(axis, keepdim=True), 1.0)
    return one_hot - soft.detach() + soft


def _softmax_arguments(
    where: str, input: Tensor, dim: int | None, stacklevel: int, dtype: dtypes.dtype | None
) -> tuple[Tensor, int]:
    check_tensor(where, "input", input)
    if dim is None:
        dim = 0 if input.dim() in (0, 1, 3) else 1
        warnings.warn(
            f"Implicit dimension choice for {where} has been deprecated. Pass dim=X as an argument (dim={dim} was "
            f"chosen for "
            f"{input.dim()} dimensions).",
            stacklevel=stacklevel,
        )
    x = input if dtype is None else input.to(dtype)
    if x._data.dtype.kind != "f":
        raise not_implemented_for(where, x, "Convert the data: x.float(), or pass dtype=.")
    return x, wrap_dim(where, dim, x.dim())
