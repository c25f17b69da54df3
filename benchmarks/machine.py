"""The machine, and how much of it others used while something was measured."""

from __future__ import annotations

import os
import platform
import resource
from dataclasses import dataclass
from pathlib import Path


def facts() -> dict[str, str]:
    """Processor, threads, memory, system and load."""
    processor = _field(Path("/proc/cpuinfo"), "model name")
    memory = int(_field(Path("/proc/meminfo"), "MemTotal").split()[0]) / 2**20
    flags = set(_field(Path("/proc/cpuinfo"), "flags").split())
    return {
        "processor": processor,
        "bf16": ", ".join(sorted(flags & {"avx512_bf16", "amx_bf16"})) or "none",
        "threads": str(threads()),
        "memory": f"{memory:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}, {platform.libc_ver()[0]} {platform.libc_ver()[1]}",
        "load": f"{os.getloadavg()[0]:.2f}",
    }


def threads() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0))


def _field(path: Path, name: str) -> str:
    lines = (line.partition(":") for line in path.read_text().splitlines())
    return next((value.strip() for key, _, value in lines if key.strip() == name), "unknown")


@dataclass(frozen=True, slots=True)
class Usage:
    """Processor seconds since boot: of the whole machine, and of the children of this process that have ended."""

    machine: float
    children: float
    wall: float

    @staticmethod
    def now() -> Usage:
        """Read both."""
        ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        idle, waiting = ticks[3], ticks[4]
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        busy = (sum(ticks) - idle - waiting) / os.sysconf("SC_CLK_TCK")
        return Usage(busy, children.ru_utime + children.ru_stime, sum(ticks) / os.sysconf("SC_CLK_TCK"))

    def others_since(self, before: Usage) -> float:
        """Share of the machine's processor time that went to neither idling nor this process's children."""
        others = (self.machine - before.machine) - (self.children - before.children)
        return max(0.0, others / max(self.wall - before.wall, 1e-9))
