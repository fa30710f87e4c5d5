"""Methods that fill a tensor with random numbers: `uniform_`, `normal_`, `bernoulli_` and their kin.

Each checks its arguments as PyTorch does and draws through `faltung.sampling`. Fills enter by the one door, as in-place
operations whose gradient is zero: nothing of the old values is left.
"""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

import numpy as np

from faltung import sampling
from faltung.autograd.graph import Op
from faltung.ops.apply import apply_inplace
from faltung.random import Generator, choose
from faltung.tensor import Tensor

__all__ = [
    "bernoulli_",
    "cauchy_",
    "exponential_",
    "geometric_",
    "log_normal_",
    "normal_",
    "random_",
    "uniform_",
]


# --- operations --------------------------------------------------------------------------------------------


class Fill(Op):
    """Overwrite a tensor with random numbers. The gradient of what it held before is zero."""

    draw: ClassVar[Any]  # a fill_* function of faltung.sampling

    @classmethod
    def forward(cls, ctx: Any, x: np.ndarray, *others: np.ndarray, **options: Any) -> np.ndarray:
        ctx.others = [(other.shape, other.dtype) for other in others]
        return cls.draw(np.empty_like(x), *others, **options)

    @classmethod
    def inplace(cls, ctx: Any, x: np.ndarray, *others: np.ndarray, **options: Any) -> None:
        cls.draw(x, *others, **options)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        zeros = [Tensor._wrap(np.zeros(shape, dtype=kind)) for shape, kind in ctx.others]
        return (Tensor._wrap(np.zeros_like(grad._data)), *zeros)


class Uniform(Fill):
    name, draw = "uniform", staticmethod(sampling.fill_uniform)


class Normal(Fill):
    name, draw = "normal", staticmethod(sampling.fill_normal)


class Exponential(Fill):
    name, draw = "exponential", staticmethod(sampling.fill_exponential)


class Cauchy(Fill):
    name, draw = "cauchy", staticmethod(sampling.fill_cauchy)


class LogNormal(Fill):
    name, draw = "log_normal", staticmethod(sampling.fill_log_normal)


class Geometric(Fill):
    name, draw = "geometric", staticmethod(sampling.fill_geometric)


class Bernoulli(Fill):
    name, draw = "bernoulli", staticmethod(sampling.fill_bernoulli)


class Integers(Fill):
    name, draw = "random", staticmethod(sampling.fill_integers)


class AllIntegers(Fill):
    name, draw = "random", staticmethod(sampling.fill_random)


# --- argument checks ------------------------------------------------------------------------------------------------


def check_kind(where: str, kernel: str, tensor: Tensor, kinds: str) -> None:
    """NotImplementedError, as PyTorch's, for a dtype whose NumPy kind is not among `kinds`."""
    if tensor._data.dtype.kind not in kinds:
        wanted = "floating point or complex" if "c" in kinds else "floating point"
        raise NotImplementedError(
            f"{where}: \"{kernel}\" not implemented for '{tensor.dtype.legacy_name}': expected a {wanted} tensor. "
            "Convert it with .float() first."
        )


def check_int(where: str, name: str, value: Any) -> int:
    if isinstance(value, Tensor) and value.numel() == 1 and value._data.dtype.kind in "iub":
        return int(value.item())
    if isinstance(value, (bool, float)) or not hasattr(value, "__index__"):
        raise TypeError(f"{where}(): argument '{name}' must be int, not {type(value).__name__}.")
    return value.__index__()


def check_probabilities(where: str, p: Tensor) -> None:
    values = p._data
    if values.size and not (values.min() >= 0 and values.max() <= 1):
        raise RuntimeError(
            f"{where}: Expected p_in >= 0 && p_in <= 1: probabilities in [0, 1], got values from {values.min()} to "
            f"{values.max()}."
        )


# --- fills ----------------------------------------------------------------------------------------------------------


def uniform_(
    self: Tensor, from_: float = 0.0, to: float = 1.0, *, generator: Generator | None = None, **named: Any
) -> Tensor:
    """Overwrite with numbers drawn uniformly from [from, to)."""
    low, high = float(named.pop("from", from_)), float(to)
    if named:
        raise TypeError(f"uniform_() got an unexpected keyword argument {next(iter(named))!r}.")
    check_kind("uniform_", "check_uniform_bounds", self, "fc")
    limits = np.finfo(self._data.dtype)
    for name, value in (("from", low), ("to", high)):
        if not float(limits.min) <= value <= float(limits.max):
            raise RuntimeError(f"uniform_: {name} is out of bounds for {self.dtype}, got {value}.")
    if low > high:
        raise RuntimeError(f"uniform_ expects to return a [from, to) range, but found from={low} > to={high}.")
    if high - low > float(limits.max):
        raise RuntimeError(f"uniform_ expects to - from <= {limits.max}, but found from={low}, to={high}.")
    return apply_inplace(Uniform, self, low=low, high=high, generator=choose(generator))


def normal_(self: Tensor, mean: float = 0.0, std: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Overwrite with normal numbers."""
    if not std >= 0:
        raise RuntimeError(f"normal_: normal expects std >= 0.0, but found std {std}.")
    check_kind("normal_", "normal_kernel_cpu", self, "fc")
    return apply_inplace(Normal, self, mean=float(mean), std=float(std), generator=choose(generator))


def exponential_(self: Tensor, lambd: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Overwrite with numbers of density lambd exp(-lambd x), x > 0."""
    if not lambd > 0:
        raise RuntimeError(f"exponential_ expects lambda > 0.0, but found lambda={lambd}.")
    if self._data.dtype.kind != "f":
        raise RuntimeError(f"exponential_: dtype must be a floating point but you specified {self.dtype}.")
    return apply_inplace(Exponential, self, rate=float(lambd), generator=choose(generator))


def cauchy_(self: Tensor, median: float = 0.0, sigma: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Overwrite with numbers of the Cauchy distribution."""
    if not sigma > 0:
        raise RuntimeError(f"cauchy_ expects sigma > 0.0, but found sigma={sigma}.")
    if self._data.dtype.kind != "f":
        raise RuntimeError(f"cauchy_: dtype must be a floating point but you specified {self.dtype}.")
    return apply_inplace(Cauchy, self, median=float(median), sigma=float(sigma), generator=choose(generator))


def log_normal_(self: Tensor, mean: float = 1.0, std: float = 2.0, *, generator: Generator | None = None) -> Tensor:
    """Overwrite with numbers whose logarithm is normal with this mean and standard deviation."""
    if not std > 0:
        raise RuntimeError(f"log_normal_ expects std > 0.0, but found std={std}.")
    check_kind("log_normal_", "log_normal_cpu", self, "f")
    return apply_inplace(LogNormal, self, mean=float(mean), std=float(std), generator=choose(generator))


def geometric_(self: Tensor, p: float, *, generator: Generator | None = None) -> Tensor:
    """Overwrite with the number of trials up to the first success, each of probability `p` in (0, 1)."""
    if not 0 < p < 1:
        raise RuntimeError(f"geometric_ expects p to be in (0, 1), but got p={p}.")
    check_kind("geometric_", "geometric_cpu", self, "fiu")
    return apply_inplace(Geometric, self, p=float(p), generator=choose(generator))


def bernoulli_(self: Tensor, p: Tensor | float = 0.5, *, generator: Generator | None = None) -> Tensor:
    """Overwrite with zeros and ones, each 1 with probability `p`: a number, or a tensor that broadcasts."""
    check_kind("bernoulli_", "bernoulli_scalar_cpu_", self, "fiub")
    if isinstance(p, Tensor):
        check_kind("bernoulli_", "bernoulli_tensor_cpu_p_", p, "f")
        check_probabilities("bernoulli_", p)
        try:
            np.broadcast_to(p._data, self._data.shape)
        except ValueError:
            raise RuntimeError(
                f"bernoulli_: expected p to broadcast to {tuple(self.shape)}, got shape {tuple(p.shape)}."
            ) from None
        return apply_inplace(Bernoulli, self, p, generator=choose(generator))
    if not 0 <= p <= 1:
        raise RuntimeError(f"bernoulli_ expects p to be in [0, 1], but got p={p}.")
    return apply_inplace(Bernoulli, self, p=float(p), generator=choose(generator))


def random_(self: Tensor, *bounds: Any, generator: Generator | None = None, **named: Any) -> Tensor:
    """Overwrite with integers: `random_()` from all that the dtype holds, `random_(to)`, or `random_(from, to)`."""
    if len(bounds) > 2 or set(named) - {"from", "to"}:
        raise TypeError("random_(): expected no bounds, `to`, or `from` and `to`.")
    if not bounds and not named:
        if self._data.dtype.kind == "c":
            raise NotImplementedError('random_: "random_kernel_cpu" not implemented for complex tensors.')
        return apply_inplace(AllIntegers, self, generator=choose(generator))
    low, high = named.get("from", 0), named.get("to")
    if len(bounds) == 2:
        low, high = bounds
    elif bounds and "from" in named:
        high = bounds[0]
    elif bounds and "to" in named:
        low = bounds[0]
    elif bounds:
        high = bounds[0]
    low = check_int("random_", "from", low)
    if high is not None:
        high = check_int("random_", "to", high)
        if low >= high:
            raise RuntimeError(f"random_ expects 'from' to be less than 'to', but got from={low} >= to={high}.")
    low, high = _representable_range(self, low, high)
    return apply_inplace(Integers, self, low=low, high=high, generator=choose(generator))


def _representable_range(tensor: Tensor, low: int, high: int | None) -> tuple[int, int]:
    """[low, high) moved inwards to what the dtype holds; RuntimeError where it leaves the dtype's range."""
    kind = tensor._data.dtype
    if kind.kind == "c":
        raise RuntimeError("random_: handles only integral, floating-point and boolean types, got a complex tensor.")
    if kind.kind == "f":
        digits = np.finfo(kind).nmant + 1
        smallest, largest = int(np.finfo(kind).min), int(np.finfo(kind).max)
    elif kind.kind == "b":
        digits, smallest, largest = 64, 0, 1
    else:
        digits, smallest, largest = 64, int(np.iinfo(kind).min), int(np.iinfo(kind).max)
    if high is None:
        if low == -(2**63):
            return low, 2**63
        high = 2**digits + 1 if kind.kind == "f" else largest + 1
    if kind.kind == "f":
        low, high = _round_inwards(kind, low, high, digits)
    for name, value in (("from", low), ("to - 1", high - 1)):
        if not smallest <= value <= largest:
            raise RuntimeError(
                f"random_: {name} is out of bounds for {tensor.dtype}: expected {smallest} to {largest}, got {value}."
            )
        if kind.kind == "f" and abs(value) > 2**digits:
            warnings.warn(
                f"random_: {name}={value} is out of bounds [-(2^{digits}), 2^{digits}]: {tensor.dtype} cannot "
                "hold every integer beyond them, so that the distribution is not uniform there.",
                stacklevel=4,
            )
    return low, high


def _round_inwards(kind: np.dtype, low: int, high: int, digits: int) -> tuple[int, int]:
    """Bounds that stay inside [low, high) when numbers between them are rounded to a float type."""
    rounded = int(kind.type(low + 1))
    if rounded < low:
        low = rounded + 2 ** max(abs(low + 1).bit_length() - digits, 0)
    rounded = int(kind.type(high - 1))
    if rounded >= high:
        high = rounded - 2 ** max(abs(high - 1).bit_length() - digits, 0)
    if low >= high:
        raise RuntimeError(
            f"random_ expects 'from' casted to dtype to be less than 'to' casted to dtype, but got from={low} >= "
            f"to={high}."
        )
    return low, high
