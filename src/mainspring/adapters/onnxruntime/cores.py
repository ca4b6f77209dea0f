"""How many cores this process may use: its affinity, and its cgroup's quota of processor time."""

from __future__ import annotations

import math
import os
from pathlib import Path

__all__ = ["cores"]


def cores(root: Path = Path("/sys/fs/cgroup")) -> int:
    """At least 1; a quota of 1.5 cores is 2 threads."""
    mine = len(os.sched_getaffinity(0))
    for quota in (_version_2(root), _version_1(root)):
        if quota is not None:
            return max(1, min(mine, math.ceil(quota)))
    return mine


def _version_2(root: Path) -> float | None:
    try:
        limit, period = (root / "cpu.max").read_text("utf-8").split()
        return None if limit == "max" else int(limit) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _version_1(root: Path) -> float | None:
    try:
        limit, period = (int((root / "cpu" / f"cpu.cfs_{name}_us").read_text("utf-8")) for name in ("quota", "period"))
        return limit / period if limit > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None
