"""The vectors port on Qdrant's embedded engine: a folder an index, one owner process each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mainspring.adapters.qdrant_edge.index import EdgeIndex, made_shard
from mainspring.adapters.qdrant_edge.settings import QdrantEdgeSettings
from mainspring.lazy import lazy
from mainspring.ports.vector_store import Capabilities, Schema
from mainspring.vectors.embedded import EmbeddedStore
from mainspring.vectors.faults import schema_beyond

if TYPE_CHECKING:
    import qdrant_edge as edge
else:
    edge = lazy("qdrant_edge")

__all__ = ["QdrantEdgeStore", "open_store"]

_CAPABILITIES = Capabilities(
    metrics=("cosine", "dot"),
    max_dims=65_536,
    quantisation=("int8",),
    sparse=True,
    full_text="bm25",
)


class QdrantEdgeStore(EmbeddedStore):
    """Indexes in a folder; threads may share a store, and a forked child asks its parent.

    Args:
        place: the folder of the indexes.
        settings: how much of the machine it may use.
    """

    def __init__(self, place: Path, settings: QdrantEdgeSettings) -> None:
        super().__init__(place, "qdrant-edge 0.9", _CAPABILITIES)
        self._settings = settings

    def _made(self, folder: Path, schema: Schema) -> None:
        if schema.text and schema.language:
            try:
                edge.Bm25(edge.Bm25Config(language=schema.language))
            except ValueError as error:
                why = f"it has no stop words and stemmer for {schema.language}"
                raise schema_beyond("qdrant_edge", why) from error
        made_shard(folder, schema, self._settings)

    def _open_index(self, folder: Path, schema: Schema) -> EdgeIndex:
        return EdgeIndex(folder, schema, self._settings)


def open_store(settings: QdrantEdgeSettings, place: Path) -> QdrantEdgeStore:
    """The store in ``indexes`` of the state folder; each index is opened, and owned, at its first use.

    Raises:
        StoreError: MS-4182 and MS-4183, at the first use of an index.
    """
    return QdrantEdgeStore(place / "indexes", settings)
