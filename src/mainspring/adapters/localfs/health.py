"""Whether blobs can be written."""

from __future__ import annotations

from mainspring.adapters.localfs.objects import LocalObjects

__all__ = ["health"]


def health(objects: LocalObjects) -> dict[str, object]:
    """Write and read back a small blob."""
    blob = objects.put(b"mainspring")
    return {"writable": objects.get(blob.digest) == b"mainspring"}
