"""Plain paragraphs and lists in one step: the blocks are those that markdown-it finds by all of its rules."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from mainspring.rag import blocks
from mainspring.rag.blocks import blocks_of
from mainspring.rag.plain import PLAIN

DOCS = sorted((Path(__file__).parents[3] / "docs").rglob("*.md"))
STARTS = [
    "word",
    "*em*",
    "**b** c",
    "`code` d",
    "(e)",
    "3rd",
    "3",
    "1. f",
    "2) g",
    "- h",
    "-  *i*",
    "+ j",
    "* * *",
    "*",
]
MARKS = [
    "-",
    "- ",
    "---",
    "===",
    "> k",
    ">l",
    "# m",
    "```",
    "~~~",
    "<div>",
    "a | b",
    "--- | ---",
    "-|-",
    "| c |",
    "_n_",
]
INDENTS = ["", " ", "  ", "   ", "    ", "      ", "\t", "> ", "> - ", "- ", "1. ", "  - "]
LINES = st.builds(str.__add__, st.sampled_from(INDENTS), st.sampled_from([*STARTS, *MARKS]))
TEXTS = st.lists(st.one_of(LINES, st.just(""), LINES), max_size=12).map("\n".join)


def by_all_rules(text):
    parser = MarkdownIt("commonmark").enable("table").disable("reference")
    parser.core.ruler.enableOnly(["normalize", "block"])
    lines = blocks.lines_of(text)
    return list(blocks._filled(text, 0, len(text), blocks._tree(iter(parser.parse(text)), lines)))


@settings(max_examples=1000)
@given(TEXTS)
def test_any_lines(text):
    assert blocks_of(text) == by_all_rules(text)


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.stem)
def test_our_own_pages(path):
    text = path.read_text("utf-8")
    assert blocks_of(text) == by_all_rules(text)


def test_plain_lines_ask_no_other_rule():
    text = "\n".join(f"- item {number}\n  goes on\n\n(and) on" for number in range(50)) + "\n\nwords\n\nmore\nwords"
    found = [token.type for token in blocks._block_parser().parse(text)]
    assert found.count(PLAIN) == 102
    assert "paragraph_open" not in found
