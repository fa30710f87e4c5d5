"""Named results: `max(dim)` gives (values, indices) and so on."""

from __future__ import annotations

from typing import Any

__all__ = ["aminmax", "cummax", "cummin", "kthvalue", "max", "median", "min", "mode", "nanmedian", "sort", "topk"]


class _Named(tuple[Any, ...]):
    """A tuple whose items have names too."""

    _fields: tuple[str, ...] = ()
    __slots__ = ()

    def __new__(cls, *items: Any) -> Any:
        if len(items) == 1 and isinstance(items[0], tuple | list):
            items = tuple(items[0])
        return super().__new__(cls, items)

    def __repr__(self) -> str:
        lines = ",\n".join(f"{name}={value!r}" for name, value in zip(self._fields, self))
        return f"faltung.return_types.{type(self).__name__}(\n{lines})"

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (tuple(self),))


class _ValuesIndices(_Named):
    """Values along a dimension, and where they stood."""

    _fields = ("values", "indices")
    __slots__ = ()

    @property
    def values(self) -> Any:
        """The values."""
        return self[0]

    @property
    def indices(self) -> Any:
        """Their positions along the dimension."""
        return self[1]


class max(_ValuesIndices):
    """Result of `max` along a dimension."""


class min(_ValuesIndices):
    """Result of `min` along a dimension."""


class sort(_ValuesIndices):
    """Result of `sort`."""


class topk(_ValuesIndices):
    """Result of `topk`."""


class median(_ValuesIndices):
    """Result of `median` along a dimension."""


class nanmedian(_ValuesIndices):
    """Result of `nanmedian` along a dimension."""


class mode(_ValuesIndices):
    """Result of `mode`."""


class kthvalue(_ValuesIndices):
    """Result of `kthvalue`."""


class cummax(_ValuesIndices):
    """Result of `cummax`."""


class cummin(_ValuesIndices):
    """Result of `cummin`."""


class aminmax(_Named):
    """Result of `aminmax`: the smallest and the largest element."""

    _fields = ("min", "max")

    @property
    def min(self) -> Any:
        """The smallest element."""
        return self[0]

    @property
    def max(self) -> Any:
        """The largest element."""
        return self[1]
