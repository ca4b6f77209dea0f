"""The traps of the specification (features, part 12) by name; other tests say theirs in their docstrings."""

import os
import time
from datetime import UTC, date, datetime

import numpy as np
import pyarrow as pa
import pytest

from mainspring.adapters.lmdb.online_store import open_store
from mainspring.adapters.lmdb.settings import LmdbSettings
from mainspring.declare.aggregate import avg, count, distinct, last, last_n, total
from mainspring.declare.frame import Frame
from mainspring.declare.record import ColumnType, FieldSpec, Kind
from mainspring.errors import UserCodeError
from mainspring.features import decorated
from mainspring.features.cast import Reading, UnfitError, cast_column
from mainspring.features.history import history_of
from mainspring.features.online.keys import key_packer
from mainspring.features.online.plan import compile_plan
from mainspring.features.online.write import upsert
from mainspring.features.view import pick
from mainspring.ports.tables import Limits
from unit.features.offline.oracle import Row
from unit.features.offline.tables import GRID, Folder, a_view, log_table, spine_table
from unit.features.online.test_corrections import LOOSE, NOW, SECOND, START, Project

MOMENT = ColumnType(Kind.TIMESTAMP)
"""A column that holds a moment."""


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


@pytest.fixture
def project(tmp_path):
    made = Project(tmp_path, LOOSE)
    yield made
    made.store.close()


@pytest.fixture
def store(tmp_path):
    made = open_store(LmdbSettings(map_size=1 << 24), tmp_path)
    yield made
    made.close()


def ask(folder, view, rows, spine, **options):
    folder.write(log_table(view, rows))
    wanted = {"as_known": True, "names": "short", "status": True, "versions": {}} | options
    views = view if isinstance(view, list) else [view]
    return history_of(folder, views, spine if isinstance(spine, Frame) else Frame(spine_table(spine)), "at", **wanted)


# -- times ------------------------------------------------------------------------------------------------------------


def test_date_of_which_zone():
    """Trap: DATE of which zone."""
    day = pa.chunked_array([pa.array([date(2024, 7, 1)])])
    with pytest.raises(UnfitError, match="zone"):
        cast_column(day, MOMENT, Reading())
    (found,) = cast_column(day, MOMENT, Reading(False, "America/New_York")).to_pylist()
    assert found == datetime(2024, 7, 1, 4, tzinfo=UTC)


def test_timestamp_against_timestamptz():
    """Trap: TIMESTAMP against TIMESTAMPTZ: without a zone it is no moment, with one it is, whichever zone it is."""
    with pytest.raises(UnfitError, match="zone"):
        cast_column(pa.chunked_array([pa.array([0], pa.timestamp("us"))]), MOMENT, Reading())
    for zone in ("UTC", "Asia/Kathmandu"):
        column = pa.chunked_array([pa.array([1_700_000_000_000_000], pa.timestamp("us", zone))])
        assert cast_column(column, MOMENT, Reading()).cast(pa.int64()).to_pylist() == [1_700_000_000_000_000]


def test_mixed_units():
    """Trap: mixed units: the same moment in seconds, milli- and microseconds; nanoseconds that would be cut off not."""
    for unit, value in (("s", 1_700_000_000), ("ms", 1_700_000_000_000), ("us", 1_700_000_000_000_000)):
        column = pa.chunked_array([pa.array([value], pa.timestamp(unit, "UTC"))])
        assert cast_column(column, MOMENT, Reading()).cast(pa.int64()).to_pylist() == [1_700_000_000_000_000]
    with pytest.raises(UnfitError):
        cast_column(pa.chunked_array([pa.array([1], pa.timestamp("ns", "UTC"))]), MOMENT, Reading())


def test_session_zone(folder, monkeypatch):
    """Trap: session zone: where the process lives moves no answer."""
    view, rows = a_view({"px": last("x"), "n1": count("20m")}), [Row("a", n * GRID, n * GRID, n) for n in range(9)]
    asked = [("a", n * GRID // 2) for n in range(-2, 20)]
    here = ask(folder, view, rows, asked).arrow()
    for zone in ("America/New_York", "Asia/Kathmandu"):
        with monkeypatch.context() as patch:
            patch.setitem(os.environ, "TZ", zone)
            time.tzset()
            assert ask(folder, view, rows, asked).arrow().equals(here)
    time.tzset()


def test_skewed_clocks(project):
    """Trap: skewed clocks: a row that came before it happened answers from when it happened on, on both paths."""
    project.push(("a", 1.0, 100), known=START)
    assert project.both("a", START + 99 * SECOND)[1] == ["MISSING", "MISSING"]
    assert project.both("a", START + 100 * SECOND)[0]["amount"] == 1.0


# -- values and keys --------------------------------------------------------------------------------------------------


def test_int64_over_2_to_the_53_through_a_missed_match(folder):
    """Trap: int64 over 2^53 through a missed match: a null beside it makes no float of it."""
    view, large = a_view({"pn": last("n"), "sum": total("n", "1h")}), (1 << 53) + 1
    found = ask(folder, view, [Row("a", 0, 0, 0, {"n": large})], [("a", GRID), ("zz", GRID), (None, GRID)]).arrow()
    assert found.column("pn").type == found.column("sum").type == pa.int64()
    assert found.column("pn").to_pylist() == found.column("sum").to_pylist() == [large, None, None]


def test_minus_zero(folder):
    """Trap: -0.0: it comes back as it went in, and is no other value than 0.0."""
    view = a_view({"px": last("x"), "kinds": distinct("x", "1h")})
    rows = [Row("a", n, n, n, {"x": x}) for n, x in enumerate((0.0, -0.0))]
    (found,) = ask(folder, view, rows, [("a", GRID)]).arrow().to_pylist()
    assert (str(found["px"]), found["kinds"]) == ("-0.0", 1)


def test_nan_before_the_window(folder):
    """Trap: NaN before the window: it spoils totals only while it is inside."""
    view = a_view({"sum": total("x", "20m"), "mean": avg("x", "20m")})
    rows = [Row("a", n * GRID, n * GRID, n, {"x": x}) for n, x in enumerate((float("nan"), 1.0, 2.0))]
    one, two = ask(folder, view, rows, [("a", GRID), ("a", 2 * GRID)]).arrow().to_pylist()
    assert np.isnan([one["sum"], one["mean"]]).all()
    assert (two["sum"], two["mean"]) == (3.0, 1.5)


def test_empty_list(folder):
    """Trap: empty list: a window without rows has no list, and lists of the spine come back untouched."""
    view = a_view({"newest": last_n("x", 3, "20m")})
    spine = pa.table({"k": ["a", "b"], "at": pa.array([0, 0], pa.timestamp("us", "UTC")), "tags": [[], ["x"]]})
    found = ask(folder, view, [Row("b", 0, 0, 0, {"x": None})], Frame(spine)).arrow()
    assert found.column("newest").to_pylist() == [None, [None]]
    assert found.column("tags").equals(spine.column("tags"))


@pytest.mark.parametrize("kind", [pa.dictionary(pa.int8(), pa.string()), pa.large_string(), pa.string_view()])
def test_dictionary_large_and_view_strings(folder, kind):
    """Trap: dictionary, large, view strings: a key is its text, however it is held, and its column stays that."""
    key = pa.array(["a", None, "é"]).cast(kind) if kind != pa.string_view() else pa.array(["a", None, "é"], kind)
    spine = pa.table({"k": key, "at": pa.array([GRID] * 3, pa.timestamp("us", "UTC"))})
    rows = [Row("a", 0, 0, 0, {"x": 1.0}), Row("é", 0, 0, 1, {"x": 2.0})]
    found = ask(folder, a_view({"px": last("x")}), rows, Frame(spine)).arrow()
    assert found.column("px").to_pylist() == [1.0, None, 2.0]
    assert found.column("k").type == kind


def test_ab_c_against_a_bc(folder):
    """Trap: ("ab", "c") against ("a", "bc"): two keys, offline and in the bytes that they are online."""
    keys = tuple(FieldSpec(name, ColumnType(Kind.STRING)) for name in ("k", "l"))
    pack = key_packer(1, keys)
    assert pack({"k": "ab", "l": "c"}) != pack({"k": "a", "l": "bc"})
    view = a_view({"px": last("x")}, keys=("k", "l"))
    rows = [Row(("ab", "c"), 0, 0, 0, {"x": 1.0}), Row(("a", "bc"), 0, 0, 1, {"x": 2.0})]
    at = pa.array([0] * 3, pa.timestamp("us", "UTC"))
    spine = Frame(pa.table({"k": ["ab", "a", "abc"], "l": ["c", "bc", ""], "at": at}))
    assert ask(folder, view, rows, spine).arrow().column("px").to_pylist() == [1.0, 2.0, None]


def test_600_byte_key(project):
    """Trap: 600-byte key: LMDB holds 511; one that differs in its last byte is another one."""
    one, other = "é" * 299 + "ab", "é" * 299 + "ac"
    project.push((one, 1.0, 0), (other, 2.0, 0))
    assert project.both(one, NOW)[0]["amount"] == 1.0
    assert project.both(other, NOW)[0]["amount"] == 2.0


# -- rows and definitions ---------------------------------------------------------------------------------------------


def test_empty_spine_or_view(folder):
    """Trap: empty spine or view: columns of the right types and no row; a row for each question and nothing known."""
    view = a_view({"px": last("x"), "n1": count("1h")})
    for rows, asked in (([], []), ([Row("a", 0, 0, 0)], []), ([], [("a", 0)])):
        found = ask(folder, view, rows, asked).arrow()
        assert found.column("px").type == pa.float64()
        wanted = {"px": None, "n1": 0, "v__status": "MISSING", "v__event_time": None}
        assert [{name: row[name] for name in wanted} for row in found.to_pylist()] == [wanted] * len(asked)


def test_one_of_two_views_all_expired(project):
    """Trap: one of two views all expired: its columns are null, and the other view's and the spine's rows stay."""
    project.push(("a", 1.0, 0), ("b", 2.0, 0))
    one, two = project.views
    spine = Frame(pa.table({"customer": ["a", "b", "a"], "at": pa.array([NOW] * 3, pa.timestamp("us", "UTC"))}))
    short = two.__class__(**{name: getattr(two, name) for name in two.__slots__} | {"ttl_us": SECOND})
    found = history_of(project.tables, [one, short], spine, "at", True, "full", True, {}).arrow()
    assert found.column("newest__status").to_pylist() == ["EXPIRED"] * 3
    assert found.column("newest__amount").null_count == 3
    assert found.column("habits__recent").to_pylist() == [1.0, 2.0, 1.0]


@pytest.mark.parametrize(
    "sql",
    [
        "select * from visits limit 5",
        "select * from (select customer, amount from visits offset 3) t",
        "with few as (select * from visits limit 10 percent) select * from few",
        "select distinct on (customer) customer, amount from visits",
        "select * from visits where amount = (select amount from visits limit 1)",
        "select * from visits using sample 50 percent",
        "select * from visits tablesample reservoir(1 rows)",
    ],
)
def test_limit_without_order_by(sql):
    """Trap: `limit` without `order by`: which rows it takes is chance, so it is refused before it is trained on."""

    def view():
        return sql

    tables = {"visits": pa.table({"customer": ["a", "b"], "at": [1, 2], "amount": [1.0, 2.0]})}
    with pytest.raises(UserCodeError) as caught:
        decorated.call(view, tables, "v")
    assert caught.value.code == "MS-2290"
    assert "order by" in caught.value.fix


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        ("select * from visits order by customer limit 1", 1),
        ("select distinct on (customer) * from visits order by customer, amount desc", 2),
        ("select distinct customer from visits", 2),
        ("select customer, 'limit 5' as word from visits", 2),
    ],
)
def test_limit_with_order_by_is_let_through(sql, rows):
    tables = {"visits": pa.table({"customer": ["a", "b"], "at": [1, 2], "amount": [1.0, 2.0]})}
    assert len(decorated.call(lambda: sql, tables, "v")) == rows


def test_a_key_twice_in_a_batch(project):
    """Trap: a key twice in a batch: the newest event answers, in whatever order they come."""
    project.push(("a", 2.0, 20), ("a", 1.0, 10), ("b", 1.0, 10), ("b", 2.0, 20))
    for name in ("a", "b"):
        assert project.both(name, NOW)[0] == {"n": 0, "sum": None, "recent": 2.0, "amount": 2.0}


def test_stale_plan_and_feature_removed_with_rows_alive(store):
    """Traps: stale plan; feature removed with rows alive: each definition reads its own rows, and no other's."""
    wide, narrow = a_view({"px": last("x"), "pn": last("n")}), a_view({"pn": last("n")})
    narrow = narrow.__class__(**{name: getattr(narrow, name) for name in narrow.__slots__} | {"id": 2})
    stale = compile_plan(store, [pick(wide)])
    upsert(wide, store, log_table(wide, [Row("a", 0, 0, 0, {"x": 1.0, "n": 7})]), GRID)
    fresh = compile_plan(store, [pick(narrow)])
    assert fresh.read_one({"k": "a"}, GRID) == ([None], {"v": "MISSING"})
    upsert(narrow, store, log_table(narrow, [Row("a", 0, 0, 0, {"n": 8})]), GRID)
    assert fresh.read_one({"k": "a"}, GRID) == ([8], {"v": "PRESENT"})
    assert stale.read_one({"k": "a"}, GRID) == ([1.0, 7], {"v": "PRESENT"})


# -- what Feast's users complain of -----------------------------------------------------------------------------------


def test_ttl_ignored_online(folder, store):
    """Trap (Feast #6821): ttl ignored online: what is too old is EXPIRED and null, to the microsecond as offline."""
    view, rows = a_view({"px": last("x")}, ttl=GRID), [Row("a", 0, 0, 0, {"x": 1.0})]
    plan = compile_plan(store, [pick(view)])
    upsert(view, store, log_table(view, rows), GRID)
    for t, status in ((GRID, "PRESENT"), (GRID + 1, "EXPIRED")):
        values, statuses = plan.read_one({"k": "a"}, t)
        (known,) = ask(folder, view, rows, [("a", t)]).arrow().to_pylist()
        assert (values, statuses) == ([known["px"]], {"v": known["v__status"]})
        assert statuses == {"v": status}


def test_older_push_wins(project):
    """Trap (Feast): older push wins: an event that happened before is in the windows, and does not answer."""
    project.push(("a", 2.0, 20))
    project.push(("a", 1.0, 10), known=NOW + SECOND)
    found, _ = project.both("a", START + 60 * SECOND + 1000 * SECOND)
    assert found["amount"] == 2.0


def test_label_rows_dropped(folder):
    """Trap (Feast): label rows dropped: each comes back once, in order, known or not, twice or not."""
    asked = [("a", GRID), ("zz", 0), (None, 0), ("a", GRID), ("a", -GRID)]
    found = ask(folder, a_view({"px": last("x")}), [Row("a", 0, 0, 0, {"x": 1.0})], asked).arrow()
    assert found.column("note").to_pylist() == [0, 1, 2, 3, 4]
    assert found.column("px").to_pylist() == [1.0, None, None, 1.0, None]


def test_50_gb_for_17k_rows(folder, tmp_path):
    """Trap (Feast #3003): 50 GB for 17k rows: 17,000 questions to 300,000 rows are answered in 96 MiB."""
    view, random = a_view({"px": last("x"), "sum": total("x", "1h")}), np.random.default_rng(0)
    size, asked = 300_000, 17_000
    log = log_table(view, [])
    rows = {name: pa.nulls(size, log.schema.field(name).type) for name in log.column_names}
    at = pa.array(np.arange(size) * 1_000_000, pa.timestamp("us", "UTC"))
    rows |= {"k": pa.array([f"k{n % 1000}" for n in range(size)]), "x": pa.array(random.normal(size=size))}
    rows |= {"_event_time": at, "_ingest_time": at, "_seq": pa.array(np.arange(size))}
    for name, value in (("_deleted", False), ("_assumed", False), ("_hash", 0), ("_def", ""), ("_batch", "")):
        rows[name] = pa.repeat(pa.scalar(value), size)
    folder.write(pa.table(rows).cast(log.schema))
    folder.limits = Limits("96MiB", str(tmp_path / "spill"))
    keys = [f"k{n}" for n in random.integers(0, 1000, asked)]
    spine = pa.table(
        {"k": keys, "at": pa.array(random.integers(0, size, asked) * 1_000_000, pa.timestamp("us", "UTC"))}
    )
    found = history_of(folder, [view], Frame(spine), "at", True, "short", False, {}).arrow()
    assert len(found) == asked
    assert found.column("px").null_count < 100


def test_future_end_date_blocks_increments(project):
    """Trap (Feast #4222): a future end date blocks increments: the watermark is a version, no time."""
    project.read_files(("a", 1.0, 0), ("f", 9.0, 500_000))
    project.publish()
    project.read_files(("a", 1.0, 0), ("f", 9.0, 500_000), ("a", 2.0, 600), now=NOW + SECOND)
    project.publish(NOW + SECOND)
    assert project.both("a", NOW + SECOND)[0]["amount"] == 2.0


def test_no_scd2(folder):
    """Trap (Feast #4162): no SCD2: a row answers from its event until its end, the end excluded."""
    view = a_view({"px": last("x")}, has_valid_to=True)
    rows = [
        Row("a", 0, 0, 0, {"x": 1.0}, valid_to=2 * GRID),
        Row("a", 3 * GRID, 3 * GRID, 1, {"x": 2.0}),
    ]
    asked = [("a", t) for t in (0, 2 * GRID - 1, 2 * GRID, 3 * GRID)]
    assert ask(folder, view, rows, asked).arrow().column("px").to_pylist() == [1.0, 1.0, None, 2.0]


def test_backfill_not_offline(project):
    """Trap (Feast #6281): backfill not offline: there is one log, so what is online is always there too."""
    project.push(("a", 1.0, 0))
    project.store.drop(b"")
    project.publish()
    assert project.both("a", NOW)[0]["amount"] == 1.0


def test_registry_parsed_per_read(store):
    """Trap (Feast #3649): the registry parsed per read: a read asks the store once, and nothing else."""
    view, calls = a_view({"px": last("x")}), []

    class Watched:
        def get_many(self, keys):
            calls.append(list(keys))
            return store.get_many(keys)

        def __getattr__(self, name):
            raise AssertionError(f"a read looks at {name}")

    plan = compile_plan(Watched(), [pick(view)])
    upsert(view, store, log_table(view, [Row("a", 0, 0, 0, {"x": 1.0})]), GRID)
    plan.read_one({"k": "a"}, GRID)
    plan.read_rows([{"k": "a"}, {"k": "b"}], GRID)
    assert [len(keys) for keys in calls] == [1, 2]


def test_vectors_become_columns_of_a_matrix():
    """Export: torch-ready NumPy of an embedding: alone a matrix, among others as many columns; null is NaN."""
    vectors = pa.array([[1.0, 2.0], None, [3.0, 4.0]], pa.list_(pa.float32(), 2))
    frame = Frame(pa.table({"e": vectors, "n": pa.array([1, None, 3])}))
    wanted = np.array([[1, 2, 1], [np.nan] * 3, [3, 4, 3]], np.float64)
    np.testing.assert_array_equal(frame.numpy(), wanted)
    np.testing.assert_array_equal(frame["e"].numpy(), wanted[:, :2])
    np.testing.assert_array_equal(Frame(frame.arrow().slice(1))["e"].numpy(), wanted[1:, :2])
    assert frame.numpy().flags.c_contiguous
    assert frame.numpy().flags.writeable
