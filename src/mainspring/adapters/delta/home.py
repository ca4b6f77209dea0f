"""Which state folder writes the tables of an object store, and how that passes on.

Each object below ``_mainspring/home`` names one folder, and is made once, by a put that fails where it is there
already; the greatest number is the one that writes. Whoever had it before may not know yet, and may be about to
commit. So the folder that takes over appends a commit of no rows to each table, which bears its number: an append is
a put of the table's next version, it finds that version taken, looks again, and sees a greater number than its own.
"""

from __future__ import annotations

import contextlib
import os
import socket
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from mainspring.adapters.delta.problems import another_home, no_owner, not_that_owner, strange_home
from mainspring.lazy import lazy
from mainspring.ports.tables import Owner

if TYPE_CHECKING:
    from obstore import exceptions as obstore_errors
else:
    obstore_errors = lazy("obstore.exceptions")

__all__ = ["EPOCH", "Homes"]

EPOCH = "_mainspring/home"
"""The mark of a table that holds the number of the folder that wrote it last; and where the numbers are given out."""


class Homes:
    """The folders that have written, and this one among them.

    Args:
        store: obstore's, at the path of the tables.
        url: that path, for people.
        root: the state folder's own part.
    """

    def __init__(self, store: Any, url: str, root: Path) -> None:
        self._store = store
        self._url = url
        self._root = root

    def owner(self) -> Owner | None:
        """Who writes now, or None before the first."""
        newest = 0
        for entries in self._store.list("_mainspring/"):
            newest = max(newest, *(_number(entry["path"]) for entry in entries), 0)
        return self._read(newest) if newest else None

    def followed(self, epoch: int) -> bool:
        """Whether another folder has taken over since; quick."""
        try:
            self._store.head(_path(epoch + 1))
        except FileNotFoundError:
            return False
        return True

    def claim(self) -> Owner:
        """Become the first that writes, or find that this folder is the one.

        Raises:
            StoreError: MS-4311, it is another; MS-4272, the note of it cannot be read.
        """
        owner = self.owner() or self._put(1)
        if owner.id != self._own():
            raise another_home(self._url, owner)
        return owner

    def replaced(self, before: str) -> Owner:
        """Who is to be replaced: the one that writes now.

        Args:
            before: its `Owner.id`, or as much of it as tells it; so nobody is replaced by mistake.

        Raises:
            StoreError: MS-4273, nobody has written; MS-4271, that is another.
        """
        owner = self.owner()
        if owner is None:
            raise no_owner(self._url)
        own = owner.id == self._own()
        if own or len(before) < _ENOUGH or not owner.id.startswith(before):
            raise not_that_owner(self._url, owner, own=own)
        return owner

    def take(self, before: Owner) -> Owner:
        """Become the one that writes in the place of another.

        Raises:
            StoreError: MS-4271, somebody else was quicker.
        """
        taken = self._put(before.epoch + 1)
        if taken.id != self._own():
            raise not_that_owner(self._url, taken, own=False)
        return taken

    def fenced(self) -> int:
        """The number under which this folder has closed the tables to those before it."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            return int((self._root / "fenced").read_text("utf-8"))
        return 1  # there is nobody before the first

    def note_fenced(self, epoch: int) -> None:
        """Note that all tables are closed to those before."""
        part = self._root / f"fenced.{uuid.uuid4().hex}"
        part.write_text(str(epoch), "utf-8")
        os.replace(part, self._root / "fenced")

    def _put(self, epoch: int) -> Owner:
        """Be the one of that number, or find out who is."""
        own = Owner(self._own(), f"{self._root} on {socket.gethostname()}", epoch)
        try:
            self._store.put(_path(epoch), msgspec.json.encode(own), mode="create")
        except obstore_errors.AlreadyExistsError:
            return self._read(epoch)
        return own

    def _read(self, epoch: int) -> Owner:
        data = bytes(self._store.get(_path(epoch)).bytes())
        try:
            return msgspec.json.decode(data, type=Owner)
        except msgspec.MsgspecError as error:
            raise strange_home(self._url, _path(epoch)) from error

    def _own(self) -> str:
        """What this state folder is called, the same for ever."""
        path = self._root / "home"
        with contextlib.suppress(FileNotFoundError):
            return path.read_text("utf-8")
        self._root.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"home.{uuid.uuid4().hex}")
        part.write_text(uuid.uuid4().hex, "utf-8")
        try:
            os.link(part, path)  # whoever is first has named it
        except FileExistsError:
            pass
        finally:
            part.unlink()
        return path.read_text("utf-8")


_ENOUGH = 6
"""Letters of an id that tell it."""


def _path(epoch: int) -> str:
    return f"{EPOCH}.{epoch}"


def _number(path: str) -> int:
    end = path.rpartition(f"{EPOCH}.")[2]
    return int(end) if end.isdecimal() else 0
