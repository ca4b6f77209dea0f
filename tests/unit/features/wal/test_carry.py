"""Pushed rows pass on to the log of a changed record: each once, known since it came, and back again."""

import contextlib
from datetime import datetime
from types import SimpleNamespace

import pyarrow as pa
import pytest

from mainspring.adapters.delta.settings import DeltaSettings
from mainspring.adapters.delta.tables import open_tables
from mainspring.declare.app import App
from mainspring.declare.record import Field, Record
from mainspring.features.logs.carry import carry_pushed, told
from mainspring.features.logs.ingest import prepare, prepare_rows
from mainspring.features.logs.log import newest, source_of
from mainspring.features.logs.write import append_rows, ingest_batch
from mainspring.features.sources.files import RawFile
from mainspring.features.wal.commit import log_of, pushed_through
from mainspring.features.wal.rows import drafted

SECOND = 1_000_000
START = 1_600_000_000 * SECOND
MOMENT = pa.timestamp("us", "UTC")


class Plain(Record):
    key: str
    heat: float | None
    at: datetime


class Wider(Record):
    key: str
    heat: float | None = Field(le=100)
    note: str | None
    at: datetime


class Narrower(Record):
    key: str
    at: datetime


class Needing(Record):
    key: str
    heat: float | None
    site: str
    at: datetime


class Whole(Record):
    key: str
    heat: int | None
    at: datetime


PLAIN, WIDER, NARROWER, NEEDING, WHOLE = (
    source_of(App("test").source(record, time="at", called="heats"))
    for record in (Plain, Wider, Narrower, Needing, Whole)
)


def rows(*heats, **more):
    count = len(heats)
    return pa.table(
        {
            "key": pa.array([f"k{heat}" for heat in heats], pa.string()),
            "heat": pa.array(heats, pa.float64()),
            "at": pa.array([START + place * SECOND for place in range(count)], pa.int64()).cast(MOMENT),
            **more,
        }
    )


@pytest.fixture
def tables(tmp_path):
    return open_tables(DeltaSettings(), tmp_path)


def push(tables, source, table, now_us):
    append_rows(SimpleNamespace(tables=tables), source, table, now_us)


def held(tables, source, *columns):
    found = tables.read(source.log).sort_by("_seq").to_pylist()
    return [tuple(row[name] for name in columns) for row in found]


def carry(tables, source):
    return [(one.rows, one.aside, bool(one.why)) for one in carry_pushed(tables, source, START)]


def arrived(*seconds):
    return [datetime.fromtimestamp(START / SECOND + second) for second in seconds]


def test_an_added_column_is_null_in_what_was_pushed_before(tables):
    push(tables, PLAIN, rows(1.0, 2.0), START + 60 * SECOND)
    push(tables, PLAIN, rows(200.0), START + 70 * SECOND)
    assert carry(tables, WIDER) == [(2, 1, False)]
    assert held(tables, WIDER, "key", "heat", "note") == [("k1.0", 1.0, None), ("k2.0", 2.0, None)]
    known = [row["_ingest_time"].timestamp() - START / SECOND for row in tables.read(WIDER.log).to_pylist()]
    assert known == [60, 60], "as they were known"
    assert tables.read(WIDER.quarantine).column("_reason").to_pylist() == ["heat is not <= 100"]
    assert newest(tables, WIDER.log).quarantined == 1
    assert pushed_through(tables, WIDER)[0] == newest(tables, WIDER.log).through
    assert carry(tables, WIDER) == [], "once"
    push(tables, WIDER, rows(3.0, note=pa.array(["x"])), START + 80 * SECOND)
    push(tables, PLAIN, rows(4.0), START + 90 * SECOND)
    assert carry(tables, WIDER) == [(1, 0, False)]
    assert held(tables, WIDER, "heat", "note") == [(1.0, None), (2.0, None), (3.0, "x"), (4.0, None)]
    seq = [number for (number,) in held(tables, WIDER, "_seq")]
    assert len(set(seq)) == 4


def test_who_goes_back_has_what_was_pushed_meanwhile_and_nothing_twice(tables):
    push(tables, PLAIN, rows(1.0), START)
    carry(tables, WIDER)
    push(tables, WIDER, rows(2.0, note=pa.array(["x"])), START)
    assert carry(tables, PLAIN) == [(1, 0, False)]
    assert held(tables, PLAIN, "heat") == [(1.0,), (2.0,)]
    assert carry(tables, NARROWER) == [(1, 0, False), (1, 0, False)]
    assert sorted(held(tables, NARROWER, "key")) == [("k1.0",), ("k2.0",)]
    assert carry(tables, PLAIN) == carry(tables, WIDER) == []


@pytest.mark.parametrize("source", [NEEDING, WHOLE], ids=["a column that must be there", "a type that does not fit"])
def test_what_cannot_come_stays_and_is_told(tables, source):
    push(tables, PLAIN, rows(1.5), START)
    found = carry_pushed(tables, source, START)
    assert [one.rows for one in found] == [0]
    assert PLAIN.log in told(found)[0]
    assert tables.version(source.log) is None
    assert held(tables, PLAIN, "heat") == [(1.5,)]


def test_what_was_only_acknowledged_comes_too(tables):
    with contextlib.closing(log_of(tables, PLAIN)) as log:
        log.append(drafted(PLAIN, prepare_rows(PLAIN, rows(1.0)), START, None))
    assert carry(tables, WIDER) == [(1, 0, False)]
    assert held(tables, WIDER, "heat") == [(1.0,)]


def test_rows_of_files_are_read_anew_and_not_carried(tables):
    def batch(source, table, content):
        prepared = prepare(source, [RawFile(SimpleNamespace(name="f"), table, False, tuple(table.column_names))])
        ingest_batch(tables, source, prepared, content=content, now_us=START)

    batch(PLAIN, rows(1.0, 2.0), "one")
    push(tables, PLAIN, rows(3.0), START)
    carry(tables, WIDER)
    batch(WIDER, rows(1.0, 2.0, note=pa.array(["x", "y"])), "two")
    assert sorted(held(tables, WIDER, "heat", "note")) == [(1.0, "x"), (2.0, "y"), (3.0, None)]
    assumed = dict(held(tables, WIDER, "heat", "_assumed"))
    assert assumed == {1.0: True, 2.0: True, 3.0: False}, "files are history as ever"
