"""Softmax, log-softmax and cross entropy kernels."""

import numpy as np
import pytest

from faltung.engine import registry
from tests.engine.kernel_check import channels_last, check, floats, lanes, sizes_around


@pytest.mark.parametrize("log", ["", "log_"])
def test_rows(log: str) -> None:
    for count in [*sizes_around(lanes(), 4 * lanes()), 1000]:
        if count == 0:
            continue
        for rows in (1, 3, 40):
            x = floats((rows, count), scale=5.0)
            y = check(f"softmax.{log}forward", x, -1, rtol=3e-6, atol=2e-6)
            check(f"softmax.{log}backward", floats(x.shape, 1), y, -1, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("log", ["", "log_"])
@pytest.mark.parametrize("axis", [0, 1, 2, 3, -1])
def test_axes_and_memory_orders(log: str, axis: int) -> None:
    x = floats((3, 17, 4, 6), scale=5.0)
    for values in (x, channels_last(x), x[:, :, ::2], x.transpose(2, 3, 0, 1)):
        y = check(f"softmax.{log}forward", values, axis, rtol=3e-6, atol=2e-6)
        check(f"softmax.{log}backward", floats(y.shape, 1), y, axis, rtol=1e-5, atol=1e-5)


def test_many_chunks() -> None:
    x = floats((700, 100))
    check("softmax.forward", x, 1)
    check("softmax.forward", floats((2, 50_000)), 1)


@pytest.mark.parametrize("log", ["", "log_"])
def test_large_and_missing_values(log: str) -> None:
    x = np.array([[1e4, 0.0, -1e4], [-np.inf, 0.0, 1.0], [-1e38, -1e38, -1e38]], np.float32)
    check(f"softmax.{log}forward", x, 1)
    for bad in (np.nan, np.inf):
        x[0, 1] = bad
        assert np.isnan(registry.call("softmax.forward", x, 1)[0]).all()
    x[...] = -np.inf
    assert np.isnan(registry.call(f"softmax.{log}forward", x, 1)).all()


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy(weighted: bool, smoothing: float, reduction: str) -> None:
    for shape in ((4, 10), (3, 1), (2, lanes() + 1, 5), (2, 21, 5, 4), (70, 1000)):
        for x in (floats(shape, scale=4.0), channels_last(floats(shape, scale=4.0))):
            target = np.random.default_rng(1).integers(0, shape[1], (shape[0], *shape[2:]))
            target.flat[0] = -100
            weight = np.abs(floats(shape[1], 2)) if weighted else None
            arguments = (-100, smoothing, reduction)
            loss, lse, total = check("loss.cross_entropy_forward", x, target, weight, *arguments, rtol=1e-5, atol=1e-5)
            gy = floats(loss.shape, 3)
            name = "loss.cross_entropy_backward"
            check(name, gy, x, target, weight, lse, total, *arguments, rtol=2e-5, atol=2e-6)


def test_nothing_that_counts() -> None:
    x, target = floats((3, 4)), np.full(3, 2)
    loss, lse, total = registry.call("loss.cross_entropy_forward", x, target, None, 2, 0.0, "mean")
    assert np.isnan(loss)
    assert total == 0
    gx = registry.call(
        "loss.cross_entropy_backward", np.ones((), np.float32), x, target, None, lse, total, 2, 0.0, "mean"
    )
    np.testing.assert_array_equal(gx, 0)


def test_targets_of_other_integer_types() -> None:
    x = floats((5, 7))
    results = [
        registry.call("loss.cross_entropy_forward", x, np.arange(5).astype(kind), None, -100, 0.0, "mean")[0]
        for kind in (np.int64, np.int32, np.uint8)
    ]
    assert len({result.tobytes() for result in results}) == 1
