"""Datasets: what they hold, how they combine and split, what they refuse."""

import collections
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import faltung
from faltung.utils import data


class Squares(data.Dataset[int]):
    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: Any) -> int:
        return index * index


class Counting(data.IterableDataset[int]):
    def __init__(self, n: int) -> None:
        self.n = n

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.n))

    def __len__(self) -> int:
        return self.n


def test_tensor_dataset() -> None:
    x, y = faltung.arange(6).reshape(3, 2), faltung.tensor([7, 8, 9])
    dataset = data.TensorDataset(x, y)
    assert len(dataset) == 3
    assert [t.tolist() for t in dataset[1]] == [[2, 3], 8]
    assert dataset[-1][1].item() == 9
    assert dataset[1:][1].tolist() == [8, 9]
    with pytest.raises(IndexError):
        dataset[3]


def test_stack_dataset() -> None:
    pairs = data.StackDataset(Squares(3), [10, 11, 12])
    assert pairs[2] == (4, 12)
    assert pairs.__getitems__([0, 2]) == [(0, 10), (4, 12)]
    named = data.StackDataset(a=Squares(3), b=data.Subset(Squares(9), [5, 6, 7]))
    assert named[1] == {"a": 1, "b": 36}
    assert named.__getitems__([0, 1]) == [{"a": 0, "b": 25}, {"a": 1, "b": 36}]
    assert len(named) == 3


def test_concat_dataset() -> None:
    both = Squares(2) + Squares(3)
    assert isinstance(both, data.ConcatDataset)
    assert [both[i] for i in range(len(both))] == [0, 1, 0, 1, 4]
    assert both[-1] == 4
    assert both.cumulative_sizes == [2, 5]
    with pytest.raises(ValueError, match="should not exceed dataset length"):
        both[-6]


def test_chain_dataset() -> None:
    both = Counting(2) + Counting(3)
    assert isinstance(both, data.ChainDataset)
    assert list(both) == [0, 1, 0, 1, 2]
    assert len(both) == 5


def test_subset() -> None:
    part = data.Subset(Squares(10), [3, 5, 7])
    assert len(part) == 3
    assert part[1] == 25
    assert part.__getitems__([2, 0]) == [49, 9]
    rows = data.Subset(data.TensorDataset(faltung.arange(5)), [4, 2, 0])
    assert rows[[0, 2]][0].tolist() == [4, 0]

    class Doubled(data.Subset[int]):
        def __getitem__(self, idx: Any) -> int:
            return 2 * super().__getitem__(idx)

    with pytest.raises(NotImplementedError, match="__getitems__"):
        Doubled(Squares(3), [0])


def test_random_split_by_lengths_and_fractions() -> None:
    parts = data.random_split(Squares(10), [3, 7], generator=faltung.Generator().manual_seed(1))
    assert sorted([*parts[0].indices, *parts[1].indices]) == list(range(10))
    again = data.random_split(Squares(10), [3, 7], generator=faltung.Generator().manual_seed(1))
    assert [part.indices for part in again] == [part.indices for part in parts]
    assert [len(part) for part in data.random_split(Squares(10), [0.35, 0.35, 0.3])] == [4, 3, 3]
    with pytest.warns(UserWarning, match="index 1 is 0"):
        data.random_split(Squares(1), [0.5, 0.5])


def test_random_split_is_pytorchs() -> None:
    """torch.manual_seed(3); torch.utils.data.random_split(range(10), [0.5, 0.25, 0.25])"""
    faltung.manual_seed(3)
    parts = data.random_split(Squares(10), [0.5, 0.25, 0.25])
    assert [part.indices for part in parts] == [[6, 0, 3, 7, 8, 5], [1, 9], [2, 4]]


def test_collate_keeps_structure() -> None:
    Point = collections.namedtuple("Point", "x y")
    samples = [
        {"t": faltung.ones(2) * i, "a": np.full(2, i, "f4"), "f": 0.5 * i, "i": i, "b": i > 0, "s": str(i),
         "n": np.int16(i), "pair": (i, [i, 2.0]), "point": Point(i, -i)}
        for i in range(3)
    ]  # fmt: skip
    batch = data.default_collate(samples)
    assert batch["t"].tolist() == [[0, 0], [1, 1], [2, 2]]
    assert (batch["a"].dtype, batch["f"].dtype, batch["i"].dtype) == (faltung.float32, faltung.float64, faltung.int64)
    assert (batch["b"].dtype, batch["n"].dtype) == (faltung.bool, faltung.int16)
    assert batch["s"] == ["0", "1", "2"]
    assert isinstance(batch["pair"], list)
    assert batch["pair"][1][1].tolist() == [2.0, 2.0, 2.0]
    assert isinstance(batch["point"], Point)
    assert batch["point"].y.tolist() == [0, -1, -2]


def test_collate_refusals() -> None:
    with pytest.raises(TypeError, match="collate_fn of your own"):
        data.default_collate([object(), object()])
    with pytest.raises(TypeError, match="found <U1"):
        data.default_collate([np.array("a")])
    with pytest.raises(RuntimeError, match="should be of equal size"):
        data.default_collate([[1, 2], [1]])
    with pytest.raises(RuntimeError, match="equal size"):
        data.default_collate([faltung.ones(2), faltung.ones(3)])


def test_convert() -> None:
    converted = data.default_convert({"a": np.arange(3), "b": (1, np.float32(2)), "c": ["x", np.array(["y"])]})
    assert converted["a"].tolist() == [0, 1, 2]
    assert converted["b"][0] == 1
    assert converted["b"][1].item() == 2
    assert converted["c"][0] == "x"
    assert isinstance(converted["c"][1], np.ndarray)


REFUSALS: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: data.Dataset()[0], NotImplementedError, "implement __getitem__"),
    (lambda: data.TensorDataset(faltung.ones(2), faltung.ones(3)), AssertionError, r"got \[2, 3\]"),
    (lambda: data.StackDataset(), ValueError, "At least one"),
    (lambda: data.StackDataset(Squares(2), Squares(3)), ValueError, "Size mismatch"),
    (lambda: data.StackDataset(Squares(2), a=Squares(2)), ValueError, "got both"),
    (lambda: data.ConcatDataset([]), AssertionError, "empty"),
    (lambda: data.ConcatDataset([Counting(2)]), AssertionError, "ChainDataset"),
    (lambda: list(data.ChainDataset([Squares(2)])), AssertionError, "ConcatDataset"),
    (lambda: data.random_split(Squares(3), [1, 1]), ValueError, "Expected 3, got 2"),
    (lambda: data.random_split(Squares(3), [-0.5, 1.5]), ValueError, "not between 0 and 1"),
]


@pytest.mark.parametrize("number", range(len(REFUSALS)))
def test_refusals(number: int) -> None:
    call, error, message = REFUSALS[number]
    with pytest.raises(error, match=message):
        call()
