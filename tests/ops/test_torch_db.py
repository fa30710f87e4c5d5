"""Every tensor operation that PyTorch's own database knows, sample by sample: values, gradients, exception classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import faltung

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]
db = pytest.importorskip("tests.torch_db")

# Other families have tests of their own, and what isn't part of this library can't be compared.
OTHER = ("nn.functional", "linalg", "fft", "special", "_", "signal", "masked", "sparse", "ops.", "torch.", "jiterator")

# Where results legitimately differ, and why.
EXCEPTIONS = {
    "empty": "uninitialised",
    "empty_like": "uninitialised",
    "new_empty": "uninitialised",
    "normal": "random, and tested with random numbers",
    "rand_like": "random, and tested with random numbers",
    "bfloat16": "NumPy has no such type",
    "nextafter": "the database's own gradient raises",
    "sgn": "PyTorch's gradient is a ZeroTensor that NumPy can't read",
    "zero_": "writes to leaves",
    "cov": "its float32 weights are combined in another order",
    "norm/nuc": "differentiable once",
    "as_strided/partial_views": "the conversion copies what the view was taken from",
}
UNSTABLE = {"sort", "argsort", "msort", "kthvalue", "topk", "mode"}  # PyTorch orders equal elements anyhow; here stably
LENIENT = {  # accepted here, refused there
    "clamp_max": "numbers as limits",
    "clamp_min": "numbers as limits",
    "arange": "RuntimeError for a result that doesn't fit out=",
    "complex": "out= of another precision",
    "kthvalue": "out= of another size",
    "gather": "out= of another type",
    "index_select": "out= that overlaps",
    "take": "out= that overlaps",
    "cat": "out= that overlaps",
    "multinomial": "out= that overlaps",
    "bernoulli": "out= that overlaps",
    "aminmax": "NumPy's limit of 64 dimensions",
    "amax": "NumPy's limit of 64 dimensions",
    "amin": "NumPy's limit of 64 dimensions",
}
OVERRIDES: dict[str, Callable[..., Any]] = {
    "where": lambda x, condition, other: faltung.where(condition, x, other),
    "einsum": lambda tensors, equation: faltung.einsum(equation, tensors),
    "polygamma": lambda x, n: faltung.polygamma(n, x),
    "item": lambda x: x.item(),
}
CASTS = ("bool", "double", "float", "half", "int", "long", "short", "cdouble", "cfloat", "char", "byte")
OVERRIDES.update({name: getattr(faltung.Tensor, name) for name in CASTS})


def _function(name: str) -> Callable[..., Any] | None:
    if name in OVERRIDES:
        return OVERRIDES[name]
    found = getattr(faltung, name, None) or getattr(faltung.Tensor, name, None)
    return found.fget if isinstance(found, property) else found


CASES = [
    (name, variant)
    for name, variant in db.OPS
    if not name.startswith(OTHER)
    and name not in EXCEPTIONS
    and f"{name}/{variant}" not in EXCEPTIONS
    and callable(_function(name))
]


@pytest.mark.parametrize(("name", "variant"), CASES)
@pytest.mark.parametrize("dtype", ["float64", "int64", "bool"])
def test_samples(name: str, variant: str, dtype: str) -> None:
    if name in UNSTABLE and dtype != "float64":
        pytest.skip("ties")
    db.check_samples(name, dtype, variant, function=_function(name))


@pytest.mark.parametrize(("name", "variant"), CASES)
def test_errors(name: str, variant: str) -> None:
    if name in LENIENT:
        pytest.skip(LENIENT[name])
    db.check_errors(name, variant, function=_function(name))


def test_most_of_the_database_is_covered() -> None:
    assert len(CASES) > 280
