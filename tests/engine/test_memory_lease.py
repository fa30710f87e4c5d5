"""A pooled block must outlive every view of the array that was made over it."""

import numpy as np

from faltung.engine import memory


def test_views_keep_their_block():
    array = memory.empty((4, 256, 1024))
    view = array[:, 1:].transpose(2, 0, 1)
    where = memory.address(array)
    del array
    other = memory.empty((4, 256, 1024))
    assert memory.address(other) != where
    view[...] = 1.0
    other[...] = 2.0
    assert np.all(view == 1.0)


def test_freed_blocks_are_used_again():
    array = memory.empty((3, 300, 1024))
    where = memory.address(array)
    del array
    assert memory.address(memory.empty((3, 300, 1024))) == where
