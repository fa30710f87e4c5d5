"""Copies between memory orders."""

import numpy as np
import pytest

from faltung.engine import layout, team
from faltung.engine.kernels import relayout
from tests.engine.guard import guarded, guarded_strided
from tests.engine.kernel_check import THREADS, channels_last, floats, lanes, sizes_around


def check_copy(source: np.ndarray, target: np.ndarray) -> None:
    if relayout.plan(target.shape, source.strides, target.strides) is None:
        assert source.strides == target.strides or source.size < 2
        return
    for threads, at_end in zip(THREADS, (True, False, True, False), strict=True):
        team.set_num_threads(threads)
        place = guarded_strided(target, at_end)
        place[...] = np.nan
        relayout.copy(place, guarded_strided(source, at_end))
        np.testing.assert_array_equal(place, source)


def test_sizes_around_tiles() -> None:
    for channels in sizes_around(lanes(), 2 * lanes()):
        for pixels in (1, lanes() - 1, lanes(), lanes() + 1, 67):
            x = floats((2, channels, pixels))
            if x.size:
                check_copy(x, channels_last(x))
                check_copy(channels_last(x), x)


@pytest.mark.parametrize("shape", [(2, 64, 56, 56), (8, 512, 7, 7), (2, 3, 50, 50), (2, 5, 4, 3, 7), (33, 70)])
def test_shapes(shape: tuple[int, ...]) -> None:
    x = floats(shape)
    check_copy(x, channels_last(x))
    check_copy(channels_last(x), x)
    check_copy(x.transpose(), np.empty(shape[::-1], np.float32))


def test_gaps() -> None:
    x = floats((4, 70, 20, 30))
    for source in (x[:, 3:50], x[:, :, 1:, 5:], x[::2], x.transpose(0, 2, 3, 1)[:, ::3]):
        check_copy(source, channels_last(np.empty(source.shape, np.float32)))


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int64, np.bool_])
def test_layout(kind: type) -> None:
    for shape in ((2, 3, 4, 5), (2, 33, 20, 20)):
        x = floats(shape).astype(kind)
        last = layout.channels_last(x)
        assert layout.is_channels_last(last)
        np.testing.assert_array_equal(last, x)
        assert layout.channels_last(last) is last
        back = layout.contiguous(last)
        assert back.flags.c_contiguous
        np.testing.assert_array_equal(back, x)
        turned = layout.copied(x, (3, 1, 0, 2))
        assert turned.transpose(3, 1, 0, 2).flags.c_contiguous
        np.testing.assert_array_equal(turned, x)


def test_nothing_behind_the_end_is_touched() -> None:
    source, target = guarded((1, 17, 19)), np.moveaxis(guarded((1, 19, 17)), -1, 1)
    source[...] = floats(source.shape)
    relayout.copy(target, source)
    np.testing.assert_array_equal(target, source)
