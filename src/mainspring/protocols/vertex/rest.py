"""Vertex AI's container: the health and predict routes that its environment names."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from mainspring.protocols.bodies import coded
from mainspring.protocols.http import Request, Response, Router, json_response
from mainspring.protocols.payloads.answer import answer_payload
from mainspring.serving.inference import ServedModels

__all__ = ["VertexRoutes", "add_vertex_routes", "vertex_routes"]


class VertexRoutes(msgspec.Struct, frozen=True):
    """The paths that Vertex AI asks at."""

    health: str
    predict: str


def vertex_routes(environment: Mapping[str, str]) -> VertexRoutes | None:
    """The routes of the environment's ``AIP_`` variables; None when the process is no container of Vertex AI's."""
    endpoint, deployed = environment.get("AIP_ENDPOINT_ID"), environment.get("AIP_DEPLOYED_MODEL_ID")
    default = f"/v1/endpoints/{endpoint}/deployedModels/{deployed}" if endpoint and deployed else ""
    health = environment.get("AIP_HEALTH_ROUTE") or default
    predict = environment.get("AIP_PREDICT_ROUTE") or (f"{default}:predict" if default else "")
    if not health.startswith("/") or not predict.startswith("/") or "*" in health + predict:
        return None
    return VertexRoutes(health, predict)


def add_vertex_routes(
    router: Router, models: ServedModels, ready: Callable[[], bool], routes: VertexRoutes, max_body: int
) -> None:
    """Serve the two routes; what is sent to a raw prediction arrives at the second one as it is.

    Args:
        router: where the routes go; they must be there before routes of other wires on the same paths.
        models: the models of this process.
        ready: whether every required model is warm.
        routes: the paths.
        max_body: greatest body in bytes, inflated.
    """

    async def vertex_health(request: Request) -> Response:
        healthy = ready()
        return json_response({"status": "healthy" if healthy else "unhealthy"}, 200 if healthy else 503)

    async def vertex_predict(request: Request) -> Response:
        return await answer_payload(models, models.chosen(None, request, "vertex"), request, "vertex")

    router.add("GET", routes.health, vertex_health)
    router.add("POST", routes.predict, coded(vertex_predict, max_body), asks=True)
