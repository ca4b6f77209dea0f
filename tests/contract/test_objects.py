"""Every object store, against the one contract; and what is the local folder's own."""

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from mainspring.adapters.localfs import ADAPTER, objects
from mainspring.adapters.localfs.health import health
from mainspring.adapters.localfs.objects import LocalObjects, open_objects
from mainspring.adapters.localfs.settings import LocalSettings
from mainspring.errors import StoreError
from mainspring.ports.objects import Objects
from mainspring.testing.objects import ForkedObjectsContract, digest_of


def nothing(point):
    """No fault."""


class TestLocalFolder(ForkedObjectsContract):
    @pytest.fixture(params=["objects", "é 100% (a)*/b"])
    def root(self, request, tmp_path):
        return tmp_path / request.param

    @pytest.fixture
    def opening(self, root):
        return lambda fault=nothing: LocalObjects(root, fault)

    @pytest.fixture
    def damage(self, root):
        return lambda digest, content: (root / digest[:2] / digest[2:]).write_bytes(content)


@pytest.fixture
def root(tmp_path):
    return tmp_path / "objects"


@pytest.fixture
def store(root):
    return LocalObjects(root)


def files(root):
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and path.name != "lock")


def place(digest):
    return f"{digest[:2]}/{digest[2:]}"


def test_it_is_the_port_that_its_adapter_names(store):
    assert isinstance(store, Objects)
    assert (ADAPTER.port, ADAPTER.embedded, ADAPTER.schemes) == ("objects", True, ("file",))
    assert health(store) == {"writable": True}


def test_settings_say_where(tmp_path):
    open_objects(LocalSettings(), tmp_path / "state").put(b"x")
    assert files(tmp_path / "state") == [f"objects/{place(digest_of(b'x'))}"]
    open_objects(LocalSettings(url=f"file://{tmp_path}/else where"), tmp_path / "other").put(b"x")
    assert files(tmp_path / "else where") == [place(digest_of(b"x"))]
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("point", ["blob.written", "blob.fsynced"])
def test_a_failure_leaves_no_file(root, point):
    def fault(reached):
        if reached == point:
            raise OSError(28, "No space left on device")

    with pytest.raises(StoreError):
        LocalObjects(root, fault).put(b"content")
    assert files(root) == []


def test_what_a_dead_writer_left_is_swept_a_day_later(store, root):
    (root / "tmp" / "1-young").write_bytes(b"half")
    (root / "tmp" / "1-old").write_bytes(b"half")
    os.utime(root / "tmp" / "1-old", (0, 0))
    LocalObjects(root)
    assert files(root) == ["tmp/1-young"]


def test_a_corrupt_blob_is_kept_aside_for_whoever_looks_into_it(store, root):
    blob = store.put(b"content")
    (root / place(blob.digest)).write_bytes(b"Content")
    with pytest.raises(StoreError, match="corrupt") as caught:
        store.get(blob.digest)
    assert "objects/corrupt" in caught.value.why
    assert (root / "corrupt" / blob.digest).read_bytes() == b"Content"


def test_a_blob_that_was_mended_while_it_was_read_is_returned(store, root, monkeypatch):
    blob = store.put(b"content")
    reads = iter([b"torn", b"content"])
    monkeypatch.setattr(store, "_read", lambda digest: next(reads))
    assert store.get(blob.digest) == b"content"
    assert files(root) == [place(blob.digest)]


def test_a_folder_that_was_removed_is_made_anew(store, root):
    store.put(b"one")
    shutil.rmtree(root)
    assert not store.has([digest_of(b"one")])
    assert store.put(b"one").digest == digest_of(b"one")
    assert files(root) == [place(digest_of(b"one"))]
    shutil.rmtree(root)
    with pytest.raises(StoreError) as caught:
        list(store.sizes())
    assert caught.value.code == "MS-4102"


def test_foreign_files_are_no_blobs(store, root):
    blob = store.put(b"content")
    (root / blob.digest[:2] / ".nfs0001").write_bytes(b"x")
    (root / "zz").write_bytes(b"x")
    (root / "ab").mkdir(exist_ok=True)
    assert list(store.sizes()) == [blob]


def test_a_file_is_in_the_way(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for where in (tmp_path / "file", tmp_path / "file" / "objects"):
        with pytest.raises(StoreError) as caught:
            LocalObjects(where)
        assert caught.value.code == "MS-4102"


@contextlib.contextmanager
def without_privileges(folder):
    """As a user who may not write into folders of others; root may, so it becomes nobody for a while."""
    if os.geteuid() == 0:
        os.chown(folder, 65534, 65534)
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(os.getuid())


def test_a_read_only_folder_can_be_read_and_says_that_it_cannot_be_written():
    # Not under tmp_path: its parents are closed to others.
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "objects"
        store = LocalObjects(root)
        kept, torn = store.put(b"kept"), store.put(b"torn")
        (root / place(torn.digest)).write_bytes(b"Torn")
        Path(name).chmod(0o755)
        folders = [root, *(path for path in root.rglob("*") if path.is_dir())]
        for folder in folders:
            folder.chmod(0o555)
        (root / "lock").unlink()
        try:
            with without_privileges(name):
                store = LocalObjects(root)
                assert store.get(kept.digest) == b"kept"
                assert store.put(b"kept") == kept
                store.touch([kept.digest])
                with pytest.raises(StoreError) as caught:
                    store.get(torn.digest)
                assert (caught.value.code, "moved" in caught.value.why) == ("MS-4104", False)
                for work in (
                    lambda: store.put(b"new"),
                    lambda: store.delete(kept.digest, older_than=1e12),
                    lambda: LocalObjects(root / "deeper"),
                ):
                    with pytest.raises(StoreError) as caught:
                        work()
                    assert (caught.value.code, caught.value.why) == ("MS-4102", "Permission denied")
                assert files(root) == sorted([place(kept.digest), place(torn.digest)])
        finally:
            for folder in folders:
                folder.chmod(0o755)


FULL = """
import sys
from pathlib import Path
from mainspring.adapters.localfs.objects import LocalObjects
from mainspring.errors import StoreError
root = Path(sys.argv[1])
store = LocalObjects(root)
small = store.put(b"small")
big = bytes(range(256)) * 4096
for work in (lambda: store.put(big), lambda: store.put_file(Path(sys.argv[2]))):
    try:
        work()
    except StoreError as error:
        print(error.code)
print(sorted(path.name for path in root.rglob("*") if path.is_file()) == sorted(["lock", small.digest[2:]]))
print(store.get(small.digest) == b"small", store.put(b"also small").size)
"""


def test_a_disk_that_is_really_full(tmp_path):
    """A file system of 256 KiB in a mount namespace of its own."""
    mount = 'mount -t tmpfs -o size=256k none "$0" && exec "$@"'
    (tmp_path / "big").write_bytes(bytes(1 << 20))
    small = tmp_path / "small"
    small.mkdir()
    command = ["unshare", "-rm", "sh", "-c", mount, small, sys.executable, "-c", FULL]
    command += [small / "objects", tmp_path / "big"]
    probe = shutil.which("unshare") and subprocess.run([*command[:5], small, "true"], capture_output=True)
    if not probe or probe.returncode:
        pytest.skip("needs unprivileged user namespaces: sysctl kernel.unprivileged_userns_clone=1, or run as root")
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.split() == ["MS-4101", "MS-4101", "True", "True", "10"], done.stderr


def test_names_are_durable_before_a_blob_is_called_stored(tmp_path, monkeypatch):
    """A power cut forgets every name that was made, in any folder, since that folder was synced."""
    unsynced = set()

    def made(path):
        unsynced.add(Path(path))

    def sync(number, really=os.fsync):
        synced = Path(os.readlink(f"/proc/self/fd/{number}"))
        really(number)
        content.add(synced)
        unsynced.difference_update({path for path in unsynced if path.parent == synced})

    def rename(old, new, really=os.rename):
        assert Path(old) in content, "renamed before its content was synced"
        really(old, new)
        made(new)

    def mkdir(path, *rest, really=os.mkdir, **more):
        really(path, *rest, **more)
        made(path)

    content = set()
    for name, replaced in (("fsync", sync), ("rename", rename), ("mkdir", mkdir)):
        monkeypatch.setattr(objects.os, name, replaced)
    store = LocalObjects(tmp_path / "state" / "objects")
    for content_of in (b"one", b"two", b"one"):
        store.put(content_of)
        path = store.path(digest_of(content_of))
        assert unsynced.isdisjoint([path, *path.parents])
    with store.writer() as writer:
        writer.write(b"three")
    assert unsynced.isdisjoint([store.path(writer.blob.digest), *store.path(writer.blob.digest).parents])


def test_a_digest_is_what_other_programs_compute(store):
    blob = store.put(b"mainspring")
    assert blob.digest == hashlib.blake2b(b"mainspring", digest_size=20).hexdigest()
    if shutil.which("b2sum"):
        done = subprocess.run(["b2sum", "-l", "160", store.path(blob.digest)], capture_output=True, text=True)
        assert done.stdout.split()[0] == blob.digest
