"""Generated files with places that are the user's: what stands there is kept when the file is made again."""

from __future__ import annotations

import hashlib
import re

from mainspring.errors import UsageError

__all__ = ["closed", "is_touched", "merged", "opened", "sealed", "settled"]

_OPEN = re.compile(r"^(\s*(?:#|//)) >>> yours: ([a-z-]+)\b.*$")
_CLOSE = re.compile(r"^\s*(?:#|//) <<< yours: ([a-z-]+)$")
_SEAL = re.compile(r"^((?:#|//) mainspring seal )([0-9a-f]{16})$", re.MULTILINE)
_PIN = re.compile(r"(uses: [\w.-]+/[\w./-]+)@([0-9a-f]{40})( # \S+)?")
_UNSEALED = "0" * 16


def opened(name: str, hint: str, comment: str = "#") -> str:
    """The line that begins a block of the user's."""
    return f"{comment} >>> yours: {name}. {hint}"


def closed(name: str, comment: str = "#") -> str:
    """The line that ends it."""
    return f"{comment} <<< yours: {name}"


def sealed(text: str, comment: str = "#") -> str:
    """A generated file with a digest of itself before it, by which changes outside of the user's blocks are seen."""
    return f"{comment} mainspring seal {_digest(text)}\n{text}"


def is_touched(text: str) -> bool:
    """Whether a file was changed outside of the blocks, or is not ours at all; raised pins of actions do not count."""
    found = _SEAL.search(text)
    return found is None or found[2] != _digest(_SEAL.sub("", text, count=1).removeprefix("\n"))


def _digest(text: str) -> str:
    bare = _PIN.sub(r"\1", "\n".join(line for line, inside in _lines(text) if not inside))
    return hashlib.blake2b(bare.strip().encode(), digest_size=8).hexdigest()


def _lines(text: str) -> list[tuple[str, str]]:
    """The lines, each with the block that it is in."""
    found, inside = [], ""
    for line in text.splitlines():
        if _CLOSE.match(line):
            inside = ""
        found.append((line, inside))
        if match := _OPEN.match(line):
            inside = match[2]
    return found


def settled(text: str) -> dict[str, list[str]]:
    """What stands in the blocks, by name."""
    found: dict[str, list[str]] = {}
    for line, inside in _lines(text):
        if inside:
            found.setdefault(inside, []).append(line)
    return found


def merged(new: str, old: str, place: str) -> str:
    """A newly generated file with what the old one holds of the user's: blocks, and raised pins.

    Args:
        new: as it is generated.
        old: as it is there.
        place: the file's name, for errors.

    Raises:
        UsageError: MS-2786, the old one has a block that the new one has not.
    """
    kept, pins = settled(old), {match[1]: match for match in _PIN.finditer(old)}
    lines: list[str] = []
    for line in new.splitlines():
        lines.append(line)
        match = _OPEN.match(line)
        if match:
            lines += kept.pop(match[2], [])
    if kept:
        raise UsageError(
            f"{place} has a block that is not generated any more: {', '.join(sorted(kept))}",
            code="MS-2786",
            why="what stands in it is yours, and would be lost",
            origin=place,
            fix="move its lines into another block, and take its marks away",
        )
    text = "\n".join(lines) + "\n"
    return _PIN.sub(lambda found: pins[found[1]][0] if found[1] in pins else found[0], text)
