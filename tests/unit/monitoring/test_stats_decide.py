"""Alarms keep to their budget, find what is wrong, and one odd value changes nothing."""

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainspring.declare.options import yearly_budget
from mainspring.errors import DeclarationError
from mainspring.monitoring.stats.blocks import BLOCK_US
from mainspring.monitoring.stats.decide import (
    Finding,
    alarms_on_reference,
    detectable,
    judge,
    rank,
    thresholds,
)
from mainspring.monitoring.stats.reference import reference
from mainspring.monitoring.stats.register import Watched, count_table, register
from mainspring.monitoring.stats.report import judge_psi, psi_alarms, well_known
from mainspring.monitoring.stats.state import merge
from mainspring.monitoring.stats.threshold import alpha, calibrate, cusum, paths

K, ROWS = 60, 400
BUDGET = alpha(4.0, 10, BLOCK_US["day"])


class Watch:
    """A feature registered on one table and judged on others."""

    def __init__(self, days, column, kind=None, chance=BUDGET, rows=ROWS, seasons=False):
        self.days, self.rows, self.blocks = days, rows, len(column) // rows
        self.baseline = register(days(rows, x=column), "at", [Watched("x", kind)])
        self.reference = reference(self.baseline, "x", seasons=seasons)
        self.limits = thresholds(self.reference, chance)

    def states(self, column, first=None, rows=None):
        table = self.days(rows or self.rows, first=self.blocks if first is None else first, x=column)
        return list(count_table(table, "at", self.baseline, fine=True)["x"].items())

    def judged(self, column, **where):
        return judge(self.reference, self.limits, self.states(column, **where))

    def alarms(self, column, **where):
        return {f.kind for f in self.judged(column, **where) if f.state == "alarm"}

    def each_day(self, column):
        states = self.states(column)
        return [judge(self.reference, self.limits, states[max(0, i - 6) : i + 1]) for i in range(len(states))]


@pytest.fixture
def random():
    return np.random.default_rng(5)


@pytest.fixture
def normal(days, random):
    return Watch(days, random.normal(size=K * ROWS))


# -- the parts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "yearly"),
    [
        ("1 per quarter", 4),
        ("2 per year", 2),
        ("1 per month", 12),
        ("0.5 per week", 365.25 / 14),
        ("3 a day", 3 * 365.25),
    ],
)
def test_a_budget_is_read_as_written(text, yearly):
    assert yearly_budget(text) == pytest.approx(yearly)


@pytest.mark.parametrize("text", ["", "few", "1 per decade", "0 per year", "-1 per year", "per year"])
def test_another_text_is_no_budget(text):
    with pytest.raises(DeclarationError, match="not an alarm budget") as caught:
        yearly_budget(text)
    assert caught.value.code == "MS-1091"


def test_alpha_shares_the_budget_among_all_evaluations():
    assert alpha(4.0, 10, BLOCK_US["day"], segments=2) == pytest.approx(4 / (10 * 2 * 2 * 365.25))
    assert alpha(4.0, 1, BLOCK_US["hour"]) * 24 == pytest.approx(alpha(4.0, 1, BLOCK_US["day"]))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=1, max_size=9), st.booleans())
def test_cusum_is_the_recursion(z, both):
    up = down = best = 0.0
    for step in z:
        up, down = max(0.0, up + step - 0.5), max(0.0, down - step - 0.5)
        best = max(best, up, down if both else 0.0)
    assert float(cusum(z, both=both)) == best


def test_paths_run_on_and_restart_one_time_in_four():
    drawn = paths(50, 8, seed=1)
    assert drawn.shape == (3000, 8)
    assert (drawn == paths(50, 8, seed=1)).all()
    follows = (drawn[:, 1:] == (drawn[:, :-1] + 1) % 50).mean()
    assert follows == pytest.approx(0.75 + 0.25 / 50, abs=0.01)
    assert np.bincount(drawn.ravel(), minlength=50).min() > 300


def test_the_threshold_is_the_tail_formula():
    z = np.random.default_rng(0).normal(size=100)
    drawn = paths(100, 7)
    scores = np.sort(cusum(z[drawn], both=True))
    u = np.quantile(scores, 0.9)
    answer = calibrate(z, drawn, 0.01, both=True)
    beta = max((scores[scores > u] - u).mean(), 0.3)
    assert (answer.u, answer.beta) == (pytest.approx(u), pytest.approx(beta))
    assert answer.h == pytest.approx(u + beta * math.log(0.1 / 0.01))
    assert calibrate(np.zeros(9), paths(9, 7), 0.01, both=True).beta == 0.3


def test_scores_are_those_of_the_definition(days, random):
    column = random.normal(size=12 * 50)
    watch = Watch(days, column, rows=50)
    counts = watch.reference.counts
    shares = counts.sum(axis=0)

    def distance(p, q):
        p, q = p / p.sum(), q / q.sum()
        m = (p + q) / 2
        parts = [sum(a * math.log2(a / c) for a, c in zip(side, m, strict=True) if a) for side in (p, q)]
        return math.sqrt(sum(parts) / 2)

    logs = np.log([max(distance(shares - own, own), 1e-4) for own in counts])
    assert watch.reference.shape == pytest.approx((logs - logs.mean()) / logs.std(ddof=1), rel=1e-9)
    layout = watch.reference.layout
    clipped = np.clip(column, 2 * layout.low - layout.high, 2 * layout.high - layout.low).reshape(12, 50)
    apart = np.array([own.mean() - np.delete(clipped, i, axis=0).mean() for i, own in enumerate(clipped)])
    assert watch.reference.location == pytest.approx(apart / apart.std(ddof=1), rel=1e-6)


# -- the budget ---------------------------------------------------------------------------------------------------

KINDS = {
    "normal": lambda r, n: r.normal(size=n),
    "heavy tails": lambda r, n: r.standard_cauchy(n),
    "atoms": lambda r, n: np.where(r.random(n) < 0.6, 0.0, r.lognormal(size=n)),
    "categories": lambda r, n: pa.array(r.choice([f"c{i}" for i in range(40)], n)),
    "a long-tailed key": lambda r, n: pa.array(r.zipf(1.3, n).clip(max=10**9)),
}


@pytest.mark.parametrize("name", KINDS)
def test_undisturbed_data_pass_the_threshold_no_more_than_twice_as_often_as_promised(days, random, name):
    kind = "category" if name == "a long-tailed key" else None
    passed = windows = rates = 0
    for _ in range(3):
        watch = Watch(days, KINDS[name](random, K * ROWS), kind, chance=0.15)
        for findings in watch.each_day(KINDS[name](random, 120 * ROWS)):
            drift = [f for f in findings if f.kind in ("shape", "location") and f.window == 1 and f.state != "off"]
            windows += len(drift)
            passed += sum(f.score > f.threshold for f in drift)
            rates += sum(f.state == "alarm" for f in findings if f.kind not in ("shape", "location"))
    assert 0 < passed <= 2 * 0.05 * windows
    assert rates == 0


def test_a_simulated_year_keeps_the_budget(days, random):
    alerts = 0
    for _ in range(5):
        watch = Watch(days, random.normal(size=K * 200), rows=200, chance=alpha(4.0, 5, BLOCK_US["day"]))
        fires = [any(f.state == "alarm" for f in day) for day in watch.each_day(random.normal(size=365 * 200))]
        # Windows of a week overlap: alarms on days in a row are one alert, still firing.
        alerts += int((np.diff([False, *fires]) & np.array(fires)).sum())
    assert alerts <= 2 * 4


def test_weak_is_said_below_thirty_blocks(days, random, normal):
    assert not normal.reference.weak
    few = Watch(days, random.normal(size=29 * ROWS))
    assert all(f.weak for f in few.judged(random.normal(size=ROWS)))


# -- what must be found -------------------------------------------------------------------------------------------


def weeks(watch, make, count=20):
    """Share of weeks in which a fault raises an alarm."""
    return np.mean([bool(watch.alarms(make())) for _ in range(count)])


def test_faults_are_found_within_a_week(days, random):
    n = 7 * ROWS
    watch = Watch(days, random.lognormal(size=K * ROWS))

    def spoiled(share, change):
        values = random.lognormal(size=n)
        return np.where(random.random(n) < share, change(values), values)

    assert weeks(watch, lambda: spoiled(0.10, lambda v: v * 1000)) >= 0.95
    assert weeks(watch, lambda: spoiled(1.0, lambda v: v + 0.5)) >= 0.95
    assert weeks(watch, lambda: spoiled(0.05, lambda v: 0 * v)) >= 0.95
    assert weeks(watch, lambda: pa.array(random.lognormal(size=n), mask=random.random(n) < 0.05)) >= 0.95


def test_a_relabelled_or_a_new_category_is_found(days, random):
    names = np.array(["a", "b", "c", "d", "e"])
    draw = lambda n: random.choice(names, n, p=[0.4, 0.3, 0.15, 0.1, 0.05])  # noqa: E731
    watch = Watch(days, pa.array(draw(K * 2000)), rows=2000)
    assert weeks(watch, lambda: pa.array(np.char.replace(draw(7 * 2000), "d", "e"))) >= 0.95

    def one_new():
        return pa.array(np.where(random.random(2000) < 0.02, "new", draw(2000).astype("<U3")))

    assert np.mean(["novelty" in watch.alarms(one_new()) for _ in range(20)]) >= 0.95
    assert "shape" in watch.alarms(pa.array([w.upper() for w in draw(2000)]))


def test_the_least_detectable_effect_is_found_most_of_the_time(days, random):
    watch = Watch(days, random.normal(size=K * ROWS))
    limits = detectable(watch.reference, watch.limits)
    delta = limits.mde["location", 1]
    days_found = 0
    for _ in range(60):
        findings = watch.judged(random.normal(size=ROWS) + delta)
        days_found += {f.state for f in findings if (f.kind, f.window) == ("location", 1)} == {"alarm"}
    found = days_found / 60
    assert 0.6 <= found <= 0.95
    assert limits.mde["location", 7] < delta
    assert 0 < limits.mde["shape", 7] <= limits.mde["shape", 1] < 1
    f = watch.reference.rates["null"]
    assert limits.mde["null", 1] == pytest.approx(f + 4.84 * math.sqrt(f / ROWS))


# -- traps --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("odd", [math.inf, -math.inf, math.nan, 1e300, -1e300])
@pytest.mark.parametrize("rows", [20, ROWS])
def test_one_odd_value_changes_no_decision(days, odd, rows):
    random = np.random.default_rng(2)
    watch = Watch(days, random.normal(size=K * rows), rows=rows)
    for shift in (0.0, 2.0):
        values = random.normal(size=7 * rows) + shift
        before = watch.alarms(values)
        values[-3] = odd
        assert watch.alarms(values) == before
        assert bool(before) == (shift > 0)


def test_an_odd_value_in_the_reference_hides_no_shift(days, random):
    values = random.normal(size=K * ROWS)
    values[:3] = 1e300, math.inf, math.nan
    watch = Watch(days, values)
    assert "location" in watch.alarms(random.normal(size=7 * ROWS) + 0.5)
    assert not watch.alarms(random.normal(size=7 * ROWS))


def test_thirty_per_cent_nulls_alert(days, random, normal):
    spoiled = pa.array(random.normal(size=ROWS), mask=random.random(ROWS) < 0.3)
    assert {"null", "shape"} <= normal.alarms(spoiled)
    assert "nan" in normal.alarms(np.where(random.random(ROWS) < 0.3, math.nan, random.normal(size=ROWS)))


def test_constant_null_empty_and_one_row_columns_answer_or_refuse(days, random, normal):
    constant = Watch(days, np.full(K * ROWS, 3.0))
    assert not constant.alarms(np.full(7 * ROWS, 3.0))
    assert {"novelty", "shape"} <= constant.alarms(np.full(7 * ROWS, 4.0))
    empty = Watch(days, pa.nulls(K * ROWS, pa.float64()))
    assert not empty.alarms(pa.nulls(ROWS, pa.float64()))
    assert empty.alarms(random.normal(size=ROWS)) == {"novelty"}
    one = normal.judged(np.array([0.1]))
    assert not any(f.state == "alarm" for f in one)
    assert {f.why for f in one if f.kind == "shape"} == {"fewer rows than half the smallest reference block"}
    assert [f.why for f in judge(normal.reference, normal.limits, [])] == ["no rows in the window"] * 2
    nulls = normal.judged(pa.nulls(ROWS, pa.float64()))
    assert {f.kind for f in nulls if f.state == "alarm"} == {"shape", "null"}
    assert {f.state for f in nulls if f.kind == "location"} == {"off"}


def test_a_key_is_watched_for_nulls_and_format_only(days):
    keys = np.arange(30 * 2000)
    watch = Watch(days, pa.array(keys), "category", rows=2000)
    assert watch.reference.off.startswith("a key")
    assert set(watch.reference.rates) == {"null", "invalid"}
    assert not watch.alarms(pa.array(keys + 10**6))
    assert watch.alarms(pa.array(keys[:2000], mask=keys[:2000] % 3 == 0)) == {"null"}


def test_an_atom_that_grows_is_seen_though_it_lies_on_a_cut(days, random):
    def draw(n, share):
        return np.where(random.random(n) < share, 1.0, random.normal(size=n) + 1.0)

    watch = Watch(days, draw(K * ROWS, 0.3))
    assert not watch.alarms(draw(ROWS, 0.3))
    assert "shape" in watch.alarms(draw(ROWS, 0.5))


def test_a_change_below_the_floor_is_recorded_not_alarmed(days):
    random = np.random.default_rng(9)
    watch = Watch(days, random.normal(size=K * 20_000), rows=20_000)
    location = [f for f in watch.judged(random.normal(size=7 * 20_000) + 0.05) if f.kind == "location"]
    assert {f.state for f in location if f.window == 7} == {"recorded"}
    assert all(f.effect < f.floor == 0.1 for f in location)


def test_the_reference_judges_itself_by_the_other_half(days, random, normal):
    assert alarms_on_reference(normal.reference, BUDGET) == 0
    stepped = random.normal(size=K * ROWS)
    stepped[45 * ROWS :] += 3.0
    assert alarms_on_reference(Watch(days, stepped).reference, BUDGET) > 0


def test_seasons_compare_a_day_with_its_weekday(days, random):
    weekday = np.repeat(np.arange(70) % 7, ROWS)

    def draw(day):
        return random.normal(size=len(day)) + 3.0 * (day >= 5)

    column = draw(weekday)
    plain, seasonal = Watch(days, column), Watch(days, column, seasons=True)
    assert sorted(seasonal.reference.pools) == [-1, 0, 1, 2, 3, 4, 5, 6]
    # Weekend values on the first Tuesday after: usual for a plain monitor, and wrong.
    wrong = draw(np.full(ROWS, 6))
    assert "location" in seasonal.alarms(wrong, first=71)
    assert "location" not in plain.alarms(wrong, first=71)
    assert not seasonal.alarms(draw(np.repeat(np.arange(7), ROWS)), first=70)
    few = Watch(days, column[: 21 * ROWS], seasons=True)
    assert list(few.reference.pools) == [-1]


def test_findings_rank_by_effect_times_importance():
    def alarm(feature, effect, state="alarm"):
        return Finding(feature, "shape", 1, 9.0, 1.0, effect, 0.05, math.nan, state, False)

    ordered = rank([alarm("a", 0.2), alarm("b", 0.1), alarm("c", 0.9, "ok")], {"b": 5.0})
    assert [(f.feature, f.rank) for f in ordered] == [("b", 1), ("a", 2), ("c", 0)]
    assert rank([alarm("a", math.nan, "off")])[0].rank == 0


def test_well_known_numbers_are_reported_and_psis_own_alarms_counted(days, random, normal):
    state = merge(state for _, state in normal.states(random.normal(size=7 * ROWS) + 1.0))
    known = well_known(normal.reference, state)
    assert known.ks == pytest.approx(0.383, abs=0.03)
    assert known.wasserstein == pytest.approx(1.0, abs=0.06)
    assert known.psi > 0.5
    assert known.chi2_p < 1e-12
    same = merge(state for _, state in normal.states(random.normal(size=7 * ROWS)))
    assert well_known(normal.reference, same).chi2_p > 1e-3
    small = Watch(days, random.normal(size=K * 50), rows=50)
    alarms, blocks = psi_alarms(small.reference, 0.1)
    assert blocks == K
    assert alarms > 0.3 * K
    quiet, loud = (small.states(random.normal(size=7 * 50) + shift) for shift in (0.0, 2.0))
    assert [f.state for f in judge_psi(small.reference, 0.2, loud)] == ["alarm", "alarm"]
    assert [f.state for f in judge_psi(small.reference, 0.2, quiet)][1] == "ok"
    assert {f.state for f in judge_psi(small.reference, 0.2, [])} == {"off"}
    text = Watch(days, pa.array(random.choice(["a", "b"], K * 50)), rows=50)
    assert math.isnan(well_known(text.reference, text.reference.feature.states()[0]).ks)


def test_thresholds_repeat_with_their_seed(normal):
    again = thresholds(normal.reference, BUDGET)
    assert again == normal.limits
    assert thresholds(normal.reference, BUDGET, seed=1) != again
    stricter = thresholds(normal.reference, BUDGET / 10)
    assert stricter.shape[7].h > again.shape[7].h
