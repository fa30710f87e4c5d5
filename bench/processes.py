"""What only a fresh process shows: start times, and how far memory grows.

This file is also the program that those processes run: `python -m bench.processes JOB FRAMEWORK`.
"""

import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def job_import(name: str) -> float:
    """Seconds of `import faltung`."""
    start_s = time.perf_counter()
    importlib.import_module(name)
    return time.perf_counter() - start_s


def job_first_answer(name: str) -> float:
    """Seconds from the import to the first answer of the MNIST CNN."""
    return _first_answer_s(name, "mission_cnn", (1, 1, 28, 28))


def job_resnet18(name: str) -> float:
    """Seconds from the import to the first answer of ResNet-18 on one image."""
    return _first_answer_s(name, "resnet18", (1, 3, 224, 224))


def _first_answer_s(name: str, model_name: str, shape: tuple[int, ...]) -> float:
    start_s = time.perf_counter()
    lib = importlib.import_module(name)
    from bench import models

    model = getattr(models, model_name)(lib).eval()
    with lib.no_grad():
        model(lib.rand(*shape)).argmax(1).item()
    return time.perf_counter() - start_s


def job_busy(name: str) -> float:
    """How many times longer ResNet-18 takes on one image while another process keeps a core busy."""
    lib = importlib.import_module(name)
    from bench import models

    model, x = models.resnet18(lib).eval(), lib.rand(1, 3, 224, 224)

    def median_s() -> float:
        times = []
        with lib.no_grad():
            for _ in range(60):
                start_s = time.perf_counter()
                model(x)
                times.append(time.perf_counter() - start_s)
        return median(times[10:])

    free_s = median_s()
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as other:
        try:
            return median_s() / free_s
        finally:
            other.kill()


def job_overhead(name: str) -> float:
    """Seconds of the slowest of a few operations on a 4x4 tensor, nothing recorded."""
    return _overhead_s(importlib.import_module(name), False)


def job_overhead_recorded(name: str) -> float:
    """As `job_overhead`, recorded for gradients."""
    return _overhead_s(importlib.import_module(name), True)


def _overhead_s(lib: Any, recorded: bool, rounds: int = 2000) -> float:
    x, y = lib.rand(4, 4, requires_grad=recorded), lib.rand(4, 4)
    functional = lib.nn.functional
    calls = (lambda: x + y, lambda: functional.relu(x), lambda: x.exp(), lambda: x.sum(), lambda: x @ y)
    found = []
    for call in calls:
        call()
        samples = []
        for _ in range(5):
            start_s = time.perf_counter()
            for _ in range(rounds):
                call()
            samples.append((time.perf_counter() - start_s) / rounds)
        found.append(median(samples))
    return max(found)


def job_memory(name: str) -> float:
    """Bytes by which the largest row, (64, 3, 244, 244) -> 64 channels, raises the peak memory of its process."""
    lib = importlib.import_module(name)
    conv = lib.nn.Conv2d(3, 64, 3, padding=1)
    with lib.no_grad():
        conv(lib.rand(1, 3, 8, 8))  # threads, kernels
        x = lib.rand(64, 3, 244, 244)
        before_bytes = peak_bytes()
        conv(x)
    return peak_bytes() - before_bytes


JOBS = {
    "import": job_import,
    "first_answer": job_first_answer,
    "resnet18": job_resnet18,
    "busy": job_busy,
    "overhead": job_overhead,
    "overhead_recorded": job_overhead_recorded,
    "memory": job_memory,
}


def peak_bytes() -> int:
    """Largest resident size of this process so far.

    Linux says it per address space; `getrusage` there begins with the size of the process that started this one.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    import resource

    unit_bytes = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit_bytes


def run(job: str, framework: str, threads: int, cache: str | None = None) -> float:
    """The result of a job in a process of its own."""
    environment = dict(os.environ)
    if cache:
        environment["FALTUNG_CACHE"] = cache
    environment["PYTHONPATH"] = os.pathsep.join(path for path in [str(ROOT), *sys.path] if path)
    command = [sys.executable, "-m", "bench.processes", job, framework, str(threads)]
    done = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


FIRST_ANSWERS = {"first_answer": "first answer", "resnet18": "first answer of ResNet-18"}


def start_times(threads: int, repeats: int = 5) -> dict[str, float]:
    """Median seconds of the import and of first answers, with a warm and with an empty kernel cache."""
    found = {"import faltung": median(run("import", "faltung", threads) for _ in range(repeats))}
    for job, label in FIRST_ANSWERS.items():
        with tempfile.TemporaryDirectory() as warm:
            run(job, "faltung", threads, warm)
            found[f"{label}, warm cache"] = median(run(job, "faltung", threads, warm) for _ in range(repeats))
        cold = []
        for _ in range(repeats):
            with tempfile.TemporaryDirectory() as empty:
                cold.append(run(job, "faltung", threads, empty))
        found[f"{label}, empty cache"] = median(cold)
    return found


def memory_growth(frameworks: list[str], threads: int) -> dict[str, float]:
    """Bytes of peak memory that the largest row adds, per framework."""
    return {name: run("memory", name, threads) for name in frameworks}


def main(arguments: list[str]) -> None:
    job, framework, threads = arguments
    for variable in ("OMP_NUM_THREADS", "FALTUNG_NUM_THREADS"):
        os.environ.setdefault(variable, threads)
    result: Any = JOBS[job](framework)
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1:])
