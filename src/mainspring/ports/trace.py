"""The trace that a request belongs to, as W3C Trace Context passes it on, in whatever it is answered by."""

from __future__ import annotations

import random
import re
import time
from contextvars import ContextVar

import msgspec

__all__ = ["CURRENT", "Part", "Trace", "read_traceparent"]

_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_NO_TRACE, _NO_SPAN = b"0" * 32, b"0" * 16


def read_traceparent(header: bytes) -> tuple[str, str, bool] | None:
    """The trace's id, the caller's span and whether the caller keeps it; None for what is no ``traceparent``.

    Reads version 00 exactly, and of later ones the parts that they share with it
    (W3C Trace Context, section 3.2).
    """
    found = _TRACEPARENT.fullmatch(header.strip())
    if found is None:
        return None
    version, trace, span, flags, more = found.groups()
    if version == b"ff" or (version == b"00" and more) or trace == _NO_TRACE or span == _NO_SPAN:
        return None
    return trace.decode(), span.decode(), bool(int(flags, 16) & 1)


Part = tuple[str, int, int, dict[str, object]]
"""Something that a request spent time on: its name, begin and end in nanoseconds since 1970, and facts."""


class Trace(msgspec.Struct):
    """A request that is being answered.

    Attributes:
        trace: the trace's id, 32 hexadecimal digits.
        parent: the span of who asked, 16 digits, or nothing.
        kept: whether it is kept whatever comes of it.
        span: this request's own.
        begun: nanoseconds since 1970.
        parts: what it spent its time on.
        facts: what is known of it.
    """

    trace: str
    parent: str
    kept: bool
    span: str = msgspec.field(default_factory=lambda: f"{random.getrandbits(64) or 1:016x}")
    begun: int = msgspec.field(default_factory=time.time_ns)
    parts: list[Part] = msgspec.field(default_factory=list)
    facts: dict[str, object] = msgspec.field(default_factory=dict)

    def traceparent(self) -> str:
        """As it is passed on to who is asked for this request."""
        return f"00-{self.trace}-{self.span}-{'01' if self.kept else '00'}"


CURRENT: ContextVar[Trace | None] = ContextVar("trace", default=None)
"""The request that is being answered here; None where none is traced."""
