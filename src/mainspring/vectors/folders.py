"""The folders of an embedded store: one an index, with its schema and its one owner; aliases beside them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from mainspring.errors import StoreError
from mainspring.vectors.checked import name_of
from mainspring.vectors.faults import (
    aliased,
    bad_snapshot,
    exists_otherwise,
    name_is_taken,
    no_index,
    owned,
    unreadable,
    unwritable,
)

__all__ = ["Folders", "Owner", "replace_file"]

_FORMAT = 1
_ABOUT, _OWNER, _ALIASES = "index.json", "owner", ".aliases.json"


class _About(msgspec.Struct):
    """What is written beside an index's data."""

    format: int
    engine: str
    schema: Any


class Owner:
    """This process's claim to an index; it ends with `release` or with the process, however that ends.

    Args:
        folder: the index's.

    Raises:
        StoreError: MS-4182, naming who has it.
    """

    def __init__(self, folder: Path) -> None:
        self._file = os.open(folder / _OWNER, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            there = os.pread(self._file, 400, 0).decode("utf-8", "replace").strip()
            os.close(self._file)
            raise owned(folder.name, there, folder.name) from error
        command = " ".join([Path(sys.argv[0] or "python").name, *sys.argv[1:]])[:200]
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"process {os.getpid()} on {socket.gethostname()} ({command})\n".encode(), 0)
        self.pid = os.getpid()

    def release(self) -> None:
        """Give the index up."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class Folders:
    """The indexes below a folder, and the aliases that lead to them.

    Args:
        place: the folder, made when it is first written to.
        engine: whose data is in them.
    """

    def __init__(self, place: Path, engine: str) -> None:
        self.place = place
        self._engine = engine
        self._lock = threading.Lock()
        self._aliases: tuple[tuple[int, int], dict[str, str]] = ((0, 0), {})

    def names(self) -> tuple[str, ...]:
        """The names of all indexes."""
        return tuple(sorted(path.parent.name for path in self.place.glob(f"*/{_ABOUT}")))

    def folder(self, name: str) -> Path:
        """The folder of an index, or of the one that its alias leads to.

        Raises:
            UsageError: MS-2655.
            ServiceError: MS-4180.
        """
        index = self.aliases().get(name_of(name), name)
        folder = self.place / index
        if not (folder / _ABOUT).exists():
            raise no_index(name)
        return folder

    def schema(self, folder: Path) -> object:
        """The schema that was written beside an index, as plain data.

        Raises:
            StoreError: MS-4183, of another engine or a newer Mainspring.
        """
        try:
            about = msgspec.json.decode((folder / _ABOUT).read_bytes(), type=_About)
        except (OSError, msgspec.DecodeError) as error:
            raise unreadable(folder.name, str(error), folder.name) from error
        if about.format != _FORMAT or about.engine != self._engine:
            raise unreadable(folder.name, f"it is of {about.engine}, format {about.format}", folder.name)
        return about.schema

    def exists(self, name: str, schema: object) -> bool:
        """Whether an index is there with that very schema.

        Raises:
            UsageError: MS-2655.
            StoreError: MS-4181, with another one, or an alias has that name.
        """
        if name_of(name) in self.aliases():
            raise name_is_taken(name, "an alias")
        folder = self.place / name
        if not (folder / _ABOUT).exists():
            return False
        if self.schema(folder) != msgspec.json.decode(msgspec.json.encode(schema)):
            raise exists_otherwise(name)
        return True

    @contextlib.contextmanager
    def making(self, name: str, schema: object) -> Iterator[Path]:
        """A new folder for an index, which is there from the end of the block on, whole, or not at all.

        Raises:
            StoreError: MS-4183, it cannot be written; MS-4101, the disk is full.
        """
        with self._built(name) as building:
            yield building
            about = msgspec.json.encode(_About(_FORMAT, self._engine, schema))
            replace_file(building / _ABOUT, about)

    @contextlib.contextmanager
    def restoring(self, name: str) -> Iterator[Path]:
        """A new folder, to be filled with all that an index's folder holds.

        Raises:
            StoreError: MS-4181, the name is taken; MS-4186, it was filled with something else.
        """
        if (self.place / name_of(name) / _ABOUT).exists():
            raise name_is_taken(name, "an index")
        if name in self.aliases():
            raise name_is_taken(name, "an alias")
        with self._built(name) as building:
            yield building
            try:
                self.schema(building)
            except StoreError as error:
                raise bad_snapshot(error.why) from error

    @contextlib.contextmanager
    def _built(self, name: str) -> Iterator[Path]:
        building = self.place / f".making-{name}-{os.getpid()}-{threading.get_ident()}"
        shutil.rmtree(building, ignore_errors=True)
        try:
            building.mkdir(parents=True)
            yield building
            building.rename(self.place / name)
            _sync_folder(self.place)
        except OSError as error:
            raise unwritable(name, error) from error
        finally:
            shutil.rmtree(building, ignore_errors=True)

    def remove(self, folder: Path) -> None:
        """Remove an index's folder, at once to everybody."""
        gone = self.place / f".gone-{folder.name}-{os.getpid()}-{threading.get_ident()}"
        folder.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)

    def free_to_drop(self, name: str) -> Path | None:
        """The folder of an index that may go; None when there is none.

        Raises:
            UsageError: MS-2655.
            StoreError: MS-4184, an alias leads to it.
        """
        leading = sorted(alias for alias, index in self.aliases().items() if index == name_of(name))
        if leading:
            raise aliased(name, leading)
        folder = self.place / name
        return folder if (folder / _ABOUT).exists() else None

    # -- aliases ----------------------------------------------------------------------------------------------------

    def aliases(self) -> Mapping[str, str]:
        """The index that each alias leads to, as of now."""
        path = self.place / _ALIASES
        try:
            found = path.stat()
        except OSError:
            return {}
        state = (found.st_mtime_ns, found.st_ino)
        if self._aliases[0] != state:
            self._aliases = (state, msgspec.json.decode(path.read_bytes(), type=dict[str, str]))
        return self._aliases[1]

    def alias(self, name: str, index: str) -> None:
        """Let a name lead to an index, atomically and durably.

        Raises:
            UsageError: MS-2655.
            ServiceError: MS-4180, no such index; StoreError: MS-4181, an index has that name.
        """
        if (self.place / name_of(name) / _ABOUT).exists():
            raise name_is_taken(name, "an index")
        target = self.folder(index).name
        with self._lock, (self.place / ".aliases.lock").open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            replace_file(self.place / _ALIASES, msgspec.json.encode({**self.aliases(), name: target}))


def replace_file(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, durably."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}")
    with beside.open("wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    beside.replace(path)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
