"""state_dict and load_state_dict: names, sharing, one error for all problems, versions, extra state."""

import copy
from collections import OrderedDict
from typing import Any

import pytest

import faltung as torch
from faltung import nn


class Versioned(nn.Module):
    _version = 2

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any], *others: Any
    ) -> None:
        if local_metadata.get("version") is None and prefix + "gain" in state_dict:
            state_dict[prefix + "scale"] = state_dict.pop(prefix + "gain")
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *others)


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def get_extra_state(self) -> Any:
        return {"count": self.count}

    def set_extra_state(self, state: Any) -> None:
        self.count = state["count"]


def test_entries_share_memory_and_are_detached() -> None:
    net = nn.Linear(2, 1)
    state = net.state_dict()
    assert isinstance(state, OrderedDict)
    assert type(state["weight"]) is torch.Tensor
    assert not state["weight"].requires_grad
    state["bias"].fill_(7)
    assert net.bias.item() == 7
    kept = net.state_dict(keep_vars=True)
    assert kept["weight"] is net.weight


def test_metadata_holds_versions() -> None:
    state = nn.Sequential(Versioned(), nn.BatchNorm1d(2)).state_dict()
    assert state._metadata["0"] == {"version": 2}
    assert list(state._metadata) == ["", "0", "1"]


def test_prefix_and_destination() -> None:
    destination: OrderedDict[str, Any] = OrderedDict()
    result = nn.Linear(1, 1).state_dict(destination=destination, prefix="a.")
    assert result is destination
    assert list(destination) == ["a.weight", "a.bias"]
    with pytest.warns(FutureWarning, match="by name"):
        assert list(nn.Linear(1, 1).state_dict(OrderedDict(), "b.")) == ["b.weight", "b.bias"]


def test_load_copies_values_into_the_same_parameters() -> None:
    source, target = nn.Linear(2, 2), nn.Linear(2, 2)
    weight = target.weight
    result = target.load_state_dict(source.state_dict())
    assert repr(result) == "<All keys matched successfully>"
    assert target.weight is weight
    assert torch.equal(target.weight, source.weight)
    source.weight.data.fill_(9)
    assert not torch.equal(target.weight, source.weight)


def test_load_converts_the_dtype() -> None:
    target = nn.Linear(2, 2).double()
    target.load_state_dict(nn.Linear(2, 2).state_dict())
    assert target.weight.dtype is torch.float64


def test_every_problem_in_one_error() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    state = net.state_dict()
    del state["0.bias"], state["1.running_mean"]
    state["0.weight"] = torch.ones(3, 5)
    state["1.weight"] = [1, 2, 3]
    state["2.extra"] = torch.ones(1)
    state["stray"] = torch.ones(1)
    with pytest.raises(RuntimeError) as error:
        net.load_state_dict(state)
    text = str(error.value)
    assert text.startswith("Error(s) in loading state_dict for Sequential:\n\t")
    assert 'Missing key(s) in state_dict: "0.bias", "1.running_mean". ' in text
    assert 'Unexpected key(s) in state_dict: "2.extra", "stray". ' in text
    assert text.index("Missing") < text.index("Unexpected") < text.index("size mismatch")
    assert "size mismatch for 0.weight: copying a param with shape" in text
    assert "expected faltung.Tensor" in text


def test_not_strict_returns_the_rest_but_not_wrong_shapes() -> None:
    net = nn.Linear(2, 3)
    missing, unexpected = net.load_state_dict({"weight": torch.ones(3, 2), "more": 1}, strict=False)
    assert missing == ["bias"]
    assert unexpected == ["more"]
    assert net.weight.tolist() == [[1, 1]] * 3
    with pytest.raises(RuntimeError, match="size mismatch"):
        net.load_state_dict({"weight": torch.ones(2, 3)}, strict=False)


def test_assign_takes_the_tensors_themselves() -> None:
    net = nn.BatchNorm1d(2)
    net.weight.requires_grad_(False)
    state = copy.deepcopy(net.state_dict())
    state["weight"] = torch.zeros(2, dtype=torch.float64)
    net.load_state_dict(state, assign=True)
    assert net.weight.dtype is torch.float64
    assert not net.weight.requires_grad
    assert isinstance(net.weight, nn.Parameter)
    assert net.running_mean is state["running_mean"]


def test_scalar_saved_with_one_dimension() -> None:
    net = nn.Module()
    net.register_buffer("value", torch.tensor(0.0))
    net.load_state_dict({"value": torch.tensor([5.0])})
    assert net.value.item() == 5


def test_older_version_is_translated() -> None:
    net = nn.Sequential(Versioned())
    net.load_state_dict({"0.gain": torch.tensor([4.0])})
    assert net[0].scale.item() == 4


def test_extra_state() -> None:
    net = nn.Sequential(Counting())
    net[0].count = 5
    state = net.state_dict()
    assert list(state) == ["0._extra_state"]
    fresh = nn.Sequential(Counting())
    fresh.load_state_dict(state)
    assert fresh[0].count == 5
    with pytest.raises(RuntimeError, match=r'Missing key\(s\) in state_dict: "0._extra_state"'):
        fresh.load_state_dict({})
    with pytest.raises(RuntimeError, match=r'Unexpected key\(s\) in state_dict: "_extra_state"'):
        nn.ReLU().load_state_dict({"_extra_state": 1})


def test_tied_parameters_load_once_each() -> None:
    net = nn.Module()
    net.a = nn.Linear(2, 2, bias=False)
    net.b = nn.Linear(2, 2, bias=False)
    net.b.weight = net.a.weight
    assert list(net.state_dict()) == ["a.weight", "b.weight"]
    net.load_state_dict(net.state_dict())
    assert net.a.weight is net.b.weight


def test_loading_leaves_gradients_and_history_alone() -> None:
    net = nn.Linear(1, 1)
    net(torch.ones(1, 1)).backward()
    grad = net.weight.grad
    net.load_state_dict(nn.Linear(1, 1).state_dict())
    assert net.weight.grad is grad
    assert net.weight.is_leaf
