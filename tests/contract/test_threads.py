"""Every thread store, against the one contract."""

import stat
from pathlib import Path

import pytest

from mainspring.adapters.postgres import ADAPTER as POSTGRES
from mainspring.adapters.postgres.health import health
from mainspring.adapters.postgres.settings import PostgresSettings
from mainspring.adapters.postgres.threads import open_threads as open_postgres
from mainspring.adapters.sqlite import THREADS as SQLITE
from mainspring.adapters.sqlite.settings import SqliteSettings
from mainspring.adapters.sqlite.threads import open_threads as open_sqlite
from mainspring.choose.services import Services
from mainspring.errors import ServiceError, StoreError
from mainspring.testing.threads import ThreadStoreContract, _config, _graph, thread


class TestSqlite(ThreadStoreContract):
    @pytest.fixture
    def opening(self, tmp_path):
        opened = []

        def open_one():
            opened.append(open_sqlite(SqliteSettings(), tmp_path / "é 100% (a)"))
            return opened[-1]

        yield open_one
        for store in opened:
            store.close()


TABLES = ("checkpoints", "checkpoint_blobs", "checkpoint_writes", "rag_thread", "rag_call")


class TestPostgres(ThreadStoreContract):
    @pytest.fixture
    def opening(self, postgres_url):
        opened = []

        def open_one():
            opened.append(open_postgres(PostgresSettings(postgres_url, connections=4), Path("/nowhere")))
            return opened[-1]

        with open_one().database.connection() as connection:
            for table in TABLES:
                connection.execute(f"truncate {table}")
        yield open_one
        for store in opened:
            store.close()

    def test_it_says_that_it_answers(self, opening):
        assert health(opening()) == {"answers": True}

    def test_a_server_that_is_not_there(self):
        with pytest.raises(ServiceError) as caught:
            open_postgres(PostgresSettings("postgresql://127.0.0.1:1/x", connect_seconds=0.5), Path("/nowhere"))
        assert (caught.value.code, caught.value.origin) == ("MS-4201", "127.0.0.1:1/x")
        assert caught.value.fix


def test_their_adapters_name_them():
    assert (SQLITE.port, SQLITE.embedded, SQLITE.extra) == ("threads", True, "assistants")
    assert (POSTGRES.port, POSTGRES.embedded, POSTGRES.schemes) == ("threads", False, ("postgresql", "postgres"))


def test_what_is_erased_is_in_no_file(tmp_path):
    store = open_sqlite(SqliteSettings(), tmp_path)
    store.create(thread())
    secret = "the-secret-of-ada-" * 20
    _graph(store.checkpointer).invoke({"total": 0, "words": [secret]}, _config("t1"))
    files = [path for path in tmp_path.iterdir() if path.is_file()]
    assert any(b"the-secret-of-ada" in path.read_bytes() for path in files)
    assert store.delete(["t1"]) == 1
    assert not any(b"the-secret-of-ada" in path.read_bytes() for path in tmp_path.iterdir())
    store.close()


def test_a_file_that_is_no_database(tmp_path):
    (tmp_path / "threads.db").write_bytes(b"x" * 5000)
    with pytest.raises(StoreError) as caught:
        open_sqlite(SqliteSettings(), tmp_path)
    assert caught.value.code == "MS-4193"


def test_a_project_opens_its_threads_by_choice(tmp_path):
    (tmp_path / "mainspring.toml").write_text('app = "a:app"\n')
    services = Services.of_project(tmp_path)
    services.get("threads").create(thread())
    assert services.health("threads") == {"answers": True}
    assert (tmp_path / ".mainspring" / "threads.db").exists()
    services.get("threads").close()


def test_where_the_file_is(tmp_path):
    store = open_sqlite(SqliteSettings(url=f"sqlite://{tmp_path}/there/my.db"), tmp_path / "state")
    assert (tmp_path / "there" / "my.db").exists()
    assert not (tmp_path / "state").exists()
    store.close()


def test_only_its_user_may_read_it(tmp_path):
    store = open_sqlite(SqliteSettings(), tmp_path)
    assert stat.S_IMODE((tmp_path / "threads.db").stat().st_mode) == 0o600
    store.close()
