"""The contract of the object store: derive from `ObjectsContract` and give it your adapter to open."""

from __future__ import annotations

import array
import errno
import functools
import hashlib
import os
import signal
import time
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from mainspring.errors import StoreError
from mainspring.lazy import lazy
from mainspring.ports.objects import Blob, BlobWriter, Fault, Objects
from mainspring.testing.atonce import fork, in_children, together

if TYPE_CHECKING:
    import pytest
else:
    pytest = lazy("pytest")

__all__ = ["Damage", "ForkedObjectsContract", "ObjectsContract", "Opening", "digest_of"]

POINTS = ("blob.written", "blob.fsynced", "blob.renamed")
ABSENT = hashlib.blake2b(b"never stored", digest_size=20).hexdigest()
CONTENTS = (b"", b"\0", b"mainspring", bytes(range(256)) * 64, b"\r\n" * 3, bytes(3 << 20))


class Opening(Protocol):
    """Opens the same, at first empty, store each time; with a fault it calls that at each point of a commit."""

    def __call__(self, fault: Fault = ...) -> Objects:
        """Open the store."""


Damage = Callable[[str, bytes], None]
"""Puts other bytes in the place where a blob's content is kept, behind the store's back."""


def digest_of(data: bytes) -> str:
    """The name of a content: blake2b-160 in hex."""
    return hashlib.blake2b(data, digest_size=20).hexdigest()


def held(store: Objects) -> dict[str, int]:
    """Every blob with its size."""
    found = [(blob.digest, blob.size) for blob in store.sizes()]
    assert len(found) == len(set(found)), "a blob is listed twice"
    return dict(found)


def refused(work: Callable[[], object]) -> StoreError:
    """The store's error that something raises."""
    with pytest.raises(StoreError) as caught:
        work()
    assert caught.value.fix, "an error says what to do"
    return caught.value


class ObjectsContract:
    """What every object store does.

    A subclass defines two fixtures: ``opening``, an `Opening`, and ``damage``, a `Damage`.
    """

    def test_it_is_the_port(self, opening: Opening) -> None:
        """It has every method."""
        assert isinstance(opening(), Objects)

    def test_a_blob_that_is_not_there(self, opening: Opening) -> None:
        """Asking whether is answered, asking for it is refused with its name."""
        store = opening()
        assert store.has([ABSENT]) == frozenset()
        assert held(store) == {}
        assert not store.delete(ABSENT, older_than=time.time() + 60)
        store.touch([ABSENT])
        for ask in (store.get, store.path):
            error = refused(functools.partial(ask, ABSENT))
            assert error.code == "MS-4103"
            assert ABSENT[:12] in error.what

    def test_what_is_no_digest_names_nothing(self, opening: Opening) -> None:
        """Above all no file outside the store."""
        store = opening()
        blob = store.put(b"here")
        strange = ["", "..", "../" + blob.digest, blob.digest[:-1], blob.digest + "0", blob.digest.upper() + "\n"]
        strange += [f"{blob.digest[:2]}/{__file__}", f"{blob.digest[:2]}\0{blob.digest[2:]}", "é" * 40]
        assert store.has(strange) == frozenset()
        store.touch(strange)
        for name in strange:
            assert not store.delete(name, older_than=time.time() + 60)
            for ask in (store.get, store.path):
                assert refused(functools.partial(ask, name)).code == "MS-4103"
        assert Path(__file__).exists()
        assert held(store) == {blob.digest: 4}

    def test_content_comes_back_by_its_digest(self, opening: Opening, tmp_path: Path) -> None:
        """However it was stored, and to whoever opens the store."""
        store = opening()
        for number, content in enumerate(CONTENTS):
            source = tmp_path / f"source{number}"
            source.write_bytes(content)
            kept = [store.put(content), store.put(memoryview(content)), store.put_file(source), written(store, content)]
            assert set(kept) == {Blob(digest_of(content), len(content))}
        for reader in (store, opening()):
            assert held(reader) == {digest_of(content): len(content) for content in CONTENTS}
            for content in CONTENTS:
                assert reader.get(digest_of(content)) == content
                assert reader.path(digest_of(content)).read_bytes() == content
        digests = [digest_of(content) for content in CONTENTS]
        assert store.has(iter([*digests, ABSENT])) == frozenset(digests)

    def test_each_way_of_storing_stands_alone(self, opening: Opening, tmp_path: Path) -> None:
        """An empty and a small content, first stored by `put_file` and `writer`."""
        store = opening()
        (tmp_path / "source").write_bytes(b"from a file")
        assert store.get(store.put_file(tmp_path / "source").digest) == b"from a file"
        assert store.get(written(store, b"piece by piece").digest) == b"piece by piece"
        assert store.get(written(store, b"").digest) == b""

    def test_views_are_counted_in_bytes(self, opening: Opening) -> None:
        """A view of wide items, of part of a buffer, of none."""
        store = opening()
        wide = array.array("d", [1.5, -2.0])
        for view in (memoryview(wide), memoryview(b"0123456789")[3:7], memoryview(array.array("d")), memoryview(b"")):
            content = view.tobytes()
            with store.writer() as writer:
                assert writer.write(view) == len(content)
            assert writer.blob == store.put(view) == Blob(digest_of(content), len(content))
            assert store.get(digest_of(content)) == content

    def test_a_writer_stores_when_its_block_is_left(self, opening: Opening) -> None:
        """Not before; several may be open at once."""
        store = opening()
        with store.writer() as first, store.writer() as second:
            first.write(b"on")
            second.write(b"tw")
            first.write(memoryview(b"e"))
            second.write(b"o")
            assert not stored(first)
            assert held(opening()) == {}
        assert stored(first) + stored(second) == (Blob(digest_of(b"one"), 3), Blob(digest_of(b"two"), 3))
        assert held(store) == {digest_of(b"one"): 3, digest_of(b"two"): 3}

    def test_an_exception_leaves_nothing_and_comes_out_as_it_is(self, opening: Opening) -> None:
        """Also one that looks like a fault of the disk, and one that is no `Exception`."""
        store = opening()
        for error in (ValueError("mine"), OSError(errno.ENOSPC, "mine"), KeyboardInterrupt()):
            with pytest.raises(type(error)) as caught, store.writer() as writer:
                writer.write(b"half")
                raise error
            assert caught.value is error
            assert writer.blob is None
        assert held(store) == {}
        assert store.put(b"half") == Blob(digest_of(b"half"), 4)

    def test_a_file_that_cannot_be_read_is_the_callers(self, opening: Opening, tmp_path: Path) -> None:
        """It is no fault of the store, and leaves nothing."""
        store = opening()
        for path in (tmp_path / "nowhere", tmp_path):
            with pytest.raises(OSError, match=str(path)):
                store.put_file(path)
        assert held(store) == {}

    def test_a_corrupt_blob_is_named_and_never_returned(self, opening: Opening, damage: Damage) -> None:
        """It is set aside, so that what makes it makes it anew; its neighbours stay."""
        store = opening()
        good, bad = store.put(b"good content"), store.put(b"bad content!")
        damage(bad.digest, b"Bad content!")
        error = refused(functools.partial(store.get, bad.digest))
        assert error.code == "MS-4104"
        assert bad.digest[:12] in error.what
        assert refused(functools.partial(store.get, bad.digest)).code == "MS-4103"
        assert held(store) == {good.digest: 12}
        assert store.put(b"bad content!") == bad
        assert opening().get(bad.digest) == b"bad content!"

    def test_a_torn_blob_is_found(self, opening: Opening, damage: Damage) -> None:
        """Cut, lengthened or empty."""
        for number, torn in enumerate((b"con", b"content 1 and more", b"")):
            store = opening()
            blob = store.put(b"content %d" % number)
            damage(blob.digest, torn)
            assert refused(functools.partial(opening().get, blob.digest)).code in ("MS-4103", "MS-4104")
            assert store.has([blob.digest]) == frozenset()

    def test_an_empty_blob_of_some_content_is_not_there(self, opening: Opening, damage: Damage) -> None:
        """The sort that a power cut leaves; but the empty content is a content."""
        store = opening()
        blob, nothing = store.put(b"content"), store.put(b"")
        damage(blob.digest, b"")
        assert store.has([blob.digest, nothing.digest]) == {nothing.digest}
        assert refused(functools.partial(store.path, blob.digest)).code in ("MS-4103", "MS-4104")

    def test_storing_again_mends_a_torn_blob(self, opening: Opening, damage: Damage, tmp_path: Path) -> None:
        """What a way of storing returned can be read, whatever lay there before."""
        store = opening()
        (tmp_path / "source").write_bytes(b"content")
        ways: Sequence[Callable[[], Blob]] = (
            lambda: store.put(b"content"),
            lambda: store.put_file(tmp_path / "source"),
            lambda: written(store, b"content"),
        )
        for store_it in ways:
            blob = store_it()
            damage(blob.digest, b"cont")
            assert store_it() == blob
            assert opening().get(blob.digest) == b"content"

    def test_only_old_blobs_are_deleted(self, opening: Opening) -> None:
        """Old is what was last put or touched before the moment named."""
        store = opening()
        blob, other = store.put(b"content"), store.put(b"other")
        past = time.time() - 60
        assert not store.delete(blob.digest, older_than=past)
        assert held(store).keys() == {blob.digest, other.digest}
        time.sleep(0.02)
        assert store.delete(blob.digest, older_than=time.time())
        assert not store.delete(blob.digest, older_than=time.time())
        assert held(opening()) == {other.digest: 5}
        assert refused(functools.partial(store.get, blob.digest)).code == "MS-4103"
        assert store.put(b"content") == blob

    def test_using_a_blob_makes_it_young(self, opening: Opening, tmp_path: Path) -> None:
        """Storing it again in any way, or touching it, by whoever."""
        store = opening()
        (tmp_path / "source").write_bytes(b"content")
        ways: Sequence[Callable[[], object]] = (
            lambda: store.put(b"content"),
            lambda: store.put_file(tmp_path / "source"),
            lambda: written(store, b"content"),
            lambda: store.touch([ABSENT, digest_of(b"content")]),
            lambda: opening().touch(iter([digest_of(b"content")])),
        )
        store.put(b"content")
        for use in ways:
            between = pause()
            use()
            assert not store.delete(digest_of(b"content"), older_than=between)
        assert store.delete(digest_of(b"content"), older_than=pause())

    def test_what_was_just_put_again_is_not_deleted_for_its_age(self, opening: Opening) -> None:
        """Gc and writers race for the same old blobs; what a writer was told is stored stays."""
        contents = [b"content %d" % number for number in range(150)]
        store = opening()
        for content in contents:
            store.put(content)
        between, other = pause(), opening()
        together(
            [
                lambda: [other.delete(digest_of(content), older_than=between) for content in contents],
                lambda: [store.put(content) for content in contents],
                lambda: [written(store, content) for content in contents[::10]],
            ]
        )
        later = opening()
        assert [content for content in contents if later.get(digest_of(content)) != content] == []

    def test_writers_of_the_same_content(self, opening: Opening) -> None:
        """Threads with one store and with their own, all at once: each content is there, once."""
        store = opening()
        contents = [b"content %d" % (number % 5) * 1000 for number in range(10)]

        def work(one: Objects) -> None:
            for content in contents:
                assert one.put(content) == written(one, content)
                assert one.get(digest_of(content)) == content

        together([functools.partial(work, store)] * 4 + [lambda: work(opening())] * 2)
        assert held(opening()) == {digest_of(content): len(content) for content in contents}

    def test_big_content_is_streamed(self, opening: Opening, tmp_path: Path) -> None:
        """Memory stays far below the content's size, in and out of a file."""
        size, piece = 24 << 20, os.urandom(1 << 20)
        with open(tmp_path / "source", "wb") as file:
            for number in range(size >> 20):
                file.write(number.to_bytes(4, "big") + piece[4:])
        store = opening()
        tracemalloc.start()
        try:
            blob = store.put_file(tmp_path / "source")
            with store.writer() as writer:
                for _ in range(size >> 20):
                    writer.write(piece)
            place = store.path(blob.digest)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert blob.size == place.stat().st_size == size
        assert peak < size / 3
        with open(place, "rb") as kept:
            assert hashlib.file_digest(kept, lambda: hashlib.blake2b(digest_size=20)).hexdigest() == blob.digest

    def test_a_full_disk_leaves_nothing(self, opening: Opening) -> None:
        """Whenever it shows; once there is space the store works on."""
        for code in (errno.ENOSPC, errno.EDQUOT):
            for point in POINTS[:2]:
                failing = opening(fault=at(point, functools.partial(fail, code)))
                for _ in range(2):
                    assert refused(functools.partial(failing.put, b"content")).code == "MS-4101"
                    assert held(opening()) == {}
        renamed = opening(fault=at(POINTS[2], functools.partial(fail, errno.ENOSPC)))
        assert refused(functools.partial(renamed.put, b"content")).code == "MS-4101"
        assert_whole(opening(), b"content")
        store = opening()
        assert store.get(store.put(b"content").digest) == b"content"

    def test_a_place_that_cannot_be_written(self, opening: Opening) -> None:
        """It is no full disk, and says what to do."""
        for code in (errno.EACCES, errno.EROFS, errno.EIO):
            failing = opening(fault=at("blob.written", functools.partial(fail, code)))
            error = refused(functools.partial(failing.put, b"content"))
            assert (error.code, os.strerror(code) in error.why) == ("MS-4102", True)
        assert held(opening()) == {}


class ForkedObjectsContract(ObjectsContract):
    """What a store does besides that says ``forks`` of itself, or nothing of it: forked children use it too."""

    def test_killed_writers_leave_nothing_half(self, opening: Opening) -> None:
        """SIGKILL in the midst of writing and at each point of the commit; the last one has stored it."""
        content = b"content" * 100_000

        def in_the_midst() -> None:
            with opening().writer() as writer:
                writer.write(content[: len(content) // 2])
                kill_myself()

        assert in_children([in_the_midst]) == [-signal.SIGKILL]
        assert held(opening()) == {}
        for point in POINTS:
            own = point.encode() + content
            killed = opening(fault=at(point, kill_myself))
            assert in_children([functools.partial(killed.put, own)]) == [-signal.SIGKILL]
            assert_whole(opening(), own)
            assert opening().has([digest_of(own)]) or point != "blob.renamed"
            assert opening().put(own).size == len(own)
            assert opening().get(digest_of(own)) == own

    def test_a_fork_takes_the_store_along(self, opening: Opening) -> None:
        """Parent and child go on reading and writing with what was open."""
        store = opening()
        before = store.put(b"before")

        def work() -> None:
            assert store.get(before.digest) == b"before"
            store.put(b"by the child")
            assert written(store, b"streamed by the child").size == 21

        assert in_children([work]) == [0]
        assert store.get(digest_of(b"by the child")) == b"by the child"
        assert in_children([lambda: [store.put(b"%d" % n) for n in range(20)]] * 3) == [0, 0, 0]
        assert store.get(digest_of(b"streamed by the child")) == b"streamed by the child"
        assert len(held(store)) == 23

    def test_a_fork_in_the_midst_of_writing(self, opening: Opening) -> None:
        """The child, however it leaves the block, stores nothing and spoils nothing."""
        store = opening()

        def leaving(leave: type[BaseException] | None) -> str:
            mine = os.getpid()
            try:
                with store.writer() as writer:
                    writer.write(b"half ")
                    child = fork()
                    if child:
                        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
                    elif leave is not None:
                        raise leave
                    writer.write(b"and half" if child else b"of the child")
                assert writer.blob is not None
                return writer.blob.digest
            finally:
                if os.getpid() != mine:
                    os._exit(0)

        for leave in (None, ValueError, SystemExit):
            assert store.get(leaving(leave)) == b"half and half"
        assert held(opening()) == {digest_of(b"half and half"): 13}

    def test_children_write_the_same_content(self, opening: Opening) -> None:
        """Each with a store of its own, all at once: each content is there, once."""
        contents = [b"content %d" % (number % 5) * 1000 for number in range(10)]

        def work() -> None:
            for content in contents:
                one = opening()
                assert one.put(content) == written(one, content)
                assert one.get(digest_of(content)) == content

        assert in_children([work] * 3) == [0, 0, 0]
        assert held(opening()) == {digest_of(content): len(content) for content in contents}


def written(store: Objects, content: bytes) -> Blob:
    """Store a content by a writer, in pieces."""
    with store.writer() as writer:
        for start in range(0, len(content), 1 << 16):
            assert writer.write(content[start : start + (1 << 16)]) == min(1 << 16, len(content) - start)
    assert writer.blob is not None
    return writer.blob


def stored(writer: BlobWriter) -> tuple[Blob, ...]:
    """The blob of a writer that has stored one."""
    return () if writer.blob is None else (writer.blob,)


def pause() -> float:
    """A moment between what was done and what will be, by clocks that tick every few milliseconds."""
    time.sleep(0.02)
    between = time.time()
    time.sleep(0.02)
    return between


def at(point: str, act: Callable[[], object]) -> Fault:
    """A fault that does something at one point."""

    def fault(reached: str) -> None:
        if reached == point:
            act()

    return fault


def kill_myself() -> None:
    """End this process as a power cut would."""
    os.kill(os.getpid(), signal.SIGKILL)


def fail(code: int) -> None:
    """Raise what the system raises."""
    raise OSError(code, os.strerror(code))


def assert_whole(store: Objects, content: bytes) -> None:
    """A content is there entirely or not at all."""
    if store.has([digest_of(content)]):
        assert store.get(digest_of(content)) == content
    else:
        assert digest_of(content) not in held(store)
