"""The kernel cache: warm starts build nothing; what is damaged, foreign or writable by others is not trusted."""

import os
import struct
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from faltung.engine import jit, team
from faltung.engine.emit import Emitter
from faltung.engine.kernel import address
from faltung.engine.target import host


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache folder, and nothing in memory."""
    place = tmp_path / "kernels"
    monkeypatch.setenv("FALTUNG_CACHE", str(place))
    monkeypatch.setattr(jit, "_addresses", {})
    jit.cache_folder.cache_clear()
    yield place
    jit.cache_folder.cache_clear()


class Builds:
    """Builds the kernel x[0] += `amount`, and counts how often it was asked to."""

    def __init__(self, amount: float = 1.0) -> None:
        self.count, self.amount = 0, amount

    def __call__(self) -> str:
        self.count += 1
        e = Emitter("increment", ["x"], host())
        place = e.pointer("x")
        place.store(place.load() + self.amount)
        return e.finish()

    def run(self) -> None:
        """Get the code as a new process would, and check that it works."""
        jit._addresses.clear()
        function = jit.address("increment", f"amount={self.amount}", self)
        x = np.full(1, 5.0, np.float32)
        team.run(function, address(x).to_bytes(8, sys.byteorder), 1)
        assert x[0] == 5.0 + self.amount


def run_and_find(build: Builds, folder: Path) -> Path:
    """The file that holds the code of `build`, which is compiled now."""
    before = set(folder.iterdir()) if folder.exists() else set()
    jit._addresses.clear()
    jit.address("increment", f"amount={build.amount}", build)
    (path,) = set(folder.iterdir()) - before
    return path


def test_a_warm_start_builds_nothing(folder: Path) -> None:
    build = Builds()
    run_and_find(build, folder)
    assert build.count == 1
    build.run()
    build.run()
    assert build.count == 1


def test_once_per_process(folder: Path) -> None:
    build = Builds()
    first = jit.address("increment", "x", build)
    assert jit.address("increment", "x", build) == first
    assert build.count == 1


def test_another_schedule_is_another_file(folder: Path) -> None:
    assert run_and_find(Builds(1.0), folder) != run_and_find(Builds(2.0), folder)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:10],
        lambda data: data[:-1],
        lambda data: data + b"x",
        lambda data: data[:-20] + bytes([data[-20] ^ 1]) + data[-19:],
        lambda data: b"x" + data[1:],
        lambda data: data.replace(b"ELF", b"EXE"),
    ],
    ids=["empty", "head only", "cut", "grown", "one bit", "magic", "object"],
)
def test_damaged_files_are_built_anew(folder: Path, damage: Callable[[bytes], bytes]) -> None:
    build = Builds()
    path = run_and_find(build, folder)
    whole = path.read_bytes()
    harmed = damage(whole)
    if harmed == whole:
        pytest.skip("another object format")
    path.write_bytes(harmed)
    build.run()
    assert build.count == 2
    assert path.read_bytes() == whole
    build.run()
    assert build.count == 2


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="owners and modes of POSIX")
def test_files_that_others_may_write_are_not_read(folder: Path) -> None:
    build = Builds()
    path = run_and_find(build, folder)
    path.chmod(0o666)
    build.run()
    assert build.count == 2


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can give files away")
def test_files_of_others_are_not_read(folder: Path) -> None:
    build = Builds()
    path = run_and_find(build, folder)
    os.chown(path, 12345, 12345)
    build.run()
    assert build.count == 2


@pytest.mark.skipif(not hasattr(os, "symlink") or sys.platform == "win32", reason="links of POSIX")
def test_links_are_not_followed(folder: Path, tmp_path: Path) -> None:
    build = Builds()
    path = run_and_find(build, folder)
    path.rename(tmp_path / "elsewhere.o")
    path.symlink_to(tmp_path / "elsewhere.o")
    build.run()
    assert build.count == 2


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="owners and modes of POSIX")
def test_a_folder_that_others_may_write_is_not_used(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)
    build = Builds()
    build.run()
    build.run()
    assert build.count == 2
    assert not list(folder.iterdir())


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can give folders away")
def test_a_folder_of_others_is_not_used(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    os.chown(folder, 12345, 12345)
    Builds().run()
    assert not list(folder.iterdir())


def test_a_new_folder_is_closed_to_others(folder: Path) -> None:
    Builds().run()
    assert folder.stat().st_mode & 0o077 == 0


def test_a_folder_that_cannot_be_made(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("FALTUNG_CACHE", str(tmp_path / "file" / "kernels"))
    Builds().run()


def test_a_folder_that_vanishes(folder: Path) -> None:
    run_and_find(Builds(), folder)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    Builds(3.0).run()


def test_no_temporary_files_stay(folder: Path) -> None:
    Builds().run()
    assert {path.suffix for path in folder.iterdir()} == {".o"}


def test_several_processes_at_once(folder: Path) -> None:
    script = textwrap.dedent("""
        import numpy as np
        from faltung.engine import registry
        x = np.arange(-500, 500, dtype=np.float32)
        assert (registry.call("activation.relu_forward", x) == np.maximum(x, 0)).all()
        y = registry.call("softmax.forward", x.reshape(10, 100), 1)
        assert np.allclose(y.sum(1), 1)
    """)
    processes = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(4)]
    assert [process.wait(120) for process in processes] == [0] * 4
    assert {path.suffix for path in folder.iterdir()} == {".o"}


def test_importing_the_library_loads_no_compiler() -> None:
    script = "import sys, faltung, faltung.nn, faltung.optim; assert 'llvmlite' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_without_llvmlite_the_reference_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    script = textwrap.dedent("""
        import sys
        sys.modules["llvmlite"] = None
        import numpy as np
        from faltung.engine import registry
        x = np.array([-1.0, 2.0], np.float32)
        assert registry.call("activation.relu_forward", x).tolist() == [0.0, 2.0]
        assert [label for label, _, _ in registry.candidates("activation.relu_forward")] == ["reference"]
    """)
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


@pytest.mark.skipif(not host().triple.startswith("x86_64") or sys.platform != "linux", reason="relocations of ELF, x86")
def test_no_address_is_relative_and_32_bits_wide() -> None:
    """Code and constants land wherever memory is free: 2 GiB apart, such an address would end the process."""
    import llvmlite.binding as llvm

    from faltung.engine.kernels import pointwise

    kernel = pointwise.kernel("gelu_forward", False)  # full of constants
    machine = jit._machine(host())
    code = machine.emit_object(jit._optimised(kernel.ir(host()), machine, host()))
    kinds = set()
    for section in llvm.ObjectFileRef.from_data(code).sections():
        if (section.name() or b"").startswith(b".rela."):
            kinds |= {info & 0xFFFFFFFF for _, info, _ in struct.iter_unpack("<QQq", section.data())}
    assert kinds
    assert kinds <= {1, 24}  # R_X86_64_64, R_X86_64_PC64
