"""The online store in one LMDB file, inside the process."""

from mainspring.ports.adapter import Adapter

__all__ = ["ADAPTER"]

ADAPTER = Adapter(
    port="online",
    name="lmdb",
    factory="mainspring.adapters.lmdb.online_store:open_store",
    settings="mainspring.adapters.lmdb.settings:LmdbSettings",
    embedded=True,
    schemes=("lmdb",),
    modules=("lmdb",),
    extra="tabular",
    capabilities={"max_key": 511, "max_value": 1 << 31, "expiry": False, "replicas": 1},
)
