"""Delta Lake tables through delta-rs, on local disks, in S3, Google Cloud Storage and Azure Blob Storage."""

from mainspring.ports.adapter import Adapter

__all__ = ["ADAPTER", "AZURE", "GCS", "S3"]

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


def _remote(name: str, extra: str, *schemes: str) -> Adapter:
    return Adapter(
        port="tables",
        name=name,
        factory="mainspring.adapters.delta.remote:open_remote",
        settings="mainspring.adapters.delta.settings:RemoteSettings",
        schemes=schemes,
        modules=("deltalake", "pyarrow", "obstore"),
        extra=extra,
        capabilities={"versions": True, "files": "cached", "evolution": "add", "writers": "one state folder"},
    )


S3 = _remote("delta-s3", "aws", "s3", "s3a")
GCS = _remote("delta-gcs", "gcp", "gs")
AZURE = _remote("delta-azure", "azure", "az")
