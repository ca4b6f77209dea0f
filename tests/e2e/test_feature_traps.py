"""Traps of the specification of features that a project meets as a whole, each offline and online.

The others are in `unit/features/test_traps.py`, which sees that each has a test, or in the file of what they are about.
"""

from __future__ import annotations

import itertools
import math
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from e2e.conftest import mainspring
from mainspring import FeatureStore, feature_store
from mainspring.errors import MainspringError

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


def test_session_zone(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trap: session zone: where the process lives moves no answer."""
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
def test_mixed_units(store: FeatureStore, kind: pa.DataType) -> None:
    """Trap: mixed units: a file of milliseconds of Tokyo, one of microseconds of UTC; a spine is untouched."""
    spine = pa.table({"key": ["unit", "unit"], "at": pa.array([AT, AT + HOUR], pa.timestamp("us", "UTC")).cast(kind)})
    found = store.history(["newest"], spine).arrow()
    assert found.column("n").to_pylist() == [1, 2]
    assert found.column("at").type == kind


def test_nanoseconds_and_naive_moments_of_a_spine_are_refused(store: FeatureStore) -> None:
    """What a moment of microseconds cannot hold is refused, with what to do."""
    for kind in (pa.timestamp("ns", "UTC"), pa.timestamp("us")):
        spine = pa.table({"key": ["unit"], "at": pa.array([0], kind)})
        with pytest.raises(MainspringError) as caught:
            store.history(["newest"], spine)
        assert caught.value.fix


# -- values -----------------------------------------------------------------------------------------------------------


def test_int64_over_2_to_the_53_through_a_missed_match(store: FeatureStore) -> None:
    """Trap: int64 over 2^53 through a missed match: a null beside it makes no float of it."""
    key, great = fresh(), 2**53 + 1
    push(store, key, (AT, None, great))
    spine = {"key": [key, "nobody", None], "at": [AT] * 3}
    assert store.history(["ever"], spine, as_known=False).arrow().column("whole").to_pylist() == [great, None, None]
    assert both_ways(store, ["ever"], AT, key=key)["whole"] == great
    assert store.online(["ever"], [{"key": key}, {"key": "nobody"}], now=AT).columns()["whole"] == [great, None]


def test_minus_zero(store: FeatureStore) -> None:
    """Trap: -0.0: it comes back as it went in."""
    key = fresh()
    push(store, key, (AT, -0.0, None))
    assert math.copysign(1, both_ways(store, ["newest"], AT, key=key)["x"]) == -1


def test_nan_before_the_window(store: FeatureStore) -> None:
    """Trap: NaN before the window: it spoils totals only while it is inside."""
    key = fresh()
    push(store, key, (AT, math.nan, 1), (AT + HOUR, 2.0, 2))
    assert math.isnan(both_ways(store, ["windows"], AT, key=key)["sum"])
    assert both_ways(store, ["windows"], AT + HOUR, key=key)["sum"] == 2.0


def test_an_empty_window_counts_0_and_lists_nothing(store: FeatureStore) -> None:
    key = fresh()
    push(store, key, (AT, 1.0, 1))
    found = both_ways(store, ["windows"], AT + 5 * HOUR, key=key)
    assert (found["seen_1h"], found["sum"], found["lasts"]) == (0, None, None)


def test_ab_c_against_a_bc(store: FeatureStore) -> None:
    """Trap: ("ab", "c") against ("a", "bc"): two keys."""
    rows = [{"left": "ab", "right": "c", "n": 1, "at": AT}, {"left": "a", "right": "bc", "n": 2, "at": AT}]
    store.push("pairs", rows)
    assert both_ways(store, ["both"], AT, left="ab", right="c")["pn"] == 1
    assert both_ways(store, ["both"], AT, left="a", right="bc")["pn"] == 2
    assert both_ways(store, ["both"], AT, left="abc", right="")["both__status"] == "MISSING"


# -- shapes -----------------------------------------------------------------------------------------------------------


def test_one_of_two_views_all_expired(store: FeatureStore) -> None:
    """Trap: one of two views all expired: its values are null, the other's are there, and no row is dropped."""
    found = both_ways(store, ["newest", "ever"], AT + 5 * HOUR, key="unit")
    assert (found["newest__status"], found["n"], found["ever__status"], found["whole"]) == (
        "EXPIRED",
        None,
        "PRESENT",
        2,
    )


def test_limit_without_order_by_in_a_spine(store: FeatureStore) -> None:
    """As in the SQL of a view, also where it is deep inside; the same question would have other rows."""
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


def test_a_key_twice_in_a_batch(store: FeatureStore) -> None:
    """Trap: a key twice in a batch: the newest answers wherever it stands, of equal moments the later one."""
    key, other = fresh(), fresh()
    store.push("seen", [{"key": key, "x": None, "n": n, "at": AT + n * HOUR} for n in (2, 0, 1)])
    store.push("seen", [{"key": other, "x": None, "n": n, "at": AT} for n in (1, 2)])
    assert both_ways(store, ["newest"], AT + 2 * HOUR, key=key)["n"] == 2
    assert both_ways(store, ["newest"], AT, key=other)["n"] == 2


# -- what Feast's users complain of -----------------------------------------------------------------------------------


def test_ttl_ignored_online(store: FeatureStore) -> None:
    """Trap (Feast #6821): ttl ignored online: what is too old is EXPIRED and null, to the microsecond as offline."""
    key = fresh()
    push(store, key, (AT, 1.0, 1))
    assert both_ways(store, ["newest"], AT + 3 * HOUR, key=key)["newest__status"] == "PRESENT"
    expired = both_ways(store, ["newest"], AT + 3 * HOUR + timedelta(microseconds=1), key=key)
    assert (expired["newest__status"], expired["n"]) == ("EXPIRED", None)


def test_older_push_wins(store: FeatureStore) -> None:
    """Trap (Feast): older push wins: here the newest event answers, whenever it came."""
    key = fresh()
    push(store, key, (AT + HOUR, 2.0, 2))
    push(store, key, (AT, 1.0, 1))
    assert both_ways(store, ["newest"], AT + HOUR, key=key)["n"] == 2


def test_label_rows_dropped(store: FeatureStore) -> None:
    """Trap (Feast): label rows dropped: each comes back once, in order, known or not, twice or not."""
    keys = ["nobody", "unit", None, "unit", "unit", "nobody"]
    spine = pl.DataFrame({"key": keys, "at": [AT + HOUR] * 6, "label": [1, 0, 1, 1, 0, 0]})
    found = store.history(["newest", "windows"], spine).polars()
    assert found.select("key", "at", "label").equals(spine)
    assert found["n"].to_list() == [None, 2, None, 2, 2, None]


def test_no_scd2(store: FeatureStore) -> None:
    """Trap (Feast #4162): no SCD2: a row answers from its event until its end, the end excluded."""
    assert both_ways(store, ["held"], AT, key="span")["sn"] == 1
    ended = both_ways(store, ["held"], AT + HOUR, key="span")
    assert (ended["held__status"], ended["sn"]) == ("EXPIRED", None)


def test_windows(store: FeatureStore) -> None:
    """Trap (Feast #5329): windows: open at the old end, and they move with the moment."""
    key = fresh()
    push(store, key, (AT, 1.0, 1), (AT + HOUR, 2.0, 2))
    found = [
        both_ways(store, ["windows"], AT + HOUR + timedelta(microseconds=us), key=key)["seen_1h"] for us in (-1, 0)
    ]
    assert found == [1, 1]


def test_scan_without_entities(store: FeatureStore) -> None:
    """Trap (Feast #1611): scan without entities: what was observed in a time, and the latest of all."""
    observed = store.history(["newest"], (AT, AT + 2 * HOUR)).polars().filter(pl.col("key") == "unit")
    assert observed.sort("at")["n"].to_list() == [1, 2]
    assert "unit" in store.history(["ever"], "latest").polars()["key"].to_list()
