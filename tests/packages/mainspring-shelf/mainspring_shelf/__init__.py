"""Online features in one SQLite file; an adapter that is not part of Mainspring."""

from mainspring.ports.adapter import Adapter

__all__ = ["ADAPTER"]

ADAPTER = Adapter(
    port="online",
    name="shelf",
    factory="mainspring_shelf.online_store:open_store",
    settings="mainspring_shelf.settings:ShelfSettings",
    schemes=("shelf",),
    extra="mainspring-shelf",
    capabilities={"max_key": 400, "max_value": 1 << 30, "expiry": False, "replicas": 1},
)
