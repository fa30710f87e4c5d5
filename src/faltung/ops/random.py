"""Random tensors: `rand`, `randn`, `randint` and their `_like` forms, `randperm`, `bernoulli`, `normal`, ..."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from faltung import attributes, dtypes, sampling
from faltung.autograd.graph import Op
from faltung.autograd.modes import settle_all
from faltung.engine import memory
from faltung.ops.apply import apply
from faltung.ops.random_fill import bernoulli_, check_int, check_kind, check_probabilities, normal_, random_, uniform_
from faltung.random import Generator, choose
from faltung.tensor import Tensor

__all__ = [
    "bernoulli",
    "multinomial",
    "normal",
    "rand",
    "rand_like",
    "randint",
    "randint_like",
    "randn",
    "randn_like",
    "randperm",
]


# --- arguments ---


def _size(where: str, sizes: tuple[Any, ...], size: Any) -> tuple[int, ...]:
    """The size given as positional ints, as one sequence, or by keyword."""
    if size is not None:
        if sizes:
            raise TypeError(f"{where}(): got multiple values for argument 'size'.")
        sizes = (size,) if isinstance(size, (tuple, list)) else (tuple(size),)
    if not sizes:
        raise TypeError(f"{where}(): missing argument 'size': write {where}(2, 3), or {where}(()) for one number.")
    if isinstance(sizes[0], (tuple, list)):
        if len(sizes) > 1:
            raise TypeError(f"{where}(): expected sizes as ints or as one tuple of ints, got {sizes!r}.")
        sizes = tuple(sizes[0])
    found = []
    for value in sizes:
        if isinstance(value, (bool, float, str)) or not hasattr(value, "__index__"):
            raise TypeError(f"{where}(): argument 'size' must be tuple of ints, not {type(value).__name__}.")
        found.append(value.__index__())
    if any(value < 0 for value in found):
        raise RuntimeError(f"{where}: Trying to create tensor with negative dimension {min(found)}: {found}.")
    return tuple(found)


def _target(
    where: str, shape: tuple[int, ...], default: Any, dtype: Any, device: Any, layout: Any, out: Tensor | None
) -> Tensor:
    """An uninitialised tensor to fill, or `out` in the shape it has to have."""
    attributes.check_device(device)
    if layout is not None and layout is not attributes.strided:
        raise RuntimeError(f"{where}: expected layout strided, got {layout}.")
    if out is None:
        return Tensor._wrap(memory.empty(shape, dtypes.to_numpy_dtype(default if dtype is None else dtype)))
    if dtype is not None and out.dtype is not dtypes.as_dtype(dtype):
        raise RuntimeError(f"{where}: dtype {dtype} does not match dtype of out parameter ({out.dtype}).")
    if tuple(out.shape) != shape:
        out.resize_(shape)
    return out


def _finished(tensor: Tensor, requires_grad: bool) -> Tensor:
    return tensor.requires_grad_() if requires_grad else tensor


def _empty_like(where: str, input: Any, dtype: Any, device: Any, memory_format: Any) -> Tensor:
    if not isinstance(input, Tensor):
        raise TypeError(f"{where}(): argument 'input' (position 1) must be Tensor, not {type(input).__name__}.")
    attributes.check_device(device)
    kind = input._data.dtype if dtype is None else dtypes.to_numpy_dtype(dtype)
    if memory_format in (None, attributes.preserve_format):
        return Tensor._wrap(np.empty_like(input._data, dtype=kind))
    return Tensor._wrap(memory.empty(input._data.shape, kind)).contiguous(memory_format=memory_format)


# --- new tensors ----------------------------------------------------------------------------------------------------


def rand(
    *size: Any,
    generator: Generator | None = None,
    out: Tensor | None = None,
    dtype: Any = None,
    layout: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    pin_memory: bool = False,
    **keywords: Any,
) -> Tensor:
    """Numbers drawn uniformly from [0, 1). Shape: `size`. Dtype: floating point or complex."""
    shape = _size("rand", size, _only_size("rand", keywords))
    target = _target("rand", shape, dtypes.get_default_dtype(), dtype, device, layout, out)
    return _finished(uniform_(target, generator=generator), requires_grad)


def randn(
    *size: Any,
    generator: Generator | None = None,
    out: Tensor | None = None,
    dtype: Any = None,
    layout: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    pin_memory: bool = False,
    **keywords: Any,
) -> Tensor:
    """Numbers of the standard normal distribution. Shape: `size`. Dtype: floating point or complex."""
    shape = _size("randn", size, _only_size("randn", keywords))
    target = _target("randn", shape, dtypes.get_default_dtype(), dtype, device, layout, out)
    return _finished(normal_(target, generator=generator), requires_grad)


def _only_size(where: str, keywords: dict[str, Any]) -> Any:
    size = keywords.pop("size", None)
    if keywords:
        raise TypeError(f"{where}() got an unexpected keyword argument {next(iter(keywords))!r}.")
    return size


def randint(
    *bounds_and_size: Any,
    low: int | None = None,
    high: int | None = None,
    size: Any = None,
    generator: Generator | None = None,
    out: Tensor | None = None,
    dtype: Any = None,
    layout: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    pin_memory: bool = False,
) -> Tensor:
    """Integers drawn uniformly from [low, high): `randint(high, size)` or `randint(low, high, size)`. Dtype: int64."""
    positional = list(bounds_and_size)
    if size is None:
        if not positional or not isinstance(positional[-1], (tuple, list)):
            got = type(positional[-1]).__name__ if positional else "nothing"
            raise TypeError(f"randint(): argument 'size' must be tuple of ints, not {got}. Write randint(10, (2, 3)).")
        size = positional.pop()
    if high is None:
        if not positional:
            raise TypeError("randint(): missing argument 'high'.")
        high = positional.pop()
    if low is None:
        low = positional.pop() if positional else 0
    if positional:
        raise TypeError(f"randint(): expected low, high and size, got {len(bounds_and_size)} positional arguments.")
    shape = _size("randint", (), size)
    low, high = check_int("randint", "low", low), check_int("randint", "high", high)
    target = _target("randint", shape, dtypes.int64, dtype, device, layout, out)
    return _finished(random_(target, low, high, generator=generator), requires_grad)


def randperm(
    n: int,
    *,
    generator: Generator | None = None,
    out: Tensor | None = None,
    dtype: Any = None,
    layout: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    pin_memory: bool = False,
) -> Tensor:
    """The integers 0 to n-1 in random order. Shape: (n,). Dtype: int64 unless said otherwise."""
    n = check_int("randperm", "n", n)
    if n < 0:
        raise RuntimeError(f"randperm: Trying to create tensor with negative dimension {n}: [{n}].")
    target = _target("randperm", (n,), dtypes.int64, dtype, device, layout, out)
    kind = target._data.dtype
    if kind.kind in "bc":
        raise NotImplementedError(
            f"randperm: not implemented for '{target.dtype.legacy_name}': expected an integer or floating point dtype."
        )
    largest = 2 ** (np.finfo(kind).nmant + 1) + 1 if kind.kind == "f" else int(np.iinfo(kind).max)
    if n > largest:
        raise RuntimeError(f"randperm: n cannot be greater than {largest} for {target.dtype}, got {n}.")
    settle_all()
    target._data[...] = sampling.permutation(n, kind, choose(generator))
    target._storage.bump()
    return _finished(target, requires_grad)


def rand_like(
    input: Tensor,
    *,
    generator: Generator | None = None,
    dtype: Any = None,
    layout: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    pin_memory: bool = False,
    memory_format: Any = None,
) -> Tensor:
    """`rand` in the shape and dtype of `input`."""
    return _finished(
        uniform_(_empty_like("rand_like", input, dtype, device, memory_format), generator=generator), requires_grad
    )


def randn_like(
    input: Tensor,
    *,
    generator: Generator | None = None,
    dtype: Any = None,
    layout: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    pin_memory: bool = False,
    memory_format: Any = None,
) -> Tensor:
    """`randn` in the shape and dtype of `input`."""
    return _finished(
        normal_(_empty_like("randn_like", input, dtype, device, memory_format), generator=generator), requires_grad
    )


def randint_like(
    input: Tensor,
    *bounds: Any,
    low: int | None = None,
    high: int | None = None,
    generator: Generator | None = None,
    dtype: Any = None,
    layout: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    pin_memory: bool = False,
    memory_format: Any = None,
) -> Tensor:
    """`randint` in the shape and dtype of `input`: `randint_like(x, high)` or `randint_like(x, low, high)`."""
    positional = list(bounds)
    if high is None:
        if not positional:
            raise TypeError("randint_like(): missing argument 'high'.")
        high = positional.pop()
    if low is None:
        low = positional.pop() if positional else 0
    if positional:
        raise TypeError(f"randint_like(): expected input, low and high, got {len(bounds) + 1} positional arguments.")
    target = _empty_like("randint_like", input, dtype, device, memory_format)
    low, high = check_int("randint_like", "low", low), check_int("randint_like", "high", high)
    return _finished(random_(target, low, high, generator=generator), requires_grad)


# --- new tensors from tensors ---------------------------------------------------------------------------------------


class BernoulliOf(Op):
    """Draws 0 or 1 by the probabilities in the input, in its dtype. Not a function of them: gradient zero."""

    name = "bernoulli"

    @staticmethod
    def forward(ctx: Any, p: np.ndarray, generator: Generator | None) -> np.ndarray:
        return sampling.fill_bernoulli(np.empty(p.shape, dtype=p.dtype), p, generator)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return Tensor._wrap(np.zeros_like(grad._data))


def bernoulli(
    input: Tensor, p: float | None = None, *, generator: Generator | None = None, out: Tensor | None = None
) -> Tensor:
    """Zeros and ones, each 1 with the probability in `input`, or with `p` for all. Shape and dtype: `input`'s."""
    if not isinstance(input, Tensor):
        raise TypeError(f"bernoulli(): argument 'input' (position 1) must be Tensor, not {type(input).__name__}.")
    if p is not None:
        return bernoulli_(Tensor._wrap(np.empty(input.shape, dtype=input._data.dtype)), p, generator=generator)
    check_kind("bernoulli", "bernoulli_tensor_cpu_p_", input, "f")
    check_probabilities("bernoulli", input)
    result: Tensor = apply(BernoulliOf, input, generator=choose(generator))
    return result if out is None else _into(out, result)


def _into(out: Tensor, result: Tensor) -> Tensor:
    if out.shape != result.shape:
        out.resize_(result.shape)
    out.copy_(result)
    return out


def normal(
    mean: Tensor | float = 0.0,
    std: Tensor | float = 1.0,
    size: Any = None,
    *,
    generator: Generator | None = None,
    out: Tensor | None = None,
    dtype: Any = None,
    layout: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    pin_memory: bool = False,
) -> Tensor:
    """Normal numbers: `normal(mean, std)` with tensors for one or both, or `normal(mean, std, size)` with numbers.

    Shape: the tensors' broadcast shape, or `size`. Dtype: that of `mean`, else of `std`, else the default.
    """
    if not isinstance(mean, Tensor) and not isinstance(std, Tensor):
        if size is None and out is None:
            raise TypeError("normal(): missing argument 'size' for a mean and a std that are numbers.")
        shape = tuple(out.shape) if size is None and out is not None else _size("normal", (), size)
        target = _target("normal", shape, dtypes.get_default_dtype(), dtype, device, layout, out)
        return _finished(normal_(target, float(mean), float(std), generator=generator), requires_grad)
    if isinstance(std, Tensor):
        _check_std_tensor(std)
    elif std < 0:
        raise RuntimeError(f"normal: expects std >= 0.0, but found std {std}.")
    leader = mean if isinstance(mean, Tensor) else std
    assert isinstance(leader, Tensor)  # at least one of the two is
    shapes = [tuple(value.shape) for value in (mean, std) if isinstance(value, Tensor)]
    try:
        shape = np.broadcast_shapes(*shapes)
    except ValueError:
        raise RuntimeError(f"normal: expected mean and std of shapes that broadcast, got {shapes}.") from None
    noise = Tensor._wrap(np.empty(shape, dtype=leader._data.dtype))
    if isinstance(std, Tensor):
        result = normal_(noise, generator=generator) * std.detach().to(noise.dtype) + mean
    else:
        result = normal_(noise, 0.0, float(std), generator=generator) + mean
    result = result.detach()
    if any(isinstance(value, Tensor) and value.requires_grad for value in (mean, std)):
        result = apply(Sampled, result, *[value for value in (mean, std) if isinstance(value, Tensor)])
    return result if out is None else _into(out, result)


class Sampled(Op):
    """Passes a sample on; the parameters of its distribution get gradient zero."""

    name = "normal"

    @staticmethod
    def forward(ctx: Any, sample: np.ndarray, *parameters: np.ndarray) -> np.ndarray:
        ctx.kinds = [(parameter.shape, parameter.dtype) for parameter in parameters]
        return sample

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return (None, *[Tensor._wrap(np.zeros(shape, dtype=kind)) for shape, kind in ctx.kinds])


def _check_std_tensor(std: Tensor) -> None:
    if std.is_complex():
        raise RuntimeError(f"normal: expects standard deviation to be non-complex, got {std.dtype}.")
    if std.numel() and not (std._data.min() >= 0):
        raise RuntimeError(f"normal: expects all elements of std >= 0.0, got a minimum of {std._data.min()}.")


def multinomial(
    input: Tensor,
    num_samples: int,
    replacement: bool = False,
    *,
    generator: Generator | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Indices drawn in proportion to the weights in `input`.

    Shape: input (categories,) or (rows, categories); result (num_samples,) or (rows, num_samples). Dtype: int64.

    Raises:
        RuntimeError: wrong rank or dtype; more samples than categories without replacement; negative, infinite or NaN
            weights; a row without positive weight.
    """
    if input.dim() not in (1, 2):
        raise RuntimeError(f"multinomial: prob_dist must be 1 or 2 dim, got shape {tuple(input.shape)}.")
    if not input.is_floating_point():
        raise RuntimeError(f"multinomial: only supports floating-point dtypes for input, got: {input.dtype}.")
    num_samples = check_int("multinomial", "num_samples", num_samples)
    if num_samples <= 0:
        raise RuntimeError(f"multinomial: cannot sample n_sample <= 0 samples, got {num_samples}.")
    weights = input._data
    if not replacement and num_samples > weights.shape[-1]:
        raise RuntimeError(
            f"multinomial: cannot sample n_sample > prob_dist.size(-1) samples without replacement: {num_samples} of "
            f"{weights.shape[-1]} categories. Pass replacement=True, or ask for fewer."
        )
    if weights.size:
        if not (weights.min() >= 0 and weights.max() < math.inf):
            raise RuntimeError("multinomial: probability tensor contains either `inf`, `nan` or element < 0.")
        if not (weights.sum(axis=-1) > 0).all():
            raise RuntimeError("multinomial: invalid multinomial distribution (sum of probabilities <= 0).")
    result = Tensor._wrap(sampling.multinomial(weights, num_samples, replacement, choose(generator)))
    return result if out is None else _into(out, result)
