"""Nested values as JSON beside the tensors they hold: what a checkpoint's header says about its structure.

Scalars and strings stand for themselves. Everything else is an object whose first key is its kind:

    {"dict": [[key, value], ...]}    {"list": [...]}    {"tuple": [...]}    {"tensor": name, ...}    {"float": "nan"}

Reading builds only these kinds, so a checkpoint can't make anything run.
"""

from __future__ import annotations

import base64
import math
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from faltung import dtypes
from faltung.attributes import Size, device
from faltung.nn.modules.module import Module
from faltung.nn.parameter import Buffer, Parameter, is_lazy
from faltung.tensor import Tensor

MAX_DEPTH = 100


class Writer:
    """Turns a value into JSON, and collects the arrays it meets under names made of their path."""

    def __init__(self) -> None:
        self.arrays: dict[str, np.ndarray] = {}
        self._names: dict[tuple[Any, ...], str] = {}  # memory -> name, so that tied tensors are written once
        self._open: list[int] = []  # ids of the containers around the present value

    def write(self, value: Any, path: str = "") -> Any:
        """The JSON form of `value`, which stands at `path`. TypeError for what a checkpoint can't hold."""
        if value is None or (isinstance(value, (bool, str)) and type(value) in (bool, str)):
            return value
        if type(value) is int:
            return value
        if type(value) is float:
            return value if math.isfinite(value) else {"float": repr(value)}
        if isinstance(value, Tensor):
            return self._tensor(value, path)
        if isinstance(value, (np.ndarray, np.generic)):  # before complex, which np.complex128 derives from
            return self._numpy(value, path)
        for kind, encode in _LEAVES:
            if isinstance(value, kind):
                return encode(value)
        return self._container(value, path)

    def _container(self, value: Any, path: str) -> Any:
        if id(value) in self._open:
            raise ValueError(f"save: the value at {path or 'the top'!r} contains itself. Save its parts instead.")
        if len(self._open) >= MAX_DEPTH:
            raise ValueError(f"save: values are nested more than {MAX_DEPTH} deep at {path!r}. Flatten them.")
        self._open.append(id(value))
        try:
            if isinstance(value, dict):
                return self._dict(value, path)
            if type(value) in (list, tuple, set, frozenset):
                items = [self.write(item, _join(path, i)) for i, item in enumerate(value)]
                return {type(value).__name__: items}
        finally:
            self._open.pop()
        raise TypeError(_cannot_save(value, path))

    def _dict(self, value: dict[Any, Any], path: str) -> Any:
        items = [[self._key(key, path), self.write(item, _join(path, key))] for key, item in value.items()]
        if not isinstance(value, OrderedDict):
            return {"dict": items}
        metadata = getattr(value, "_metadata", None)
        if metadata is None:
            return {"ordered_dict": items}
        return {"state_dict": items, "metadata": self.write(dict(metadata), _join(path, "_metadata"))}

    def _key(self, key: Any, path: str) -> Any:
        if isinstance(key, (Tensor, dict, list)):
            raise TypeError(f"save: a dict key at {path!r} is a {type(key).__name__}. Use strings or numbers as keys.")
        return self.write(key, path)

    def _tensor(self, tensor: Tensor, path: str) -> Any:
        if is_lazy(tensor):
            raise RuntimeError(f"save: {path!r} has no shape yet. Run the lazy module once on an example first.")
        node: dict[str, Any] = {"tensor": self._array(tensor._data, path)}
        if isinstance(tensor, (Parameter, Buffer)):
            node["class"] = "Parameter" if isinstance(tensor, Parameter) else "Buffer"
        if isinstance(tensor, Buffer):
            node["persistent"] = tensor.persistent
        if tensor.requires_grad:
            node["requires_grad"] = True
        if tensor._data.dtype.kind == "c":
            node["complex"] = True
        return node

    def _numpy(self, value: Any, path: str) -> Any:
        array = np.asarray(value)
        if array.dtype.kind not in "biufc":
            raise TypeError(_cannot_save(value, path))
        node: dict[str, Any] = {"numpy": self._array(array, path), "scalar": isinstance(value, np.generic)}
        if array.dtype.kind == "c":
            node["complex"] = True
        return node

    def _array(self, array: np.ndarray, path: str) -> str:
        """The name under which this memory is (or already was) put into `arrays`."""
        memory = (array.__array_interface__["data"][0], array.shape, array.strides, array.dtype.str)
        if array.size and memory in self._names:
            return self._names[memory]
        name = path or "tensor"
        name = next(n for n in _variants(name) if n not in self.arrays)
        self._names[memory] = name
        plain = np.ascontiguousarray(array).reshape(array.shape)
        self.arrays[name] = _real_pairs(plain) if array.dtype.kind == "c" else plain
        return name


def _join(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)


def _variants(name: str) -> Iterable[str]:
    name = f"{name}_" if name == "__metadata__" else name
    yield name
    i = 1
    while True:
        yield f"{name}#{i}"
        i += 1


def _real_pairs(array: np.ndarray) -> np.ndarray:
    """Complex numbers as a last dimension (real, imaginary)."""
    real = np.float32 if array.dtype == np.complex64 else np.float64
    return array.reshape(-1).view(real).reshape(*array.shape, 2)


def _cannot_save(value: Any, path: str) -> str:
    where = f" at {path!r}" if path else ""
    if isinstance(value, Module):
        return (
            f"save: a checkpoint holds data, never code, so it can't hold the module {type(value).__name__}{where}. "
            "Save model.state_dict(), and load it with model.load_state_dict(faltung.load(path))."
        )
    return (
        f"save: can't save a {type(value).__module__}.{type(value).__qualname__}{where}. A checkpoint holds tensors, "
        "numbers, strings, None, and dicts, lists and tuples of them: convert it to one of these."
    )


_LEAVES: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
    (dtypes.dtype, lambda value: {"dtype": value.name}),
    (device, lambda value: {"device": str(value)}),
    (Size, lambda value: {"size": list(value)}),
    (complex, lambda value: {"complex": [repr(value.real), repr(value.imag)]}),
    (bytes, lambda value: {"bytes": base64.b64encode(value).decode("ascii")}),
)


class DamagedTreeError(ValueError):
    """The structure in a checkpoint's header makes no sense."""


class Reader:
    """Builds the value again from its JSON and the arrays."""

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        self._arrays = arrays
        self._made: dict[str, Tensor] = {}

    def read(self, node: Any, depth: int = 0) -> Any:
        """The value that `node` describes; DamagedTreeError if it describes none."""
        if node is None or isinstance(node, (bool, int, float, str)):
            return node
        if depth > 2 * MAX_DEPTH or not isinstance(node, dict) or not node:
            raise DamagedTreeError(f"unexpected {type(node).__name__} at depth {depth}")
        kind, content = next(iter(node.items()))
        try:
            if kind in ("list", "tuple", "set", "frozenset"):
                return _SEQUENCES[kind](self.read(item, depth + 1) for item in content)
            if kind in ("dict", "ordered_dict", "state_dict"):
                return self._dict(kind, content, node, depth)
            if kind == "tensor":
                return self._tensor(content, node)
            if kind == "numpy":
                array = self._array(content, node)
                return array[()] if node.get("scalar") else array
            return _READERS[kind](content)
        except DamagedTreeError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, AssertionError) as error:
            raise DamagedTreeError(f"{kind}: {error}") from None

    def _dict(self, kind: str, items: Any, node: dict[str, Any], depth: int) -> Any:
        result: Any = _MAPPINGS[kind]()
        for key, value in items:
            result[self.read(key, depth + 1)] = self.read(value, depth + 1)
        if kind == "state_dict":
            result._metadata = OrderedDict(self.read(node["metadata"], depth + 1))
        return result

    def _array(self, name: str, node: dict[str, Any]) -> np.ndarray:
        array = self._arrays[name]
        if not node.get("complex"):
            return array
        if array.shape[-1:] != (2,) or array.dtype not in (np.float32, np.float64):
            raise DamagedTreeError(f"{name}: no pairs of real and imaginary parts")
        return array.view(np.complex64 if array.dtype == np.float32 else np.complex128)[..., 0]

    def _tensor(self, name: str, node: dict[str, Any]) -> Tensor:
        kind = node.get("class")
        requires_grad = bool(node.get("requires_grad"))
        if name not in self._made:
            self._made[name] = Tensor._wrap(self._array(name, node))
        tensor = self._made[name].detach()  # tied tensors share memory again
        if kind == "Parameter":
            return Parameter(tensor, requires_grad)
        if kind == "Buffer":
            return Buffer(tensor, persistent=bool(node.get("persistent", True))).requires_grad_(requires_grad)
        return tensor.requires_grad_(requires_grad)


def _read_dtype(name: Any) -> dtypes.dtype:
    found = getattr(dtypes, name)
    if not isinstance(found, dtypes.dtype):
        raise DamagedTreeError(f"no dtype {name!r}")
    return found


_SEQUENCES: dict[str, Callable[[Any], Any]] = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}
_MAPPINGS: dict[str, Callable[[], Any]] = {"dict": dict, "ordered_dict": OrderedDict, "state_dict": OrderedDict}
_READERS: dict[str, Callable[[Any], Any]] = {
    "float": float,
    "dtype": _read_dtype,
    "device": device,
    "size": lambda sizes: Size(int(size) for size in sizes),
    "complex": lambda parts: complex(float(parts[0]), float(parts[1])),
    "bytes": lambda text: base64.b64decode(text, validate=True),
}
