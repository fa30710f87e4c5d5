"""Special functions that NumPy lacks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from faltung import engine
from faltung.autograd.graph import Op
from faltung.ops.apply import apply
from faltung.ops.arithmetic import conj
from faltung.ops.promotion import as_float
from faltung.tensor import Tensor


class Erf(Op):
    """The error function."""

    name = "erf"

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_inputs(0)
        return engine.call("special.erf", x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (x,) = ctx.saved
        return grad * (x * x).neg().exp() * (2 / math.sqrt(math.pi))


class Erfc(Op):
    """1 - erf."""

    name = "erfc"

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_inputs(0)
        return engine.call("special.erfc", x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (x,) = ctx.saved
        return grad * (x * x).neg().exp() * (-2 / math.sqrt(math.pi))


class ErfInv(Op):
    """The inverse of the error function."""

    name = "erfinv"

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_outputs(0)
        return inverse_erf(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (result,) = ctx.saved
        return grad * (result * result).exp() * (math.sqrt(math.pi) / 2)


def inverse_erf(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Winitzki's approximation, then three steps of Halley's method on erf (or erfc near the ends), in float64."""
    wide = np.asarray(x, np.float64)
    inside = np.abs(wide) < 1
    safe = np.where(inside, wide, 0.0)
    a = 0.147
    logarithm = np.log1p(-safe * safe)
    head = 2 / (math.pi * a) + logarithm / 2
    guess = np.copysign(np.sqrt(np.maximum(np.sqrt(head * head - logarithm / a) - head, 0)), safe)
    for _ in range(3):
        tail = np.abs(guess)
        # erf(g) - y from the complement where both are close to 1
        near = (1 - np.abs(safe)) - engine.call("special.erfc", tail)
        error = np.where(tail > 0.5, np.sign(safe) * near, engine.call("special.erf", guess) - safe)
        slope = 2 / math.sqrt(math.pi) * np.exp(-guess * guess)
        step = error / slope
        guess = guess - step / (1 + guess * step)
    ends = np.where(np.abs(wide) == 1, np.copysign(np.inf, wide), np.nan)
    return np.where(inside, guess, ends).astype(x.dtype)


class Lgamma(Op):
    """The logarithm of the magnitude of the gamma function."""

    name = "lgamma"

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_inputs(0)
        return _each(_lgamma, x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (x,) = ctx.saved
        return grad * digamma(x)


def _each(function: Any, x: Any) -> Any:
    flat = np.fromiter((function(v) for v in x.reshape(-1).tolist()), np.float64, x.size)
    return flat.reshape(x.shape).astype(x.dtype)


def _lgamma(value: float) -> float:
    if value == -math.inf or (value <= 0 and value == math.floor(value)):
        return math.inf
    return math.lgamma(value)


class Polygamma(Op):
    """The derivative of order n of the digamma function (n = 0: digamma itself)."""

    name = "polygamma"

    @staticmethod
    def forward(ctx: Any, x: Any, *, n: int) -> Any:
        ctx.save_inputs(0)
        ctx.n = n
        return _polygamma(n, x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (x,) = ctx.saved
        return grad * polygamma(ctx.n + 1, x)


_BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510)


def _polygamma(n: int, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Recurrence up to x >= 10 + n, then the asymptotic series (Abramowitz and Stegun 6.3.18, 6.4.11)."""
    wide = np.asarray(x, np.float64).copy()
    poles = (wide <= 0) & (wide == np.floor(wide))
    reflected = (wide < 0) & ~poles & (n == 0)
    point = np.where(reflected, 1 - wide, wide)
    point = np.where(poles, 1.0, point)
    sign = -1.0 if n % 2 == 0 else 1.0
    total = np.zeros_like(point)
    for _ in range(10 + n + (int(max(0.0, -point.min(initial=0.0))) if n else 0)):
        low = point < 10 + n
        total += np.where(low, sign * math.factorial(n) / point ** (n + 1), 0.0)
        point = np.where(low, point + 1, point)
    if n == 0:
        series = np.log(point) - 0.5 / point
        for k, b in enumerate(_BERNOULLI, 1):
            series -= b / (2 * k * point ** (2 * k))
    else:
        series = math.factorial(n - 1) / point**n + math.factorial(n) / (2 * point ** (n + 1))
        for k, b in enumerate(_BERNOULLI, 1):
            series += b * math.factorial(2 * k + n - 1) / (math.factorial(2 * k) * point ** (2 * k + n))
        series *= -sign * -1.0 if n % 2 else -1.0
    found = total + series
    found = np.where(reflected, found - math.pi / np.tan(math.pi * wide), found)
    if n == 0:
        at_pole = np.where(wide == 0, np.copysign(np.inf, -wide), np.nan)
    else:
        at_pole = np.full_like(wide, sign * np.inf)
    return np.where(poles, at_pole, found).astype(x.dtype)


class Sinc(Op):
    """sin(pi x) / (pi x)."""

    name = "sinc"

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_inputs(0)
        return np.sinc(x).astype(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (x,) = ctx.saved
        angle = x * math.pi
        slope = (angle.cos() * angle - angle.sin()) / (angle * x)
        return grad * conj(slope.masked_fill(x == 0, 0))


class BesselI0(Op):
    """The modified Bessel function of the first kind, order 0."""

    name = "i0"

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_inputs(0)
        return np.asarray(np.i0(x)).reshape(x.shape).astype(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (x,) = ctx.saved
        return grad * apply(BesselI1, x)


class BesselI1(Op):
    """The modified Bessel function of the first kind, order 1: the derivative of i0."""

    name = "i1"

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_inputs(0)
        ctx.save_outputs(0)
        return bessel_i1(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, result = ctx.saved
        ratio = (result / x).masked_fill(x == 0, 0.5)
        return grad * (i0(x) - ratio)


def bessel_i1(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Power series up to |x| = 30, then the asymptotic one (Abramowitz and Stegun 9.6.10, 9.7.1)."""
    wide = np.abs(np.asarray(x, np.float64))
    half = np.minimum(wide, 30.0) / 2
    term = half.copy()
    series = term.copy()
    for k in range(1, 60):
        term = term * (half * half) / (k * (k + 1))
        series += term
    far = np.maximum(wide, 30.0)
    factor, tail = np.ones_like(far), np.ones_like(far)
    for k in range(1, 12):
        factor = -factor * (4 - (2 * k - 1) ** 2) / (8 * k * far)
        tail += factor
    asymptotic = np.exp(far) / np.sqrt(2 * math.pi * far) * tail
    return np.copysign(np.where(wide <= 30, series, asymptotic), x).astype(x.dtype)


def _floating(op: type[Op], input: Tensor, **attributes: Any) -> Tensor:
    found: Tensor = apply(op, as_float(input), **attributes)
    return found


def erf(input: Tensor) -> Tensor:
    """The error function."""
    return _floating(Erf, input)


def erfc(input: Tensor) -> Tensor:
    """1 - erf(input), exact where erf is close to 1."""
    return _floating(Erfc, input)


def erfinv(input: Tensor) -> Tensor:
    """The inverse of the error function."""
    return _floating(ErfInv, input)


def lgamma(input: Tensor) -> Tensor:
    """The logarithm of the magnitude of the gamma function."""
    return _floating(Lgamma, input)


def digamma(input: Tensor) -> Tensor:
    """The derivative of lgamma."""
    return _floating(Polygamma, input, n=0)


def polygamma(n: int, input: Tensor) -> Tensor:
    """The derivative of order n of digamma."""
    if n < 0:
        raise RuntimeError(f"polygamma: polygamma(n, x) does not support negative n, got {n}.")
    return _floating(Polygamma, input, n=n)


def sinc(input: Tensor) -> Tensor:
    """sin(pi input) / (pi input), 1 at 0."""
    return _floating(Sinc, input)


def i0(input: Tensor) -> Tensor:
    """The modified Bessel function of the first kind, order 0."""
    return _floating(BesselI0, input)


def logit(input: Tensor, eps: float | None = None) -> Tensor:
    """log(input / (1 - input)), the input first limited to [eps, 1 - eps] where eps is given."""
    x = as_float(input)
    if eps is not None:
        x = x.clamp(eps, 1 - eps)
    return (x / (1 - x)).log()
