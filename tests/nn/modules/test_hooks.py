"""Hooks of modules: order, replacement, removal, gradients, failures."""

from collections.abc import Iterator
from typing import Any

import pytest

import faltung as torch
from faltung import nn
from faltung.nn.modules import module as m


class Double(nn.Module):
    def forward(self, x: torch.Tensor, *, factor: float = 2.0) -> torch.Tensor:
        return x * factor


@pytest.fixture
def x() -> torch.Tensor:
    return torch.tensor([1.0, 2.0], requires_grad=True)


def test_order_of_forward_hooks(x: torch.Tensor) -> None:
    seen: list[str] = []
    net = Double()
    handles = [
        net.register_forward_hook(lambda *a: seen.append("post")),
        net.register_forward_hook(lambda *a: seen.append("post first"), prepend=True),
        net.register_forward_pre_hook(lambda *a: seen.append("pre")),
        net.register_forward_pre_hook(lambda *a: seen.append("pre first"), prepend=True),
        m.register_module_forward_pre_hook(lambda *a: seen.append("global pre")),
        m.register_module_forward_hook(lambda *a: seen.append("global post")),
    ]
    net(x)
    assert seen == ["global pre", "pre first", "pre", "global post", "post first", "post"]
    for handle in handles:
        handle.remove()
        handle.remove()
    seen.clear()
    net(x)
    assert seen == []


def test_hooks_replace_arguments_and_results(x: torch.Tensor) -> None:
    net = Double()
    net.register_forward_pre_hook(lambda module, args: args[0] + 1)
    net.register_forward_pre_hook(lambda module, args, kwargs: (args, {"factor": 10.0}), with_kwargs=True)
    net.register_forward_hook(lambda module, args, out: out + 0.5)
    net.register_forward_hook(lambda module, args, kwargs, out: out + kwargs["factor"], with_kwargs=True)
    assert net(x).tolist() == [30.5, 40.5]


def test_pre_hook_with_kwargs_must_return_a_pair(x: torch.Tensor) -> None:
    net = Double()
    net.register_forward_pre_hook(lambda module, args, kwargs: args[0], with_kwargs=True)
    with pytest.raises(RuntimeError, match=r"None or\s+\(args, kwargs\)"):
        net(x)


def test_handle_in_a_with_block(x: torch.Tensor) -> None:
    net = Double()
    with net.register_forward_hook(lambda module, args, out: out * 0):
        assert net(x).tolist() == [0, 0]
    assert net(x).tolist() == [2, 4]


def test_hook_may_remove_itself(x: torch.Tensor) -> None:
    net, seen = Double(), []

    def once(module: nn.Module, args: Any, out: Any) -> None:
        seen.append(1)
        handle.remove()

    handle = net.register_forward_hook(once)
    net(x)
    net(x)
    assert seen == [1]


class Failing(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise ValueError("no")


def test_always_called_hooks_run_on_failure(x: torch.Tensor) -> None:
    net, seen = Failing(), []
    net.register_forward_hook(lambda module, args, out: seen.append(out), always_call=True)
    net.register_forward_hook(lambda module, args, out: seen.append("never"))
    with pytest.raises(ValueError, match="no"):
        net(x)
    assert seen == [None]


def test_error_of_an_always_called_hook_becomes_a_warning(x: torch.Tensor) -> None:
    net = Failing()

    def bad(*args: Any) -> None:
        raise KeyError("bad hook")

    net.register_forward_hook(bad, always_call=True)
    with pytest.warns(UserWarning, match="bad hook"), pytest.raises(ValueError, match="no"):
        net(x)


def test_full_backward_hook_sees_and_replaces(x: torch.Tensor) -> None:
    net, seen = Double(), []

    def hook(module: nn.Module, grad_input: Any, grad_output: Any) -> Any:
        seen.append((grad_input[0].tolist(), grad_output[0].tolist()))
        return (grad_input[0] * 100,)

    net.register_full_backward_hook(hook)
    net(x).sum().backward()
    assert seen == [([2, 2], [1, 1])]
    assert x.grad is not None
    assert x.grad.tolist() == [200, 200]


def test_backward_pre_hook_replaces_grad_output(x: torch.Tensor) -> None:
    net, order = Double(), []
    net.register_full_backward_pre_hook(lambda module, grad: order.append("second") or (grad[0] * 3,))
    net.register_full_backward_pre_hook(lambda module, grad: order.append("first"), prepend=True)
    net.register_full_backward_hook(lambda module, gi, go: order.append(("hook", go[0].tolist())))
    net(x).sum().backward()
    assert order == ["first", "second", ("hook", [3, 3])]
    assert x.grad is not None
    assert x.grad.tolist() == [6, 6]


def test_backward_hooks_of_several_inputs_and_outputs() -> None:
    class Two(nn.Module):
        def forward(self, a: torch.Tensor, n: int, b: torch.Tensor) -> tuple[Any, ...]:
            return a * n, "text", b + a

    a, b = torch.ones(2, requires_grad=True), torch.ones(2)
    seen: list[Any] = []
    net = Two()
    net.register_full_backward_hook(lambda module, gi, go: seen.append((gi, go)))
    first, _, second = net(a, 3, b)
    (first.sum() + 2 * second.sum()).backward()
    ((grad_input, grad_output),) = seen
    assert [g if g is None else g.tolist() for g in grad_input] == [[5, 5], None, None]
    assert [g if g is None else g.tolist() for g in grad_output] == [[1, 1], None, [2, 2]]
    assert a.grad is not None
    assert a.grad.tolist() == [5, 5]


def test_backward_hook_without_input_gradients() -> None:
    net, seen = nn.Linear(2, 1), []
    net.register_full_backward_hook(lambda module, gi, go: seen.append((gi, go[0].tolist())))
    with pytest.warns(UserWarning, match="no inputs require gradients"):
        net(torch.ones(1, 2)).sum().backward()
    assert seen == [((None,), [[1.0]])]
    assert net.weight.grad is not None


def test_backward_hook_must_return_as_many_gradients(x: torch.Tensor) -> None:
    net = Double()
    net.register_full_backward_hook(lambda module, gi, go: (gi[0], gi[0]))
    with pytest.raises(RuntimeError, match="invalid number of grad_input, got 2, but expected 1"):
        net(x).sum().backward()


def test_no_boundary_without_gradients(x: torch.Tensor) -> None:
    net, seen = Double(), []
    net.register_full_backward_hook(lambda *a: seen.append(a))
    with torch.no_grad():
        assert net(x).grad_fn is None
    assert seen == []


def test_double_backward_through_hooks(x: torch.Tensor) -> None:
    class Cube(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x**3

    net, count = Cube(), []
    net.register_full_backward_hook(lambda module, gi, go: count.append(1))
    (grad,) = torch.autograd.grad(net(x).sum(), x, create_graph=True)
    grad.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [6, 12]
    assert len(count) >= 1


def test_kinds_of_backward_hooks_do_not_mix() -> None:
    net = Double()
    net.register_full_backward_hook(lambda *a: None)
    with pytest.raises(RuntimeError, match="Cannot use both"):
        net.register_backward_hook(lambda *a: None)
    other = Double()
    other.register_backward_hook(lambda *a: None)
    with pytest.raises(RuntimeError, match="Cannot use both"):
        other.register_full_backward_hook(lambda *a: None)


@pytest.fixture
def global_backward() -> Iterator[list[str]]:
    seen: list[str] = []
    handles = [
        m.register_module_full_backward_pre_hook(lambda module, go: seen.append(f"pre {type(module).__name__}")),
        m.register_module_full_backward_hook(lambda module, gi, go: seen.append(f"post {type(module).__name__}")),
    ]
    yield seen
    for handle in handles:
        handle.remove()


def test_global_backward_hooks(global_backward: list[str], x: torch.Tensor) -> None:
    nn.Sequential(Double(), nn.ReLU())(x).sum().backward()
    inner = ["pre ReLU", "post ReLU", "pre Double", "post Double"]
    assert global_backward == ["pre Sequential", *inner, "post Sequential"]


def test_inplace_across_the_boundary_is_refused() -> None:
    """A write through a hooked module's input or output would change a tensor behind its history's back."""

    class Kept(nn.Module):
        def forward(self, x: torch.Tensor, inplace: bool = False) -> torch.Tensor:
            self.seen = x
            return x.mul_(2) if inplace else x.clone()

    net = Kept()
    net.register_full_backward_hook(lambda *a: None)
    x = torch.ones(2, requires_grad=True)
    net(x).sum().backward()
    with pytest.raises(RuntimeError, match="is a view"):
        net(x.clone(), inplace=True)
    base = x.clone()
    net(base)
    base[0] *= 3
    with pytest.raises(RuntimeError, match="is a view and its base"):
        net.seen + 1
    out = net(x)
    with pytest.raises(RuntimeError, match="is a view"):
        out += 1
    with torch.no_grad():
        net(torch.ones(2), inplace=True)  # nothing is recorded, so nothing is refused


def test_state_dict_hooks() -> None:
    net, seen = nn.Linear(1, 1), []
    net.register_state_dict_pre_hook(lambda module, prefix, keep_vars: seen.append(("pre", prefix)))
    net.register_state_dict_post_hook(lambda module, sd, prefix, meta: sd.update({prefix + "extra": 1}))
    assert list(nn.Sequential(net).state_dict()) == ["0.weight", "0.bias", "0.extra"]
    assert seen == [("pre", "0.")]
    net.register_state_dict_post_hook(lambda module, sd, prefix, meta: sd)
    with pytest.raises(RuntimeError, match="must return None"):
        net.state_dict()


def test_load_state_dict_hooks() -> None:
    net, seen = nn.Linear(1, 1), []

    def rename(module: nn.Module, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
        seen.append(module)
        state_dict[prefix + "weight"] = state_dict.pop(prefix + "old_weight")

    net.register_load_state_dict_pre_hook(rename)
    net.register_load_state_dict_post_hook(lambda module, keys: keys.unexpected_keys.clear())
    state = {"old_weight": torch.ones(1, 1), "bias": torch.zeros(1), "junk": 3}
    assert net.load_state_dict(state).unexpected_keys == []
    assert seen == [net]
    assert "old_weight" in state  # the caller's dict stays as it was
    net.register_load_state_dict_post_hook(lambda module, keys: keys)
    with pytest.raises(AssertionError, match="in place"):
        net.load_state_dict(state)
