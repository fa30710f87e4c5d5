"""IR to machine code, kept in memory and on disk.

A kernel is asked for by `spec`, a printable value that (with this package's own source, the chip and LLVM's version)
determines its code; so a warm start loads machine code without building any IR. Files lie under the user's cache folder
(FALTUNG_CACHE overrides it), are written atomically, carry a checksum, are rebuilt when damaged, and are never read
from a folder or file that another user owns or could write.
"""

from __future__ import annotations

import gc
import hashlib
import os
import stat
import tempfile
import threading
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding as llvm

from faltung.engine import debug
from faltung.engine.marks import SCHEDULED
from faltung.engine.target import Target, host

_MAGIC = b"faltung-object-1"
_lock = threading.RLock()
_addresses: dict[tuple[str, str], int] = {}  # of symbols and their specs


def address(symbol: str, spec: object, build: Callable[[], str]) -> int:
    """Address of the machine code of `symbol` for `spec` on this chip; `build()` returns its
    LLVM IR if it is needed.
    """
    found = _addresses.get((symbol, str(spec)))
    return addresses((symbol,), spec, build)[0] if found is None else found


def addresses(symbols: tuple[str, ...], spec: object, build: Callable[[], str]) -> tuple[int, ...]:
    """As `address`, for several functions of one piece of code."""
    keys = [(symbol, str(spec)) for symbol in symbols]
    with _lock:
        if not all(key in _addresses for key in keys):
            _addresses.update(zip(keys, _load(symbols, f"{' '.join(symbols)} {spec}", build), strict=True))
        return tuple(_addresses[key] for key in keys)


def assembly(ir_text: str, target: Target) -> str:
    """Assembly of a kernel for any target: for tests and for reading."""
    machine = _machine(target)
    return str(machine.emit_assembly(_optimised(ir_text, machine, target)))


def _load(symbols: tuple[str, ...], key: str, build: Callable[[], str]) -> list[int]:
    target = host()
    digest = hashlib.sha256("\0".join((generator_version(), target.cpu, target.features, key)).encode()).hexdigest()
    folder = cache_folder()
    path = folder / f"{digest}.o" if folder else None
    code = read_kept(path) if path else None
    debug.say(3, f"{'loaded' if code else 'building'} {key}")
    if code is None:
        ir_text = _without_collections(build)
        debug.say(5, ir_text)
        if debug.LEVEL >= 6:
            debug.say(6, assembly(ir_text, target))
        machine = _machine(target)
        code = machine.emit_object(_optimised(ir_text, machine, target))
        if path:
            write_kept(path, code)
    return _link(symbols, code)


def _without_collections(build: Callable[[], str]) -> str:
    """Python's collector finds nothing to free among the many objects of a module being built, and adds a fifth."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        return build()
    finally:
        if collecting:
            gc.enable()


def _link(symbols: tuple[str, ...], code: bytes) -> list[int]:
    """Place one object file in memory; each has an execution engine of its own, so symbols never clash."""
    module = llvm.parse_assembly("")
    engine = llvm.create_mcjit_compiler(module, _host_machine_for_linking())
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    _engines.append(engine)
    return [int(engine.get_function_address(symbol)) for symbol in symbols]


_engines: list[Any] = []  # machine code lives as long as its engine


def _host_machine_for_linking() -> Any:
    _initialise()
    return llvm.Target.from_default_triple().create_target_machine(opt=0, jit=True)


@lru_cache(maxsize=1)
def _initialise() -> None:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()


@lru_cache(maxsize=8)
def _machine(target: Target) -> Any:
    _initialise()
    if target is not host():
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
    chip = llvm.Target.from_triple(target.triple)
    # On x86, MCJIT may map code and constants more than 2 GiB apart, so that addresses must not be relative and 32 bits
    # wide; on ARM llvmlite keeps them together.
    wide = target.triple.startswith("x86_64")
    reloc, model = ("static", "large") if wide else ("pic", "small")
    return chip.create_target_machine(cpu=target.cpu, features=target.features, opt=3, reloc=reloc, codemodel=model)


def _optimised(ir_text: str, machine: Any, target: Target) -> Any:
    """Parse, verify and clean up: scalar passes only, since vectoriser, SLP and unroller would undo the register plan.

    Kernels that call `Emitter.is_scheduled` get no more than instruction combining: on the direct convolutions the
    standard passes take 8 times as long and cost 1 to 8% of the speed.
    """
    module = llvm.parse_assembly(ir_text)
    module.triple = target.triple
    module.data_layout = str(machine.target_data)
    module.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    options.loop_vectorization = False
    options.slp_vectorization = False
    options.loop_unrolling = False
    options.loop_interleaving = False
    builder = llvm.create_pass_builder(machine, options)
    if SCHEDULED in ir_text:
        passes = llvm.create_new_module_pass_manager()
        passes.add_instruction_combine_pass()
    else:
        passes = builder.getModulePassManager()
    passes.run(module, builder)
    return module


@lru_cache(maxsize=1)
def generator_version() -> str:
    """Digest of everything that shapes the code: this package's source and LLVM's version."""
    digest = hashlib.sha256(f"{llvmlite.__version__} {llvm.llvm_version_info}".encode())
    here = Path(__file__).parent
    for path in sorted([*here.glob("*.py"), *here.glob("kernels/*.py")]):
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _after_fork_in_child() -> None:
    """A lock that another thread held at the fork would stay locked."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


@lru_cache(maxsize=1)
def cache_folder() -> Path | None:
    """The cache folder if it is ours alone, None if code must stay in memory."""
    override = os.environ.get("FALTUNG_CACHE")
    if override:
        folder = Path(override)
    else:
        import platformdirs

        folder = Path(platformdirs.user_cache_dir("faltung", appauthor=False)) / "kernels"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        debug.say(1, f"kernels are kept in memory only: {error}")
        return None
    if not _is_ours(folder):
        debug.say(1, f"kernels are kept in memory only: {folder} belongs to, or can be written by, another user")
        return None
    return folder


def _is_ours(path: Path) -> bool:
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        return False
    if not hasattr(os, "getuid"):
        return True
    return status.st_uid == os.getuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def read_kept(path: Path) -> bytes | None:
    """The content of a cache file, or None if there is none, it is not ours, or it is damaged."""
    try:
        if not _is_ours(path):
            return None
        content = path.read_bytes()
    except OSError:
        return None
    start = len(_MAGIC) + 32
    code = content[start:]
    if content[: len(_MAGIC)] != _MAGIC or hashlib.sha256(code).digest() != content[len(_MAGIC) : start]:
        debug.say(1, f"{path} is damaged; building anew")
        return None
    return code


def write_kept(path: Path, code: bytes) -> None:
    """Put a file in place in one step; a cache that can't be written is no error."""
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(_MAGIC + hashlib.sha256(code).digest() + code)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        debug.say(1, f"cannot keep {path}: {error}")
