"""Images on their way: the base from its registry, ours to theirs, or into a folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from mainspring.deploy.image.blobs import BlobStore
from mainspring.deploy.image.manifest import (
    DOCKER_INDEX,
    OCI_INDEX,
    Base,
    Described,
    Manifest,
    descriptor,
    spelled,
)  # fmt: skip
from mainspring.deploy.image.reference import Reference
from mainspring.deploy.image.referrers import Attached, attach
from mainspring.deploy.image.registry import Registry
from mainspring.deploy.image.threads import side_by_side
from mainspring.errors import ConfigError, StoreError

__all__ = ["Built", "Sent", "Told", "base_of", "configs_of", "kept_layer", "pulled", "push", "write_layout"]

Told = Callable[[str], None]


class Built(msgspec.Struct, frozen=True):
    """An image that is ready to be sent.

    Attributes:
        manifests: one a platform.
        top: what its name stands for: the one manifest, or the index of all.
        base: where the base's blobs are.
        below: the digests of the base's layers.
    """

    manifests: tuple[Manifest, ...]
    top: Described
    base: Reference
    below: frozenset[str] = frozenset()


class Sent(msgspec.Struct, frozen=True):
    """What a push came to."""

    uploaded: int = 0
    mounted: int = 0
    there: int = 0
    bytes: int = 0


def base_of(registry: Registry, architecture: str, blobs: BlobStore) -> Base:
    """The base image for a platform, its tag resolved to a digest; what is known by its digest is not asked for again.

    Raises:
        ServiceError: MS-4080 to MS-4084.
        ConfigError: MS-3092, it is not made for the platform, or its manifest is of a kind that is no more.
    """
    at = registry.at
    digest, found = _of_platform(registry, architecture, blobs, "image.base")
    config = _object(found.config.data)
    return Base(str(Reference(at.host, at.name, at.tag)), found.described.digest, found.layers, config, digest)


def pulled(registry: Registry, architecture: str, blobs: BlobStore) -> Manifest:
    """An image's manifest and config for a platform; its layers are fetched when they are wanted.

    Raises:
        ServiceError: MS-4080 to MS-4084.
        ConfigError: MS-3092, it is not made for the platform, or its manifest is of a kind that is no more.
    """
    return _of_platform(registry, architecture, blobs, "--image")[1]


def configs_of(registry: Registry, blobs: BlobStore) -> list[bytes]:
    """The configs of an image, one a platform.

    Raises:
        ServiceError: MS-4080 to MS-4084.
    """
    at = registry.at
    top = _object(_manifest(registry, at.wanted, blobs).data)
    if "manifests" not in top:
        return [_small(registry, top["config"], blobs)]
    single = [one for one in top["manifests"] if (one.get("platform") or {}).get("os", "linux") == "linux"]
    found = [_object(_manifest(registry, str(one["digest"]), blobs).data) for one in single]
    return [_small(registry, one["config"], blobs) for one in found]


def _of_platform(registry: Registry, architecture: str, blobs: BlobStore, origin: str) -> tuple[str, Manifest]:
    """What a reference stands for: its digest, and the manifest for the platform."""
    at = registry.at
    digest = at.digest or registry.digest_of(at.tag)
    found = _manifest(registry, digest or at.wanted, blobs)
    document = _object(found.data)
    if found.media_type in (OCI_INDEX, DOCKER_INDEX) or "manifests" in document:
        entry = _for_platform(document, architecture, at, origin)
        found = _manifest(registry, str(entry["digest"]), blobs)
        document = _object(found.data)
    if "config" not in document:
        raise ConfigError(
            f"image {at} has a manifest of an old kind",
            code="MS-3092",
            why=found.media_type or "it names no config",
            origin=origin,
            fix="push it anew with a tool of this decade, or take another",
        )
    data = _small(registry, document["config"], blobs)
    of = str(_object(data).get("architecture", architecture))
    if of != architecture:
        raise _not_made(at, architecture, [f"linux/{of}"], origin)
    config = Described(str(document["config"].get("mediaType", "")), document["config"]["digest"], len(data), data)
    layers = tuple(Described(str(one["mediaType"]), one["digest"], one["size"]) for one in document["layers"])
    return digest, Manifest(found, config, layers, architecture)


def push(
    built: Built,
    to: Registry,
    source: Callable[[], Registry],
    blobs: BlobStore,
    tags: Sequence[str],
    told: Told,
    documents: Sequence[Attached] = (),
) -> Sent:
    """Bring an image into a repository: what is there is not sent, what the registry has elsewhere is mounted.

    Args:
        built: the image.
        to: the repository.
        source: opens the base's repository, when one of its blobs is wanted.
        blobs: where ours are, and where the base's go that must be sent.
        tags: the names that are to stand for it.
        told: told what is sent, a line at a time.
        documents: what is attached to its manifests.

    Returns:
        What came of the image's own blobs.

    Raises:
        ServiceError: MS-4080 to MS-4084; RefusedError: MS-5070.
    """
    top = built.top.digest
    asked = [*dict.fromkeys(tags), top, *(one.own.digest for one in documents)]
    there = dict(zip(asked, side_by_side(to.digest_of, asked), strict=True))
    names = [tag for tag in dict.fromkeys(tags) if there[tag] != top]
    lacking = [one for one in documents if not there[one.own.digest]]
    sent = Sent(there=sum(len(one.layers) + 1 for one in built.manifests))
    images = () if there[top] else built.manifests
    parts = [blob for one in lacking for blob in one.blobs]
    if images or parts:
        found = _push_blobs(images, parts, built, to, source, blobs, told)
        sent = found if images else sent
    for image in images:
        if image.described.digest != top:
            to.put_manifest(image.described.digest, image.described)
    for name in names or ([top] if images else []):  # what has a tag is there by its digest, too
        to.put_manifest(name, built.top)
    for one in lacking:
        attach(to, one)
    return sent


def _push_blobs(
    images: Sequence[Manifest],
    parts: Sequence[Described],
    built: Built,
    to: Registry,
    source: Callable[[], Registry],
    blobs: BlobStore,
    told: Told,
) -> Sent:
    """Send what the repository lacks of the images' blobs and of the parts of documents; what came of the images'."""
    elsewhere = built.base.host == to.at.host and built.base.name != to.at.name
    wanted = {one.digest: one for image in images for one in (*image.layers, image.config)}
    # The small ones first: it is they that change, and each takes three questions where the others take one.
    todo = sorted((wanted | {one.digest: one for one in parts}).values(), key=lambda one: one.size)

    def send(one: Described) -> Sent:
        if to.has_blob(one.digest):
            return Sent(there=1)
        if one.data:
            to.put_blob(one.digest, one.size, one.content)
            return Sent(uploaded=1, bytes=one.size)
        if one.digest in built.below and elsewhere and to.mount(one.digest, built.base.name):
            return Sent(mounted=1)
        path = _at_hand(one, source, blobs)
        told(f"sending {one.digest[7:19]}, {one.size / 1e6:.1f} MB")
        to.upload(one.digest, one.size, path)
        return Sent(uploaded=1, bytes=one.size)

    done = [came for one, came in zip(todo, side_by_side(send, todo), strict=True) if one.digest in wanted]
    return Sent(*(sum(getattr(one, part) for one in done) for part in ("uploaded", "mounted", "there", "bytes")))


def write_layout(built: Built, folder: Path, source: Callable[[], Registry], blobs: BlobStore, name: str) -> None:
    """Write an image as an OCI layout, which skopeo, podman, umoci and others read.

    Args:
        built: the image.
        folder: where; blobs that are there stay.
        source: opens the base's repository.
        blobs: where ours are.
        name: the reference's name in the layout.

    Raises:
        StoreError: MS-4111, the folder cannot be written; MS-4101, the disk is full.
    """
    at = folder / "blobs" / "sha256"
    try:
        at.mkdir(parents=True, exist_ok=True)
        for image in built.manifests:
            for one in image.layers:
                if not (there := at / one.digest[7:]).exists() or there.stat().st_size != one.size:
                    _placed(_at_hand(one, source, blobs), there)
            for one in (image.config, image.described):
                (at / one.digest[7:]).write_bytes(one.data)
        (at / built.top.digest[7:]).write_bytes(built.top.data)
        entry = descriptor(built.top, annotations={"org.opencontainers.image.ref.name": name})
        (folder / "index.json").write_bytes(spelled({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}))
        (folder / "oci-layout").write_bytes(spelled({"imageLayoutVersion": "1.0.0"}))
    except OSError as error:
        raise StoreError(
            "the layout cannot be written",
            code="MS-4111",
            why=str(error.strerror or error),
            origin="--layout",
            fix="name a folder that you may write to",
        ) from error


def _placed(blob: Path, there: Path) -> None:
    """Copy a blob into a layout; the name appears with the whole content."""
    part = there.with_name(f"{there.name}.part")
    shutil.copyfile(blob, part)
    os.replace(part, there)


def _at_hand(one: Described, source: Callable[[], Registry], blobs: BlobStore) -> Path:
    if not blobs.has(one.digest, one.size):
        registry = source()
        with blobs.writing() as (file, keep):
            registry.fetch(one.digest, file)
            keep(one.digest)
    return blobs.path(one.digest)


def kept_layer(one: Described, registry: Registry | None, blobs: BlobStore) -> Path:
    """A layer's blob on this machine, fetched when it is not here.

    Raises:
        ServiceError: MS-4080 to MS-4084.
    """

    def source() -> Registry:
        assert registry is not None, "a layer that was built here is here"
        return registry

    return _at_hand(one, source, blobs)


def _manifest(registry: Registry, wanted: str, blobs: BlobStore) -> Described:
    """A manifest, kept on this machine once it is known by its digest."""
    if wanted.startswith("sha256:") and blobs.path(wanted).exists():
        data = blobs.path(wanted).read_bytes()
        kind = str(_object(data).get("mediaType", ""))
        return Described(kind, wanted, len(data), data)
    found = registry.manifest(wanted)
    blobs.put(found.data)
    return found


def _small(registry: Registry, entry: dict[str, Any], blobs: BlobStore) -> bytes:
    digest, size = str(entry["digest"]), int(entry["size"])
    if not blobs.has(digest, size):
        blobs.put(registry.blob(digest))
    return blobs.path(digest).read_bytes()


def _for_platform(index: dict[str, Any], architecture: str, at: Reference, origin: str) -> dict[str, Any]:
    platforms = []
    for entry in index["manifests"]:
        platform = entry.get("platform") or {}
        if platform.get("os", "linux") == "linux" and platform.get("architecture") == architecture:
            return dict(entry)
        platforms.append(f"{platform.get('os', '?')}/{platform.get('architecture', '?')}")
    raise _not_made(at, architecture, platforms, origin)


def _not_made(at: Reference, architecture: str, platforms: Sequence[str], origin: str) -> ConfigError:
    return ConfigError(
        f"image {at} is not made for linux/{architecture}",
        code="MS-3092",
        why=f"there are: {', '.join(dict.fromkeys(platforms))}",
        origin=origin,
        fix="name one for that platform, or set image.platforms",
    )


def _object(data: bytes) -> dict[str, Any]:
    return msgspec.json.decode(data, type=dict[str, Any])
