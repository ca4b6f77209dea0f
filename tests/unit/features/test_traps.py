"""The traps of the specification (features, part 12) by name: each has one test, whose docstring says it.

Those that a whole project meets are in `e2e/test_feature_traps.py`.
"""

import ast
import re
from collections import Counter
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from mainspring.adapters.lmdb.online_store import open_store
from mainspring.adapters.lmdb.settings import LmdbSettings
from mainspring.declare.aggregate import count, last, last_n, total
from mainspring.declare.frame import Frame
from mainspring.declare.record import ColumnType, Kind
from mainspring.errors import UserCodeError
from mainspring.features.cast import Reading, UnfitError, cast_column
from mainspring.features.decorated import function
from mainspring.features.offline.history import history_of
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


TRAPS = (
    "DATE of which zone",
    "TIMESTAMP against TIMESTAMPTZ",
    "session zone",
    "mixed units",
    "skewed clocks",
    "int64 over 2^53 through a missed match",
    "-0.0",
    "NaN before the window",
    "empty list",
    "dictionary, large, view strings",
    '("ab", "c") against ("a", "bc")',
    "600-byte key",
    "empty spine or view",
    "a million equal keys",
    "one of two views all expired",
    "schema changed between files",
    "`limit` without `order by`",
    "two materialisations",
    "a key twice in a batch",
    "stale plan",
    "feature removed with rows alive",
    "ttl ignored online",
    "older push wins",
    "label rows dropped",
    "50 GB for 17k rows",
    "a future end date blocks increments",
    "no SCD2",
    "windows",
    "scan without entities",
    "backfill not offline",
    "the registry parsed per read",
)
_SAID = re.compile(r"Traps?(?: \(Feast[^)]*\))?: (.+)")


def told(path):
    """The traps that the tests of a file say: one, or some with semicolons between them."""
    text = path.read_text()
    for node in ast.walk(ast.parse(text)) if '"""Trap' in text else ():
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test"):
            found = _SAID.match(ast.get_docstring(node) or "")
            if found is not None:
                yield from found[1].partition(": ")[0].rstrip(".").split("; ")


def test_each_trap_has_one_test():
    said = Counter(trap for path in Path(__file__).parents[2].glob("*/**/test_*.py") for trap in told(path))
    assert {trap: said[trap] for trap in TRAPS} == dict.fromkeys(TRAPS, 1)


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


def test_skewed_clocks(project):
    """Trap: skewed clocks: a row that came before it happened answers from when it happened on, on both paths."""
    project.push(("a", 1.0, 100), known=START)
    assert project.both("a", START + 99 * SECOND)[1] == ["MISSING", "MISSING"]
    assert project.both("a", START + 100 * SECOND)[0]["amount"] == 1.0


# -- values and keys --------------------------------------------------------------------------------------------------


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
        function.call(view, tables, "v")
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
    assert len(function.call(lambda: sql, tables, "v")) == rows


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
