"""PyTorch's own samples and error inputs for convolution, linear, padding and pooling."""

from typing import Any

import pytest

pytestmark = pytest.mark.torch

FUNCTIONS = [
    *(f"nn.functional.conv{n}d" for n in (1, 2, 3)),
    *(f"nn.functional.conv_transpose{n}d" for n in (1, 2, 3)),
    "nn.functional.linear",
    "nn.functional.bilinear",
    "nn.functional.pad",
    *(f"nn.functional.max_pool{n}d" for n in (1, 2, 3)),
    *(f"nn.functional.avg_pool{n}d" for n in (1, 2, 3)),
    *(f"nn.functional.adaptive_avg_pool{n}d" for n in (1, 2, 3)),
    *(f"nn.functional.adaptive_max_pool{n}d" for n in (1, 2, 3)),
    *(f"nn.functional.max_unpool{n}d" for n in (1, 2, 3)),
    *(f"nn.functional.fractional_max_pool{n}d" for n in (2, 3)),
]
MODULES = [
    *(f"{kind}{n}d" for kind in ("Conv", "ConvTranspose", "LazyConv", "LazyConvTranspose") for n in (1, 2, 3)),
    "Linear",
    "Bilinear",
    *(f"{kind}Pool{n}d" for kind in ("Max", "Avg", "AdaptiveAvg", "AdaptiveMax", "LP") for n in (1, 2, 3)),
    "FractionalMaxPool2d",
    "FractionalMaxPool3d",
    *(f"{kind}Pad{n}d" for kind in ("Zero", "Constant", "Reflection", "Replication", "Circular") for n in (1, 2, 3)),
]


@pytest.fixture(scope="module")
def db() -> Any:
    pytest.importorskip("torch")
    return pytest.importorskip("tests.torch_db")


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "complex128", "int64"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_function_agrees_with_torch(db: Any, name: str, dtype: str) -> None:
    for variant in db.variants(name):
        db.check_samples(name, dtype, variant)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function_raises_as_torch_does(db: Any, name: str) -> None:
    for variant in db.variants(name):
        db.check_errors(name, variant)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", MODULES)
def test_module_agrees_with_torch(db: Any, name: str, dtype: str, training: bool) -> None:
    assert db.check_module(name, dtype, training) > 0


@pytest.mark.parametrize("name", MODULES)
def test_module_raises_as_torch_does(db: Any, name: str) -> None:
    db.check_module_errors(name)
