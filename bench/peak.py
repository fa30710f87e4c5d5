"""What the chip can do, on every thread of the team: the rate of FMAs, and of moving memory.

The FMA loop:

    for round in range(rounds): for each of n independent accumulators: a = a * x + y

n covers latency times issue width of any current core and leaves registers for x and y, so the loop runs at the rate
at which the core starts FMAs.
"""

import time

import numpy as np

from faltung.engine.emit import Emitter
from faltung.engine.kernel import Kernel, address
from faltung.engine.target import host

ROUNDS = 20_000


class Peak:
    """The FMA loop, ready to be called; `flop` is what one call computes."""

    def __init__(self, threads: int) -> None:
        # 4 cycles of latency at 2 FMAs per cycle need 8 accumulators; more where registers allow.
        accumulators = host().registers - 4
        self.chunks = 8 * threads
        self.flop = 2 * accumulators * host().lanes * ROUNDS * self.chunks
        self.numbers = np.full((self.chunks + 1, 64), 0.5, np.float32)
        self.kernel = Kernel("fma_peak", "rounds numbers", accumulators, emit)

    def __call__(self) -> None:
        self.kernel.launch(self.chunks, ROUNDS, address(self.numbers))


def share_taken_by_others(peak: Peak, threads: int, seconds: float = 0.3) -> float:
    """How much of the cores others use while the FMA loop wants them whole: 0 on a quiet machine."""
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    while time.perf_counter() - start_s < seconds:
        peak()
    return max(0.0, 1 - (time.process_time() - start_cpu_s) / ((time.perf_counter() - start_s) * threads))


def emit(e: Emitter, accumulators: int) -> None:
    """The loop; it stores its sum so that the optimiser has to compute it."""
    numbers = e.pointer("numbers")
    x, y = numbers.at(0).broadcast(e.lanes), numbers.at(1).broadcast(e.lanes)
    sums = [numbers.at(2 + i).broadcast(e.lanes) for i in range(accumulators)]
    with e.loop("round", e.field("rounds"), carry=sums, at_least_once=True) as loop:
        loop.carry([e.fma(value, x, y) for value in loop.carried])
    total = loop.result[0]
    for value in loop.result[1:]:
        total = total + value
    numbers.at((e.chunk + 1) * 64).store(e.total(total))


STRETCH_BYTES = 1 << 20  # one chunk of the copy
COPIED_BYTES = 256 << 20  # far beyond any cache


class Bandwidth:
    """A copy between two large arrays; `bytes` is what one call reads and writes."""

    def __init__(self) -> None:
        self.source = np.ones(COPIED_BYTES // 4, np.float32)
        self.target = np.zeros(COPIED_BYTES // 4 + 16, np.float32)
        self.start = address(self.target) + -address(self.target) % 64  # streaming stores want whole cache lines
        self.bytes = 2 * COPIED_BYTES
        self.kernel = Kernel("copy_peak", "source target", STRETCH_BYTES, emit_copy)

    def __call__(self) -> None:
        self.kernel.launch(COPIED_BYTES // STRETCH_BYTES, address(self.source), self.start)


def emit_copy(e: Emitter, stretch_bytes: int) -> None:
    """Copy one stretch, past the caches on the way out."""
    source, target = (e.pointer(name).at(e.chunk * (stretch_bytes // 4)) for name in ("source", "target"))
    with e.loop("i", stretch_bytes // 4, step=4 * e.lanes, at_least_once=True) as loop:
        for part in range(4):
            at = loop.index + part * e.lanes
            target.at(at).store(source.at(at).load(e.lanes), align=4 * e.lanes, stream=True)
