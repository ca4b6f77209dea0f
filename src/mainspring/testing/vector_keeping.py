"""The contract of the vector store: owners, aliases, snapshots, crashes, and what goes on at the same time."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from mainspring.errors import StoreError
from mainspring.lazy import lazy
from mainspring.ports.vector_store import Eq, Point, Query, Range, VectorStore
from mainspring.testing.atonce import together
from mainspring.testing.vector_oracle import (
    ALL,
    DIMS,
    Opening,
    code_of,
    everything,
    filled,
    id_of,
    ids_of,
    schema_of,
    units,
)

if TYPE_CHECKING:
    import pytest
else:
    pytest = lazy("pytest")

__all__ = ["VectorKeepingContract"]

_WRITER = """
import sys
from mainspring.ports.vector_store import Point
from mainspring.testing.vector_oracle import id_of, schema_of, units
store.create("i", schema_of())
vectors = units(10, 16)
for batch in range(10_000):
    store.upsert("i", [Point(id_of(batch * 10 + n), vectors[n], {"size": batch}, "word") for n in range(10)])
    store.flush("i")
    print(batch, flush=True)
"""
_OWNER = """
import sys
from mainspring.ports.vector_store import Point
from mainspring.testing.vector_oracle import id_of, schema_of, units
store.create("i", schema_of())
store.upsert("i", [Point(id_of(1), units(1, 16)[0])])
print("here", flush=True)
sys.stdin.readline()
"""


class VectorKeepingContract:
    """What stays, and who may have it; see `VectorStoreContract`."""

    smallest = 1 << 20
    """The most bytes of disk that an index of a few rows may take."""
    tells_bytes = True
    """Whether the store knows the disk that an index takes."""

    # -- aliases ------------------------------------------------------------------------------------------------------

    def test_aliases(self, store: VectorStore, opening: Opening) -> None:
        """A name leads to one index, everywhere; an index in use is not dropped; names are never both."""
        filled(store, "one", 3)
        filled(store, "two", 5)
        store.alias("live", "one")
        assert store.count("live") == 3
        assert ids_of(store.search("live", Query(dense=units(5, DIMS)[0], k=1))) == [id_of(0)]
        store.delete("live", [id_of(0)])
        assert store.count("one") == 2
        store.alias("live", "two")
        store.alias("also", "live")
        assert store.aliases() == {"live": "two", "also": "two"}
        assert store.count("live") == 5
        assert store.indexes() == ("one", "two")
        assert code_of(store.drop, "two") == "MS-4184"
        assert code_of(store.alias, "one", "two") == "MS-4181"
        assert code_of(store.create, "live", schema_of()) == "MS-4181"
        assert code_of(store.alias, "x", "nothing") == "MS-4180"
        assert code_of(store.alias, "../x", "one") == "MS-2655"
        store.drop("one")
        store.close()
        assert opening().count("live") == 5

    def test_an_alias_moves_at_once(self, store: VectorStore) -> None:
        """A reader sees the one index or the other, never neither."""
        filled(store, "one", 3)
        filled(store, "two", 5)
        store.alias("live", "one")
        done = threading.Event()
        seen: set[int] = set()

        def read() -> None:
            while not done.is_set() or len(seen) < 2:
                seen.add(store.count("live"))

        def move() -> None:
            for _ in range(20):
                store.alias("live", "two")
                store.alias("live", "one")
            store.alias("live", "two")
            while len(seen) < 2:
                pass
            done.set()

        together([read, read, move])
        assert seen == {3, 5}

    # -- what stays ---------------------------------------------------------------------------------------------------

    def test_it_outlives_its_store(self, store: VectorStore, opening: Opening) -> None:
        """Points, words, payloads and schema are there when it is opened again; a closed store says that it is."""
        oracle = filled(store, "i", 30)
        store.set_payload("i", [id_of(2)], {"lang": "fr"})
        store.delete("i", [id_of(3)])
        store.flush("i")
        held = list(everything(store, "i"))
        store.close()
        store.close()
        for use in (lambda: store.count("i"), lambda: store.search("i", Query(text="w1")), lambda: store.flush("i")):
            assert code_of(use) == "MS-4185"
        again = opening()
        assert list(everything(again, "i")) == held
        assert again.schema("i") == oracle.schema
        assert ids_of(again.search("i", Query(dense=units(30, DIMS)[7], k=1))) == [id_of(7)]
        assert again.count("i", Eq("lang", "fr")) == 1

    def test_a_kill_loses_nothing_that_was_flushed(self, opening: Opening, program: str) -> None:
        """The writer dies by SIGKILL at some point: every row that it flushed is there, once, with its payload."""
        flushed = -1
        for batches in (1, 4, 9):
            writer = _started(f"{program}\n{_WRITER}")
            try:
                lines = [writer.stdout.readline() for _ in range(batches)]  # type: ignore[union-attr]
                assert all(lines), writer.stderr.read()  # type: ignore[union-attr]
            finally:
                writer.kill()
                rest, _ = writer.communicate()
            flushed = max(flushed, *(int(line) for line in [*lines, *rest.split("\n")] if line.strip()))
            store = opening()
            there = dict(everything(store, "i", limit=500))
            wanted = {id_of(batch * 10 + n): {"size": batch} for batch in range(flushed + 1) for n in range(10)}
            assert {id: there.get(id) for id in wanted} == wanted
            assert store.count("i") == len(there)
            found = store.search("i", Query(dense=units(10, DIMS)[3], filter=Eq("size", flushed), k=1))
            assert ids_of(found) == [id_of(flushed * 10 + 3)]
            store.close()

    def test_another_process(self, opening: Opening, program: str) -> None:
        """Of a store with one owner an index is refused, naming the process that has it; else both see it."""
        owner = _started(f"{program}\n{_OWNER}")
        try:
            assert owner.stdout.readline() == "here\n", owner.stderr.read()  # type: ignore[union-attr]
            store = opening()
            if store.capabilities().writers == "many":
                store.upsert("i", [Point(id_of(2), units(1, DIMS)[0])])
                assert store.count("i") == 2
            else:
                for use in (lambda: store.count("i"), lambda: store.upsert("i", []), lambda: store.drop("i")):
                    with pytest.raises(StoreError) as caught:
                        use()
                    assert caught.value.code == "MS-4182"
                    assert str(owner.pid) in caught.value.why
                assert store.indexes() == ("i",)
            owner.communicate("go\n")
            assert store.count("i") in (1, 2)
        finally:
            owner.kill()
            owner.communicate()

    def test_snapshots(self, store: VectorStore, tmp_path: Path) -> None:
        """A copy of one moment in one file, from which an index is made that is like it and goes its own way."""
        oracle = filled(store, "i", 200)
        store.optimize("i")
        file = tmp_path / "snapshot é"
        store.snapshot("i", file)
        held = list(everything(store, "i", limit=100))
        store.delete("i", ALL)
        store.restore("j", file)
        assert list(everything(store, "j", limit=100)) == held
        assert store.schema("j") == oracle.schema
        query = units(1, DIMS, 8)[0]
        found = store.search("j", Query(dense=query, k=5, recall_target=1.0, filter=Eq("lang", "en")))
        assert len(set(ids_of(found)) & set(oracle.nearest(query, 5, Eq("lang", "en")))) >= 4
        store.upsert("j", [Point(id_of(900), query)])
        assert (store.count("i"), store.count("j")) == (0, 201)
        assert code_of(store.snapshot, "j", file) == "MS-4186"
        assert code_of(store.restore, "j", file) == "MS-4181"
        (tmp_path / "garbage").write_bytes(b"no snapshot" * 1000)
        for bad in ("garbage", "nothing"):
            assert code_of(store.restore, "k", tmp_path / bad) == "MS-4186"
        assert store.indexes() == ("i", "j")

    def test_many_small_indexes_stay_small(self, store: VectorStore, tmp_path: Path) -> None:
        """On the disk and in a snapshot: holes are not written out."""
        for n in range(12):
            filled(store, f"tenant-{n}", 5)
            store.flush(f"tenant-{n}")
            assert self.tells_bytes <= store.stats(f"tenant-{n}").bytes_allocated <= self.smallest
        store.snapshot("tenant-0", tmp_path / "small")
        assert (tmp_path / "small").stat().st_size <= self.smallest
        store.restore("again", tmp_path / "small")
        assert store.stats("again").bytes_allocated <= self.smallest

    # -- at the same time ---------------------------------------------------------------------------------------------

    def test_searches_and_writes_go_on_while_the_index_is_built(self, store: VectorStore) -> None:
        """What is written, changed and removed meanwhile is so afterwards, and the index is better."""
        oracle = filled(store, "i", 6000, 128)
        before = store.stats("i")
        assert before.rows == 6000
        vectors = units(300, 128, 3)
        building = threading.Thread(target=store.optimize, args=("i",))
        searches, written = 0, 0
        building.start()
        while building.is_alive():
            assert store.search("i", Query(dense=vectors[searches % 300], k=3)).complete
            searches += 1
            if written < 300:
                point = Point(id_of(50_000 + written), vectors[written], {"size": -1}, "fresh")
                store.upsert("i", [point])
                oracle.upsert("i", [point])
                store.delete("i", [id_of(written)])
                oracle.delete("i", [id_of(written)])
                store.set_payload("i", Eq("size", 1000 + written), {"lang": "fr"})
                oracle.set_payload("i", Eq("size", 1000 + written), {"lang": "fr"})
                written += 1
        building.join()
        assert searches >= 5
        assert [id for id, _ in everything(store, "i", limit=1000)] == oracle.ids()
        assert store.count("i", Eq("lang", "fr")) == written
        assert store.stats("i").unindexed <= before.unindexed
        for n in range(0, written, 7):
            assert ids_of(store.search("i", Query(dense=vectors[n], k=1))) == [id_of(50_000 + n)]

    def test_threads_share_a_store(self, store: VectorStore) -> None:
        """Writers of their own points and readers of all, at the same time."""
        filled(store, "i", 200)
        vectors = units(200, DIMS, 2)

        def write(mine: int) -> None:
            for n in range(15):
                store.upsert("i", [Point(id_of(1000 * mine + n), vectors[n], {"size": 1000 * mine}, "mine")])
                store.set_payload("i", [id_of(1000 * mine + n)], {"lang": "fr"})
            store.delete("i", [id_of(1000 * mine)])

        def read() -> None:
            for n in range(60):
                found = store.search("i", Query(dense=vectors[n], text="row", k=10, filter=Range("size", lt=1000)))
                assert found.complete
                assert all(hit.payload["size"] < 1000 for hit in found.hits)  # type: ignore[operator]

        together([lambda mine=mine: write(mine) for mine in (1, 2, 3)] + [read, read])
        assert store.count("i", Eq("lang", "fr")) == 3 * 14
        assert store.count("i") == 200 + 3 * 14

    def test_stats(self, store: VectorStore) -> None:
        """Rows are counted, and disk is taken."""
        filled(store, "i", 40)
        store.delete("i", [id_of(1)])
        store.flush("i")
        found = store.stats("i")
        assert found.rows == 39
        assert 0 <= found.unindexed <= 39
        assert found.bytes_allocated > 0 or not self.tells_bytes


def _started(code: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
