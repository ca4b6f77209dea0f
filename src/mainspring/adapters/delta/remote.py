"""The table port on Delta Lake in an object store.

Commits are conditional puts, which the store carries out or refuses, so that two writers never make one version. The
files of a table never change: those that are read are fetched once to the local disk, and DuckDB and pyarrow read them
there. What writers share besides, locks and the write-ahead log of pushes, is in the local state folder; so a single
such folder may write, and says so in the store. Any number may read.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import socket
import threading
import time
import uuid
from collections.abc import Collection, Iterator, Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from mainspring.adapters.delta.problems import another_home, no_bucket, no_such_table, unreachable
from mainspring.adapters.delta.settings import RemoteSettings
from mainspring.adapters.delta.tables import DeltaTables, commit_in
from mainspring.adapters.delta.vacuum import removed_since
from mainspring.errors import MainspringError
from mainspring.lazy import lazy
from mainspring.ports.tables import Commit, RowStream, Txn

if TYPE_CHECKING:
    import deltalake
    import pyarrow as pa
    from deltalake import exceptions as delta_errors
    from obstore import exceptions as obstore_errors
    from obstore import store as obstore_stores
else:
    deltalake, pa = lazy("deltalake"), lazy("pyarrow")
    delta_errors, obstore_errors = lazy("deltalake.exceptions"), lazy("obstore.exceptions")
    obstore_stores = lazy("obstore.store")

__all__ = ["RemoteDeltaTables", "open_remote"]

_LOG = "_delta_log"
_HOME = "_mainspring/home"
"""The object that names the state folder that writes."""
_DRIVER = {"endpoint": "AWS_ENDPOINT_URL"}
"""What delta-rs calls some options of obstore's otherwise."""
_REMOTE = ("error sending request", "generic s3 error", "error performing", "403 forbidden", "nosuchbucket")
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
        parts = urlsplit(self._url)
        if not parts.hostname or "@" in parts.netloc:
            raise no_bucket(self._url)
        given: Any = {name.lower().removeprefix("aws_"): value for name, value in settings.options.items()}
        plain = given.pop("allow_http", "").lower() == "true" or given.get("endpoint", "").startswith("http://")
        self._options = {
            **{_DRIVER.get(name, f"AWS_{name.upper()}"): value for name, value in given.items()},
            **({"AWS_ALLOW_HTTP": "true"} if plain else {}),
        }
        try:
            self._store: Any = obstore_stores.S3Store(
                parts.netloc,
                prefix=unquote(self._url.partition("://")[2].partition("/")[2]) or None,
                config=given,
                client_options={"allow_http": plain},
            )
        except (obstore_errors.BaseError, ValueError) as error:
            raise unreachable(self._url, error) from error
        self._at_home = False

    # -- what others ask ----------------------------------------------------------------------------------------------

    def tables(self) -> tuple[str, ...]:
        """The names of all tables, sorted; folders are looked into, files of tables are not."""
        found, waiting = [], [""]
        with self._turning(""):
            while waiting:
                prefix = waiting.pop()
                below = [str(one) for one in self._store.list_with_delimiter(prefix or None)["common_prefixes"]]
                if f"{prefix}/{_LOG}".lstrip("/") in below:
                    found.append(prefix)
                else:
                    waiting += below
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
        self._claim(table)
        return super().append(table, rows, txn, marks=marks, notes=notes)

    def mark(self, table: str, app_id: str) -> int | None:
        """The greatest n saved under that name, or None."""
        return self._mark(table, app_id)

    def sync(self, table: str) -> None:
        """Nothing: what the store has acknowledged survives."""

    def compact(self, table: str) -> Commit | None:
        """Rewrite small files as large ones."""
        self._claim(table)
        return super().compact(table)

    def vacuum(self, table: str, *, keep: Collection[int], retention_hours: float = 168.0) -> int:
        """Delete files that only old versions use, save the kept ones."""
        self._claim(table)
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
            if gone:
                self._store.delete(gone)
            for path in gone:
                (self._files / path).unlink(missing_ok=True)
        return len(gone)

    def drop(self, table: str) -> None:
        """Delete a table and its history; its commits go last, so that what is left of it can be dropped again."""
        self._claim(table)
        with self._turning(table):
            self._open.pop(table, None)
            self._heads.pop(table, None)
            paths = [entry["path"] for entry in self._listed(table)]
            for in_log in (False, True):
                part = [path for path in paths if path.startswith(f"{table}/{_LOG}/") is in_log]
                if part:
                    self._store.delete(part)

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

    def _claim(self, table: str) -> None:
        """Become the state folder that writes these tables, or find that this is so."""
        if self._at_home:
            return
        with self._turning(table):
            own = self._own_name()
            try:
                self._store.put(_HOME, own.encode(), mode="create")
            except obstore_errors.AlreadyExistsError:
                owner = bytes(self._store.get(_HOME).bytes()).decode()
                if owner != own:
                    raise another_home(self._url, owner.partition(" ")[2]) from None
        self._at_home = True

    def _own_name(self) -> str:
        """What this state folder is called, the same for ever: a number, and where it is for people to read."""
        path = self._root / "home"
        with contextlib.suppress(FileNotFoundError):
            return path.read_text("utf-8")
        self._root.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"home.{uuid.uuid4().hex}")
        part.write_text(f"{uuid.uuid4().hex} {self._root} on {socket.gethostname()}", "utf-8")
        try:
            os.link(part, path)  # whoever is first has named it
        except FileExistsError:
            pass
        finally:
            part.unlink()
        return path.read_text("utf-8")

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
