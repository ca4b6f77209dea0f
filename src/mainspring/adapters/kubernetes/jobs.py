"""What runs at given times: CronJobs, and RayJobs on a cluster of their own."""

from __future__ import annotations

import shlex
from typing import Any

from mainspring.adapters.kubernetes.objects import REVISION, labels_of, named, object_of, release_name
from mainspring.adapters.kubernetes.pods import app_pod, secure_container
from mainspring.adapters.kubernetes.settings import KubernetesSettings, RaySettings
from mainspring.ports.cluster import Object
from mainspring.ports.target import Job, Revision, World

__all__ = ["cron_job", "ray_job"]

_NAME_LONGEST = 52
"""A CronJob's name: its Jobs append eleven characters."""
_POLICY = (1, 26)
_ZONE = (1, 27)
_USAGE, _CONFIGURATION = 2, 3
"""Exit statuses after which trying again changes nothing."""


def cron_job(job: Job, revision: Revision, settings: KubernetesSettings, namespace: str, world: World) -> Object:
    """A timetable as a CronJob: never two at once, not without end, and not again when the command is wrong."""
    app = revision.app.name
    component = named("job", job.name)
    container = {"name": "job", "args": list(job.arguments)}
    pod = app_pod(revision, component, release_name(app, revision.id), settings, world, container)
    pod["spec"]["restartPolicy"] = "Never"
    template: Object = {
        "backoffLimit": 2,
        "activeDeadlineSeconds": settings.job_deadline_s,
        "ttlSecondsAfterFinished": 86_400,
        "template": pod,
    }
    if world.version >= _POLICY:
        codes = {"containerName": "job", "operator": "In", "values": [_USAGE, _CONFIGURATION]}
        moved = [{"type": "DisruptionTarget", "status": "True"}]
        template["podFailurePolicy"] = {
            "rules": [{"action": "FailJob", "onExitCodes": codes}, {"action": "Ignore", "onPodConditions": moved}]
        }
    spec: Object = {
        "schedule": job.cron,
        "concurrencyPolicy": "Forbid",
        "startingDeadlineSeconds": 300,
        "successfulJobsHistoryLimit": 3,
        "failedJobsHistoryLimit": 3,
        "jobTemplate": {"metadata": {"labels": labels_of(app, component)}, "spec": template},
    }
    if world.version >= _ZONE:
        spec["timeZone"] = "Etc/UTC" if job.zone == "UTC" else job.zone
    name = named(app, job.name, longest=_NAME_LONGEST)
    return object_of(
        "batch/v1", "CronJob", name, namespace, labels_of(app, component) | {REVISION: revision.id}, spec=spec
    )


def ray_job(
    target: str, ray: RaySettings, revision: Revision, settings: KubernetesSettings, namespace: str, world: World
) -> Object:
    """A run of a job on a Ray cluster that lives as long as it; nothing of it is tried twice by itself.

    A finished RayJob stays finished, so that the name changes with the revision.
    """
    app = revision.app.name
    component = named("ray", target)
    image = ray.image or revision.release.image
    config = release_name(app, revision.id)

    def pod(role: str, arguments: dict[str, str]) -> Object:
        container: dict[str, Any] = {"name": f"ray-{role}", "securityContext": secure_container()}
        if role == "head":
            container["ports"] = [
                {"name": name, "containerPort": port, "protocol": "TCP"}
                for name, port in (("gcs", 6379), ("dashboard", 8265), ("client", 10001))
            ]
        made = app_pod(revision, component, config, settings, world, container)
        one = made["spec"]["containers"][0]
        one["image"] = image
        one["resources"] = {kind: {"cpu": ray.cpu, "memory": ray.memory} for kind in ("requests", "limits")}
        group: Object = {"rayStartParams": arguments, "template": made}
        return group

    workers = {
        "groupName": "workers",
        "replicas": ray.workers,
        "minReplicas": ray.workers,
        "maxReplicas": ray.workers,
        **pod("worker", {}),
    }
    spec = {
        "entrypoint": shlex.join(["python3", "-m", "mainspring", "run", target]),
        "submissionMode": "K8sJobMode",
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": 3600,
        "backoffLimit": 0,
        "activeDeadlineSeconds": settings.job_deadline_s,
        "rayClusterSpec": {
            "rayVersion": ray.version,
            "headGroupSpec": pod("head", {"dashboard-host": "0.0.0.0"}),
            "workerGroupSpecs": [workers],
        },
    }
    name = f"{named(app, target, longest=38)}-{revision.id[:8]}"
    return object_of(
        "ray.io/v1", "RayJob", name, namespace, labels_of(app, component) | {REVISION: revision.id}, spec=spec
    )
