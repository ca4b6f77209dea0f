"""A monitor over a log: segments counted as by hand, one alarm a cause and segment, the budget, and bounded memory."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from mainspring.adapters.sqlite.catalog import SqliteCatalog
from mainspring.declare.model import ModelDeclaration, MonitorSpec
from mainspring.metrics.classification import delong
from mainspring.monitoring.alerts import OF_FEEDS
from mainspring.monitoring.scope import LOOK_BACK
from mainspring.monitoring.stats.baseline import Baseline, Feed
from mainspring.monitoring.stats.register import Watched, register
from mainspring.monitoring.stats.segments import register_segments
from mainspring.monitoring.stats.state import BlockState, merge
from mainspring.monitoring.watch import Judged, MonitorWatch
from mainspring.ports.catalog import Alert, Label
from thoroughly import rounds

if TYPE_CHECKING:
    from mainspring.metrics.arrays import Ints

DAY = 86_400_000_000
MONDAY = 19_723 * DAY  # 2024-01-01
ROWS = 400
K = 60
WATCHED = [Watched("x"), Watched("kind"), Watched("score")]
ORIGINS = ("EWR", "JFK", "LGA")


class Clock:
    def __init__(self) -> None:
        self.now = 1_000

    def __call__(self) -> int:
        return self.now


def block(random: np.random.Generator, days: int, first: int = 0, rows: int = ROWS, **change: Any) -> pa.Table:
    """Some days of predictions; `shift` moves x in the segment `within` (everywhere when left out)."""
    n = days * rows
    origin = random.choice(ORIGINS, n, p=[0.4, 0.35, 0.25]).astype(object)
    x = random.normal(size=n) + (origin == "LGA")
    hit = np.ones(n, bool) if change.get("within") is None else origin == change["within"]
    x[hit] += change.get("shift", 0.0)
    at = MONDAY + (first + np.arange(n) // rows) * DAY + np.arange(n) % rows * (DAY // rows)
    score = 1 / (1 + np.exp(-random.normal(size=n)))
    return pa.table(
        {
            "prediction_id": [f"{first}-{number}" for number in range(n)],
            "at": pa.array(at, pa.timestamp("us", "UTC")),
            "score": score,
            "x": x,
            "kind": random.choice(["a", "b", "c"], n),
            "origin": pa.array(origin, pa.string()),
            "weight": np.ones(n, np.float32),
        }
    )


def baseline(table: pa.Table, *columns: str) -> Baseline:
    found = register(table, "at", WATCHED)
    if not columns:
        return found
    return register_segments(found, table, "at", WATCHED, {name: table.column(name) for name in columns}, "day")


def spec(**given: Any) -> MonitorSpec:
    model = cast(ModelDeclaration, None)
    plain = {"false_alarms": "1 per quarter", "on_alarm": "retrain", "block": "day", "cooldown_us": DAY}
    return MonitorSpec(model=model, watch=(), segments=(), **{**plain, **given})


class Bench:
    """A monitor with its catalog, its clock, and what it has asked for."""

    def __init__(self, folder: Path, reference: Baseline, **given: Any) -> None:
        self.catalog = SqliteCatalog(folder / "catalog.db")
        self.clock = Clock()
        self.retrained: list[Alert] = []
        self.silent: set[int] = set()
        self.spans: list[tuple[int, int]] = []
        self.log = block(np.random.default_rng(0), 0)
        self.reference = reference
        self.spec = spec(**given)
        self.watch = self.restarted()

    def restarted(self) -> MonitorWatch:
        self.watch = MonitorWatch(
            "flights",
            "late",
            self.spec,
            self.catalog,
            self.reference,
            Judged("roc_auc", "late", self.between),
            self.retrained.append,
            self.came if self.reference.feeds else None,
            self.clock,
        )
        return self.watch

    def between(self, start: int, stop: int) -> pa.Table:
        self.spans.append((start, stop))
        at = np.asarray(self.log.column("at").cast(pa.int64()))
        return self.log.filter(pa.array((at >= start) & (at < stop)))

    def came(self, source: str, start: int, stop: int) -> Ints:
        """An hourly source; `silent` are days on which it has brought nothing."""
        times = np.arange(start, stop, DAY // 24)
        return times[[at // DAY not in self.silent for at in times.tolist()]]

    def told(self, what: str) -> list[dict[str, Any]]:
        return [cast("dict[str, Any]", event.data) for event in self.catalog.events(what=what, limit=100_000)]


@pytest.fixture(scope="module")
def reference() -> Baseline:
    return baseline(block(np.random.default_rng(1), K), "origin")


def states(bench: Bench, segment: str, feature: str) -> dict[int, BlockState]:
    return {
        found.start: BlockState.from_bytes(found.state)
        for found in bench.catalog.blocks("late")
        if (found.segment, found.feature) == (segment, feature)
    }


def test_rows_are_counted_by_segment_as_by_hand(tmp_path: Path, reference: Baseline) -> None:
    bench = Bench(tmp_path, reference)
    table = block(np.random.default_rng(2), 3, K)
    order = np.random.default_rng(3).permutation(len(table))
    for start in range(0, len(table), 171):
        bench.watch.take(table.take(pa.array(order[start : start + 171])))
    dates = [at.date() for at in table.column("at").to_pylist()]
    by_hand = Counter(zip(dates, table.column("origin").to_pylist(), strict=True))
    for origin in ORIGINS:
        found = states(bench, f"origin={origin}", "x")
        assert sorted(state.n for state in found.values()) == sorted(n for (_, o), n in by_hand.items() if o == origin)
    overall = states(bench, "", "x")
    assert [state.n for state in overall.values()] == [ROWS] * 3
    sums = [sum(states(bench, f"origin={o}", "kind")[start].n for o in ORIGINS) for start in overall]
    assert sums == [ROWS] * 3


def test_only_the_segment_that_has_changed_alarms_and_says_so(tmp_path: Path, reference: Baseline) -> None:
    bench = Bench(tmp_path, reference)
    bench.watch.take(block(np.random.default_rng(4), 3, K, shift=1.2, within="LGA"))
    found = bench.watch.close_blocks()
    alarmed = {judged.segment for judged in found if judged.alert is not None and judged.alert.features[0] == "x"}
    assert "origin=LGA" in alarmed
    assert not alarmed & {"origin=EWR", "origin=JFK"}
    (alert,) = [alert for alert in bench.catalog.alerts() if alert.segment == "origin=LGA"]
    assert alert.kind in ("shape", "location")
    marks = {alert.fingerprint for alert in bench.catalog.alerts()}
    assert len(marks) == len(bench.catalog.alerts())
    summary = {row["segment"]: row for row in bench.told("monitor.evaluated")[-1]["segments"]}
    assert summary["origin=LGA"]["alarms"] > 0
    assert summary["origin=EWR"]["alarms"] == 0
    assert summary["origin=LGA"]["worst"]["feature"] == "x"
    assert len(bench.retrained) == 1, "one fault that several segments show starts one training"


def test_a_row_without_its_value_is_of_the_null_segment(tmp_path: Path, reference: Baseline) -> None:
    bench = Bench(tmp_path, reference)
    table = block(np.random.default_rng(5), 2, K)
    origin = table.column("origin").to_pylist()
    origin[:10] = [None] * 10
    origin[10:13] = ["SWF"] * 3
    bench.watch.take(table.set_column(5, "origin", pa.array(origin, pa.string())))
    bench.watch.take(block(np.random.default_rng(5), 1, K + 2).drop_columns(["origin"]))
    bench.watch.take(block(np.random.default_rng(5), 1, K + 3))
    bench.watch.close_blocks()
    outside = [data["outside"] for data in bench.told("monitor.evaluated")]
    assert outside == [{"origin": {"null": 10, "other": 3}}, {}, {"origin": {"null": ROWS, "other": 0}}]
    assert MONDAY + (K + 2) * DAY not in states(bench, "origin=EWR", "x")


def test_what_is_in_no_segment_is_told_of_by_block_whatever_its_values(tmp_path: Path, reference: Baseline) -> None:
    bench = Bench(tmp_path, reference)
    table, random = block(np.random.default_rng(18), 3, K), np.random.default_rng(18)
    origin = [
        None if draw < 0.2 else f"only{number}" if draw < 0.6 else "JFK"
        for number, draw in enumerate(random.random(len(table)).tolist())
    ]
    bench.watch.take(table.set_column(5, "origin", pa.array(origin, pa.string())))
    bench.watch.close_blocks()
    for day, data in enumerate(bench.told("monitor.evaluated")):
        mine = origin[day * ROWS : (day + 1) * ROWS]
        null = mine.count(None)
        assert data["outside"] == {"origin": {"null": null, "other": ROWS - null - mine.count("JFK")}}


def test_the_null_segment_is_watched_where_the_reference_has_it(tmp_path: Path) -> None:
    table = block(np.random.default_rng(6), K)
    origin = [None if n % 3 else "JFK" for n in range(len(table))]
    found = baseline(table.set_column(5, "origin", pa.array(origin, pa.string())), "origin")
    bench = Bench(tmp_path, found)
    bench.watch.take(block(np.random.default_rng(7), 3, K, shift=2.0).drop_columns(["origin"]))
    bench.watch.close_blocks()
    assert {alert.segment for alert in bench.catalog.alerts()} == {"", "origin is null"}
    assert bench.watch.facts["segments"] == ["origin is null", "origin=JFK"]


def test_the_facts_name_what_is_not_watched_apart(tmp_path: Path) -> None:
    table = block(np.random.default_rng(8), K)
    origin = table.column("origin").to_pylist()
    origin[:50] = [f"rare{n}" for n in range(50)]
    bench = Bench(tmp_path, baseline(table.set_column(5, "origin", pa.array(origin, pa.string())), "origin"))
    assert bench.watch.facts["not_watched_apart"] == {"origin": {"values": 50, "reference_rows": 50}}
    assert json.loads(json.dumps(bench.told("monitor.reference")))[0]["segments"] == bench.watch.facts["segments"]
    bench.restarted()
    assert len(bench.told("monitor.reference")) == 1


def test_an_acknowledged_fault_starts_no_second_training_and_stays_one_alarm(
    tmp_path: Path, reference: Baseline
) -> None:
    bench = Bench(tmp_path, reference, cooldown_us=1)
    random = np.random.default_rng(9)
    for day in range(6):
        bench.watch.take(block(random, 1, K + day, shift=3.0, within="LGA"))
        bench.watch.close_blocks()
        for alert in bench.catalog.alerts(open_only=True):
            if alert.state == "firing":
                bench.watch.alerts.acknowledge(alert.id, "ada")
    opened = [alert for alert in bench.catalog.alerts() if alert.segment == "origin=LGA" and alert.features[0] == "x"]
    assert [alert.state for alert in opened] == ["acknowledged"]
    assert len(bench.retrained) == 1


def test_false_alarms_over_segments_stay_within_twice_the_budget(tmp_path: Path) -> None:
    """Simulated years of two segment columns without a change: the alarms that are opened, against 4 a year."""
    alarms, years = 0, rounds(1, 2)
    for seed in range(years):
        random = np.random.default_rng(100 + seed)
        (tmp_path / str(seed)).mkdir()
        bench = Bench(tmp_path / str(seed), baseline(block(random, K, rows=200), "origin", "kind"))
        assert len(cast("list[str]", bench.watch.facts["segments"])) == 6
        for month in range(12):
            bench.watch.take(block(random, 30, K + 30 * month, rows=200))
            bench.watch.close_blocks()
        assert len(bench.told("monitor.evaluated")) == 359
        alarms += len(bench.catalog.alerts(limit=1000))
        bench.catalog.close()
    assert alarms <= 2 * 4 * years


def test_what_is_held_does_not_grow_and_late_rows_do_not_tear_a_stored_block(
    tmp_path: Path, reference: Baseline
) -> None:
    bench = Bench(tmp_path, reference)
    random = np.random.default_rng(10)
    held, tables = [], []
    for day in range(30):
        tables.append(block(random, 1, K + day))
        bench.watch.take(tables[-1])
        bench.watch.close_blocks()
        held.append(bench.watch.held)
    assert max(held[12:]) == held[12] <= 4 * (LOOK_BACK + 2)
    before = states(bench, "", "x")
    bench.watch.take(tables[0].slice(0, 5))
    assert states(bench, "", "x") == before
    bench.watch.take(tables[27].slice(0, 5))
    after = states(bench, "", "x")
    at = MONDAY + (K + 27) * DAY
    assert after[at].n == before[at].n + 5


def test_a_restart_judges_the_same_and_nothing_twice(tmp_path: Path, reference: Baseline) -> None:
    random = np.random.default_rng(11)
    days = [block(random, 1, K + day, shift=0.4 * (day > 8)) for day in range(14)]
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    plain, torn = Bench(tmp_path / "one", reference), Bench(tmp_path / "two", reference)
    for number, table in enumerate(days):
        plain.watch.take(table)
        plain.watch.close_blocks()
        if number % 4 == 3:  # the log is read again from where it is needed
            since = int(torn.restarted().since.timestamp() * 1e6)
            for earlier in days[:number]:
                if earlier.column("at").cast(pa.int64())[0].as_py() >= since:
                    torn.watch.take(earlier)
        torn.watch.take(table)
        torn.watch.close_blocks()
    assert torn.told("monitor.evaluated") == plain.told("monitor.evaluated")
    facts = [(a.segment, a.features, a.since, a.state) for a in plain.catalog.alerts()]
    assert facts == [(a.segment, a.features, a.since, a.state) for a in torn.catalog.alerts()]
    assert facts
    assert states(torn, "", "x") == states(plain, "", "x")


def labelled(bench: Bench, table: pa.Table, share: float, seed: int = 0, above: float = -1.0) -> dict[str, float]:
    """Label a share of the predictions whose score is above something; what was sent, by id."""
    random = np.random.default_rng(seed)
    sent = {}
    for identity, score in zip(
        table.column("prediction_id").to_pylist(), table.column("score").to_pylist(), strict=True
    ):
        if score > above and random.random() < share:
            sent[identity] = float(random.random() < score)
    bench.catalog.add_labels([Label(identity, "", value, 5, 1) for identity, value in sent.items()])
    return sent


def test_labels_are_judged_when_they_are_due_with_interval_coverage_and_method(
    tmp_path: Path, reference: Baseline
) -> None:
    bench = Bench(tmp_path, msgspec.structs.replace(reference, horizon_us=3 * DAY))
    random = np.random.default_rng(13)
    days = [block(random, 1, K + day) for day in range(6)]
    bench.log = pa.concat_tables(days)
    sent = labelled(bench, days[0], 0.5)
    bench.catalog.add_labels([Label(next(iter(sent)), "cost", 99.0, 9, 1)])
    for number, table in enumerate(days):
        bench.watch.take(table)
        bench.watch.close_blocks()
        assert len(bench.told("monitor.performance")) == (number > 3)
        if number == 2:
            bench.restarted()
    (found,) = bench.told("monitor.performance")
    scores = dict(zip(days[0].column("prediction_id").to_pylist(), days[0].column("score").to_pylist(), strict=True))
    exact = delong([*sent.values()], [scores[identity] for identity in sent])
    assert (found["value"], found["low"], found["high"]) == pytest.approx((exact.value, exact.low, exact.high))
    assert (found["n"], found["method"], found["block"]) == (len(sent), "delong", MONDAY + K * DAY)
    assert found["coverage"] == pytest.approx(len(sent) / ROWS)
    assert found["selection"]["warned"] is False
    assert bench.spans == [(MONDAY + day * DAY, MONDAY + (day + 1) * DAY) for day in (K, K + 1)]


def test_labels_of_the_high_scores_alone_are_warned_of(tmp_path: Path, reference: Baseline) -> None:
    bench = Bench(tmp_path, reference)
    bench.log = block(np.random.default_rng(14), 4, K)
    labelled(bench, bench.log, 0.8, above=0.6)
    bench.watch.take(bench.log)
    bench.watch.close_blocks()
    told = bench.told("monitor.performance")
    assert [data["selection"]["warned"] for data in told] == [True, True]
    assert all(data["selection"]["js"] > 0.05 for data in told)


def test_well_known_statistics_are_told_of_the_block_that_has_closed(tmp_path: Path, reference: Baseline) -> None:
    bench = Bench(tmp_path, reference)
    table = block(np.random.default_rng(15), 2, K, shift=1.0)
    for start in range(0, len(table), 90):
        bench.watch.take(table.slice(start, 90))
    bench.watch.close_blocks()
    (told,) = (data["reported"] for data in bench.told("monitor.evaluated"))
    first = table.slice(0, ROWS)
    whole = np.sort(np.array(block(np.random.default_rng(1), K).column("x")))
    values = np.sort(np.array(first.column("x")))
    at = np.concatenate([whole, values])
    exact = np.abs(np.searchsorted(whole, at, "right") / len(whole) - np.searchsorted(values, at, "right") / ROWS).max()
    assert told["x"]["ks"] == pytest.approx(exact, abs=0.01)
    assert told["x"]["mean"] == pytest.approx(values.mean())
    assert told["x"]["sd"] == pytest.approx(values.std())
    assert told["x"]["wasserstein"] == pytest.approx((values.mean() - whole.mean()) / whole.std(), abs=0.05)
    assert told["x"]["psi"] > 0.2 > told["score"]["psi"]
    assert told["kind"]["ks"] is None
    assert told["kind"]["chi2_df"] == 2
    assert json.loads(json.dumps(told)) == told


FED = Feed(
    source="weather", starts=tuple(MONDAY + day * DAY for day in range(K)), rows=(24,) * K, silence_us=2 * DAY // 24
)


def test_a_failing_source_mutes_its_features_and_blocks_retraining_until_it_is_back(
    tmp_path: Path, reference: Baseline
) -> None:
    bench = Bench(tmp_path, msgspec.structs.replace(reference, feeds=(FED,)))
    random = np.random.default_rng(16)
    bench.silent = {19_723 + K + 1, 19_723 + K + 2}
    for day in range(12):
        shift = 3.0 if day in (1, 2) else 0.0
        bench.watch.take(block(random, 1, K + day, shift=shift))
        bench.watch.close_blocks()
        if day == 5:
            bench.restarted()
            for again in range(6):  # what the log still has of them: days whose rows were as they were
                if MONDAY + (K + again) * DAY >= bench.watch.since.timestamp() * 1e6:
                    bench.watch.take(
                        block(np.random.default_rng(again), 1, K + again, shift=3.0 if again in (1, 2) else 0.0)
                    )
    told = bench.told("monitor.evaluated")
    assert [data["failing"] for data in told[:4]] == [[], ["source/weather"], ["source/weather"], []]
    assert all(not data["failing"] for data in told[3:])
    recorded = {(f["feature"], f["state"]) for f in told[1]["findings"] if f["kind"] == "location"}
    assert ("x", "recorded") in recorded
    assert {alert.features for alert in bench.catalog.alerts()} == {("source/weather",)}
    (alert,) = bench.catalog.alerts()
    assert alert.kind in ("freshness", "volume")
    assert alert.state == "resolved"
    assert not bench.retrained
    assert bench.watch.facts["sources"] == ["weather"]


def test_an_alarm_of_before_does_not_end_while_its_source_fails(tmp_path: Path, reference: Baseline) -> None:
    bench = Bench(tmp_path, msgspec.structs.replace(reference, segments=(), apart=(), feeds=(FED,)))
    random = np.random.default_rng(17)
    states: list[dict[str, str]] = []
    for day, (shift, silent) in enumerate([(3.0, False), (3.0, False), (0.0, True), (0.0, False)]):
        if silent:
            bench.silent.add(19_723 + K + day)
        bench.watch.take(block(random, 1, K + day, shift=shift))
        bench.watch.close_blocks()
        states.append({alert.features[0]: alert.state for alert in bench.catalog.alerts(open_only=True)})
    assert states[2] == {"x": "firing"}
    assert states[3] == {"x": "firing", "source/weather": "firing"}
    bench.watch.take(block(random, 1, K + 4))
    bench.watch.close_blocks()
    assert {alert.state for alert in bench.catalog.alerts() if alert.kind in OF_FEEDS} == {"resolved"}


def test_segment_states_add_up_on_their_own_cells(tmp_path: Path, reference: Baseline) -> None:
    bench = Bench(tmp_path, reference)
    table = block(np.random.default_rng(12), 2, K)
    bench.watch.take(table)
    for origin in ORIGINS:
        whole = merge(states(bench, f"origin={origin}", "x").values())
        values = np.array(table.filter(pa.compute.equal(table.column("origin"), origin)).column("x"))
        assert whole.n == len(values)
        assert (whole.vmin, whole.vmax) == (values.min(), values.max())
