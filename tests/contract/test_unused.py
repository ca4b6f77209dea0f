"""What nothing reads is swept a day after, on every online store; what is read stays, what comes back is made anew."""

import itertools
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mainspring.adapters.delta.settings import DeltaSettings
from mainspring.adapters.delta.tables import open_tables
from mainspring.adapters.lmdb.online_store import open_store as open_lmdb
from mainspring.adapters.lmdb.settings import LmdbSettings
from mainspring.adapters.postgres.online_store import open_store as open_postgres
from mainspring.adapters.postgres.settings import PostgresSettings
from mainspring.adapters.redis.online_store import open_store as open_redis
from mainspring.adapters.redis.settings import RedisSettings
from mainspring.adapters.sqlite.catalog import open_catalog
from mainspring.adapters.sqlite.settings import SqliteSettings
from mainspring.declare.aggregate import avg, last
from mainspring.declare.app import App
from mainspring.declare.data import Entity
from mainspring.declare.record import Record
from mainspring.features.logs.ingest import prepare_rows
from mainspring.features.logs.log import source_of
from mainspring.features.logs.project import update_view
from mainspring.features.logs.unused import KEEP_US, drop_online, kept_online, online_subject, sweep, unused_of
from mainspring.features.logs.write import ingest_batch
from mainspring.features.online.keys import view_prefix
from mainspring.features.online.materialise import materialise, online_id, reaches
from mainspring.features.view import view_of

HOUR = 3_600_000_000
NOW = 450_000 * HOUR
NUMBERS = itertools.count()


class Visit(Record):
    customer: str
    amount: float
    at: datetime


app = App("test")
customer = Entity("customer")
visits = app.source(Visit, time="at", called="visits")
DEFINITIONS = [{"mean": avg("amount", "3h")}, {"mean": avg("amount", "30h")}, {"newest": last("amount")}]


@pytest.fixture(params=["lmdb", "redis", "postgres"])
def store(request, tmp_path):
    if request.param == "lmdb":
        opened = open_lmdb(LmdbSettings(map_size=1 << 26), tmp_path / "online")
    elif request.param == "redis":
        url = request.getfixturevalue("redis_url")
        opened = open_redis(RedisSettings(url, prefix=f"unused{next(NUMBERS)}:"), Path("/nowhere"))
    else:
        url = request.getfixturevalue("postgres_url")
        opened = open_postgres(PostgresSettings(url), Path("/nowhere"))
        opened.drop(b"")
    yield opened
    opened.close()


def rows_of(store, number):
    return dict(store.scan(view_prefix(number)))


def test_rows_go_a_day_after_nothing_reads_them_and_come_back_whole(store, tmp_path):
    tables, catalog = open_tables(DeltaSettings(), tmp_path), open_catalog(SqliteSettings(), tmp_path)
    table = pa.table(
        {
            "customer": [f"c{number % 300}" for number in range(900)],
            "amount": [float(number) for number in range(900)],
            "at": pa.array([NOW - 900 + number for number in range(900)]).cast(pa.timestamp("us", "UTC")),
        }
    )
    source = source_of(visits)
    at = ingest_batch(tables, source, prepare_rows(source, table), content="1", now_us=NOW)
    views = []
    for features in DEFINITIONS:
        declared = app.features(visits, entity=customer, called="habits", **features)
        views.append(view_of(declared, online_id(catalog, view_of(declared))))
        update_view(tables, views[-1], source, at)
        materialise(views[-1], tables, store, now_us=NOW)
    before = {view.id: rows_of(store, view.id) for view in views}
    assert all(len(rows) >= 300 for rows in before.values())
    first, second, third = (online_subject(view.id) for view in views)
    dropped = []

    def drop(subject):
        dropped.append(subject)
        drop_online(store, int(subject.rpartition("/")[2]))

    def swept(used, now):
        done = sweep(catalog, kept_online(catalog, store), used, drop, now_us=now, actor="test")
        return [one.subject for one in done]

    assert set(kept_online(catalog, store)) == {first, second, third}
    assert swept({first}, NOW) == []
    assert {(one.subject, one.since_us) for one in unused_of(catalog, kept_online(catalog, store), {first})} == {
        (second, NOW),
        (third, NOW),
    }
    assert swept({first}, NOW + KEEP_US - 1) == []
    assert swept({first, second}, NOW + KEEP_US - 1) == [], "it is read again: its day begins anew"
    assert swept({first}, NOW + KEEP_US) == [third]
    assert swept({first}, NOW + 2 * KEEP_US - 1) == []
    assert (rows_of(store, views[2].id), rows_of(store, views[0].id)) == ({}, before[views[0].id])
    assert not reaches(views[2], tables, store, 0)
    assert swept({first}, NOW + 2 * KEEP_US) == [second]
    assert dropped == [third, second]
    assert set(kept_online(catalog, store)) == {first}
    assert swept({first}, NOW + 9 * KEEP_US) == [], "what is gone is not swept again"
    for view in views[1:]:
        assert materialise(view, tables, store, now_us=NOW).entities == 300
        assert rows_of(store, view.id) == before[view.id]
    assert swept({first, second}, NOW + 9 * KEEP_US) == []
    assert swept({first}, NOW + 9 * KEEP_US) == [], "it was there again, and gets a day again"
    assert rows_of(store, views[1].id) == before[views[1].id]


def test_a_sweep_that_breaks_off_is_finished_by_the_next(store, tmp_path):
    catalog = open_catalog(SqliteSettings(), tmp_path)
    tables = open_tables(DeltaSettings(), tmp_path)
    table = pa.table({"customer": ["a"], "amount": [1.0], "at": pa.array([NOW]).cast(pa.timestamp("us", "UTC"))})
    source = source_of(visits)
    declared = app.features(visits, entity=customer, called="broken", newest=last("amount"))
    view = view_of(declared, online_id(catalog, view_of(declared)))
    at = ingest_batch(tables, source, prepare_rows(source, table), content="1", now_us=NOW)
    update_view(tables, view, source, at)
    materialise(view, tables, store, now_us=NOW)

    def broken(subject):
        store.delete([b"\xff\xff\xff\xffmark" + view.id.to_bytes(4, "big")])
        raise RuntimeError

    sweep(catalog, kept_online(catalog, store), frozenset(), broken, now_us=NOW, actor="test")
    with pytest.raises(RuntimeError):
        sweep(catalog, kept_online(catalog, store), frozenset(), broken, now_us=NOW + KEEP_US, actor="test")
    assert len(rows_of(store, view.id)) == 1
    done = sweep(
        catalog,
        kept_online(catalog, store),
        frozenset(),
        lambda subject: drop_online(store, view.id),
        now_us=NOW + KEEP_US,
        actor="test",
    )
    assert len(done) == 1
    assert rows_of(store, view.id) == {}


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=st.lists(st.tuples(st.sets(st.sampled_from("abc")), st.integers(0, 30)), max_size=12))
def test_nothing_goes_before_it_was_seen_unused_for_a_day(tmp_path_factory, steps):
    catalog = open_catalog(SqliteSettings(), tmp_path_factory.mktemp("catalog"))
    now, there, since = NOW, set("abc"), {}
    for used, hours in steps:
        now += hours * HOUR
        expected = {name for name in there - used if name in since and now - since[name] >= KEEP_US}
        done = sweep(catalog, {name: name for name in there}, used, there.discard, now_us=now, actor="test")
        assert {one.subject for one in done} == expected
        since = {name: since.get(name, now) for name in "abc" if name not in used and name not in expected}
        assert there.isdisjoint(expected)
