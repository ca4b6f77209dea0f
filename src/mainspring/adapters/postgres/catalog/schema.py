"""The catalog's tables; those that the specification marks are insert-only by trigger."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import LiteralString

__all__ = ["SWEEPING", "TABLES", "UPGRADES", "VERSION"]

VERSION = 1
"""The schema's version, kept in ``catalog_schema``; a newer one is refused."""

SWEEPING: LiteralString = "select set_config('mainspring.sweeping', 'on', true)"
"""Lets the transaction it is run in delete from ``cache`` and ``artifact``, as gc alone does."""

# Texts are compared byte by byte, as in every other catalog.
_PLAIN: tuple[LiteralString, ...] = (
    """create table artifact (digest text collate "C" primary key, kind text not null, bytes bigint not null,
        media_type text not null, meta text not null)""",
    """create table entity (id text collate "C" primary key, kind text collate "C" not null,
        name text collate "C" not null, version bigint not null, digest text collate "C" not null,
        spec text not null, created bigint not null, unique (kind, name, version), unique (kind, name, digest))""",
    "create index entity_created on entity (created, id)",
    """create table edge (src text collate "C" not null, rel text collate "C" not null, dst text collate "C" not null,
        primary key (src, rel, dst))""",
    "create index edge_dst on edge (dst, rel, src)",
    """create table run (id text collate "C" primary key, pipeline_id text collate "C" not null, status text not null,
        reason text not null, params text not null, environment text not null, started bigint not null, ended bigint,
        lease_owner text not null, lease_until bigint not null)""",
    "create index run_started on run (started, id)",
    "create index run_pipeline on run (pipeline_id, started)",
    """create table step_run (run_id text collate "C" not null references run (id), idx bigint not null,
        map_idx bigint not null, attempt bigint not null, name text collate "C" not null, status text not null
            check (status in ('running', 'ok', 'hit', 'failed', 'lost', 'unknown', 'skipped', 'stopped')),
        cache_key text not null, started bigint not null, ended bigint, error text not null, log_digest text not null,
        note text not null, outputs text not null, detail text not null,
        primary key (run_id, idx, map_idx, attempt))""",
    "create index step_name on step_run (name, started)",
    """create table cache (key text collate "C" primary key, outputs text not null, run_id text not null,
        idx bigint not null, map_idx bigint not null)""",
    """create table claim (key text collate "C" primary key, owner text not null, until bigint not null,
        once boolean not null)""",
    """create table tick (schedule text collate "C" not null, due bigint not null, run_id text not null,
        primary key (schedule, due))""",
    """create table metric (run_id text collate "C" not null, key text collate "C" not null, step bigint not null,
        ts bigint not null, value double precision not null, model_id text not null)""",
    "create index metric_run on metric (run_id, key, step)",
    """create table latest_metric (run_id text collate "C" not null, key text collate "C" not null,
        step bigint not null, ts bigint not null, value double precision not null,
        model_id text collate "C" not null, primary key (run_id, key, model_id))""",
    """create table tag (subject text collate "C" not null, key text collate "C" not null, value text not null,
        primary key (subject, key))""",
    """create table alias (kind text collate "C" not null, name text collate "C" not null,
        alias text collate "C" not null, entity_id text collate "C" not null references entity (id),
        rev bigint not null, primary key (kind, name, alias))""",
    """create table event (seq bigint primary key, at bigint not null, actor text not null,
        what text collate "C" not null, subject text collate "C" not null, data text not null,
        prev_hash text not null)""",
    "create index event_subject on event (subject, seq)",
    'create table event_cursor (consumer text collate "C" primary key, seq bigint not null)',
    """create table monitor_block (monitor text collate "C" not null, feature text collate "C" not null,
        segment text collate "C" not null, block_start bigint not null, writer text collate "C" not null,
        state bytea not null, updated_at bigint not null,
        primary key (monitor, feature, segment, block_start, writer))""",
    """create table prediction_label (prediction_id text collate "C" not null, name text collate "C" not null,
        value double precision not null, at bigint not null, received_at bigint not null,
        primary key (prediction_id, name))""",
    "create index label_received on prediction_label (received_at)",
    """create table alert (id text collate "C" primary key, fingerprint text collate "C" not null,
        monitor text collate "C" not null, segment text not null, kind text not null, state text not null,
        since bigint not null, opened bigint not null, score double precision, threshold double precision,
        effect double precision, features text not null, detail text not null, resolved bigint,
        acked_by text not null, muted_until bigint)""",
    "create unique index alert_open on alert (fingerprint) where state <> 'resolved'",
    "create index alert_opened on alert (opened, id)",
)
_IMMUTABLE: tuple[LiteralString, ...] = (
    """create function keep_rows() returns trigger language plpgsql as $$
        begin
            if tg_op = 'DELETE' and tg_table_name in ('artifact', 'cache')
                and current_setting('mainspring.sweeping', true) = 'on' then
                return old;
            end if;
            raise exception '% rows are immutable', tg_table_name;
        end $$""",
    *(
        "create trigger keep_rows before update or delete on " + table + " for each row execute function keep_rows()"
        for table in ("artifact", "entity", "edge", "cache", "tick", "metric", "event")
    ),
)
TABLES: tuple[LiteralString, ...] = (*_PLAIN, *_IMMUTABLE)
"""What makes them in an empty schema."""

UPGRADES: Mapping[int, tuple[LiteralString, ...]] = MappingProxyType({})
"""What brings a catalog of a version to the next one."""
