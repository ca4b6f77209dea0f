"""What the process takes of its machine, by the names under which Spring Boot Admin shows it (Linux's /proc)."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from mainspring.protocols.actuator.metrics import Number

__all__ = ["CpuUse", "process_numbers"]

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class CpuUse:
    """The share of a machine's time that was used since the last look, in [0, 1].

    Args:
        used: seconds of CPU so far.
        passed: seconds so far, of all cores together.
    """

    def __init__(self, used: Callable[[], float], passed: Callable[[], float]) -> None:
        self._used = used
        self._passed = passed
        self._last = used(), passed()

    def __call__(self) -> float:
        """The share."""
        used, passed = self._used(), self._passed()
        before, at = self._last
        if passed <= at:
            return 0.0
        self._last = used, passed
        return min(max((used - before) / (passed - at), 0.0), 1.0)


def process_numbers(folder: Path, clock: Callable[[], float] = time.time) -> Mapping[str, Number]:
    """Numbers of this process and its machine.

    Args:
        folder: of whose disk the room is shown.
        clock: seconds since 1970.
    """
    begun, cores = clock(), os.cpu_count() or 1
    process = CpuUse(time.process_time, lambda: time.monotonic() * cores)
    system = CpuUse(lambda: _system()[0], lambda: _system()[1])
    return {
        "process.uptime": ("how long the process has been running", "seconds", lambda: clock() - begun),
        "process.start.time": ("when it was started, since 1970", "seconds", lambda: begun),
        "process.cpu.usage": ("the share of the machine that the process uses", "", process),
        "system.cpu.usage": ("the share of the machine that is used", "", system),
        "system.cpu.count": ("processors", "", lambda: float(cores)),
        "system.load.average.1m": ("processes that wanted to run, in the last minute", "", lambda: os.getloadavg()[0]),
        "process.memory.resident": ("memory of the process that is in use", "bytes", _resident),
        "process.files.open": ("files that the process has open", "files", lambda: float(_open_files())),
        "disk.free": ("room on the disk of the state folder", "bytes", lambda: float(shutil.disk_usage(folder).free)),
        "disk.total": ("size of it", "bytes", lambda: float(shutil.disk_usage(folder).total)),
    }


def _system() -> tuple[float, float]:
    """Seconds that the machine's cores were busy, and that have passed, so far."""
    try:
        words = Path("/proc/stat").read_text().partition("\n")[0].split()[1:]
    except OSError:
        return 0.0, 0.0
    ticks = [int(word) for word in words[:8]]
    idle = ticks[3] + ticks[4]
    return (sum(ticks) - idle) / _TICKS, sum(ticks) / _TICKS


def _resident() -> float:
    try:
        return float(int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE)
    except OSError:
        return 0.0


def _open_files() -> int:
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:
        return 0
