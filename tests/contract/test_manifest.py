"""Every manifest, against the one contract; then what SQLite alone promises."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sqlite3
from pathlib import Path

import pytest

from mainspring.adapters.postgres.health import health
from mainspring.adapters.postgres.manifest import open_manifest as open_postgres
from mainspring.adapters.postgres.settings import PostgresSettings
from mainspring.adapters.sqlite.manifest import open_manifest
from mainspring.adapters.sqlite.settings import SqliteSettings
from mainspring.errors import StoreError
from mainspring.testing.atonce import fork, together
from mainspring.testing.manifest import ManifestContract, document, member


class TestSqlite(ManifestContract):
    """The embedded manifest."""

    @pytest.fixture
    def reopen(self, tmp_path):
        opened = []

        def open_one():
            opened.append(open_manifest(SqliteSettings(), tmp_path))
            return opened[-1]

        yield open_one
        for one in opened:
            one.close()


TABLES = ("rag_document", "rag_member", "rag_chunk", "rag_vector", "rag_version", "rag_alias")


class TestPostgres(ManifestContract):
    """One manifest for several machines."""

    @pytest.fixture
    def reopen(self, postgres_url):
        opened = []

        def open_one():
            opened.append(open_postgres(PostgresSettings(postgres_url, connections=2), Path("/nowhere")))
            return opened[-1]

        with open_one().database.connection() as connection:
            connection.execute(f"truncate {', '.join(TABLES)}")
        yield open_one
        for one in opened:
            one.close()

    def test_it_says_that_it_answers(self, reopen):
        assert health(reopen()) == {"answers": True}

    def test_two_that_write_the_same_rows_at_once_both_do(self, reopen):
        rows = [document(number) for number in range(50)]
        members = [member(number, 3) for number in range(50)]

        def write(store):
            for _ in range(5):
                store.put_documents("library", rows)
                store.put_members("library", 1, members)

        together([functools.partial(write, reopen()) for _ in range(4)])
        found = reopen()
        assert len(found.documents("library")) == 50
        assert found.chunks("library", 1) == {one.member.document_id: list(one.chunks) for one in members}

    def test_a_connection_that_the_server_ends_is_replaced(self, reopen):
        store = reopen()
        store.put_documents("library", [document(1)])
        with reopen().database.connection() as other:
            other.execute("select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid()")
        assert store.documents("library") == [document(1)]


def test_what_was_written_survives_a_kill(tmp_path):
    for number in range(3):
        child = fork()
        if child == 0:
            mine = open_manifest(SqliteSettings(), tmp_path)
            mine.put_documents("library", [document(number)])
            mine.put_members("library", 1, [member(number, 2)])
            os.kill(os.getpid(), signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    found = open_manifest(SqliteSettings(), tmp_path)
    assert found.documents("library") == [document(number) for number in range(3)]
    assert found.chunks("library", 1) == {f"{n:032x}": list(member(n, 2).chunks) for n in range(3)}
    found.close()


def test_a_foreign_file_is_left_alone(tmp_path):
    (tmp_path / "indexes").mkdir()
    (tmp_path / "indexes" / "manifest.db").write_bytes(b"no database at all, but more than a page of text " * 200)
    with pytest.raises(StoreError) as caught:
        open_manifest(SqliteSettings(), tmp_path)
    assert caught.value.fix


def test_vectors_of_a_file_of_the_first_schema_are_kept(tmp_path):
    path = tmp_path / "indexes" / "manifest.db"
    open_manifest(SqliteSettings(), tmp_path).close()
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executescript("""
            drop table rag_vector;
            create table rag_vector (embedder_id text not null, text_hash text not null, vector blob not null,
                used_us integer not null, primary key (embedder_id, text_hash)) without rowid;
            create index rag_vector_used on rag_vector (used_us);
            insert into rag_vector values ('e', 'one', x'01', 1), ('e', 'two', x'02', 2), ('f', 'one', x'03', 3);
            pragma user_version = 1;
        """)
    found = open_manifest(SqliteSettings(), tmp_path)
    assert found.vectors("e", ["one", "two", "three"]) == {"one": b"\1", "two": b"\2"}
    found.put_vectors("e", {"one": b"\4"}, 4)
    assert found.trim_vectors(2) == 1
    assert (found.vectors("e", ["one", "two"]), found.vectors("f", ["one"])) == ({"one": b"\4"}, {"one": b"\3"})
    found.close()
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("pragma user_version").fetchone() == (2,)
        assert db.execute("select name from sqlite_master where name = 'rag_vector_1'").fetchall() == []
