"""The tables; `!` tables of the specification are insert-only by trigger."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import msgspec

__all__ = ["INSERT_ONLY", "TABLES", "UPGRADES", "VERSION", "Schema", "catalog_schema", "triggers"]


class Schema(msgspec.Struct, frozen=True):
    """The tables of a file.

    Attributes:
        version: kept in ``PRAGMA user_version``; a newer one is refused.
        script: what makes them in an empty file.
        upgrades: the statements that bring a file of a version to the next one.
    """

    version: int
    script: str
    upgrades: Mapping[int, Sequence[str]] = msgspec.field(default_factory=lambda: MappingProxyType({}))


VERSION = 2
"""The schema's version, kept in ``PRAGMA user_version``; a newer one is refused."""

TABLES = """
create table artifact (digest text primary key, kind text not null, bytes integer not null, media_type text not null,
    meta text not null) without rowid;
create table entity (id text primary key, kind text not null, name text not null, version integer not null,
    digest text not null, spec text not null, created integer not null,
    unique (kind, name, version), unique (kind, name, digest)) without rowid;
create table edge (src text not null, rel text not null, dst text not null, primary key (src, rel, dst)) without rowid;
create index edge_dst on edge (dst, rel, src);
create table experiment (id integer primary key, name text not null unique, lifecycle text not null,
    created integer not null, updated integer not null);
create table run (id text primary key, experiment_id integer references experiment (id), pipeline_id text not null,
    status text not null, reason text not null, params text not null, env_digest text not null, git_sha text not null,
    dirty_digest text not null, environment text not null, started integer not null, ended integer,
    lease_owner text not null, lease_until integer not null) without rowid;
create index run_started on run (started);
create index run_pipeline on run (pipeline_id, started);
create table step_run (run_id text not null references run (id), idx integer not null, map_idx integer not null,
    attempt integer not null, name text not null, status text not null
        check (status in ('running', 'ok', 'hit', 'failed', 'lost', 'unknown', 'skipped', 'stopped')),
    cache_key text not null, started integer not null, ended integer, error text not null, log_digest text not null,
    note text not null, outputs text not null, detail text not null,
    primary key (run_id, idx, map_idx, attempt)) without rowid;
create index step_name on step_run (name, started);
create table cache (key text primary key, outputs text not null, run_id text not null, idx integer not null,
    map_idx integer not null) without rowid;
create table claim (key text primary key, owner text not null, until integer not null, once integer not null)
    without rowid;
create table tick (schedule text not null, due integer not null, run_id text not null, primary key (schedule, due))
    without rowid;
create table metric (run_id text not null, key text not null, step integer not null, ts integer not null,
    value real, model_id text not null);
create index metric_run on metric (run_id, key, step);
create table latest_metric (run_id text not null, key text not null, step integer not null, ts integer not null,
    value real, model_id text not null, primary key (run_id, key, model_id)) without rowid;
create table param (run_id text not null, key text not null, value text not null, primary key (run_id, key))
    without rowid;
create table tag (subject text not null, key text not null, value text not null, primary key (subject, key))
    without rowid;
create table alias (kind text not null, name text not null, alias text not null,
    entity_id text not null references entity (id), rev integer not null, primary key (kind, name, alias))
    without rowid;
create table event (seq integer primary key, at integer not null, actor text not null, what text not null,
    subject text not null, data text not null, prev_hash text not null);
create index event_subject on event (subject, seq);
create table cursor (consumer text primary key, seq integer not null) without rowid;
create table span (trace_id text not null, span_id text not null, parent text not null, name text not null,
    start integer not null, "end" integer not null, status text not null, attrs text not null,
    primary key (trace_id, span_id)) without rowid;
create table monitor_block (monitor text not null, feature text not null, segment text not null,
    block_start integer not null, writer text not null, state blob not null, updated_at integer not null,
    primary key (monitor, feature, segment, block_start, writer)) without rowid;
create table prediction_label (prediction_id text not null, name text not null, value real not null,
    at integer not null, received_at integer not null, primary key (prediction_id, name)) without rowid;
create index label_received on prediction_label (received_at);
create table alert (id text primary key, fingerprint text not null, monitor text not null, segment text not null,
    kind text not null, state text not null, since integer not null, opened integer not null, score real,
    threshold real, effect real, features text not null, detail text not null, resolved integer,
    acked_by text not null default '', muted_until integer) without rowid;
create unique index alert_open on alert (fingerprint) where state <> 'resolved';
create index alert_since on alert (opened);
"""

UPGRADES = {
    1: (
        "alter table alert add column acked_by text not null default ''",
        "alter table alert add column muted_until integer",
    )
}
"""What brings a catalog of a version to the next one."""

INSERT_ONLY = ("artifact", "entity", "edge", "cache", "tick", "metric", "param", "event")
"""Tables whose rows never change; gc alone may delete from ``cache`` and ``artifact``, inside its own transaction."""

_DELETABLE = frozenset({"artifact", "cache"})


def triggers() -> str:
    """The triggers that make `INSERT_ONLY` true for every client of the file."""
    parts = ["create table sweeping (on_ integer primary key check (on_ = 1));"]
    for table in INSERT_ONLY:
        unless = "when not exists (select 1 from sweeping)" if table in _DELETABLE else ""
        parts.append(
            f"create trigger {table}_no_update before update on {table} "
            f"begin select raise(abort, '{table} rows are immutable'); end;"
        )
        parts.append(
            f"create trigger {table}_no_delete before delete on {table} {unless} "
            f"begin select raise(abort, '{table} rows are immutable'); end;"
        )
    return "\n".join(parts)


def catalog_schema() -> Schema:
    """The catalog's."""
    return Schema(VERSION, f"{TABLES}\n{triggers()}", UPGRADES)
