"""Pushes at a server: acknowledged in the write-ahead log, online at once, in the tables a moment later.

A thread brings what was acknowledged into the tables, and the views' logs and the online store up to it. It is the same
work whether it comes a second after a push or after a crash, and whoever does it: other servers over the same tables
and ``mainspring apply`` do it too, under the tables' locks.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from mainspring.catalog.ids import now_us
from mainspring.choose.services import Services
from mainspring.errors import DataError, MainspringError, ServiceError
from mainspring.features.logs.ingest import Prepared, prepare_rows
from mainspring.features.logs.log import PUSH_MARK, SourceTable, TableVersion, newest
from mainspring.features.logs.project import project, update_view
from mainspring.features.logs.tidy import pinned_versions, tidy
from mainspring.features.logs.write import seq_range
from mainspring.features.online.materialise import follow, materialise
from mainspring.features.online.write import upsert
from mainspring.features.quality.known import known_in
from mainspring.features.quality.results import CheckResult, ChecksRefusedError
from mainspring.features.quality.screen import refuse_pushed, screened
from mainspring.features.steps import Derived, derive_ahead, derive_pushed
from mainspring.features.view import View
from mainspring.features.wal.commit import Committed, commit_waiting, drain, log_of, retire
from mainspring.features.wal.frames import Entry
from mainspring.features.wal.log import WriteAheadLog
from mainspring.features.wal.rows import drafted, kept_schema, logged_rows
from mainspring.server.features.migrating import bring
from mainspring.server.features.rows import arrow_to_table, rows_to_table
from mainspring.serving.telemetry import Metrics

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Pushing"]

_STOP_S = 30.0
_SHARE = 20.0
"""The pause between two commits, in units of what the last took."""
_TIDY_S = 600.0
"""Seconds between two looks at how many files the logs have."""


def _quiet(line: str) -> None:
    """Tell nobody."""


def _tell(line: str) -> None:
    sys.stderr.write(line + "\n")


class Pushing:
    """The sources of a serving process, as they are pushed to.

    Args:
        services: the project's ports.
        app: the app's name, for metrics.
        sources: the sources by name.
        views: the app's views by name.
        derived: the decorated views that follow pushes, by the name of their source.
        metrics: the process's numbers.
        judged: told what a source's checks found in pushed rows, and whether they were refused.
        told: told what a person should know.
    """

    def __init__(
        self,
        services: Services,
        app: str,
        sources: Mapping[str, SourceTable],
        views: Mapping[str, View],
        derived: Mapping[str, Sequence[Derived]],
        metrics: Metrics,
        judged: Judged,
        told: Callable[[str], None] = _tell,
    ) -> None:
        settings = services.settings
        self._services = services
        self._app = app
        self._metrics = metrics
        self._judged = judged
        self._told = told
        self._at_tables = settings.text("features.ack") == "table"
        self._every = settings.number("features.commit_every")
        self._rows = settings.whole("features.commit_rows")
        most = settings.whole("features.wal_bytes")
        self._sources = {
            name: _Source(source, log_of(services.tables, source, most), _plain(views, name), tuple(derived[name]))
            for name, source in sources.items()
        }
        self._wanted, self._stopping = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._tidied = time.monotonic()

    def follow(self, views: Sequence[View]) -> None:
        """Bring up further views of declared aggregates too: those of another definition that a champion reads.

        They are brought up to what the tables have before this returns.
        """
        for view in views:
            at = self._sources[view.sources[0]]
            with at.turn:
                if view not in at.views:
                    bring(self._services, view, at.source, now_us())
                    at.views = (*at.views, view)

    def followed(self) -> list[View]:
        """The views of declared aggregates that are brought up, with those of other definitions."""
        return [view for at in self._sources.values() for view in at.views]

    # -- a push ---------------------------------------------------------------------------------------------------

    def push(
        self, source: str, rows: Sequence[Mapping[str, Any]] | bytes, now: int | str | None, request_id: str | None
    ) -> Mapping[str, object]:
        """Make rows durable, bring the online store up to them, and say what became of them.

        Rows are JSON's objects, or bytes of Arrow IPC. Views of declared aggregates follow, and decorated views of that
        one source with ``rows="each"``; other decorated views follow when they are built. A view whose function fails
        is named in ``not_derived``, and one whose store does not answer in ``not_online``: both are tried again.

        Raises:
            DataError: MS-2303, no such source; MS-2304, a row does not fit; MS-2180, a check of the source or of one of
                its views refuses them; MS-2121, the request came with other rows.
            RefusedError: MS-5046, too much waits for the tables.
            StoreError: as `WriteAheadLog.append`; nothing was acknowledged.
        """
        at = self._sources.get(source)
        if at is None:
            raise DataError(
                f"no source is called {source!r}", code="MS-2303", fix=f"there are: {', '.join(self._sources)}"
            )
        cut = self._services.settings.text(f"sources.{source}.truncate") == "us"
        if isinstance(rows, bytes):
            table = arrow_to_table(at.source, rows, self._services.settings.whole("server.max_rows"), truncate=cut)
        else:
            table = rows_to_table(at.source, rows, truncate=cut)
        with self._judging(source):
            prepared = prepare_rows(at.source, table, known_in(self._services.tables))
            for view in at.views:
                refuse_pushed(view, prepared.rows)
        answer = self.take(source, prepared, now if isinstance(now, int) else now_us(), request_id)
        self._judged(source, prepared.results, refused=False)
        return answer

    @contextlib.contextmanager
    def _judging(self, source: str) -> Iterator[None]:
        try:
            yield
        except ChecksRefusedError as error:
            self._judged(source, error.results, refused=True)
            raise

    def take(self, source: str, prepared: Prepared, arrived_us: int, request_id: str | None) -> Mapping[str, object]:
        """`push` of rows that are in the record's types; see there."""
        at = self._sources[source]
        self._services.tables.claim()  # what is acknowledged here has to get there
        draft = drafted(at.source, prepared, arrived_us, request_id)
        entry, repeated = at.log.append(draft)
        failed = _Failed()
        if self._at_tables:
            self.commit(source)
        if entry.rows and not repeated:
            self._answer_with(at, logged_rows(at.schema, [(entry, draft.rows)]), failed)
        if at.log.waiting_rows() >= self._rows:
            self._wanted.set()
        if not repeated:
            self._count(source, entry)
        return {
            "accepted": entry.rows,
            "quarantined": entry.aside,
            "seq": seq_range(entry),
            "report": entry.report,
            **({"not_derived": failed.derived} if failed.derived else {}),
            **({"not_online": failed.online} if failed.online else {}),
        }

    def _answer_with(self, at: _Source, rows: pa.Table, failed: _Failed) -> None:
        """Bring the online store up to acknowledged rows, before they are in any table."""
        tables, online = self._services.tables, self._services.online
        for view in at.views:
            if view.online:
                with failed.noting(view.name, failed.online):
                    upsert(view, online, screened(view, project(view, at.source, rows)), now_us())
        for derived in at.derived:
            if derived.view.online:
                with failed.noting(derived.view.name, failed.derived, self._told):
                    made = derive_ahead(tables, derived, rows)
                    if made is not None:
                        upsert(derived.view, online, screened(derived.view, made), now_us())

    def _count(self, source: str, entry: Entry) -> None:
        labels = {"app": self._app, "source": source}
        self._metrics.counter("mainspring_features_pushed_total", **labels)(entry.rows)
        self._metrics.counter("mainspring_feature_quarantined_total", **labels)(entry.aside)

    # -- into the tables ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Bring into the tables and online what a server that died had acknowledged, then go on doing so."""
        with self._telling():
            drain(self._services.tables)  # of sources that are declared no more, too
        self.commit_all()
        self._thread = threading.Thread(target=self._work, name="pushes", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Bring what waits into the tables and stop; what cannot go there stays in the log for the next start."""
        self._stopping.set()
        self._wanted.set()
        if self._thread is not None:
            self._thread.join(timeout=_STOP_S)
            self.commit_all()
        for at in self._sources.values():
            at.log.close()

    def _work(self) -> None:
        pause = self._every
        while not self._stopping.is_set():
            self._wanted.wait(pause)
            self._wanted.clear()
            began = time.monotonic()
            self.commit_all()
            # A commit costs more the longer a table's history is: then there are fewer.
            pause = max(self._every, _SHARE * (time.monotonic() - began))
            if any(at.fault for at in self._sources.values()):
                self._stopping.wait(self._every)  # however much comes meanwhile
            if time.monotonic() - self._tidied > _TIDY_S:
                self.tidy()

    def tidy(self) -> None:
        """Put small files of the pushed sources and their views together, and delete what nothing can ask for."""
        self._tidied = time.monotonic()
        services = self._services
        for name, at in self._sources.items():
            if at.followed is None:
                continue
            views = [*at.views, *(derived.view for derived in at.derived)]
            for table in (at.source.log, at.source.quarantine, *(view.log for view in views)):
                with self._telling(name):
                    tidy(services.tables, table, lambda: pinned_versions(services.catalog), now_us=now_us())

    def commit_all(self) -> None:
        """Bring what waits into the tables, source by source; a fault is told, and the next time tries again."""
        for name in self._sources:
            with self._telling(name):
                self.commit(name)

    def commit(self, source: str) -> None:
        """Bring what waits of a source into its tables, and its views up to it.

        Raises:
            StoreError: as the table store raises.
        """
        at = self._sources[source]
        if at.log.newest() is None and not at.behind:
            return
        tables = self._services.tables
        with at.turn:
            at.behind = True  # the log may let go of rows that the views have not got yet
            with tables.writing(at.source.log):
                committed = commit_waiting(tables, at.log)
                retire(tables, at.log)
            pushed = tables.mark(at.source.log, PUSH_MARK)
            if pushed is not None and pushed != at.followed:
                version = newest(tables, at.source.log) if committed is None else committed.version
                if version is not None:
                    self._bring_views(at, version, committed)
                at.followed = pushed
            at.behind = False
        if committed is not None:
            self._metrics.counter("mainspring_feature_commits_total", app=self._app, source=source)(1.0)

    def _bring_views(self, at: _Source, version: TableVersion, committed: Committed | None) -> None:
        tables, online = self._services.tables, self._services.online
        arrived = None if committed is None else (committed.before, committed.rows)
        failed: list[ServiceError] = []
        for view in at.views:
            with self._going_on(failed):
                update = update_view(tables, view, at.source, version, arrived=arrived)
                if view.online:
                    before = -1 if committed is None else committed.before
                    reached = update.version.through
                    follow(view, tables, online, before, update.appended, reached, now_us=now_us(), source=at.source)
        for derived in at.derived:
            with self._going_on(failed):
                found = derive_pushed(tables, derived, version)
                if found is not None and derived.view.online:
                    materialise(derived.view, tables, online, found.version, now_us=now_us())
        if failed:
            raise failed[0]

    @contextlib.contextmanager
    def _going_on(self, failed: list[ServiceError]) -> Iterator[None]:
        """A view that refuses rows or fails is in no other's way; a store that does not answer is asked again."""
        try:
            yield
        except ServiceError as error:
            failed.append(error)
        except MainspringError as error:
            self._told(error.lines())

    @contextlib.contextmanager
    def _telling(self, source: str = "") -> Iterator[None]:
        """Tell a fault once, until it is another or is over."""
        try:
            yield
            if source:
                self._sources[source].fault = ""
        except MainspringError as error:
            if not source or self._sources[source].fault != error.what:
                self._told(error.lines())
            if source:
                self._sources[source].fault = error.what

    # -- how it is ------------------------------------------------------------------------------------------------

    def waits_since(self) -> int | None:
        """When the oldest push that is not yet in the tables was made, UTC microseconds; None when none waits."""
        oldest = [at.log.backlog().oldest_us for at in self._sources.values()]
        return min((moment for moment in oldest if moment is not None), default=None)

    def measure(self) -> None:
        """Set the gauges of what waits."""
        now = now_us()
        for name, at in self._sources.items():
            backlog, labels = at.log.backlog(), {"app": self._app, "source": name}
            age = 0.0 if backlog.oldest_us is None else max(now - backlog.oldest_us, 0) / 1e6
            self._metrics.set("mainspring_feature_lag_rows", backlog.rows, **labels)
            self._metrics.set("mainspring_feature_wal_bytes", backlog.bytes, **labels)
            self._metrics.set("mainspring_feature_waiting_seconds", age, **labels)


class Judged(Protocol):
    """Is told what a source's checks found in pushed rows."""

    def __call__(self, source: str, results: Sequence[CheckResult], *, refused: bool) -> None:
        """Count it, and put it on record."""


class _Source:
    """A source that is pushed to, its log, and what follows it."""

    def __init__(
        self, source: SourceTable, log: WriteAheadLog, views: Sequence[View], derived: Sequence[Derived]
    ) -> None:
        self.source = source
        self.log = log
        self.views = views
        self.derived = derived
        self.schema = kept_schema(source).serialize().to_pybytes()
        self.turn = threading.Lock()
        self.followed: int | None = None
        self.behind = True
        self.fault = ""


class _Failed:
    """The views that a push did not reach, with the reason."""

    def __init__(self) -> None:
        self.derived: dict[str, str] = {}
        self.online: dict[str, str] = {}

    @contextlib.contextmanager
    def noting(
        self, view: str, where: dict[str, str], told: Callable[[str], None] = lambda line: None
    ) -> Iterator[None]:
        """Go on when a view fails: the rows are acknowledged, and what failed is tried again."""
        try:
            yield
        except MainspringError as error:
            where[view] = f"{error.code} {error.what}"
            told(error.lines())


def _plain(views: Mapping[str, View], source: str) -> tuple[View, ...]:
    return tuple(view for view in views.values() if view.sources == (source,) and not view.decorated)
