"""How often each caller may ask all workers of a server together: the same buckets, in a file that all of them map."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import mmap
import os
import struct
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from pathlib import Path

from mainspring.server.http.rates import Rate, Rates

__all__ = ["SharedRates", "rates_file"]

_WAYS = 8
"""Callers whose buckets are in one set."""
_PLACE = struct.Struct("16sq")
_SET = (_WAYS + 1) * _PLACE.size
"""Bytes of a set; its last place is shared by those whom it has no room for."""
_SETS = 8192
_PATIENCE_S = 0.002
"""How long a set that another worker holds is tried: it is held for microseconds, unless its holder does not run."""


def rates_file(kept: Path, ending: str) -> Path:
    """Where the buckets of a server's workers are; the parent makes it anew at every start."""
    return kept / "workers" / f"rates{ending}.bin"


class SharedRates(Rates):
    """The buckets of `Rates`, in sets of eight by the caller's digest.

    A set is locked in the kernel while a worker takes from it, and a worker that dies holds nothing. Nobody waits for
    long: a set whose holder is kept from running is read without its lock, which may give one request more.

    Args:
        usual: everybody's rate; None is no limit.
        own: the rates of callers that have one of their own, by name.
        path: of the file.
        sets: how many sets it has.
        patience: seconds that a set is waited for which another worker holds.
        clock: nanoseconds that only grow, the same in all processes of the machine.
    """

    def __init__(
        self,
        usual: Rate | None,
        own: Mapping[str, Rate],
        path: Path,
        *,
        sets: int = _SETS,
        patience: float = _PATIENCE_S,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        super().__init__(usual, own, clock=clock)
        self._sets = sets
        self._patience = patience
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        os.posix_fallocate(self._file, 0, sets * _SET)
        self._map = mmap.mmap(self._file, sets * _SET)

    @staticmethod
    def begin(path: Path) -> None:
        """Forget what an earlier server has counted; its moments are of another start of the machine, maybe."""
        path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the file."""
        self._map.close()
        os.close(self._file)

    def __len__(self) -> int:
        starts = range(0, self._sets * _SET, _SET)
        return sum(
            any(_PLACE.unpack_from(self._map, start + way * _PLACE.size)[0]) for start in starts for way in range(_WAYS)
        )

    def take(self, caller: Hashable, name: str = "") -> int:
        """Take one request of a caller's; the nanoseconds until the next may come when there is none, else 0.

        Args:
            caller: by what it is told from others.
            name: under which it may have a rate of its own.
        """
        rate = self.rate(name)
        if rate is None:
            return 0
        digest = hashlib.blake2b(repr(caller).encode(), digest_size=16).digest()
        start = int.from_bytes(digest[:8], "little") % self._sets * _SET
        with self._held(start):
            now = self._clock()
            at, full = self._place(start, digest, now)
            full = max(full, now)
            wait = full - now - (rate.burst - 1) * rate.interval
            if wait <= 0:
                shared = at == start + _WAYS * _PLACE.size
                _PLACE.pack_into(self._map, at, bytes(16) if shared else digest, full + rate.interval)
            return max(wait, 0)

    def _place(self, start: int, digest: bytes, now: int) -> tuple[int, int]:
        """Where a caller's bucket is, and when it will be full: its own, one that nobody needs, or the shared one."""
        free = None
        for at in range(start, start + _WAYS * _PLACE.size, _PLACE.size):
            known, full = _PLACE.unpack_from(self._map, at)
            if known == digest:
                return at, full
            if free is None and full <= now:  # as good as none
                free = at
        if free is not None:
            return free, now
        at = start + _WAYS * _PLACE.size
        return at, _PLACE.unpack_from(self._map, at)[1]

    @contextlib.contextmanager
    def _held(self, start: int) -> Iterator[None]:
        with self._lock:
            held = self._hold(start)
            try:
                yield
            finally:
                if held:
                    fcntl.lockf(self._file, fcntl.LOCK_UN, _SET, start)

    def _hold(self, start: int) -> bool:
        end = 0.0
        while True:
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, _SET, start)
            except OSError:
                now = time.monotonic()
                end = end or now + self._patience
                if now > end:
                    return False
                os.sched_yield()
            else:
                return True
