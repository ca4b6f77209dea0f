"""Delta Lake tables through delta-rs, on local disks and in S3."""

from mainspring.ports.adapter import Adapter

__all__ = ["ADAPTER", "S3"]

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

S3 = Adapter(
    port="tables",
    name="delta-s3",
    factory="mainspring.adapters.delta.remote:open_remote",
    settings="mainspring.adapters.delta.settings:RemoteSettings",
    schemes=("s3", "s3a"),
    modules=("deltalake", "pyarrow", "obstore"),
    extra="aws",
    capabilities={"versions": True, "files": "cached", "evolution": "add", "writers": "one state folder"},
)
