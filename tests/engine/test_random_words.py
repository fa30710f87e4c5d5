"""The Mersenne Twister and dropout: NumPy's stream and NumPy's state, bit for bit."""

import math

import numpy as np
import pytest

from faltung.engine import registry
from faltung.engine.kernels import mersenne
from tests.engine.kernel_check import channels_last, check, floats, kernel, lanes, sizes_around


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
def test_words_and_state(seed: int) -> None:
    _, run = kernel("random.words")
    ours, numpys = np.random.RandomState(seed), np.random.RandomState(seed)
    for count in (1, 5, 623, 624, 625, 2, 1248, 100_000, 7, 15, 16, 17, 400, 224, 623, 624):
        np.testing.assert_array_equal(run(ours, count), numpys.randint(0, 2**32, size=count, dtype=np.uint32))
        a, b = ours.get_state(), numpys.get_state()
        np.testing.assert_array_equal(a[1], b[1])
        assert a[2] == b[2]
    assert ours.random_sample() == numpys.random_sample()


def test_a_strange_state_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mersenne, "_knows_the_layout", lambda: False)
    refuse, _ = kernel("random.words")
    assert refuse(np.random.RandomState(0), 1 << 20)


@pytest.mark.parametrize("p", [0.0, 2.0**-53, 0.1, 1 / 3, 0.5, 1.0])
def test_below(p: float) -> None:
    limit = math.ceil(p * 2**53)
    for count in [*sizes_around(lanes()), 40_001]:
        words = np.random.RandomState(3).randint(0, 2**32, size=2 * count, dtype=np.uint32)
        for place, low in ((0, -1), (1, 0), (2, 1)):  # ties in the high word
            if place < count:
                words[2 * place : 2 * place + 2] = limit >> 32, max(0, min((limit & (2**32 - 1)) + low, 2**32 - 1))
        _, run = kernel("random.below")
        np.testing.assert_array_equal(run(words, limit), registry.candidates("random.below")[-1][2](words, limit))
        doubles = ((words[::2].astype(np.uint64) << 32 | words[1::2]) & (2**53 - 1)) * 2.0**-53
        np.testing.assert_array_equal(run(words, limit), doubles < p)


@pytest.mark.parametrize("shape", [(), (7,), (5, 33), (2, 5, 9, 9), (3, 70, 20, 20)])
def test_dropout(shape: tuple[int, ...]) -> None:
    keep = np.asarray(np.random.default_rng(1).random(shape) < 0.5)
    for x in (floats(shape), channels_last(floats(shape)) if len(shape) == 4 else floats(shape)):
        check("dropout.forward", x, keep, 2.0, rtol=0, atol=0)
        if len(shape) == 4:
            check("dropout.forward", x, keep[:, :, :1, :1], 2.0, rtol=0, atol=0)


def test_what_is_dropped_is_multiplied_by_zero() -> None:
    x = np.array([np.inf, np.nan, 1.0, -1.0], np.float32)
    np.testing.assert_array_equal(
        registry.call("dropout.forward", x, np.zeros(4, bool), 2.0), [np.nan, np.nan, 0.0, -0.0]
    )
