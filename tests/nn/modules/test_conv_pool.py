"""Convolution, linear, padding and pooling layers: initial values, representation, twins, lazy sizes, bad arguments.

Stored numbers are PyTorch 2.13's for the same seed.
"""

import copy
import re
from collections.abc import Callable

import numpy as np
import pytest

import faltung
import faltung.nn.functional as F
from faltung import nn

INITIAL = [  # (layer, weight, bias), seed 0
    (
        lambda: nn.Conv2d(2, 2, 2),
        [
            -0.00264699,
            0.18966144,
            -0.29099038,
            -0.26019374,
            -0.13617262,
            0.09480795,
            -0.00700502,
            0.28032875,
            -0.03137576,
            0.09355467,
            -0.10684846,
            -0.06949636,
            -0.33776671,
            -0.23415208,
            -0.14574288,
            0.01309688,
        ],
        [0.13977210, 0.21214008],
    ),
    (
        lambda: nn.ConvTranspose1d(2, 3, 2),
        [
            -0.00305648,
            0.21900219,
            -0.33600679,
            -0.30044585,
            -0.15723862,
            0.10947479,
            -0.00808870,
            0.32369578,
            -0.03622961,
            0.10802763,
            -0.12337797,
            -0.08024748,
        ],
        [-0.39001942, -0.27037555, -0.16828938],
    ),
    (
        lambda: nn.Linear(3, 2),
        [-0.00432252, 0.30971584, -0.47518533, -0.42489460, -0.22236897, 0.15482073],
        [-0.01143914, 0.45777494],
    ),
    (lambda: nn.Bilinear(2, 2, 1), [-0.00529398, 0.37932289, -0.58198076, -0.52038747], [-0.27234524]),
]


@pytest.mark.parametrize(("make", "weight", "bias"), INITIAL)
def test_initial_values_for_a_seed(make: Callable[[], nn.Module], weight: list[float], bias: list[float]) -> None:
    faltung.manual_seed(0)
    layer = make()
    np.testing.assert_allclose(layer.weight.detach().numpy().ravel(), weight, atol=2e-8)
    np.testing.assert_allclose(layer.bias.detach().numpy(), bias, atol=2e-8)


def test_lazy_layer_draws_what_the_plain_one_does() -> None:
    faltung.manual_seed(0)
    lazy = nn.LazyConv2d(2, 2)
    lazy(faltung.zeros(1, 2, 4, 4))
    np.testing.assert_allclose(lazy.weight.detach().numpy().ravel(), INITIAL[0][1], atol=2e-8)
    assert type(lazy) is nn.Conv2d


def test_fractional_windows_for_a_seed() -> None:
    faltung.manual_seed(0)
    x = faltung.arange(49.0).reshape(1, 1, 7, 7)
    expected = [8.0, 10.0, 13.0, 29.0, 31.0, 34.0, 43.0, 45.0, 48.0]
    assert nn.FractionalMaxPool2d(2, output_size=3)(x).flatten().tolist() == expected


REPRESENTATIONS = [
    (lambda: nn.Conv2d(3, 6, 3), "Conv2d(3, 6, kernel_size=(3, 3), stride=(1, 1))"),
    (
        lambda: nn.Conv2d(3, 6, (3, 5), 2, (1, 2), 2, 3, False, "reflect"),
        "Conv2d(3, 6, kernel_size=(3, 5), stride=(2, 2), padding=(1, 2), dilation=(2, 2), groups=3, bias=False, "
        "padding_mode=reflect)",
    ),
    (lambda: nn.Conv1d(3, 6, 3, padding="same"), "Conv1d(3, 6, kernel_size=(3,), stride=(1,), padding=same)"),
    (lambda: nn.Conv3d(4, 8, 1, groups=2), "Conv3d(4, 8, kernel_size=(1, 1, 1), stride=(1, 1, 1), groups=2)"),
    (
        lambda: nn.ConvTranspose2d(4, 8, 3, stride=2, output_padding=1),
        "ConvTranspose2d(4, 8, kernel_size=(3, 3), stride=(2, 2), output_padding=(1, 1))",
    ),
    (lambda: nn.LazyConv2d(4, 3), "LazyConv2d(0, 4, kernel_size=(3, 3), stride=(1, 1))"),
    (lambda: nn.LazyLinear(4), "LazyLinear(in_features=0, out_features=4, bias=True)"),
    (lambda: nn.Linear(3, 4), "Linear(in_features=3, out_features=4, bias=True)"),
    (lambda: nn.Bilinear(2, 3, 4, bias=False), "Bilinear(in1_features=2, in2_features=3, out_features=4, bias=False)"),
    (lambda: nn.Identity(54, unused=True), "Identity()"),
    (lambda: nn.ZeroPad2d(1), "ZeroPad2d((1, 1, 1, 1))"),
    (lambda: nn.ConstantPad1d((1, 2), 3.5), "ConstantPad1d(padding=(1, 2), value=3.5)"),
    (lambda: nn.ReflectionPad2d((1, 2, 3, 4)), "ReflectionPad2d((1, 2, 3, 4))"),
    (lambda: nn.ReplicationPad1d(2), "ReplicationPad1d((2, 2))"),
    (lambda: nn.CircularPad3d(1), "CircularPad3d((1, 1, 1, 1, 1, 1))"),
    (lambda: nn.MaxPool2d(2), "MaxPool2d(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False)"),
    (lambda: nn.AvgPool1d(2), "AvgPool1d(kernel_size=(2,), stride=(2,), padding=(0,))"),
    (lambda: nn.AvgPool2d((2, 3)), "AvgPool2d(kernel_size=(2, 3), stride=(2, 3), padding=0)"),
    (lambda: nn.AdaptiveAvgPool2d((None, 2)), "AdaptiveAvgPool2d(output_size=(None, 2))"),
    (lambda: nn.LPPool2d(2, 3), "LPPool2d(norm_type=2, kernel_size=3, stride=None, ceil_mode=False)"),
    (lambda: nn.FractionalMaxPool2d(2, output_ratio=0.5), "FractionalMaxPool2d()"),
    (lambda: nn.MaxUnpool2d(2), "MaxUnpool2d(kernel_size=(2, 2), stride=(2, 2), padding=(0, 0))"),
]


@pytest.mark.parametrize(("make", "text"), REPRESENTATIONS, ids=[text.split("(")[0] for _, text in REPRESENTATIONS])
def test_representation(make: Callable[[], nn.Module], text: str) -> None:
    assert repr(make()) == text


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
@pytest.mark.parametrize("padding", [1, (2, 1), "same", "valid"])
def test_padding_mode_is_pad_then_convolution(mode: str, padding: int | tuple[int, int] | str) -> None:
    layer = nn.Conv2d(2, 3, (3, 4), padding=padding, padding_mode=mode)
    x = faltung.rand(2, 2, 6, 7)
    frame = {1: (1, 1, 1, 1), (2, 1): (1, 1, 2, 2), "same": (1, 2, 1, 1), "valid": (0, 0, 0, 0)}[padding]
    expected = F.conv2d(F.pad(x, frame, mode), layer.weight, layer.bias)
    np.testing.assert_array_equal(layer(x).detach().numpy(), expected.detach().numpy())


@pytest.mark.parametrize("n", [1, 2, 3])
def test_transposed_output_size(n: int) -> None:
    layer = getattr(nn, f"ConvTranspose{n}d")(2, 3, 3, stride=2, padding=1)
    x = faltung.rand(1, 2, *(4,) * n)
    assert layer(x).shape == (1, 3, *(7,) * n)
    assert layer(x, output_size=(8,) * n).shape == (1, 3, *(8,) * n)
    assert layer(x, output_size=(1, 3, *(8,) * n)).shape == (1, 3, *(8,) * n)
    with pytest.raises(ValueError, match="out of reach"):
        layer(x, output_size=(9,) * n)
    with pytest.raises(ValueError, match=rf"{n} or {n + 2} elements"):
        layer(x, output_size=(8,) * (n + 1))


def test_state_and_copies() -> None:
    layer = nn.Conv2d(2, 4, 3, groups=2)
    assert [(name, tuple(value.shape)) for name, value in layer.state_dict().items()] == [
        ("weight", (4, 1, 3, 3)),
        ("bias", (4,)),
    ]
    assert list(nn.Conv2d(2, 4, 3, bias=False).state_dict()) == ["weight"]
    assert nn.Conv2d(2, 4, 3, bias=False).bias is None
    assert tuple(nn.ConvTranspose2d(2, 6, 3, groups=2).weight.shape) == (2, 3, 3, 3)
    twin, x = copy.deepcopy(layer), faltung.rand(1, 2, 5, 5)
    np.testing.assert_array_equal(twin(x).detach().numpy(), layer(x).detach().numpy())
    assert nn.Conv2d(2, 4, 3, dtype=faltung.float64).weight.dtype is faltung.float64


def test_weight_packed_before_an_update_is_not_used_after_it() -> None:
    layer, x = nn.Conv2d(8, 16, 3), faltung.rand(1, 8, 9, 9)
    with faltung.no_grad():
        before = layer(x)
        layer.weight.mul_(2)
        layer.bias.mul_(2)
        np.testing.assert_allclose(layer(x).numpy(), 2 * before.numpy(), rtol=1e-5)
        layer.weight.data = faltung.zeros(16, 8, 3, 3)
        layer.bias.zero_()
        assert not layer(x).any()


@pytest.mark.parametrize(
    ("lazy", "plain", "shape"),
    [
        (lambda: nn.LazyConv1d(4, 3), nn.Conv1d, (2, 3, 8)),
        (lambda: nn.LazyConv2d(4, 3, groups=3 - 2), nn.Conv2d, (2, 3, 8, 8)),
        (lambda: nn.LazyConv3d(4, 3, bias=False), nn.Conv3d, (2, 3, 5, 5, 5)),
        (lambda: nn.LazyConvTranspose1d(4, 3), nn.ConvTranspose1d, (2, 3, 8)),
        (lambda: nn.LazyConvTranspose2d(4, 3), nn.ConvTranspose2d, (3, 8, 8)),
        (lambda: nn.LazyConvTranspose3d(4, 3), nn.ConvTranspose3d, (2, 3, 5, 5, 5)),
        (lambda: nn.LazyLinear(4), nn.Linear, (2, 3)),
    ],
)
def test_lazy(lazy: Callable[[], nn.Module], plain: type[nn.Module], shape: tuple[int, ...]) -> None:
    layer = lazy()
    assert layer.has_uninitialized_params()
    layer(faltung.rand(*shape))
    assert type(layer) is plain
    assert (layer.in_features if plain is nn.Linear else layer.in_channels) == 3
    loaded = lazy()
    loaded.load_state_dict(layer.state_dict())
    assert loaded.weight.shape == layer.weight.shape
    loaded(faltung.rand(*shape))
    np.testing.assert_array_equal(loaded.weight.detach().numpy(), layer.weight.detach().numpy())


def test_unpool_module_undoes_pool_module() -> None:
    x = faltung.rand(1, 2, 6, 6)
    y, indices = nn.MaxPool2d(2, return_indices=True)(x)
    back = nn.MaxUnpool2d(2)(y, indices)
    np.testing.assert_array_equal(nn.MaxPool2d(2)(back).numpy(), y.numpy())


BAD = [  # (id, call, exception, message)
    ("in not divisible", lambda: nn.Conv2d(3, 6, 3, groups=2), ValueError,
     r"Conv2d: in_channels must be divisible by groups, got in_channels=3 and groups=2"),
    ("out not divisible", lambda: nn.Conv2d(4, 6, 3, groups=4), ValueError, r"out_channels=6 and groups=4"),
    ("groups 0", lambda: nn.Conv2d(4, 6, 3, groups=0), ValueError, r"groups must be a positive integer, got groups=0"),
    ("padding", lambda: nn.Conv2d(4, 6, 3, padding="full"), ValueError, r"Invalid padding string 'full'"),
    ("same, strided", lambda: nn.Conv2d(4, 6, 3, 2, "same"), ValueError, r"strided convolutions, got stride=\(2, 2\)"),
    ("padding mode", lambda: nn.Conv2d(4, 6, 3, padding_mode="mirror"), ValueError, r"padding_mode='mirror'"),
    ("transposed mode", lambda: nn.ConvTranspose2d(4, 6, 3, padding_mode="reflect"), ValueError, r'Only "zeros"'),
    ("float channels", lambda: nn.Conv2d(4.0, 6, 3), TypeError,
     r"in_channels must be an int, got 4\.0"),
    ("float kernel", lambda: nn.Conv2d(4, 6, 3.0), TypeError, r"kernel_size must be an int"),
    ("no kernel", lambda: nn.Conv2d(4, 6), TypeError, r"kernel_size"),
    ("negative", lambda: nn.Conv2d(4, 6, -3), RuntimeError, r"-3"),
    ("float features", lambda: nn.Linear(4.0, 6), TypeError,
     r"in_features must be an int, got 4\.0"),
    ("bilinear", lambda: nn.Bilinear(0, 2, 2), ValueError, r"in1_features must be > 0, got in1_features=0"),
    ("no pool size", lambda: nn.MaxPool2d(), TypeError, r"kernel_size"),
    ("fractional", lambda: nn.FractionalMaxPool2d(2), ValueError, r"output_size, or an output_ratio"),
    ("fractional both", lambda: nn.FractionalMaxPool2d(2, 3, 0.5), ValueError, r"only one of"),
    ("fractional ratio", lambda: nn.FractionalMaxPool2d(2, None, 1.5), ValueError, r"between 0 and 1.*1\.5"),
    ("circular rank", lambda: nn.CircularPad2d(1)(faltung.ones(8, 8)), ValueError, r"3D or 4D input, got 2D \(8, 8\)"),
    ("lazy rank", lambda: nn.LazyConv2d(4, 3)(faltung.ones(8, 8)), RuntimeError, r"4-d \(batched\) or 3-d"),
    ("lazy groups", lambda: nn.LazyConv2d(4, 3, groups=2)(faltung.ones(1, 3, 8, 8)), ValueError, r"in_channels=3"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "kind", "pattern"), [row[1:] for row in BAD], ids=[str(row[0]) for row in BAD])
def test_bad_arguments(call: Callable[[], object], kind: type[Exception], pattern: str) -> None:
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    assert re.search(pattern, str(caught.value)), str(caught.value)
