"""Indexes as what a step of the engine builds, and as what a server opens."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

import msgspec

from mainspring.catalog.ids import now_us
from mainspring.choose.services import Services
from mainspring.config.project import load_app
from mainspring.config.settings import Settings
from mainspring.declare.declaration import DeclaredKind, name_of, spec_of
from mainspring.declare.documents import Documents, Index
from mainspring.errors import ConfigError, MainspringError, UsageError
from mainspring.ports.embedder import Embedder
from mainspring.ports.manifest import DocumentRow, IndexVersion
from mainspring.rag.listing import difference, list_folder
from mainspring.rag.retrieve import IndexSearcher
from mainspring.rag.shape import IndexShape
from mainspring.rag.sync import Folder
from mainspring.rag.versions import IndexPorts, Judgement, bring_up

__all__ = [
    "IndexBuilt",
    "build_index",
    "folder_of",
    "folders_of",
    "index_named",
    "searcher_of",
    "shape_of",
    "still_there",
]

_TOLD_SECONDS = 1.0


class IndexBuilt(msgspec.Struct, frozen=True):
    """What building an index found.

    Attributes:
        index: its name.
        version: the version that answers.
        documents: how many documents it holds.
        chunks: how many chunks.
        quarantined: files that cannot be read, with the reason, by path.
        notes: what somebody should know.
    """

    index: str
    version: int
    documents: int
    chunks: int
    quarantined: Mapping[str, str]
    notes: tuple[str, ...] = ()


def shape_of(index: Index) -> IndexShape:
    """An index as declared."""
    spec = spec_of(index)
    return IndexShape(name_of(index), spec.tokens, spec.mode, spec.rerank, spec.language, spec.filters)


def folders_of(index: Index, settings: Settings) -> list[Folder]:
    """An index's documents where the active profile has them.

    Raises:
        ConfigError: MS-3025, they are at a url.
    """
    return [folder_of(documents, settings) for documents in spec_of(index).documents]


def folder_of(documents: Documents, settings: Settings) -> Folder:
    """Declared documents where the active profile has them.

    Raises:
        ConfigError: MS-3025, they are at a url.
    """
    spec, name = spec_of(documents), name_of(documents)
    url = settings.setting(f"documents.{name}.url")
    if url is not None and url.value is not None:
        raise ConfigError(
            f"the documents {name!r} are at a url, and nothing here reads it",
            code="MS-3025",
            why=f"{str(url.value).partition('://')[0]} is no folder",
            origin=url.origin,
            fix=f"mount or copy them, and set documents.{name}.path",
        )
    place = settings.text(f"documents.{name}.path") or spec.place
    empty = settings.setting(f"documents.{name}.may_be_empty")
    return Folder(
        name,
        settings.project / place,
        spec.include,
        spec.exclude,
        spec.access,
        spec.max_bytes,
        may_be_empty=empty is not None and bool(empty.value),
    )


def still_there(services: Services, params: Mapping[str, object], kept: object) -> bool:
    """Whether no file has changed since, and the version that was built answers."""
    built = msgspec.convert(kept, IndexBuilt)
    if services.manifest.live(built.index) != built.version:
        return False
    versions = {item.version: item for item in services.manifest.versions(built.index)}
    if versions[built.version].writing:
        return False
    rows = services.manifest.documents(built.index)
    folders = cast("list[dict[str, object]]", params["folders"])
    if any(folder["access"] == "code" for folder in folders):
        return False  # what it says may change with the day or with whom it asks
    return all(_same(folder, [row for row in rows if row.source == folder["name"]]) for folder in folders)


def _same(folder: Mapping[str, object], rows: list[DocumentRow]) -> bool:
    found = list_folder(
        Path(str(folder["folder"])),
        cast("list[str]", folder["include"]),
        cast("list[str]", folder["exclude"]),
        name=str(folder["name"]),
        known=0 if folder["may_be_empty"] else len(rows),
    )
    change = difference(rows, found)
    return not change.look and not change.gone


def build_index(
    services: Services, index: Index, by: str, judge: Callable[[IndexVersion], Judgement] | None = None
) -> IndexBuilt:
    """Bring an index up to its documents; what it does and puts aside is told on the step's log.

    Args:
        services: the project's ports.
        index: as declared.
        by: who does it, for the alias's history.
        judge: says whether a new version may answer.

    Raises:
        MainspringError: as `bring_up`.
    """
    shape, vectors = shape_of(index), services.vectors
    try:
        ports = IndexPorts(
            services.manifest,
            services.objects,
            vectors,
            services.decision("vectors").chosen.name,
            services.embedder,
            services.parser,
            now_us,
        )
        folders = folders_of(index, services.settings)
        done = bring_up(shape, folders, ports, by=by, judge=judge, progress=_telling())
    finally:
        services.close_port("vectors")  # an embedded store has one owner: the next that needs it may be the server
    sys.stderr.write(f"{done}\n")
    for name, reason in done.documents.quarantined.items():
        sys.stderr.write(f"put aside: {name}: {reason}\n")
    for note in done.notes:
        sys.stderr.write(f"note: {note}\n")
    return IndexBuilt(
        shape.name, done.version, done.documents.documents, done.chunks, done.documents.quarantined, tuple(done.notes)
    )


def _telling() -> Callable[[str, int, int], None]:
    """Tells on the step's log how far it is, not more often than somebody can read."""
    last = 0.0

    def tell(what: str, done: int, of: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _TOLD_SECONDS or (of and done == of):
            last = now
            sys.stderr.write(f"{what} {done:,} of {of:,}\n")
            sys.stderr.flush()

    return tell


def index_named(services: Services, name: str) -> Index:
    """The declared index of that name.

    Raises:
        UsageError: MS-2602, there is none.
    """
    for item in load_app(services.settings).of_kind(DeclaredKind.INDEX):
        if name_of(item) == name and isinstance(item, Index):
            return item
    raise UsageError(f"no index is called {name!r}", code="MS-2602", fix="mainspring show index")


def searcher_of(services: Services, shape: IndexShape) -> IndexSearcher:
    """An index to be asked; its store and embedder are opened at the first search."""

    def embedder_of(version: IndexVersion) -> Embedder:
        embedder = services.embedder
        if embedder.id != version.embedder_id:
            raise ConfigError(
                f"version {version.version} of index {version.index!r} was made by another embedder",
                code="MS-3026",
                why=f"it has vectors of {version.embedder_id}, and {embedder.id} is configured",
                origin="embedder",
                fix=f"mainspring run index/{version.index} makes a version for the configured one",
            )
        return embedder

    try:
        reranker = services.reranker
    except MainspringError:
        reranker = None
    return IndexSearcher(shape, services.manifest, services.objects, services.vectors, embedder_of, reranker)
