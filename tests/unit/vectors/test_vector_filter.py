"""Filters: their JSON form both ways, and what an index allows."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.errors import UsageError
from mainspring.ports.vector_filter import fits, no_json
from mainspring.ports.vector_store import (
    And,
    Any,
    Eq,
    Exists,
    In,
    Not,
    Or,
    Range,
    check_filter,
    filter_from_json,
    filter_to_json,
)
from mainspring.testing.vector_oracle import FIELDS, filters, matches, payloads

TYPES = {field.name: field.type for field in FIELDS}


def refused(work, *arguments):
    with pytest.raises(UsageError) as caught:
        work(*arguments)
    assert caught.value.fix
    return caught.value


def test_the_json_form():
    filter = And(
        (
            Or((Eq("a", 1), In("b", ("x", "y")))),
            Not(Range("n", gt=1, lte=2.5)),
            Any("acl", ("user:x",)),
            Exists("tenant"),
        )
    )
    form = {
        "and": [
            {"or": [{"eq": ["a", 1]}, {"in": ["b", ["x", "y"]]}]},
            {"not": {"range": ["n", {"gt": 1, "lte": 2.5}]}},
            {"any": ["acl", ["user:x"]]},
            {"exists": "tenant"},
        ]
    }
    assert filter_to_json(filter) == form
    assert filter_from_json(form) == filter


@given(filters())
def test_the_json_form_goes_both_ways(filter):
    assert filter_from_json(json.loads(json.dumps(filter_to_json(filter)))) == filter


@given(filters(), payloads())
def test_what_is_checked_means_the_same(filter, payload):
    assert matches(check_filter(filter, TYPES), payload) == matches(filter, payload)
    assert matches(Not(filter), payload) != matches(filter, payload)


@pytest.mark.parametrize(
    "value",
    [
        None, "lang = 'en'", 7, [], {}, {"and": [], "or": []}, {"and": {}}, {"and": [1]}, {"nand": []}, {"not": []},
        {"eq": ["a"]}, {"eq": ["a", 1, 2]}, {"eq": [1, "a"]}, {"eq": ["a", None]}, {"eq": ["a", [1]]}, {"eq": "a"},
        {"in": ["a", "b"]}, {"in": ["a", [None]]}, {"range": ["a", {}]}, {"range": ["a", {"ge": 1}]},
        {"range": ["a", {"gt": "1"}]}, {"range": ["a", {"gt": True}]}, {"range": ["a", 1]}, {"exists": ["a"]},
        {"any": ["a", 1]}, {1: []},
    ],
)  # fmt: skip
def test_what_is_no_filter(value):
    assert refused(filter_from_json, value).code == "MS-2650"
    assert refused(filter_from_json, {"not": {"or": [value]}}).code == "MS-2650"


def test_filters_without_end():
    deep = {"eq": ["size", 1]}
    for _ in range(5000):
        deep = {"not": deep}
    assert refused(filter_from_json, deep).code == "MS-2650"
    tree = Eq("size", 1)
    for _ in range(40):
        tree = Not(tree)
    for large in (tree, And((Eq("size", 1),) * 1001), In("size", tuple(range(10_001)))):
        assert refused(check_filter, large, TYPES).code == "MS-2650"
    assert check_filter(In("size", tuple(range(10_000))), TYPES)


def test_an_unknown_field_is_told_with_those_there_are():
    error = refused(check_filter, And((Eq("lang", "en"), Exists("language"))), TYPES)
    assert error.code == "MS-2651"
    assert "lang" in error.why
    assert "none" in refused(check_filter, Exists("a"), {}).why


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63) + 1, 2**63 - 1)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_json_is_json(value):
    assert no_json(value) == ""


@pytest.mark.parametrize("value", [b"x", {1}, {1: 2}, float("inf"), 2**63, "\ud800", {"\ud800": 1}, [[object()]]])
def test_what_is_no_json(value):
    assert no_json(value)
    assert no_json({"a": [value]})


def test_truth_values_are_no_numbers():
    assert not fits(True, "integer")
    assert not fits(1, "boolean")
    assert fits(1, "number")
    assert not fits(1.0, "integer")
    assert not fits(["a", 1], "strings")
