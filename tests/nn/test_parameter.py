"""Parameter, Buffer and their uninitialised forms."""

import copy
import pickle

import pytest

import faltung as torch
from faltung import nn


def test_parameter_shares_memory_and_requires_grad() -> None:
    data = torch.zeros(2, 3)
    param = nn.Parameter(data)
    assert isinstance(param, torch.Tensor)
    assert param.requires_grad
    assert param.is_leaf
    data[0, 0] = 5
    assert param[0, 0].item() == 5


def test_parameter_of_nothing_is_empty() -> None:
    assert tuple(nn.Parameter().shape) == (0,)


def test_parameter_of_a_result_is_a_leaf() -> None:
    x = torch.ones(3, requires_grad=True)
    param = nn.Parameter(x * 2)
    assert param.is_leaf
    assert param.tolist() == [2, 2, 2]


def test_parameter_of_a_list_says_what_to_do() -> None:
    with pytest.raises(TypeError, match=r"must be a faltung.Tensor, got list.*faltung.tensor"):
        nn.Parameter([1.0, 2.0])


def test_integer_parameter_needs_requires_grad_false() -> None:
    with pytest.raises(RuntimeError, match="floating point"):
        nn.Parameter(torch.tensor([1, 2]))
    assert not nn.Parameter(torch.tensor([1, 2]), requires_grad=False).requires_grad


def test_results_are_plain_tensors() -> None:
    param = nn.Parameter(torch.ones(2))
    assert type(param * 2) is torch.Tensor
    assert type(param.detach()) is torch.Tensor


def test_repr() -> None:
    assert repr(nn.Parameter(torch.tensor([1.0, 2.0]))) == "Parameter containing:\ntensor([1., 2.], requires_grad=True)"


def test_deepcopy_is_independent_and_keeps_identity_within() -> None:
    param = nn.Parameter(torch.ones(2), requires_grad=False)
    first, second = copy.deepcopy([param, param])
    assert first is second
    assert isinstance(first, nn.Parameter)
    assert not first.requires_grad
    first.fill_(3)
    assert param.tolist() == [1, 1]


def test_pickle() -> None:
    param = pickle.loads(pickle.dumps(nn.Parameter(torch.tensor([1.0, 2.0]))))
    assert isinstance(param, nn.Parameter)
    assert param.requires_grad
    assert param.tolist() == [1, 2]


def test_buffer_registers_on_assignment() -> None:
    module = nn.Module()
    module.kept = nn.Buffer(torch.ones(1))
    module.passing = nn.Buffer(torch.ones(1), persistent=False)
    assert [name for name, _ in module.named_buffers()] == ["kept", "passing"]
    assert list(module.state_dict()) == ["kept"]


def test_uninitialized_parameter_has_no_shape_until_materialized() -> None:
    param = nn.UninitializedParameter()
    with pytest.raises(RuntimeError, match="dry run"):
        _ = param.shape
    assert repr(param) == "<UninitializedParameter>"
    param.materialize((2, 3))
    assert type(param) is nn.Parameter
    assert tuple(param.shape) == (2, 3)
    assert param.requires_grad
