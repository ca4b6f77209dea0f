"""Parsers: every format with letters of the world, pages that are right, and files that mean harm."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from documents import docx, pdf, pptx
from mainspring.adapters.kreuzberg.formats import format_of, read_text
from mainspring.adapters.kreuzberg.health import health
from mainspring.adapters.kreuzberg.pages import page_starts
from mainspring.adapters.kreuzberg.parser import KreuzbergParser
from mainspring.adapters.kreuzberg.settings import KreuzbergSettings
from mainspring.ports.parser import Parsed, Refused
from mainspring.testing.parser import ParserContract

PAGES = [
    ["Überschall auf Seite eins.", "漢字の文章がここにある。", "Running foot 1"],
    [
        "Seite zwei: größer — schöner.",
        "Noch ein Satz, der auf der zweiten Seite steht und länger ist.",
        "Running foot 2",
    ],
    ["Ελληνικά στη σελίδα τρία", "Naïve café, 100 % ±3", "Running foot 3"],
]


@pytest.fixture(scope="module")
def parser():
    opened = KreuzbergParser(KreuzbergSettings(pdf="structured", workers=2))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def fast():
    opened = KreuzbergParser(KreuzbergSettings(workers=1))
    yield opened
    opened.close()


class TestKreuzberg(ParserContract):
    pass


def parsed(parser, document, name):
    found = parser.parse(document, name)
    assert isinstance(found, Parsed), found
    return found


def reason(parser, document, name):
    found = parser.parse(document, name)
    assert isinstance(found, Refused), found
    assert found.why
    assert "/" not in found.why.replace("w/", "")
    return found.reason


def letters(text):
    return "".join(re.findall(r"[^\W_]", text))


# -- PDF --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["parser", "fast"])
def test_a_pdf_in_many_scripts_has_its_pages(which, request):
    found = parsed(request.getfixturevalue(which), pdf(PAGES, "Größe & Maß"), "a.pdf")
    assert found.title == "Größe & Maß"
    assert found.metadata["authors"] == "Somebody"
    assert len(found.pages) == 3
    for number, lines in enumerate(PAGES, 1):
        for line in lines[:2]:
            at = found.text.index(line)
            assert found.page_at(at) == number
            assert found.page_at(at + len(line) - 1) == number


@pytest.mark.parametrize("which", ["parser", "fast"])
def test_a_long_pdf_has_each_line_on_its_page(which, request):
    draw = random.Random(3)
    words = ["Fluß", "résumé", "Ψυχή", "東京", "boundary", "layer", "flow", "of", "air"]
    pages = [
        [f"Handbook of wings {number}"]
        + [" ".join(draw.choices(words, k=9)) + f" {number} {row}." for row in range(40)]
        for number in range(1, 41)
    ]
    pages[10] = []
    found = parsed(request.getfixturevalue(which), pdf(pages), "a.pdf")
    assert len(found.pages) == 40
    bounds = [*found.pages, len(found.text)]
    right = total = 0
    for number, lines in enumerate(pages):
        held = letters(found.text[bounds[number] : bounds[number + 1]])
        total += len(lines[1:])
        right += sum(letters(line) in held for line in lines[1:])
    assert right / total > 0.99


def test_both_ways_read_the_same_words(parser, fast):
    one, other = (parsed(each, pdf(PAGES), "a.pdf").text for each in (parser, fast))
    assert letters(one) == letters(other)
    assert parser.id != fast.id
    assert parsed(fast, pdf(PAGES), "a.pdf").plain


def headings(found):
    return [(mark.level, found.text[mark.start : mark.end]) for mark in found.headings]


def test_bookmarks_tell_the_headings(fast):
    pages = [
        ["Größe 1", "Handbook", "1 Größe der", "Flügel", "Prose of which Größe is no heading."],
        ["Handbook", "1.1 Höhe", "Höhe", "2. Breite", "the end"],
    ]
    outline = [(0, "Größe der Flügel", 0), (1, "Höhe", 1), (0, "Breite", 1), (0, "Nowhere", 1)]
    found = parsed(fast, pdf(pages, "Wings", outline), "a.pdf")
    assert found.plain
    assert headings(found) == [(1, "1 Größe der\nFlügel"), (2, "1.1 Höhe"), (1, "2. Breite")]
    assert found.page_at(found.headings[1].start) == 2


@pytest.mark.parametrize("outline", [(), [(0, "Somewhere else", 0), (0, "Not here", 1), (0, "Nor here", 1)]])
def test_larger_letters_tell_the_headings_of_a_pdf_without_bookmarks_that_hold(fast, outline):
    prose = [f"Line {number} of a text that goes on and on." for number in range(9)]
    pages = [[(16.0, "Head of all"), (24.0, "漢字 one"), *prose, (18.0, "Two, which"), (18.0, "goes on"), *prose]]
    pages += [[(16.0, "Head of all"), *prose, (18.0, f"Part {'xyz'[number]}"), *prose] for number in range(3)]
    found = parsed(fast, pdf(pages, "Wings", outline), "a.pdf")
    assert headings(found)[:2] == [(1, "漢字 one"), (2, "Two, which\ngoes on")]
    assert [title for _, title in headings(found)[2:]] == ["Part x", "Part y", "Part z"]


def test_a_pdf_in_one_size_has_no_headings(fast):
    assert parsed(fast, pdf(PAGES), "a.pdf").headings == ()


def test_a_pdf_without_text(parser, fast):
    assert reason(parser, pdf([[], []]), "scan.pdf") == "empty"
    assert reason(fast, pdf([[], []]), "scan.pdf") == "empty"
    assert "recognition" in fast.parse(pdf([[]]), "scan.pdf").why


@pytest.mark.parametrize("which", ["parser", "fast"])
def test_corrupt_pdfs(which, request):
    whole = pdf(PAGES)
    reader = request.getfixturevalue(which)
    for broken in (b"%PDF-1.7\n", b"not a pdf", whole[:200], b"\0" * 5000):
        assert reason(reader, broken, "a.pdf") in ("corrupt", "empty")
    draw = random.Random(5)
    for _ in range(40):
        noisy = bytearray(whole)
        for _ in range(30):
            noisy[draw.randrange(len(noisy))] = draw.randrange(256)
        assert isinstance(reader.parse(bytes(noisy), "a.pdf"), (Parsed, Refused))
    parsed(reader, whole, "a.pdf")


# -- where pages begin ------------------------------------------------------------------------------------------------

LINE = st.text("abcdeäß漢 .", min_size=0, max_size=24)


@settings(max_examples=200)
@given(st.lists(st.lists(LINE, max_size=8), max_size=8))
def test_starts_of_pages_rise_and_lie_in_the_text(pages):
    texts = ["\r\n".join(lines) for lines in pages]
    markdown = "\n\n".join(" ".join(lines) for lines in pages)
    starts = page_starts(markdown, texts)
    assert len(starts) == len(pages)
    assert list(starts) == sorted(starts)
    assert all(0 <= start <= len(markdown) for start in starts)
    assert not starts or starts[0] == 0


@settings(max_examples=100)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=8), st.booleans(), st.integers(0, 2))
def test_starts_of_pages_are_exact_where_lines_are_distinct(sizes, furniture, markup):
    """Headers and page numbers dropped, markup added, lines joined, hyphens taken out: the oracle knows each place."""
    markdown, texts = "", []
    for number, size in enumerate(sizes):
        lines = [f"Zeile Nummer {number} auf Blatt {row} hält Wörter" for row in range(size)]
        texts.append("\n".join([*(["The header of it all"] if furniture else []), *lines, str(number)]))
        body = " ".join(lines)
        markdown += (
            f"## {body}\n\n" if markup == 1 and lines else f"**{body}**\n\n" if markup == 2 and lines else f"{body}\n\n"
        )
    starts = page_starts(markdown, texts)
    for number, size in enumerate(sizes):
        if size and number:
            assert markdown[starts[number] :].lstrip("#* \n").startswith(f"Zeile Nummer {number} auf Blatt 0")


# -- Office -----------------------------------------------------------------------------------------------------------


def test_a_docx_loses_nothing(parser):
    text = "R&D: a < b > c, \"q\" 'é' 漢字 &amp; 100 %"
    found = parsed(
        parser,
        docx([(1, "Größe & Maß"), text, (2, "Zwei"), [["a", "b & c"], ["1", "<2>"]], "Ende"], "Titel & mehr"),
        "x.docx",
    )
    plain = found.text.replace("\\", "")
    assert text in plain
    assert "# Größe & Maß" in plain
    assert "## Zwei" in plain
    assert "| a | b & c |" in plain
    assert "| 1 | <2> |" in plain
    assert plain.rstrip().endswith("Ende")
    assert found.title == "Titel & mehr"
    assert not re.search("[\ue000-\uf8ff]", found.text + found.title)


def test_characters_by_number_in_a_docx(parser):
    found = parsed(parser, docx(["before"], raw="<w:p><w:r><w:t>caf&#233; &#x6F22;&#38;</w:t></w:r></w:p>"), "x.docx")
    assert "café 漢&" in found.text


def test_slides_are_pages(parser):
    slides = [("Folie & eins", "Inhalt ä < 3"), ("Zweite Folie", "Noch mehr 漢字"), ("Drei", "Ende der Schau")]
    found = parsed(parser, pptx(slides), "x.pptx")
    plain = found.text.replace("\\", " ")
    for number, (title, body) in enumerate(slides, 1):
        assert found.page_at(plain.index(title)) == number
        assert found.page_at(plain.index(body.split(" < ")[0])) == number
    assert len(found.pages) == 3


def test_a_bomb_is_refused_before_it_goes_off(parser):
    """A thousandth of what it unpacks to; nothing is killed for it."""
    parsed(parser, docx(["warm"]), "a.docx")
    started = parser.workers.started
    bomb = docx([], raw="<w:p><w:r><w:t>" + "A" * (200 << 20) + "</w:t></w:r></w:p>")
    assert len(bomb) < 1 << 20
    assert reason(parser, bomb, "bomb.docx") == "too_large"
    slides = pptx([("A" * (150 << 20), "b")])
    assert reason(parser, slides, "bomb.pptx") == "too_large"
    assert parser.workers.started == started


def test_broken_and_protected_office_files(parser):
    whole = docx(["text"])
    assert reason(parser, whole[: len(whole) // 2], "a.docx") == "corrupt"
    assert reason(parser, b"PK\x03\x04" + b"x" * 100, "a.pptx") == "corrupt"
    assert reason(parser, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"x" * 1000, "a.docx") == "encrypted"
    assert reason(parser, docx([]), "a.docx") == "empty"
    entities = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">]><x>&a;</x>'
    assert isinstance(parser.parse(docx(["t"], raw=entities), "a.docx"), (Parsed, Refused))


# -- text -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("Grüße".encode(), "Grüße"),
        (b"\xef\xbb\xbf" + "Grüße".encode(), "Grüße"),
        ("Grüße".encode("utf-16"), "Grüße"),
        (b"\xfe\xff" + "Grüße".encode("utf-16-be"), "Grüße"),
        ("Grüße € ‰".encode("cp1252"), "Grüße € ‰"),
    ],
)
def test_encodings(data, text):
    assert read_text(data, markdown=False).text == text
    assert read_text(b"\x00\x01\x02\x03", markdown=False).reason == "corrupt"


def test_front_matter_is_metadata():
    found = read_text(b'---\ntitle: "The page"\nAuthors: Somebody\ntags:\n  - a\n---\n# Head\n\nText.\n', markdown=True)
    assert found == Parsed("# Head\n\nText.\n", "The page", metadata={"authors": "Somebody"})
    rule = b"---\n\nA rule above, no front matter.\n\n---\n"
    assert read_text(rule, markdown=True).text == rule.decode()
    assert read_text(b"---\ntitle: x\n---\n", markdown=True).reason == "empty"


def test_pages_of_the_web_by_their_charset(parser):
    head = '<meta charset="iso-8859-2"><title>Tűz</title><meta name=author content="Én">'
    page = f'<html lang="de"><head>{head}</head><p>Jó ő'
    found = parsed(parser, page.encode("iso-8859-2"), "a.htm")
    assert (found.title, found.text.strip(), found.metadata["authors"]) == ("Tűz", "Jó ő", "Én")
    assert found.metadata["language"] == "de"
    assert parsed(parser, "<p>Grüße €".encode("cp1252"), "a.html").text.strip() == "Grüße €"
    assert parsed(parser, b'<meta charset="klingon"><p>x', "a.html").text.strip() == "x"
    picture = b'<p>a<img alt="pic" src="data:image/png;base64,' + b"A" * 5000 + b'">'
    assert len(parsed(parser, picture, "a.html").text) < 100


def test_the_main_part_of_a_page_is_what_counts(parser):
    """As Sphinx and MkDocs write them: menus, permalinks and addresses of links are no text."""
    menu = '<div role="navigation"><ul><li><a href="x">Menu entry</a></ul></div>'
    head = '<h1>Head<a class="headerlink" href="#head">¶</a></h1>'
    inner = f'<div>{head}<p>See <a href="a/b.html#c">the <b>docs</b></a>.</p></div>'
    for opening in ('<div class="body" role="main">', "<main>", "<ARTICLE role=main>"):
        closing = f"</{re.match('<([A-Za-z]+)', opening)[1].lower()}>"
        found = parsed(parser, f"<html><body>{menu}{opening}{inner}{closing}{menu}".encode(), "a.html")
        assert found.text.strip() == "# Head\n\nSee the **docs**."
        assert found.title == "Head"
    unclosed = parsed(parser, f"<body>{menu}<main>{inner}".encode(), "a.html")
    assert "the **docs**" in unclosed.text


def test_tables_in_text(parser):
    found = parsed(parser, 'Name;Größe\n"ä;b";1\n'.encode(), "a.csv")
    assert found.text.splitlines() == ["| Name | Größe |", "| --- | --- |", "| ä;b | 1 |"]
    assert "Größe" in parsed(parser, "Name,Größe\nx,1\n".encode("cp1252"), "a.csv").text


def test_formats():
    assert format_of("A.PDF") == "pdf"
    assert format_of("x.pdf", "text/html; charset=utf-8") == "html"
    assert format_of("x.pdf", "application/octet-stream") == "pdf"
    assert format_of("pdf") is None


def test_a_text_that_is_too_long():
    small = KreuzbergParser(KreuzbergSettings(max_characters=50))
    assert reason(small, b"x" * 60, "a.txt") == "too_large"
    assert reason(small, b"<p>" + b"x" * 60, "a.html") == "too_large"
    small.close()


# -- processes --------------------------------------------------------------------------------------------------------


def children(parser):
    return [child._process for child in parser.workers._idle]


def test_a_document_that_takes_too_long():
    slow = KreuzbergParser(KreuzbergSettings(timeout=0.01, workers=1))
    assert reason(slow, b"<p>x", "a.html") == "timeout"
    assert not children(slow)
    slow.close()


def test_a_document_that_takes_too_much_memory():
    small = KreuzbergParser(KreuzbergSettings(memory=1 << 29, workers=1))
    page = b"<p>" + b"<b>word</b> " * 4_000_000
    assert reason(small, page, "a.html") == "memory"
    assert "small" in parsed(small, b"<p>small", "a.html").text
    small.close()


def test_a_child_that_dies_is_replaced(parser):
    parsed(parser, b"<p>x", "a.html")
    for child in children(parser):
        child.send_signal(signal.SIGSEGV)
        child.wait(60)
    assert "y" in parsed(parser, b"<p>y", "a.html").text


def test_a_child_that_is_killed_at_work():
    """By the system, say: the document is put aside with the reason, and the next is read."""
    mine = KreuzbergParser(KreuzbergSettings(workers=1))
    started = []
    start = mine.workers._fresh

    def watched():
        child = start()
        os.kill(child._process.pid, signal.SIGSTOP)
        os.kill(child._process.pid, signal.SIGKILL if not started else signal.SIGCONT)
        started.append(child)
        return child

    mine.workers._fresh = watched
    assert reason(mine, b"<p>x", "a.html") == "memory"
    assert "x" in parsed(mine, b"<p>x", "a.html").text
    assert len(started) == 2
    mine.close()


def test_children_are_as_many_as_allowed_and_used_again(parser):
    for _ in range(5):
        parsed(parser, b"<p>x", "a.html")
    assert len(children(parser)) <= 2


def test_children_end_with_the_parser():
    mine = KreuzbergParser(KreuzbergSettings(workers=1))
    parsed(mine, b"<p>x", "a.html")
    (child,) = children(mine)
    mine.close()
    assert child.poll() is not None


def test_no_child_outlives_its_parent_that_is_killed():
    code = (
        "import os, signal\n"
        "from mainspring.adapters.kreuzberg.parser import KreuzbergParser\n"
        "from mainspring.adapters.kreuzberg.settings import KreuzbergSettings\n"
        "parser = KreuzbergParser(KreuzbergSettings(workers=1))\n"
        "parser.parse(b'<p>x', 'a.html')\n"
        "print(parser.workers._idle[0]._process.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    pid = int(done.stdout)
    for _ in range(200):
        if not _alive(pid):
            return
        time.sleep(0.05)
    pytest.fail("the child is still there")


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_file_whose_name_is_no_utf_8_is_read(parser, tmp_path):
    path = tmp_path / os.fsdecode(b"gr\xf6\xdfe.html")
    path.write_text("<h1>Size</h1><p>It is large.</p>")
    assert "It is large." in parsed(parser, path, "gr\\xf6\\xdfe.html").text


def test_a_child_sees_no_secrets(parser, monkeypatch):
    monkeypatch.setenv("MY_SECRET", "hunter2")
    mine = KreuzbergParser(KreuzbergSettings(workers=1))
    parsed(mine, b"<p>x", "a.html")
    (child,) = children(mine)
    assert b"hunter2" not in Path(f"/proc/{child.pid}/environ").read_bytes()
    mine.close()


def test_the_parent_loads_no_native_parser():
    code = (
        "import sys\n"
        "from mainspring.adapters.kreuzberg.parser import KreuzbergParser\n"
        "from mainspring.adapters.kreuzberg.settings import KreuzbergSettings\n"
        "parser = KreuzbergParser(KreuzbergSettings(workers=1))\n"
        "assert parser.parse(b'<p>x', 'a.html').text.strip() == 'x'\n"
        "print('kreuzberg._internal_bindings' in sys.modules, 'pypdfium2_raw' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_health_reads(parser):
    assert health(parser)["reads"] is True
