"""Layers that a Sequential runs together: the bits of the layers one by one, and when they must stay apart."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

import faltung
from faltung import nn
from faltung.autograd import gradcheck, gradgradcheck
from faltung.engine import registry
from faltung.engine.geometry import ConvGeometry
from faltung.ops import norm as ops
from faltung.ops.conv import convolution

ACTIVATIONS = {"relu": nn.ReLU, "relu in place": lambda: nn.ReLU(inplace=True), "relu6": nn.ReLU6,
               "hardswish": nn.Hardswish, "silu": nn.SiLU, "no": nn.Identity}  # fmt: skip

LAYERS: dict[str, tuple[tuple[int, ...], Callable[[], list[nn.Module]]]] = {
    "dense": ((2, 3, 9, 10), lambda: [nn.Conv2d(3, 24, 3, padding=1), nn.BatchNorm2d(24)]),
    "Winograd": ((2, 20, 9, 10), lambda: [nn.Conv2d(20, 33, 3, padding="same", bias=False), nn.BatchNorm2d(33)]),
    "depthwise": ((2, 17, 9, 10), lambda: [nn.Conv2d(17, 17, 3, groups=17), nn.BatchNorm2d(17)]),
    "no affine": ((2, 3, 9, 10), lambda: [nn.Conv2d(3, 5, 3, stride=2), nn.BatchNorm2d(5, affine=False)]),
    "no bias": ((2, 3, 9, 10), lambda: [nn.Conv2d(3, 5, 3, stride=2), nn.BatchNorm2d(5, bias=False)]),
    "no statistics": ((2, 3, 9, 10), lambda: [nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5, track_running_stats=False)]),
    "average": ((2, 3, 9, 10), lambda: [nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5, momentum=None)]),
    "reflected": ((2, 3, 9, 10), lambda: [nn.Conv2d(3, 5, 3, padding=1, padding_mode="reflect"), nn.BatchNorm2d(5)]),
    "no norm": ((2, 3, 9, 10), lambda: [nn.Conv2d(3, 5, 3)]),
    "norm alone": ((2, 3, 9, 10), lambda: [nn.BatchNorm2d(3)]),
    "1d": ((2, 3, 20), lambda: [nn.Conv1d(3, 8, 5), nn.BatchNorm1d(8)]),
    "3d": ((2, 3, 5, 6, 7), lambda: [nn.Conv3d(3, 8, 3), nn.BatchNorm3d(8)]),
    "rows": ((12, 7), lambda: [nn.Linear(7, 9), nn.BatchNorm1d(9)]),
}


def network(layers: str, activation: str) -> tuple[nn.Sequential, faltung.Tensor]:
    faltung.manual_seed(5)
    shape, make = LAYERS[layers]
    model = nn.Sequential(*make(), ACTIVATIONS[activation]())
    for layer in model:
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.weight is not None:
            nn.init.normal_(layer.weight, 1, 2)  # results on both sides of relu6's limits
            if layer.bias is not None:
                nn.init.normal_(layer.bias, 1, 3)
    return model, faltung.randn(*shape)


def one_by_one(model: nn.Sequential, x: Any) -> Any:
    for layer in model:
        x = layer(x)
    return x


def calls(run: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The engine's operations that `run` calls."""
    seen: list[str] = []
    original = registry.call

    def noting(name: str, *args: Any, **options: Any) -> Any:
        seen.append(name)
        return original(name, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr("faltung.engine.call", noting)
        patch.setattr("faltung.engine.chosen", lambda name, *args, **options: partial(noting, name))
        run()
    return seen


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("layers", LAYERS)
def test_evaluation(layers: str, activation: str) -> None:
    model, x = network(layers, activation)
    model(x)
    model.eval()
    with faltung.no_grad():
        assert faltung.equal(model(x), one_by_one(model, x))
    assert faltung.equal(model(x), one_by_one(model, x))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("layers", LAYERS)
def test_training(layers: str, activation: str) -> None:
    model, x = network(layers, activation)
    other = copy.deepcopy(model)
    weights = faltung.randn_like(model(x))
    other(x)
    results = []
    for run, net in ((nn.Sequential.forward, model), (one_by_one, other)):
        mine = x.clone().requires_grad_()
        y = run(net, mine)
        (y * weights).sum().backward()
        results.append([y, mine.grad, *(p.grad for p in net.parameters()), *net.buffers()])
    assert len(results[0]) == len(results[1])
    for ours, theirs in zip(*results, strict=True):
        assert faltung.equal(ours, theirs)


def _scale_through_numpy(values: faltung.Tensor) -> None:
    array = values.detach().numpy()
    array *= 3


@pytest.mark.parametrize("name", ["0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var"])
@pytest.mark.parametrize(
    "write",
    [lambda values: values.mul_(2), lambda values: values.data.add_(1), _scale_through_numpy],
    ids=["in place", "data", "numpy"],
)
def test_every_write_is_seen(name: str, write: Callable[[faltung.Tensor], object]) -> None:
    model, x = network("dense", "relu")
    model(x)
    model.eval()
    with faltung.no_grad():
        for _ in range(3):
            before = model(x)
            write(model.state_dict()[name])
            after = model(x)
            assert faltung.equal(after, one_by_one(model, x))
            assert not faltung.equal(after, before)


def test_what_runs_together(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = network("dense", "relu6")
    training = calls(lambda: model(x), monkeypatch)
    assert "norm.batch_forward" in training
    assert not any(name.startswith("activation") for name in training)
    model.eval()
    with faltung.no_grad():
        assert calls(lambda: model(x), monkeypatch) == ["conv.forward"]
    recorded = calls(lambda: model(x), monkeypatch)  # gradients may be asked of every layer
    assert recorded == ["conv.forward", "norm.batch_inference", "activation.hardtanh_forward"]


class Loud(nn.ReLU):
    def forward(self, input: faltung.Tensor) -> faltung.Tensor:
        return super().forward(input) + 1


def _with_hook(model: nn.Sequential) -> None:
    model[1].register_forward_hook(lambda module, args, y: y + 1)


def _with_backward_hook(model: nn.Sequential) -> None:
    model[2].register_full_backward_hook(lambda module, gx, gy: None)


def _with_own_forward(model: nn.Sequential) -> None:
    model[1].forward = lambda x: x - 1


def _with_subclass(model: nn.Sequential) -> None:
    model[2] = Loud()


def _with_training_norm(model: nn.Sequential) -> None:
    model[1].train()


def _with_doubles(model: nn.Sequential) -> None:
    model.double()


@pytest.mark.parametrize(
    "change",
    [_with_hook, _with_backward_hook, _with_own_forward, _with_subclass, _with_training_norm, _with_doubles],
)
def test_what_leaves_a_trace_leaves_it(change: Callable[[Any], None]) -> None:
    model, x = network("dense", "relu")
    model(x)
    model.eval()
    change(model)
    x = x.to(model[0].weight.dtype)
    twin = copy.deepcopy(model) if change is _with_training_norm else model
    with faltung.no_grad():
        assert faltung.equal(model(x), one_by_one(twin, x))


@pytest.mark.parametrize("wanted", ["x", "weight", "bias", "x weight", "x bias", "weight bias", "x weight bias"])
@pytest.mark.parametrize("activation", ["relu", "relu6"])
def test_gradients_of_an_activated_convolution(wanted: str, activation: str) -> None:
    """Whichever are wanted, first and second derivatives."""
    faltung.manual_seed(1)
    tensors = {"x": (2, 2, 4, 4), "weight": (3, 2, 3, 3), "bias": (3,)}
    x, weight, bias = (
        (2 * faltung.randn(*shape, dtype=faltung.float64)).requires_grad_(name in wanted.split())
        for name, shape in tensors.items()
    )
    geometry = ConvGeometry.of(tuple(x.shape), tuple(weight.shape), padding=1)

    def run(*args: faltung.Tensor) -> faltung.Tensor:
        return convolution(x, weight, bias, geometry, activation)

    inputs = [t for t in (x, weight, bias) if t.requires_grad]
    assert gradcheck(run, inputs)
    assert gradgradcheck(run, inputs)


def test_convolution_and_activation_run_together_in_training(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = network("no norm", "relu in place")
    assert calls(lambda: model(x), monkeypatch) == ["conv.forward"]


POOLINGS: dict[str, tuple[tuple[int, ...], Callable[[], list[nn.Module]]]] = {
    "2d": ((2, 3, 9, 10), lambda: [nn.Conv2d(3, 24, 3), nn.ReLU(), nn.MaxPool2d(2)]),
    "overlapping": ((2, 3, 9, 10), lambda: [nn.Conv2d(3, 24, 3), nn.ReLU6(), nn.MaxPool2d(3, 2, 1, ceil_mode=True)]),
    "in place": ((2, 3, 9, 10), lambda: [nn.Conv2d(3, 5, 3), nn.ReLU(inplace=True), nn.MaxPool2d((3, 2))]),
    "1d": ((2, 3, 20), lambda: [nn.Conv1d(3, 8, 5), nn.ReLU(), nn.MaxPool1d(3)]),
    "3d": ((2, 3, 5, 6, 7), lambda: [nn.Conv3d(3, 8, 3), nn.ReLU(), nn.MaxPool3d(2, dilation=2, padding=1)]),
    "wide": ((2, 3, 40, 40), lambda: [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(17)]),
    "list": ((2, 3, 9, 10), lambda: [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d([2, 2])]),
    "unbatched": ((3, 9, 10), lambda: [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2)]),
}


@pytest.mark.parametrize("frozen", ["", "weight", "bias", "weight bias"])
@pytest.mark.parametrize("layers", POOLINGS)
def test_pooling_takes_the_gradient_of_the_activation(layers: str, frozen: str) -> None:
    """The bits of the layers one by one, second derivatives too."""
    faltung.manual_seed(5)
    shape, make = POOLINGS[layers]
    net = nn.Sequential(*make())
    for name, parameter in net[0].named_parameters():
        parameter.data *= 6  # results on both sides of relu6's limits
        parameter.requires_grad_(name not in frozen.split())
    x = faltung.randn(*shape)
    weights = faltung.randn_like(net(x))
    results = []
    for run in (nn.Sequential.forward, one_by_one):
        mine = x.clone().requires_grad_()
        y = run(net, mine)
        inputs = [mine, *(p for p in net.parameters() if p.requires_grad)]
        first = faltung.autograd.grad((y * weights).sum(), inputs, retain_graph=True)
        graph = faltung.autograd.grad((y * weights).sum(), inputs, create_graph=True)
        squares: Any = sum((g * g).sum() for g in graph)
        second = faltung.autograd.grad(squares, inputs, allow_unused=True) if squares.requires_grad else ()
        results.append([y, *first, *graph, *(g for g in second if g is not None)])
    assert len(results[0]) == len(results[1])
    for ours, theirs in zip(*results, strict=True):
        assert faltung.equal(ours, theirs)


def test_convolution_activation_and_pooling_run_together(monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = nn.Sequential(*POOLINGS["2d"][1]()), faltung.randn(2, 3, 9, 10)
    backward = calls(lambda: net(x).sum().backward(), monkeypatch)
    assert backward == ["conv.forward", "pool.max_taps_forward", "pool.max_taps_backward", "conv.backward_weights"]
    net[2].return_indices = True
    values, indices = net(x)
    assert indices.dtype is faltung.int64
    assert faltung.equal(values, one_by_one(net, x)[0])


def test_results_of_a_run_may_be_written_to() -> None:
    net = nn.Sequential(*POOLINGS["2d"][1](), nn.Dropout(0.5, inplace=True))
    x = faltung.randn(2, 3, 9, 10, requires_grad=True)
    net(x).mul_(2).sum().backward()
    assert x.grad is not None


def test_buffers_may_be_plain_attributes() -> None:
    norm, x = nn.BatchNorm2d(3), faltung.randn(2, 3, 4, 4)
    mean, var = norm.running_mean.clone(), norm.running_var.clone()
    del norm.running_mean, norm.running_var, norm.num_batches_tracked
    norm.running_mean, norm.running_var, norm.num_batches_tracked = mean, var, None
    norm(x)
    assert not faltung.equal(mean, faltung.zeros(3))
    assert norm.eval()(x).shape == x.shape
    with faltung.no_grad():
        nn.Sequential(nn.Conv2d(3, 3, 1), norm)(x)


def test_pooled_results_may_be_written_to() -> None:
    """Backward of max pooling needs where the samples came from, not their values."""
    x = faltung.randn(2, 3, 8, 8, requires_grad=True)
    y = nn.functional.max_pool2d(x, 2)
    y.mul_(2)
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.sum().item() == 2 * y.numel()


def test_global_hooks_see_every_layer() -> None:
    model, x = network("dense", "relu")
    seen = []
    handle = nn.modules.module.register_module_forward_hook(lambda module, args, y: seen.append(type(module).__name__))
    try:
        with faltung.no_grad():
            model.eval()(x)
    finally:
        handle.remove()
    assert seen == ["Conv2d", "BatchNorm2d", "ReLU", "Sequential"]


def test_errors_are_those_of_the_layers() -> None:
    model, x = network("dense", "relu")
    with faltung.no_grad(), pytest.raises(RuntimeError, match="needs an input with 3 channels"):
        model.eval()(x[:, :2])
    model[1] = nn.BatchNorm2d(7).eval()
    with faltung.no_grad(), pytest.raises(RuntimeError, match="running_mean should contain 24 elements"):
        model(x)


@pytest.mark.parametrize("activation", ["relu", "relu6"])
@pytest.mark.parametrize("affine", [True, False])
def test_derivatives(activation: str, affine: bool) -> None:
    faltung.manual_seed(0)
    x = (4 * faltung.randn(3, 2, 4, dtype=faltung.float64)).requires_grad_()
    weight = faltung.tensor([2.0, 5.0], dtype=faltung.float64, requires_grad=True) if affine else None
    bias = faltung.tensor([0.5, 3.0], dtype=faltung.float64, requires_grad=True) if affine else None
    inputs = [t for t in (x, weight, bias) if t is not None]

    def run(*args: faltung.Tensor) -> faltung.Tensor:
        return ops.batch_norm(args[0], *(args[1:] or (None, None)), 1e-5, activation)[0]

    assert gradcheck(run, inputs)
    assert gradgradcheck(run, inputs)
