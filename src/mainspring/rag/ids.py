"""Names of chunks and of the texts that are embedded: the same content has the same name, wherever it is made."""

from __future__ import annotations

import hashlib
import uuid
from collections import Counter
from collections.abc import Iterable, Sequence

__all__ = ["chunk_id", "chunk_ids", "point_id", "text_hash"]

_POINTS = uuid.UUID("6d61696e-7370-5269-8e67-706f696e7473")


def text_hash(text: str) -> str:
    """BLAKE2b-128 of the exact string that is embedded, as 32 hexadecimal digits."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def chunk_id(document_id: str, path: Sequence[str], embedded: str, occurrence: int = 0) -> str:
    """BLAKE2b-128 over a document, a heading path, a `text_hash` and how many such chunks come before, in hexadecimal.

    Each part goes in with its length, so that no two lists of parts read alike.
    """
    parts = (document_id, str(len(path)), *path, embedded, str(occurrence))
    data = [part.encode("utf-8", "surrogatepass") for part in parts]
    framed = b"".join([piece for part in data for piece in (len(part).to_bytes(8, "little"), part)])
    return hashlib.blake2b(framed, digest_size=16).hexdigest()


def chunk_ids(document_id: str, chunks: Iterable[tuple[Sequence[str], str]]) -> list[str]:
    """The ids of a document's chunks in their order, each given as heading path and `text_hash`.

    A chunk that is inserted or removed changes no other's id, save where two are alike in path and text.
    """
    seen: Counter[tuple[tuple[str, ...], str]] = Counter()
    found = []
    for path, embedded in chunks:
        key = (tuple(path), embedded)
        found.append(chunk_id(document_id, path, embedded, seen[key]))
        seen[key] += 1
    return found


def point_id(chunk: str) -> str:
    """The UUIDv5 under which a vector store keeps a chunk."""
    return str(uuid.uuid5(_POINTS, chunk))
