"""Whether it can run."""

from __future__ import annotations

import platform

__all__ = ["health"]


def health(runtime: object) -> dict[str, object]:
    """Python's version."""
    return {"version": platform.python_version()}
