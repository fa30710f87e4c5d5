"""Normalisation layers: state, modes, state dicts, lazy forms, representation, and what bad input gets."""

import re
import warnings

import numpy as np
import pytest

import faltung
import faltung.nn.functional as F
from faltung import nn


def test_training_and_evaluation() -> None:
    layer = nn.BatchNorm2d(3)
    assert list(layer.state_dict()) == ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    assert layer.num_batches_tracked.dtype is faltung.int64
    x = faltung.randn(4, 3, 5, 5) * 2 + 1
    mean, var = faltung.zeros(3), faltung.ones(3)
    for step in range(1, 4):
        expected = F.batch_norm(x, mean, var, layer.weight, layer.bias, training=True, momentum=0.1)
        assert faltung.equal(layer(x), expected)
        assert layer.num_batches_tracked.item() == step
    assert faltung.equal(layer.running_mean, mean)
    assert faltung.equal(layer.running_var, var)
    layer.eval()
    assert faltung.equal(layer(x), F.batch_norm(x, mean, var, layer.weight, layer.bias))
    assert layer.num_batches_tracked.item() == 3


def test_momentum_none_averages_all_batches() -> None:
    layer = nn.BatchNorm1d(2, momentum=None).double()
    batches = [faltung.randn(5, 2, dtype=faltung.float64) for _ in range(4)]
    for batch in batches:
        layer(batch)
    means, variances = zip(*((b.numpy().mean(0), b.numpy().var(0, ddof=1)) for b in batches), strict=True)
    np.testing.assert_allclose(layer.running_mean.numpy(), np.mean(means, axis=0), rtol=1e-12)
    np.testing.assert_allclose(layer.running_var.numpy(), np.mean(variances, axis=0), rtol=1e-12)


def test_without_running_statistics_evaluation_uses_the_batch() -> None:
    layer = nn.BatchNorm2d(3, track_running_stats=False)
    assert list(layer.state_dict()) == ["weight", "bias"]
    x = faltung.randn(4, 3, 5, 5)
    trained = layer(x)
    assert faltung.equal(layer.eval()(x), trained)


def test_tracking_may_be_switched_off_later() -> None:
    layer = nn.BatchNorm2d(3)
    layer.track_running_stats = False
    layer(faltung.randn(4, 3, 5, 5))
    assert layer.running_mean.tolist() == [0, 0, 0]
    assert layer.num_batches_tracked.item() == 0


@pytest.mark.parametrize(("affine", "bias"), [(True, True), (True, False), (False, True)])
def test_parameters(affine: bool, bias: bool) -> None:
    for layer in (
        nn.BatchNorm2d(3, affine=affine, bias=bias),
        nn.InstanceNorm2d(3, affine=affine, bias=bias),
        nn.GroupNorm(1, 3, affine=affine, bias=bias),
        nn.LayerNorm(3, elementwise_affine=affine, bias=bias),
    ):
        names = [name for name, _ in layer.named_parameters()]
        assert names == ["weight", "bias"][: affine + (affine and bias)]
        assert all(p.tolist() == [1.0 if n == "weight" else 0.0] * 3 for n, p in layer.named_parameters())


def test_reset() -> None:
    layer = nn.BatchNorm1d(2)
    layer(faltung.randn(5, 2))
    with faltung.no_grad():
        layer.weight.fill_(3)
    layer.reset_running_stats()
    assert layer.running_mean.tolist() == [0, 0]
    assert layer.running_var.tolist() == [1, 1]
    assert layer.num_batches_tracked.item() == 0
    assert layer.weight.tolist() == [3, 3]
    layer.reset_parameters()
    assert layer.weight.tolist() == [1, 1]


def test_state_dicts_of_version_1_had_no_counter() -> None:
    layer = nn.BatchNorm1d(2)
    state = layer.state_dict()
    del state["num_batches_tracked"]
    state._metadata[""]["version"] = 1
    fresh = nn.BatchNorm1d(2)
    assert fresh.load_state_dict(state).missing_keys == []
    state._metadata[""]["version"] = 2
    with pytest.raises(RuntimeError, match="num_batches_tracked"):
        fresh.load_state_dict(state)


def test_stray_statistics_of_instance_norm() -> None:
    state = {"running_mean": faltung.zeros(2), "running_var": faltung.ones(2)}
    with pytest.raises(RuntimeError, match="with track_running_stats=False"):
        nn.InstanceNorm1d(2).load_state_dict(state)


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("family", ["BatchNorm", "InstanceNorm"])
def test_lazy_layers_become_what_they_stand_for(family: str, n: int) -> None:
    layer = getattr(nn, f"Lazy{family}{n}d")(affine=True, track_running_stats=True)
    assert layer.has_uninitialized_params()
    x = faltung.randn(2, 5, *(3,) * n)
    y = layer(x)
    assert type(layer) is getattr(nn, f"{family}{n}d")
    assert layer.num_features == 5
    assert layer.weight.tolist() == [1] * 5
    assert layer.running_var.shape == (5,)
    twin = getattr(nn, f"{family}{n}d")(5, affine=True, track_running_stats=True)
    assert faltung.equal(y, twin(x))


def test_sync_batch_norm_of_one_process() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Sequential(nn.BatchNorm2d(2)))
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(net)
    assert [type(m).__name__ for m in converted.modules()].count("SyncBatchNorm") == 2
    assert converted[1].weight is net[1].weight
    x = faltung.randn(3, 1, 5, 5)
    assert faltung.equal(converted.eval()(x), net.eval()(x))


@pytest.mark.parametrize("n", [1, 2, 3])
def test_instance_norm_without_a_batch(n: int) -> None:
    layer = getattr(nn, f"InstanceNorm{n}d")(3)
    x = faltung.randn(3, *(4,) * n)
    assert faltung.equal(layer(x), layer(x[None])[0])


def test_representation() -> None:
    assert repr(nn.BatchNorm2d(3)) == (
        "BatchNorm2d(3, eps=1e-05, momentum=0.1, affine=True, bias=True, track_running_stats=True)"
    )
    assert repr(nn.GroupNorm(2, 4)) == "GroupNorm(2, 4, eps=1e-05, affine=True, bias=True)"
    assert repr(nn.LayerNorm([2, 3])) == "LayerNorm((2, 3), eps=1e-05, elementwise_affine=True, bias=True)"
    assert repr(nn.RMSNorm(4)) == "RMSNorm((4,), eps=None, elementwise_affine=True)"
    assert repr(nn.LocalResponseNorm(2)) == "LocalResponseNorm(2, alpha=0.0001, beta=0.75, k=1.0)"


def test_layers_are_their_functions() -> None:
    x = faltung.randn(2, 4, 3, 5)
    assert faltung.equal(nn.GroupNorm(2, 4)(x), F.group_norm(x, 2))
    assert faltung.equal(nn.LayerNorm([3, 5])(x), F.layer_norm(x, (3, 5)))
    assert faltung.equal(nn.RMSNorm(5)(x), F.rms_norm(x, (5,)))
    assert faltung.equal(nn.LocalResponseNorm(3)(x), F.local_response_norm(x, 3))
    assert faltung.equal(nn.CrossMapLRN2d(3)(x), F.local_response_norm(x, 3))


BAD = [
    (lambda: nn.BatchNorm1d(3)(faltung.ones(2, 3, 4, 4)), ValueError, "expected 2D or 3D input, got 4D input"),
    (
        lambda: nn.BatchNorm2d(3)(faltung.ones(3, 4, 4)),
        ValueError,
        "BatchNorm2d: expected 4D input, got 3D input (3, 4, 4)",
    ),
    (lambda: nn.BatchNorm3d(3)(faltung.ones(2, 3, 4, 4)), ValueError, "expected 5D input"),
    (lambda: nn.BatchNorm1d(3)(faltung.ones(1, 3)), ValueError, "Expected more than 1 value per channel when training"),
    (lambda: nn.BatchNorm2d(3)(faltung.ones(2, 4, 5, 5)), RuntimeError, "running_mean should contain 4 elements"),
    (lambda: nn.InstanceNorm2d(3, affine=True)(faltung.ones(2, 4, 5, 5)), ValueError, "match num_features (3)"),
    (lambda: nn.InstanceNorm1d(3)(faltung.ones(3)), ValueError, "expected 2D or 3D input"),
    (lambda: nn.SyncBatchNorm(3)(faltung.ones(3)), ValueError, "expected at least 2D input"),
    (lambda: nn.GroupNorm(2, 3), ValueError, "num_channels (3) must be divisible by num_groups (2)"),
    (lambda: nn.LayerNorm(4)(faltung.ones(2, 3)), RuntimeError, "last dimensions are (4,), got input (2, 3)"),
]


@pytest.mark.parametrize(("call", "kind", "text"), BAD)
def test_messages(call, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=re.escape(text)), warnings.catch_warnings():
        warnings.simplefilter("error")
        call()


def test_unused_number_of_features_warns() -> None:
    with pytest.warns(UserWarning, match=re.escape("match num_features (3)")):
        nn.InstanceNorm2d(3)(faltung.ones(2, 4, 5, 5))
