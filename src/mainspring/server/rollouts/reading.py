"""What each version of a model reads for an endpoint, and where its shadows are logged."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mainspring.server.rollouts.loading import ModelLoading
from mainspring.serving.endpoint import FeatureReader, ModelColumn, Reading, dates_among
from mainspring.serving.models import LiveModel
from mainspring.serving.table import ModelTable
from mainspring.serving.versions import ModelVersions

__all__ = ["EndpointRoutes", "shadow_log"]


class EndpointRoutes:
    """The versions of the model behind an endpoint.

    Args:
        table: the models.
        loading: knows the versions that read by other definitions than the app's.
        model: the model's name.
        reader: called for the read plan of the app's own definitions.
        columns: the model's columns by these.
    """

    def __init__(
        self,
        table: ModelTable,
        loading: ModelLoading,
        model: str,
        reader: Callable[[], FeatureReader],
        columns: Sequence[ModelColumn],
    ) -> None:
        self._table = table
        self._loading = loading
        self._model = model
        self._reader = reader
        self._columns = tuple(columns)
        self._dates = dates_among(self._columns)

    def versions(self) -> ModelVersions:
        """Which there are now."""
        return self._table.versions(self._model)

    def reading(self, live: LiveModel) -> Reading:
        """A loaded version with what it reads."""
        own = self._loading.own(live)
        if own is not None:
            return Reading(live, *own)
        return Reading(live, self._reader(), self._columns, self._dates, live.parts)


def shadow_log(endpoint: str) -> str:
    """The folder, and the table of the lake, of what shadows of an endpoint would have answered."""
    return f"{endpoint}.shadow"
