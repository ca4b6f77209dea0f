"""An embedded store that several processes of one machine use at once: who owns an index answers for the others.

Embedded engines let one process open an index. The first that does offers it on a socket in the kernel's own name
space (no file, nothing to clean up) to processes of the same user; the others ask there. When the owner ends, the next
that needs the index becomes its owner.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar, cast

import msgspec

from mainspring.choose.sharing_wire import Call, Reply, answer, call_of, decode_call, decode_reply, encode, result_of
from mainspring.errors import MainspringError
from mainspring.ports.vector_store import (
    Capabilities,
    Durability,
    Filter,
    Hits,
    Page,
    Point,
    Query,
    Schema,
    Stats,
    VectorStore,
    Where,
)
from mainspring.vectors.faults import owned

__all__ = ["SharedStore"]

_OWNED, _CLOSED = "MS-4182", "MS-4185"
_PATIENCE = 10.0
_PAUSE = 0.02
_MOST = 1 << 30
_LENGTH = struct.Struct("<I")
_CREDENTIALS = struct.Struct("3i")
T = TypeVar("T")


class SharedStore:
    """A store whose indexes other processes may own; implements `mainspring.ports.vector_store.VectorStore`.

    Args:
        local: the store of this process.
        place: the folder that all processes of the app share; it names the sockets.
    """

    def __init__(self, local: VectorStore, place: Path) -> None:
        self._local = local
        self._place = os.path.realpath(place)
        self._offers: dict[str, _Offer] = {}
        self._lines: dict[tuple[int, str], socket.socket] = {}
        self._lock = threading.Lock()

    # -- what concerns no index ----------------------------------------------------------------------------------

    def capabilities(self) -> Capabilities:
        """What the store can do, for all processes of this machine together."""
        return msgspec.structs.replace(self._local.capabilities(), readers="many", writers="many")

    def indexes(self) -> tuple[str, ...]:
        """The names of all indexes."""
        return self._local.indexes()

    def alias(self, name: str, index: str) -> None:
        """Let a name lead to an index."""
        self._local.alias(name, index)

    def aliases(self) -> Mapping[str, str]:
        """The index that each alias leads to."""
        return self._local.aliases()

    # -- what concerns one --------------------------------------------------------------------------------------

    def create(self, index: str, schema: Schema) -> None:
        """Make an empty index."""
        self._at(index, lambda: self._local.create(index, schema), lambda: call_of("create", index, schema=schema))

    def schema(self, index: str) -> Schema:
        """The schema that an index was made with."""
        return self._at(index, lambda: self._local.schema(index), lambda: call_of("schema", index))

    def drop(self, index: str) -> None:
        """Remove an index."""
        self._at(index, lambda: self._local.drop(index), lambda: call_of("drop", index))
        self._withdraw(index)

    def upsert(self, index: str, points: Sequence[Point], version: int | None = None) -> int:
        """Write points whole."""
        return self._at(
            index,
            lambda: self._local.upsert(index, points, version),
            lambda: call_of("upsert", index, points=points, version=version),
        )

    def set_payload(self, index: str, where: Where, patch: Mapping[str, object]) -> None:
        """Put keys into payloads."""
        self._at(
            index,
            lambda: self._local.set_payload(index, where, patch),
            lambda: call_of("set_payload", index, where=where, patch=dict(patch)),
        )

    def delete(self, index: str, where: Where) -> None:
        """Remove points."""
        self._at(index, lambda: self._local.delete(index, where), lambda: call_of("delete", index, where=where))

    def search(self, index: str, query: Query) -> Hits:
        """The best points."""
        return self._at(index, lambda: self._local.search(index, query), lambda: call_of("search", index, query=query))

    def scroll(
        self,
        index: str,
        filter: Filter | None = None,
        cursor: str | None = None,
        limit: int = 1000,
        *,
        fields: tuple[str, ...] | None = None,
        vectors: bool = False,
    ) -> Page:
        """A page of points."""
        return self._at(
            index,
            lambda: self._local.scroll(index, filter, cursor, limit, fields=fields, vectors=vectors),
            lambda: call_of("scroll", index, filter=filter, cursor=cursor, limit=limit, fields=fields, vectors=vectors),
        )

    def count(self, index: str, filter: Filter | None = None) -> int:
        """How many points fulfil the filter; 0 is told as a number too."""
        return self._at(index, lambda: self._local.count(index, filter), lambda: call_of("count", index, filter=filter))

    def flush(self, index: str) -> Durability:
        """Make all that was written survive."""
        return self._at(index, lambda: self._local.flush(index), lambda: call_of("flush", index))

    def optimize(self, index: str) -> None:
        """Build what makes searches fast."""
        self._at(index, lambda: self._local.optimize(index), lambda: call_of("optimize", index))

    def snapshot(self, index: str, file: Path) -> None:
        """Copy an index into a file."""
        self._at(
            index, lambda: self._local.snapshot(index, file), lambda: call_of("snapshot", index, file=file.resolve())
        )

    def restore(self, index: str, file: Path) -> None:
        """Make an index of a snapshot."""
        self._at(
            index, lambda: self._local.restore(index, file), lambda: call_of("restore", index, file=file.resolve())
        )

    def stats(self, index: str) -> Stats:
        """How large an index is."""
        return self._at(index, lambda: self._local.stats(index), lambda: call_of("stats", index))

    def close(self) -> None:
        """Let go of every index; others may own them then."""
        with self._lock:
            offers, self._offers = list(self._offers.values()), {}
            lines, self._lines = list(self._lines.values()), {}
        for offer in offers:
            offer.end()
        for line in lines:
            line.close()
        self._local.close()

    # -- owning and asking --------------------------------------------------------------------------------------

    def _at(self, index: str, here: Callable[[], T], there: Callable[[], Call]) -> T:
        """Do it here when the index is ours or nobody's, else ask its owner; owners may change meanwhile."""
        end = time.monotonic() + _PATIENCE
        while True:
            line = self._lines.get((threading.get_ident(), index))
            try:
                if line is None:
                    found = here()
                    self._offer(index)
                    return found
            except MainspringError as error:
                if error.code != _OWNED:
                    raise
                self._withdraw(index)  # it was ours before, and is another's by now
                refused = error
            try:
                return cast(T, result_of(self._ask(index, there())))
            except OSError:  # the owner is ending, or has opened the index and not offered it yet
                self._hang_up(index)
                if line is None and time.monotonic() > end:
                    raise refused from None
                time.sleep(_PAUSE)
            except MainspringError as error:  # the owner is opening it at this moment
                if error.code != _OWNED or time.monotonic() > end:
                    raise
                time.sleep(_PAUSE)

    def _offer(self, index: str) -> None:
        known = self._offers.get(index)
        if known is not None and not known.ended:
            return
        with self._lock:
            if self._offers.get(index) is known:
                self._offers[index] = _Offer(self._local, self._address(index))

    def _withdraw(self, index: str) -> None:
        with self._lock:
            offer = self._offers.pop(index, None)
        if offer is not None:
            offer.end()

    def _address(self, index: str) -> bytes:
        name = hashlib.blake2b(f"{self._place}\0{index}".encode("utf-8", "surrogateescape"), digest_size=16)
        return b"\0mainspring-index-" + name.hexdigest().encode()

    def _ask(self, index: str, call: Call) -> Reply:
        key = (threading.get_ident(), index)
        line = self._lines.get(key)
        if line is None:
            line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                line.settimeout(_PATIENCE)
                line.connect(self._address(index))
                if not _same_user(line):
                    raise owned(index, "a process of another user", self._place)
            except BaseException:
                line.close()
                raise
            line.settimeout(600.0)
            self._lines[key] = line
        _send(line, encode(call))
        return decode_reply(_receive(line))

    def _hang_up(self, index: str) -> None:
        line = self._lines.pop((threading.get_ident(), index), None)
        if line is not None:
            line.close()


class _Offer:
    """An index that this process owns, offered to the others.

    Who owned it before may hold the name for a moment longer; the offer stands as soon as that one has let go.
    """

    def __init__(self, store: VectorStore, address: bytes) -> None:
        self._store = store
        self._address = address
        self._lines: set[socket.socket] = set()
        self.ended = False
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._bound = self._bind()
        threading.Thread(target=self._accept, name="index-owner", daemon=True).start()

    def _bind(self) -> bool:
        try:
            self._listening.bind(self._address)
            self._listening.listen(64)
        except OSError:
            return False
        return True

    def end(self) -> None:
        """Answer nobody any more; calls that are under way are cut."""
        self.ended = True
        for line in [self._listening, *self._lines]:
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)
            line.close()

    def _accept(self) -> None:
        while not self._bound and not self.ended:
            time.sleep(_PAUSE)
            self._bound = self._bind()
        while not self.ended:
            try:
                line, _ = self._listening.accept()
            except OSError:
                return
            if not _same_user(line):
                line.close()
                continue
            self._lines.add(line)
            threading.Thread(target=self._answer, args=(line,), name="index-owner-line", daemon=True).start()

    def _answer(self, line: socket.socket) -> None:
        try:
            while not self.ended:
                reply = answer(self._store, decode_call(_receive(line)))
                if reply.fault is not None and reply.fault.code in (_OWNED, _CLOSED):
                    self.end()  # the index is another's by now or soon, who cannot offer it as long as this one does
                    return
                _send(line, encode(reply))
        except (OSError, ValueError):
            pass
        finally:
            self._lines.discard(line)
            line.close()


def _same_user(line: socket.socket) -> bool:
    """Whether the other side runs as the same user: the kernel's name space has no rights of its own."""
    credentials = line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, user, _ = _CREDENTIALS.unpack(credentials)
    return bool(user == os.geteuid())


def _send(line: socket.socket, data: bytes) -> None:
    line.sendall(_LENGTH.pack(len(data)) + data)


def _receive(line: socket.socket) -> bytes:
    (length,) = _LENGTH.unpack(_exactly(line, _LENGTH.size))
    if length > _MOST:
        raise ConnectionError("the message is too long")
    return _exactly(line, length)


def _exactly(line: socket.socket, count: int) -> bytes:
    parts = []
    while count:
        part = line.recv(min(count, 1 << 20))
        if not part:
            raise ConnectionError("the other side has ended")
        parts.append(part)
        count -= len(part)
    return b"".join(parts)
