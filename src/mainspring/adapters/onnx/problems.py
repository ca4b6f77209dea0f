"""The converters' errors turned into one line."""

from __future__ import annotations

__all__ = ["reason"]


def reason(error: Exception) -> str:
    """Why an estimator cannot be converted, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"[:300]
