"""Different values and quantiles: exact where they promise it, near where they do not, the same by every way."""

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainspring.declare.aggregate import distinct, first, last, last_n, lowest, quantile
from mainspring.declare.record import ColumnType, Kind
from mainspring.features.view import FeatureDef
from mainspring.features.windows import timeline
from mainspring.features.windows.answer import answer
from mainspring.features.windows.kernels import Prefix, Ranges
from mainspring.features.windows.question import Question
from mainspring.features.windows.sketch import (
    EXACT,
    RANKS,
    REGISTERS,
    bucket_values,
    buckets,
    estimate,
    number_hashes,
    registers,
    text_hashes,
)
from mainspring.features.windows.timeline import FAR, Events, Moments, Values
from mainspring.features.windows.wavelet import count_below, smallest
from unit.features.offline.tables import a_view

FLOAT = ColumnType(Kind.FLOAT, True)


def ask(what, event, values, t, kernel, *, lateness=0):
    """One entity's rows and moments, sorted; each row known a while after it happened."""
    event, t = np.asarray(event, np.int64), np.asarray(t, np.int64)
    data = np.asarray(values, np.float64)
    same = np.zeros(len(event), np.int64)
    columns = {"x": Values(data, np.ones(len(data), bool))}
    events = Events(same, event, event + lateness, np.full(len(event), FAR), columns)
    made = Question(events, Moments(np.zeros(len(t), np.int64), t, np.arange(len(t))), kernel)
    return answer(made, a_view({}), FeatureDef("f", what, what.result_type(FLOAT)), len(t)).to_pylist()


@settings(max_examples=200, deadline=None)
@given(data=st.data(), values=st.lists(st.integers(0, 20), min_size=1, max_size=40))
def test_order_in_ranges_is_what_a_loop_finds(data, values):
    ends = st.integers(0, len(values))
    spans = data.draw(st.lists(st.tuples(ends, ends).map(sorted), min_size=1, max_size=12))
    limits = np.array([data.draw(st.integers(0, 40)) for _ in spans])
    lo, hi = (np.array([span[end] for span in spans]) for end in (0, 1))
    array = np.array(values)
    found = count_below(array, lo, hi, limits)
    assert found.tolist() == [
        sum(value < limit for value in values[a:b]) for (a, b), limit in zip(spans, limits, strict=True)
    ]
    # Two ranges a question, and every place in their order.
    together = [sorted([*values[a:b], *values[c:d]]) for (a, b), (c, d) in zip(spans, spans[::-1], strict=True)]
    for place in range(max(map(len, together))):
        asked = [index for index, one in enumerate(together) if len(one) > place]
        both = np.array([end for index in asked for end in (index, len(spans) - 1 - index)])
        got = smallest(array, lo[both], hi[both], np.arange(len(asked)) * 2, np.full(len(asked), place))
        assert got.tolist() == [together[index][place] for index in asked]


@settings(max_examples=500, deadline=None)
@given(value=st.floats(allow_nan=False, min_value=-1e300, max_value=1e300), other=st.floats(allow_nan=False))
def test_a_bucket_is_near_its_values_and_in_their_order(value, other):
    if value == 0 or abs(value) > 1e-300:
        (there,) = bucket_values(buckets(np.array([value])))
        assert abs(there - value) <= 0.01 * abs(value)
        assert abs(there) <= abs(value)
    (low,), (high,) = buckets(np.array([min(value, other)])), buckets(np.array([max(value, other)]))
    assert low <= high


def test_whole_numbers_to_256_and_infinity_come_out_as_they_are():
    whole = [*map(float, range(-256, 257)), math.inf, -math.inf]
    assert bucket_values(buckets(np.array(whole))).tolist() == whole


def test_equal_numbers_have_one_hash_and_others_have_others():
    data = np.array([0.0, -0.0, math.nan, -math.nan, 1.0, math.inf, 5e-324])
    a = number_hashes(data)
    assert a[0] == a[1]
    assert a[2] == a[3]
    assert len(set(a.tolist())) == 5
    whole = np.array([2**53, 2**53 + 1, -(2**63), 2**63 - 1, 0])
    assert len(set(number_hashes(whole).tolist())) == 5
    assert len(set(text_hashes(["", "é", "e\u0301", "ab", b"ab", "1"]).tolist())) == 5  # a column is of one type


@pytest.mark.parametrize("size", [5_000, 20_000, 45_000, 90_000, 400_000])
@pytest.mark.parametrize("kind", ["numbers", "texts"])
def test_an_estimate_is_near(size, kind):
    if kind == "texts" and size > 50_000:
        size //= 4
    hashes = number_hashes(np.arange(size)) if kind == "numbers" else text_hashes(f"user{i}" for i in range(size))
    register, rank = registers(hashes)
    greatest = np.zeros(REGISTERS, np.int64)
    np.maximum.at(greatest, register, rank)
    (found,) = estimate(np.bincount(greatest, minlength=RANKS)[None])
    assert abs(found - size) < 0.03 * size


def test_a_hash_of_zeros_is_the_highest_rank():
    register, rank = registers(np.array([0, 1, 1 << 49, (1 << 64) - 1], np.uint64))
    assert rank.tolist() == [RANKS - 1, RANKS - 2, 1, 1]
    assert register.tolist() == [0, 0, 0, REGISTERS - 1]


@pytest.mark.parametrize("kernel", [Ranges(), Prefix()], ids=["ranges", "prefix"])
def test_exact_to_4096_and_then_an_estimate(kernel):
    values = [float(i) for i in range(EXACT + 5)]
    event = [i * 1000 for i in range(len(values))]
    t = [event[EXACT - 1], event[EXACT], event[-1]]
    found = ask(distinct("x", "1h"), event, values, t, kernel)
    assert found[0] == EXACT
    assert all(number > EXACT and abs(number - EXACT) < 0.05 * EXACT for number in found[1:])


@pytest.mark.parametrize("lateness", [0, 30, 700])
def test_all_ways_give_one_estimate(lateness):
    chance = random.Random(3)
    event = sorted(chance.randrange(30_000) for _ in range(24_000))
    values = [float(chance.choice([chance.randrange(9000), chance.randrange(20)])) for _ in event]
    t = [9_000, 15_000, 15_001, 29_000, 31_000]
    what = distinct("x", "1s")
    wide = what.__class__(what.function, "x", 20_000)
    a = ask(wide, event, values, t, Ranges(), lateness=lateness)
    b = ask(wide, event, values, t, Prefix(), lateness=lateness)
    assert a == b
    loop = [
        len({value for at, value in zip(event, values, strict=True) if now - 20_000 < at <= now - lateness})
        for now in t
    ]
    assert max(loop) > EXACT
    for mine, true in zip(a, loop, strict=True):
        assert mine == true if true <= EXACT else abs(mine - true) < 0.04 * true


@pytest.mark.parametrize(
    "what", [quantile("x", 0.9, "1s"), distinct("x", "1s"), lowest("x", "1s"), last_n("x", 2, "1s")]
)
@pytest.mark.parametrize("lateness", [0, 3])
def test_a_hot_entity_takes_no_pairs(monkeypatch, what, lateness):
    """Neither the skew nor rows that are all a little late make it write out a window's rows one by one."""
    rows = 100_000
    event = np.arange(rows)
    written = []
    whole = timeline.pairs

    def counted(first_, stop, chunk=timeline.CHUNK):
        for left, right in whole(first_, stop, chunk):
            written.append(len(left))
            yield left, right

    monkeypatch.setattr("mainspring.features.windows.question.pairs", counted)
    what = what.__class__(what.function, "x", 50_000, what.size, what.share)
    found = ask(what, event, event % 1000, event, None, lateness=lateness)
    assert sum(written) <= 2 * lateness * rows  # those in flight, for the values and for their count
    wanted = {
        "quantile": pytest.approx(899, rel=0.01),
        "distinct": 1000,
        "lowest": 0.0,
        "last_n": [float((rows - 2 - lateness) % 1000), float((rows - 1 - lateness) % 1000)],
    }
    assert found[-1] == wanted[what.function.value]


@pytest.mark.parametrize("kernel", [Ranges(), Prefix()], ids=["ranges", "prefix"])
def test_windows_without_rows_and_nothing_at_all(kernel):
    for what in (
        quantile("x", 0.5, "1s"),
        distinct("x", "1s"),
        first("x", "1s"),
        last("x", "1s"),
        last_n("x", 2, "1s"),
    ):
        narrow = what.__class__(what.function, "x", 10, what.size, what.share)
        assert ask(narrow, [100], [1.0], [5, 110, 111], kernel) == [None, None, None]
        assert ask(narrow, [], [], [5], kernel) == [None]
        assert ask(narrow, [100], [1.0], [], kernel) == []
        assert ask(narrow, [100], [math.nan], [109], kernel)[0] is not None
