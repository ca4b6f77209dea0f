"""Whether a child process reads a document."""

from __future__ import annotations

from mainspring.adapters.kreuzberg.parser import KreuzbergParser
from mainspring.ports.parser import Parsed

__all__ = ["health"]


def health(parser: KreuzbergParser) -> dict[str, object]:
    """Read a small page."""
    found = parser.parse(b"<h1>Anybody there?</h1>", "health.html")
    return {"parser": parser.id, "reads": isinstance(found, Parsed) and "Anybody there?" in found.text}
