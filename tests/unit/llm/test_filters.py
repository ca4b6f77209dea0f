"""Stop texts and guards: what comes out depends on the text alone, never on where it was cut."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from mainspring.llm.filters import Filters, Stopper
from mainspring.llm.guards import Hold, Patterns
from mainspring.ports.llm import Text

LETTERS = st.text("ab1 ", max_size=30)


def cut(text: str, places: list[int]) -> list[str]:
    ends = sorted({min(place, len(text)) for place in places} | {len(text)})
    return [text[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def stopped(text: str, stops: list[str]) -> tuple[str, str]:
    """By single characters: the plainest reading of what a stop text is."""
    for end in range(1, len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            longest = max(found, key=len)
            return text[: end - len(longest)], longest
    return text, ""


@given(LETTERS, st.lists(st.text("ab1 ", min_size=1, max_size=4), max_size=3), st.lists(st.integers(0, 30)))
def test_stop_texts_end_an_answer_wherever_it_is_cut(text: str, stops: list[str], places: list[int]) -> None:
    stopper = Stopper(stops)
    said = "".join(stopper.feed(piece) for piece in cut(text, places))
    said += "" if stopper.found else stopper.end()
    assert (said, stopper.found) == stopped(text, stops)


def test_only_what_may_begin_a_stop_text_is_held_back() -> None:
    stopper = Stopper(["END"])
    assert [stopper.feed(piece) for piece in ("Hello", " E", "N", "d", "E")] == ["Hello", " ", "", "ENd", ""]
    assert stopper.end() == "E"


def replaced(text: str, pattern: str, replacement: str) -> str:
    return re.sub(pattern, replacement, text)


@given(
    LETTERS,
    st.sampled_from([(r"1+b?", 31), (r"ab", 2), (r"\ba+\b", 31), (r"(?<=a)1", 1)]),
    st.lists(st.integers(0, 30)),
)
def test_a_guard_replaces_the_same_wherever_an_answer_is_cut(
    text: str, pattern: tuple[str, int], places: list[int]
) -> None:
    guard = Patterns("names", pattern[0], pattern[1], "*")
    hold = Hold(guard.longest, guard.find)
    said = "".join(hold.feed(piece) for piece in cut(text, places)) + hold.end()
    assert said == replaced(text, pattern[0], "*")


@given(LETTERS, st.lists(st.integers(0, 30)))
def test_a_guard_that_refuses_lets_nothing_of_its_find_out(text: str, places: list[int]) -> None:
    guard = Patterns("secret", "a1b", 3)
    filters = Filters((), (guard,), 1)
    said = "".join(piece.text for part in cut(text, places) if (piece := filters.feed(Text(part, 1))) is not None)
    said += "".join(event.text for event in filters.rest() if isinstance(event, Text))
    before, found, _ = text.partition("a1b")
    assert said == before
    assert (filters.refused_by == "secret") == bool(found)
    assert filters.over() == bool(found)
    assert filters.reasons(("stop",)) == (("content_filter",) if found else ("stop",))


def test_guards_see_what_the_ones_before_them_left_and_tokens_are_not_lost() -> None:
    filters = Filters(("!",), (Patterns("one", "cat", 3, "dog"), Patterns("two", "dog", 3, "cow")), 1)
    events = [filters.feed(Text(piece, 1)) for piece in ("the c", "at sat", " down", "! never")]
    assert "".join(event.text for event in events if event is not None) == "the cow sat down"
    assert sum(event.tokens for event in events if event is not None) == 4
    assert filters.stopped_by(()) == ("!",)


def test_a_code_point_is_never_cut_by_a_hold() -> None:
    filters = Filters(("🙂🙂",), (), 1)
    events = [filters.feed(Text(piece, 1)) for piece in ("é🙂", "漢", "🙂")]
    said = [event.text for event in events if event is not None] + [e.text for e in filters.rest()]  # type: ignore[union-attr]
    assert said == ["é", "🙂漢", "🙂"]
    assert "�" not in "".join(said)
