"""Sources in Oracle Database."""

from mainspring.ports.adapter import Adapter

__all__ = ["ADAPTER"]

ADAPTER = Adapter(
    port="source",
    name="oracle",
    factory="mainspring.adapters.oracle.source:open_source",
    settings="mainspring.ports.source:SourceSettings",
    schemes=("oracle",),
    modules=("oracledb", "pyarrow"),
    extra="oracle",
    capabilities={"reads": "relation"},
)
