"""Names of chunks: the same for the same content, and never for another."""

from __future__ import annotations

import uuid

from hypothesis import given
from hypothesis import strategies as st

from mainspring.rag.ids import chunk_id, chunk_ids, point_id, text_hash

PART = st.text(max_size=6)
KEY = st.tuples(PART, st.lists(PART, max_size=3).map(tuple), PART, st.integers(0, 3))


@given(KEY, KEY)
def test_two_ids_are_alike_only_for_the_same_parts(one, other):
    assert (chunk_id(*one) == chunk_id(*other)) is (one == other)
    assert len(chunk_id(*one)) == 32


def test_parts_do_not_run_into_each_other():
    ids = {chunk_id("a", ("b",), "c"), chunk_id("ab", (), "c"), chunk_id("a", (), "bc"), chunk_id("a", ("b", ""), "c")}
    assert len(ids) == 4


def test_they_are_what_they_were():
    """Kept in stores: another value would orphan every chunk."""
    assert text_hash("Grüße") == "c483baa27a9abd2202924662a88aaf32"
    assert chunk_id("doc", ("A", "B"), text_hash("x"), 1) == "3cca97764247528fd0931f7e3e1b4f38"
    assert point_id("00") == "253bec07-e8ce-510c-a0b7-1f335fbb2820"


@given(st.lists(st.tuples(st.sampled_from([(), ("a",), ("a", "b")]), st.sampled_from("xyz")), max_size=12))
def test_ids_of_a_document_are_unique_and_stay_when_others_come_and_go(chunks):
    ids = chunk_ids("doc", chunks)
    assert len(set(ids)) == len(ids)
    assert set(chunk_ids("doc", [*chunks, (("new",), "q")])) >= set(ids)
    assert chunk_ids("doc", [(("new",), "q"), *chunks])[1:] == ids
    assert not set(chunk_ids("other", chunks)) & set(ids)


def test_a_point_is_a_uuid():
    assert uuid.UUID(point_id("abc")).version == 5
    assert point_id("abc") != point_id("abd")


def test_half_characters_have_names_too():
    assert text_hash("\ud800") != text_hash("\ud801")
