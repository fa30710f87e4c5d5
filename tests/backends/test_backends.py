"""Switches act, and scripts that ask about other machinery get their answers."""

import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import faltung
from faltung.backends import cpu
from faltung.engine import choice, registry
from faltung.engine.flags import Flags, flags
from faltung.nn.functional import conv2d


@pytest.fixture(autouse=True)
def restore(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(choice, "_file", lambda: tmp_path / "choices.json")
    choice.forget()
    before = vars(flags).copy()
    yield
    threads = before.pop("threads")
    vars(flags).update(before)
    cpu.set_num_threads(threads or cpu.get_num_threads())
    flags.threads = threads
    choice.forget()


def test_attributes_write_through() -> None:
    for name in ("benchmark", "deterministic", "winograd"):
        value = getattr(cpu, name)
        setattr(cpu, name, not value)
        assert getattr(flags, name) is (not value)
        setattr(cpu, name, value)
    with cpu.flags(winograd=False, benchmark=True):
        assert (flags.winograd, flags.benchmark) == (False, True)
    assert (flags.winograd, flags.benchmark) == (True, False)
    assert cpu.set_flags(deterministic=True) == (False, False, True)


def test_measuring_needs_leave_to_depend_on_time() -> None:
    assert Flags(benchmark=True).measuring
    assert not Flags(benchmark=True, deterministic=True).measuring
    assert not Flags(benchmark=True, repeatable=True).measuring


def test_winograd_can_be_switched_off() -> None:
    x, w = faltung.randn(1, 32, 28, 28), faltung.randn(32, 32, 3, 3) / 17
    direct = {}
    for name, options in (("direct", {"winograd": False}), ("deterministic", {"deterministic": True})):
        with cpu.flags(**options):
            direct[name] = conv2d(x, w, padding=1)
    assert faltung.equal(direct["direct"], direct["deterministic"])
    np.testing.assert_allclose(conv2d(x, w, padding=1).numpy(), direct["direct"].numpy(), rtol=1e-3, atol=1e-4)


def test_the_fastest_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    clock = iter(np.cumsum([0, 5, 0, 3, 0, 1, 0, 4]).tolist())  # seconds that each run takes
    monkeypatch.setattr(choice.time, "perf_counter", lambda: next(clock))
    candidates = [("slow", lambda x: calls.append("slow")), ("quick", lambda x: calls.append("quick"))]
    args = (np.zeros((2, 3), "f"),)
    for _ in range(2):
        assert choice.fastest("conv.forward", candidates, args, {}) is candidates[1][1]
    assert calls == ["slow", "slow", "quick", "quick"]  # measured once


def test_other_shapes_are_measured_again() -> None:
    seen: list[tuple[int, ...]] = []
    candidates = [("one", lambda x: seen.append(x.shape)), ("two", lambda x: seen.append(x.shape))]
    for shape in ((2, 3), (3, 2), (2, 3)):
        choice.fastest("conv.forward", candidates, (np.zeros(shape, "f"),), {})
    assert seen == [(2, 3)] * 4 + [(3, 2)] * 4


def test_choices_are_remembered_on_disk(tmp_path: Path) -> None:
    calls: list[str] = []
    candidates = [(name, lambda x, name=name: calls.append(name)) for name in ("one", "two")]
    args = (np.zeros((2, 3), "f"),)
    first = choice.fastest("conv.forward", candidates, args, {})
    assert len(calls) == 4
    choice.forget()  # as a new process begins
    assert choice.fastest("conv.forward", candidates, args, {}) is first
    assert len(calls) == 4
    choice.forget()
    renamed = [(f"new {name}", run) for name, run in candidates]  # a version that knows none of the labels
    choice.fastest("conv.forward", renamed, args, {})
    assert len(calls) == 8
    choice.forget()
    path = tmp_path / "choices.json"
    path.write_bytes(path.read_bytes()[:-3])  # damaged: measured anew, and written anew
    choice.fastest("conv.forward", renamed, args, {})
    assert len(calls) == 12
    choice.forget()
    choice.fastest("conv.forward", renamed, args, {})
    assert len(calls) == 12


def test_chips_threads_and_switches_have_files_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    files = set()
    for threads in (1, 2):
        cpu.set_num_threads(threads)
        for winograd in (True, False):
            with cpu.flags(winograd=winograd):
                files.add(choice._file())
    assert len(files) == 4


def test_results_stay_right_while_kernels_are_measured() -> None:
    x, w = faltung.randn(1, 32, 28, 28, requires_grad=True), faltung.randn(32, 32, 3, 3)
    expected = conv2d(x, w, padding=1)
    with cpu.flags(benchmark=True):
        got = conv2d(x, w, padding=1)
        got.sum().backward()
    np.testing.assert_allclose(got.detach().numpy(), expected.detach().numpy(), rtol=1e-3, atol=1e-3)
    assert set(registry._MEASURABLE) == {"conv.forward", "conv.backward_data", "conv.backward_weights"}


def test_number_of_threads() -> None:
    x, w = faltung.randn(2, 16, 20, 20), faltung.randn(8, 16, 3, 3)
    results = []
    for count in (1, 2, 3):
        faltung.set_num_threads(count)
        assert faltung.get_num_threads() == count
        results.append(conv2d(x, w))
    assert all(faltung.equal(result, results[0]) for result in results)
    for bad in (0, -1, 1.5, True):
        with pytest.raises(RuntimeError, match="set_num_threads: expects"):
            faltung.set_num_threads(bad)


def test_asking_loads_no_kernels() -> None:
    code = (
        "import sys, faltung as t; t.set_num_threads(2); t.get_num_threads(); t.backends.cpu.benchmark = True; "
        "t.cuda.is_available(); t.manual_seed(0); assert 'llvmlite' not in sys.modules; "
        "assert 'numpy.random' not in sys.modules or 'numpy.random.mtrand' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_capability_has_a_name() -> None:
    assert cpu.get_cpu_capability() in ("AVX512", "AVX2", "NEON", "DEFAULT")


def test_cudnn_takes_what_scripts_set() -> None:
    cudnn = faltung.backends.cudnn
    assert (cudnn.is_available(), cudnn.version(), cudnn.enabled) == (False, None, True)
    cudnn.benchmark = True
    with cudnn.flags(enabled=False, deterministic=True):
        assert (cudnn.enabled, cudnn.benchmark, cudnn.deterministic) == (False, False, True)
    assert (cudnn.enabled, cudnn.benchmark, cudnn.deterministic) == (True, True, False)
    cudnn.benchmark = False
    assert not cudnn.is_acceptable(faltung.ones(1))


def test_what_is_not_there() -> None:
    backends = faltung.backends
    for module in (backends.mkldnn, backends.mkl, backends.openmp, backends.mps, backends.cudnn):
        assert not module.is_available()
    assert not backends.mps.is_built()
    assert not backends.cuda.is_built()
    backends.cuda.matmul.allow_tf32 = True
    with backends.mkldnn.flags(enabled=False):
        assert not backends.mkldnn.enabled
    for module in (faltung.cuda, faltung.mps, faltung.xpu, faltung.accelerator):
        assert (module.is_available(), module.device_count()) == (False, 0)
    assert faltung.accelerator.current_accelerator() is None


def test_cuda_answers_and_does_nothing() -> None:
    cuda = faltung.cuda
    state = faltung.get_rng_state()
    for call in (cuda.empty_cache, cuda.synchronize, cuda.ipc_collect, cuda.seed, cuda.seed_all):
        assert call() is None
    cuda.manual_seed(1)
    cuda.manual_seed_all(1)
    assert faltung.equal(faltung.get_rng_state(), state)
    assert (cuda.memory_allocated(), cuda.max_memory_allocated(), cuda.memory_reserved()) == (0, 0, 0)
    assert (cuda.get_rng_state_all(), cuda.get_arch_list(), cuda.is_initialized()) == ([], [], False)
    with cuda.device(0):
        pass


@pytest.mark.parametrize(
    "call",
    [
        "init",
        "current_device",
        "current_stream",
        "get_device_name",
        "get_device_properties",
        "mem_get_info",
        "Stream",
        "Event",
    ],
)
def test_cuda_refuses_what_needs_a_device(call: str) -> None:
    with pytest.raises(AssertionError, match="Torch not compiled with CUDA enabled"):
        getattr(faltung.cuda, call)()


def test_determinism_and_precision() -> None:
    assert not faltung.are_deterministic_algorithms_enabled()
    faltung.use_deterministic_algorithms(True, warn_only=True)
    assert faltung.are_deterministic_algorithms_enabled()
    assert faltung.is_deterministic_algorithms_warn_only_enabled()
    faltung.use_deterministic_algorithms(False)
    assert faltung.get_float32_matmul_precision() == "highest"
    faltung.set_float32_matmul_precision("high")
    assert faltung.get_float32_matmul_precision() == "high"
    faltung.set_float32_matmul_precision("highest")
    with pytest.raises(RuntimeError, match="expected one of"):
        faltung.set_float32_matmul_precision("low")


ASKED: list[Callable[[], Any]] = [
    lambda: faltung.device("cuda" if faltung.cuda.is_available() else "cpu"),
    lambda: faltung.ones(2).to("cuda" if faltung.cuda.is_available() else "cpu"),
]


@pytest.mark.parametrize("call", ASKED)
def test_the_usual_question(call: Callable[[], Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "cpu" in str(call()) or call().is_cpu
