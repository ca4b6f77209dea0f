"""The contract of the vector store: searching by vector, by words, and by both."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mainspring.lazy import lazy
from mainspring.ports.vector_store import Eq, Point, Query, Range, Sparse, VectorStore
from mainspring.testing.vector_oracle import DIMS, clustered, code_of, filled, id_of, ids_of, schema_of, units
from mainspring.vectors.ranks import fuse

if TYPE_CHECKING:
    import numpy as np
else:
    np = lazy("numpy")

__all__ = ["VectorSearchContract"]

_TEXTS = (
    "The quick brown fox jumps over the lazy dog",
    "Foxes are running in the forest",
    "A dog runs after the fox, and the fox runs",
    "Databases store rows; an index finds them",
    "The naïve café owner's résumé: 日本",
    "Forest, forest, forest",
    "the and of",
    "",
    "nothing\u0000 in common",
)


class VectorSearchContract:
    """What a search finds; see `VectorStoreContract`."""

    stop_words = True
    """Whether words such as "the" are left out."""

    def test_exact_search_is_exact(self, store: VectorStore) -> None:
        """With a recall target of 1: the oracle's points in its order, with its scores, under filters too."""
        oracle = filled(store, "i", 500)
        store.optimize("i")
        queries = units(20, DIMS, 5)
        for query in queries:
            for filter in (None, Eq("lang", "en"), Range("size", lt=30)):
                found = store.search("i", Query(dense=query, filter=filter, k=12, recall_target=1.0))
                wanted = oracle.nearest(query, 12, filter)
                assert np.allclose([hit.score for hit in found.hits], list(wanted.values()), atol=2e-3)
                assert len(set(ids_of(found)) & set(wanted)) >= 11  # neighbours of almost one score may change places
                assert found.complete
                assert [hit.ranks for hit in found.hits] == [{"dense": n} for n in range(1, 13)]

    def test_most_of_the_true_nearest_are_found(self, store: VectorStore) -> None:
        """At least the default recall target, over many queries, with the index built."""
        rows, queries = clustered(9000, 64), clustered(60, 64, 9)
        store.create("i", schema_of(64))
        store.upsert("i", [Point(id_of(n), vector) for n, vector in enumerate(rows)])
        store.optimize("i")
        assert store.stats("i").unindexed < 9000
        best = np.argsort(-(queries @ rows.T), axis=1)[:, :10]
        hit = 0
        for query, near in zip(queries, best, strict=True):
            hit += len({id_of(n) for n in near} & set(ids_of(store.search("i", Query(dense=query, k=10)))))
        assert hit >= 0.95 * 10 * len(queries)

    def test_new_rows_are_found_before_the_index_is_built(self, store: VectorStore) -> None:
        """And after it, and those that are written then; what changed is found as it is now."""
        filled(store, "i", 3000, 32)
        store.optimize("i")
        new = units(5, 32, 77)
        store.upsert("i", [Point(id_of(10_000 + n), new[n], {"size": -1}, "fresh") for n in range(5)])
        store.upsert("i", [Point(id_of(3), new[0] * -1, {"size": 3})])
        for _ in range(2):
            for n in range(5):
                assert store.search("i", Query(dense=new[n], k=1)).hits[0].id == id_of(10_000 + n)
                assert store.search("i", Query(dense=new[n], k=5, filter=Eq("size", -1))).complete
            assert store.search("i", Query(dense=new[0] * -1, k=1)).hits[0].id == id_of(3)
            store.optimize("i")

    # -- words --------------------------------------------------------------------------------------------------------

    def test_words(self, store: VectorStore) -> None:
        """Any word of the query, whatever its case and ending; rare words weigh more; stop words find nothing."""
        store.create("i", schema_of())
        if not store.capabilities().full_text:
            assert code_of(store.search, "i", Query(text="fox")) == "MS-2656"
            return
        vectors = units(len(_TEXTS), DIMS)
        store.upsert("i", [Point(id_of(n), vectors[n], {"size": n}, text) for n, text in enumerate(_TEXTS)])

        def found(text: str, **others: object) -> list[int]:
            hits = store.search("i", Query(text=text, k=9, **others)).hits  # type: ignore[arg-type]
            assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
            assert [hit.ranks for hit in hits] == [{"text": n} for n in range(1, len(hits) + 1)]
            return [_number(hit.payload) for hit in hits]

        assert sorted(found("FOX")) == [0, 1, 2]
        assert sorted(found("running")) == [1, 2]
        assert sorted(found("forest databases")) == [1, 3, 5]
        assert found("forest")[0] == 5
        assert found("lazy fox")[0] == 0
        assert found("日本") == found("naïve") == [4]
        if self.stop_words:
            assert found("the") == found("of the") == []
            assert sorted(found("a forest with databases")) == [1, 3, 5]
        for nothing in ("", "zebra", "...", "' OR 1=1 --", "\u0000"):
            assert found(nothing) == [], nothing
        assert sorted(found('fox & !dog | (lazy:* "')) == [0, 1, 2]
        assert found("fox", filter=Range("size", gte=1, lte=1)) == [1]
        few = store.search("i", Query(text="fox", k=5))
        assert (few.complete, [note.code for note in few.notes]) == (False, ["fewer_than_k"])
        assert store.search("i", Query(text="fox", k=3)).complete

    def test_an_index_without_words(self, store: VectorStore) -> None:
        """Refuses to be asked for them."""
        store.create("i", schema_of(text=False))
        store.upsert("i", [Point(id_of(1), units(1, DIMS)[0], {}, "word")])
        assert code_of(store.search, "i", Query(text="word")) == "MS-2656"
        assert code_of(store.search, "i", Query(dense=units(1, DIMS)[0], text="word")) == "MS-2656"
        assert code_of(store.search, "i", Query()) == "MS-2655"

    def test_both(self, store: VectorStore) -> None:
        """The ranks of the two legs, fused as `fuse` does; the filter reaches both; each hit tells its ranks."""
        if not store.capabilities().full_text:
            return
        store.create("i", schema_of())
        vectors = units(300, DIMS)
        texts = [" ".join(f"w{(n * step) % 37}" for step in range(1, 6)) for n in range(300)]
        points = [Point(id_of(n), vectors[n], {"size": n, "title": f"t{n}"}, texts[n]) for n in range(300)]
        store.upsert("i", points)
        for query, text, filter in (
            (units(1, DIMS, 3)[0], "w3 w7", None),
            (units(1, DIMS, 4)[0], "w30", Range("size", gte=100)),
            (units(1, DIMS, 5)[0], "zebra", None),
        ):
            both = Query(dense=query, text=text, filter=filter, k=10, candidates=50, recall_target=1.0)
            legs = {
                "dense": ids_of(store.search("i", Query(dense=query, filter=filter, k=50, recall_target=1.0))),
                "text": ids_of(store.search("i", Query(text=text, filter=filter, k=50))),
            }
            wanted = fuse(legs)[:10]
            found = store.search("i", both)
            assert found.complete
            assert np.allclose([hit.score for hit in found.hits], [score for _, score, _ in wanted], atol=1e-7)
            assert [(hit.id, dict(hit.ranks)) for hit in found.hits] == [(id, ranks) for id, _, ranks in wanted]
            assert [hit.payload["title"] for hit in found.hits] == [f"t{hit.payload['size']}" for hit in found.hits]

    # -- sparse vectors -----------------------------------------------------------------------------------------------

    def test_sparse_vectors(self, store: VectorStore) -> None:
        """Nearness is the dot product; a store or an index without them says so."""
        query = Query(sparse=Sparse((7, 1), (1.0, 2.0)), k=2)
        store.create("plain", schema_of())
        assert code_of(store.search, "plain", query) == "MS-2656"
        vector = units(1, DIMS)[0]
        sparse = Point(id_of(1), vector, {}, "", Sparse((1,), (1.0,)))
        assert code_of(store.upsert, "plain", [sparse]) == "MS-2656"
        if not store.capabilities().sparse:
            assert code_of(store.create, "i", schema_of(sparse=True)) == "MS-2657"
            return
        store.create("i", schema_of(sparse=True))
        store.upsert(
            "i", [sparse, Point(id_of(2), vector, {}, "", Sparse((7, 9), (5.0, 1.0))), Point(id_of(3), vector)]
        )
        found = store.search("i", query)
        assert [(hit.id, round(hit.score, 3)) for hit in found.hits] == [(id_of(2), 5.0), (id_of(1), 2.0)]
        wrong = Point(id_of(4), vector, {}, "", Sparse((1, 1), (1.0, 2.0)))
        assert code_of(store.upsert, "i", [wrong]) == "MS-2654"


def _number(payload: object) -> int:
    size = payload["size"]  # type: ignore[index]
    assert isinstance(size, int)
    return size
