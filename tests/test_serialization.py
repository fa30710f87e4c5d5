"""Checkpoints: what comes back, how files are written, and what damaged, foreign and hostile files get."""

import contextlib
import io
import json
import os
import pickle
import stat
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import faltung as torch
from faltung import nn, serialization


def round_trip(value: Any) -> Any:
    stream = io.BytesIO()
    torch.save(value, stream)
    stream.seek(0)
    return torch.load(stream)


DTYPES = (
    "bool uint8 int8 int16 int32 int64 uint16 uint32 uint64 float16 float32 float64 complex64 complex128"
).split()  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3), (2, 0, 3), (2, 3, 4, 5)], ids=str)
def test_tensors_keep_dtype_shape_and_values(dtype: str, shape: tuple[int, ...]) -> None:
    values = np.random.RandomState(0).uniform(0, 100, shape)
    array = np.asarray(values + 1j * (values + 1) if "complex" in dtype else values).astype(dtype)
    got = round_trip(torch.from_numpy(array))
    assert got.dtype is getattr(torch, dtype)
    assert tuple(got.shape) == shape
    np.testing.assert_array_equal(got.numpy(), array)


def test_layouts_and_views_keep_their_values() -> None:
    x = torch.arange(24.0).reshape(2, 3, 4)
    for view in (x.permute(2, 0, 1), x[:, 1:], x[..., ::2], x.expand(2, 3, 4), x[0, 0, 0]):
        assert torch.equal(round_trip(view), view)


def test_loaded_tensors_can_be_written() -> None:
    got = round_trip({"a": torch.zeros(3), "b": torch.zeros(2, dtype=torch.bool)})
    got["a"].add_(1)
    got["b"][0] = True
    assert got["a"].tolist() == [1, 1, 1]


def test_state_dict_keeps_order_type_and_metadata() -> None:
    state = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 1)).state_dict()
    got = round_trip(state)
    assert isinstance(got, type(state))
    assert list(got) == list(state)
    assert got._metadata == state._metadata
    assert all(torch.equal(got[key], state[key]) for key in state)


def test_names_in_the_file_are_the_keys() -> None:
    from safetensors.numpy import load

    stream = io.BytesIO()
    torch.save({"epoch": 1, "model": nn.Linear(1, 1).state_dict()}, stream)
    assert set(load(stream.getvalue())) == {"model.weight", "model.bias"}


VALUES: list[Any] = [
    None, True, 3, -(2**80), 0.1, "text", "ünïcødé \n \0", "", b"\0\xff", 2 + 3j, float("inf"), float("-inf"),
    [], {}, (), [1, [2, (3, {"a": None})]], {"a": 1, 2: "b", None: 3, (1, 2): 4, 1.5: 5, True: 6}, {1, 2},
    frozenset({3}), OrderedDict([("z", 1), ("a", 2)]), torch.float32, torch.device("cpu"), torch.Size([2, 3]),
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_plain_values(value: Any) -> None:
    got = round_trip({"value": value})["value"]
    assert got == value
    assert type(got) is type(value)
    if isinstance(value, dict):
        assert list(got) == list(value)


def test_nan() -> None:
    assert np.isnan(round_trip([float("nan")])[0])


nested = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.tuples(inner, inner),
    max_leaves=20,
)


@given(nested)
def test_any_nested_value(value: Any) -> None:
    assert round_trip(value) == value


def test_numpy_values() -> None:
    got = round_trip({"array": np.arange(3), "scalar": np.float32(1.5), "flag": np.bool_(True), "z": np.complex128(1j)})
    assert isinstance(got["array"], np.ndarray)
    assert got["array"].tolist() == [0, 1, 2]
    assert type(got["scalar"]) is np.float32
    assert got["flag"] == np.bool_(True)
    assert got["z"] == 1j


def test_parameters_and_gradient_flags() -> None:
    leaf = torch.ones(2, requires_grad=True)
    got = round_trip([nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1), requires_grad=False), leaf, leaf * 2])
    assert [type(t) for t in got] == [nn.Parameter, nn.Parameter, torch.Tensor, torch.Tensor]
    assert [t.requires_grad for t in got] == [True, False, True, True]
    assert all(t.is_leaf for t in got)


def test_tied_tensors_are_written_once_and_tied_again() -> None:
    big = torch.randn(100, 100)
    stream = io.BytesIO()
    torch.save({"a": big, "b": big, "part": big[:1]}, stream)
    assert len(stream.getvalue()) < 1.2 * big.nbytes
    stream.seek(0)
    got = torch.load(stream)
    got["a"][0, 0] = 77
    assert got["b"][0, 0].item() == 77
    assert got["part"][0, 0].item() != 77


def test_colliding_names() -> None:
    value = {
        "a.b": torch.zeros(1),
        "a": {"b": torch.ones(1)},
        "__metadata__": torch.ones(2),
        1: torch.ones(3),
        "1": torch.ones(4),
    }
    got = round_trip(value)
    assert [t.numel() for t in (got["a.b"], got["a"]["b"], got["__metadata__"], got[1], got["1"])] == [1, 1, 2, 3, 4]
    assert got["a.b"].item() == 0


def test_training_state_resumes(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    net = nn.Linear(3, 1)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1)

    def step() -> float:
        optimizer.zero_grad()
        loss = net(torch.ones(2, 3)).pow(2).sum()
        loss.backward()
        optimizer.step()
        return loss.item()

    step()
    torch.save({"epoch": 3, "model": net.state_dict(), "optimizer": optimizer.state_dict()}, path)
    expected = [step(), step()]
    kept = torch.load(path, map_location="cpu", weights_only=True)
    assert kept["epoch"] == 3
    net.load_state_dict(kept["model"])
    optimizer.load_state_dict(kept["optimizer"])
    assert [step(), step()] == expected


# ---- writing ---------------------------------------------------------------------------------------------------------


def test_paths_of_any_kind(tmp_path: Path) -> None:
    torch.save({"a": 1}, tmp_path / "x.pt")
    torch.save({"a": 2}, str(tmp_path / "x.pt"))
    assert torch.load(str(tmp_path / "x.pt")) == {"a": 2}
    with open(tmp_path / "y.pt", "wb") as stream:
        torch.save({"a": 3}, stream)
    with open(tmp_path / "y.pt", "rb") as stream:
        assert torch.load(stream) == {"a": 3}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.pt", "y.pt"]


def test_failure_keeps_the_old_file_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.pt"
    torch.save({"a": 1}, path)

    def fail(*args: Any) -> None:
        raise OSError("disk full")

    for function in ("replace", "fsync"):
        with monkeypatch.context() as patch:
            patch.setattr(serialization.os, function, fail)
            with pytest.raises(OSError, match="disk full"):
                torch.save({"a": 2}, path)
        assert torch.load(path) == {"a": 1}
        assert [p.name for p in tmp_path.iterdir()] == ["x.pt"]


def test_data_reaches_the_disk_before_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (events.append("fsync"), fsync(fd))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (events.append("rename"), replace(a, b))[1])
    torch.save({"a": 1}, tmp_path / "x.pt")
    assert events == ["fsync", "rename", "fsync"]


def test_mode_and_links_of_an_existing_file_stay(tmp_path: Path) -> None:
    target, link = tmp_path / "target.pt", tmp_path / "link.pt"
    torch.save(1, target)
    target.chmod(0o640)
    link.symlink_to(target)
    torch.save(2, link)
    assert link.is_symlink()
    assert torch.load(target) == 2
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


class Custom:
    pass


recursive: list[Any] = []
recursive.append(recursive)

UNSAVABLE = [
    (nn.Linear(1, 1), TypeError, r"model.state_dict\(\)"),
    ({"a": [Custom()]}, TypeError, r"test_serialization.Custom at 'a.0'"),
    (lambda x: x, TypeError, "function"),
    (recursive, ValueError, "contains itself"),
    ({(1, ("x", Custom())): 1}, TypeError, "Custom"),
    (np.array(["a"]), TypeError, "ndarray"),
    (nn.UninitializedParameter(), RuntimeError, "has no shape yet"),
]


@pytest.mark.parametrize(("value", "kind", "message"), UNSAVABLE)
def test_unsavable_values(value: Any, kind: type[Exception], message: str, tmp_path: Path) -> None:
    with pytest.raises(kind, match=message):
        torch.save(value, tmp_path / "x.pt")
    assert list(tmp_path.iterdir()) == []


def test_bad_targets(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"Parent directory .* does not exist"):
        torch.save(1, tmp_path / "no" / "x.pt")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        torch.save(1, tmp_path)
    with pytest.raises(AttributeError, match="has no write"):
        torch.save(1, 3)
    with pytest.raises(TypeError):
        torch.save(1, io.StringIO())


# ---- reading what is damaged, foreign or hostile ---------------------------------------------------------------------


def file(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def tree(value: Any) -> bytes:
    text = value if isinstance(value, str) else json.dumps(value)
    return file({"__metadata__": {"format": "faltung", "version": "1", "tree": text}})


def entry(shape: list[int], offsets: list[int], dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def archive() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as z:
        z.writestr("archive/data.pkl", b"x")
    return stream.getvalue()


GOOD = file({"a": entry([2], [0, 8])}, b"\0" * 8)
HOSTILE: list[tuple[str, bytes, str]] = [
    ("empty", b"", "truncated"),
    ("short", b"\0" * 5, "truncated"),
    ("header cut", GOOD[:20], "truncated"),
    ("data cut", GOOD[:-3], "truncated: 3 bytes"),
    ("data too long", GOOD + b"x", "damaged"),
    ("zip", archive(), "zip archive, as torch.save writes.*safetensors.torch.save_file"),
    ("pickle", pickle.dumps({"a": 1}), "pickle.*does not run"),
    ("gzip", b"\x1f\x8b" + b"\0" * 30, "gzip"),
    ("npy", b"\x93NUMPY" + b"\0" * 30, "numpy.load"),
    ("noise", bytes(np.random.RandomState(0).randint(0, 256, 4096, dtype=np.uint8)), "no checkpoint"),
    ("text", b"hello, this is no checkpoint at all", "no checkpoint"),
    ("huge header", (2**63).to_bytes(8, "little") + b"\0" * 50, "no checkpoint"),
    ("no JSON", file(b"{nope}"), "no JSON"),
    ("no UTF-8", file(b"\xff\xfe\xfd"), "no JSON"),
    ("deep JSON", file(b"[" * 100_000), "no JSON|no checkpoint"),
    ("JSON list", file([1, 2]), "a JSON list"),
    ("overlap", file({"a": entry([2], [0, 8]), "b": entry([2], [4, 12])}, b"\0" * 12), "damaged"),
    ("gap", file({"a": entry([2], [4, 12])}, b"\0" * 12), "damaged"),
    ("backwards", file({"a": entry([2], [8, 0])}, b"\0" * 8), "damaged"),
    ("overflow", file({"a": entry([2**62, 16], [0, 8])}, b"\0" * 8), "damaged"),
    ("negative", file({"a": entry([-2], [0, 8])}, b"\0" * 8), "damaged"),
    ("offsets far away", file({"a": entry([2], [0, 2**60])}, b"\0" * 8), "truncated|damaged"),
    ("wrong length", file({"a": entry([3], [0, 8])}, b"\0" * 8), "damaged"),
    ("unknown type", file({"a": entry([2], [0, 8], "X32")}, b"\0" * 8), "damaged"),
    ("type we lack", file({"a": entry([8], [0, 8], "F8_E5M2")}, b"\0" * 8), "does not hold"),
    ("entry no object", file({"a": 3}), "damaged"),
    ("metadata no strings", file({"__metadata__": {"a": 3}}), "damaged"),
    ("future version", file({"__metadata__": {"format": "faltung", "version": "99", "tree": "1"}}), "Update Faltung"),
    ("no tree", file({"__metadata__": {"format": "faltung", "version": "1"}}), "structure"),
    ("tree no JSON", tree("nope"), "structure"),
    ("tree names no tensor", tree({"tensor": "absent"}), "structure"),
    ("tree of unknown kind", tree({"__reduce__": ["os.system", "true"]}), "structure"),
    ("tree with a list", tree([1, 2]), "structure"),
    ("tree of empty object", tree({}), "structure"),
    ("tree too deep", tree('{"list":[' * 5000 + "]}" * 5000), "structure"),
    ("tree deep enough for Python", tree('{"list":[' * 400 + "]}" * 400), "structure"),
    ("unhashable key", tree({"dict": [[{"list": []}, 1]]}), "structure"),
    ("pairs of three", tree({"dict": [[1, 2, 3]]}), "structure"),
    ("no dtype", tree({"dtype": "__builtins__"}), "structure"),
    ("dtype of functions", tree({"dtype": "result_type"}), "structure"),
    ("odd device", tree({"device": "nowhere"}), "structure"),
    ("odd bytes", tree({"bytes": "%%%"}), "structure"),
    ("odd float", tree({"float": "x"}), "structure"),
    ("odd size", tree({"size": ["x"]}), "structure"),
    ("huge integer", tree("9" * 10_000), "structure"),
]


@pytest.mark.parametrize(("data", "message"), [row[1:] for row in HOSTILE], ids=[row[0] for row in HOSTILE])
def test_hostile_files(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(data)
    with pytest.raises(RuntimeError, match=message) as error:
        torch.load(path)
    assert "x.pt" in str(error.value)
    with pytest.raises(RuntimeError, match=message):
        torch.load(io.BytesIO(data))


def test_every_truncation_is_noticed() -> None:
    stream = io.BytesIO()
    torch.save({"epoch": 1, "model": nn.Linear(3, 2).state_dict()}, stream)
    data = stream.getvalue()
    for length in range(len(data)):
        with pytest.raises(RuntimeError, match="load:"):
            torch.load(io.BytesIO(data[:length]))


def test_flipped_bytes_never_crash() -> None:
    stream = io.BytesIO()
    torch.save({"epoch": [1, {"a": 2.5}], "model": nn.Linear(3, 2).state_dict()}, stream)
    data = stream.getvalue()
    random = np.random.RandomState(0)
    for _ in range(300):
        broken = bytearray(data)
        broken[random.randint(len(broken))] = random.randint(256)
        with contextlib.suppress(RuntimeError):  # anything else fails the test
            torch.load(io.BytesIO(bytes(broken)))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pt"):
        torch.load(tmp_path / "nowhere.pt")
    with pytest.raises(FileNotFoundError, match="below"):
        torch.load("nowhere-at-all.pt")


def test_bad_sources(tmp_path: Path) -> None:
    with pytest.raises(AttributeError, match="has no read"):
        torch.load(3)
    with pytest.raises(TypeError, match="mode 'rb'"):
        torch.load(io.StringIO("x"))
    with pytest.raises(IsADirectoryError):
        torch.load(tmp_path)
    with pytest.raises(RuntimeError, match="map_location 'cuda' is no device here"):
        torch.load(io.BytesIO(GOOD), map_location="cuda")


def test_a_pickle_is_not_run(tmp_path: Path) -> None:
    class Exploit:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
            return os.mkdir, (str(tmp_path / "made"),)

    with pytest.raises(RuntimeError, match="pickle"):
        torch.load(io.BytesIO(pickle.dumps(Exploit())), weights_only=False)
    assert not (tmp_path / "made").exists()


def test_safetensors_of_others() -> None:
    data = file(
        {"__metadata__": {"format": "pt"}, "z": entry([2], [0, 8]), "a": entry([3], [8, 11], "BOOL")},
        np.array([1, 2], np.float32).tobytes() + b"\x00\x01\x07",
    )
    got = torch.load(io.BytesIO(data), map_location=lambda storage, place: storage)
    assert list(got) == ["z", "a"]
    assert got["z"].tolist() == [1, 2]
    assert got["a"].tolist() == [False, True, True]


def test_bfloat16_becomes_float32() -> None:
    data = file({"a": entry([2], [0, 4], "BF16")}, np.array([0x3F80, 0xC020], np.uint16).tobytes())
    with pytest.warns(UserWarning, match="become float32"):
        got = torch.load(io.BytesIO(data))
    assert got["a"].dtype is torch.float32
    assert got["a"].tolist() == [1.0, -2.5]


@pytest.mark.torch
def test_files_of_torch_and_safetensors(tmp_path: Path) -> None:
    real = pytest.importorskip("torch")
    from safetensors.torch import load_file, save_file

    state = real.nn.Linear(3, 2).state_dict()
    real.save(state, tmp_path / "zip.pt")
    real.save(state, tmp_path / "legacy.pt", _use_new_zipfile_serialization=False)
    for name in ("zip.pt", "legacy.pt"):
        with pytest.raises(RuntimeError, match=r"safetensors\.torch\.save_file"):
            torch.load(tmp_path / name)
    save_file(state, tmp_path / "x.safetensors")
    net = nn.Linear(3, 2)
    net.load_state_dict(torch.load(tmp_path / "x.safetensors"))
    np.testing.assert_array_equal(net.weight.detach().numpy(), state["weight"].numpy())
    torch.save(net.state_dict(), tmp_path / "ours.safetensors")
    assert real.equal(load_file(tmp_path / "ours.safetensors")["bias"], state["bias"])
