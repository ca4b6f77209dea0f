"""Retrieval metrics against scikit-learn, and against the definition spelt out slowly."""

from __future__ import annotations

import doctest
import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from mainspring.metrics import retrieval
from mainspring.metrics.retrieval import (
    averaged,
    citation_precision,
    content_tokens,
    holds,
    ndcg,
    recall_at,
    reciprocal_rank,
    token_f1,
)

IDS = [f"d{number}" for number in range(8)]
RANKING = st.permutations(IDS)
GAINS = st.dictionaries(st.sampled_from(IDS), st.integers(0, 4).map(float), min_size=1)


def test_the_examples_hold():
    assert doctest.testmod(retrieval).failed == 0


@given(RANKING, GAINS, st.integers(1, 10))
def test_ndcg_is_scikit_learns(ranked, gains, k):
    found = ndcg(ranked, gains, k)
    if not any(gains.values()):
        assert math.isnan(found)
        return
    truth = [[gains.get(one, 0.0) for one in ranked]]
    scores = [list(range(len(ranked), 0, -1))]
    assert found == pytest.approx(ndcg_score(truth, scores, k=k))


@given(RANKING, GAINS.filter(lambda gains: any(gains.values())), st.integers(1, 8))
def test_no_order_is_better_than_the_best(ranked, gains, k):
    ideal = sorted(IDS, key=lambda one: -gains.get(one, 0.0))
    assert ndcg(ideal, gains, k) == pytest.approx(1)
    assert ndcg(ranked, gains, k) <= 1 + 1e-12
    few = ranked[:4]
    assert ndcg(few, gains, k) <= max(ndcg(order, gains, k) for order in itertools.permutations(few)) + 1e-12


def test_ndcg_when_too_few_are_found_and_when_judged_ones_are_missing():
    assert ndcg([], {"a": 1.0}) == 0
    assert ndcg(["a"], {"a": 1.0, "b": 1.0}) == pytest.approx(1 / (1 + 1 / math.log2(3)))
    assert ndcg(["x", "a"], {"a": 3.0}) == pytest.approx(1 / math.log2(3))
    assert ndcg(["a", "a"], {"a": 1.0, "b": 1.0}) == ndcg(["a"], {"a": 1.0, "b": 1.0})


@given(RANKING, st.sets(st.sampled_from(IDS)), st.integers(1, 8))
def test_recall_and_reciprocal_rank_by_looking(ranked, relevant, k):
    if not relevant:
        assert math.isnan(recall_at(ranked, relevant, k))
        assert math.isnan(reciprocal_rank(ranked, relevant, k))
        return
    hits = [place for place in range(k) if ranked[place] in relevant]
    assert recall_at(ranked, relevant, k) == len(hits) / len(relevant)
    assert reciprocal_rank(ranked, relevant, k) == (1 / (hits[0] + 1) if hits else 0)


def test_queries_without_judgements_are_left_out():
    assert averaged([math.nan, 1.0, 0.5, math.nan]) == 0.75
    assert math.isnan(averaged([math.nan]))
    assert math.isnan(averaged([]))


def test_content_is_words_and_numbers_of_any_script():
    assert content_tokens("What is the Überschall of 3,5 km?") == ["überschall", "3,5", "km"]
    assert content_tokens("the of and") == []
    assert content_tokens("") == []


def test_a_span_holds_a_sentence_by_its_words_not_their_order():
    assert holds("Rotate the wing by 90 degrees, slowly.", "The wing: 90 degrees.")
    assert not holds("Rotate the wing by 90 degrees.", "The wing: 80 degrees.")
    assert not holds("wings", "wing")
    assert holds("a b c x", "x y b c", 0.5)
    assert not holds("anything", "It is that.")


def test_citation_precision():
    span = "The battery lasts 12 hours."
    assert citation_precision([("It lasts 12 hours.", span), ("It lasts 13 hours.", span)]) == 0.5
    assert citation_precision([("It lasts 13 hours.", span)], share=0.6) == 1
    assert math.isnan(citation_precision([]))


@given(st.lists(st.sampled_from("abcde"), max_size=8), st.lists(st.sampled_from("abcde"), max_size=8))
def test_f1_by_precision_and_recall(found, wanted):
    found = [f"{letter}{letter}" for letter in found]
    wanted = [f"{letter}{letter}" for letter in wanted]
    left = list(wanted)
    both = sum(1 for word in found if word in left and (left.remove(word) or True))
    expected = float(found == wanted)
    if both:
        precision, recall = both / len(found), both / len(wanted)
        expected = 2 * precision * recall / (precision + recall)
    assert token_f1(" ".join(found), [" ".join(wanted)]) == pytest.approx(expected)


def test_f1_takes_the_best_reference_and_no_punctuation():
    assert token_f1("The answer: 42!", ["nothing", "answer 42"]) == 1
    assert token_f1("", ["x"]) == 0
    assert math.isnan(token_f1("x", []))
