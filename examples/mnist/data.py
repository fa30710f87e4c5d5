"""MNIST from its gzipped IDX files, checked before use.

An IDX file is a big-endian header (two zero bytes, the type code, the number of dimensions, then each size as a 32-bit
integer) followed by the values, the last dimension running fastest.
"""

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

import faltung as torch

FOLDER = Path(__file__).resolve().parent.parent / "data" / "mnist"
UNSIGNED_BYTE = 0x08
CLASSES = 10

# Mean and standard deviation of all training pixels, scaled to [0, 1].
MEAN, STD = 0.1307, 0.3081


class Digits(NamedTuple):
    """Images and their labels."""

    images: np.ndarray  # (N, 28, 28) uint8
    labels: np.ndarray  # (N,) uint8


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """The array of unsigned bytes in a gzipped IDX file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, cut short, or something other than bytes in that many dimensions.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file. It belongs to the repository: restore it with git checkout.")
    try:
        raw = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(
            f"{path}: expected a complete gzip file, got: {error}. Restore it with git checkout."
        ) from None
    header_bytes = 4 + 4 * dimensions
    expected = bytes((0, 0, UNSIGNED_BYTE, dimensions))
    if len(raw) < header_bytes or raw[:4] != expected:
        raise ValueError(
            f"{path}: expected the IDX header {expected.hex()} (unsigned bytes in {dimensions} dimensions), "
            f"got {raw[:4].hex() or 'an empty file'}. Is it the images' file where labels belong, or the reverse?"
        )
    shape = struct.unpack_from(f">{dimensions}I", raw, 4)
    if len(raw) - header_bytes != math.prod(shape):
        raise ValueError(
            f"{path}: its header promises {shape}, that is {math.prod(shape)} bytes, got {len(raw) - header_bytes}. "
            "Restore it with git checkout."
        )
    return np.frombuffer(raw, np.uint8, offset=header_bytes).reshape(shape)


def read_digits(folder: Path, prefix: str) -> Digits:
    """Images and labels of one half of MNIST; `prefix` is "train" or "t10k"."""
    digits = Digits(
        read_idx(folder / f"{prefix}-images-idx3-ubyte.gz", 3), read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz", 1)
    )
    if len(digits.images) != len(digits.labels):
        raise ValueError(f"{folder}: {prefix} has {len(digits.images)} images but {len(digits.labels)} labels.")
    if digits.images.shape[1:] != (28, 28):
        raise ValueError(f"{folder}: {prefix} images should be 28x28 pixels, got {digits.images.shape[1:]}.")
    if digits.labels.size and digits.labels.max() >= CLASSES:
        raise ValueError(f"{folder}: {prefix} labels should be 0 to 9, got {digits.labels.max()}.")
    return digits


def to_tensors(digits: Digits) -> tuple[torch.Tensor, torch.Tensor]:
    """What a network takes: normalised images (N, 1, 28, 28) float32, and labels (N,) int64."""
    images = ((digits.images.astype(np.float32) / 255.0 - MEAN) / STD)[:, None].astype(np.float32)
    return torch.from_numpy(images), torch.from_numpy(digits.labels.astype(np.int64))
