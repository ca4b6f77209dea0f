"""The catalog in Postgres, against the one contract; then what is its own: replicas, forks, servers that go."""

from __future__ import annotations

import functools
import itertools
import os
import signal
import threading
from collections.abc import Callable

import msgspec
import psycopg
import pytest
from msgspec.structs import replace

from e2e.conftest import free_port
from mainspring.adapters.postgres.catalog import schema
from mainspring.adapters.postgres.catalog.store import PostgresCatalog
from mainspring.adapters.postgres.health import health
from mainspring.adapters.postgres.settings import CatalogSettings
from mainspring.adapters.sqlite.catalog import SqliteCatalog
from mainspring.errors import MainspringError
from mainspring.testing.atonce import fork, in_children
from mainspring.testing.catalog import CatalogContract
from mainspring.testing.catalog_rows import a_commit, a_run, a_step, an_alert, an_entity, an_event
from mainspring.testing.crew import Crew

SCHEMAS = itertools.count()


@pytest.fixture(scope="module")
def crew():
    with Crew() as members:
        yield members


@pytest.fixture
def settings(postgres_url):
    """An empty schema of its own."""
    found = CatalogSettings(postgres_url, connections=4, connect_seconds=5.0, schema=f"catalog_{next(SCHEMAS)}")
    yield found
    with psycopg.connect(postgres_url) as connection:
        connection.execute(f"drop schema if exists {found.schema} cascade")


@pytest.fixture
def opening(settings):
    return functools.partial(PostgresCatalog, settings)


class TestPostgres(CatalogContract):
    """One catalog for several machines."""


def code_of(work: Callable[[], object]) -> str:
    with pytest.raises(MainspringError) as caught:
        work()
    assert caught.value.fix
    return caught.value.code


def ask(settings, sql, *values):
    with psycopg.connect(settings.url, options=f"-c search_path={settings.schema}") as connection:
        done = connection.execute(sql, values)
        return done.fetchall() if done.description else []


def fill(catalog: PostgresCatalog) -> None:
    """A row in each of the tables that never change."""
    run = a_run(1)
    catalog.start_run(run)
    catalog.start_attempt(a_step(run))
    assert catalog.commit_step(a_commit(a_step(run)))
    catalog.add_entity(an_entity(1))
    catalog.log_metrics(run.id, [])
    assert catalog.tick("nightly", 1, run.id)


@pytest.mark.parametrize("table", ["artifact", "entity", "edge", "cache", "tick", "event"])
@pytest.mark.parametrize("change", ["update {} set {} = {}", "delete from {}"])
def test_rows_that_never_change_are_kept_by_the_database(opening, settings, table, change):
    """Also from another client of it."""
    catalog = opening()
    fill(catalog)
    ((column,),) = ask(
        settings,
        "select column_name from information_schema.columns where table_schema = %s and table_name = %s "
        "order by ordinal_position limit 1",
        settings.schema,
        table,
    )
    with pytest.raises(psycopg.errors.RaiseException, match="immutable"):
        ask(settings, change.format(table, column, column))
    assert ask(settings, f"select count(*) from {table}") != [(0,)]


def test_a_newer_schema_is_refused_and_left_alone(opening, settings):
    opening().add_event(an_event(1))
    ask(settings, "update catalog_schema set version = %s", schema.VERSION + 1)
    assert code_of(opening) == "MS-4204"
    assert ask(settings, "select version from catalog_schema") == [(schema.VERSION + 1,)]


def test_apps_have_schemas_of_their_own(opening, settings):
    other = replace(settings, schema=settings.schema + "_other")
    try:
        opening().add_event(an_event(1))
        assert PostgresCatalog(other).events() == []
    finally:
        ask(settings, f"drop schema {other.schema} cascade")


@pytest.mark.parametrize("name", ["Upper", "two words", "a;drop table run", "", "x" * 64])
def test_a_schema_that_is_no_name_is_refused_by_its_pattern(name):
    """Before it can be part of a statement."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"url": "postgresql://x", "schema": name}, CatalogSettings)


def test_replicas_that_start_at_once_make_the_tables_once(settings):
    work = [functools.partial(_open_and_tell, settings, number) for number in range(6)]
    assert in_children(work) == [0] * 6
    found = PostgresCatalog(settings).events()
    assert sorted(event.at for event in found) == list(range(6))
    assert [event.seq for event in found] == list(range(1, 7))


def _open_and_tell(settings, number):
    PostgresCatalog(settings).add_event(an_event(number))


def test_children_have_connections_of_their_own(opening):
    """A parent goes on with its own while forked children write, and after they have ended."""
    before = threading.active_count()
    catalog = opening()
    catalog.add_event(an_event(0))
    assert in_children([functools.partial(_tell_often, catalog, number) for number in range(3)]) == [0] * 3
    catalog.add_event(an_event(9))
    assert len(catalog.events()) == 1 + 3 * 10 + 1
    assert threading.active_count() == before, "a process with threads could not be forked"


def _tell_often(catalog, number):
    for _ in range(10):
        catalog.add_event(an_event(number))
    catalog.close()


def test_a_killed_writer_leaves_nothing_half_written(opening, settings):
    """What it had open is undone by the server, and nobody waits for it."""
    catalog = opening()
    reader, writer = os.pipe()
    child = fork()
    if child == 0:
        with PostgresCatalog(settings).write() as cursor:
            cursor.execute("select pg_advisory_xact_lock(1)")
            cursor.execute("insert into tag values ('s', 'half', '1')")
            os.write(writer, b"x")
            signal.pause()
    assert os.read(reader, 1) == b"x"
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    catalog.tag("s", {"whole": "1"})
    assert catalog.tags("s") == {"whole": "1"}


def test_connections_that_the_server_has_ended_are_not_used_again(opening, settings):
    """A restart of the server costs no caller an error."""
    catalog = opening()
    catalog.tag("s", {"a": "1"})
    ended = "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() and query like %s"
    assert ask(settings, ended, "%tag%")
    assert catalog.tags("s") == {"a": "1"}
    assert health(catalog) == {"answers": True}


def test_who_waits_too_long_for_a_connection_is_told(settings):
    catalog = PostgresCatalog(replace(settings, connections=1, connect_seconds=0.2))
    with catalog.database.connection():
        assert code_of(lambda: catalog.tags("s")) == "MS-4205"
    assert catalog.tags("s") == {}


def test_a_server_that_is_not_there(settings):
    gone = replace(settings, url=f"postgresql://nobody@127.0.0.1:{free_port()}/none")
    assert code_of(lambda: PostgresCatalog(gone)) == "MS-4201"


def test_a_user_who_may_not_make_tables(settings):
    ask(settings, "create role guest login password 'guest'")
    try:
        assert code_of(lambda: PostgresCatalog(replace(settings, url=_as_guest(settings.url)))) == "MS-4202"
    finally:
        ask(settings, "drop role guest")


def _as_guest(url):
    info = psycopg.conninfo.conninfo_to_dict(url)
    return f"postgresql:///{info['dbname']}?host={info['host']}&port={info.get('port', 5432)}&user=guest&password=guest"


def test_texts_that_postgres_cannot_keep_come_back_readable(opening):
    """Its texts know no NUL; an error of a user may have one."""
    catalog, run = opening(), a_run(1)
    catalog.start_run(run)
    catalog.start_attempt(a_step(run))
    assert catalog.end_attempt(replace(a_step(run), status="failed", ended=15, error="a\0b"))
    assert catalog.steps(run.id)[0].error == "a\ufffdb"
    catalog.add_event(replace(an_event(1), data={"a": "a\0b"}))
    assert catalog.events()[-1].data == {"a": "a\0b"}


def test_the_same_rows_come_back_as_from_sqlite(opening, tmp_path):
    """Whatever order they are asked in: the same calls leave two catalogs that answer alike."""
    for catalog in (both := (opening(), SqliteCatalog(tmp_path / "catalog.db"))):
        fill(catalog)
        catalog.open_alert(an_alert("a"))
    one, other = both
    assert one.events() == other.events(), "with the hashes that chain them"
    for asked in ("runs", "entities", "aliases", "alerts"):
        assert getattr(one, asked)() == getattr(other, asked)()
