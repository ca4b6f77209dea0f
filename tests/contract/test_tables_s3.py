"""Tables in S3, as moto serves it, against the one contract; and what is theirs alone."""

import itertools
import os
from pathlib import Path

import pytest
from obstore.store import S3Store

import object_stores
from mainspring.adapters.delta import S3
from mainspring.adapters.delta.remote import open_remote
from mainspring.adapters.delta.settings import RemoteSettings
from mainspring.errors import MainspringError
from mainspring.ports.tables import TableStore, Txn
from mainspring.testing.tables import TableStoreContract, held, numbers

NAMES = itertools.count()
OPTIONS = {"access_key_id": "me", "secret_access_key": "secret", "region": "us-east-1"}


@pytest.fixture(scope="module")
def endpoint():
    with object_stores.s3() as found:
        yield found


@pytest.fixture
def opening(endpoint, tmp_path):
    bucket = f"lake{next(NAMES)}"
    object_stores.make_bucket(endpoint, bucket)

    def open_one(state=tmp_path / "state", **more):
        options = {**OPTIONS, "endpoint": endpoint, **more.pop("options", {})}
        url = more.pop("url", f"s3://{bucket}/some/where")
        return open_remote(RemoteSettings(url=url, options=options, **more), state)

    open_one.bucket = S3Store(bucket, config={**OPTIONS, "endpoint": endpoint}, client_options={"allow_http": True})
    return open_one


def keys(opening):
    return {entry["path"] for entries in opening.bucket.list() for entry in entries}


def code_of(work):
    with pytest.raises(MainspringError) as caught:
        work()
    assert caught.value.fix
    return caught.value.code


class TestS3(TableStoreContract):
    @pytest.fixture
    def opening(self, opening):
        return opening


def test_it_is_the_port_that_its_adapter_names(opening):
    assert isinstance(opening(), TableStore)
    assert (S3.port, S3.embedded, S3.schemes) == ("tables", False, ("s3", "s3a"))


def test_one_state_folder_writes_and_any_reads(opening, tmp_path):
    here, there = opening(), opening(tmp_path / "another")
    here.append("t", numbers(1, 2), Txn("w", 1))
    assert (held(there), there.mark("t", "w"), there.tables()) == ([1, 2], 1, ("t",))
    before = keys(opening)
    for work in (
        lambda: there.append("t", numbers(3), Txn("w", 2)),
        lambda: there.compact("t"),
        lambda: there.vacuum("t", keep=[]),
        lambda: there.drop("t"),
    ):
        assert code_of(work) == "MS-4311"
    assert keys(opening) == before
    opening().append("t", numbers(3), Txn("w", 2))
    assert held(there) == [1, 2, 3], "what is new is seen"
    opening.bucket.delete(["some/where/_mainspring/home"])
    opening(tmp_path / "another").append("t", numbers(4), Txn("v", 1))
    assert held(there) == [1, 2, 3, 4]


def test_files_are_fetched_once_and_read_on_the_disk(opening, tmp_path):
    store = opening()
    for n in range(1, 4):
        store.append("t", numbers(n), Txn("w", n))
    paths = store.files("t")
    assert all(Path(path).is_relative_to(tmp_path) for path in paths)
    fetched = [entry for entry in keys(opening) if entry.endswith(".parquet")]
    opening.bucket.delete(fetched)  # what was fetched is not asked for again
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


def test_what_is_not_there_and_what_is_wrong(opening, tmp_path):
    assert code_of(lambda: opening(url="s3:///x")) == "MS-4313"
    assert code_of(lambda: opening(url="s3://me:secret@lake/x")) == "MS-4313"
    nowhere = opening(url="s3://no-such-bucket/x")
    assert code_of(lambda: nowhere.append("t", numbers(1), Txn("w", 1))) == "MS-4312"
    assert code_of(lambda: opening(options={"colour": "red"})) == "MS-4312"
