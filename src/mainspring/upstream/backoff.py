"""How long to wait before something that has failed is tried again."""

from __future__ import annotations

__all__ = ["Backoff"]


class Backoff:
    """Waits that double: `first`, twice that, up to `most`; from the beginning after it has held for `steady` seconds.

    The clock is passed in: seconds of any monotonic one.
    """

    def __init__(self, first: float = 0.2, most: float = 30.0, steady: float = 60.0) -> None:
        self._first = first
        self._most = most
        self._steady = steady
        self._next = first

    def failed(self, held: float) -> float:
        """Seconds to wait, after what was started has held for `held` seconds."""
        if held >= self._steady:
            self._next = self._first
        wait, self._next = self._next, min(self._most, self._next * 2)
        return wait
