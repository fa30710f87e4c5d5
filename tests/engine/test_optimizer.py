"""Optimizer kernels: all parameters of a group in one launch, updated in place."""

from itertools import product
from typing import Any

import numpy as np
import pytest

from faltung.engine import registry, team
from faltung.engine.kernels import flat
from tests.engine.guard import guarded_strided
from tests.engine.kernel_check import THREADS, floats, kernel, lanes, sizes_around, widened

SHAPES: list[tuple[int, ...]] = [(), (3, 5), (8, 3, 3, 3)]


def shapes() -> list[tuple[int, ...]]:
    return [*SHAPES, *((n,) for n in sizes_around(lanes(), 2 * lanes(), flat.BLOCK)), (3 * flat.BLOCK + 5,)]


def arrays(seed: int, positive: bool = False) -> list[np.ndarray]:
    values = [floats(shape, seed + i) for i, shape in enumerate(shapes())]
    return [np.asarray(np.abs(value)) for value in values] if positive else values


def check_step(name: str, lists: list[list[np.ndarray]], numbers: list[Any], **options: Any) -> None:
    """`lists` are updated in place, except for the second: the gradients."""
    expected = [widened(list(values)) for values in lists]
    registry.candidates(name)[-1][2](*expected, *numbers, **options)
    refuse, run = kernel(name)
    assert refuse(*lists, *numbers, **options) is None
    bits = set()
    for threads in THREADS:
        team.set_num_threads(threads)
        copies = [[guarded_strided(value, threads % 2 == 0) for value in values] for values in lists]
        run(*copies, *numbers, **options)
        bits.add(b"".join(value.tobytes() for values in copies for value in values))
        for values, wanted, before in zip(copies, expected, lists, strict=True):
            for i, value in enumerate(values):
                if values is copies[1]:
                    np.testing.assert_array_equal(value, before[i])
                else:
                    np.testing.assert_allclose(value, wanted[i], rtol=3e-6, atol=3e-6)
    assert len(bits) == 1


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("weight_decay", [0, 0.01])
@pytest.mark.parametrize("momentum, dampening, nesterov", [(0, 0, False), (0.9, 0.3, False), (0.9, 0, True)])
def test_sgd(momentum: float, dampening: float, nesterov: bool, weight_decay: float, maximize: bool) -> None:
    params, grads, buffers = arrays(0), arrays(100), arrays(200) if momentum else []
    fresh = [i % 2 == 0 for i in range(len(buffers))]
    for buffer, new in zip(buffers, fresh, strict=True):
        if new:
            buffer[...] = np.nan  # uninitialised: must not be read
    options = {"lr": 0.1, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay}
    check_step("optimizer.sgd", [params, grads, buffers], [fresh], **options, nesterov=nesterov, maximize=maximize)


@pytest.mark.parametrize("amsgrad, weight_decay, decoupled", [*product([False, True], [0, 0.01], [False, True])])
def test_adam(amsgrad: bool, weight_decay: float, decoupled: bool) -> None:
    lists = [arrays(0), arrays(100), arrays(200), arrays(300, True), arrays(400, True) if amsgrad else []]
    steps = [float(i + 1) for i in range(len(lists[0]))]
    for maximize in (False, True):
        options = {"lr": 0.1, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": weight_decay}
        check_step("optimizer.adam", lists, [steps], **options, maximize=maximize, decoupled_weight_decay=decoupled)


def test_gradients_in_another_memory_order() -> None:
    param, grad = floats((40, 30)), np.asfortranarray(floats((40, 30), 1))
    expected = param - np.float32(0.5) * grad
    options = {"momentum": 0, "dampening": 0, "weight_decay": 0, "nesterov": False, "maximize": False}
    registry.call("optimizer.sgd", [param], [grad], [], [], lr=0.5, **options)
    np.testing.assert_allclose(param, expected, rtol=1e-6)


def test_refusals() -> None:
    refuse, _ = kernel("optimizer.sgd")
    good, wide = floats(5), floats(5).astype(np.float64)
    assert refuse([good], [good], [], []) is None
    assert refuse([good, wide], [good, wide], [], [])
    assert refuse([floats(10)[::2]], [good], [], [])
    assert refuse([floats((4, 3))], [floats((4, 3))], [np.asfortranarray(floats((4, 3)))], [False])
