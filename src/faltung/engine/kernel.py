"""A generated kernel as Python sees it: named integer fields and a launch over chunks."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from faltung.engine import jit, team
from faltung.engine.emit import Emitter
from faltung.engine.memory import address
from faltung.engine.target import Target, host

__all__ = ["Kernel", "address", "bits", "pack_last"]


class Kernel:
    """Machine code for one schedule on this chip, built at the first launch.

    `fields` names the run-time arguments in order; `emit(e, schedule)` writes the body into an `Emitter`. The
    schedule's printed form is part of the cache key, so it must name everything that shapes the code.
    """

    __slots__ = ("_address", "_pack", "emit", "fields", "name", "schedule")

    def __init__(self, name: str, fields: str, schedule: Any, emit: Callable[[Emitter, Any], None]) -> None:
        self.name, self.fields, self.schedule, self.emit = name, tuple(fields.split()), schedule, emit
        self._pack = struct.Struct(f"{len(self.fields)}q").pack
        self._address = 0

    def launch(self, chunks: int, *values: int) -> None:
        """Compute `chunks` chunks on the thread team; `values` fill the fields in order."""
        team.run(self._address or self._build(), self._pack(*values), chunks)

    def launch_packed(self, chunks: int, *values: int, rest: bytes) -> None:
        """As `launch`, the last fields packed beforehand by `pack_last`: what stays the same from call to call."""
        team.run(self._address or self._build(), _PACKERS[len(values)](*values) + rest, chunks)

    @property
    def address(self) -> int:
        """Where the machine code lies, for a kernel that runs this one."""
        return self._address or self._build()

    def _build(self) -> int:
        spec = f"{self.schedule} lanes={host().lanes}"
        self._address = jit.address(self.name, spec, lambda: self.ir(host()))
        return self._address

    def ir(self, target: Target) -> str:
        """LLVM IR for a target: what the JIT compiles, and what tests cross-compile."""
        e = Emitter(self.name, self.fields, target)
        self.emit(e, self.schedule)
        return e.finish()


_PACKERS = [struct.Struct(f"{count}q").pack for count in range(16)]


def pack_last(*values: int) -> bytes:
    """The last fields of a launch, for `Kernel.launch_packed`."""
    return struct.pack(f"{len(values)}q", *values)


_to_bytes, _from_bytes = struct.Struct("d").pack, struct.Struct("q").unpack


def bits(number: float) -> int:
    """A float as the integer field that `Emitter.number` reads."""
    return int(_from_bytes(_to_bytes(number))[0])
