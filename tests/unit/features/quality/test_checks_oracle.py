"""Every check against a loop over Python values: nulls, NaN, -0.0, decimals, accents both ways, empty batches."""

import math
import re
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.declare.checking import between, distance, fresh, matches, not_null, one_of, rows, unique
from mainspring.declare.quality import Check, CheckKind
from mainspring.declare.record import ColumnType, FieldSpec, Kind
from mainspring.features.quality.rowwise import judge_rows
from mainspring.features.quality.tablewise import Whole, column_distance, judge_whole, repeated
from mainspring.features.view import arrow_type

MOMENTS = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=n) for n in range(4)]
VALUES = {
    Kind.STRING: ["", "a", "é", "e\u0301", "ab", "a\n", "AB"],
    Kind.INTEGER: [0, 1, -1, 2**53, 2**53 + 1, -(2**63), 2**63 - 1],
    Kind.FLOAT: [0.0, -0.0, 1.5, math.nan, math.inf, -math.inf, 5e-324],
    Kind.BOOLEAN: [True, False],
    Kind.TIMESTAMP: MOMENTS,
    Kind.DATE: [date(2026, 1, n) for n in (1, 2, 3)],
    Kind.BYTES: [b"", b"\x00", b"ab"],
    Kind.DECIMAL: [Decimal(text) for text in ("0.00", "0.01", "-0.01", "12345678.99", "99999999.99")],
}
BOUNDS = {
    Kind.INTEGER: [*VALUES[Kind.INTEGER], 0.5, -0.5, 1e30, -1e30, math.inf, Decimal("0.1"), 2.0**53],
    Kind.FLOAT: [0.0, -0.0, 1.5, math.inf, -math.inf, 1],
    Kind.TIMESTAMP: MOMENTS,
    Kind.DATE: VALUES[Kind.DATE],
    Kind.DECIMAL: [*VALUES[Kind.DECIMAL], Decimal("0.005"), Decimal("1E+40"), 0, 1, 0.5, -math.inf],
}
SIZES = {Kind.DECIMAL: {"precision": 10, "scale": 2}}


def kind_of(kind):
    return ColumnType(kind, True, **SIZES.get(kind, {}))


def batch(kind, values):
    return pa.table({"x": pa.array(values, arrow_type(kind_of(kind)))}), (FieldSpec("x", kind_of(kind)),)


def columns(kinds=tuple(VALUES)):
    return st.sampled_from(kinds).flatmap(
        lambda kind: st.tuples(st.just(kind), st.lists(st.sampled_from([None, *VALUES[kind]]), max_size=12))
    )


def failing(check, kind, values):
    """The places of the rows that fail, found by the judge."""
    table, fields = batch(kind, values)
    check = Check(**{name: getattr(check, name) for name in Check.__slots__} | {"on_fail": "quarantine"})
    judged = judge_rows(table, fields, [check])
    (result,) = judged.results
    places = [place for place, reason in enumerate(judged.reasons.to_pylist()) if reason is not None]
    assert result.failing == len(places)
    assert result.state == ("set_aside" if places else "ok")
    assert len(result.samples) == min(len(places), 3)
    return places


@given(columns())
def test_not_null(drawn):
    kind, values = drawn
    assert failing(not_null("x"), kind, values) == [i for i, value in enumerate(values) if value is None]


def inside(value, low, high):
    if isinstance(value, float) and math.isnan(value):
        return False
    return (low is None or value >= low) and (high is None or value <= high)


@given(columns(tuple(BOUNDS)), st.data())
def test_between(drawn, data):
    kind, values = drawn
    low, high = (data.draw(st.sampled_from([None, *BOUNDS[kind]])) for _ in range(2))
    if (low is None and high is None) or (low is not None and high is not None and low > high):
        return
    wanted = [i for i, value in enumerate(values) if value is not None and not inside(value, low, high)]
    assert failing(between("x", low, high), kind, values) == wanted


@given(columns(), st.data())
def test_one_of(drawn, data):
    kind, values = drawn
    allowed = data.draw(st.lists(st.sampled_from(VALUES[kind]), min_size=1, max_size=4))
    wanted = [
        i for i, value in enumerate(values) if value is not None and not any(value == one for one in allowed)
    ]  # NaN is equal to nothing, -0.0 to 0.0, an accent to none that is composed otherwise
    assert failing(one_of("x", allowed), kind, values) == wanted


@pytest.mark.parametrize(("allowed", "wanted"), [([1.0, 2.5], [1]), ([1e30], [0, 1]), ([Decimal(2)], [0])])
def test_one_of_numbers_of_another_kind(allowed, wanted):
    assert failing(one_of("x", allowed), Kind.INTEGER, [1, 2]) == wanted


@given(columns((Kind.STRING,)), st.sampled_from(["a", "a|b", "[a-z]*", "é", ".", ".*", "(?i)ab", "", "a$"]))
def test_matches(drawn, pattern):
    kind, values = drawn
    wanted = [i for i, value in enumerate(values) if value is not None and not re.fullmatch(pattern, value)]
    assert failing(matches("x", pattern), kind, values) == wanted


@given(columns(), st.data())
def test_references(drawn, data):
    kind, values = drawn
    if kind is Kind.FLOAT:
        return
    held = data.draw(st.lists(st.sampled_from(VALUES[kind]), max_size=3))
    table, fields = batch(kind, values)
    check = Check(CheckKind.REFERENCES, ("x",), "quarantine", log="source/other", to_column="x", name="other.x")
    judged = judge_rows(table, fields, [check], lambda _: pa.array(held, arrow_type(kind_of(kind))))
    found = [i for i, reason in enumerate(judged.reasons.to_pylist()) if reason == "x is not in other.x"]
    assert found == [i for i, value in enumerate(values) if value is not None and value not in held]


@given(columns(), columns())
def test_unique_over_two_columns(one, two):
    size = min(len(one[1]), len(two[1]))
    pairs = list(zip(one[1][:size], two[1][:size], strict=True))
    seen, wanted = [], []
    for place, pair in enumerate(pairs):
        told = tuple("NaN" if isinstance(value, float) and math.isnan(value) else value for value in pair)
        if None in pair:
            continue
        if any(told == earlier for earlier in seen):
            wanted.append(place)
        seen.append(told)
    left, right = (
        pa.chunked_array([pa.array([pair[n] for pair in pairs], arrow_type(kind_of(drawn[0])))])
        for n, drawn in ((0, one), (1, two))
    )
    assert np.flatnonzero(repeated([left, right])).tolist() == wanted


@given(st.lists(st.sampled_from([None, 0, 1, 2, 3]), max_size=30), st.permutations(["quarantine", "refuse", "warn"]))
def test_a_row_that_is_set_aside_is_looked_at_by_no_other_check(values, actions):
    table, fields = batch(Kind.INTEGER, values)
    checks = [
        not_null("x", on_fail=actions[0]),
        between("x", 1, None, on_fail=actions[1]),
        one_of("x", [0, 1, 2], on_fail=actions[2]),
    ]
    tests = [lambda v: v is None, lambda v: v is not None and v < 1, lambda v: v is not None and v not in (0, 1, 2)]
    aside = actions.index("quarantine")
    judged = judge_rows(table, fields, checks)
    left = [value for value in values if not tests[aside](value)]
    assert [reason is None for reason in judged.reasons.to_pylist()] == [not tests[aside](value) for value in values]
    for place, (test, result) in enumerate(zip(tests, judged.results, strict=True)):
        looked_at = values if place == aside else left
        assert (result.rows, result.failing) == (len(looked_at), sum(map(test, looked_at)))
        assert result.check == str(checks[place])


def whole(values, kind=Kind.INTEGER, newest=None, held=None):
    table, _ = batch(kind, values)
    column = None if held is None else batch(kind, held)[0].column("x")
    return Whole(len(table), newest, lambda names: table.select(list(names)), table, column and (lambda _: column))


@given(st.integers(0, 5), st.none() | st.integers(0, 5), st.none() | st.integers(0, 5))
def test_rows(count, least, most):
    if (least is None and most is None) or (least is not None and most is not None and least > most):
        return
    (result,) = judge_whole([rows(least, most)], whole([1] * count), 0)
    fits = (least is None or count >= least) and (most is None or count <= most)
    assert (result.state, result.value) == ("ok" if fits else "refused", count)


@given(st.none() | st.integers(-10, 10), st.integers(-10, 10))
def test_fresh(newest, now):
    second = 1_000_000
    newest_us = None if newest is None else newest * second
    (result,) = judge_whole([fresh("3s", on_fail="refuse")], whole([1], newest=newest_us), now * second)
    assert result.state == ("refused" if newest is None or now - newest > 3 else "ok")
    assert result.value == (None if newest is None else max(now - newest, 0))


def test_a_million_equal_keys():
    column = pa.chunked_array([pa.array(["same"] * 1_000_000)])
    assert repeated([column]).sum() == 999_999
    table = pa.table({"x": column})
    field = FieldSpec("x", ColumnType(Kind.STRING))
    judged = judge_rows(table, (field,), [one_of("x", ["other"], on_fail="warn"), matches("x", "sam.")])
    assert [(result.state, result.failing) for result in judged.results] == [("warned", 1_000_000), ("ok", 0)]
    assert judged.reasons.null_count == 1_000_000


def test_slices_are_judged_like_one(monkeypatch):
    values = [None, 1, 2, 3, None] * 20
    monkeypatch.setattr("mainspring.features.quality.rowwise._SLICE", 7)
    assert failing(between("x", 2, 3), Kind.INTEGER, values) == [i for i, v in enumerate(values) if v == 1]
    assert failing(not_null("x"), Kind.INTEGER, []) == []


def slow_distance(reference, current):
    """Jensen-Shannon over the commonest 15 values, the rest and nulls, by the textbook."""
    counted = Counter(value for value in reference if value is not None)
    common = sorted(counted, key=lambda value: (-counted[value], value.encode()))[:15]
    cell = {value: place for place, value in enumerate(common)}

    def shares(values):
        found = Counter("null" if value is None else cell.get(value, "rest") for value in values)
        return {place: count / len(values) for place, count in found.items()}

    p, q = shares(reference), shares(current)
    total = 0.0
    for place in p.keys() | q.keys():
        a, b = p.get(place, 0.0), q.get(place, 0.0)
        total += sum(0.5 * side * math.log2(side / ((a + b) / 2)) for side in (a, b) if side)
    return math.sqrt(max(total, 0.0))


TEXTS = st.lists(st.none() | st.sampled_from([chr(97 + n) for n in range(20)]), min_size=1, max_size=40)


@given(TEXTS, TEXTS)
def test_distance_of_texts(reference, current):
    known, new = (pa.chunked_array([pa.array(values, pa.string())]) for values in (reference, current))
    assert column_distance(known, new) == pytest.approx(slow_distance(reference, current), abs=1e-9)


NUMBERS = st.lists(st.none() | st.sampled_from([0.0, -0.0, 1.0, 2.5, math.nan, math.inf, 1e300]), min_size=1)


@given(NUMBERS, NUMBERS, st.randoms())
def test_distance_of_numbers(reference, current, random):
    known, new = (pa.chunked_array([pa.array(values, pa.float64())]) for values in (reference, current))
    found = column_distance(known, new)
    assert 0 <= found <= 1
    assert column_distance(known, known) == pytest.approx(0, abs=1e-7)
    random.shuffle(reference)  # the order of rows says nothing
    assert column_distance(pa.chunked_array([pa.array(reference, pa.float64())]), new) == pytest.approx(found)


@pytest.mark.parametrize("kind", [Kind.INTEGER, Kind.DECIMAL, Kind.TIMESTAMP, Kind.DATE, Kind.BOOLEAN, Kind.STRING])
def test_distance_sees_a_shift(kind):
    low, high = VALUES[kind][0], VALUES[kind][1]
    known, same, other = ([low] * 200, [low] * 100, [high] * 100)
    verdicts = [
        judge_whole([distance("x", 0.3)], whole(new, kind, held=known), 0)[0] for new in (same, other, other[:99])
    ]
    assert [verdict.state for verdict in verdicts] == ["ok", "refused", "not_judged"]
    assert verdicts[1].value == pytest.approx(1)
    (first,) = judge_whole([distance("x", 0.3)], whole(other, kind), 0)
    assert (first.state, first.why) == ("not_judged", "there is nothing to compare with yet")


def test_unique_tells_the_rows():
    (result,) = judge_whole([unique("x", on_fail="warn")], whole([1, 2, 1, None, None, 1]), 0)
    assert (result.state, result.failing, result.rows) == ("warned", 2, 6)
    assert result.samples == ({"x": "1"}, {"x": "1"})
