"""A monitor of an assistant: blocks against a slow loop, rates against scipy, alarms that open and close, restarts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, binom

from mainspring.adapters.sqlite.catalog import SqliteCatalog
from mainspring.monitoring.answers import (
    AMOUNTS,
    LEAST_REFERENCE,
    RATES,
    Answered,
    AnswerWatch,
    Scored,
    Tally,
    Watching,
)
from mainspring.monitoring.references import reference_of
from mainspring.monitoring.stats.reference import ENOUGH
from mainspring.monitoring.stats.threshold import alpha
from mainspring.ports.catalog import Catalog

HOUR = 3_600_000_000
ROWS = 20


class World:
    """An assistant's runs on a clock that tests move; every method adds hours."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.catalog: Catalog = SqliteCatalog(folder / "catalog.db")
        self.runs: list[Answered] = []
        self.now = 1000 * HOUR
        self.scored: list[Scored] = []
        self.random = np.random.default_rng(3)

    def read(self, since: int, until: int) -> Sequence[Answered]:
        return [run for run in self.runs if since <= run.done_us < until]

    def watch(self, subject: str = "first", **changes: Any) -> AnswerWatch:
        options = {
            "rates": tuple(RATES),
            "amounts": tuple(AMOUNTS),
            "evaluations": ("grounded",),
            "false_alarms": 4.0,
            "block_us": HOUR,
            "block_rows": ROWS,
            "subject": subject,
        }
        watching = Watching(**{**options, **changes})
        return AnswerWatch("support", "desk", watching, self.catalog, self.read, lambda: self.scored, lambda: self.now)

    def hours(self, count: int, rows: int = ROWS, **shares: float) -> None:
        """So many hours, each with so many runs; shares of bad ones by rate, and factors by amount."""
        for _ in range(count):
            for place in range(rows):
                rates = {name: bool(self.random.random() < shares.get(name, 0.0)) for name in RATES}
                amounts = {name: math.exp(self.random.normal(0, 0.1)) * shares.get(name, 1.0) for name in AMOUNTS}
                self.runs.append(Answered(self.now + place * HOUR // (rows + 1), rates, amounts))
            self.now += HOUR

    def done(self) -> None:
        self.now += 2_000_001

    def told(self, what: str) -> list[dict[str, Any]]:
        return [event.data for event in self.catalog.events(what=what, limit=10_000)]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def blocks_of(watch: AnswerWatch, runs: Sequence[Answered], closable: int) -> list[tuple[int, int, int]]:
    return [(block.start, block.stop, block.rows) for block in watch._blocks(runs, closable)]


@given(st.lists(st.integers(0, 40 * HOUR - 1), max_size=120), st.integers(1, 9))
def test_blocks_are_those_of_a_slow_loop(times: list[int], least: int) -> None:
    runs = [Answered(at) for at in sorted(times)]
    slow, held = [], []
    for hour in range(40):
        held += [run for run in runs if hour * HOUR <= run.done_us < (hour + 1) * HOUR]
        if len(held) >= least:
            slow.append((held[0].done_us // HOUR * HOUR, (held[-1].done_us // HOUR + 1) * HOUR, len(held)))
            held = []
    watch = AnswerWatch.__new__(AnswerWatch)
    watch._watching = Watching((), (), (), 4.0, HOUR, least, "")
    assert blocks_of(watch, runs, 40 * HOUR) == slow


def test_a_tally_is_what_its_answers_come_to() -> None:
    tally = Tally(0, HOUR)
    tally.take(Answered(1, {"errors": True}, {}))
    tally.take(Answered(2, {"errors": False, "refusals": True}, {"latency": math.e}))
    tally.take(Answered(3, {"errors": False, "refusals": False}, {"latency": math.e**3}))
    assert (tally.rows, tally.hits, tally.totals) == (
        3,
        {"errors": 1, "refusals": 1},
        {"errors": 3, "refusals": 2},
    )
    assert tally.mean("latency") == pytest.approx(2.0)


def test_errors_open_an_alarm_and_their_end_closes_it(world: World) -> None:
    watch = world.watch()
    world.hours(LEAST_REFERENCE + 2, errors=0.02)
    world.done()
    judged = watch.close_blocks()
    assert len(judged) == 2, "the first blocks are the reference"
    assert watch.alerts.open() == []
    world.hours(2, errors=0.6)
    watch.close_blocks()
    (alarm,) = watch.alerts.open()
    assert (alarm.kind, alarm.state, alarm.features[0], alarm.segment) == ("rate", "firing", "errors", "")
    assert alarm.score > alarm.threshold
    world.hours(1, errors=0.6)
    assert len(watch.close_blocks()) == 1
    assert [one.id for one in watch.alerts.open()] == [alarm.id], "one cause, one alarm"
    world.hours(8, errors=0.02)
    watch.close_blocks()
    assert watch.alerts.open() == []
    assert [event.what for event in world.catalog.events(what="alert.")] == ["alert.firing", "alert.resolved"]


def test_a_rate_is_judged_by_what_scipy_says(world: World) -> None:
    watch = world.watch(rates=("errors",), amounts=())
    world.hours(LEAST_REFERENCE, errors=0.05)
    world.done()
    watch.close_blocks()
    reference = world.told("monitor.reference")[-1]["blocks"]
    hits, totals = [b["hits"]["errors"] for b in reference], [b["totals"]["errors"] for b in reference]
    x, n = sum(hits), sum(totals)
    upper = beta.ppf(0.95, x + 1, n - x)
    shares = np.array(hits) / np.array(totals)
    extra = max(shares.var(ddof=1) - x / n * (1 - x / n) * np.mean(1 / np.array(totals)), 0)
    usual = max(upper, x / n + 3 * math.sqrt(extra))
    chance = 4.0 / (1 * 2 * 365.25 * 24)
    assert watch.alpha == pytest.approx(chance) == alpha(4.0, 1, HOUR)
    limit = int(binom.isf(chance, ROWS, usual))
    world.hours(1, errors=0.3)
    ((_, findings),) = watch.close_blocks()
    one = next(finding for finding in findings if finding.window == 1)
    assert one.threshold == pytest.approx(limit / ROWS)
    bad = sum(run.rates["errors"] for run in world.runs[-ROWS:])
    assert one.score == pytest.approx(bad / ROWS)
    assert one.state == ("alarm" if bad > limit else "ok")


@pytest.mark.parametrize(
    ("change", "feature"),
    [
        ({"latency": 2.0}, "latency"),
        ({"cost": 1.5}, "cost"),
        ({"tokens": 0.5}, "tokens"),
        ({"retrieval": 0.6}, "retrieval"),
        ({"uncited": 0.7}, "uncited"),
        ({"dropped": 0.7}, "dropped"),
        ({"refusals": 0.7}, "refusals"),
        ({"timeouts": 0.7}, "timeouts"),
        ({"tools": 0.7}, "tools"),
    ],
)
def test_what_changes_is_named(world: World, change: dict[str, float], feature: str) -> None:
    watch = world.watch()
    world.hours(ENOUGH + 2)
    world.done()
    watch.close_blocks()
    assert watch.alerts.open() == []
    assert not watch.weak
    world.hours(3, **change)
    watch.close_blocks()
    assert [alarm.features[0] for alarm in watch.alerts.open()] == [feature]


@pytest.mark.parametrize("change", [{"latency": 0.4}, {"cost": 0.5}, {"retrieval": 2.0}])
def test_what_becomes_better_is_no_alarm(world: World, change: dict[str, float]) -> None:
    watch = world.watch()
    world.hours(ENOUGH)
    world.hours(3, **change)
    world.done()
    watch.close_blocks()
    assert watch.alerts.open() == []


def test_what_is_not_watched_says_nothing(world: World) -> None:
    watch = world.watch(rates=("refusals",), amounts=("latency",))
    world.hours(LEAST_REFERENCE + 1)
    world.hours(2, errors=1.0)
    world.done()
    assert {finding.feature for _, findings in watch.close_blocks() for finding in findings} == {"refusals", "latency"}


def test_a_usual_year_has_no_more_alarms_than_twice_its_budget(world: World) -> None:
    usual = {"errors": 0.01, "refusals": 0.08, "tools": 0.02}
    watch = world.watch(false_alarms=52.0)
    world.hours(ENOUGH + 1, **usual)
    hours = 24 * 7 * 5
    world.hours(hours, **usual)
    world.done()
    watch.close_blocks()
    fired = len(world.told("alert.firing"))
    assert fired <= 2 * 52 * hours / (365.25 * 24) + 3


def told_of(world: World) -> list[tuple[str, int, str]]:
    """The blocks with their findings, and the alarms, as anybody can read them afterwards."""
    found = []
    for event in world.catalog.events(what="monitor.evaluated", limit=10_000):
        found.append((event.what, int(str(event.data["block"])), repr(event.data["findings"])))
    for event in world.catalog.events(what="alert.", limit=10_000):
        found.append((event.what, int(str(event.data["since"])), str(event.data["features"])))
    return found


def lived(world: World, again: Callable[[AnswerWatch], AnswerWatch]) -> None:
    watch = world.watch()
    world.done()
    for _ in range(4):
        world.hours(3)
        watch = again(watch)
        watch.close_blocks()
    for change in ({"errors": 0.7}, {"errors": 0.7, "latency": 3.0}, {}, {}, {}, {}, {}, {}, {}):
        world.hours(1, **change)
        watch = again(watch)
        watch.close_blocks()


def test_a_process_that_is_started_again_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    through, restarted = World(tmp_path / "one"), World(tmp_path / "two")
    lived(through, lambda watch: watch)
    lived(restarted, lambda watch: restarted.watch())
    assert told_of(through) == told_of(restarted)
    assert {what for what, *_ in told_of(through)} == {"monitor.evaluated", "alert.firing", "alert.resolved"}


def test_a_changed_assistant_has_a_new_reference_and_none_of_the_old_alarms(world: World) -> None:
    watch = world.watch()
    world.hours(LEAST_REFERENCE)
    world.hours(2, errors=0.8)
    world.done()
    watch.close_blocks()
    assert watch.alerts.open()
    watch = world.watch("second")
    assert watch.alerts.open() == []
    world.hours(LEAST_REFERENCE, errors=0.4)
    assert watch.close_blocks() == [], "they are its reference"
    world.hours(1, errors=0.4)
    assert len(watch.close_blocks()) == 1
    assert watch.alerts.open() == []
    assert world.told("monitor.reference")[-1]["reference"] == "second"


def test_few_answers_wait_until_there_are_enough(world: World) -> None:
    watch = world.watch()
    world.hours(LEAST_REFERENCE * 4 + 3, rows=ROWS // 4)
    world.done()
    assert watch.close_blocks() == []
    world.hours(1, rows=ROWS // 4)
    ((start, findings),) = watch.close_blocks()
    assert world.told("monitor.evaluated")[0]["rows"] == ROWS
    assert start == world.now // HOUR * HOUR - 4 * HOUR
    assert findings
    world.now += 40 * HOUR
    assert watch.close_blocks() == [], "when nobody asks, nothing begins or ends"


def test_an_evaluation_that_its_gate_stopped_is_an_alarm_until_it_passes(world: World) -> None:
    watch = world.watch()
    world.scored = [
        Scored("grounded", world.now, False, 0.5, 0.8, "grounded 0.5 < 0.8"),
        Scored("other", 1, False, 0, 1),
    ]
    watch.close_blocks()
    watch = world.watch()
    watch.close_blocks()
    (alarm,) = watch.alerts.open()
    assert (alarm.kind, alarm.features, alarm.score, alarm.threshold) == ("evaluation", ("grounded",), 0.5, 0.8)
    world.hours(LEAST_REFERENCE + 1)
    world.done()
    watch.close_blocks()
    assert len(watch.alerts.open()) == 1, "blocks do not end it"
    world.scored = [Scored("grounded", world.now, True, 0.9, 0.8)]
    watch.close_blocks()
    assert watch.alerts.open() == []


def test_somebody_says_that_what_is_now_is_usual(world: World) -> None:
    watch = world.watch()
    world.hours(LEAST_REFERENCE)
    world.hours(2, errors=0.5)
    world.done()
    watch.close_blocks()
    assert watch.alerts.open()
    world.watch().begin_anew()  # in another process
    assert watch.alerts.open() == []
    world.now = (world.now // HOUR + 1) * HOUR
    world.hours(LEAST_REFERENCE + 2, errors=0.5)
    world.done()
    assert len(watch.close_blocks()) == 2
    assert watch.alerts.open() == []
    world.hours(2, errors=1.0)
    watch.close_blocks()
    assert [alarm.features[0] for alarm in watch.alerts.open()] == ["errors"]


def test_what_is_now_usual_outlives_a_block_that_was_being_judged(world: World) -> None:
    watch = world.watch()
    world.hours(LEAST_REFERENCE)
    world.done()
    watch.close_blocks()
    world.hours(1)
    world.hours(2, errors=0.5)
    world.done()
    read, world.read = world.read, lambda *span: (world.watch().begin_anew(), read(*span))[1]  # type: ignore
    watch._read = world.read
    watch.close_blocks()  # while it reads its block somebody else, in another process, begins anew
    watch._read = world.read = read
    assert world.told("monitor.reference")[-1]["blocks"], "it has told of its old reference last"
    told = reference_of(world.catalog, "desk")
    assert told is not None
    assert told.data["blocks"] == []
    assert watch.alerts.open(), "and raised an alarm of a block before"
    watch.close_blocks()
    assert watch.alerts.open() == []
    world.now = (world.now // HOUR + 1) * HOUR
    world.hours(LEAST_REFERENCE + 2, errors=0.5)
    world.done()
    assert len(watch.close_blocks()) == 2
    assert watch.alerts.open() == []


def test_a_block_that_two_processes_have_judged_counts_once(world: World) -> None:
    one, two = world.watch(), world.watch()
    world.hours(LEAST_REFERENCE + 2)
    world.done()
    one.close_blocks()
    two.close_blocks()
    world.hours(1)
    later = world.watch()
    ((_, findings),) = later.close_blocks()
    assert world.told("monitor.evaluated")[-1]["rows"] == ROWS
    assert [block.start for block in later._recent] == sorted({block.start for block in later._recent})
    assert findings
