"""The table port on Delta Lake: one folder a table, read as lists of Parquet files."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import glob
import itertools
import json
import os
import re
import secrets
import shutil
import threading
import time
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar
from urllib.parse import unquote

import msgspec

from mainspring.adapters.delta.columns import evolution, is_text, storable
from mainspring.adapters.delta.packs import covering, pack, reaches, texts, to_disk, unpacked
from mainspring.adapters.delta.problems import busy, forked, no_owner, no_such_table, turned, unfit, unspeakable
from mainspring.adapters.delta.settings import DeltaSettings
from mainspring.adapters.delta.vacuum import Kept, vacuum
from mainspring.errors import MainspringError
from mainspring.lazy import lazy
from mainspring.ports.tables import Commit, Limits, Owner, RowStream, Txn, Where

if TYPE_CHECKING:
    import deltalake
    import pyarrow as pa
    from deltalake import exceptions as delta_errors
    from pyarrow import dataset, fs
else:
    deltalake, pa = lazy("deltalake"), lazy("pyarrow")
    dataset, fs = lazy("pyarrow.dataset"), lazy("pyarrow.fs")
    delta_errors = lazy("deltalake.exceptions")

__all__ = ["DeltaTables", "commit_in", "open_tables"]

_NOTE = "mainspring"
_UNSPEAKABLE = re.compile(r"[][^|?#\\]|%[0-9A-Fa-f]{2}")
"""What delta-rs cannot have in a path: it makes a URL of it, badly."""
_FIRST_USER: list[int] = []
"""The process that used delta-rs first; a child forked from it cannot use it."""

_MOST_MARKS = 256
_LARGE = 128 << 20
"""Bytes of a file that small ones are put together to."""

P = ParamSpec("P")
R = TypeVar("R")


_DROPPED = ".dropped"  # where folders of dropped tables are while they are deleted


def _guarded(
    method: Callable[Concatenate[DeltaTables, str, P], R],
) -> Callable[Concatenate[DeltaTables, str, P], R]:
    """One thread at a time, and no driver's error reaches the caller bare."""

    @functools.wraps(method)
    def call(self: DeltaTables, table: str, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with self._mutex:
            return turning(self, table, *args, **kwargs)

    turning = _beside_others(method)
    return call


def _beside_others(
    method: Callable[Concatenate[DeltaTables, str, P], R],
) -> Callable[Concatenate[DeltaTables, str, P], R]:
    """No driver's error reaches the caller bare; what takes long holds up no other thread."""

    @functools.wraps(method)
    def call(self: DeltaTables, table: str, /, *args: P.args, **kwargs: P.kwargs) -> R:
        _same_process()
        try:
            return method(self, table, *args, **kwargs)
        except MainspringError:
            raise
        except self._faults() as error:
            raise self._turned(error, table) from error

    return call


def _same_process() -> None:
    if not _FIRST_USER:
        _FIRST_USER.append(os.getpid())
    if _FIRST_USER[0] != os.getpid():
        raise forked()


class _Head(msgspec.Struct):
    """What is known of a table's newest version without asking delta-rs, which reads the log for each question.

    Attributes:
        version: the version that this is about.
        marks: greatest n by name; names that are not in it may have one all the same.
        commit: the commit that made the version, or None when it was not ours.
    """

    version: int
    marks: dict[str, int] = msgspec.field(default_factory=dict)
    commit: Commit | None = None


class DeltaTables:
    """Delta tables in a folder.

    Args:
        root: the folder.
        settings: retention, row groups, tries.
    """

    def __init__(self, root: Path, settings: DeltaSettings) -> None:
        self._root = root
        self._settings = settings
        self._mutex = threading.RLock()
        self._open: dict[str, deltalake.DeltaTable] = {}
        self._heads: dict[str, _Head] = {}
        self._synced: dict[str, int] = {}
        self._options: dict[str, str] | None = None

    @property
    def limits(self) -> Limits:
        """What the settings allow; what does not fit goes to a folder beside the tables."""
        memory = self._settings.memory
        return Limits() if memory is None else Limits(memory, str(self._root / ".spill"))

    def claim(self) -> None:
        """Nothing: who can write the folder, may."""

    def owner(self) -> Owner | None:
        """Nobody alone."""
        return None

    def take(self, owner: str) -> tuple[Owner, Path | None]:
        """There is nobody whose place could be taken."""
        raise no_owner(str(self._root))

    def _hold(self, table: str, handle: deltalake.DeltaTable) -> None:
        """See that the version that follows may be written from here: nothing stands in the way of a folder's."""

    def tables(self, below: str = "") -> tuple[str, ...]:
        """The names of all tables, or of those below a name, sorted."""
        logs = (self._root / below).glob("*/**/_delta_log")
        names = (log.parent.relative_to(self._root) for log in logs)
        return tuple(sorted(str(name) for name in names if name.parts[0] != _DROPPED))

    @_guarded
    def version(self, table: str) -> int | None:
        """The newest version, or None when there is no such table."""
        handle = self._newest(table)
        return None if handle is None else int(handle.version())

    def has(self, table: str, version: int) -> bool:
        """Whether the commit of a version is there; the table is not opened, as in `mark`."""
        try:
            return reaches(self._folder(table), version)
        except OSError as error:
            raise turned(error, table) from error

    @_guarded
    def schema(self, table: str, version: int | None = None) -> pa.Schema:
        """The Arrow schema of a version."""
        with self._at(table, version) as handle:
            return pa.schema(handle.schema().to_arrow())

    @_guarded
    def append(
        self,
        table: str,
        rows: pa.Table | RowStream,
        txn: Txn,
        *,
        marks: Mapping[str, int] = MappingProxyType({}),
        notes: Mapping[str, str] = MappingProxyType({}),
    ) -> Commit:
        """Append rows in one commit, exactly once for each `txn`."""
        for attempt in range(self._settings.tries):
            handle = self._newest(table) or self._create(table, rows.schema)
            reached = self._reached(table, handle, txn.app_id)
            if reached is not None and reached >= txn.n:
                return self._earlier(table, txn)
            self._hold(table, handle)
            try:
                self._commit(table, handle, rows, txn, marks, notes)
            except delta_errors.CommitFailedError:
                # delta-rs refuses a save that races with another of the same name: look again who won.
                self._open.pop(table, None)
                time.sleep(0.01 * attempt)
                continue
            count = rows.rows if isinstance(rows, RowStream) else rows.num_rows
            done = Commit(int(handle.version()), count, time.time_ns() // 1000, "WRITE", txn, dict(notes))
            known = self._head(table, done.version - 1).marks
            known = known if len(known) < _MOST_MARKS else {}
            self._heads[table] = _Head(done.version, {**known, **marks, txn.app_id: txn.n}, done)
            self._tidy(table, handle)
            return done
        raise busy(table, self._settings.tries)

    def _commit(
        self,
        table: str,
        handle: deltalake.DeltaTable,
        rows: pa.Table | RowStream,
        txn: Txn,
        marks: Mapping[str, int],
        notes: Mapping[str, str],
    ) -> None:
        numbers = {txn.app_id: txn.n, **marks}
        deltalake.write_deltalake(
            handle,
            pa.RecordBatchReader.from_batches(rows.schema, rows.batches()) if isinstance(rows, RowStream) else rows,
            mode="append",
            schema_mode=evolution(table, pa.schema(handle.schema().to_arrow()), rows.schema),
            writer_properties=self._writing_as(rows.schema),
            commit_properties=deltalake.CommitProperties(
                custom_metadata={_NOTE: json.dumps({"txn": [txn.app_id, txn.n], "notes": dict(notes)})},
                max_commit_retries=0,
                app_transactions=[deltalake.Transaction(name, n) for name, n in numbers.items()],
            ),
        )

    def _tidy(self, table: str, handle: deltalake.DeltaTable) -> None:
        """Put small files together now and then, and old commits away.

        A commit costs delta-rs 0.06 ms for each file of the table and 0.005 ms for each commit in its log.
        """
        if int(handle.version()) % self._settings.tidy_every:
            return
        try:
            self._compact(handle, self._settings.tidy_bytes)
            self._heads[table] = _Head(int(handle.version()), self._heads[table].marks)
            self._put_away(table)
        except (OSError, zipfile.BadZipFile, delta_errors.DeltaError):
            self._open.pop(table, None)  # the rows are saved; another process is at it, or the next time will do

    def _put_away(self, table: str) -> None:
        with self.writing(f"{table}/pack"):
            pack(self._folder(table), lambda: self.sync(table), self._settings.pack)

    def _compact(self, handle: deltalake.DeltaTable, target: int | None = None) -> None:
        schema = pa.schema(handle.schema().to_arrow())
        handle.optimize.compact(target_size=target, writer_properties=self._writing_as(schema))

    def _writing_as(self, schema: pa.Schema) -> deltalake.WriterProperties:
        """Dictionaries for texts only: of numbers they cost five times the writing and seldom save space."""
        plain = [field.name for field in schema if field.type.num_fields == 0 and not is_text(field.type)]
        return deltalake.WriterProperties(
            compression="SNAPPY",
            max_row_group_size=self._settings.row_group,
            column_properties={name: deltalake.ColumnProperties(dictionary_enabled=False) for name in plain},
        )

    def _create(self, table: str, schema: pa.Schema) -> deltalake.DeltaTable:
        if _UNSPEAKABLE.search(self._uri(table)):
            raise unspeakable(self._uri(table))
        for field in schema:
            if not storable(field.type):
                raise unfit(table, f"column {field.name!r} is {field.type}, which would be stored as something else")
        made = deltalake.DeltaTable.create(
            self._uri(table),
            schema,
            mode="ignore",
            storage_options=self._options,
            configuration={
                "delta.logRetentionDuration": f"interval {self._settings.history_days} days",
                "delta.checkpointInterval": str(self._settings.checkpoint_every),
                # Ours is the only clean-up, and it reads the commits: checkpoints need not list what was removed.
                "delta.deletedFileRetentionDuration": "interval 1 hours",
            },
        )
        self._open[table] = made
        return made

    def _earlier(self, table: str, txn: Txn) -> Commit:
        found = self._find(table, txn.app_id, txn.n) or self._find(table, txn.app_id, None)
        if found is None:  # its entry in the history was forgotten, its number was not
            with self._at(table, None) as handle:
                return Commit(int(handle.version()), 0, 0, "WRITE", txn, repeated=True)
        return Commit(found.version, found.rows, found.at_us, found.operation, txn, found.notes, repeated=True)

    def mark(self, table: str, app_id: str) -> int | None:
        """The greatest n saved under that name, or None.

        A table that is not open is not opened for this: delta-rs starts threads, and a driver that only asks whether
        anything was pushed shall be able to fork.
        """
        if table not in self._open:
            try:
                sure, found = _mark_in_log(self._folder(table) / "_delta_log", app_id)
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                raise turned(error, table) from error
            if sure:
                return found
        return self._mark(table, app_id)

    @_guarded
    def _mark(self, table: str, app_id: str) -> int | None:
        handle = self._newest(table)
        return None if handle is None else self._reached(table, handle, app_id)

    def _head(self, table: str, version: int) -> _Head:
        """What is known of a version; of any but the newest, nothing."""
        head = self._heads.get(table)
        return head if head is not None and head.version == version else _Head(version)

    def _reached(self, table: str, handle: deltalake.DeltaTable, app_id: str) -> int | None:
        head = self._heads[table] = self._head(table, int(handle.version()))
        if app_id not in head.marks:
            found = handle.transaction_version(app_id)
            if found is None:
                return None
            head.marks[app_id] = found
        return head.marks[app_id]

    @_guarded
    def commit_of(self, table: str, app_id: str, n: int | None = None) -> Commit | None:
        """The newest commit of that writer with that n."""
        return self._find(table, app_id, n)

    def _find(self, table: str, app_id: str, n: int | None) -> Commit | None:
        wanted = (commit for commit in self._history(table) if commit.txn is not None and commit.txn.app_id == app_id)
        return next((commit for commit in wanted if n is None or (commit.txn and commit.txn.n == n)), None)

    @_guarded
    def commits(self, table: str, limit: int | None = None) -> tuple[Commit, ...]:
        """The newest commits, newest first."""
        handle = self._newest(table)
        commit = None if handle is None else self._head(table, int(handle.version())).commit
        if limit == 1 and commit is not None:
            return (commit,)
        return tuple(self._history(table, limit))

    def _history(self, table: str, limit: int | None = None) -> Iterator[Commit]:
        handle = self._newest(table)
        newest = -1 if handle is None else int(handle.version())
        for version, text in itertools.islice(texts(self._folder(table), newest), limit):
            yield commit_in(version, text)

    @_guarded
    def files(self, table: str, version: int | None = None) -> tuple[str, ...]:
        """The Parquet files that make up a version."""
        with self._at(table, version) as handle:
            return tuple(glob.escape(path) for path in self._paths(handle, table))

    def _paths(self, handle: deltalake.DeltaTable, table: str) -> list[str]:
        paths = sorted(str(self._folder(table) / path) for path in self._relative(handle))
        if handle is not self._open.get(table) and not all(map(os.path.exists, paths)):
            raise no_such_table(table, int(handle.version()))
        return paths

    def _relative(self, handle: deltalake.DeltaTable) -> list[str]:
        # file_uris() spells paths as URLs, which no reader of files understands.
        return [unquote(path) for path in pa.table(handle.get_add_actions(flatten=True)).column("path").to_pylist()]

    @_guarded
    def read(
        self,
        table: str,
        *,
        version: int | None = None,
        columns: Sequence[str] | None = None,
        where: Sequence[Where] = (),
    ) -> pa.Table:
        """The rows of a version that meet all conditions."""
        with self._at(table, version) as handle:
            schema, paths = pa.schema(handle.schema().to_arrow()), self._paths(handle, table)
        source = dataset.dataset(paths, schema=schema, format="parquet", filesystem=fs.LocalFileSystem())
        return source.to_table(columns=None if columns is None else list(columns), filter=_expression(where))

    @contextlib.contextmanager
    def writing(self, table: str) -> Iterator[None]:
        """Hold off other writers of a table; a process that dies lets go."""
        folder = self._root / "_writing"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(folder / table.replace("/", "%"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise turned(error, table) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def beside(self, name: str) -> Path:
        """A folder for what all writers of these tables share."""
        return self._root / name

    @_guarded
    def sync(self, table: str) -> None:
        """Make all that was committed survive a loss of power too: delta-rs leaves it to the system when to write."""
        log = self._folder(table) / "_delta_log"
        done = self._synced.get(table, -1)
        fresh = [path for path in sorted(log.glob("[0-9]*.json")) if int(path.stem) > done]
        folders = {log, log.parent}
        for commit in fresh:
            for line in commit.read_text("utf-8").splitlines():
                added = json.loads(line).get("add")
                file = None if added is None else self._folder(table) / unquote(added["path"])
                if file is not None and file.exists():  # unless it was put together with others, and they are gone
                    to_disk(file)
                    folders.add(file.parent)
            to_disk(commit)
        for folder in folders if fresh else ():
            to_disk(folder)
        if fresh:
            self._synced[table] = int(fresh[-1].stem)

    @_beside_others
    def compact(self, table: str) -> Commit | None:
        """Rewrite small files as large ones."""
        handle = self._another(table)
        before = handle.version()
        self._compact(handle, _LARGE)
        after = int(handle.version())
        return None if after == before else Commit(after, 0, time.time_ns() // 1000, "OPTIMIZE")

    @_beside_others
    def vacuum(self, table: str, *, keep: Collection[int], retention_hours: float = 168.0) -> int:
        """Delete files that only old versions use, save the kept ones."""
        self._another(table)
        return vacuum(self._folder(table), self._kept(table, keep), retention_hours)

    def _kept(self, table: str, keep: Collection[int]) -> Kept:
        """What the newest and other versions are made of."""
        newest = self._another(table)
        files = set(self._relative(newest))
        for version in keep:
            if self.has(table, version):  # a table made anew has not all that was pinned
                with self._at(table, version) as handle:
                    files.update(self._relative(handle))
        return Kept(int(newest.version()), files)

    def _another(self, table: str) -> deltalake.DeltaTable:
        """A handle of one's own on the newest version."""
        if not (self._folder(table) / "_delta_log").is_dir():
            raise no_such_table(table)
        return deltalake.DeltaTable(self._folder(table))

    @_guarded
    def drop(self, table: str) -> None:
        """Delete a table and its history."""
        self._open.pop(table, None)
        self._heads.pop(table, None)
        self._synced.pop(table, None)
        folder, gone = self._folder(table), self._root / _DROPPED
        if folder.exists():
            gone.mkdir(parents=True, exist_ok=True)
            # In one step: who is killed while files are deleted leaves no half of a table, which nobody could open.
            os.rename(folder, gone / secrets.token_hex(8))
        for left in gone.glob("*"):
            shutil.rmtree(left, ignore_errors=True)  # another one may do so, too; and the next drop does

    def _faults(self) -> tuple[type[Exception], ...]:
        """What a driver raises."""
        return (OSError, ValueError, zipfile.BadZipFile, delta_errors.DeltaError, pa.ArrowException)

    def _turned(self, error: Exception, table: str) -> MainspringError:
        """A driver's error as people should see it."""
        return turned(error, table)

    def close(self) -> None:
        """Let go of open handles."""
        self._open.clear()

    def _folder(self, table: str) -> Path:
        return self._root / table

    def _uri(self, table: str) -> str:
        """Where delta-rs finds a table."""
        return str(self._folder(table))

    def _newest(self, table: str) -> deltalake.DeltaTable | None:
        """The newest version; two looks at the disk say whether the open one is it, where delta-rs lists the whole log.

        Commits are files of one number after the other (Delta protocol, Delta Log Entries). Where the version's own
        file is gone, old commits were cleaned up or the table was made anew.
        """
        log = self._folder(table) / "_delta_log"
        handle = self._open.get(table)
        if handle is not None and (log / f"{handle.version():020}.json").exists():
            if not (log / f"{handle.version() + 1:020}.json").exists():
                return handle
            with contextlib.suppress(delta_errors.DeltaError):  # the commits are being put away: read it anew
                handle.update_incremental()
                return handle
        self._open.pop(table, None)
        if not log.is_dir():
            return None
        try:
            self._open[table] = handle = deltalake.DeltaTable(self._folder(table))
        except delta_errors.TableNotFoundError:  # killed between making the folder and the first commit
            return None
        return handle

    @contextlib.contextmanager
    def _at(self, table: str, version: int | None) -> Iterator[deltalake.DeltaTable]:
        newest = self._newest(table)
        if newest is None:
            raise no_such_table(table)
        if version is None or version == newest.version():
            yield newest
            return
        if version > newest.version():
            raise no_such_table(table, version)
        with contextlib.ExitStack() as stack:
            yield self._old(table, version, stack)

    def _old(self, table: str, version: int, stack: contextlib.ExitStack) -> deltalake.DeltaTable:
        folder = self._folder(table)
        for attempt in range(2):
            archive = covering(folder, version)
            place = folder if archive is None else stack.enter_context(unpacked(archive, version))
            try:
                return deltalake.DeltaTable(place, version=version)
            except delta_errors.DeltaError as error:
                if attempt or archive is not None:
                    raise no_such_table(table, version) from error
        raise no_such_table(table, version)


def commit_in(version: int, text: str) -> Commit:
    """What a commit says of itself; it is no less a commit when it says nothing."""
    told: dict[str, Any] = next(
        (found["commitInfo"] for found in map(json.loads, text.splitlines()) if "commitInfo" in found), {}
    )
    note = json.loads(told.get(_NOTE) or "{}")
    return Commit(
        version,
        int((told.get("operationMetrics") or {}).get("num_added_rows") or 0),
        int(told.get("timestamp") or 0) * 1000,
        str(told.get("operation") or ""),
        Txn(*note["txn"]) if "txn" in note else None,
        note.get("notes", {}),
    )


def _mark_in_log(log: Path, app_id: str) -> tuple[bool, int | None]:
    """Look for a ``txn`` action in the commits as they are written (Delta protocol, Transaction Identifiers).

    Returns:
        Whether the answer is sure (commits since the last checkpoint tell it), and the answer.
    """
    if not log.is_dir():
        return True, None
    for commit in sorted(log.glob("[0-9]*.json"), reverse=True):
        try:
            text = commit.read_text("utf-8")
        except FileNotFoundError:  # put away meanwhile
            break
        numbers = [
            action["txn"]["version"]
            for action in map(json.loads, text.splitlines())
            if action.get("txn", {}).get("appId") == app_id
        ]
        if numbers:
            return True, int(numbers[-1])
    return not (log / "_last_checkpoint").exists(), None


def _expression(where: Sequence[Where]) -> Any:
    condition = None
    for column, operator, value in where:
        field = dataset.field(column)
        if isinstance(value, datetime) and value.tzinfo is None:
            value = value.replace(tzinfo=UTC)
        one = field.isin(value) if operator == "in" else _COMPARE[operator](field, value)
        condition = one if condition is None else condition & one
    return condition


_COMPARE: Mapping[str, Callable[[Any, Any], Any]] = {
    "==": lambda field, value: field == value,
    "!=": lambda field, value: field != value,
    "<": lambda field, value: field < value,
    "<=": lambda field, value: field <= value,
    ">": lambda field, value: field > value,
    ">=": lambda field, value: field >= value,
}


def open_tables(settings: DeltaSettings, place: Path) -> DeltaTables:
    """The folder that the settings name, or ``tables`` in the state folder."""
    if settings.url is None:
        return DeltaTables(place / "tables", settings)
    return DeltaTables(Path("/" + settings.url.partition("://")[2].lstrip("/")), settings)
