"""Settings of the kreuzberg adapter."""

from typing import Annotated, Literal

import msgspec

__all__ = ["KreuzbergSettings"]


class KreuzbergSettings(msgspec.Struct, frozen=True):
    """What is read, and how much it may cost.

    Attributes:
        pdf: ``fast`` is pdfium's text with the headings that bookmarks or larger letters tell; ``structured`` is
            kreuzberg's Markdown, with what it takes for headings, lists and tables, in about eight times the time.
        max_bytes: the largest file that is read.
        max_characters: the longest text that a document may give.
        timeout: seconds that one document may take.
        memory: bytes of address space of one child process.
        workers: child processes; 0 is one a core.
    """

    pdf: Literal["fast", "structured"] = "fast"
    max_bytes: Annotated[int, msgspec.Meta(ge=1)] = 100_000_000
    max_characters: Annotated[int, msgspec.Meta(ge=1)] = 20_000_000
    timeout: Annotated[float, msgspec.Meta(gt=0)] = 60.0
    memory: Annotated[int, msgspec.Meta(ge=1 << 28)] = 2 << 30
    workers: Annotated[int, msgspec.Meta(ge=0)] = 0
