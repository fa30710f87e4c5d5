"""PyTorch's own samples and error inputs for lookup tables, resampling, folding, shuffles and distances."""

from typing import Any

import pytest

import faltung

pytestmark = pytest.mark.torch

FUNCTIONS = [
    "nn.functional.embedding",
    "nn.functional.embedding_bag",
    "nn.functional.one_hot",
    "nn.functional.interpolate",
    "nn.functional.upsample_nearest",
    "nn.functional.upsample_bilinear",
    "nn.functional.unfold",
    "nn.functional.fold",
    "nn.functional.pixel_shuffle",
    "nn.functional.pixel_unshuffle",
    "nn.functional.channel_shuffle",
    "nn.functional.cosine_similarity",
    "nn.functional.pairwise_distance",
    "nn.functional.pdist",
    "nn.functional.normalize",
    "nn.functional.grid_sample",
    "nn.functional.affine_grid",
]
COARSE = {("nn.functional.normalize", "float16"), ("nn.functional.grid_sample", "float16")}
MODULES = ["Embedding"]


@pytest.fixture(scope="module")
def db() -> Any:
    pytest.importorskip("torch")
    return pytest.importorskip("tests.torch_db")


def ours(name: str) -> Any:
    """The function with its arguments in the order of PyTorch's samples."""
    function = getattr(faltung.nn.functional, name.rpartition(".")[2])
    if "embedding" in name:
        return lambda weight, indices, **options: function(indices, weight, **options)
    return function


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "complex128", "int64"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_function_agrees_with_torch(db: Any, name: str, dtype: str) -> None:
    if (name, dtype) in COARSE:
        pytest.skip("PyTorch's own gradient is too coarse in half precision to compare with")
    for variant in db.variants(name):
        db.check_samples(name, dtype, variant, function=ours(name))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function_raises_as_torch_does(db: Any, name: str) -> None:
    for variant in db.variants(name):
        db.check_errors(name, variant, function=ours(name))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", MODULES)
def test_module_agrees_with_torch(db: Any, name: str, training: bool) -> None:
    db.check_module(name, "float64", training)


@pytest.mark.parametrize("name", MODULES)
def test_module_raises_as_torch_does(db: Any, name: str) -> None:
    db.check_module_errors(name)
