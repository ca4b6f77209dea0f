"""Files and pushed rows into a record's types: rows that break its rules are set aside, faults say why."""

import contextlib
import gzip
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from mainspring.declare.record import ColumnType, Field, FieldSpec, Kind
from mainspring.errors import DataError
from mainspring.features.logs.ingest import prepare_rows
from mainspring.features.logs.log import SourceTable
from mainspring.features.sources import files
from mainspring.features.sources.files import find_files, read_files
from mainspring.features.sources.staged import Staging

MOMENT = pa.timestamp("us", "UTC")
SOURCE = SourceTable(
    "weather",
    (
        FieldSpec("origin", ColumnType(Kind.STRING), Field(matches="[A-Z]{3}")),
        FieldSpec("wind", ColumnType(Kind.FLOAT, True), Field(ge=0, le=200)),
        FieldSpec("code", ColumnType(Kind.INTEGER, True), Field(one_of=(1, 2, 3))),
        FieldSpec("observed", ColumnType(Kind.TIMESTAMP)),
    ),
    time="observed",
    origin="record Weather",
)
CSV = """wind,origin,observed,code,other
10.5,JFK,2013-01-01T06:00:00Z,1,x
NA,LGA,2013-01-01 07:00:00+0000,,y
"""
ROWS = [
    {"origin": "JFK", "wind": 10.5, "code": 1, "observed": datetime(2013, 1, 1, 6, tzinfo=UTC)},
    {"origin": "LGA", "wind": None, "code": None, "observed": datetime(2013, 1, 1, 7, tzinfo=UTC)},
]


@pytest.fixture(params=["as it is", "row by row"])
def read_source(request, tmp_path_factory, monkeypatch):
    """Reads files as a source's step does; once with parts of one row, all of which wait in files."""
    small = request.param == "row by row"
    if small:
        monkeypatch.setattr(files, "_PART", 1)
    with contextlib.ExitStack() as stack:

        def read(source, paths, *, format=None, truncate=False):
            folder = tmp_path_factory.mktemp("staged")
            staging = stack.enter_context(Staging(folder, -1) if small else Staging(folder))
            raw = read_files(paths, source.fields, source=source.name, format=format)
            return staging.prepare(source, raw, truncate=truncate)

        yield read


def table(**columns):
    base = {"origin": ["JFK"], "wind": [1.0], "code": [1], "observed": pa.array([0], MOMENT)}
    return pa.table(base | columns)


def test_csv(tmp_path, read_source):
    (tmp_path / "w.csv").write_text(CSV)
    prepared = read_source(SOURCE, [tmp_path / "w.csv"])
    assert prepared.rows.to_pylist() == ROWS
    assert len(prepared.set_aside) == 0
    assert prepared.rows.schema.field("origin").type == pa.string()


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_csv_of_a_header_alone_has_no_rows(tmp_path, read_source, end):
    """As programs export a table without rows, with an end of the line or without."""
    (tmp_path / "w.csv").write_bytes(b"\xef\xbb\xbfwind,origin,observed,code" + end.encode())
    with gzip.open(tmp_path / "w.csv.gz", "wb") as packed:
        packed.write((tmp_path / "w.csv").read_bytes())
    for name in ("w.csv", "w.csv.gz"):
        prepared = read_source(SOURCE, [tmp_path / name])
        assert prepared.rows.to_pylist() == []
        assert prepared.rows.schema.field("origin").type == pa.string()


def test_a_csv_with_other_separators_says_so(tmp_path, read_source):
    (tmp_path / "w.csv").write_text(CSV.replace(",", ";"))
    with pytest.raises(DataError) as caught:
        read_source(SOURCE, [tmp_path / "w.csv"])
    assert caught.value.code == "MS-2111"
    assert "by commas instead of ';'" in caught.value.fix


def test_json_lines_and_arrays(tmp_path, read_source):
    lines = [
        '{"origin": "JFK", "wind": 10.5, "code": 1, "observed": "2013-01-01T06:00:00Z", "other": [1]}',
        '{"origin": "LGA", "wind": null, "observed": "2013-01-01T07:00:00Z"}',
    ]
    (tmp_path / "w.jsonl").write_text("\n".join(lines))
    (tmp_path / "w.json").write_text("[" + ",".join(lines) + "]")
    assert read_source(SOURCE, [tmp_path / "w.jsonl"]).rows.to_pylist() == ROWS
    assert read_source(SOURCE, [tmp_path / "w.json"]).rows.to_pylist() == ROWS


def test_parquet_and_arrow_files_in_one_source(tmp_path, read_source):
    rows = pa.Table.from_pylist(ROWS)
    pq.write_table(rows.slice(0, 1), tmp_path / "a.parquet")
    feather.write_feather(rows.slice(1).select(["observed", "origin", "code", "wind"]), tmp_path / "b.arrow")
    with pa.OSFile(str(tmp_path / "c.ipc"), "wb") as file, pa.ipc.new_stream(file, rows.schema) as stream:
        stream.write_table(rows)
    files = find_files(".", tmp_path, source="weather")
    assert [file.name for file in files] == ["a.parquet", "b.arrow", "c.ipc"]
    assert read_source(SOURCE, files).rows.to_pylist() == ROWS + ROWS


def test_folders_globs_and_names(tmp_path):
    for name in ("2013/01.csv", "2013/02.csv", "2014/01.csv", "2014/notes.txt", "2014/.hidden.csv", "_old/x.csv"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_text(CSV)

    def names(path, **options):
        found = find_files(path, tmp_path, source="weather", **options)
        return [str(file.relative_to(tmp_path / "data")) for file in found]

    assert names("data") == ["2013/01.csv", "2013/02.csv", "2014/01.csv"]
    assert names("data/*/01.csv") == ["2013/01.csv", "2014/01.csv"]
    assert names("data/2014/notes.txt") == ["2014/notes.txt"]
    for path in ("nothing.csv", "data/*/99.csv", "data/2014/*.txt"):
        with pytest.raises(DataError) as caught:
            find_files(path, tmp_path, source="weather", origin="mainspring.toml:4")
        assert (caught.value.code, caught.value.origin) == ("MS-2112", "mainspring.toml:4")


def test_a_missing_column_says_which_are_there(tmp_path):
    with pytest.raises(DataError) as caught:
        prepare_rows(SOURCE, table().rename_columns(["origin", "winds", "code", "observed"]))
    assert caught.value.code == "MS-2111"
    assert "'wind'" in caught.value.what
    assert "'winds'" in caught.value.fix


def test_a_column_that_one_file_lacks(tmp_path, read_source):
    pq.write_table(table(), tmp_path / "a.parquet")
    pq.write_table(table().drop_columns(["code"]), tmp_path / "b.parquet")
    files = find_files(".", tmp_path, source="weather")
    assert read_source(SOURCE, files).rows.column("code").to_pylist() == [1, None]
    pq.write_table(table().drop_columns(["origin"]), tmp_path / "b.parquet")
    with pytest.raises(DataError, match="no column 'origin'"):
        read_source(SOURCE, files)


def test_a_missing_column_of_a_file_is_told_the_nearest_of_the_file(tmp_path, read_source):
    (tmp_path / "w.csv").write_text(CSV.replace("wind,", "wnd,"))
    pq.write_table(table().rename_columns(["origin", "wnd", "code", "observed"]), tmp_path / "w.parquet")
    (tmp_path / "w.jsonl").write_text('{"origin": "JFK", "wnd": 1, "code": 1, "observed": "2013-01-01T06:00:00Z"}')
    feather.write_feather(table().rename_columns(["origin", "wnd", "code", "observed"]), tmp_path / "w.arrow")
    for name in ("w.csv", "w.parquet", "w.jsonl", "w.arrow"):
        with pytest.raises(DataError) as caught:
            read_source(SOURCE, [tmp_path / name])
        assert caught.value.code == "MS-2111"
        assert "wnd" in caught.value.why, name
        assert "wnd" in caught.value.fix, name


def test_nanoseconds_in_a_text_name_the_setting_that_cuts_them(tmp_path, read_source):
    (tmp_path / "w.csv").write_text(CSV.replace("06:00:00Z", "06:00:00.123456789Z"))
    with pytest.raises(DataError) as caught:
        read_source(SOURCE, [tmp_path / "w.csv"])
    assert caught.value.code == "MS-2110"
    assert "row 0" in caught.value.why
    assert 'sources.weather.truncate = "us"' in caught.value.fix
    (row, _) = read_source(SOURCE, [tmp_path / "w.csv"], truncate=True).rows.to_pylist()
    assert row["observed"].microsecond == 123456
    (tmp_path / "w.csv").write_text(CSV.replace("06:00:00Z", "06:00:00.123456000Z"))  # nothing would be lost
    assert read_source(SOURCE, [tmp_path / "w.csv"]).rows.to_pylist()[0] == row


def test_a_column_of_another_type_names_rows_and_file(tmp_path, read_source):
    (tmp_path / "w.csv").write_text(CSV + "strong,EWR,2013-01-01T08:00:00Z,1,z\n")
    with pytest.raises(DataError) as caught:
        read_source(SOURCE, [tmp_path / "w.csv"])
    assert caught.value.code == "MS-2110"
    assert "row 2: 'strong'" in caught.value.why
    assert "w.csv" in caught.value.why
    with pytest.raises(DataError) as caught:
        prepare_rows(SOURCE, table(origin=[5]))
    assert "it holds int64" in caught.value.why


def test_one_file_may_not_hold_another_type_than_the_next(tmp_path, read_source):
    """Trap: schema changed between files."""
    pq.write_table(table(), tmp_path / "a.parquet")
    pq.write_table(table(code=["1"]), tmp_path / "b.parquet")
    with pytest.raises(DataError, match="'code'"):
        read_source(SOURCE, find_files(".", tmp_path, source="weather"))


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"origin": pa.array([None], pa.string())}, "origin is null"),
        ({"observed": pa.array([None], MOMENT)}, "observed is null"),
        ({"wind": [-1.0]}, "wind is not >= 0"),
        ({"wind": [1048.36]}, "wind is not <= 200"),
        ({"wind": [float("nan")]}, "wind is not >= 0"),
        ({"code": [4]}, "code is none of 3 values"),
        ({"origin": ["JFK "]}, "origin does not match"),
    ],
)
def test_rows_that_break_a_rule_are_set_aside(columns, reason):
    prepared = prepare_rows(SOURCE, pa.concat_tables([table(), table(**columns), table()]))
    assert len(prepared.rows) == 2
    assert prepared.report == {reason: 1}
    assert prepared.set_aside.column("_reason").to_pylist() == [reason]


def test_values_at_the_edge_of_a_rule_pass_and_so_do_nulls():
    rows = pa.concat_tables([table(wind=[0.0]), table(wind=[200.0]), table(wind=pa.array([None], pa.float64()))])
    assert len(prepare_rows(SOURCE, rows).rows) == 3


def test_a_unique_column_keeps_the_first_of_each():
    fields = (*SOURCE.fields[1:], FieldSpec("origin", ColumnType(Kind.STRING, True), Field(unique=True)))
    source = SourceTable("weather", fields, time="observed")
    rows = pa.concat_tables([table(), table(wind=[2.0]), table(origin=["LGA"])])
    prepared = prepare_rows(source, rows)
    assert prepared.rows.column("wind").to_pylist() == [1.0, 1.0]
    assert prepared.report == {"origin is not unique": 1}


def test_duplicate_rows_are_kept():
    assert len(prepare_rows(SOURCE, pa.concat_tables([table(), table()])).rows) == 2


def test_when_no_row_of_a_file_fits_it_is_a_fault(tmp_path, read_source):
    pq.write_table(table(wind=[999.0]), tmp_path / "a.parquet")
    with pytest.raises(DataError) as caught:
        read_source(SOURCE, [tmp_path / "a.parquet"])
    assert caught.value.code == "MS-2113"
    assert "wind is not <= 200: 1 rows" in caught.value.why


def test_an_empty_table_is_fine(tmp_path, read_source):
    pq.write_table(table().slice(0, 0), tmp_path / "a.parquet")
    (tmp_path / "b.csv").write_text(CSV.splitlines()[0] + "\n")
    (tmp_path / "c.json").write_text("[]")
    assert len(read_source(SOURCE, [tmp_path / "a.parquet", tmp_path / "b.csv"]).rows) == 0
    with pytest.raises(DataError, match="no column 'origin'"):
        read_source(SOURCE, [tmp_path / "c.json"])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.parquet", b"PAR1 no"),
        ("a.csv", b""),
        ("a.csv", b"origin,origin\n1,2\n"),
        ("a.csv", b"origin,wind\n1,2,3\n"),
        ("a.json", b"[{"),
        ("a.jsonl", b'{"origin": 5}\n'),
        ("a.arrow", b"no"),
        ("a.xlsx", b"PK"),
    ],
)
def test_a_file_that_cannot_be_read(tmp_path, name, content, read_source):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_source(SOURCE, [tmp_path / name])
    assert caught.value.code == "MS-2114"


def test_a_setting_says_what_a_file_is(tmp_path, read_source):
    (tmp_path / "w.txt").write_text(CSV)
    assert read_source(SOURCE, [tmp_path / "w.txt"], format="csv").rows.to_pylist() == ROWS


def test_times_without_a_zone_take_the_sources(tmp_path, read_source):
    (tmp_path / "w.csv").write_text("wind,origin,observed,code\n1,JFK,2013-07-01 02:00:00,1\n")
    with pytest.raises(DataError, match="'observed'"):
        read_source(SOURCE, [tmp_path / "w.csv"])
    local = SourceTable("weather", SOURCE.fields, time="observed", zone="America/New_York")
    (row,) = read_source(local, [tmp_path / "w.csv"]).rows.to_pylist()
    assert row["observed"] == datetime(2013, 7, 1, 6, tzinfo=UTC)


def test_nanoseconds_are_refused_unless_they_may_be_cut(tmp_path, read_source):
    pq.write_table(table(observed=pa.array([1001], pa.timestamp("ns", "UTC"))), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="'observed'"):
        read_source(SOURCE, [tmp_path / "a.parquet"])
    (row,) = read_source(SOURCE, [tmp_path / "a.parquet"], truncate=True).rows.to_pylist()
    assert row["observed"] == datetime(1970, 1, 1, 0, 0, 0, 1, tzinfo=UTC)
