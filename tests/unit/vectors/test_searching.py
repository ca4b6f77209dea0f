"""A search over legs: what is asked of a store, and what is said of the answer."""

from mainspring.ports.vector_store import Query
from mainspring.vectors.searching import find

PAYLOADS = {name: {"name": name} for name in "abcdef"}


class Store:
    """Has these ids in each leg, the approximate dense leg only some of them."""

    def __init__(self, exact, dense, text=()):
        self.exact, self.legs = exact, {"dense": dense, "text": text}
        self.asked = []

    def rows(self, legs, limit, *, exact):
        self.asked.append((tuple(legs), limit, exact))
        return {leg: [(id, 1.0, None) for id in (self.exact if exact else self.legs[leg])][:limit] for leg in legs}

    def payloads(self, ids):
        self.asked.append(tuple(ids))
        return {id: PAYLOADS[id] for id in ids if id in PAYLOADS}

    def matching(self):
        return len(self.exact)


def found(store, legs=("dense",), k=2, target=0.95):
    given = {"dense": [1.0], "text": "word"}
    query = Query(**{leg: given[leg] for leg in legs}, k=k, candidates=5, recall_target=target)
    answer = find(query, store)
    return [hit.id for hit in answer.hits], answer.complete, [note.code for note in answer.notes]


def test_one_leg_is_asked_for_k_and_several_for_candidates():
    store = Store("abcdef", "abcdef", "cd")
    assert found(store) == (["a", "b"], True, [])
    assert store.asked == [(("dense",), 2, False), ("a", "b")]
    store = Store("abcdef", "abcdef", "cd")
    assert found(store, ("dense", "text")) == (["c", "d"], True, [])
    assert store.asked == [(("dense", "text"), 5, False), ("c", "d")]


def test_too_few_are_looked_for_again_exactly():
    assert found(Store("abc", "a")) == (["a", "b"], True, ["exact_fallback"])
    assert found(Store("abc", "a"), k=9) == (["a", "b", "c"], False, ["exact_fallback", "fewer_than_k"])
    store = Store("a", "a")
    assert found(store) == (["a"], False, ["fewer_than_k"])
    assert len(store.asked) == 2, "nothing is looked for again when all were found"


def test_words_may_be_in_few():
    assert found(Store("abc", "abc", "b"), ("text",)) == (["b"], False, ["fewer_than_k"])
    assert found(Store("abc", "abc", "b"), ("dense", "text"))[1:] == (True, [])


def test_an_exact_search_is_asked_for():
    store = Store("abc", "c")
    assert found(store, target=1.0) == (["a", "b"], True, [])
    assert store.asked[0] == (("dense",), 2, True)


def test_a_row_that_goes_meanwhile_is_left_out():
    assert found(Store(["a", "gone", "b"], ["a", "gone", "b"])) == (["a"], False, ["fewer_than_k"])
