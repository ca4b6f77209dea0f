"""Headings of PDFs: in order, disjoint, within the text, whatever the lines and bookmarks are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mainspring.adapters.kreuzberg.headings import Bookmark, Line, by_bookmarks, by_size

WORDS = st.sampled_from(["1 Größe", "Größe", "1.1 Höhe der", "Flügel", "chapter IV Ende", "...", "A", "12", "x" * 250])
PAGES = st.lists(st.lists(st.tuples(WORDS, st.sampled_from([0.0, 9.0, 10.0, 12.0, 18.0])), max_size=8), max_size=5)
BOOKMARKS = st.lists(st.builds(Bookmark, st.integers(0, 12), WORDS, st.integers(0, 6)), max_size=6)


def lines_of(pages):
    found, at = [], 0
    for number, page in enumerate(pages):
        for text, size in page:
            found.append(Line(number, at, text, size))
            at += len(text) + 1
        at += 1
    return found


@given(PAGES, BOOKMARKS)
def test_marks_are_lines_in_order(pages, bookmarks):
    lines = lines_of(pages)
    starts, ends = {line.start for line in lines}, {line.end for line in lines}
    for marks in (by_bookmarks(lines, bookmarks), tuple(by_size(lines))):
        at = 0
        for mark in marks:
            assert mark.start >= at
            assert mark.start in starts
            assert mark.end in ends
            assert 1 <= mark.level <= 6
            at = mark.end


def test_the_head_of_a_page_is_passed_over():
    lines = lines_of([[("Sections", 10.0), ("word", 10.0), ("2.4 Sections", 10.0), ("more", 10.0)]])
    (mark,) = by_bookmarks(lines, [Bookmark(0, "2.4 Sections", 0)])
    assert mark.start == lines[2].start


def test_an_outline_whose_titles_are_not_there_tells_nothing():
    lines = lines_of([[("Größe", 10.0), ("word", 10.0)]])
    assert by_bookmarks(lines, [Bookmark(0, "Größe", 0)]) != ()
    assert by_bookmarks(lines, [Bookmark(0, name, 0) for name in ("Größe", "b", "c")]) == ()
    assert by_bookmarks([], []) == ()


def test_a_text_of_which_much_is_large_has_no_headings_of_that_size():
    prose = [(f"line {number}", 10.0) for number in range(20)]
    assert not list(by_size(lines_of([[*prose, *[("large", 12.0)] * 10]])))
    assert len(list(by_size(lines_of([[*prose, ("large", 12.0)]])))) == 1
    assert not list(by_size([]))
