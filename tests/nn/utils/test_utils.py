"""nn.utils: clipping, flat parameters, fusion, skip_init, memory formats, functional_call."""

import math
from typing import Any

import numpy as np
import pytest

import faltung as torch
from faltung import nn
from faltung.nn import utils
from faltung.nn.utils import stateless


def with_grads(*grads: list[float]) -> list[nn.Parameter]:
    params = []
    for grad in grads:
        param = nn.Parameter(torch.zeros(len(grad)))
        param.grad = torch.tensor(grad, dtype=torch.float32)
        params.append(param)
    return params


NORMS = [
    (2.0, math.sqrt(1 + 4 + 9 + 16)),
    (1.0, 10.0),
    (3.0, 100 ** (1 / 3)),
    (math.inf, 4.0),
    ("inf", 4.0),
    (-math.inf, 1.0),
    (0.5, (1 + math.sqrt(2) + math.sqrt(3) + 2) ** 2),
]


@pytest.mark.parametrize(("norm_type", "expected"), NORMS)
def test_clip_grad_norm(norm_type: Any, expected: float) -> None:
    params = with_grads([1, -2], [3, 4])
    params.append(nn.Parameter(torch.zeros(1)))  # without gradient
    total = utils.clip_grad_norm_(params, expected / 2, norm_type)
    assert total.item() == pytest.approx(expected, rel=1e-5)
    assert params[1].grad is not None
    assert params[1].grad.tolist() == pytest.approx([1.5, 2], rel=1e-4)
    assert utils.get_total_norm([p.grad for p in params[:2]], norm_type).item() == pytest.approx(expected / 2, rel=1e-4)


def test_small_gradients_are_left_alone() -> None:
    (param,) = with_grads([0.3, 0.4])
    assert utils.clip_grad_norm_(param, 10).item() == pytest.approx(0.5)
    assert param.grad is not None
    assert param.grad.tolist() == pytest.approx([0.3, 0.4])


def test_no_gradients() -> None:
    assert utils.clip_grad_norm_([nn.Parameter(torch.zeros(1))], 1.0).item() == 0
    utils.clip_grad_value_([nn.Parameter(torch.zeros(1))], 1.0)
    with pytest.warns(UserWarning, match="empty generator"):
        utils.clip_grad_norm_((p for p in list[nn.Parameter]()), 1.0)


def test_non_finite_norm() -> None:
    params = with_grads([math.nan, 1.0])
    with pytest.raises(RuntimeError, match="non-finite"):
        utils.clip_grad_norm_(params, 1.0, error_if_nonfinite=True)
    assert math.isnan(utils.clip_grad_norm_(params, 1.0).item())


def test_clip_grad_value() -> None:
    (param,) = with_grads([-3, 0.5, 9])
    utils.clip_grad_value_(param, 1)
    assert param.grad is not None
    assert param.grad.tolist() == [-1, 0.5, 1]


def test_deprecated_name() -> None:
    with pytest.warns(FutureWarning, match="clip_grad_norm_"):
        utils.clip_grad_norm(with_grads([3, 4]), 1)


def test_parameters_as_a_vector() -> None:
    net = nn.Linear(2, 3)
    vector = utils.parameters_to_vector(net.parameters())
    assert vector.tolist() == [*net.weight.flatten().tolist(), *net.bias.tolist()]
    assert vector.requires_grad
    utils.vector_to_parameters(torch.arange(9.0), net.parameters())
    assert net.weight.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert net.bias.tolist() == [6, 7, 8]
    assert net.weight.is_leaf
    with pytest.raises(TypeError, match=r"must be a faltung\.Tensor"):
        utils.vector_to_parameters([1.0], net.parameters())


def trained_norm(norm: Any) -> Any:
    for tensor, value in (
        (norm.running_mean, 0.3),
        (norm.running_var, 2.0),
        (norm.weight.data, 1.7),
        (norm.bias.data, -0.4),
    ):
        tensor.copy_(torch.linspace(value, value + 1, tensor.numel()))
    return norm


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("kind", ["conv", "transpose", "linear"])
def test_fusion(kind: str, bias: bool, affine: bool) -> None:
    layers: dict[str, tuple[Any, Any, Any]] = {
        "conv": (nn.Conv2d(3, 4, 3, bias=bias), nn.BatchNorm2d, (2, 3, 5, 5)),
        "transpose": (nn.ConvTranspose2d(3, 4, 3, bias=bias), nn.BatchNorm2d, (2, 3, 5, 5)),
        "linear": (nn.Linear(3, 4, bias=bias), nn.BatchNorm1d, (6, 3)),
    }
    layer, norm_class, shape = layers[kind]
    norm = norm_class(4, affine=affine)
    norm = trained_norm(norm) if affine else norm
    x = torch.randn(*shape)
    model = nn.Sequential(layer, norm).eval()
    if kind == "linear":
        fused = utils.fuse_linear_bn_eval(layer, norm)
    else:
        fused = utils.fuse_conv_bn_eval(layer, norm, transpose=kind == "transpose")
    np.testing.assert_allclose(fused(x).detach().numpy(), model(x).detach().numpy(), rtol=1e-4, atol=1e-5)
    assert isinstance(fused.weight, nn.Parameter)
    assert isinstance(fused.bias, nn.Parameter)
    assert fused is not layer


def test_fusion_refusals() -> None:
    conv, norm = nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)
    with pytest.raises(AssertionError, match="Fusion only for eval"):
        utils.fuse_conv_bn_eval(conv, norm)
    stateless_norm = nn.BatchNorm2d(1, track_running_stats=False).eval()
    with pytest.raises(ValueError, match="no running statistics"):
        utils.fuse_conv_bn_eval(conv.eval(), stateless_norm)


def test_skip_init_leaves_the_random_stream_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    net = utils.skip_init(nn.Linear, 3, 4, bias=False)
    assert torch.equal(torch.rand(2), expected)
    assert tuple(net.weight.shape) == (4, 3)
    with pytest.raises(RuntimeError, match="takes no `device`"):
        utils.skip_init(nn.ReLU)
    with pytest.raises(RuntimeError, match="expected a Module class"):
        utils.skip_init(int)


def test_memory_format_of_weights() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(2, 2), nn.ConvTranspose2d(4, 3, 3))
    before = net[0].weight.clone()
    assert utils.convert_conv2d_weight_memory_format(net, torch.channels_last) is net
    assert net[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert net[2].weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(net[0].weight, before)


class TestFunctionalCall:
    def test_uses_the_given_tensors_and_passes_gradients(self) -> None:
        net = nn.Linear(2, 1, bias=False)
        weight = torch.tensor([[2.0, 3.0]], requires_grad=True)
        own = net.weight
        out = stateless.functional_call(net, {"weight": weight}, torch.ones(1, 2))
        assert out.item() == 5
        out.backward()
        assert weight.grad is not None
        assert weight.grad.tolist() == [[1, 1]]
        assert net.weight is own
        assert own.grad is None

    def test_restores_after_an_error(self) -> None:
        net = nn.Linear(2, 1)
        own = net.weight
        with pytest.raises(RuntimeError):
            stateless.functional_call(net, {"weight": torch.ones(1, 7)}, (torch.ones(1, 2),))
        assert net.weight is own

    def test_tied_names(self) -> None:
        net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
        net[1].weight = net[0].weight
        x = torch.ones(1, 1)
        given = {"0.weight": torch.tensor([[3.0]])}
        assert stateless.functional_call(net, given, x).item() == 9
        assert stateless.functional_call(net, given, x, tie_weights=False).item() == pytest.approx(
            3 * net[0].weight.item()
        )

    def test_refusals(self) -> None:
        net = nn.Linear(1, 1)
        with pytest.raises(RuntimeError, match=r"Unexpected key.*nope"):
            stateless.functional_call(net, {"nope": torch.ones(1)}, torch.ones(1, 1))
        with pytest.raises(RuntimeError, match=r"Missing key.*bias"):
            stateless.functional_call(net, {"weight": torch.ones(1, 1)}, torch.ones(1, 1), strict=True)
        with pytest.raises(ValueError, match="expected a dict"):
            stateless.functional_call(net, [torch.ones(1)], torch.ones(1, 1))
