"""nn.init: PyTorch's numbers for a seed (stored), properties, refusals."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import faltung
from faltung import nn
from faltung.nn import init

STORED = Path(__file__).parent.parent / "data" / "init_values.npz"

# name -> (shape, dtype, call)
CASES: dict[str, tuple[tuple[int, ...], str, Callable[[Any, Any], Any]]] = {
    "uniform": ((5, 7), "float32", lambda init, t: init.uniform_(t, -2, 3)),
    "uniform_double": ((5, 7), "float64", lambda init, t: init.uniform_(t)),
    "normal": ((5, 7), "float32", lambda init, t: init.normal_(t, 1, 2)),
    "normal_short": ((3, 5), "float32", lambda init, t: init.normal_(t)),
    "normal_double": ((4, 9), "float64", lambda init, t: init.normal_(t)),
    "trunc_normal": ((6, 9), "float32", lambda init, t: init.trunc_normal_(t)),
    "trunc_normal_narrow": ((6, 9), "float32", lambda init, t: init.trunc_normal_(t, 0.0, 1.0, -0.8, 0.7)),
    "trunc_normal_rejecting": ((6, 9), "float32", lambda init, t: init.trunc_normal_(t, 0.0, 1.0, 1.0, 1.5)),
    "trunc_normal_double": ((6, 9), "float64", lambda init, t: init.trunc_normal_(t, std=0.02)),
    "xavier_uniform": ((8, 3, 3, 3), "float32", lambda init, t: init.xavier_uniform_(t, gain=2)),
    "xavier_normal": ((8, 3, 3, 3), "float32", lambda init, t: init.xavier_normal_(t)),
    "kaiming_uniform": ((8, 3, 5), "float32", lambda init, t: init.kaiming_uniform_(t, a=math.sqrt(5))),
    "kaiming_fan_out": ((8, 3, 5), "float32", lambda init, t: init.kaiming_uniform_(t, 0, "fan_out", "relu")),
    "kaiming_normal": (
        (8, 3, 5),
        "float32",
        lambda init, t: init.kaiming_normal_(t, mode="fan_out", nonlinearity="relu"),
    ),
    "orthogonal_tall": ((7, 4), "float32", lambda init, t: init.orthogonal_(t)),
    "orthogonal_wide": ((4, 3, 2), "float64", lambda init, t: init.orthogonal_(t, gain=2)),
    "sparse": ((10, 6), "float32", lambda init, t: init.sparse_(t, 0.4)),
    "dirac": ((6, 2, 3, 3), "float32", lambda init, t: init.dirac_(t, 3)),
    "eye": ((4, 6), "float32", lambda init, t: init.eye_(t)),
}

LAYERS: dict[str, Callable[[Any], Any]] = {
    "conv2d": lambda nn: nn.Conv2d(3, 4, 3),
    "conv1d_groups": lambda nn: nn.Conv1d(4, 6, 5, groups=2),
    "conv_transpose2d": lambda nn: nn.ConvTranspose2d(3, 4, 3),
    "linear": lambda nn: nn.Linear(5, 3),
    "bilinear": lambda nn: nn.Bilinear(2, 3, 4),
    "embedding": lambda nn: nn.Embedding(6, 5, padding_idx=2),
    "cnn": lambda nn: nn.Sequential(nn.Conv2d(1, 4, 5), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2)),
}


def draw(torch: Any, init: Any, name: str) -> Any:
    """One case with either library."""
    shape, dtype, call = CASES[name]
    torch.manual_seed(7)
    return call(init, torch.zeros(shape, dtype=getattr(torch, dtype)))


@pytest.fixture(scope="module")
def stored() -> Any:
    return np.load(STORED)


@pytest.mark.parametrize("name", CASES)
def test_numbers_are_pytorchs(stored: Any, name: str) -> None:
    got = draw(faltung, init, name)
    np.testing.assert_allclose(got.numpy(), stored[name], rtol=2e-6, atol=3e-7)


@pytest.mark.parametrize("name", LAYERS)
def test_layers_start_with_pytorchs_numbers(stored: Any, name: str) -> None:
    faltung.manual_seed(0)
    state = LAYERS[name](nn).state_dict()
    for key, value in state.items():
        np.testing.assert_allclose(value.numpy(), stored[f"{name}.{key}"], rtol=1e-6, atol=1e-7)


def test_generator_argument_leaves_the_default_stream_alone() -> None:
    own = faltung.Generator().manual_seed(7)
    faltung.manual_seed(123)
    expected = faltung.rand(3)
    faltung.manual_seed(123)
    got = init.xavier_uniform_(faltung.empty(4, 4), generator=own)
    assert faltung.equal(faltung.rand(3), expected)
    faltung.manual_seed(7)
    assert faltung.equal(init.xavier_uniform_(faltung.empty(4, 4)), got)


def test_fills_parameters_in_place_without_history() -> None:
    param = nn.Parameter(faltung.empty(3, 3))
    for fill in (init.zeros_, init.ones_, init.eye_, init.xavier_normal_, init.orthogonal_):
        assert fill(param) is param
        assert param.is_leaf
        assert param.requires_grad
    assert init.constant_(param, 0.3).tolist()[0][0] == pytest.approx(0.3)


@pytest.mark.parametrize("shape", [(8, 5), (5, 8), (4, 3, 3, 3), (6, 6)])
def test_orthogonal_rows_or_columns(shape: tuple[int, ...]) -> None:
    q = init.orthogonal_(faltung.empty(*shape, dtype=faltung.float64), gain=2).flatten(1).numpy() / 2
    gram = q @ q.T if q.shape[0] <= q.shape[1] else q.T @ q
    np.testing.assert_allclose(gram, np.eye(len(gram)), atol=1e-12)


@pytest.mark.parametrize("groups", [1, 2])
def test_dirac_keeps_channels(groups: int) -> None:
    x = faltung.randn(2, 4, 6, 6)
    weight = init.dirac_(faltung.empty(4, 4 // groups, 3, 3), groups)
    y = nn.functional.conv2d(x, weight, padding=1, groups=groups)
    np.testing.assert_allclose(y.numpy(), x.numpy(), rtol=1e-6)


def test_sparse_share_of_zeros() -> None:
    columns = init.sparse_(faltung.empty(10, 5), 0.35).numpy()
    assert ((columns == 0).sum(axis=0) == 4).all()


def test_trunc_normal_stays_inside() -> None:
    for limits in ((-2.0, 2.0), (-0.1, 0.3), (1.0, 1.2)):
        values = init.trunc_normal_(faltung.empty(1000), 0, 1, *limits).numpy()
        assert values.min() >= np.float32(limits[0])
        assert values.max() <= np.float32(limits[1])


@pytest.mark.parametrize(
    ("name", "param", "gain"),
    [
        ("linear", None, 1),
        ("conv2d", None, 1),
        ("conv_transpose3d", None, 1),
        ("sigmoid", None, 1),
        ("tanh", None, 5 / 3),
        ("relu", None, math.sqrt(2)),
        ("leaky_relu", None, math.sqrt(2 / (1 + 0.01**2))),
        ("leaky_relu", 0.2, math.sqrt(2 / 1.04)),
        ("selu", None, 0.75),
    ],
)
def test_gain(name: str, param: float | None, gain: float) -> None:
    assert init.calculate_gain(name, param) == pytest.approx(gain)


T = faltung.empty
REFUSED: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: init.calculate_gain("swish"), ValueError, "Unsupported nonlinearity 'swish'"),
    (lambda: init.calculate_gain("leaky_relu", True), ValueError, "not a valid number"),
    (lambda: init.calculate_gain("leaky_relu", "x"), ValueError, "not a valid number"),
    (lambda: init.eye_(T(3)), ValueError, "Only tensors with 2 dimensions"),
    (lambda: init.dirac_(T(3, 3)), ValueError, "Only tensors with 3, 4, or 5 dimensions"),
    (lambda: init.dirac_(T(3, 3, 3), 2), ValueError, "dim 0 must be divisible by groups"),
    (lambda: init.xavier_uniform_(T(3)), ValueError, "fewer than 2 dimensions"),
    (lambda: init.kaiming_normal_(T(3)), ValueError, "fewer than 2 dimensions"),
    (lambda: init.kaiming_normal_(T(3, 3), mode="fan"), ValueError, "Mode fan not supported"),
    (lambda: init.orthogonal_(T(3)), ValueError, "2 or more dimensions"),
    (lambda: init.sparse_(T(3), 0.1), ValueError, "Only tensors with 2 dimensions"),
]


@pytest.mark.parametrize(("call", "kind", "message"), REFUSED)
def test_refusals(call: Callable[[], Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()


def test_warnings() -> None:
    with pytest.warns(UserWarning, match="zero-element"):
        init.kaiming_uniform_(faltung.empty(0, 3))
    with pytest.warns(UserWarning, match="more than 2 std"):
        init.trunc_normal_(faltung.empty(3), mean=10, a=-2, b=2, std=1.0)
    with pytest.warns(FutureWarning, match=r"`nn.init.xavier_uniform_`"):
        init.xavier_uniform(faltung.empty(3, 3))


@pytest.mark.torch
@pytest.mark.parametrize("name", CASES)
def test_stored_numbers_are_current(stored: Any, name: str) -> None:
    torch = pytest.importorskip("torch")
    got = draw(torch, torch.nn.init, name).numpy()
    if name.startswith("orthogonal"):  # LAPACK's rounding depends on the chip
        np.testing.assert_allclose(got, stored[name], rtol=2e-6, atol=3e-7)
    else:
        np.testing.assert_array_equal(got, stored[name])
