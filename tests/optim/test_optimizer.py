"""What all optimizers share: groups, state_dict, hooks, refusals with PyTorch's exception classes."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest

import faltung
from faltung import Tensor, optim
from faltung.nn import Linear
from faltung.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook


def param(*shape: int) -> Tensor:
    return faltung.zeros(*shape or (2,), requires_grad=True)


def with_grad(*shape: int) -> Tensor:
    p = param(*shape)
    p.grad = faltung.ones(*shape or (2,))
    return p


def test_groups_take_defaults_and_keep_their_own_options() -> None:
    a, b = with_grad(), with_grad()
    optimizer = optim.SGD([{"params": a, "lr": 0.5}, {"params": [b]}], lr=0.1, momentum=0.9)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.1]
    assert all(group["momentum"] == 0.9 for group in optimizer.param_groups)
    optimizer.step()
    assert a.tolist() == [-0.5, -0.5]
    assert b[0].item() == pytest.approx(-0.1)
    c = with_grad()
    optimizer.add_param_group({"params": [c], "lr": 1.0})
    optimizer.step()
    assert c.tolist() == [-1, -1]


def test_named_parameters_keep_their_names() -> None:
    model = Linear(2, 3)
    optimizer = optim.SGD(model.named_parameters(), lr=0.1)
    assert optimizer.param_groups[0]["param_names"] == ["weight", "bias"]
    assert optimizer.state_dict()["param_groups"][0]["param_names"] == ["weight", "bias"]
    with pytest.raises(ValueError, match="with names"):
        optimizer.add_param_group({"params": [param()]})


def test_parameters_without_gradient_stay() -> None:
    a, b = with_grad(), param()
    optimizer = optim.Adam([a, b])
    optimizer.step()
    assert b.tolist() == [0, 0]
    assert list(optimizer.state) == [a]
    assert optim.SGD([a], lr=0.1).state_dict()["state"] == {}


def test_zero_grad() -> None:
    a = with_grad()
    optimizer = optim.SGD([a])
    optimizer.zero_grad(set_to_none=False)
    assert a.grad is not None
    assert a.grad.tolist() == [0, 0]
    optimizer.zero_grad()
    assert a.grad is None


def test_closure_is_called_with_gradients_on() -> None:
    a = param()

    def closure() -> Tensor:
        assert faltung.is_grad_enabled()
        loss = (a - 1).square().sum()
        loss.backward()
        return loss

    optimizer = optim.SGD([a], lr=0.5)
    with faltung.no_grad():
        assert optimizer.step(closure).item() == 2
    assert a.tolist() == [1, 1]


def test_state_dict_is_a_copy_when_loaded() -> None:
    a, b = with_grad(), with_grad()
    first, second = optim.SGD([a], lr=0.1, momentum=0.9), optim.SGD([b], lr=7.0)
    first.step()
    second.load_state_dict(first.state_dict())
    assert second.param_groups[0]["lr"] == 0.1
    assert second.param_groups[0]["params"] == [b]
    second.step()
    assert second.state[b]["momentum_buffer"][0].item() == pytest.approx(1.9)
    assert first.state[a]["momentum_buffer"][0].item() == 1  # not the second one's


def test_loaded_state_takes_the_parameters_dtype_but_steps_count_on() -> None:
    a = with_grad()
    first = optim.Adam([a])
    first.step()
    b = faltung.zeros(2, dtype=faltung.float64, requires_grad=True)
    second = optim.Adam([b])
    second.load_state_dict(first.state_dict())
    assert second.state[b]["exp_avg"].dtype is faltung.float64
    assert second.state[b]["step"].dtype is faltung.float32
    state = first.state_dict()
    state["state"][0]["step"] = 5  # as old checkpoints have it
    second.load_state_dict(state)
    b.grad = faltung.ones(2, dtype=faltung.float64)
    second.step()
    assert second.state[b]["step"].item() == 6


def test_copies_and_pickles() -> None:
    model = Linear(2, 2)
    optimizer = optim.Adam(model.parameters(), lr=0.5)
    for p in model.parameters():
        p.grad = faltung.ones_like(p)
    optimizer.step()
    for clone in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        assert clone.param_groups[0]["lr"] == 0.5
        clone.step()
        step = next(iter(clone.state.values()))["step"]
        assert step.item() in (1, 2)  # gradients are not part of a pickle, as in PyTorch
    assert next(iter(optimizer.state.values()))["step"].item() == 1


def test_repr() -> None:
    text = repr(optim.SGD([param()], lr=0.1))
    assert text.startswith("SGD (\nParameter Group 0\n    dampening: 0\n")
    assert "    lr: 0.1\n" in text
    assert text.endswith("\n)")


def test_hooks_run_in_order_and_can_be_taken_away() -> None:
    a = with_grad()
    optimizer = optim.SGD([a], lr=0.1)
    calls: list[str] = []
    handles = [
        register_optimizer_step_pre_hook(lambda o, args, kwargs: calls.append("all before")),
        optimizer.register_step_pre_hook(lambda o, args, kwargs: calls.append("before")),
        optimizer.register_step_post_hook(lambda o, args, kwargs: calls.append("after")),
        register_optimizer_step_post_hook(lambda o, args, kwargs: calls.append("all after")),
    ]
    optimizer.step()
    assert calls == ["all before", "before", "after", "all after"]
    for handle in handles:
        handle.remove()
    optimizer.step()
    assert len(calls) == 4
    with optimizer.register_step_pre_hook(lambda o, args, kwargs: 5), pytest.raises(RuntimeError, match="pre-hook"):
        optimizer.step()


def test_state_dict_hooks() -> None:
    optimizer = optim.SGD([param()], lr=0.1)
    calls: list[str] = []
    optimizer.register_state_dict_pre_hook(lambda o: calls.append("before"))
    optimizer.register_state_dict_post_hook(lambda o, state: {**state, "more": 1})
    state = optimizer.state_dict()
    assert (calls, state["more"]) == (["before"], 1)
    optimizer.register_load_state_dict_pre_hook(lambda o, state: {k: v for k, v in state.items() if k != "more"})
    optimizer.register_load_state_dict_post_hook(lambda o: calls.append("loaded"))
    optimizer.register_load_state_dict_post_hook(lambda o: calls.append("first"), prepend=True)
    optimizer.load_state_dict(state)
    assert calls == ["before", "first", "loaded"]


def test_an_optimizer_of_ones_own() -> None:
    class SignDescent(optim.Optimizer):
        def __init__(self, params: Any, lr: float) -> None:
            super().__init__(params, {"lr": lr})

        @faltung.no_grad()
        def step(self, closure: Any = None) -> None:
            for group in self.param_groups:
                for p in group["params"]:
                    p.add_(p.grad.sign(), alpha=-group["lr"])
                    self.state[p]["steps"] = self.state[p].get("steps", 0) + 1

    a = with_grad()
    optimizer = SignDescent([a], lr=0.25)
    scheduler = optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    optimizer.step()
    scheduler.step()
    assert a.tolist() == [-0.25, -0.25]
    assert optimizer.state_dict()["state"] == {0: {"steps": 1}}


def test_a_parameter_twice_in_a_group_warns() -> None:
    a = param()
    with pytest.warns(UserWarning, match="duplicate parameters"):
        optim.SGD([a, a])


P = param
REFUSALS: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: optim.SGD([]), ValueError, "optimizer got an empty parameter list"),
    (lambda: optim.SGD(iter(())), ValueError, "ModuleList"),
    (lambda: optim.SGD(P()), TypeError, r"Write \[tensor\]"),
    (lambda: optim.SGD([1]), TypeError, "can only optimize Tensors"),
    (lambda: optim.SGD([P() * 2]), ValueError, "can't optimize a non-leaf Tensor"),
    (lambda: optim.SGD([{"params": {P()}}]), TypeError, "Use a list"),
    (lambda: optim.SGD([{"params": [P()]}, 3]), TypeError, "param_group must be a dict"),
    (lambda: optim.SGD([("a", P()), P()]), ValueError, "Some param names are missing"),
    (lambda: (o := optim.SGD([P()])).add_param_group(dict(o.param_groups[0])), ValueError, "more than one"),
    (lambda: optim.SGD([P()], lr=-1), ValueError, "Invalid learning rate: -1"),
    (lambda: optim.SGD([P()], lr=float("nan")), ValueError, "Invalid learning rate"),
    (lambda: optim.SGD([P()], lr=faltung.ones(2)), ValueError, "1-element"),
    (lambda: optim.SGD([P()], momentum=-1), ValueError, "Invalid momentum value: -1"),
    (lambda: optim.SGD([P()], weight_decay=-1), ValueError, "Invalid weight_decay value"),
    (lambda: optim.SGD([P()], nesterov=True), ValueError, "requires a momentum and zero dampening"),
    (lambda: optim.SGD([P()], differentiable=True), NotImplementedError, "outside autograd"),
    (lambda: optim.SGD([P()], fused=True, foreach=True), RuntimeError, "cannot be `True` together"),
    (lambda: optim.Adam([P()], betas=(1.0, 0.9)), ValueError, "beta parameter at index 0: 1.0"),
    (lambda: optim.Adam([P()], betas=(0.9, -0.1)), ValueError, "beta parameter at index 1"),
    (lambda: optim.Adam([P()], eps=-1), ValueError, "Invalid epsilon value"),
    (lambda: optim.RMSprop([P()], alpha=-1), ValueError, "Invalid alpha value"),
    (lambda: optim.Adadelta([P()], rho=2), ValueError, "0 <= rho <= 1"),
    (lambda: optim.NAdam([P()], momentum_decay=-1), ValueError, "momentum_decay"),
    (lambda: optim.Rprop([P()], etas=(2, 1)), ValueError, "0 < etas"),
    (lambda: optim.Adafactor([P()], beta2_decay=1.0), ValueError, "beta2_decay should be <= 0"),
    (lambda: optim.Adafactor([P()], d=0.5), ValueError, "should be >= 1"),
    (lambda: optim.Muon([P()]), ValueError, "only supports 2D"),
    (lambda: optim.Muon([P(2, 2)], adjust_lr_fn="x"), ValueError, "not supported"),
    (lambda: optim.SparseAdam([P()], lr=0), ValueError, "lr > 0"),
    (lambda: optim.SparseAdam([with_grad()]).step(), RuntimeError, "does not support dense gradients"),
    (lambda: optim.LBFGS([P()]).step(), TypeError, "closure"),
    (lambda: optim.LBFGS([{"params": [P()]}, {"params": [P()]}]), ValueError, "doesn't support per-parameter options"),
    (lambda: optim.Optimizer([P()], {}).step(), NotImplementedError, "define its step"),
    (
        lambda: optim.SGD([P()]).load_state_dict({"state": {}, "param_groups": []}),
        ValueError,
        "different number of parameter groups",
    ),
    (
        lambda: optim.SGD([P()]).load_state_dict({"state": {}, "param_groups": [{"params": [0, 1]}]}),
        ValueError,
        "doesn't match the size",
    ),
]


@pytest.mark.parametrize("number", range(len(REFUSALS)))
def test_refusals(number: int) -> None:
    call, error, message = REFUSALS[number]
    with pytest.raises(error, match=message):
        call()


def test_complex_parameters_are_refused_where_pytorch_refuses_them() -> None:
    p = faltung.zeros(2, dtype=faltung.complex64, requires_grad=True)
    p.grad = faltung.ones(2, dtype=faltung.complex64)
    with pytest.raises(RuntimeError, match="complex"):
        optim.Adafactor([p]).step()
