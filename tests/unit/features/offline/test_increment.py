"""Increments against a loop: rows that come late, again, torn at ties; reads that break off in the midst."""

from __future__ import annotations

import itertools
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainspring.adapters.delta.settings import DeltaSettings
from mainspring.adapters.delta.tables import open_tables
from mainspring.declare.record import Kind, Record, fields_of
from mainspring.errors import DataError, ServiceError
from mainspring.features.logs.log import SourceTable
from mainspring.features.sources.increment import extract_increment
from mainspring.features.sources.place import Cursor
from mainspring.ports.source import Range, Relation, Relations

START = datetime(2026, 1, 1, tzinfo=UTC)
NOW_US = int((START + timedelta(days=400)).timestamp() * 1e6)
TABLES = itertools.count()


class Reading(Record):
    key: str
    value: int
    at: datetime
    version: int
    changed: datetime


class Rows:
    """A database that is a list, and breaks off after so many batches."""

    def __init__(self, batch: int = 3) -> None:
        self.held: list[dict[str, object]] = []
        self.batch = batch
        self.breaks: int | None = None
        self.asked: list[Range | None] = []

    def columns(self, of):
        return dict.fromkeys(["key", "value", "at", "version", "changed"], "any")

    def newest(self, of, column):
        return max((row[column] for row in self.held if row[column] is not None), default=None)

    def rows(self, of, schema, within):
        self.asked.append(within)
        found = self.held
        if within is not None:
            column, least, most = within.column, within.least, within.most
            found = [
                row
                for row in found
                if row[column] is None or ((least is None or least <= row[column]) and row[column] <= most)
            ]
            found = sorted(found, key=lambda row: (row[column] is None, row[column] or 0))
        yield pa.RecordBatch.from_pylist([], schema)
        for count, place in enumerate(range(0, len(found), self.batch)):
            if self.breaks is not None and count >= self.breaks:
                raise ServiceError("gone", code="MS-4220", fix="wait")
            yield pa.RecordBatch.from_pylist(found[place : place + self.batch], schema)

    def answers(self):
        return {}

    def close(self):
        pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("logs")


def source_in(folder: Path):
    name = f"readings{next(TABLES)}"
    return open_tables(DeltaSettings(), folder), SourceTable(name, fields_of(Reading), "at", origin="here")


def extract(tables, source, rows, cursor, part_rows=100, now_us=NOW_US):
    assert isinstance(rows, Relations)
    of = Relation(source.name, "readings")
    return extract_increment(tables, source, rows, of, cursor, now_us=lambda: now_us, commit_rows=part_rows)


def held(tables, source, *columns):
    rows = tables.read(source.log).sort_by("_seq").to_pylist()
    return [tuple(row[column] for column in columns) for row in rows]


def row(version, value=0, key="a"):
    moment = START + timedelta(minutes=version)
    return {"key": key, "value": value, "at": START, "version": version, "changed": moment}


ROWS = st.lists(
    st.builds(row, version=st.integers(0, 12), value=st.integers(0, 2), key=st.sampled_from("ab")), max_size=12
)


@settings(max_examples=25)
@given(
    rounds=st.lists(st.tuples(ROWS, st.sampled_from([None, None, 0, 1, 2])), min_size=1, max_size=4),
    part_rows=st.integers(1, 6),
    overlap=st.integers(0, 5),
    timed=st.booleans(),
)
def test_the_log_has_what_a_loop_would_have(folder, rounds, part_rows, overlap, timed) -> None:
    """Each row that lies in the overlap or after it comes in once, as often as it is there; breaks change nothing."""
    tables, source = source_in(folder)
    minute = 60_000_000 if timed else 1
    column, kind = ("changed", Kind.TIMESTAMP) if timed else ("version", Kind.INTEGER)
    cursor = Cursor(column, kind, overlap * minute)
    rows, expected, reached = Rows(), Counter(), None
    for new, breaks in rounds:
        rows.held += new
        rows.breaks = breaks
        if breaks is not None:
            try:
                extract(tables, source, rows, cursor, part_rows)
            except ServiceError:
                rows.breaks = None
                extract(tables, source, rows, cursor, part_rows)
        else:
            extract(tables, source, rows, cursor, part_rows)
        least = -1 if reached is None else reached - overlap
        seen = Counter((one["key"], one["value"], one["version"]) for one in rows.held if one["version"] >= least)
        expected |= seen
        if rows.held:
            # What brings nothing notes nothing: then the next one begins where this one did.
            reached = max(one["version"] for one in rows.held)
        got = Counter(held(tables, source, "key", "value", "version"))
        assert got == expected
        before = tables.version(source.log)
        extract(tables, source, rows, cursor, part_rows)
        assert tables.version(source.log) == before, "a second call appends nothing"


def test_a_broken_first_read_is_history_to_its_end(folder) -> None:
    tables, source = source_in(folder)
    rows, cursor = Rows(2), Cursor("version", Kind.INTEGER, 0)
    rows.held = [row(number, number) for number in range(10)]
    rows.breaks = 3
    with pytest.raises(ServiceError):
        extract(tables, source, rows, cursor, 2)
    assert 0 < len(held(tables, source, "value")) < 10
    rows.breaks = None
    rows.held += [row(20, 20)]
    extract(tables, source, rows, cursor, 2)
    assert held(tables, source, "value", "_assumed") == [(number, True) for number in range(10)] + [(20, False)]
    asked = len(rows.asked)
    rows.held += [row(21, 21)]
    extract(tables, source, rows, cursor, 2)
    assert rows.asked[asked:] == [Range("version", 20, 21)]


def test_one_value_may_have_more_rows_than_a_part(folder) -> None:
    tables, source = source_in(folder)
    rows, cursor = Rows(4), Cursor("version", Kind.INTEGER, 0)
    rows.held = [row(1, number // 2) for number in range(20)] + [row(2, 7), row(2, 7)]
    extract(tables, source, rows, cursor, 3)
    assert len(held(tables, source, "value")) == 22


def test_a_row_from_the_future_is_not_where_the_next_begins(folder) -> None:
    tables, source = source_in(folder)
    rows, cursor = Rows(), Cursor("changed", Kind.TIMESTAMP, 0)
    now_us = int((START + timedelta(minutes=5)).timestamp() * 1e6)
    rows.held = [row(1, 1), row(900, 2)]
    extract(tables, source, rows, cursor, 100, now_us)
    rows.held += [row(6, 3)]
    extract(tables, source, rows, cursor, 100, now_us + 60_000_000)
    assert held(tables, source, "value", "_assumed") == [(1, True), (2, True), (3, False)]


def test_a_cursor_of_another_kind_than_the_record_says(folder) -> None:
    tables, source = source_in(folder)
    rows = Rows()
    rows.held = [row(1) | {"version": "one"}]
    with pytest.raises(DataError) as caught:
        extract(tables, source, rows, Cursor("version", Kind.INTEGER, 0))
    assert (caught.value.code, caught.value.origin) == ("MS-2153", f"sources.{source.name}.cursor")
