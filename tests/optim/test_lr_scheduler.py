"""Schedules give PyTorch's rates: stored (data/schedules.json), and live where PyTorch is installed."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import faltung
from faltung import Tensor, optim
from faltung.optim import lr_scheduler
from tests.cases.optim import SCHEDULES, WITHOUT_JUMPS, follow, two_groups

STORED = Path(__file__).parents[1] / "data" / "schedules.json"


def make(array: np.ndarray) -> Tensor:
    return faltung.tensor(array)


def optimizer(cls: str = "SGD", **options: Any) -> Any:
    return two_groups(optim, make, cls, **({"momentum": 0.9} if cls == "SGD" else {}) | options)


@pytest.fixture(scope="module")
def stored() -> Any:
    return json.loads(STORED.read_text())


@pytest.mark.parametrize("cls", ["SGD", "Adam"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_rates_are_pytorchs(stored: Any, name: str, cls: str) -> None:
    assert follow(optim, make, name, cls) == stored[f"{name}.{cls}"]


@pytest.mark.parametrize("name", SCHEDULES)
def test_resuming_from_a_state_dict_changes_nothing(name: str) -> None:
    first = optimizer()
    scheduler = SCHEDULES[name](lr_scheduler, first)
    for _ in range(4):
        first.step()
        scheduler.step()
    second = optimizer()
    resumed = SCHEDULES[name](lr_scheduler, second)
    resumed.load_state_dict(scheduler.state_dict())
    second.load_state_dict(first.state_dict())
    for _ in range(6):
        for one, other in ((first, scheduler), (second, resumed)):
            one.step()
            other.step()
        assert resumed.get_last_lr() == scheduler.get_last_lr()
    assert "optimizer" not in scheduler.state_dict()


@pytest.mark.parametrize("name", sorted(set(SCHEDULES) - WITHOUT_JUMPS))
def test_jumps_agree_with_walking(name: str) -> None:
    """The deprecated step(epoch) uses the closed form; walking there must give the same rates."""
    walked = optimizer()
    scheduler = SCHEDULES[name](lr_scheduler, walked)
    rates = [scheduler.get_last_lr()]
    for _ in range(6):
        walked.step()
        scheduler.step()
        rates.append(scheduler.get_last_lr())
    jumping = SCHEDULES[name](lr_scheduler, optimizer())
    for epoch in (3, 1, 6):
        if name in ("multiplicative",):  # no closed form: the factor of that step only
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            jumping.step(epoch)
        assert jumping.get_last_lr() == pytest.approx(rates[epoch], rel=1e-9), epoch


def test_plateau() -> None:
    target = optimizer()
    scheduler = lr_scheduler.ReduceLROnPlateau(target, patience=1, factor=0.5, min_lr=[0.2, 0.1], cooldown=1)
    rates = []
    for metric in (3.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 1.0, 1.0, 1.0):
        scheduler.step(faltung.tensor(metric))
        rates.append(scheduler.get_last_lr()[0])
    assert rates == [0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.2, 0.2, 0.2, 0.2]
    rising = lr_scheduler.ReduceLROnPlateau(optimizer(), "max", patience=0, threshold=0.5, threshold_mode="abs")
    for metric in (1.0, 1.6, 1.9):
        rising.step(metric)
    assert rising.get_last_lr() == pytest.approx([0.05, 0.15])
    clone = lr_scheduler.ReduceLROnPlateau(optimizer())
    clone.load_state_dict(rising.state_dict())
    assert (clone.best, clone.mode) == (1.6, "max")
    grown = lr_scheduler.ReduceLROnPlateau(target, patience=0)
    target.add_param_group({"params": [faltung.zeros(1)], "lr": 4.0})
    grown.step(1.0)
    grown.step(1.0)
    assert grown.get_last_lr()[2] == pytest.approx(0.4)


def test_cosine_resumes_at_last_epoch() -> None:
    target = optimizer()
    with pytest.raises(KeyError, match="initial_lr"):
        lr_scheduler.CosineAnnealingLR(target, 10, last_epoch=4)
    for group in target.param_groups:
        group["initial_lr"] = 0.5
    resumed = lr_scheduler.CosineAnnealingLR(target, 10, last_epoch=4)
    expected = 0.5 * (1 + np.cos(np.pi * 0.5)) / 2
    assert resumed._closed_form() == pytest.approx([expected, expected])


def test_steps_in_the_wrong_order_warn() -> None:
    scheduler = lr_scheduler.StepLR(optimizer(), 2)
    with pytest.warns(UserWarning, match=r"before `optimizer\.step\(\)`"):
        scheduler.step()
    target = optimizer()
    target.step()  # before there was a scheduler: does not count
    scheduler = lr_scheduler.StepLR(target, 2)
    with pytest.warns(UserWarning, match=r"before `optimizer\.step\(\)`"):
        scheduler.step()
    target = optimizer()
    scheduler = lr_scheduler.StepLR(target, 2)
    target.step()
    scheduler.step()  # and this order does not warn


def test_further_warnings() -> None:
    target = optimizer()
    scheduler = lr_scheduler.StepLR(target, 2)
    with pytest.warns(UserWarning, match="get_last_lr"):
        scheduler.get_lr()
    target.step()
    with pytest.warns(UserWarning, match="epoch parameter"):
        scheduler.step(3)


def test_tensor_rates_keep_their_identity() -> None:
    rate = faltung.tensor(0.5)
    target = optim.SGD([faltung.zeros(1)], lr=rate)
    scheduler = lr_scheduler.ExponentialLR(target, 0.5)
    target.step()
    scheduler.step()
    assert target.param_groups[0]["lr"] is rate
    assert rate.item() == 0.25
    assert scheduler.base_lrs[0].item() == 0.5


def test_callable_objects_are_saved_with_lambda_lr() -> None:
    class Factor:
        def __init__(self, base: float) -> None:
            self.base = base

        def __call__(self, epoch: int) -> float:
            return self.base**epoch

    target = optimizer()
    scheduler = lr_scheduler.LambdaLR(target, [Factor(0.5), lambda epoch: 1.0])
    state = scheduler.state_dict()
    assert state["lr_lambdas"] == [{"base": 0.5}, None]
    other = lr_scheduler.LambdaLR(optimizer(), [Factor(0.1), lambda epoch: 1.0])
    other.load_state_dict(state)
    assert other.lr_lambdas[0](1) == 0.5


O = optimizer
L = lr_scheduler
REFUSALS: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: L.StepLR(1, 2), TypeError, "int is not an Optimizer"),
    (lambda: L.LambdaLR(O(), [lambda e: 1.0]), ValueError, "Expected 2 lr_lambdas, but got 1"),
    (lambda: L.MultiplicativeLR(O(), 3), TypeError, "should be a function"),
    (lambda: L.ConstantLR(O(), 2.0), ValueError, "between 0 and 1"),
    (lambda: L.LinearLR(O(), 0.0), ValueError, "greater than 0"),
    (lambda: L.LinearLR(O(), 1.0, 2.0), ValueError, "between 0 and 1"),
    (lambda: L.SequentialLR(O(), [], []), ValueError, "at least one"),
    (lambda: L.SequentialLR(o, [L.StepLR(o, 2)], [1]) if (o := O()) else None, ValueError, "one more than"),
    (lambda: L.SequentialLR(O(), [L.StepLR(O(), 2)], []), ValueError, "same optimizer"),
    (lambda: L.ChainedScheduler([]), ValueError, "at least one"),
    (lambda: L.ChainedScheduler([L.ReduceLROnPlateau(O())]), ValueError, "needs a metric"),
    (lambda: L.CyclicLR(O(), 0.1, 0.2, mode="x"), ValueError, "mode is invalid"),
    (lambda: L.CyclicLR(O(), [0.1], 0.2), ValueError, "same length"),
    (lambda: L.CyclicLR(two_groups(optim, make, "Adagrad"), 0.1, 0.2), ValueError, "cycle_momentum=False"),
    (lambda: L.OneCycleLR(O(), 0.1), ValueError, "either total_steps"),
    (lambda: L.OneCycleLR(O(), 0.1, 0), ValueError, "positive integer total_steps"),
    (lambda: L.OneCycleLR(O(), 0.1, 10, pct_start=2.0), ValueError, "between 0 and 1 pct_start"),
    (lambda: L.OneCycleLR(O(), 0.1, 10, anneal_strategy="x"), ValueError, "'cos' or 'linear'"),
    (lambda: L.CosineAnnealingWarmRestarts(O(), 0), ValueError, "positive integer T_0"),
    (lambda: L.CosineAnnealingWarmRestarts(O(), 1, 0), ValueError, "T_mult >= 1"),
    (lambda: L.CosineAnnealingWarmRestarts(O(), 1).step(-1), ValueError, "non-negative epoch"),
    (lambda: L.ReduceLROnPlateau(O(), factor=1.0), ValueError, "Factor should be < 1.0"),
    (lambda: L.ReduceLROnPlateau(O(), "x"), ValueError, "mode x is unknown"),
    (lambda: L.ReduceLROnPlateau(O(), min_lr=[1.0]), ValueError, "expected 2 min_lrs"),
]


@pytest.mark.parametrize("number", range(len(REFUSALS)))
def test_refusals(number: int) -> None:
    call, error, message = REFUSALS[number]
    with pytest.raises(error, match=message):
        call()


def test_one_cycle_ends() -> None:
    target = optimizer()
    scheduler = lr_scheduler.OneCycleLR(target, 0.5, 3)
    for _ in range(3):
        target.step()
        scheduler.step()
    target.step()
    with pytest.raises(ValueError, match="Tried to step 4 times"):
        scheduler.step()


@pytest.mark.torch
@pytest.mark.parametrize("name", SCHEDULES)
def test_state_dicts_have_pytorchs_keys(name: str) -> None:
    torch = pytest.importorskip("torch")
    ours = SCHEDULES[name](lr_scheduler, optimizer())
    theirs = SCHEDULES[name](torch.optim.lr_scheduler, two_groups(torch.optim, torch.from_numpy, momentum=0.9))
    assert set(ours.state_dict()) == set(theirs.state_dict())
