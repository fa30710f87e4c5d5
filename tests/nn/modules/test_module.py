"""Module: registration, walking, conversion, looks, copies."""

import copy
import pickle
import warnings
from typing import Any

import pytest

import faltung as torch
from faltung import nn


class Net(nn.Module):
    def __init__(self) -> None:
        super(Net, self).__init__()  # noqa: UP008  # the older spelling must work
        self.conv1 = nn.Conv2d(1, 2, 3)
        self.relu = nn.ReLU()
        self.fc = nn.Linear(4, 3, bias=False)
        self.scale = nn.Parameter(torch.ones(1))
        self.register_buffer("steps", torch.zeros(1))
        self.register_buffer("passing", torch.zeros(1), persistent=False)
        self.register_parameter("absent", None)
        self.note = "text"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.relu(self.conv1(x)).flatten(1)) * self.scale


class Unprepared(nn.Module):
    def __init__(self, what: Any) -> None:
        self.thing = what


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (lambda: nn.Linear(1, 1), "cannot assign module before Module.__init__() call"),
        (lambda: nn.Parameter(torch.ones(1)), "cannot assign parameters before Module.__init__() call"),
        (lambda: nn.Buffer(torch.ones(1)), "cannot assign buffer before Module.__init__() call"),
    ],
)
def test_assignment_before_init(what: Any, message: str) -> None:
    with pytest.raises(AttributeError) as error:
        Unprepared(what())
    assert message in str(error.value)


def test_plain_values_before_init_are_fine() -> None:
    assert Unprepared(3).thing == 3


def test_registration_by_assignment() -> None:
    net = Net()
    assert [n for n, _ in net.named_parameters()] == ["scale", "conv1.weight", "conv1.bias", "fc.weight"]
    assert [n for n, _ in net.named_buffers()] == ["steps", "passing"]
    assert [n for n, _ in net.named_children()] == ["conv1", "relu", "fc"]
    assert [n for n, _ in net.named_modules()] == ["", "conv1", "relu", "fc"]
    assert list(net.state_dict()) == ["scale", "steps", "conv1.weight", "conv1.bias", "fc.weight"]
    assert net.absent is None
    assert net.fc.bias is None
    assert net.note == "text"
    assert "conv1" in dir(net)
    assert "scale" in dir(net)
    assert "steps" in dir(net)


def test_reassignment_moves_a_name_between_tables() -> None:
    net = Net()
    net.conv1 = nn.Identity()
    assert isinstance(net.conv1, nn.Identity)
    net.relu = nn.Parameter(torch.ones(1))
    assert "relu" not in net._modules
    assert "relu" in net._parameters
    net.scale = None
    assert net.scale is None
    assert "scale" in net._parameters
    net.steps = None
    assert next(iter(net.state_dict())) == "relu"
    net.note = nn.ReLU()
    assert "note" not in net.__dict__
    net.steps = torch.ones(2)
    assert net.state_dict()["steps"].tolist() == [1, 1]


def test_deletion() -> None:
    net = Net()
    del net.conv1, net.scale, net.passing, net.note
    assert [n for n, _ in net.named_parameters()] == ["fc.weight"]
    assert net._non_persistent_buffers_set == set()
    for name in ("conv1", "scale", "passing", "note"):
        assert not hasattr(net, name)
        with pytest.raises(AttributeError):
            delattr(net, name)


REFUSED = [
    (lambda m: setattr(m, "scale", torch.ones(1)), TypeError, "as parameter 'scale'"),
    (lambda m: setattr(m, "conv1", torch.ones(1)), TypeError, "as child module 'conv1'"),
    (lambda m: setattr(m, "steps", 3), TypeError, "as buffer 'steps'"),
    (lambda m: m.register_buffer("a.b", torch.ones(1)), KeyError, 'contain "."'),
    (lambda m: m.register_buffer("", torch.ones(1)), KeyError, "empty string"),
    (lambda m: m.register_buffer(3, torch.ones(1)), TypeError, "should be a string"),
    (lambda m: m.register_buffer("note", torch.ones(1)), KeyError, "'note' already exists"),
    (lambda m: m.register_buffer("new", 3), TypeError, "buffer 'new'"),
    (lambda m: m.register_parameter("a.b", None), KeyError, 'contain "."'),
    (lambda m: m.register_parameter("", None), KeyError, "empty string"),
    (lambda m: m.register_parameter("note", None), KeyError, "already exists"),
    (lambda m: m.register_parameter(None, None), TypeError, "should be a string"),
    (lambda m: m.register_parameter("new", torch.ones(1)), TypeError, "nn.Parameter"),
    (lambda m: m.add_module("a.b", nn.ReLU()), KeyError, 'contain "."'),
    (lambda m: m.add_module("", nn.ReLU()), KeyError, "empty string"),
    (lambda m: m.add_module("note", nn.ReLU()), KeyError, "already exists"),
    (lambda m: m.add_module("new", torch.exp), TypeError, "not a Module subclass"),
    (lambda m: m.add_module(3, nn.ReLU()), TypeError, "should be a string"),
    (lambda m: m.train("yes"), ValueError, "boolean"),
    (lambda m: m.to(torch.int64), TypeError, "floating point or complex"),
    (lambda m: m.to("cuda"), AssertionError, "CPU"),
    (lambda m: m.cuda(), AssertionError, "CPU"),
    (lambda m: m.to(bogus=1), TypeError, "bogus"),
    (lambda m: m.to(torch.float32, torch.float32), TypeError, "combination"),
    (lambda m: m.nothing, AttributeError, "'Net' object has no attribute 'nothing'"),
    (lambda m: m.get_submodule("conv1.x"), AttributeError, "Conv2d has no attribute `x`"),
    (lambda m: m.get_submodule("note"), AttributeError, "`note` is not an nn.Module"),
    (lambda m: m.get_parameter("conv1.stride"), AttributeError, "`stride` is not an nn.Parameter"),
    (lambda m: m.get_parameter("conv1.x"), AttributeError, "Conv2d has no attribute `x`"),
    (lambda m: m.get_buffer("scale"), AttributeError, "`scale` is not a buffer"),
    (lambda m: m.get_buffer("x"), AttributeError, "Net has no attribute `x`"),
    (lambda m: m.set_submodule("", nn.ReLU()), ValueError, "without a target"),
    (lambda m: m.set_submodule("conv1", 3), ValueError, "not an nn.Module"),
    (lambda m: m.set_submodule("note", nn.ReLU()), AttributeError, "`note` is not an nn.Module"),
    (lambda m: m.set_submodule("conv1.new", nn.ReLU(), strict=True), AttributeError, "has no attribute `new`"),
    (lambda m: m.load_state_dict([1]), TypeError, "dict-like"),
    (lambda m: nn.Module(3), TypeError, "takes 1 positional argument but 2 were given"),
    (lambda m: nn.Module(a=3), TypeError, "unexpected keyword argument 'a'"),
    (lambda m: nn.Module()(3), NotImplementedError, 'missing the required "forward" function'),
    (lambda m: m.get_extra_state(), RuntimeError, "get_extra_state"),
]


@pytest.mark.parametrize(("action", "kind", "message"), REFUSED)
def test_refusals(action: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as error:
        action(Net())
    assert message in str(error.value)


def test_non_leaf_parameter_is_refused() -> None:
    param = nn.Parameter(torch.ones(1))
    moved = param * 2
    moved.__class__ = nn.Parameter
    with pytest.raises(ValueError, match="non-leaf Tensor to parameter 'x'"):
        nn.Module().register_parameter("x", moved)


def test_shared_members_appear_once() -> None:
    shared = nn.Linear(2, 2)
    model = nn.Sequential(shared, nn.ReLU(), shared)
    assert len(list(model.parameters())) == 2
    assert len(list(model.modules())) == 3
    assert len(list(model.children())) == 2
    names = [n for n, _ in model.named_parameters(remove_duplicate=False)]
    assert names == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert [n for n, _ in model.named_modules(remove_duplicate=False)] == ["", "0", "1", "2"]
    assert list(model.state_dict()) == names


def test_prefix_and_recurse() -> None:
    net = Net()
    assert [n for n, _ in net.named_parameters(prefix="m", recurse=False)] == ["m.scale"]
    assert [n for n, _ in net.named_modules(prefix="m")] == ["m", "m.conv1", "m.relu", "m.fc"]
    assert len(list(net.parameters(recurse=False))) == 1
    assert len(list(net.buffers(recurse=False))) == 2


def test_get_and_set_by_dotted_name() -> None:
    model = nn.Sequential(Net(), nn.ReLU())
    assert model.get_submodule("") is model
    assert model.get_submodule("0.conv1") is model[0].conv1
    assert model.get_parameter("0.conv1.weight") is model[0].conv1.weight
    assert model.get_buffer("0.steps") is model[0].steps
    new = nn.Identity()
    model.set_submodule("0.conv1", new)
    assert model[0].conv1 is new
    model.set_submodule("0.added", new)
    assert model[0].added is new


def test_train_and_eval_reach_everything() -> None:
    model = nn.Sequential(Net(), nn.Dropout())
    assert model.eval() is model
    assert not any(module.training for module in model.modules())
    assert model.train() is model
    assert all(module.training for module in model.modules())


def test_apply_visits_children_first() -> None:
    seen: list[str] = []
    assert isinstance(Net().apply(lambda m: seen.append(type(m).__name__)), Net)
    assert seen == ["Conv2d", "ReLU", "Linear", "Net"]


def test_to_converts_in_place_and_keeps_objects() -> None:
    net = Net()
    net.register_buffer("count", torch.tensor(3))
    weight = net.conv1.weight
    net(torch.ones(1, 1, 3, 4)[:, :, :, :3].repeat(2, 1, 1, 1)[:1].new_ones(1, 1, 4, 3)).sum().backward()
    assert net.to(torch.float64) is net
    assert net.conv1.weight is weight
    assert weight.dtype is torch.float64
    assert weight.grad is not None
    assert weight.grad.dtype is torch.float64
    assert net.steps.dtype is torch.float64
    assert net.count.dtype is torch.int64
    assert net.float().conv1.weight.dtype is torch.float32
    assert net.half().conv1.weight.dtype is torch.float16
    assert net.double().fc.weight.dtype is torch.float64
    assert net.to("cpu").to(torch.device("cpu"), torch.float32).fc.weight.dtype is torch.float32
    assert net.to(torch.ones(1, dtype=torch.float64)).fc.weight.dtype is torch.float64
    assert net.to(memory_format=torch.channels_last).conv1.weight.is_contiguous(memory_format=torch.channels_last)
    assert net.type(torch.float32).fc.weight.dtype is torch.float32
    assert net.cpu() is net
    assert net.to_empty(device="cpu").conv1.weight.shape == weight.shape


def test_requires_grad_and_zero_grad() -> None:
    net = nn.Linear(2, 1)
    net(torch.ones(1, 2)).sum().backward()
    net.zero_grad(set_to_none=False)
    assert net.weight.grad is not None
    assert net.weight.grad.tolist() == [[0, 0]]
    net.zero_grad()
    assert net.weight.grad is None
    assert net.requires_grad_(False) is net
    assert not any(p.requires_grad for p in net.parameters())


def test_repr_nested_and_empty() -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(1, 2), nn.ReLU())
            self.absent = None
            self.add_module("gap", None)

        def extra_repr(self) -> str:
            return "width=3\ndepth=4"

    assert repr(nn.Module()) == "Module()"
    assert repr(nn.ReLU(inplace=True)) == "ReLU(inplace=True)"
    assert repr(Outer()) == (
        "Outer(\n  width=3\n  depth=4\n  (net): Sequential(\n"
        "    (0): Linear(in_features=1, out_features=2, bias=True)\n"
        "    (1): ReLU()\n  )\n  (gap): None\n)"
    )


def test_deepcopy_and_pickle_are_independent_and_complete() -> None:
    net = Net()
    net.eval()
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net)), copy.deepcopy(copy.copy(net))):
        assert not twin.training
        assert list(twin.state_dict()) == list(net.state_dict())
        x = torch.ones(1, 1, 4, 3)
        assert torch.equal(twin(x), net(x))
        with torch.no_grad():
            twin.conv1.weight.add_(1)
        assert not torch.equal(twin(x), net(x))


def test_cooperative_inheritance() -> None:
    class Tag:
        def __init__(self, tag: str) -> None:
            self.tag = tag

    class Both(nn.Module, Tag):
        call_super_init = True

    assert Both(tag="x").tag == "x"


def test_compile_changes_nothing() -> None:
    net = nn.Linear(2, 2)
    assert net.compile() is None
    assert tuple(net(torch.ones(1, 2)).shape) == (1, 2)


def test_global_registration_hooks_see_and_replace() -> None:
    from faltung.nn.modules import module as m

    seen: list[tuple[str, str]] = []
    handles = [
        m.register_module_parameter_registration_hook(lambda module, name, value: seen.append(("parameter", name))),
        m.register_module_buffer_registration_hook(lambda module, name, value: seen.append(("buffer", name))),
        m.register_module_module_registration_hook(lambda module, name, value: nn.Identity() if name == "fc" else None),
    ]
    net = Net()
    for handle in handles:
        handle.remove()
    assert ("parameter", "scale") in seen
    assert ("buffer", "steps") in seen
    assert isinstance(net.fc, nn.Identity)
    assert isinstance(Net().fc, nn.Linear)


class TestPlainContainers:
    """Modules in a plain list register nothing; parameters() says so once per class and attribute."""

    def messages(self, net: nn.Module) -> list[str]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            list(net.parameters())
        return [str(w.message) for w in caught if issubclass(w.category, UserWarning)]

    def holding(self, make: Any) -> nn.Module:
        class Holder(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                make(self)

        return Holder()

    @pytest.mark.parametrize(
        ("make", "better"),
        [
            (lambda self: setattr(self, "layers", [nn.Linear(1, 1)]), "ModuleList"),
            (lambda self: setattr(self, "layers", (nn.Linear(1, 1), nn.ReLU())), "ModuleList"),
            (lambda self: setattr(self, "layers", {"a": nn.Linear(1, 1)}), "ModuleDict"),
            (lambda self: setattr(self, "layers", [nn.Parameter(torch.ones(1))]), "ParameterList"),
            (lambda self: setattr(self, "layers", [[nn.Linear(1, 1)]]), "ModuleList"),
        ],
    )
    def test_warns_once(self, make: Any, better: str) -> None:
        net = self.holding(make)
        (message,) = self.messages(net)
        assert "Holder.layers" in message
        assert f"nn.{better}" in message
        assert self.messages(net) == []

    def test_list_filled_later(self) -> None:
        net = self.holding(lambda self: setattr(self, "layers", []))
        assert self.messages(net) == []
        net.layers.append(nn.Linear(1, 1))
        assert len(self.messages(net)) == 1

    def test_found_below_the_root(self) -> None:
        inner = self.holding(lambda self: setattr(self, "layers", [nn.Linear(1, 1)]))
        assert len(self.messages(nn.Sequential(inner))) == 1

    @pytest.mark.parametrize(
        "make",
        [
            lambda self: setattr(self, "layers", []),
            lambda self: setattr(self, "layers", [1, 2, "x"]),
            lambda self: setattr(self, "layers", [nn.ReLU(), nn.Flatten()]),
            lambda self: (
                setattr(self, "layers", [nn.Linear(1, 1)]),
                setattr(self, "net", nn.Sequential(*self.layers)),
            ),
            lambda self: (setattr(self, "net", nn.Linear(1, 1)), setattr(self, "layers", {"head": self.net})),
            lambda self: (setattr(self, "net", nn.Linear(1, 1)), setattr(self, "params", [self.net.weight])),
            lambda self: setattr(self, "layers", nn.ModuleList([nn.Linear(1, 1)])),
        ],
    )
    def test_no_false_alarm(self, make: Any) -> None:
        assert self.messages(self.holding(make)) == []
