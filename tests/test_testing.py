"""assert_close: tolerances by dtype, containers, messages."""

from typing import Any

import numpy as np
import pytest

import faltung as torch
from faltung.testing import assert_close, make_tensor

t = torch.tensor
CLOSE: list[tuple[Any, Any, dict[str, Any]]] = [
    (t([1.0, 2.0]), t([1.0, 2.0 + 1e-6]), {}),
    (t([1, 2]), t([1, 2]), {}),
    (t([1.0]), t([1.0], dtype=torch.float64), {"check_dtype": False}),
    (t([1.0]), t([1.4]), {"rtol": 0.0, "atol": 0.5}),
    (t([float("nan")]), t([float("nan")]), {"equal_nan": True}),
    (t([float("inf")]), t([float("inf")]), {}),
    (t([]), t([]), {}),
    (np.array([1.0]), np.array([1.0]), {}),
    (1.0, 1.0 + 1e-9, {}),
    ([t([1.0]), 2], (t([1.0]), 2), {}),
    ({"a": t([1.0])}, {"a": t([1.0])}, {}),
    (None, None, {}),
    (t([True]), t([True]), {}),
]
APART: list[tuple[Any, Any, dict[str, Any], str]] = [
    (
        t([1.0, 2.0, 4.0]),
        t([1.0, 2.5, 4.0]),
        {},
        r"Tensor-likes are not close!\n\nMismatched elements: 1 / 3 \(33.3%\)",
    ),
    (
        t([[1.0, 2.5]]),
        t([[1.0, 2.0]]),
        {},
        r"Greatest absolute difference: 0.5 at index \(0, 1\) \(up to 1e-05 allowed\)",
    ),
    (t([1.0, 2.5]), t([1.0, 2.0]), {}, r"Greatest relative difference: 0.25 at index \(1,\)"),
    (t([1, 2]), t([1, 3]), {}, "are not equal"),
    (t([1.0]), t([1.0], dtype=torch.float64), {}, "'dtype' do not match"),
    (t([1.0]), t([[1.0]]), {}, "'shape' do not match"),
    (torch.ones(2, 3), torch.ones(3, 2).t(), {"check_stride": True}, "stride"),
    (t([float("nan")]), t([float("nan")]), {}, "not close"),
    (t([1.0]), t([2.0]), {"msg": "mine"}, "^mine$"),
    (t([1.0]), t([2.0]), {"msg": lambda text: "before " + text}, "^before Tensor-likes"),
    (1.0, 2.0, {}, "Scalars are not close!"),
    (1, 2, {}, "Scalars are not equal!"),
    ([t([1.0])], [t([1.0]), 2], {}, "length of the sequences"),
    ({"a": 1}, {"b": 1}, {}, "keys of the mappings"),
    ({"a": [1, t([1.0])]}, {"a": [1, t([2.0])]}, {}, r"at \['a'\]\[1\]"),
    (None, t([1.0]), {}, "None mismatch"),
]


@pytest.mark.parametrize(("actual", "expected", "options"), CLOSE)
def test_close(actual: Any, expected: Any, options: dict[str, Any]) -> None:
    assert_close(actual, expected, **options)


@pytest.mark.parametrize(("actual", "expected", "options", "message"), APART)
def test_apart(actual: Any, expected: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        assert_close(actual, expected, **options)


def test_misuse() -> None:
    with pytest.raises(ValueError, match="both"):
        assert_close(t([1.0]), t([1.0]), rtol=0.1)
    with pytest.raises(TypeError, match="got object"):
        assert_close(object(), t([1.0]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64, torch.uint8, torch.bool, torch.complex64])
def test_make_tensor(dtype: torch.dtype) -> None:
    made = make_tensor(3, 4, dtype=dtype)
    assert tuple(made.shape) == (3, 4)
    assert made.dtype is dtype
    assert not make_tensor((3, 4), dtype=dtype, noncontiguous=True).is_contiguous()


@pytest.mark.torch
@pytest.mark.parametrize(("actual", "expected", "options", "message"), APART[:8])
def test_same_verdict_as_torch(actual: Any, expected: Any, options: dict[str, Any], message: str) -> None:
    real = pytest.importorskip("torch")
    pair = [
        real.from_numpy(x.contiguous().numpy()) if x.is_contiguous() else real.ones(3, 2).t()
        for x in (actual, expected)
    ]
    with pytest.raises(AssertionError):
        real.testing.assert_close(*pair, **options)
