"""A write-ahead log on disk: pushes are durable when `append` returns, and stay until the tables have them.

The log lies in a folder beside the tables, so that whoever writes to the tables writes to it: processes take turns by a
lock on its file ``lock``, which dies with its holder, and each reads on from where it was. What several threads want to
append at once becomes one frame with one fsync. Numbers are given out under the lock, so that a row's `_seq` says its
place among all rows of the source, whoever took it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from mainspring.errors import DataError, MainspringError, RefusedError, StoreError
from mainspring.features.wal.answers import DAY_US, Answers
from mainspring.features.wal.frames import VERSION, Entry, Group, Head, frame, frames, is_torn

__all__ = ["Backlog", "Draft", "Kept", "WriteAheadLog", "segment_files"]

_SUFFIX = ".wal"
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_ROLL = 16 << 20
"""Bytes after which a segment is left for the next."""
_SMALL = 1 << 20
"""Bytes below which a segment whose rows are all in the tables is gone on with."""


class Draft(msgspec.Struct, frozen=True):
    """A push that has no number yet.

    Attributes:
        rows: its rows as an Arrow IPC message of the head's schema.
        count: how many rows.
        aside: rows set aside, likewise.
        aside_count: how many.
        report: how many for each reason.
        request: the request's id, or None.
        asked: digest of the rows that were sent.
    """

    rows: bytes
    count: int
    aside: bytes
    aside_count: int
    report: dict[str, int]
    request: str | None = None
    asked: str = ""


class Kept(msgspec.Struct, frozen=True):
    """An entry that the log holds, and where.

    Attributes:
        entry: the push.
        segment: the number of its segment.
        at: where its bodies begin.
    """

    entry: Entry
    segment: int
    at: int


class Backlog(msgspec.Struct, frozen=True):
    """What is in the log and not in the tables.

    Attributes:
        rows: acknowledged rows.
        bytes: their size, with that of rows set aside.
        oldest_us: when the first of them came, microseconds since 1970, or None.
    """

    rows: int
    bytes: int
    oldest_us: int | None


class _Waiting(msgspec.Struct):
    draft: Draft
    answer: tuple[Entry, bool] | None = None
    error: MainspringError | None = None

    @property
    def settled(self) -> bool:
        return self.answer is not None or self.error is not None


class _Segment(msgspec.Struct):
    number: int
    path: Path
    descriptor: int
    end: int = 0
    kept: list[Kept] = msgspec.field(default_factory=list)


def segment_files(folder: Path) -> list[tuple[int, Path]]:
    """The segments of a log, by number."""
    return sorted((int(path.name.removesuffix(_SUFFIX)), path) for path in folder.glob(f"[0-9]*{_SUFFIX}"))


class WriteAheadLog:
    """The log of one source, for the threads of this process; other processes may have it open too.

    Args:
        folder: where it is.
        begin: what a log that is made now begins with, and what the tables have reached otherwise.
        most_bytes: of rows that are not in the tables; beyond it a push is refused.
    """

    def __init__(self, folder: Path, begin: Callable[[], Head], most_bytes: int = 1 << 28) -> None:
        self._folder = folder
        self._begin = begin
        self._most_bytes = most_bytes
        self._mutex = threading.RLock()
        self._waiting: deque[_Waiting] = deque()
        self._segments: dict[int, _Segment] = {}
        self._requests: dict[str, Entry] = {}
        self._answers = Answers(folder)
        self._lock = -1
        self._born: os.stat_result | None = None
        self._head: Head | None = None
        self._compared = False
        self._reached = (0, 0)
        self._bytes = self._rows = 0
        self._n = self._counter = 0

    @property
    def head(self) -> Head | None:
        """What the oldest segment says of the log; None when there is none yet."""
        return self._head

    # -- writing --------------------------------------------------------------------------------------------------

    def append(self, draft: Draft) -> tuple[Entry, bool]:
        """Make a push durable; with it, what other threads append meanwhile.

        Returns:
            The push with its numbers, and whether the same request had been taken before.

        Raises:
            DataError: MS-2121, the request came with other rows before.
            RefusedError: MS-5046, too much waits for the tables.
            StoreError: MS-4101, the disk is full; MS-4172, the log is damaged; MS-4173, it cannot be written.
        """
        mine = _Waiting(draft)
        self._waiting.append(mine)
        with self._mutex:
            if not mine.settled:
                self._write([self._waiting.popleft() for _ in range(len(self._waiting))])
        if mine.error is not None:
            raise mine.error
        assert mine.answer is not None
        return mine.answer

    def _write(self, group: Sequence[_Waiting]) -> None:
        failed: MainspringError = _unwritten(self._folder, OSError(errno.EINTR, "interrupted"))
        try:
            with self._turn():
                self._take(group)
        except MainspringError as error:
            failed = error
        finally:
            for waiting in group:
                if not waiting.settled:
                    waiting.error = failed

    def _take(self, group: Sequence[_Waiting]) -> None:
        """Answer what came before, refuse what is too much, and make the rest one frame."""
        now = _now_us()
        n, counter, size = self._n, self._counter, self._bytes
        fresh: list[tuple[_Waiting, Entry]] = []
        named: dict[str, Entry] = {}
        again: list[tuple[_Waiting, Entry]] = []
        for waiting in group:
            draft = waiting.draft
            if draft.request is not None and draft.request in named:
                again.append((waiting, named[draft.request]))
            elif draft.request is not None and (known := self._known(draft.request, now)) is not None:
                self._repeat(waiting, known)
            elif size > self._most_bytes:
                waiting.error = _overfull(self._folder, self._most_bytes)
            else:
                entry = _numbered(draft, n, counter, now)
                n, counter, size = n + 1, counter + draft.count, size + entry.body + entry.aside_body
                fresh.append((waiting, entry))
                if draft.request is not None:
                    named[draft.request] = entry
        if fresh:
            bodies = [part for waiting, _ in fresh for part in (waiting.draft.rows, waiting.draft.aside)]
            self._put(Group(n, counter, [entry for _, entry in fresh]), bodies)
        for waiting, entry in fresh:
            waiting.answer = entry, False
        for waiting, entry in again:
            self._repeat(waiting, entry)

    def _known(self, request: str, now_us: int) -> Entry | None:
        since = now_us - DAY_US
        entry = self._requests.get(request)
        if entry is not None and entry.at_us >= since:
            return entry
        return self._answers.find(request, since)

    def _repeat(self, waiting: _Waiting, entry: Entry) -> None:
        if entry.asked == waiting.draft.asked:
            waiting.answer = entry, True
        else:
            waiting.error = DataError(
                f"request {entry.request!r} was another one",
                code="MS-2121",
                why="other rows came under this name before",
                fix="send each request under a name of its own (Idempotency-Key), and a repeated one as it was",
            )

    def reserve(self, count: int, reached: int) -> int:
        """Set numbers apart for rows of files; hold the tables' lock of the log.

        Args:
            count: how many.
            reached: the counter that follows the last in the table. It is where numbers begin, unless pushes came.

        Returns:
            The counter of the first; pushes before it have to be in the table first, later ones after them.
        """
        with self._mutex, self._turn():
            waits = any(kept.entry.rows and kept.entry.counter >= reached for kept in self._all())
            start = self._counter if waits else reached
            self._put(Group(self._n, start + count, []), [])
            return start

    def _put(self, group: Group, bodies: Sequence[bytes]) -> None:
        segment = self._last
        if segment.end >= _ROLL:
            segment = self._make(segment.number + 1, self._moved())
        data, at = frame(group, bodies), segment.end
        try:
            view = memoryview(data)
            while view:
                done = os.pwrite(segment.descriptor, view, at)
                view, at = view[done:], at + done
            os.fdatasync(segment.descriptor)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(segment.descriptor, segment.end)
            raise _unwritten(self._folder, error) from error
        self._learn(segment, data)

    def _moved(self) -> Head:
        """The head of the next segment."""
        assert self._head is not None
        return msgspec.structs.replace(self._head, n=self._n, counter=self._counter)

    def _make(self, number: int, head: Head) -> _Segment:
        """Begin a segment; it is there whole or not at all."""
        path = self._folder / f"{number:012}{_SUFFIX}"
        part = path.with_name(f".new-{path.name}")
        try:
            with open(part, "wb") as file:
                file.write(frame(head))
                file.flush()
                os.fsync(file.fileno())
            os.rename(part, path)
            _sync_folder(self._folder)
        except OSError as error:
            with contextlib.suppress(OSError):
                part.unlink()
            raise _unwritten(self._folder, error) from error
        return self._open(number, path)

    # -- taking turns ---------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """Hold the log's lock, knowing all that others wrote."""
        try:
            self._hold()
        except OSError as error:
            raise _unwritten(self._folder, error) from error
        try:
            self._catch_up()
            if not self._segments:
                self._make(1, self._begin())
            elif not self._compared:  # numbers never go back, also when the end of a log was lost with its disk
                tables = self._begin()
                self._n, self._counter = max(self._n, tables.n), max(self._counter, tables.counter)
            self._compared = True
            self._mend()
            yield
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def _hold(self) -> None:
        while True:
            if self._lock < 0:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._lock = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(self._lock), os.stat(self._folder / "lock")):
                    return
            os.close(self._lock)  # the folder was put aside
            self._lock = -1

    def _mend(self) -> None:
        """Cut off what a writer that died had begun; nobody else writes now."""
        segment = self._last
        rest = os.fstat(segment.descriptor).st_size - segment.end
        if not rest:
            return
        if segment.end == 0 or not is_torn(os.pread(segment.descriptor, rest, segment.end)):
            raise _damaged(segment.path)
        try:
            os.ftruncate(segment.descriptor, segment.end)
        except OSError as error:
            raise _unwritten(self._folder, error) from error

    # -- reading --------------------------------------------------------------------------------------------------

    def waiting(self, log_n: int, aside_n: int) -> list[Kept]:
        """The pushes that the tables have not, in order.

        Args:
            log_n: the last entry whose rows are in the log's table.
            aside_n: the last entry whose rows set aside are in theirs.

        Raises:
            StoreError: MS-4172, the log is damaged: what comes after the damage would be lost.
        """
        with self._mutex:
            self._catch_up()
            for segment in self._segments.values():
                rest = os.fstat(segment.descriptor).st_size - segment.end
                if rest and not is_torn(os.pread(segment.descriptor, rest, segment.end)):
                    self._catch_up()  # it may have been written between the two looks
                    if not is_torn(_rest(segment)):
                        raise _damaged(segment.path)
            self._done(log_n, aside_n)
            return [kept for kept in self._all() if self._waits(kept.entry)]

    def bodies(self, kept: Kept) -> tuple[bytes, bytes]:
        """The rows of a push, and those set aside, as Arrow IPC messages."""
        entry, descriptor = kept.entry, self._segments[kept.segment].descriptor
        data = os.pread(descriptor, entry.body + entry.aside_body, kept.at)
        return data[: entry.body], data[entry.body :]

    def newest(self) -> int | None:
        """The counter of the newest row of a push that the log still holds, or None."""
        with self._mutex:
            self._catch_up()
            held = (kept.entry.counter + kept.entry.rows - 1 for kept in self._all() if kept.entry.rows)
            return max(held, default=None)

    def waiting_rows(self) -> int:
        """How many rows wait for the tables, as far as this process knows; quick."""
        return self._rows

    def backlog(self) -> Backlog:
        """What waits for the tables, as far as this process knows."""
        with self._mutex:
            oldest = min((kept.entry.at_us for kept in self._all() if self._waits(kept.entry)), default=None)
            return Backlog(self._rows, self._bytes, oldest)

    def find(self, n: int) -> Kept | None:
        """The entry of that number, if the log still holds it."""
        with self._mutex:
            return next((kept for kept in self._all() if kept.entry.n == n), None)

    def retire(self, log_n: int, aside_n: int, sync: Callable[[], None]) -> None:
        """Remove segments whose rows are all in the tables; hold the tables' lock of the log.

        Args:
            log_n: as in `waiting`.
            aside_n: likewise.
            sync: makes the tables durable; called before anything is removed.
        """
        with self._mutex:
            self._done(log_n, aside_n)
            if not self._segments:
                return
            if self._last.end > _SMALL and not any(self._waits(kept.entry) for kept in self._last.kept):
                with self._turn():
                    if not any(self._waits(kept.entry) for kept in self._last.kept):
                        self._make(self._last.number + 1, self._moved())
            old = [
                segment
                for segment in list(self._segments.values())[:-1]
                if not any(self._waits(kept.entry) for kept in segment.kept)
            ]
            if not old:
                return
            sync()
            self._answers.keep([kept.entry for segment in old for kept in segment.kept], _now_us() - DAY_US)
            for segment in old:
                segment.path.unlink(missing_ok=True)
                self._forget(segment)

    def close(self) -> None:
        """Close the files."""
        with self._mutex:
            for segment in list(self._segments.values()):
                self._forget(segment)
            self._answers.close()
            if self._lock >= 0:
                os.close(self._lock)
                self._lock = -1

    @property
    def _last(self) -> _Segment:
        return self._segments[max(self._segments)]

    def _all(self) -> Iterator[Kept]:
        return (kept for segment in self._segments.values() for kept in segment.kept)

    def _waits(self, entry: Entry) -> bool:
        log_n, aside_n = self._reached
        return bool((entry.rows and entry.n > log_n) or (entry.aside and entry.n > aside_n))

    def _done(self, log_n: int, aside_n: int) -> None:
        self._reached = (max(log_n, self._reached[0]), max(aside_n, self._reached[1]))
        waiting = [kept.entry for kept in self._all() if self._waits(kept.entry)]
        self._rows = sum(entry.rows for entry in waiting)
        self._bytes = sum(entry.body + entry.aside_body for entry in waiting)

    def _forget(self, segment: _Segment) -> None:
        del self._segments[segment.number]
        os.close(segment.descriptor)
        for kept in segment.kept:
            if kept.entry.request is not None and self._requests.get(kept.entry.request) is kept.entry:
                del self._requests[kept.entry.request]

    def _catch_up(self) -> None:
        """Read what was written since the last time."""
        try:
            self._see_whose()
            while True:
                if self._segments:
                    last = self._last
                    current = last.path.exists() and not _path(self._folder, last.number + 1).exists()
                    self._read(last)
                    if current:
                        return
                known = max(self._segments, default=0)
                found = [item for item in segment_files(self._folder) if item[0] > known]
                if not found:
                    return
                with contextlib.suppress(FileNotFoundError):  # its rows went into the tables meanwhile
                    self._open(*found[0])
        except OSError as error:
            raise _unwritten(self._folder, error) from error

    def _see_whose(self) -> None:
        """Forget a log whose folder was put aside, because the tables were written from elsewhere meanwhile."""
        try:
            found = os.stat(self._folder / "lock")
        except FileNotFoundError:
            found = None
        before, self._born = self._born, found
        if before is None or (found is not None and os.path.samestat(before, found)):
            return
        for segment in list(self._segments.values()):
            self._forget(segment)
        self._answers.close()
        self._answers = Answers(self._folder)
        self._head, self._compared, self._reached = None, False, (0, 0)
        self._bytes = self._rows = self._n = self._counter = 0

    def _open(self, number: int, path: Path) -> _Segment:
        segment = _Segment(number, path, os.open(path, os.O_RDWR | os.O_CLOEXEC))
        self._segments[number] = segment
        self._read(segment)
        return segment

    def _read(self, segment: _Segment) -> None:
        if rest := _rest(segment):
            self._learn(segment, rest)

    def _learn(self, segment: _Segment, data: bytes) -> None:
        try:
            self._take_in(segment, data)
        except msgspec.DecodeError as error:
            raise _strange(segment.path) from error

    def _take_in(self, segment: _Segment, data: bytes) -> None:
        start = segment.end
        for found in frames(data, headed=start == 0):
            what, at = found.what, start + found.bodies
            if isinstance(what, Head):
                if what.version != VERSION:
                    raise _strange(segment.path)
                self._head = self._head or what
            else:
                for entry in what.entries:
                    segment.kept.append(Kept(entry, segment.number, at))
                    at += entry.body + entry.aside_body
                    self._rows += entry.rows
                    self._bytes += entry.body + entry.aside_body
                    if entry.request is not None:
                        self._requests[entry.request] = entry
            self._n, self._counter = what.n, what.counter
            segment.end = start + found.stop


def _numbered(draft: Draft, n: int, counter: int, now_us: int) -> Entry:
    return Entry(
        n=n,
        at_us=now_us,
        batch=f"push/{n}" if draft.request is None else f"request/{draft.request}",
        counter=counter,
        rows=draft.count,
        aside=draft.aside_count,
        report=draft.report,
        request=draft.request,
        asked=draft.asked,
        body=len(draft.rows),
        aside_body=len(draft.aside),
    )


def _path(folder: Path, number: int) -> Path:
    return folder / f"{number:012}{_SUFFIX}"


def _rest(segment: _Segment) -> bytes:
    size = os.fstat(segment.descriptor).st_size
    return os.pread(segment.descriptor, size - segment.end, segment.end) if size > segment.end else b""


def _now_us() -> int:
    return time.time_ns() // 1000


def _sync_folder(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _unwritten(folder: Path, error: OSError) -> StoreError:
    if error.errno in _FULL:
        return StoreError(
            "the disk is full", code="MS-4101", why=str(error.strerror), fix="free some space and run it again"
        )
    return StoreError(
        "the log of pushes cannot be written",
        code="MS-4173",
        why=str(error.strerror or error),
        origin=folder.name,
        fix="make the folder of the tables readable and writable",
    )


def _damaged(path: Path) -> StoreError:
    return StoreError(
        "the log of pushes is damaged",
        code="MS-4172",
        why=f"rows in {path.parent.name}/{path.name} cannot be read, and whole ones follow them",
        fix="restore the file from a copy of the disk, or move it away and push again what it held",
    )


def _strange(path: Path) -> StoreError:
    return StoreError(
        "the log of pushes cannot be understood",
        code="MS-4174",
        why=f"{path.parent.name}/{path.name} was written by another version of Mainspring",
        fix="start that version once more and stop it: the rows are in the tables then, and the file can go",
    )


def _overfull(folder: Path, most: int) -> RefusedError:
    return RefusedError(
        "too many pushed rows wait for the tables",
        code="MS-5046",
        why=f"more than features.wal_bytes = {most} bytes are waiting in {folder.name}",
        fix="push again in a second; if it lasts, look why the tables cannot be written (the server's log says it)",
    )
