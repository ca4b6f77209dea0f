"""Tables in S3, Google Cloud Storage and Azure Blob Storage against the one contract; and what is theirs alone."""

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from obstore.store import AzureStore, GCSStore, S3Store

import object_stores
from mainspring.adapters.delta import AZURE, GCS, S3
from mainspring.adapters.delta.remote import open_remote
from mainspring.adapters.delta.settings import RemoteSettings
from mainspring.errors import MainspringError
from mainspring.ports.tables import TableStore, Txn
from mainspring.testing.tables import TableStoreContract, held, numbers

NAMES = itertools.count()
KEYS = {"access_key_id": "me", "secret_access_key": "secret", "region": "us-east-1"}
needs_azurite = pytest.mark.skipif(not object_stores.has_azurite(), reason="needs azurite: npm ci --prefix tests/node")


@pytest.fixture(scope="module")
def s3():
    with object_stores.s3() as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def gcs():
    with object_stores.gcs_xml() as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def azure(tmp_path_factory):
    with object_stores.azure(tmp_path_factory.mktemp("azure")) as endpoint, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AZURITE_BLOB_STORAGE_URL", endpoint.removesuffix(f"/{object_stores.ACCOUNT}"))
        yield endpoint


def in_s3(endpoint, name):
    object_stores.make_bucket(endpoint, name)
    options = {**KEYS, "endpoint": endpoint}
    return f"s3://{name}/some/where", options, S3Store(name, config=options, client_options={"allow_http": True})


def in_gcs(endpoint, name):
    object_stores.fill_gcs(endpoint, name, {})
    options = {"service_account_key": object_stores.gcs_account(endpoint)}
    bucket = GCSStore(name, config=options, client_options={"allow_http": True})
    return f"gs://{name}/some/where", {**options, "allow_http": "true"}, bucket


def in_azure(endpoint, name):
    object_stores.make_container(endpoint, name)
    options = {"use_emulator": "true"}  # without it the library asks as azurite does not understand
    return f"az://{name}/some/where", options, AzureStore(name, config=options, client_options={"allow_http": True})


@pytest.fixture(params=["s3", "gcs", pytest.param("azure", marks=needs_azurite)])
def opening(request, tmp_path):
    making = {"s3": in_s3, "gcs": in_gcs, "azure": in_azure}[request.param]
    place, given, bucket = making(request.getfixturevalue(request.param), f"lake{next(NAMES)}")

    def open_one(state=tmp_path / "state", **more):
        options = {**given, **more.pop("options", {})}
        return open_remote(RemoteSettings(url=more.pop("url", place), options=options, **more), state)

    open_one.bucket, open_one.url, open_one.options = bucket, place, given
    return open_one


def keys(opening):
    return {entry["path"] for entries in opening.bucket.list() for entry in entries}


def code_of(work):
    with pytest.raises(MainspringError) as caught:
        work()
    assert caught.value.fix
    return caught.value.code


class TestRemote(TableStoreContract):
    @pytest.fixture
    def opening(self, opening):
        return opening


def test_they_are_the_port_that_their_adapters_name(opening):
    assert isinstance(opening(), TableStore)
    found = [(one.port, one.embedded, one.schemes) for one in (S3, GCS, AZURE)]
    assert found == [("tables", False, ("s3", "s3a")), ("tables", False, ("gs",)), ("tables", False, ("az",))]


def test_one_state_folder_writes_and_any_reads(opening, tmp_path):
    here, there = opening(), opening(tmp_path / "another")
    assert here.owner() is None
    here.append("t", numbers(1, 2), Txn("w", 1))
    assert (held(there), there.mark("t", "w"), there.tables()) == ([1, 2], 1, ("t",))
    assert there.owner() == here.owner()
    assert there.owner().epoch == 1
    before = keys(opening)
    here.claim()
    for work in (
        there.claim,
        lambda: there.append("t", numbers(3), Txn("w", 2)),
        lambda: there.compact("t"),
        lambda: there.vacuum("t", keep=[]),
        lambda: there.drop("t"),
    ):
        assert code_of(work) == "MS-4311"
    assert keys(opening) == before
    opening().append("t", numbers(3), Txn("w", 2))
    assert held(there) == [1, 2, 3], "what is new is seen"


def test_another_takes_over_and_the_first_cannot_commit_any_more(opening, tmp_path):
    """Whether it has looked who writes or not, in a table that is there and in one that is not."""
    first, second = opening(), opening(tmp_path / "another")
    for table in ("t", "u"):
        first.append(table, numbers(1), Txn("w", 1))
    idle, unaware = opening(), opening()
    idle.claim()
    unaware.claim()
    assert code_of(lambda: second.take("nobody")) == "MS-4271"
    assert code_of(lambda: second.take("")) == "MS-4271"
    assert code_of(lambda: first.take(first.owner().id)) == "MS-4271"
    taken, aside = second.take(first.owner().id[:12])
    assert (taken.epoch, second.owner(), aside) == (2, taken, None)
    assert code_of(lambda: unaware.append("new", numbers(2), Txn("w", 1))) == "MS-4311"
    log = opening().beside("_wal/t")
    log.mkdir(parents=True)
    (log / "000000000001.wal").write_bytes(b"pushed before")
    for store in (first, idle):  # neither has looked since
        assert code_of(lambda store=store: store.append("t", numbers(2), Txn("w", 2))) == "MS-4274"
        assert code_of(lambda store=store: store.append("u", numbers(2), Txn("w", 2))) == "MS-4311"
        assert code_of(lambda store=store: store.append("new", numbers(2), Txn("w", 1))) == "MS-4311"
    assert code_of(opening().claim) == "MS-4311", "nor can one that is started anew"
    second.append("t", numbers(3), Txn("w", 2))
    assert (held(second), held(second, "u"), first.tables()) == ([1, 3], [1], ("t", "u"))
    back, aside = opening().take(taken.id)
    assert (back.epoch, log.exists()) == (3, False)
    assert (aside / "_wal/t/000000000001.wal").read_bytes() == b"pushed before"
    opening().append("t", numbers(4), Txn("w", 3))
    assert code_of(lambda: second.append("t", numbers(5), Txn("w", 4))) == "MS-4274"
    assert held(second) == [1, 3, 4]


def test_of_two_that_take_over_at_once_one_does(opening, tmp_path):
    opening().append("t", numbers(1), Txn("w", 1))
    before, told = opening().owner().id, []

    def take(n):
        try:
            told.append(opening(tmp_path / f"another{n}").take(before)[0])
        except MainspringError as error:
            told.append(error.code)

    threads = [threading.Thread(target=take, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one for one in told if one == "MS-4271"] == ["MS-4271"] * 2
    assert opening().owner() in told


def test_taking_over_goes_on_where_it_was_killed(opening, tmp_path):
    """Between being noted as the one that writes and closing the tables to the other."""
    first, second = opening(), opening(tmp_path / "another")
    first.append("t", numbers(1), Txn("w", 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(second), "_begin", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            second.take(first.owner().id)
    again = opening(tmp_path / "another")
    again.claim()
    assert code_of(lambda: first.append("t", numbers(2), Txn("w", 2))) == "MS-4274"
    version = again.version("t")
    opening(tmp_path / "another").claim()
    assert again.version("t") == version, "once is enough"
    again.append("t", numbers(3), Txn("w", 2))
    assert held(again) == [1, 3]


def test_a_note_that_nobody_understands(opening):
    opening.bucket.put("some/where/_mainspring/home.1", b"{")
    assert code_of(opening().claim) == "MS-4272"
    assert code_of(opening().owner) == "MS-4272"


def test_nobody_writes_yet(opening):
    assert code_of(lambda: opening().take("somebody")) == "MS-4273"


WRITER = """
import json, sys
from pathlib import Path
from mainspring.adapters.delta.remote import open_remote
from mainspring.adapters.delta.settings import RemoteSettings
from mainspring.ports.tables import Txn
from mainspring.testing.tables import numbers
settings = RemoteSettings(url=sys.argv[2], options=json.loads(sys.argv[3]), tidy_every=2, checkpoint_every=3)
store = open_remote(settings, Path(sys.argv[1]))
n = (store.mark("t", "w") or 0) + 1
while True:
    store.append("t", numbers(n), Txn("w", n))
    print(n, flush=True)
    n += 1
"""


def test_killed_writers_lose_and_repeat_nothing(opening, tmp_path):
    acknowledged = 0
    for _ in range(2):
        command = [sys.executable, "-c", WRITER, str(tmp_path / "state"), opening.url, json.dumps(opening.options)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as writer:
            for _ in range(4):
                acknowledged = int(writer.stdout.readline())
            os.killpg(writer.pid, signal.SIGKILL)
            rest = writer.stdout.read().split()
        acknowledged = int(rest[-1]) if rest else acknowledged
    found = held(opening())
    assert found == list(range(1, len(found) + 1))
    assert len(found) in (acknowledged, acknowledged + 1)


def test_files_are_fetched_once_and_read_on_the_disk(opening, tmp_path):
    store = opening()
    for n in range(1, 4):
        store.append("t", numbers(n), Txn("w", n))
    paths = store.files("t")
    assert all(Path(path).is_relative_to(tmp_path) for path in paths)
    fetched = [entry for entry in keys(opening) if entry.endswith(".parquet")]
    for path in fetched:  # what was fetched is not asked for again
        opening.bucket.delete(path)
    assert held(opening()) == [1, 2, 3]
    Path(paths[0]).unlink()
    assert code_of(lambda: held(opening())) == "MS-4131"


def test_copies_that_were_not_needed_for_long_make_room(opening, tmp_path):
    store = opening(cache_bytes=0)
    store.append("t", numbers(1), Txn("w", 1))
    store.append("u", numbers(2), Txn("w", 1))
    (first,), (second,) = store.files("t"), store.files("u")
    assert Path(first).exists(), "it was needed just now"
    left = Path(first).with_name(f".{Path(first).name}.1.1")
    left.write_bytes(b"half")
    for path in (first, second, left):
        os.utime(path, (0, 0))
    store.append("u", numbers(3), Txn("w", 2))
    assert held(store, "u") == [2, 3]
    assert not Path(first).exists()
    assert not left.exists()
    assert Path(second).exists(), "it is needed now"
    assert held(store) == [1], "it is fetched again"


def test_many_commits_and_a_vacuum_that_spares_pins(opening):
    store = opening(tidy_every=4, checkpoint_every=5)
    for n in range(1, 26):
        store.append("t", numbers(n), Txn("w", n), notes={"n": str(n)})
    assert [commit.notes["n"] for commit in store.commits("t") if commit.notes] == [str(n) for n in range(25, 0, -1)]
    pins = {version: held(store, version=version) for version in (2, 9, 20)}
    assert store.vacuum("t", keep=[], retention_hours=1) == 0
    assert store.vacuum("t", keep=pins, retention_hours=0) > 0
    fresh = opening()
    assert {version: held(fresh, version=version) for version in pins} == pins
    assert held(fresh) == list(range(1, 26))
    assert code_of(lambda: held(fresh, version=7)) == "MS-4131"


def test_a_name_that_begins_another_is_dropped_alone(opening):
    store = opening()
    store.append("t", numbers(1), Txn("w", 1))
    store.append("tu", numbers(2), Txn("w", 1))
    store.drop("t")
    assert store.tables() == ("tu",)
    assert held(store, "tu") == [2]


def test_what_is_not_there_and_what_is_wrong(opening):
    scheme = opening.url.partition("://")[0]
    assert code_of(lambda: opening(url=f"{scheme}:///x")) == "MS-4313"
    assert code_of(lambda: opening(url=f"{scheme}://me:secret@lake/x")) == "MS-4313"
    nowhere = opening(url=f"{scheme}://no-such-bucket/x")
    assert code_of(lambda: nowhere.append("t", numbers(1), Txn("w", 1))) == "MS-4312"
    assert code_of(lambda: opening(options={"colour": "red"})) == "MS-4312"
