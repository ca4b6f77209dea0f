"""What can be wrong with a pickled object, as cause and remedy."""

from __future__ import annotations

from mainspring.errors import RefusedError, StoreError

__all__ = ["damaged", "untrusted"]


def damaged(file: str, error: BaseException) -> StoreError:
    """A file that is no object, or one whose class is not there any more."""
    return StoreError(
        f"model file {file!r} cannot be loaded",
        code="MS-4150",
        why=f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"[:200],
        fix="keep the model's class where it was when it was trained, or train again: mainspring run NAME --force",
    )


def untrusted(file: str, why: str) -> RefusedError:
    """A file that runs code, and that nobody vouches for."""
    return RefusedError(
        f"model file {file!r} runs code when it is loaded, and nobody vouches for it",
        code="MS-4341",
        why=why,
        fix="train the model with this project: its catalog then records what it has made",
    )
