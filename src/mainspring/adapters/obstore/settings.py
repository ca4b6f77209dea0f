"""Settings of the object store in a bucket."""

from typing import Annotated

import msgspec

__all__ = ["BucketSettings"]


class BucketSettings(msgspec.Struct, frozen=True):
    """Where the blobs are, and how the store is reached.

    Attributes:
        url: ``s3://bucket/path``, ``gs://bucket/path`` or ``az://container/path``; credentials belong into `options` or
            the environment.
        options: the driver's options: ``region``, ``endpoint``, ``access_key_id``, ``account_name``, ...
        cache_bytes: bytes of blobs that are kept on the local disk; those used within the last hour stay beyond that.
        connect_seconds: how long a connection may take.
        seconds: how long a request may take.
    """

    url: str
    options: dict[str, str] = {}
    cache_bytes: Annotated[int, msgspec.Meta(ge=0)] = 16 << 30
    connect_seconds: Annotated[float, msgspec.Meta(gt=0)] = 10.0
    seconds: Annotated[float, msgspec.Meta(gt=0)] = 300.0
