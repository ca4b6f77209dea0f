"""Blocks of Markdown: those that another parser of CommonMark finds, whatever the text; and of texts with marks."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pyromark
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from mainspring.ports.parser import Mark
from mainspring.rag import blocks
from mainspring.rag.blocks import Block, blocks_of, lines_of, marked_blocks

DOCS = sorted((Path(__file__).parents[3] / "docs").rglob("*.md"))
STARTS = ["word", "*em*", "**b** c", "`code` d", "(e)", "3rd", "1. f", "2) g", "- h", "-  *i*", "+ j", "* * *"]
MARKS = ["---", "===", "# m", "## n `o`", "```", "~~~", "<div>", "é中🙂"]
QUOTED = st.builds(
    str.__add__, st.sampled_from(["", " ", "> ", "> - "]), st.sampled_from([*STARTS, *MARKS, "> k", ">l"])
)
TABLES = st.builds(
    str.__add__,
    st.sampled_from(["", " "]),
    st.sampled_from([*STARTS, *MARKS, "| a | b |", "| --- | --- |", "| é | 2 |"]),
)
TEXTS = st.one_of(
    st.lists(st.one_of(lines, st.just(""), lines), max_size=12).map("\n".join) for lines in (QUOTED, TABLES)
)
KINDS = {"heading_open": "heading", "table_open": "table", "fence": "fence", "code_block": "code"}


def by_markdown_it(text):
    """The top-level blocks by another parser: kind, level, what is in its lines without blank ones around."""
    lines = lines_of(text)
    found = []
    for token in MarkdownIt("commonmark").enable("table").disable("reference").parse(text):
        if token.level == 0 and token.nesting != -1 and token.map is not None:
            start, end = token.map
            level = int(token.tag[1:]) if token.type == "heading_open" else 0
            found.append(
                (KINDS.get(token.type, "prose"), level, text[lines[start] : lines[min(end, len(lines) - 1)]].strip())
            )
    return found


def ours(text):
    return [(block.kind, block.level, text[block.start : block.end].strip()) for block in blocks_of(text)]


@settings(max_examples=1000)
@given(TEXTS)
def test_any_lines(text):
    assert ours(text) == by_markdown_it(text)


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.stem)
def test_our_own_pages(path):
    text = path.read_text("utf-8")
    assert ours(text) == by_markdown_it(text)


@settings(max_examples=500)
@given(st.text(st.sampled_from("ab é中🙂\ud800\0\n\r\t#->|`*_<[]():1. "), max_size=80))
@example("- a\n- b\r- c\r\n\r\n> d")
@example("\ud800 # a\n# \ud800\n")
def test_any_text_is_covered_in_order(text):
    def hold(found, start, end):
        at = start
        for block in found:
            assert at <= block.start < block.end <= end
            assert not text[at : block.start].strip()
            assert not block.parts or hold(block.parts, block.start, block.end)
            at = block.end
        assert not text[at:end].strip()
        return True

    hold(blocks_of(text), 0, len(text))


def test_titles_are_words_without_markup():
    text = "# A *b* `c` [d](e)\n\nTwo\nlines\n===\n\n- ## in a *list*\n"
    first, second, found = blocks_of(text)
    assert (first.title, first.level, second.title, second.level) == ("A b c d", 1, "Two lines", 1)
    assert [(one.title, one.level) for one in found.parts[0].parts] == [("in a list", 2)]


def test_the_parts_of_containers():
    text = "> - a\n>   ```\n>   x\n>   ```\n> - b\n"
    (quoted,) = blocks_of(text)
    (listed,) = quoted.parts
    assert [part.kind for part in listed.parts[0].parts] == ["prose", "fence"]


@pytest.mark.parametrize("mark", ["> ", "- ", "1. ", "* > "])
def test_containers_that_never_end_in_their_depth(mark):
    text = mark * 20_000 + "x\n\n# after\n"
    assert blocks_of(text)[-1].title == "after"


def test_marked_headings():
    text = "Title\nfirst\nline\nTwo\nwords\nlast"
    marks = (Mark(0, 5, 1), Mark(3, 8, 1), Mark(17, 26, 2), Mark(26, 27, 3))
    assert [(block.kind, block.title, block.level) for block in marked_blocks(text, marks)] == [
        ("heading", "Title", 1), ("prose", "", 0), ("heading", "Two words", 2), ("prose", "", 0),
    ]  # fmt: skip
    assert marked_blocks("", ()) == []


def test_a_parser_that_stops_at_a_document_leaves_it_prose(monkeypatch):
    class PanicException(BaseException):
        """As the one that libraries in Rust raise."""

    def panicking(text, options):
        yield {"Start": "Paragraph"}, {"start": 0, "end": 2}
        raise PanicException

    monkeypatch.setattr(blocks, "pyromark", SimpleNamespace(events_with_range=panicking, Options=pyromark.Options))
    assert blocks_of("a\n\n# b\n") == [Block("prose", 0, 7)]


def test_an_interrupt_is_no_fault_of_the_document(monkeypatch):
    def interrupted(text, options):
        raise KeyboardInterrupt

    monkeypatch.setattr(blocks, "pyromark", SimpleNamespace(events_with_range=interrupted, Options=pyromark.Options))
    with pytest.raises(KeyboardInterrupt):
        blocks_of("a")
