"""JSON in parts says what JSON at once says, whatever is in which part; no part is long."""

import json

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mainspring.declare.record import ColumnType, FieldSpec, Kind
from mainspring.errors import DataError
from mainspring.features.logs.log import SourceTable
from mainspring.features.sources import json_files
from mainspring.features.sources.files import read_files
from mainspring.features.sources.staged import Staging

SOURCE = SourceTable(
    "s",
    (
        FieldSpec("k", ColumnType(Kind.STRING, True)),
        FieldSpec("n", ColumnType(Kind.INTEGER, True)),
        FieldSpec("x", ColumnType(Kind.FLOAT, True)),
        FieldSpec("b", ColumnType(Kind.BOOLEAN, True)),
        FieldSpec("at", ColumnType(Kind.TIMESTAMP)),
    ),
    time="at",
    origin="record S",
)
ROWS = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "k": st.none() | st.text(max_size=6),
            "n": st.none() | st.integers(-(2**63), 2**63 - 1),
            "x": st.none() | st.integers(-9, 9) | st.floats(allow_nan=False, allow_infinity=False),
            "b": st.none() | st.booleans(),
            "at": st.none() | st.sampled_from(["2024-01-01T00:00:00Z", "2024-02-29T12:00:00+01:00"]),
            "other": st.none() | st.integers(-5, 5) | st.lists(st.text(max_size=3), max_size=2),
        },
    ),
    max_size=12,
)


def read(path, part, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(json_files, "PART", part)
        try:
            files = list(read_files([path], SOURCE.fields, source="s"))
            with Staging(path.parent / "staged") as staging:
                done = staging.prepare(SOURCE, files)
                return done.rows.to_pylist(), done.set_aside.to_pylist(), dict(done.report), len(files)
        except DataError as error:
            return (error.code,)


@pytest.mark.parametrize("ending", ["json", "jsonl"])
@settings(max_examples=80, suppress_health_check=list(HealthCheck), deadline=None)
@given(rows=ROWS, part=st.integers(1, 200), space=st.sampled_from(["", " ", "\n", "\r\n\t"]))
def test_parts_say_what_the_whole_says(tmp_path, monkeypatch, ending, rows, part, space):
    path = tmp_path / f"s.{ending}"
    written = [json.dumps(row, ensure_ascii=False) for row in rows]
    if ending == "json":
        text = space + "[" + space + (space + "," + space).join(written) + space + "]" + space
    else:
        text = "\n".join(written) + "\n"
    path.write_text(text, encoding="utf-8", newline="")
    whole, parts = read(path, 1 << 20, monkeypatch), read(path, part, monkeypatch)
    # Arrow looks at lines part by part: what differs in kind, or is null, in all of the file may not in a part.
    if ending == "json" or len(whole) > 1:
        assert parts[:3] == whole[:3]


def test_no_part_is_long_and_none_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(json_files, "PART", 10_000)
    monkeypatch.setattr(json_files, "_CHUNK", 1_000)
    lines = [json.dumps({"at": "2024-01-01T00:00:00Z", "n": n, "k": "é" * (n % 50)}) for n in range(5_000)]
    (tmp_path / "a.json").write_text("[" + ",\n".join(lines) + "]", encoding="utf-8")
    (tmp_path / "b.jsonl").write_text("\n".join(lines), encoding="utf-8")
    for name in ("a.json", "b.jsonl"):
        parts = list(read_files([tmp_path / name], SOURCE.fields, source="s"))
        assert len(parts) > 40
        assert max(len(part.table) for part in parts) < 500
        table = pa.concat_tables([part.table.select(["n"]) for part in parts])
        assert table.column("n").to_pylist() == list(range(5_000))
        assert [part.start for part in parts[:3]] == [0, len(parts[0].table), len(parts[0].table) + len(parts[1].table)]


@pytest.mark.parametrize(
    "text",
    ['[{"n": 1},]', '[{"n": 1}', '[{"n": 1}] 2', "[1]", '[{"n": 1} {"n": 2}]', '[{"n": NaN}]', "[,]", "[" * 9, '[{"n"'],
)
def test_what_is_no_array_of_objects_is_refused(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError) as caught:
        list(read_files([tmp_path / "a.json"], SOURCE.fields, source="s"))
    assert caught.value.code == "MS-2114"


@pytest.mark.parametrize(("name", "text"), [("a.json", '[{"k": "' + "x" * 5000), ("a.jsonl", '{"k": "' + "x" * 5000)])
def test_an_object_that_does_not_end_is_not_read_to_the_end(tmp_path, monkeypatch, name, text):
    for setting, size in (("PART", 100), ("_CHUNK", 100), ("_LONGEST", 1000)):
        monkeypatch.setattr(json_files, setting, size)
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError) as caught:
        list(read_files([tmp_path / name], SOURCE.fields, source="s"))
    assert caught.value.code == "MS-2114"
