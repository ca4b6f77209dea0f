"""Layers: an archive, compressed and hashed in one pass."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, Protocol, cast

import msgspec

from mainspring.deploy.image.entries import Entry, archive
from mainspring.errors import ConfigError
from mainspring.lazy import lazy

if TYPE_CHECKING:
    import zstandard
    from isal import igzip_threaded
else:
    zstandard, igzip_threaded = lazy("zstandard"), lazy("isal.igzip_threaded")

__all__ = ["CODECS", "Codec", "Layer", "codec_version", "spell"]

Codec = Literal["none", "gzip", "zstd"]
CODECS: tuple[Codec, ...] = ("none", "gzip", "zstd")
_BLOCK = 1 << 20
"""What the compressors are handed at once: with smaller writes they come to other bytes."""
_LEVELS = {"gzip": 1, "zstd": 3}
_LIBRARIES = {"gzip": "isal", "zstd": "zstandard"}
_THREADS = 2
"""Any number from one on comes to the same bytes; none does not."""


class Layer(msgspec.Struct, frozen=True):
    """A layer of an image.

    Attributes:
        digest: of the blob as it is stored and sent: ``sha256:`` and hex.
        diff_id: of the archive in it.
        size: bytes of the blob.
        codec: how the archive is compressed.
        title: what it holds, for people.
    """

    digest: str
    diff_id: str
    size: int
    codec: Codec
    title: str = ""


class _Writer(Protocol):
    def write(self, data: bytes) -> int: ...

    def close(self) -> None: ...


class _Hashing:
    """A file that is written once, hashed and counted on the way."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.hash = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes | memoryview) -> int:
        """Write bytes."""
        self.hash.update(data)
        self.size += memoryview(data).nbytes
        return self._file.write(data)

    def flush(self) -> None:
        """Nothing is kept back."""

    def close(self) -> None:
        """The file is its opener's to close."""


def codec_version(codec: Codec) -> str:
    """What compresses, as far as it decides the bytes.

    Raises:
        ConfigError: MS-3090, the library is not installed.
    """
    if codec == "none":
        return codec
    library = _LIBRARIES[codec]
    try:
        return f"{library} {importlib.metadata.version(library)} level {_LEVELS[codec]}"
    except importlib.metadata.PackageNotFoundError as error:
        raise ConfigError(
            f"{library} is not installed",
            code="MS-3090",
            why="images are compressed by it",
            fix="pip install 'mainspring[image]'",
        ) from error


def spell(entries: Iterable[Entry], file: BinaryIO, *, codec: Codec, epoch: int, title: str = "") -> Layer:
    """Write a layer's blob to a file.

    Args:
        entries: what it holds.
        file: what the blob is written to.
        codec: how it is compressed.
        epoch: the time of everything in it, in seconds since 1970.
        title: what it holds, for people.

    Raises:
        UsageError: MS-2700, as `archive`; ConfigError: MS-3090, the compressor is not installed.
    """
    codec_version(codec)
    stored, plain = _Hashing(file), hashlib.sha256()
    waiting = bytearray()
    with contextlib.closing(_compressor(codec, stored)) as compressed:
        for piece in archive(entries, epoch):
            plain.update(piece)
            waiting += piece
            while len(waiting) >= _BLOCK:
                compressed.write(bytes(waiting[:_BLOCK]))
                del waiting[:_BLOCK]
        if waiting:
            compressed.write(bytes(waiting))
    return Layer(f"sha256:{stored.hash.hexdigest()}", f"sha256:{plain.hexdigest()}", stored.size, codec, title)


def _compressor(codec: Codec, file: _Hashing) -> _Writer:
    sink = cast(BinaryIO, file)
    if codec == "gzip":
        threaded: Any = igzip_threaded  # half of it has types
        return cast(_Writer, threaded.open(sink, "wb", _LEVELS[codec], threads=_THREADS, block_size=_BLOCK))
    if codec == "zstd":
        made = zstandard.ZstdCompressor(level=_LEVELS[codec], threads=_THREADS)
        return cast(_Writer, made.stream_writer(sink, closefd=False))
    return file
