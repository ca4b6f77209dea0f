"""What the libraries and the system say turned into a reason that people understand."""

from __future__ import annotations

import signal

from mainspring.errors import StoreError
from mainspring.ports.parser import Reason, Refused

__all__ = ["death", "refusal", "unreadable"]

_SIGNS: tuple[tuple[str, Reason], ...] = (
    ("password", "encrypted"),
    ("encrypted", "encrypted"),
    ("timed out", "timeout"),
    ("timeout", "timeout"),
    ("security", "too_large"),
    ("zip bomb", "too_large"),
    ("compression ratio", "too_large"),
    ("exceeds", "too_large"),
    ("too large", "too_large"),
    ("limit", "too_large"),
    ("unsupported", "unsupported"),
)


def refusal(error: Exception) -> Refused:
    """Why a library could not read a document."""
    if isinstance(error, MemoryError):
        return Refused("memory", "reading it takes more memory than parser.memory allows")
    text = (str(error).splitlines() or [""])[0][:200] or type(error).__name__
    lower = text.lower()
    return Refused(next((reason for sign, reason in _SIGNS if sign in lower), "corrupt"), text)


def death(status: int, said: str) -> Refused:
    """Why a child process has died: by its exit status (negative: a signal), and what it said last."""
    if "memory allocation" in said or "MemoryError" in said or "bad_alloc" in said or status == -signal.SIGKILL:
        return Refused("memory", "reading it takes more memory than parser.memory allows")
    if status == -signal.SIGXCPU:
        return Refused("timeout", "reading it takes longer than parser.timeout")
    how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
    return Refused("crashed", f"the parser's process ended with {how}")


def unreadable(error: OSError, name: str) -> StoreError:
    """A file that cannot be opened."""
    return StoreError(
        f"document {name!r} cannot be read",
        code="MS-4261",
        why=error.strerror or str(error),
        fix="make the file readable, or take it out of the documents",
    )
