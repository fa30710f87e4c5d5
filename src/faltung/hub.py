"""Weights from the network, kept in a folder: `load_state_dict_from_url` and what it is made of.

Files are read by `faltung.load`: safetensors, never pickles.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import sys
from typing import Any
from urllib.parse import urlparse

__all__ = ["download_url_to_file", "get_dir", "load_state_dict_from_url", "set_dir"]

_HASH_IN_NAME = re.compile(r"-([a-f0-9]*)\.")  # resnet18-5c106cde.safetensors
_BLOCK_BYTES = 1 << 17
_hub_dir: str | None = None


def _get_torch_home() -> str:
    cache = os.getenv("XDG_CACHE_HOME", os.path.join("~", ".cache"))
    return os.path.expanduser(os.getenv("TORCH_HOME", os.path.join(cache, "torch")))


def get_dir() -> str:
    """The folder of downloads: what `set_dir` set, else `$TORCH_HOME/hub`, else `~/.cache/torch/hub`."""
    return _hub_dir if _hub_dir is not None else os.path.join(_get_torch_home(), "hub")


def set_dir(d: str | os.PathLike[str]) -> None:
    """Set the folder of downloads for this process."""
    global _hub_dir
    _hub_dir = os.path.expanduser(os.fspath(d))


def download_url_to_file(url: str, dst: str, hash_prefix: str | None = None, progress: bool = True) -> None:
    """Download `url` to the path `dst`, which appears only when the file is complete.

    Args:
        url: the address.
        dst: the path of the file.
        hash_prefix: how the SHA-256 of the file must begin, in hexadecimal digits; RuntimeError if it doesn't.
        progress: print the number of bytes received to stderr.
    """
    from urllib.request import Request, urlopen

    target = os.path.expanduser(dst)
    temporary = f"{target}.{secrets.token_hex(8)}.partial"
    digest = hashlib.sha256()
    try:
        with urlopen(Request(url, headers={"User-Agent": "faltung"})) as source, open(temporary, "wb") as sink:
            received = 0
            while block := source.read(_BLOCK_BYTES):
                sink.write(block)
                digest.update(block)
                received += len(block)
                if progress:
                    sys.stderr.write(f"\r{received / 1e6:.1f} MB")
        if progress:
            sys.stderr.write("\n")
        found = digest.hexdigest()
        if hash_prefix and not found.startswith(hash_prefix):
            raise RuntimeError(
                f'download_url_to_file: invalid hash value (expected "{hash_prefix}", got "{found}") for {url}. '
                "The file was damaged on its way or replaced: download it again, or correct the hash."
            )
        os.replace(temporary, target)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


def load_state_dict_from_url(
    url: str,
    model_dir: str | None = None,
    map_location: Any = None,
    progress: bool = True,
    check_hash: bool = False,
    file_name: str | None = None,
    weights_only: bool = False,
) -> Any:
    """The state dict of a safetensors file at `url`, downloaded once and kept.

    Args:
        url: its address.
        model_dir: the folder to keep it in; default `get_dir() + "/checkpoints"`.
        map_location: as in `faltung.load`.
        progress: print the progress to stderr.
        check_hash: compare the file's SHA-256 with the digits in its name, `name-<sha256>.ext`.
        file_name: the name to keep it under; default the one in the URL.
        weights_only: accepted; a checkpoint never runs code.
    """
    from faltung.serialization import load

    folder = model_dir if model_dir is not None else os.path.join(get_dir(), "checkpoints")
    os.makedirs(folder, exist_ok=True)
    name = file_name if file_name is not None else os.path.basename(urlparse(url).path)
    path = os.path.join(folder, name)
    if not os.path.exists(path):
        sys.stderr.write(f'Downloading: "{url}" to {path}\n')
        digits = _HASH_IN_NAME.search(name) if check_hash else None
        download_url_to_file(url, path, digits.group(1) if digits else None, progress)
    return load(path, map_location=map_location, weights_only=weights_only)
