"""Sources behind features: counted once an event, and judged against what they themselves brought before."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainspring import App, Entity, Frame, Model, Record, avg, count
from mainspring.adapters.delta.settings import DeltaSettings
from mainspring.adapters.delta.tables import open_tables
from mainspring.declare.declaration import spec_of
from mainspring.declare.options import yearly_budget
from mainspring.features.logs.log import source_of
from mainspring.monitoring.feeds import FeedJudge, arrivals, feed_of, sources_behind
from mainspring.monitoring.stats.baseline import Baseline, Feed
from mainspring.monitoring.stats.threshold import alpha
from mainspring.ports.tables import Txn
from thoroughly import rounds

if TYPE_CHECKING:
    from mainspring.metrics.arrays import Ints

DAY, HOUR = 86_400_000_000, 3_600_000_000
MONDAY = 19_723 * DAY
ALPHA = 1e-3


class Flight(Record):
    flight_id: str
    origin: str
    departed: datetime
    late: bool | None


class Weather(Record):
    origin: str
    wind: float | None
    observed: datetime


def test_the_sources_behind_a_model_are_those_of_its_views_and_not_of_its_label() -> None:
    app, airport = App("a"), Entity("origin")
    flights = app.source(Flight, time="departed", id="flight_id", called="flights")
    weather = app.source(Weather, time="observed", every="1h", called="weather")
    sky = app.features(weather, entity=airport, called="sky", wind=avg("wind", "1h"))

    @app.features(sky, entity=airport)
    def storms(sky: Frame) -> Frame:
        """Never called."""
        raise AssertionError

    def fit(x: Frame, y: Frame) -> Model:
        """Never called."""
        raise AssertionError

    by_weather = app.model(inputs=[sky.wind, storms], label=flights.late, called="one")(fit)
    found = sources_behind(spec_of(by_weather))
    assert [(behind.source, behind.every_us) for behind in found] == [(source_of(weather), HOUR)]
    queue = app.features(flights, entity=airport, called="queue", n=count("1h"))
    by_both = app.model(inputs=[sky, queue], label=flights.late, called="two")(fit)
    assert [behind.source.name for behind in sources_behind(spec_of(by_both))] == ["flights", "weather"]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 40), st.sampled_from([False, False, True])), max_size=25))
def test_an_event_counts_once_whatever_its_corrections(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[tuple[int, int, bool]]
) -> None:
    app = App("a")
    source = source_of(app.source(Flight, time="departed", id="flight_id", called="flights"))
    tables = open_tables(DeltaSettings(), tmp_path_factory.mktemp("tables"))
    assert len(arrivals(tables, source, 0, 100)) == 0
    rows = [(f"f{number}", MONDAY + hour * HOUR, dead) for number, hour, dead in drawn]
    for part, start in enumerate(range(0, len(rows), 10)):
        ids, times, dead = zip(*rows[start : start + 10], strict=True)
        table = pa.table(
            {
                "flight_id": list(ids),
                "_event_time": pa.array(times, pa.timestamp("us", "UTC")),
                "_deleted": list(dead),
                "_seq": list(range(start, start + len(ids))),
            }
        )
        tables.append(source.log, table, Txn("t", part + 1))
    first, stop = MONDAY + 5 * HOUR, MONDAY + 30 * HOUR
    kept: dict[str, int] = {}
    for identity, at, dead_one in rows:
        if not dead_one and first <= at < stop:
            kept[identity] = min(at, kept.get(identity, at))
    if rows:
        assert arrivals(tables, source, first, stop).tolist() == sorted(kept.values())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 30 * 24), max_size=60))
def test_the_reference_counts_blocks_and_knows_the_longest_silences(hours: list[int]) -> None:
    times = np.array(sorted(MONDAY + hour * HOUR for hour in hours), dtype=np.int64)
    feed = feed_of(times, "weather", None, DAY)
    by_hand: dict[int, int] = {}
    silent: dict[int, int] = {}
    for place, at in enumerate(times.tolist()):
        block = at // DAY * DAY
        by_hand[block] = by_hand.get(block, 0) + 1
        if place:
            silent[block] = max(silent.get(block, 0), at - int(times[place - 1]))
    assert dict(zip(feed.starts, feed.rows, strict=True)) == by_hand
    longest = [gap for gap in silent.values() if gap]
    assert feed.silence_us == (int(np.quantile(longest, 0.99)) if longest else 0)
    assert feed_of(times, "weather", 40 * DAY, DAY).silence_us == max(80 * DAY, feed.silence_us)


class Source:
    """A source whose rows come every half an hour between 6 and 22."""

    def __init__(self) -> None:
        hours = [6 + half / 2 for half in range(32)]
        self.times = np.array([MONDAY + day * DAY + int(h * HOUR) for day in range(90) for h in hours], dtype=np.int64)

    def came(self, name: str, start: int, stop: int) -> Ints:
        assert name == "weather"
        return self.times[(self.times >= start) & (self.times < stop)]

    def without(self, start: int, stop: int) -> None:
        self.times = self.times[(self.times < start) | (self.times >= stop)]


def judged(source: Source, day: int) -> dict[str, str]:
    past = source.times[source.times < MONDAY + 60 * DAY]
    baseline = Baseline(block_us=DAY, starts=(), rows=(), features=(), feeds=(feed_of(past, "weather", None, DAY),))
    findings = FeedJudge(baseline, ALPHA, source.came).judge(MONDAY + day * DAY)
    assert {finding.feature for finding in findings} == {"source/weather"}
    return {f"{finding.kind} {finding.window}": finding.state for finding in findings}


def test_a_source_that_goes_silent_or_thin_fails_and_a_usual_week_does_not() -> None:
    source = Source()
    assert set(judged(source, 70).values()) == {"ok"}
    source.without(MONDAY + 70 * DAY + 12 * HOUR, MONDAY + 71 * DAY)
    found = judged(source, 70)
    assert found["freshness 1"] == "alarm"
    assert found["volume 1"] == "alarm"
    source = Source()
    source.without(MONDAY + 70 * DAY + 7 * HOUR, MONDAY + 70 * DAY + 17 * HOUR)
    found = judged(source, 70)
    assert (found["freshness 1"], found["volume 1"]) == ("ok", "alarm")
    source = Source()
    source.without(MONDAY + 62 * DAY, MONDAY + 90 * DAY)
    assert judged(source, 80)["freshness 1"] == "alarm"


def test_a_register_that_seldom_changes_does_not_fail() -> None:
    """Its rows came on the reference's first day, and none since; nor are ten new ones a failure."""
    register = np.full(160, MONDAY, dtype=np.int64)
    new = np.array([MONDAY + 200 * DAY] * 10, dtype=np.int64)

    def came(name: str, start: int, stop: int) -> Ints:
        return new[(new >= start) & (new < stop)]

    for every in (None, DAY):
        feed = feed_of(register, "planes", every, DAY, MONDAY + 181 * DAY)
        assert feed.silence_us == 0
        judge = FeedJudge(Baseline(block_us=DAY, starts=(), rows=(), features=(), feeds=(feed,)), ALPHA, came)
        days = range(181, 260)
        assert {finding.state for day in days for finding in judge.judge(MONDAY + day * DAY)} <= {"ok", "recorded"}


def test_the_end_of_the_reference_is_a_silence_only_when_it_is_long() -> None:
    times = np.arange(MONDAY, MONDAY + 60 * DAY, 6 * HOUR, dtype=np.int64)
    usual = feed_of(times, "weather", None, DAY)
    assert feed_of(times, "weather", None, DAY, MONDAY + 60 * DAY) == usual
    cut = feed_of(times, "weather", None, DAY, MONDAY + 64 * DAY)
    assert (cut.starts[-1], cut.rows[-1], cut.silence_us) == (MONDAY + 63 * DAY, 0, 0)
    assert feed_of(times, "weather", 5 * DAY, DAY, MONDAY + 64 * DAY).silence_us == 10 * DAY
    assert feed_of(times[:0], "weather", None, DAY, MONDAY + 64 * DAY).starts == ()


@pytest.mark.parametrize("a_day", [12, 200])
def test_false_alarms_of_a_source_that_comes_at_random_stay_within_twice_the_budget(a_day: int) -> None:
    """Blocks in which a source fails without a change, over simulated years, against 4 a year."""
    random, years = np.random.default_rng(a_day), rounds(4, 8)
    failing = 0
    for _ in range(years):
        gaps = random.exponential(DAY / a_day, int(430 * a_day * 1.1))
        times = (MONDAY + np.cumsum(gaps)).astype(np.int64)
        past = times[times < MONDAY + 60 * DAY]
        baseline = Baseline(block_us=DAY, starts=(), rows=(), features=(), feeds=(feed_of(past, "s", None, DAY),))

        def came(name: str, start: int, stop: int, times: Ints = times) -> Ints:
            return times[np.searchsorted(times, start) : np.searchsorted(times, stop)]

        judge = FeedJudge(baseline, alpha(yearly_budget("1 per quarter"), 1, DAY), came)
        spoilt: set[int] = set()
        for day in range(60, 425):
            start = MONDAY + day * DAY
            if any(finding.state == "alarm" for finding in judge.judge(start, spoilt)):
                spoilt.add(start)
        failing += len(spoilt)
    assert failing <= 2 * 4 * years


def test_a_baseline_keeps_its_feeds() -> None:
    baseline = Baseline(block_us=DAY, starts=(1,), rows=(2,), features=())
    assert b"feeds" not in baseline.to_bytes()
    fed = msgspec.structs.replace(baseline, feeds=(Feed(source="w", starts=(1,), rows=(3,), silence_us=9),))
    assert Baseline.from_bytes(fed.to_bytes()) == fed


def test_moments_are_utc(tmp_path: Path) -> None:
    app = App("a")
    source = source_of(app.source(Weather, time="observed", called="weather"))
    tables = open_tables(DeltaSettings(), tmp_path)
    at = datetime(2024, 1, 1, tzinfo=UTC)
    times = pa.array([at, at + timedelta(hours=1)], pa.timestamp("us", "UTC"))
    table = pa.table({"_event_time": times, "_deleted": [False, None], "_seq": [0, 1]})
    tables.append(source.log, table, Txn("t", 1))
    assert arrivals(tables, source, MONDAY, MONDAY + HOUR).tolist() == [MONDAY]
    assert arrivals(tables, source, MONDAY, MONDAY + HOUR + 1).tolist() == [MONDAY, MONDAY + HOUR]
