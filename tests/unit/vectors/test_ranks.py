"""Ranks of several legs, fused."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from mainspring.vectors.ranks import fuse

LEGS = st.dictionaries(st.sampled_from(["dense", "text", "sparse"]), st.lists(st.sampled_from("abcdefgh"), unique=True))


def test_an_example_by_hand():
    assert fuse({"dense": ["a", "b"], "text": ["b", "c"]}) == [
        ("b", 1 / 62 + 1 / 61, {"dense": 2, "text": 1}),
        ("a", 1 / 61, {"dense": 1}),
        ("c", 1 / 62, {"text": 2}),
    ]
    assert fuse({}) == fuse({"dense": []}) == []
    assert fuse({"dense": ["a"], "text": ["b"]}, k=1, weights={"text": 3})[0] == ("b", 1.5, {"text": 1})


@given(LEGS, st.integers(1, 100))
def test_every_score_is_the_sum_over_its_legs(legs, k):
    found = fuse(legs, k=k)
    assert sorted(id for id, _, _ in found) == sorted({id for ids in legs.values() for id in ids})
    for id, score, ranks in found:
        assert ranks == {leg: ids.index(id) + 1 for leg, ids in legs.items() if id in ids}
        assert abs(score - float(sum(Fraction(1, k + rank) for rank in ranks.values()))) < 1e-12
    assert found == sorted(found, key=lambda hit: (-hit[1], hit[0]))
