"""The ordered candidates: names resolve, refusals are given reasons, the reference is last and always fits."""

import inspect
from importlib import import_module

import numpy as np
import pytest

from faltung.engine import debug, registry
from tests.engine.kernel_check import floats


@pytest.mark.parametrize("name", sorted(registry.CANDIDATES))
def test_every_candidate_has_its_reference(name: str) -> None:
    found = registry.candidates(name)
    assert [label for label, _, _ in found] == [*registry.CANDIDATES[name], "reference"]
    assert all(callable(refuse) and callable(run) for _, refuse, run in found)


@pytest.mark.parametrize("name", sorted(registry.CANDIDATES))
def test_signatures_agree(name: str) -> None:
    """A kernel takes what its reference takes: the same names in the same order."""
    family, function = name.split(".")
    reference = inspect.signature(getattr(import_module(f"faltung.engine.reference.{family}"), function))
    for label in registry.CANDIDATES[name]:
        module = import_module(f"faltung.engine.kernels.{label}")
        if not hasattr(module, "candidate"):  # else made by a rule
            ours = inspect.signature(getattr(module, function))
            assert list(ours.parameters) == list(reference.parameters), label


def test_unknown_operations() -> None:
    with pytest.raises(ModuleNotFoundError):
        registry.call("nothing.forward")
    with pytest.raises(AttributeError):
        registry.call("activation.nothing")


def test_what_does_not_fit_runs_on_the_reference() -> None:
    x = floats(10).astype(np.float64)
    y = registry.call("activation.relu_forward", x)
    assert y.dtype == np.float64
    np.testing.assert_array_equal(y, np.maximum(x, 0))


def test_choices_are_told_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(debug, "LEVEL", 1)
    monkeypatch.setattr(debug, "_told", set())
    for _ in range(2):
        registry.call("activation.relu_forward", floats((3, 4)))
        registry.call("activation.relu_forward", floats((3, 4)).astype(np.float64))
    told = capsys.readouterr().err.splitlines()
    assert told == [
        "faltung[1] activation.relu_forward float32[3, 4] -> pointwise",
        "faltung[1] activation.relu_forward float64[3, 4] -> reference "
        "(refused: pointwise: only float32 is generated, not float64)",
    ]


def test_times_are_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(debug, "LEVEL", 2)
    registry.call("activation.relu_forward", floats(5))
    assert " ms" in capsys.readouterr().err
