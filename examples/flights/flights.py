"""Will this flight arrive late? Real flights from New York, from a table to a monitored endpoint."""

from datetime import datetime

from mainspring import App, Entity, Field, Frame, Model, Record, avg, count, last

app = App("flights")
airport, plane = Entity("origin"), Entity("tailnum")


class Flight(Record):
    """A flight that departed from one of New York's airports."""

    flight_id: str
    origin: str
    carrier: str
    tailnum: str | None
    dep_delay: float | None = Field(ge=-60, le=1500, unit="minutes")
    distance: float = Field(ge=0, le=10_000, unit="miles")
    departed: datetime
    late: bool | None  # known when the flight has landed
    landed: datetime | None


class Weather(Record):
    """An hour's weather at an airport."""

    origin: str
    wind_speed: float | None = Field(ge=0, le=200, unit="mph")
    visib: float | None = Field(ge=0, le=10, unit="miles")
    observed: datetime


class Plane(Record):
    """A plane of the aviation authority's register."""

    tailnum: str
    built: int | None = Field(ge=1900, le=2013, unit="year")
    seats: int = Field(ge=1, le=900)
    since: datetime  # 1 January of the year it was built, where that is known


flights = app.source(Flight, time="departed", id="flight_id")
weather = app.source(Weather, time="observed")
planes = app.source(Plane, time="since")

conditions = app.features(weather, entity=airport, ttl="3h", wind=last("wind_speed"), visibility=last("visib"))
congestion = app.features(
    flights,
    entity=airport,
    every="10m",
    delay_1h=avg("dep_delay", "1h"),
    flights_1h=count("1h"),
    delay_1d=avg("dep_delay", "1d"),
)
fleet = app.features(planes, entity=plane, built=last("built"), seats=last("seats"))


@app.model(
    inputs=[conditions, congestion, fleet, flights.distance],
    label=flights.late,
    known_at=flights.landed,
    metric="roc_auc",
)
def late(x: Frame, y: Frame) -> Model:
    """Gradient boosting on the weather, the queue on the runway, the plane and the distance."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    return Model(HistGradientBoostingClassifier().fit(x.numpy(), y.numpy()))


app.promote(late, when=lambda new, live: new.roc_auc >= live.roc_auc - 0.002)
app.endpoint(late, latency="20ms")
app.monitor(late, false_alarms="1 per quarter", on_alarm="retrain")
