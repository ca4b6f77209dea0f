"""The online store in Redis or Valkey, and budgets of several servers."""

from mainspring.ports.adapter import Adapter

__all__ = ["ADAPTER", "BUDGETS"]

ADAPTER = Adapter(
    port="online",
    name="redis",
    factory="mainspring.adapters.redis.online_store:open_store",
    settings="mainspring.adapters.redis.settings:RedisSettings",
    schemes=("redis", "rediss", "unix"),
    modules=("redis",),
    extra="redis",
    capabilities={"max_key": 1 << 29, "max_value": 1 << 29, "expiry": False, "replicas": 64},
)

BUDGETS = Adapter(
    port="budgets",
    name="redis",
    factory="mainspring.adapters.redis.budgets:open_budgets",
    settings="mainspring.adapters.redis.settings:RedisSettings",
    schemes=("redis", "rediss", "unix"),
    modules=("redis",),
    extra="redis",
    capabilities={"replicas": 64},
)
