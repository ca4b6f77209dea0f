"""Object stores that sources are in: S3 and what speaks like it, Google Cloud Storage, Azure Blob Storage."""

from mainspring.ports.adapter import Adapter

__all__ = ["AZURE", "GCS", "S3"]


def _adapter(name: str, extra: str, *schemes: str) -> Adapter:
    return Adapter(
        port="source",
        name=name,
        factory="mainspring.adapters.obstore.source:open_source",
        settings="mainspring.ports.source:SourceSettings",
        schemes=schemes,
        modules=("obstore", "pyarrow"),
        extra=extra,
        capabilities={"reads": "files"},
    )


S3 = _adapter("s3", "aws", "s3", "s3a")
GCS = _adapter("gcs", "gcp", "gs")
AZURE = _adapter("azure", "azure", "az")
