"""pandera schemas among checks: rows that fail are told apart, what is wrong with the batch refuses it."""

import importlib
import itertools
import sys
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pytest

from mainspring.declare.app import App
from mainspring.declare.checking import conforms
from mainspring.declare.record import Record
from mainspring.errors import DataError, DeclarationError
from mainspring.features.logs.log import source_of
from mainspring.features.quality import rowwise
from mainspring.features.quality.schemas import conformity, goes_by_rows
from mainspring.features.sources.files import RawFile
from mainspring.features.sources.staged import Staging
from mainspring.features.steps import sources_of
from unit.features.quality.test_gates import AGGREGATES, BAD, GOOD, Weather

pandera = pytest.importorskip("pandera.polars", reason="pip install mainspring[pandera]")

SCHEMAS = """
import polars as pl
import pandera.polars as pa

def tame(data):
    return data.lazyframe.select(pl.col("wind") < {limit})

TAME = pa.DataFrameSchema({{"wind": pa.Column(pl.Float64, pa.Check(tame), nullable=True)}}, name="TAME")
WHOLE = pa.DataFrameSchema({{"wind": pa.Column(pl.Int64, nullable=True), "gust": pa.Column(pl.Float64)}}, name="WHOLE")
ONCE = pa.DataFrameSchema({{"origin": pa.Column(str, unique=True)}}, name="ONCE")

WHOLE_DROPS = pa.DataFrameSchema({{"wind": pa.Column(pl.Float64, pa.Check.ge(0))}}, drop_invalid_rows=True)
COLUMN_DROPS = pa.DataFrameSchema({{"wind": pa.Column(pl.Float64, pa.Check.ge(0), drop_invalid_rows=True)}})

class ModelDrops(pa.DataFrameModel):
    wind: float = pa.Field(ge=0)

    class Config:
        drop_invalid_rows = True

class Blown(pa.DataFrameModel):
    origin: str = pa.Field(isin=["JFK", "LGA"])
    wind: float = pa.Field(ge=0, nullable=True)
"""


class Reading(Record):
    wind: float | None
    at: datetime


USED = "from wind_schemas import TAME, WHOLE, ONCE, Blown\nfrom mainspring import conforms\n"
USED += "from wind_schemas import WHOLE_DROPS, COLUMN_DROPS, ModelDrops\n"


@pytest.fixture
def weather(tmp_path, monkeypatch):
    made = Weather(tmp_path, monkeypatch)
    made.schemas(15)
    yield made
    for name in ("checked_app", "wind_schemas"):
        sys.modules.pop(name, None)


def _schemas(self, limit):
    (self.folder / "wind_schemas.py").write_text(SCHEMAS.format(limit=limit))
    sys.modules.pop("wind_schemas", None)
    importlib.invalidate_caches()


Weather.schemas = _schemas


def declared(weather, checks, views=""):
    head = weather.declare.__globals__["HEAD"]
    weather.declare.__globals__["HEAD"] = head + USED
    try:
        return weather.declare(checks, views)
    finally:
        weather.declare.__globals__["HEAD"] = head


def test_a_schema_refuses_and_tells_the_rows(weather):
    weather.files(GOOD + BAD + "EWR,1,2013-01-01 04:00:00\n")
    declared(weather, "Blown")
    with pytest.raises(DataError) as caught:
        weather.apply()
    assert caught.value.code == "MS-2180"
    assert "conforms(Blown)" in caught.value.what
    assert "2 of 4 rows; (origin JFK, wind -1.0" in caught.value.why


def test_rows_that_fail_a_schema_are_set_aside(weather):
    weather.files(GOOD + BAD + "EWR,1,2013-01-01 04:00:00\n")
    declared(weather, 'conforms(Blown, on_fail="quarantine"), not_null("wind")')
    weather.apply()
    assert [name for name, _ in weather.held("source", "weather")] == ["JFK", "LGA"]
    assert weather.aside("source", "weather") == {
        "Blown: wind: greater_than_or_equal_to(0)": 1,
        "Blown: origin: isin(['JFK', 'LGA'])": 1,
    }
    assert weather.results("/source/weather") == {"conforms(Blown)": ("set_aside", 2), "not_null(wind)": ("ok", 0)}
    with pytest.raises(DataError):
        declared(weather, "Blown").push(("XXX", 1.0, 1))


def test_what_is_wrong_with_the_batch_goes_with_no_row(weather):
    declared(weather, 'conforms(WHOLE, on_fail="quarantine")')
    with pytest.raises(DataError) as caught:
        weather.apply()
    assert "gust" in caught.value.why
    assert "dtype('Int64')" in caught.value.why.replace("wind: ", "")
    declared(weather, 'conforms(WHOLE, on_fail="warn")')
    assert weather.apply()["source/weather"].rows == 2


def test_a_schema_sees_the_batch_as_a_whole(weather, monkeypatch):
    monkeypatch.setattr("mainspring.features.quality.rowwise._SLICE", 2)
    weather.files(GOOD + "LGA,3,2013-01-01 03:00:00\nJFK,4,2013-01-01 03:00:00\n")
    declared(weather, 'conforms(ONCE, on_fail="warn")')
    assert weather.apply()["source/weather"].rows == 4
    assert weather.results("/source/weather") == {"conforms(ONCE)": ("warned", 4)}


def test_another_limit_in_the_code_of_a_schema_is_another_check(weather):
    declared(weather, 'conforms(TAME, on_fail="quarantine")')
    weather.apply()
    assert weather.held("source", "weather") == [("JFK", 10.0)]
    (before,) = sources_of(weather.plan)["weather"].checks
    assert (before.reference, before.schema) == ("wind_schemas:TAME", None)
    weather.schemas(25)
    declared(weather, 'conforms(TAME, on_fail="quarantine")')
    (after,) = sources_of(weather.plan)["weather"].checks
    assert after.digest != before.digest
    weather.apply()
    assert weather.held("source", "weather") == [("JFK", 10.0), ("LGA", 20.0)]


@pytest.mark.parametrize("schema", ["WHOLE_DROPS", "COLUMN_DROPS", "ModelDrops"])
def test_rows_that_a_schema_would_drop_fail_it(weather, schema):
    weather.files(GOOD + "EWR,-1,2013-01-01 04:00:00\n")
    declared(weather, f'conforms({schema}, on_fail="quarantine")')
    weather.apply()
    assert [name for name, _ in weather.held("source", "weather")] == ["JFK", "LGA"]
    assert sum(weather.aside("source", "weather").values()) == 1
    held = getattr(sys.modules["wind_schemas"], schema)
    parts = (held, *held.columns.values()) if schema != "ModelDrops" else (held.to_schema(),)
    assert any(part.drop_invalid_rows for part in parts), "the user's own schema stays as it was"
    declared(weather, schema)
    with pytest.raises(DataError):
        weather.apply()


def test_a_schema_of_pandas_that_drops_rows_tells_of_them():
    pandas_schemas = importlib.import_module("pandera.pandas")
    column = pandas_schemas.Column(float, pandas_schemas.Check.ge(0))
    schema = pandas_schemas.DataFrameSchema({"wind": column}, drop_invalid_rows=True)
    found = conformity(conforms(schema), pa.table({"wind": [1.0, -1.0, 2.0]}))
    assert [reason is None for reason in found.reasons.to_pylist()] == [True, False, True]
    assert found.of_batch == ()


def test_a_view_takes_a_schema_too(weather):
    weather.files(GOOD + BAD)
    declared(weather, "", AGGREGATES.format('conforms(Blown, on_fail="quarantine")'))
    assert weather.apply()["feature_view/conditions"].rows == 2


def test_a_schema_that_nobody_holds_or_that_is_none(weather):
    declared(weather, "")
    module = sys.modules["checked_app"]
    loose = module.app.source(module.Weather, time="observed", called="loose", checks=[module.TAME])
    assert source_of(loose).checks[0].name == "TAME"
    made = conforms(pandera.DataFrameSchema({}))
    other = module.app.source(module.Weather, time="observed", called="other", checks=[made])
    with pytest.raises(DeclarationError) as caught:
        source_of(other)
    assert caught.value.code == "MS-1063"
    with pytest.raises(DeclarationError) as caught:
        conforms({"wind": float})
    assert caught.value.code == "MS-1033"


BY_ROWS = """
import polars as pl
import pandera.pandas as pandas_schemas
import pandera.polars as pa

def isin(data):
    return data.lazyframe.select(pl.col("wind") < pl.col("wind").max())

def column(*checks, **options):
    return pa.DataFrameSchema({"wind": pa.Column(pl.Float64, list(checks), nullable=True, **options)})

BUILT_IN = column(pa.Check.ge(0), pa.Check.isin([1.0, 2.0]))
EACH = column(pa.Check(lambda value: value < 5, element_wise=True))
TYPED = pa.DataFrameSchema({"wind": pa.Column(pl.Int64)})
ANY = column(pa.Check(isin))
ONCE = column(unique=True)
TOGETHER = pa.DataFrameSchema({"wind": pa.Column(pl.Float64)}, unique=["wind"])
FEW = column(pa.Check.ge(0, n_failure_cases=1))
PARSED = column(parsers=[pandas_schemas.Parser(lambda data: data.lazyframe)])
PANDAS = pandas_schemas.DataFrameSchema({"wind": pandas_schemas.Column(float, nullable=True)})
"""


@pytest.fixture
def schemas(tmp_path, monkeypatch):
    (tmp_path / "schemas_by_rows.py").write_text(BY_ROWS)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("schemas_by_rows")
    sys.modules.pop("schemas_by_rows", None)


@pytest.mark.parametrize(
    ("name", "by_rows"),
    [
        ("BUILT_IN", True),
        ("EACH", True),
        ("TYPED", True),
        ("ANY", False),  # a function may look at all rows, also when it is called as one of pandera's
        ("ONCE", False),
        ("TOGETHER", False),
        ("FEW", False),
        ("PARSED", False),
        ("PANDAS", False),
    ],
)
def test_which_schemas_go_by_rows(schemas, name, by_rows):
    assert goes_by_rows(conforms(getattr(schemas, name))) is by_rows


@pytest.mark.parametrize("name", ["BUILT_IN", "EACH", "TYPED"])
@pytest.mark.parametrize("on_fail", ["warn", "quarantine"])
def test_a_batch_in_parts_is_judged_as_in_one(schemas, tmp_path, monkeypatch, name, on_fail):
    """Rows, reasons and results, what is wrong with the batch among them; no part is larger than a slice."""
    monkeypatch.setattr(rowwise, "_SLICE", 3)
    shown = []
    monkeypatch.setattr(rowwise, "conformity", lambda check, rows: shown.append(len(rows)) or conformity(check, rows))
    check = conforms(getattr(schemas, name), on_fail=on_fail)
    source = source_of(App("t").source(Reading, time="at", called=f"readings_{on_fail}_{name}", checks=[check]))
    winds = [1.0, 2.0, None, 7.0, -1.0, 2.0, 9.0, 3.0]
    rows = pa.table({"wind": winds, "at": pa.array([0] * 8, pa.timestamp("us", "UTC"))})
    given = lambda *cuts: [  # noqa: E731
        RawFile(Path("f"), rows.slice(a, b - a), False, ("wind", "at"), start=a) for a, b in itertools.pairwise(cuts)
    ]
    found = {}
    for cuts in ((0, 8), (0, 4, 5, 8)):
        with Staging(tmp_path / "staged") as staging:
            made = staging.prepare(source, given(*cuts))
        found[cuts] = (made.rows, made.set_aside, made.report, made.results)
    whole, parts = found.values()
    assert parts == whole
    assert whole[3][0].state != "ok"
    assert max(shown) == 3
