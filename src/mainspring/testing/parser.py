"""The contract of a parser: derive from `ParserContract` and give it your parser to open."""

from __future__ import annotations

import random
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from mainspring.errors import StoreError
from mainspring.lazy import lazy
from mainspring.ports.parser import Parsed, Parser, Refused

if TYPE_CHECKING:
    import pytest
else:
    pytest = lazy("pytest")

__all__ = ["ParserContract"]


class ParserContract:
    """What every parser does.

    A subclass defines the fixture ``parser``: an open parser that reads Markdown, plain text and HTML at least.
    """

    def test_it_is_the_port(self, parser: Parser) -> None:
        """It has every method, a name that stays, and a limit."""
        assert isinstance(parser, Parser)
        assert parser.id == parser.id != ""
        assert parser.max_bytes > 0

    def test_markdown_is_as_it_is(self, parser: Parser) -> None:
        """Its text is not touched, so that spans are those of the file."""
        text = "# Höhe\r\n\r\n* an *item*\n\n```\n# code\n```\n\n漢字 👩‍👩‍👧 & <b>\n"
        found = parser.parse(text.encode(), "a.md")
        assert isinstance(found, Parsed)
        assert found.text == text
        assert found.title == "Höhe"
        assert not found.plain
        assert found.page_at(0) is None

    def test_plain_text_is_as_it_is_and_no_markdown(self, parser: Parser) -> None:
        """What looks like a heading in it is none."""
        found = parser.parse(b"# a comment\nx = 1\n", "notes.txt")
        assert isinstance(found, Parsed)
        assert (found.text, found.plain) == ("# a comment\nx = 1\n", True)

    def test_a_page_becomes_markdown(self, parser: Parser) -> None:
        """Headings, tables, code and references survive; scripts and the head do not become text."""
        page = (
            "<html><head><title>The &amp; title</title><script>let evil</script></head><body><h1>One</h1><p>a &lt; b"
            " &eacute;</p><pre>if x:\n  y</pre><table><tr><th>k</th><th>v</th></tr><tr><td>1</td><td>2</td></tr>"
        )
        found = parser.parse(page.encode(), "x", "text/html; charset=utf-8")
        assert isinstance(found, Parsed)
        assert found.title == "The & title"
        assert "# One" in found.text
        assert "| k | v |" in found.text
        assert "if x:\n  y" in found.text
        assert "é" in found.text
        assert "evil" not in found.text
        assert "title" not in found.text

    def test_formats_by_name_and_by_type(self, parser: Parser) -> None:
        """Upper case too; the type counts more than the ending; others are refused."""
        assert parser.reads("A.MD")
        assert parser.reads("download", "text/markdown")
        assert not parser.reads("a.exe")
        assert not parser.reads("")
        found = parser.parse(b"MZ", "a.exe")
        assert isinstance(found, Refused)
        assert found.reason == "unsupported"

    def test_nothing_in_it(self, parser: Parser) -> None:
        """No bytes, or only white space."""
        for document in (b"", b" \n\t\n"):
            found = parser.parse(document, "a.md")
            assert isinstance(found, Refused)
            assert found.reason == "empty"

    def test_a_file_that_is_too_large_is_not_read(self, parser: Parser, tmp_path: Path) -> None:
        """Whatever is in it."""
        with (tmp_path / "big.html").open("wb") as file:
            file.truncate(parser.max_bytes + 1)
        found = parser.parse(tmp_path / "big.html", "big.html")
        assert isinstance(found, Refused)
        assert found.reason == "too_large"
        assert str(parser.max_bytes) in found.why

    def test_noise_is_refused_or_read_and_never_raises(self, parser: Parser) -> None:
        """Random bytes under every name, and the parser goes on."""
        draw = random.Random(7)
        for name in ("a.md", "a.txt", "a.html", "a.pdf", "a.docx", "a.pptx", "a.csv"):
            if parser.reads(name):
                for size in (1, 100, 10_000):
                    assert isinstance(parser.parse(draw.randbytes(size), name), (Parsed, Refused))
        assert isinstance(parser.parse(b"<p>still here", "a.html"), Parsed)

    def test_a_file_that_is_not_there(self, parser: Parser, tmp_path: Path) -> None:
        """It is an error of the folder, not of the document."""
        with pytest.raises(StoreError):
            parser.parse(tmp_path / "gone.html", "gone.html")

    def test_threads_share_it(self, parser: Parser) -> None:
        """Each gets its own document."""
        wrong: list[int] = []

        def use(number: int) -> None:
            found = parser.parse(f"<p>document {number}".encode(), "a.html")
            if not isinstance(found, Parsed) or f"document {number}" not in found.text:
                wrong.append(number)

        threads = [threading.Thread(target=use, args=(number,)) for number in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        assert not wrong
