"""skops' errors turned into cause and remedy."""

from __future__ import annotations

from mainspring.errors import RefusedError, StoreError

__all__ = ["damaged", "untrusted"]


def damaged(file: str, error: Exception) -> StoreError:
    """A file that is no estimator."""
    return StoreError(
        f"model file {file!r} cannot be loaded",
        code="MS-4150",
        why=str(error).splitlines()[0][:200],
        fix="train the model again: mainspring run NAME --force",
    )


def untrusted(file: str, types: list[str]) -> RefusedError:
    """A file with types that nobody has allowed."""
    return RefusedError(
        f"model file {file!r} holds types that are not trusted",
        code="MS-5030",
        why=", ".join(types[:5]),
        fix='if they are yours: runtime.trust = ["' + '", "'.join(types[:5]) + '"]',
    )
