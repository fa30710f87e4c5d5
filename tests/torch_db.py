"""PyTorch's own test databases (OpInfo, ModuleInfo), run against this library.

`check_samples("nn.functional.conv2d", "float64")` runs every sample of that operation through PyTorch and through here
and compares values and gradients; `check_errors` compares exception classes; `check_module` and `check_module_errors`
do the same for layers. Import it only in tests marked `torch`, through `pytest.importorskip("tests.torch_db")`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import faltung

torch = pytest.importorskip("torch")
pytest.importorskip("expecttest")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torch.testing._internal.common_methods_invocations import op_db
    from torch.testing._internal.common_modules import ModuleErrorEnum, module_db

TOLERANCES = {  # (relative, absolute)
    "float16": (1e-2, 1e-2),
    "bfloat16": (2e-2, 2e-2),
    "float32": (1e-4, 1e-5),
    "float64": (1e-7, 1e-9),
    "complex64": (1e-4, 1e-5),
    "complex128": (1e-7, 1e-9),
}

OPS = {(op.name, op.variant_test_name): op for op in op_db}
MODULES = {info.module_cls.__name__: info for info in module_db}


def variants(name: str) -> list[str]:
    """The variants of an operation in PyTorch's database; the usual one is the empty string."""
    return [variant for op_name, variant in OPS if op_name == name]


def resolve(name: str) -> Any:
    """`nn.functional.conv2d` -> the function of this library."""
    found: Any = faltung
    for part in name.split("."):
        found = getattr(found, part)
    return found


# --- from PyTorch to here ---------------------------------------------------------------------------------------------


def convert(value: Any, seen: dict[int, Any] | None = None) -> Any:
    """PyTorch's tensors, dtypes and sizes, also inside containers, as this library's; one given twice stays one."""
    seen = {} if seen is None else seen
    if isinstance(value, torch.Tensor):
        if id(value) not in seen:
            seen[id(value)] = convert_tensor(value)
        return seen[id(value)]
    if isinstance(value, (torch.dtype, torch.memory_format, torch.layout)):
        return getattr(faltung, str(value).removeprefix("torch."))
    if isinstance(value, torch.device):
        return faltung.device(str(value))
    if isinstance(value, torch.Size):
        return tuple(value)
    if isinstance(value, (list, tuple)):
        items = [convert(item, seen) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if isinstance(value, dict):
        return {key: convert(item, seen) for key, item in value.items()}
    if isinstance(value, torch.nn.Module):
        return convert_module(value)
    if callable(value) and getattr(value, "__module__", None) in ("torch.nn.functional", "torch"):
        home = faltung.nn.functional if value.__module__ == "torch.nn.functional" else faltung
        return getattr(home, value.__name__)
    return value


def convert_tensor(tensor: Any) -> Any:
    """The same values in the same strides; a parameter stays a parameter."""
    plain = tensor.detach().resolve_conj().resolve_neg()
    if plain.dtype is torch.bfloat16:
        result = faltung.from_numpy(plain.float().numpy().copy()).to(faltung.bfloat16)
    else:
        result = faltung.from_numpy(_same_strides(plain))
    if isinstance(tensor, torch.nn.Parameter):
        return faltung.nn.Parameter(result, tensor.requires_grad)
    return result.requires_grad_(tensor.requires_grad)


def _same_strides(plain: Any) -> np.ndarray:
    array = plain.numpy()
    if array.size == 0 or 0 in array.strides or plain.is_contiguous():
        return array.copy()
    span = 1 + sum((size - 1) * step for size, step in zip(plain.shape, plain.stride(), strict=True))
    flat = torch.as_strided(plain, (span,), (1,)).numpy().copy()
    return np.lib.stride_tricks.as_strided(flat, array.shape, array.strides)


def convert_module(module: Any) -> Any:
    """A module without arguments (an activation given as an argument), by name."""
    return getattr(faltung.nn, type(module).__name__)()


# --- comparing --------------------------------------------------------------------------------------------------------


def flatten(value: Any) -> list[Any]:
    """All leaves of nested tuples, lists and dictionaries."""
    if isinstance(value, (list, tuple)):
        return [leaf for item in value for leaf in flatten(item)]
    if isinstance(value, dict):
        return [leaf for key in value for leaf in flatten(value[key])]
    return [value]


def as_numpy(tensor: Any) -> np.ndarray:
    """Values of either library's tensor; bfloat16 as float32."""
    plain = tensor.detach()
    if str(plain.dtype).endswith("bfloat16"):
        plain = plain.float()
    if isinstance(plain, torch.Tensor):
        plain = plain.resolve_conj().resolve_neg()
    return np.asarray(plain.numpy())


def assert_same(ours: Any, theirs: Any, what: str, tolerance: tuple[float, float] | None = None) -> None:
    """Equal structure, shapes, dtypes, and values within the dtype's tolerance."""
    ours, theirs = flatten(ours), flatten(theirs)
    assert len(ours) == len(theirs), f"{what}: {len(ours)} results, PyTorch gives {len(theirs)}"
    for mine, other in zip(ours, theirs, strict=True):
        if not isinstance(other, torch.Tensor):
            assert mine == other or (mine is None and other is None), f"{what}: {mine} != {other}"
            continue
        assert isinstance(mine, faltung.Tensor), f"{what}: got {type(mine).__name__}, PyTorch gives a tensor"
        name = str(other.dtype).removeprefix("torch.")
        assert str(mine.dtype).split(".")[-1] == name, f"{what}: dtype {mine.dtype}, PyTorch gives {name}"
        assert tuple(mine.shape) == tuple(other.shape), f"{what}: shape {tuple(mine.shape)} != {tuple(other.shape)}"
        relative, absolute = tolerance or TOLERANCES.get(name, (0.0, 0.0))
        expected = as_numpy(other)
        finite = np.abs(expected[np.isfinite(expected)])
        # sums cancel: the largest term sets the error
        absolute = max(absolute, relative * 0.1 * float(finite.max(initial=0.0)))
        np.testing.assert_allclose(as_numpy(mine), expected, relative, absolute, equal_nan=True, err_msg=what)


def _differentiable(values: list[Any]) -> list[Any]:
    return [value for value in values if hasattr(value, "requires_grad") and value.requires_grad]


def assert_same_gradients(ours: Any, theirs: Any, our_leaves: list[Any], their_leaves: list[Any], what: str) -> None:
    """Gradients of one random weighting of all differentiable results with respect to the leaves."""
    our_results, their_results = _differentiable(flatten(ours)), _differentiable(flatten(theirs))
    assert len(our_results) == len(their_results), (
        f"{what}: {len(our_results)} differentiable, not {len(their_results)}"
    )
    if not their_results or not their_leaves:
        return
    torch.manual_seed(7)
    seeds = [torch.randn_like(result) for result in their_results]
    expected = torch.autograd.grad(their_results, their_leaves, seeds, allow_unused=True)
    got = faltung.autograd.grad(our_results, our_leaves, [convert(seed) for seed in seeds], allow_unused=True)
    zeros = [
        torch.zeros_like(leaf) if grad is None else grad for leaf, grad in zip(their_leaves, expected, strict=True)
    ]
    filled = [faltung.zeros_like(leaf) if grad is None else grad for leaf, grad in zip(our_leaves, got, strict=True)]
    for index, (mine, other) in enumerate(zip(filled, zeros, strict=True)):
        assert_same(mine, other, f"{what}: gradient {index}")


def describe(*arguments: Any, **options: Any) -> str:
    """Arguments with tensors as their shapes."""

    def short(value: Any) -> str:
        if isinstance(value, torch.Tensor):
            return f"{str(value.dtype).removeprefix('torch.')}{tuple(value.shape)}"
        if isinstance(value, (list, tuple)):
            return f"[{', '.join(short(item) for item in value)}]"
        return repr(value)

    parts = [short(argument) for argument in arguments]
    return ", ".join(parts + [f"{name}={short(value)}" for name, value in options.items()])


# --- operations -------------------------------------------------------------------------------------------------------


def samples(name: str, variant: str, dtype: str, gradients: bool) -> Iterator[Any]:
    """PyTorch's samples of an operation; none where it does not take the dtype."""
    op, kind = OPS[name, variant], getattr(torch, dtype)
    if kind not in op.supported_dtypes("cpu"):
        return
    wants = gradients and op.supports_autograd and kind in op.supported_backward_dtypes("cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield from op.sample_inputs("cpu", kind, requires_grad=wants)


def check_samples(name: str, dtype: str, variant: str = "", *, gradients: bool = True, function: Any = None) -> int:
    """Every sample: same values, same gradients. Returns how many there were."""
    op, ours_of, count = OPS[name, variant], function or resolve(name), 0
    for sample in samples(name, variant, dtype, gradients):
        count += 1
        what = f"{name}({describe(sample.input, *sample.args, **sample.kwargs)})"
        given = (sample.input, *sample.args)
        our_args, our_options = convert(given), convert(sample.kwargs)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.manual_seed(42)  # PyTorch's wrappers of random operations use the same
            theirs = sample.output_process_fn_grad(op(*given, **sample.kwargs))
            faltung.manual_seed(42)
            ours = sample.output_process_fn_grad(ours_of(*our_args, **our_options))
            assert_same(ours, theirs, what)
            if gradients:
                leaves = _differentiable(flatten([our_args, our_options]))
                assert_same_gradients(ours, theirs, leaves, _differentiable(flatten([given, sample.kwargs])), what)
    return count


def check_errors(name: str, variant: str = "", *, function: Any = None) -> int:
    """Every bad input of PyTorch's database: the same exception class. Returns how many there were."""
    op, ours_of, count = OPS[name, variant], function or resolve(name), 0
    if op.error_inputs_func is None:
        return 0
    for error in op.error_inputs("cpu"):
        count += 1
        sample = error.sample_input
        what = f"{name}({describe(sample.input, *sample.args, **sample.kwargs)})"
        _assert_raises(error.error_type, ours_of, convert((sample.input, *sample.args)), convert(sample.kwargs), what)
    return count


def _assert_raises(kind: Any, function: Any, args: Any, options: Any, what: str) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            function(*args, **options)
    except kind:
        return
    except Exception as error:
        raise AssertionError(f"{what}: raises {type(error).__name__} ({error}), PyTorch {kind}") from error
    raise AssertionError(f"{what}: no error, PyTorch raises {kind}")


# --- modules ----------------------------------------------------------------------------------------------------------


def module_samples(name: str, dtype: str, training: bool) -> Iterator[Any]:
    """PyTorch's samples of a layer; none where it does not take the dtype."""
    info, kind = MODULES[name], getattr(torch, dtype)
    if kind not in info.supported_dtypes("cpu"):
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield from info.module_inputs_func(info, device="cpu", dtype=kind, requires_grad=True, training=training)


def twins(info: Any, constructor: Any, dtype: str, training: bool) -> tuple[Any, Any]:
    """(our module, PyTorch's) with the same arguments and state."""
    torch.manual_seed(5)
    theirs = info.module_cls(*constructor.args, **constructor.kwargs).to(getattr(torch, dtype)).train(training)
    faltung.manual_seed(5)
    ours = getattr(faltung.nn, info.module_cls.__name__)(*convert(constructor.args), **convert(constructor.kwargs))
    ours = ours.to(getattr(faltung, dtype)).train(training)
    return ours, theirs


def check_module(name: str, dtype: str, training: bool = True) -> int:
    """Every sample: same representation, state (drawn from the same seed), values and gradients. Returns how many."""
    info, count = MODULES[name], 0
    for sample in module_samples(name, dtype, training):
        count += 1
        if sample.forward_input is None:
            continue
        constructor, given = sample.constructor_input, sample.forward_input
        what = f"{name}({describe(*constructor.args, **constructor.kwargs)})({describe(*given.args, **given.kwargs)})"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ours, theirs = twins(info, constructor, dtype, training)
            assert repr(ours) == repr(theirs), what
            torch.manual_seed(9)
            expected = theirs(*given.args, **given.kwargs)
            our_args, our_options = convert(given.args), convert(given.kwargs)
            faltung.manual_seed(9)
            got = ours(*our_args, **our_options)
            state = theirs.state_dict()
            assert list(ours.state_dict()) == list(state), what
            assert_same(list(ours.state_dict().values()), list(state.values()), f"{what}: state")
            assert_same(got, expected, what)
            leaves = _differentiable(flatten([our_args, our_options])) + list(ours.parameters())
            their_leaves = _differentiable(flatten([given.args, given.kwargs])) + list(theirs.parameters())
            assert_same_gradients(got, expected, leaves, their_leaves, what)
    return count


def check_module_errors(name: str) -> int:
    """Every bad construction and bad input of PyTorch's database: the same exception class. Returns how many."""
    info, count = MODULES[name], 0
    if info.module_error_inputs_func is None:
        return 0
    options = {"device": "cpu", "dtype": torch.float64, "requires_grad": False, "training": False}
    for error in info.module_error_inputs_func(info, **options):
        count += 1
        constructor, given = error.module_error_input.constructor_input, error.module_error_input.forward_input
        what = f"{name}({describe(*constructor.args, **constructor.kwargs)})"
        build = getattr(faltung.nn, name)
        args, kwargs = convert(constructor.args), convert(constructor.kwargs)
        if error.error_on is ModuleErrorEnum.CONSTRUCTION_ERROR:
            _assert_raises(error.error_type, build, args, kwargs, what)
        else:
            module = build(*args, **kwargs)
            if list(module.parameters()):
                module = module.to(faltung.float64)
            _assert_raises(error.error_type, module, convert(given.args), convert(given.kwargs), what)
    return count
