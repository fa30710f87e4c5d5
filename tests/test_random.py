"""Generators and the numbers they give: PyTorch's, stored (data/random.npz) and, where it is installed, live."""

import copy
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import faltung
from faltung import sampling
from faltung.random import Generator, choose, use_in_this_thread
from tests.cases.random import DRAWS

STORED = Path(__file__).parent / "data" / "random.npz"


@pytest.fixture(scope="module")
def stored() -> Any:
    return np.load(STORED)


def compare(got: np.ndarray, expected: np.ndarray, exact: bool) -> None:
    assert got.dtype == expected.dtype
    if exact:
        np.testing.assert_array_equal(got, expected)
    else:
        np.testing.assert_allclose(got, expected, rtol=3e-6, atol=2e-6)


@pytest.mark.parametrize("name", DRAWS)
def test_numbers_are_pytorchs(stored: Any, name: str) -> None:
    draw = DRAWS[name]
    faltung.manual_seed(draw.seed)
    compare(draw.call(faltung).numpy(), stored[name], draw.exact)


def test_every_stored_case_is_tested(stored: Any) -> None:
    assert set(stored.files) == set(DRAWS)


# --- generators


def test_same_seed_same_numbers_and_other_seed_others() -> None:
    first = faltung.rand(5, generator=Generator().manual_seed(3))
    assert faltung.equal(faltung.rand(5, generator=Generator().manual_seed(3)), first)
    assert not faltung.equal(faltung.rand(5, generator=Generator().manual_seed(4)), first)


def test_manual_seed_returns_the_generator_and_is_remembered() -> None:
    generator = Generator()
    assert generator.initial_seed() == 67280421310721
    assert generator.manual_seed(5) is generator
    assert generator.initial_seed() == 5
    assert generator.manual_seed(-1).initial_seed() == 2**64 - 1
    assert faltung.manual_seed(9) is faltung.default_generator
    assert faltung.initial_seed() == 9
    assert generator.seed() == generator.initial_seed() != 5
    assert faltung.seed() == faltung.initial_seed() != 9
    assert str(generator.device) == "cpu"


@pytest.mark.parametrize(
    ("seed", "error"), [(1.5, RuntimeError), ("a", RuntimeError), (True, RuntimeError), (2**64, ValueError)]
)
def test_bad_seeds(seed: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="manual_seed: expected"):
        Generator().manual_seed(seed)


def test_only_the_cpu_has_a_generator() -> None:
    assert Generator(device="cpu").device == faltung.device("cpu")
    with pytest.raises(RuntimeError, match="CPUs only"):
        Generator("cuda")


def test_state_continues_the_stream() -> None:
    generator = Generator().manual_seed(3)
    faltung.randn(3, generator=generator)  # leaves a value over
    state = generator.get_state()
    assert state.shape == (5056,)
    expected = [faltung.randn(4, generator=generator), faltung.rand(700, generator=generator)]
    clone = Generator()
    clone.set_state(state)
    got = [faltung.randn(4, generator=clone), faltung.rand(700, generator=clone)]
    assert all(faltung.equal(a, b) for a, b in zip(got, expected, strict=True))
    assert clone.initial_seed() == 3


@pytest.mark.parametrize("draws", [0, 1, 623, 624, 625, 1248])
def test_state_survives_at_the_edges_of_a_block(draws: int) -> None:
    generator = Generator().manual_seed(8)
    generator.words(draws)
    copies = [generator.clone_state(), copy.deepcopy(generator), pickle.loads(pickle.dumps(generator))]
    expected = generator.words(10)
    for other in copies:
        np.testing.assert_array_equal(other.words(10), expected)


def test_bad_states() -> None:
    generator = Generator()
    with pytest.raises(TypeError, match="expected a uint8 Tensor"):
        generator.set_state(b"bytes")
    with pytest.raises(RuntimeError, match="5056 bytes"):
        generator.set_state(faltung.zeros(7, dtype=faltung.uint8))
    with pytest.raises(RuntimeError, match="no valid state"):
        generator.set_state(faltung.zeros(5056, dtype=faltung.uint8))


def test_fork_rng_puts_the_state_back() -> None:
    faltung.manual_seed(1)
    expected = faltung.rand(3)
    faltung.manual_seed(1)
    with pytest.raises(KeyError), faltung.random.fork_rng():
        faltung.rand(100)
        raise KeyError
    assert faltung.equal(faltung.rand(3), expected)
    faltung.manual_seed(1)
    with faltung.random.fork_rng(enabled=False):
        faltung.rand(1)
    assert not faltung.equal(faltung.rand(3), expected)


def test_default_state_can_be_set() -> None:
    state = faltung.get_rng_state()
    expected = faltung.rand(3)
    faltung.set_rng_state(state)
    assert faltung.equal(faltung.rand(3), expected)


def test_a_thread_may_have_a_default_of_its_own() -> None:
    faltung.manual_seed(1)
    expected = faltung.rand(3, generator=Generator().manual_seed(77))
    after = faltung.rand(3, generator=Generator().manual_seed(1))
    got = []

    def work() -> None:
        use_in_this_thread(Generator())
        faltung.manual_seed(77)
        got.append(faltung.rand(3))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert faltung.equal(got[0], expected)
    assert faltung.equal(faltung.rand(3), after)  # the shared stream was not touched


def test_generators_must_be_generators() -> None:
    with pytest.raises(TypeError, match=r"expected a faltung\.Generator"):
        choose(5)


def test_threads_share_a_stream_without_losing_numbers() -> None:
    generator = Generator().manual_seed(0)
    found: list[np.ndarray] = []

    def work() -> None:
        for _ in range(50):
            found.append(generator.words(37))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = Generator().manual_seed(0).words(4 * 50 * 37)
    np.testing.assert_array_equal(np.sort(np.concatenate(found)), np.sort(expected))


# --- arrays


def test_masks_have_the_share_that_is_asked_for() -> None:
    for p in (0.0, 0.1, 0.5, 0.9, 1.0):
        share = sampling.bernoulli((400, 500), p, generator=Generator().manual_seed(1)).mean()
        assert abs(share - p) < 0.005
    assert sampling.bernoulli(1000, 0.0).sum() == 0
    assert sampling.bernoulli(1000, 1.0).sum() == 1000


def test_bernoulli_decides_ties_of_the_high_word_by_the_low_one() -> None:
    words = Generator().manual_seed(5).words(2)
    value = (((int(words[0]) << 32) | int(words[1])) & (2**53 - 1)) * 2.0**-53
    for p, expected in ((value, False), (np.nextafter(value, 1), True)):
        assert sampling.bernoulli(1, float(p), generator=Generator().manual_seed(5))[0] == expected


def test_channels_last_arrays_are_filled_in_logical_order() -> None:
    plain = sampling.uniform((2, 3, 4, 5), generator=Generator().manual_seed(2))
    last = np.moveaxis(np.empty((2, 4, 5, 3), np.float32), -1, 1)
    for fill in (sampling.fill_uniform, sampling.fill_normal):
        expected = fill(plain, generator=Generator().manual_seed(2)).copy()
        np.testing.assert_array_equal(fill(last, generator=Generator().manual_seed(2)), expected)


def test_large_fills_are_the_small_ones_one_after_the_other() -> None:
    whole = sampling.uniform(200_000, generator=Generator().manual_seed(4))
    generator = Generator().manual_seed(4)
    parts = [sampling.uniform(n, generator=generator) for n in (1, 70_000, 65_536, 64_463)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_uniform_never_reaches_its_end() -> None:
    values = sampling.uniform(200_000, 0, 1, np.float16, Generator().manual_seed(4))
    assert values.max() < 1
    assert sampling.uniform(100_000, 3.0, np.nextafter(np.float32(3), np.float32(4))).max() == 3


def test_permutations_hold_every_number_once() -> None:
    for n in (0, 1, 2, 1000):
        assert sorted(sampling.permutation(n).tolist()) == list(range(n))


def test_the_shuffle_for_huge_permutations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "_LARGE_PERMUTATION", 5)
    generator = Generator().manual_seed(6)
    order: list[int] = []
    words = Generator().manual_seed(6).words(2 * 40).astype(object)
    for i in range(40):
        z = int((words[2 * i] << 32) | words[2 * i + 1]) % (i + 1)
        order.append(i)
        order[i], order[z] = order[z], i
    assert sampling.permutation(40, generator=generator).tolist() == order


# --- PyTorch itself


@pytest.mark.torch
@pytest.mark.parametrize("seed", [0, 1, 123456789, 2**63 + 5, -3])
@pytest.mark.parametrize("n", [1, 16, 17, 1000, 65_536, 131_077])
def test_live(seed: int, n: int) -> None:
    torch = pytest.importorskip("torch")
    same: dict[str, Callable[[Any], Any]] = {
        "rand": lambda t: t.rand(n),
        "uniform": lambda t: t.empty(n).uniform_(-0.1, 0.3),
        "uniform_half": lambda t: t.empty(n, dtype=t.float16).uniform_(-0.1, 0.3),
        "randint": lambda t: t.randint(0, 1000, (n,)),
        "randint_wide": lambda t: t.randint(-(2**62), 2**62, (n,)),
        "randperm": lambda t: t.randperm(n),
        "bernoulli": lambda t: t.bernoulli(t.rand(n)),
        "geometric": lambda t: t.empty(n).geometric_(0.2),
    }
    near: dict[str, Callable[[Any], Any]] = {
        "randn": lambda t: t.randn(n),
        "randn_double": lambda t: t.randn(n, dtype=t.float64),
        "normal": lambda t: t.empty(n).normal_(2, 3),
        "log_normal": lambda t: t.empty(n).log_normal_(0, 0.25),
        "cauchy": lambda t: t.empty(n, dtype=t.float64).cauchy_().atan(),
    }
    for exact, calls in ((True, same), (False, near)):
        for name, call in calls.items():
            got, expected = [], []
            for library, into in ((faltung, got), (torch, expected)):
                library.manual_seed(seed)
                into.append(call(library).numpy())
                into.append(library.rand(3).numpy())
            for a, b in zip(got, expected, strict=True):
                if exact:
                    np.testing.assert_array_equal(a, b, err_msg=name)
                else:
                    np.testing.assert_allclose(a, b, rtol=2e-6, atol=2e-6, err_msg=name)


@pytest.mark.torch
def test_states_are_exchanged_with_pytorch() -> None:
    torch = pytest.importorskip("torch")
    for draws in (0, 1, 624, 1000):
        theirs = torch.Generator().manual_seed(11)
        torch.rand(draws, generator=theirs)
        torch.randn(1, generator=theirs)
        ours = Generator()
        ours.set_state(faltung.from_numpy(theirs.get_state().numpy()))
        np.testing.assert_array_equal(ours.get_state().numpy(), theirs.get_state().numpy())
        np.testing.assert_allclose(
            faltung.randn(5, generator=ours).numpy(), torch.randn(5, generator=theirs).numpy(), rtol=1e-6
        )
        theirs.set_state(torch.from_numpy(ours.get_state().numpy()))
        np.testing.assert_array_equal(faltung.rand(5, generator=ours).numpy(), torch.rand(5, generator=theirs).numpy())
