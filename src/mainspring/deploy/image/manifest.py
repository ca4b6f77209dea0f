"""Configs, manifests and indexes: pure functions from layers to bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from mainspring.deploy.image.layer import Codec, Layer

__all__ = [
    "DOCKER_INDEX",
    "DOCKER_MANIFEST",
    "OCI_INDEX",
    "OCI_MANIFEST",
    "VARIANTS",
    "Base",
    "Described",
    "Manifest",
    "Spec",
    "Variant",
    "described",
    "descriptor",
    "index_of",
    "manifest_of",
    "spelled",
]  # fmt: skip

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
_CONFIGS = {OCI_MANIFEST: "application/vnd.oci.image.config.v1+json"}
_CONFIGS[DOCKER_MANIFEST] = "application/vnd.docker.container.image.v1+json"
_SUFFIX: Mapping[Codec, str] = {"none": "", "gzip": "+gzip", "zstd": "+zstd"}
_DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
_OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"


class Described(msgspec.Struct, frozen=True):
    """A content and where it fits: a descriptor of the OCI image specification."""

    media_type: str
    digest: str
    size: int
    data: bytes = b""

    def content(self) -> bytes:
        """Its bytes, where they are at hand."""
        return self.data


class Base(msgspec.Struct, frozen=True):
    """What an image stands on.

    Attributes:
        reference: as it was asked for.
        digest: of its manifest for the platform.
        layers: the descriptors of its layers.
        config: its config.
        asked: the digest that its tag stood for: of the index, where there is one.
    """

    reference: str
    digest: str
    layers: tuple[Described, ...] = ()
    config: Mapping[str, Any] = msgspec.field(default_factory=dict)
    asked: str = ""


class Variant(msgspec.Struct, frozen=True):
    """What a target wants otherwise of the same layers.

    Attributes:
        name: how it is asked for.
        user: who the process is, ``uid:gid``.
        docker: whether the manifest is spelled as Docker's v2 schema 2, for registries and services that take no other.
    """

    name: str
    user: str = "10001:10001"
    docker: bool = False


VARIANTS = {
    one.name: one
    for one in (
        Variant("kubernetes"),
        Variant("vertex"),
        Variant("azureml"),
        Variant("docker", docker=True),
        Variant("sagemaker", user="0", docker=True),
    )
}
"""What `mainspring build --for` takes. SageMaker takes root and Docker manifests alone."""


class Spec(msgspec.Struct, frozen=True):
    """What the container runs, besides its layers.

    Attributes:
        architecture: as Go calls it: ``amd64``.
        epoch: when it was made, in seconds since 1970.
        environment: variables of the process.
        command: what it runs; arguments come after it.
        folder: where it starts.
        port: which port it answers at.
        labels: facts that a registry or a cluster shows.
    """

    architecture: str
    epoch: int
    environment: Mapping[str, str]
    command: Sequence[str]
    folder: str
    port: int
    labels: Mapping[str, str]


class Manifest(msgspec.Struct, frozen=True):
    """A manifest with its config and its layers, the base's first."""

    described: Described
    config: Described
    layers: tuple[Described, ...]
    architecture: str


def spelled(value: object) -> bytes:
    """JSON in its one spelling: keys sorted, nothing between."""
    return msgspec.json.encode(value, order="sorted")


def descriptor(found: Described, **more: object) -> dict[str, object]:
    """A descriptor as JSON holds it."""
    return {"mediaType": found.media_type, "digest": found.digest, "size": found.size, **more}


def described(media_type: str, data: bytes) -> Described:
    """A content by its own bytes."""
    return Described(media_type, f"sha256:{hashlib.sha256(data).hexdigest()}", len(data), data)


def manifest_of(base: Base, layers: Sequence[Layer], spec: Spec, variant: Variant) -> Manifest:
    """The manifest and the config of an image: the base's layers, then ours.

    Args:
        base: what it stands on.
        layers: ours, in order.
        spec: what it runs.
        variant: what its target wants otherwise.
    """
    kind = DOCKER_MANIFEST if variant.docker else OCI_MANIFEST
    config = described(_CONFIGS[kind], spelled(_config(base, layers, spec, variant)))
    own = [Described(_layer_type(layer.codec, variant.docker), layer.digest, layer.size) for layer in layers]
    below = [Described(_retyped(one.media_type, variant.docker), one.digest, one.size) for one in base.layers]
    document = {
        "schemaVersion": 2,
        "mediaType": kind,
        "config": descriptor(config),
        "layers": [descriptor(one) for one in (*below, *own)],
    }
    if not variant.docker:
        document["annotations"] = {
            "org.opencontainers.image.base.digest": base.digest,
            "org.opencontainers.image.base.name": base.reference,
        }
    return Manifest(described(kind, spelled(document)), config, (*below, *own), spec.architecture)


def index_of(manifests: Sequence[Manifest]) -> Described:
    """An index of the same image for several platforms, in the order of their architectures."""
    found = sorted(manifests, key=lambda item: item.architecture)
    entries = [descriptor(one.described, platform={"architecture": one.architecture, "os": "linux"}) for one in found]
    return described(OCI_INDEX, spelled({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}))


def _config(base: Base, layers: Sequence[Layer], spec: Spec, variant: Variant) -> dict[str, object]:
    created = datetime.fromtimestamp(spec.epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    under = base.config.get("config") or {}
    environment = dict(line.partition("=")[::2] for line in under.get("Env") or []) | dict(spec.environment)
    below = list((base.config.get("rootfs") or {}).get("diff_ids") or [])
    history = list(base.config.get("history") or [])
    history += [{"created": created, "created_by": "mainspring build", "comment": layer.title} for layer in layers]
    return {
        "architecture": spec.architecture,
        "os": "linux",
        "created": created,
        "config": {
            "User": variant.user,
            "ExposedPorts": {f"{spec.port}/tcp": {}},
            "Env": [f"{name}={value}" for name, value in sorted(environment.items())],
            "Entrypoint": list(spec.command),
            "WorkingDir": spec.folder,
            "Labels": {**(under.get("Labels") or {}), **spec.labels},
            "StopSignal": "SIGTERM",
        },
        "rootfs": {"type": "layers", "diff_ids": [*below, *(layer.diff_id for layer in layers)]},
        "history": history,
    }


def _layer_type(codec: Codec, docker: bool) -> str:
    if docker:
        return _DOCKER_LAYER + (".gzip" if codec == "gzip" else "")
    return _OCI_LAYER + _SUFFIX[codec]


def _retyped(media_type: str, docker: bool) -> str:
    """A base's layer as the manifest's own kind calls it."""
    for codec, suffix in _SUFFIX.items():
        if media_type in (_OCI_LAYER + suffix, _layer_type(codec, docker=True)):
            return _layer_type(codec, docker)
    return media_type
