"""Qdrant's embedded engine, against the contract of the vector store."""

import collections
import os
import shutil
import subprocess
import sys
import uuid

import msgspec
import pytest
import qdrant_edge as edge

from mainspring.adapters.qdrant_edge import ADAPTER
from mainspring.adapters.qdrant_edge.health import health
from mainspring.adapters.qdrant_edge.payloads import patched
from mainspring.adapters.qdrant_edge.settings import QdrantEdgeSettings
from mainspring.adapters.qdrant_edge.vector_store import open_store
from mainspring.errors import StoreError
from mainspring.ports.vector_store import Point, Query
from mainspring.testing.atonce import in_children
from mainspring.testing.vector_oracle import clustered, id_of, schema_of
from mainspring.testing.vectors import VectorStoreContract

PROGRAM = """
from pathlib import Path
from mainspring.adapters.qdrant_edge.settings import QdrantEdgeSettings
from mainspring.adapters.qdrant_edge.vector_store import open_store
store = open_store(QdrantEdgeSettings(), Path({place!r}))
"""


@pytest.fixture
def place(tmp_path):
    return tmp_path / "é 100% (a)*"


@pytest.fixture
def opening(place):
    opened = []

    def open_one():
        opened.append(open_store(QdrantEdgeSettings(), place))
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()


@pytest.fixture
def store(opening):
    return opening()


class TestQdrantEdge(VectorStoreContract):
    @pytest.fixture
    def program(self, place):
        return PROGRAM.format(place=str(place))


def test_a_disk_without_room_refuses_a_write_before_the_kernel_ends_the_process(store, monkeypatch):
    """The engine's mapped files end the process (SIGBUS) where the disk is full: that must not be tried."""
    vectors = clustered(3, 8)
    store.create("library", schema_of(8))
    points = [Point(id_of(number), vector, {}, "") for number, vector in enumerate(vectors)]
    store.upsert("library", points[:1])
    usage = collections.namedtuple("usage", "free")
    with monkeypatch.context() as full:
        full.setattr("mainspring.adapters.qdrant_edge.problems.shutil.disk_usage", lambda folder: usage(16_000_000))
        with pytest.raises(StoreError) as caught:
            store.upsert("library", points[1:])
        assert (caught.value.code, "16.0 MB are free" in caught.value.why) == ("MS-4101", True)
        assert store.count("library") == 1
        assert len(store.search("library", Query(dense=vectors[0], k=1)).hits) == 1
        store.delete("library", [id_of(0)])  # what nobody may see any more goes as long as there is any room
    with monkeypatch.context() as full:
        full.setattr("mainspring.adapters.qdrant_edge.problems.shutil.disk_usage", lambda folder: usage(48_000))
        for change in (
            lambda: store.delete("library", [id_of(1)]),
            lambda: store.set_payload("library", [id_of(1)], {"lang": "de"}),
            lambda: store.optimize("library"),
            lambda: store.create("another", schema_of(8)),
        ):
            with pytest.raises(StoreError) as caught:
                change()
            assert caught.value.code == "MS-4101"
        assert store.indexes() == ("library",)
    assert store.upsert("library", points[1:]) == 2
    assert store.count("library") == 2


FULL = """
import sys
from mainspring.errors import StoreError
from mainspring.ports.vector_store import Query
from mainspring.testing.vector_oracle import clustered, id_of, schema_of
rows = clustered(300, 16)
if sys.argv[1] != "open":
    store.count("i")
with open({ballast!r}, "wb", buffering=0) as file:
    try:
        while True:
            file.write(bytes(4096))
    except OSError:
        file.truncate(max(file.tell() - int(sys.argv[2]), 0))
try:
    {{
        "open": lambda: store.count("i"),
        "create": lambda: store.create("other", schema_of()),
        "delete": lambda: store.delete("i", [id_of(n) for n in range(50)]),
        "patch": lambda: store.set_payload("i", [id_of(n) for n in range(50)], {{"lang": "x", "text": "y" * 900}}),
        "upsert": lambda: store.upsert("i", points(300, 600)),
        "optimize": lambda: store.optimize("i"),
    }}[sys.argv[1]]()
except StoreError as error:
    print(error.code)
if sys.argv[1] not in ("open", "create"):
    assert len(store.search("i", Query(dense=rows[0], k=3)).hits) == 3
store.close()
"""
POINTS = """
from mainspring.ports.vector_store import Point
from mainspring.testing.vector_oracle import clustered, id_of
def points(first, last):
    rows = clustered(last, 16)
    return [Point(id_of(n), rows[n], {"lang": "en", "text": "t" * 300}, f"w{n % 7}") for n in range(first, last)]
"""


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, of 64 MB; only root can mount one."""
    image, place = tmp_path / "image", tmp_path / "small"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(64_000_000)
    if os.geteuid() != 0 or shutil.which("mkfs.ext4") is None:
        pytest.skip("mounts a file system: root and mkfs.ext4")
    subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", image], check=True)
    if subprocess.run(["mount", "-o", "loop", image, place], capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.mark.parametrize("left", [0, 49_152])
def test_a_full_disk_ends_no_process_and_loses_nothing(small_disk, left):
    """Writes into holes of mapped files end a process by SIGBUS: 48 KB are where there is room for some of them."""
    at = PROGRAM.format(place=str(small_disk)) + POINTS
    ballast = small_disk / "ballast"

    def done(program, *arguments):
        return subprocess.run(
            [sys.executable, "-c", at + program, *arguments], capture_output=True, text=True, timeout=120, check=False
        )

    made = done(
        "from mainspring.testing.vector_oracle import schema_of\n"
        "store.create('i', schema_of()); store.upsert('i', points(0, 300)); store.flush('i'); store.close()"
    )
    assert made.returncode == 0, made.stderr
    for what in ("open", "create", "delete", "patch", "upsert", "optimize"):
        found = done(FULL.format(ballast=str(ballast)), what, str(left))
        assert (what, found.returncode, found.stdout) == (what, 0, "MS-4101\n"), found.stderr
        ballast.unlink()
        assert done("print(store.count('i'), store.indexes())").stdout == "300 ('i',)\n"
    after = done(
        "store.delete('i', [id_of(0)]); store.upsert('i', points(300, 310)); store.flush('i'); print(store.count('i'))"
    )
    assert after.stdout == "309\n", after.stderr


def test_its_adapter_names_it(store):
    assert (ADAPTER.port, ADAPTER.name, ADAPTER.embedded) == ("vectors", "qdrant_edge", True)
    assert ADAPTER.capabilities["full_text"] == store.capabilities().full_text
    assert health(store) == {"indexes": 0, "rows": 0}


def test_the_engines_own_fusion_is_ours(store):
    """It counts ranks from 0, so that its k is one more; several of its own orders of equal scores are possible."""
    store.create("i", schema_of(32))
    rows = clustered(400, 32)
    store.upsert("i", [Point(id_of(n), rows[n], {"size": n}, f"w{n % 9} w{n % 5} w{n % 31}") for n in range(400)])
    shard = store._index("i")._shard.engine
    words = edge.Bm25(edge.Bm25Config(language="english", avg_len=8.0))
    exact = edge.SearchParams(exact=True, quantization=edge.QuantizationSearchParams(ignore=True))
    for n in range(20):
        text = f"w{n % 9} w{n}"
        legs = [
            edge.Prefetch(100, query=edge.Query.Nearest(rows[n], using="dense"), params=exact),
            edge.Prefetch(100, query=edge.Query.Nearest(words.embed_query(text), using="text")),
        ]
        theirs = shard.query(edge.QueryRequest(20, prefetches=legs, query=edge.Fusion.Rrf(k=61)))
        ours = store.search("i", Query(dense=rows[n], text=text, k=20, recall_target=1.0))
        assert [hit.score for hit in ours.hits] == pytest.approx([hit.score for hit in theirs], abs=1e-6)
        scores = [round(hit.score, 6) for hit in ours.hits]
        clear = [
            hit.id for hit in ours.hits if scores.count(round(hit.score, 6)) == 1 and hit.score > ours.hits[-1].score
        ]
        assert clear == [str(hit.id) for hit in theirs if str(hit.id) in clear]


def test_a_build_that_fails_changes_nothing(store, monkeypatch):
    rows = clustered(9000, 64)
    store.create("i", schema_of(64))
    store.upsert("i", [Point(id_of(n), rows[n], {"size": n}) for n in range(9000)])
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(StoreError) as caught:
        store.optimize("i")
    assert caught.value.code == "MS-4183"
    assert store.count("i") == 9000
    assert store.search("i", Query(dense=rows[0], k=1)).hits[0].id == id_of(0)
    monkeypatch.undo()
    store.optimize("i")
    assert store.stats("i").unindexed == 0
    assert store.count("i") == 9000


def test_a_fork_asks_its_parent(store):
    store.create("i", schema_of())
    store.upsert("i", [Point(id_of(1), clustered(1, 16)[0])])

    def use():
        with pytest.raises(StoreError) as caught:
            store.count("i")
        assert caught.value.code == "MS-4182"

    assert in_children([use]) == [0]
    assert store.count("i") == 1


def test_an_index_of_a_newer_format(store, place):
    store.create("i", schema_of())
    about = place / "indexes" / "i" / "index.json"
    about.write_text(about.read_text().replace('"format":1', '"format":2'))
    with pytest.raises(StoreError) as caught:
        store.count("i")
    assert caught.value.code == "MS-4183"


def test_a_point_that_was_written_key_by_key_is_read_and_changed_like_others(store):
    """What filters may not name was in keys of its own before, and indexes of that time are there."""
    store.create("i", schema_of())
    vector = clustered(1, 16)[0]
    old = edge.Point(
        id_of(1), {"dense": vector.tolist()}, {"lang": "a", "text": "T", "path": ["x", "y"], "kept": {"a": 1}}
    )
    store._index("i")._shard.engine.update(edge.UpdateOperation.upsert_points([old]))
    store.upsert("i", [Point(id_of(2), vector, {"lang": "a", "text": "T", "path": ["x", "y"], "kept": {"a": 1}})])

    def payloads():
        return [hit.payload for hit in store.search("i", Query(dense=vector, k=2)).hits]

    assert payloads() == [{"lang": "a", "text": "T", "path": ["x", "y"], "kept": {"a": 1}}] * 2
    store.set_payload("i", [id_of(1), id_of(2)], {"text": "U", "path": None})
    assert payloads() == [{"lang": "a", "text": "U", "kept": {"a": 1}}] * 2
    only = store.search("i", Query(dense=vector, k=2, fields=("text", "lang"))).hits
    assert [hit.payload for hit in only] == [{"text": "U", "lang": "a"}] * 2


def test_a_patch_that_changes_nothing_beside_the_fields_writes_only_them():
    text = msgspec.json.encode({"text": "T", "trust": "data"}).decode()
    assert patched(text, {"trust": "data"}, ()) is None
    assert patched(text, {}, ("absent",)) is None
    assert msgspec.json.decode(patched(text, {"trust": "x"}, ("text",))) == {"trust": "x"}
    assert patched(None, {"trust": "x"}, ()) == '{"trust":"x"}'


def test_values_come_back_as_they_were_put_wherever_they_lie(store):
    """In one text are large integers, whole floats, nested lists; a list of one value is kept as the value."""
    store.create("i", schema_of())
    kept = {"whole": 1.0, "large": (1 << 62) + 1, "less": -(1 << 62), "tiny": 1e-9, "deep": [[1, []], {"é": None}]}
    given = {"acl": ["one"], "years": [3], "lang": "g", **kept}
    store.upsert("i", [Point(str(uuid.UUID(int=7)), clustered(1, 16)[0], given)])
    (point,) = store.scroll("i").points
    assert point.payload == given
    assert isinstance(point.payload["whole"], float)
