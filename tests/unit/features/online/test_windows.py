"""Windows online are windows offline: every aggregate and type, late and repeated rows, few rows and many."""

import itertools
import random
from datetime import date, datetime
from decimal import Decimal
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from mainspring.adapters.delta.settings import DeltaSettings
from mainspring.adapters.delta.tables import open_tables
from mainspring.adapters.lmdb.online_store import open_store
from mainspring.adapters.lmdb.settings import LmdbSettings
from mainspring.declare.aggregate import (
    avg,
    count,
    distinct,
    first,
    highest,
    last,
    last_n,
    lowest,
    quantile,
    stddev,
    total,
    variance,
)
from mainspring.declare.app import App
from mainspring.declare.data import Entity
from mainspring.declare.frame import Frame
from mainspring.declare.record import Field, Kind, Record
from mainspring.errors import DataError, StoreError
from mainspring.features.logs.log import newest, source_of
from mainspring.features.logs.project import update_view
from mainspring.features.logs.write import append_rows
from mainspring.features.offline.history import history
from mainspring.features.online import chunks
from mainspring.features.online.materialise import materialise
from mainspring.features.online.plan import compile_plan
from mainspring.features.online.windows import layout_of
from mainspring.features.online.write import upsert
from mainspring.features.view import Pick, view_of
from thoroughly import THOROUGH
from unit.features.offline.oracle import same

SECOND = 1_000_000
START = 1_600_000_000 * SECOND
MOMENT = pa.timestamp("us", "UTC")
WINDOWS = ("30s", "5m", "2h")


class Visit(Record):
    customer: str
    x: float | None
    n: int | None
    s: str | None
    yes: bool | None
    day: date | None
    price: Decimal | None = Field(precision=10, scale=2)
    raw: bytes | None
    seen: datetime | None
    way: list[float] | None = Field(length=2)
    number: str | None
    at: datetime


app = App("test")
customer = Entity("customer")
SOURCES = {
    "loose": app.source(Visit, time="at", called="loose"),
    "named": app.source(Visit, time="at", id="number", called="named"),
}


def aggregates():
    made = {"recent": last("x"), "recent_price": last("price"), "recent_day": last("day")}
    for window in WINDOWS:
        every = {
            "rows": count(window),
            "xs": count("x", window),
            "texts": count("s", window),
            "keys": count("customer", window),
            "one": distinct("customer", window),
            "sum": total("x", window),
            "whole": total("n", window),
            "mean": avg("x", window),
            "whole_mean": avg("n", window),
            "var": variance("x", window),
            "std": stddev("n", window),
            "low": lowest("x", window),
            "high": highest("n", window),
            "p50": quantile("x", 0.5, window),
            "p90": quantile("n", 0.9, window),
        }
        for name in ("x", "n", "s", "yes", "day", "price", "raw", "seen"):
            every |= {f"first_{name}": first(name, window), f"last_{name}": last(name, window)}
            every |= {f"last_3_{name}": last_n(name, 3, window), f"kinds_{name}": distinct(name, window)}
        for name in ("s", "day", "price", "raw", "seen"):
            every |= {f"least_{name}": lowest(name, window), f"most_{name}": highest(name, window)}
        every |= {"first_way": first("way", window), "last_way": last("way", window)}
        made |= {f"{name}_{window}": what for name, what in every.items()}
    return made


VIEWS = {
    name: view_of(app.features(source, entity=customer, called=f"habits_{name}", **aggregates()), 1)
    for name, source in SOURCES.items()
}


def table(rows):
    names = ["customer", "x", "n", "s", "yes", "day", "price", "raw", "seen", "way", "number", "at"]
    kinds = [
        pa.string(),
        pa.float64(),
        pa.int64(),
        pa.string(),
        pa.bool_(),
        pa.date32(),
        pa.decimal128(10, 2),
        pa.binary(),
        MOMENT,
        pa.list_(pa.float32(), 2),
        pa.string(),
        MOMENT,
    ]
    return pa.table(
        {name: pa.array([row[name] for row in rows], kind) for name, kind in zip(names, kinds, strict=True)}
    )


def a_row(chance, at, specials=False):
    def maybe(value):
        return None if chance.random() < 0.2 else value

    x = chance.choice([chance.uniform(-5, 5), float(chance.randint(-3, 3)), 1e6, -0.0])
    if specials and chance.random() < 0.02:
        x = chance.choice([float("nan"), float("inf"), float("-inf")])
    return {
        "customer": chance.choice("aab"),
        "x": maybe(x),
        "n": maybe(2**53 + chance.randint(0, 3) if chance.random() < 0.05 else chance.randint(-20, 20)),
        "s": maybe(chance.choice(["", "p", "é", "e\u0301", f"t{chance.randint(0, 9)}"])),
        "yes": maybe(chance.random() < 0.5),
        "day": maybe(date(2020, 1, 1 + chance.randint(0, 20))),
        "price": maybe(Decimal(chance.randint(-500, 1500)) / 100),
        "raw": maybe(bytes([chance.randint(0, 255)])),
        "seen": maybe(START + chance.randint(0, 9)),
        "way": maybe([float(chance.randint(0, 3)), 1.0]),
        "number": maybe(f"id{chance.randint(0, 60)}"),
        "at": at,
    }


class Project:
    """A source with its view, offline and online."""

    def __init__(self, place, name):
        self.tables = open_tables(DeltaSettings(), place / "tables")
        self.store = open_store(LmdbSettings(map_size=1 << 28), place / "online")
        self.source, self.view = source_of(SOURCES[name]), VIEWS[name]

    def push(self, rows, now, *, online=True):
        done = append_rows(SimpleNamespace(tables=self.tables), self.source, table(rows), now, [self.view])
        if online:
            upsert(self.view, self.store, done.logged[self.view.name], now)

    def publish(self, now):
        at = update_view(self.tables, self.view, self.source, newest(self.tables, self.source.log)).version
        materialise(self.view, self.tables, self.store, at.version, now_us=now)

    def online(self, questions):
        plan = compile_plan(self.store, [Pick(self.view, self.view.features)])
        return [
            (*plan.read_one({"customer": name}, t), plan.read_dated([{"customer": name}], t)) for name, t in questions
        ]

    def offline(self, questions, *, as_known=True):
        spine = Frame(
            {
                "customer": [name for name, _ in questions],
                "asked": pa.array([t for _, t in questions], MOMENT),
            }
        )
        services = SimpleNamespace(tables=self.tables)
        return history(services, [self.view], spine, time="asked", as_known=as_known, status=True).arrow().to_pylist()

    def check(self, questions, *, as_known=True):
        kinds = {feature.name: feature.type for feature in self.view.features}
        for (name, t), (values, statuses, dated), there in zip(
            questions, self.online(questions), self.offline(questions, as_known=as_known), strict=True
        ):
            ((again, _, events),) = dated
            assert repr(again) == repr(values)
            event = there[f"{self.view.name}__event_time"]
            assert list(statuses.values()) == [there[f"{self.view.name}__status"]]
            assert list(events.values()) == [None if event is None else round(event.timestamp() * SECOND)]
            for feature, value in zip(self.view.feature_names, values, strict=True):
                expected = wire(there[feature], kinds[feature])
                assert same(value, expected), (feature, value, expected, name, t)


def wire(value, kind):
    """An answer as the online store gives it."""
    if value is None:
        return None
    if kind.kind is Kind.LIST:
        return [wire(one, kind.element) for one in value]
    if kind.kind is Kind.TIMESTAMP:
        return round(value.timestamp() * SECOND)
    if kind.kind is Kind.DATE:
        return value.toordinal()
    return str(value) if kind.kind is Kind.DECIMAL else value


@pytest.fixture
def small(monkeypatch):
    """Chunks of four rows, and few different values that are many."""
    monkeypatch.setattr(chunks, "CHUNK", 4)
    monkeypatch.setattr(chunks, "TAIL", 8)
    monkeypatch.setattr(chunks, "GROUP", 3)
    for module in ("windows.different", "windows.sketch", "online.partials", "online.answers"):
        monkeypatch.setattr(f"mainspring.features.{module}.EXACT", 6)


@pytest.mark.parametrize(
    ("name", "seed"),
    [*itertools.product(SOURCES, range(3))] if THOROUGH else [("loose", 0), ("named", 1), ("named", 2)],
)
def test_whatever_is_pushed_online_is_offline(tmp_path, small, name, seed):
    chance = random.Random(seed)
    project = Project(tmp_path, name)
    now = START + 3_000 * SECOND
    busy = 0
    for number in range(10):
        step = chance.choice(["push", "push", "late", "again", "publish", "behind"])
        rows = [
            a_row(
                chance, now - (chance.randint(0, 4000) if step == "late" else chance.randint(0, 40)) * SECOND, seed == 2
            )
            for _ in range(chance.randint(1, 14))
        ]
        project.push(rows, now, online=step != "behind")
        if step in ("publish", "behind"):
            project.publish(now)
        if step == "again":  # what is there already changes nothing
            before = dict(project.store.scan(b""))
            log = project.tables.read(project.view.log)
            upsert(project.view, project.store, log, now)
            assert dict(project.store.scan(b"")) == before
        questions = [(who, now) for who in "abz"]
        if number % 3 == 0:
            project.check(questions)
        past = [(who, now - chance.randint(0, 3500) * SECOND) for who in "ab" for _ in range(3)]
        project.check([*questions, *past], as_known=False)  # now, all rows are known
        busy += sum(key[4:5] == b"T" for key, _ in project.store.scan(b""))
        now += chance.randint(1, 400) * SECOND
    assert busy > 20
    project.store.close()


def test_rows_that_are_too_old_go_with_their_chunks(tmp_path, small):
    chance = random.Random(1)
    project = Project(tmp_path, "named")
    now, most = START, 0
    for _ in range(12):
        project.push([a_row(chance, now - i * SECOND) for i in range(20)], now)
        now += 3_600 * SECOND
        most = max(most, len(dict(project.store.scan(b""))))
        project.check([("a", now), ("b", now)])
    parts = [key[4:5] for key, _ in project.store.scan(b"")]
    assert parts.count(b"T") == parts.count(b"S") == parts.count(b"I")
    assert len(parts) <= most < 12 * 20
    project.store.close()


def test_an_entity_of_many_rows_is_pushed_to_and_read_in_small_parts(tmp_path):
    project = Project(tmp_path, "loose")
    chance = random.Random(2)
    many = [a_row(chance, START + i * SECOND // 2) | {"customer": "a"} for i in range(9_000)]
    now = START + 4_600 * SECOND
    project.push(many, now)
    log = len(project.tables.read(project.view.log))
    assert log == 9_000
    project.check([("a", now)])
    project.check([("a", START + 4_000 * SECOND)], as_known=False)
    asked = []
    whole = project.store.get_many

    class Counted:
        def get_many(self, keys):
            found = whole(keys)
            asked.extend(found)
            return found

    plan = compile_plan(
        Counted(), [Pick(project.view, (project.view.feature("sum_5m"), project.view.feature("rows_2h")))]
    )
    plan.read_one({"customer": "a"}, now)
    assert len(asked) <= 3
    held = sum(len(row) for _, row in project.store.scan(b""))
    assert sum(map(len, asked)) < held / 3
    written = []
    swap, put = project.store.swap, project.store.put_newer
    project.store.swap = lambda key, old, new: written.append(len(new)) or swap(key, old, new)
    project.store.put_newer = lambda rows: put([written.append(len(row)) or (key, row) for key, row in rows])
    project.push([a_row(chance, START + 2_000 * SECOND) | {"customer": "a"}], now)  # late: one chunk is written anew
    assert sum(written) < held / 3
    project.check([("a", now)])
    project.store.close()


def test_a_reader_that_finds_a_chunk_gone_reads_again(tmp_path, small):
    project = Project(tmp_path, "loose")
    chance = random.Random(4)
    now = START + 1000 * SECOND
    project.push([a_row(chance, now - i * SECOND) | {"customer": "a"} for i in range(60)], now)
    whole, seen = project.store.get_many, []

    class Raced:
        def get_many(self, keys):
            found = whole(keys)
            if not seen:
                seen.append(len(keys))
                late = [a_row(chance, now - i * SECOND) | {"customer": "a"} for i in range(60)]
                project.push(late, now)
            return found

    raced = compile_plan(Raced(), [Pick(project.view, project.view.features)]).read_one({"customer": "a"}, now)
    assert repr(raced) == repr(
        compile_plan(project.store, [Pick(project.view, project.view.features)]).read_one({"customer": "a"}, now)
    )
    project.check([("a", now)])
    gone = [key for key, _ in project.store.scan(b"") if key[4:5] == b"T"]
    project.store.delete(gone)
    with pytest.raises(StoreError, match="not all there") as caught:
        compile_plan(project.store, [Pick(project.view, project.view.features)]).read_one({"customer": "a"}, now)
    assert caught.value.code == "MS-4143"
    project.store.close()


def test_writers_of_one_entity_lose_nothing(tmp_path, small):
    project = Project(tmp_path, "loose")
    chance = random.Random(5)
    now = START + 1000 * SECOND
    project.push([a_row(chance, now - i * SECOND) | {"customer": "a"} for i in range(30)], now)
    swap, others = project.store.swap, [3]

    def raced(key, old, new):
        if others and others.pop():
            project.push([a_row(chance, now - 7 * i * SECOND) | {"customer": "a"} for i in range(20)], now)
        return swap(key, old, new)

    project.store.swap = raced
    project.push([a_row(chance, now - 5 * i * SECOND) | {"customer": "a"} for i in range(25)], now)
    project.check([("a", now)])
    key = next(key for key, _ in project.store.scan(b"") if key[4:5] == b"s")
    directory, tail, _ = chunks.read_busy(project.store.get_many([key])[0], layout_of(project.view))
    assert int(directory.counts.sum()) + len(tail.events) == 75
    names = {of(key, int(name)) for name in directory.chunks for of in (chunks.chunk_key, chunks.sketch_key)}
    names |= {chunks.group_key(key, int(name)) for name in directory.groups if name}
    assert names == {key for key, _ in project.store.scan(b"") if key[4:5] in b"TSG"}  # who lost left nothing behind
    assert len(names) > 2 * len(directory.chunks)
    project.store.close()


def test_a_total_that_does_not_fit_is_a_fault_online_too(tmp_path):
    project = Project(tmp_path, "loose")
    chance = random.Random(6)
    rows = [a_row(chance, START + i) | {"customer": "a", "n": 2**62} for i in range(3)]
    project.push(rows, START + SECOND)
    plan = compile_plan(project.store, [Pick(project.view, (project.view.feature("whole_2h"),))])
    with pytest.raises(DataError) as caught:
        plan.read_one({"customer": "a"}, START + SECOND)
    assert caught.value.code == "MS-2117"
    assert plan.read_one({"customer": "a"}, START)[0] == [2**62]
    project.store.close()


def test_different_values_are_counted_the_same_beyond_the_exact(tmp_path):
    project = Project(tmp_path, "loose")
    chance = random.Random(7)
    base = a_row(chance, START)
    rows = [
        base | {"customer": "a", "s": f"text {i}", "n": i, "x": i / 7, "at": START + i * SECOND // 4}
        for i in range(6_000)
    ]
    now = START + 1_600 * SECOND
    project.push(rows, now)
    project.check([("a", now)])
    ((values, *_),) = project.online([("a", now)])
    found = dict(zip(project.view.feature_names, values, strict=True))
    for name in ("kinds_s_2h", "kinds_n_2h", "kinds_x_2h"):
        assert abs(found[name] - 6_000) < 180
    assert np.isclose(found["p50_2h"], 3_000 / 7, rtol=0.01)
    project.store.close()
