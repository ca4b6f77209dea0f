"""What only the whole graph shows to be wrong is refused by it, with the line of the declaration."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import msgspec
import pytest

from mainspring import App, Entity, Frame, Model, Record, avg, count, last, last_n
from mainspring.declare.declaration import spec_of
from mainspring.declare.record import fields_of
from mainspring.errors import DeclarationError
from mainspring.plan.build import build_plan
from mainspring.plan.graph import Node, in_order


class Flight(Record):
    origin: str
    tail: str | None
    distance: float
    departed: datetime
    late: bool | None
    landed: datetime | None


class Weather(Record):
    origin: str
    sky: str
    wind: float
    observed: datetime


class Plane(Record):
    tailnum: str
    seats: int
    built: datetime


class Out(Record):
    gusts: float


def fit(x: Frame, y: Frame) -> Model:
    """Never called."""
    raise AssertionError


class House:
    """An app that is whole, to spoil."""

    def __init__(self) -> None:
        self.app = App("house")
        self.airport = Entity("origin")
        self.flights = self.app.source(Flight, time="departed", called="flights")
        self.weather = self.app.source(Weather, time="observed", called="weather")
        self.wind = self.app.features(self.weather, entity=self.airport, called="wind", gusts=last("wind"))

    def model(self, *inputs: object, called: str = "late", **options: object) -> object:
        made = self.app.model(inputs=list(inputs), label=self.flights.late, called=called, **options)
        return made(fit)


def refused(code: str, house: House) -> DeclarationError:
    with pytest.raises(DeclarationError) as caught:
        build_plan(house.app, lambda view, fields: fields_of(Out))
    assert caught.value.code == code
    assert Path(__file__).name in caught.value.origin, caught.value.origin
    assert caught.value.fix
    return caught.value


def test_a_whole_app_is_a_graph_in_order() -> None:
    house = House()
    late = house.model(house.wind, house.flights.distance)
    house.app.endpoint(late)
    plan = build_plan(house.app)
    assert [node.url for node in plan.nodes] == [
        "/source/flights",
        "/source/weather",
        "/feature_view/wind",
        "/model/late",
        "/endpoint/late",
    ]
    assert [field.name for field in plan.node("/feature_view/wind").fields] == ["origin", "gusts"]
    assert {node.url for node in plan.downstream(["/source/weather"])} == {
        "/source/weather",
        "/feature_view/wind",
        "/model/late",
        "/endpoint/late",
    }


def same_name(house: House) -> None:
    house.app.source(Plane, time="built", called="flights")


def two_inputs_of_one_name(house: House) -> None:
    other = house.app.features(house.weather, entity=house.airport, called="storm", gusts=avg("wind", "1h"))
    house.model(house.wind, other)


def text_input(house: House) -> None:
    house.model(house.app.features(house.weather, entity=house.airport, called="clouds", sky=last("sky")))


def list_input(house: House) -> None:
    house.model(house.app.features(house.weather, entity=house.airport, called="w", winds=last_n("wind", 3, "1d")))


def text_column(house: House) -> None:
    house.model(house.flights.origin)


def foreign_entity(house: House) -> None:
    planes = house.app.source(Plane, time="built", called="planes")
    house.model(house.app.features(planes, entity=Entity("tailnum"), called="plane", seats=last("seats")))


def late_label(house: House) -> None:
    delays = house.app.features(house.flights, entity=house.airport, called="delays", lateness=count("late", "1h"))
    house.model(delays, known_at=house.flights.landed)


def own_label(house: House) -> None:
    delays = house.app.features(house.flights, entity=house.airport, called="delays", lateness=count("late", "1h"))
    house.model(delays.lateness)


def unknown_watch(house: House) -> None:
    house.app.monitor(house.model(house.wind), watch=["gusto"])


def segment_like_a_feature(house: House) -> None:
    speed = house.app.features(house.weather, entity=house.airport, called="speed", tail=last("wind"))
    house.app.monitor(house.model(speed), segments=[house.flights.tail])


def unknown_metric(house: House) -> None:
    house.app.promote(house.model(house.wind), when=lambda new, live: new.rmse < live.rmse)


def no_key(house: House) -> None:
    @house.app.features(house.flights, entity=Entity("runway"), returns=Out)
    def runways(flights: object) -> object:
        """Never called."""


def unknown_feature(house: House) -> None:
    @house.app.features(house.weather, entity=house.airport)
    def storms(weather: object) -> object:
        """Never called."""

    house.model(storms.anything)


def text_known_to_the_plan_alone(house: House) -> None:
    class Named(Record):
        sky: str

    @house.app.features(house.weather, entity=house.airport, returns=Named)
    def skies(weather: object) -> object:
        """Never called."""

    house.model(skies)


def another_apps_view(house: House) -> None:
    other = House()
    house.model(other.app.features(other.weather, entity=other.airport, called="else", gale=last("wind")))


def another_apps_source(house: House) -> None:
    house.app.features(House().weather, entity=house.airport, called="else", gale=last("wind"))


def build(house: House) -> object:
    @house.app.step()
    def count_days(days: int) -> int:
        return days

    @house.app.pipeline
    def nightly(days: int) -> object:
        return count_days(days)

    return nightly


def schedule_without_an_argument(house: House) -> None:
    house.app.schedule(build(house), "0 3 * * *")


def schedule_with_an_unknown_argument(house: House) -> None:
    house.app.schedule(build(house), "0 3 * * *", days=1, weeks=2)


def schedule_with_an_argument_for_a_model(house: House) -> None:
    house.app.schedule(house.model(house.wind), "0 3 * * *", days=1)


def nameless(house: House) -> None:
    house.app.source(Plane, time="built")


@pytest.mark.parametrize(
    ("code", "spoil", "says"),
    [
        ("MS-1101", same_name, "flights"),
        ("MS-1106", two_inputs_of_one_name, "gusts"),
        ("MS-1111", text_input, "sky"),
        ("MS-1111", list_input, "list(float64, 3)"),
        ("MS-1111", text_column, "origin"),
        ("MS-1111", text_known_to_the_plan_alone, "sky"),
        ("MS-1108", foreign_entity, "tailnum"),
        ("MS-1104", late_label, "landed"),
        ("MS-1104", own_label, "late"),
        ("MS-1109", unknown_watch, "gusto"),
        ("MS-1113", segment_like_a_feature, "tail"),
        ("MS-1112", unknown_metric, "rmse"),
        ("MS-1103", no_key, "runway"),
        ("MS-1107", unknown_feature, "anything"),
        ("MS-1027", another_apps_view, "feature view"),
        ("MS-1027", another_apps_source, "source of another app"),
        ("MS-1105", schedule_without_an_argument, "days"),
        ("MS-1105", schedule_with_an_unknown_argument, "weeks"),
        ("MS-1105", schedule_with_an_argument_for_a_model, "days"),
        ("MS-1010", nameless, "source"),
    ],
)
def test_what_does_not_fit_together_is_refused(code: str, spoil: Callable[[House], None], says: str) -> None:
    house = House()
    spoil(house)
    error = refused(code, house)
    assert says in f"{error.what} {error.why} {error.fix}"


def test_features_of_the_labels_source_that_do_not_show_the_label_are_taken() -> None:
    house = House()
    traffic = house.app.features(house.flights, entity=house.airport, called="traffic", flown=count("1h"))
    mixed = house.app.features(
        house.flights, entity=house.airport, called="mixed", miles=avg("distance", "1h"), lateness=count("late", "1h")
    )
    house.model(traffic, mixed.miles, known_at=house.flights.landed)
    assert build_plan(house.app).node("/model/late") is not None


@pytest.mark.parametrize(
    "rule",
    [lambda new, live: new.roc_auc >= live.roc_auc, lambda new, live: 1 / (new.brier - live.brier) > 0, None],
)
def test_promotion_rules_over_metrics_that_are_there(rule: object) -> None:
    house = House()
    house.app.promote(house.model(house.wind), when=rule, margin=0.01)
    assert build_plan(house.app).of_kind("promotion")


def test_a_schedule_of_a_step_gives_what_its_inputs_do_not() -> None:
    house = House()

    @house.app.step(house.weather)
    def windy(weather: Frame, least: float) -> int:
        """Never called."""

    house.app.schedule(windy, "0 3 * * *", least=3.0)
    assert build_plan(house.app).of_kind("schedule")


def test_a_schedule_that_nothing_holds_bears_its_targets_name() -> None:
    app = App("named")
    weather = app.source(Weather, time="observed")
    app.schedule(weather, "0 3 * * *")
    held = app.schedule(weather, "0 4 * * *")
    app.bind({"weather": weather, "early": held})
    assert [node.name for node in build_plan(app).of_kind("schedule")] == ["weather", "early"]


def test_a_cycle_is_told_by_its_path() -> None:
    nodes = [Node("model", name, {}, (f"/model/{above}",)) for name, above in ("ab", "bc", "ca")]
    nodes.append(Node("model", "d", {}, ("/model/a",)))
    with pytest.raises(DeclarationError) as caught:
        in_order(nodes)
    assert caught.value.code == "MS-1102"
    assert caught.value.why == "/model/a <- /model/b <- /model/c <- /model/a"


def test_what_a_fingerprint_depends_on() -> None:
    def prints(change: Callable[[House], None]) -> dict[str, str]:
        house = House()
        change(house)
        return {node.url: node.fingerprint for node in build_plan(house.app).nodes}

    def slower(house: House) -> None:
        spec = spec_of(house.weather)
        msgspec.structs.force_setattr(spec, "zone", "UTC")

    plain, again, changed = prints(lambda house: None), prints(lambda house: None), prints(slower)
    assert plain == again
    assert [url for url in plain if plain[url] != changed[url]] == ["/source/weather", "/feature_view/wind"]
