"""An image on this machine, unpacked: its own layers each by itself, and what they stand on for a container."""

from __future__ import annotations

import contextlib
import gzip
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO, cast

import msgspec

from mainspring.deploy.image.blobs import BlobStore
from mainspring.deploy.image.manifest import OCI_MANIFEST, Described, Manifest, described, descriptor, spelled
from mainspring.deploy.image.reference import Reference
from mainspring.deploy.image.registry import Registry
from mainspring.deploy.image.transport import Built, kept_layer, write_layout
from mainspring.errors import RefusedError, StoreError
from mainspring.lazy import lazy

if TYPE_CHECKING:
    import zstandard
else:
    zstandard = lazy("zstandard")

__all__ = ["Unpacked", "linked", "python_of", "rootfs", "unpacked"]

_MODELS = ("app", "models")
_CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"


class Unpacked(msgspec.Struct, frozen=True):
    """An image whose own layers are unpacked.

    Attributes:
        manifest: of the image.
        config: its config.
        places: where in the image something of ours is, and where it is here: ``app/deps``, ``app/models/late``.
    """

    manifest: Manifest
    config: Mapping[str, Any]
    places: Mapping[str, Path]

    @property
    def run(self) -> Mapping[str, Any]:
        """What it runs: ``Entrypoint``, ``Env``, ``WorkingDir``, ``Labels``."""
        return cast("Mapping[str, Any]", self.config.get("config") or {})


def python_of(config: Mapping[str, Any]) -> str:
    """The Python that an image of ours was built for, such as ``3.11``; empty when it does not say."""
    run = config.get("config") or {}
    return str((run.get("Labels") or {}).get("mainspring.dev/python", ""))


def unpacked(manifest: Manifest, registry: Registry | None, blobs: BlobStore) -> Unpacked:
    """Unpack the layers that `mainspring build` has made; one that is unpacked already is taken as it is.

    Args:
        manifest: of the image.
        registry: where layers come from that are not here.
        blobs: the image cache.

    Raises:
        RefusedError: MS-5161, the image was made by something else.
        ServiceError: MS-4080 to MS-4084; StoreError: MS-4101, MS-4111, as the cache raises.
    """
    config = msgspec.json.decode(manifest.config.data, type=dict[str, Any])
    own = _own(config)
    if not own:
        raise RefusedError(
            "the image was not made by mainspring build",
            code="MS-5161",
            why="none of its layers is ours",
            fix="mainspring build --image, or docker run that image",
        )
    places: dict[str, Path] = {}
    for layer in manifest.layers[-own:]:
        places |= _places(_layer(layer, registry, blobs))
    return Unpacked(manifest, config, places)


def _layer(layer: Described, registry: Registry | None, blobs: BlobStore) -> Path:
    folder = blobs.folder("unpacked")
    place = folder / layer.digest.removeprefix("sha256:")
    if place.is_dir():
        return place
    blob = kept_layer(layer, registry, blobs)
    with _told(), tempfile.TemporaryDirectory(dir=folder) as part:
        whole = Path(part) / "layer"
        with (
            open(blob, "rb") as file,
            _inflated(file, layer.media_type) as plain,
            tarfile.open(fileobj=plain, mode="r|") as archive,
        ):
            archive.extractall(whole, filter="data")
        whole.chmod(0o755)
        with contextlib.suppress(OSError):  # another run may have been first
            os.rename(whole, place)
    return place


@contextlib.contextmanager
def _inflated(file: BinaryIO, media_type: str) -> Iterator[IO[bytes]]:
    if media_type.endswith("gzip"):
        with gzip.open(file) as plain:
            yield cast("IO[bytes]", plain)
    elif media_type.endswith("zstd"):
        with zstandard.ZstdDecompressor().stream_reader(file) as plain:
            yield plain
    else:
        yield file


def _places(folder: Path) -> dict[str, Path]:
    """What of a layer stands for itself: what is in ``app``, and of ``app/models`` each."""
    found: dict[str, Path] = {}
    for path in sorted(folder.glob("app/*")):
        inner = sorted(path.iterdir()) if path.relative_to(folder).parts == _MODELS else [path]
        found |= {one.relative_to(folder).as_posix(): one for one in inner}
    return found


def rootfs(image: Unpacked, source: Reference, blobs: BlobStore, umoci: str) -> Path:
    """A bundle of what our layers stand on, made by umoci once for each base: ``rootfs`` and ``config.json``.

    Raises:
        StoreError: MS-4111, umoci cannot unpack it.
    """
    below = image.manifest.layers[: len(image.manifest.layers) - _own(image.config)]
    config = _without_own(image, len(below))
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(config),
        "layers": [descriptor(one) for one in below],
    }
    top = described(OCI_MANIFEST, spelled(document))
    folder = blobs.folder("unpacked")
    place = folder / f"base-{top.digest[7:]}"
    if place.is_dir():
        return place
    built = Built((Manifest(top, config, below, image.manifest.architecture),), top, source)
    with _told(), tempfile.TemporaryDirectory(dir=folder) as part:
        write_layout(built, Path(part) / "layout", lambda: Registry(source), blobs, "base")
        words = [umoci, "unpack", "--image", f"{part}/layout:base", f"{part}/bundle"]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            raise StoreError(
                "the base image cannot be unpacked",
                code="MS-4111",
                why=(done.stderr.strip().splitlines() or ["umoci says nothing"])[-1],
                origin="umoci unpack",
                fix="mainspring deploy --local --process runs it without a container",
            )
        # The container has a /dev of its own; who copies the project would read this one's /dev/zero for ever.
        shutil.rmtree(f"{part}/bundle/rootfs/dev", ignore_errors=True)
        os.mkdir(f"{part}/bundle/rootfs/dev")
        with contextlib.suppress(OSError):
            os.rename(f"{part}/bundle", place)
    return place


def _own(config: Mapping[str, Any]) -> int:
    """How many of an image's layers, the last ones, are ours."""
    history = [one for one in config.get("history") or [] if not one.get("empty_layer")]
    return sum(one.get("created_by") == "mainspring build" for one in history)


def _without_own(image: Unpacked, count: int) -> Described:
    """The image's config with the first so many layers alone."""
    roots = list(image.config["rootfs"]["diff_ids"])[:count]
    config = {**image.config, "rootfs": {"type": "layers", "diff_ids": roots}, "history": []}
    return described(_CONFIG_TYPE, spelled(config))


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except (OSError, tarfile.TarError) as error:
        raise StoreError(
            "the image cannot be unpacked",
            code="MS-4111",
            why=str(getattr(error, "strerror", None) or error),
            origin="the project's state folder",
            fix="make room there, and let it be written to",
        ) from error


def linked(image: Unpacked, folder: Path) -> Path:
    """A folder with the image's own ``app`` in it, by links; its path."""
    shutil.rmtree(folder / "app", ignore_errors=True)
    for name, path in image.places.items():
        there = folder / name
        there.parent.mkdir(parents=True, exist_ok=True)
        there.symlink_to(path)
    return folder
