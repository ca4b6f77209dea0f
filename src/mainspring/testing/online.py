"""The contract of the online store: derive from `OnlineStoreContract` and give it your adapter to open."""

from __future__ import annotations

import functools
import os
import random
import signal
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from mainspring.errors import StoreError
from mainspring.lazy import lazy
from mainspring.ports.online import OnlineStore
from mainspring.testing.atonce import forked, in_children, together

if TYPE_CHECKING:
    import pytest
else:
    pytest = lazy("pytest")

__all__ = ["OnlineStoreContract", "Opening", "number_of", "row"]

Opening = Callable[[], OnlineStore]

LONGEST_KEY = 400
_SIGN = 1 << 63


def row(event: int, ingest: int = 0, seq: int = 0, body: bytes = b"") -> bytes:
    """A row whose first 24 bytes say when it happened, when it became known and when it arrived."""
    return b"".join((part + _SIGN).to_bytes(8, "big") for part in (event, ingest, seq)) + body


def number_of(stored: bytes | None) -> int | None:
    """The event of a row."""
    return None if stored is None else int.from_bytes(stored[:8], "big") - _SIGN


def _newest(rows: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for key, stored in rows:
        if key not in found or stored[:24] > found[key][:24]:
            found[key] = stored
    return found


class OnlineStoreContract:
    """What every online store does.

    A subclass defines the fixture ``opening``: a function that opens the same, at first empty, store each time it is
    called; several may be open at once, and one may be carried over a fork.
    """

    # -- reading ------------------------------------------------------------------------------------------------

    def test_it_is_the_port(self, opening: Opening) -> None:
        """It has every method."""
        assert isinstance(opening(), OnlineStore)

    def test_keys_that_are_not_there(self, opening: Opening) -> None:
        """Each is None, in its place, and removing one is no fault."""
        store = opening()
        assert store.get_many([b"nobody"]) == [None]
        store.put_newer([(b"b", row(1)), (b"bb", row(2))])
        assert store.get_many([b"a", b"bb", b"c", b"b", b"bbb"]) == [None, row(2), None, row(1), None]
        store.delete([b"a", b"c"])
        assert store.get_many([b"b", b"bb"]) == [row(1), row(2)]

    def test_a_key_may_be_asked_for_twice(self, opening: Opening) -> None:
        """It is answered at each of its places."""
        store = opening()
        store.put_newer([(b"a", row(1)), (b"b", row(2))])
        assert store.get_many([b"b", b"a", b"b", b"b"]) == [row(2), row(1), row(2), row(2)]

    def test_nothing_to_do(self, opening: Opening) -> None:
        """Empty batches do nothing, in an empty store and in a full one."""
        store = opening()
        for held in ([], [(b"a", row(1))]):
            store.put_newer(held)
            assert store.get_many([]) == []
            assert store.put_newer([]) == 0
            assert store.put_newer(iter(())) == 0
            store.delete([])
            assert store.drop(b"nothing") == 0
            assert list(store.scan(b"nothing")) == []
            assert list(store.scan(b"")) == held

    def test_bytes_are_any_bytes(self, opening: Opening) -> None:
        """Zeros, 0xff, what looks like text, keys up to 400 bytes that differ at the end alone, rows without a body."""
        keys = [
            b"\0",
            b"\0\0",
            b"\xff",
            b"\xff" * LONGEST_KEY,
            b"\xff" * (LONGEST_KEY - 1) + b"\xfe",
            b"'; --",
            b"{k}*?",
        ]
        rows = [(key, row(number, body=key[::-1] + b"\0")) for number, key in enumerate(keys)]
        store = opening()
        assert store.put_newer([*rows, (b"bare", row(7))]) == len(keys) + 1
        assert store.get_many(keys) == [stored for _, stored in rows]
        assert opening().get_many([b"bare"]) == [row(7)]
        assert sorted(store.scan(b"")) == sorted([*rows, (b"bare", row(7))])

    def test_big_rows(self, opening: Opening) -> None:
        """Megabytes come back as they were, next to small ones."""
        big = row(1, body=random.Random(0).randbytes(6 << 20))
        store = opening()
        store.put_newer([(b"small", row(1)), (b"big", big)])
        assert store.get_many([b"big", b"small"]) == [big, row(1)]
        assert store.put_newer([(b"big", row(0, body=big))]) == 0
        assert store.swap(b"big", big, row(2))
        assert opening().get_many([b"big"]) == [row(2)]

    # -- writing in order ---------------------------------------------------------------------------------------

    def test_a_newer_row_takes_over_and_an_older_one_does_not(self, opening: Opening) -> None:
        """By event, then by ingest, then by seq; the same row again is not written."""
        rising = [
            row(-(2**62), 9, 9, b"negative"),
            row(-1, 9, 9, b"before 1970"),
            row(0, -5, 9, b"early ingest"),
            row(0, 3, 1, b"tie, late"),
            row(0, 3, 2, b"tie, later"),
            row(1, -9, -9, b"event first"),
            row(256, 0, 0, b"a byte more"),
            row(2**62, 0, 0, b"far"),
        ]
        store = opening()
        for place, newer in enumerate(rising):
            assert store.put_newer([(b"k", newer)]) == 1
            assert store.get_many([b"k"]) == [newer]
            assert store.put_newer([(b"k", older) for older in rising[: place + 1]]) == 0
            assert store.get_many([b"k"]) == [newer]

    def test_a_replay_changes_nothing(self, opening: Opening) -> None:
        """What was written once, in any order, by any store that is open, writes nothing again."""
        chance = random.Random(1)
        rows = [(b"k%d" % chance.randrange(9), row(chance.randrange(5), chance.randrange(3), seq)) for seq in range(99)]
        store = opening()
        store.put_newer(rows)
        held = list(store.scan(b""))
        assert dict(held) == _newest(rows)
        for _ in range(3):
            chance.shuffle(rows)
            assert opening().put_newer(rows) == 0
        assert list(store.scan(b"")) == held

    def test_a_key_twice_in_a_batch(self, opening: Opening) -> None:
        """The newest is there afterwards, wherever it was in the batch."""
        store = opening()
        assert store.put_newer([(b"a", row(2)), (b"a", row(1)), (b"b", row(1)), (b"b", row(3)), (b"b", row(2))]) >= 2
        assert store.get_many([b"a", b"b"]) == [row(2), row(3)]

    def test_a_batch_that_fails_writes_nothing(self, opening: Opening) -> None:
        """All or none, when the rows themselves cannot be made."""
        store = opening()

        def rows() -> Iterable[tuple[bytes, bytes]]:
            yield b"a", row(1)
            raise ArithmeticError

        with pytest.raises(ArithmeticError):
            store.put_newer(rows())
        assert store.get_many([b"a"]) == [None]
        assert store.put_newer([(b"a", row(1))]) == 1

    def test_a_tombstone_is_a_row(self, opening: Opening) -> None:
        """It stays where it is, so that an older row does not come back; a deleted key knows no order any more."""
        store = opening()
        store.put_newer([(b"a", row(5, body=b"gone"))])
        assert store.put_newer([(b"a", row(4, body=b"alive"))]) == 0
        assert store.get_many([b"a"]) == [row(5, body=b"gone")]
        store.delete([b"a"])
        assert store.get_many([b"a"]) == [None]
        assert store.put_newer([(b"a", row(4, body=b"alive"))]) == 1

    # -- the rest -----------------------------------------------------------------------------------------------

    def test_swapping(self, opening: Opening) -> None:
        """Writes if what is there is what was read, whichever is newer."""
        store = opening()
        assert not store.swap(b"k", row(1), row(2))
        assert store.get_many([b"k"]) == [None]
        assert store.swap(b"k", None, row(9))
        assert not store.swap(b"k", None, row(10))
        assert not store.swap(b"k", row(9) + b"!", row(10))
        assert store.swap(b"k", row(9), row(2, body=b"older"))
        assert opening().get_many([b"k"]) == [row(2, body=b"older")]

    def test_scanning(self, opening: Opening) -> None:
        """All keys that begin so and no other, in order of bytes."""
        keys = [b"a", b"a\0", b"a\xff", b"a\xff\xff", b"b", b"\xff", b"\xff\xff", b"aa", b"\0"]
        store = opening()
        store.put_newer([(key, row(number, body=key)) for number, key in enumerate(keys)])
        for prefix in (b"", b"a", b"a\xff", b"\xff", b"\xff\xff", b"b", b"zz", b"\0", b"\xff\xff\xff"):
            found = list(store.scan(prefix))
            assert [key for key, _ in found] == sorted(key for key in keys if key.startswith(prefix))
            assert all(stored[24:] == key for key, stored in found)

    def test_many_rows_are_scanned_once_each(self, opening: Opening) -> None:
        """More than fit in any one answer, big and small."""
        keys = [number.to_bytes(4, "big") for number in range(3000)]
        store = opening()
        store.put_newer(
            [(key, row(1, body=key * (3000 if number % 500 == 0 else 1))) for number, key in enumerate(keys)]
        )
        assert [key for key, _ in store.scan(b"")] == keys
        assert [key for key, _ in store.scan(keys[0][:3])] == keys[:256]

    def test_writing_while_scanning(self, opening: Opening) -> None:
        """The rows that were there come whole, whatever is written meanwhile; a scan may be left half way."""
        store = opening()
        store.put_newer([(b"k%03d" % number, row(number, body=b"x" * 100)) for number in range(200)])
        seen = []
        for key, stored in store.scan(b"k"):
            seen.append(key)
            assert stored[24:] == b"x" * 100
            if len(seen) % 20 == 0:
                store.put_newer([(b"z%03d" % len(seen), row(1, body=bytes(200_000)))])
        assert seen == [b"k%03d" % number for number in range(200)]
        left = store.scan(b"k")
        assert next(left)[0] == b"k000"
        store.delete([b"k%03d" % number for number in range(200)])
        del left
        assert list(store.scan(b"k")) == []

    def test_dropping(self, opening: Opening) -> None:
        """All keys that begin so go; their neighbours stay."""
        store = opening()
        kept = [(b"a", row(1)), (b"c", row(2)), (b"\xff", row(4))]
        store.put_newer([*kept, *((b"b" + bytes([number]), row(number)) for number in range(256)), (b"b", row(3))])
        assert store.drop(b"b") == 257
        assert list(opening().scan(b"")) == kept
        assert store.drop(b"b") == 0
        assert store.put_newer([(b"b", row(0))]) == 1
        assert store.drop(b"") == 4

    def test_it_outlives_its_store(self, opening: Opening) -> None:
        """What was written is there when it is opened again; a closed store says that it is."""
        first, second = opening(), opening()
        first.put_newer([(b"a", row(1))])
        first.close()
        first.close()
        assert second.get_many([b"a"]) == [row(1)]
        for use in (
            lambda: first.get_many([b"a"]),
            lambda: first.put_newer([(b"b", row(1))]),
            lambda: [*first.scan(b"")],
        ):
            with pytest.raises(StoreError) as caught:
                use()
            assert caught.value.code == "MS-4140"
        second.close()
        assert opening().get_many([b"a", b"b"]) == [row(1), None]

    # -- several at once ----------------------------------------------------------------------------------------

    def test_stores_see_each_other(self, opening: Opening) -> None:
        """What one writes, the other reads and takes into account."""
        left, right = opening(), opening()
        left.put_newer([(b"k", row(2))])
        assert right.get_many([b"k"]) == [row(2)]
        assert right.put_newer([(b"k", row(1))]) == 0
        assert right.swap(b"k", row(2), row(3))
        left.delete([b"k"])
        assert right.get_many([b"k"]) == [None]

    def test_writers_in_many_processes(self, opening: Opening) -> None:
        """Whoever comes last, the newest row of each key is there."""
        batches = []
        for writer in range(4):
            chance = random.Random(writer)
            rows = [
                (
                    b"k%d" % chance.randrange(20),
                    row(chance.randrange(6), chance.randrange(3), seq * 4 + writer, b"%d" % writer),
                )
                for seq in range(150)
            ]
            batches.append([rows[start : start + 7] for start in range(0, len(rows), 7)])

        def write(mine: list[list[tuple[bytes, bytes]]]) -> None:
            store = opening()
            for batch in mine:
                store.put_newer(batch)

        assert in_children([functools.partial(write, mine) for mine in batches]) == [0] * 4
        every = [one for mine in batches for batch in mine for one in batch]
        assert dict(opening().scan(b"")) == _newest(every)

    def test_swaps_of_many_processes_count_right(self, opening: Opening) -> None:
        """None is lost and none happens twice; what cannot be swapped is read again."""

        def count() -> None:
            store = opening()
            done = 0
            while done < 25:
                (there,) = store.get_many([b"n"])
                done += store.swap(b"n", there, row((number_of(there) or 0) + 1))

        assert in_children([count] * 4) == [0] * 4
        assert number_of(opening().get_many([b"n"])[0]) == 100

    def test_reads_are_from_one_moment(self, opening: Opening) -> None:
        """Two keys that are always written together are never read apart."""
        store = opening()
        store.put_newer([(b"a", row(0)), (b"b", row(0))])

        def write() -> None:
            mine, number = opening(), 0
            while number_of(mine.get_many([b"enough"])[0]) is None:
                number += 1
                mine.put_newer([(b"a", row(number)), (b"b", row(number))])

        child = forked(write)
        seen: set[bytes | None] = set()
        try:
            while len(seen) < 20:
                a, b = store.get_many([b"a", b"b"])
                assert a == b
                seen.add(a)
                assert os.waitpid(child, os.WNOHANG)[0] == 0
        finally:
            store.put_newer([(b"enough", row(1))])
        assert os.waitpid(child, 0)[1] == 0

    def test_readers_in_threads_while_it_grows(self, opening: Opening) -> None:
        """Every read is answered, while others write much more than was there."""
        store = opening()
        store.put_newer([(b"k%d" % number, row(number)) for number in range(50)])
        done = threading.Event()

        def read() -> None:
            while not done.is_set():
                assert store.get_many([b"k1"]) == [row(1)]
                assert store.get_many([b"k2", b"none", b"k3"]) == [row(2), None, row(3)]
                assert len(list(store.scan(b"k"))) == 50

        def write() -> None:
            try:
                for number in range(8):
                    store.put_newer([(b"z%d" % number, row(1, body=bytes(50_000 << number // 2)))])
            finally:
                done.set()

        together([read, write, read])
        assert len(list(store.scan(b"z"))) == 8

    def test_writers_in_threads(self, opening: Opening) -> None:
        """One store, many threads: nothing is lost while it grows."""
        store = opening()

        def write(name: bytes) -> None:
            for number in range(10):
                store.put_newer([(name + b"%d" % number, row(number, body=bytes(30_000)))])

        together([functools.partial(write, name) for name in (b"a", b"b", b"c")])
        assert len(list(store.scan(b""))) == 30

    # -- processes come and go ----------------------------------------------------------------------------------

    def test_a_store_over_a_fork(self, opening: Opening) -> None:
        """A child may go on with the store it was born with, and its parent too, in any turn."""
        store, other = opening(), opening()
        store.put_newer([(b"a", row(1))])

        def use() -> None:
            assert store.get_many([b"a"]) == [row(1)]
            assert store.put_newer([(b"a", row(2)), (b"child", row(1))]) == 2
            assert other.get_many([b"a"]) == [row(2)]
            assert len(list(other.scan(b""))) == 2
            assert in_children([functools.partial(store.put_newer, [(b"grandchild", row(1))])]) == [0]
            assert store.get_many([b"grandchild"]) == [row(1)]
            other.close()
            store.close()

        assert in_children([use]) == [0]
        assert store.get_many([b"a", b"child", b"grandchild"]) == [row(2), row(1), row(1)]
        assert store.put_newer([(b"a", row(3))]) == 1
        other.close()
        assert store.get_many([b"a"]) == [row(3)]

    def test_killed_writers_lose_nothing_and_leave_nothing_half_done(self, opening: Opening) -> None:
        """After SIGKILL in the middle of a batch, each batch is there whole or not at all, and writing goes on."""
        keys = [b"k%03d" % number for number in range(100)]

        def write(pipe: int) -> None:
            store = opening()
            number = (number_of(store.get_many(keys[:1])[0]) or 0) + 1
            while True:
                store.put_newer([(key, row(number, body=bytes(200))) for key in keys])
                os.write(pipe, number.to_bytes(8, "big"))
                number += 1

        for pause in (1, 5, 8):
            read, pipe = os.pipe()
            child = forked(functools.partial(write, pipe))
            os.close(pipe)
            for _ in range(pause):
                acknowledged = int.from_bytes(os.read(read, 8), "big")
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            while rest := os.read(read, 8):
                acknowledged = int.from_bytes(rest, "big")
            os.close(read)
            numbers = {number_of(stored) for stored in opening().get_many(keys)}
            assert numbers in ({acknowledged}, {acknowledged + 1})

    def test_killed_readers_are_in_nobodys_way(self, opening: Opening) -> None:
        """Others read and write on."""
        opening().put_newer([(b"k%d" % number, row(number)) for number in range(2000)])

        def stop() -> None:
            next(opening().scan(b"k"))
            os.kill(os.getpid(), signal.SIGKILL)

        assert in_children([stop] * 3) == [-signal.SIGKILL] * 3
        store = opening()
        for number in range(20):
            assert store.put_newer([(b"k0", row(number + 1, body=bytes(20_000)))]) == 1
        assert number_of(store.get_many([b"k0"])[0]) == 20
