"""weight_norm, spectral_norm (both forms) and parametrisations in general."""

import copy
from typing import Any

import numpy as np
import pytest

import faltung as torch
from faltung import nn
from faltung.autograd import gradcheck
from faltung.nn import utils
from faltung.nn.utils import parametrizations, parametrize


def norm_per_row(weight: torch.Tensor) -> np.ndarray:
    return np.linalg.norm(weight.detach().numpy().reshape(weight.shape[0], -1), axis=1)


def old_weight_norm(*args: Any, **kwargs: Any) -> Any:
    with pytest.warns(FutureWarning, match="parametrizations.weight_norm"):
        return utils.weight_norm(*args, **kwargs)


class TestWeightNorm:
    def test_old_form(self) -> None:
        net = nn.Linear(3, 2)
        before, x = net.weight.detach().clone(), torch.randn(4, 3)
        expected = net(x)
        assert old_weight_norm(net) is net
        assert [n for n, _ in net.named_parameters()] == ["bias", "weight_g", "weight_v"]
        assert tuple(net.weight_g.shape) == (2, 1)
        np.testing.assert_allclose(net(x).detach().numpy(), expected.detach().numpy(), rtol=1e-5, atol=1e-6)
        net(x).sum().backward()
        assert net.weight_g.grad is not None
        net.weight_g.data.mul_(2)
        net(x)
        np.testing.assert_allclose(norm_per_row(net.weight), 2 * norm_per_row(before), rtol=1e-5)
        utils.remove_weight_norm(net)
        assert [n for n, _ in net.named_parameters()] == ["bias", "weight"]
        with pytest.raises(ValueError, match="not found"):
            utils.remove_weight_norm(net)

    def test_twice_is_refused(self) -> None:
        net = old_weight_norm(nn.Linear(2, 2))
        with pytest.raises(RuntimeError, match="two weight_norm hooks"), pytest.warns(FutureWarning):
            utils.weight_norm(net)

    @pytest.mark.parametrize("dim", [0, 1, None, -1])
    def test_parametrised(self, dim: Any) -> None:
        net = nn.Conv2d(3, 4, 3)
        before = net.weight.detach().clone()
        parametrizations.weight_norm(net, dim=dim)
        assert [n for n, _ in net.named_parameters()] == [
            "bias", "parametrizations.weight.original0", "parametrizations.weight.original1",
        ]  # fmt: skip
        np.testing.assert_allclose(net.weight.detach().numpy(), before.numpy(), rtol=1e-5, atol=1e-7)
        net(torch.ones(1, 3, 4, 4)).sum().backward()
        assert net.parametrizations.weight.original0.grad is not None

    def test_loads_the_old_keys(self) -> None:
        old, new = old_weight_norm(nn.Linear(3, 2)), parametrizations.weight_norm(nn.Linear(3, 2))
        new.load_state_dict(old.state_dict())
        x = torch.randn(2, 3)
        np.testing.assert_allclose(new(x).detach().numpy(), old(x).detach().numpy(), rtol=1e-6)

    def test_gradient(self) -> None:
        def weight(g: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            return parametrizations._WeightNorm(0)(g, v)

        g = torch.rand(3, 1, dtype=torch.float64).add(0.5).requires_grad_()
        v = torch.randn(3, 4, dtype=torch.float64).requires_grad_()
        assert gradcheck(weight, (g, v))


class TestSpectralNorm:
    @pytest.mark.parametrize("form", [utils.spectral_norm, parametrizations.spectral_norm])
    def test_largest_singular_value_becomes_one(self, form: Any) -> None:
        net = form(nn.Linear(5, 4), n_power_iterations=50)
        net(torch.ones(1, 5))
        assert np.linalg.svd(net.weight.detach().numpy())[1][0] == pytest.approx(1, rel=1e-4)
        net.eval()
        first, second = net(torch.ones(1, 5)), net(torch.ones(1, 5))
        assert torch.equal(first, second)

    def test_old_form(self) -> None:
        net = utils.spectral_norm(nn.Conv2d(2, 3, 3))
        assert [n for n, _ in net.named_parameters()] == ["bias", "weight_orig"]
        assert [n for n, _ in net.named_buffers()] == ["weight_u", "weight_v"]
        net(torch.ones(1, 2, 4, 4)).sum().backward()
        assert net.weight_orig.grad is not None
        utils.remove_spectral_norm(net)
        assert isinstance(net.weight, nn.Parameter)
        with pytest.raises(ValueError, match="not found"):
            utils.remove_spectral_norm(net)
        with pytest.raises(ValueError, match="is None"):
            utils.spectral_norm(nn.Linear(1, 1, bias=False), "bias")
        with pytest.raises(ValueError, match="to be positive"):
            utils.spectral_norm(nn.Linear(1, 1), n_power_iterations=0)
        with pytest.raises(RuntimeError, match="two spectral_norm hooks"):
            utils.spectral_norm(utils.spectral_norm(nn.Linear(2, 2)))

    def test_training_twice_before_backward(self) -> None:
        for form in (utils.spectral_norm, parametrizations.spectral_norm):
            net = form(nn.Linear(3, 1))
            (net(torch.ones(1, 3)) - net(torch.zeros(1, 3))).sum().backward()

    def test_transposed_convolutions_have_their_outputs_second(self) -> None:
        assert tuple(utils.spectral_norm(nn.ConvTranspose2d(2, 3, 3)).weight_u.shape) == (3,)

    def test_refusals(self) -> None:
        with pytest.raises(ValueError, match="no parameter or buffer"):
            parametrizations.spectral_norm(nn.ReLU())
        with pytest.raises(IndexError, match="Dimension out of range"):
            parametrizations.spectral_norm(nn.Linear(1, 1), dim=5)


class Symmetric(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.triu() + x.triu(1).t()

    def right_inverse(self, x: torch.Tensor) -> torch.Tensor:
        return x.triu()


class Doubled(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x


class TestParametrize:
    def test_register_assign_remove(self) -> None:
        net = nn.Linear(3, 3)
        original_class = type(net)
        parametrize.register_parametrization(net, "weight", Symmetric())
        assert parametrize.is_parametrized(net)
        assert parametrize.is_parametrized(net, "weight")
        assert not parametrize.is_parametrized(net, "bias")
        assert type(net).__name__ == "ParametrizedLinear"
        assert parametrize.type_before_parametrizations(net) is original_class
        assert torch.equal(net.weight, net.weight.t())
        value = torch.tensor([[1.0, 2, 3], [2, 4, 5], [3, 5, 6]])
        net.weight = value
        assert torch.equal(net.weight, value)
        net(torch.ones(1, 3)).sum().backward()
        assert net.parametrizations.weight.original.grad is not None
        assert isinstance(copy.deepcopy(net), original_class)
        parametrize.remove_parametrizations(net, "weight")
        assert type(net) is original_class
        assert torch.equal(net.weight, value)
        assert isinstance(net.weight, nn.Parameter)

    def test_chain(self) -> None:
        net = nn.Linear(2, 2)
        before = net.weight.detach().clone()
        parametrize.register_parametrization(net, "weight", Doubled())
        parametrize.register_parametrization(net, "weight", Doubled())
        assert torch.equal(net.weight, before * 4)
        with pytest.raises(RuntimeError, match="does not implement right_inverse"):
            net.weight = before
        parametrize.remove_parametrizations(net, "weight", leave_parametrized=False)
        assert torch.equal(net.weight, before)

    def test_buffer(self) -> None:
        net = nn.BatchNorm1d(2)
        parametrize.register_parametrization(net, "running_mean", Doubled())
        assert "parametrizations.running_mean.original" in dict(net.named_buffers())

    def test_cached(self) -> None:
        net = nn.Linear(2, 2)
        parametrize.register_parametrization(net, "weight", Doubled())
        assert net.weight is not net.weight
        with parametrize.cached():
            assert net.weight is net.weight
        assert net.weight is not net.weight

    def test_state_dict_and_loading(self) -> None:
        net, other = nn.Linear(2, 2), nn.Linear(2, 2)
        for module in (net, other):
            parametrize.register_parametrization(module, "weight", Doubled())
        other.load_state_dict(net.state_dict())
        assert torch.equal(net.weight, other.weight)

    def test_transfer(self) -> None:
        source, target = nn.Linear(2, 2), nn.Linear(2, 2)
        parametrize.register_parametrization(source, "weight", Doubled())
        parametrize.transfer_parametrizations_and_params(source, target)
        assert torch.equal(source.weight, target.weight)

    def test_refusals(self) -> None:
        class Wider(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return torch.cat([x, x])

        class Text(nn.Module):
            def forward(self, x: torch.Tensor) -> Any:
                return "text"

        for parametrization, message in ((Wider(), "may not change the shape"), (Text(), "must return a tensor")):
            with pytest.raises(ValueError, match=message):
                parametrize.register_parametrization(nn.Linear(2, 2), "weight", parametrization)
        parametrize.register_parametrization(nn.Linear(2, 2), "weight", Wider(), unsafe=True)
        with pytest.raises(ValueError, match="does not have a parameter"):
            parametrize.register_parametrization(nn.Linear(2, 2), "nope", Doubled())
        with pytest.raises(ValueError, match="does not have a parametrization"):
            parametrize.remove_parametrizations(nn.Linear(2, 2), "weight")

    def test_original_may_be_parametrised_in_turn(self) -> None:
        net = nn.Linear(2, 2)
        before = net.weight.detach().clone()
        parametrize.register_parametrization(net, "weight", Doubled())
        parametrize.register_parametrization(net.parametrizations.weight, "original", Doubled())
        assert torch.equal(net.weight, before * 4)
        parametrize.remove_parametrizations(net.parametrizations.weight, "original", leave_parametrized=False)
        assert torch.equal(net.weight, before * 2)
