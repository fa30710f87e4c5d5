"""Strided first layers over the folded image, against the reference in float64."""

import numpy as np
import pytest

from faltung.engine import registry, team
from faltung.engine.epilogue import Epilogue
from faltung.engine.flags import flags
from faltung.engine.geometry import ConvGeometry
from faltung.engine.kernels import conv_folded
from faltung.engine.reference import conv as reference
from tests.engine.grouped_checks import LAYOUTS, Case, laid_out
from tests.engine.guard import guarded_copy, guarded_results

TOLERANCE = 3e-5  # Winograd's, as in test_conv_dense


def first(name: str, c: int, o: int, sizes: tuple[int, int], k: int, padding, n: int = 2) -> Case:
    return Case(name, (n, c, *sizes), (o, c, k, k), 1, {"padding": padding, "stride": 2})


CASES = [
    *(first(f"{h}x{w}", 3, 20, (h, w), 7, 3) for h, w in ((1, 1), (2, 3), (15, 16), (16, 15), (31, 33), (32, 34))),
    *(first(f"{c} channels", c, 33, (17, 18), 7, 3) for c in (1, 2, 4)),
    *(
        first(f"{k}x{k}, padding {p}", 3, 16, (17, 20), k, p)
        for k, p in ((5, 2), (5, 0), (6, 2), (7, 2), (8, 2), (8, 4), (9, 3), (10, 4))
    ),
    first("uneven padding", 3, 16, (17, 20), 7, ((3, 0), (1, 4))),
    first("padding beyond the kernel", 3, 16, (4, 5), 6, 8),
]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_forward(case, layout):
    g, (x, w, bias, _) = case.geometry, case.arrays()
    cache: dict = {}
    with guarded_results():
        y = conv_folded.forward(g, laid_out(x, layout), guarded_copy(w), guarded_copy(bias), cache=cache)
    expected = reference.forward(g, *(a.astype(np.float64) for a in (x, w, bias)))
    np.testing.assert_allclose(y, expected, rtol=0, atol=TOLERANCE * np.abs(expected).max())
    assert np.moveaxis(y, 1, -1).flags.c_contiguous
    assert np.array_equal(y, conv_folded.forward(g, x, w, bias, cache=cache))  # kept weights, any layout


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_pixels_as_far_apart_as_channels_last_ones(channels):
    """Planes of which every second, third or fourth column is taken: their step alone does not tell the layout."""
    case = first("", channels, 16, (17, 20), 7, 3)
    x, w, bias, _ = case.arrays()
    apart = np.repeat(x, channels, axis=3)[..., ::channels]
    assert apart.strides[3] == 4 * channels
    expected = reference.forward(case.geometry, *(a.astype(np.float64) for a in (x, w, bias)))
    y = conv_folded.forward(case.geometry, apart, w, bias)
    np.testing.assert_allclose(y, expected, rtol=0, atol=TOLERANCE * np.abs(expected).max())


def test_kept_weights_of_another_padding():
    """Odd and even paddings give blocks of taps of one size with other taps in them."""
    cache: dict = {}
    for padding in (3, 2, 3, 1):
        case = first("", 3, 20, (31, 33), 7, padding)
        x, w, bias, _ = case.arrays()
        expected = reference.forward(case.geometry, *(a.astype(np.float64) for a in (x, w, bias)))
        y = conv_folded.forward(case.geometry, x, w, bias, cache=cache)
        np.testing.assert_allclose(y, expected, rtol=0, atol=TOLERANCE * np.abs(expected).max())


def test_bits_do_not_depend_on_threads():
    case = first("", 3, 40, (70, 71), 7, 3)
    x, w, bias, _ = case.arrays()
    before, results = team.get_num_threads(), []
    try:
        for count in (1, 2, 3, 4):
            team.set_num_threads(count)
            results.append(conv_folded.forward(case.geometry, x, w, bias, epilogue=Epilogue(activation="relu")))
    finally:
        team.set_num_threads(before)
    assert all(np.array_equal(results[0], more) for more in results[1:])
    assert (results[0] >= 0).all()


def test_choice_and_refusals():
    def reason(c: int, o: int, k: int, padding: int, **options) -> str:
        g = ConvGeometry.of((1, c, 224, 224), (o, c, k, k), padding=padding, **options)
        x, w = np.zeros(g.input_shape, np.float32), np.zeros(g.weight_shape, np.float32)
        return str(conv_folded.refuse_forward(g, x, w, None, cache={}))

    assert reason(3, 64, 7, 3, stride=2) == "None"
    assert "at stride 2" in reason(3, 64, 7, 3)
    assert "at stride 2" in reason(3, 64, 7, 3, stride=2, dilation=2)
    assert "not a first layer" in reason(8, 64, 7, 3, stride=2)
    assert "taps over the folded image" in reason(3, 64, 3, 1, stride=2)
    flags.winograd = False
    try:
        assert "switched off" in reason(3, 64, 7, 3, stride=2)
    finally:
        flags.winograd = True
    assert "conv_folded" in registry.CANDIDATES["conv.forward"]
