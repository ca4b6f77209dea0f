"""On-demand features: what a server answers is what history says, whatever the values and the program."""

import math
import random
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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
from mainspring.declare.record import Field, Record
from mainspring.errors import DataError, DeclarationError, UserCodeError
from mainspring.features.calculate import kept
from mainspring.features.logs.log import source_of
from mainspring.features.logs.write import append_rows
from mainspring.features.offline.recalculate import recalculate
from mainspring.features.offline.recall import recall
from mainspring.features.online.computed import compile_selection
from mainspring.features.online.materialise import materialise
from mainspring.features.online.plan import ReadPlan
from mainspring.features.online.sampled import Calculated, Samples
from mainspring.features.selection import functions_of, selection_of
from mainspring.features.view import view_of
from mainspring.server.features.replaying import ReplayWatch
from mainspring.serving.telemetry import Metrics
from thoroughly import rounds

MINUTE = 60_000_000
START = 1_700_000_000_000_000
NOW = START + 310 * MINUTE
MOMENT = pa.timestamp("us", "UTC")
SINCE = 86_400_000_000
KEYS = ("a", "b", "é", "gone")


class Event(Record):
    key: str
    number: float | None
    whole: int | None
    text: str | None
    moment: datetime | None
    day: date | None
    money: Decimal | None = Field(precision=12, scale=2)
    at: datetime


class Answer(Record):
    text: str | None
    later: datetime | None
    day: date | None
    money: Decimal | None = Field(precision=14, scale=2)
    big: bool


class Ranked(Record):
    place: float


class Doubled(Record):
    doubled: float | None
    label: str | None


app = App("test")
key = Entity("key")
events = app.source(Event, time="at", called="events")
facts = app.features(
    events, entity=key, ttl="2h", called="facts", number=last("number"), text=last("text"), moment=last("moment"),
    day=last("day"), money=last("money"),
)  # fmt: skip
windows = app.features(events, entity=key, called="windows", mean=avg("number", "30m"), n=count("1h"))


@app.on_demand(mean=windows.mean, n=windows.n, seats=app.request(int))
def ratio(mean: float | None, n: int | None, seats: int) -> float | None:
    return None if mean is None or not seats else mean * (n or 0) / seats


@app.on_demand(
    text=facts.text,
    moment=facts.moment,
    day=facts.day,
    money=facts.money,
    each=ratio,
    since=app.request(datetime | None),
)
def record(text, moment, day, money, each, since) -> Answer:
    return Answer(
        text=None if text is None else text.upper(),
        later=None if moment is None or since is None else max(moment, since) + timedelta(hours=1),
        day=None if day is None else day + timedelta(days=1),
        money=None if money is None else money * 3,
        big=each is not None and each > 1,
    )


@app.on_demand(number=facts.number, text=facts.text, seats=app.request(int), returns=Doubled)
def doubled(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.select(doubled=pl.col("number") * pl.col("seats"), label=pl.col("text") + "!")


@app.on_demand(number=facts.number, seats=app.request(int), money=facts.money, returns=Doubled)
def queried() -> str:
    return "select number + seats as doubled, money::varchar as label from inputs"


PROGRAM = [ratio, record, doubled.doubled, queried, facts.number, windows.n, facts.day]


def _rows(seed):
    """Random rows, some of the ends of their types."""
    chance = random.Random(seed)

    def some(value):
        return None if chance.random() < 0.2 else value

    return [
        (
            chance.choice(KEYS[:3]),
            chance.randrange(300),
            some(chance.choice([math.nan, 0.0, -0.0, chance.uniform(-1e6, 1e6)])),
            some(chance.choice(["x", "straße", ""])),
            some(chance.randrange(-(10**12), 2 * 10**15)),
            some(chance.randrange(-30_000, 30_000)),
            some(chance.randrange(-(10**9), 10**9)),
        )
        for _ in range(seed * 20 + 1)
    ]


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    """Logs and the online stores that they were published to."""
    found = []
    views = {item._name: view_of(item, number) for number, item in enumerate((facts, windows), 1)}
    for seed in range(3):
        folder = tmp_path_factory.mktemp("world")
        services = SimpleNamespace(tables=open_tables(DeltaSettings(), folder / "tables"))
        store = open_store(LmdbSettings(map_size=1 << 24), folder / "online")
        append_rows(services, source_of(events), _logged(_rows(seed)), NOW, list(views.values()))
        for view in views.values():
            materialise(view, services.tables, store, now_us=NOW)
        found.append((services, store, views))
    return found


def _logged(rows):
    return pa.table(
        {
            "key": [row[0] for row in rows],
            "number": pa.array([row[2] for row in rows], pa.float64()),
            "whole": pa.nulls(len(rows), pa.int64()),
            "text": pa.array([row[3] for row in rows], pa.string()),
            "moment": pa.array([row[4] for row in rows], pa.int64()).cast(MOMENT),
            "day": pa.array([row[5] for row in rows], pa.int32()).cast(pa.date32()),
            "money": pa.array([None if r[6] is None else Decimal(r[6]).scaleb(-2) for r in rows], pa.decimal128(12, 2)),
            "at": pa.array([START + row[1] * MINUTE for row in rows], pa.int64()).cast(MOMENT),
        }
    )


def _as_online(values, kind):
    """History's column as an online row holds it."""
    if pa.types.is_timestamp(values.type):
        return values.cast(pa.int64()).to_pylist()
    write = kept(kind)
    return [None if value is None else value if write is None else write(value) for value in values.to_pylist()]


def _equal(left, right):
    if isinstance(left, float) and isinstance(right, float):
        return (math.isnan(left) and math.isnan(right)) or math.isclose(left, right, rel_tol=1e-9, abs_tol=1e-9)
    return left == right and type(left) is type(right)


question = st.tuples(st.sampled_from(KEYS), st.integers(0, 5), st.none() | st.integers(0, 400))


@settings(max_examples=rounds(25, 60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    world=st.integers(0, 2),
    inputs=st.lists(st.sampled_from(PROGRAM), min_size=1, max_size=5, unique=True),
    asked=st.lists(question, min_size=1, max_size=6),
)
def test_online_answers_are_history_s(worlds, world, inputs, asked):
    services, store, views = worlds[world]
    now = NOW
    selection, functions = selection_of(inputs, views), functions_of(inputs)
    plan = compile_selection(store, selection, functions)
    entities = [
        {
            "key": name,
            "seats": seats,
            "since": None if since is None else datetime.fromtimestamp(since * 86_400, UTC).isoformat(),
        }
        for name, seats, since in asked
    ]
    found = plan.read_many(entities, [now] * len(entities))
    for moment in (now, now - 100 * MINUTE, now + 400 * MINUTE):
        dated = plan.read_dated(entities, moment)
        rows, statuses, events = plan.read_rows(entities, moment)
        assert repr(rows) == repr([values for values, _, _ in dated])
        for view in statuses:
            assert statuses[view] == [told[view] for _, told, _ in dated]
            assert events[view] == [told[view] for _, _, told in dated]
    spine = pa.table(
        {
            "key": [name for name, _, _ in asked],
            "at": pa.array([now] * len(asked), pa.int64()).cast(MOMENT),
            "seats": pa.array([seats for _, seats, _ in asked], pa.int64()),
            "since": pa.array([None if s is None else s * SINCE for _, _, s in asked], pa.int64()).cast(MOMENT),
        }
    )
    table = recall(services, selection, functions, Frame(spine), names="full", as_known=False).arrow()
    for place, output in enumerate(selection.outputs):
        known = _as_online(table.column(f"{output.view}__{output.name}"), output.type)
        for row, expected in enumerate(known):
            online = found[row][0][place]
            assert _equal(online, expected), (output, asked[row], online, expected)
            assert _equal(plan.read_one(entities[row], now)[0][place], expected)


# -- what was answered, calculated again -----------------------------------------------------------------------------


@settings(max_examples=rounds(10, 25), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(world=st.integers(0, 2), asked=st.lists(question, min_size=1, max_size=6))
def test_answers_that_are_calculated_again_are_the_same(worlds, world, asked):
    """Whatever their types: all of a plan's in one table."""
    _, store, views = worlds[world]
    samples = Samples(1.0)
    plan = compile_selection(store, selection_of(PROGRAM, views), functions_of(PROGRAM), samples)
    entities = [{"key": name, "seats": seats, "since": since} for name, seats, since in asked]
    plan.read_many(entities, [NOW] * len(entities))
    plan.read_one(entities[0], NOW)
    kept_rows = [one for one in samples.take(1 << 62, 1000) if isinstance(one, Calculated)]
    found = recalculate(kept_rows)
    assert {one.view for one in found} == {"ratio", "record", "doubled", "queried"}
    assert len(found) == 4 * (len(asked) + 1)
    assert [one for one in found if one.verdict != "same"] == []
    assert {(one.keys["key"], one.kind) for one in found} == {(name, "on_demand") for name, _, _ in asked}


def test_a_function_that_keeps_its_promise_online_alone_is_found(worlds, tmp_path):
    """One that remembers, one that looks at other rows; the function that is given its answer is not blamed."""
    calls = []
    own = App("own")
    seats = own.request(int)

    @own.on_demand(number=facts.number, seats=seats)
    def remembers(number: float | None, seats: int) -> float:
        calls.append(number)
        return float(len(calls))

    @own.on_demand(before=remembers, seats=seats)
    def adds(before: float | None, seats: int) -> float | None:
        return None if before is None else before + seats

    @own.on_demand(number=facts.number, seats=seats, returns=Ranked)
    def ranks(rows: pl.DataFrame) -> pl.DataFrame:
        return rows.select(place=pl.col("seats").rank())

    services, store, views = worlds[2]
    samples, inputs = Samples(1.0), [remembers, adds, ranks]
    plan = compile_selection(store, selection_of(inputs, views), functions_of(inputs), samples)
    for number in (3, 1, 2):
        plan.read_one({"key": "a", "seats": number}, NOW)
    taken = [one for one in samples.take(1 << 62, 1000) if isinstance(one, Calculated)]
    found = {(one.view, one.verdict) for one in recalculate(taken)}
    assert {view for view, verdict in found if verdict == "mismatch"} == {"remembers", "ranks"}
    assert ("adds", "same") in found
    catalog, metrics = open_catalog(SqliteSettings(), tmp_path), Metrics(tmp_path / "metrics.bin")
    plan.read_one({"key": "a", "seats": 1}, NOW)
    watched = SimpleNamespace(catalog=catalog, tables=services.tables)
    ReplayWatch("own", watched, samples, metrics, settled_us=0).once()
    (alarm,) = catalog.alerts(open_only=True)
    assert (alarm.monitor, alarm.kind) == ("on_demand/remembers", "replay")
    assert alarm.features == ("on_demand/remembers", "remembers")
    assert [event.subject for event in catalog.last_events(what="replay.mismatch")] == ["/on_demand/remembers"]
    catalog.close()


def _read_with(inputs, tmp_path, row):
    store = open_store(LmdbSettings(map_size=1 << 24), tmp_path / "online")
    views = {item._name: view_of(item, number) for number, item in enumerate((facts, windows), 1)}
    plan = compile_selection(store, selection_of(inputs, views), functions_of(inputs))
    return plan, lambda: plan.read_one(row, START)


def test_without_on_demand_features_a_plan_knows_nothing_of_them(tmp_path):
    plan, _ = _read_with([facts, windows.n], tmp_path, {})
    assert type(plan) is ReadPlan


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        ({}, "carries no 'seats'"),
        ({"seats": "4"}, "'4', not int64"),
        ({"seats": True}, "True, not int64"),
        ({"seats": 1.5}, "1.5, not int64"),
        ({"seats": 1 << 63}, "not int64"),
    ],
)
def test_a_request_that_does_not_fit_is_told(tmp_path, request_, told):
    _, read = _read_with([ratio], tmp_path, {"key": "a", **request_})
    with pytest.raises(DataError, match=told) as caught:
        read()
    assert caught.value.code == "MS-2302"


def test_what_a_function_returns_is_held_against_its_declaration(tmp_path):
    other = App("other")
    asked = other.request(int)

    @other.on_demand(n=asked)
    def none(n: int) -> float:
        return None if n else "x"  # type: ignore[return-value]

    @other.on_demand(n=asked)
    def raises(n: int) -> int:
        return 1 // n

    @other.on_demand(n=asked)
    def lossy(n: int) -> int:
        return n / 2  # type: ignore[return-value]

    for function, n, kind, code in (
        (none, 1, DataError, "MS-2162"),
        (none, 0, DataError, "MS-2162"),
        (lossy, 1, DataError, "MS-2162"),
        (raises, 0, UserCodeError, "MS-2161"),
    ):
        selection = selection_of([function], {})
        plan = compile_selection(SimpleNamespace(get_many=lambda keys: []), selection, functions_of([function]))
        with pytest.raises(kind, match=function._name) as caught:
            plan.read_one({"n": n}, START)
        assert (caught.value.code, str(caught.value.origin).startswith("test_on_demand.py")) == (code, True)
        assert "row 0" in caught.value.what


class Balance(Record):
    balance: Decimal = Field(precision=38, scale=2)


def test_decimals_of_38_digits_go_through_a_function_to_the_last():
    other = App("exact")
    digits = "123456789012345678901234567890123456"

    @other.on_demand(n=other.request(int))
    def exact(n: int) -> Balance:
        return Balance(balance=Decimal(f"{digits}.{n}"))

    plan = compile_selection(
        SimpleNamespace(get_many=lambda keys: []), selection_of([exact], {}), functions_of([exact])
    )
    assert list(plan.read_one({"n": 25}, START)[0]) == [f"{digits}.25"]
    with pytest.raises(DataError) as caught:
        plan.read_one({"n": 255}, START)
    assert caught.value.code == "MS-2162"


def test_one_name_in_a_request_has_one_type():
    other = App("other")

    @other.on_demand(n=other.request(int))
    def one(n: int) -> int:
        return n

    @other.on_demand(n=other.request(float))
    def two(n: float) -> float:
        return n

    with pytest.raises(DeclarationError) as caught:
        selection_of([one, two], {})
    assert caught.value.code == "MS-2160"


def test_features_are_computed_once_and_read_once(tmp_path):
    calls = []
    other = App("other")

    @other.on_demand(mean=windows.mean, n=windows.n)
    def base(mean, n) -> float | None:
        calls.append(mean)
        return mean

    @other.on_demand(base=base)
    def more(base: float | None) -> float | None:
        return base

    inputs = [base, more, windows.mean]
    views = {item._name: view_of(item, number) for number, item in enumerate((facts, windows), 1)}
    selection = selection_of(inputs, views)
    assert [pick.view.name for pick in selection.picks] == ["windows"]
    plan = compile_selection(
        open_store(LmdbSettings(map_size=1 << 24), tmp_path / "online"), selection, functions_of(inputs)
    )
    assert plan.read_one({"key": "a"}, START) == ([None, None, None], {"windows": "MISSING"})
    assert calls == [None]
