"""Writing anew what an online store has lost: a server of it that came back without its disk, or was emptied."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from mainspring.catalog.ids import now_us
from mainspring.choose.services import Services
from mainspring.features.logs.log import SourceTable
from mainspring.features.online.materialise import materialise
from mainspring.features.online.watermark import mark_key
from mainspring.features.view import View

__all__ = ["Refilling"]


class Refilling:
    """Watches that the views which were once online still are, by their watermarks: one round trip a look.

    A view that this process never saw online is left to `apply`.

    Args:
        services: the project's ports.
        views: the views that are kept online, with their online numbers.
        sources: the sources by name.
        told: told what a person should know.
    """

    def __init__(
        self,
        services: Services,
        views: Callable[[], Sequence[View]],
        sources: Mapping[str, SourceTable],
        told: Callable[[str], None],
    ) -> None:
        self._services = services
        self._views = views
        self._sources = sources
        self._told = told
        self._seen: set[int] = set()

    def once(self) -> None:
        """Look once; views whose watermark has gone are written anew from their logs.

        Raises:
            ServiceError, StoreError: a store does not answer; the next look goes on.
        """
        views = self._views()
        if not views:
            return
        marks = self._services.online.get_many([mark_key(view.id) for view in views])
        for view, mark in zip(views, marks, strict=True):
            if mark is not None:
                self._seen.add(view.id)
            elif view.id in self._seen:
                self._refill(view)

    def _refill(self, view: View) -> None:
        tables, online = self._services.tables, self._services.online
        if tables.version(view.log) is None:
            return
        source = None if view.decorated else self._sources.get(view.sources[0])
        done = materialise(view, tables, online, now_us=now_us(), source=source)
        if done.entities:
            self._told(f"the online store had lost feature view {view.name}: {done.entities:,} entities written anew")
