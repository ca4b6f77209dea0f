"""Delta Lake tables through delta-rs, on local disks."""

from mainspring.ports.adapter import Adapter

__all__ = ["ADAPTER"]

ADAPTER = Adapter(
    port="tables",
    name="delta",
    factory="mainspring.adapters.delta.tables:open_tables",
    settings="mainspring.adapters.delta.settings:DeltaSettings",
    embedded=True,
    schemes=("file",),
    modules=("deltalake", "pyarrow"),
    extra="tabular",
    capabilities={"versions": True, "files": "local", "evolution": "add"},
)
