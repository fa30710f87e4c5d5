"""hub: weights by address, kept in a folder."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

import faltung
from faltung import hub
from faltung.utils import model_zoo


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "weights"
    faltung.save({"w": faltung.arange(3)}, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return path.rename(tmp_path / f"net-{digest[:8]}.safetensors")


def test_downloaded_once(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        state = model_zoo.load_url(weights.as_uri(), model_dir=str(tmp_path / "kept"), check_hash=True)
        assert state["w"].tolist() == [0, 1, 2]
    assert capsys.readouterr().err.count("Downloading") == 1
    assert [path.name for path in (tmp_path / "kept").iterdir()] == [weights.name]


def test_wrong_hash_leaves_nothing(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r'invalid hash value \(expected "00"'):
        hub.download_url_to_file(weights.as_uri(), str(tmp_path / "copy"), "00", progress=False)
    assert [path.name for path in tmp_path.iterdir()] == [weights.name]


def test_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(hub, "_hub_dir", None)
    monkeypatch.setenv("TORCH_HOME", "/somewhere")
    assert hub.get_dir() == "/somewhere/hub"
    hub.set_dir(tmp_path)
    assert faltung.hub.get_dir() == str(tmp_path)
