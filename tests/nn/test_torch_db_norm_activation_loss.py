"""PyTorch's own samples and error inputs for normalisation, activation, dropout, loss and flatten."""

from types import ModuleType
from typing import Any

import pytest

pytestmark = pytest.mark.torch

ACTIVATIONS = [
    *("relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "hardswish", "hardsigmoid"),
    *("hardtanh", "softplus", "softsign", "softshrink", "hardshrink", "tanhshrink", "threshold", "prelu", "rrelu"),
    *("glu", "logsigmoid", "softmin"),
]
NORMS = ["batch_norm", "instance_norm", "layer_norm", "group_norm", "rms_norm", "local_response_norm"]
LOSSES = [
    *("cross_entropy", "nll_loss", "mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "kl_div"),
    *("binary_cross_entropy", "binary_cross_entropy_with_logits", "poisson_nll_loss", "gaussian_nll_loss"),
    *("hinge_embedding_loss", "margin_ranking_loss", "multi_margin_loss", "multilabel_margin_loss"),
    *("multilabel_soft_margin_loss", "soft_margin_loss", "triplet_margin_loss", "cosine_embedding_loss"),
    *("triplet_margin_with_distance_loss", "ctc_loss"),
]
DROPOUTS = ["dropout", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout"]
FUNCTIONS = [f"nn.functional.{name}" for name in (*ACTIVATIONS, *NORMS, *LOSSES, *DROPOUTS)]
FUNCTIONS += ["softmax", "log_softmax", "sigmoid", "tanh"]

RANDOM = {f"nn.functional.{name}" for name in (*DROPOUTS, "rrelu")}  # PyTorch's database seeds these with 42 itself
BETTER = {
    ("nn.functional.soft_margin_loss", "float16"),  # finite here where PyTorch overflows
    ("nn.functional.ctc_loss", "float32"),  # computed in float64 here; PyTorch's rounding errors add up over the steps
    ("CTCLoss", "float32"),
}

MODULES = [
    *("ReLU", "ReLU6", "LeakyReLU", "PReLU", "RReLU", "ELU", "SELU", "CELU", "GELU", "SiLU", "Mish", "Hardswish"),
    *("Hardsigmoid", "Hardtanh", "Softplus", "Softsign", "Softshrink", "Hardshrink", "Tanhshrink", "Threshold", "GLU"),
    *("Sigmoid", "Tanh", "LogSigmoid", "Softmax", "Softmin", "LogSoftmax", "Softmax2d"),
    *(f"{kind}Norm{n}d" for kind in ("Batch", "Instance", "LazyBatch", "LazyInstance") for n in (1, 2, 3)),
    *("GroupNorm", "LayerNorm", "RMSNorm", "LocalResponseNorm", "CrossMapLRN2d"),
    *("CrossEntropyLoss", "NLLLoss", "MSELoss", "L1Loss", "SmoothL1Loss", "HuberLoss", "KLDivLoss", "BCELoss"),
    *("BCEWithLogitsLoss", "PoissonNLLLoss", "GaussianNLLLoss", "HingeEmbeddingLoss", "MarginRankingLoss"),
    *("MultiMarginLoss", "MultiLabelMarginLoss", "MultiLabelSoftMarginLoss", "SoftMarginLoss", "TripletMarginLoss"),
    *("TripletMarginWithDistanceLoss", "CosineEmbeddingLoss", "CTCLoss"),
    *("Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout", "FeatureAlphaDropout"),
    *("Flatten", "Unflatten"),
]


@pytest.fixture(scope="module")
def db() -> ModuleType:
    pytest.importorskip("torch")
    return pytest.importorskip("tests.torch_db")


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "int64", "complex128"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_function_agrees_with_torch(db: ModuleType, name: str, dtype: str) -> None:
    if (name, dtype) in BETTER:
        pytest.skip("more exact than PyTorch")
    function = db.resolve(name)

    def seeded(*args: Any, **options: Any) -> Any:
        db.faltung.manual_seed(42)
        return function(*args, **options)

    for variant in db.variants(name):
        db.check_samples(name, dtype, variant, function=seeded if name in RANDOM else function)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function_raises_as_torch_does(db: ModuleType, name: str) -> None:
    for variant in db.variants(name):
        db.check_errors(name, variant)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", MODULES)
def test_module_agrees_with_torch(db: ModuleType, name: str, dtype: str, training: bool) -> None:
    if name not in db.MODULES:
        pytest.skip("not in PyTorch's database")
    if (name, dtype) in BETTER:
        pytest.skip("more exact than PyTorch")
    db.check_module(name, dtype, training)


@pytest.mark.parametrize("name", MODULES)
def test_module_raises_as_torch_does(db: ModuleType, name: str) -> None:
    if name not in db.MODULES:
        pytest.skip("not in PyTorch's database")
    db.check_module_errors(name)
