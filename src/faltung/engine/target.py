"""What chip this is: vector width, registers, caches, and the cores that this process may use.

Kernels take every tile, block and lane count from here, so the same generators serve AVX2, AVX-512 and NEON. The
environment variable FALTUNG_ISA (avx2, avx512, neon, baseline) narrows the host's instruction set, for tests and for
comparing machines; it is read only here.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

L3_PER_CORE = 16 << 20  # bytes of shared cache that one core can count on, at most


@dataclass(frozen=True, slots=True)
class Target:
    """One chip, as far as the generators care."""

    triple: str
    cpu: str
    features: str
    vector_bytes: int  # width of one vector register
    registers: int  # architectural vector registers
    fma: bool
    broadcast_operand: bool  # an FMA can read a broadcast scalar from memory (AVX-512)
    l1_bytes: int
    l2_bytes: int
    l3_bytes: int

    @property
    def lanes(self) -> int:
        """float32 elements of one vector."""
        return self.vector_bytes // 4

    @property
    def name(self) -> str:
        """Short label for tables and cache keys."""
        return f"{self.cpu}-{self.vector_bytes * 8}"


@lru_cache(maxsize=1)
def host() -> Target:
    """The chip this process runs on."""
    import llvmlite.binding as llvm

    cpu = llvm.get_host_cpu_name()
    features = dict(llvm.get_host_cpu_features())
    triple = llvm.get_process_triple()
    isa = os.environ.get("FALTUNG_ISA", "")
    l1, l2, l3 = _cache_sizes()
    if triple.split("-")[0] in ("aarch64", "arm64"):
        return Target(triple, cpu, _flatten(features), 16, 32, True, False, l1, l2, l3)
    if isa in ("avx2", "baseline"):
        features = {name: on and not name.startswith("avx512") and name != "evex512" for name, on in features.items()}
    if isa == "baseline":
        features = {
            name: on and not name.startswith(("avx", "fma", "f16c", "vaes", "vpcl")) for name, on in features.items()
        }
    flat = _flatten(features)
    if features.get("avx512f") and features.get("avx512vl"):
        return Target(triple, cpu, flat, 64, 32, True, True, l1, l2, l3)
    if features.get("avx2") and features.get("fma"):
        return Target(triple, cpu, flat, 32, 16, True, False, l1, l2, l3)
    return Target(triple, cpu, flat, 16, 16, False, False, l1, l2, l3)


# Chips to cross-compile for in tests: what the generators must serve beside the host.
AVX2 = Target("x86_64-unknown-linux-gnu", "haswell", "", 32, 16, True, False, 32 << 10, 256 << 10, 8 << 20)
AVX512 = Target("x86_64-unknown-linux-gnu", "skylake-avx512", "", 64, 32, True, True, 32 << 10, 1 << 20, 16 << 20)
NEON = Target("aarch64-unknown-linux-gnu", "neoverse-n1", "", 16, 32, True, False, 64 << 10, 1 << 20, 32 << 20)


@lru_cache(maxsize=1)
def usable_cores() -> int:
    """Cores this process may keep busy: the smaller of its affinity mask and its cgroup's CPU quota, at least 1."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        cores = os.cpu_count() or 1
    quota = _cgroup_quota()
    return max(1, min(cores, int(quota + 0.5))) if quota else max(1, cores)


def _cgroup_quota() -> float | None:
    """CPU quota in cores from cgroup v2 or v1, None without one."""
    try:
        limit, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return None if limit == "max" else int(limit) / int(period)
    except (OSError, ValueError):
        pass
    try:
        limit_us = int(Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us").read_text())
        period_us = int(Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us").read_text())
        return limit_us / period_us if limit_us > 0 else None
    except (OSError, ValueError):
        return None


def _cache_sizes() -> tuple[int, int, int]:
    """Bytes of L1d, L2 and L3 of core 0; modest values where the system does not say."""
    sizes = {1: 32 << 10, 2: 256 << 10, 3: 4 << 20}
    for index in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        try:
            level = int((index / "level").read_text())
            kind = (index / "type").read_text().strip()
            text = (index / "size").read_text().strip()
        except (OSError, ValueError):
            continue
        scale = {"K": 1 << 10, "M": 1 << 20}.get(text[-1:])
        if kind != "Instruction" and scale and text[:-1].isdigit():
            sizes[level] = int(text[:-1]) * scale
    # a virtual machine is told the shared cache of its whole host
    return sizes[1], sizes[2], min(sizes[3], L3_PER_CORE * usable_cores())


def _flatten(features: dict[str, bool]) -> str:
    return ",".join(("+" if on else "-") + name for name, on in sorted(features.items()))
