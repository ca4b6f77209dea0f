"""Ids and times as the catalog wants them."""

from __future__ import annotations

import os
import time

__all__ = ["new_id", "now_us"]


def now_us() -> int:
    """The clock in UTC microseconds since 1970."""
    return time.time_ns() // 1000


def new_id() -> str:
    """A UUIDv7 (RFC 9562, section 5.7) as 32 hex digits: milliseconds, then 74 random bits."""
    milliseconds = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10), "big")
    value = (
        (milliseconds << 80) | (0x7 << 76) | ((random >> 62 & 0xFFF) << 64) | (0b10 << 62) | (random & ((1 << 62) - 1))
    )
    return f"{value:032x}"
