"""KServe's InferenceService in Standard mode: our server as its custom predictor."""

from __future__ import annotations

from mainspring.adapters.kubernetes.objects import REVISION, SERVER, labels_of, named, object_of, release_name
from mainspring.adapters.kubernetes.pods import app_container, app_pod
from mainspring.adapters.kubernetes.settings import KubernetesSettings
from mainspring.ports.cluster import Object
from mainspring.ports.target import Revision, World

__all__ = ["MODE", "inference_service"]

MODE = "serving.kserve.io/deploymentMode"
_CONTAINER = "kserve-container"
"""The name by which KServe knows the predictor's container."""


def inference_service(revision: Revision, settings: KubernetesSettings, namespace: str, world: World) -> Object:
    """An InferenceService; KServe makes its Deployment, Service and autoscaler.

    The models come in the image, by our own layers: KServe's storage initializer is not used, whose older versions
    do not run under restricted Pod Security.
    """
    app = revision.app.name
    container = app_container(_CONTAINER, ["serve"], world, metrics=settings.metrics)
    pod = app_pod(revision, SERVER, release_name(app, revision.id), settings, world, container)
    predictor = {
        "minReplicas": settings.replicas,
        "maxReplicas": max(settings.replicas, settings.replicas_max),
        "scaleMetric": "cpu",
        "scaleTarget": settings.cpu_target,
        "labels": pod["metadata"]["labels"],
        "deploymentStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        **pod["spec"],
    }
    return object_of(
        "serving.kserve.io/v1beta1", "InferenceService", named(app), namespace,
        labels_of(app, SERVER) | {REVISION: revision.id},
        annotations={MODE: "Standard"}, spec={"predictor": predictor},
    )  # fmt: skip
