"""The app's feature views as Feast's clients ask for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from mainspring.catalog.ids import now_us
from mainspring.choose.services import Services
from mainspring.declare.data import Feature, FeatureView
from mainspring.declare.declaration import name_of, spec_of
from mainspring.declare.model import Endpoint
from mainspring.declare.on_demand import FeatureService, OnDemand, OnDemandFeature
from mainspring.declare.record import ColumnType
from mainspring.errors import UsageError
from mainspring.features.logs.log import SourceTable
from mainspring.features.online.materialise import materialise
from mainspring.features.online.named import NamedFeatures
from mainspring.features.vector_index.search import NearestRequest, VectorIndexSearcher
from mainspring.features.view import View
from mainspring.plan.graph import Plan
from mainspring.protocols.feast.documents import FeastHits
from mainspring.protocols.feast.rest import FeastRows
from mainspring.server.features.reads import count_reads
from mainspring.serving.telemetry import Metrics

__all__ = ["FeastFeatures", "FeastVectors"]

Push = Callable[[str, Sequence[Mapping[str, Any]], int | str | None, str | None], Mapping[str, object]]


_UNCALLED = "(by name)"
"""What stands for a feature service where features are asked for by their names."""


class FeastFeatures:
    """Implements `mainspring.protocols.feast.rest.FeastStore`; an endpoint's name is a feature service's too.

    Args:
        services: the project's ports.
        plan: the app's graph.
        views: the views that are kept online.
        sources: the sources that rows are pushed to, by name.
        push: writes rows to a source.
        metrics: where reads are counted.
    """

    def __init__(
        self,
        services: Services,
        plan: Plan,
        views: Mapping[str, View],
        sources: Mapping[str, SourceTable],
        push: Push,
        metrics: Metrics,
    ) -> None:
        self._services = services
        self._views = {name: view for name, view in views.items() if view.online}
        nodes = [*plan.of_kind("feature_view"), *plan.of_kind("on_demand")]
        declared = {node.name: cast("FeatureView | OnDemand", node.declaration) for node in nodes}
        self._named = NamedFeatures(services.online, self._views, declared)
        self._sources = sources
        self._push = push
        self._of_service = {
            node.name: _references(spec_of(spec_of(cast(Endpoint, node.declaration)).model).inputs)
            for node in plan.of_kind("endpoint", over="model")
        } | {
            node.name: _references(spec_of(cast(FeatureService, node.declaration)).inputs)
            for node in plan.of_kind("feature_service")
        }
        self._counts = {name: count_reads(metrics, plan.app, name) for name in (*self._of_service, _UNCALLED)}

    def keys(self, features: Sequence[str]) -> Mapping[str, ColumnType]:
        """The entity keys of these features."""
        return self._named.find(features).keys

    def service(self, name: str) -> Sequence[str] | None:
        """The features of a feature service, or those that an endpoint's model is given."""
        return self._of_service.get(name)

    def read(
        self, features: Sequence[str], entities: Sequence[Mapping[str, object]], service: str | None = None
    ) -> FeastRows:
        """The features of entities, now; counted as the service's that was asked for, not as one of equal features."""
        named = self._named.find(features)
        found = named.plan.read_dated(entities, now_us())
        statuses = {view: [one.get(view, "") for _, one, _ in found] for view in (found[0][1] if found else ())}
        self._counts[service or _UNCALLED](statuses)
        place = {name: number for number, name in enumerate(named.plan.references)}
        places = [place[column.view, column.feature] for column in named.columns]
        return FeastRows(
            named.columns,
            named.versions,
            [[values[at] for values, _, _ in found] for at in places],
            [[statuses.get(column.view, "PRESENT") for _, statuses, _ in found] for column in named.columns],
            [[events.get(column.view) for _, _, events in found] for column in named.columns],
        )

    def sources(self) -> Sequence[str]:
        """The sources that rows are pushed to."""
        return tuple(self._sources)

    def push(self, source: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write rows to a source's log, then online."""
        self._push(source, rows, None, None)

    def views(self) -> Sequence[str]:
        """The views that are kept online."""
        return tuple(self._views)

    def materialise(self, views: Sequence[str]) -> None:
        """Bring the online store up to the views' logs."""
        tables, online = self._services.tables, self._services.online
        for view in (self._views[name] for name in views):
            source = None if view.decorated else self._sources[view.sources[0]]
            materialise(view, tables, online, now_us=now_us(), source=source)


def _references(inputs: Sequence[object]) -> tuple[str, ...]:
    """The references of the features among inputs."""
    found = []
    for item in inputs:
        if isinstance(item, Feature | OnDemandFeature):
            found.append(f"{name_of(item.view)}:{item.name}")
        elif isinstance(item, FeatureView | OnDemand):
            found.append(name_of(item))
    return tuple(found)


class FeastVectors:
    """Implements `mainspring.protocols.feast.documents.FeastDocuments` over the app's vector indexes.

    Args:
        indexes: by name.
        service: the features of a feature service, by its name.
    """

    def __init__(
        self, indexes: Mapping[str, VectorIndexSearcher], service: Callable[[str], Sequence[str] | None]
    ) -> None:
        self._indexes = indexes
        self._service = service

    def service(self, name: str) -> Sequence[str] | None:
        """The features of a feature service."""
        return self._service(name)

    def nearest(
        self, view: str, features: Sequence[str], vector: list[float], k: int, filter: dict[str, Any] | None
    ) -> FeastHits:
        """What is near to a vector in the index over a view: the one of a vector that is asked for, or its only one."""
        shaped = self._chosen(view, features)
        shape = shaped.shape
        keys = {key.name: key.type for key in shape.view.keys}
        names = [name for name in features if name not in keys]
        found, _ = shaped.find(NearestRequest(vector=vector, k=k, filter=filter, features=names))
        return FeastHits(
            keys,
            shape.vector.name,
            {name: shape.view.feature(name).type for name in names},
            [one.entity for one in found],
            [one.values for one in found],
            [1.0 - one.score if shape.metric == "cosine" else -one.score for one in found],
            [one.event_us for one in found],
            shape.view.version,
        )

    def _chosen(self, view: str, features: Sequence[str]) -> VectorIndexSearcher:
        over = [one for one in self._indexes.values() if one.shape.view.name == view]
        named = [one for one in over if one.shape.vector.name in features]
        found = named or over
        if len(found) != 1:
            raise UsageError(
                f"view {view!r} has {len(over)} vector indexes" if over else f"view {view!r} has no vector index",
                code="MS-2453",
                fix=f"name the vector among the features: {view}:{over[0].shape.vector.name}"
                if over
                else f"declare one: app.vector_index({view}.VECTOR)",
            )
        return found[0]
