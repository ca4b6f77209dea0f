"""The wires of models on the listeners: which are on, where, and who may load and unload."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from mainspring.config.platform import is_azureml
from mainspring.config.settings import Settings
from mainspring.declare.identity import ANYONE
from mainspring.protocols.azureml.rest import Script, add_azureml_routes
from mainspring.protocols.bodies import refuse_other_sites
from mainspring.protocols.http import Fault, Request, Router
from mainspring.protocols.kserve.rest import add_alive_route, add_v1_models
from mainspring.protocols.oip.repository import add_repository_index, add_repository_routes
from mainspring.protocols.oip.rest import add_health_routes, add_oip_routes
from mainspring.protocols.sagemaker.rest import (
    FolderLoader,
    add_multi_model_routes,
    add_ping_route,
    add_sagemaker_routes,
)
from mainspring.protocols.tfserving.rest import add_metrics_route, add_tfserving_routes, add_v1_predict
from mainspring.protocols.torchserve.inference import add_torchserve_inference
from mainspring.protocols.torchserve.management import add_torchserve_descriptions, add_torchserve_management
from mainspring.protocols.vertex.rest import add_vertex_routes, vertex_routes
from mainspring.server.http.callers import Callers, digest_of, key_of
from mainspring.server.http.listening import exposed_pages, management_keys, served_protocols
from mainspring.serving.inference import ServedModels

__all__ = ["CHANGED", "MANAGED", "ModelWires", "management_token"]

MANAGED = ("/v2/repository", "/metrics")
"""Path prefixes of the management listener that are no page of the console's."""
_MULTI_MODEL_ROOT = Path("/opt/ml/models")
"""Where SageMaker puts the models of a container with many: its contract."""
CHANGED = ("/models",)
"""Those that are a page of the console's when they are read."""


def management_token(settings: Settings) -> Callers:
    """Who may manage on the port of the endpoints: whoever has the management listener's token; nobody without one.

    Raises:
        ConfigError: as `management_keys`.
    """
    token = settings.setting("management.token")
    if token is None or token.value is None:
        return Callers()
    return Callers([(digest_of(key), ANYONE) for key in management_keys(settings)])


class ModelWires:
    """The wires of this process's models.

    Args:
        models: the models.
        settings: which wires are on, and their limits.
        ready: whether every required model is warm.
        server: the server's name and version.
        page: the metrics page for an Accept header.
        loader: loads models from the platform's folder.
        environment: the variables by which platforms say where they ask.
        script: Azure ML's, which answers in the model's place.

    Raises:
        ConfigError: MS-3101, a protocol of the settings is none.
    """

    def __init__(
        self,
        models: ServedModels,
        settings: Settings,
        ready: Callable[[], bool],
        server: tuple[str, str],
        page: Callable[[bytes], tuple[bytes, bytes]],
        loader: FolderLoader,
        environment: Mapping[str, str],
        script: Script | None = None,
    ) -> None:
        self._models = models
        self._on = served_protocols(settings)
        self._max_body = settings.whole("server.max_body")
        self._ready = ready
        self._server = server
        self._loader = loader
        self._environment = environment
        self._script = script
        self._page = page if "prometheus" in exposed_pages(settings) else None
        self._token = management_token(settings)

    def add_routes(self, router: Router, beside: Router) -> None:
        """Serve the wires on the port of the endpoints; what changes the process takes the management token there.

        Args:
            router: where the routes go.
            beside: the routes of language models, of which some share a path.
        """
        azure = "azureml" in self._on and is_azureml(self._environment)
        add_health_routes(router, self._ready)
        if "oip" in self._on:
            add_oip_routes(router, self._models, self._server, self._max_body)
            add_repository_index(router, self._models)
        self._add_clouds(router)
        if v1 := self._on & {"tfserving", "kserve"}:
            add_v1_models(router, self._models, beside)
            add_v1_predict(router, self._models, v1, self._max_body)
        if "kserve" in self._on or azure:
            add_alive_route(router, azure=azure)
        if "tfserving" in self._on:
            add_tfserving_routes(router, self._models)
            if self._page is not None:
                add_metrics_route(router, "/monitoring/prometheus/metrics", self._page)
        self._add_management(router, self.with_token)

    def _add_clouds(self, router: Router) -> None:
        """Serve the containers' contracts; where two share a path, the one that its platform names comes first."""
        models, most = self._models, self._max_body
        vertex = vertex_routes(self._environment)
        if "vertex" in self._on and vertex is not None:
            add_vertex_routes(router, models, self._ready, vertex, most)
        if "sagemaker" in self._on and self._environment.get("SAGEMAKER_MULTI_MODEL", "").lower() == "true":
            add_multi_model_routes(router, models, self._loader, asyncio.to_thread, most, _MULTI_MODEL_ROOT)
        if invoked := next((name for name in ("sagemaker", "torchserve") if name in self._on), None):
            add_ping_route(router, self._ready)
            add_sagemaker_routes(router, models, invoked, most)
        if "azureml" in self._on:
            add_azureml_routes(router, models, self._server[1], most, self._script)
        if "torchserve" in self._on:
            add_torchserve_inference(router, models, self._server, most)
            add_torchserve_descriptions(router, models, os.getpid())

    def add_management_routes(self, router: Router) -> None:
        """Serve what changes the process on the management listener, whose guard has let the request in."""
        if "oip" in self._on:
            add_repository_index(router, self._models)
        if "torchserve" in self._on and self._page is not None:
            add_metrics_route(router, "/metrics", self._page)
        self._add_management(router, refuse_other_sites)

    def manages(self, request: Request) -> bool:
        """Whether a request to the port of the endpoints is one of management, with its token."""
        if not request.path.startswith((*MANAGED, *CHANGED)):
            return False
        return self.has_token(request)

    def _add_management(self, router: Router, may: Callable[[Request], None]) -> None:
        if "oip" in self._on:
            add_repository_routes(router, self._models, may, asyncio.to_thread)
        if "torchserve" in self._on:
            add_torchserve_descriptions(router, self._models, os.getpid())
            add_torchserve_management(router, self._models, may, asyncio.to_thread)

    def has_token(self, request: Request) -> bool:
        """Whether a request brings the management token."""
        return self._token.of(key_of(request.headers)) is not None

    def with_token(self, request: Request) -> None:
        """Let in who brings the management token.

        Raises:
            Fault: 403.
        """
        if not self.has_token(request):
            raise Fault(
                403,
                "models are loaded and unloaded on the management listener, or here with the token of management.token",
            )
