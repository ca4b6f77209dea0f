"""Which services the gRPC listener has, where it listens, and who may ask and manage there."""

from __future__ import annotations

import asyncio
import importlib.util
import os
from collections.abc import Callable, Sequence
from typing import Any

from mainspring.config.settings import Settings
from mainspring.errors import ConfigError
from mainspring.protocols.feast.grpc import feast_services
from mainspring.protocols.feast.rest import FeastStore
from mainspring.protocols.grpc.health import HEALTH, health_service
from mainspring.protocols.grpc.reflection import reflection_services
from mainspring.protocols.grpc.service import GrpcService
from mainspring.protocols.http import Request
from mainspring.protocols.oip import messages as oip
from mainspring.protocols.oip.grpc import OPEN, oip_services
from mainspring.protocols.oip.grpc import PROTOCOL as OIP
from mainspring.protocols.tfserving.grpc import PROTOCOL as TFSERVING
from mainspring.protocols.tfserving.grpc import tfserving_services
from mainspring.protocols.tfserving.messages import PREDICTION
from mainspring.protocols.torchserve import messages as torchserve
from mainspring.protocols.torchserve.grpc import PROTOCOL as TORCHSERVE
from mainspring.protocols.torchserve.grpc import torchserve_services
from mainspring.server.grpc.host import GrpcHost, GrpcLimits
from mainspring.server.grpc.tls import credentials_of
from mainspring.server.http.callers import Callers
from mainspring.server.http.guard import guard
from mainspring.server.http.listening import served_protocols
from mainspring.server.http.rates import Rates
from mainspring.server.http.wires import ModelWires
from mainspring.serving.counts import ANSWERING
from mainspring.serving.inference import ServedModels
from mainspring.serving.telemetry import Metrics
from mainspring.serving.tracing import Tracing

__all__ = ["GrpcListening"]

_PORT = "grpc.port"
_WIRES = {
    f"/{oip.INFERENCE}/ModelInfer": OIP,
    f"/{oip.INFERENCE}/ModelStreamInfer": OIP,
    f"/{torchserve.INFERENCE}/Predictions": TORCHSERVE,
    f"/{torchserve.INFERENCE}/StreamPredictions": TORCHSERVE,
    f"/{torchserve.INFERENCE}/StreamPredictions2": TORCHSERVE,
    **{f"/{PREDICTION}/{name}": TFSERVING for name in ("Predict", "Classify", "Regress", "MultiInference")},
}
"""The wires of the methods that ask a model."""
_OPEN = OPEN | {f"/{HEALTH}/Check", f"/{HEALTH}/Watch"}


class GrpcListening:
    """The gRPC listener of a process; it has none where `grpc.enabled` is false or nothing is served by it.

    Args:
        settings: the port, the protocols that are on, and their limits.
        models: the models of this process.
        feast: the feature store as Feast's clients ask it, or None.
        wires: who may manage.
        ready: whether every required model is warm.
        server: the server's name and version.
        callers: whose keys let a call in.
        metrics: where calls are counted.
        app: the app's name, a label of the counts.
        told: told what a person should know, a line at a time.
        on_error: told of unexpected exceptions.
        native: Mainspring's own services.
        rates: how often each caller may ask, over HTTP and gRPC together; None is no limit.
        refused: told why a call was refused by the guard.
        tracing: makes spans of calls; None makes none.

    Raises:
        ConfigError: MS-3101, a protocol of the settings is none; MS-4333, grpcio is not installed, and the settings
            name a port; as `credentials_of` raises.
    """

    def __init__(
        self,
        settings: Settings,
        models: ServedModels,
        feast: FeastStore | None,
        wires: ModelWires,
        ready: Callable[[], bool],
        server: tuple[str, str],
        callers: Callers,
        metrics: Metrics,
        app: str,
        told: Callable[[str], None],
        on_error: Callable[[Exception], object],
        native: Sequence[GrpcService] = (),
        *,
        rates: Rates | None = None,
        refused: Callable[[str], None] = lambda why: None,
        tracing: Tracing | None = None,
    ) -> None:
        self._settings = settings
        self._told = told
        self._models = models
        self._metrics = metrics
        self._app = app
        self._counts: dict[tuple[str, str], tuple[Callable[[float], None], Callable[[float], None]]] = {}
        self._host: GrpcHost | None = None
        self._credentials: Any = None
        protocols = served_protocols(settings) if models.known() else frozenset()
        if not settings.flag("grpc.enabled") or not (protocols or feast or native) or not self._installed():
            return
        services = _of_models(protocols, models, ready, server, wires, on_error)
        if feast is not None:
            services += feast_services(feast)
        services += native
        if not services:
            return
        names = [HEALTH, *(service.name for service in services)]
        services.append(health_service(ready, lambda: names))
        services += reflection_services(lambda: services)
        changes = {f"/{service.name}/{name}" for service in services for name in service.changes}
        let_in = guard(
            callers,
            settings.whole("server.queue"),
            lambda: 0 if self._host is None else self._host.open,
            besides=lambda request: request.path in changes and wires.has_token(request),
            rates=rates,
            refused=refused,
        )
        self._credentials = credentials_of(settings)
        self._host = GrpcHost(
            services,
            _limits(settings),
            _opened(let_in),
            self._count,
            on_error,
            addressed=rates is not None and not callers,
            tracing=tracing,
        )

    def _installed(self) -> bool:
        """Whether grpcio is there; without it there is no listener, unless somebody has asked for one."""
        if importlib.util.find_spec("grpc") is not None:
            return True
        if self._chosen():
            raise ConfigError(
                "gRPC cannot be served",
                code="MS-4333",
                why="grpcio is not installed",
                origin=self._settings.values[_PORT].origin,
                fix="pip install 'mainspring[serving]', or grpc.enabled = false",
            )
        self._told("grpc        not served: grpcio is not installed")
        return False

    def _chosen(self) -> bool:
        return self._settings.values[_PORT].origin != "default"

    async def start(self, *, shared: bool = False) -> None:
        """Listen. In `dev` a port that nobody has chosen may be taken by another project: then there is no listener.

        Args:
            shared: whether other workers of the server listen at the same port.

        Raises:
            ConfigError: MS-3104, the port is taken.
        """
        if self._host is None:
            return
        host, port = self._settings.text("server.host") or "127.0.0.1", self._settings.whole(_PORT)
        try:
            bound = await self._host.start(host, port, self._credentials, shared=shared)
        except ConfigError as error:
            if self._chosen() or self._settings.profile != "dev":
                raise
            self._host = None
            self._told(f"grpc        not served: {error.what}; {error.fix}")
            return
        self._told(f"{'grpc':<11} {host}:{bound}")

    def drain(self) -> None:
        """Begin to stop: what comes now is refused, and what is under way goes on."""
        if self._host is not None:
            self._host.drain(self._settings.number("server.drain"))

    async def stop(self) -> None:
        """Stop, and wait until no call is under way."""
        if self._host is not None:
            await self._host.stop(self._settings.number("server.drain"))

    def _count(self, path: str, code: str, seconds: float) -> None:
        found = self._counts.get((path, code))
        if found is None:
            _, service, method = path.split("/")
            labels = {"app": self._app, "service": service, "method": method}
            add = self._metrics.counter("mainspring_grpc_requests_total", code=code, **labels)
            observe = self._metrics.histogram("mainspring_grpc_request_seconds", **labels)
            found = self._counts[path, code] = (add, observe)
        found[0](1.0)
        found[1](seconds)
        counts = ANSWERING.get()
        if counts is None and (wire := _WIRES.get(path)) is not None:  # nobody has read whom it is for
            counts = self._models.unanswered("", wire)
        if counts is not None:
            counts.ended(code)


def _of_models(
    protocols: frozenset[str],
    models: ServedModels,
    ready: Callable[[], bool],
    server: tuple[str, str],
    wires: ModelWires,
    on_error: Callable[[Exception], object],
) -> list[GrpcService]:
    """The services of the protocols that are on; KServe's is the Open Inference Protocol's."""
    found: list[GrpcService] = []
    if protocols & {"oip", "kserve"}:
        found += oip_services(models, server, ready, wires.with_token, asyncio.to_thread, on_error)
    if "tfserving" in protocols:
        found += tfserving_services(models, wires.with_token, asyncio.to_thread)
    if "torchserve" in protocols:
        found += torchserve_services(models, ready, os.getpid(), wires.with_token, asyncio.to_thread, on_error)
    return found


def _limits(settings: Settings) -> GrpcLimits:
    key = "server.max_body" if settings.text("grpc.max_message") is None else "grpc.max_message"
    return GrpcLimits(settings.whole(key), settings.whole("server.queue"), settings.number("server.timeout"))


def _opened(let_in: Callable[[Request], None]) -> Callable[[Request], None]:
    """A guard that lets everybody ask how the server is."""
    return lambda request: None if request.path in _OPEN else let_in(request)
