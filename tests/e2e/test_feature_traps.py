"""Every trap of the specification of features by its name, each with its stated answer or a clear refusal.

What random programs find is tested elsewhere (`test_mutants`, `test_history_oracle`, `test_corrections`); here each
trap is told apart, offline and online, in one project. Elsewhere, as they need more than that: an empty view
(`test_an_empty_log_and_an_empty_spine`), a million equal keys (`test_stretches`), a schema that changes between
files (`test_one_file_may_not_hold_another_type_than_the_next`, `test_a_column_that_one_file_lacks`), two
materialisations at once (`test_who_comes_while_another_is_at_it_waits_and_finds_it_done`), a stale plan and a feature
that is removed while its rows are alive (`test_migrating`), memory and what a read costs (`bench/memory.py`,
`bench/beside_feast.py`).
"""

from __future__ import annotations

import itertools
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from e2e.conftest import mainspring
from mainspring import FeatureStore, feature_store
from mainspring.declare.record import ColumnType, Kind
from mainspring.errors import MainspringError
from mainspring.features.cast import Reading, UnfitError, cast_column

AT = datetime(2025, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
LONG = "k" * 600
NUMBERS = itertools.count()
APP = """
from datetime import datetime

from mainspring import App, Entity, Record, count, last, last_n, total

app = App("traps")
key, left, right = Entity("key"), Entity("left"), Entity("right")


class Seen(Record):
    key: str
    x: float | None
    n: int | None
    at: datetime


class Pair(Record):
    left: str
    right: str
    n: int | None
    at: datetime


class Span(Record):
    key: str
    n: int | None
    at: datetime
    until: datetime | None


seen = app.source(Seen, time="at")
pairs = app.source(Pair, time="at")
spans = app.source(Span, time="at", valid_to="until")
newest = app.features(seen, entity=key, ttl="3h", x=last("x"), n=last("n"))
ever = app.features(seen, entity=key, whole=last("n"))
windows = app.features(seen, entity=key, seen_1h=count("1h"), sum=total("x", "1h"), lasts=last_n("n", 3, "1h"))
both = app.features(pairs, entity=(left, right), pn=last("n"))
held = app.features(spans, entity=key, sn=last("n"))
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FeatureStore]:
    folder = tmp_path_factory.mktemp("traps")
    (folder / "data").mkdir()
    (folder / "traps.py").write_text(APP)
    names = ("seen", "pairs", "spans")
    places = "".join(f'[sources.{name}]\npath = "data/{name}*.parquet"\n' for name in names)
    (folder / "mainspring.toml").write_text(f'app = "traps:app"\n{places}')
    us, ms = pa.timestamp("us", "UTC"), pa.timestamp("ms", "Asia/Tokyo")
    first = {"key": ["unit"], "x": [1.0], "n": [1], "at": pa.array([AT], us)}
    second = {"key": ["unit"], "x": [2.0], "n": [2], "at": pa.array([AT + HOUR], ms)}
    pq.write_table(pa.table(first), folder / "data" / "seen1.parquet")
    pq.write_table(pa.table(second), folder / "data" / "seen2.parquet")
    pq.write_table(
        pa.table({"left": ["l"], "right": ["r"], "n": [0], "at": pa.array([AT], us)}), folder / "data" / "pairs.parquet"
    )
    spans = {"key": ["span"], "n": [1], "at": pa.array([AT], us), "until": pa.array([AT + HOUR], us)}
    pq.write_table(pa.table(spans), folder / "data" / "spans.parquet")
    mainspring("apply", cwd=folder)
    with feature_store(folder) as opened:
        yield opened
    sys.modules.pop("traps", None)
    sys.path.remove(str(folder))


def fresh() -> str:
    return f"fresh{next(NUMBERS)}"


def push(store: FeatureStore, key: str, *rows: tuple[datetime, float | None, int | None]) -> None:
    store.push("seen", [{"key": key, "x": x, "n": n, "at": at} for at, x, n in rows])


def offline(store: FeatureStore, inputs: Sequence[str], at: datetime, **keys: object) -> dict[str, Any]:
    """As is known now: these rows are pushed long after they happened."""
    spine = {**{name: [value] for name, value in keys.items()}, "at": [at]}
    (row,) = store.history(list(inputs), spine, as_known=False, status=True).arrow().to_pylist()
    return {name: value for name, value in row.items() if name not in (*keys, "at")}


def online(store: FeatureStore, inputs: Sequence[str], at: datetime, **keys: object) -> dict[str, Any]:
    rows = store.online(list(inputs), [keys], now=at)
    status = {f"{name}__status": rows.status(name)[0] for name in inputs}
    return {**rows.dicts()[0], **status}


def both_ways(store: FeatureStore, inputs: Sequence[str], at: datetime, **keys: object) -> dict[str, Any]:
    """The answer online, which is the one offline."""
    found = online(store, inputs, at, **keys)
    known = offline(store, inputs, at, **keys)
    assert repr(found) == repr({name: known[name] for name in found})
    return found


# -- time -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "column",
    [pa.array([date(2025, 3, 1)]), pa.array([datetime(2025, 3, 1)], pa.timestamp("us"))],
    ids=["date", "timestamp"],
)
def test_date_and_timestamp_of_which_zone(column: pa.Array) -> None:
    """Neither is a moment without a zone; with one, a date is its midnight there."""
    moment = ColumnType(Kind.TIMESTAMP)
    with pytest.raises(UnfitError, match="no zone"):
        cast_column(pa.chunked_array([column]), moment, Reading())
    found = cast_column(pa.chunked_array([column]), moment, Reading(zone="America/New_York")).to_pylist()
    assert found == [datetime(2025, 3, 1, 5, tzinfo=UTC)]


def test_the_zone_of_the_session_changes_nothing(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = ["newest", "windows"]
    base = both_ways(store, inputs, AT + HOUR, key="unit")
    try:
        monkeypatch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        assert both_ways(store, inputs, AT + HOUR, key="unit") == base
    finally:
        monkeypatch.undo()
        time.tzset()
    assert base["newest__status"] == "PRESENT"


@pytest.mark.parametrize(
    "kind", [pa.timestamp("ms", "UTC"), pa.timestamp("s", "UTC"), pa.timestamp("us", "Asia/Tokyo")]
)
def test_mixed_units_and_zones_are_one_moment(store: FeatureStore, kind: pa.DataType) -> None:
    """One file has milliseconds of Tokyo, the other microseconds of UTC; a spine comes back as it was."""
    spine = pa.table({"key": ["unit", "unit"], "at": pa.array([AT, AT + HOUR], pa.timestamp("us", "UTC")).cast(kind)})
    found = store.history(["newest"], spine).arrow()
    assert found.column("n").to_pylist() == [1, 2]
    assert found.column("at").type == kind


def test_nanoseconds_and_naive_moments_of_a_spine_are_refused(store: FeatureStore) -> None:
    for kind in (pa.timestamp("ns", "UTC"), pa.timestamp("us")):
        spine = pa.table({"key": ["unit"], "at": pa.array([0], kind)})
        with pytest.raises(MainspringError) as caught:
            store.history(["newest"], spine)
        assert caught.value.fix


def test_a_skewed_clock_knows_nothing_before_it_happened(store: FeatureStore) -> None:
    """Files are known from their events on, so what arrived by a slow clock before it happened answers from then on."""
    found = store.history(["newest"], {"key": ["unit"] * 2, "at": [AT - timedelta(microseconds=1), AT]}, status=True)
    assert found.arrow().column("newest__status").to_pylist() == ["MISSING", "PRESENT"]


# -- values -----------------------------------------------------------------------------------------------------------


def test_whole_numbers_over_2_to_the_53_survive_a_missed_match(store: FeatureStore) -> None:
    key, great = fresh(), 2**53 + 1
    push(store, key, (AT, None, great))
    spine = {"key": [key, "nobody", None], "at": [AT] * 3}
    assert store.history(["ever"], spine, as_known=False).arrow().column("whole").to_pylist() == [great, None, None]
    assert both_ways(store, ["ever"], AT, key=key)["whole"] == great
    assert store.online(["ever"], [{"key": key}, {"key": "nobody"}], now=AT).columns()["whole"] == [great, None]


def test_minus_zero_stays_minus_zero(store: FeatureStore) -> None:
    key = fresh()
    push(store, key, (AT, -0.0, None))
    assert math.copysign(1, both_ways(store, ["newest"], AT, key=key)["x"]) == -1


def test_nan_before_the_window_spoils_nothing(store: FeatureStore) -> None:
    key = fresh()
    push(store, key, (AT, math.nan, 1), (AT + HOUR, 2.0, 2))
    assert math.isnan(both_ways(store, ["windows"], AT, key=key)["sum"])
    assert both_ways(store, ["windows"], AT + HOUR, key=key)["sum"] == 2.0


def test_an_empty_window_counts_0_and_lists_nothing(store: FeatureStore) -> None:
    key = fresh()
    push(store, key, (AT, 1.0, 1))
    found = both_ways(store, ["windows"], AT + 5 * HOUR, key=key)
    assert (found["seen_1h"], found["sum"], found["lasts"]) == (0, None, None)


@pytest.mark.parametrize(
    "encode",
    [lambda a: a.dictionary_encode(), lambda a: a.cast(pa.large_string()), lambda a: a.cast(pa.string_view())],
    ids=["dictionary", "large", "view"],
)
def test_dictionary_large_and_view_strings_are_keys(
    store: FeatureStore, encode: Callable[[pa.Array], pa.Array]
) -> None:
    spine = pa.table({"key": encode(pa.array(["unit", None])), "at": pa.array([AT] * 2, pa.timestamp("us", "UTC"))})
    found = store.history(["newest"], spine).arrow()
    assert found.column("n").to_pylist() == [1, None]
    assert found.column("key").type == spine.column("key").type, "untouched"


def test_ab_c_is_not_a_bc(store: FeatureStore) -> None:
    rows = [{"left": "ab", "right": "c", "n": 1, "at": AT}, {"left": "a", "right": "bc", "n": 2, "at": AT}]
    store.push("pairs", rows)
    assert both_ways(store, ["both"], AT, left="ab", right="c")["pn"] == 1
    assert both_ways(store, ["both"], AT, left="a", right="bc")["pn"] == 2
    assert both_ways(store, ["both"], AT, left="abc", right="")["both__status"] == "MISSING"


def test_a_key_of_600_bytes(store: FeatureStore) -> None:
    push(store, LONG, (AT, 1.0, 7))
    assert both_ways(store, ["newest"], AT, key=LONG)["n"] == 7
    assert both_ways(store, ["newest"], AT, key=LONG + "k")["newest__status"] == "MISSING"


# -- shapes -----------------------------------------------------------------------------------------------------------


def test_an_empty_spine_has_its_columns(store: FeatureStore) -> None:
    spine = pa.table({"key": pa.array([], pa.string()), "at": pa.array([], pa.timestamp("us", "UTC"))})
    found = store.history(["newest", "windows"], spine).arrow()
    assert (len(found), found.schema.field("n").type, found.schema.field("seen_1h").type) == (0, pa.int64(), pa.int64())
    assert store.online(["newest"], {"key": []}, now=AT).dicts() == []


def test_of_two_views_one_is_all_expired(store: FeatureStore) -> None:
    """Its values are null, the other's are there, and no row is dropped."""
    found = both_ways(store, ["newest", "ever"], AT + 5 * HOUR, key="unit")
    assert (found["newest__status"], found["n"], found["ever__status"], found["whole"]) == (
        "EXPIRED",
        None,
        "PRESENT",
        2,
    )


def test_a_limit_without_an_order_is_refused(store: FeatureStore) -> None:
    """Also where it is deep inside; the same question would have other rows."""
    deep = 'select * from (select key, "at" from seen limit 1) order by key'
    for sql in ('select key, "at" from seen limit 1', deep):
        with pytest.raises(MainspringError) as caught:
            store.history(["newest"], sql)
        assert (caught.value.code, "order" in caught.value.fix) == ("MS-2291", True)
    push(store, "zzz", (AT, 1.0, 26))
    found = store.history(["newest"], 'select key, "at" from seen order by key desc, "at" desc limit 1', as_known=False)
    assert found.arrow().column("n").to_pylist() == [26]


def test_materialising_twice_changes_nothing(store: FeatureStore) -> None:
    base = both_ways(store, ["newest"], AT + HOUR, key="unit")
    for full in (False, True, False):
        store.materialise("newest", full=full)
        assert both_ways(store, ["newest"], AT + HOUR, key="unit") == base


def test_a_key_twice_in_a_batch_answers_with_the_newest(store: FeatureStore) -> None:
    """Wherever it stands in the batch, and of equal moments the later one."""
    key, other = fresh(), fresh()
    store.push("seen", [{"key": key, "x": None, "n": n, "at": AT + n * HOUR} for n in (2, 0, 1)])
    store.push("seen", [{"key": other, "x": None, "n": n, "at": AT} for n in (1, 2)])
    assert both_ways(store, ["newest"], AT + 2 * HOUR, key=key)["n"] == 2
    assert both_ways(store, ["newest"], AT, key=other)["n"] == 2


# -- what Feast's users complain of -----------------------------------------------------------------------------------


def test_ttl_holds_online(store: FeatureStore) -> None:
    key = fresh()
    push(store, key, (AT, 1.0, 1))
    assert both_ways(store, ["newest"], AT + 3 * HOUR, key=key)["newest__status"] == "PRESENT"
    expired = both_ways(store, ["newest"], AT + 3 * HOUR + timedelta(microseconds=1), key=key)
    assert (expired["newest__status"], expired["n"]) == ("EXPIRED", None)


def test_an_older_push_does_not_win(store: FeatureStore) -> None:
    key = fresh()
    push(store, key, (AT + HOUR, 2.0, 2))
    push(store, key, (AT, 1.0, 1))
    assert both_ways(store, ["newest"], AT + HOUR, key=key)["n"] == 2


def test_no_label_row_is_dropped_or_doubled_or_moved(store: FeatureStore) -> None:
    keys = ["nobody", "unit", None, "unit", "unit", "nobody"]
    spine = pl.DataFrame({"key": keys, "at": [AT + HOUR] * 6, "label": [1, 0, 1, 1, 0, 0]})
    found = store.history(["newest", "windows"], spine).polars()
    assert found.select("key", "at", "label").equals(spine)
    assert found["n"].to_list() == [None, 2, None, 2, 2, None]


def test_a_future_row_blocks_no_increment(store: FeatureStore) -> None:
    """It is in the log at once, answers when it is due, and what comes after it by the clock before it is taken."""
    key = fresh()
    push(store, key, (AT + timedelta(days=40_000), 9.0, 9))
    push(store, key, (AT, 1.0, 1))
    store.materialise("newest")
    assert online(store, ["newest"], AT, key=key)["n"] == 1
    assert offline(store, ["newest"], AT, key=key)["n"] == 1


def test_slowly_changing_rows_end_when_they_say(store: FeatureStore) -> None:
    assert both_ways(store, ["held"], AT, key="span")["sn"] == 1
    ended = both_ways(store, ["held"], AT + HOUR, key="span")
    assert (ended["held__status"], ended["sn"]) == ("EXPIRED", None)


def test_a_window_is_open_at_its_old_end_and_moves_with_the_moment(store: FeatureStore) -> None:
    key = fresh()
    push(store, key, (AT, 1.0, 1), (AT + HOUR, 2.0, 2))
    found = [
        both_ways(store, ["windows"], AT + HOUR + timedelta(microseconds=us), key=key)["seen_1h"] for us in (-1, 0)
    ]
    assert found == [1, 1]


def test_rows_are_had_without_naming_entities(store: FeatureStore) -> None:
    observed = store.history(["newest"], (AT, AT + 2 * HOUR)).polars().filter(pl.col("key") == "unit")
    assert observed.sort("at")["n"].to_list() == [1, 2]
    assert "unit" in store.history(["ever"], "latest").polars()["key"].to_list()


def test_what_was_pushed_is_offline_too(store: FeatureStore) -> None:
    key = fresh()
    push(store, key, (AT, 1.0, 5))
    now = datetime.now(UTC)
    found = store.history(["ever"], {"key": [key] * 2, "at": [AT, now]}).arrow().column("whole").to_pylist()
    assert found == [None, 5], "as it was known then: it came just now"
