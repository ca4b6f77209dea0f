"""Object stores in buckets, against the one contract: S3 by moto, Azure by azurite, GCS; then what is their own."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import obstore
import pytest
from obstore.store import AzureStore, GCSStore, S3Store

import object_stores
from e2e.conftest import free_port
from mainspring.adapters.obstore import AZURE_OBJECTS, GCS_OBJECTS, S3_OBJECTS
from mainspring.adapters.obstore.health import health
from mainspring.adapters.obstore.objects import BucketObjects, open_objects
from mainspring.adapters.obstore.settings import BucketSettings
from mainspring.errors import MainspringError
from mainspring.ports.objects import Blob, Objects
from mainspring.testing.atonce import in_children
from mainspring.testing.objects import ObjectsContract, digest_of

NAMES = itertools.count()
KEYS = {"region": "eu-central-1", "access_key_id": "me", "secret_access_key": "secret-word"}
PLAIN = {"allow_http": True}


@pytest.fixture(scope="module")
def s3():
    with object_stores.s3() as endpoint:
        object_stores.make_bucket(endpoint, "lake")
        yield endpoint


@pytest.fixture(scope="module")
def azure(tmp_path_factory):
    with object_stores.azure(tmp_path_factory.mktemp("azure")) as endpoint:
        object_stores.make_container(endpoint, "lake")
        yield endpoint


@pytest.fixture(scope="module")
def gcs():
    with object_stores.gcs_xml() as endpoint:
        object_stores.fill_gcs(endpoint, "lake", {})
        yield endpoint


def nothing(point: str) -> None:
    """No fault."""


class InBucket(ObjectsContract):
    """A path of its own for each test, and a cache of its own for each machine that opens it."""

    @pytest.fixture
    def settings(self) -> BucketSettings:
        raise NotImplementedError

    @pytest.fixture
    def store(self):
        raise NotImplementedError

    @pytest.fixture
    def opening(self, settings, tmp_path):
        machines = itertools.count()
        return lambda fault=nothing: BucketObjects(settings, tmp_path / f"cache{next(machines)}", fault)

    @pytest.fixture
    def damage(self, store):
        return lambda digest, content: obstore.put(store, f"{digest[:2]}/{digest[2:]}", content)


class TestS3(InBucket):
    @pytest.fixture
    def settings(self, s3):
        return BucketSettings(f"s3://lake/path{next(NAMES)}/é", KEYS | {"endpoint": s3})

    @pytest.fixture
    def store(self, settings):
        return S3Store("lake", prefix=settings.url[10:], config=settings.options, client_options=PLAIN)


class TestAzure(InBucket):
    @pytest.fixture
    def settings(self, azure):
        options = {"account_name": object_stores.ACCOUNT, "account_key": object_stores.KEY, "endpoint": azure}
        return BucketSettings(f"az://lake/path{next(NAMES)}", options)

    @pytest.fixture
    def store(self, settings):
        return AzureStore("lake", prefix=settings.url[10:], config=settings.options, client_options=PLAIN)


class TestGcs(InBucket):
    @pytest.fixture
    def settings(self, gcs):
        account = {"service_account_key": object_stores.gcs_account(gcs), "allow_http": "true"}
        return BucketSettings(f"gs://lake/path{next(NAMES)}", account)

    @pytest.fixture
    def store(self, settings):
        options = {"service_account_key": settings.options["service_account_key"]}
        return GCSStore("lake", prefix=settings.url[10:], config=options, client_options=PLAIN)


@pytest.fixture
def settings(s3):
    return BucketSettings(f"s3://lake/own{next(NAMES)}", KEYS | {"endpoint": s3})


@pytest.fixture
def store(settings, tmp_path):
    return open_objects(settings, tmp_path)


def code_of(work: Callable[[], object]) -> str:
    with pytest.raises(MainspringError) as caught:
        work()
    assert caught.value.fix
    assert "secret-word" not in caught.value.lines()
    return caught.value.code


def test_it_is_the_port_that_its_adapters_name(store):
    assert isinstance(store, Objects)
    assert {adapter.port for adapter in (S3_OBJECTS, GCS_OBJECTS, AZURE_OBJECTS)} == {"objects"}
    assert health(store) == {"writable": True}


def test_a_copy_is_fetched_once(store, settings, tmp_path, monkeypatch):
    """By whoever asks on the machine; a torn copy is fetched again."""
    blob = store.put(b"content")
    other = open_objects(settings, tmp_path / "other")
    fetched = []
    fetch = BucketObjects._fetch
    monkeypatch.setattr(BucketObjects, "_fetch", lambda self, *asked: (fetched.append(1), fetch(self, *asked))[1])
    first, again = other.path(blob.digest), open_objects(settings, tmp_path / "other").path(blob.digest)
    assert first == again
    assert first.read_bytes() == b"content"
    assert len(fetched) == 1
    first.write_bytes(b"cont")
    assert other.path(blob.digest).read_bytes() == b"content"
    assert len(fetched) == 2


def test_copies_that_are_long_unused_make_way(settings, tmp_path):
    blobs = [open_objects(settings, tmp_path).put(b"%d" % number * 100) for number in range(4)]
    small = BucketObjects(BucketSettings(settings.url, settings.options, cache_bytes=250), tmp_path / "cache")
    files = [small.path(blob.digest) for blob in blobs]
    assert all(file.is_file() for file in files), "those used within the last hour stay"
    for age, file in enumerate(files[:3]):
        os.utime(file, (time.time() - 7200 - age,) * 2)
    small.path(small.put(b"new").digest)
    assert [file.is_file() for file in files] == [True, False, False, True]
    assert small.path(blobs[2].digest).read_bytes() == b"2" * 100


WRITER = """
import os, signal, sys
import msgspec
from pathlib import Path
from mainspring.adapters.obstore.objects import BucketObjects
from mainspring.adapters.obstore.settings import BucketSettings

kind = tuple[BucketSettings, str, str, str]
settings, cache, point, content = msgspec.json.decode(sys.argv[1], type=kind)

def fault(reached):
    if reached == point:
        os.kill(os.getpid(), signal.SIGKILL)

store = BucketObjects(settings, Path(cache), fault)
with store.writer() as writer:
    writer.write(content.encode())
    if point == "midst":
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("point", ["midst", "blob.written", "blob.fsynced", "blob.renamed"])
def test_killed_writers_leave_nothing_half(store, settings, tmp_path, point):
    told = msgspec.json.encode([settings, str(tmp_path / "cache"), point, "content" * 1000]).decode()
    done = subprocess.run([sys.executable, "-c", WRITER, told], capture_output=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    blob = Blob(digest_of(b"content" * 1000), 7000)
    assert list(store.sizes()) == ([blob] if point == "blob.renamed" else [])
    assert store.put(b"content" * 1000) == blob
    assert store.get(blob.digest) == b"content" * 1000


def test_a_fork_of_a_process_that_has_used_it_is_told(store, settings, tmp_path):
    """The driver's threads are missing there: it would wait for ever. The parent goes on."""
    blob = store.put(b"content")

    def work():
        assert code_of(lambda: store.get(blob.digest)) == "MS-4102"
        assert code_of(lambda: open_objects(settings, tmp_path / "child")) == "MS-4102"

    assert in_children([work]) == [0]
    assert store.get(blob.digest) == b"content"


def test_a_deletion_that_began_before_a_use_and_ends_after_it_takes_nothing(store, settings, tmp_path, monkeypatch):
    """Whoever uses a blob waits for the deletion's end, and then finds it missing, and stores it."""
    blob, between = store.put(b"content"), time.time() + 1
    deleter, began = open_objects(settings, tmp_path / "other"), []
    used = deleter._used

    def slow(digest):
        found = used(digest)
        if began:  # the second look, after it was said that the blob goes
            writer.start()
            time.sleep(0.3)
        began.append(digest)
        return found

    stored = []
    writer = threading.Thread(target=lambda: stored.append(store.put(b"content")))
    monkeypatch.setattr(deleter, "_used", slow)
    assert deleter.delete(blob.digest, older_than=between)
    writer.join(timeout=60)
    assert stored == [blob]
    assert store.get(blob.digest) == b"content"
    assert store._used(blob.digest) > 0, "its age is known"


def test_a_deleter_that_died_holds_nobody_up(store, settings, monkeypatch):
    blob = store.put(b"content")
    word = f"leaving/{blob.digest}"
    obstore.put(store._store, word, repr(time.time() - 3600).encode())
    assert store.put(b"content") == blob
    assert store.delete(blob.digest, older_than=time.time() + 1)
    assert list(store.sizes()) == []


def test_what_others_keep_in_the_bucket_is_none_of_its_blobs(store):
    obstore.put(store._store, "ab/readme.txt", b"mine")
    obstore.put(store._store, "notes", b"mine")
    blob = store.put(b"content")
    assert list(store.sizes()) == [blob]


def test_settings_that_cannot_be(tmp_path, settings):
    for url in ("s3://", "s3://key:secret-word@lake/path"):
        assert code_of(lambda url=url: open_objects(BucketSettings(url), tmp_path)) == "MS-3042"
    unknown = BucketSettings(settings.url, settings.options | {"colour": "red"})
    assert code_of(lambda: open_objects(unknown, tmp_path)) == "MS-3042"


def test_a_bucket_that_is_not_there_or_does_not_answer(tmp_path, settings):
    nowhere = BucketSettings("s3://nowhere/path", settings.options)
    assert code_of(lambda: open_objects(nowhere, tmp_path).put(b"content")) == "MS-4118"
    silent = settings.options | {"endpoint": f"http://127.0.0.1:{free_port()}"}
    gone = BucketSettings(settings.url, silent, connect_seconds=0.5, seconds=1.0)
    assert code_of(lambda: open_objects(gone, tmp_path).get("0" * 40)) == "MS-4118"


def test_a_local_folder_that_may_not_be_written(tmp_path, settings):
    (tmp_path / "file").write_text("no folder")
    assert code_of(lambda: open_objects(settings, Path(tmp_path / "file"))) == "MS-4102"
