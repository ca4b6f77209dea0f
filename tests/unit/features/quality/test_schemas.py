"""pandera schemas among checks: rows that fail are told apart, what is wrong with the batch refuses it."""

import importlib
import sys

import pytest

from mainspring.declare.checking import conforms
from mainspring.errors import DataError, DeclarationError
from mainspring.features.log import source_of
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

class Blown(pa.DataFrameModel):
    origin: str = pa.Field(isin=["JFK", "LGA"])
    wind: float = pa.Field(ge=0, nullable=True)
"""
USED = "from wind_schemas import TAME, WHOLE, ONCE, Blown\nfrom mainspring import conforms\n"


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
