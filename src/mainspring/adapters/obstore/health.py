"""Whether blobs can be written."""

from __future__ import annotations

from mainspring.adapters.obstore.objects import BucketObjects

__all__ = ["health"]


def health(objects: BucketObjects) -> dict[str, object]:
    """Write and read back a small blob."""
    blob = objects.put(b"mainspring")
    return {"writable": objects.get(blob.digest) == b"mainspring"}
