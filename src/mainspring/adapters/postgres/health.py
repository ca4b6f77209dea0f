"""Whether the server answers."""

from __future__ import annotations

from mainspring.adapters.postgres.threads import PostgresThreads

__all__ = ["health"]


def health(threads: PostgresThreads) -> dict[str, object]:
    """That it answers; raises as a read does when it cannot."""
    threads.get("")
    return {"answers": True}
