"""Activations as differentiable operations.

Each keeps one tensor for backward: its result where that is enough (the next layer keeps it anyway), else its input.
First gradients run as one fused kernel; when a graph of the gradient is wanted, `gradient` writes it in operations on
tensors, which makes every order of derivative available.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from faltung import dtypes, engine, sampling
from faltung.autograd import is_grad_enabled
from faltung.autograd.graph import Op
from faltung.engine.epilogue import ACTIVATIONS
from faltung.ops.apply import apply, apply_inplace
from faltung.ops.deferred import activated
from faltung.tensor import Tensor

# Klambauer et al. 2017, "Self-Normalizing Neural Networks", equation 14
SELU_ALPHA = 1.6732632423543772848170429916717
SELU_SCALE = 1.0507009873554804934193349852946


class ActivationBackward(Op):
    """The fused first gradient of any activation: kernel "activation.<kernel>_backward"."""

    name = "activation_backward"

    @staticmethod
    def forward(ctx: Any, gy: np.ndarray, kept: np.ndarray, kernel: str, parameters: dict[str, Any]) -> np.ndarray:
        return engine.call(kernel, gy, kept, **parameters)


class Activation(Op):
    """An elementwise function with its engine kernels `<kernel>_forward` and `<kernel>_backward`."""

    forward_kernel: ClassVar[str]
    backward_kernel: ClassVar[str]
    keeps_output: ClassVar[bool]

    def __init_subclass__(cls, kernel: str, keeps_output: bool) -> None:
        cls.name = kernel
        cls.forward_kernel = f"activation.{kernel}_forward"
        cls.backward_kernel = f"activation.{kernel}_backward"
        cls.keeps_output = cls.inplace_keeps = keeps_output

    @classmethod
    def forward(cls, ctx: Any, x: np.ndarray, **parameters: Any) -> np.ndarray:
        ctx.parameters = parameters
        if cls.keeps_output:
            ctx.save_outputs(0)
        else:
            ctx.save_inputs(0)
        return engine.call(cls.forward_kernel, x, **parameters)

    @classmethod
    def inplace(cls, ctx: Any, x: np.ndarray, **parameters: Any) -> None:
        if cls.keeps_output:
            ctx.parameters = parameters
            ctx.save_outputs(0)
        engine.call(cls.forward_kernel, x, out=x, **parameters)

    @classmethod
    def backward(cls, ctx: Any, gy: Tensor) -> Tensor:
        (kept,) = ctx.saved
        if is_grad_enabled():
            return cls.gradient(gy, kept, **ctx.parameters)
        return apply(ActivationBackward, gy, kept, kernel=cls.backward_kernel, parameters=ctx.parameters)

    @staticmethod
    def gradient(gy: Tensor, kept: Tensor, **parameters: Any) -> Tensor:
        """The gradient by the chain rule, in operations on tensors; `kept` is the result or the input."""
        raise NotImplementedError


class Relu(Activation, kernel="relu", keeps_output=True):
    """max(x, 0)."""

    quiet = True

    @staticmethod
    def gradient(gy: Tensor, kept: Tensor) -> Tensor:
        return gy.masked_fill(kept <= 0, 0)


class LeakyRelu(Activation, kernel="leaky_relu", keeps_output=True):
    """x where x > 0, else negative_slope * x, for negative_slope >= 0."""

    @staticmethod
    def gradient(gy: Tensor, kept: Tensor, negative_slope: float) -> Tensor:
        return gy.where(kept > 0, gy * negative_slope)


class LeakyReluOfInput(LeakyRelu, kernel="leaky_relu", keeps_output=False):
    """LeakyRelu for a negative slope below zero, where the sign of the result does not tell the side."""


class Sigmoid(Activation, kernel="sigmoid", keeps_output=True):
    """1 / (1 + exp(-x))."""

    @classmethod
    def backward(cls, ctx: Any, gy: Tensor) -> Tensor:
        (y,) = ctx.saved
        return cls.gradient(gy, y.conj()) if y.is_complex() else super().backward(ctx, gy)

    @staticmethod
    def gradient(gy: Tensor, kept: Tensor) -> Tensor:
        return gy * ((1 - kept) * kept)


class Tanh(Activation, kernel="tanh", keeps_output=True):
    """Hyperbolic tangent."""

    @classmethod
    def backward(cls, ctx: Any, gy: Tensor) -> Tensor:
        (y,) = ctx.saved
        return cls.gradient(gy, y.conj()) if y.is_complex() else super().backward(ctx, gy)

    @staticmethod
    def gradient(gy: Tensor, kept: Tensor) -> Tensor:
        return gy * (1 - kept * kept)


class Elu(Activation, kernel="elu", keeps_output=True):
    """scale * (x where x > 0, else alpha * (exp(input_scale * x) - 1)): ELU, SELU and CELU, for alpha >= 0."""

    @staticmethod
    def gradient(gy: Tensor, kept: Tensor, alpha: float, scale: float, input_scale: float) -> Tensor:
        return (gy * scale).where(kept > 0, gy * ((kept + alpha * scale) * input_scale))


class EluOfInput(Activation, kernel="elu", keeps_output=False):
    """Elu for alpha < 0, where the sign of the result does not tell the side."""

    @classmethod
    def backward(cls, ctx: Any, gy: Tensor) -> Tensor:
        return cls.gradient(gy, *ctx.saved, **ctx.parameters)

    @staticmethod
    def gradient(gy: Tensor, kept: Tensor, alpha: float, scale: float, input_scale: float) -> Tensor:
        below = (kept.clamp(max=0) * input_scale).exp() * (alpha * scale * input_scale)
        return (gy * scale).where(kept > 0, gy * below)


class Hardtanh(Activation, kernel="hardtanh", keeps_output=True):
    """x limited to [low, high]; also ReLU6."""

    @staticmethod
    def gradient(gy: Tensor, kept: Tensor, low: float, high: float) -> Tensor:
        return gy.masked_fill((kept <= low) | (kept >= high), 0)


def gradient_through(activation: str, gy: Tensor, y: Tensor) -> Tensor:
    """The gradient before relu or relu6 (names of `engine.epilogue`) whose result is y."""
    cls: type[Activation] = Relu if activation == "relu" else Hardtanh
    parameters = ACTIVATIONS[activation][1]
    if is_grad_enabled():
        return cls.gradient(gy, y, **parameters)
    return apply(ActivationBackward, gy, y, kernel=cls.backward_kernel, parameters=parameters)


class Hardsigmoid(Activation, kernel="hardsigmoid", keeps_output=True):
    """min(max(x + 3, 0), 6) / 6."""

    @staticmethod
    def gradient(gy: Tensor, kept: Tensor) -> Tensor:
        return (gy / 6).masked_fill((kept <= 0) | (kept >= 1), 0)


class Threshold(Activation, kernel="threshold", keeps_output=False):
    """x where x > threshold, else value."""

    @staticmethod
    def gradient(gy: Tensor, kept: Tensor, threshold: float, value: float) -> Tensor:
        return gy.masked_fill(kept <= threshold, 0)


class Gelu(Activation, kernel="gelu", keeps_output=False):
    """x * Phi(x), Phi the standard normal distribution; approximate="tanh" replaces Phi by a function of tanh."""

    @staticmethod
    def gradient(gy: Tensor, kept: Tensor, approximate: str) -> Tensor:
        if approximate == "tanh":
            slope, cubic = math.sqrt(2 / math.pi), 0.044715
            t = (slope * (kept + cubic * kept**3)).tanh()
            return gy * (0.5 * (1 + t) + 0.5 * kept * (1 - t * t) * (slope * (1 + 3 * cubic * kept * kept)))
        density = (-0.5 * kept * kept).exp() / math.sqrt(2 * math.pi)
        return gy * (0.5 * (1 + (kept * math.sqrt(0.5)).erf()) + kept * density)


class Silu(Activation, kernel="silu", keeps_output=False):
    """x * sigmoid(x)."""

    @classmethod
    def backward(cls, ctx: Any, gy: Tensor) -> Tensor:
        (x,) = ctx.saved
        return cls.gradient(gy, x.conj()) if x.is_complex() else super().backward(ctx, gy)

    @staticmethod
    def gradient(gy: Tensor, kept: Tensor) -> Tensor:
        s = sigmoid(kept)
        return gy * (s * (1 + kept * (1 - s)))


class Mish(Activation, kernel="mish", keeps_output=False):
    """x * tanh(softplus(x))."""

    @staticmethod
    def gradient(gy: Tensor, kept: Tensor) -> Tensor:
        t = tanh(-log_sigmoid(-kept))
        return gy * (t + kept * sigmoid(kept) * (1 - t * t))


class Hardswish(Activation, kernel="hardswish", keeps_output=False):
    """x * min(max(x + 3, 0), 6) / 6."""

    @staticmethod
    def gradient(gy: Tensor, kept: Tensor) -> Tensor:
        return (gy * (kept / 3 + 0.5)).where(kept < 3, gy).masked_fill(kept <= -3, 0)


class Softplus(Activation, kernel="softplus", keeps_output=False):
    """log(1 + exp(beta * x)) / beta; x itself where beta * x > threshold."""

    @staticmethod
    def gradient(gy: Tensor, kept: Tensor, beta: float, threshold: float) -> Tensor:
        scaled = kept * beta
        return gy.where(scaled > threshold, gy * sigmoid(scaled))


class LogSigmoid(Activation, kernel="log_sigmoid", keeps_output=False):
    """log(sigmoid(x))."""

    @staticmethod
    def gradient(gy: Tensor, kept: Tensor) -> Tensor:
        return gy * sigmoid(-kept)


class Softshrink(Activation, kernel="softshrink", keeps_output=False):
    """x moved towards zero by lambd, zero in between."""

    @staticmethod
    def gradient(gy: Tensor, kept: Tensor, lambd: float) -> Tensor:
        return gy.masked_fill((kept >= -lambd) & (kept <= lambd), 0)


class Hardshrink(Softshrink, kernel="hardshrink", keeps_output=False):
    """x where |x| > lambd, else zero."""


class RandomizedRelu(Op):
    """x where x > 0, else r * x with r drawn for each such element from [lower, upper)."""

    name = "rrelu"

    @staticmethod
    def forward(ctx: Any, x: np.ndarray, lower: float, upper: float) -> np.ndarray:
        slopes = np.ones(x.shape, dtype=x.dtype)
        below = x <= 0
        slopes[below] = sampling.uniform(int(np.count_nonzero(below)), lower, upper, dtype=np.float64)
        ctx.slopes = slopes
        return x * slopes

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Tensor:
        return gy * Tensor._wrap(ctx.slopes)


class GumbelNoise(Op):
    """Standard Gumbel noise of the shape and dtype of x: -log of exponential draws."""

    name = "gumbel_noise"

    @staticmethod
    def forward(ctx: Any, x: np.ndarray) -> np.ndarray:
        draws = sampling.fill_exponential(np.empty(x.shape, dtype=x.dtype))
        return -np.log(draws)


def _as_floating(x: Tensor) -> Tensor:
    """Integers and booleans become the default floating dtype, as PyTorch's type promotion of sigmoid and tanh says."""
    return x if x.dtype.is_floating_point or x.dtype.is_complex else x.to(dtypes.get_default_dtype())


def _must_be_floating(where: str, x: Tensor) -> Tensor:
    if x.dtype.is_floating_point or x.dtype.is_complex:
        return x
    raise RuntimeError(
        f"{where}: the result is floating point, which can't be cast to the desired output type {x.dtype}. "
        f"Use {where.rstrip('_')}, or x.float() first."
    )


def _run(op: type[Op], x: Tensor, inplace: bool, **parameters: Any) -> Tensor:
    return apply_inplace(op, x, **parameters) if inplace else apply(op, x, **parameters)


def _behind(
    activation: str, apart: Callable[[Tensor], Tensor], op: type[Op], x: Tensor, inplace: bool, **parameters: Any
) -> Tensor:
    """One of `engine.epilogue.ACTIVATIONS`: taken along by what x waits for, or `_run`."""
    taken = activated(x, activation, apart, inplace)
    return _run(op, x, inplace, **parameters) if taken is None else taken


def relu(x: Tensor) -> Tensor:
    return _behind("relu", relu, Relu, x, False)


def relu_(x: Tensor) -> Tensor:
    return _behind("relu", relu, Relu, x, True)


def leaky_relu(x: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    op = LeakyRelu if negative_slope >= 0 else LeakyReluOfInput
    return _run(op, x, inplace, negative_slope=float(negative_slope))


def sigmoid(x: Tensor) -> Tensor:
    return apply(Sigmoid, _as_floating(x))


def sigmoid_(x: Tensor) -> Tensor:
    return apply_inplace(Sigmoid, _must_be_floating("sigmoid_", x))


def tanh(x: Tensor) -> Tensor:
    return apply(Tanh, _as_floating(x))


def tanh_(x: Tensor) -> Tensor:
    return apply_inplace(Tanh, _must_be_floating("tanh_", x))


def elu(x: Tensor, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0, inplace: bool = False) -> Tensor:
    op = Elu if alpha >= 0 else EluOfInput
    return _run(op, x, inplace, alpha=float(alpha), scale=float(scale), input_scale=float(input_scale))


def selu(x: Tensor, inplace: bool = False) -> Tensor:
    return elu(x, SELU_ALPHA, SELU_SCALE, 1.0, inplace)


def celu(x: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    return elu(x, alpha, 1.0, 1.0 / alpha, inplace)


def hardtanh(x: Tensor, low: float = -1.0, high: float = 1.0, inplace: bool = False) -> Tensor:
    if (low, high) == (0, 6):
        return _behind("relu6", lambda y: hardtanh(y, 0, 6), Hardtanh, x, inplace, low=low, high=high)
    return _run(Hardtanh, x, inplace, low=low, high=high)


def hardsigmoid(x: Tensor, inplace: bool = False) -> Tensor:
    return _run(Hardsigmoid, x, inplace)


def threshold(x: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
    return _run(Threshold, x, inplace, threshold=threshold, value=value)


def gelu(x: Tensor, approximate: str = "none") -> Tensor:
    return apply(Gelu, x, approximate=approximate)


def silu(x: Tensor, inplace: bool = False) -> Tensor:
    return _behind("silu", silu, Silu, x, inplace)


def mish(x: Tensor, inplace: bool = False) -> Tensor:
    return _run(Mish, x, inplace)


def hardswish(x: Tensor, inplace: bool = False) -> Tensor:
    return _behind("hardswish", hardswish, Hardswish, x, inplace)


def softplus(x: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    return apply(Softplus, x, beta=float(beta), threshold=float(threshold))


def log_sigmoid(x: Tensor) -> Tensor:
    return apply(LogSigmoid, x)


def softshrink(x: Tensor, lambd: float = 0.5) -> Tensor:
    return apply(Softshrink, x, lambd=float(lambd))


def hardshrink(x: Tensor, lambd: float = 0.5) -> Tensor:
    return apply(Hardshrink, x, lambd=float(lambd))


def rrelu(x: Tensor, lower: float, upper: float, inplace: bool = False) -> Tensor:
    return _run(RandomizedRelu, x, inplace, lower=float(lower), upper=float(upper))


def gumbel_noise(x: Tensor) -> Tensor:
    """Noise like x, in logical order."""
    return apply(GumbelNoise, x)


def prelu(x: Tensor, weight: Tensor) -> Tensor:
    """`weight` is one number, or (C,) along dimension 1 of `x`."""
    shape = (1,) * x.ndim if weight.numel() == 1 else (1, -1) + (1,) * (x.ndim - 2)
    return x.where(x > 0, x * weight.reshape(shape))
