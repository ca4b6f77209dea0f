"""Declaring: what is accepted, what is refused, and that every refusal names the user's line."""

from __future__ import annotations

import sys
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from mainspring import (
    App,
    Entity,
    Field,
    Frame,
    Model,
    Record,
    avg,
    count,
    distinct,
    first,
    highest,
    last,
    last_n,
    quantile,
    total,
)
from mainspring.declare.aggregate import Function
from mainspring.declare.declaration import name_of, spec_of
from mainspring.declare.duration import microseconds, spell
from mainspring.declare.record import Kind, fields_of
from mainspring.declare.step import Ref, trace
from mainspring.errors import DeclarationError


class Flight(Record):
    flight_id: str
    origin: str
    dep_delay: float | None
    distance: float = Field(ge=0, unit="miles")
    departed: datetime
    late: bool | None
    landed: datetime | None
    price: Decimal | None = Field(precision=10, scale=2)
    day: date | None
    embedding: list[float] = Field(length=3)
    name: str | None


def make() -> tuple[App, object, Entity]:
    app = App("test")
    return app, app.source(Flight, time="departed", called="flights"), Entity("origin")


def refused(code: str, action: object) -> DeclarationError:
    with pytest.raises(DeclarationError) as caught:
        action()  # type: ignore[operator]
    assert caught.value.code == code
    assert Path(__file__).name in caught.value.origin, caught.value.origin
    return caught.value


def test_a_record_is_a_schema() -> None:
    fields = {field.name: field for field in fields_of(Flight)}
    assert list(fields)[:3] == ["flight_id", "origin", "dep_delay"]
    assert fields["dep_delay"].type.kind is Kind.FLOAT
    assert fields["dep_delay"].type.nullable
    assert not fields["origin"].type.nullable
    assert fields["distance"].rules.ge == 0
    assert (fields["price"].type.precision, fields["price"].type.scale) == (10, 2)
    assert str(fields["embedding"].type) == "vector(3)"
    assert str(fields["day"].type) == "date | null"


def test_record_inheritance_keeps_base_columns_first() -> None:
    class Base(Record):
        a: int

    class Derived(Base):
        b: str

    assert [field.name for field in fields_of(Derived)] == ["a", "b"]


def test_columns_that_no_table_can_hold_are_refused() -> None:
    class Odd(Record):
        x: dict[str, int]

    error = refused("MS-1003", lambda: fields_of(Odd))
    assert "Odd.x" in error.what


def test_vectors_need_a_length() -> None:
    class Vectors(Record):
        v: list[float]

    refused("MS-1004", lambda: fields_of(Vectors))


@pytest.mark.parametrize("thing", [int, Record, 3])
def test_only_records_describe_sources(thing: object) -> None:
    refused("MS-1005", lambda: App("a").source(thing, time="t"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "us"), [("90s", 90_000_000), ("10m", 600_000_000), ("1.5h", 5_400_000_000), ("2w", 1_209_600_000_000)]
)
def test_durations(text: str, us: int) -> None:
    assert microseconds(text) == us
    assert microseconds(timedelta(microseconds=us)) == us
    assert microseconds(spell(us)) == us


@pytest.mark.parametrize("text", ["", "3", "h", "-1h", "1 year", "1h30m"])
def test_durations_that_are_none(text: str) -> None:
    refused("MS-1001", lambda: microseconds(text))


def test_a_zero_ttl_is_refused() -> None:
    app, flights, airport = make()
    refused("MS-1002", lambda: app.features(flights, entity=airport, ttl="0s", d=last("distance")))


def test_source_attributes_are_columns_even_when_they_are_called_like_methods() -> None:
    _, flights, _ = make()
    assert flights.distance.name == "distance"
    assert flights.name.name == "name"
    assert flights["late"].field.type.kind is Kind.BOOLEAN


def test_unknown_columns_suggest_the_nearest() -> None:
    _, flights, _ = make()
    error = refused("MS-1011", lambda: flights.distnce)
    assert "distance" in error.fix


def test_source_roles_must_be_columns_of_the_right_type() -> None:
    app = App("a")
    refused("MS-1007", lambda: app.source(Flight, time="left"))
    refused("MS-1013", lambda: app.source(Flight, time="origin"))
    refused("MS-1013", lambda: app.source(Flight, time="departed", deleted="origin"))
    refused("MS-1014", lambda: app.source(Flight, time="departed", zone="Mars/Olympus"))


def test_aggregates_are_checked_against_the_record() -> None:
    app, flights, airport = make()
    refused("MS-1007", lambda: app.features(flights, entity=airport, x=avg("dep_dely", "1h")))
    refused("MS-1008", lambda: app.features(flights, entity=airport, x=avg("origin", "1h")))
    refused("MS-1016", lambda: app.features(flights, entity=Entity("airport"), x=count("1h")))
    refused("MS-1028", lambda: app.features(flights, entity=airport, x="dep_delay"))
    refused("MS-1015", lambda: app.features(flights, flights, entity=airport, x=count("1h")))
    refused("MS-1008", lambda: app.features(flights, entity=airport, x=quantile("origin", 0.5, "1h")))
    refused("MS-1008", lambda: app.features(flights, entity=airport, x=last_n("embedding", 2, "1h")))
    for share in (-0.1, 1.5, float("nan"), "0.5", True):
        assert "share" in str(refused("MS-1035", lambda share=share: quantile("distance", share, "1h")))
    for n in (0, -1, 1025, 2.0, True, "3"):
        assert "n=" in str(refused("MS-1035", lambda n=n: last_n("distance", n, "1h")))


def test_aggregates_say_what_they_return() -> None:
    types = {field.name: field.type for field in fields_of(Flight)}
    assert avg("distance", "1h").result_type(types["distance"]).kind is Kind.FLOAT
    assert total("distance", "1h").result_type(types["distance"]).nullable
    assert count("1h").result_type(None).kind is Kind.INTEGER
    assert not count("1h").result_type(None).nullable
    assert highest("origin", "1h").result_type(types["origin"]).kind is Kind.STRING
    assert str(avg("distance", "90m")) == "avg(distance, 90m)"
    assert count("distance", "1h").function is Function.COUNT
    assert distinct("origin", "1h").result_type(types["origin"]).kind is Kind.INTEGER
    assert quantile("distance", 1, "1h").result_type(types["distance"]).kind is Kind.FLOAT
    assert first("embedding", "1h").result_type(types["embedding"]).length == 3
    prices = last_n("price", 5, "1h")
    kind = prices.result_type(types["price"])
    assert (kind.kind, kind.length, str(kind)) == (Kind.LIST, 5, "list(decimal(10, 2), 5) | null")
    assert (kind.element.kind, kind.element.precision, kind.element.nullable) == (Kind.DECIMAL, 10, True)
    assert (str(prices), str(quantile("x", 0.25, "1d"))) == ("last_n(price, 5, 1h)", "quantile(x, 0.25, 1d)")
    assert (str(last("x")), str(last("x", "1h"))) == ("last(x)", "last(x, 1h)")


def test_a_label_must_fit_its_metric_and_be_of_the_same_rows() -> None:
    app, flights, airport = make()
    view = app.features(flights, entity=airport, d=avg("dep_delay", "1h"), called="d")
    other = app.source(Flight, time="departed", called="other")
    refused("MS-1017", lambda: app.model(inputs=[view], label=flights.late, metric="auc"))
    refused("MS-1019", lambda: app.model(inputs=[view], label=flights.distance, metric="roc_auc"))
    refused("MS-1018", lambda: app.model(inputs=[], label=flights.late))
    refused("MS-1024", lambda: app.model(inputs=[view, other.distance], label=flights.late))
    refused("MS-1025", lambda: app.model(inputs=[view, flights.late], label=flights.late))
    refused("MS-1025", lambda: app.model(inputs=[flights.landed], label=flights.late, known_at=flights.landed))
    refused("MS-1030", lambda: app.model(inputs=[view], label=flights.late, holdout=1.0))


def test_a_trainer_must_take_inputs_and_label() -> None:
    app, flights, _ = make()
    refused("MS-1029", lambda: app.model(inputs=[flights.distance], label=flights.late)(lambda x: x))


def test_declarations_take_their_names_from_the_module() -> None:
    app = App("a")
    flights = app.source(Flight, time="departed")
    with pytest.raises(DeclarationError) as caught:
        name_of(flights)
    assert caught.value.code == "MS-1010"
    app.bind({"flights": flights, "_hidden": flights})
    assert name_of(flights) == "flights"
    app.bind({"renamed": flights})
    assert name_of(flights) == "flights"


def test_cron_is_checked_when_declared() -> None:
    app, flights, _ = make()
    refused("MS-1026", lambda: app.schedule(flights, "every day"))
    assert name_of(app.schedule(flights, "0 3 * * *", zone="Europe/Paris")) == "flights"


def test_a_step_outside_a_pipeline_is_its_function() -> None:
    app = App("a")

    @app.step()
    def double(x: int) -> int:
        """Twice."""
        return 2 * x

    assert double(4) == 8
    assert double.map([1, 2]) == [2, 4]
    assert double.__doc__ == "Twice."


def test_a_pipeline_wires_its_steps() -> None:
    app = App("a")

    @app.step()
    def numbers(n: int) -> list[int]:
        return list(range(n))

    @app.step()
    def scale(x: int, by: int = 2) -> int:
        return x * by

    @app.step()
    def add(xs: list[int]) -> int:
        return sum(xs)

    @app.pipeline
    def nightly(n: int) -> int:
        return add(scale.map(numbers(n), by=3))

    assert nightly(4) == 18
    wired = trace(nightly, {"n": 4})
    assert [name_of(call.step) for call in wired.calls] == ["numbers", "scale", "add"]
    assert wired.calls[1].over == "x"
    assert isinstance(wired.calls[1].arguments["x"], Ref)
    assert wired.calls[1].arguments["by"] == 3
    assert isinstance(wired.result, Ref)


def test_a_pipeline_cannot_look_at_results_while_it_is_wired() -> None:
    app = App("a")

    @app.step()
    def one() -> int:
        return 1

    @app.pipeline
    def peeks() -> int:
        return 2 if one() else 3

    @app.pipeline
    def walks() -> list[int]:
        return list(one())  # type: ignore[call-overload, no-any-return]

    @app.pipeline
    def wrong() -> int:
        return one(1)  # type: ignore[call-arg]

    refused("MS-1020", lambda: trace(peeks, {}))
    refused("MS-1021", lambda: trace(walks, {}))
    refused("MS-1022", lambda: trace(wrong, {}))
    refused("MS-1023", lambda: trace(peeks, {"n": 1}))


def test_the_example_of_the_design_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(__file__).parents[3] / "examples" / "flights"
    monkeypatch.syspath_prepend(str(folder))
    sys.modules.pop("flights", None)
    import flights

    flights.app.bind(vars(flights))
    assert [name_of(item) for item in flights.app.declared()] == [
        "flights",
        "weather",
        "planes",
        "conditions",
        "congestion",
        "fleet",
        "late",
        "late",
        "late",
        "late",
    ]
    assert spec_of(flights.congestion).every_us == 600_000_000


def test_frames_convert_without_guessing() -> None:
    frame = Frame({"a": [1, None, 3], "b": [True, False, None], "t": ["x", "y", "z"]})
    assert frame["a"].numpy().tolist()[0] == 1.0
    assert frame["a"].numpy().shape == (3,)
    assert frame[["a"]].numpy().shape == (3, 1)
    assert Frame({"a": [1, 2]}).numpy().shape == (2, 1)
    assert frame[["a", "b"]].numpy().shape == (3, 2)
    assert frame[["a", "b"]].numpy()[1, 0] != frame[["a", "b"]].numpy()[1, 0]
    with pytest.raises(TypeError, match="'t'"):
        frame.numpy()
    assert len(frame.sql("select * from frame where a > 1")) == 1
    assert frame.polars().height == 3
    assert Frame(frame.polars()).arrow().to_pylist() == frame.arrow().to_pylist()


def test_a_model_is_what_a_trainer_returns() -> None:
    model = Model(object(), metrics={"seconds": 1.0})
    assert dict(model.metrics) == {"seconds": 1.0}
