"""Vector indexes of an app: as steps of the engine, and at work in a server that follows pushes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import cast

import msgspec
from msgspec.structs import replace

from mainspring.catalog.ids import new_id, now_us
from mainspring.choose.services import Services
from mainspring.declare.declaration import name_of, origin_of, spec_of
from mainspring.declare.vector_index import VectorIndex
from mainspring.engine.context import current
from mainspring.engine.task import Output, Task
from mainspring.errors import MainspringError
from mainspring.features.logs.log import SourceTable, newest
from mainspring.features.online.materialise import Materialised, online_id
from mainspring.features.steps import sources_of, views_of
from mainspring.features.vector_index.follow import Followed, follow, is_behind, reaches
from mainspring.features.vector_index.search import VectorIndexSearcher
from mainspring.features.vector_index.shape import VectorIndexShape, vector_index_shape
from mainspring.features.view import View
from mainspring.plan.graph import Plan
from mainspring.ports.catalog import Entity
from mainspring.serving.telemetry import Metrics

__all__ = [
    "VectorIndexes",
    "described",
    "described_named",
    "index_followed",
    "owner_of",
    "shapes_of",
    "tasks_of_vector_indexes",
]

_LONGEST = 60.0
_LOOK = 10.0
"""How often a server looks whether the points of an index are still there."""


def shapes_of(
    services: Services, plan: Plan, views: Mapping[str, View], sources: Mapping[str, SourceTable]
) -> dict[str, VectorIndexShape]:
    """The vector indexes of an app, by name.

    Args:
        services: the project's ports.
        plan: the app's graph.
        views: its views, with the numbers under which they are kept online.
        sources: its sources.
    """
    nodes = plan.of_kind("vector_index")
    owner = owner_of(services) if nodes else ""
    found = {}
    for node in nodes:
        declaration = cast(VectorIndex, node.declaration)
        view = views[name_of(spec_of(declaration).feature.view)]
        found[node.name] = vector_index_shape(
            declaration, view, owner, None if view.decorated else sources[view.sources[0]]
        )
    return found


def owner_of(services: Services) -> str:
    """What tells this project's collections from those of others in the same vector store."""
    offered = Entity(new_id(), "vector_index", "owner", 0, "owner", {}, now_us())
    return services.catalog.add_entity(offered).id[-8:]


def tasks_of_vector_indexes(
    services: Services, plan: Plan, views: Mapping[str, View], sources: Mapping[str, SourceTable]
) -> list[Task]:
    """The tasks ``vector_index/NAME``, after ``online/VIEW``; a result stands while the store has what it says."""
    made_with = {key: item.shown() for key, item in services.settings.section("vectors").items()}
    origins = {node.name: str(origin_of(cast(VectorIndex, node.declaration))) for node in plan.of_kind("vector_index")}
    return [
        Task(
            f"vector_index/{name}",
            index_followed,
            {"shape": shape, "made_with": made_with},
            {"at": Output(f"online/{shape.view.name}")},
            title=f"vector index {name}",
            holds=_still_indexed,
            origin=origins[name],
        )
        for name, shape in shapes_of(services, plan, views, sources).items()
    ]


def index_followed(shape: VectorIndexShape, made_with: Mapping[str, object], at: Materialised) -> Followed:
    """Bring a vector index up to its view. The parameters are what its cache key is of."""
    step = current()
    services = cast(Services, step.services)
    done = follow(shape, services, now_us, anew=step.forced)
    assert done is not None  # the view was computed just now
    step.log_metric(f"{shape.name}.points", done.written)
    if told := _skipped_in_words(done.skipped):
        step.note(told)
    return done


def _still_indexed(services: Services, params: Mapping[str, object], kept: object) -> bool:
    return reaches(cast(VectorIndexShape, params["shape"]), services, msgspec.convert(kept, Followed).through)


def _skipped_in_words(skipped: Mapping[str, int]) -> str:
    """How many entities have no vector to be found by, as people read it; empty when all have one."""
    parts = [f"{count:,} {why.replace('_', ' ')}" for why, count in sorted(skipped.items())]
    return f"not in the index, for their vectors: {', '.join(parts)}" if parts else ""


def described_named(services: Services, plan: Plan, name: str) -> Mapping[str, object]:
    """As `described`, of an index by its name in a plan."""
    views = views_of(plan)
    views = {view.name: replace(view, id=online_id(services.catalog, view)) for view in views.values()}
    return described(services, shapes_of(services, plan, views, sources_of(plan))[name])


def described(services: Services, shape: VectorIndexShape) -> Mapping[str, object]:
    """What is told of an index: how it is declared, how far it has come, how many entities are in it."""
    mark = VectorIndexSearcher(shape, services, now_us).mark()
    top = newest(services.tables, shape.view.log)
    found: dict[str, object] = {
        "index": shape.name,
        "view": shape.view.name,
        "feature": shape.vector.name,
        "dims": shape.vector.type.length,
        "metric": shape.metric,
        "filters": dict(shape.types),
        "state": "none" if mark is None else "built" if mark.built else "building",
        "entities": None,
        "behind": top is not None and (mark is None or mark.through < top.through),
        "collection": None if mark is None else mark.collection,
    }
    if mark is not None and mark.built:
        try:
            found["entities"] = services.vectors.count(mark.collection)
        except MainspringError as error:
            found |= {"state": "lost", "error": error.what}
    return found


class _Trouble(msgspec.Struct):
    """What a server could not do of an index, and when it tries again."""

    told: str = ""
    wait: float = 0.0
    until: float = 0.0


class VectorIndexes:
    """The vector indexes of a server: asked by clients, and brought up to what is pushed.

    Args:
        services: the project's ports.
        plan: the app's graph.
        views: its views, with their online numbers.
        sources: its sources.
        metrics: told how far each has come.
        told: told what a person should know.
    """

    def __init__(
        self,
        services: Services,
        plan: Plan,
        views: Mapping[str, View],
        sources: Mapping[str, SourceTable],
        metrics: Metrics,
        told: Callable[[str], None],
    ) -> None:
        self._services, self._app, self._metrics, self._told = services, plan.app, metrics, told
        self._shapes = shapes_of(services, plan, views, sources)
        self._troubles = {name: _Trouble() for name in self._shapes}
        self._behind_since: dict[str, float] = {}
        self._looked: dict[str, float] = {}
        self._stopped = False
        self.searchers = {name: VectorIndexSearcher(shape, services, now_us) for name, shape in self._shapes.items()}

    def follow(self) -> None:
        """Bring every index up to its view's log, once; a fault of one holds up no other, and it is tried again."""
        for name, shape in self._shapes.items():
            if not self._stopped and time.monotonic() >= self._troubles[name].until:
                try:
                    self._follow(shape)
                    self._troubles[name] = _Trouble()
                except MainspringError as error:
                    self._failed(name, error)
            self._measure(name)

    def stop(self) -> None:
        """Break off between two batches what is going on."""
        self._stopped = True

    def ready(self) -> bool:
        """Whether every index has been begun here: one whose store is lost is built anew while others answer."""
        return all(searcher.mark() is not None for searcher in self.searchers.values())

    def described(self, name: str) -> Mapping[str, object]:
        """What is told of an index."""
        return described(self._services, self._shapes[name])

    def _follow(self, shape: VectorIndexShape) -> None:
        top = newest(self._services.tables, shape.view.log)
        if top is None or not (is_behind(shape, self._services, top, now_us()) or self._is_lost(shape)):
            self._behind_since.pop(shape.name, None)
            return
        self._behind_since.setdefault(shape.name, time.monotonic())
        done = follow(shape, self._services, now_us, stopped=lambda: self._stopped)
        if done is None:
            return
        if done.whole:
            self._behind_since.pop(shape.name, None)
        labels = {"app": self._app, "index": shape.name}
        self._metrics.counter("mainspring_vector_index_written_total", **labels)(done.written)
        self._metrics.counter("mainspring_vector_index_removed_total", **labels)(done.removed)
        for why, count in done.skipped.items():
            self._metrics.counter("mainspring_vector_index_skipped_total", why=why, **labels)(count)

    def _is_lost(self, shape: VectorIndexShape) -> bool:
        """Whether the points of an index are gone, or what they speak of; looked at now and then."""
        if time.monotonic() < self._looked.get(shape.name, 0.0):
            return False
        self._looked[shape.name] = time.monotonic() + _LOOK
        return not reaches(shape, self._services, -1)

    def _failed(self, name: str, error: MainspringError) -> None:
        trouble = self._troubles[name]
        if trouble.told != error.what:
            self._told(f"vector index {name}: {error.lines()}")
        trouble.told = error.what
        trouble.wait = min(max(1.0, 2 * trouble.wait), _LONGEST)
        trouble.until = time.monotonic() + trouble.wait
        self._metrics.counter("mainspring_vector_index_failed_total", app=self._app, index=name)(1)

    def _measure(self, name: str) -> None:
        since = self._behind_since.get(name)
        lag = 0.0 if since is None else time.monotonic() - since
        self._metrics.set("mainspring_vector_index_lag_seconds", lag, app=self._app, index=name)
