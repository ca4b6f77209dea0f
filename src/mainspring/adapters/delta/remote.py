"""The table port on Delta Lake in an object store.

Commits are conditional puts, which the store carries out or refuses, so that two writers never make one version. The
files of a table never change: those that are read are fetched once to the local disk, and DuckDB and pyarrow read them
there. What writers share besides, locks and the write-ahead log of pushes, is in the local state folder; so a single
such folder may write at a time, and says so in the store (`home`). Any number may read.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import threading
import time
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from mainspring.adapters.delta.home import EPOCH, Homes
from mainspring.adapters.delta.places import place_of
from mainspring.adapters.delta.problems import no_such_table, taken_over, unreachable
from mainspring.adapters.delta.settings import RemoteSettings
from mainspring.adapters.delta.tables import DeltaTables, commit_in
from mainspring.adapters.delta.vacuum import removed_since
from mainspring.errors import MainspringError
from mainspring.lazy import lazy
from mainspring.ports.tables import Commit, Owner, RowStream, Txn

if TYPE_CHECKING:
    import deltalake
    import pyarrow as pa
    from deltalake import exceptions as delta_errors
    from obstore import exceptions as obstore_errors
else:
    deltalake, pa = lazy("deltalake"), lazy("pyarrow")
    delta_errors, obstore_errors = lazy("deltalake.exceptions"), lazy("obstore.exceptions")

__all__ = ["RemoteDeltaTables", "open_remote"]

_LOG = "_delta_log"
_REMOTE = (
    "error sending request",
    "generic s3 error",
    "generic gcs error",
    "generic microsoftazure error",
    "error performing",
    "403 forbidden",
    "nosuchbucket",
)
_STAY = frozenset({"_files", "_writing", "_before"})
"""Folders of a state folder that mean the same whoever writes."""
_UNUSED_S = 3600.0
_AT_ONCE = 8
_CHUNK = 8 << 20


class RemoteDeltaTables(DeltaTables):
    """Delta tables under a path of a bucket.

    Args:
        place: the local folder for locks, logs and files that were fetched.
        settings: where the tables are, and as for local ones.

    Raises:
        ConfigError: MS-4313, the URL names no bucket.
        ServiceError: MS-4312, an option is none.
    """

    def __init__(self, place: Path, settings: RemoteSettings) -> None:
        super().__init__(place, settings)
        self._url = (settings.url or "").rstrip("/")
        self._cache_bytes = settings.cache_bytes
        found = place_of(self._url, settings.options)
        self._store, self._options = found.store, dict(found.options)
        self._homes = Homes(self._store, self._url, place)
        self._epoch: int | None = None

    # -- what others ask ----------------------------------------------------------------------------------------------

    def tables(self, below: str = "") -> tuple[str, ...]:
        """The names of tables, all or below a name, sorted; folders are looked into, files of tables are not."""
        found, waiting = [], [below]
        with self._turning(""):
            while waiting:
                prefix = waiting.pop()
                inside = [str(one) for one in self._store.list_with_delimiter(prefix or None)["common_prefixes"]]
                if f"{prefix}/{_LOG}" in inside and prefix != below:
                    found.append(prefix)
                else:
                    waiting += inside
        return tuple(sorted(found))

    def has(self, table: str, version: int) -> bool:
        """Whether the commit of a version is there."""
        with self._turning(table):
            try:
                self._store.head(f"{table}/{_LOG}/{version:020}.json")
            except FileNotFoundError:
                return False
        return True

    def append(
        self,
        table: str,
        rows: pa.Table | RowStream,
        txn: Txn,
        *,
        marks: Mapping[str, int] = MappingProxyType({}),
        notes: Mapping[str, str] = MappingProxyType({}),
    ) -> Commit:
        """As for local tables; this state folder becomes the only one that writes, or is refused."""
        self.claim()
        return self._append_held(table, rows, txn, marks=marks, notes=notes)

    def _append_held(
        self,
        table: str,
        rows: pa.Table | RowStream,
        txn: Txn,
        *,
        marks: Mapping[str, int] = MappingProxyType({}),
        notes: Mapping[str, str] = MappingProxyType({}),
    ) -> Commit:
        epoch = self._epoch or 0
        return super().append(table, rows, txn, marks={**marks, EPOCH: epoch}, notes=notes)

    def mark(self, table: str, app_id: str) -> int | None:
        """The greatest n saved under that name, or None."""
        return self._mark(table, app_id)

    def sync(self, table: str) -> None:
        """Nothing: what the store has acknowledged survives."""

    def compact(self, table: str) -> Commit | None:
        """Rewrite small files as large ones."""
        self._surely()
        return super().compact(table)

    def vacuum(self, table: str, *, keep: Collection[int], retention_hours: float = 168.0) -> int:
        """Delete files that only old versions use, save the kept ones."""
        self._surely()
        with self._turning(table):
            kept = self._kept(table, keep)
            since = time.time() - retention_hours * 3600
            spared = kept.files | removed_since(self._texts(table, kept.newest), since)
            gone = [
                entry["path"]
                for entry in self._listed(table)
                if not entry["path"].startswith(f"{table}/{_LOG}/")
                and entry["path"].removeprefix(f"{table}/") not in spared
                and entry["last_modified"].timestamp() <= since
            ]
            self._delete(gone)
            for path in gone:
                (self._files / path).unlink(missing_ok=True)
        return len(gone)

    def drop(self, table: str) -> None:
        """Delete a table and its history; its commits go last, so that what is left of it can be dropped again."""
        self._surely()
        with self._turning(table):
            self._open.pop(table, None)
            self._heads.pop(table, None)
            paths = [entry["path"] for entry in self._listed(table)]
            for in_log in (False, True):
                self._delete([path for path in paths if path.startswith(f"{table}/{_LOG}/") is in_log])

    def _delete(self, paths: Sequence[str]) -> None:
        """Delete objects, whoever else does so too."""
        try:
            if paths:
                self._store.delete(paths)
        except FileNotFoundError:  # some stores mind, and leave the rest
            for path in paths:
                with contextlib.suppress(FileNotFoundError):
                    self._store.delete(path)

    # -- how it differs from local tables -----------------------------------------------------------------------------

    def _uri(self, table: str) -> str:
        return f"{self._url}/{table}"

    def _put_away(self, table: str) -> None:
        """Nothing: a listing begins at the newest checkpoint here, whatever was before it."""

    def _newest(self, table: str) -> deltalake.DeltaTable | None:
        handle = self._open.get(table)
        if handle is not None:
            with contextlib.suppress(delta_errors.DeltaError):  # gone, or made anew: look again
                before = handle.version()
                handle.update_incremental()
                if handle.version() > before or self.has(table, before):
                    return handle
        self._open.pop(table, None)
        try:
            self._open[table] = handle = self._another(table)
        except delta_errors.TableNotFoundError:
            return None
        return handle

    def _another(self, table: str) -> deltalake.DeltaTable:
        return deltalake.DeltaTable(self._uri(table), storage_options=self._options)

    def _old(self, table: str, version: int, stack: contextlib.ExitStack) -> deltalake.DeltaTable:
        try:
            return deltalake.DeltaTable(self._uri(table), version=version, storage_options=self._options)
        except delta_errors.DeltaError as error:
            raise no_such_table(table, version) from error

    def _history(self, table: str, limit: int | None = None) -> Iterator[Commit]:
        handle = self._newest(table)
        newest = -1 if handle is None else int(handle.version())
        for version, text in itertools.islice(self._texts(table, newest), limit):
            yield commit_in(version, text)

    def _texts(self, table: str, newest: int) -> Iterator[tuple[int, str]]:
        """Each commit as it was written, from the newest down to the first that is not there."""
        for version in range(newest, -1, -1):
            try:
                data = self._store.get(f"{table}/{_LOG}/{version:020}.json").bytes()
            except FileNotFoundError:
                return
            yield version, bytes(data).decode()

    def _paths(self, handle: deltalake.DeltaTable, table: str) -> list[str]:
        """Local copies of the files of a version, fetched if they are not there."""
        wanted = [f"{table}/{path}" for path in self._relative(handle)]
        missing = [path for path in wanted if not self._used(self._files / path)]
        try:
            with ThreadPoolExecutor(_AT_ONCE) as fetching:
                list(fetching.map(self._fetch, missing))
        except FileNotFoundError as error:
            raise no_such_table(table, int(handle.version())) from error
        if missing:
            self._make_room({self._files / path for path in wanted})
        return sorted(str(self._files / path) for path in wanted)

    # -- local copies -------------------------------------------------------------------------------------------------

    def _create(self, table: str, schema: pa.Schema) -> deltalake.DeltaTable:
        self._surely()  # there is no version that could say so
        return super()._create(table, schema)

    @property
    def _files(self) -> Path:
        return self._root / "_files"

    def _used(self, path: Path) -> bool:
        """Note that a copy is needed, if it is there."""
        try:
            os.utime(path)
        except FileNotFoundError:
            return False
        return True

    def _fetch(self, path: str) -> None:
        to = self._files / path
        to.parent.mkdir(parents=True, exist_ok=True)
        part = to.with_name(f".{to.name}.{os.getpid()}.{threading.get_ident()}")
        with open(part, "wb") as local:
            for chunk in self._store.get(path).stream(min_chunk_size=_CHUNK):
                local.write(chunk)
        os.replace(part, to)  # a copy with its own name is whole, whatever was killed

    def _make_room(self, needed: Set[Path]) -> None:
        """Remove copies that were not needed for long, when there are too many; and parts that were left behind."""
        now, found = time.time(), []
        for path in self._files.rglob("*.parquet*"):
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                found.append((status.st_mtime, status.st_size, path))
        held = sum(size for _, size, _ in found)
        for at, size, path in sorted(found):
            if now - at < _UNUSED_S or path in needed or (held <= self._cache_bytes and not path.name.startswith(".")):
                continue
            path.unlink(missing_ok=True)
            held -= size

    # -- who writes ---------------------------------------------------------------------------------------------------

    def owner(self) -> Owner | None:
        """The state folder that writes, or None before the first."""
        with self._turning(EPOCH):
            return self._homes.owner()

    def claim(self) -> None:
        """Become the state folder that writes these tables, or find that this is so or was when this was first asked.

        Whoever has taken over since is met by the next commit; nobody waits for the store here, which may be away.
        """
        if self._epoch is None:
            with self._turning(EPOCH):
                self._begin(self._homes.claim())

    def take(self, owner: str) -> tuple[Owner, Path | None]:
        """Write these tables from here in the place of another, who is refused from then on."""
        with self._turning(EPOCH):
            before = self._homes.replaced(owner)
            aside = self._put_aside(before.epoch)  # first: what is there when this folder writes counts as true
            taken = self._homes.take(before)
            self._begin(taken)
        return taken, aside

    def _put_aside(self, epoch: int) -> Path | None:
        old = self._root / "_before" / f"{epoch}-{uuid.uuid4().hex[:6]}"
        found = [path for path in self._root.glob("*") if path.is_dir() and path.name not in _STAY]
        for path in found:
            old.mkdir(parents=True, exist_ok=True)
            path.rename(old / path.name)
        return old if found else None

    def _begin(self, owner: Owner) -> None:
        self._epoch = owner.epoch
        if self._homes.fenced() < owner.epoch:
            for table in self.tables():
                self._append_held(table, self.schema(table).empty_table(), Txn(EPOCH, owner.epoch))
            self._homes.note_fenced(owner.epoch)

    def _surely(self) -> None:
        """As `claim`, as of this moment."""
        with self._turning(EPOCH):
            if self._epoch is not None and self._homes.followed(self._epoch):
                self._epoch = None
        self.claim()

    def _hold(self, table: str, handle: deltalake.DeltaTable) -> None:
        """See that nobody has taken over a table, as of a version; who commits the next has seen this one."""
        reached = self._reached(table, handle, EPOCH)
        if reached is not None and reached > (self._epoch or 0):
            self._epoch = None
            raise taken_over(self._url, table)

    # -- faults -------------------------------------------------------------------------------------------------------

    def _listed(self, table: str) -> Iterator[Any]:
        """The objects of a table; `table` itself may begin the names of others."""
        for entries in self._store.list(f"{table}/"):
            yield from entries

    @contextlib.contextmanager
    def _turning(self, table: str) -> Iterator[None]:
        try:
            yield
        except self._faults() as error:
            raise self._turned(error, table) from error

    def _faults(self) -> tuple[type[Exception], ...]:
        return (*super()._faults(), obstore_errors.BaseError)

    def _turned(self, error: Exception, table: str) -> MainspringError:
        text = str(error).lower()
        if isinstance(error, obstore_errors.BaseError) or any(word in text for word in _REMOTE):
            return unreachable(self._url, error)
        return super()._turned(error, table)


def open_remote(settings: RemoteSettings, place: Path) -> RemoteDeltaTables:
    """The tables at the URL; what is local of them is in the state folder, by that URL."""
    named = hashlib.blake2b((settings.url or "").encode(), digest_size=8).hexdigest()
    return RemoteDeltaTables(place / "remote-tables" / named, settings)
