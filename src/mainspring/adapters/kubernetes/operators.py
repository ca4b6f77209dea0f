"""Objects for operators that do what plain Kubernetes does not: secrets from outside, and scaling down to none."""

from __future__ import annotations

from mainspring.adapters.kubernetes.objects import labels_of, named, object_of
from mainspring.adapters.kubernetes.serving import BEHAVIOR, INFLIGHT
from mainspring.adapters.kubernetes.settings import ExternalSettings, KedaSettings, KubernetesSettings
from mainspring.ports.cluster import Object
from mainspring.ports.target import App

__all__ = ["external_secret", "scaled_object", "secret_names"]


def secret_names(app: App, settings: KubernetesSettings) -> list[str]:
    """The names in the app's Secret."""
    names = {name for secret in app.secrets for name in secret.names}
    return sorted(names | ({"management-token"} if settings.metrics else set()))


def external_secret(app: App, found: ExternalSettings, settings: KubernetesSettings, namespace: str) -> list[Object]:
    """What fills the app's Secret from a store outside; nothing where it has no secret.

    The Secret goes with the ExternalSecret, which owns it. What each is called there is all that is written: no value.
    """
    names = secret_names(app, settings)
    if not names:
        return []
    data = []
    for name in names:
        reference = {"key": found.key.replace("{name}", name)}
        if "{name}" not in found.key:
            reference["property"] = name
        data.append({"secretKey": name, "remoteRef": reference})
    spec = {
        "refreshInterval": f"{found.refresh_s}s",
        "secretStoreRef": {"name": found.store, "kind": "ClusterSecretStore" if found.cluster else "SecretStore"},
        "target": {"name": settings.secret or app.name, "creationPolicy": "Owner", "deletionPolicy": "Retain"},
        "data": data,
    }
    labels = labels_of(app.name, "secrets")
    return [object_of("external-secrets.io/v1", "ExternalSecret", named(app.name), namespace, labels, spec=spec)]


def scaled_object(
    app: str,
    component: str,
    replicas: tuple[int, int],
    keda: KedaSettings,
    settings: KubernetesSettings,
    namespace: str,
) -> Object:
    """A ScaledObject by requests under way, what waits and CPU; quick up, slow down, to none where something wakes it.

    While none runs there are no requests under way to be seen: what wakes it is asked of whatever stands before it.
    """
    name = named(app, component)

    def asked(query: str, threshold: int) -> Object:
        metadata = {"serverAddress": keda.prometheus, "query": query, "threshold": str(threshold)}
        return {"type": "prometheus", "metadata": metadata}

    cpu = {"type": "cpu", "metricType": "Utilization", "metadata": {"value": str(settings.cpu_target)}}
    triggers: list[Object] = [cpu]
    if settings.inflight and settings.metrics:
        of_own = f'sum({INFLIGHT}{{namespace="{namespace}",service="{name}"}})'
        triggers.insert(0, asked(of_own, settings.inflight))
    if keda.oldest:
        # Not an average over the replicas, as amounts are: an age is the same however many there are.
        triggers.insert(0, asked(keda.oldest, keda.oldest_s) | {"metricType": "Value"})
    if keda.wake:
        triggers.insert(0, asked(keda.wake, settings.inflight or 1))
    spec: Object = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
        "minReplicaCount": replicas[0],
        "maxReplicaCount": max(replicas),
        "pollingInterval": keda.poll_s,
        "cooldownPeriod": keda.cooldown_s,
        "advanced": {"horizontalPodAutoscalerConfig": {"behavior": BEHAVIOR}},
        "triggers": triggers,
    }
    if keda.wake:
        spec["idleReplicaCount"] = 0
    return object_of("keda.sh/v1alpha1", "ScaledObject", name, namespace, labels_of(app, component), spec=spec)
