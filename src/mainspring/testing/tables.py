"""The contract of the table store: derive from `TableStoreContract` and give it your adapter to open."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING

from mainspring.errors import StoreError
from mainspring.lazy import lazy
from mainspring.ports.tables import Commit, TableStore, Txn
from mainspring.testing.atonce import together

if TYPE_CHECKING:
    import pyarrow as pa
    import pytest
    from pyarrow import parquet
else:
    pa, parquet, pytest = lazy("pyarrow"), lazy("pyarrow.parquet"), lazy("pytest")

__all__ = ["TableStoreContract", "numbers"]

Opening = Callable[[], TableStore]


def numbers(*values: int) -> pa.Table:
    """A table with one column ``n``, int64."""
    return pa.table({"n": pa.array(values, pa.int64())})


def held(store: TableStore, table: str = "t", version: int | None = None) -> list[int]:
    """The numbers in a table, sorted."""
    return sorted(store.read(table, version=version).column("n").to_pylist())


class TableStoreContract:
    """What every table store does.

    A subclass defines the fixture ``opening``: a function that opens the same, at first empty, store each time it is
    called; several may be open at once.
    """

    def test_a_table_that_is_not_there(self, opening: Opening) -> None:
        """It has no version, no mark and no commit, and reading it says what to do."""
        store = opening()
        store.claim()
        assert store.version("t") is None
        assert not store.has("t", 0)
        assert store.mark("t", "w") is None
        assert store.commit_of("t", "w") is None
        assert store.commits("t") == ()
        assert store.tables() == ()
        with pytest.raises(StoreError) as caught:
            store.read("t")
        assert caught.value.code == "MS-4131"

    def test_rows_come_back_as_they_were(self, opening: Opening) -> None:
        """Every kind of column, with nulls, extremes and texts that look alike."""
        columns = {
            "text": pa.array(["", "é", "e\u0301", None], pa.string()),
            "whole": pa.array([2**63 - 1, -(2**63), 0, None], pa.int64()),
            "real": pa.array([float("inf"), -0.0, 1e-300, None], pa.float64()),
            "truth": pa.array([True, False, True, None], pa.bool_()),
            "moment": pa.array(
                [datetime(1900, 1, 1, tzinfo=UTC), datetime(2013, 1, 1, 5, 0, 0, 1, tzinfo=UTC), None, None],
                pa.timestamp("us", "UTC"),
            ),
            "day": pa.array([date(1, 1, 1), date(9999, 12, 31), None, None], pa.date32()),
            "bytes": pa.array([b"", b"\0\xff", None, None], pa.binary()),
            "amount": pa.array([Decimal("0.01"), Decimal("-99999999.99"), None, None], pa.decimal128(10, 2)),
            "vector": pa.array([[1.5, -2.0], [], None, None], pa.list_(pa.float32())),
        }
        rows = pa.table(columns)
        store = opening()
        store.append("t", rows, Txn("w", 1))
        assert opening().read("t").to_pylist() == rows.to_pylist()
        assert store.read("t", columns=["day", "text"]).column_names == ["day", "text"]

    def test_a_save_happens_once(self, opening: Opening) -> None:
        """The same or an earlier number of a writer appends nothing and names the first commit."""
        store = opening()
        first = store.append("t", numbers(1), Txn("w", 1))
        second = store.append("t", numbers(2), Txn("w", 2))
        again = opening().append("t", numbers(9), Txn("w", 1))
        assert again.repeated
        assert again.version == first.version
        assert opening().append("t", numbers(9), Txn("w", 2)).version == second.version
        assert held(store) == [1, 2]
        store.append("t", numbers(3), Txn("other", 1))
        assert held(store) == [1, 2, 3]

    def test_marks_and_notes_come_with_the_commit(self, opening: Opening) -> None:
        """They can be read by others; a mark of one writer is not that of another."""
        store = opening()
        store.append("t", numbers(1), Txn("w", 1), marks={"seq": 7}, notes={"log": "so it is"})
        store.append("t", numbers(2), Txn("w", 2), marks={"seq": 9})
        other = opening()
        assert (other.mark("t", "seq"), other.mark("t", "w"), other.mark("t", "x")) == (9, 2, None)
        assert other.read("t").num_rows == 2
        assert (other.mark("t", "seq"), other.mark("t", "w"), other.mark("t", "x")) == (9, 2, None)
        newest, oldest = [commit for commit in other.commits("t") if commit.txn is not None]
        assert (newest.txn, newest.rows) == (Txn("w", 2), 1)
        assert (oldest.txn, oldest.notes) == (Txn("w", 1), {"log": "so it is"})
        assert other.commit_of("t", "w", 1) == oldest
        assert other.commit_of("t", "w") == newest
        assert other.commits("t", 1) == (newest,)

    def test_old_versions_stay_readable(self, opening: Opening) -> None:
        """A pinned version is what it was, whatever is appended later; one to come is not there."""
        store = opening()
        versions = [store.append("t", numbers(n), Txn("w", n)).version for n in (1, 2, 3)]
        assert store.version("t") == versions[-1]
        assert [held(store, version=version) for version in versions] == [[1], [1, 2], [1, 2, 3]]
        with pytest.raises(StoreError) as caught:
            store.read("t", version=versions[-1] + 1)
        assert caught.value.code == "MS-4131"

    def test_files_are_what_readers_of_files_understand(self, opening: Opening) -> None:
        """Their paths, unescaped, lead to Parquet files with the version's rows."""
        store = opening()
        first = store.append("a/b", numbers(1, 2), Txn("w", 1))
        store.append("a/b", numbers(3), Txn("w", 2))
        assert sorted(_read(store.files("a/b"))) == [1, 2, 3]
        assert sorted(_read(store.files("a/b", first.version))) == [1, 2]
        store.append("a/c/d", numbers(4), Txn("w", 1))
        store.append("ab", numbers(5), Txn("w", 1))
        assert store.tables() == ("a/b", "a/c/d", "ab")
        assert (store.tables("a"), store.tables("a/c"), store.tables("none")) == (("a/b", "a/c/d"), ("a/c/d",), ())

    def test_conditions(self, opening: Opening) -> None:
        """All conditions hold at once."""
        store = opening()
        store.append("t", numbers(*range(10)), Txn("w", 1))
        found = store.read("t", where=[("n", ">", 3), ("n", "<=", 7), ("n", "!=", 5)])
        assert sorted(found.column("n").to_pylist()) == [4, 6, 7]
        assert store.read("t", where=[("n", "in", [1, 99])]).column("n").to_pylist() == [1]

    def test_a_new_column_is_null_in_older_rows(self, opening: Opening) -> None:
        """And an older version does not have it; a missing column is null too."""
        store = opening()
        first = store.append("t", numbers(1), Txn("w", 1))
        store.append("t", pa.table({"n": [2], "more": ["x"]}), Txn("w", 2))
        store.append("t", numbers(3), Txn("w", 3))
        found = store.read("t").sort_by("n")
        assert found.column("more").to_pylist() == [None, "x", None]
        assert store.schema("t", first.version).names == ["n"]
        assert store.schema("t").names == ["n", "more"]

    def test_rows_that_do_not_fit_change_nothing(self, opening: Opening) -> None:
        """Another type, or a null where none may be."""
        schema = pa.schema([pa.field("n", pa.int64(), nullable=False)])
        store = opening()
        store.append("t", pa.table({"n": [1]}, schema=schema), Txn("w", 1))
        unfit = [
            pa.table({"n": ["5"]}),
            pa.table({"n": [5.0]}),
            pa.table({"n": pa.array([None], pa.int64())}),
            pa.table({"n": [2], "naive": pa.array([0], pa.timestamp("us"))}),
            pa.table({"n": [2], "fine": pa.array([1], pa.timestamp("ns", "UTC"))}),
            pa.table({"n": [2], "great": pa.array([1], pa.uint64())}),
        ]
        for rows in unfit:
            with pytest.raises(StoreError) as caught:
                store.append("t", rows, Txn("w", 2))
            assert caught.value.code == "MS-4132"
        assert held(opening()) == [1]
        assert opening().mark("t", "w") == 1

    def test_an_empty_append_makes_the_table(self, opening: Opening) -> None:
        """With its schema, its mark and no rows."""
        store = opening()
        store.append("t", numbers(), Txn("w", 1), marks={"seq": 0})
        assert held(store) == []
        assert store.mark("t", "seq") == 0
        assert _read(store.files("t")) == []

    def test_compaction_keeps_rows_and_history(self, opening: Opening) -> None:
        """The same rows in fewer files, as a new version; the old one and the saves are still known."""
        store = opening()
        for n in range(5):
            last = store.append("t", numbers(n), Txn("w", n + 1), notes={"n": str(n)})
        done = store.compact("t")
        assert done is not None
        assert done.version > last.version
        assert len(store.files("t")) < 5
        assert held(store) == held(store, version=last.version) == [0, 1, 2, 3, 4]
        assert opening().append("t", numbers(9), Txn("w", 3)).repeated
        assert store.compact("t") is None

    def test_vacuum_spares_what_is_pinned(self, opening: Opening) -> None:
        """Files of pinned versions stay, others go, and the newest version is never touched."""
        store = opening()
        first = store.append("t", numbers(1), Txn("w", 1)).version
        store.append("t", numbers(2), Txn("w", 2))
        store.compact("t")
        assert store.vacuum("t", keep=[first], retention_hours=0) == 1
        assert held(store, version=first) == [1]
        assert held(store) == [1, 2]
        assert store.vacuum("t", keep=[], retention_hours=0) == 1
        assert held(opening()) == [1, 2]
        for look in (store.files, functools.partial(held, store)):
            with pytest.raises(StoreError) as caught:
                look("t", version=first)
            assert caught.value.code == "MS-4131"

    def test_what_was_committed_can_be_made_to_survive_a_loss_of_power(self, opening: Opening) -> None:
        """And what lies beside the tables is no table."""
        store = opening()
        store.sync("t")
        store.append("t", numbers(1), Txn("w", 1))
        store.sync("t")
        store.compact("t")
        store.sync("t")
        place = store.beside("_log/t")
        place.mkdir(parents=True)
        assert opening().beside("_log/t") == place
        assert store.tables() == ("t",)
        assert held(store) == [1]

    def test_a_dropped_table_is_gone(self, opening: Opening) -> None:
        """And its name can be used again, for other columns."""
        store = opening()
        store.append("t", numbers(1), Txn("w", 1))
        store.drop("t")
        store.drop("t")
        assert store.version("t") is None
        store.append("t", pa.table({"other": ["x"]}), Txn("w", 1))
        assert store.read("t").to_pylist() == [{"other": "x"}]

    def test_writers_see_each_other(self, opening: Opening) -> None:
        """Two open stores take turns without losing a row."""
        left, right = opening(), opening()
        for n in range(6):
            (left, right)[n % 2].append("t", numbers(n), Txn(f"w{n}", 1))
        assert held(left) == held(right) == list(range(6))

    def test_racing_writers_save_once(self, opening: Opening) -> None:
        """The same save from several threads with stores of their own happens once; different saves all happen."""
        opening().append("t", numbers(-1), Txn("first", 1))
        done: list[Commit] = []

        def save(number: int) -> None:
            store = opening()
            done.append(store.append("t", numbers(0), Txn("same", 1)))
            store.append("t", numbers(number), Txn(f"own{number}", 1))

        together([functools.partial(save, number) for number in range(1, 5)])
        assert held(opening()) == [-1, 0, 1, 2, 3, 4]
        assert sum(not commit.repeated for commit in done) == 1

    def test_one_writes_at_a_time(self, opening: Opening) -> None:
        """Reading a mark and appending what follows from it, under `writing`, never collides."""

        def count() -> None:
            store = opening()
            for _ in range(3):
                with store.writing("t"):
                    after = (store.mark("t", "seq") or 0) + 1
                    store.append("t", numbers(after), Txn(f"w{after}", 1), marks={"seq": after})

        together([count] * 3)
        assert held(opening()) == list(range(1, 10))


def _read(files: Sequence[str]) -> list[int]:
    found: list[int] = []
    for file in files:
        found += parquet.read_table(re.sub(r"\[([\[*?])\]", r"\1", file)).column("n").to_pylist()
    return found
