"""Runs, attempts, cache and claims."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, LiteralString

import msgspec

from mainspring.adapters.postgres.catalog.entities import insert_edges
from mainspring.adapters.postgres.catalog.events import append_event
from mainspring.adapters.postgres.catalog.schema import SWEEPING
from mainspring.adapters.postgres.catalog.tables import Cursor, Tables, kept, many
from mainspring.ports.catalog import Artifact, CacheRow, OutputRow, Run, RunStatus, StepCommit, StepRow

__all__ = ["RunTables"]

_RUN: LiteralString = "id, pipeline_id, status, started, ended, reason, params, environment, lease_owner, lease_until"
_STEP: LiteralString = (
    "run_id, idx, map_idx, attempt, name, status, cache_key, started, ended, error, log_digest, note, outputs, detail"
)
_CACHE: LiteralString = "key, outputs, run_id, idx, map_idx"
_ONE: LiteralString = "run_id = %s and idx = %s and map_idx = %s and attempt = %s and status = 'running'"
_encode = msgspec.json.Encoder(order="sorted").encode
_outputs = msgspec.json.Decoder(tuple[OutputRow, ...]).decode
_object = msgspec.json.Decoder(dict[str, object]).decode


def _text(value: object) -> str:
    return _encode(value).decode()


def _run(row: tuple[Any, ...]) -> Run:
    return Run(*[*row[:6], _object(row[6]), _object(row[7]), *row[8:]])


def _step(row: tuple[Any, ...]) -> StepRow:
    return StepRow(*[*row[:12], _outputs(row[12]), _object(row[13])])


def _cached(row: tuple[Any, ...]) -> CacheRow:
    return CacheRow(row[0], _outputs(row[1]), *row[2:])


class RunTables(Tables):
    """The part of the catalog that the engine writes."""

    def start_run(self, run: Run) -> None:
        """Record a run that has begun, with its lease."""
        values = list(msgspec.structs.astuple(run))
        values[6], values[7] = _text(run.params), _text(run.environment)
        self.changed("insert into run (" + _RUN + ") values (" + ", ".join(["%s"] * 10) + ")", values)

    def renew_lease(self, run_id: str, owner: str, until: int) -> bool:
        """Extend a lease."""
        sql: LiteralString = "update run set lease_until = %s where id = %s and lease_owner = %s and status = 'running'"
        return self.changed(sql, (until, run_id, owner))

    def take_over(self, run_id: str, owner: str, now: int, until: int) -> bool:
        """Take a run whose lease has expired."""
        sql: LiteralString = (
            "update run set lease_owner = %s, lease_until = %s where id = %s and lease_until < %s "
            "and status = 'running'"
        )
        with self.write() as cursor:
            if cursor.execute(sql, (owner, until, run_id, now)).rowcount != 1:
                return False
            cursor.execute(
                "update step_run set status = 'lost', ended = %s where run_id = %s and status = 'running'",
                (now, run_id),
            )
            return True

    def end_run(self, run_id: str, owner: str, status: RunStatus, ended: int) -> bool:
        """Close a run."""
        sql: LiteralString = (
            "update run set status = %s, ended = %s where id = %s and lease_owner = %s and status = 'running'"
        )
        return self.changed(sql, (status, ended, run_id, owner))

    def run(self, run_id: str) -> Run | None:
        """One run."""
        rows = self.read("select " + _RUN + " from run where id = %s", (run_id,))
        return _run(rows[0]) if rows else None

    def runs(self, *, pipeline: str | None = None, status: str | None = None, limit: int = 50) -> list[Run]:
        """Runs, the newest first."""
        sql = (
            "select " + _RUN + " from run where (%s::text is null or pipeline_id = %s) "
            "and (%s::text is null or status = %s) order by started desc, id desc limit %s"
        )
        return [_run(row) for row in self.read(sql, (pipeline, pipeline, status, status, limit))]

    def start_attempt(self, row: StepRow) -> None:
        """Record an attempt that has begun."""
        self.record_steps([row])

    def commit_step(self, commit: StepCommit) -> CacheRow | None:
        """Record a finished attempt in one transaction."""
        row = commit.row
        own = CacheRow(row.cache_key, row.outputs, row.run_id, row.idx, row.map_idx)
        with self.write() as cursor:
            if not _finish(cursor, row, commit.owner):
                return None
            _insert_artifacts(cursor, commit.artifacts)
            standing = _insert_cache(cursor, own) if commit.cache else own
            insert_edges(cursor, commit.edges)
            if commit.event is not None:
                append_event(cursor, commit.event)
            return standing

    def end_attempt(self, row: StepRow) -> bool:
        """Move an attempt from running to its end."""
        values = (row.status, row.ended, row.error, row.log_digest, row.note)
        sql = "update step_run set status = %s, ended = %s, error = %s, log_digest = %s, note = %s where " + _ONE
        return self.changed(sql, (*values, row.run_id, row.idx, row.map_idx, row.attempt))

    def record_steps(self, rows: Sequence[StepRow]) -> None:
        """Record hits and skips."""
        values = [(*msgspec.structs.astuple(row)[:12], _text(row.outputs), _text(row.detail)) for row in rows]
        sql = "insert into step_run (" + _STEP + ") values (" + ", ".join(["%s"] * 14) + ")"
        with self.write() as cursor:
            many(cursor, sql, values)

    def steps(self, run_id: str) -> list[StepRow]:
        """A run's attempts, in order."""
        sql = "select " + _STEP + " from step_run where run_id = %s order by idx, map_idx, attempt"
        return [_step(row) for row in self.read(sql, (run_id,))]

    def step_history(self, name: str, *, limit: int = 20) -> list[StepRow]:
        """Attempts of a step over all runs, the newest first."""
        sql = "select " + _STEP + " from step_run where name = %s order by started desc, run_id desc limit %s"
        return [_step(row) for row in self.read(sql, (name, limit))]

    def cached(self, keys: Iterable[str]) -> dict[str, CacheRow]:
        """The cache rows of these keys."""
        wanted = list(dict.fromkeys(keys))
        rows = self.read("select " + _CACHE + " from cache where key = any(%s)", (wanted,)) if wanted else []
        return {row[0]: _cached(row) for row in rows}

    def forget(self, keys: Iterable[str]) -> None:
        """Drop cache rows whose blobs are gone."""
        with self.write() as cursor:
            cursor.execute(SWEEPING)
            cursor.execute("delete from cache where key = any(%s)", (sorted(keys),))

    def claim(self, key: str, owner: str, now: int, until: int, *, once: bool = False) -> str:
        """Claim a key: the owner who holds it now."""
        with self.write() as cursor:
            cursor.execute(
                "insert into claim as there values (%s, %s, %s, %s) on conflict (key) do update "
                "set owner = excluded.owner, until = excluded.until, once = there.once or excluded.once "
                "where there.owner = excluded.owner or (there.until < %s and not there.once)",
                (key, owner, until, once, now),
            )
            ((holder,),) = cursor.execute("select owner from claim where key = %s", (key,)).fetchall()
            return str(holder)

    def release(self, key: str, owner: str) -> None:
        """Give a claim back."""
        self.changed("delete from claim where key = %s and owner = %s", (key, owner))

    def artifacts(self, digests: Iterable[str]) -> dict[str, Artifact]:
        """Artifacts by digest."""
        wanted = list(dict.fromkeys(digests))
        sql: LiteralString = "select digest, kind, bytes, media_type, meta from artifact where digest = any(%s)"
        rows = self.read(sql, (wanted,)) if wanted else []
        return {row[0]: Artifact(*[*row[:4], _object(row[4])]) for row in rows}


def _finish(cursor: Cursor, row: StepRow, owner: str) -> bool:
    """Move an attempt from running to ok, while its run is this owner's; until the end nobody can take it over."""
    cursor.execute(
        "select 1 from run where id = %s and lease_owner = %s and status = 'running' for share", (row.run_id, owner)
    )
    if cursor.fetchone() is None:
        return False
    sql = (
        "update step_run set status = 'ok', ended = %s, log_digest = %s, note = %s, outputs = %s, detail = %s where "
        + _ONE
    )
    values = (row.ended, row.log_digest, row.note, _text(row.outputs), _text(row.detail))
    return cursor.execute(sql, kept((*values, row.run_id, row.idx, row.map_idx, row.attempt))).rowcount == 1


def _insert_artifacts(cursor: Cursor, artifacts: Sequence[Artifact]) -> None:
    ordered = sorted(artifacts, key=lambda artifact: artifact.digest)
    sql: LiteralString = "insert into artifact values (%s, %s, %s, %s, %s) on conflict do nothing"
    many(cursor, sql, [(a.digest, a.kind, a.size, a.media_type, _text(a.meta)) for a in ordered])


def _insert_cache(cursor: Cursor, own: CacheRow) -> CacheRow:
    cursor.execute(
        "insert into cache (" + _CACHE + ") values (%s, %s, %s, %s, %s) on conflict do nothing",
        (own.key, _text(own.outputs), own.run_id, own.idx, own.map_idx),
    )
    (row,) = cursor.execute("select " + _CACHE + " from cache where key = %s", (own.key,)).fetchall()
    return _cached(row)
