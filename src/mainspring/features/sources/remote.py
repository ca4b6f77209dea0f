"""Files in an object store: listed by their tags, fetched once each into the state folder, read as local files are."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from mainspring.errors import DataError
from mainspring.features.sources.files import FORMATS
from mainspring.ports.source import Bucket, Remote

__all__ = ["content_of", "fetched", "files_there"]


def files_there(bucket: Bucket, name: str, format: str | None) -> list[Remote]:
    """The files of a source in an object store, sorted; without a format those whose names say one.

    Raises:
        DataError: MS-2112, there is none.
    """
    found = [file for file in bucket.files() if format or file.path.lower().endswith(tuple(FORMATS))]
    if not found:
        raise DataError(
            f"source {name!r} has no file",
            code="MS-2112",
            why=f"its url leads to no {', '.join(FORMATS)} file",
            origin=f"sources.{name}.url",
            fix=f"write the file, or correct sources.{name}.url",
        )
    return found


def content_of(files: Sequence[Remote]) -> str:
    """A digest of which versions of which files these are."""
    hashed = hashlib.blake2b(digest_size=16)
    for file in files:
        hashed.update(f"{file.path}\0{file.tag}\0{file.size}\0".encode())
    return hashed.hexdigest()


def fetched(bucket: Bucket, files: Sequence[Remote], folder: Path, moved: Callable[[int, int], None]) -> list[Path]:
    """The files as local ones, in their order; what is there already is not fetched, and what is not asked for goes.

    Args:
        bucket: where they are.
        files: which.
        folder: where this source's files are kept; nobody else writes there.
        moved: is told how many bytes are there, of how many.
    """
    kept = {content_of([file]): file for file in files}
    folder.mkdir(parents=True, exist_ok=True)
    for entry in folder.iterdir():
        if entry.name not in kept:
            shutil.rmtree(entry, ignore_errors=True)
    done, total = 0, sum(file.size for file in files)
    paths = []
    for digest, file in kept.items():
        path = folder / digest / file.path.rpartition("/")[2]
        if not path.is_file():
            path.parent.mkdir(exist_ok=True)
            part = path.with_name(f".part-{os.getpid()}")
            bucket.fetch(file, part)
            os.replace(part, path)  # a file with its own name is whole, whatever was killed
        done += file.size
        moved(done, total)
        paths.append(path)
    return paths
