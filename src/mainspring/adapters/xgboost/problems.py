"""XGBoost's errors turned into cause and remedy."""

from __future__ import annotations

from mainspring.errors import StoreError

__all__ = ["damaged"]


def damaged(file: str, error: Exception) -> StoreError:
    """A file that is no booster."""
    return StoreError(
        f"model file {file!r} cannot be loaded",
        code="MS-4150",
        why=(str(error).strip().splitlines() or [type(error).__name__])[0][:200],
        fix="train the model again: mainspring run NAME --force",
    )
