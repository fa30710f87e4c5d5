"""Tensors print as PyTorch prints them. The texts are PyTorch 2.13's, its name replaced by this library's."""

from __future__ import annotations

from typing import Any

import pytest

import faltung as t

CASES: list[tuple[str, str]] = [
    ("t.tensor(1.5)", "tensor(1.5000)"),
    ("t.tensor(3)", "tensor(3)"),
    ("t.tensor(True)", "tensor(True)"),
    ("t.tensor([])", "tensor([])"),
    ("t.zeros(0, 3)", "tensor([], size=(0, 3))"),
    ("t.zeros((2, 0), dtype=t.int64)", "tensor([], size=(2, 0), dtype=faltung.int64)"),
    ("t.tensor([1, -20])", "tensor([  1, -20])"),
    ("t.tensor([True, False])", "tensor([ True, False])"),
    ("t.tensor([[0.1, 200.123], [3, 4]])", "tensor([[1.0000e-01, 2.0012e+02],\n        [3.0000e+00, 4.0000e+00]])"),
    ("t.tensor([1e-6, 1.0])", "tensor([1.0000e-06, 1.0000e+00])"),
    ("t.tensor([1e10, 1])", "tensor([1.0000e+10, 1.0000e+00])"),
    ("t.tensor([1.0, 2.0])", "tensor([1., 2.])"),
    ("t.tensor([0.0, -0.0])", "tensor([0., -0.])"),
    ("t.tensor([-1.5, 2])", "tensor([-1.5000,  2.0000])"),
    ("t.tensor([float('nan'), float('inf'), 1.0])", "tensor([nan, inf, 1.])"),
    ("t.tensor([float('nan')])", "tensor([nan])"),
    ("t.tensor([float('inf'), float('-inf')])", "tensor([inf, -inf])"),
    ("t.tensor([1.2e-5, 3e-5])", "tensor([1.2000e-05, 3.0000e-05])"),
    ("t.tensor([123456.0, 1.0])", "tensor([1.2346e+05, 1.0000e+00])"),
    ("t.tensor([99999.0, 1000.5])", "tensor([99999.0000,  1000.5000])"),
    ("t.tensor([1e9, 2e9])", "tensor([1.0000e+09, 2.0000e+09])"),
    ("t.arange(2000)", "tensor([   0,    1,    2,  ..., 1997, 1998, 1999])"),
    (
        "t.zeros(30, 40)",
        "tensor([[0., 0., 0.,  ..., 0., 0., 0.],\n"
        "        [0., 0., 0.,  ..., 0., 0., 0.],\n"
        "        [0., 0., 0.,  ..., 0., 0., 0.],\n"
        "        ...,\n"
        "        [0., 0., 0.,  ..., 0., 0., 0.],\n"
        "        [0., 0., 0.,  ..., 0., 0., 0.],\n"
        "        [0., 0., 0.,  ..., 0., 0., 0.]])",
    ),
    (
        "t.ones(5, 300)",
        "tensor([[1., 1., 1.,  ..., 1., 1., 1.],\n"
        "        [1., 1., 1.,  ..., 1., 1., 1.],\n"
        "        [1., 1., 1.,  ..., 1., 1., 1.],\n"
        "        [1., 1., 1.,  ..., 1., 1., 1.],\n"
        "        [1., 1., 1.,  ..., 1., 1., 1.]])",
    ),
    ("t.ones(1001)", "tensor([1., 1., 1.,  ..., 1., 1., 1.])"),
    (
        "t.arange(30.0) / 7",
        "tensor([0.0000, 0.1429, 0.2857, 0.4286, 0.5714, 0.7143, 0.8571, 1.0000, 1.1429,\n"
        "        1.2857, 1.4286, 1.5714, 1.7143, 1.8571, 2.0000, 2.1429, 2.2857, 2.4286,\n"
        "        2.5714, 2.7143, 2.8571, 3.0000, 3.1429, 3.2857, 3.4286, 3.5714, 3.7143,\n"
        "        3.8571, 4.0000, 4.1429])",
    ),
    (
        "t.ones(2, 2, 2, 2)",
        "tensor([[[[1., 1.],\n"
        "          [1., 1.]],\n"
        "\n"
        "         [[1., 1.],\n"
        "          [1., 1.]]],\n"
        "\n"
        "\n"
        "        [[[1., 1.],\n"
        "          [1., 1.]],\n"
        "\n"
        "         [[1., 1.],\n"
        "          [1., 1.]]]])",
    ),
    ("t.tensor([[1, 2], [3, 400]])", "tensor([[  1,   2],\n        [  3, 400]])"),
    ("t.tensor([1.0], dtype=t.float64)", "tensor([1.], dtype=faltung.float64)"),
    ("t.tensor([1, 2], dtype=t.int32)", "tensor([1, 2], dtype=faltung.int32)"),
    ("t.tensor([1.5], dtype=t.float16)", "tensor([1.5000], dtype=faltung.float16)"),
    ("t.tensor([1 + 2j, 3 - 4.5j])", "tensor([1.+2.0000j, 3.-4.5000j])"),
    ("t.tensor([[1.0, 2], [3, 4]]).t()", "tensor([[1., 3.],\n        [2., 4.]])"),
    ("t.ones(2, requires_grad=True)", "tensor([1., 1.], requires_grad=True)"),
    ("t.ones(2, requires_grad=True) * 2", "tensor([2., 2.], grad_fn=<MulBackward0>)"),
    ("(t.ones(2, requires_grad=True) * 2).sum()", "tensor(4., grad_fn=<SumBackward0>)"),
    (
        "t.ones(3, 30, requires_grad=True).exp()",
        "tensor([[2.7183, 2.7183, 2.7183, 2.7183, 2.7183, 2.7183, 2.7183, 2.7183, 2.7183,\n"
        "         2.7183, 2.7183, 2.7183, 2.7183, 2.7183, 2.7183, 2.7183, 2.7183, 2.7183,\n"
        "         2.7183, 2.7183, 2.7183, 2.7183, 2.7183, 2.7183, 2.7183, 2.7183, 2.7183,\n"
        "         2.7183, 2.7183, 2.7183],\n"
        "        [2.7183, 2.7183, 2.7183, 2.7183, 2.7183, 2.7183, 2.7183, 2.7183, 2.7183,\n"
        "         2.7183, 2.7183, 2.7183, 2.7183, 2.7183, 2.7183, 2.7183, 2.7183, 2.7183,\n"
        "         2.7183, 2.7183, 2.7183, 2.7183, 2.7183, 2.7183, 2.7183, 2.7183, 2.7183,\n"
        "         2.7183, 2.7183, 2.7183],\n"
        "        [2.7183, 2.7183, 2.7183, 2.7183, 2.7183, 2.7183, 2.7183, 2.7183, 2.7183,\n"
        "         2.7183, 2.7183, 2.7183, 2.7183, 2.7183, 2.7183, 2.7183, 2.7183, 2.7183,\n"
        "         2.7183, 2.7183, 2.7183, 2.7183, 2.7183, 2.7183, 2.7183, 2.7183, 2.7183,\n"
        "         2.7183, 2.7183, 2.7183]], grad_fn=<ExpBackward0>)",
    ),
    (
        "t.arange(24).view(2, 3, 4)",
        "tensor([[[ 0,  1,  2,  3],\n"
        "         [ 4,  5,  6,  7],\n"
        "         [ 8,  9, 10, 11]],\n"
        "\n"
        "        [[12, 13, 14, 15],\n"
        "         [16, 17, 18, 19],\n"
        "         [20, 21, 22, 23]]])",
    ),
    ("t.randn(0)", "tensor([])"),
    ("t.tensor(1e-8)", "tensor(1.0000e-08)"),
    ("t.tensor(123456789.0)", "tensor(1.2346e+08)"),
    ("t.full((3,), 1/3)", "tensor([0.3333, 0.3333, 0.3333])"),
    ("t.tensor([0.00001, 1000.0])", "tensor([1.0000e-05, 1.0000e+03])"),
    ("t.tensor([1e38, 1e-38])", "tensor([1.0000e+38, 1.0000e-38])"),
    ("t.tensor(5, dtype=t.uint8)", "tensor(5, dtype=faltung.uint8)"),
    ("t.ones(2).bool()", "tensor([True, True])"),
    ("t.ones(2, 3).max(0)", "faltung.return_types.max(\nvalues=tensor([1., 1., 1.]),\nindices=tensor([0, 0, 0]))"),
    ("t.empty(2, 0, 3)", "tensor([], size=(2, 0, 3))"),
    ("t.tensor([[[1.0]]])", "tensor([[[1.]]])"),
    ("t.tensor([1.0, 2.5, 1e5])", "tensor([1.0000e+00, 2.5000e+00, 1.0000e+05])"),
    ("t.tensor(-7)", "tensor(-7)"),
    ("t.arange(1001.0)", "tensor([   0.,    1.,    2.,  ...,  998.,  999., 1000.])"),
]


@pytest.mark.parametrize(("expression", "text"), CASES, ids=[case[0] for case in CASES])
def test_repr(expression: str, text: str) -> None:
    assert repr(eval(expression, {"t": t})) == text


def test_options() -> None:
    x = t.tensor([1.23456, 1000.0])
    try:
        t.set_printoptions(precision=2, sci_mode=False)
        assert repr(x) == "tensor([   1.23, 1000.00])"
        t.set_printoptions(profile="short", threshold=4, edgeitems=1)
        assert repr(t.arange(10)) == "tensor([0,  ..., 9])"
    finally:
        t.set_printoptions(profile="default")
    assert repr(x) == "tensor([   1.2346, 1000.0000])"


def test_format() -> None:
    assert f"{t.tensor(1.2345):.2f}" == "1.23"
    assert f"{t.tensor(3)}" == "3"
    assert f"{t.tensor([1.0])}" == "tensor([1.])"
    assert str(t.ones(1)) == repr(t.ones(1))


def test_numbers_of_the_namespace() -> None:
    values: Any = (t.inf, t.nan != t.nan, t.pi)
    assert values == (float("inf"), True, 3.141592653589793)
