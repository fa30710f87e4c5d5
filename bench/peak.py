"""What the chip can do: a loop of nothing but FMAs, on every thread of the team.

    for round in range(rounds): for each of n independent accumulators: a = a * x + y

n covers latency times issue width of any current core and leaves registers for x and y, so the loop runs at the rate
at which the core starts FMAs.
"""

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
