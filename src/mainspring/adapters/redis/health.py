"""Whether the server answers."""

from __future__ import annotations

from mainspring.adapters.redis.budgets import RedisBudgets
from mainspring.adapters.redis.online_store import RedisStore

__all__ = ["health"]


def health(store: RedisStore | RedisBudgets) -> dict[str, object]:
    """That it answers; raises as a read does when it cannot."""
    return {"answers": store.answers()}
