"""The thread team: every chunk once, whoever calls, across forks and interrupts; idle threads sleep."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from typing import Any

import numpy as np
import pytest

from faltung.engine import team
from faltung.engine.emit import Emitter, i64
from faltung.engine.kernel import Kernel, address


def _emit_count(e: Emitter, schedule: str) -> None:
    """counts[chunk] += 1, and thread[chunk] = the thread that did it, after some work."""
    with e.loop("work", e.field("work"), carry=[e.int(0)]) as turn:
        turn.carry([turn.carried[0] * 3 + turn.index])
    place = e.pointer("counts", i64).at(e.chunk)
    place.store_int(place.load_int() + 1)
    e.pointer("result", i64).at(e.chunk).store_int(turn.result[0])
    e.pointer("threads", i64).at(e.chunk).store_int(e.thread)


KERNEL = Kernel("team_test_count", "counts result threads work", "count", _emit_count)


class Region:
    """A region whose chunks note that they were computed, and by whom."""

    def __init__(self, chunks: int, work: int = 50) -> None:
        self.chunks, self.work = chunks, work
        self.counts, self.result, self.threads = (np.zeros(chunks, np.int64) for _ in range(3))

    def run(self) -> None:
        KERNEL.launch(self.chunks, address(self.counts), address(self.result), address(self.threads), self.work)


@pytest.mark.parametrize("threads", [1, 2, 3, 4, 7])
def test_every_chunk_once(threads: int) -> None:
    team.set_num_threads(threads)
    assert team.get_num_threads() == threads
    for chunks in (0, 1, 2, 3, threads, threads + 1, 100):
        region = Region(max(chunks, 1))
        region.chunks = chunks
        for times in range(1, 4):
            region.run()
            assert (region.counts[:chunks] == times).all()
        assert region.threads[:chunks].max(initial=0) < threads


def test_many_small_regions() -> None:
    team.set_num_threads(3)
    region = Region(5, work=0)
    for _ in range(20_000):
        region.run()
    assert (region.counts == 20_000).all()


def test_several_callers_at_once() -> None:
    team.set_num_threads(2)
    regions = [Region(11) for _ in range(6)]

    def work(region: Region) -> None:
        for _ in range(300):
            region.run()

    callers = [threading.Thread(target=work, args=(region,)) for region in regions]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    for region in regions:
        assert (region.counts == 300).all()


def test_changing_the_size_while_others_compute() -> None:
    region, stop = Region(50), threading.Event()
    times = 0

    def work() -> None:
        nonlocal times
        while not stop.is_set():
            region.run()
            times += 1

    caller = threading.Thread(target=work)
    caller.start()
    for size in (1, 4, 2, 3, 1, 2):
        team.set_num_threads(size)
        time.sleep(0.01)
    stop.set()
    caller.join()
    assert times > 0
    assert (region.counts == times).all()


@pytest.mark.parametrize("size", [0, -1])
def test_sizes_below_one_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match="positive number of threads, got"):
        team.set_num_threads(size)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_fork_in_the_middle() -> None:
    """A child made while regions run, by this thread or another, computes with a team of its own."""
    team.set_num_threads(2)
    region, stop = Region(40), threading.Event()
    region.run()

    def work() -> None:
        other = Region(40)
        while not stop.is_set():
            other.run()

    caller = threading.Thread(target=work)
    caller.start()
    try:
        for _ in range(10):
            child = os.fork()
            if child == 0:
                mine = Region(40)
                for _ in range(5):
                    mine.run()
                os._exit(0 if (mine.counts == 5).all() and (region.counts == 1).all() else 1)
            assert os.waitpid(child, 0)[1] == 0
            region.counts[...] = 0
            region.run()
            assert (region.counts == 1).all()
    finally:
        stop.set()
        caller.join()


def _script(body: str) -> list[str]:
    setup = """
        import sys, time
        import numpy as np
        from faltung.engine import registry, team
        team.set_num_threads(2)
        x = np.random.default_rng(0).standard_normal(1 << 20).astype(np.float32)
        def compute():
            return registry.call("activation.silu_forward", x)
        expected = compute()
    """
    return [sys.executable, "-c", textwrap.dedent(setup) + textwrap.dedent(body)]


def _run(body: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(_script(body), capture_output=True, text=True, timeout=120, **options)


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_an_interrupt_leaves_the_engine_usable() -> None:
    body = """
        print("ready", flush=True)
        interrupts = 0
        while interrupts < 5:
            try:
                while True:
                    compute()
            except KeyboardInterrupt:
                interrupts += 1
                assert (compute() == expected).all()
                print("interrupted", flush=True)
        print("done", flush=True)
    """
    process = subprocess.Popen(_script(body), stdout=subprocess.PIPE, text=True)
    watchdog = threading.Timer(120, process.kill)  # an interrupt that got lost must fail, not hang
    watchdog.start()
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    for _ in range(5):
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "interrupted\n"
    assert process.stdout.readline() == "done\n"
    process.stdout.close()
    assert process.wait(60) == 0
    watchdog.cancel()


def test_idle_threads_use_no_cpu() -> None:
    done = _run("""
        time.sleep(0.2)
        before = time.process_time()
        time.sleep(1.0)
        print(time.process_time() - before)
    """)
    assert float(done.stdout) < 0.1, done.stderr


def test_a_process_ends_with_its_threads_asleep_or_spinning() -> None:
    assert _run("compute(); time.sleep(0.3)").returncode == 0
    assert _run("compute()").returncode == 0
