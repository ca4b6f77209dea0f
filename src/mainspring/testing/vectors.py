"""The contract of the vector store: derive from `VectorStoreContract` and give it your adapter to open."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from mainspring.lazy import lazy
from mainspring.ports.vector_store import (
    And,
    Eq,
    Exists,
    Field,
    Filter,
    In,
    Not,
    Or,
    Point,
    Query,
    Range,
    Schema,
    VectorStore,
    Where,
)
from mainspring.ports.vector_store import Any as AnyOf
from mainspring.testing.vector_keeping import VectorKeepingContract
from mainspring.testing.vector_oracle import (
    ALL,
    DIMS,
    FIELDS,
    Oracle,
    code_of,
    everything,
    filled,
    filters,
    id_of,
    ids_of,
    payloads,
    schema_of,
    units,
)
from mainspring.testing.vector_search import VectorSearchContract

if TYPE_CHECKING:
    import hypothesis
    import numpy as np
    import pytest
    from hypothesis import strategies as st
else:
    hypothesis = lazy("hypothesis")
    np = lazy("numpy")
    pytest = lazy("pytest")
    st = lazy("hypothesis.strategies")

__all__ = ["VectorStoreContract"]

Step = Callable[["VectorStore | Oracle", str], object]


class VectorStoreContract(VectorSearchContract, VectorKeepingContract):
    """What every vector store does.

    A subclass defines the fixtures ``opening``, a function that opens the same, at first empty, store each time it is
    called (one is closed before the next is opened, save where several owners are the question), and ``program``,
    Python text that opens that very store in another process and calls it ``store``; ``store`` is `opening` called.
    """

    # -- indexes ------------------------------------------------------------------------------------------------------

    def test_it_is_the_port(self, store: VectorStore) -> None:
        """It has every method, and says what it can do."""
        assert isinstance(store, VectorStore)
        can = store.capabilities()
        assert can.max_dims >= 1024
        assert "cosine" in can.metrics
        assert set(can.field_types) >= {field.type for field in FIELDS}

    def test_indexes_come_and_go(self, store: VectorStore) -> None:
        """Making one twice is no fault; making another one of that name is; dropping what is not there is none."""
        assert store.indexes() == ()
        store.create("b", schema_of())
        store.create("a.b-c_1", schema_of(8, metric="dot"))
        store.create("b", schema_of())
        assert store.indexes() == ("a.b-c_1", "b")
        assert store.schema("b") == schema_of()
        assert store.schema("a.b-c_1").metric == "dot"
        assert code_of(store.create, "b", schema_of(8)) == "MS-4181"
        store.upsert("b", [Point(id_of(1), units(1, DIMS)[0])])
        store.drop("b")
        store.drop("b")
        assert store.indexes() == ("a.b-c_1",)
        for use in (lambda: store.count("b"), lambda: store.search("b", Query(text="x")), lambda: store.schema("b")):
            assert code_of(use) == "MS-4180"
        store.create("b", schema_of(8))
        assert store.count("b") == 0

    def test_names_that_cannot_be(self, store: VectorStore) -> None:
        """What would be a path, or nothing, is refused."""
        for name in ("", "../x", "a/b", ".hidden", "a" * 129, "ü", "a b"):
            assert code_of(store.create, name, schema_of()) == "MS-2655"
        assert store.indexes() == ()

    # -- points -------------------------------------------------------------------------------------------------------

    def test_an_empty_index(self, store: VectorStore) -> None:
        """Everything may be asked of it, and nothing is there."""
        store.create("i", schema_of())
        assert store.count("i") == 0
        assert list(everything(store, "i")) == []
        store.delete("i", [])
        store.delete("i", [id_of(1)])
        store.delete("i", ALL)
        store.set_payload("i", [id_of(1)], {"size": 1})
        assert store.upsert("i", []) == 0
        store.optimize("i")
        store.flush("i")
        for query in (Query(dense=units(1, DIMS)[0]), Query(text="word"), Query(dense=units(1, DIMS)[0], text="word")):
            found = store.search("i", query)
            assert (found.hits, found.complete, [note.code for note in found.notes]) == ((), False, ["fewer_than_k"])

    def test_a_payload_comes_back_as_it_was(self, store: VectorStore) -> None:
        """Of any JSON, keys with dots, all characters; nulls are as good as no value."""
        store.create("i", schema_of())
        payload = {
            "lang": "naïve 🙂 \"q\" 'a' \\ ;--",
            "meta.kind": "with a dot",
            "size": -(2**53) + 1,
            "weight": 1 / 3,
            "open": False,
            "acl": ["user:a", ""],
            "years": [2024, -1],
            "free.key": {"a": [1, 2.5, None, {"b": "\u0000"}]},
            "text": "line\n\tline\u0000",
            "empty": [],
        }
        store.upsert("i", [Point(id_of(1), units(1, DIMS)[0], {**payload, "gone": None, "lang": payload["lang"]})])
        assert list(everything(store, "i")) == [(id_of(1), payload)]
        (hit,) = store.search("i", Query(dense=units(1, DIMS)[0], k=1)).hits
        assert (hit.payload, hit.ranks) == (payload, {"dense": 1})
        (hit,) = store.search("i", Query(dense=units(1, DIMS)[0], k=1, fields=("meta.kind", "free.key", "no"))).hits
        assert hit.payload == {key: payload[key] for key in ("meta.kind", "free.key")}
        (hit,) = store.search("i", Query(dense=units(1, DIMS)[0], k=1, fields=())).hits
        assert hit.payload == {}
        (point,) = store.scroll("i", fields=("size",), vectors=True).points
        assert point.payload == {"size": payload["size"]}
        assert np.allclose(np.asarray(point.vector), units(1, DIMS)[0], atol=1e-3)

    def test_what_does_not_fit_is_refused_and_nothing_is_written(self, store: VectorStore) -> None:
        """Ids, keys, fields of the wrong type, vectors; beside a point that would fit."""
        store.create("i", schema_of())
        good = units(1, DIMS)[0]
        wrong: list[tuple[Point, str]] = [
            (Point("1", good), "MS-2655"),
            (Point(id_of(2), good, {"_hidden": 1}), "MS-2655"),
            (Point(id_of(2), good, {'a"b': 1}), "MS-2655"),
            (Point(id_of(2), good, {"size": "1"}), "MS-2653"),
            (Point(id_of(2), good, {"size": True}), "MS-2653"),
            (Point(id_of(2), good, {"size": 2**53}), "MS-2653"),
            (Point(id_of(2), good, {"weight": float("nan")}), "MS-2653"),
            (Point(id_of(2), good, {"acl": "group:a"}), "MS-2653"),
            (Point(id_of(2), good, {"lang": "\ud800"}), "MS-2653"),
            (Point(id_of(2), good, {"lang": "a\u0000"}), "MS-2653"),
            (Point(id_of(2), good, {"free": {"a": [b"bytes"]}}), "MS-2653"),
            (Point(id_of(2), good, {"free": {1: 2}}), "MS-2653"),
            (Point(id_of(2), good, {"free": [float("nan")]}), "MS-2653"),
            (Point(id_of(2), good, {"free": "\ud800"}), "MS-2653"),
            (Point(id_of(2), good, {"free": 2**63}), "MS-2653"),
            (Point(id_of(2), good[:-1]), "MS-2654"),
            (Point(id_of(2), [float("nan")] * DIMS), "MS-2654"),
            (Point(id_of(2), [float("inf")] * DIMS), "MS-2654"),
            (Point(id_of(2), [0.0] * DIMS), "MS-2654"),
        ]
        for point, code in wrong:
            assert code_of(store.upsert, "i", [Point(id_of(1), good), point]) == code, point
        assert store.count("i") == 0
        for query in (Query(dense=good[:-1]), Query(dense=[float("nan")] * DIMS), Query(dense=[0.0] * DIMS)):
            assert code_of(store.search, "i", query) == "MS-2654"
        for k in (0, 10_001, True):
            assert code_of(store.search, "i", Query(dense=good, k=k)) == "MS-2655"

    def test_vectors_are_brought_to_unit_length(self, store: VectorStore) -> None:
        """For cosine; what was stored long or short is as near as it points."""
        store.create("i", schema_of())
        vectors = units(3, DIMS)
        scaled = [vectors[0] * 1000, vectors[1] * 0.001, vectors[2]]
        store.upsert("i", [Point(id_of(n), vector.tolist()) for n, vector in enumerate(scaled)])
        for n in range(3):
            best = store.search("i", Query(dense=vectors[n] * 37, k=1)).hits[0]
            assert (best.id, round(best.score, 2)) == (id_of(n), 1.0)
        lengths = [np.linalg.norm(np.asarray(p.vector)) for p in store.scroll("i", vectors=True).points]
        assert np.allclose(lengths, 1, atol=1e-3)

    def test_dot_takes_vectors_as_they_are(self, store: VectorStore) -> None:
        """The longer of two that point the same way is nearer."""
        if "dot" not in store.capabilities().metrics:
            assert code_of(store.create, "i", schema_of(metric="dot")) == "MS-2657"
            return
        store.create("i", schema_of(metric="dot"))
        vector = units(1, DIMS)[0]
        store.upsert("i", [Point(id_of(1), vector), Point(id_of(2), vector * 3), Point(id_of(3), [0.0] * DIMS)])
        found = store.search("i", Query(dense=vector, k=3, recall_target=1.0))
        assert ids_of(found) == [id_of(2), id_of(1), id_of(3)]
        assert np.allclose([hit.score for hit in found.hits], [3, 1, 0], atol=1e-2)

    def test_upserts_are_whole_and_may_be_repeated(self, store: VectorStore) -> None:
        """The last of an id counts, nothing of the old point stays, words and vector included."""
        store.create("i", schema_of())
        a, b = units(2, DIMS)
        first = Point(id_of(1), a, {"size": 1, "lang": "en", "extra": 1}, "apple")
        second = Point(id_of(1), b, {"size": 2}, "banana")
        assert store.upsert("i", [first]) == 1
        assert store.upsert("i", [first, second, second]) == 1
        assert list(everything(store, "i")) == [(id_of(1), {"size": 2})]
        assert store.count("i", Exists("lang")) == 0
        assert store.search("i", Query(dense=b, k=1)).hits[0].score > 0.99
        if store.capabilities().full_text:
            assert ids_of(store.search("i", Query(text="apple"))) == []
            assert ids_of(store.search("i", Query(text="banana"))) == [id_of(1)]
        for _ in range(3):
            store.upsert("i", [second])
        assert store.count("i") == 1

    def test_an_older_version_comes_too_late(self, store: VectorStore) -> None:
        """A point of a greater version stays; one without a version is always written."""
        store.create("i", schema_of())
        v = units(1, DIMS)[0]

        def write(size: int, version: int | None) -> int:
            return store.upsert("i", [Point(id_of(1), v, {"size": size}), Point(id_of(2), v, {"size": size})], version)

        assert write(1, 5) == 2
        store.delete("i", [id_of(2)])
        assert write(2, 4) == 1
        assert dict(everything(store, "i")) == {id_of(1): {"size": 1}, id_of(2): {"size": 2}}
        assert write(3, 5) == 2
        assert write(4, 6) == 2
        store.set_payload("i", ALL, {"lang": "en"})
        assert write(5, 5) == 0
        assert write(6, None) == 2
        assert [payload for _, payload in everything(store, "i")] == [{"size": 6}] * 2
        assert write(7, 1) == 2

    def test_payloads_change_in_place(self, store: VectorStore) -> None:
        """By ids and by filter, keys put in and taken out; vectors and words stay."""
        store.create("i", schema_of())
        vectors = units(4, DIMS)
        store.upsert("i", [Point(id_of(n), vectors[n], {"size": n, "acl": ["a"], "x": n}, f"w{n}") for n in range(4)])
        store.set_payload("i", [id_of(0), id_of(9)], {"acl": ["b", "c"], "meta.kind": "k", "x": None})
        store.set_payload("i", Range("size", gte=2), {"lang": "de", "size": 0, "acl": None})
        assert dict(everything(store, "i")) == {
            id_of(0): {"size": 0, "acl": ["b", "c"], "meta.kind": "k"},
            id_of(1): {"size": 1, "acl": ["a"], "x": 1},
            id_of(2): {"size": 0, "lang": "de", "x": 2},
            id_of(3): {"size": 0, "lang": "de", "x": 3},
        }
        assert store.count("i", AnyOf("acl", ("c",))) == 1
        assert store.count("i", Not(Exists("acl"))) == 2
        assert store.search("i", Query(dense=vectors[3], k=1)).hits[0].id == id_of(3)
        assert code_of(store.set_payload, "i", ALL, {"size": "x"}) == "MS-2653"
        store.set_payload("i", ALL, {})
        assert store.count("i", Eq("size", 0)) == 3

    def test_deleting(self, store: VectorStore) -> None:
        """By ids and by filter; what went is in no answer."""
        oracle = filled(store, "i", 50)
        for where in ([id_of(3), id_of(99)], Range("size", gte=40), And((Eq("lang", "de"), Range("size", lt=10)))):
            store.delete("i", where)
            oracle.delete("i", where)
            assert [id for id, _ in everything(store, "i")] == oracle.ids()
        found = store.search("i", Query(dense=units(50, DIMS)[3], k=50))
        assert sorted(ids_of(found)) == oracle.ids()
        assert not found.complete

    def test_any_sequence_of_writes(self, store: VectorStore) -> None:
        """Is what a dictionary would hold afterwards, whatever is written, patched and removed."""
        store.create("i", schema_of())
        vector = units(1, DIMS)[0]
        versions = st.sampled_from([None, 1, 2])
        ids = st.integers(0, 5).map(id_of)
        points = st.tuples(ids, payloads()).map(lambda pair: Point(pair[0], vector, pair[1]))
        where = st.lists(ids, max_size=3) | filters()
        upserts = st.builds(_upsert, st.lists(points, max_size=4), versions)
        steps = st.lists(upserts | st.builds(_patch, where, payloads()) | st.builds(_delete, where), max_size=6)

        @hypothesis.settings(max_examples=40)
        @hypothesis.given(steps)
        def check(steps: list[Step]) -> None:
            store.delete("i", ALL)
            oracle = Oracle(schema_of())
            for step in steps:
                step(store, "i")
                step(oracle, "i")
            assert list(everything(store, "i")) == [(id, oracle.rows[id][1]) for id in oracle.ids()]

        check()

    def test_scrolling(self, store: VectorStore) -> None:
        """All points once each, in order of their ids, by pages of any size, under a filter too."""
        oracle = filled(store, "i", 60)
        for limit in (1, 7, 60, 1000):
            assert [id for id, _ in everything(store, "i", None, limit)] == oracle.ids()
        assert [id for id, _ in everything(store, "i", Eq("lang", "en"), 4)] == oracle.ids(Eq("lang", "en"))
        for limit in (0, 10_001):
            assert code_of(store.scroll, "i", limit=limit) == "MS-2655"

    # -- filters ------------------------------------------------------------------------------------------------------

    def test_of_two_bounds_of_a_side_the_narrower_holds(self, store: VectorStore) -> None:
        """Of a number and of an integer, whichever of the two it is."""
        store.create("i", Schema(DIMS, fields=(Field("n", "number"), Field("w", "integer"))))
        vectors = units(5, DIMS)
        store.upsert("i", [Point(id_of(n), vectors[n], {"n": float(n), "w": n}, "word") for n in range(5)])
        for field, far in (("n", 1e300), ("w", 9_000)):
            for bounds, found in (
                ({"lte": 2, "lt": far}, 3),
                ({"lt": 2, "lte": far}, 2),
                ({"lt": 2, "lte": 2}, 2),
                ({"gte": 2, "gt": -far}, 3),
                ({"gt": 2, "gte": -far}, 2),
                ({"gt": 2, "gte": 2}, 2),
            ):
                assert store.count("i", Range(field, **bounds)) == found, (field, bounds)

    def test_filters_match_the_oracle(self, store: VectorStore) -> None:
        """Counting, scrolling and each leg of a search see the very points that a look at each row finds."""
        store.create("i", schema_of())
        oracle = Oracle(schema_of())
        chance = random.Random(7)
        vectors = units(40, DIMS)
        drawn: list[dict[str, object]] = []

        @hypothesis.settings(max_examples=60, derandomize=True, database=None)
        @hypothesis.given(payloads())
        def draw(payload: dict[str, object]) -> None:
            drawn.append(payload)

        draw()
        rich = sorted(drawn, key=len)[-40:]
        chance.shuffle(rich)
        points = [Point(id_of(n), vectors[n], payload, "word") for n, payload in enumerate(rich)]
        store.upsert("i", points)
        oracle.upsert("i", points)
        text = "word" if store.capabilities().full_text else None

        @hypothesis.settings(max_examples=150)
        @hypothesis.given(filters())
        def check(filter: Filter) -> None:
            ids = oracle.ids(filter)
            assert store.count("i", filter) == len(ids)
            assert [id for id, _ in everything(store, "i", filter, 30)] == ids
            for query in (Query(dense=vectors[0], filter=filter, k=40), Query(text=text, filter=filter, k=40)):
                if query.legs:
                    assert sorted(ids_of(store.search("i", query))) == ids

        check()

    def test_filters_that_the_index_does_not_allow(self, store: VectorStore) -> None:
        """A field that is not there, a value of the wrong type: refused wherever a filter may be."""
        filled(store, "i", 3)
        wrong: list[tuple[Filter, str]] = [
            (Eq("note", 1), "MS-2651"),
            (Not(Or((Exists("nothing"),))), "MS-2651"),
            (Eq("size", "1"), "MS-2652"),
            (Eq("size", True), "MS-2652"),
            (Eq("open", 1), "MS-2652"),
            (Eq("acl", "group:a"), "MS-2652"),
            (AnyOf("lang", ("en",)), "MS-2652"),
            (In("lang", ("en", 1)), "MS-2652"),
            (Range("lang", gt=1), "MS-2652"),
            (Range("size"), "MS-2652"),
            (Range("size", gt=1.5), "MS-2652"),
            (Range("weight", gt=float("nan")), "MS-2652"),
            (Eq("lang", "a\u0000"), "MS-2652"),
        ]
        dense = units(1, DIMS)[0]
        for filter, code in wrong:
            for use in (
                lambda f: store.search("i", Query(dense=dense, filter=f)),
                lambda f: store.scroll("i", f),
                lambda f: store.count("i", f),
                lambda f: store.delete("i", f),
                lambda f: store.set_payload("i", f, {"size": 1}),
            ):
                assert code_of(use, filter) == code, filter
        assert store.count("i") == 3

    def test_a_filter_that_few_fulfil_still_finds_k(self, store: VectorStore) -> None:
        """At one in a thousand: all of them, or the reason why there are fewer."""
        oracle = filled(store, "i", 4000)
        store.optimize("i")
        for seed, wanted in itertools.product(range(5), (3, 40)):
            rare = Range("size", gte=1000 * (seed % 3), lt=1000 * (seed % 3) + 4 + wanted // 40 * 36)
            query = units(1, DIMS, 100 + seed)[0]
            found = store.search("i", Query(dense=query, filter=rare, k=wanted))
            assert found.complete
            assert set(ids_of(found)) <= set(oracle.ids(rare))
            assert len(found.hits) == wanted
        found = store.search("i", Query(dense=units(1, DIMS)[0], filter=Range("size", lt=4), k=10))
        assert (len(found.hits), found.complete) == (4, False)
        assert found.notes[-1].code == "fewer_than_k"
        assert "4 rows" in found.notes[-1].detail


def _upsert(points: list[Point], version: int | None) -> Step:
    return lambda target, index: target.upsert(index, points, version)


def _patch(where: Where, patch: dict[str, object]) -> Step:
    return lambda target, index: target.set_payload(index, where, patch)


def _delete(where: Where) -> Step:
    return lambda target, index: target.delete(index, where)
