"""Every online store, against the one contract."""

import os
import resource
import shutil
import signal
import tempfile
from pathlib import Path

import pytest

from mainspring.adapters.lmdb import ADAPTER
from mainspring.adapters.lmdb.health import health
from mainspring.adapters.lmdb.online_store import LmdbStore, open_store
from mainspring.adapters.lmdb.settings import LmdbSettings
from mainspring.errors import StoreError
from mainspring.testing.atonce import in_children
from mainspring.testing.online import OnlineStoreContract, number_of, row

SMALL = 1 << 16


class TestLmdb(OnlineStoreContract):
    @pytest.fixture(params=[1 << 28, SMALL], ids=["roomy", "growing"])
    def opening(self, request, tmp_path):
        opened = []

        def open_one():
            opened.append(open_store(LmdbSettings(map_size=request.param), tmp_path / "é 100% (a)*"))
            return opened[-1]

        yield open_one
        for store in opened:
            store.close()


@pytest.fixture
def opening(tmp_path):
    opened = []

    def open_one(folder=None, map_size=SMALL):
        opened.append(LmdbStore(folder or tmp_path / "online", map_size))
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()


def fault(work):
    with pytest.raises(StoreError) as caught:
        work()
    assert caught.value.fix
    return caught.value.code


def filled(store, count=2000, size=100):
    store.put_newer([(b"k%05d" % number, row(number, body=bytes(size))) for number in range(count)])
    return store


def test_its_adapter_names_it(opening):
    assert (ADAPTER.port, ADAPTER.embedded, ADAPTER.capabilities["replicas"]) == ("online", True, 1)
    assert health(opening()) == {"answers": True}


def test_where_the_file_is(tmp_path):
    here = open_store(LmdbSettings(), tmp_path / "state")
    there = open_store(LmdbSettings(url=f"lmdb://{tmp_path}/else where"), tmp_path / "state")
    assert (tmp_path / "state" / "online" / "data.mdb").exists()
    assert (tmp_path / "else where" / "data.mdb").exists()
    there.put_newer([(b"a", row(1))])
    assert here.get_many([b"a"]) == [None]
    here.close()
    there.close()


def test_the_map_grows_and_stays_grown(opening, tmp_path):
    store = filled(opening(), size=1000)
    assert (tmp_path / "online" / "data.mdb").stat().st_size > 20 * SMALL
    store.close()
    again = opening()
    assert len(list(again.scan(b""))) == 2000
    filled(again, 4000, 1000)
    assert len(list(again.scan(b""))) == 4000


def test_one_row_that_is_much_larger_than_the_map(opening):
    store = opening()
    assert store.put_newer([(b"k", row(1, body=bytes(50 * SMALL)))]) == 1
    assert store.swap(b"k", row(1, body=bytes(50 * SMALL)), row(2, body=bytes(90 * SMALL)))
    assert len(store.get_many([b"k"])[0]) == 24 + 90 * SMALL


def test_a_map_that_another_process_has_grown(opening):
    reader = filled(opening(), 10)

    def grow():
        filled(opening(), 3000, 1000)

    for use in (
        lambda: number_of(reader.get_many([b"k00001"])[0]),
        lambda: len(list(reader.scan(b"k"))),
        lambda: reader.put_newer([(b"new", row(1))]),
    ):
        reader.drop(b"")
        filled(reader, 10)
        assert in_children([grow]) == [0]
        assert use() in (1, 3000)


def test_two_paths_to_one_folder_are_one_store(opening, tmp_path):
    one = opening()
    (tmp_path / "link").symlink_to(tmp_path / "online")
    two = opening(tmp_path / "link")
    two.put_newer([(b"a", row(1))])
    two.close()
    assert one.get_many([b"a"]) == [row(1)]


def test_a_folder_that_was_removed_is_made_anew(opening, tmp_path):
    old = filled(opening(), 10)
    shutil.rmtree(tmp_path / "online")
    new = opening()
    assert list(new.scan(b"")) == []
    new.put_newer([(b"a", row(1))])
    assert old.get_many([b"a"]) == [None]
    old.close()
    assert new.get_many([b"a"]) == [row(1)]


def test_a_file_in_the_way(opening, tmp_path):
    (tmp_path / "online").write_text("no folder")
    assert fault(opening) == "MS-4140"
    assert fault(lambda: opening(tmp_path / "online" / "below")) == "MS-4140"


def test_a_folder_that_may_not_be_written():
    # Root may write anywhere, so this is done as nobody; the folder is outside the tests' own, which only root enters.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        filled(LmdbStore(folder / "online", SMALL), 10).close()

        def attempt():
            if os.getuid() == 0:
                os.setuid(65534)
            else:
                (folder / "online").chmod(0o555)
                (folder / "online" / "lock.mdb").chmod(0o444)
                (folder / "online" / "data.mdb").chmod(0o444)
                folder.chmod(0o555)
            assert fault(lambda: LmdbStore(folder / "online", SMALL)) == "MS-4140"
            assert fault(lambda: LmdbStore(folder / "other", SMALL)) == "MS-4140"

        assert in_children([attempt]) == [0]
        folder.chmod(0o755)


def test_a_disk_that_is_full(opening):
    store = filled(opening(), 100)
    held = list(store.scan(b""))

    def attempt():
        mine = opening()
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        assert fault(lambda: filled(mine, 3000, 1000)) == "MS-4101"
        assert list(mine.scan(b"")) == held
        assert mine.put_newer([(b"k00001", row(9))]) == 1
        assert mine.swap(b"k00001", row(9), held[1][1])

    assert in_children([attempt]) == [0]
    assert list(store.scan(b"")) == held
    assert filled(store, 3000, 1000).get_many([b"k02999"]) != [None]


def test_a_damaged_file(opening, tmp_path):
    filled(opening(), 10).close()
    data = tmp_path / "online" / "data.mdb"
    data.write_bytes(b"what is this? " * 2000)
    assert fault(opening) == "MS-4141"
    shutil.rmtree(tmp_path / "online")
    assert list(opening().scan(b"")) == []


def test_pages_of_killed_readers_are_used_again(opening, tmp_path):
    store = filled(opening(), 300, 1000)

    def stop():
        mine = opening()
        mine._env.begin()  # a read that was going on
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_children([stop]) == [-signal.SIGKILL]
    for round_ in range(1, 40):
        store.put_newer([(b"k%05d" % number, row(round_ * 1000, body=bytes(1000))) for number in range(300)])
    grown = (tmp_path / "online" / "data.mdb").stat().st_size
    assert grown < 12 * 300 * 1024


def test_a_parents_read_goes_on_when_its_child_begins(opening):
    store = filled(opening(), 5000, 1000)
    reading = store.scan(b"k")
    first = next(reading)[0]

    def use():
        assert store.get_many([first]) != [None]

    assert in_children([use]) == [0]
    assert 1 + len(list(reading)) == 5000
    assert store.get_many([first]) != [None]
