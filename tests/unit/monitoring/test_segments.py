"""Rows apart: the same counts as by filtering each value, a bound on the values, and the budget kept over segments."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainspring.monitoring.stats.baseline import Baseline
from mainspring.monitoring.stats.register import Watched, register
from mainspring.monitoring.stats.segments import LEAST_ROWS, MOST, partition, register_segments, segment_name, take

COLUMNS = [
    (pa.string(), st.sampled_from(["a", "b", "", "é", "null"])),
    (pa.bool_(), st.booleans()),
    (pa.int64(), st.integers(-2, 2)),
    (pa.null(), st.none()),
]


def as_text(value):
    return None if value is None else str(value).lower() if isinstance(value, bool) else str(value)


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(COLUMNS).flatmap(lambda c: st.tuples(st.just(c[0]), st.lists(st.none() | c[1], max_size=30))))
def test_a_partition_gives_each_row_its_value(drawn):
    kind, values = drawn
    column = pa.chunked_array([pa.array(values[:7], kind), pa.array(values[7:], kind)])
    names, places = partition(column)
    assert [names[place] for place in places.tolist()] == [as_text(value) for value in values]
    assert len(set(names)) == len(names)
    assert names[-1] is None


@given(st.lists(st.integers(0, 9), min_size=1, max_size=20))
def test_taken_rows_are_those_of_the_numbers(numbers):
    table = pa.table({"x": list("abcdefghij"), "n": list(range(10))})
    assert take(table, np.array(numbers)).to_pylist() == [table.to_pylist()[n] for n in numbers]


def test_segments_are_named_by_column_and_value_and_null_is_no_text():
    assert segment_name("origin", "JFK") == "origin=JFK"
    assert segment_name("origin", None) == "origin is null"
    assert len({segment_name("a", value) for value in ("", "null", "None", None)}) == 4


def test_each_watched_value_has_the_reference_of_its_rows_alone(days):
    random, n, rows = np.random.default_rng(5), 40 * 300, 300
    airport = random.choice(["EWR", "JFK", None], n, p=[0.5, 0.3, 0.2]).astype(object)
    airport[::1000] = "SWF"
    table = days(rows, x=random.normal(size=n) + (airport == "JFK"), kind=random.choice(["a", "b"], n))
    features = [Watched("x"), Watched("kind")]
    found = register_segments(
        register(table, "at", features), table, "at", features, {"origin": pa.array(airport, pa.string())}, "day"
    )
    assert [(s.column, s.value) for s in found.segments] == [("origin", "EWR"), ("origin", "JFK"), ("origin", None)]
    for segment in found.segments:
        mine = pa.array([value == segment.value for value in airport.tolist()])
        assert segment.baseline == register(table.filter(mine), "at", features)
    (apart,) = found.apart
    assert (apart.watched, apart.values, apart.rows_left) == (3, 4, Counter(airport.tolist())["SWF"])
    assert Baseline.from_bytes(found.to_bytes()) == found
    plain = register(table, "at", features)
    assert b"segments" not in plain.to_bytes(), "a monitor without segments keeps its bytes"


def test_the_commonest_with_rows_enough_are_watched_and_no_more(days):
    values = [f"v{n:02d}" for n in range(MOST + 4)]
    day = [value for n, value in enumerate(values) for _ in range(LEAST_ROWS + (n > 2))] + ["rare"] * (LEAST_ROWS - 1)
    column = pa.array(day * 5, pa.string())
    table = days(len(day), x=np.arange(len(day) * 5, dtype=float))
    found = register_segments(register(table, "at", ["x"]), table, "at", [Watched("x")], {"c": column}, "day")
    assert [segment.value for segment in found.segments] == values[3 : 3 + MOST]
    (apart,) = found.apart
    assert (apart.watched, apart.values) == (MOST, MOST + 5)
    assert apart.rows_left == 5 * (LEAST_ROWS * 3 + LEAST_ROWS + 1 + LEAST_ROWS - 1)


@pytest.mark.parametrize("rows", [0, 3])
def test_a_reference_of_next_to_nothing_has_no_segments(days, rows):
    table = days(5, x=np.zeros(rows))
    column = pa.array(["a"] * rows, pa.string())
    found = register_segments(register(table, "at", ["x"]), table, "at", [Watched("x")], {"c": column}, "day")
    assert found.segments == ()
    assert found.apart[0].rows_left == rows
