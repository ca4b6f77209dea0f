"""Views made by functions: increments or the whole, Polars or SQL, found out on empty tables."""

from datetime import datetime
from types import SimpleNamespace

import polars as pl
import pyarrow as pa
import pytest

from mainspring.adapters.delta.settings import DeltaSettings
from mainspring.adapters.delta.tables import open_tables
from mainspring.declare.app import App
from mainspring.declare.data import Entity
from mainspring.declare.declaration import spec_of
from mainspring.declare.frame import Frame
from mainspring.declare.record import Kind, Record
from mainspring.errors import DataError, UserCodeError
from mainspring.features.decorated.derive import Upstream, derive_view
from mainspring.features.decorated.infer import infer
from mainspring.features.logs.ingest import prepare_rows
from mainspring.features.logs.log import source_of
from mainspring.features.logs.write import append_rows, ingest_batch
from mainspring.features.offline.history import history
from mainspring.features.view import view_of

SECOND = 1_000_000
START = 1_600_000_000 * SECOND
NOW = START + 1000 * SECOND
MOMENT = pa.timestamp("us", "UTC")
app = App("test")
origin = Entity("origin")


class Flight(Record):
    origin: str
    delay: float
    at: datetime
    gone: bool | None


class Wind(Record):
    origin: str
    wind: float
    blown: datetime


flights = app.source(Flight, time="at", deleted="gone", called="flights")
winds = app.source(Wind, time="blown", called="winds")


@app.features(flights, entity=origin)
def doubled(rows: pl.LazyFrame) -> pl.LazyFrame:
    return rows.select("origin", "at", twice=pl.col("delay") * 2, what=pl.lit("é"))


@app.features(flights, entity=origin)
def queried():
    return 'select origin, "at", delay::bigint as whole from flights'


@app.features(flights, entity=origin, rows="whole")
def totals(rows: pl.LazyFrame) -> pl.LazyFrame:
    return rows.group_by("origin").agg(pl.col("at").max(), total=pl.col("delay").sum())


@app.features(flights, winds, entity=origin)
def both(one: pl.LazyFrame, two: pl.LazyFrame) -> pl.LazyFrame:
    return one.join(two, on="origin").select("origin", "at", sum=pl.col("delay") + pl.col("wind"))


@app.features(doubled, entity=origin)
def quadrupled(rows: pl.LazyFrame) -> pl.LazyFrame:
    return rows.select("origin", "at", four=pl.col("twice") * 2)


FLIGHTS, WINDS = source_of(flights), source_of(winds)


def runtime(declaration):
    names = {"flights": FLIGHTS.fields, "winds": WINDS.fields}
    if declaration is quadrupled:
        names["doubled"] = (*runtime(doubled).keys, *runtime(doubled).columns)
    return view_of(declaration, fields=infer(declaration, names))


def rows(*given, gone=None):
    return pa.table(
        {
            "origin": [row[0] for row in given],
            "delay": pa.array([row[1] for row in given], pa.float64()),
            "at": pa.array([START + row[2] * SECOND for row in given], MOMENT),
            "gone": pa.array([gone] * len(given), pa.bool_()),
        }
    )


@pytest.fixture
def services(tmp_path):
    return SimpleNamespace(tables=open_tables(DeltaSettings(), tmp_path))


def load(services, table, content="a", source=FLIGHTS):
    return ingest_batch(services.tables, source, prepare_rows(source, table), content=content, now_us=NOW)


def derive(services, declaration, *upstream):
    return derive_view(services.tables, runtime(declaration), spec_of(declaration).function, upstream).version


def ask(services, declaration, *questions, **options):
    spine = Frame(
        {
            "origin": [key for key, _ in questions],
            "at": pa.array([START + second * SECOND for _, second in questions], MOMENT),
        }
    )
    return (
        history(services, [runtime(declaration)], spine, **options).arrow().drop_columns(["origin", "at"]).to_pylist()
    )


def test_columns_are_found_on_empty_tables():
    view = runtime(doubled)
    assert [(field.name, field.type.kind) for field in view.columns] == [("twice", Kind.FLOAT), ("what", Kind.STRING)]
    assert [field.type.kind for field in runtime(queried).columns] == [Kind.INTEGER]
    assert view.decorated
    assert [str(feature.aggregate) for feature in view.features] == ["last(twice)", "last(what)"]


def test_increments_go_through_the_function_as_they_come(services):
    at = load(services, rows(("a", 1.0, 5), ("b", 2.0, 6)))
    first = derive(services, doubled, Upstream("flights", FLIGHTS, at))
    pushed = append_rows(services, FLIGHTS, rows(("a", 10.0, 7)), NOW).source
    second = derive(services, doubled, Upstream("flights", FLIGHTS, pushed))
    assert (first.rows, second.rows) == (2, 3)
    assert derive(services, doubled, Upstream("flights", FLIGHTS, at)) == first
    asked = ask(services, doubled, ("a", 6), ("a", 8), ("a", 1000), ("b", 6), ("b", 5))
    assert [row["twice"] for row in asked] == [2.0, 2.0, 20.0, 4.0, None]  # the push was known at 1000
    assert asked[0]["what"] == "é"
    assert ask(services, doubled, ("a", 8), as_known=False)[0]["twice"] == 20.0


def test_history_and_pushes_at_once_are_what_they_would_be_apart(services, tmp_path):
    def work(on, stepwise):
        at = load(on, rows(("a", 1.0, 5), ("b", 2.0, 6)))
        if stepwise:
            derive(on, doubled, Upstream("flights", FLIGHTS, at))
        for index in range(3):
            at = append_rows(on, FLIGHTS, rows(("a", 10.0 + index, 7 + index)), NOW + index * SECOND).source
            if stepwise:
                derive(on, doubled, Upstream("flights", FLIGHTS, at))
        derive(on, doubled, Upstream("flights", FLIGHTS, at))
        found = on.tables.read(runtime(doubled).log).sort_by("_seq")
        return found.drop_columns(["_batch"]).to_pylist()

    other = SimpleNamespace(tables=open_tables(DeltaSettings(), tmp_path / "other"))
    assert work(services, stepwise=True) == work(other, stepwise=False)


def test_sql_over_the_sources_names(services):
    at = load(services, rows(("a", 1.0, 5), ("a", 7.0, 6)))
    derive(services, queried, Upstream("flights", FLIGHTS, at))
    assert ask(services, queried, ("a", 5), ("a", 9)) == [{"whole": 1}, {"whole": 7}]


def test_the_whole_is_computed_anew_and_only_changes_are_logged(services):
    at = load(services, rows(("a", 1.0, 5), ("b", 2.0, 6)))
    first = derive(services, totals, Upstream("flights", FLIGHTS, at))
    assert first.rows == 2
    at = load(services, rows(("a", 1.0, 5), ("b", 2.0, 6), ("a", 3.0, 5)), "b")
    second = derive(services, totals, Upstream("flights", FLIGHTS, at))
    assert second.rows == 3
    assert derive(services, totals, Upstream("flights", FLIGHTS, at)) == second
    asked = ask(services, totals, ("a", 9), ("a", 1000), ("b", 1000))
    assert [row["total"] for row in asked] == [1.0, 4.0, 2.0]


def test_several_sources_are_joined_whole(services):
    one = load(services, rows(("a", 1.0, 5)))
    wind = pa.table({"origin": ["a"], "wind": [100.0], "blown": pa.array([START], MOMENT)})
    two = load(services, wind, source=WINDS)
    done = derive(services, both, Upstream("flights", FLIGHTS, one), Upstream("winds", WINDS, two))
    assert done.rows == 1
    assert ask(services, both, ("a", 9)) == [{"sum": 101.0}]


def test_a_view_of_a_view(services):
    at = load(services, rows(("a", 1.0, 5)))
    first = derive(services, doubled, Upstream("flights", FLIGHTS, at))
    derive(services, quadrupled, Upstream("doubled", runtime(doubled), first))
    assert ask(services, quadrupled, ("a", 9)) == [{"four": 4.0}]


def test_deleted_rows_do_not_reach_the_function(services):
    at = load(services, pa.concat_tables([rows(("a", 1.0, 5)), rows(("a", 9.0, 6), gone=True)]))
    assert derive(services, doubled, Upstream("flights", FLIGHTS, at)).rows == 1


def declared(function, **options):
    return App("other").features(flights, entity=origin, **options)(function)


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (lambda rows: 1 / 0, "ZeroDivisionError"),
        (lambda rows: 5, "not a LazyFrame or SQL"),
        (lambda: "select nothing from nowhere", "nowhere"),
        (lambda: "from read_csv('other.csv')", "disabled"),
        (lambda: "from 'other.parquet'", "disabled"),
        (lambda rows: rows.select("no_such_column"), "no_such_column"),
    ],
)
def test_a_function_that_fails_is_the_users_fault(function, why):
    with pytest.raises(UserCodeError) as caught:
        infer(declared(function), {"flights": FLIGHTS.fields})
    assert caught.value.code == "MS-2118"
    assert why in caught.value.why
    assert "test_derive.py" in caught.value.origin


@pytest.mark.parametrize(
    ("function", "what"),
    [
        (lambda rows: rows.select("at", "delay"), "no column 'origin'"),
        (lambda rows: rows.select("origin", "delay"), "no column 'at'"),
        (lambda rows: rows.select("origin", "at", x=pl.duration(days=1)), "'x' as duration"),
    ],
)
def test_a_function_that_returns_the_wrong_columns(function, what):
    with pytest.raises(DataError, match=what) as caught:
        infer(declared(function), {"flights": FLIGHTS.fields})
    assert caught.value.code == "MS-2119"


def test_a_function_that_returns_another_type_than_it_did_on_empty_tables(services):
    at = load(services, rows(("a", 1.0, 5)))
    view = runtime(doubled)
    with pytest.raises(DataError) as caught:
        derive_view(
            services.tables,
            view,
            lambda frame: frame.select("origin", "at", twice=pl.lit("text"), what=pl.lit("x")),
            [Upstream("flights", FLIGHTS, at)],
        )
    assert caught.value.code == "MS-2119"
    assert services.tables.version(view.log) is None


def test_the_line_that_failed_is_named():
    def lines(flights):
        widened = flights.with_columns(twice=2 * pl.col("distance"))
        return widened.select(pl.col("no_such_column")).collect().lazy()

    with pytest.raises(UserCodeError) as caught:
        infer(declared(lines), {"flights": FLIGHTS.fields})
    assert caught.value.origin.endswith(f":{lines.__code__.co_firstlineno + 2}")
    assert "\n" not in caught.value.why
