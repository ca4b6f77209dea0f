"""Folders of documents, and the indexes that are made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Literal, TypeAlias

import msgspec

from mainspring.declare.declaration import Declaration, DeclaredKind
from mainspring.declare.origin import Origin

__all__ = ["Access", "Documents", "DocumentsSpec", "Index", "IndexSpec", "Mode"]

Mode = Literal["hybrid", "dense", "text"]
Access: TypeAlias = Literal["public"] | tuple[str, ...] | Callable[[str, Mapping[str, object]], Iterable[str]]


class DocumentsSpec(msgspec.Struct, frozen=True):
    """Documents that are read from one place.

    Attributes:
        place: the folder, relative to the project, unless the profile says otherwise (``[documents.NAME]``).
        every_us: how often a server looks for changes, in microseconds, or None.
        include: globs of the files that are read.
        exclude: globs of files that are not.
        access: who may see them: ``public``, principals (``group:staff``), or a function of a file's path and
            metadata that returns principals; nobody sees a document without any.
        max_bytes: greater files are put aside.
    """

    place: str
    every_us: int | None
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    access: Access
    max_bytes: int


class Documents(Declaration[DocumentsSpec]):
    """Declared documents."""

    __slots__ = ()

    def __init__(self, spec: DocumentsSpec, origin: Origin, name: str | None) -> None:
        super().__init__(DeclaredKind.DOCUMENTS, spec, origin, name)


class IndexSpec(msgspec.Struct, frozen=True):
    """An index over documents.

    Attributes:
        documents: what is in it.
        tokens: most tokens of a chunk with its prefix, or None for the embedder's limit.
        mode: how a query that does not say is answered.
        rerank: whether the ``reranker`` port sorts what is found.
        language: of the stop words and the stemmer: ``english``.
        filters: keys of the documents' metadata that queries may filter by, besides ``source``, ``uri``, ``folders``
            and ``title``.
    """

    documents: tuple[Documents, ...]
    tokens: int | None
    mode: Mode
    rerank: bool
    language: str
    filters: tuple[str, ...] = ()


class Index(Declaration[IndexSpec]):
    """A declared index; served in versions behind an alias."""

    __slots__ = ()

    def __init__(self, spec: IndexSpec, origin: Origin, name: str | None) -> None:
        super().__init__(DeclaredKind.INDEX, spec, origin, name)
