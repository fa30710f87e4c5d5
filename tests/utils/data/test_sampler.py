"""Samplers: orders, PyTorch's numbers for a seed, refusals."""

from collections.abc import Callable
from itertools import chain
from typing import Any

import pytest

import faltung
from faltung.utils import data


def test_orders() -> None:
    assert list(data.SequentialSampler(range(3))) == [0, 1, 2]
    assert sorted(data.RandomSampler(range(9))) == list(range(9))
    assert sorted(data.SubsetRandomSampler([4, 7, 9])) == [4, 7, 9]
    many = list(data.RandomSampler(range(4), num_samples=10))
    assert sorted(many[:4]) == sorted(many[4:8]) == [0, 1, 2, 3]
    assert len(many) == len(data.RandomSampler(range(4), num_samples=10)) == 10
    assert set(data.RandomSampler(range(4), replacement=True, num_samples=70)) <= {0, 1, 2, 3}


def test_every_iteration_shuffles_anew_from_the_default_stream() -> None:
    sampler = data.RandomSampler(range(50))
    faltung.manual_seed(1)
    first, second = list(sampler), list(sampler)
    assert first != second
    faltung.manual_seed(1)
    assert list(sampler) == first


def test_a_generator_of_its_own() -> None:
    faltung.manual_seed(1)
    expected = faltung.rand(1)
    faltung.manual_seed(1)
    orders = [list(data.RandomSampler(range(9), generator=faltung.Generator().manual_seed(5))) for _ in range(2)]
    assert orders[0] == orders[1]
    assert faltung.equal(faltung.rand(1), expected)


def test_batches() -> None:
    assert list(data.BatchSampler(range(7), 3, False)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(data.BatchSampler(range(7), 3, True)) == [[0, 1, 2], [3, 4, 5]]
    for count in (0, 1, 5, 6, 7):
        for drop in (False, True):
            sampler = data.BatchSampler(range(count), 3, drop)
            assert len(sampler) == len(list(sampler))


def test_weights() -> None:
    sampler = data.WeightedRandomSampler([0.0, 3.0, 1.0], 4000, generator=faltung.Generator().manual_seed(0))
    drawn = list(sampler)
    assert drawn.count(0) == 0
    assert drawn.count(1) == pytest.approx(3000, abs=150)
    assert sorted(data.WeightedRandomSampler([1, 1, 1], 3, replacement=False)) == [0, 1, 2]


def test_shares_of_processes() -> None:
    shares = [list(data.DistributedSampler(range(10), 3, rank, shuffle=False)) for rank in range(3)]
    assert shares == [[0, 3, 6, 9], [1, 4, 7, 0], [2, 5, 8, 1]]
    shares = [list(data.DistributedSampler(range(10), 3, rank, shuffle=False, drop_last=True)) for rank in range(3)]
    assert shares == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]
    samplers = [data.DistributedSampler(range(12), 4, rank, seed=3) for rank in range(4)]
    first = [list(sampler) for sampler in samplers]
    assert sorted(chain(*first)) == list(range(12))
    for sampler in samplers:
        sampler.set_epoch(1)
    assert [list(sampler) for sampler in samplers] != first
    assert list(data.DistributedSampler(range(2), 7, 5, shuffle=False)) == [1]  # fewer samples than processes


REFUSALS: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: iter(data.Sampler()), NotImplementedError, "define __iter__"),
    (lambda: data.RandomSampler(range(3), replacement=1), TypeError, "should be a boolean"),
    (lambda: data.RandomSampler(range(0)), ValueError, "num_samples=0"),
    (lambda: data.RandomSampler(range(3), num_samples=-1), ValueError, "positive integer"),
    (lambda: data.BatchSampler(range(3), 0, False), ValueError, "batch_size=0"),
    (lambda: data.BatchSampler(range(3), True, False), ValueError, "batch_size=True"),
    (lambda: data.BatchSampler(range(3), 1, 1), ValueError, "drop_last=1"),
    (lambda: data.WeightedRandomSampler([1.0], 0), ValueError, "positive integer"),
    (lambda: data.WeightedRandomSampler([1.0], 1, 1), ValueError, "replacement=1"),
    (lambda: data.WeightedRandomSampler([[1.0]], 1), ValueError, "1d sequence"),  # type: ignore[list-item]
    (lambda: data.DistributedSampler(range(3), 2, 2), ValueError, "Invalid rank 2"),
]


@pytest.mark.parametrize("number", range(len(REFUSALS)))
def test_refusals(number: int) -> None:
    call, error, message = REFUSALS[number]
    with pytest.raises(error, match=message):
        call()
