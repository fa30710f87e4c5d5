"""What the chip can do: a loop of nothing but FMAs, on every thread of the team.

    for round in range(rounds): for each of n independent accumulators: a = a * x + y

n covers latency times issue width of any current core and leaves registers for x and y, so the loop runs at the rate
at which the core starts FMAs.
"""

import numpy as np

from faltung.engine import jit, team
from faltung.engine.emit import Emitter
from faltung.engine.target import Target, host

ROUNDS = 20_000
FIELDS = ("rounds", "numbers")


class Peak:
    """The FMA loop, ready to be called; `flop` is what one call computes."""

    def __init__(self, threads: int) -> None:
        target = host()
        self.chunks = 8 * threads
        self.flop = 2 * accumulators(target) * target.lanes * ROUNDS * self.chunks
        self.numbers = np.full((self.chunks + 1, 64), 0.5, np.float32)
        self.fields = np.array([ROUNDS, self.numbers.ctypes.data], np.int64)
        self.function = jit.address("fma_peak", f"{target.name} {accumulators(target)}", lambda: emit(target))

    def __call__(self) -> None:
        team.run(self.function, self.fields.ctypes.data, self.chunks)


def accumulators(target: Target) -> int:
    """Independent sums: 4 cycles of latency at 2 FMAs per cycle need 8; more where registers allow."""
    return target.registers - 4


def emit(target: Target) -> str:
    """IR of the loop; it stores its sum so that the optimiser has to compute it."""
    e = Emitter("fma_peak", FIELDS, target)
    numbers = e.pointer("numbers")
    x, y = numbers.at(0).broadcast(e.lanes), numbers.at(1).broadcast(e.lanes)
    sums = [numbers.at(2 + i).broadcast(e.lanes) for i in range(accumulators(target))]
    with e.loop("round", e.field("rounds"), carry=sums, at_least_once=True) as loop:
        loop.carry([e.fma(value, x, y) for value in loop.carried])
    total = loop.result[0]
    for value in loop.result[1:]:
        total = total + value
    numbers.at((e.chunk + 1) * 64).store(e.total(total))
    return e.finish()
