"""The indexes that a server answers from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from mainspring.choose.services import Services
from mainspring.declare.documents import Index
from mainspring.plan.graph import Plan
from mainspring.rag.search import Searcher
from mainspring.rag.steps import searcher_of, shape_of

__all__ = ["Knowledge"]


class Knowledge:
    """An app's indexes as they are asked; the store and the embedder are opened at the first search.

    Args:
        services: the project's ports.
        plan: the app's graph.
    """

    def __init__(self, services: Services, plan: Plan) -> None:
        self._services = services
        indexes = [cast(Index, node.declaration) for node in plan.of_kind("index")]
        shapes = [shape_of(index) for index in indexes]
        self.searchers: Mapping[str, Searcher] = {shape.name: searcher_of(services, shape) for shape in shapes}

    def described(self, name: str) -> Mapping[str, object]:
        """What is told of an index: the version that answers, its size, and its other versions."""
        manifest = self._services.manifest
        live = manifest.live(name)
        versions = manifest.versions(name)
        answering = next((item for item in versions if item.version == live), None)
        return {
            "index": name,
            "version": live,
            "documents": len(manifest.members(name, live)) if live is not None else 0,
            "chunks": 0 if answering is None else answering.rows,
            "embedder": None if answering is None else answering.embedder_id,
            "versions": [
                {"version": item.version, "state": item.state, "rows": item.rows, "created": item.created_us}
                for item in versions
            ],
        }

    def ready(self) -> bool:
        """Whether every index has a version that answers."""
        return all(self._services.manifest.live(name) is not None for name in self.searchers)
