"""What is written of a Feast repository: apps that are loaded and held against what the repository said."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mainspring.declare.app import App
from mainspring.declare.declaration import DeclaredKind, name_of, spec_of
from mainspring.declare.record import ColumnType, Kind
from mainspring.protocols.feast.files import FileColumn, columns_of
from mainspring.protocols.feast.functions import carry
from mainspring.protocols.feast.project import Project, project_of
from mainspring.server.planning import plan_of
from unit.protocols.test_feast_repository import HEAD, read

YAML = "project: city\n"
RIDES = {
    "user_id": FileColumn("Int64"),
    "at": FileColumn("UnixTimestamp"),
    "price": FileColumn("Float32"),
    "px": FileColumn("Float64"),
    "n": FileColumn("Int64"),
    "name": FileColumn("String"),
    "class": FileColumn("String"),
    "ttl": FileColumn("Int64"),
    "image": FileColumn("Array(Float32)", 4),
    "list": FileColumn("Array(Float32)"),
    "cost": FileColumn("Decimal", precision=12, scale=2),
    "day": FileColumn("Date"),
}


def write(
    folder: Path, text: str, *, yaml: str = YAML, columns: Mapping[str, Mapping[str, FileColumn]] | None = None
) -> Project:
    found = read(folder / "feast", yaml=yaml, defs=HEAD + text)
    given = {"rides": RIDES} if columns is None else columns
    return project_of(found, given, module="city", target=(folder / "city").as_posix())


def load(folder: Path, project: Project) -> App:
    """The app, loaded as a module, bound and planned; what is written is formatted and imports what it uses."""
    place = folder / "city"
    place.mkdir(exist_ok=True)
    for name, text in project.files.items():
        (place / name).write_text(text)
    for words in (["format", "--diff"], ["check", "--select", "E,F,I,UP,B"]):
        command = [sys.executable, "-m", "ruff", *words, "--isolated", "--line-length", "120", str(place)]
        done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
    spec = importlib.util.spec_from_file_location("city_of_feast", place / "city.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.app.bind(vars(module))
    plan_of(module.app)
    return module.app  # type: ignore[no-any-return]  # the module's app


def only(app: App, kind: DeclaredKind) -> Any:
    (found,) = app.of_kind(kind)
    return found


def left(project: Project) -> dict[str, str]:
    return {note.what: note.why for note in project.left}


def test_a_view_says_what_it_said(tmp_path: Path) -> None:
    project = write(
        tmp_path,
        """
source = FileSource(name="rides", path="data/r.parquet", timestamp_field="at", created_timestamp_column="seen",
                    field_mapping={"px": "net"})
spending = FeatureView(
    name="spending-v1", entities=[user], ttl=timedelta(hours=36), online=False, source=source,
    schema=[Field(name="price", dtype=Float32, description='in "euro"'), Field(name="n", dtype=Int64),
            Field(name="net", dtype=Float32), Field(name="image", dtype=Array(Float32))],
)
""".replace("source = FileSource", "rides_of = FileSource").replace("source=source", "source=rides_of")
        .replace('name="rides", path="data/r', 'name="trips.v1", path="data/r'),
        columns={"trips.v1": RIDES},
    )  # fmt: skip
    app = load(tmp_path, project)
    source, view = only(app, DeclaredKind.SOURCE), only(app, DeclaredKind.FEATURE_VIEW)
    assert (name_of(source), name_of(view)) == ("trips_v1", "spending-v1")
    spec = spec_of(source)
    assert (spec.time, spec.ingested, spec.zone) == ("at", "seen", "UTC")
    types = {field.name: field.type for field in spec.fields}
    assert types == {
        "user_id": ColumnType(Kind.INTEGER),
        "price": ColumnType(Kind.FLOAT, True),
        "n": ColumnType(Kind.INTEGER, True),
        "px": ColumnType(Kind.FLOAT, True),
        "image": ColumnType(Kind.VECTOR, True, length=4),
        "at": ColumnType(Kind.TIMESTAMP),
        "seen": ColumnType(Kind.TIMESTAMP, True),
    }
    assert spec.field("price").rules.doc == 'in "euro"'
    held = spec_of(view)
    assert (held.ttl_us, held.online) == (36 * 3_600_000_000, False)
    assert {name: aggregate.column for name, aggregate in held.features} == {
        "price": "price", "n": "n", "net": "px", "image": "image",
    }  # fmt: skip
    assert [spec_of(entity).key for entity in held.entities] == ["user_id"]
    assert tomllib.loads(project.files["mainspring.toml"]) == {
        "app": "city:app", "sources": {"trips_v1": {"path": "../feast/data/r.parquet"}},
    }  # fmt: skip
    changed = " ".join(note.what for note in project.changed)
    assert "ttl of spending-v1" in changed
    assert "created_timestamp_column of trips.v1" in changed


@pytest.mark.parametrize(
    ("fields", "what", "why"),
    [
        ('Field(name="class", dtype=String)', "feature v:class", "'class' is no name that Python can have"),
        ('Field(name="a b", dtype=String)', "feature v:a b", "is no name"),
        ('Field(name="ttl", dtype=Int64)', "feature v:ttl", "'ttl' is the name of an option of app.features"),
        ('Field(name="name", dtype=Struct({"a": String}))', "feature v:name", "it is Struct, which no column here"),
        ('Field(name="list", dtype=Array(Float32))', "feature v:list", "its length is written nowhere"),
        ('Field(name="image", dtype=Array(Int64))', "feature v:image", "it is Array(Int64), which no column here"),
        ('Field(name="none", dtype=Int64)', "feature v:none", "its file has no column 'none'"),
    ],
)
def test_a_feature_that_cannot_be_is_told_and_the_others_stay(tmp_path: Path, fields: str, what: str, why: str) -> None:
    text = (
        f'v = FeatureView(name="v", entities=[user], source=rides, schema=[Field(name="n", dtype=Int64), {fields}])\n'
    )
    project = write(tmp_path, text)
    assert why in left(project)[what]
    assert [name for name, _ in spec_of(only(load(tmp_path, project), DeclaredKind.FEATURE_VIEW)).features] == ["n"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("v = FeatureView(name='v', schema=[Field(name='n', dtype=Int64)], source=rides)", "it has no entity"),
        ("v = FeatureView(name='v', entities=[user], schema=[Field(name='class', dtype=Int64)], source=rides)",
         "none of its features"),
        (("u = Entity(name='u', join_keys=['class'])\n"
         "v = FeatureView(name='v', entities=[u], schema=[Field(name='n', dtype=Int64)], source=rides)"), "its key"),
        (("v = FeatureView(name='v', entities=[user], schema=[Field(name='n', dtype=Int64)],"
         " source=FileSource(name='x', path='x'))"), "names no timestamp_field"),
        ("v = FeatureView(name='v', entities=[user], source=FileSource(name='x', path='x', timestamp_field='at'))",
         "it has no schema, and its data cannot be looked into"),
    ],
)  # fmt: skip
def test_a_view_that_cannot_be_is_told(tmp_path: Path, text: str, why: str) -> None:
    project = write(tmp_path, text)
    assert why in left(project)["feature view v"]
    assert not load(tmp_path, project).declared()


def test_what_is_written_nowhere_is_looked_up_in_the_file(tmp_path: Path) -> None:
    project = write(
        tmp_path,
        "u = Entity(name='u', join_keys=['name'])\nv = FeatureView(name='v', entities=[u], source=FileSource("
        "name='rides2', path='x'))\nw = FeatureView(name='w', entities=[Entity(name='q')], schema=["
        "Field(name='z', dtype=Int64)], source=FileSource(name='unseen', path='y', timestamp_field='at'))\n",
        columns={"rides2": RIDES},
    )
    app = load(tmp_path, project)
    found, other = (spec_of(source) for source in app.of_kind(DeclaredKind.SOURCE))
    assert (found.time, found.field("name").type.kind) == ("at", Kind.STRING)
    assert found.field("cost").type == ColumnType(Kind.DECIMAL, True, precision=12, scale=2)
    assert found.field("day").type == ColumnType(Kind.DATE, True)
    assert {"feature v:class", "feature v:ttl", "feature v:list"} <= left(project).keys()
    assert other.field("q").type.kind is Kind.STRING
    assert any("declared as str" in note.why for note in project.changed)


def test_names_that_clash_are_all_there(tmp_path: Path) -> None:
    project = write(
        tmp_path,
        """
last = FeatureView(name="last", entities=[user], schema=[Field(name="n", dtype=Int64)], source=rides)
both = FeatureView(name="rides", entities=[user], schema=[Field(name="n", dtype=Int64)], source=rides)
kw = FeatureView(name="class", entities=[user], schema=[Field(name="n", dtype=Int64)], source=rides)
private = FeatureView(name="_x", entities=[user], schema=[Field(name="n", dtype=Int64)], source=rides)
who = FeatureView(name="user", entities=[user], schema=[Field(name="n", dtype=Int64)], source=rides)
s = FeatureService(name="app", features=[last, kw[["n"]]])
""",
    )
    app = load(tmp_path, project)
    names = {name_of(view) for view in app.of_kind(DeclaredKind.FEATURE_VIEW)}
    assert names == {"last", "rides", "class", "_x", "user"}
    assert name_of(only(app, DeclaredKind.SOURCE)) == "rides"
    assert len(spec_of(only(app, DeclaredKind.FEATURE_SERVICE)).inputs) == 1
    assert any("class:n" in note.why for note in project.changed if note.what == "feature service app")


@pytest.mark.parametrize(
    ("source", "offline", "expected", "told"),
    [
        ("FileSource(name='s', path='s3://lake/a/*.parquet', timestamp_field='at', s3_endpoint_override='http://x')",
         "", {"url": "s3://lake/a/*.parquet", "options": {"endpoint": "http://x"}}, None),
        ("FileSource(name='s', path='/data/a.parquet', timestamp_field='at')", "", {"path": "/data/a.parquet"}, None),
        ("PostgreSQLSource(name='s', table='public.rides', timestamp_field='at')",
         "offline_store: {type: postgres, host: db, port: 5433, database: shop, user: me, password: secret}",
         {"url": "postgresql://me@db:5433/shop", "table": "public.rides"}, "password of source s"),
        ("PostgreSQLSource(name='s', query='select 1', timestamp_field='at')",
         "offline_store: {type: postgres, host: '${HOST}', database: shop}", {}, "place of source s"),
        ("BigQuerySource(name='s', table='p.d.t', timestamp_field='at')", "", {}, "place of source s"),
    ],
)  # fmt: skip
def test_places(tmp_path: Path, source: str, offline: str, expected: dict[str, object], told: str | None) -> None:
    text = f"v = FeatureView(name='v', entities=[user], schema=[Field(name='n', dtype=Int64)], source={source})\n"
    project = write(tmp_path, text, yaml=f"project: city\n{offline}\n")
    assert tomllib.loads(project.files["mainspring.toml"])["sources"]["s"] == expected
    assert "secret" not in "".join(project.files.values())
    extra = {"s3": ",aws", "po": ",postgres"}.get(str(expected.get("url", ""))[:2], "")
    assert project.files["requirements.in"] == f"mainspring[tabular{extra}]\n"
    assert told is None or told in left(project)


@pytest.mark.parametrize(
    ("store", "url"),
    [
        ("{type: redis, connection_string: 'cache:6380,ssl=true,db=2,password=secret'}", "rediss://cache:6380/2"),
        ("{type: postgres, host: db, database: shop, user: a b}", "postgresql://a%20b@db:5432/shop"),
        ("{type: redis, connection_string: '${REDIS}'}", None),
        ("{type: redis, redis_type: redis_cluster, connection_string: 'a:1,b:2'}", None),
        ("dynamodb", None),
        ("sqlite", ""),
    ],
)
def test_online_stores_are_of_the_profile_prod(tmp_path: Path, store: str, url: str | None) -> None:
    project = write(tmp_path, "", yaml=f"project: city\nonline_store: {store}\n")
    held = tomllib.loads(project.files["mainspring.toml"])
    assert held.get("profiles", {}).get("prod", {}).get("online", {}).get("url") == (url or None)
    assert any(note.what.startswith("online store") for note in project.left) == (url is None)
    assert "secret" not in project.files["mainspring.toml"]


ON_DEMAND = """
live = FeatureView(name="live", entities=[user], schema=[Field(name="price", dtype=Float32),
    Field(name="n", dtype=Int64), Field(name="name", dtype=String)], source=rides)
asked = RequestSource(name="asked", schema=[Field(name="seats", dtype=Int64)])
SCALE = 2.5
import math
import pandas as pd
from typing import Any
def helper(x): return x
"""


def test_functions_are_called_as_feast_calls_them(tmp_path: Path) -> None:
    project = write(
        tmp_path,
        ON_DEMAND
        + """
@on_demand_feature_view(sources=[live, asked], mode="python", singleton=True,
                        schema=[Field(name="each", dtype=Float32), Field(name="up", dtype=Int64)])
def one(inputs: dict[str, Any]) -> dict[str, Any]:
    if inputs["price"] is None:
        return {"each": None, "up": None}
    each = inputs["price"] * SCALE / inputs["seats"]
    return {"each": each, "up": math.ceil(each)}

@on_demand_feature_view(sources=[live], schema=[Field(name="long", dtype=Int64)], mode="python", name="many-of")
def many(inputs):
    return {"long": [None if name is None else len(name) for name in inputs["live__name"]]}

@on_demand_feature_view(sources=[live, asked], schema=[Field(name="total", dtype=Float32)])
def summed(df: pd.DataFrame) -> pd.DataFrame:
    '''What it costs.'''
    out = pd.DataFrame()
    net = df["price"] - 1
    out["total"] = -net * df["seats"] / 2
    return out

ranking = FeatureService(name="ranking", features=[live[["price"]], one, many, summed[["total"]]])
""",
    )
    assert set(left(project)) <= {"source rides"}
    app = load(tmp_path, project)
    functions: dict[str, Any] = {name_of(each): each for each in app.of_kind(DeclaredKind.ON_DEMAND)}
    assert set(functions) == {"one", "many-of", "summed"}
    assert functions["one"](price=3.0, seats=2).__dict__ == {"each": 3.75, "up": 4}
    assert functions["one"](price=None, seats=2).__dict__ == {"each": None, "up": None}
    rows = pl.DataFrame({"live__name": ["ab", None]})
    assert functions["many-of"](rows).to_dict(as_series=False) == {"long": [2, None]}
    rows = pl.DataFrame({"price": [3.0, None], "seats": [4, 1]})
    assert functions["summed"](rows).to_dict(as_series=False) == {"total": [-4.0, None]}
    assert [name for name, _ in spec_of(functions["many-of"]).inputs] == ["live__name"]
    assert len(spec_of(only(app, DeclaredKind.FEATURE_SERVICE)).inputs) == 4


@pytest.mark.parametrize(
    ("mode", "body", "why"),
    [
        ("pandas", "    df = pd.DataFrame()\n    df['o'] = i['n'].fillna(0)\n    return df", "more than arithmetic"),
        ("pandas", "    df = pd.DataFrame()\n    df['o'] = i['name'] + i['name']\n    return df", "no number"),
        ("pandas", "    df = pd.DataFrame()\n    df['p'] = i['n'] + 1\n    return df", "does not make o"),
        ("pandas", "    df = pd.DataFrame()\n    df['o'] = 1\n    return df", "more than arithmetic"),
        ("pandas", "    i['o'] = i['n'] + 1\n    return i", "more than arithmetic"),
        ("python", "    return {'o': helper(i['n'])}", "it calls or reads helper"),
        ("python", "    return {'o': pd.Series(i['n'])}", "it needs pandas"),
        ("python", "    return {'o': i['nobody']}", "it reads 'nobody'"),
        ("substrait", "    return i", "its mode is substrait"),
    ],
)
def test_functions_that_cannot_be_called_are_told(tmp_path: Path, mode: str, body: str, why: str) -> None:
    head = f'@on_demand_feature_view(sources=[live], schema=[Field(name="o", dtype=Int64)], mode="{mode}")\n'
    service = 's = FeatureService(name="s", features=[live, f])\n'
    project = write(tmp_path, f"{ON_DEMAND}{head}def f(i):\n{body}\n{service}")
    assert why in left(project)["on-demand feature view f"]
    app = load(tmp_path, project)
    assert not app.of_kind(DeclaredKind.ON_DEMAND)
    assert any("without f" in note.why for note in project.changed if note.what == "feature service s")


TERMS = st.recursive(
    st.sampled_from(['i["n"]', 'i["price"]', "2", "0.5", "3"]),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("+-*/"), inner).map(lambda made: f"({made[0]} {made[1]} {made[2]})"),
        inner.map(lambda made: f"(-{made})"),
    ),
    max_leaves=6,
)


@given(
    terms=st.lists(TERMS.map(lambda term: f'i["n"] + {term}'), min_size=1, max_size=3),
    rows=st.lists(
        st.tuples(st.integers(-50, 50), st.one_of(st.none(), st.floats(-100, 100, width=32))), min_size=1, max_size=6
    ),
)
@example(terms=['i["n"] + (2 / (3 - 3))'], rows=[(1, None)])
@example(
    terms=['i["n"] + (2 / (i["n"] - i["n"]))', 'i["n"] + (i["price"] / i["n"])'], rows=[(0, 0.0), (1, -1.0), (-1, None)]
)
def test_arithmetic_in_polars_is_that_of_pandas(
    tmp_path_factory: pytest.TempPathFactory, terms: list[str], rows: list[tuple[int, float | None]]
) -> None:
    """The oracle is the function itself, run by pandas; what divides constants by zero raises as it does there."""
    fields = ", ".join(f'Field(name="o{number}", dtype=Float32)' for number in range(len(terms)))
    body = "".join(f'    df["o{number}"] = {term}\n' for number, term in enumerate(terms))
    function = f"def f(i):\n    df = pd.DataFrame()\n{body}    return df\n"
    text = f"{ON_DEMAND}@on_demand_feature_view(sources=[live], schema=[{fields}])\n{function}"
    (view,) = read(tmp_path_factory.mktemp("feast"), defs=HEAD + text).on_demand
    made = carry(view, {"n": "Int64", "price": "Float32"})
    namespace: dict[str, Any] = {"pl": pl, "pd": pd}
    lines = "\n".join(f"    {line}" for line in made.body[0].splitlines())
    exec(f"def ours(rows):\n{lines}\n{function}", namespace)
    ours: Callable[[pl.DataFrame], pl.DataFrame] = namespace["ours"]
    given_rows = {"n": [n for n, _ in rows], "price": [price for _, price in rows]}
    asked = pl.DataFrame(given_rows, schema={"n": pl.Int64, "price": pl.Float64})
    try:
        wanted = namespace["f"](
            pd.DataFrame({"n": given_rows["n"], "price": pd.Series(given_rows["price"], dtype=float)})
        )
    except ZeroDivisionError:
        with pytest.raises(ZeroDivisionError):
            ours(asked)
        return
    found = ours(asked)
    for name in wanted.columns:
        mine = [float("nan") if value is None else value for value in found[name].to_list()]
        assert mine == pytest.approx(wanted[name].tolist(), nan_ok=True), name


def test_a_parquet_file_says_its_types(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {"a": [1], "b": ["x"], "c": [[1.0, 2.0]], "at": [datetime(2025, 1, 1)], "d": [b"x"], "e": [True]},
        schema_overrides={"a": pl.Int32, "c": pl.Array(pl.Float32, 2), "at": pl.Datetime("ns")},
    )
    (tmp_path / "folder").mkdir()
    frame.write_parquet(tmp_path / "folder" / "a.parquet")
    found = columns_of(tmp_path / "folder")
    assert {name: column.type for name, column in found.items()} == {
        "a": "Int64", "b": "String", "c": "Array(Float32)", "at": "UnixTimestamp", "d": "Bytes", "e": "Bool",
    }  # fmt: skip
    assert (found["c"].length, found["at"].fine) == (2, True)
    (tmp_path / "no.parquet").write_text("no Parquet")
    assert columns_of(tmp_path / "no.parquet") == columns_of(tmp_path / "none") == {}


def test_a_place_that_is_not_known_leaves_the_view(tmp_path: Path) -> None:
    project = write(
        tmp_path,
        "import os\nfrom feast import SparkSource\n"
        "here = FileSource(name='here', path=os.environ['P'], timestamp_field='at')\n"
        "v = FeatureView(name='v', entities=[user], schema=[Field(name='n', dtype=Int64)], source=here)\n"
        "spark = SparkSource(name='spark', path='/data/x.parquet', file_format='parquet', timestamp_field='at')\n"
        "w = FeatureView(name='w', entities=[user], schema=[Field(name='n', dtype=Int64)], source=spark)\n",
    )
    assert "os.environ" in left(project)["place of source here"]
    assert len(load(tmp_path, project).of_kind(DeclaredKind.FEATURE_VIEW)) == 2
    sources = tomllib.loads(project.files["mainspring.toml"])["sources"]
    assert sources == {"here": {}, "spark": {"path": "/data/x.parquet"}}


def test_a_push_source_takes_all_columns_of_its_rows(tmp_path: Path) -> None:
    text = (
        "live = PushSource(name='live', batch_source=FileSource(path='x', timestamp_field='at'))\n"
        "v = FeatureView(name='v', entities=[user], schema=[Field(name='n', dtype=Int64)], source=live)\n"
    )
    source = only(load(tmp_path, write(tmp_path, text, columns={"live": RIDES})), DeclaredKind.SOURCE)
    names = {field.name for field in spec_of(source).fields}
    assert names == RIDES.keys() - {"class", "list"}
    unseen = write(tmp_path, text, columns={})
    assert any("a push may carry" in note.why for note in unseen.changed)


def test_keys_of_one_source_may_be_missing_where_views_differ(tmp_path: Path) -> None:
    project = write(
        tmp_path,
        "shop = Entity(name='shop', join_keys=['name'])\n"
        "v = FeatureView(name='v', entities=[user], schema=[Field(name='n', dtype=Int64)], source=rides)\n"
        "w = FeatureView(name='w', entities=[shop, user], schema=[Field(name='px', dtype=Float32)], source=rides)\n",
    )
    app = load(tmp_path, project)
    fields = {field.name: field.type.nullable for field in spec_of(only(app, DeclaredKind.SOURCE)).fields}
    assert fields == {"user_id": True, "n": True, "name": True, "px": True, "at": False}
    assert [len(spec_of(view).entities) for view in app.of_kind(DeclaredKind.FEATURE_VIEW)] == [1, 2]


def test_a_service_reads_nothing_that_is_not_kept_online(tmp_path: Path) -> None:
    text = ON_DEMAND.replace('source=rides)\nasked', 'source=rides, online=False)\nasked') + (
        '@on_demand_feature_view(sources=[live], schema=[Field(name="o", dtype=Int64)])\n'
        "def f(i):\n    df = pd.DataFrame()\n    df['o'] = i['n'] + 1\n    return df\n"
        's = FeatureService(name="s", features=[live, f])\n'
        'v = FeatureView(name="v", entities=[user], schema=[Field(name="px", dtype=Float32)], source=rides)\n'
        't = FeatureService(name="t", features=[f, v])\n'
    )  # fmt: skip
    project = write(tmp_path, text)
    app = load(tmp_path, project)
    assert left(project)["feature service s"] == "none of its features could be carried"
    assert name_of(only(app, DeclaredKind.FEATURE_SERVICE)) == "t"
    assert app.of_kind(DeclaredKind.ON_DEMAND)


@pytest.mark.parametrize("name", ['a"""b', "a\\b", "a\nb", "é ü", "''"])
def test_any_name_is_a_text_in_what_is_written(tmp_path: Path, name: str) -> None:
    view = f"v = FeatureView(name={name!r}, entities=[user], schema=[Field(name='n', dtype=Int64)], source=s)\n"
    source = f"s = BigQuerySource(name={name!r}, table={name!r}, timestamp_field='at')\n"
    project = write(tmp_path, source + view, yaml=f"project: {json.dumps(name)}\n")
    app = load(tmp_path, project)
    assert (app.name, name_of(only(app, DeclaredKind.FEATURE_VIEW))) == (name, name)
    sources = tomllib.loads(project.files["mainspring.toml"])["sources"]
    assert list(sources) == [name_of(only(app, DeclaredKind.SOURCE))]
