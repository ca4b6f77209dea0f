"""The two window kernels on what is hard: huge values, skew, cancellation, many entities, empty windows."""

import math
import random

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainspring.declare.aggregate import avg, highest, lowest, total, variance
from mainspring.declare.record import ColumnType, Kind
from mainspring.errors import DataError
from mainspring.features.view import FeatureDef
from mainspring.features.windows import timeline
from mainspring.features.windows.answer import answer
from mainspring.features.windows.kernels import Prefix, Ranges
from mainspring.features.windows.question import Question
from mainspring.features.windows.timeline import FAR, Events, Moments, Timeline, Values, pairs
from unit.features.offline.tables import a_view

KERNELS = {"ranges": Ranges(), "prefix": Prefix()}
FIELDS = {"x": Kind.FLOAT, "n": Kind.INTEGER}


def question(rows, moments, kernel):
    """Rows (entity, event, x or None) and moments (entity, t), all sorted here."""
    rows, moments = sorted(rows, key=lambda row: row[:2]), sorted(moments)
    whole = all(isinstance(row[2], int) or row[2] is None for row in rows)
    data = np.array([row[2] or 0 for row in rows], np.int64 if whole else np.float64)
    values = Values(data, np.array([row[2] is not None for row in rows], bool))
    event = np.array([row[1] for row in rows], np.int64)
    events = Events(
        np.array([row[0] for row in rows], np.int64),
        event,
        event,
        np.full(len(rows), FAR),
        {"n" if whole else "x": values},
    )
    asked = Moments(
        *(np.array(part, np.int64) for part in ([m[0] for m in moments], [m[1] for m in moments])),
        np.arange(len(moments)),
    )
    return Question(events, asked, kernel)


def ask(what, rows, moments, kernel, window=1000):
    made = question(rows, moments, kernel)
    aggregate = msgspec.structs.replace(what, window_us=window)
    feature = FeatureDef("f", aggregate, aggregate.result_type(ColumnType(FIELDS[what.column], True)))
    return answer(made, a_view({}), feature, len(moments)).to_pylist()


@pytest.mark.parametrize("kernel", KERNELS)
def test_totals_of_whole_numbers_are_exact_to_the_last_of_64_bits(kernel):
    great = 2**62
    rows = [(0, 1, great), (0, 2, great - 1), (0, 3, 2**53 + 1), (0, 1500, -great), (0, 1501, -great), (0, 1502, 1)]
    moments = [(0, 2), (0, 1003), (0, 1501), (0, 1502)]
    assert ask(total("n", "1s"), rows, moments, KERNELS[kernel]) == [2**63 - 1, None, -(2**63), -(2**63) + 1]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("sign", [1, -1])
def test_a_total_that_does_not_fit_is_a_fault_only_if_its_window_does_not(kernel, sign):
    rows = [(0, 1, sign * 2**62), (0, 2, sign * 2**62), (0, 3, sign * 2**62), (0, 5000, 7)]
    assert ask(total("n", "1s"), rows, [(0, 5001)], KERNELS[kernel]) == [7]
    with pytest.raises(DataError) as caught:
        ask(total("n", "1s"), rows, [(0, 5001), (0, 900)], KERNELS[kernel])
    assert caught.value.code == "MS-2117"


@pytest.mark.parametrize("kernel", KERNELS)
def test_averages_of_huge_whole_numbers(kernel):
    rows = [(0, 1, 2**62), (0, 2, 2**62), (0, 3, 2**62)]
    assert ask(avg("n", "1s"), rows, [(0, 4)], KERNELS[kernel]) == [float(2**62)]


@pytest.mark.parametrize("kernel", KERNELS)
def test_what_was_huge_before_the_window_leaves_no_trace(kernel):
    small = [(0, 5000 + index, 0.1 * index) for index in range(10)]
    rows = [(0, 1, 1e300), (0, 2, -3e299), (0, 3, 1e16), *small]
    wanted = math.fsum(0.1 * index for index in range(10))
    assert ask(total("x", "1s"), rows, [(0, 5009)], KERNELS[kernel]) == [pytest.approx(wanted, rel=1e-12)]
    assert ask(avg("x", "1s"), rows, [(0, 5009)], KERNELS[kernel]) == [pytest.approx(wanted / 10, rel=1e-12)]
    spread = math.fsum((0.1 * index - wanted / 10) ** 2 for index in range(10)) / 9
    assert ask(variance("x", "1s"), rows, [(0, 5009)], KERNELS[kernel]) == [pytest.approx(spread, rel=1e-9)]


@pytest.mark.parametrize("kernel", KERNELS)
def test_variance_far_from_zero(kernel):
    rows = [(0, index, 1e9 + index % 3) for index in range(300)]
    (found,) = ask(variance("x", "1s"), rows, [(0, 299)], KERNELS[kernel])
    assert found == pytest.approx(np.var([index % 3 for index in range(300)], ddof=1), rel=1e-9)
    drifting = [(0, index, float(index // 100) * 1e8 + index % 2) for index in range(300)]
    (found,) = ask(variance("x", "1s"), drifting, [(0, 299)], KERNELS[kernel], window=100)
    assert found == pytest.approx(np.var([index % 2 for index in range(100)], ddof=1), rel=1e-9)
    same = [(0, index, 0.1) for index in range(300)]
    assert ask(variance("x", "1s"), same, [(0, 299)], KERNELS[kernel]) == [pytest.approx(0.0, abs=1e-18)]


@pytest.mark.parametrize("kernel", KERNELS)
def test_nan_and_infinity_spoil_only_their_windows(kernel):
    rows = [
        (0, 1, math.nan),
        (0, 2000, 5.0),
        (0, 4000, math.inf),
        (0, 4001, -1.0),
        (0, 6000, -math.inf),
        (0, 6500, math.inf),
    ]
    moments = [(0, 2), (0, 2001), (0, 4002), (0, 5000), (0, 6501)]
    found = ask(total("x", "1s"), rows, moments, KERNELS[kernel])
    assert math.isnan(found[0])
    assert found[1:4] == [5.0, math.inf, -1.0]
    assert math.isnan(found[4])
    assert ask(lowest("x", "1s"), rows, moments, KERNELS[kernel])[1:] == [5.0, -1.0, -1.0, -math.inf]
    assert ask(highest("x", "1s"), rows, moments, KERNELS[kernel])[1:] == [5.0, math.inf, -1.0, math.inf]


@pytest.mark.parametrize("kernel", KERNELS)
def test_extremes_of_whole_numbers_reach_the_ends(kernel):
    rows = [(0, 1, -(2**63)), (0, 2, 2**63 - 1), (0, 3, None)]
    assert ask(lowest("n", "1s"), rows, [(0, 0), (0, 1), (0, 3)], KERNELS[kernel]) == [None, -(2**63), -(2**63)]
    assert ask(highest("n", "1s"), rows, [(0, 0), (0, 1), (0, 3)], KERNELS[kernel]) == [None, -(2**63), 2**63 - 1]


@st.composite
def ranges(draw):
    values = draw(st.lists(st.integers(-5, 5), min_size=1, max_size=40))
    end = st.integers(0, len(values))
    return values, draw(st.lists(st.tuples(end, end).map(sorted), max_size=30).map(sorted))


@settings(max_examples=200, deadline=None)
@given(made=ranges(), kind=st.sampled_from([np.int64, np.longdouble]))
def test_kernels_add_and_find_the_least_like_a_loop(made, kind):
    values, spans = made
    lo, hi = (np.array([span[end] for span in spans], np.int64) for end in (0, 1))
    channel = np.array(values, kind)
    nothing = np.iinfo(np.int64).max if kind is np.int64 else np.inf
    for kernel in KERNELS.values():
        assert kernel.add(channel, lo, hi).tolist() == [sum(values[a:b]) for a, b in spans]
        assert kernel.lowest(channel, lo, hi).tolist() == [min(values[a:b], default=nothing) for a, b in spans]


points = st.lists(st.tuples(st.integers(0, 5), st.integers(-50, 50)), max_size=30)


@settings(max_examples=200, deadline=None)
@given(line=points.map(sorted), needles=points, side=st.sampled_from(["left", "right"]), wide=st.booleans())
def test_a_timeline_finds_places_even_where_entity_and_time_do_not_fit_one_number(line, needles, side, wide):
    scale = 2**55 if wide else 1
    entity, time = (np.array([point[part] for point in line], np.int64) for part in (0, 1))
    asked, moments = (np.array([point[part] for point in needles], np.int64) for part in (0, 1))
    found = Timeline(entity, time * scale).find(asked, moments * scale, side)
    before = (lambda point, needle: point < needle) if side == "left" else (lambda point, needle: point <= needle)
    expected = [sum(before(point, needle) for point in line) for needle in needles]
    assert found.tolist() == expected


@settings(max_examples=100, deadline=None)
@given(spans=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12), chunk=st.integers(1, 20))
def test_pairs_come_in_chunks_and_none_is_lost(spans, chunk):
    first, stop = (np.array([span[end] for span in spans], np.int64) for end in (0, 1))
    found = [(int(i), int(j)) for left, right in pairs(first, stop, chunk) for i, j in zip(left, right, strict=True)]
    assert found == [(i, j) for i, (a, b) in enumerate(spans) for j in range(a, b)]


def test_the_kernel_is_chosen_by_the_number_of_pairs():
    rng = random.Random(0)
    even = [(entity, rng.randrange(100_000), 1.0) for entity in range(50) for _ in range(20)]
    hot = [(0, rng.randrange(100), 1.0) for _ in range(1000)]
    moments = [(0, 100)] * 500
    assert question(even, moments, None).kernel(1000).name == "ranges"
    assert question(hot, moments, None).kernel(1000).name == "prefix"


def test_a_million_equal_keys_and_moments_take_no_million_squared(monkeypatch):
    """Trap: a million equal keys."""
    rows = 200_000
    event = np.zeros(rows, np.int64)
    values = Values(np.ones(rows), np.ones(rows, bool))
    events = Events(event, event, event, np.full(rows, FAR), {"x": values})
    asked = Moments(event, event, np.arange(rows))

    def none(*args):
        raise AssertionError("pairs were written out")

    monkeypatch.setattr(timeline, "pairs", none)
    made = Question(events, asked)
    assert made.kernel(10).name == "prefix"
    for what in (total("x", "1s"), lowest("x", "1s"), variance("x", "1s")):
        feature = FeatureDef("f", what, what.result_type(ColumnType(Kind.FLOAT, True)))
        found = answer(made, a_view({}), feature, rows)
        assert (
            found[0].as_py()
            == found[rows - 1].as_py()
            == {"total": rows, "lowest": 1, "variance": 0}[what.function.value]
        )


@pytest.mark.parametrize("kernel", KERNELS)
def test_variance_of_few_near_rows_after_many_great_ones(kernel):
    chance = random.Random(5)
    rows = [(0, index * 100, chance.lognormvariate(0, 2) * 1e3) for index in range(20_000)]
    pairs = [(3_000_000 + index * 100, 700.0 + index * 7, 1e-5 * (index + 1)) for index in range(50)]
    for at, value, step in pairs:
        rows += [(0, at, value), (0, at + 1, value + step)]
    moments = [(0, at + 50) for at, _, _ in pairs]
    found = ask(variance("x", "1s"), rows, moments, KERNELS[kernel], window=100)
    exact = [(value + step - value) ** 2 / 2 for _, value, step in pairs]
    assert found == [pytest.approx(wanted, rel=1e-9) for wanted in exact]
