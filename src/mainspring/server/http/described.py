"""What the OpenAPI description is made from: the state of this process and its settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from mainspring.config.settings import Settings
from mainspring.declare.record import FieldSpec
from mainspring.features.logs.log import SourceTable
from mainspring.features.online.service import ServedFeatures
from mainspring.protocols.openapi.document import EndpointShape, Limits, ServiceShape, Shapes
from mainspring.serving.endpoint import EndpointService

__all__ = ["Described", "described_limits", "shapes_of"]


class Described(Protocol):
    """A process's state, as far as it is described."""

    @property
    def endpoints(self) -> Mapping[str, EndpointService]:
        """The endpoints of models, by name."""

    @property
    def feature_services(self) -> Mapping[str, ServedFeatures]:
        """The feature services, by name."""

    @property
    def sources(self) -> Mapping[str, SourceTable]:
        """The sources that take pushes, by name."""

    def names(self) -> Sequence[str]:
        """The models that this process may serve."""


def described_limits(settings: Settings, *, keys: bool) -> Limits:
    """What the settings allow of a request; `keys` says whether there are any."""
    return Limits(settings.whole("server.max_rows"), settings.flag("serving.replay"), keys)


def shapes_of(state: Described, app: str, version: str) -> Shapes:
    """What a process serves now."""
    endpoints = [
        EndpointShape(one.name, one.model, one.carried, one.ignored, one.boolean) for one in state.endpoints.values()
    ]
    services = [ServiceShape(one.name, one.keys, one.request) for one in state.feature_services.values()]
    sources: dict[str, Sequence[FieldSpec]] = {name: table.fields for name, table in state.sources.items()}
    return Shapes(app, version, endpoints, services, sources, state.names())
