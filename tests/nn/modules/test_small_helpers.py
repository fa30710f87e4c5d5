"""nn.modules.utils, nn.common_types, DataParallel, lazy layers."""

import copy

import pytest

import faltung as torch
from faltung import nn
from faltung.nn.common_types import _size_2_t
from faltung.nn.modules.utils import (
    _ntuple,
    _pair,
    _reverse_repeat_tuple,
    _triple,
    consume_prefix_in_state_dict_if_present,
)


def test_tuples() -> None:
    assert _pair(3) == (3, 3)
    assert _pair((3, 4)) == (3, 4)
    assert _triple("x") == ("x",)
    assert _ntuple(4)(0) == (0, 0, 0, 0)
    assert _reverse_repeat_tuple((1, 2), 2) == (2, 2, 1, 1)
    assert _size_2_t == int | tuple[int, int]


def test_data_parallel_adds_its_prefix_and_nothing_else() -> None:
    net = nn.Linear(2, 1)
    wrapped = nn.DataParallel(net)
    assert torch.equal(wrapped(torch.ones(1, 2)), net(torch.ones(1, 2)))
    state = wrapped.state_dict()
    assert list(state) == ["module.weight", "module.bias"]
    consume_prefix_in_state_dict_if_present(state, "module.")
    assert list(state) == ["weight", "bias"]
    assert list(state._metadata) == [""]
    net.load_state_dict(state)
    with pytest.raises(RuntimeError, match="no devices to spread over"):
        nn.DataParallel(net, device_ids=[0, 1])


def test_lazy_layer_takes_its_shape_from_the_first_input() -> None:
    net = nn.Sequential(nn.LazyLinear(3), nn.ReLU(), nn.LazyLinear(2))
    assert isinstance(net[0].weight, nn.UninitializedParameter)
    twin = copy.deepcopy(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    net(torch.ones(4, 5)).sum().backward()
    optimizer.step()
    assert type(net[0]) is nn.Linear
    assert tuple(net[0].weight.shape) == (3, 5)
    assert tuple(net[2].weight.shape) == (2, 3)
    assert isinstance(twin[0], nn.LazyLinear)
    assert tuple(twin(torch.ones(1, 7)).shape) == (1, 2)
    assert twin[0].in_features == 7


def test_lazy_layer_takes_its_shape_from_a_state_dict() -> None:
    net = nn.LazyLinear(3)
    net.load_state_dict(nn.Linear(5, 3).state_dict())
    assert tuple(net.weight.shape) == (3, 5)
    assert tuple(net(torch.ones(2, 5)).shape) == (2, 3)
    assert type(net) is nn.Linear
