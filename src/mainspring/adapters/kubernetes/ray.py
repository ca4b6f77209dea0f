"""What KubeRay runs: jobs on a cluster of their own, and the server as replicas of Ray Serve.

Both are of ``ray.io/v1``. Every pod is ours, in the house style: those that KubeRay makes by itself do not run under
restricted Pod Security, and no NetworkPolicy of ours would let them in.
"""

from __future__ import annotations

import json
import shlex
from typing import Any

from mainspring.adapters.kubernetes.objects import REVISION, SERVER, labels_of, named, object_of, release_name
from mainspring.adapters.kubernetes.pods import app_pod, secure_container
from mainspring.adapters.kubernetes.settings import KubernetesSettings, RaySettings
from mainspring.ports.cluster import Object
from mainspring.ports.target import Revision, World

__all__ = ["DASHBOARD", "SERVE", "ray_job", "ray_service", "served_by", "serves_on_ray"]

DASHBOARD, SERVE = 8265, 8000
"""The ports by which KubeRay's operator asks the head, and by which Ray Serve's proxies answer."""
_AGENT = 52365
"""The port of loopback by which a node's own agent says how it is."""
_HEAD = (("gcs", 6379), ("dashboard", DASHBOARD), ("client", 10001), ("serve", SERVE))
_APPLICATION = "mainspring.adapters.ray.application:server"


def serves_on_ray(settings: KubernetesSettings) -> bool:
    """Whether the server runs as replicas of Ray Serve."""
    return settings.ray is not None and settings.ray.serve


def served_by(app: str) -> str:
    """The Service that KubeRay makes before the proxies of an app's RayService."""
    return f"{named(app, SERVER, longest=_SERVICE_LONGEST)}-serve-svc"


_SERVICE_LONGEST = 40
"""A RayService's name: KubeRay cuts names of Services after 50 characters, from the front."""


def ray_job(
    target: str, ray: RaySettings, revision: Revision, settings: KubernetesSettings, namespace: str, world: World
) -> Object:
    """A run of a job on a Ray cluster that lives as long as it; nothing of it is tried twice by itself.

    A finished RayJob stays finished, so that the name changes with the revision.
    """
    app = revision.app.name
    component = named("ray", target)
    pods = _Pods(component, ray, revision, settings, world)
    submitter = pods.pod("ray-job-submitter")
    submitter["spec"]["restartPolicy"] = "Never"
    spec = {
        "entrypoint": shlex.join(["python3", "-m", "mainspring", "run", target]),
        "submissionMode": "K8sJobMode",
        "submitterPodTemplate": submitter,
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": 3600,
        "backoffLimit": 0,
        "activeDeadlineSeconds": settings.job_deadline_s,
        "rayClusterSpec": pods.cluster(),
    }
    name = f"{named(app, target, longest=38)}-{revision.id[:8]}"
    return object_of(
        "ray.io/v1", "RayJob", name, namespace, labels_of(app, component) | {REVISION: revision.id}, spec=spec
    )


def ray_service(
    ray: RaySettings, revision: Revision, settings: KubernetesSettings, namespace: str, world: World
) -> Object:
    """The server as replicas of Ray Serve, which scales them by their requests under way.

    Another revision is another cluster, to which KubeRay leads the requests once it answers.
    """
    app = revision.app
    replica = {
        "name": SERVER,
        "max_ongoing_requests": 4 * (settings.inflight or 8),
        "graceful_shutdown_timeout_s": round(app.grace) + 5,
        "autoscaling_config": {
            "min_replicas": settings.replicas,
            "max_replicas": max(settings.replicas, settings.replicas_max),
            "target_ongoing_requests": settings.inflight or 8,
        },
    }
    served = {"name": app.name, "route_prefix": "/", "import_path": _APPLICATION, "deployments": [replica]}
    config = {
        "proxy_location": "EveryNode",
        "http_options": {"host": "0.0.0.0", "port": SERVE},
        "applications": [served],
    }
    spec = {
        "serveConfigV2": json.dumps(config, indent=2),
        "rayClusterConfig": _Pods(SERVER, ray, revision, settings, world).cluster(served=True),
    }
    name, labels = named(app.name, SERVER, longest=_SERVICE_LONGEST), labels_of(app.name, SERVER)
    return object_of("ray.io/v1", "RayService", name, namespace, labels | {REVISION: revision.id}, spec=spec)


class _Pods:
    """The pods of a cluster, all of one image and of one size."""

    def __init__(
        self, component: str, ray: RaySettings, revision: Revision, settings: KubernetesSettings, world: World
    ) -> None:
        self._component, self._ray, self._revision = component, ray, revision
        self._settings, self._world = settings, world

    def pod(self, name: str, ports: tuple[tuple[str, int], ...] = ()) -> Object:
        container: dict[str, Any] = {"name": name, "securityContext": secure_container()}
        if ports:
            container["ports"] = [{"name": port, "containerPort": at, "protocol": "TCP"} for port, at in ports]
        config = release_name(self._revision.app.name, self._revision.id)
        made = app_pod(self._revision, self._component, config, self._settings, self._world, container)
        one = made["spec"]["containers"][0]
        one["image"] = self._ray.image or self._revision.release.image
        one["resources"] = {kind: {"cpu": self._ray.cpu, "memory": self._ray.memory} for kind in ("requests", "limits")}
        return made

    def node(self, name: str, ports: tuple[tuple[str, int], ...], served: bool) -> Object:
        """A node of the cluster, with probes of ours: those that KubeRay adds where there are none ask by wget."""
        pod = self.pod(name, ports)
        own = [f"http://127.0.0.1:{_AGENT}/api/local_raylet_healthz"]
        if name == "ray-head":
            own.append(f"http://127.0.0.1:{DASHBOARD}/api/gcs_healthz")
        ready = own + ([f"http://127.0.0.1:{SERVE}/-/healthz"] if served and name != "ray-head" else [])
        container = pod["spec"]["containers"][0]
        container["livenessProbe"] = _asks(own, 30, 120)
        container["readinessProbe"] = _asks(ready, 10, 1 if served and name != "ray-head" else 10)
        return pod

    def cluster(self, *, served: bool = False) -> Object:
        count = self._ray.workers
        head = {"rayStartParams": {"dashboard-host": "0.0.0.0"}, "template": self.node("ray-head", _HEAD, served)}
        workers = {
            "groupName": "workers",
            "replicas": count,
            "minReplicas": count,
            "maxReplicas": count,
            "rayStartParams": {},
            "template": self.node("ray-worker", (("serve", SERVE),), served),
        }
        return {"rayVersion": self._ray.version, "headGroupSpec": head, "workerGroupSpecs": [workers]}


def _asks(urls: list[str], after_s: int, failures: int) -> Object:
    """A probe by the image's Python: each of the addresses has to say ``success``, with the times that KubeRay has."""
    code = (
        "import sys, urllib.request as r; "
        "sys.exit(not all(b'success' in r.urlopen(one, timeout=2).read() for one in sys.argv[1:]))"
    )
    return {
        "exec": {"command": ["python3", "-S", "-c", code, *urls]},
        "initialDelaySeconds": after_s,
        "periodSeconds": 5,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }
