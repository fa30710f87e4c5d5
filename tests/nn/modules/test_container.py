"""Sequential, ModuleList, ModuleDict, ParameterList, ParameterDict."""

import copy
from collections import OrderedDict
from typing import Any

import pytest

import faltung as torch
from faltung import nn


def layers(n: int) -> list[nn.Module]:
    return [nn.Linear(i + 1, i + 2) for i in range(n)]


class TestSequential:
    def test_calls_in_turn(self) -> None:
        net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
        x = torch.ones(4, 2)
        assert torch.equal(net(x), net[2](net[1](net[0](x))))
        assert nn.Sequential()(x) is x

    def test_names(self) -> None:
        net = nn.Sequential(OrderedDict(first=nn.ReLU(), second=nn.Tanh()))
        assert list(net._modules) == ["first", "second"]
        assert isinstance(net.second, nn.Tanh)
        assert isinstance(net[-1], nn.Tanh)

    def test_indexing_and_slicing(self) -> None:
        parts = layers(4)
        net = nn.Sequential(*parts)
        assert net[0] is parts[0]
        assert net[-1] is parts[3]
        assert list(net[1:3]) == parts[1:3]
        assert type(net[1:]) is nn.Sequential
        assert list(net) == parts
        assert len(net) == 4
        for bad in (4, -5):
            with pytest.raises(IndexError, match="out of range"):
                net[bad]
        with pytest.raises(TypeError):
            net["0"]

    def test_changes(self) -> None:
        parts = layers(6)
        net = nn.Sequential(*parts[:3])
        assert net.append(parts[3]) is net
        assert net.extend(parts[4:]) is net
        assert list(net) == parts
        net[0] = parts[5]
        assert net[0] is parts[5]
        del net[0]
        assert list(net) == parts[1:]
        assert list(net._modules) == ["0", "1", "2", "3", "4"]
        del net[1:3]
        assert list(net) == [parts[1], parts[4], parts[5]]
        assert net.insert(1, parts[0]) is net
        assert list(net) == [parts[1], parts[0], parts[4], parts[5]]
        assert net.pop(1) is parts[0]
        assert net.insert(-1, parts[0])[2] is parts[0]
        assert list(net.state_dict())[:2] == ["0.weight", "0.bias"]

    def test_insert_refuses(self) -> None:
        net = nn.Sequential(nn.ReLU())
        with pytest.raises(IndexError, match="out of range"):
            net.insert(5, nn.ReLU())
        with pytest.raises(AssertionError, match="should be of type"):
            net.insert(0, 3)

    def test_arithmetic(self) -> None:
        a, b = nn.Sequential(*layers(2)), nn.Sequential(*layers(1))
        assert list(a + b) == [*a, *b]
        assert list(a * 2) == [*a, *a]
        assert list(2 * a) == [*a, *a]
        before = list(a)
        a += b
        assert list(a) == [*before, *b]
        a *= 2
        assert list(a) == [*before, *b, *before, *b]
        with pytest.raises(ValueError, match="Sequential"):
            _ = a + [nn.ReLU()]  # noqa: RUF005  # the operator is meant
        with pytest.raises(ValueError, match="Non-positive"):
            _ = a * 0
        with pytest.raises(TypeError):
            _ = a * 1.5

    def test_extend_by_itself_ends(self) -> None:
        net = nn.Sequential(nn.ReLU())
        net.extend(net)
        assert len(net) == 2

    def test_not_a_module(self) -> None:
        with pytest.raises(TypeError, match="int is not a Module subclass"):
            nn.Sequential(3)


class TestModuleList:
    def test_as_a_list(self) -> None:
        parts = layers(5)
        modules = nn.ModuleList(parts[:2])
        modules.append(parts[2]).extend(parts[3:])
        assert list(modules) == parts
        assert modules[-1] is parts[4]
        assert type(modules[1:3]) is nn.ModuleList
        modules.insert(0, parts[4])
        assert modules[0] is parts[4]
        assert len(modules) == 6
        modules[1] = nn.ReLU()
        del modules[0], modules[-1]
        assert list(modules._modules) == ["0", "1", "2", "3"]
        modules += [nn.Tanh()]
        assert isinstance(modules.pop(-1), nn.Tanh)
        assert len(modules + [nn.ReLU()]) == 5  # noqa: RUF005  # the operator is meant
        assert len(list(nn.ModuleList(layers(2)).parameters())) == 4

    def test_refusals(self) -> None:
        modules = nn.ModuleList([nn.ReLU()])
        with pytest.raises(IndexError, match="index 3 is out of range"):
            modules[3]
        with pytest.raises(TypeError, match="with an iterable, but got int"):
            modules.extend(3)
        with pytest.raises(TypeError, match="not a Module subclass"):
            nn.ModuleList([3])  # type: ignore[list-item]
        with pytest.raises(NotImplementedError, match="forward"):
            modules(torch.ones(1))

    def test_repr_joins_equal_neighbours(self) -> None:
        modules = nn.ModuleList([nn.ReLU(), nn.ReLU(), nn.Linear(1, 2), nn.ReLU()])
        assert repr(modules) == (
            "ModuleList(\n  (0-1): 2 x ReLU()\n  (2): Linear(in_features=1, out_features=2, bias=True)\n"
            "  (3): ReLU()\n)"
        )
        assert repr(nn.ModuleList()) == "ModuleList()"


class TestModuleDict:
    def test_as_a_dict(self) -> None:
        modules = nn.ModuleDict({"b": nn.ReLU(), "a": nn.Linear(1, 1)})
        assert list(modules) == ["b", "a"]
        assert "a" in modules
        assert len(modules) == 2
        assert isinstance(modules["b"], nn.ReLU)
        assert isinstance(modules.a, nn.Linear)
        modules["c"] = nn.Tanh()
        modules.update([("d", nn.Tanh()), ["e", nn.ReLU()]])  # type: ignore[list-item]
        assert [k for k, _ in modules.items()] == list(modules.keys()) == ["b", "a", "c", "d", "e"]
        assert len(list(modules.values())) == 5
        assert isinstance(modules.pop("b"), nn.ReLU)
        del modules["a"]
        modules.clear()
        assert len(modules) == 0
        with pytest.raises(KeyError):
            modules["a"]

    @pytest.mark.parametrize(
        ("entries", "kind", "message"),
        [
            (3, TypeError, "iterable of key/value pairs"),
            ([3], TypeError, "#0 should be Iterable; is int"),
            ([("a", nn.ReLU(), 3)], ValueError, "has length 3; 2 is required"),
            ({"a.b": nn.ReLU()}, KeyError, 'contain "."'),
            ({"keys": nn.ReLU()}, KeyError, "already exists"),
            ({"a": 3}, TypeError, "not a Module"),
        ],
    )
    def test_refusals(self, entries: Any, kind: type[Exception], message: str) -> None:
        with pytest.raises(kind, match=message.replace("(", r"\(")):
            nn.ModuleDict(entries)


class TestParameterList:
    def test_as_a_list(self) -> None:
        params = nn.ParameterList([torch.ones(2), nn.Parameter(torch.zeros(1)), "text"])
        assert isinstance(params[0], nn.Parameter)
        assert params[2] == "text"
        assert len(list(params.parameters())) == 2
        assert list(params.state_dict()) == ["0", "1"]
        params.append(torch.ones(1)).extend([torch.ones(1)])
        params += [torch.ones(3)]
        assert len(params) == 6
        assert len(params[1:3]) == 2
        params[-1] = torch.zeros(3)
        assert params[5].tolist() == [0, 0, 0]
        assert copy.deepcopy(params)[5] is not params[5]
        with pytest.raises(IndexError):
            params[6]
        with pytest.raises(TypeError, match="Tensor"):
            params.extend(torch.ones(2))
        with pytest.raises(RuntimeError, match="should not be called"):
            params()

    def test_repr(self) -> None:
        params = nn.ParameterList([torch.ones(2, 3), 5])
        assert repr(params) == (
            "ParameterList(\n    (0): Parameter containing: [faltung.float32 of size 2x3]\n"
            "    (1): Object of type: int\n)"
        )


class TestParameterDict:
    def test_as_a_dict(self) -> None:
        params = nn.ParameterDict({"b": torch.ones(1), "a": torch.zeros(1)})
        assert list(params) == ["a", "b"]  # a plain dict is sorted, as in PyTorch
        assert list(nn.ParameterDict(OrderedDict(b=torch.ones(1), a=torch.ones(1)))) == ["b", "a"]
        assert isinstance(params["a"], nn.Parameter)
        params["c"] = torch.ones(2)
        assert params.get("z", 3) == 3
        assert params.setdefault("d", torch.ones(1)).tolist() == [1]
        assert params.popitem()[0] == "d"
        assert params.pop("c").tolist() == [1, 1]
        assert "c" not in params
        assert list(reversed(params)) == ["b", "a"]
        assert [k for k, _ in params.items()] == list(params.keys()) == ["a", "b"]
        assert len(list(params.values())) == len(params) == 2
        both = params | nn.ParameterDict({"e": torch.ones(1)})
        assert list(both) == ["a", "b", "e"]
        assert list(params) == ["a", "b"]
        params |= both
        assert list(params.state_dict()) == ["a", "b", "e"]
        assert list(params.copy()) == ["a", "b", "e"]
        assert params.fromkeys(["x"], 1)["x"] == 1
        params.clear()
        assert len(params) == 0

    def test_refusals(self) -> None:
        with pytest.raises(TypeError, match="a key must be a string"):
            nn.ParameterDict({1: torch.ones(1)})
        with pytest.raises(TypeError, match="key/value pairs"):
            nn.ParameterDict(3)
        with pytest.raises(RuntimeError, match="should not be called"):
            nn.ParameterDict()(1)
