"""Online features by their names, as clients of a feature store ask for them: ``VIEW:FEATURE``."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import cast

import msgspec

from mainspring.declare.data import Feature, FeatureView, did_you_mean
from mainspring.declare.declaration import spec_of
from mainspring.declare.on_demand import FeatureInput, OnDemand
from mainspring.declare.origin import here
from mainspring.declare.record import ColumnType
from mainspring.errors import UsageError
from mainspring.features.online.computed import SelectionPlan, compile_selection
from mainspring.features.online.plan import compile_plan
from mainspring.features.selection import functions_of, selection_of
from mainspring.features.view import View, pick
from mainspring.ports.online import OnlineStore

__all__ = ["NamedColumn", "NamedFeatures", "NamedPlan"]

_PLANS = 256


class NamedColumn(msgspec.Struct, frozen=True):
    """A feature that was asked for."""

    view: str
    feature: str
    type: ColumnType


class NamedPlan(msgspec.Struct, frozen=True):
    """How features that were asked for are read.

    Attributes:
        columns: the features in the order they were asked for.
        keys: the entity keys of their views, and the fields of the request, with their types.
        versions: the version of each view's definition, by its name.
    """

    plan: SelectionPlan
    columns: tuple[NamedColumn, ...]
    keys: Mapping[str, ColumnType]
    versions: Mapping[str, str]


class NamedFeatures:
    """Makes read plans of names, and keeps those that were asked for lately.

    Args:
        store: the online store.
        views: the views that are kept online, by name.
        declared: feature views and on-demand functions as they were declared, by name; needed for the latter only.
    """

    def __init__(
        self,
        store: OnlineStore,
        views: Mapping[str, View],
        declared: Mapping[str, FeatureView | OnDemand] | None = None,
    ) -> None:
        self._declared = declared or {}
        self._store = store
        self._views = {name: view for name, view in views.items() if view.online}
        self._plans: OrderedDict[tuple[str, ...], NamedPlan] = OrderedDict()

    def find(self, references: Sequence[str]) -> NamedPlan:
        """The plan of ``VIEW:FEATURE`` names; ``VIEW`` alone is all its features.

        Raises:
            UsageError: MS-2104, no view is called so; MS-2101, it has no such feature.
        """
        asked = tuple(references)
        found = self._plans.get(asked)
        if found is None:
            found = self._plans[asked] = self._made(asked)
            while len(self._plans) > _PLANS:
                self._plans.popitem(last=False)
        return found

    def view(self, name: str) -> View:
        """A view by its name.

        Raises:
            UsageError: MS-2104, no view is called so.
        """
        if name not in self._views:
            raise UsageError(
                f"no feature view that is kept online is called {name!r}",
                code="MS-2104",
                fix=did_you_mean(name, self._views),
            )
        return self._views[name]

    def _made(self, references: tuple[str, ...]) -> NamedPlan:
        if any(isinstance(self._declared.get(name.partition(":")[0]), OnDemand) for name in references):
            return self._computed(references)
        picks = []
        for reference in references:
            name, _, feature = reference.partition(":")
            picks.append(pick(self.view(name), *([feature] if feature else [])))
        # One look a view: its features are read together, and put in the order of the names afterwards.
        views = {one.view.name: one.view for one in picks}
        wanted = {
            name: dict.fromkeys(f.name for p in picks if p.view.name == name for f in p.features) for name in views
        }
        columns = tuple(
            NamedColumn(one.view.name, feature.name, feature.type) for one in picks for feature in one.features
        )
        return NamedPlan(
            compile_plan(self._store, [pick(views[name], *features) for name, features in wanted.items()]),
            columns,
            {key.name: key.type for view in views.values() for key in view.keys},
            {name: view.version for name, view in views.items()},
        )

    def _computed(self, references: tuple[str, ...]) -> NamedPlan:
        inputs: list[FeatureInput] = []
        for reference in references:
            name, _, feature = reference.partition(":")
            owner = self._declared.get(name)
            if isinstance(owner, OnDemand):
                single = spec_of(owner).single and feature in ("", name)
                inputs.append(owner[feature] if feature and not single else owner)
                continue
            for one in pick(self.view(name), *([feature] if feature else [])).features:
                inputs.append(Feature(cast(FeatureView, owner), one.name, here()))
        selection = selection_of(inputs, self._views)
        return NamedPlan(
            compile_selection(self._store, selection, functions_of(inputs)),
            tuple(NamedColumn(one.view, one.name, one.type) for one in selection.outputs),
            selection.keys | {field.name: field.type for field in selection.request},
            {one.view.name: one.view.version for one in selection.picks},
        )
