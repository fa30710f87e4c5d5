"""save and load: checkpoints in the safetensors format, written atomically, unable to run code.

A file holds the tensors by name, readable by every safetensors tool, and in its header the structure around them as
JSON (`faltung._serialized_tree`). Pickle is never written and never read.
"""

from __future__ import annotations

import json
import os
import secrets
import stat
import warnings
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from faltung.attributes import device

if TYPE_CHECKING:
    from faltung._serialized_tree import Reader

__all__ = ["load", "save"]

File = str | os.PathLike[str] | IO[bytes]

_FORMAT_VERSION = "1"
_MAX_HEADER_BYTES = 100_000_000  # what safetensors accepts
_NUMPY_TYPES = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "I64": np.int64, "I32": np.int32, "I16": np.int16,
    "I8": np.int8, "U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8, "C64": np.complex64,
}  # fmt: skip


def save(
    obj: Any,
    f: File,
    pickle_module: Any = None,
    pickle_protocol: int = 2,
    _use_new_zipfile_serialization: bool = True,
    _disable_byteorder_record: bool = False,
) -> None:
    """Writes tensors, state dicts, and nested dicts, lists and tuples of tensors, numbers and strings.

    Args: `obj`, for example `model.state_dict()` or `{"epoch": 3, "model": ..., "optimizer": optimizer.state_dict()}`;
    `f`, a path or a file opened for binary writing. The arguments about pickle are accepted and change nothing.

    A path is written atomically: a crash leaves the old file or the new one, never half of one. Tied tensors are
    written once and tied again by `load`. TypeError for values that are no data, such as a whole module.
    """
    from faltung._serialized_tree import Writer

    writer = Writer()
    tree = writer.write(obj)
    metadata = {
        "format": "faltung",
        "version": _FORMAT_VERSION,
        "tree": json.dumps(tree, ensure_ascii=False, allow_nan=False, separators=(",", ":")),
    }
    if len(metadata["tree"].encode("utf-8", "surrogatepass")) > _MAX_HEADER_BYTES // 2:
        raise ValueError(
            "save: the values around the tensors take more than 50 MB. Turn long lists of numbers into tensors."
        )
    if isinstance(f, (str, os.PathLike)):
        _write_atomically(os.fspath(f), writer.arrays, metadata)
    elif hasattr(f, "write"):
        from safetensors.numpy import save as to_bytes

        f.write(to_bytes(writer.arrays, metadata))
    else:
        raise AttributeError(
            f"save: expected a path or a file opened with mode 'wb' for f, got {type(f).__name__}: it has no write()."
        )


def _write_atomically(path: str, arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Temporary file in the same folder, fsync, rename, fsync of the folder."""
    from safetensors.numpy import save as to_bytes
    from safetensors.numpy import save_file

    target = os.path.realpath(path)  # a link keeps pointing where it points
    folder, name = os.path.split(target)
    if not os.path.isdir(folder):
        raise RuntimeError(f"save: Parent directory {folder} does not exist. Create it first: os.makedirs({folder!r}).")
    if os.path.isdir(target):
        raise IsADirectoryError(f"save: {path!r} is a folder. Give the name of a file in it.")
    mode = os.stat(target).st_mode if os.path.exists(target) else None
    if mode is not None and not stat.S_ISREG(mode):  # a pipe or a device can't be replaced by a file
        with open(target, "wb") as stream:
            stream.write(to_bytes(arrays, metadata))
        return
    temporary = os.path.join(folder, f".{name[:100]}.{secrets.token_hex(8)}.tmp")
    try:
        save_file(arrays, temporary, metadata)
        if mode is not None:
            os.chmod(temporary, stat.S_IMODE(mode))
        _flush_to_disk(temporary)
        os.replace(temporary, target)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise
    _flush_to_disk(folder)


def _flush_to_disk(path: str) -> None:
    if os.name == "nt" and os.path.isdir(path):
        return  # Windows has no handle for a folder; its rename is journalled
    descriptor = os.open(path, os.O_RDONLY if os.path.isdir(path) else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def load(
    f: File,
    map_location: Any = None,
    pickle_module: Any = None,
    *,
    weights_only: bool | None = None,
    mmap: bool | None = None,
    **pickle_load_args: Any,
) -> Any:
    """Reads what `save` wrote; of any other safetensors file, its tensors by name.

    Args: `f`, a path or a file opened for binary reading; `map_location`, which can only mean the CPU. `weights_only`,
    `mmap` and the arguments about pickle are accepted and change nothing: a checkpoint never runs code.

    FileNotFoundError if there is no such file; RuntimeError if it is truncated, damaged, or of another format,
    PyTorch's own zip and pickle files among them.
    """
    if isinstance(map_location, (str, device)) and device(map_location).type != "cpu":
        raise RuntimeError(f"load: map_location {str(map_location)!r} is no device here. Leave it out, or use 'cpu'.")
    name, data = _read_all(f)
    header = _checked_header(name, data)
    from faltung._serialized_tree import DamagedTreeError, Reader

    reader = Reader(_read_arrays(name, data, header))
    del data
    metadata = header.get("__metadata__") or {}
    if metadata.get("format") != "faltung":
        return _plain_tensors(reader, header)
    if metadata.get("version") != _FORMAT_VERSION:
        raise RuntimeError(
            f"load: {name} has checkpoint version {metadata.get('version')!r}, this Faltung reads {_FORMAT_VERSION!r}. "
            "Update Faltung."
        )
    try:
        return reader.read(json.loads(metadata["tree"]))
    except (DamagedTreeError, KeyError, ValueError, RecursionError) as error:
        raise RuntimeError(f"load: {name} is damaged: its structure can't be read ({error}).") from None


def _plain_tensors(reader: Reader, header: dict[str, Any]) -> Any:
    names = [name for name in header if name != "__metadata__"]
    return reader.read({"ordered_dict": [[name, {"tensor": name}] for name in names]})


def _read_all(f: File) -> tuple[str, bytes]:
    if isinstance(f, (str, os.PathLike)):
        path = os.fspath(f)
        try:
            with open(path, "rb") as stream:
                return repr(path), stream.read()
        except FileNotFoundError as error:
            hint = "" if os.path.isabs(path) else f" below {os.getcwd()!r}"
            raise FileNotFoundError(error.errno, f"load: no such file{hint}", path) from None
    if not hasattr(f, "read"):
        raise AttributeError(
            f"load: expected a path or a file opened with mode 'rb' for f, got {type(f).__name__}: it has no read()."
        )
    data = f.read()
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError(f"load: the file gave {type(data).__name__}, not bytes. Open it with mode 'rb'.")
    return f"the file {getattr(f, 'name', type(f).__name__)!r}", bytes(data)


def _checked_header(name: str, data: bytes) -> dict[str, Any]:
    """The header as JSON, after the cheap checks that tell a reader what is wrong."""
    foreign = _foreign_format(data)
    if foreign:
        raise RuntimeError(f"load: {name} is {foreign}")
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or (8 + length > len(data) and length <= _MAX_HEADER_BYTES):
        raise RuntimeError(
            f"load: {name} is truncated or no checkpoint: it has {len(data)} bytes, and its header alone needs "
            f"{8 + length if len(data) >= 8 else 8}. Save it again, or copy it again from where it came."
        )
    if length > _MAX_HEADER_BYTES:
        raise RuntimeError(
            f"load: {name} is no checkpoint: its first 8 bytes give a header of {length} bytes. "
            "Faltung reads files written by faltung.save or by safetensors."
        )
    try:
        header = json.loads(data[8 : 8 + length].decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise RuntimeError(f"load: {name} is damaged or no checkpoint: its header is no JSON ({error}).") from None
    if not isinstance(header, dict):
        raise RuntimeError(
            f"load: {name} is no checkpoint: its header is a JSON {type(header).__name__}, not an object."
        )
    return header


def _foreign_format(data: bytes) -> str | None:
    convert = (
        "Convert it once, where PyTorch is installed: "
        "safetensors.torch.save_file(torch.load(path, weights_only=True), 'model.safetensors'); then load that file."
    )
    if data[:4] == b"PK\x03\x04":
        return f"a zip archive, as torch.save writes: it holds pickled code, which Faltung does not run. {convert}"
    # A header of 0x480 bytes begins like a pickle of protocol 4; only safetensors has a brace as its ninth byte.
    if data[:1] == b"\x80" and data[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05") and data[8:9] != b"{":
        return f"a pickle, as older torch.save wrote: it is code, which Faltung does not run. {convert}"
    if data[:2] == b"\x1f\x8b":
        return "compressed with gzip. Unpack it first."
    if data[:6] == b"\x93NUMPY":
        return "a NumPy array. Load it with numpy.load and faltung.from_numpy."
    return None


def _read_arrays(name: str, data: bytes, header: dict[str, Any]) -> dict[str, np.ndarray]:
    """The tensors' arrays. safetensors checks offsets, lengths, shapes and that the file is covered exactly once."""
    from safetensors import SafetensorError, deserialize

    try:
        entries = deserialize(data)
    except SafetensorError as error:
        length = int.from_bytes(data[:8], "little")
        ends = [entry["data_offsets"][1] for entry in header.values() if _has_offsets(entry)]
        missing = max(ends, default=0) - (len(data) - 8 - length)
        if missing > 0:
            raise RuntimeError(
                f"load: {name} is truncated: {missing} bytes of tensor data are missing from its end. "
                "Save it again, or copy it again from where it came."
            ) from None
        raise RuntimeError(f"load: {name} is damaged: {error}.") from None
    return {key: _as_array(name, key, entry) for key, entry in entries}


def _has_offsets(entry: Any) -> bool:
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    return isinstance(offsets, list) and len(offsets) == 2 and all(isinstance(offset, int) for offset in offsets)


def _as_array(file: str, name: str, entry: dict[str, Any]) -> np.ndarray:
    kind, data, shape = entry["dtype"], entry["data"], entry["shape"]
    if kind == "BOOL":
        return (np.frombuffer(data, np.uint8) != 0).reshape(shape)  # any other byte would be no bool to NumPy
    if kind == "BF16":
        warnings.warn(
            f"load: {file}: bfloat16 tensors such as {name!r} become float32, which holds the same values.",
            stacklevel=4,
        )
        return (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(shape)
    if kind not in _NUMPY_TYPES:
        raise RuntimeError(f"load: {file}: tensor {name!r} has type {kind}, which Faltung does not hold.")
    little = np.dtype(_NUMPY_TYPES[kind]).newbyteorder("<")
    array = np.frombuffer(data, little).reshape(shape)
    return array.astype(little.newbyteorder("="), copy=False)
