"""Where a source is, from its settings: a local file, or outside and how it is read there."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from mainspring.choose.decide import Outcome, outcomes_of
from mainspring.choose.discover import adapters, is_installed
from mainspring.config.settings import Setting, Settings
from mainspring.declare.data import did_you_mean
from mainspring.declare.duration import microseconds
from mainspring.declare.record import FieldSpec, Kind
from mainspring.errors import ConfigError, DeclarationError
from mainspring.features.logs.log import SourceTable
from mainspring.ports.source import Relation

__all__ = ["COMMIT_ROWS", "Cursor", "Outside", "outside_of"]

COMMIT_ROWS = 250_000
"""Rows of one commit; more only where more have the same value of a cursor."""

_OVERLAP_US = 600_000_000
_OVERLAP_NUMBER = 1000
_GROWING = (Kind.TIMESTAMP, Kind.DATE, Kind.INTEGER, Kind.DECIMAL)


class Cursor(msgspec.Struct, frozen=True):
    """The column by which increments are told.

    Attributes:
        column: its name in the record.
        kind: what it holds.
        overlap: how far an increment goes back: microseconds of a time, else a number in the column's unit.
    """

    column: str
    kind: Kind
    overlap: int


class Outside(msgspec.Struct, frozen=True):
    """A source that is in no local file.

    Attributes:
        reads: how its adapter reads: ``relation``, ``files`` or ``messages``.
        relation: the table or query, of a database.
        cursor: how increments are told, or None to read it whole.
        commit_rows: rows of one commit, of increments and messages.
        timeout_us: what one read may take, in microseconds.
    """

    reads: str
    relation: Relation | None = None
    cursor: Cursor | None = None
    commit_rows: int = COMMIT_ROWS
    timeout_us: int = 3_600_000_000


def outside_of(source: SourceTable, settings: Settings) -> Outside | None:
    """Where a source is when it has a url, which goes before its path; None when it has none. Nothing is connected.

    Raises:
        ConfigError: MS-3020, nothing reads such a url; MS-3040, what would is not installed; MS-3041, table, query
            or cursor do not fit; MS-3007, a secret is not there.
    """
    url = settings.setting(f"sources.{source.name}.url")
    if url is None or url.value is None:
        return None
    settings.secret(url.key)
    reads = str(_adapter(source.name, url, settings).adapter.capabilities["reads"])
    rows = _whole(settings, f"sources.{source.name}.commit_rows", COMMIT_ROWS)
    timeout_us = _whole(settings, f"sources.{source.name}.timeout", 3600, 1_000_000)
    if reads != "relation":
        _only_of_databases(source.name, settings)
        return Outside(reads, None, None, rows, timeout_us)
    return Outside(reads, _relation(source.name, url, settings), _cursor(source, settings), rows, timeout_us)


def _whole(settings: Settings, key: str, default: float, unit: int = 1) -> int:
    setting = settings.setting(key)
    return round((default if setting is None or setting.value is None else float(str(setting.value))) * unit)


def _adapter(name: str, url: Setting, settings: Settings) -> Outcome:
    outcomes = outcomes_of("source", adapters(), settings, is_installed, f"sources.{name}")
    if outcomes and outcomes[0].fits:
        return outcomes[0]
    for outcome in outcomes:
        failed = [condition for condition in outcome.conditions if not condition.ok]
        if [condition.name for condition in failed] == ["installed"]:
            raise ConfigError(
                f"source {name!r} needs what is not installed",
                code="MS-3040",
                why=failed[0].message.partition(":")[0],
                origin=url.origin,
                fix=f"pip install 'mainspring[{outcome.adapter.extra}]'",
            )
    known = sorted({scheme for outcome in outcomes for scheme in outcome.adapter.schemes})
    raise ConfigError(
        f"source {name!r} is at a url, and nothing here reads it",
        code="MS-3020",
        why=f"what can be read: {', '.join(f'{scheme}://' for scheme in known)}",
        origin=url.origin,
        fix=f'export it to a file: sources.{name}.path = "data/{name}.parquet"',
    )


def _unfit(name: str, why: str, origin: str, fix: str) -> ConfigError:
    return ConfigError(
        f"the settings of source {name!r} do not fit together", code="MS-3041", why=why, origin=origin, fix=fix
    )


def _only_of_databases(name: str, settings: Settings) -> None:
    for key in ("table", "query", "cursor", "overlap"):
        setting = settings.setting(f"sources.{name}.{key}")
        if setting is not None and setting.value is not None:
            raise _unfit(name, f"{key} is of databases, and its url is none", setting.origin, f"remove {setting.key}")


def _relation(name: str, url: Setting, settings: Settings) -> Relation:
    table, query = (settings.setting(f"sources.{name}.{key}") for key in ("table", "query"))
    given = [item for item in (table, query) if item is not None and item.value is not None]
    if len(given) != 1:
        why = "it has a table and a query" if given else "its url is a database, and no table or query is named"
        origin = given[0].origin if given else url.origin
        raise _unfit(name, why, origin, f'write one: sources.{name}.table = "public.{name}"')
    if given[0] is table:
        return Relation(name, table=str(table.value))
    return Relation(name, query=_query(name, given[0], settings.project))


def _query(name: str, setting: Setting, project: Path) -> str:
    text = str(setting.value)
    if re.fullmatch(r"[^\n;]+\.sql", text):
        try:
            text = (project / text).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise _unfit(
                name, f"{text} cannot be read: {type(error).__name__}", setting.origin, "write the file, or the query"
            ) from error
    text = text.strip().removesuffix(";").rstrip()
    if not text:
        raise _unfit(name, "the query is empty", setting.origin, 'write query = "select ..."')
    return text


def _cursor(source: SourceTable, settings: Settings) -> Cursor | None:
    setting = settings.setting(f"sources.{source.name}.cursor")
    overlap = settings.setting(f"sources.{source.name}.overlap")
    if setting is None or not setting.value:
        if overlap is not None and overlap.value is not None:
            raise _unfit(
                source.name,
                "an overlap is of increments, which need a cursor",
                overlap.origin,
                f"add sources.{source.name}.cursor, or remove the overlap",
            )
        return None
    column = str(setting.value)
    field = next((item for item in source.fields if item.name == column), None)
    if field is None:
        raise _unfit(
            source.name,
            f"the record has no column {column!r}, which is its cursor",
            setting.origin,
            f"add it to the record, so that each row says which version it is; "
            f"{did_you_mean(column, [item.name for item in source.fields])}",
        )
    if field.type.kind not in _GROWING:
        raise _unfit(
            source.name,
            f"{column} is {field.type.kind.value}; a cursor is a time or a whole number that only grows",
            setting.origin,
            "name another column, or leave the cursor out to read it whole each time",
        )
    return Cursor(column, field.type.kind, _overlap(source.name, field, overlap))


def _overlap(name: str, field: FieldSpec, setting: Setting | None) -> int:
    timed = field.type.kind in (Kind.TIMESTAMP, Kind.DATE)
    if setting is None or setting.value is None:
        return _OVERLAP_US if timed else _OVERLAP_NUMBER
    text = str(setting.value)
    try:
        if timed:
            return 0 if text.strip() == "0" else microseconds(text, what="an overlap")
        if not re.fullmatch(r"\d+", text.strip()):
            raise ValueError(text)
        return int(text)
    except (ValueError, DeclarationError) as error:
        wanted = '"10m" or "2h"' if timed else '"1000"'
        raise _unfit(
            name, f"overlap = {text!r} does not fit {field.name}", setting.origin, f"write such as {wanted}"
        ) from error
