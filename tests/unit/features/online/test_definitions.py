"""A view that is defined anew: its rows lie beside those of the old definition, and answer like history."""

from datetime import datetime
from types import SimpleNamespace

import pyarrow as pa
import pytest

from mainspring.adapters.delta.settings import DeltaSettings
from mainspring.adapters.delta.tables import open_tables
from mainspring.adapters.lmdb.online_store import open_store
from mainspring.adapters.lmdb.settings import LmdbSettings
from mainspring.adapters.sqlite.catalog import open_catalog
from mainspring.adapters.sqlite.settings import SqliteSettings
from mainspring.declare.aggregate import avg, count, last
from mainspring.declare.app import App
from mainspring.declare.data import Entity
from mainspring.declare.frame import Frame
from mainspring.declare.record import Record
from mainspring.features.logs.log import source_of
from mainspring.features.logs.write import append_rows
from mainspring.features.offline.history import history
from mainspring.features.online.materialise import materialise, online_id
from mainspring.features.online.plan import compile_plan
from mainspring.features.view import Pick, view_of

HOUR = 3_600_000_000
START = 450_000 * HOUR
NOW = START + 100 * HOUR


class Visit(Record):
    customer: str
    amount: float
    at: datetime


app = App("test")
customer = Entity("customer")
visits = app.source(Visit, time="at", called="visits")
DEFINITIONS = [
    {"mean": avg("amount", "3h")},
    {"mean": avg("amount", "30h")},
    {"mean": last("amount")},
    {"mean": avg("amount", "30h"), "n": count("30h")},
    {"mean": avg("amount", "3h")},
]


def test_each_definition_has_the_rows_that_it_needs(tmp_path):
    tables = open_tables(DeltaSettings(), tmp_path / "tables")
    store = open_store(LmdbSettings(map_size=1 << 26), tmp_path / "online")
    catalog = open_catalog(SqliteSettings(), tmp_path)
    services = SimpleNamespace(tables=tables)
    moment = pa.timestamp("us", "UTC")
    rows = pa.table(
        {
            "customer": ["a"] * 90 + ["b"] * 5,
            "amount": [float(i) for i in range(95)],
            "at": pa.array([START + i * HOUR for i in range(90)] + [START + i * HOUR for i in range(5)], moment),
        }
    )
    plans = []
    for number, features in enumerate(DEFINITIONS):
        declared = app.features(visits, entity=customer, called="habits", **features)
        view = view_of(declared, online_id(catalog, view_of(declared)))
        if number == 0:
            append_rows(services, source_of(visits), rows, START, [view])
        materialise(view, tables, store, now_us=NOW)
        plans.append((view, compile_plan(store, [Pick(view, view.features)])))
    moments = [START + 89 * HOUR, START + 88 * HOUR + 1, NOW]
    for view, plan in plans:
        for name in ("a", "b", "c"):
            spine = pa.table({"customer": [name] * 3, "at": pa.array(moments, moment)})
            known = history(services, [view], Frame(spine)).arrow().select(list(view.feature_names)).to_pylist()
            # Of plain rows the newest alone is kept, which answers for no moment before it.
            asked = list(zip(moments, known, strict=True))[:: 1 if view.windowed else 2]
            for at, expected in asked:
                values, _ = plan.read_one({"customer": name}, at)
                assert values == pytest.approx(list(expected.values())), (view.features, name, at)
    ids = [view.id for view, _ in plans]
    assert ids[0] == ids[4], "the first definition has its rows still"
    assert ids[1] == ids[3], "another feature over the same rows needs no others"
    assert len(set(ids)) == 3
