"""The small values that describe a tensor: its size, device, layout and memory format."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NoReturn

__all__ = [
    "Size",
    "channels_last",
    "channels_last_3d",
    "contiguous_format",
    "device",
    "layout",
    "memory_format",
    "preserve_format",
    "strided",
]


class Size(tuple[int, ...]):
    """The shape of a tensor: a tuple of ints that knows its number of elements."""

    __slots__ = ()

    def numel(self) -> int:
        """The number of elements of a tensor of this size."""
        return math.prod(self)

    def __repr__(self) -> str:
        return f"faltung.Size([{', '.join(map(str, self))}])"

    def __add__(self, other: Any) -> Size:
        return Size(tuple.__add__(self, tuple(other)))

    def __radd__(self, other: Any) -> Size:
        return Size(tuple(other) + tuple(self))

    def __mul__(self, times: Any) -> Size:
        return Size(tuple.__mul__(self, times))

    __rmul__ = __mul__

    def __getitem__(self, index: Any) -> Any:
        found = tuple.__getitem__(self, index)
        return Size(found) if isinstance(index, slice) else found

    def __reduce__(self) -> tuple[Any, ...]:
        return (Size, (tuple(self),))


class NoSuchDeviceError(AssertionError, RuntimeError):
    """Raised where a script asks for a device other than the CPU.

    PyTorch without CUDA raises AssertionError there, and RuntimeError for other devices; scripts catch either.
    """


class device:
    """Where a tensor lives. Faltung computes on the CPU; other names can be formed, but no tensor can be put there."""

    __slots__ = ("index", "type")
    index: int | None
    type: str
    _KNOWN = ("cpu", "cuda", "mps", "xpu", "meta", "mkldnn", "vulkan", "xla", "hpu", "mtia")

    def __init__(self, type: Any, index: int | None = None) -> None:
        if isinstance(type, device):
            type, index = type.type, type.index if index is None else index
        if isinstance(type, int):
            type, index = "cuda", type
        if not isinstance(type, str):
            raise TypeError(f"device: expected a name such as 'cpu', got {type!r}.")
        name, colon, number = type.partition(":")
        if name not in self._KNOWN:
            raise RuntimeError(f"device: expected one of {', '.join(self._KNOWN)}, got {type!r}.")
        if colon:
            if not number.isdigit() or index is not None:
                raise RuntimeError(f"device: invalid device string {type!r}: expected 'name' or 'name:index'.")
            index = int(number)
        self.type, self.index = name, index

    def __eq__(self, other: object) -> bool:
        return isinstance(other, device) and (self.type, self.index) == (other.type, other.index)

    def __hash__(self) -> int:
        return hash((self.type, self.index))

    def __repr__(self) -> str:
        suffix = "" if self.index is None else f", index={self.index}"
        return f"device(type={self.type!r}{suffix})"

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"

    def __reduce__(self) -> tuple[Any, ...]:
        return (device, (self.type, self.index))

    def __enter__(self) -> device:
        check_device(self)
        return self

    def __exit__(self, *exc_info: object) -> None:
        return None


CPU = device("cpu")


def check_device(where: Any) -> None:
    """Accept the CPU (or None) and refuse every other device with a message that says what to do."""
    if where is None or where is CPU or where == "cpu":
        return
    asked = device(where)
    if asked.type != "cpu":
        no_such_device(asked)


def no_such_device(asked: Any) -> NoReturn:
    """Raise the error for a device that Faltung doesn't have."""
    raise NoSuchDeviceError(
        f"device: expected 'cpu', got {str(asked)!r}. Faltung computes on CPUs only (PyTorch's wording: Torch not "
        "compiled with CUDA enabled). Choose the device with faltung.cuda.is_available(), which is False here."
    )


class memory_format:
    """A physical order of dimensions; one object per order, compared by identity."""

    __slots__ = ("name", "order")

    def __init__(self, name: str, order: tuple[int, ...] | None = None) -> None:
        self.name = name
        self.order = order  # dimensions from the slowest to the fastest in memory

    def __repr__(self) -> str:
        return f"faltung.{self.name}"

    def __reduce__(self) -> str:
        return self.name


contiguous_format = memory_format("contiguous_format")
preserve_format = memory_format("preserve_format")
channels_last = memory_format("channels_last", (0, 2, 3, 1))
channels_last_3d = memory_format("channels_last_3d", (0, 2, 3, 4, 1))


class layout:
    """How elements are arranged; only `strided` exists."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"faltung.{self.name}"

    def __reduce__(self) -> str:
        return self.name


strided = layout("strided")


def as_size(sizes: Iterable[Any]) -> tuple[int, ...]:
    """Sizes given as `f(2, 3)`, `f((2, 3))` or `f(Size([2, 3]))`, as one tuple of ints."""
    sizes = tuple(sizes)
    if len(sizes) == 1 and isinstance(sizes[0], tuple | list):
        sizes = tuple(sizes[0])
    return tuple([size if type(size) is int else size.__index__() for size in sizes])
