"""Reading a Feast repository as text: what it defines, and what is told instead of guessed."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from mainspring.errors import UsageError
from mainspring.protocols.feast import repository as reading
from mainspring.protocols.feast.definitions import FeastPart, FeastRepository
from mainspring.protocols.feast.repository import read_repository

HEAD = """
from datetime import timedelta
from feast import (
    BatchFeatureView, BigQuerySource, Entity, FeatureService, FeatureView, Field, FileSource, KafkaSource, PushSource,
    RequestSource, ValueType,
)
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import PostgreSQLSource
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Array, Float32, Int64, String, Struct
user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
rides = FileSource(name="rides", path="data/rides.parquet", timestamp_field="at")
"""


def read(folder: Path, *, yaml: str = "project: city\n", **files: str) -> FeastRepository:
    folder.mkdir(exist_ok=True)
    (folder / "feature_store.yaml").write_text(yaml)
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return read_repository(folder)


def told(found: FeastRepository) -> list[tuple[str, str, str]]:
    return [(note.what, note.why, note.where) for note in found.left]


def test_every_construct_is_read(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        yaml="project: city\nonline_store: {type: redis, connection_string: 'cache:6379'}\noffline_store: file\n",
        defs=HEAD
        + """
LENGTH = 2 * 4
fields = [Field(name="user_id", dtype=Int64), Field(name="price", dtype=Float32, description="in euro")]
spending = FeatureView(
    name="spending", entities=[user], ttl=timedelta(days=1) + timedelta(hours=LENGTH), schema=fields, source=rides,
    online=False, tags={"team": who_knows()},
)
pushed = PushSource(name="live_rides", batch_source=FileSource(
    path=f"data/{'rides'}.parquet", timestamp_field="at", created_timestamp_column="seen",
    field_mapping={"px": "price"},
))
live = FeatureView(name="live", entities=["user"], schema=[Field(name="image", dtype=Array(Float32), vector_length=3)],
                   source=pushed)
shown = BatchFeatureView(name="shown", entities=[user], source=BigQuerySource(name="bq", table="p.d.t",
                         timestamp_field="at"), schema=[Field(name="n", dtype=Struct({"a": String}))])
asked = RequestSource(name="asked", schema=[Field(name="seats", dtype=Int64)])

@on_demand_feature_view(sources=[live[["image"]], spending, asked], schema=[Field(name="each", dtype=Float32)])
def per_seat(inputs):
    return inputs

ranking = FeatureService(name="ranking", features=[spending[["price"]], live, per_seat])
""",
    )
    assert found.left == ()
    assert (found.project, found.online["type"], found.offline["type"]) == ("city", "redis", "file")
    spending, live, shown = found.views
    assert spending.ttl == timedelta(hours=32)
    assert [(item.name, item.type, item.doc) for item in spending.fields] == [
        ("user_id", "Int64", ""), ("price", "Float32", "in euro"),
    ]  # fmt: skip
    assert (spending.online, live.online, live.ttl) == (False, True, timedelta(0))
    assert [(entity.name, entity.key, entity.type) for entity in live.entities] == [("user", "user_id", "Int64")]
    assert (live.source.name, live.source.path, live.source.created) == ("live_rides", "data/rides.parquet", "seen")
    assert live.source.mapping == (("px", "price"),)
    assert (live.fields[0].type, live.fields[0].length) == ("Array(Float32)", 3)
    assert (shown.source.kind, shown.source.table, shown.fields[0].type) == ("BigQuerySource", "p.d.t", "Struct")
    (function,) = found.on_demand
    assert function.parts == (FeastPart("live", ("image",)), FeastPart("spending"))
    assert [item.name for request in function.requests for item in request.fields] == ["seats"]
    (service,) = found.services
    assert service.parts == (FeastPart("spending", ("price",)), FeastPart("live"), FeastPart("per_seat"))
    assert spending.where == "defs.py:15"


def test_names_are_followed_over_files(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        parts__entities="import feast\nuser = feast.Entity(name='user')\n",
        parts__sources="""
import os
from pathlib import Path
from feast import *
HERE = Path(__file__).parent.parent / "data"
rides = FileSource(path=str(HERE / "rides.parquet"), timestamp_field="at")
taxis = FileSource(name="taxis", path=os.path.join(os.path.dirname(__file__), "taxis.parquet"), timestamp_field="at")
""",
        views="""
import feast.types as t
from feast import FeatureView, Field
from parts import sources
from parts.entities import user as rider
from .parts.sources import taxis
one = FeatureView(name="one", entities=[rider], schema=[Field(name="a", dtype=t.Int64)], source=sources.rides)
two = FeatureView(name="two", entities=[rider], schema=[Field(name="a", dtype=t.Bool)], source=taxis)
same = two
""",
    )
    assert found.left == ()
    one, two = found.views
    assert (one.source.name, one.source.path) == ("rides", f"{tmp_path.as_posix()}/data/rides.parquet")
    assert two.source.path == f"{tmp_path.as_posix()}/parts/taxis.parquet"
    assert one.entities == two.entities
    assert one.entities[0].key == "user"


@pytest.mark.parametrize(
    ("text", "what", "why"),
    [
        ("import os\nrides = FileSource(name='x', path=os.environ['P'], timestamp_field='at')\n",
         "rides", "set more than once"),
        ("import os\nmine = FileSource(name='x', path=os.getenv('P'), timestamp_field='at')\n",
         "place of source x", "os.getenv(...) is called when the file runs"),
        ("v = FeatureView(name='v', entities=[user], schema=[Field(n, Int64) for n in 'ab'], source=rides)\n",
         "feature view v", "has to run"),
        ("v = FeatureView(name='v', entities=[user], ttl=make(), source=rides)\n",
         "feature view v", "make is defined nowhere in the repository"),
        (("fields = []\nfields.append(Field(name='a', dtype=Int64))\n"
         "v = FeatureView(name='v', entities=[user], schema=fields, source=rides)\n"),
         "feature view v", "fields is changed after it is set"),
        ("v = FeatureView(name='v', entities=[user], schema=[Field(name='a', dtype=int)], source=rides)\n",
         "feature view v", "a type is none of Feast's"),
        ("common = {'ttl': timedelta(days=1)}\nv = FeatureView(name='v', **common)\n",
         "feature view v", "its arguments are passed by **"),
        ("def make(n):\n    return FeatureView(name=n, entities=[user], source=rides)\na = make('a')\n",
         "a FeatureView", "made by code that has to run"),
        ("for n in 'ab':\n    FeatureView(name=n, entities=[user], source=rides)\n",
         "a FeatureView", "made by code that has to run"),
        ("if user:\n    v = FeatureView(name='v', entities=[user], source=rides)\n",
         "a FeatureView", "made by code that has to run"),
        (("a = FeatureView(name='v', entities=[user], source=rides)\n"
         "b = FeatureView(name='v', entities=[user], source=rides)\n"),
         "feature view v", "its name is taken by defs.py:12"),
        ("k = KafkaSource(name='k', topic='t', timestamp_field='at')\n",
         "source k", "it has no batch source"),
        ("v = BatchFeatureView(name='v', entities=[user], source=rides, udf=print)\n",
         "feature view v", "its features are made by udf=, not read from its source"),
        ("a = b\nb = a\nv = FeatureView(name='v', entities=[a], source=rides)\n",
         "feature view v", "a is made from itself"),
        ("v = FeatureView(name='v' * 1000000000, entities=[user], source=rides)\n",
         "feature view v", "may be too long"),
        ("v = FeatureView(name='v', entities=['nobody'], source=rides)\n",
         "feature view v", "'nobody' is no entity of the repository"),
        ("from feast import LabelView\nv = LabelView(name='v', source=rides)\n",
         "LabelView v", "there is nothing like a LabelView here"),
        (("from feast.stream_feature_view import stream_feature_view\n"
         "@stream_feature_view(source=rides)\ndef v(df):\n    return df\n"),
         "feature view v", "made by a function of a stream engine"),
        ("s = FeatureService(name='s', features=[user])\n", "a part of feature service s", "it reads an Entity"),
    ],
)  # fmt: skip
def test_what_is_not_known_before_it_runs_is_told(tmp_path: Path, text: str, what: str, why: str) -> None:
    found = read(tmp_path, defs=HEAD + text)
    assert any(note.what.startswith(what) and why in note.why for note in found.left), told(found)
    assert all(note.where.startswith("defs.py:") and note.fix for note in found.left)
    assert len(found.views) <= 1


def test_nothing_of_it_is_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    text = f"open({str(mark)!r}, 'w')\nimport no_such_module\nraise SystemExit\n"
    found = read(tmp_path, defs=HEAD + text + "v = FeatureView(name='v', entities=[user], source=rides)\n")
    assert [view.name for view in found.views] == ["v"]
    assert not mark.exists()


def test_a_file_that_is_no_python_leaves_the_others(tmp_path: Path) -> None:
    found = read(tmp_path, broken="a = (\n", defs=HEAD, other="from broken import a\nfrom feast import FeatureView\n"
                 "v = FeatureView(name='v', entities=[a], source=a)\n")  # fmt: skip
    assert next((what, where) for what, _, where in told(found)) == ("file broken.py", "broken.py:1")
    assert [source.name for source in found.sources] == ["rides"]
    assert len(found.left) == 2


def test_two_files_of_one_name_are_two(tmp_path: Path) -> None:
    entity = "from feast import Entity\nuser = Entity(name='{}')\n"
    view = """
from feast import FeatureView, FileSource
from {0}.users import user
v = FeatureView(name='{0}', entities=[user], source=FileSource(name='{0}', path='x', timestamp_field='t'))
"""
    found = read(
        tmp_path, a__users=entity.format("a"), b__users=entity.format("b"), a__v=view.format("a"), b__v=view.format("b")
    )
    assert found.left == ()
    assert [view.entities[0].name for view in found.views] == ["a", "b"]


def test_what_feast_skips_is_skipped(tmp_path: Path) -> None:
    (tmp_path / ".feastignore").write_text("drafts  # not yet\n*_old.py\n")
    found = read(
        tmp_path,
        drafts__defs=HEAD, v_old=HEAD,
        main='if __name__ == "__main__":\n    from feast import Entity\n    print(Entity)\n',
    )  # fmt: skip
    assert (found.files, found.sources, found.left) == (("main.py",), (), ())


@pytest.mark.parametrize(
    ("yaml", "why"),
    [
        ("registry: x\n", "it names no project"),
        ("- a\n", "it is no mapping"),
        ("a: [\n", ""),
        ("project: 3\n", "no"),
    ],
)
def test_a_bad_feature_store_yaml_is_refused(tmp_path: Path, yaml: str, why: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(tmp_path, yaml=yaml)
    assert caught.value.code == "MS-2631"
    assert why in caught.value.why


def test_no_repository_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        read_repository(tmp_path)
    assert caught.value.code == "MS-2630"


def test_a_folder_of_everything_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_MOST_FILES", 1)
    with pytest.raises(UsageError) as caught:
        read(tmp_path, a="", b="")
    assert caught.value.code == "MS-2632"
    monkeypatch.setattr(reading, "_MOST_BYTES", 20)
    monkeypatch.setattr(reading, "_MOST_FILES", 10)
    assert "larger" in read(tmp_path, a="x" * 30).left[0].why


def test_nothing_grows_without_bound(tmp_path: Path) -> None:
    lines = ["a0 = 'x' * 100000"] + [f"a{n + 1} = a{n} + a{n}" for n in range(60)]
    lines += ["b0 = 'x' * 100000"] + [f"b{n + 1} = f'{{b{n}}}{{b{n}}}'" for n in range(60)]
    lines += ["c = '%999999999999d' % 1"]
    views = [f"v{x} = FeatureView(name={x}, entities=[user], source=rides)" for x in ("a60", "b60", "c")]
    found = read(tmp_path, defs=HEAD + "\n".join(lines + views))
    assert (found.views, len(found.left)) == ((), 3)
