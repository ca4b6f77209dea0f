"""Bringing what is known of documents up to what lies in their folders; what is new or changed is read and parsed.

Each batch is kept as it is done: a sync that is killed goes on where it was, and one that finds nothing changed reads
no file.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import TypeVar

import msgspec

from mainspring.declare.documents import Access
from mainspring.declare.identity import PUBLIC
from mainspring.errors import StoreError, UserCodeError
from mainspring.ports.manifest import DocumentRow, Manifest
from mainspring.ports.objects import Objects
from mainspring.ports.parser import Parsed, Parser, Refused
from mainspring.rag.listing import UNREADABLE, Difference, Found, difference, list_folder

__all__ = ["Folder", "Progress", "SyncCounts", "sync_documents", "title_of"]

Progress = Callable[[str, int, int], None]
"""Told what is done, how many of it, and how many there are: ``("parse", 40, 500)``."""

_BATCH = 64
_CHUNK = 1 << 20
_TORN = "changed while it was read"
"""Noted in place of the hash: no content has it, so the next sync reads the file again."""
T = TypeVar("T")
R = TypeVar("R")


class Folder(msgspec.Struct, frozen=True):
    """Declared documents with their place under the active profile.

    Attributes:
        name: the declaration's.
        folder: where they are.
        include: globs of the files that are read.
        exclude: globs of files that are not.
        access: who may see them, as declared.
        max_bytes: greater files are put aside.
        may_be_empty: whether an empty folder deletes all documents.
    """

    name: str
    folder: Path
    include: tuple[str, ...] = ("**/*",)
    exclude: tuple[str, ...] = ()
    access: Access = "public"
    max_bytes: int = 64_000_000
    may_be_empty: bool = False


class SyncCounts(msgspec.Struct):
    """What a sync found.

    Attributes:
        documents: how many there are now, those put aside with an earlier content included.
        added: files that are new.
        changed: files with another content.
        moved: files with the content of one that is gone.
        deleted: files that are gone.
        quarantined: files that cannot be read, with the reason, by path.
    """

    documents: int = 0
    added: int = 0
    changed: int = 0
    moved: int = 0
    deleted: int = 0
    quarantined: dict[str, str] = msgspec.field(default_factory=dict)

    def __str__(self) -> str:
        words = [f"{self.documents:,} documents"]
        words += [
            f"{count:,} {name}" for name in ("added", "changed", "moved", "deleted") if (count := getattr(self, name))
        ]
        return ", ".join(words + ([f"{len(self.quarantined):,} put aside"] if self.quarantined else []))


class _Seen(msgspec.Struct, frozen=True):
    """A file that is new or may have changed, with its content's hash; None where it is too large to be read."""

    found: Found
    row: DocumentRow | None
    content: str | None


def sync_documents(
    index: str,
    folders: Sequence[Folder],
    manifest: Manifest,
    objects: Objects,
    parser: Parser,
    *,
    now: Callable[[], int],
    progress: Progress = lambda what, done, of: None,
) -> SyncCounts:
    """Bring an index's documents up to their folders.

    Args:
        index: whose documents.
        folders: where they are.
        manifest: what is known of them.
        objects: takes their text.
        parser: reads them.
        now: microseconds since 1970.
        progress: told how far it is.

    Raises:
        DataError: MS-2410, a folder cannot be listed; MS-2411, one is suddenly empty. Nothing is deleted then.
        UserCodeError: MS-2420, the function of ``access=`` fails.
    """
    counts = SyncCounts()
    every = manifest.documents(index)
    taken = {row.document_id for row in every}
    for folder in folders:
        rows = [row for row in every if row.source == folder.name]
        known = 0 if folder.may_be_empty else len(rows)
        found = list_folder(folder.folder, folder.include, folder.exclude, name=folder.name, known=known)
        one = _OneFolder(index, folder, manifest, objects, parser, now, progress, counts, taken)
        one.bring_up(difference(rows, found))
    removed = {folder.name for folder in folders}
    orphans = [row for row in every if row.source not in removed]  # of documents that the index is not made of any more
    if orphans:
        manifest.put_documents(index, [msgspec.structs.replace(row, status="gone", synced_us=now()) for row in orphans])
        counts.deleted += len(orphans)
    left = manifest.documents(index)
    counts.documents = sum(bool(row.parsed) for row in left)
    counts.quarantined = {f"{row.source}/{row.uri}": row.error for row in left if row.status == "quarantined"}
    return counts


class _OneFolder(msgspec.Struct):
    """One folder's part of a sync."""

    index: str
    folder: Folder
    manifest: Manifest
    objects: Objects
    parser: Parser
    now: Callable[[], int]
    progress: Progress
    counts: SyncCounts
    taken: set[str]

    def bring_up(self, change: Difference) -> None:
        """Write what has changed, batch by batch; what is gone goes last, when all that it may have become is known."""
        look = [*change.look, *((item, row) for item, row in change.same if not self._current(row))]
        steady = [row for _, row in change.same if self._current(row)]
        gone = {row.document_id: row for row in change.gone}
        done = 0
        for batch in _batches(_in_threads(self._hashed, look), _BATCH):
            seen = self._moves([item for item in batch if item is not None], gone)
            self._put([self._row(item, read) for item, read in _in_threads(self._read, seen)])
            done += len(batch)
            self.progress("read", done, len(look))
        self._put([changed for row in steady if (changed := self._seen_by(row)) is not row])
        dead = list(gone.values())
        self._put([msgspec.structs.replace(row, status="gone", synced_us=self.now()) for row in dead])
        self.counts.deleted += len(dead)

    def _put(self, rows: Sequence[DocumentRow]) -> None:
        if rows:
            self.manifest.put_documents(self.index, rows)

    def _hashed(self, item: tuple[Found, DocumentRow | None]) -> _Seen | None:
        """The file's hash; None when it has gone since it was listed, which the next sync sees."""
        found, row = item
        if found.size > min(self.folder.max_bytes, self.parser.max_bytes):
            return _Seen(found, row, None)
        digest = hashlib.blake2b(digest_size=20)
        try:
            with open(self.folder.folder / found.path, "rb") as file:
                while data := file.read(_CHUNK):
                    digest.update(data)
        except FileNotFoundError:
            return None
        except OSError as error:
            return _Seen(found, row, f"{UNREADABLE}{error.strerror}")
        return _Seen(found, row, digest.hexdigest())

    def _moves(self, seen: Sequence[_Seen], gone: dict[str, DocumentRow]) -> list[_Seen]:
        """A new file with the content of one that is gone is that document, moved."""
        by_content = {row.content_hash: row for row in gone.values() if row.content_hash}
        found = []
        for item in seen:
            if item.row is None and item.content is not None and item.content in by_content:
                row = by_content.pop(item.content)
                del gone[row.document_id]
                found.append(msgspec.structs.replace(item, row=row))
            else:
                found.append(item)
        return found

    def _read(self, item: _Seen) -> tuple[_Seen, Parsed | Refused | None]:
        """The file's text; None when it is the one that was read before."""
        old = item.row
        if old is not None and (item.content or "") == old.content_hash and self._current(old):
            return item, None
        try:
            read = self._parsed(item)
        except StoreError as error:  # between its hash and now it was deleted, or locked: the next sync sees which
            item = msgspec.structs.replace(item, content=f"{UNREADABLE}{error.why}")
            return item, self._parsed(item)
        if item.content is not None and not self._still(item.found):
            item = msgspec.structs.replace(item, content=_TORN)
        return item, read

    def _still(self, found: Found) -> bool:
        """Whether a file is what was listed; if not, its hash and its text may be of different contents."""
        try:
            state = os.stat(self.folder.folder / found.path)
        except OSError:
            return False
        return (state.st_size, state.st_mtime_ns) == (found.size, found.mtime_ns)

    def _current(self, row: DocumentRow) -> bool:
        """Whether the parser would say of this content what it said."""
        return row.parse_key == (self.parser.id if row.status == "ok" else self._refused)

    @property
    def _refused(self) -> str:
        """Under what a document was refused: another limit may let it pass."""
        return f"{self.parser.id} within {self.folder.max_bytes}, {self.parser.limits}"

    def _row(self, item: _Seen, read: Parsed | Refused | None) -> DocumentRow:
        """The document's row as it is now."""
        found, old = item.found, item.row
        base = self._new(found) if old is None else old
        base = msgspec.structs.replace(
            base, uri=found.uri, size=found.size, mtime_ns=found.mtime_ns, synced_us=self.now()
        )
        if old is None:
            self.counts.added += 1
        else:
            base = msgspec.structs.replace(base, title=_retitled(base, old))
            self.counts.moved += old.uri != found.uri
            self.counts.changed += item.content != old.content_hash
        if read is None:
            return self._seen_by(base)
        base = msgspec.structs.replace(base, content_hash=item.content or "", parse_key=self.parser.id)
        if isinstance(read, Refused):
            error = f"{read.reason.replace('_', ' ')}: {read.why}"
            return msgspec.structs.replace(base, status="quarantined", error=error, parse_key=self._refused)
        kept = self.objects.put(msgspec.json.encode(read)).digest
        return self._seen_by(
            msgspec.structs.replace(
                base,
                document_version=base.document_version + (kept != base.parsed),
                parsed=kept,
                title=title_of(read, found.uri),
                status="ok",
                error="",
                metadata=dict(read.metadata),
            )
        )

    def _parsed(self, item: _Seen) -> Parsed | Refused:
        if item.content is None:
            most = min(self.folder.max_bytes, self.parser.max_bytes)
            return Refused("too_large", f"{item.found.size:,} bytes, at most {most:,} are read")
        if item.content.startswith(UNREADABLE):
            return Refused("unreadable", item.content.removeprefix(UNREADABLE))
        read = self.parser.parse(self.folder.folder / item.found.path, item.found.uri)
        return _without_nul(read) if isinstance(read, Parsed) else read

    def _new(self, found: Found) -> DocumentRow:
        return DocumentRow(
            document_id=self._id(found.uri),
            source=self.folder.name,
            uri=found.uri,
            size=found.size,
            mtime_ns=found.mtime_ns,
            etag="",
            content_hash="",
            document_version=0,
            parse_key="",
            parsed="",
            title=PurePosixPath(found.uri).stem,
            status="ok",
            error="",
            principals=(),
            tenant="",
            trust="data",
            metadata={},
            synced_us=0,
        )

    def _id(self, uri: str) -> str:
        """An id that no document has: one that was moved away keeps the one that it was given here."""
        for number in itertools.count():
            text = "\0".join((self.index, self.folder.name, uri, str(number)))
            made = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
            if made not in self.taken:
                self.taken.add(made)
                return made
        raise AssertionError("counting ends")

    def _seen_by(self, row: DocumentRow) -> DocumentRow:
        """The row with its principals; itself when they are what they were."""
        principals = self._principals(row)
        return row if principals == row.principals else msgspec.structs.replace(row, principals=principals)

    def _principals(self, row: DocumentRow) -> tuple[str, ...]:
        access = self.folder.access
        if access == "public":
            return (PUBLIC,)
        if not callable(access):
            return tuple(sorted(access))
        try:
            return tuple(sorted({str(one) for one in access(row.uri, {"title": row.title, **row.metadata})}))
        except Exception as error:
            raise UserCodeError(
                f"the function that says who may see the documents {self.folder.name!r} fails",
                code="MS-2420",
                why=f"{type(error).__name__}: {error} (for {row.uri})",
                origin=f"documents.{self.folder.name}",
                fix="mend access=; until then nothing of these documents is changed",
            ) from error


def title_of(parsed: Parsed, uri: str) -> str:
    """What a document is called: what it says, else its first heading, else its file's name."""
    if parsed.title.strip():
        return parsed.title.strip()
    for line in parsed.text[:4000].splitlines():
        if line.startswith("#") and (heading := line.lstrip("#").strip()):
            return heading
    return PurePosixPath(uri).stem


def _without_nul(read: Parsed) -> Parsed:
    """The document with the one character that Postgres stores nowhere replaced, so that no offset changes."""
    if not any("\0" in part for part in (read.text, read.title, *read.metadata, *read.metadata.values())):
        return read
    clean = {name.replace("\0", "\ufffd"): value.replace("\0", "\ufffd") for name, value in read.metadata.items()}
    return msgspec.structs.replace(
        read, text=read.text.replace("\0", "\ufffd"), title=read.title.replace("\0", "\ufffd"), metadata=clean
    )


def _retitled(base: DocumentRow, old: DocumentRow) -> str:
    """A document that was called after its file is called after the file that it is in now."""
    return PurePosixPath(base.uri).stem if old.title == PurePosixPath(old.uri).stem else old.title


def _in_threads(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """The function's results in order, from as many threads as there are cores, a bounded number ahead."""
    workers = max(len(os.sched_getaffinity(0)), 2)
    with ThreadPoolExecutor(workers) as pool:
        left = iter(items)
        waiting = [pool.submit(function, item) for item in itertools.islice(left, 4 * workers)]
        while waiting:
            yield waiting.pop(0).result()
            waiting += [pool.submit(function, item) for item in itertools.islice(left, 1)]


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    left = iter(items)
    while batch := list(itertools.islice(left, size)):
        yield batch
