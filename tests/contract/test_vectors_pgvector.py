"""pgvector on a real Postgres, against the contract of the vector store."""

import itertools

import psycopg
import pytest

from mainspring.adapters.pgvector import ADAPTER
from mainspring.adapters.pgvector.health import health
from mainspring.adapters.pgvector.settings import PgvectorSettings
from mainspring.adapters.pgvector.vector_store import open_store
from mainspring.errors import ServiceError
from mainspring.ports.vector_store import Eq, Exists, Not, Point, Query, Range
from mainspring.testing.vector_oracle import clustered, id_of, ids_of, schema_of, units
from mainspring.testing.vectors import VectorStoreContract

PROGRAM = """
from pathlib import Path
from mainspring.adapters.pgvector.settings import PgvectorSettings
from mainspring.adapters.pgvector.vector_store import open_store
store = open_store(PgvectorSettings(url={url!r}, schema={schema!r}), Path())
"""
NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def url(postgres_url):
    return postgres_url


@pytest.fixture
def schema():
    return f"vectors_{next(NUMBERS)}"


@pytest.fixture
def opening(url, schema, tmp_path):
    opened = []

    def open_one(**others):
        opened.append(open_store(PgvectorSettings(url=url, schema=schema, **others), tmp_path))
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()


@pytest.fixture
def store(opening):
    return opening()


class TestPgvector(VectorStoreContract):
    @pytest.fixture
    def program(self, url, schema):
        return PROGRAM.format(url=url, schema=schema)


def fault(work):
    with pytest.raises(ServiceError) as caught:
        work()
    assert caught.value.fix
    return caught.value


def test_its_adapter_names_it(store):
    assert (ADAPTER.port, ADAPTER.name, ADAPTER.embedded) == ("vectors", "pgvector", False)
    assert ADAPTER.capabilities["writers"] == store.capabilities().writers
    found = health(store)
    assert found["indexes"] == 0
    assert found["pgvector"] >= "0.8"


def filled(store, count=6000):
    store.create("i", schema_of(32))
    rows = clustered(count, 32)
    store.upsert("i", [Point(id_of(n), rows[n], {"size": n}, f"w{n}") for n in range(count)])
    store.optimize("i")
    return rows


def plan(url, schema, query):
    with psycopg.connect(url) as connection:
        connection.execute(f"SET search_path = {schema}, public")
        return "\n".join(line for (line,) in connection.execute(f"EXPLAIN {query}"))


def test_searches_use_the_graph(store, url, schema):
    filled(store)
    vector = "[" + ",".join("0.1" for _ in range(32)) + "]"
    order = f"(embedding::halfvec(32)) <#> '{vector}'::halfvec(32)"
    assert "points_1_graph" in plan(url, schema, f"SELECT id FROM points_1 ORDER BY {order} LIMIT 10")


def test_a_scan_that_gives_up_is_done_exactly(store, url, schema):
    """``hnsw.max_scan_tuples`` stops the graph early; the rows are there all the same, and a note says how."""
    rows = filled(store)
    far = rows @ rows[0]
    rare = sorted(range(6000), key=lambda n: far[n])[:5]
    store.set_payload("i", Range("size", gte=0), {"lang": "common"})
    store.set_payload("i", [id_of(n) for n in rare], {"lang": None})
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ALTER DATABASE postgres SET hnsw.max_scan_tuples = 1")
        connection.execute("ALTER DATABASE postgres SET enable_seqscan = off")
        connection.execute("ALTER DATABASE postgres SET enable_bitmapscan = off")
        try:
            again = open_store(PgvectorSettings(url=url, schema=schema), None)
            found = again.search("i", Query(dense=rows[0], filter=Not(Exists("lang")), k=5))
            assert ids_of(found) == [id_of(n) for n in reversed(rare)]
            assert (found.complete, [note.code for note in found.notes]) == (True, ["exact_fallback"])
            found = again.search("i", Query(dense=rows[0], filter=Eq("lang", "none"), k=5))
            assert (found.hits, found.complete) == ((), False)
            again.close()
        finally:
            for setting in ("hnsw.max_scan_tuples", "enable_seqscan", "enable_bitmapscan"):
                connection.execute(f"ALTER DATABASE postgres RESET {setting}")


def test_a_graph_whose_building_was_broken_off_is_built_anew(store, opening, url, schema):
    filled(store, 500)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = %s::regclass", (f"{schema}.points_1_graph",)
        )
    assert store.stats("i").unindexed == 500
    store.optimize("i")
    assert store.stats("i").unindexed == 0


def test_nobody_there(tmp_path):
    store = open_store(
        PgvectorSettings(url="postgresql://user:topsecret@127.0.0.1:1/none", connect_timeout=1, timeout=1.0), tmp_path
    )
    error = fault(store.indexes)
    assert error.code == "MS-4265"
    assert "topsecret" not in f"{error} {error.why} {error.fix} {error.origin}"


def test_what_takes_too_long_is_stopped(opening, url, schema):
    filled(opening(), 300)
    hasty = opening(timeout=0.3)
    assert hasty.count("i") == 300
    with psycopg.connect(url) as holder:
        holder.execute(f"LOCK TABLE {schema}.points_1 IN ACCESS EXCLUSIVE MODE")
        assert fault(lambda: hasty.count("i")).code == "MS-4266"
    assert hasty.count("i") == 300


def test_a_server_that_comes_back(opening, url, schema):
    store = opening()
    filled(store, 20)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            " AND backend_type = 'client backend'"
        )
    assert store.count("i") == 20, "a connection that was cut is replaced before anybody meets it"


def test_languages(store):
    store.create("i", schema_of(16, language="german"))
    store.upsert("i", [Point(id_of(1), units(1, 16)[0], {}, "Die Häuser stehen")])
    assert ids_of(store.search("i", Query(text="haus"))) == [id_of(1)]
    assert ids_of(store.search("i", Query(text="die"))) == []
    with pytest.raises(Exception, match="cannot hold") as caught:
        store.create("k", schema_of(16, language="klingon"))
    assert caught.value.code == "MS-2657"
