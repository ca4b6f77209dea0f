"""Chunks: nothing lost, nothing too long, spans true, headings, tables and code as people read them."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from mainspring.ports.embedder import EMBEDDERS
from mainspring.ports.parser import Parsed
from mainspring.rag.chunk import Chunk, Chunker, ChunkSpec
from mainspring.rag.cut import halves
from mainspring.rag.ruler import Ruler, _beginnings

DOCS = sorted((Path(__file__).parents[3] / "docs").rglob("*.md"))
SPELT = ["[CLS]", "[cls]", "[", "]", "UNK", "[UNK", "a", "Z9", "_", "\x7f", "\x00", "é", "e\u0301", "中", "don't", "."]


@functools.cache
def tokenizer() -> Tokenizer:
    (point,) = importlib.metadata.entry_points(group=EMBEDDERS)
    return Tokenizer.from_str(Path(point.load().tokenizer).read_text("utf-8"))


def counted(texts):
    return [len(tokenizer().encode(text).ids) for text in texts]


@functools.cache
def ruler() -> Ruler:
    return Ruler(tokenizer().to_str(), counted)


def cut(text: str, title: str = "", pages: tuple[int, ...] = (), **spec: int) -> list[Chunk]:
    """The chunks, held to what holds for all of them by a look at every character."""
    limit = spec.get("max_tokens", 256)
    chunks = Chunker(ruler(), ChunkSpec(**spec), 256).chunks(Parsed(text, title, pages))
    covered = [0] * len(text)
    for place, chunk in enumerate(chunks):
        assert chunk.ordinal == place
        assert chunk.body == text[chunk.start : chunk.end]
        assert chunk.body.strip()
        assert chunk.text.endswith(chunk.body)
        assert chunk.tokens == counted([chunk.text])[0]
        assert chunk.tokens <= limit
        for at in range(chunk.start, chunk.end):
            covered[at] += 1
    assert all(times <= 1 for times in covered)
    assert not [at for at, letter in enumerate(text) if not letter.isspace() and not covered[at]]
    assert [chunk.start for chunk in chunks] == sorted(chunk.start for chunk in chunks)
    return chunks


def words(number: int, word: str = "word") -> str:
    return " ".join(f"{word}{place}" for place in range(number))


# -- any text ---------------------------------------------------------------------------------------------------------

WORD = st.sampled_from(
    [
        "lift",
        "Überschall",
        "naïve",
        "x",
        "the",
        "speed-of-sound",
        "漢字",
        "👩‍👩‍👧",
        "a" * 150,
        "http://a.b/c?d=e_f",
        "`code`",
        "**b**",
        "|",
        "\\",
    ]
)
SENTENCE = st.lists(WORD, min_size=1, max_size=30).map(" ".join)
BLOCK = st.one_of(
    SENTENCE,
    st.lists(SENTENCE, min_size=1, max_size=8).map(". ".join),
    st.tuples(st.integers(1, 6), SENTENCE).map(lambda pair: "#" * pair[0] + " " + pair[1]),
    SENTENCE.map(lambda text: text + "\n==="),
    st.lists(SENTENCE, min_size=1, max_size=12).map(lambda rows: "\n".join(f"- {row}" for row in rows)),
    st.lists(SENTENCE, min_size=1, max_size=9).map(
        lambda rows: "\n".join(f"1. {row}\n   more\n\n   - in" for row in rows)
    ),
    st.lists(SENTENCE, min_size=1, max_size=12).map(lambda rows: "```py\n" + "\n".join(rows) + "\n```"),
    st.lists(SENTENCE, min_size=1, max_size=9).map(lambda rows: "~~~\n" + "\n\n".join(rows)),
    st.lists(SENTENCE, min_size=1, max_size=12).map(
        lambda rows: "| a | b |\n|---|---|\n" + "\n".join(f"| {row.replace('|', '')} | x |" for row in rows)
    ),
    st.lists(SENTENCE, min_size=1, max_size=5).map(lambda rows: "\n".join(f"> {row}" for row in rows)),
    st.lists(SENTENCE, min_size=1, max_size=5).map(lambda rows: "\n".join(f"    {row}" for row in rows)),
    st.sampled_from(["---", "[a]: http://x.y 'z'", "<div>", "</div>\n", "```", "#", "|", "- ", "> ", "\ufeff", "\0"]),
)
DOCUMENT = st.tuples(st.lists(BLOCK, max_size=14), st.sampled_from(["\n\n", "\n", "\r\n\r\n", "\n \n\n", "\r"])).map(
    lambda pair: pair[1].join(pair[0])
)


@settings(max_examples=150)
@given(
    DOCUMENT, st.sampled_from(["", "A title", "lift " * 100]), st.sampled_from([16, 40, 100, 256]), st.integers(0, 80)
)
def test_any_document(text, title, limit, merge):
    cut(text, title, max_tokens=limit, merge_tokens=merge)


@settings(max_examples=100)
@given(st.text(max_size=400), st.text(max_size=30), st.sampled_from([8, 16, 256]))
def test_any_text(text, title, limit):
    cut(text, title, max_tokens=limit)


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.stem)
def test_our_own_pages(path):
    text = path.read_text("utf-8")
    chunks = cut(text, path.stem, max_tokens=128)
    heads = {line.lstrip("# ").replace("`", "") for line in text.splitlines() if line.startswith("#")}
    assert all(name.replace("`", "") in heads for chunk in chunks for name in chunk.path)


def test_upstreams_limit_does_not_hide_the_tail():
    """The tokenizer as it came counted at most 128: two thousand words looked like one chunk."""
    limited = json.loads(tokenizer().to_str())
    limited["truncation"] = {"max_length": 128, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
    chunks = Chunker(Ruler(json.dumps(limited), counted), ChunkSpec(), 256).chunks(Parsed(words(2000)))
    assert len(chunks) > 20
    assert chunks[-1].body.endswith("word1999")
    assert max(counted([chunk.text for chunk in chunks])) <= 256


def test_a_tokenizer_that_does_not_add_up():
    """Byte-pair tokens depend on what is before them; the limit holds by the exact count all the same."""
    from tokenizers import models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    text = "# Ärger\n\n" + "Schöne Grüße, völlig größenwahnsinnige Häuser: übermäßig. " * 60
    bpe.train_from_iterator([text], trainers.BpeTrainer(vocab_size=400, show_progress=False))
    own = Ruler(bpe.to_str(), lambda texts: [len(bpe.encode(one).ids) for one in texts])
    chunks = Chunker(own, ChunkSpec(max_tokens=40), 512).chunks(Parsed(text, "Titel"))
    assert max(len(bpe.encode(chunk.text).ids) for chunk in chunks) <= 40
    assert "".join("".join(chunk.body.split()) for chunk in chunks) == "".join(text.split())


class Tallied:
    """A tokenizer that tells how many characters it has been given."""

    def __init__(self) -> None:
        self.characters = 0

    def encode_batch_fast(self, texts, add_special_tokens):
        self.characters += sum(map(len, texts))
        return tokenizer().encode_batch_fast(texts, add_special_tokens=add_special_tokens)

    def encode(self, text, add_special_tokens):
        self.characters += len(text)
        return tokenizer().encode(text, add_special_tokens=add_special_tokens)


def test_what_is_known_is_not_tokenised_again():
    text = "\n\n".join(f"# {words(3)}\n\n" + f"call(word{n}).with[{n}], and (word{n}): " * 9 for n in range(99))
    counted_alone = []
    ruler = Ruler(tokenizer().to_str(), lambda texts: counted_alone.extend(texts) or counted(texts))
    ruler._tokenizer = tally = Tallied()
    chunker = Chunker(ruler, ChunkSpec(), 256)
    assert len(chunker.chunks(Parsed(text))) > 50
    assert tally.characters < len(text) / 40
    assert sum(map(len, counted_alone)) < len(text) / 40
    before = tally.characters
    chunker.chunks(Parsed(text))
    assert tally.characters == before


@settings(max_examples=300)
@given(st.text(st.characters(codec="utf-8"), max_size=60), st.lists(st.sampled_from(SPELT), max_size=8).map("".join))
def test_parts_of_words_add_up(text, spelt):
    for one in (text, spelt, spelt + text):
        alone = len(tokenizer().encode(one, add_special_tokens=False).ids)
        assert ruler().measured(one).totals[-1] == alone


def test_a_tokenizer_that_is_not_known():
    """Only a count is there: the limit holds by it."""
    count = lambda texts: [2 + len(one.encode()) // 3 for one in texts]  # noqa: E731
    text = "\n\n".join(["# One", "Sentence here. " * 200, "## Two", "文字だけの文章。" * 80])
    chunks = Chunker(Ruler("", count), ChunkSpec(), 256).chunks(Parsed(text, "T"))
    assert max(count([chunk.text for chunk in chunks])) <= 256
    assert "".join("".join(chunk.body.split()) for chunk in chunks) == "".join(text.split())


def test_the_models_own_limit_is_lower_than_the_specs():
    chunks = Chunker(ruler(), ChunkSpec(max_tokens=256), 64).chunks(Parsed(words(500)))
    assert max(chunk.tokens for chunk in chunks) <= 64


def test_nothing_to_cut():
    for text in ("", " \n\n\t\r\n", "\u00a0\u2003"):
        assert cut(text) == []


def test_chunks_are_full():
    """Prose is not cut finer than it has to be."""
    text = "\n\n".join("It is a sentence of some words, like the others. " * 40 for _ in range(5))
    chunks = cut(text)
    assert sum(chunk.tokens for chunk in chunks) / len(chunks) > 0.8 * 256


# -- headings ---------------------------------------------------------------------------------------------------------


def test_each_chunk_has_its_headings():
    text = f"# Guide\n\nWelcome.\n\n## Install\n\n{words(400)}\n\n### Linux\n\nUse apt.\n\n## Use\n\nRun it.\n"
    chunks = cut(text, "Guide")
    paths = {path: [chunk for chunk in chunks if chunk.path == path] for path in {chunk.path for chunk in chunks}}
    assert set(paths) == {("Guide",), ("Guide", "Install"), ("Guide", "Install", "Linux"), ("Guide", "Use")}
    assert len(paths["Guide", "Install"]) > 3
    first, second, *_ = paths["Guide", "Install"]
    assert first.text.startswith("Guide\n\n## Install\n\nword0")  # its own heading is in its body
    assert second.text.startswith("Guide > Install\n\nword")
    (linux,) = paths["Guide", "Install", "Linux"]
    assert linux.text == "Guide > Install\n\n### Linux\n\nUse apt."


def test_the_title_is_said_once():
    (chunk,) = cut("# The manual\n\nText.", "The Manual")
    assert chunk.text == "# The manual\n\nText."
    first, second, *_ = cut(f"# The manual\n\n## Part\n\n{words(300)}", "The manual of our product")
    assert first.text.startswith("The manual of our product\n\n# The manual\n\n## Part\n\nword0")
    assert second.text.startswith("The manual of our product > Part\n\nword")
    first, second, *_ = cut(f"# The manual\n\n## Part\n\n{words(300)}", "The Manual")
    assert first.text.startswith("# The manual\n\n## Part")
    assert second.text.startswith("The Manual > Part\n\nword")
    (chunk,) = cut("# Chapter\n\nText.", "The Manual")
    assert chunk.text == "The Manual\n\n# Chapter\n\nText."
    (chunk,) = cut("Text.", "The Manual")
    assert chunk.text == "The Manual\n\nText."


def test_headings_without_markup_in_the_path():
    (chunk,) = cut("## The `run` *verb*, [linked](http://a.b) \\# and ![an image](x.png)\n\nText.")
    assert chunk.path == ("The run verb, linked # and an image",)
    (chunk,) = cut("Setext\n======\n\nText.")
    assert chunk.path == ("Setext",)


def test_what_only_looks_like_a_heading():
    text = f"# Real\n\n```sh\n# a comment\n{words(150)}\n```\n\n    # indented\n\n#hashtag\n\n\\# escaped\n"
    assert {chunk.path for chunk in cut(text)} == {("Real",)}


@pytest.mark.parametrize("limit", [24, 60, 256])
@pytest.mark.parametrize(
    "text",
    [
        f"# One\n\n## Two\n\n### Three\n\n{words(120)}",
        f"# One\n\n{words(120)}\n\n# Two\n\n{words(120)}\n\n# Last\n",
        f"{words(30)}\n\n# Last",
        f"# One\n\n{words(20)}\n\n## Nothing\n\n## Something\n\n- {words(40)}\n- {words(9)}",
        f"# One\n\n| a | b |\n|---|---|\n{'| c | d |' * 3}\n\n# Two\n\n```\n{words(50)}\n```",
    ],
)
def test_no_heading_and_no_fence_is_alone(text, limit):
    for chunk in cut(text, max_tokens=limit):
        lines = [line for line in chunk.body.splitlines() if line.strip()]
        assert [line for line in lines if not re.match(r"#{1,6} |```|\|---", line)], chunk.body


def test_a_document_of_headings_only():
    (chunk,) = cut("# One\n\n## Two\n")
    assert chunk.body == "# One\n\n## Two"
    assert len(cut("".join(f"# Heading number {number}\n" for number in range(300)))) > 4


def test_a_long_prefix_keeps_its_ends():
    path = [f"Heading {words(20, 'h')}", f"Middle {words(20, 'm')}", "Deepest"]
    text = "".join(f"{'#' * level} {name}\n\n" for level, name in enumerate(path, 1)) + words(200)
    chunks = cut(text, "The title")
    assert all(chunk.path == tuple(path) for chunk in chunks)
    prefix, _, _ = chunks[1].text.partition("\n\n")
    assert prefix.startswith("The title > ")
    assert prefix.endswith(" > Deepest")
    assert "Middle" not in prefix
    endless = cut(words(300), words(400, "t"))
    assert all(chunk.text.startswith("t0 t1") for chunk in endless)
    assert sum(chunk.tokens - counted([chunk.body])[0] for chunk in endless) <= 64 * len(endless)


def test_small_sections_can_be_put_together():
    text = "# API\n\n" + "".join(f"## f{number}\n\nDoes {number}.\n\n" for number in range(9))
    assert len(cut(text)) == 9
    (chunk,) = cut(text, merge_tokens=250)
    assert chunk.path == ("API",)


# -- tables and code --------------------------------------------------------------------------------------------------


def table(rows: int) -> str:
    return "| name | what it does |\n| --- | :-: |\n" + "".join(
        f"| option{row} | sets number {row} |\n" for row in range(rows)
    )


def test_a_table_that_fits_is_whole():
    text = f"{words(60)}\n\n{table(12)}\n{words(60)}"
    (holding,) = [chunk for chunk in cut(text) if "option0 |" in chunk.body]
    assert table(12).strip() in holding.body


def test_a_long_table_is_cut_at_rows_with_its_head():
    text = f"# Options\n\n{table(150)}\nAfterwards.\n"
    chunks = cut(text)
    assert len(chunks) > 4
    for chunk in chunks:
        assert chunk.path == ("Options",)
        assert chunk.text.count("| name | what it does |") == 1
        rows = [line for line in chunk.body.splitlines() if line.startswith("| option")]
        assert rows
        assert all(line.endswith("|") for line in rows)
    assert "| --- | :-: |\n| option" in chunks[1].text
    assert not chunks[1].body.startswith("| name")
    assert sum(chunk.body.count("| option") for chunk in chunks) == 150


def test_a_row_that_is_too_long_for_a_chunk():
    text = f"| a | b |\n|---|---|\n| short | row |\n| {words(400)} | x |\n| last | row |\n"
    chunks = cut(text)
    assert all("| a | b |\n|---|---|" in chunk.text for chunk in chunks)
    assert len(chunks) > 3


def test_a_head_that_is_too_long_to_be_repeated():
    head = "| " + " | ".join(f"column{number}" for number in range(120)) + " |"
    text = f"{head}\n|{'---|' * 120}\n" + f"|{'x|' * 120}\n" * 4
    assert len(cut(text)) > 3


def test_code_that_fits_is_whole():
    code = "```python\ndef f():\n    return 1\n\n\n# not a heading\nx = f()\n```"
    text = f"{words(80)}\n\n{code}\n\n{words(80)}"
    assert any(code in chunk.body for chunk in cut(text))


def test_long_code_is_cut_at_lines_with_its_fence():
    lines = [f"value_{number} = compute({number})" for number in range(150)]
    text = "# Code\n\n```python\n" + "\n".join(lines) + "\n```\n"
    chunks = cut(text)
    assert len(chunks) > 4
    for chunk in chunks:
        assert chunk.text.count("```python\n") == 1
        assert [line for line in chunk.body.splitlines() if line in lines]
    assert chunks[-1].body.endswith("\n```")
    inside = "\n".join(chunk.body for chunk in chunks)
    assert [line for line in inside.splitlines() if line.startswith("value")] == lines


def test_code_in_a_list_in_a_quotation():
    text = (
        "> 1. Do this:\n>\n>    ```\n"
        + "".join(f">    line number {number} here\n" for number in range(120))
        + ">    ```\n"
    )
    assert len(cut(text)) > 3


# -- pages ------------------------------------------------------------------------------------------------------------


def test_pages_are_where_the_text_is():
    pages = [f"Page {number} é漢 {words(150)}\n\n" for number in range(1, 6)]
    starts = tuple(len("".join(pages[:place])) for place in range(5))
    chunks = cut("".join(pages), pages=starts)
    for chunk in chunks:
        on = [
            place + 1
            for place, start in enumerate(starts)
            if chunk.start < start + len(pages[place]) and chunk.end > start
        ]
        assert (chunk.page_first, chunk.page_last) == (on[0], on[-1])
    assert {chunk.page_first for chunk in chunks} == {1, 2, 3, 4, 5}
    assert [chunk.page_first for chunk in cut("No pages.")] == [None]


@given(st.text(st.sampled_from("ab \n\t\u00a0."), min_size=2, max_size=1200), st.data())
def test_halves_are_cut_at_the_nearest_white_space(text, data):
    start = data.draw(st.integers(0, len(text) - 2))
    end = data.draw(st.integers(start + 2, len(text)))
    at = data.draw(st.integers(start, end))
    ends = [match.end() for match in re.finditer(r"\s+", text[start + 1 : end])]
    inside = [start + 1 + one for one in ends if start + 1 + one < end]
    cut = min(inside, key=lambda one: abs(one - at)) if inside else min(max(at, start + 1), end - 1)
    assert halves(text, start, end, at) == (start, cut, end)


def test_halves_of_one_long_word_and_of_a_far_space():
    assert halves("x" * 10_000, 0, 10_000, 5_000) == (0, 5_000, 10_000)
    assert halves("x" * 4_000 + " " + "y" * 6_000, 0, 10_001, 5_000) == (0, 4_001, 10_001)


@given(st.text(st.sampled_from("ab \n\t\r\u00a0\x0b\u4e2d\U0001f642\ud800"), max_size=60))
def test_words_begin_where_they_do(text):
    assert _beginnings(text) == [match.start() for match in re.finditer(r"[^ \t\n\r]+", text)]


@pytest.mark.parametrize("lowercase", [True, False])
def test_plain_words_are_counted_as_the_tokenizer_counts_them(lowercase):
    written = json.loads(tokenizer().to_str())
    written["normalizer"]["lowercase"] = lowercase
    own = Tokenizer.from_str(json.dumps(written))
    own.no_truncation()
    own.no_padding()
    ruler = Ruler(own.to_str(), counted)
    assert ruler._piece is not None
    runs = ["Start", "PUMPS", "x" * 99, "Y" * 250, "3rd", "0x1F", "_", "#", "~", "antidisestablishmentarianism", "C3PO"]
    for run in runs:
        assert ruler._piece(run) == len(own.encode(run, add_special_tokens=False).ids), run
    text = " ".join([*runs, "a_b-c.d(e)", "naïve", "e.g.,"])
    assert ruler.measured(text).totals[-1] == len(own.encode(text, add_special_tokens=False).ids)
