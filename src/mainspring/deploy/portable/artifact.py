"""Results of steps as folders, which orchestrators carry from one machine to another.

A folder holds ``artifact.json`` (what it is, its digest, who made it) and ``data``: the content as a file, a folder's
files under their own names, or the parts of a list as folders of the same form. A result that JSON can hold is in
``value.json``, too, for those who are not Mainspring.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import msgspec

from mainspring.engine.values import FILE, FOLDER, JSON, MANIFEST, OPAQUE, FolderEntry, read_folder, read_manifest
from mainspring.engine.wire import StoredResult
from mainspring.errors import DataError, RefusedError, StoreError, UsageError
from mainspring.ports.objects import Objects

__all__ = ["CARD", "Card", "Producer", "is_artifact", "take_in", "write_out"]

CARD, DATA, VALUE, _LIST = "artifact.json", "data", "value.json", "list.json"
_CHUNK = 1 << 20
_JSON = msgspec.json.Encoder(order="sorted")


class Producer(msgspec.Struct, frozen=True):
    """Who made a result: the step, its cache key and the run."""

    step: str
    key: str
    run: str


class Card(msgspec.Struct, frozen=True):
    """``artifact.json``.

    Attributes:
        digest: of the content, blake2b-160 in hex; the same as in the store of whoever made it.
        kind: how it is read: ``frame``, ``json``, ``file``, ``folder``, ``bytes``, ``manifest`` (a list), ``pickle``.
        media_type: of the data.
        bytes: how long the content is.
        producer: who made it.
        meta: what helps to restore it: the name of a file.
        files: of a folder, its files.
    """

    digest: str
    kind: str
    media_type: str
    bytes: int
    producer: Producer
    meta: dict[str, object] = {}
    files: tuple[FolderEntry, ...] = ()

    def stored(self) -> StoredResult:
        """It as the store knows it."""
        return StoredResult(self.digest, self.kind, self.bytes, self.media_type, self.meta)


def is_artifact(path: Path) -> bool:
    """Whether a path is a folder with an artifact in it."""
    return (path / CARD).is_file()


# -- out --------------------------------------------------------------------------------------------------------------


def write_out(result: StoredResult, producer: Producer, objects: Objects, path: Path) -> None:
    """Write a stored result as a folder that is there whole or not at all.

    Args:
        result: what was stored.
        producer: who made it.
        objects: where it is.
        path: the folder; an artifact that is there is replaced, and an empty folder, too.

    Raises:
        UsageError: MS-2763, something else is there.
        StoreError: MS-2774, it cannot be written; or as the object store raises.
    """
    if path.exists() and not (is_artifact(path) or (path.is_dir() and not any(path.iterdir()))):
        raise UsageError(
            f"{path} is there, and is no artifact",
            code="MS-2763",
            why="a result takes the place of an earlier one or of nothing",
            fix="name another path",
        )
    part = path.parent / f".{path.name}.{secrets.token_hex(4)}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(result, producer, objects, part / "new")
        if path.exists():
            os.rename(path, part / "old")
        os.rename(part / "new", path)
    except OSError as error:
        raise StoreError(
            f"the result cannot be written to {path}",
            code="MS-2774",
            why=error.strerror or str(error),
            fix="name a path that this user may write to, on a disk that has room",
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _write(result: StoredResult, producer: Producer, objects: Objects, place: Path) -> None:
    place.mkdir(parents=True)
    files: tuple[FolderEntry, ...] = ()
    if result.kind == FOLDER:
        files = tuple(read_folder(result, objects))
        (place / DATA).mkdir()
        for entry in files:
            _copy(objects, entry.digest, place / DATA / entry.path, entry.executable)
    elif result.kind == MANIFEST:
        (place / DATA).mkdir()
        (place / DATA / _LIST).write_bytes(objects.get(result.digest))
        for number, one in enumerate(read_manifest(result, objects)):
            _write(one, producer, objects, place / DATA / str(number))
    else:
        _copy(objects, result.digest, place / DATA, result.kind == FILE and bool(result.meta.get("executable")))
    if result.kind.partition("/")[0] == JSON:
        (place / VALUE).write_bytes(b'{"value":' + objects.get(result.digest) + b"}\n")
    card = Card(result.digest, result.kind, result.media_type, result.size, producer, result.meta, files)
    (place / CARD).write_bytes(msgspec.json.format(_JSON.encode(card)) + b"\n")


def _copy(objects: Objects, digest: str, target: Path, executable: bool) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(objects.path(digest), target)
    target.chmod(0o755 if executable else 0o644)


# -- in ---------------------------------------------------------------------------------------------------------------


def take_in(path: Path, objects: Objects, is_ours: Callable[[str], bool]) -> StoredResult:
    """Store an artifact's content, which must be what its card says.

    Args:
        path: the artifact's folder.
        objects: where to.
        is_ours: whether a catalog of ours recorded a digest; pickled content is taken only then.

    Raises:
        DataError: MS-2760, it is no artifact that this version reads; MS-2761, its content is not what it says.
        RefusedError: MS-5100, it is pickled and came from elsewhere.
        StoreError: as the object store raises.
    """
    card = _card(path)
    if card.kind.partition("/")[0] == OPAQUE and not is_ours(card.digest):
        raise RefusedError(
            f"{path} is pickled, and no catalog of ours recorded it",
            code="MS-5100",
            why="reading a pickle runs whatever it says",
            origin=str(path / CARD),
            fix="let the step before return a Frame, a File, bytes or data that JSON can hold",
        )
    if card.kind == FOLDER:
        return _folder(path, card, objects)
    if card.kind == MANIFEST:
        listed = _verified(path / DATA / _LIST, card.digest, path, objects)
        items = msgspec.json.decode(objects.get(listed), type=list[StoredResult])
        for number, item in enumerate(items):
            if take_in(path / DATA / str(number), objects, is_ours).digest != item.digest:
                raise _other(path / DATA / str(number))
        return card.stored()
    _verified(path / DATA, card.digest, path, objects)
    return card.stored()


def _card(path: Path) -> Card:
    try:
        return msgspec.json.decode((path / CARD).read_bytes(), type=Card)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} is no artifact",
            code="MS-2760",
            why=f"its {CARD}: {getattr(error, 'strerror', None) or error}",
            fix="hand the step what `mainspring step --out` wrote",
        ) from error


def _folder(path: Path, card: Card, objects: Objects) -> StoredResult:
    for entry in card.files:
        inside = PurePosixPath(entry.path)
        if inside.is_absolute() or ".." in inside.parts:
            raise _other(path)
        _verified(path / DATA / entry.path, entry.digest, path, objects)
    if objects.put(_JSON.encode(list(card.files))).digest != card.digest:
        raise _other(path)
    return card.stored()


def _verified(file: Path, digest: str, artifact: Path, objects: Objects) -> str:
    """Store a file whose content has that digest."""
    found = hashlib.blake2b(digest_size=20)
    try:
        if file.is_symlink():
            raise _other(artifact)
        with open(file, "rb") as source, objects.writer() as writer:
            while chunk := source.read(_CHUNK):
                found.update(chunk)
                writer.write(chunk)
            if found.hexdigest() != digest:
                raise _other(artifact)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise _other(artifact) from error
    return digest


def _other(path: Path) -> DataError:
    return DataError(
        f"{path} does not hold what its {CARD} says",
        code="MS-2761",
        why="a digest differs, or a file is missing: it was changed, or not copied whole",
        fix="run the step that made it again",
    )
