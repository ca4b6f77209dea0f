"""Blobs on this machine by their digest, and which layers were made of what."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

import msgspec

from mainspring.deploy.image.entries import Entry
from mainspring.deploy.image.layer import Codec, Layer, codec_version, spell
from mainspring.errors import StoreError

__all__ = ["BlobStore"]

T = TypeVar("T")


class BlobStore:
    """A folder of blobs, each under its digest; a name appears only with its whole content.

    Args:
        root: the folder; everything in it can be made again.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._blobs = root / "blobs" / "sha256"

    def path(self, digest: str) -> Path:
        """Where a blob is, or would be."""
        return self._blobs / digest.removeprefix("sha256:")

    def has(self, digest: str, size: int) -> bool:
        """Whether a blob of that size is here."""
        try:
            return self.path(digest).stat().st_size == size
        except OSError:
            return False

    def folder(self, name: str) -> Path:
        """A folder beside the blobs."""
        found = self._root / name
        with _told():
            found.mkdir(parents=True, exist_ok=True)
        return found

    def put(self, data: bytes) -> str:
        """Keep bytes; their digest."""
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if not self.has(digest, len(data)):
            with self.writing() as (file, keep):
                file.write(data)
                keep(digest)
        return digest

    def sweep(self) -> None:
        """Take away what processes that are no more have left half-written."""
        for part in self._root.glob("*.part"):
            owner = part.name.partition("-")[0]
            if owner.isdigit() and not _lives(int(owner)):
                part.unlink(missing_ok=True)

    @contextlib.contextmanager
    def writing(self) -> Iterator[tuple[BinaryIO, Callable[[str], None]]]:
        """A file to write a blob to, and what makes it the blob of a digest; an exception leaves nothing."""
        with _told():
            self._blobs.mkdir(parents=True, exist_ok=True)
            part = self._root / f"{os.getpid()}-{secrets.token_hex(8)}.part"
            try:
                with open(part, "xb") as file:

                    def keep(digest: str) -> None:
                        file.flush()
                        os.fsync(file.fileno())
                        os.replace(part, self.path(digest))

                    yield file, keep
            finally:
                part.unlink(missing_ok=True)

    def layer(
        self, entries: Callable[[], Iterable[Entry]], made_of: object, *, codec: Codec, epoch: int, title: str
    ) -> Layer:
        """The layer of entries, made now or kept from before.

        Args:
            entries: called for what it holds, when it is not kept.
            made_of: what decides the entries, as JSON can spell it.
            codec: how it is compressed.
            epoch: the time of everything in it, in seconds since 1970.
            title: what it holds, for people.

        Raises:
            UsageError: MS-2700; ConfigError: MS-3090, as `spell`.
            StoreError: MS-4101 the disk is full, MS-4111 the state folder cannot be written.
        """

        def make() -> Layer:
            with self.writing() as (file, keep):
                layer = spell(entries(), file, codec=codec, epoch=epoch, title=title)
                keep(layer.digest)
            return layer

        made = [made_of, codec_version(codec), epoch]
        kept = self.kept("keys", made, Layer, make, holds=lambda layer: self.has(layer.digest, layer.size))
        return msgspec.structs.replace(kept, title=title)

    def kept(
        self, name: str, made_of: object, kind: type[T], make: Callable[[], T], holds: Callable[[T], bool] | None = None
    ) -> T:
        """What was made of something before, or is made now and kept.

        Args:
            name: the folder beside the blobs where such things are kept.
            made_of: all that decides it, as JSON can spell it.
            kind: the type that it is read back as.
            make: makes it.
            holds: whether what was kept may still be taken.

        Raises:
            StoreError: MS-4101 the disk is full, MS-4111 the state folder cannot be written.
        """
        spelled = msgspec.json.encode(made_of, order="sorted")
        key = self._root / name / hashlib.sha256(spelled).hexdigest()
        with contextlib.suppress(OSError, msgspec.DecodeError):
            found = msgspec.json.decode(key.read_bytes(), type=kind)
            if holds is None or holds(found):
                return found
        found = make()
        with _told():
            key.parent.mkdir(parents=True, exist_ok=True)
            part = key.with_suffix(f".{os.getpid()}")
            part.write_bytes(msgspec.json.encode(found))
            os.replace(part, key)
        return found


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = "the disk is full" if error.errno == 28 else "the image cache cannot be written"
        raise StoreError(
            full,
            code="MS-4101" if error.errno == 28 else "MS-4111",
            why=str(error.strerror or error),
            fix="free some space" if error.errno == 28 else "make the project's state folder writable",
        ) from error
