"""skops' errors turned into cause and remedy."""

from __future__ import annotations

from mainspring.errors import RefusedError

__all__ = ["untrusted"]


def untrusted(file: str, types: list[str]) -> RefusedError:
    """A file with types that nobody has allowed."""
    return RefusedError(
        f"model file {file!r} holds types that are not trusted",
        code="MS-5030",
        why=", ".join(types[:5]),
        fix='if they are yours: runtime.trust = ["' + '", "'.join(types[:5]) + '"]',
    )
