"""Random words in plain NumPy: the oracle, and the fallback.

words(stream, count) -> the next `count` 32-bit words of a `numpy.random.RandomState`, uint32
below(words, limit) -> bool: pairs of words, high one first, whose low 53 bits are a number less than `limit`
"""

from __future__ import annotations

from typing import Any

import numpy as np


def words(stream: Any, count: int) -> np.ndarray:
    return stream.randint(0, 2**32, size=count, dtype=np.uint32)


def below(words: np.ndarray, limit: int) -> np.ndarray:
    pairs = words.reshape(-1, 2)
    high_limit, low_limit = np.uint32(limit >> 32), np.uint32(limit & (2**32 - 1))
    high = pairs[:, 0] & np.uint32(2**21 - 1)
    result = high < high_limit  # decided on the high words
    ties = np.flatnonzero(high == high_limit)
    result[ties] = pairs[ties, 1] < low_limit
    return result
