"""Processes as Linux knows them: whose death kills whom, who adopts orphans, and how a whole tree is ended."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mainspring.lazy import lazy

if TYPE_CHECKING:
    import ctypes
else:
    ctypes = lazy("ctypes")

__all__ = [
    "Owner",
    "adopt_orphans",
    "children",
    "die_with_parent",
    "end_children",
    "fork_hazard",
    "kill_tree",
    "native_threads",
    "this_process",
]

_PDEATHSIG, _CHILD_SUBREAPER = 1, 36
# Threads whose absence in a forked child does no harm: jemalloc's (it has fork handlers), polars' cleaner of spills.
_HARMLESS = ("jemalloc_bg_thd", "polars-ooc")
# Modules that start threads or open devices in a way that a forked child cannot use.
_UNFORKABLE = ("grpc", "tensorflow", "jax", "torch")


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        _libc().prctl(option, value, 0, 0, 0)


def die_with_parent(parent: int, signal_number: int = signal.SIGKILL) -> None:
    """Ask the kernel to signal this process when `parent` dies; leave at once if it is dead already."""
    _prctl(_PDEATHSIG, signal_number)
    if os.getppid() != parent:
        os._exit(0)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent dies, so that none escapes by ``setsid``."""
    _prctl(_CHILD_SUBREAPER, 1)


def _parents() -> dict[int, int]:
    """The parent of every living process; the dead that nobody has waited for are left out."""
    found = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{name}/stat").read_bytes().rpartition(b")")[2].split()
            if fields[0] not in (b"Z", b"X"):
                found[int(name)] = int(fields[1])
    return found


def children(parent: int) -> list[int]:
    """The living children of a process."""
    return [pid for pid, its_parent in _parents().items() if its_parent == parent]


def _descendants(root: int) -> list[int]:
    parents = _parents()
    found: list[int] = []
    layer = {root}
    while layer:
        layer = {pid for pid, parent in parents.items() if parent in layer}
        found.extend(layer)
    return found


def kill_tree(root: int, *, rounds: int = 50) -> None:
    """End a process and all its descendants, those in other sessions too.

    The root is stopped first: as a subreaper it adopts whatever loses its parent, so the tree only shrinks.

    Args:
        root: the process; it should have called `adopt_orphans`.
        rounds: how often the tree is read again for processes that were born meanwhile.
    """
    with contextlib.suppress(ProcessLookupError):
        os.kill(root, signal.SIGSTOP)
    for _ in range(rounds):
        alive = _descendants(root)
        if not alive:
            break
        _kill(alive)
    _kill([root])


def end_children() -> None:
    """End all that this process has started or adopted; cheap when there is nothing."""
    while True:
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        _kill(_descendants(os.getpid()))
        with contextlib.suppress(ChildProcessError):
            os.waitpid(-1, 0)


def _kill(pids: Iterable[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def native_threads() -> int:
    """How many threads of this process, besides the main one, a forked child would miss."""
    if sys.platform != "linux":
        return threading.active_count() - 1
    count = -1
    for task in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError):
            name = Path(f"/proc/self/task/{task}/comm").read_text("ascii", "replace")
            count += not name.startswith(_HARMLESS)
    return count


def fork_hazard(modules: Iterable[str] | None = None) -> str:
    """Every reason why a fork of this process would be unsafe, joined to one text; empty if there is none.

    OpenBLAS ends its threads at a fork and starts them again when needed, so native threads are to be counted with
    `native_threads` after a fork, not here.
    """
    loaded = set(sys.modules if modules is None else modules)
    reasons = [f"{name} is loaded" for name in _UNFORKABLE if name in loaded]
    threads = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    if threads:
        reasons.append(f"Python threads are running ({', '.join(threads[:3])})")
    elif threading.current_thread() is not threading.main_thread():
        reasons.append("it was started from a thread")
    return "; ".join(reasons)


class Owner(msgspec.Struct, frozen=True):
    """A process that holds a lease; `boot` and `started` tell it from a later process with the same number."""

    host: str
    boot: str
    pid: int
    started: int
    serial: int = 0

    def __str__(self) -> str:
        return f"{self.host}/{self.boot}/{self.pid}/{self.started}/{self.serial}"

    @classmethod
    def of(cls, pid: int) -> Owner:
        """A process of this machine that runs, a child of this one."""
        here = this_process()
        return cls(here.host, here.boot, pid, _started(pid))

    @classmethod
    def parse(cls, text: str) -> Owner | None:
        """The owner that `str` wrote, or None."""
        parts = text.rsplit("/", 4)
        if len(parts) != 5 or not all(part.isdigit() for part in parts[2:]):
            return None
        return cls(parts[0], parts[1], int(parts[2]), int(parts[3]), int(parts[4]))

    def is_dead(self, here: Owner) -> bool:
        """Whether it surely no longer runs; only a process of this machine, since its last start, can be judged."""
        return self.is_near(here) and _started(self.pid) != self.started

    def is_near(self, here: Owner) -> bool:
        """Whether it is a process of this machine, since its last start."""
        return (self.host, self.boot) == (here.host, here.boot) and self.boot != ""


def _started(pid: int) -> int:
    """The start time of a process in clock ticks since boot; 0 when there is none or it is dead."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])


_serial = itertools.count(1)


def this_process() -> Owner:
    """This process as an owner of leases, another one at each call; numbers count only within a pid namespace."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        boot += os.readlink("/proc/self/ns/pid").removeprefix("pid:")
    except OSError:
        boot = ""
    return Owner(socket.gethostname(), boot, os.getpid(), _started(os.getpid()), next(_serial))
