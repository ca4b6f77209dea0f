"""The databases that sources are in, on real servers, against the one contract."""

from pathlib import Path
from typing import ClassVar

import psycopg
import pyarrow as pa
import pytest

from mainspring.adapters.postgres import source as postgres_source
from mainspring.adapters.postgres.source import open_source as open_postgres
from mainspring.errors import MainspringError
from mainspring.ports.source import Range, Relation, SourceSettings
from mainspring.testing.relations import RelationsContract

STATE = Path("/nowhere")


def fault(work):
    with pytest.raises(MainspringError) as caught:
        work()
    assert caught.value.fix
    assert "secret-word" not in str(caught.value.as_dict())
    return caught.value.code


class TestPostgres(RelationsContract):
    TYPES: ClassVar = {
        "text": "text", "char(8)": "char(8)", "int64": "bigint", "number(30, 10)": "numeric(30, 10)",
        "float64": "double precision", "naive": "timestamp", "zoned": "timestamptz", "date": "date",
        "flag": "boolean", "bytes": "bytea",
    }  # fmt: skip

    @pytest.fixture
    def reader(self, postgres_url):
        return open_postgres(SourceSettings(url=postgres_url), STATE)

    @pytest.fixture
    def unreachable(self):
        settings = SourceSettings(url="postgresql://me:secret-word@127.0.0.1:1/shop", connect_timeout=2)
        return open_postgres(settings, STATE)

    @pytest.fixture
    def filling(self, postgres_url):
        with psycopg.connect(postgres_url, autocommit=True) as connection:

            def fill(name, columns, rows):
                connection.execute(f"drop table if exists {name}")
                listed = ", ".join(f"{column} {self.TYPES[kind]}" for column, kind in columns.items())
                connection.execute(f"create table {name} ({listed})")
                with connection.cursor().copy(f"copy {name} from stdin") as copy:
                    for row in rows:
                        copy.write_row(row)

            yield fill
            connection.execute("drop table if exists contract")

    def test_what_it_has_besides(self, reader, postgres_url):
        wanted = {
            "e": pa.string(), "u": pa.string(), "j": pa.string(), "v": pa.list_(pa.float32(), 2), "f": pa.float64(),
            "n": pa.float64(), "t": pa.timestamp("us", "UTC"), "d": pa.date32(), "s": pa.int64(),
        }  # fmt: skip
        text = (
            "select 'a'::name as e, '4114382b-6adc-476e-8368-2a2dbe437cbc'::uuid as u, '{\"a\": 1}'::jsonb as j, "
            "'{1,2}'::real[] as v, 1.5::real as f, 'NaN'::numeric as n, 'infinity'::timestamptz as t, "
            "'-infinity'::date as d, 3::smallint as s"
        )
        schema = pa.schema(list(wanted.items()))
        (row,) = pa.Table.from_batches(list(reader.rows(Relation("orders", query=text), schema, None))).to_pylist()
        assert row == {
            "e": "a", "u": "4114382b-6adc-476e-8368-2a2dbe437cbc", "j": '{"a": 1}', "v": [1.0, 2.0], "f": 1.5,
            "n": "NaN", "t": None, "d": None, "s": 3,
        }  # fmt: skip

    def test_a_range_is_found_by_the_index(self, reader, filling, postgres_url):
        """The bounds reach the table through a query, and what has no value does not make it read all."""
        filling("contract", {"i": "int64", "t": "text"}, [(number, "x" * 50) for number in range(20_000)])
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            connection.execute("create index on contract (i)")
            connection.execute("analyze contract")
            of = Relation("orders", query="select i, upper(t) as t from contract where t <> ''")
            asked = f"select i from {postgres_source._from(of)}"
            asked += postgres_source._where('"i"', 20, Range("i", 19_990, 19_999))
            heard = [line for (line,) in connection.execute(f"explain {asked}").fetchall()]
        assert any("Index" in line for line in heard), heard
        assert not any("Seq Scan" in line for line in heard), heard

    def test_it_writes_nothing(self, reader, filling):
        filling("contract", {"i": "int64"}, [])
        text = "with made as (insert into contract values (1) returning i) select i from made"
        assert fault(lambda: reader.columns(Relation("orders", query=text))) == "MS-2150"

    def test_who_may_not_read_and_what_takes_too_long(self, postgres_url, filling):
        filling("contract", {"i": "int64"}, [(1,)])
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            connection.execute("drop role if exists stranger")
            connection.execute("create role stranger login")
        stranger = open_postgres(SourceSettings(url=postgres_url.replace("postgres:@", "stranger:secret-word@")), STATE)
        assert fault(lambda: stranger.columns(Relation("orders", "contract"))) == "MS-4221"
        nowhere = open_postgres(SourceSettings(url=postgres_url.replace("/postgres?", "/nowhere?")), STATE)
        assert fault(nowhere.answers) == "MS-4221"
        hasty = open_postgres(SourceSettings(url=postgres_url, timeout=0.2), STATE)
        slow = Relation("orders", query="select 1 as i from pg_sleep(20)")
        assert fault(lambda: list(hasty.rows(slow, pa.schema([("i", pa.int64())]), None))) == "MS-4222"
        broken = Relation("orders", query="select 1 / (n - 1000) as i from generate_series(1, 1000) n")
        reader = open_postgres(SourceSettings(url=postgres_url), STATE)
        assert fault(lambda: list(reader.rows(broken, pa.schema([("i", pa.int64())]), None))) == "MS-2150"
