"""Prediction ids: UUIDv7 (RFC 9562), rising within the process, drawn for less than a microsecond."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

__all__ = ["PredictionIds"]

_DRAWN = 512
_VARIANT = bytes(0x80 | (byte & 0x3F) for byte in range(256))
_COUNTER = 0xFFF


class PredictionIds:
    """Draws ids of 16 bytes: 48 bits of milliseconds, a counter of 12 bits, 62 random bits; not for several threads.

    Args:
        clock_ns: the time, ns since 1970.
        random_bytes: a source of random bytes; they are drawn in blocks, because a system call costs a microsecond.
    """

    def __init__(
        self, clock_ns: Callable[[], int] = time.time_ns, random_bytes: Callable[[int], bytes] = os.urandom
    ) -> None:
        self._clock = clock_ns
        self._random = random_bytes
        self._tails: list[bytes] = []
        self._last = 0
        self._count = 0

    def next(self) -> bytes:
        """The next id; greater, as bytes, than all before, also when the clock goes back."""
        now = self._clock() // 1_000_000
        if now > self._last:
            self._last, self._count = now, 0
        elif self._count < _COUNTER:
            self._count += 1
        else:  # 4096 within a millisecond: borrow from the next one
            self._last, self._count = self._last + 1, 0
        if not self._tails:
            self._draw()
        return (self._last << 16 | 0x7000 | self._count).to_bytes(8, "big") + self._tails.pop()

    def _draw(self) -> None:
        block = bytearray(self._random(8 * _DRAWN))
        block[::8] = block[::8].translate(_VARIANT)
        self._tails = [bytes(block[at : at + 8]) for at in range(0, len(block), 8)]
