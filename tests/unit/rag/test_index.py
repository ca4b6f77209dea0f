"""An index over its life, with the real store and embedder: build, change, delete, swap, roll back, be killed."""

from __future__ import annotations

import itertools
import os
import random
import signal
import threading
import time
import traceback
from pathlib import Path

import msgspec
import numpy as np
import pytest

from mainspring.adapters.localfs.objects import open_objects
from mainspring.adapters.localfs.settings import LocalSettings
from mainspring.adapters.onnxruntime.embedder import open_embedder
from mainspring.adapters.onnxruntime.settings import EmbedderSettings
from mainspring.adapters.qdrant_edge.settings import QdrantEdgeSettings
from mainspring.adapters.qdrant_edge.vector_store import open_store
from mainspring.adapters.sqlite.manifest import open_manifest
from mainspring.adapters.sqlite.settings import SqliteSettings
from mainspring.choose.sharing import SharedStore
from mainspring.declare.identity import ANYONE, Identity
from mainspring.errors import MainspringError, RefusedError, UsageError
from mainspring.ports.parser import Parsed, Refused
from mainspring.rag.chunk import Chunker
from mainspring.rag.ids import point_id
from mainspring.rag.retrieve import IndexSearcher
from mainspring.rag.search import SearchRequest
from mainspring.rag.shape import IndexShape, collection
from mainspring.rag.sync import Folder
from mainspring.rag.versions import IndexPorts, Judgement, bring_up, roll_back
from mainspring.testing.atonce import fork
from thoroughly import rounds

ANIMALS = ("otter", "heron", "badger", "lynx", "adder", "stoat", "osprey", "marten")


class Plain:
    id, limits, max_bytes = "plain 1", "", 1_000_000

    def reads(self, name: str, media_type: str = "") -> bool:
        return True

    def parse(self, document, name: str, media_type: str = "") -> Parsed | Refused:
        return Parsed(document.read_text())

    def close(self) -> None:
        pass


class Counting:
    """The embedder, counting what it is asked."""

    def __init__(self, inner) -> None:
        self._inner = inner
        self.texts = 0

    def __getattr__(self, name: str):
        return getattr(self._inner, name)

    def embed_documents(self, texts):
        self.texts += len(texts)
        return self._inner.embed_documents(texts)


@pytest.fixture(scope="module")
def minilm(tmp_path_factory):
    found = open_embedder(EmbedderSettings(), tmp_path_factory.mktemp("state"))
    yield found
    found.close()


class Library:
    def __init__(self, place: Path, minilm) -> None:
        self.docs, self.state = place / "docs", place / "state"
        self.docs.mkdir(exist_ok=True)
        self.state.mkdir(exist_ok=True)
        self.embedder = Counting(minilm)
        self.clock = 2_000_000_000_000_000
        self.access = "public"
        self.open()

    def open(self) -> None:
        self.store = open_store(QdrantEdgeSettings(), self.state)
        self.ports = IndexPorts(
            open_manifest(SqliteSettings(), self.state),
            open_objects(LocalSettings(), self.state),
            self.store,
            "qdrant_edge",
            self.embedder,
            Plain(),
            self.now,
        )

    def close(self) -> None:
        self.store.close()
        self.ports.manifest.close()

    def now(self) -> int:
        self.clock += 10_000_000
        return self.clock

    def write(self, **texts: str) -> None:
        for name, text in texts.items():
            (self.docs / f"{name}.md").write_text(text)

    def sync(self, shape: IndexShape | None = None, judge=None):
        self.embedder.texts = 0
        folder = Folder("manuals", self.docs, access=self.access, may_be_empty=True)
        return bring_up(shape or IndexShape("library"), [folder], self.ports, by="test", judge=judge)

    def searcher(self, shape: IndexShape | None = None) -> IndexSearcher:
        ports = self.ports
        return IndexSearcher(
            shape or IndexShape("library"), ports.manifest, ports.objects, ports.store, lambda version: self.embedder
        )

    def found(self, query: str, caller: Identity = ANYONE, **given) -> list[str]:
        answer = self.searcher().search(SearchRequest(query, **given), caller)
        return [hit.uri.removesuffix(".md") for hit in answer.hits]

    def consistent(self) -> None:
        """Store and manifest hold the same, and that is what lies in the folder."""
        manifest = self.ports.manifest
        live = manifest.live("library")
        chunks = manifest.chunks("library", live)
        known = {point_id(chunk.chunk_id) for rows in chunks.values() for chunk in rows}
        there, cursor = [], None
        while True:
            page = self.store.scroll(collection("library", live), cursor=cursor, limit=1000)
            there += page.points
            if (cursor := page.cursor) is None:
                break
        assert {point.id for point in there} == known
        assert len(there) == len(known)
        texts = {}
        for row in manifest.documents("library"):
            texts[row.uri] = msgspec.json.decode(self.ports.objects.get(row.parsed), type=Parsed).text
            for chunk in chunks.get(row.document_id, []):
                assert 0 <= chunk.start < chunk.end <= len(texts[row.uri])
        assert texts == {path.name: path.read_text() for path in self.docs.iterdir()}


@pytest.fixture
def library(tmp_path: Path, minilm):
    made = Library(tmp_path, minilm)
    yield made
    made.close()


def about(animal: str, more: str = "") -> str:
    return f"# The {animal}\n\nThe {animal} lives near the river and is rarely seen by day. {more}\n"


def test_an_index_follows_its_documents(library: Library) -> None:
    library.write(**{animal: about(animal) for animal in ANIMALS})
    built = library.sync()
    assert (built.version, built.moved, built.documents.added, built.written.written) == (1, True, 8, 8)
    assert library.found("where does the heron live?", k=1) == ["heron"]
    library.consistent()
    again = library.sync()
    assert (str(again), library.embedder.texts) == ("8 documents; 8 chunks, 0 embedded; version 1", 0)
    library.write(heron=about("heron", "It eats only blue spaceships."))
    changed = library.sync()
    assert (changed.written.written, library.embedder.texts) == (1, 1)
    (hit,) = library.searcher().search(SearchRequest("blue spaceships", k=1), ANYONE).hits
    assert (hit.uri, hit.document_version, hit.title, hit.path) == ("heron.md", 2, "The heron", ("The heron",))
    os.remove(library.docs / "heron.md")
    assert library.sync().written.deleted == 1
    assert "heron" not in library.found("blue spaceships heron", k=8)
    library.consistent()


def test_a_move_changes_the_place_and_embeds_nothing(library: Library) -> None:
    library.write(otter=about("otter"), lynx=about("lynx"))
    library.sync()
    os.rename(library.docs / "otter.md", library.docs / "water-dog.md")
    moved = library.sync()
    assert (moved.written.relabelled, moved.written.written, library.embedder.texts) == (1, 0, 0)
    assert library.found("otter", k=1) == ["water-dog"]


def test_a_citation_leads_to_the_text(library: Library) -> None:
    library.write(otter=about("otter", "It weighs seven kilograms."))
    library.sync()
    searcher = library.searcher()
    (hit,) = searcher.search(SearchRequest("weight of an otter", k=1), ANYONE).hits
    passage = searcher.passage(hit.document_id, hit.document_version, ANYONE)
    assert passage is not None
    assert passage.text[hit.span[0] : hit.span[1]] == hit.text
    assert searcher.passage(hit.document_id, hit.document_version + 1, ANYONE) is None
    library.write(otter=about("otter", "It weighs nine kilograms."))
    library.sync()
    assert searcher.passage(hit.document_id, hit.document_version, ANYONE) is None, "that content is gone"


def test_fewer_than_asked_says_why(library: Library) -> None:
    library.write(otter=about("otter"))
    library.sync()
    answer = library.searcher().search(SearchRequest("otter", k=3), ANYONE)
    assert (len(answer.hits), answer.complete, [note.code for note in answer.notes]) == (1, False, ["fewer_than_k"])


def test_nobody_sees_what_is_another_s(library: Library) -> None:
    """Random rights, every way of asking: each caller finds exactly what it may see."""
    rng = random.Random(7)
    owners = {
        animal: rng.sample(["user:ada", "user:bob", "group:staff", "public"], rng.randint(0, 2)) for animal in ANIMALS
    }
    library.access = lambda path, metadata: owners[path.removesuffix(".md")]
    library.write(**{animal: about(animal) for animal in ANIMALS})
    library.sync()
    callers = [ANYONE, Identity("ada"), Identity("bob", ("staff",)), Identity("eve", ("user:ada",)), Identity("public")]
    for caller in callers:
        allowed = {animal for animal in ANIMALS if set(owners[animal]) & set(caller.principals)}
        for mode in ("hybrid", "dense", "text"):
            assert set(library.found("lives near the river", caller, k=8, mode=mode)) == allowed
        wide = {"or": [{"any": ["acl", ["user:ada", "public", "group:staff", "user:bob"]]}, {"not": {"exists": "acl"}}]}
        assert set(library.found("lives near the river", caller, k=8, filter=wide)) <= allowed
        for row in library.ports.manifest.documents("library"):
            passage = library.searcher().passage(row.document_id, 1, caller)
            assert (passage is not None) == (row.uri.removesuffix(".md") in allowed)
    owners["otter"] = []
    relabelled = library.sync()
    assert library.embedder.texts == 0
    assert relabelled.written.relabelled <= 1
    assert all("otter" not in library.found("otter", caller, k=8) for caller in callers)


def test_filters_choose_folders(library: Library) -> None:
    (library.docs / "birds" / "of").mkdir(parents=True)
    (library.docs / "birds" / "of" / "heron.md").write_text(about("heron"))
    library.write(otter=about("otter"))
    library.sync()
    assert library.found("lives near the river", filter={"any": ["folders", ["birds"]]}) == ["birds/of/heron"]
    with pytest.raises(UsageError):
        library.found("x", filter={"eq": ["nothing", 1]})
    for k in (0, 1001):
        with pytest.raises(UsageError):
            library.found("x", k=k)
    with pytest.raises(UsageError):
        library.found("  ")


def test_another_shape_is_another_version_and_the_old_one_stays(library: Library) -> None:
    library.write(**{animal: about(animal) for animal in ANIMALS})
    library.sync()
    other = IndexShape("library", tokens=64)
    seen = []

    def judge(version):
        seen.append((version.version, library.ports.manifest.live("library")))
        assert library.searcher().search(SearchRequest("otter", k=1, version=version.version), ANYONE).version == 2
        return Judgement({"mrr": 0.9})

    swapped = library.sync(other, judge)
    assert (swapped.version, swapped.moved, seen) == (2, True, [(2, 1)])
    assert {item.version: item.state for item in library.ports.manifest.versions("library")} == {
        1: "retired",
        2: "live",
    }
    library.write(otter=about("otter", "It plays the violin."))
    library.sync(other)
    assert roll_back("library", library.ports.manifest, "qdrant_edge", by="ada", at_us=library.now()) == 1
    answer = library.searcher().search(SearchRequest("violin", k=1), ANYONE)
    assert (answer.version, answer.hits[0].uri) == (1, "otter.md"), "the version that was kept was brought up too"
    assert roll_back("library", library.ports.manifest, "qdrant_edge", by="ada", at_us=library.now()) == 2
    assert [move.version for move in library.ports.manifest.moves("library")] == [2, 1, 2, 1]


def test_a_sync_does_not_undo_a_rollback(library: Library) -> None:
    library.write(otter=about("otter"))
    library.sync()
    other = IndexShape("library", tokens=64)
    library.sync(other)
    back = lambda: roll_back("library", library.ports.manifest, "qdrant_edge", by="ada", at_us=library.now())  # noqa: E731
    assert back() == 1
    library.write(otter=about("otter", "It plays the violin."))
    held = library.sync(other)
    assert (held.version, held.moved) == (1, False)
    assert held.notes == [
        "version 1 answers, as ada went back to it; mainspring rollback index/library: version 2 again"
    ]
    answer = library.searcher().search(SearchRequest("violin", k=1), ANYONE)
    assert (answer.version, answer.hits[0].uri) == (1, "otter.md")
    assert back() == 2
    assert (library.sync(other).version, library.sync(other).notes) == (2, [])
    assert library.searcher().search(SearchRequest("violin", k=1), ANYONE).version == 2, "it was kept up meanwhile"
    assert back() == 1
    declared = library.sync(IndexShape("library", tokens=48))
    assert (declared.version, declared.moved, declared.notes) == (3, True, [])


class Turned:
    """Another model: the same vectors with their numbers turned round, which fit no question of the first."""

    def __init__(self, inner) -> None:
        self._inner = inner
        self.id = "turned"
        self.texts = 0

    def __getattr__(self, name: str):
        return getattr(self._inner, name)

    def embed_documents(self, texts):
        return np.ascontiguousarray(self._inner.embed_documents(texts)[:, ::-1])

    def embed_query(self, text):
        return np.ascontiguousarray(self._inner.embed_query(text)[::-1])


def test_another_embedder_under_traffic_fails_no_question_and_mixes_no_models(library: Library, minilm) -> None:
    library.write(**{animal: about(animal) for animal in ANIMALS})
    library.sync()
    embedders = {one.id: one for one in (library.embedder, Turned(minilm))}
    ports = library.ports
    searcher = IndexSearcher(
        IndexShape("library"),
        ports.manifest,
        ports.objects,
        ports.store,
        lambda version: embedders[version.embedder_id],
    )
    seen: list[tuple[int, str, str]] = []
    faults: list[BaseException] = []
    done = threading.Event()

    def ask(animals: list[str]) -> None:
        try:
            for animal in itertools.cycle(animals):
                if done.is_set():
                    return
                answer = searcher.search(SearchRequest(animal, k=1, mode="dense"), ANYONE)
                seen.append((answer.version, animal, answer.hits[0].uri.removesuffix(".md")))
        except BaseException as error:
            faults.append(error)

    def until(version: int) -> None:
        known = len(seen)
        deadline = time.monotonic() + 60
        while not any(one[0] == version for one in seen[known:]) and not faults:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    threads = [threading.Thread(target=ask, args=(random.Random(n).sample(ANIMALS, 8),)) for n in range(3)]
    for thread in threads:
        thread.start()
    try:
        until(1)
        library.embedder = embedders["turned"]
        library.ports = msgspec.structs.replace(ports, embedder=library.embedder)
        assert library.sync().version == 2
        until(2)
        assert roll_back("library", ports.manifest, "qdrant_edge", by="ada", at_us=library.now()) == 1
        until(1)
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert not faults
    assert [one for one in seen if one[1] != one[2]] == [], "the vectors of one model were asked for those of the other"
    assert {version for version, _, _ in seen} == {1, 2}


class Between:
    """A manifest that lets something happen between the alias's move and the states that follow it."""

    def __init__(self, inner, then) -> None:
        self._inner, self._then = inner, then

    def __getattr__(self, name: str):
        return getattr(self._inner, name)

    def set_live(self, index: str, version: int, **how) -> bool:
        moved = self._inner.set_live(index, version, **how)
        self._then()
        return moved


def test_a_question_between_the_alias_and_the_states_is_answered(library: Library) -> None:
    library.write(otter=about("otter"))
    library.sync()
    answered = []
    plain = library.ports

    def ask() -> None:
        searcher = IndexSearcher(
            IndexShape("library"), plain.manifest, plain.objects, plain.store, lambda version: library.embedder
        )
        answered.append(searcher.search(SearchRequest("otter", k=1), ANYONE).version)

    library.ports = msgspec.structs.replace(plain, manifest=Between(plain.manifest, ask))
    library.sync(IndexShape("library", tokens=64))
    assert answered == [2]


def test_a_stop_between_the_alias_and_the_states_is_mended_by_the_next_sync_or_rollback(library: Library) -> None:
    class Killed(BaseException):
        pass

    def kill() -> None:
        raise Killed

    def states() -> dict[int, str]:
        return {item.version: item.state for item in library.ports.manifest.versions("library")}

    library.write(otter=about("otter"))
    library.sync()
    other = IndexShape("library", tokens=64)
    plain = library.ports
    library.ports = msgspec.structs.replace(plain, manifest=Between(plain.manifest, kill))
    with pytest.raises(Killed):
        library.sync(other)
    assert (plain.manifest.live("library"), states()) == (2, {1: "live", 2: "building"})
    assert library.found("otter", k=1) == ["otter"]
    library.ports = plain
    report = library.sync(other)
    assert (report.version, report.moved, states()) == (2, False, {1: "retired", 2: "live"})
    with pytest.raises(Killed):
        roll_back("library", Between(plain.manifest, kill), "qdrant_edge", by="ada", at_us=library.now())
    assert states() == {1: "retired", 2: "live"}
    assert roll_back("library", plain.manifest, "qdrant_edge", by="ada", at_us=library.now()) == 2, "back, not on"
    assert states() == {1: "retired", 2: "live"}


class Sorting:
    """A reranker that likes long texts and remembers what it was shown; or one that is late."""

    def __init__(self, late: bool = False) -> None:
        self.shown: list[str] = []
        self.deadlines: list[float | None] = []
        self._late = late

    def rerank(self, query, texts, deadline=None):
        self.shown += texts
        self.deadlines.append(deadline)
        return None if self._late else [float(len(text)) for text in texts]


def test_a_reranker_sorts_and_is_shown_nothing_that_the_caller_may_not_see(library: Library) -> None:
    owners = {animal: [("user:ada", "user:bob")[number % 2]] for number, animal in enumerate(ANIMALS)}
    library.access = lambda path, metadata: owners[path.removesuffix(".md")]
    library.write(**{animal: about(animal, "More. " * number) for number, animal in enumerate(ANIMALS)})
    library.sync()
    searcher = library.searcher()
    searcher.reranker = reranker = Sorting()
    answer = searcher.search(SearchRequest("lives near the river", k=2, rerank=True, deadline_ms=250), Identity("ada"))
    mine = {animal for animal in ANIMALS if owners[animal] == ["user:ada"]}
    assert [hit.uri for hit in answer.hits] == ["osprey.md", "adder.md"], "the longest of ada's own"
    assert len(reranker.shown) == len(mine)
    assert all(any(animal in text for animal in mine) for text in reranker.shown)
    assert reranker.deadlines == [0.25]


@pytest.mark.parametrize("reranker", [Sorting(late=True), None])
def test_a_reranker_that_is_late_or_not_there_leaves_the_order_and_a_note(library: Library, reranker) -> None:
    library.write(**{animal: about(animal) for animal in ANIMALS})
    library.sync()
    searcher = library.searcher()
    searcher.reranker = reranker
    plain = searcher.search(SearchRequest("otter", k=3, rerank=False), ANYONE)
    answer = searcher.search(SearchRequest("otter", k=3, rerank=True, deadline_ms=5), ANYONE)
    assert [hit.uri for hit in answer.hits] == [hit.uri for hit in plain.hits]
    assert [note.code for note in answer.notes] == ["rerank_skipped"]


def test_another_store_is_another_version_and_those_who_share_the_manifest_are_told(library: Library, tmp_path) -> None:
    library.write(otter=about("otter"))
    assert library.sync().notes == []
    first, other = library.ports, open_store(QdrantEdgeSettings(), tmp_path / "other")
    library.ports = msgspec.structs.replace(first, store=other, store_name="elsewhere")
    swapped = library.sync()
    assert (swapped.version, swapped.moved, swapped.written.embedded) == (2, True, 0)
    assert [note for note in swapped.notes if "elsewhere answers now, no longer qdrant_edge" in note]
    with pytest.raises(UsageError) as caught:
        roll_back("library", first.manifest, "elsewhere", by="ada", at_us=library.now())
    assert caught.value.why == "no other than version 2 is kept in elsewhere"
    assert roll_back("library", first.manifest, "qdrant_edge", by="ada", at_us=library.now()) == 1
    other.close()


def test_a_version_that_answers_worse_does_not_go_live(library: Library) -> None:
    library.write(otter=about("otter"))
    library.sync()
    with pytest.raises(RefusedError) as caught:
        library.sync(IndexShape("library", tokens=64), lambda version: Judgement({"mrr": 0.1}, "mrr is 0.1, not 0.5"))
    assert (caught.value.code, caught.value.why) == ("MS-5050", "mrr is 0.1, not 0.5")
    assert library.searcher().search(SearchRequest("otter", k=1), ANYONE).version == 1
    assert collection("library", 2) not in library.store.indexes()


def test_what_was_never_built_says_so(library: Library) -> None:
    with pytest.raises(UsageError) as caught:
        library.found("otter")
    assert caught.value.code == "MS-2434"
    with pytest.raises(UsageError):
        roll_back("library", library.ports.manifest, "qdrant_edge", by="x", at_us=1)


@pytest.mark.parametrize("seed", range(rounds(8, 20)))
def test_a_sync_that_is_killed_goes_on(tmp_path: Path, minilm, seed: int) -> None:
    """Killed at some call of store or manifest: nothing is lost, doubled, left behind or embedded again."""
    rng = random.Random(seed)
    library = Library(tmp_path, minilm)
    library.write(**{f"d{number}": about(rng.choice(ANIMALS), f"Number {number}.") for number in range(12)})
    library.sync()
    library.write(**{f"d{number}": about("lynx", f"Now {number * 7}.") for number in range(0, 8)})
    library.write(new=about("adder"))
    os.remove(library.docs / "d9.md")
    os.rename(library.docs / "d10.md", library.docs / "e10.md")
    library.close()
    child = fork()
    if child == 0:
        mine = Library(tmp_path, open_embedder(EmbedderSettings(), tmp_path))  # a fork may not use its parent's
        left = 1 + (2 * seed + rng.randrange(2)) % 16  # eight seeds are spread over all calls

        def dying(inner):
            def call(*args, **given):
                nonlocal left
                left -= 1
                early = rng.random() < 0.5
                if left <= 0 and early:
                    os.kill(os.getpid(), signal.SIGKILL)
                done = inner(*args, **given)
                if left <= 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return done

            return call

        for target, names in (
            (mine.store, ("upsert", "delete", "set_payload", "flush")),
            (mine.ports.manifest, ("put_documents", "put_members", "drop_members", "put_vectors", "change_version")),
        ):
            for name in names:
                setattr(target, name, dying(getattr(target, name)))
        mine.sync()
        os._exit(0)
    os.waitpid(child, 0)
    library.open()
    library.sync()
    library.consistent()
    assert "new" in library.found("adder", k=12)
    again = library.sync()
    assert (library.embedder.texts, again.written.any) == (0, False)
    library.close()


def test_a_second_process_asks_the_owner(library: Library) -> None:
    library.write(**{animal: about(animal) for animal in ANIMALS})
    library.sync()
    place = collection("library", 1)
    owner = SharedStore(library.store, library.state)
    assert owner.count(place) == 8
    child = fork()
    if child == 0:
        try:
            other = SharedStore(open_store(QdrantEdgeSettings(), library.state), library.state)
            assert other.count(place) == 8
            ids = [point.id for point in other.scroll(place, limit=3).points]
            other.delete(place, ids)
            other.flush(place)
            assert other.count(place) == 5
            with pytest.raises(MainspringError) as caught:
                other.count("nowhere")
            assert caught.value.code == "MS-4180"
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert owner.count(place) == 5
    owner.close()
    library.open()
    library.sync()
    library.consistent()


def test_an_owner_whose_name_is_not_free_yet_is_asked_as_soon_as_it_is(library: Library) -> None:
    library.write(**{animal: about(animal) for animal in ANIMALS})
    library.sync()
    place = collection("library", 1)
    before = SharedStore(library.store, library.state)
    assert before.count(place) == 8
    library.store.close()  # lets go of the index, while its name is still held
    owner = SharedStore(open_store(QdrantEdgeSettings(), library.state), library.state)
    assert owner.count(place) == 8
    before.close()
    child = fork()
    if child == 0:
        try:  # the owner itself does nothing meanwhile
            other = SharedStore(open_store(QdrantEdgeSettings(), library.state), library.state)
            assert other.count(place) == 8
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    owner.close()


def test_an_owner_that_closes_while_it_is_asked_refuses_nobody(library: Library) -> None:
    library.write(**{animal: about(animal) for animal in ANIMALS})
    library.sync()
    place = collection("library", 1)
    owner = SharedStore(library.store, library.state)
    assert owner.count(place) == 8
    other = SharedStore(open_store(QdrantEdgeSettings(), library.state), library.state)
    assert other.count(place) == 8
    library.store.close()  # as the end of its process does, before the line to who asks is gone
    assert other.count(place) == 8, "it is the other's now"
    owner.close()
    other.close()


def test_a_version_knows_how_long_its_chunks_are(library):
    texts = {f"page{number}": f"# Page {number}\n\n" + "word and more of it. " * 3 * number for number in range(12)}
    texts["long"] = "# Long\n\n" + "a sentence of words, " * 900  # only its beginning is looked at
    library.write(**texts)
    library.sync()
    manifest = library.ports.manifest
    (version,) = manifest.versions("library")
    page = library.store.scroll(collection("library", version.version), limit=5_000)
    words = [len(point.payload["text"].split()) for point in page.points]
    assert version.spec["words"] == pytest.approx(sum(words) / len(words), rel=0.1)


def test_a_short_document_is_cut_once(library, monkeypatch):
    cut = []
    inner = Chunker.chunks
    monkeypatch.setattr(Chunker, "chunks", lambda self, parsed: cut.append(parsed.text) or inner(self, parsed))
    library.write(**{animal: about(animal) for animal in ANIMALS})
    library.sync()
    assert len(cut) == len(set(cut)) == len(ANIMALS)
    library.consistent()


@pytest.mark.parametrize(("k", "looked_at"), [(1, 50), (10, 50), (80, 160), (1000, 1000)])
def test_each_leg_brings_more_than_is_wanted(library, monkeypatch, k, looked_at):
    library.write(one="# One\n\nA pump and a valve.")
    library.sync()
    asked = []
    search = library.store.search
    monkeypatch.setattr(library.store, "search", lambda index, query: (asked.append(query), search(index, query))[1])
    library.found("pump", k=k)
    assert (asked[0].k, asked[0].candidates) == (k, looked_at)
