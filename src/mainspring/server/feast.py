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
from mainspring.features.online.materialise import materialise
from mainspring.features.online.named import NamedFeatures
from mainspring.features.view import View
from mainspring.plan.graph import Plan
from mainspring.protocols.feast.rest import FeastRows

__all__ = ["FeastFeatures"]

Push = Callable[[str, Sequence[Mapping[str, Any]], int | str | None, str | None], Mapping[str, object]]


class FeastFeatures:
    """Implements `mainspring.protocols.feast.rest.FeastStore`; an endpoint's name is a feature service's too.

    Args:
        services: the project's ports.
        plan: the app's graph.
        views: the views that are kept online.
        sources: the names of the sources that rows are pushed to.
        push: writes rows to a source.
    """

    def __init__(
        self, services: Services, plan: Plan, views: Mapping[str, View], sources: Sequence[str], push: Push
    ) -> None:
        self._services = services
        self._views = {name: view for name, view in views.items() if view.online}
        nodes = [*plan.of_kind("feature_view"), *plan.of_kind("on_demand")]
        declared = {node.name: cast("FeatureView | OnDemand", node.declaration) for node in nodes}
        self._named = NamedFeatures(services.online, self._views, declared)
        self._sources = tuple(sources)
        self._push = push
        self._of_service = {
            node.name: _references(spec_of(spec_of(cast(Endpoint, node.declaration)).model).inputs)
            for node in plan.of_kind("endpoint", over="model")
        } | {
            node.name: _references(spec_of(cast(FeatureService, node.declaration)).inputs)
            for node in plan.of_kind("feature_service")
        }

    def keys(self, features: Sequence[str]) -> Mapping[str, ColumnType]:
        """The entity keys of these features."""
        return self._named.find(features).keys

    def service(self, name: str) -> Sequence[str] | None:
        """The features of a feature service, or those that an endpoint's model is given."""
        return self._of_service.get(name)

    def read(self, features: Sequence[str], entities: Sequence[Mapping[str, object]]) -> FeastRows:
        """The features of entities, now."""
        named = self._named.find(features)
        found = named.plan.read_dated(entities, now_us())
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
        return self._sources

    def push(self, source: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write rows to a source's log, then online."""
        self._push(source, rows, None, None)

    def views(self) -> Sequence[str]:
        """The views that are kept online."""
        return tuple(self._views)

    def materialise(self, views: Sequence[str]) -> None:
        """Bring the online store up to the views' logs."""
        for name in views:
            materialise(self._views[name], self._services.tables, self._services.online, now_us=now_us())


def _references(inputs: Sequence[object]) -> tuple[str, ...]:
    """The references of the features among inputs."""
    found = []
    for item in inputs:
        if isinstance(item, Feature | OnDemandFeature):
            found.append(f"{name_of(item.view)}:{item.name}")
        elif isinstance(item, FeatureView | OnDemand):
            found.append(name_of(item))
    return tuple(found)
