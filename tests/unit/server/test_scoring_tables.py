"""Tables in files, a batch at a time: parts, formats, outputs that appear whole, and rows that do not fit."""

from __future__ import annotations

import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.declare.record import ColumnType, Kind
from mainspring.errors import DataError, UsageError
from mainspring.features.cast import Reading
from mainspring.server.scoring.fitting import checked_columns, fitted
from mainspring.server.scoring.shape import Carried, Part
from mainspring.server.scoring.tables import (
    batches_of,
    is_text,
    parts_of,
    reads_part,
    row_groups,
    schema_of,
    to_parquet,
    writing,
)

TABLE = pa.table({"id": [f"r{n}" for n in range(500)], "x": [n / 7 for n in range(500)]})
FLOAT, MAYBE = ColumnType(Kind.FLOAT), ColumnType(Kind.FLOAT, nullable=True)
INTEGER = ColumnType(Kind.INTEGER)


@given(st.lists(st.integers(0, 40), max_size=12), st.integers(1, 50))
def test_parts_hold_each_row_once_and_none_too_many(groups: list[int], rows: int) -> None:
    parts = parts_of(groups, rows)
    assert [row for part in parts for row in range(part.start, part.stop)] == list(range(sum(groups)))
    assert all(0 < part.stop - part.start <= rows for part in parts) or parts == [Part(0, 0)]


def test_small_row_groups_go_together_and_a_part_begins_with_a_row_group_where_it_can() -> None:
    assert parts_of([40, 40, 40, 40], 100) == [Part(0, 80), Part(80, 160)]
    assert parts_of([250, 10], 100) == [Part(0, 100), Part(100, 200), Part(200, 260)]


@given(st.lists(st.integers(1, 60), min_size=1, max_size=8), st.data())
def test_a_part_is_that_slice_of_the_table_however_its_row_groups_lie(
    tmp_path_factory: pytest.TempPathFactory, groups: list[int], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("table") / "rows.parquet"
    batches = [TABLE.slice(sum(groups[:at]), count).combine_chunks().to_batches()[0] for at, count in enumerate(groups)]
    assert to_parquet(iter(batches), TABLE.schema, path) == sum(groups)
    assert row_groups(path) == groups
    start = data.draw(st.integers(0, sum(groups)))
    stop = data.draw(st.integers(start, sum(groups)))
    read = list(reads_part(path, Part(start, stop), 16))
    assert all(len(batch) <= 16 for batch in read)
    assert pa.Table.from_batches(read, TABLE.schema).equals(TABLE.slice(start, stop - start).combine_chunks())


def test_only_the_row_groups_of_a_part_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(TABLE, path, row_group_size=50)
    seen: list[list[int]] = []
    whole = pq.ParquetFile.iter_batches

    def watched(self: pq.ParquetFile, *given: object, row_groups: list[int], **more: object) -> object:
        seen.append(row_groups)
        return whole(self, *given, row_groups=row_groups, **more)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", watched)
    assert sum(len(batch) for batch in reads_part(path, Part(120, 210), 1000)) == 90
    assert seen == [[2, 3, 4]]


@pytest.mark.parametrize("name", ["out.parquet", "out.arrow", "out.feather", "out.arrows", "out.csv"])
def test_every_format_gives_back_what_was_written(tmp_path: Path, name: str) -> None:
    path = tmp_path / "deeper" / name
    with writing(path, TABLE.schema) as out:
        for batch in TABLE.to_batches(100):
            out.write_batch(batch)
    assert [file.name for file in path.parent.iterdir()] == [name]
    found = pa.Table.from_batches(batches_of(path, 64), schema_of(path))
    assert all(len(batch) <= 64 for batch in batches_of(path, 64))
    wanted = TABLE.cast(pa.schema([(column, pa.string()) for column in TABLE.column_names])) if is_text(path) else TABLE
    assert found.combine_chunks().equals(wanted.combine_chunks())


def test_an_output_appears_whole_or_not_at_all_and_has_one_writer(tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    path.write_bytes(b"what stood here")
    (tmp_path / ".out.parquet.part").write_bytes(b"left by one that was killed" * 1000)
    batches = iter(TABLE.to_batches(100)[:3])

    def stopped() -> None:
        with writing(path, TABLE.schema) as out:
            while True:
                out.write_batch(next(batches))

    with pytest.raises(StopIteration):
        stopped()
    assert path.read_bytes() == b"what stood here"
    assert [file.name for file in tmp_path.iterdir()] == ["out.parquet"]
    with writing(path, TABLE.schema) as out:
        with pytest.raises(UsageError, match="is being written") as caught, writing(path, TABLE.schema):
            pass
        assert caught.value.code == "MS-5123"
        out.write_batch(TABLE.to_batches()[0])
    assert pq.read_table(path).equals(TABLE)


def test_a_table_that_cannot_be_read_or_written_says_why(tmp_path: Path) -> None:
    ragged = tmp_path / "ragged.csv"
    ragged.write_text("a,b\n1,2\n3\n")
    twice = tmp_path / "twice.csv"
    twice.write_text("a,a\n1,2\n")
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1 but no more")
    for path in (ragged, twice, broken, tmp_path / "missing.arrow"):
        with pytest.raises(DataError) as caught:
            list(batches_of(path))
        assert caught.value.code == "MS-5121"
        assert str(tmp_path) not in caught.value.why
    with pytest.raises(UsageError, match=r"out\.xlsx") as named, writing(tmp_path / "out.xlsx", TABLE.schema):
        pass
    assert named.value.code == "MS-5120"
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError) as refused, writing(tmp_path / "file" / "out.csv", TABLE.schema):
        pass
    assert refused.value.code == "MS-5122"
    nested = pa.table({"x": [[1, 2]]})
    with pytest.raises(UsageError) as unfit, writing(tmp_path / "nested.csv", nested.schema) as out:
        out.write_batch(nested.to_batches()[0])
    assert unfit.value.code == "MS-5122"
    assert not (tmp_path / ".nested.csv.part").exists()


WORDS = st.sampled_from(["1", "2.5", "-3", "", "NA", "x", "nan", "1e400", "99999999999999999999", " 7 "])


@given(st.lists(st.tuples(WORDS, WORDS), max_size=30))
def test_rows_that_fit_are_told_from_those_that_do_not_as_one_by_one(rows: list[tuple[str, str]]) -> None:
    carried = (Carried("a", FLOAT), Carried("b", INTEGER))
    columns = [pa.array([row[at] for row in rows], pa.string()) for at in (0, 1)]
    table = pa.table(columns, names=["a", "b"])
    found = fitted(table, carried, Reading(text=True))
    assert sorted([*found.rows.tolist(), *found.bad]) == list(range(len(rows)))
    for place in range(len(rows)):
        alone = fitted(table.slice(place, 1), carried, Reading(text=True))
        assert (place in found.bad) == bool(alone.bad)
        if alone.bad:
            assert found.bad[place] == alone.bad[0]
        else:
            at = found.rows.tolist().index(place)
            assert found.columns["a"][at].as_py() == alone.columns["a"][0].as_py() == float(rows[place][0])


def test_what_is_missing_is_bad_only_where_it_must_be_there() -> None:
    table = pa.table({"a": [1.0, None, math.nan, 4.0], "b": [None, 2.0, 3.0, math.nan]})
    found = fitted(table, (Carried("a", FLOAT), Carried("b", MAYBE)), Reading())
    assert found.rows.tolist() == [0, 3]
    assert found.bad == {1: "a is missing", 2: "a is missing"}
    assert found.columns["a"].to_pylist() == [1.0, 4.0]


@pytest.mark.parametrize(
    ("name", "why"), [("a", "is no float"), ("d", "no column 'd'"), ("c", "more than one column 'c'")]
)
def test_columns_are_held_against_the_model_before_a_row_is_read(name: str, why: str) -> None:
    schema = pa.schema([("a", pa.string()), ("b", pa.float64()), ("c", pa.float64()), ("c", pa.float64())])
    with pytest.raises(DataError, match=why) as caught:
        checked_columns((Carried("b", FLOAT), Carried(name, FLOAT)), schema, Reading(), of="rows")
    assert caught.value.code == "MS-5124"
    checked_columns((Carried("a", FLOAT),), schema, Reading(text=True), of="rows")
