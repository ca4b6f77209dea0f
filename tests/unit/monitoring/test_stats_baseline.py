"""A baseline is the same bytes for the same rows in any order, and says what each block had that no other had."""

import math
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest

from mainspring.errors import DataError
from mainspring.monitoring.stats.baseline import Baseline
from mainspring.monitoring.stats.blocks import BLOCK_US, block_class, split
from mainspring.monitoring.stats.count import count
from mainspring.monitoring.stats.reference import reference
from mainspring.monitoring.stats.register import Watched, count_table, register
from mainspring.monitoring.stats.rolling import rolled
from mainspring.monitoring.stats.state import merge


@pytest.fixture
def table(days):
    random = np.random.default_rng(0)
    n = 4000
    return days(
        200,
        x=pa.array(random.lognormal(size=n), mask=random.random(n) < 0.1),
        k=pa.array(random.choice(["a", "b", "c"], n)),
        b=pa.array(random.random(n) < 0.2),
    )


def test_the_order_of_the_rows_does_not_change_a_byte(table):
    shuffled = table.take(pa.array(np.random.default_rng(1).permutation(len(table))))
    one, two = (register(rows, "at", ["x", "k", "b"]) for rows in (table, shuffled))
    assert one.to_bytes() == two.to_bytes()
    assert Baseline.from_bytes(one.to_bytes()) == one


def test_count_table_counts_each_block_and_finds_the_reference_itself(table):
    baseline = register(table, "at", ["x", "k", "b"])
    counted = count_table(table, "at", baseline, fine=True)
    for feature in baseline.features:
        states = list(counted[feature.name].values())
        assert list(counted[feature.name]) == list(baseline.starts)
        assert merge(states) == count(table.column(feature.name), feature.layout(), fine=True)
        assert merge(states).fine == feature.fine
        assert [state.counts for state in states] == [state.counts for state in feature.states()]
    assert sum(baseline.rows) == len(table)
    assert set(baseline["k"].names) == {"a", "b", "c"}


@pytest.mark.parametrize("data", [b"", b"nothing", b"MSBL\x02abc", b"MSBL\x01\xc1", b"MSBL\x01\x80"])
def test_other_bytes_are_refused(data):
    with pytest.raises(DataError, match="baseline cannot be read") as caught:
        Baseline.from_bytes(data)
    assert caught.value.code == "MS-2405"


def test_a_missing_column_is_named(table):
    with pytest.raises(DataError, match='no column "y"') as caught:
        register(table, "at", ["y"])
    assert caught.value.code == "MS-2407"
    with pytest.raises(KeyError):
        register(table, "at", ["x"])["y"]


def test_novelty_is_against_the_other_blocks(days):
    rows = days(3, x=[1.0, 2.0, 3.0, 0.0, 2.0, 9.0, 1.0, 3.0, 3.0], k=list("aabaacabd"))
    baseline = register(rows, "at", ["x", "k"])
    assert baseline["x"].novel == (0, 2, 0)
    assert baseline["k"].novel == (0, 1, 1)
    one = register(rows.slice(0, 3), "at", ["x", "k"])
    assert (one["x"].novel, one["k"].novel) == ((0,), (0,))


def test_a_category_that_only_one_block_has_is_unseen_to_the_others(days):
    common = [f"c{i:02}" for i in range(20)] * 3
    rows = days(21, k=[*common[:20], "odd", *common[20:40], "c00", *common[40:], "c00"])
    feature = reference(register(rows, "at", ["k"]), "k")
    assert feature.counts[:, -2].tolist() == [0, 0, 0]
    assert feature.alike[:, -2].tolist() == [1, 0, 0]
    assert feature.alike.sum() == feature.counts.sum() == 63


def test_rows_fall_into_blocks_of_utc_whatever_their_zone():
    late = datetime(2024, 3, 31, 23, 30, tzinfo=UTC)
    instants = [late, datetime(2024, 4, 1, 0, 30, tzinfo=UTC)]
    for kind in (
        pa.timestamp("us", "UTC"),
        pa.timestamp("ms", "Pacific/Auckland"),
        pa.timestamp("ns", "America/New_York"),
    ):
        blocks = split(pa.array(instants, kind), "day")
        assert blocks.starts.tolist() == [
            int(t.timestamp() * 1e6) // BLOCK_US["day"] * BLOCK_US["day"] for t in instants
        ]
    assert split(pa.array([t.replace(tzinfo=None) for t in instants]), "hour").rows.tolist() == [1, 1]
    assert split(pa.array([], pa.timestamp("us")), "day").starts.tolist() == []
    before = split(pa.array([-1], pa.int64()), "day")
    assert before.starts.tolist() == [-BLOCK_US["day"]]


def test_seasons_are_weekdays_and_hours_of_the_week():
    moments = [datetime(2024, 1, 1, 5, tzinfo=UTC), datetime(2024, 1, 7, 23, tzinfo=UTC)]
    starts = np.array([int(moment.timestamp() * 1e6) for moment in moments])
    assert block_class(starts, BLOCK_US["day"]).tolist() == [0, 6]
    assert block_class(starts, BLOCK_US["hour"]).tolist() == [5, 6 * 24 + 23]


def test_empty_null_and_constant_columns_have_a_baseline(days):
    rows = days(10, n=pa.nulls(50, pa.float64()), one=[3.0] * 50, t=pa.nulls(50), nan=[math.nan, math.inf] * 25)
    baseline = register(rows, "at", ["n", "one", "t", "nan"])
    assert Baseline.from_bytes(baseline.to_bytes()) == baseline
    assert reference(baseline, "n").off == reference(baseline, "nan").off == "the reference has no value"
    assert len(reference(baseline, "one").location) == 0
    empty = register(rows.slice(0, 0), "at", ["n", "one", "t"])
    assert reference(empty, "one").off.startswith("0 reference blocks")


def test_the_known_categories_are_capped_by_the_commonest(days, monkeypatch):
    monkeypatch.setattr("mainspring.monitoring.stats.register.KNOWN", 3)
    rows = days(8, k=list("aaabbccd") * 2 + list("aaabbcce"))
    baseline = register(rows, "at", ["k"])
    assert len(baseline["k"].layout().known) == 3
    assert [state.n_unseen for state in baseline["k"].states()] == [1, 1, 1]
    assert baseline["k"].novel == (1, 1, 1)


def test_a_rolling_reference_takes_recent_blocks_on_the_old_cells(table, days):
    baseline = register(table, "at", ["x", "k"])
    recent = days(100, first=40, x=np.arange(500) / 50.0, k=["a", "z"] * 250)
    counted = count_table(recent, "at", baseline, fine=True)
    second = rolled(baseline, counted)
    assert second.rows == (100,) * 5
    assert second["x"].edges == baseline["x"].edges
    assert second["k"].novel == (50,) * 5
    assert sum(second["x"].fine) == 500
    assert reference(second, "k").blocks == 5
    with pytest.raises(DataError, match="same blocks") as caught:
        rolled(baseline, {"x": counted["x"]})
    assert caught.value.code == "MS-2408"


def test_hashed_categories_are_watched_like_the_text_they_stand_for(days):
    words = np.random.default_rng(0).choice(["a", "b", "c"], 60)
    from_text = register(days(20, k=pa.array(words)), "at", ["k"])
    hashes = dict(zip(from_text["k"].names, np.frombuffer(from_text["k"].common, "<u8"), strict=True))
    from_log = register(
        days(20, k=pa.array([int(hashes[w]) for w in words], pa.uint64())), "at", [Watched("k", "hash")]
    )
    assert from_log["k"].common == from_text["k"].common
    assert [s.counts for s in from_log["k"].states()] == [s.counts for s in from_text["k"].states()]


def test_late_rows_join_the_block_of_their_event_time(table):
    baseline = register(table, "at", ["x", "k"])
    late = np.random.default_rng(3).random(len(table)) < 0.1
    first, second = (table.filter(pa.array(rows)) for rows in (~late, late))
    whole = count_table(table, "at", baseline, fine=True)
    in_time, afterwards = (count_table(part, "at", baseline, fine=True) for part in (first, second))
    for name in ("x", "k"):
        for start, state in whole[name].items():
            parts = [part[name][start] for part in (afterwards, in_time) if start in part[name]]
            assert merge(parts) == state
