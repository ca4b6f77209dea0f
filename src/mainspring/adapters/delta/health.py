"""Whether tables can be listed and read."""

from __future__ import annotations

from mainspring.adapters.delta.tables import DeltaTables

__all__ = ["health"]


def health(tables: DeltaTables) -> dict[str, object]:
    """How many tables there are; each is looked at."""
    return {"tables": len([tables.version(name) for name in tables.tables()])}
