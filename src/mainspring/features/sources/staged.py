"""Rows on their way into a log, prepared part by part: many of them wait in files, not in memory.

A batch is taken whole or not at all, and what it brings is known only when all of it was seen: which rows are new, what
the checks say, the digest that a version is named by. So rows that fit are written down as they come, and read again
from there, as arrays whose bytes are the file's; what was read is let go of part by part.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from mainspring.errors import StoreError
from mainspring.features.logs.digest import ContentDigest
from mainspring.features.logs.ingest import Prepared, Seen, missing_everywhere, prepare, some_fit
from mainspring.features.logs.log import SourceTable
from mainspring.features.quality.results import CheckResult
from mainspring.features.quality.rowwise import Known, needs_whole, nothing_known
from mainspring.features.sources.files import RawFile
from mainspring.lazy import lazy

if TYPE_CHECKING:
    import pyarrow as pa
else:
    pa = lazy("pyarrow")

__all__ = ["STAGED", "Staging", "content_of_rows"]

STAGED = "_staged"
"""The folder beside the tables where rows wait."""
_HELD = 64 << 20
"""Bytes of rows that wait in memory."""
_YOUNG = 60.0
"""Seconds in which a folder that is being made gets its lock."""


class Staging:
    """Where the rows of one batch wait; a context, at whose end they are gone.

    Args:
        folder: the folder that those of all batches are in; what killed processes left there is removed.
        most: bytes of rows that wait in memory before they are written down.
    """

    def __init__(self, folder: Path, most: int = _HELD) -> None:
        self._folder, self._most = folder, most
        self._own: Path | None = None
        self._mapped: list[mmap.mmap] = []
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._own is not None:
            shutil.rmtree(self._own, ignore_errors=True)
        self._open.close()

    def prepare(
        self,
        source: SourceTable,
        parts: Iterable[RawFile],
        *,
        truncate: bool = False,
        known: Known = nothing_known,
    ) -> Prepared:
        """Rows as `mainspring.features.logs.ingest.prepare` makes them of all parts together.

        Args:
            source: what they should look like.
            parts: what was read, in order.
            truncate: whether nanoseconds are cut off times.
            known: the values that references may have.

        Raises:
            DataError: MS-2110, MS-2111, MS-2113, as there.
            StoreError: MS-4310, rows cannot be written down.
        """
        if needs_whole(source.checks):
            return some_fit(source, prepare(source, list(parts), truncate=truncate, known=known))
        rows, aside, seen = _Waiting(self, "rows"), _Waiting(self, "aside"), Seen()
        report: Counter[str] = Counter()
        results: tuple[CheckResult, ...] = ()
        files: dict[str, None] = {}
        named: dict[str, None] = {}
        held: set[str] = set()
        for part in parts:
            done = prepare(source, [part], truncate=truncate, known=known, seen=seen)
            rows.add(done.rows)
            aside.add(done.set_aside)
            report.update(done.report)
            results = done.results
            files[part.path.name] = None
            named |= dict.fromkeys(part.names)
            held |= set(part.table.column_names)
        missing_everywhere(source, held, list(named), list(files))
        kept = rows.table()
        prepared = Prepared(kept, aside.table(), dict(report), kept.slice(0, 0), results, self.release)
        return some_fit(source, prepared)

    @property
    def most(self) -> int:
        """Bytes of rows that wait in memory before they are written down."""
        return self._most

    def place(self) -> Path:
        """The folder of this batch, made now."""
        if self._own is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            for left in self._folder.iterdir():
                _remove_unless_used(left)
            self._own = Path(tempfile.mkdtemp(dir=self._folder))
            self._open.callback(os.close, _lock(self._own))
        return self._own

    def mapped(self, path: Path) -> mmap.mmap:
        """A file as memory, until `release` lets go of it for a while."""
        with open(path, "rb") as file:
            self._mapped.append(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))
        return self._mapped[-1]

    def release(self) -> None:
        """Let go of what was read; it is read again when it is asked for."""
        for mapped in self._mapped:
            mapped.madvise(mmap.MADV_DONTNEED)


class _Waiting:
    """Rows that wait: the first of them in memory, and when they are many, all in a file."""

    def __init__(self, staging: Staging, name: str) -> None:
        self._staging, self._name = staging, name
        self._parts: list[pa.Table] = []
        self._bytes = 0
        self._writer: pa.ipc.RecordBatchFileWriter | None = None

    def add(self, rows: pa.Table) -> None:
        self._parts.append(rows)
        self._bytes += rows.nbytes
        if self._bytes > self._staging.most:
            with _writing():
                self._write()

    def _write(self) -> None:
        if self._writer is None:
            path = str(self._staging.place() / self._name)
            self._writer = pa.ipc.new_file(path, self._parts[0].schema)
        for rows in self._parts:
            self._writer.write_table(rows)
        self._parts, self._bytes = [], 0

    def table(self) -> pa.Table:
        """All of them, in order."""
        if self._writer is None:
            return pa.concat_tables(self._parts).combine_chunks()
        with _writing():
            self._write()
            self._writer.close()
            file = self._staging.mapped(self._staging.place() / self._name)
        return pa.ipc.open_file(pa.py_buffer(file)).read_all()


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(
            "rows that are on their way into a table cannot be written down",
            code="MS-4310",
            why=str(error).partition("\n")[0],
            fix="free some space beside the tables, and run it again: nothing was taken yet",
        ) from error


def _lock(folder: Path) -> int:
    """Holds a batch's folder for as long as this process lives."""
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def _remove_unless_used(folder: Path) -> None:
    """Remove what a killed process left; one that is just being made has no lock yet, and is young."""
    with contextlib.suppress(OSError):
        if not (folder / "lock").exists() and time.time() - folder.stat().st_mtime < _YOUNG:
            return
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(lock)


def content_of_rows(prepared: Prepared) -> str:
    """A digest of rows that fit and of those that do not, in the order they came."""
    return "".join(_digest(rows, prepared) for rows in (prepared.rows, prepared.set_aside))


def _digest(rows: pa.Table, prepared: Prepared) -> str:
    digest = ContentDigest(rows.schema)
    for batch in rows.to_batches():
        digest.add(pa.Table.from_batches([batch]))
        prepared.release()
    return digest.hexdigest()
