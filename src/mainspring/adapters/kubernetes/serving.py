"""The objects of the server: what runs it, finds it, scales it, guards it and watches it."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from mainspring.adapters.kubernetes.objects import (
    CANARY,
    RECORD,
    REVISION,
    SERVER,
    labels_of,
    named,
    object_of,
    release_name,
    selector_of,
)
from mainspring.adapters.kubernetes.pods import HTTP, METRICS, SECRETS, app_container, app_pod, secret_variables
from mainspring.adapters.kubernetes.ray import DASHBOARD, SERVE, served_by, serves_on_ray
from mainspring.adapters.kubernetes.settings import KubernetesSettings
from mainspring.ports.cluster import Object
from mainspring.ports.target import Revision, Split, World

__all__ = [
    "BEHAVIOR", "INFLIGHT", "autoscaler", "budget", "canary_replicas", "component_objects", "monitor",
    "network_policy", "pods_metric", "release_map", "route",
]  # fmt: skip

INFLIGHT = "mainspring_inflight_requests"
_UNHEALTHY_POLICY = (1, 27)
BEHAVIOR = {
    "scaleUp": {"stabilizationWindowSeconds": 0, "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]},
    "scaleDown": {
        "stabilizationWindowSeconds": 300,
        "policies": [{"type": "Percent", "value": 20, "periodSeconds": 60}],
    },
}


def release_map(revision: Revision, settings: KubernetesSettings, namespace: str, schedules: str) -> Object:
    """A release: its variables, and the record from which it can be rendered again.

    Args:
        revision: the revision.
        settings: of the target.
        namespace: where it goes.
        schedules: the timetables that the server keeps, since no CronJob does.
    """
    app = revision.app
    variables = {
        **revision.release.variables,
        **secret_variables(app.secrets),
        "MAINSPRING_SERVER_SCHEDULES": schedules,
    }
    if settings.metrics:
        variables |= {
            "MAINSPRING_MANAGEMENT_ENABLED": "true",
            "MAINSPRING_MANAGEMENT_HOST": "0.0.0.0",
            "MAINSPRING_MANAGEMENT_PORT": str(METRICS),
            "MAINSPRING_MANAGEMENT_EXPOSE": "health,prometheus",
            "MAINSPRING_MANAGEMENT_TOKEN": f"file:{SECRETS}/management-token",
        }
    return object_of(
        "v1", "ConfigMap", release_name(app.name, revision.id), namespace, labels_of(app.name, "release", revision.id),
        annotations={RECORD: msgspec.json.encode(revision, order="deterministic").decode()},
        data=dict(sorted(variables.items())), immutable=True,
    )  # fmt: skip


def component_objects(
    revision: Revision,
    component: str,
    replicas: tuple[int, int],
    settings: KubernetesSettings,
    namespace: str,
    world: World,
) -> list[Object]:
    """What runs a revision of the server: Deployment, Service, budget, and its autoscaler unless KEDA is to scale.

    Args:
        revision: what it runs.
        component: ``server`` or ``canary``.
        replicas: least and most.
        settings: of the target.
        namespace: where they go.
        world: what the cluster can do.
    """
    app = revision.app.name
    name, labels, selector = named(app, component), labels_of(app, component), selector_of(app, component)
    container = app_container(SERVER, ["serve"], world, metrics=settings.metrics)
    pod = app_pod(revision, component, release_name(app, revision.id), settings, world, container)
    deployment = object_of(
        "apps/v1", "Deployment", name, namespace, labels | {REVISION: revision.id},
        spec={
            "selector": {"matchLabels": selector},
            "revisionHistoryLimit": 3,
            "progressDeadlineSeconds": 600,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": pod,
        },
    )  # fmt: skip
    ports = [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}]
    if settings.metrics:
        ports.append({"name": "metrics", "port": METRICS, "targetPort": "metrics", "protocol": "TCP"})
    service = object_of(
        "v1", "Service", name, namespace, labels, spec={"type": "ClusterIP", "selector": selector, "ports": ports}
    )
    found = [deployment, service, budget(app, component, namespace, world)]
    if settings.keda is None:
        found.append(autoscaler(app, component, "Deployment", replicas, _metrics(settings), namespace))
    return found


def _metrics(settings: KubernetesSettings) -> list[Object]:
    cpu = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": settings.cpu_target}}
    found: list[Object] = [{"type": "Resource", "resource": cpu}]
    if settings.inflight and settings.metrics:
        found.insert(0, pods_metric(INFLIGHT, str(settings.inflight)))
    return found


def pods_metric(name: str, average: str) -> Object:
    """A metric of the pods themselves, by the cluster's adapter for custom metrics."""
    return {
        "type": "Pods",
        "pods": {"metric": {"name": name}, "target": {"type": "AverageValue", "averageValue": average}},
    }


def autoscaler(
    app: str, component: str, kind: str, replicas: tuple[int, int], metrics: list[Object], namespace: str
) -> Object:
    """A HorizontalPodAutoscaler: quick up, slow down."""
    name = named(app, component)
    return object_of(
        "autoscaling/v2", "HorizontalPodAutoscaler", name, namespace, labels_of(app, component),
        spec={
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": kind, "name": name},
            "minReplicas": replicas[0],
            "maxReplicas": max(replicas),
            "metrics": metrics,
            "behavior": BEHAVIOR,
        },
    )  # fmt: skip


def budget(app: str, component: str, namespace: str, world: World) -> Object:
    """A PodDisruptionBudget: one at a time; a pod that is ill anyway never holds up a node's drain."""
    spec: Object = {"maxUnavailable": 1, "selector": {"matchLabels": selector_of(app, component)}}
    if world.version >= _UNHEALTHY_POLICY:
        spec["unhealthyPodEvictionPolicy"] = "AlwaysAllow"
    return object_of(
        "policy/v1", "PodDisruptionBudget", named(app, component), namespace, labels_of(app, component), spec=spec
    )


def network_policy(app: str, settings: KubernetesSettings, namespace: str, engines: bool) -> list[Object]:
    """Who may ask the app's pods, and what they may reach."""
    asked: Object = {"ports": [{"port": SERVE if serves_on_ray(settings) else HTTP, "protocol": "TCP"}]}
    if "*" not in settings.clients:
        names = sorted({namespace, *settings.clients})
        asked["from"] = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": one}}} for one in names]
    ingress = [asked]
    if settings.ray is not None:  # its head and workers talk on many ports
        ingress.append({"from": [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": app}}}]})
        ingress.append(_from_namespace(settings.ray.operator, DASHBOARD, SERVE))
    if settings.metrics:
        ingress.append(_from_namespace(settings.prometheus, METRICS))
    dns = {"ports": [{"port": 53, "protocol": kind} for kind in ("UDP", "TCP")]}
    anywhere: Object = {} if not settings.egress else {"to": [{"ipBlock": {"cidr": one}} for one in settings.egress]}
    egress = [dns, anywhere]
    if settings.egress and engines:
        egress.append({"to": [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": app}}}]})
    found = [_policy(app, "app", {"app.kubernetes.io/name": app}, ingress, egress, namespace, engines)]
    if engines:
        own = {"from": [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": app}}}]}
        asked = {**own, "ports": [{"port": 8000, "protocol": "TCP"}]}
        watched = _from_namespace(settings.prometheus, 8000)
        chosen = {"app.kubernetes.io/name": app, "app.kubernetes.io/part-of": "engine"}
        found.append(_policy(app, "engine", chosen, [asked, watched], [dns], namespace, False))
    return found


def _from_namespace(name: str, *ports: int) -> Object:
    where = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}
    return {"from": [where], "ports": [{"port": port, "protocol": "TCP"} for port in ports]}


def _policy(
    app: str, part: str, chosen: Object, ingress: list[Object], egress: list[Object], namespace: str, but_engines: bool
) -> Object:
    selector: Object = {"matchLabels": chosen}
    if but_engines:
        selector["matchExpressions"] = [{"key": "app.kubernetes.io/part-of", "operator": "DoesNotExist"}]
    return object_of(
        "networking.k8s.io/v1", "NetworkPolicy", named(app, part), namespace, labels_of(app, part),
        spec={
            "podSelector": selector,
            "policyTypes": ["Ingress", "Egress"],
            "ingress": ingress,
            "egress": egress,
        },
    )  # fmt: skip


def monitor(app: str, component: str, settings: KubernetesSettings, namespace: str) -> Object:
    """A ServiceMonitor, by which a Prometheus operator has the metrics read."""
    credentials = {"name": settings.secret or app, "key": "management-token"}
    return object_of(
        "monitoring.coreos.com/v1", "ServiceMonitor", named(app, component), namespace, labels_of(app, component),
        spec={
            "selector": {"matchLabels": selector_of(app, component)},
            "endpoints": [
                {
                    "port": "metrics",
                    "path": "/actuator/prometheus",
                    "interval": "30s",
                    "authorization": {"type": "Bearer", "credentials": credentials},
                }
            ],
        },
    )  # fmt: skip


def route(app: str, split: Split | None, settings: KubernetesSettings, namespace: str) -> Object:
    """An HTTPRoute from the Gateway, which shares the requests out."""
    place, _, gateway = settings.gateway.rpartition("/")
    parent: dict[str, Any] = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": gateway}
    if place:
        parent["namespace"] = place
    percent = 0 if split is None else split.percent
    shares = [(SERVER, 100 - percent)] + ([] if split is None else [(CANARY, percent)])
    behind = [
        {"group": "", "kind": "Service", "name": named(app, component), "port": 80, "weight": weight}
        for component, weight in shares
    ]
    if serves_on_ray(settings):
        behind = [{"group": "", "kind": "Service", "name": served_by(app), "port": SERVE, "weight": 100}]
    spec: Object = {"parentRefs": [parent]}
    if settings.hostnames:
        spec["hostnames"] = list(settings.hostnames)
    everything = [{"path": {"type": "PathPrefix", "value": "/"}}]
    spec["rules"] = [{"matches": everything, "backendRefs": behind}]
    return object_of(
        "gateway.networking.k8s.io/v1", "HTTPRoute", named(app, SERVER), namespace, labels_of(app, SERVER), spec=spec
    )


def canary_replicas(settings: KubernetesSettings, percent: int) -> tuple[int, int]:
    """Least and most replicas for a share of the traffic."""
    return max(1, math.ceil(settings.replicas * percent / 100)), settings.replicas_max
