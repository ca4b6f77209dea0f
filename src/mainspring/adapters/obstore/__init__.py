"""Buckets that sources and blobs are in: S3 and what speaks like it, Google Cloud Storage, Azure Blob Storage."""

from mainspring.ports.adapter import Adapter

__all__ = ["AZURE", "AZURE_OBJECTS", "GCS", "GCS_OBJECTS", "S3", "S3_OBJECTS"]


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


def _objects(name: str, extra: str, *schemes: str) -> Adapter:
    return Adapter(
        port="objects",
        name=name,
        factory="mainspring.adapters.obstore.objects:open_objects",
        settings="mainspring.adapters.obstore.settings:BucketSettings",
        schemes=schemes,
        modules=("obstore",),
        extra=extra,
        capabilities={"replicas": 64, "network_disk": True, "forks": False},
    )


S3_OBJECTS = _objects("s3", "aws", "s3", "s3a")
GCS_OBJECTS = _objects("gcs", "gcp", "gs")
AZURE_OBJECTS = _objects("azure", "azure", "az")
