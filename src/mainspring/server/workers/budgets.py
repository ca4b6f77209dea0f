"""Budgets of a server's workers: each account's use in a block of one file, a row for each worker, under one lock."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import mmap
import os
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from mainspring.errors import StoreError
from mainspring.llm.limits import Account, Accounts, Denied, Reservation
from mainspring.llm.values import Limits

__all__ = ["SharedAccount", "SharedAccounts", "budgets_file", "leave"]

_ROW = struct.Struct("@dqqdqq")
"""Window, requests and tokens in it; period, money in it; requests under way."""
_NAME = 16
_ROWS_AT = 64
_BLOCK = 16_384
"""Bytes of an account: its digest, then rows of as many workers as a server may have."""
_UNDER_WAY_AT = _ROW.size - 8
_PATIENCE_S = 0.1
"""How long the lock is waited for: it is held for microseconds, unless its holder is not let run."""
_GIVE_UP_S = 1.0
"""For how long nobody waits after that: a stopped worker must not stop the others."""


def budgets_file(kept: Path, ending: str) -> Path:
    """Where the accounts of a server's workers are; the parent makes it anew at every start."""
    return kept / "workers" / f"budgets{ending}.bin"


def leave(path: Path, worker: int) -> None:
    """A worker has ended: nothing is under way there any more. What it had reserved stays used, as it may have been."""
    with contextlib.suppress(FileNotFoundError), path.open("r+b") as file:
        end = os.fstat(file.fileno()).st_size
        for block in range(0, end, _BLOCK):
            os.pwrite(file.fileno(), bytes(8), block + _ROWS_AT + worker * _ROW.size + _UNDER_WAY_AT)


class SharedAccount(Account):
    """An account whose use is the sum of all workers' rows; each writes its own alone, so that no use is ever lost.

    Args:
        name: ``key:web``.
        limits: what it may use.
        now: the clock, in seconds since 1970.
        block: the account's part of the file.
        workers: how many rows count.
        worker: whose row is this process's.
    """

    __slots__ = ("_block", "_money", "_own", "_requests", "_rows", "_tokens", "_under_way")

    def __init__(
        self, name: str, limits: Limits, now: Callable[[], float], block: mmap.mmap, workers: int, worker: int
    ) -> None:
        super().__init__(name, limits, now)
        self._block = block
        self._rows = [_ROWS_AT + number * _ROW.size for number in range(workers) if number != worker]
        self._own = _ROWS_AT + worker * _ROW.size
        self._under_way = self._requests = self._tokens = self._money = 0
        self.turn(now())

    def turn(self, now: float) -> None:
        """Read what all workers have used of the window and the period that run; `now` is in seconds since 1970."""
        limits = self.limits
        self.window = window = now // limits.window_s * limits.window_s
        self.period = period = now // limits.period_s * limits.period_s
        self.until = min(window + limits.window_s, period + limits.period_s)
        under_way = requests = tokens = money = 0
        for at in self._rows:
            its_window, its_requests, its_tokens, its_period, its_money, its_under_way = _ROW.unpack_from(
                self._block, at
            )
            under_way += its_under_way
            if its_window == window:
                requests += its_requests
                tokens += its_tokens
            if its_period == period:
                money += its_money
        self._under_way, self._requests, self._tokens, self._money = under_way, requests, tokens, money
        own = _ROW.unpack_from(self._block, self._own)
        self.under_way = under_way + own[5]
        self.requests = requests + (own[1] if own[0] == window else 0)
        self.tokens = tokens + (own[2] if own[0] == window else 0)
        self.money = money + (own[4] if own[3] == period else 0)

    def keep(self) -> None:
        """Write this worker's part of what `turn` read and what was added since."""
        _ROW.pack_into(
            self._block,
            self._own,
            self.window,
            self.requests - self._requests,
            self.tokens - self._tokens,
            self.period,
            self.money - self._money,
            self.under_way - self._under_way,
        )


class SharedReservation(Reservation):
    """A reservation that all workers see."""

    __slots__ = ()

    def settle(self, tokens: int, money: int) -> None:
        """As `Reservation.settle`. No lock is needed: a row has one writer, and its numbers are each written whole."""
        if not self.open:
            return
        super().settle(tokens, money)
        for account in self._accounts:
            assert isinstance(account, SharedAccount)
            account.keep()


class SharedAccounts(Accounts):
    """The accounts of `Accounts`, over all workers of a server.

    A reservation looks at all rows and writes its own under a lock of the kernel, which a worker that dies does not
    hold. A holder that is kept from running for longer than `patience` is not waited for: then, and for a second after,
    as much more may be given as the others take in the same microseconds.

    Args:
        now: the clock, in seconds since 1970; the same in all processes of the machine.
        path: of the file.
        workers: how many there are.
        worker: which of them this is.
        spent: micro-units that each account's period has seen before the server began, by the account's name.
        patience: seconds that the lock is waited for.

    Raises:
        StoreError: MS-4450, the file cannot be made or has no room.
    """

    __slots__ = ("_file", "_give_up", "_patience", "_worker", "_workers")

    def __init__(
        self,
        now: Callable[[], float],
        path: Path,
        workers: int,
        worker: int,
        spent: Mapping[str, int] | None = None,
        *,
        patience: float = _PATIENCE_S,
    ) -> None:
        super().__init__(now, spent)
        self._workers, self._worker = workers, worker
        self._patience = patience
        self._give_up = 0.0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise _no_room(path, error) from error

    def add(self, name: str, limits: Limits) -> Account | None:
        """As `Accounts.add`; an account that another worker has made is found by its name, window and period.

        Raises:
            StoreError: MS-4450, the file has no room for it.
        """
        if limits == Limits():
            return None
        found = self._all.get(name)
        if found is None:
            account = SharedAccount(name, limits, self._now, self._block(name, limits), self._workers, self._worker)
            found = self._all[name] = account
        return found

    def _block(self, name: str, limits: Limits) -> mmap.mmap:
        """The account's part of the file, made with what was spent before when nobody has it yet."""
        wanted = repr((name, limits.window_s, limits.period_s)).encode()
        digest = hashlib.blake2b(wanted, digest_size=_NAME).digest()
        fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            end = os.fstat(self._file).st_size
            blocks = range(0, end, _BLOCK)
            at = next((at for at in blocks if os.pread(self._file, _NAME, at) == digest), None)
            if at is None:
                at = end
                os.posix_fallocate(self._file, at, _BLOCK)
                period = self._now() // limits.period_s * limits.period_s
                row = _ROW.pack(0.0, 0, 0, period, self._spent.get(name, 0), 0)
                os.pwrite(self._file, row, at + _ROWS_AT + self._worker * _ROW.size)
                os.pwrite(self._file, digest, at)
            return mmap.mmap(self._file, _BLOCK, offset=at)
        except OSError as error:
            raise _no_room(Path(f"/proc/self/fd/{self._file}").resolve(), error) from error
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)

    def reserve(self, accounts: Sequence[Account], tokens: int, money: int) -> Reservation | Denied:
        """As `Accounts.reserve`."""
        with self._held():
            now = self._now()
            for account in accounts:
                account.turn(now)
            got = super().reserve(accounts, tokens, money)
            if isinstance(got, Reservation):
                for account in accounts:
                    assert isinstance(account, SharedAccount)
                    account.keep()
            return got

    def _reservation(self, accounts: Sequence[Account], tokens: int, money: int, now: float) -> Reservation:
        return SharedReservation(accounts, tokens, money, now)

    @contextlib.contextmanager
    def _held(self) -> Iterator[None]:
        held = self._hold()
        try:
            yield
        finally:
            if held:
                fcntl.lockf(self._file, fcntl.LOCK_UN)

    def _hold(self) -> bool:
        end = 0.0
        while True:
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                now = time.monotonic()
                end = end or now + self._patience
                if now < self._give_up:
                    return False
                if now > end:
                    self._give_up = now + _GIVE_UP_S
                    return False
                os.sched_yield()
            else:
                return True


def _no_room(path: Path, error: OSError) -> StoreError:
    return StoreError(
        "the budgets of the workers cannot be kept",
        code="MS-4450",
        why=str(error),
        origin=str(path),
        fix="make room there, or let this user write there",
    )
