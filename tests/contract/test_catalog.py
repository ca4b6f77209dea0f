"""Every catalog, against the one contract; then what SQLite alone promises."""

import contextlib
import functools
import os
import resource
import shutil
import sqlite3
import threading
from pathlib import Path

import msgspec
import pytest

from mainspring.adapters.sqlite.catalog import SqliteCatalog, open_catalog
from mainspring.adapters.sqlite.connection import untrusted_disk
from mainspring.adapters.sqlite.entities import _WAYS
from mainspring.adapters.sqlite.problems import turned
from mainspring.adapters.sqlite.schema import VERSION
from mainspring.adapters.sqlite.settings import SqliteSettings
from mainspring.errors import StoreError
from mainspring.testing.atonce import in_children
from mainspring.testing.catalog import CatalogContract
from mainspring.testing.catalog_rows import an_alert
from mainspring.testing.crew import Crew


@pytest.fixture(scope="module")
def crew():
    with Crew() as members:
        yield members


@pytest.fixture
def opening(tmp_path):
    return functools.partial(SqliteCatalog, tmp_path / "catalog.db")


class TestSqlite(CatalogContract):
    """The embedded catalog."""


def fault(work):
    with pytest.raises(StoreError) as caught:
        work()
    assert caught.value.fix
    return caught.value.code


def tagged(catalog, key):
    return catalog._db.read("select value from tag where key = ?", (key,))


def tag(catalog, key, value="1"):
    with catalog._db.write() as db:
        db.execute("insert into tag values ('s', ?, ?)", (key, value))


def test_a_newer_schema_is_refused_and_its_file_is_left_alone(tmp_path, opening):
    file = tmp_path / "catalog.db"
    with contextlib.closing(sqlite3.connect(file)) as other:
        other.execute("create table of_tomorrow (a)")
        other.execute(f"pragma user_version = {VERSION + 1}")
        other.commit()
    before = file.read_bytes()
    assert fault(opening) == "MS-4114"
    assert file.read_bytes() == before
    assert os.listdir(tmp_path) == ["catalog.db"]


def test_a_catalog_of_an_older_version_is_brought_up_to_date(tmp_path, opening):
    catalog = opening()
    catalog.open_alert(an_alert("a"))
    catalog.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "catalog.db")) as other:
        for column in ("acked_by", "muted_until"):
            other.execute(f"alter table alert drop column {column}")
        other.execute("pragma user_version = 1")
        other.commit()
    newer = opening()
    assert newer.alerts() == [an_alert("a")]
    held = msgspec.structs.replace(an_alert("a"), state="muted", acked_by="ada", muted_until=7)
    assert newer.move_alert(held, "firing")
    assert opening().alerts() == [held]


def test_another_programs_database_is_refused(tmp_path, opening):
    with contextlib.closing(sqlite3.connect(tmp_path / "catalog.db")) as other:
        other.execute("create table invoice (a)")
        other.commit()
    assert fault(opening) == "MS-4113"
    with contextlib.closing(sqlite3.connect(tmp_path / "catalog.db")) as other:
        assert other.execute("select name from sqlite_master").fetchall() == [("invoice",)]


def test_what_is_no_database_is_refused(tmp_path, opening):
    (tmp_path / "catalog.db").write_bytes(b"what is this? " * 999)
    assert fault(opening) == "MS-4113"


def test_a_folder_that_may_not_be_written(tmp_path):
    (tmp_path / "file").write_text("no folder")
    assert fault(lambda: open_catalog(SqliteSettings(), tmp_path / "file" / "state")) == "MS-4111"


def test_a_folder_that_is_missing_under_the_file(tmp_path):
    assert fault(lambda: SqliteCatalog(tmp_path / "none" / "catalog.db")) == "MS-4111"


def test_a_disk_without_room_for_the_index_of_the_log_is_full(tmp_path, monkeypatch):
    """SQLite says "disk I/O error" then; so it does of a disk that fails."""
    error = sqlite3.OperationalError("disk I/O error")
    assert turned(error, tmp_path / "catalog.db").code == "MS-4111"
    nothing = shutil._ntuple_diskusage(4096, 4096, 0)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: nothing)
    assert turned(error, tmp_path / "catalog.db").code == "MS-4101"


def test_a_disk_that_takes_no_more(tmp_path, opening):
    catalog = opening()
    tag(catalog, "kept")

    def attempt():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        assert fault(lambda: tag(catalog, "big", "x" * (2 << 20))) in ("MS-4101", "MS-4111")
        assert tagged(catalog, "kept") == [("1",)]
        tag(catalog, "small")

    assert in_children([attempt]) == [0]
    assert [tagged(catalog, key) for key in ("big", "small")] == [[], [("1",)]]


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        ("/data/a", ""),
        ("/data/share/a", "network (nfs4)"),
        ("/data/share/local/a", ""),
        ("/data/two words/a", "network (cifs)"),
        ("/home/me/Dropbox/a", "synced (Dropbox)"),
        ("/home/me/Dropbox (Personal)/a", "synced (Dropbox (Personal))"),
        ("/Users/me/Library/CloudStorage/GoogleDrive-me/a", "synced (CloudStorage)"),
        ("/home/me/Dropboxes/a", ""),
    ],
)
def test_disks_whose_locks_fail_are_known(tmp_path, place, kind):
    mounts = tmp_path / "mounts"
    mounts.write_text(
        "disk / ext4 rw 0 0\nhost:/x /data/share nfs4 rw 0 0\ndisk /data/share/local ext4 rw 0 0\n"
        "//host/y /data/two\\040words cifs rw 0 0\n"
    )
    assert untrusted_disk(Path(place), mounts) == kind


def test_a_synced_folder_is_refused_unless_it_is_trusted(tmp_path):
    (tmp_path / "Dropbox").mkdir()
    assert fault(lambda: SqliteCatalog(tmp_path / "Dropbox" / "catalog.db")) == "MS-4115"
    SqliteCatalog(tmp_path / "Dropbox" / "catalog.db", SqliteSettings(allow_network_disk=True)).close()


def test_nothing_is_lost_over_a_fork(opening):
    """The parent writes, its child and its grandchild write, and the parent writes on."""
    catalog = opening()
    tag(catalog, "before")

    def child():
        tag(catalog, "child")
        assert in_children([functools.partial(tag, catalog, "grandchild")]) == [0]
        catalog.close()

    assert in_children([child] * 1) == [0]
    tag(catalog, "after")
    assert [len(tagged(opening(), key)) for key in ("before", "child", "grandchild", "after")] == [1] * 4


def test_a_fork_inside_a_transaction_leaves_it_to_the_parent(opening):
    catalog = opening()

    def child():
        with contextlib.suppress(BlockingIOError):
            assert tagged(catalog, "mine") == []

    with catalog._db.write() as db:
        db.execute("insert into tag values ('s', 'mine', '1')")
        assert in_children([child]) == [0]
        db.execute("insert into tag values ('s', 'also', '1')")
    assert tagged(opening(), "mine") == tagged(opening(), "also") == [("1",)]


def test_forks_while_threads_write(opening):
    """A fork waits for the transactions of other threads; neither side loses one."""
    catalog = opening()
    over = threading.Event()
    written = []

    def write():
        while not over.is_set():
            tag(catalog, f"thread{len(written)}")
            written.append(1)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        statuses = [in_children([functools.partial(tag, catalog, f"child{number}")]) for number in range(20)]
    finally:
        over.set()
        thread.join()
    assert statuses == [[0]] * 20
    ((count,),) = catalog._db.read("select count(*) from tag")
    assert count == 20 + len(written)


def test_connections_of_threads_that_ended_are_closed(opening):
    catalog = opening()
    for _ in range(5):
        thread = threading.Thread(target=tagged, args=(catalog, "a"))
        thread.start()
        thread.join()
    tagged(catalog, "a")
    assert len(catalog._db._all) <= 2


@pytest.mark.parametrize("point", ["tx.begin", "tx.committed"])
def test_a_fault_around_a_commit(tmp_path, point):
    """Before it nothing is there, after it everything; the connection goes on either way."""
    fails = []

    def at(reached):
        if fails and reached == point:
            raise ArithmeticError

    catalog = SqliteCatalog(tmp_path / "catalog.db", fault=at)
    fails.append(1)
    with pytest.raises(ArithmeticError):
        tag(catalog, "a")
    fails.clear()
    assert tagged(catalog, "a") == ([("1",)] if point == "tx.committed" else [])
    tag(catalog, "b")
    catalog.close()


@pytest.mark.parametrize("way", ["up", "down"])
def test_lineage_finds_its_edges_in_an_index(opening, way):
    plan = " ".join(row[3] for row in opening()._db.read(f"explain query plan {_WAYS[way]}", ("subject", 32)))
    assert "SCAN edge" not in plan
    assert plan.count("SEARCH edge") == 2
