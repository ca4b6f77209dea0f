"""Batches that come in parts and wait in files are what they would be in one piece, in memory."""

import itertools
import os
import signal
import subprocess
import sys
from collections import Counter
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mainspring import between, not_null, unique
from mainspring.adapters.delta.settings import DeltaSettings
from mainspring.adapters.delta.tables import open_tables
from mainspring.declare.app import App
from mainspring.declare.record import Field, Record
from mainspring.errors import DataError, StoreError
from mainspring.features.logs.digest import ContentDigest, content_digest
from mainspring.features.logs.ingest import prepare
from mainspring.features.logs.log import newest, read_log, source_of, standing
from mainspring.features.logs.write import append_rows, ingest_batch
from mainspring.features.sources.files import RawFile
from mainspring.features.sources.staged import Staging, content_of_rows

NOW = 1_800_000_000_000_000
MOMENT = pa.timestamp("us", "UTC")


class Reading(Record):
    key: str = Field(unique=True)
    value: float | None
    event: str | None
    flag: bool | None
    at: datetime


class Plain(Record):
    key: str
    value: float | None
    event: str | None
    flag: bool | None
    at: datetime


CHECKS = [
    between("value", 0, 4, on_fail="quarantine"),
    not_null("event", on_fail="warn"),
    unique("key", on_fail="warn"),
]
JUDGED = source_of(App("t").source(Reading, time="at", called="judged", checks=CHECKS))
PLAIN = source_of(App("t").source(Plain, time="at", called="plain"))
WITH_ID = source_of(App("t").source(Plain, time="at", id="event", called="events"))

NAMES = ("key", "value", "event", "flag", "at")
ROWS = st.lists(
    st.tuples(
        st.sampled_from("abcdé"),
        st.sampled_from([None, 0.0, -0.5, 2.0, 5.0]),
        st.sampled_from([None, "x", "y", "z"]),
        st.sampled_from([None, True, False]),
        st.integers(0, 3),
    ),
    max_size=12,
)
CUTS = st.lists(st.integers(0, 12), max_size=4)


def table(rows):
    columns = list(zip(*rows, strict=True)) or [[]] * 5
    kinds = (pa.string(), pa.float64(), pa.string(), pa.bool_(), pa.int64())
    arrays = [pa.array(column, kind) for column, kind in zip(columns, kinds, strict=True)]
    arrays[4] = arrays[4].cast(MOMENT)
    return pa.table(arrays, names=NAMES)


def parts(rows, cuts):
    bounds = sorted({0, len(rows), *(min(cut, len(rows)) for cut in cuts)})
    spans = list(itertools.pairwise(bounds)) or [(0, 0)]
    return [RawFile(Path("f"), table(rows[a:b]), False, NAMES, start=a) for a, b in spans]


def outcome(make):
    try:
        found = make()
    except DataError as error:
        return error.code, error.why
    rows = [found.rows.to_pylist(), found.set_aside.to_pylist()]
    return rows, dict(found.report), found.results, found.rows.schema, content_of_rows(found)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=ROWS, cuts=CUTS, most=st.sampled_from([-1, 100, 1 << 20]))
def test_parts_are_prepared_as_one(tmp_path_factory, rows, cuts, most):
    for source in (JUDGED, PLAIN):
        with Staging(tmp_path_factory.mktemp("staged"), most) as staging:
            found = outcome(lambda s=source, g=staging: g.prepare(s, parts(rows, cuts)))
            whole = outcome(lambda s=source: Staging(Path("/nowhere")).prepare(s, parts(rows, [])))
            assert found == whole
            if rows and isinstance(whole[0], list):
                assert whole == outcome(lambda s=source: prepare(s, parts(rows, [])))


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(batches=st.lists(st.tuples(ROWS, CUTS), min_size=1, max_size=3), pushed=ROWS, with_id=st.booleans())
def test_what_a_log_holds_after_batches_is_what_the_last_one_says(tmp_path_factory, batches, pushed, with_id):
    """Counted: a row of files stands as often as they say, a pushed one for ever; however batches came, it is so."""
    source = WITH_ID if with_id else PLAIN
    logs = []
    for staged in (True, False):
        services = SimpleNamespace(tables=open_tables(DeltaSettings(), tmp_path_factory.mktemp("tables")))
        tables, filed, held = services.tables, Counter(), Counter()
        for number, (rows, cuts) in enumerate(batches):
            with Staging(tables.beside("_staged"), -1 if staged else 1 << 20) as staging:
                prepared = staging.prepare(source, parts(rows, cuts if staged else []))
                ingest_batch(tables, source, prepared, content=f"{number}", now_us=NOW + number)
            told = Counter(map(repr, table(rows).to_pylist()))
            for row in {*told, *filed}:
                more = told[row] - filed[row] - held[row]
                filed[row] = filed[row] + more if more > 0 else min(filed[row], told[row])
            if number == 0 and pushed:
                append_rows(services, source, table(pushed), NOW)
                held = Counter(map(repr, table(pushed).to_pylist()))
        log = read_log(tables, source.log).sort_by("_seq")
        stands = Counter(map(repr, standing(log).select(NAMES).to_pylist()))
        if with_id:  # an event that lost a row is written anew whole: a push of one of its rows counts beside it
            assert set(stands) == {*told, *held}
        else:
            assert stands == filed + held
        assert newest(tables, source.log).rows == sum(stands.values())
        assert list(tables.beside("_staged").glob("*")) == []
        logs.append((content_digest(log), newest(tables, source.log).digest))
    assert logs[0] == logs[1]


@given(rows=ROWS, cuts=CUTS)
def test_digests_do_not_know_where_parts_end(rows, cuts):
    nested = table(rows).append_column("list", pa.array([[row[3]] * row[4] for row in rows], pa.list_(pa.bool_())))
    nested = nested.append_column("fixed", pa.array([row[4] for row in rows], pa.int64()).cast(pa.decimal128(20, 1)))
    digest = ContentDigest(nested.schema)
    bounds = sorted({0, len(rows), *(min(cut, len(rows)) for cut in cuts)})
    for a, b in itertools.pairwise(bounds):
        digest.add(nested.slice(a, b - a))
    assert digest.hexdigest() == content_digest(nested)


KILLED = """
import os, sys
from pathlib import Path
from mainspring.features.sources.staged import Staging
staging = Staging(Path(sys.argv[1]), -1)
(staging.place() / "rows").write_bytes(b"x" * 100)
print("there", flush=True)
sys.stdin.read()
"""


def test_what_a_killed_process_left_is_removed_and_that_of_a_living_one_is_not(tmp_path):
    started = [
        subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    for process in started:
        assert process.stdout.readline() == "there\n"
    assert len(list(tmp_path.iterdir())) == 2
    started[0].send_signal(signal.SIGKILL)
    started[0].wait()
    with Staging(tmp_path, -1) as staging:
        staging.prepare(PLAIN, parts([("a", 1.0, "x", True, 1)], []))
        assert len(list(tmp_path.iterdir())) == 2
    (left,) = tmp_path.iterdir()
    assert (left / "rows").stat().st_size == 100
    for process in started:
        process.stdin.close()
        process.stdout.close()
        process.wait(60)


def test_rows_that_cannot_be_written_down_are_refused(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError) as caught, Staging(tmp_path / "file" / "staged", -1) as staging:
        staging.prepare(PLAIN, parts([("a", 1.0, "x", True, 1)], []))
    assert caught.value.code == "MS-4310"
    assert os.listdir(tmp_path) == ["file"]
