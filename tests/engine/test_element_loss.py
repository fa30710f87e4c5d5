"""Loss kernels: every loss, reduction and weight against the float64 reference, for any number of threads."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from faltung.engine import registry
from faltung.engine.kernels import element_loss, flat
from tests.engine.kernel_check import channels_last, check, floats, kernel, lanes, sizes_around

NUMBERS: dict[str, list[tuple[float, ...]]] = {"smooth_l1": [(1.0,), (0.25,)], "huber": [(1.0,), (1.5,)]}
CASES = [(name, numbers) for name in registry._LOSSES for numbers in NUMBERS.get(name, [()])]
REDUCTIONS = pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
LOSSES = pytest.mark.parametrize("name, numbers", CASES, ids=str)


@pytest.fixture(autouse=True)
def _kernels_for_small_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, loss in list(element_loss.LOSSES.items()):
        monkeypatch.setitem(element_loss.LOSSES, name, replace(loss, smallest=1))


def operands(name: str, shape: Any) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets that the loss is made for."""
    x, target = floats(shape, scale=2.0), floats(shape, 1)
    if name.startswith("bce"):
        target = np.asarray(1 / (1 + np.exp(-2 * target)), np.float32)
    return (np.asarray(0.01 + 0.98 / (1 + np.exp(-x)), np.float32) if name == "bce" else x), target


def arguments(name: str, shape: Any, weight: Any = None, pos_weight: Any = None) -> list[Any]:
    more = [weight, pos_weight][: element_loss.WEIGHTS.get(name, 0)]
    return [*operands(name, shape), *more]


def check_both(name: str, arrays: list[Any], reduction: str, numbers: tuple[float, ...]) -> np.ndarray:
    """Forward and backward; returns the gradient."""
    x = arrays[0]
    # a sum's rounding grows with the root of its length: its float32 stretches are short
    check(f"loss.{name}_forward", *arrays, reduction, *numbers, rtol=2e-6, atol=2e-6)
    gy = floats(x.shape, 7) if reduction == "none" else np.asarray(1.7, np.float32)
    result: np.ndarray = check(f"loss.{name}_backward", gy, *arrays, reduction, *numbers, rtol=2e-6, atol=2e-6)
    return result


@REDUCTIONS
@LOSSES
def test_sizes(name: str, numbers: tuple[float, ...], reduction: str) -> None:
    blocks = [lanes(), 4 * lanes(), element_loss.SEGMENT, flat.BLOCK]
    for count in [*sizes_around(*blocks)[1:], 3 * flat.BLOCK + 7]:
        check_both(name, arguments(name, count), reduction, numbers)
    check_both(name, arguments(name, ()), reduction, numbers)


@REDUCTIONS
@LOSSES
def test_memory_orders(name: str, numbers: tuple[float, ...], reduction: str) -> None:
    orders = (np.ascontiguousarray, channels_last, np.asfortranarray)
    for of_x in orders:
        for of_target in orders:
            x, target, *weights = arguments(name, (3, 5, 4, 6))
            gx = check_both(name, [of_x(x), of_target(target), *weights], reduction, numbers)
            assert gx.strides == of_x(x).strides


WEIGHTS: list[Any] = [None, (3, 1, 1, 1), (3, 5, 4, 6), ()]
WEIGHTED = [("bce", (weight,)) for weight in WEIGHTS]
WEIGHTED += [("bce_logits", (weight, positive)) for weight in WEIGHTS for positive in (None, (6,), (3, 5, 4, 6))]


@REDUCTIONS
@pytest.mark.parametrize("name, shapes", WEIGHTED, ids=str)
def test_weights(name: str, shapes: tuple[Any, ...], reduction: str) -> None:
    made = [None if shape is None else np.asarray(np.abs(floats(shape, 3)) + 0.1) for shape in shapes]
    check_both(name, arguments(name, (3, 5, 4, 6), *made), reduction, ())


@LOSSES
def test_special_values(name: str, numbers: tuple[float, ...]) -> None:
    x = np.array([0.0, 1.0, 0.5, np.nan, 1.0, 0.0, 1e-40], np.float32)
    target = np.array([0.0, 1.0, 0.5, 0.5, 0.0, 1.0, 1.0], np.float32)
    if not name.startswith("bce"):
        x[:2], target[4] = (np.inf, -np.inf), np.nan
    arrays = [x, target, None, None][: 2 + element_loss.WEIGHTS.get(name, 0)]
    for reduction in ("none", "mean"):
        check_both(name, arrays, reduction, numbers)


def test_scores_of_any_size() -> None:
    x = np.array([-1e4, -200.0, -90.0, 90.0, 200.0, 1e4, np.inf, -np.inf], np.float32)
    for wanted in (0.0, 0.25, 1.0):
        target = np.full_like(x, wanted)
        check("loss.bce_logits_backward", np.asarray(1.0, np.float32), x, target, None, None, "sum")
        check("loss.bce_logits_forward", x[:-2], target[:-2], None, None, "none")


def test_a_million_equal_errors() -> None:
    """float32 accumulators alone would drift away."""
    x = np.full(1 << 20, 0.1, np.float32)
    got = registry.call("loss.l1_forward", x, np.zeros_like(x), "sum")
    np.testing.assert_allclose(got, (1 << 20) * np.float64(np.float32(0.1)), rtol=1e-6)


def test_refusals() -> None:
    refuse, _ = kernel("loss.bce_logits_forward")
    x, wide = floats((4, 6)), floats((4, 6)).astype(np.float64)
    for arrays in (
        (wide, wide, None, None),
        (x, wide, None, None),
        (x[:, ::2], x[:, ::2], None, None),
        (x, floats((4, 5)), None, None),
        (x, x, wide, None),
        (x, x, floats((2, 4, 6)), None),
        (x, x, None, floats(5)),
        (floats((0, 6)), floats((0, 6)), None, None),
    ):
        assert refuse(*arrays, "mean")
    refuse, _ = kernel("loss.mse_backward")
    assert refuse(np.asarray(1.0), x, x, "mean")


def test_nothing_to_average() -> None:
    empty = floats((0, 3))
    assert np.isnan(registry.call("loss.mse_forward", empty, empty, "mean"))
    assert registry.call("loss.mse_forward", empty, empty, "sum") == 0
