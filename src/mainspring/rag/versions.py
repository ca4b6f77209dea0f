"""Versions of an index behind an alias: begun when its shape changes, filled, judged, swapped in, rolled back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import cast

import msgspec

from mainspring.errors import RefusedError, StoreError, UsageError
from mainspring.ports.embedder import Embedder
from mainspring.ports.manifest import DocumentRow, IndexVersion, Manifest
from mainspring.ports.objects import Objects
from mainspring.ports.parser import Parsed, Parser
from mainspring.ports.vector_store import VectorStore
from mainspring.rag.chunk import Chunk, Chunker, ChunkSpec
from mainspring.rag.ruler import Ruler
from mainspring.rag.shape import IndexShape, VersionShape, collection
from mainspring.rag.sync import Folder, Progress, SyncCounts, sync_documents
from mainspring.rag.write import VersionWriter, WriteCounts

__all__ = ["UNINDEXED", "IndexPorts", "IndexReport", "Judgement", "bring_up", "roll_back"]

_SAMPLE, _BEGINNING = 64, 16_000
"""Documents, and characters of each, that say how long chunks are: a few hundred chunks tell it within some percent."""
_VECTORS = 2_000_000
UNINDEXED = 4_000
"""Points without a graph: looking at each takes a third of a millisecond at most, and misses none."""
_SPARE = 1
"""How many retired versions are kept for a rollback."""
_ROLLBACK = "rollback"


class IndexPorts(msgspec.Struct, frozen=True):
    """What an index is made with.

    Attributes:
        manifest: what is known of it.
        objects: has the documents' texts.
        store: has its points.
        store_name: the adapter's name.
        embedder: makes its vectors.
        parser: reads its documents.
        now: microseconds since 1970.
    """

    manifest: Manifest
    objects: Objects
    store: VectorStore
    store_name: str
    embedder: Embedder
    parser: Parser
    now: Callable[[], int]


class Judgement(msgspec.Struct, frozen=True):
    """What an evaluation says of a version: its measures, and why it may not go live (empty: it may)."""

    scores: Mapping[str, float]
    refused: str = ""


class IndexReport(msgspec.Struct):
    """What bringing an index up has done.

    Attributes:
        index: its name.
        version: the version that answers.
        documents: what was found in the folders.
        written: what was done to the version.
        moved: whether another version answers now than before.
        chunks: how many chunks the version holds.
        notes: what somebody should know.
    """

    index: str
    version: int
    documents: SyncCounts
    written: WriteCounts
    moved: bool
    chunks: int
    notes: list[str] = msgspec.field(default_factory=list)

    def __str__(self) -> str:
        state = f"version {self.version}{' is live now' if self.moved else ''}"
        return f"{self.documents}; {self.chunks:,} chunks, {self.written.embedded:,} embedded; {state}"


def bring_up(
    shape: IndexShape,
    folders: Sequence[Folder],
    ports: IndexPorts,
    *,
    by: str,
    judge: Callable[[IndexVersion], Judgement] | None = None,
    progress: Progress = lambda what, done, of: None,
) -> IndexReport:
    """Bring an index up to its documents and its declaration, and let the version that this needs answer.

    A version with the same shape is brought up in place. Another shape begins another version, which is filled beside
    the one that answers, judged, and swapped in; the one before stays for a rollback and goes on being brought up.

    Args:
        shape: the index.
        folders: its documents.
        ports: what it is made with.
        by: who does it, for the alias's history.
        judge: says whether a new version may answer.
        progress: told how far it is.

    Raises:
        DataError, UserCodeError: as `sync_documents`.
        RefusedError: MS-5050, the evaluation refuses the new version; the old one goes on answering.
        StoreError, ServiceError: as the ports raise.
    """
    counts = sync_documents(
        shape.name, folders, ports.manifest, ports.objects, ports.parser, now=ports.now, progress=progress
    )
    rows = ports.manifest.documents(shape.name)
    _settle(shape.name, ports.manifest, ports.now())
    target, chunker, cut = _target(shape, rows, ports)
    live = ports.manifest.live(shape.name)
    notes: list[str] = []
    for other in ports.manifest.versions(shape.name):
        if other.version != target.version and other.state in ("live", "retired"):
            _follow(other, rows, ports, notes)
    writer = _writer(target, chunker, ports, progress, cut)
    written = writer.bring_up(rows)
    target = writer.version
    _tidy(target, ports, progress)
    held = _gone_back_to(target, live, ports, notes)
    moved = live != target.version and held is None
    if moved:
        _note_other_store(shape.name, live, ports, notes)
        _go_live(target, live, ports, by, judge)
        _drop_spare(shape.name, target.version, ports)
    ports.manifest.trim_vectors(_VECTORS)
    answers = held or target
    return IndexReport(shape.name, answers.version, counts, written, moved, answers.rows, notes)


def roll_back(index: str, manifest: Manifest, store_name: str, *, by: str, at_us: int, reason: str = _ROLLBACK) -> int:
    """Let the version answer that did before; it is brought up like the one that does, so nothing is lost.

    It answers until somebody goes back again, or the index is declared in another shape: a sync does not undo it.

    Only a version that the adapter `store_name` holds is gone back to.

    Returns:
        The version that answers now.

    Raises:
        UsageError: MS-2435, there is no version to go back to; StoreError: MS-4270, somebody else moved it meanwhile.
    """
    _settle(index, manifest, at_us)
    versions = {item.version: item for item in manifest.versions(index)}
    live = manifest.live(index)
    before = [
        move.version
        for move in manifest.moves(index)
        if move.version != live
        and move.version in versions
        and versions[move.version].state == "retired"
        and versions[move.version].spec.get("store") == store_name
    ]
    if live is None or not before:
        raise UsageError(
            f"index {index!r} has no version to go back to",
            code="MS-2435",
            why="nothing was live before" if live is None else f"no other than version {live} is kept in {store_name}",
            fix=f"mainspring show index/{index} lists its versions",
        )
    _swap(versions[before[0]], live, manifest, by, at_us, reason)
    return before[0]


def chunker_of(version: IndexVersion, embedder: Embedder) -> Chunker:
    """Cuts documents as a version wants them."""
    shape = msgspec.convert(version.spec, VersionShape)
    return Chunker(Ruler.of(embedder), shape.chunks, embedder.max_tokens)


def _target(
    shape: IndexShape, rows: Sequence[DocumentRow], ports: IndexPorts
) -> tuple[IndexVersion, Chunker, dict[str, list[Chunk]]]:
    """The version of this shape, begun where there is none, with its place in the store; its chunker; what is cut."""
    embedder = ports.embedder
    tokens = embedder.max_tokens if shape.tokens is None else min(shape.tokens, embedder.max_tokens)
    wanted = VersionShape(
        embedder.id, embedder.dims, ChunkSpec(max_tokens=tokens), shape.language, shape.filters, ports.store_name
    )
    versions = ports.manifest.versions(shape.name)
    for version in versions:
        if version.spec_hash == wanted.hash and version.state != "failed":
            made = msgspec.convert(version.spec, VersionShape)
            ports.store.create(collection(shape.name, version.version), made.schema())
            return version, chunker_of(version, embedder), {}
    number = versions[0].version + 1 if versions else 1
    chunker = Chunker(Ruler.of(embedder), wanted.chunks, embedder.max_tokens)
    words, cut = _mean_words(rows, ports.objects, chunker)
    measured = msgspec.structs.replace(wanted, words=words)
    spec = cast("dict[str, object]", msgspec.to_builtins(measured))
    version = IndexVersion(
        shape.name, number, "building", wanted.hash, spec, embedder.id, embedder.dims, 0, {}, ports.now()
    )
    if not ports.manifest.add_version(version):
        raise _moved_meanwhile(shape.name)
    ports.store.create(collection(shape.name, number), measured.schema())
    return version, chunker, cut


def _mean_words(
    rows: Sequence[DocumentRow], objects: Objects, chunker: Chunker
) -> tuple[float, dict[str, list[Chunk]]]:
    """Words of a chunk on average, over a sample that is the same every time: beginnings of some of the documents.

    Those that are no longer than that are cut by then; their chunks come along, by the digest of their text.
    """
    cut: dict[str, list[Chunk]] = {}
    readable = sorted((row for row in rows if row.parsed), key=lambda row: row.document_id)
    words: list[int] = []
    for row in readable[:: -(-len(readable) // _SAMPLE) or 1]:
        parsed = msgspec.json.decode(objects.get(row.parsed), type=Parsed)
        chunks = chunker.chunks(msgspec.structs.replace(parsed, text=parsed.text[:_BEGINNING]))
        if len(parsed.text) <= _BEGINNING:
            cut[row.parsed] = chunks
        elif len(chunks) > 1:
            del chunks[-1]  # it is cut off
        words += [len(chunk.text.split()) for chunk in chunks]
    return (sum(words) / len(words) if words else 0.0), cut


def _writer(
    version: IndexVersion,
    chunker: Chunker,
    ports: IndexPorts,
    progress: Progress = lambda what, done, of: None,
    cut: dict[str, list[Chunk]] | None = None,
) -> VersionWriter:
    return VersionWriter(
        version, ports.manifest, ports.objects, ports.store, ports.embedder, chunker, ports.now, progress, cut or {}
    )


def _follow(version: IndexVersion, rows: Sequence[DocumentRow], ports: IndexPorts, notes: list[str]) -> None:
    """Bring up a version that answers still, or may again, as far as its embedder is here."""
    store = msgspec.convert(version.spec, VersionShape).store
    if store != ports.store_name:
        notes.append(f"version {version.version} stays as it is: {store} holds it, not {ports.store_name}")
        return
    if version.embedder_id != ports.embedder.id:
        notes.append(f"version {version.version} stays as it is: its embedder {version.embedder_id} is not configured")
        return
    _writer(version, chunker_of(version, ports.embedder), ports).bring_up(rows)


def _gone_back_to(target: IndexVersion, live: int | None, ports: IndexPorts, notes: list[str]) -> IndexVersion | None:
    """The version that answers because somebody went back to it from this one; None when it cannot answer here."""
    moves = ports.manifest.moves(target.index)
    if live == target.version or [move.version for move in moves[:2]] != [live, target.version]:
        return None
    held = next((one for one in ports.manifest.versions(target.index) if one.version == live), None)
    if moves[0].reason != _ROLLBACK or held is None:
        return None
    if (held.spec.get("store"), held.embedder_id) != (ports.store_name, ports.embedder.id):
        return None
    notes.append(
        f"version {live} answers, as {moves[0].by} went back to it; "
        f"mainspring rollback index/{target.index}: version {target.version} again"
    )
    return held


def _note_other_store(index: str, live: int | None, ports: IndexPorts, notes: list[str]) -> None:
    """Say that the version that answered is in another store: whoever shares the manifest is moved with it."""
    for version in ports.manifest.versions(index):
        store = str(version.spec.get("store", ""))
        if version.version == live and store != ports.store_name:
            notes.append(
                f"{ports.store_name} answers now, no longer {store}, for every profile that has this manifest; "
                "a profile that is to keep its store needs a manifest.url of its own"
            )


def _tidy(version: IndexVersion, ports: IndexPorts, progress: Progress) -> None:
    place = collection(version.index, version.version)
    stats = ports.store.stats(place)
    if stats.unindexed > max(UNINDEXED, stats.rows // 10):
        progress("optimize", 0, stats.rows)
        ports.store.optimize(place)


def _go_live(
    version: IndexVersion,
    live: int | None,
    ports: IndexPorts,
    by: str,
    judge: Callable[[IndexVersion], Judgement] | None,
) -> None:
    reason = "first" if live is None else "declared anew"
    if version.state == "building" and judge is not None and live is not None:
        waiting = msgspec.structs.replace(version, state="evaluating")
        ports.manifest.change_version(waiting, "building")
        found = judge(waiting)
        version = msgspec.structs.replace(waiting, scores=dict(found.scores))
        if found.refused:
            ports.manifest.change_version(msgspec.structs.replace(version, state="failed"), "evaluating")
            ports.store.drop(collection(version.index, version.version))
            raise RefusedError(
                f"version {version.version} of index {version.index!r} does not answer well enough",
                code="MS-5050",
                why=found.refused,
                origin=f"/index/{version.index}",
                fix=f"version {live} goes on answering; change the index, or the least values of its evaluation",
            )
        ports.manifest.change_version(version, "evaluating")
    _swap(version, live, ports.manifest, by, ports.now(), reason)


def _swap(version: IndexVersion, live: int | None, manifest: Manifest, by: str, at_us: int, reason: str) -> None:
    if not manifest.set_live(version.index, version.version, was=live, by=by, at_us=at_us, reason=reason):
        raise _moved_meanwhile(version.index)
    _settle(version.index, manifest, at_us)


def _settle(index: str, manifest: Manifest, at_us: int) -> None:
    """Let the versions' states say what the alias says: it moves first, and a kill may come between."""
    live = manifest.live(index)
    for version in manifest.versions(index):
        if version.version == live and version.state != "live":
            changed = msgspec.structs.replace(version, state="live", live_us=at_us, retired_us=None)
        elif version.version != live and version.state == "live":
            changed = msgspec.structs.replace(version, state="retired", retired_us=at_us)
        else:
            continue
        manifest.change_version(changed, version.state)


def _drop_spare(index: str, live: int, ports: IndexPorts) -> None:
    """Remove the versions that nobody goes back to any more."""
    retired = [item for item in ports.manifest.versions(index) if item.state == "retired" and item.version != live]
    retired.sort(key=lambda item: item.retired_us or 0, reverse=True)
    failed = [item for item in ports.manifest.versions(index) if item.state == "failed"]
    for version in [*retired[_SPARE:], *failed]:
        ports.store.drop(collection(index, version.version))
        ports.manifest.drop_version(index, version.version)


def _moved_meanwhile(index: str) -> StoreError:
    return StoreError(
        f"somebody else has changed index {index!r} meanwhile",
        code="MS-4270",
        why="its versions are moved by compare-and-swap",
        origin=f"/index/{index}",
        fix="run it again: it goes on from what is there",
    )
