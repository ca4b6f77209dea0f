"""How many threads decode: llama.cpp's threads spin, so one more than there are cores costs most of the speed."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

__all__ = ["physical_cores", "quota_of", "usable_threads"]


def usable_threads(root: Path = Path("/")) -> int:
    """One fewer than the physical cores that this process may use by affinity and cgroup quota; at least one.

    Args:
        root: the root of ``/proc`` and ``/sys``.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cores = min(physical_cores(_read(root / "proc/cpuinfo")) or allowed, allowed)
    quota = quota_of(root)
    if quota is not None:
        cores = min(cores, max(1, math.floor(quota)))
    return max(1, cores - 1)


def physical_cores(cpuinfo: str) -> int:
    """Cores, not hyper-threads, that ``/proc/cpuinfo`` lists; 0 when it does not say."""
    found = set()
    for block in cpuinfo.split("\n\n"):
        chip = re.search(r"^physical id\s*:\s*(\d+)", block, re.M)
        core = re.search(r"^core id\s*:\s*(\d+)", block, re.M)
        if chip and core:
            found.add((chip[1], core[1]))
    return len(found)


def quota_of(root: Path) -> float | None:
    """The processors that the cgroup grants, the least over its parents, or None for no limit; both versions."""
    group = _own_group(_read(root / "proc/self/cgroup"))
    base = root / "sys/fs/cgroup"
    found = [_version_2(_read(folder / "cpu.max")) for folder in _upwards(base, group)]
    found += [_version_1(folder) for folder in (base / "cpu", base / "cpu,cpuacct")]
    return min((quota for quota in found if quota is not None), default=None)


def _own_group(text: str) -> str:
    match = re.search(r"^0::(/.*)$", text, re.M)
    return match[1].strip("/") if match else ""


def _upwards(base: Path, group: str) -> list[Path]:
    folder = base / group
    return [folder, *folder.parents[: len(folder.relative_to(base).parts)]]


def _version_2(text: str) -> float | None:
    parts = text.split()
    return int(parts[0]) / int(parts[1]) if len(parts) == 2 and parts[0].isdigit() else None


def _version_1(folder: Path) -> float | None:
    quota, period = _read(folder / "cpu.cfs_quota_us").strip(), _read(folder / "cpu.cfs_period_us").strip()
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() and int(period) else None


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""
