"""What an image that was pushed says of itself, before it is deployed."""

from __future__ import annotations

from typing import Any

import msgspec

from mainspring.choose.services import Services
from mainspring.deploy.image.blobs import BlobStore
from mainspring.deploy.image.build import image_store
from mainspring.deploy.image.reference import reference_of
from mainspring.deploy.image.registry import Registry
from mainspring.deploy.image.transport import configs_of
from mainspring.errors import MainspringError
from mainspring.ports.target import Finding, ImageFacts

__all__ = ["facts_of", "read_facts"]

_MISSING = "MS-4082"


def facts_of(services: Services, image: str) -> ImageFacts | Finding:
    """What an image says of itself; or why that is not known, which stops only when its registry has no such image.

    A registry that this machine cannot reach may well be reached by those that pull from it.
    """
    try:
        return read_facts(Registry(reference_of(image), tries=1), image_store(services))
    except MainspringError as error:
        if error.code == _MISSING:
            return Finding("error", f"the registry has no {image}", "mainspring build --image")
        return Finding("warning", f"the image cannot be looked at from here: {error.why or error.what}")


def read_facts(registry: Registry, blobs: BlobStore) -> ImageFacts:
    """What the image of a reference says of itself; of several platforms all are told, and the first is read.

    Raises:
        ServiceError: MS-4080 to MS-4084.
    """
    configs = [msgspec.json.decode(data, type=dict[str, Any]) for data in configs_of(registry, blobs)]
    run = configs[0].get("config") or {}
    labels = run.get("Labels") or {}
    return ImageFacts(
        user=str(run.get("User") or ""),
        entrypoint=tuple(run.get("Entrypoint") or ()),
        platforms=tuple(f"{one.get('os', 'linux')}/{one.get('architecture', '')}" for one in configs),
        profile=str(labels.get("mainspring.dev/profile", "")),
        ray=str(labels.get("mainspring.dev/ray", "")),
    )
