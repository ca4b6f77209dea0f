"""What is refused of on-demand functions and feature services, with the line of the user's file."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

import polars as pl
import pytest

from mainspring.declare.aggregate import avg, last
from mainspring.declare.app import App
from mainspring.declare.data import Entity
from mainspring.declare.declaration import spec_of
from mainspring.declare.on_demand import OnDemand
from mainspring.declare.record import Field, Record
from mainspring.errors import DeclarationError
from mainspring.plan.build import build_plan


class Ride(Record):
    zone: str
    at: datetime
    seats: int
    fare: float | None
    tip: float | None
    paid: datetime


class Two(Record):
    left: float
    right: int | None


class Money(Record):
    amount: Decimal = Field(precision=9, scale=2)


def declared():
    app = App("test")
    rides = app.source(Ride, time="at", called="rides")
    fares = app.features(rides, entity=Entity("zone"), called="fares", mean=avg("fare", "1d"), newest=last("fare"))
    return app, rides, fares


def refused(code: str, act) -> DeclarationError:
    with pytest.raises(DeclarationError) as caught:
        act()
    assert caught.value.code == code, caught.value.lines()
    assert str(caught.value.origin).startswith("test_on_demand.py:")
    return caught.value


def test_what_a_function_is_follows_from_how_it_is_written():
    app, _, fares = declared()

    @app.on_demand(mean=fares.mean, seats=app.request(int))
    def scalar(mean, seats) -> float | None:
        return mean

    @app.on_demand(mean=fares.mean)
    def record(mean: float | None) -> Two:
        return Two(left=1.0, right=None)

    @app.on_demand(mean=fares.mean, returns=Two)
    def table(rows: pl.DataFrame) -> pl.DataFrame:
        return rows

    @app.on_demand(mean=fares.mean, returns=float | None)
    def query() -> str:
        return "select mean as query from inputs"

    written = [(spec_of(one).written, spec_of(one).single) for one in (scalar, record, table, query)]
    assert written == [("scalar", True), ("scalar", False), ("polars", False), ("sql", True)]
    assert [field.name for field in spec_of(record).returns] == ["left", "right"]
    assert scalar(2.0, seats=1) == 2.0
    assert record.right.name == "right"
    service = app.feature_service("both", [scalar, record.left, fares])
    plan = build_plan(app)
    assert plan.node("/feature_service/both").spec == {
        "features": ["scalar:scalar", "record:left", "fares:mean", "fares:newest"]
    }
    assert plan.node("/on_demand/scalar").inputs == ("/feature_view/fares",)
    assert spec_of(service).inputs[0] is scalar
    assert plan.node("/on_demand/scalar").spec["inputs"] == {"mean": "fares.mean", "seats": "request int64"}


def test_a_function_that_cannot_be_called_or_typed_is_refused_at_once():
    app, _, fares = declared()
    asked = app.on_demand(mean=fares.mean)

    def wrong(other: float) -> float: ...
    def narrow(mean: float) -> float: ...
    def untyped(mean): ...
    def texts(mean: float | None) -> dict[str, int]: ...

    refused("MS-1029", lambda: asked(wrong))
    assert "float | None" in refused("MS-1072", lambda: asked(narrow)).fix
    refused("MS-1070", lambda: asked(untyped))
    refused("MS-1003", lambda: asked(texts))
    refused("MS-1070", lambda: app.on_demand())
    refused("MS-1033", lambda: app.on_demand(mean=fares))
    refused("MS-1003", lambda: app.request(set))
    refused("MS-1004", lambda: app.request(list[float]))
    assert app.request(list[float], length=3).type.length == 3

    @asked
    def two(mean: float | None) -> Two: ...

    refused("MS-1071", lambda: app.on_demand(two=two))
    assert refused("MS-1012", lambda: two.lefty).fix == "did you mean 'left'?"
    refused("MS-1070", lambda: app.feature_service("none", []))
    refused("MS-1033", lambda: app.feature_service("bad", [app]))


@pytest.mark.parametrize(
    ("field", "kind", "why"),
    [
        ("seat", int, "no column"),
        ("seats", float, "is float64 in the request and int64"),
        ("fare", float, "may be null"),
        ("tip", float | None, "is the label"),
        ("paid", datetime, "tells when the label is known"),
    ],
)
def test_a_model_learns_from_what_its_rows_carry(field, kind, why):
    app, rides, _ = declared()

    @app.on_demand(**{field: app.request(kind)})
    def asked(**fields) -> float | None: ...

    @app.on_demand(inner=asked)
    def outer(inner: float | None) -> float | None: ...

    @app.model(inputs=[outer], label=rides.tip, known_at=rides.paid, metric="rmse")
    def model(x, y): ...

    assert why in refused("MS-1120", lambda: build_plan(app)).why


def test_a_label_is_not_shown_through_a_function():
    app, rides, _ = declared()
    tips = app.features(rides, entity=Entity("zone"), called="tips", mean=avg("tip", "1d"))

    @app.on_demand(mean=tips.mean)
    def shown(mean: float | None) -> float | None: ...

    @app.model(inputs=[shown], label=rides.tip, known_at=rides.paid, metric="rmse")
    def model(x, y): ...

    refused("MS-1104", lambda: build_plan(app))


def test_names_tell_features_apart():
    app, _, fares = declared()
    same: OnDemand = app.on_demand(called="mean", mean=fares.mean)(_identity)
    app.feature_service("twice", [fares, same])
    refused("MS-1106", lambda: build_plan(app))
    app, _, fares = declared()
    app.on_demand(called="fares", mean=fares.mean)(_identity)
    refused("MS-1122", lambda: build_plan(app))
    app, rides, _ = declared()
    hidden = app.features(rides, entity=Entity("zone"), called="hidden", online=False, mean=avg("fare", "1d"))
    app.feature_service("offline", [app.on_demand(mean=hidden.mean)(_identity)])
    refused("MS-1121", lambda: build_plan(app))


def _identity(mean: float | None) -> float | None:
    return mean
