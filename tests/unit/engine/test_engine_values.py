"""Stored results: what goes in comes out, and equal values have equal digests."""

import math
from dataclasses import dataclass
from datetime import UTC, date, datetime

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import engine_steps as steps
from mainspring.declare.artifact import File
from mainspring.declare.frame import Frame
from mainspring.engine.values import load, read_manifest, save, save_manifest
from mainspring.errors import UserCodeError

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.dates() | st.binary(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner) | st.sets(st.integers())
    ),
    max_leaves=8,
)


def same(one, other):
    if isinstance(one, float) and math.isnan(one):
        return isinstance(other, float) and math.isnan(other)
    if isinstance(one, (list, tuple)):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return type(one) is type(other) and one == other


@given(value=plain)
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_plain_value_comes_back_with_its_types(services, value):
    stored = save(value, services.objects)
    assert same(load(stored, services.objects), value)
    again = save(value, services.objects)
    assert (again.digest, again.kind) == (stored.digest, stored.kind)


@dataclass(frozen=True)
class Point:
    x: int
    y: float


def points() -> list[Point]:
    return []


def days() -> tuple[date, datetime]: ...


@pytest.mark.parametrize(
    ("value", "producer", "kind"),
    [
        ({"b": 1, "a": [True, None, 1.5]}, None, "json"),
        (steps.Score("auc", 0.5), None, "json/engine_steps:Score"),
        (b"bytes", None, "bytes"),
        (float("nan"), None, "pickle"),
        ((1, 2), None, "pickle"),
        ((date(2026, 1, 2), datetime(2026, 1, 2, tzinfo=UTC)), days, "json/returns:"),
        ([Point(1, 2.0)], points, "json/returns:"),
        ({"set": {1, 2}}, None, "pickle"),
    ],
)
def test_the_kind_says_how_to_restore(services, value, producer, kind):
    stored = save(value, services.objects, producer)
    assert stored.kind.startswith(kind)
    if "test_engine_values" not in stored.kind:  # its module has no name that can be imported
        assert same(load(stored, services.objects), value)


def test_the_annotation_of_the_consumer_restores_json(services):
    stored = save({"name": "auc", "value": 1}, services.objects)
    assert load(stored, services.objects, steps.Score) == steps.Score("auc", 1.0)
    assert load(stored, services.objects) == {"name": "auc", "value": 1}
    with pytest.raises(UserCodeError) as caught:
        load(stored, services.objects, list[int])
    assert caught.value.code == "MS-2023"


def test_numpys_scalars_are_numbers(services):
    import numpy as np

    stored = save({"auc": np.float64(0.5), "n": np.int64(3)}, services.objects)
    assert (stored.kind, load(stored, services.objects)) == ("json", {"auc": 0.5, "n": 3})


def test_frames_are_equal_bytes_whatever_their_chunks_and_metadata(services):
    whole = pa.table({"x": [1, 2, 3], "s": ["a", None, "c"]})
    parts = pa.concat_tables([whole.slice(0, 1), whole.slice(1)]).replace_schema_metadata({"made": "now"})
    digests = {save(Frame(table), services.objects).digest for table in (whole, parts, parts.slice(0))}
    assert len(digests) == 1
    assert save(Frame(whole.slice(1)), services.objects).digest not in digests


def test_tables_come_back_as_what_is_wanted(services):
    frame = pl.DataFrame({"x": [1, 2]})
    stored = save(frame, services.objects)
    assert load(stored, services.objects).equals(frame)
    assert load(stored, services.objects, Frame) == Frame(frame)
    assert load(stored, services.objects, pa.Table).to_pydict() == {"x": [1, 2]}
    assert load(stored, services.objects, pl.LazyFrame).collect().equals(frame)
    lazy = save(frame.lazy(), services.objects)
    assert (lazy.digest, lazy.kind) == (stored.digest, stored.kind)
    assert stored.kind != save(Frame(frame), services.objects).kind


def test_a_folder_keeps_paths_contents_and_modes(services, tmp_path):
    root = tmp_path / "folder"
    (root / "deep").mkdir(parents=True)
    (root / "deep" / "run.sh").write_text("#!/bin/sh\n")
    (root / "deep" / "run.sh").chmod(0o755)
    (root / "empty").write_text("")
    stored = save(File(root), services.objects)
    back = load(stored, services.objects, place=tmp_path / "out")
    assert back.path.name == "folder"
    assert (back.path / "deep" / "run.sh").stat().st_mode & 0o111
    assert sorted(path.name for path in back.path.rglob("*")) == ["deep", "empty", "run.sh"]
    (root / "empty").write_text("no more")
    assert save(File(root), services.objects).digest != stored.digest


def test_a_corrupt_file_is_not_handed_over(services, tmp_path):
    path = tmp_path / "data.bin"
    path.write_bytes(b"content")
    stored = save(File(path), services.objects)
    services.objects.path(stored.digest).write_bytes(b"contenT")
    with pytest.raises(Exception, match="is corrupt"):
        load(stored, services.objects, place=tmp_path / "out")


def test_a_manifest_loads_its_items(services):
    items = [save(value, services.objects) for value in (1, "two", [3])]
    stored = save_manifest(items, services.objects)
    assert load(stored, services.objects) == [1, "two", [3]]
    assert [item.digest for item in read_manifest(stored, services.objects)] == [item.digest for item in items]


def test_what_cannot_be_stored_is_told(services, tmp_path):
    with pytest.raises(UserCodeError, match="cannot be stored") as caught:
        save(lambda: None, services.objects)
    assert caught.value.code == "MS-2021"
    with pytest.raises(UserCodeError, match="not there") as caught:
        save(File(tmp_path / "none"), services.objects)
    assert caught.value.code == "MS-2022"


@pytest.mark.parametrize(
    ("kind", "values", "others"),
    [
        (pa.int64(), [1, 2, 3, 4], [1, 9, 3, 9]),
        (pa.int8(), [1, 2, 3, 4], [1, 9, 3, 9]),
        (pa.float64(), [1.0, math.nan, -0.0, 4.0], [1.0, 9.0, -0.0, 9.0]),
        (pa.timestamp("us", "UTC"), [1, 2, 3, 4], [1, 9, 3, 9]),
        (pa.date32(), [1, 2, 3, 4], [1, 9, 3, 9]),
        (pa.decimal128(9, 2), [1, 2, 3, 4], [1, 9, 3, 9]),
        (pa.bool_(), [True, True, False, True], [True, False, False, False]),
        (pa.string(), ["a", "bb", "", "d"], ["a", "", "", "long"]),
        (pa.binary(), [b"a", b"bb", b"", b"d"], [b"a", b"", b"", b"long"]),
    ],
    ids=str,
)
def test_what_lies_under_nulls_is_no_content(services, kind, values, others):
    """Engines leave there whatever was in memory."""

    def column(held, before=0):
        array = pa.array(held[:before] + held, kind)
        bits = pa.array([True] * before + [True, False, True, False]).buffers()[1]
        return pa.Array.from_buffers(kind, len(array), [bits, *array.buffers()[1:]])[before:]

    tables = [pa.table({"x": found}) for found in (column(values), column(others), column(others, 3))]
    stored = [save(table, services.objects) for table in tables]
    assert tables[0].column("x").null_count == 2
    assert len({one.digest for one in stored}) == 1
    assert load(stored[0], services.objects).equals(tables[0])
    assert services.objects.get(save(tables[0].slice(0, 1), services.objects).digest)
