"""Pods in the house style: restricted, told apart by their probes, stopped in peace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mainspring.adapters.kubernetes.objects import labels_of, selector_of
from mainspring.adapters.kubernetes.settings import KubernetesSettings
from mainspring.ports.cluster import Object
from mainspring.ports.target import Revision, Secret, World

__all__ = [
    "HTTP", "METRICS", "SECRETS", "USER", "app_container", "app_pod", "common_pod", "doubled", "pre_stop",
    "secret_variables", "secure_container",
]  # fmt: skip

HTTP, METRICS = 8080, 9090
USER = 10001
SECRETS = "/run/secrets/mainspring"
_SLEEP = (1, 30)
"""The first version whose preStop can sleep by itself."""
_PRE_STOP_S = 5
_LEAST_GRACE_S = 60


def secret_variables(secrets: Sequence[Secret]) -> dict[str, str]:
    """The variables that make settings read their secrets from files."""
    found = {}
    for secret in secrets:
        text = secret.text
        for name in secret.names:
            text = text.replace(f"{{{name}}}", f"{SECRETS}/{name}")
        found[secret.variable] = text
    return found


def app_pod(
    revision: Revision,
    component: str,
    config: str,
    settings: KubernetesSettings,
    world: World,
    container: dict[str, Any],
) -> Object:
    """The pod template of a component that runs the app's image.

    Args:
        revision: what it runs.
        component: ``server``, ``canary``, or a job's name.
        config: the ConfigMap with its variables.
        settings: how large it is.
        world: what the cluster can do.
        container: its name, arguments, ports, probes and lifecycle.
    """
    app = revision.app
    names = sorted({name for secret in app.secrets for name in secret.names} | _own_secrets(settings))
    mounts = [{"name": "tmp", "mountPath": "/tmp"}]
    volumes: list[Object] = [{"name": "tmp", "emptyDir": {"sizeLimit": settings.tmp}}]
    if names:
        mounts.append({"name": "secrets", "mountPath": SECRETS, "readOnly": True})  # type: ignore[dict-item]
        items = [{"key": name, "path": name} for name in names]
        held = {"secretName": settings.secret or app.name, "defaultMode": 0o440, "items": items}
        volumes.append({"name": "secrets", "secret": held})
    whole = {
        **container,
        "image": revision.release.image,
        "imagePullPolicy": "IfNotPresent",
        "envFrom": [{"configMapRef": {"name": config}}],
        "resources": {
            "requests": {"cpu": settings.cpu, "memory": settings.memory},
            "limits": {"cpu": doubled(settings.cpu), "memory": settings.memory},
        },
        "securityContext": secure_container(),
        "volumeMounts": mounts,
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    spec = common_pod(app.name, component, settings, grace=max(_LEAST_GRACE_S, round(app.grace) + _PRE_STOP_S + 10))
    return {
        "metadata": {"labels": labels_of(app.name, component, revision.id)},
        "spec": {**spec, "containers": [whole], "volumes": volumes},
    }


def app_container(name: str, arguments: Sequence[str], world: World, *, metrics: bool) -> Object:
    """The container that serves the app."""
    ports = [{"name": "http", "containerPort": HTTP, "protocol": "TCP"}]
    if metrics:
        ports.append({"name": "metrics", "containerPort": METRICS, "protocol": "TCP"})
    return {
        "name": name,
        "args": list(arguments),
        "ports": ports,
        "startupProbe": _probe("/v2/health/live", 2, 150),
        "readinessProbe": _probe("/v2/health/ready", 5, 2),
        "livenessProbe": _probe("/v2/health/live", 10, 3),
        "lifecycle": {"preStop": pre_stop(world)},
    }


def pre_stop(world: World, seconds: int = _PRE_STOP_S) -> Object:
    """Wait until no more requests are sent here, before SIGTERM."""
    if world.version >= _SLEEP:
        return {"sleep": {"seconds": seconds}}
    return {"exec": {"command": ["python3", "-c", f"import time; time.sleep({seconds})"]}}


def common_pod(app: str, component: str, settings: KubernetesSettings, *, grace: int) -> Object:
    """What every pod of ours has."""
    spread = {
        "maxSkew": 1,
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": selector_of(app, component)},
    }
    found: Object = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationGracePeriodSeconds": grace,
        "topologySpreadConstraints": [
            {**spread, "topologyKey": key} for key in ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
        ],
    }
    if settings.service_account:
        found["serviceAccountName"] = settings.service_account
    if settings.pull_secrets:
        found["imagePullSecrets"] = [{"name": name} for name in settings.pull_secrets]
    if settings.priority:
        found["priorityClassName"] = settings.priority
    return found


def secure_container() -> Object:
    """What no container of ours may."""
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def doubled(cpu: str) -> str:
    """Twice a quantity of CPU, in millicores."""
    milli = float(cpu[:-1]) if cpu.endswith("m") else float(cpu) * 1000
    return f"{round(milli * 2)}m"


def _probe(path: str, seconds: int, failures: int) -> Mapping[str, object]:
    return {
        "httpGet": {"path": path, "port": "http"},
        "periodSeconds": seconds,
        "timeoutSeconds": min(seconds, 3),
        "failureThreshold": failures,
    }


def _own_secrets(settings: KubernetesSettings) -> set[str]:
    return {"management-token"} if settings.metrics else set()
