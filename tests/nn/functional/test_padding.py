"""Padding through nn.functional, and what bad input gets."""

import re
from collections.abc import Callable

import numpy as np
import pytest

import faltung
import faltung.nn.functional as F
from faltung.autograd import gradcheck, gradgradcheck

Ints = tuple[int, ...]

CASES: list[tuple[Ints, Ints]] = [  # (shape, pad)
    ((2, 3, 7), (2, 1)),
    ((3, 7), (0, 3)),
    ((2, 3, 5, 6), (1, 2, 3, 4)),
    ((2, 3, 5, 6), (0, 0, 2, 0)),
    ((3, 5, 6), (2, 2, 1, 1)),
    ((1, 2, 3, 4, 4), (1, 2, 3, 2, 1, 2)),
    ((2, 3, 5, 6), (-1, 2, 0, -2)),
    ((2, 3, 5, 6), (-1, -1, -2, -1)),
    ((0, 3, 5, 6), (1, 1, 1, 1)),
]
NUMPY_MODES = {"reflect": "reflect", "replicate": "edge"}


def by_numpy(x: np.ndarray, pad: Ints, mode: str, value: float = 0.0) -> np.ndarray:
    """Reflections and replicas are taken of the whole, then cut; what is circular is cut first."""
    pairs = [(0, 0)] * (x.ndim - len(pad) // 2) + [(pad[i], pad[i + 1]) for i in range(len(pad) - 2, -1, -2)]
    grown = [(max(0, a), max(0, b)) for a, b in pairs]

    def cut(y: np.ndarray) -> np.ndarray:
        return y[tuple(slice(max(0, -a), size - max(0, -b)) for size, (a, b) in zip(y.shape, pairs, strict=True))]

    if mode == "constant":
        return np.pad(cut(x), grown, constant_values=value)
    return np.pad(cut(x), grown, "wrap") if mode == "circular" else cut(np.pad(x, grown, NUMPY_MODES[mode]))


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate", "circular"])
@pytest.mark.parametrize(("shape", "pad"), CASES)
def test_values_and_gradients(shape: Ints, pad: Ints, mode: str) -> None:
    x = faltung.from_numpy(np.random.default_rng(0).standard_normal(shape)).requires_grad_()
    np.testing.assert_array_equal(F.pad(x, pad, mode).detach().numpy(), by_numpy(x.detach().numpy(), pad, mode))
    assert gradcheck(lambda t: F.pad(t, pad, mode), [x])
    assert gradgradcheck(lambda t: F.pad(t, pad, mode), [x])


def test_constant_value_and_any_rank() -> None:
    x = np.arange(24.0).reshape(1, 2, 3, 4)
    for pad in ((1, 0), (0, 1, 1, 0), (1, 1, 0, 0, 2, 0), (1, 0, 0, 1, 1, 0, 0, 2)):
        np.testing.assert_array_equal(
            F.pad(faltung.from_numpy(x), pad, value=-7).numpy(), by_numpy(x, pad, "constant", -7)
        )
    assert F.pad(faltung.tensor([True]), (1, 0), value=1).tolist() == [True, True]
    assert F.pad(faltung.tensor([3]), (1, 0), value=1.5).tolist() == [1, 3]


def test_layout_is_kept() -> None:
    x = faltung.ones(2, 3, 5, 6).to(memory_format=faltung.channels_last)
    for mode in ("constant", "reflect"):
        assert F.pad(x, (1, 1, 2, 2), mode).is_contiguous(memory_format=faltung.channels_last)


X = faltung.ones(1, 3, 8, 8)
BAD = [  # (id, call, exception, message)
    ("odd", lambda: F.pad(X, (1, 1, 1)), RuntimeError, r"pairs \(before, after\), got 3 values: \(1, 1, 1\)"),
    ("too long", lambda: F.pad(X, (1,) * 10), RuntimeError, r"5 pairs, but input \(1, 3, 8, 8\) has only 4"),
    ("cuts too much", lambda: F.pad(X, (-5, -4)), RuntimeError, r"cuts more than dimension 3"),
    ("integer", lambda: F.pad(X, 1), TypeError, r"pad must be a tuple of ints, got 1"),
    ("float", lambda: F.pad(X, (1.0, 1)), TypeError, r"pad\[0\] must be an int, got 1\.0"),
    ("reflect too far", lambda: F.pad(X, (8, 1, 1, 1), "reflect"), RuntimeError,
     r"dimension 3 .* at most 7, got \(8, 1\)"),
    ("circular too far", lambda: F.pad(X, (9, 1, 1, 1), "circular"), RuntimeError, r"at most 8, got \(9, 1\)"),
    ("rank", lambda: F.pad(X, (1, 1), "reflect"), NotImplementedError, r"2 or 3 pairs"),
    ("vector", lambda: F.pad(faltung.ones(8), (1, 1), "reflect"), NotImplementedError, r"channel dimension"),
    ("mode", lambda: F.pad(X, (1, 1), "mirror"), NotImplementedError, r"'circular', got 'mirror'"),
    ("value", lambda: F.pad(X, (1, 1, 1, 1), "reflect", 1), RuntimeError, r"takes no value, got value=1"),
    ("empty", lambda: F.pad(faltung.ones(1, 3, 0, 8), (1, 1, 1, 1), "replicate"), RuntimeError, r"needs samples"),
    ("array", lambda: F.pad(np.ones((2, 3)), (1, 1)), TypeError,
     r"input must be a Tensor, got ndarray"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "kind", "pattern"), [row[1:] for row in BAD], ids=[str(row[0]) for row in BAD])
def test_bad_input(call: Callable[[], object], kind: type[Exception], pattern: str) -> None:
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    assert re.search(pattern, str(caught.value)), str(caught.value)
