"""Documents that are attached to an image, by the referrers of the OCI specification 1.1."""

from __future__ import annotations

from typing import Any

import msgspec

from mainspring.deploy.image.manifest import OCI_INDEX, OCI_MANIFEST, Described, described, descriptor, spelled
from mainspring.deploy.image.registry import Registry

__all__ = ["Attached", "attach", "attached"]

_EMPTY_TYPE = "application/vnd.oci.empty.v1+json"


class Attached(msgspec.Struct, frozen=True):
    """A document that belongs to a manifest.

    Attributes:
        own: its own manifest.
        kind: the media type of the document.
        subject: the digest of what it is attached to.
        blobs: what must be in the repository before it.
    """

    own: Described
    kind: str
    subject: str
    blobs: tuple[Described, ...]


def attached(subject: Described, kind: str, data: bytes) -> Attached:
    """A document as it is attached to a manifest."""
    document, empty = described(kind, data), described(_EMPTY_TYPE, b"{}")
    manifest = spelled(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": kind,
            "config": descriptor(empty),
            "layers": [descriptor(document)],
            "subject": descriptor(Described(subject.media_type, subject.digest, subject.size)),
        }
    )
    return Attached(described(OCI_MANIFEST, manifest), kind, subject.digest, (empty, document))


def attach(to: Registry, one: Attached) -> None:
    """Attach a document whose blobs are in the repository.

    Where the registry keeps no referrers, they are listed under the tag that the specification falls back to.

    Raises:
        ServiceError: MS-4080 to MS-4084; RefusedError: MS-5070.
    """
    headers = {name.lower(): value for name, value in to.put_manifest(one.own.digest, one.own).items()}
    if headers.get("oci-subject") == one.subject:
        return
    tag = one.subject.replace(":", "-")
    known = _listed(to, tag) if to.digest_of(tag) else []
    listed = {entry["digest"]: entry for entry in known} | {one.own.digest: descriptor(one.own, artifactType=one.kind)}
    index = spelled(
        {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [listed[name] for name in sorted(listed)]}
    )
    to.put_manifest(tag, Described(OCI_INDEX, "", len(index), index))


def _listed(to: Registry, tag: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = msgspec.json.decode(to.manifest(tag).data, type=dict[str, Any])["manifests"]
    return found
