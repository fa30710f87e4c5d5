"""Reading the assembly of generated kernels."""

from __future__ import annotations

import re

from faltung.engine import jit, target
from faltung.engine.kernel import Kernel

CHIPS = {"avx512": target.AVX512, "avx2": target.AVX2, "neon": target.NEON}
_FMA = {"avx512": re.compile(r"vfmadd.*zmm"), "avx2": re.compile(r"vfmadd.*ymm"), "neon": re.compile(r"fmla.*\.4s")}
_SPILL = re.compile(r"[xyz]mm\d+.*\(%rsp\)|\(%rsp\).*[xyz]mm\d+|q\d+.*\[sp")
_AHEAD = re.compile(r"prefetch|prfm")


def hot_loop(kernel: Kernel, chip: str, reads_ahead: bool = False) -> str:
    """The basic block with the most multiply-adds of full vectors, as compiled for one of `CHIPS`.

    Of blocks with equally many (a kernel's edges may be computed by masked twins), the one that spills least. With
    `reads_ahead`, only blocks that prefetch count: the product in a kernel that holds transforms too.
    """
    text = jit.assembly(kernel.ir(CHIPS[chip]), CHIPS[chip])
    blocks = [block for block in re.split(r"\n\.?L\w+:|\n\.L", text) if not reads_ahead or _AHEAD.search(block)]
    return max(blocks, key=lambda block: (multiply_adds(block, chip), -spills(block)))


def multiply_adds(block: str, chip: str) -> int:
    """Multiply-adds of full vectors."""
    return len(_FMA[chip].findall(block))


def spills(block: str) -> int:
    """Vectors that go to the stack or come from there."""
    return len(_SPILL.findall(block))


def assert_stays_in_registers(kernel: Kernel, chip: str, at_least: int, reads_ahead: bool = False) -> None:
    """The hot loop has `at_least` multiply-adds, and hardly a spill between them."""
    block = hot_loop(kernel, chip, reads_ahead)
    count = multiply_adds(block, chip)
    assert count >= at_least, f"{kernel.schedule}:\n{block}"
    assert spills(block) <= count // 30, f"{kernel.schedule} spills:\n{block}"
