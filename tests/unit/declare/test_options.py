"""Options that are no such thing are refused where they are written, and the refusal says what to write."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from mainspring import App, Entity, Field, Record, count, last
from mainspring.declare.declaration import spec_of
from mainspring.declare.record import fields_of
from mainspring.declare.step import trace
from mainspring.errors import DeclarationError


class Flight(Record):
    origin: str
    distance: float
    seats: int
    departed: datetime
    late: bool | None
    landed: datetime | None


def made() -> tuple[App, object, object]:
    """An app with a source and a model."""
    app = App("test")
    flights = app.source(Flight, time="departed", called="flights")

    @app.model(inputs=[flights.distance], label=flights.late)
    def late(x: object, y: object) -> object:
        """Never called."""

    return app, flights, late


def refused(code: str, action: Callable[[], object]) -> DeclarationError:
    with pytest.raises(DeclarationError) as caught:
        action()
    assert caught.value.code == code
    assert Path(__file__).name in caught.value.origin, caught.value.origin
    assert caught.value.fix
    return caught.value


@pytest.mark.parametrize(
    ("code", "says", "act"),
    [
        ("MS-1033", "app.promote", lambda a, f, m: a.promote(f)),
        ("MS-1033", "when", lambda a, f, m: a.promote(m, when=0.002)),
        ("MS-1029", "takes 1", lambda a, f, m: a.promote(m, when=lambda new: True)),
        ("MS-1029", "takes 3", lambda a, f, m: a.promote(m, when=lambda new, live, more: True)),
        ("MS-1035", "margin", lambda a, f, m: a.promote(m, margin=-0.1)),
        ("MS-1035", "margin", lambda a, f, m: a.promote(m, margin="a little")),
        ("MS-1033", "app.endpoint", lambda a, f, m: a.endpoint("late")),
        ("MS-1030", "log", lambda a, f, m: a.endpoint(m, log=2)),
        ("MS-1030", "log", lambda a, f, m: a.endpoint(m, log="all")),
        ("MS-1001", "latency", lambda a, f, m: a.endpoint(m, latency="fast")),
        ("MS-1033", "app.monitor", lambda a, f, m: a.monitor(f)),
        ("MS-1091", "false_alarms", lambda a, f, m: a.monitor(m, false_alarms="few")),
        ("MS-1091", "false_alarms", lambda a, f, m: a.monitor(m, false_alarms=4)),
        ("MS-1034", "on_alarm", lambda a, f, m: a.monitor(m, on_alarm="retrian")),
        ("MS-1034", "block", lambda a, f, m: a.monitor(m, block="minute")),
        ("MS-1036", "watch", lambda a, f, m: a.monitor(m, watch="distance")),
        ("MS-1033", "segments", lambda a, f, m: a.monitor(m, segments=["origin"])),
        ("MS-1024", "origin", lambda a, f, m: a.monitor(m, segments=[another(a).origin])),
        ("MS-1041", "distance", lambda a, f, m: a.monitor(m, segments=[f.origin, f.distance])),
        ("MS-1041", "label", lambda a, f, m: a.monitor(m, segments=[f.late])),
        ("MS-1033", "app.step", lambda a, f, m: a.step(len)),
        ("MS-1035", "retries", lambda a, f, m: a.step(retries=-1)),
        ("MS-1035", "retries", lambda a, f, m: a.step(retries=True)),
        ("MS-1034", "on_error", lambda a, f, m: a.step(on_error="ignore")),
        ("MS-1036", "env", lambda a, f, m: a.step(env="HOME")),
        ("MS-1036", "secrets", lambda a, f, m: a.step(secrets="db.password")),
        ("MS-1033", "secrets", lambda a, f, m: a.step(secrets=[3])),
        ("MS-1035", "max_parallel", lambda a, f, m: a.step(max_parallel="x")),
        ("MS-1035", "max_parallel", lambda a, f, m: a.step(max_parallel=0)),
        ("MS-1035", "seed", lambda a, f, m: a.step(seed="x")),
        ("MS-1033", "cache", lambda a, f, m: a.step(cache="no")),
        ("MS-1033", "once", lambda a, f, m: a.step(once="no")),
        ("MS-1033", "resources", lambda a, f, m: a.step(resources=3)),
        ("MS-1034", "cpus", lambda a, f, m: a.step(resources={"cpus": 99})),
        ("MS-1035", "gpu", lambda a, f, m: a.step(resources={"gpu": "all"})),
        ("MS-1033", "online", lambda a, f, m: a.features(f, entity=Entity("origin"), online="yes", n=count("1h"))),
        ("MS-1033", "app.schedule", lambda a, f, m: a.schedule("nightly", "0 3 * * *")),
        ("MS-1034", "missed", lambda a, f, m: a.schedule(m, "0 3 * * *", missed="none")),
        ("MS-1015", "entity", lambda a, f, m: a.features(f, n=count("1h"))),
        ("MS-1033", "entity", lambda a, f, m: a.features(f, entity="origin", n=count("1h"))),
        ("MS-1033", "app.features", lambda a, f, m: a.features("flights", entity=Entity("origin"), n=count("1h"))),
        ("MS-1034", "rows", lambda a, f, m: a.features(f, entity=Entity("origin"), rows="every")),
        ("MS-1032", "tll", lambda a, f, m: a.features(f, entity=Entity("origin"), tll="3h", d=last("distance"))),
        ("MS-1037", "origin", lambda a, f, m: a.features(f, entity=Entity("origin"), origin=last("distance"))),
        ("MS-1037", "departed", lambda a, f, m: a.features(f, entity=Entity("origin"), departed=last("distance"))),
        ("MS-1037", "_seq", lambda a, f, m: a.features(f, entity=Entity("origin"), _seq=last("distance"))),
        ("MS-1033", "inputs", lambda a, f, m: a.model(inputs=["distance"], label=f.late)),
        ("MS-1033", "inputs", lambda a, f, m: a.model(inputs=f.distance, label=f.late)),
        ("MS-1033", "slices", lambda a, f, m: a.model(inputs=[f.distance], label=f.late, slices=["origin"])),
        ("MS-1033", "known_at", lambda a, f, m: a.model(inputs=[f.distance], label=f.late, known_at="landed")),
        ("MS-1013", "known_at", lambda a, f, m: a.model(inputs=[f.distance], label=f.late, known_at=f.seats)),
        ("MS-1019", "late", lambda a, f, m: a.model(inputs=[f.distance], label=f.late, metric="rmse")),
        ("MS-1019", "origin", lambda a, f, m: a.model(inputs=[f.distance], label=f.origin)),
        ("MS-1035", "tolerance", lambda a, f, m: a.model(inputs=[f.distance], label=f.late, tolerance=-1)),
        ("MS-1035", "seed", lambda a, f, m: a.model(inputs=[f.distance], label=f.late, seed=0.5)),
        ("MS-1030", "holdout", lambda a, f, m: a.model(inputs=[f.distance], label=f.late, holdout="a fifth")),
    ],
)
def test_an_option_that_is_none_is_refused(code: str, says: str, act: Callable[[App, object, object], object]) -> None:
    app, flights, late = made()
    error = refused(code, lambda: act(app, flights, late))
    assert says in f"{error.what} {error.why}"


def another(app: App) -> object:
    return app.source(Flight, time="departed", called="others")


def test_what_is_new_to_a_trainer_needs_a_default() -> None:
    app, flights, _ = made()
    declare = app.model(inputs=[flights.distance], label=flights.late)  # type: ignore[attr-defined]

    def three(x: object, y: object, depth: int) -> object:
        """Never called."""

    def tuned(x: object, y: object, depth: int = 3, *, rate: float = 0.1) -> object:
        """Never called."""

    assert "depth" in refused("MS-1029", lambda: declare(three)).why
    assert spec_of(declare(tuned)).function is tuned


@pytest.mark.parametrize(
    "rules",
    [
        lambda: Field(ge=2, le=1),
        lambda: Field(one_of="abc"),  # type: ignore[arg-type]
        lambda: Field(matches="(unclosed"),
    ],
)
def test_rules_that_contradict_themselves(rules: Callable[[], object]) -> None:
    refused("MS-1038", rules)


def test_rules_that_do_not_fit_their_column() -> None:
    class Ordered(Record):
        name: str = Field(ge=1)

    class Matched(Record):
        seats: int = Field(matches="a+")

    class Listed(Record):
        carrier: str = Field(one_of=["AA", 7])

    class Defaulted(Record):
        seats: int = 180

    for record, code in ((Ordered, "MS-1038"), (Matched, "MS-1038"), (Listed, "MS-1038"), (Defaulted, "MS-1039")):
        refused(code, lambda record=record: fields_of(record))

    class Right(Record):
        seats: float = Field(ge=0, le=900, one_of=[1, 2.5])
        carrier: str = Field(one_of={"AA"}, matches="[A-Z]{2}")

    assert [field.rules.one_of for field in fields_of(Right)] == [(1, 2.5), ("AA",)]


def test_a_pipeline_that_raises_names_its_own_line() -> None:
    app = App("test")

    @app.pipeline
    def nightly(n: int) -> float:
        m = n
        return 1 / m

    error = refused("MS-1040", lambda: trace(nightly, {"n": 0}))
    assert "ZeroDivisionError" in error.why
    line = spec_of(nightly).function.__code__.co_firstlineno
    assert error.origin.endswith(f":{line + 3}")


def test_no_model_is_called_like_the_statistics_of_all_models() -> None:
    app, flights, late = made()
    table: Any = flights

    def train() -> None:
        @app.model(inputs=[table.distance], label=table.late)
        def stats(x: object, y: object) -> object:
            """Never called."""

    def compose() -> None:
        @app.compose(late, called="STATS")  # type: ignore[arg-type]
        def both(x: object, one: object) -> object:
            """Never called."""

    assert "statistics" in refused("MS-4251", train).why
    refused("MS-4251", compose)
