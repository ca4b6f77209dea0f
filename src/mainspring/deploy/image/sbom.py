"""The bill of materials of an image, as CycloneDX 1.6."""

from __future__ import annotations

import email.parser
import uuid
from collections.abc import Mapping, Sequence

from mainspring.deploy.image.blobs import BlobStore
from mainspring.deploy.image.manifest import Base, spelled
from mainspring.deploy.image.wheels import Wheel, metadata_of

__all__ = ["MEDIA_TYPE", "bill_of", "distributions"]

MEDIA_TYPE = "application/vnd.cyclonedx+json"
_FORMAT = 1
_LONGEST = 200
"""A licence in more characters is a licence's text, not its name."""


def distributions(wheels: Sequence[Wheel], store: BlobStore) -> list[dict[str, object]]:
    """A component for each wheel, read from the wheels once and kept by their digests."""
    made_of = [_FORMAT, *([wheel.pin.name, wheel.sha256] for wheel in wheels)]
    return store.kept("bills", made_of, list[dict[str, object]], lambda: [_distribution(wheel) for wheel in wheels])


def bill_of(
    name: str,
    digest: str,
    base: Base,
    wheels: Sequence[dict[str, object]],
    models: Mapping[str, str],
    own: str,
) -> bytes:
    """The bill of an image: its base, each distribution with its hash and licence, and each model.

    Args:
        name: the app's name.
        digest: of the image's manifest.
        base: what it stands on.
        wheels: the distributions in it, as `distributions` gives them.
        models: the digest of each model's layer, by the model's name.
        own: the version of mainspring that built it.
    """
    components = list(wheels)
    components += [
        {
            "type": "machine-learning-model",
            "bom-ref": f"model:{model}",
            "name": model,
            "version": found[7:23],
            "hashes": [{"alg": "SHA-256", "content": found[7:]}],
        }
        for model, found in sorted(models.items())
    ]
    components.append(
        {
            "type": "container",
            "bom-ref": "base",
            "name": base.reference,
            "version": base.digest,
            "hashes": [{"alg": "SHA-256", "content": base.digest[7:]}],
        }
    )
    return spelled(
        {
            "bomFormat": "CycloneDX",
            "specVersion": "1.6",
            "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, digest)}",
            "version": 1,
            "metadata": {
                "component": {
                    "type": "container",
                    "bom-ref": "image",
                    "name": name,
                    "version": digest,
                    "hashes": [{"alg": "SHA-256", "content": digest[7:]}],
                },
                "tools": {"components": [{"type": "application", "name": "mainspring", "version": own}]},
            },
            "components": sorted(components, key=lambda item: str(item["bom-ref"])),
            "dependencies": [
                {"ref": "image", "dependsOn": sorted(str(item["bom-ref"]) for item in components)},
            ],
        }
    )


def _distribution(wheel: Wheel) -> dict[str, object]:
    read = email.parser.HeaderParser().parsestr(metadata_of(wheel))
    purl = f"pkg:pypi/{wheel.pin.name}@{wheel.pin.version}"
    found: dict[str, object] = {
        "type": "library",
        "bom-ref": purl,
        "name": wheel.pin.name,
        "version": wheel.pin.version,
        "purl": purl,
        "hashes": [{"alg": "SHA-256", "content": wheel.sha256}],
    }
    if summary := (read.get("Summary") or "").strip():
        found["description"] = summary
    expression = (read.get("License-Expression") or "").strip()
    named = (read.get("License") or "").strip()
    classified = [
        line.rpartition(" :: ")[2] for line in read.get_all("Classifier", []) if line.startswith("License :: ")
    ]
    if expression:
        found["licenses"] = [{"expression": expression}]
    elif named and "\n" not in named and len(named) < _LONGEST:
        found["licenses"] = [{"license": {"name": named}}]
    elif classified:
        found["licenses"] = [{"license": {"name": name}} for name in classified]
    return found
