"""Runs, attempts, cache and claims."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from mainspring.adapters.sqlite.connection import Connections
from mainspring.adapters.sqlite.events import append_event
from mainspring.ports.catalog import Artifact, CacheRow, OutputRow, Run, RunStatus, StepCommit, StepRow

__all__ = ["RunTables"]

_RUN = "id, pipeline_id, status, started, ended, reason, params, environment, lease_owner, lease_until"
_STEP = (
    "run_id, idx, map_idx, attempt, name, status, cache_key, started, ended, error, log_digest, note, outputs, detail"
)
_BATCH = 500
_encode = msgspec.json.Encoder(order="sorted").encode
_outputs = msgspec.json.Decoder(tuple[OutputRow, ...]).decode
_object = msgspec.json.Decoder(dict[str, object]).decode


def _text(value: object) -> str:
    return _encode(value).decode()


def _run(row: tuple[Any, ...]) -> Run:
    values = list(row)
    values[6], values[7] = _object(str(row[6])), _object(str(row[7]))
    return Run(*values)


def _step(row: tuple[Any, ...]) -> StepRow:
    return StepRow(*[*row[:12], _outputs(str(row[12])), _object(str(row[13]))])


def _values(row: StepRow) -> tuple[object, ...]:
    return (
        row.run_id,
        row.idx,
        row.map_idx,
        row.attempt,
        row.name,
        row.status,
        row.cache_key,
        row.started,
        row.ended,
        row.error,
        row.log_digest,
        row.note,
        _text(row.outputs),
        _text(row.detail),
    )


class RunTables:
    """The part of the catalog that the engine writes."""

    _db: Connections

    def start_run(self, run: Run) -> None:
        """Record a run that has begun, with its lease."""
        environment = run.environment
        values = (
            run.id,
            run.pipeline,
            run.status,
            run.reason,
            _text(run.params),
            str(environment.get("lock", "")),
            str(environment.get("git_sha", "")),
            str(environment.get("dirty", "")),
            _text(environment),
            run.started,
            run.ended,
            run.lease_owner,
            run.lease_until,
        )
        with self._db.write() as db:
            db.execute(
                "insert into run (id, pipeline_id, status, reason, params, env_digest, git_sha, dirty_digest, "
                "environment, started, ended, lease_owner, lease_until) values (?,?,?,?,?,?,?,?,?,?,?,?,?)",
                values,
            )

    def renew_lease(self, run_id: str, owner: str, until: int) -> bool:
        """Extend a lease."""
        with self._db.write() as db:
            sql = "update run set lease_until = ? where id = ? and lease_owner = ? and status = 'running'"
            return db.execute(sql, (until, run_id, owner)).rowcount == 1

    def take_over(self, run_id: str, owner: str, now: int, until: int) -> bool:
        """Take a run whose lease has expired."""
        with self._db.write(durable=True) as db:
            sql = (
                "update run set lease_owner = ?, lease_until = ? where id = ? and lease_until < ? "
                "and status = 'running'"
            )
            if db.execute(sql, (owner, until, run_id, now)).rowcount != 1:
                return False
            db.execute(
                "update step_run set status = 'lost', ended = ? where run_id = ? and status = 'running'", (now, run_id)
            )
            return True

    def end_run(self, run_id: str, owner: str, status: RunStatus, ended: int) -> bool:
        """Close a run."""
        with self._db.write() as db:
            sql = "update run set status = ?, ended = ? where id = ? and lease_owner = ? and status = 'running'"
            return db.execute(sql, (status, ended, run_id, owner)).rowcount == 1

    def run(self, run_id: str) -> Run | None:
        """One run."""
        rows = self._db.read(f"select {_RUN} from run where id = ?", (run_id,))
        return _run(rows[0]) if rows else None

    def runs(self, *, pipeline: str | None = None, status: str | None = None, limit: int = 50) -> list[Run]:
        """Runs, the newest first."""
        rows = self._db.read(
            f"select {_RUN} from run where (?1 is null or pipeline_id = ?1) and (?2 is null or status = ?2) "
            "order by started desc, id desc limit ?3",
            (pipeline, status, limit),
        )
        return [_run(row) for row in rows]

    def start_attempt(self, row: StepRow) -> None:
        """Record an attempt that has begun."""
        with self._db.write() as db:
            _insert_steps(db, [row])

    def commit_step(self, commit: StepCommit) -> CacheRow | None:
        """Record a finished attempt in one transaction."""
        row = commit.row
        own = CacheRow(row.cache_key, row.outputs, row.run_id, row.idx, row.map_idx)
        with self._db.write() as db:
            if not _finish(db, row, commit.owner):
                return None
            _insert_artifacts(db, commit.artifacts)
            standing = _insert_cache(db, own) if commit.cache else own
            db.executemany("insert or ignore into edge values (?,?,?)", [(e.src, e.rel, e.dst) for e in commit.edges])
            if commit.event is not None:
                append_event(db, commit.event)
            return standing

    def end_attempt(self, row: StepRow) -> bool:
        """Move an attempt from running to its end."""
        with self._db.write() as db:
            sql = (
                "update step_run set status = ?, ended = ?, error = ?, log_digest = ?, note = ? "
                "where run_id = ? and idx = ? and map_idx = ? and attempt = ? and status = 'running'"
            )
            values = (row.status, row.ended, row.error, row.log_digest, row.note)
            return db.execute(sql, (*values, row.run_id, row.idx, row.map_idx, row.attempt)).rowcount == 1

    def record_steps(self, rows: Sequence[StepRow]) -> None:
        """Record hits and skips."""
        with self._db.write() as db:
            _insert_steps(db, rows)

    def steps(self, run_id: str) -> list[StepRow]:
        """A run's attempts, in order."""
        sql = f"select {_STEP} from step_run where run_id = ? order by idx, map_idx, attempt"
        return [_step(row) for row in self._db.read(sql, (run_id,))]

    def step_history(self, name: str, *, limit: int = 20) -> list[StepRow]:
        """Attempts of a step over all runs, the newest first."""
        sql = f"select {_STEP} from step_run where name = ? order by started desc, run_id desc limit ?"
        return [_step(row) for row in self._db.read(sql, (name, limit))]

    def cached(self, keys: Iterable[str]) -> dict[str, CacheRow]:
        """The cache rows of these keys."""
        wanted, found = list(dict.fromkeys(keys)), {}
        for start in range(0, len(wanted), _BATCH):
            part = wanted[start : start + _BATCH]
            marks = ",".join("?" * len(part))
            sql = f"select key, outputs, run_id, idx, map_idx from cache where key in ({marks})"
            for key, outputs, run_id, idx, map_idx in self._db.read(sql, part):
                found[str(key)] = CacheRow(str(key), _outputs(str(outputs)), str(run_id), idx, map_idx)
        return found

    def forget(self, keys: Iterable[str]) -> None:
        """Drop cache rows whose blobs are gone."""
        with self._db.write() as db:
            db.execute("insert into sweeping values (1)")
            db.executemany("delete from cache where key = ?", [(key,) for key in keys])
            db.execute("delete from sweeping")

    def claim(self, key: str, owner: str, now: int, until: int, *, once: bool = False) -> str:
        """Claim a key: the owner who holds it now."""
        with self._db.write(durable=once) as db:
            db.execute(
                "insert into claim values (?1, ?2, ?3, ?4) on conflict (key) do update set owner = ?2, until = ?3, "
                "once = max(claim.once, ?4) "
                "where claim.owner = ?2 or (claim.until < ?5 and not claim.once)",
                (key, owner, until, int(once), now),
            )
            return str(db.execute("select owner from claim where key = ?", (key,)).fetchone()[0])

    def release(self, key: str, owner: str) -> None:
        """Give a claim back."""
        with self._db.write() as db:
            db.execute("delete from claim where key = ? and owner = ?", (key, owner))

    def artifacts(self, digests: Iterable[str]) -> dict[str, Artifact]:
        """Artifacts by digest."""
        found: dict[str, Artifact] = {}
        for digest in digests:
            for row in self._db.read(
                "select digest, kind, bytes, media_type, meta from artifact where digest = ?", (digest,)
            ):
                found[digest] = Artifact(*[*row[:4], _object(str(row[4]))])
        return found


def _insert_steps(db: sqlite3.Connection, rows: Sequence[StepRow]) -> None:
    db.executemany(
        f"insert into step_run ({_STEP}) values (?,?,?,?,?,?,?,?,?,?,?,?,?,?)", [_values(row) for row in rows]
    )


def _finish(db: sqlite3.Connection, row: StepRow, owner: str) -> bool:
    sql = (
        "update step_run set status = 'ok', ended = ?, log_digest = ?, note = ?, outputs = ?, detail = ? "
        "where run_id = ? and idx = ? and map_idx = ? and attempt = ? and status = 'running' "
        "and exists (select 1 from run where id = step_run.run_id and lease_owner = ? and status = 'running')"
    )
    values = (row.ended, row.log_digest, row.note, _text(row.outputs), _text(row.detail))
    where = (row.run_id, row.idx, row.map_idx, row.attempt, owner)
    return db.execute(sql, (*values, *where)).rowcount == 1


def _insert_artifacts(db: sqlite3.Connection, artifacts: Sequence[Artifact]) -> None:
    db.executemany(
        "insert or ignore into artifact values (?,?,?,?,?)",
        [(a.digest, a.kind, a.size, a.media_type, _text(a.meta)) for a in artifacts],
    )


def _insert_cache(db: sqlite3.Connection, own: CacheRow) -> CacheRow:
    db.execute(
        "insert or ignore into cache values (?,?,?,?,?)",
        (own.key, _text(own.outputs), own.run_id, own.idx, own.map_idx),
    )
    row = db.execute("select key, outputs, run_id, idx, map_idx from cache where key = ?", (own.key,)).fetchone()
    return CacheRow(row[0], _outputs(row[1]), row[2], row[3], row[4])
