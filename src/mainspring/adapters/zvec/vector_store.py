"""The vectors port on zvec: a folder an index, one owner process each."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

from mainspring.adapters.zvec.index import ZvecIndex, made_collection
from mainspring.adapters.zvec.settings import ZvecSettings
from mainspring.lazy import lazy
from mainspring.ports.vector_store import Capabilities, Schema
from mainspring.vectors.embedded import EmbeddedStore

if TYPE_CHECKING:
    import zvec
else:
    zvec = lazy("zvec")

__all__ = ["ZvecStore", "open_store"]

_CAPABILITIES = Capabilities(
    metrics=("cosine", "dot"),
    max_dims=20_000,
    quantisation=("int8",),
    full_text="bm25",
    id_form="string",
)
_LOCK = threading.Lock()
_BEGUN: list[bool] = []


class ZvecStore(EmbeddedStore):
    """Indexes in a folder; threads may share a store, and a forked child asks its parent.

    Args:
        place: the folder of the indexes.
        settings: how much of the machine it may use.
    """

    def __init__(self, place: Path, settings: ZvecSettings) -> None:
        super().__init__(place, "zvec 0.8", _CAPABILITIES)
        self._settings = settings

    def _made(self, folder: Path, schema: Schema) -> None:
        _begin(self._settings)
        made_collection(folder, schema, self._settings)

    def _open_index(self, folder: Path, schema: Schema) -> ZvecIndex:
        _begin(self._settings)
        return ZvecIndex(folder, schema)


def _begin(settings: ZvecSettings) -> None:
    """Set zvec up: it takes its threads once a process."""
    with _LOCK:
        if not _BEGUN:
            zvec.init(
                log_level=zvec.LogLevel.FATAL,
                query_threads=settings.search_threads or None,
                optimize_threads=settings.build_threads or None,
            )
            _BEGUN.append(True)


def open_store(settings: ZvecSettings, place: Path) -> ZvecStore:
    """The store in ``indexes`` of the state folder; each index is opened, and owned, at its first use.

    Raises:
        StoreError: MS-4182 and MS-4183, at the first use of an index.
    """
    return ZvecStore(place / "indexes", settings)
