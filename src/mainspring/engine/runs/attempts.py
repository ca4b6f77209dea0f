"""One attempt as the driver sees it: its log, its deadline, and what its death means."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import signal
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

import mainspring.errors as errors
from mainspring.declare.duration import spell
from mainspring.engine.reference import is_users, place_of
from mainspring.engine.secrets import Redactor
from mainspring.engine.task import Task
from mainspring.engine.wire import Exited, Fault
from mainspring.errors import MainspringError, UserCodeError

__all__ = ["Death", "Log", "backoff_seconds", "death", "error_of", "folder_name", "log_path", "oom_kills", "tail"]

_LONGEST_BACKOFF = 60.0
_TAIL_LINES, _TAIL_BYTES = 4, 1 << 16
_DUMP = "Fatal Python error:"
_FRAME = re.compile(r'\s*File "(.+)", line (\d+) in ')


@functools.lru_cache(maxsize=4096)
def folder_name(name: str) -> str:
    """A task's name as part of a file name."""
    return re.sub(r"[^\w.-]+", "_", name)[:80]


def log_path(folder: Path, idx: int, name: str, item: int, attempt: int) -> Path:
    """Where the output of an attempt is kept: ``003-fit.1.log``, ``003-fit[7].1.log`` for an item."""
    place = f"[{item}]" if item >= 0 else ""
    return folder / f"{idx:03d}-{folder_name(name)}{place}.{attempt}.log"


def tail(path: Path) -> tuple[list[str], str]:
    """The last lines that a step wrote to its log, and the user's line in the dump that Python left at a crash.

    Returns:
        The lines before the dump, and its first line; and ``shop.py:31``, empty when there is no dump, or only
        libraries in it.
    """
    try:
        with open(path, "rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            lines = [line for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
    except OSError:
        return [], ""
    start = max((number for number, line in enumerate(lines) if line.startswith(_DUMP)), default=None)
    if start is None:
        return lines[-_TAIL_LINES:], ""
    frames = [found for line in lines[start:] if (found := _FRAME.match(line)) is not None]
    own = [f"{os.path.basename(found[1])}:{found[2]}" for found in frames if is_users(found[1])]
    return lines[: start + 1][-_TAIL_LINES:], own[0] if own else ""


class Log:
    """The file that an attempt's output goes to: the worker opens it, or a pipe is redacted into it.

    Args:
        path: the file; its folder is there.
        secrets: texts that must not appear in it.
    """

    def __init__(self, path: Path, secrets: Iterable[str] = ()) -> None:
        self.path = path
        self.reading, self.writing, self._file = -1, -1, -1
        self._redactor = Redactor(secrets) if secrets else None
        if self._redactor is not None:
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            self.reading, self.writing = os.pipe()
            os.set_blocking(self.reading, False)

    def handed_over(self) -> None:
        """The worker has its own copy of the pipe now."""
        if self.writing >= 0:
            os.close(self.writing)
            self.writing = -1

    def pump(self) -> bool:
        """Pass on what the pipe holds; False at its end."""
        if self._redactor is None:
            return False
        while True:
            try:
                data = os.read(self.reading, 1 << 16)
            except BlockingIOError:
                return True
            if not data:
                return False
            os.write(self._file, self._redactor.feed(data))

    def close(self) -> str:
        """Close it; the digest of what it holds. An empty log is not kept."""
        if self._redactor is not None:
            self.handed_over()
            self.pump()
            os.write(self._file, self._redactor.end())
            os.close(self.reading)
            os.close(self._file)
        try:
            if os.stat(self.path).st_size == 0:
                os.unlink(self.path)
                return ""
            with open(self.path, "rb") as file:
                return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=20)).hexdigest()
        except OSError:
            return ""


def backoff_seconds(task: Task, attempt: int) -> float:
    """How long to wait after a failed attempt: doubled each time, at most a minute."""
    return float(min(_LONGEST_BACKOFF, task.options.backoff_us / 1e6 * 2 ** min(attempt - 1, 20)))


def oom_kills() -> int:
    """How many processes the kernel has ended for lack of memory since boot."""
    with contextlib.suppress(OSError), open("/proc/vmstat", encoding="ascii") as lines:
        for line in lines:
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


class Death(msgspec.Struct, frozen=True):
    """How a worker ended without a result.

    Attributes:
        exited: its status and peak memory.
        timed_out: the driver ended it.
        oom: the kernel has ended processes for lack of memory meanwhile.
    """

    exited: Exited
    timed_out: bool = False
    oom: bool = False
    memory_bytes: int = msgspec.field(default_factory=lambda: os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def death(task: Task, title: str, log: Path, how: Death) -> Fault:
    """The error of a worker that ended without a result."""
    lines, line = tail(log)
    place = line or place_of(task)
    last = "".join(f"\n         | {text}" for text in lines)
    if how.timed_out:
        limit = spell(task.options.timeout_us or 0)
        fix = "give it a longer timeout=, or less to do"
        return Fault("UserCodeError", f"{title} took longer than {limit}", "MS-2032", f"it was ended{last}", place, fix)
    status = how.exited.status
    if status == -signal.SIGKILL:
        why = f"{_memory_words(how)}{last}"
        fix = "give it less data at once, ask for memory in resources=, or use a machine with more"
        return Fault("UserCodeError", f"{title} was killed, perhaps for memory", "MS-2035", why, place, fix)
    if status < 0:
        name = signal.Signals(-status).name
        why = f"the process died of {name}, which native code causes{last}"
        return Fault(
            "UserCodeError", f"{title} crashed", "MS-2036", why, place, "look at the library that it calls last"
        )
    why = f"the process ended with status {status} before the function returned{last}"
    return Fault(
        "UserCodeError", f"{title} left", "MS-2037", why, place, "return from the function; do not call os._exit"
    )


def _memory_words(how: Death) -> str:
    peak = f"it had {how.exited.peak_bytes / 2**20:,.0f} MiB resident of {how.memory_bytes / 2**20:,.0f} MiB"
    if how.oom:
        return f"{peak}; the kernel's out-of-memory killer was at work"
    return f"{peak}; SIGKILL came from outside"


def error_of(fault: Fault, secrets: Iterable[str] = ()) -> MainspringError:
    """A fault as the exception it stands for; secrets are masked."""
    texts = [fault.what, fault.why, fault.fix, fault.traceback]
    for secret in filter(None, secrets):
        texts = [text.replace(secret, "******") for text in texts]
    what, why, fix, traceback = texts
    make: Callable[..., MainspringError] = getattr(errors, fault.kind, UserCodeError)
    error = make(what, code=fault.code, why=why, origin=fault.origin, fix=fix)
    if traceback:
        error.add_note(traceback)
    return error
